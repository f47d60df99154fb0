//! How long one goes on before others have their turn.

use super::yield_now;
use machine::clock;

/// Nanoseconds that anything may keep its CPU.
const LONGEST: u64 = 1_000_000;

/// The time since something long began, or others last had their turn. Whoever does what a program
/// can make as long as it likes looks at one between the pieces, which must be short: nobody waits
/// for a neighbour for more than a few milliseconds.
#[derive(Debug, Default)]
pub struct Stint {
    /// On the monotonic clock; `None` before the first look.
    end: Option<u64>,
}

impl Stint {
    /// Whether it has gone on for long enough; it begins anew then. The first look begins it.
    pub fn is_over(&mut self) -> bool {
        let now = clock::monotonic();
        match self.end {
            Some(end) if now >= end => {
                self.end = None;
                true
            }
            Some(_) => false,
            None => {
                self.end = Some(now + LONGEST);
                false
            }
        }
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

    #[test]
    fn it_is_over_after_a_while_and_begins_anew() {
        let mut stint = Stint::default();
        for _ in 0..2 {
            assert!(!stint.is_over(), "it begins");
            assert!(!stint.is_over());
            block_on(sleep_until(clock::monotonic() + LONGEST));
            assert!(stint.is_over());
        }
    }

    #[test]
    fn others_run_when_it_is_over() {
        let has_run = Arc::new(AtomicBool::new(false));
        let flag = has_run.clone();
        spawn("other", async move { flag.store(true, Ordering::Relaxed) });
        block_on(async {
            let mut stint = Stint::default();
            stint.give_way().await;
            stint.end = Some(0);
            stint.give_way().await;
            stint.give_way().await;
        });
        assert!(has_run.load(Ordering::Relaxed));
    }
}
