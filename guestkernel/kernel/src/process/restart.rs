//! System calls that go on where they were interrupted, rather than from their start: those that wait
//! for a while (`restart_syscall(2)`).

/// What is left of a call that a signal without a handler has interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Of `nanosleep(2)`.
    Sleep {
        /// The monotonic time at which it is over.
        deadline: u64,
        /// Where it stores what is left at another signal; 0 for nowhere.
        remaining: u64,
    },
    /// Of `poll(2)`.
    Poll {
        /// Where the descriptors are, and how many.
        files: (u64, u32),
        /// The monotonic time at which it is over.
        deadline: Option<u64>,
    },
    /// Of `futex(2)` with a timeout.
    Futex {
        /// Where the word is.
        address: u64,
        /// What it is to hold, and the bits to be woken by.
        value: (u32, u32),
        /// Whether only threads of one address space use it.
        is_private: bool,
        /// The monotonic time at which it is over.
        deadline: u64,
    },
}
