//! A value of any type, kept where it stands: what a driver remembers of a request that somebody
//! else holds, without an allocation and without the holder knowing the driver.

use core::any::{Any, TypeId};
use core::mem::MaybeUninit;
use core::ptr;

/// The words that a value may take.
const WORDS: usize = 8;

/// Room for one value of up to 64 bytes, aligned to 8 at most, of any type that may be sent to
/// another CPU.
///
/// Only who names the type that was put in gets the value out. Whoever holds it can see whether it
/// is empty, move it, and drop it.
#[derive(Default)]
pub struct InPlace {
    /// What is in `storage`; nothing there is initialised otherwise.
    kind: Option<&'static Kind>,
    storage: Storage,
}

struct Storage([MaybeUninit<u64>; WORDS]);

impl Default for Storage {
    fn default() -> Self {
        Self([const { MaybeUninit::uninit() }; WORDS])
    }
}

/// The type of a value, and how it is dropped.
struct Kind {
    id: TypeId,
    /// Drops the value at the address, which must be one of that type that nobody uses afterwards.
    drop: unsafe fn(*mut u64),
}

/// The kind that `T` is.
trait HasKind {
    const KIND: &'static Kind;
}

impl<T: Any + Send> HasKind for T {
    const KIND: &'static Kind = &Kind {
        id: TypeId::of::<T>(),
        drop: |value| {
            // SAFETY: as the field's documentation asks, `value` is a `T` that is not used again.
            unsafe { ptr::drop_in_place(value.cast::<T>()) }
        },
    };
}

// SAFETY: what is inside was `Send` when it was put in.
unsafe impl Send for InPlace {}
// SAFETY: a shared reference gives no access to what is inside.
unsafe impl Sync for InPlace {}

impl InPlace {
    /// Whether nothing is inside.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.kind.is_none()
    }

    /// Puts `value` inside, and drops what was there. A type that does not fit fails to compile.
    #[inline]
    pub fn put<T: Any + Send>(&mut self, value: T) {
        const {
            assert!(size_of::<T>() <= size_of::<Storage>(), "it is too large");
            assert!(
                align_of::<T>() <= align_of::<Storage>(),
                "it is aligned to more"
            );
        }
        self.clear();
        // SAFETY: the storage is valid for writes of its whole size and aligned as its type; the
        // assertions above say that a `T` needs no more of either. Nothing is overwritten that
        // would have to be dropped: `clear` has emptied it.
        unsafe { self.storage.0.as_mut_ptr().cast::<T>().write(value) };
        self.kind = Some(T::KIND);
    }

    /// The value inside, if it is a `T`.
    #[inline]
    pub fn get_mut<T: Any + Send>(&mut self) -> Option<&mut T> {
        if self.kind?.id != TypeId::of::<T>() {
            return None;
        }
        // SAFETY: `kind` is set by `put` alone, after it has written a value of the type with that
        // identity, and is taken before that value is dropped; so an initialised `T` is there. The
        // reference borrows `self`, so nobody else reaches it meanwhile.
        Some(unsafe { &mut *self.storage.0.as_mut_ptr().cast::<T>() })
    }

    /// Drops what is inside.
    #[inline]
    pub fn clear(&mut self) {
        // Taken first: should the value's own drop panic, it is not dropped twice.
        if let Some(kind) = self.kind.take() {
            // SAFETY: a value of that kind is there, see `get_mut`, and with `kind` taken nobody
            // reaches it again.
            unsafe { (kind.drop)(self.storage.0.as_mut_ptr().cast()) };
        }
    }
}

impl Drop for InPlace {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use alloc::sync::Arc;

    #[test]
    fn only_the_type_that_was_put_in_comes_out() {
        let mut place = InPlace::default();
        assert!(place.is_empty());
        assert!(place.get_mut::<u64>().is_none());
        place.put(7_u64);
        assert!(!place.is_empty());
        assert!(place.get_mut::<i64>().is_none());
        *place.get_mut::<u64>().unwrap() += 1;
        let mut moved = Box::new(place);
        assert_eq!(moved.get_mut::<u64>(), Some(&mut 8));
        moved.clear();
        assert!(moved.is_empty() && moved.get_mut::<u64>().is_none());
    }

    #[test]
    fn each_value_is_dropped_once() {
        let counted = Arc::new(());
        let mut place = InPlace::default();
        place.put([counted.clone(), counted.clone()]);
        assert_eq!(Arc::strong_count(&counted), 3);
        place.put(counted.clone());
        assert_eq!(Arc::strong_count(&counted), 2);
        let mut other = core::mem::take(&mut place);
        drop(place);
        assert_eq!(Arc::strong_count(&counted), 2);
        assert!(Arc::ptr_eq(other.get_mut::<Arc<()>>().unwrap(), &counted));
        drop(other);
        assert_eq!(Arc::strong_count(&counted), 1);
        let mut cleared = InPlace::default();
        cleared.put(counted.clone());
        cleared.clear();
        cleared.clear();
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn what_fits_exactly_keeps_its_bytes() {
        let mut place = InPlace::default();
        let all = core::array::from_fn::<u64, WORDS, _>(|index| index as u64);
        place.put(all);
        assert_eq!(place.get_mut::<[u64; WORDS]>(), Some(&mut { all }));
        place.put(());
        assert_eq!(place.get_mut::<()>(), Some(&mut ()));
    }
}
