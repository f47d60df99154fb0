//! Streams of bytes that drivers provide and files are made of.

use super::Readiness;
use crate::error::Result;
use core::task::{Context, Poll, Waker};

/// A stream of bytes to or from the outside, such as a console port.
pub trait ByteStream: Send + Sync {
    /// Bytes that have come in, at most as many as `out` holds; 0 at the end, or if `out` is
    /// empty.
    fn poll_read(&self, out: &mut [u8], context: &mut Context<'_>) -> Poll<Result<usize>>;

    /// Sends some of `bytes`: how many. `EPIPE` if nobody will take them.
    fn poll_write(&self, bytes: &[u8], context: &mut Context<'_>) -> Poll<Result<usize>>;

    /// Ready when everything that was written has left.
    fn poll_flush(&self, context: &mut Context<'_>) -> Poll<()>;

    /// Bytes that can be read without waiting.
    fn available(&self) -> usize;

    /// What it is ready for, as [`FileOps::poll_ready`](super::FileOps::poll_ready) tells it.
    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness;

    /// As [`FileOps::forget_waker`](super::FileOps::forget_waker).
    fn forget_waker(&self, waker: &Waker);
}
