//! Waiting for a time: a queue of timers for each CPU, for which it sets its own timer interrupt.
//!
//! A task adds a timer on the CPU that it runs on, and forgets it wherever it is then. What fires
//! wakes the task, which goes on where it ran last.

use super::this_cpu;
use super::timer_heap::{TimerHeap, TimerId};
#[cfg(not(loom))]
use crate::globals::global;
use crate::sync::{AtomicU64, Mutex, Ordering};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use machine::clock;

/// The timers of one CPU. In cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
struct Timers<W> {
    /// What to wake.
    queue: Mutex<TimerHeap<W>>,
    /// The earliest deadline, to be looked at without the lock; [`NEVER`] for none.
    ///
    /// Relaxed, though others change it: only the CPU itself adds timers, so what it reads is never
    /// later than what it has to keep. If another has just forgotten the earliest one, it looks for
    /// nothing once.
    earliest: AtomicU64,
}

/// No timer has this deadline.
const NEVER: u64 = u64::MAX;

#[cfg(not(loom))]
global! {
    static TIMERS: [Timers<Waker>; super::MAX_CPUS] =
        [const { Timers::new() }; super::MAX_CPUS];
}
#[cfg(loom)]
static TIMERS: spin::Lazy<[Timers<Waker>; super::MAX_CPUS]> =
    spin::Lazy::new(|| core::array::from_fn(|_| Timers::new()));

impl<W> Timers<W> {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            queue: Mutex::new(TimerHeap::new()),
            earliest: AtomicU64::new(NEVER),
        }
    }

    /// As above; loom's atomics are not made at compile time.
    #[cfg(loom)]
    fn new() -> Self {
        Self {
            queue: Mutex::new(TimerHeap::new()),
            earliest: AtomicU64::new(NEVER),
        }
    }

    /// Adds a timer and gives its number.
    fn add(&self, deadline: u64, what: W) -> TimerId {
        let mut queue = self.queue.lock();
        let id = queue.add(deadline, what);
        self.publish(&queue);
        id
    }

    /// Has the timer wake `what` instead; false if it has fired.
    fn change(&self, timer: TimerId, what: W) -> bool {
        match self.queue.lock().get_mut(timer) {
            Some(slot) => {
                *slot = what;
                true
            }
            None => false,
        }
    }

    /// Forgets a timer, unless it has fired; gives what it would have woken.
    fn forget(&self, timer: TimerId) -> Option<W> {
        let mut queue = self.queue.lock();
        let what = queue.remove(timer)?;
        self.publish(&queue);
        Some(what)
    }

    /// Takes a timer whose time has come.
    fn take_due(&self, now: u64) -> Option<W> {
        if self.earliest.load(Ordering::Relaxed) > now {
            return None;
        }
        let mut queue = self.queue.lock();
        let what = queue.take_due(now);
        self.publish(&queue);
        what
    }

    /// Under the lock, which orders it with other changes.
    fn publish(&self, queue: &TimerHeap<W>) {
        let earliest = queue.earliest().unwrap_or(NEVER);
        self.earliest.store(earliest, Ordering::Relaxed);
    }
}

/// A future that is ready at a time; dropping it forgets the timer.
#[derive(Debug)]
pub struct Sleep {
    deadline: u64,
    /// The CPU that has the timer, and its number there, once it has been added.
    timer: Option<(u32, TimerId)>,
}

/// Ready when [`clock::monotonic`] reaches `deadline`.
pub fn sleep_until(deadline: u64) -> Sleep {
    Sleep {
        deadline,
        timer: None,
    }
}

fn timers(cpu: u32) -> &'static Timers<Waker> {
    &TIMERS[cpu as usize % super::MAX_CPUS]
}

impl Sleep {
    /// The monotonic time, in nanoseconds, at which this is ready.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if clock::monotonic() >= self.deadline {
            return Poll::Ready(());
        }
        let waker = context.waker();
        let is_set = self
            .timer
            .is_some_and(|(cpu, id)| timers(cpu).change(id, waker.clone()));
        if !is_set {
            let cpu = this_cpu();
            let id = timers(cpu).add(self.deadline, waker.clone());
            self.timer = Some((cpu, id));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((cpu, id)) = self.timer {
            // The waker is dropped after the lock is released: it may be the last to hold a task.
            drop(timers(cpu).forget(id));
        }
    }
}

/// The earliest time that somebody waits for on this CPU.
pub(super) fn next_deadline() -> Option<u64> {
    let earliest = timers(this_cpu()).earliest.load(Ordering::Relaxed);
    Some(earliest).filter(|deadline| *deadline != NEVER)
}

/// Wakes those of this CPU whose time has come; false if there was none.
pub(super) fn fire() -> bool {
    let timers = timers(this_cpu());
    if timers.earliest.load(Ordering::Relaxed) == NEVER {
        return false;
    }
    let now = clock::monotonic();
    let mut has_fired = false;
    while let Some(waker) = timers.take_due(now) {
        waker.wake();
        has_fired = true;
    }
    has_fired
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::block_on;
    use super::*;

    #[test]
    fn sleeping_takes_its_time() {
        let start = clock::monotonic();
        block_on(async {
            sleep_until(start + 2_000_000).await;
            sleep_until(start + 1_000_000).await;
        });
        assert!(clock::monotonic() >= start + 2_000_000);
    }

    #[test]
    fn timers_fire_in_order_and_forgotten_ones_do_not() {
        let timers = Timers::new();
        let [late, early, gone] = [30, 10, 10].map(|deadline| timers.add(deadline, deadline));
        assert_eq!(timers.forget(gone), Some(10));
        assert_eq!(timers.forget(gone), None);
        assert!(timers.change(early, 11));
        assert_eq!(timers.take_due(9), None);
        assert_eq!(timers.take_due(10), Some(11));
        assert!(!timers.change(early, 12));
        assert_eq!(timers.take_due(10), None);
        assert_eq!(timers.take_due(30), Some(30));
        assert_eq!(timers.forget(late), None);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use alloc::sync::Arc;
    use loom::thread;

    /// A CPU adds and fires timers while another one forgets one of them.
    #[test]
    fn a_timer_fires_or_is_forgotten_and_hides_no_other() {
        loom::model(|| {
            let timers = Arc::new(Timers::new());
            let first = timers.add(1, 'a');
            let other = {
                let timers = timers.clone();
                thread::spawn(move || timers.forget(first).is_some())
            };
            timers.add(2, 'b');
            assert!(
                timers.earliest.load(Ordering::Relaxed) <= 2,
                "it would not be waited for"
            );
            let has_fired = timers.take_due(1).is_some();
            assert_eq!(timers.take_due(2), Some('b'));
            assert_ne!(other.join().unwrap(), has_fired);
            assert_eq!(timers.earliest.load(Ordering::Relaxed), NEVER);
        });
    }
}
