//! How long a ring is seen to at a time.

use crate::executor::Stint;

/// Requests that are seen to without a look at the clock.
const AT_ONCE: u32 = 2;

/// The requests of a ring that are seen to, one after the other, until others are to have their turn.
#[derive(Debug, Default)]
pub(super) struct Pace {
    stint: Stint,
    requests: u32,
}

impl Pace {
    /// One more request was seen to: whether it is time for others.
    #[inline]
    pub(super) fn is_over(&mut self) -> bool {
        self.requests += 1;
        self.requests.is_multiple_of(AT_ONCE) && self.stint.is_over()
    }
}
