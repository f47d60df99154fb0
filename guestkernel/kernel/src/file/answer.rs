//! The result of an operation that a local file system has at once and a remote one later.

use crate::error::{Errno, Result};
use alloc::boxed::Box;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

/// A boxed future, as trait methods return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A future that needs no allocation if the result is there already.
pub enum Answer<'a, T> {
    /// Here it is; `None` once it was taken.
    Ready(Option<Result<T>>),
    /// It takes time.
    Later(BoxFuture<'a, Result<T>>),
}

impl<'a, T> Answer<'a, T> {
    /// A result that is there already.
    pub fn ready(result: Result<T>) -> Self {
        Self::Ready(Some(result))
    }

    /// A result that `future` will give.
    pub fn later(future: impl Future<Output = Result<T>> + Send + 'a) -> Self {
        Self::Later(Box::pin(future))
    }

    /// The result, with `then` applied to what went well.
    pub fn and_then<U>(self, then: impl FnOnce(T) -> Result<U> + Send + 'a) -> Answer<'a, U>
    where
        T: 'a,
    {
        match self {
            Self::Ready(result) => Answer::Ready(result.map(|result| result.and_then(then))),
            Self::Later(future) => Answer::later(async { future.await.and_then(then) }),
        }
    }

    /// The result, if it is there already.
    pub fn now(self) -> Option<Result<T>> {
        match self {
            Self::Ready(result) => result,
            Self::Later(_) => None,
        }
    }
}

impl<T> From<Errno> for Answer<'_, T> {
    fn from(error: Errno) -> Self {
        Self::ready(Err(error))
    }
}

impl<T: Unpin> Future for Answer<'_, T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        match self.get_mut() {
            // A future may panic when it is polled again after it was ready; this one waits.
            Self::Ready(result) => result.take().map_or(Poll::Pending, Poll::Ready),
            Self::Later(future) => future.as_mut().poll(context),
        }
    }
}
