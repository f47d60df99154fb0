//! Statics of which each machine has its own.

/// Defines a static. In unit tests each thread of the host has one of its own, as it has a simulated
/// machine of its own ([`machine::hosted`]): no test runs the tasks of another.
macro_rules! global {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$attribute])*
        #[cfg(not(test))]
        static $name: $type = $value;
        $(#[$attribute])*
        #[cfg(test)]
        static $name: crate::globals::PerThread<$type> = {
            std::thread_local! {
                static OWN: &'static $type =
                    std::boxed::Box::leak(std::boxed::Box::<$type>::new($value));
            }
            crate::globals::PerThread(&OWN)
        };
    };
}
pub(crate) use global;

/// What each thread has one of.
#[cfg(test)]
pub(crate) struct PerThread<T: 'static>(pub(crate) &'static std::thread::LocalKey<&'static T>);

#[cfg(test)]
impl<T> core::ops::Deref for PerThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.with(|own| *own)
    }
}
