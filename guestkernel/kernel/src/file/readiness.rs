//! What a file is ready for.

use bitflags::bitflags;
use linux_raw_sys::general as raw;

bitflags! {
    /// What a file is ready for: the events of `poll(2)`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Readiness: u32 {
        /// There is something to read, or the end.
        const IN = raw::POLLIN;
        /// Something urgent.
        const PRIORITY = raw::POLLPRI;
        /// There is room to write.
        const OUT = raw::POLLOUT;
        /// An error; reported whether asked for or not.
        const ERROR = raw::POLLERR;
        /// The other end is gone; reported whether asked for or not.
        const HANG_UP = raw::POLLHUP;
        /// The file descriptor is not open; reported whether asked for or not.
        const INVALID = raw::POLLNVAL;
        /// As `IN`.
        const READ_NORMAL = raw::POLLRDNORM;
        /// As `OUT`.
        const WRITE_NORMAL = raw::POLLWRNORM;
        /// The other end will write no more.
        const READ_HANG_UP = raw::POLLRDHUP;
        /// A completion of a ring has brought it about (`EPOLL_URING_WAKE` of Linux, which programs do
        /// not see): who tells of it by another completion would never come to an end.
        const BY_RING = 1 << 27;
    }
}

impl Readiness {
    /// Something to read.
    pub const READABLE: Self = Self::IN.union(Self::READ_NORMAL);
    /// Room to write.
    pub const WRITABLE: Self = Self::OUT.union(Self::WRITE_NORMAL);
    /// What a wait for `interest` hears of, as bits of a [`WaitQueue`](crate::executor::WaitQueue).
    pub fn heard(interest: Self) -> u32 {
        (interest | Self::ALWAYS | Self::READ_HANG_UP).bits()
    }

    /// What is reported whether asked for or not.
    pub const ALWAYS: Self = Self::ERROR.union(Self::HANG_UP).union(Self::INVALID);
}
