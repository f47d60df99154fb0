//! How long one goes on before others have their turn.

use super::yield_now;
use machine::clock;

/// Nanoseconds in the unit of a stint, as a shift.
const UNIT: u32 = 17;
/// How long anything may keep its CPU: about a millisecond.
const LONGEST: u16 = 8;

/// The time since something long began, or others last had their turn. Whoever does what a program
/// can make as long as it likes looks at one between the pieces, which must be short: nobody waits
/// for a neighbour for more than a few milliseconds.
#[derive(Debug, Default)]
pub struct Stint {
    /// On the monotonic clock, in units, the upper bits left out; 0 before the first look.
    end: u16,
}

impl Stint {
    /// Whether it has gone on for long enough; it begins anew then. The first look begins it.
    pub fn is_over(&mut self) -> bool {
        let now = (clock::monotonic() >> UNIT) as u16;
        if self.end == 0 {
            self.end = now.wrapping_add(LONGEST).max(1);
            return false;
        }
        // What is further ahead than that was long ago. It may have been so long ago that it seems to
        // be near; then this goes on for a little.
        let is_over = !(1..=LONGEST).contains(&self.end.wrapping_sub(now));
        if is_over {
            self.end = 0;
        }
        is_over
    }

    /// Lets everything else run that is ready, if it has gone on for long enough.
    pub async fn give_way(&mut self) {
        if self.is_over() {
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{block_on, sleep_until, spawn};
    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicBool, Ordering};

    fn let_pass(nanoseconds: u64) {
        block_on(sleep_until(clock::monotonic() + nanoseconds));
    }

    #[test]
    fn it_is_over_after_a_while_and_begins_anew() {
        let mut stint = Stint::default();
        for pause in [u64::from(LONGEST) << UNIT, 5_000_000_000, 60_000_000_000] {
            assert!(!stint.is_over(), "it begins");
            assert!(!stint.is_over());
            let_pass(pause);
            assert!(stint.is_over(), "after {pause} ns");
        }
    }

    #[test]
    fn others_run_when_it_is_over() {
        let mut stint = Stint::default();
        assert!(!stint.is_over());
        let_pass(u64::from(LONGEST) << UNIT);
        let has_run = Arc::new(AtomicBool::new(false));
        let flag = has_run.clone();
        spawn("other", async move { flag.store(true, Ordering::Relaxed) });
        block_on(stint.give_way());
        assert!(has_run.load(Ordering::Relaxed));
    }
}
