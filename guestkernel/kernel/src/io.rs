//! One read or write, as an object: where its bytes go, how far it has come, what it waits for.
//!
//! A file's [`poll_io`](crate::file::FileOps::poll_io) advances an [`Io`] without allocating. The
//! system call awaits it; an io_uring request holds it in its slot.

use crate::error::{Errno, Result};
use crate::executor::{BoxFuture, Stint};
use crate::mm::IoBuffer;
use bitflags::bitflags;
use core::task::{Context, Poll, ready};
use linux_raw_sys::general as raw;
use machine::{InPlace, PAGE_SIZE};

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the file into the buffer.
    Read,
    /// From the buffer into the file.
    Write,
}

bitflags! {
    /// How a read or write is done: `RWF_*` of `preadv2(2)` and what the open flags imply.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct IoFlags: u32 {
        /// Fail with `EAGAIN` rather than wait (`RWF_NOWAIT`, `O_NONBLOCK` where that counts).
        const NOWAIT = 1 << 0;
        /// Poll for completion (`RWF_HIPRI`, IOPOLL rings).
        const HIGH_PRIORITY = 1 << 1;
        /// The data is durable when the write completes (`RWF_DSYNC`, `O_DSYNC`).
        const DATA_SYNC = 1 << 2;
        /// As above, with metadata (`RWF_SYNC`, `O_SYNC`).
        const SYNC = 1 << 3;
        /// Write at the end of the file (`RWF_APPEND`, `O_APPEND`).
        const APPEND = 1 << 4;
        /// No copy in between: the device accesses the buffer (`O_DIRECT`).
        const DIRECT = 1 << 5;
        /// The open file has checked it and filled in what its own flags imply.
        const STARTED = 1 << 6;
        /// It starts at the open file's own position, and moves that.
        const OWN_POSITION = 1 << 7;
        /// Write where it says although the file appends (`RWF_NOAPPEND`).
        const NO_APPEND = 1 << 8;
        /// Writing to nobody sends no SIGPIPE (`RWF_NOSIGNAL`).
        const NO_SIGNAL = 1 << 9;
        /// Wait although the open file is not to (`O_NONBLOCK`), where `RWF_NOWAIT` would mean
        /// something: what a ring does.
        const PATIENT = 1 << 10;
        /// It waits until the file is ready, but not for more than that: `PATIENT` with `O_NONBLOCK`.
        const ONLY_FOR_READINESS = 1 << 11;
    }
}

/// Those of `RWF_*` that linux-raw-sys does not have.
const RWF_NOAPPEND: u32 = 0x20;
const RWF_NOSIGNAL: u32 = 0x100;

impl IoFlags {
    /// What `RWF_*` mean for a file; `supports_nowait` tells whether [`NOWAIT`](Self::NOWAIT) means
    /// something there.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for what is not known or the file does not do, `EINVAL` for what contradicts
    /// itself.
    #[inline]
    pub fn from_rwf(flags: u32, supports_nowait: impl FnOnce() -> bool) -> Result<Self> {
        if flags == 0 {
            return Ok(Self::empty());
        }
        let mut left = flags;
        let mut decoded = Self::empty();
        for (bit, flag) in [
            (raw::RWF_HIPRI, Self::HIGH_PRIORITY),
            (raw::RWF_DSYNC, Self::DATA_SYNC),
            (raw::RWF_SYNC, Self::SYNC),
            (raw::RWF_NOWAIT, Self::NOWAIT),
            (raw::RWF_APPEND, Self::APPEND),
            (RWF_NOAPPEND, Self::NO_APPEND),
            (RWF_NOSIGNAL, Self::NO_SIGNAL),
        ] {
            decoded.set(flag, flags & bit != 0);
            left &= !bit;
        }
        if left != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if decoded.contains(Self::APPEND | Self::NO_APPEND) {
            return Err(Errno::EINVAL);
        }
        if decoded.contains(Self::NOWAIT) && !supports_nowait() {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(decoded)
    }
}

/// One read or write.
pub struct Io {
    /// Which way the bytes go.
    pub direction: Direction,
    /// The byte of the file at which it starts; `None` for the file's own position or a stream.
    pub position: Option<u64>,
    /// The memory side.
    pub buffer: IoBuffer,
    /// How it is done.
    pub flags: IoFlags,
    /// Bytes done so far, where a file does it in parts.
    pub done: usize,
    /// What the file's driver remembers of the device's work; empty as long as no device was asked.
    pub in_flight: InPlace,
    /// A page of the buffer that is being read, since the transfer needs it to go on.
    absent: Option<BoxFuture<'static, Result<()>>>,
    stint: Stint,
}

impl Io {
    /// Bytes that are moved without a look at the clock.
    pub const PART: usize = 1 << 16;

    /// A read or write that has not started.
    pub fn new(
        direction: Direction,
        position: Option<u64>,
        buffer: IoBuffer,
        flags: IoFlags,
    ) -> Self {
        Self {
            direction,
            position,
            buffer,
            flags,
            done: 0,
            in_flight: InPlace::default(),
            absent: None,
            stint: Stint::default(),
        }
    }

    /// Whether others are to have their turn: a file that does it in parts of at most a page, or
    /// in parts that end at multiples of [`PART`](Self::PART), asks between two, gives
    /// [`Errno::GIVE_WAY`] then, and is polled again with what is done kept.
    #[inline]
    pub fn must_give_way(&mut self) -> bool {
        // The clock is looked at once a part.
        self.done >= Self::PART && self.done % Self::PART < PAGE_SIZE && self.look_at_clock()
    }

    #[cold]
    fn look_at_clock(&mut self) -> bool {
        self.stint.is_over()
    }

    /// What it gives when it has met `error`: what was done before, if anything. An absent page is
    /// waited for, and then it goes on.
    ///
    /// # Errors
    ///
    /// `error` if nothing was done, or if it is [`Errno::ABSENT`] or [`Errno::GIVE_WAY`].
    pub fn cut_short(&self, error: Errno) -> Result<usize> {
        match error {
            Errno::ABSENT | Errno::GIVE_WAY => Err(error),
            error if self.done == 0 => Err(error),
            _ => Ok(self.done),
        }
    }

    /// Whether a page of the buffer is being read.
    #[inline]
    pub(crate) fn is_absent(&self) -> bool {
        self.absent.is_some()
    }

    /// Gets the page that the buffer has missed.
    ///
    /// # Errors
    ///
    /// `EFAULT` or `ENOMEM` if it cannot be had.
    #[cold]
    pub(crate) fn poll_absent(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let buffer = &self.buffer;
        let future = self.absent.get_or_insert_with(|| buffer.bring_in_absent());
        let result = ready!(future.as_mut().poll(context));
        self.absent = None;
        Poll::Ready(result)
    }
}
