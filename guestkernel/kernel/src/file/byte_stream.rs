//! Streams of bytes that drivers provide and files are made of.

use super::Readiness;
use crate::error::{Errno, Result};
use core::task::{Context, Poll, Waker};

/// Output that the other end of a stream did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub errno: Errno,
    /// Bytes, of those that were written last.
    pub bytes: usize,
}

/// A stream of bytes to or from the outside, such as a console port.
pub trait ByteStream: Send + Sync {
    /// Bytes that have come in, at most as many as `out` holds; 0 at the end, or if `out` is
    /// empty.
    fn poll_read(&self, out: &mut [u8], context: &mut Context<'_>) -> Poll<Result<usize>>;

    /// Sends some of `bytes`: how many. `EPIPE` if nobody will take them.
    fn poll_write(&self, bytes: &[u8], context: &mut Context<'_>) -> Poll<Result<usize>>;

    /// Ready when everything that was written has left.
    fn poll_flush(&self, context: &mut Context<'_>) -> Poll<()>;

    /// Ready when it is known what became of everything that was written: with what was refused, which
    /// is told once. Where the other end does not refuse anything, it is ready at once.
    fn poll_settled(&self, context: &mut Context<'_>) -> Poll<Option<Refusal>> {
        let _ = context;
        Poll::Ready(None)
    }

    /// Bytes that can be read without waiting.
    fn available(&self) -> usize;

    /// What it is ready for, as [`FileOps::poll_ready`](super::FileOps::poll_ready) tells it.
    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness;

    /// As [`FileOps::forget_waker`](super::FileOps::forget_waker).
    fn forget_waker(&self, waker: &Waker);
}
