//! Which CPU runs what: a queue for each CPU, what each CPU is doing, and how threads get from one
//! CPU to another. Only decisions: nothing is run or interrupted here, so that all of it can be
//! model-checked (`make loom`).
//!
//! Three words decide whether what is queued is noticed.
//!
//! - *What a CPU does* ([`Doing`]): a CPU that is about to poll, to halt, or to run a program
//!   without a time limit says so, and then looks at its queue a last time. Whoever queues something
//!   there does it in the other order: queue, then look what the CPU does. Between the two steps
//!   each has a sequentially consistent fence; so either the CPU sees the entry, or the other
//!   sees that it must be roused. A CPU that polls needs no interrupt for that.
//! - *Who is idle*: a bit for each CPU that polls or halts and that nobody has chosen for a thread
//!   yet. Choosing takes the bit away, so that two threads do not wait for the same idle CPU.
//! - *Who is overloaded*: a bit for each CPU in whose queue threads wait that could run on any CPU.
//!   It changes under the lock of that queue only. A CPU sets its idle bit, then looks for overloaded
//!   ones; whoever queues a thread behind another sets the overloaded bit, then looks for idle CPUs.
//!   With a fence between the two steps of each, no thread waits while a CPU is idle.

use super::queue::{Entry, Queue};
use crate::sync::{AtomicU8, AtomicU64, Ordering, fence};
use alloc::collections::VecDeque;

/// What a CPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Doing {
    /// It runs the kernel, or a program until its time slice is over: it will look at its queue.
    Busy,
    /// It looks at its queue all the time.
    Polling,
    /// It waits for an interrupt.
    Halted,
    /// It runs a program, and nothing makes it look at its queue.
    Unlimited,
}

impl Doing {
    const ALL: [Self; 4] = [Self::Busy, Self::Polling, Self::Halted, Self::Unlimited];

    fn from(number: u8) -> Self {
        Self::ALL[usize::from(number) % Self::ALL.len()]
    }
}

/// A value in cache lines of its own: processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// What belongs to one CPU.
#[derive(Debug)]
struct Cpu<T> {
    /// A [`Doing`]. Read by whoever looks for a CPU, so apart from the queues.
    doing: Apart<AtomicU8>,
    /// Tasks of the kernel and rings: each runs for a moment.
    work: Apart<Queue<T>>,
    /// Threads that wait for the CPU to run their programs on.
    threads: Apart<Queue<T>>,
}

/// The queues of `N` CPUs.
#[derive(Debug)]
pub(super) struct Scheduler<T, const N: usize> {
    cpus: [Cpu<T>; N],
    idle: Apart<AtomicU64>,
    overloaded: Apart<AtomicU64>,
    /// The CPUs that run.
    all: AtomicU64,
}

/// What decides where a thread is to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuChoice {
    /// The CPUs that it may use.
    pub(super) allowed: u64,
    /// The CPU that it ran on last.
    pub(super) last: u32,
    /// This CPU has just run it, and it does not wait for anything.
    pub(super) goes_on: bool,
}

/// How many of the first threads in a queue its CPU takes at once: they do not make it overloaded.
#[derive(Clone, Copy, Debug)]
struct Spare(usize);

/// CPUs, CPU N as bit N.
pub(super) type CpuSet = u64;

fn bit(number: u32) -> u64 {
    1_u64.checked_shl(number).unwrap_or(0)
}

/// The numbers of the CPUs in a set.
pub(super) fn members(mut set: CpuSet) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let number = (set != 0).then(|| set.trailing_zeros())?;
        set &= set - 1;
        Some(number)
    })
}

impl<T, const N: usize> Scheduler<T, N> {
    /// Empty queues, and one CPU that runs.
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            cpus: [const {
                Cpu {
                    doing: Apart(AtomicU8::new(Doing::Busy as u8)),
                    work: Apart(Queue::new()),
                    threads: Apart(Queue::new()),
                }
            }; N],
            idle: Apart(AtomicU64::new(0)),
            overloaded: Apart(AtomicU64::new(0)),
            all: AtomicU64::new(1),
        }
    }

    /// As above; loom's atomics are not made at compile time.
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            cpus: core::array::from_fn(|_| Cpu {
                doing: Apart(AtomicU8::new(Doing::Busy as u8)),
                work: Apart(Queue::new()),
                threads: Apart(Queue::new()),
            }),
            idle: Apart(AtomicU64::new(0)),
            overloaded: Apart(AtomicU64::new(0)),
            all: AtomicU64::new(1),
        }
    }

    /// So many CPUs run from now on.
    pub(super) fn set_count(&self, count: u32) {
        let all = u64::MAX >> (64 - count.clamp(1, 64));
        self.all.store(all, Ordering::Relaxed);
    }

    /// The CPUs that run, as a set.
    #[inline]
    pub(super) fn all(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    #[inline]
    fn cpu(&self, number: u32) -> &Cpu<T> {
        &self.cpus[number as usize % N]
    }

    fn doing(&self, number: u32) -> Doing {
        Doing::from(self.cpu(number).doing.0.load(Ordering::Relaxed))
    }

    /// CPU `this` looks at its queues all the time from now on.
    pub(super) fn polls(&self, this: u32) {
        self.idles(this, Doing::Polling);
    }

    /// CPU `this` is about to halt, and looks whether it has to do something once more before.
    pub(super) fn halts(&self, this: u32) {
        self.idles(this, Doing::Halted);
    }

    fn idles(&self, this: u32, doing: Doing) {
        self.cpu(this).doing.0.store(doing as u8, Ordering::Relaxed);
        self.idle.0.fetch_or(bit(this), Ordering::Relaxed);
        // Before the look at the queues: see the head of this file.
        fence(Ordering::SeqCst);
    }

    /// CPU `this` is about to run a program for as long as it likes, and looks at the queues once
    /// more before.
    #[inline]
    pub(super) fn runs_unlimited(&self, this: u32) {
        let doing = &self.cpu(this).doing.0;
        // If it has said so before, so has it made the fence.
        if doing.load(Ordering::Relaxed) != Doing::Unlimited as u8 {
            doing.store(Doing::Unlimited as u8, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
    }

    /// CPU `this` will look at its queues.
    #[inline]
    pub(super) fn note_busy(&self, this: u32) {
        let doing = &self.cpu(this).doing.0;
        if doing.load(Ordering::Relaxed) != Doing::Busy as u8 {
            // Acquires what was queued by whoever has roused it before.
            doing.swap(Doing::Busy as u8, Ordering::AcqRel);
        }
        if self.idle.0.load(Ordering::Relaxed) & bit(this) != 0 {
            self.idle.0.fetch_and(!bit(this), Ordering::Relaxed);
        }
    }

    /// Has CPU `number` look at its queues after something was queued there; gives what it did.
    fn rouse(&self, number: u32) -> Doing {
        // After the queue, before the look at what it does: see the head of this file.
        fence(Ordering::SeqCst);
        let doing = &self.cpu(number).doing.0;
        if doing.load(Ordering::Relaxed) == Doing::Busy as u8 {
            return Doing::Busy;
        }
        // Releases the queue to `note_busy`, which the CPU executes before it looks.
        Doing::from(doing.swap(Doing::Busy as u8, Ordering::AcqRel))
    }

    /// Has CPU `number` look at what has changed; true if it must be interrupted for that.
    #[must_use]
    pub(super) fn must_interrupt(&self, number: u32) -> bool {
        matches!(self.rouse(number), Doing::Halted | Doing::Unlimited)
    }

    /// Chooses an idle CPU among `allowed`, which is then not idle for others. That at which the
    /// thread ran `last` has its memory in its cache, but one that polls need not be interrupted.
    fn choose_idle(&self, this: u32, allowed: u64, last: u32) -> Option<u32> {
        let mut idle = self.idle.0.load(Ordering::Relaxed) & allowed;
        while idle != 0 {
            let is_awake = |number: u32| number == this || self.doing(number) == Doing::Polling;
            let [last, this] =
                [last, this].map(|number| Some(number).filter(|_| idle & bit(number) != 0));
            let choice = last
                .filter(|last| is_awake(*last))
                .or(this)
                .or_else(|| members(idle).find(|number| is_awake(*number)))
                .or(last)
                .unwrap_or(idle.trailing_zeros());
            // Only who takes the bit away has chosen the CPU.
            let before = self.idle.0.fetch_and(!bit(choice), Ordering::Relaxed);
            if before & bit(choice) != 0 {
                return Some(choice);
            }
            idle &= !bit(choice);
        }
        None
    }

    /// Threads that a CPU, which somebody has chosen if it is idle, runs or has waiting.
    fn load(&self, number: u32) -> usize {
        let waiting = self.cpu(number).threads.0.len();
        match self.doing(number) {
            Doing::Busy | Doing::Unlimited => waiting + 1,
            // The one that it was chosen for may still be on its way.
            Doing::Polling | Doing::Halted => waiting.max(1),
        }
    }

    /// The CPU among `allowed` that has least to do. If there is nothing between them it is this
    /// one, which need not be interrupted, unless the thread's last one looks at its queue soon.
    fn choose_busy(&self, this: u32, allowed: u64, last: u32) -> u32 {
        let is_allowed = |number: u32| allowed & bit(number) != 0;
        let mut choice = match is_allowed(this) {
            true => this,
            false => allowed.trailing_zeros(),
        };
        let mut least = self.load(choice);
        if is_allowed(last) && last != choice {
            let load = self.load(last);
            let is_better = load == least && self.doing(last) == Doing::Busy;
            if load < least || is_better {
                (choice, least) = (last, load);
            }
        }
        for number in members(allowed) {
            let load = self.load(number);
            if load < least {
                (choice, least) = (number, load);
            }
        }
        choice
    }

    /// Adds to the queue of CPU `number`; true if that makes it overloaded.
    fn push(&self, number: u32, entry: Entry<T>, spare: Spare) -> bool {
        let mut is_overloaded = false;
        self.cpu(number).threads.0.push(entry, |ready| {
            is_overloaded = self.mark_overloaded(number, ready, spare);
        });
        is_overloaded
    }

    /// Sets the overloaded bit of a CPU, whose queue is locked, if that is so; true if it is.
    fn mark_overloaded(
        &self,
        number: u32,
        ready: &VecDeque<Entry<T>>,
        Spare(spare): Spare,
    ) -> bool {
        let all = self.all();
        let is_overloaded = ready
            .iter()
            .skip(spare)
            .any(|entry| entry.allowed & all == all);
        if is_overloaded && self.overloaded.0.load(Ordering::Relaxed) & bit(number) == 0 {
            self.overloaded.0.fetch_or(bit(number), Ordering::Relaxed);
        }
        is_overloaded
    }

    /// Takes the first thread that waits on CPU `number` and that one of the CPUs `by` may run.
    fn take_from(&self, number: u32, by: u64) -> Option<Entry<T>> {
        let all = self.all();
        self.cpu(number).threads.0.take(by, |ready| {
            if self.overloaded.0.load(Ordering::Relaxed) & bit(number) != 0
                && !ready.iter().any(|entry| entry.allowed & all == all)
            {
                self.overloaded.0.fetch_and(!bit(number), Ordering::Relaxed);
            }
        })
    }

    /// Has an idle CPU among `allowed`, if there is one, look for threads that wait elsewhere; gives
    /// those that must be interrupted.
    fn offer(&self, this: u32, allowed: u64) -> CpuSet {
        // After the overloaded bit, before the look at who is idle: see the head of this file.
        fence(Ordering::SeqCst);
        let mut interrupted = 0;
        while let Some(number) = self.choose_idle(this, allowed & !bit(this), this) {
            match self.rouse(number) {
                Doing::Polling => break,
                Doing::Halted => {
                    interrupted |= bit(number);
                    break;
                }
                // These have found something meanwhile; the next one may be free.
                Doing::Unlimited => interrupted |= bit(number),
                Doing::Busy => {}
            }
        }
        interrupted
    }

    /// Queues a thread, by CPU `this`; gives the CPUs that must be interrupted to notice.
    #[must_use]
    pub(super) fn add_thread(&self, this: u32, item: T, choice: CpuChoice) -> CpuSet {
        let all = self.all();
        let allowed = match choice.allowed & all {
            // Nothing makes it wait for a CPU that there is not.
            0 => all,
            allowed => allowed,
        };
        let entry = Entry { item, allowed };
        let (choice, spare) = if choice.goes_on && allowed & bit(this) != 0 {
            (this, Spare(1))
        } else if let Some(idle) = self.choose_idle(this, allowed, choice.last) {
            (idle, Spare(1))
        } else {
            let busy = self.choose_busy(this, allowed, choice.last);
            (busy, Spare(0))
        };
        let mut is_overloaded = self.push(choice, entry, spare);
        let mut interrupted = 0;
        if choice != this {
            let did = self.rouse(choice);
            if matches!(did, Doing::Halted | Doing::Unlimited) {
                interrupted |= bit(choice);
            }
            if matches!(did, Doing::Busy | Doing::Unlimited) {
                // It runs something else first: perhaps another CPU is free by now.
                self.cpu(choice).threads.0.with(|ready| {
                    is_overloaded = self.mark_overloaded(choice, ready, Spare(0));
                });
            }
        }
        if is_overloaded {
            interrupted |= self.offer(this, all);
        }
        interrupted
    }

    /// Queues work of the kernel, by CPU `this`, on CPU `near` if that is on the watch for work and
    /// otherwise here; gives the CPUs that must be interrupted to notice.
    ///
    /// A CPU does all its work before it runs a program, so none waits for long here.
    #[must_use]
    pub(super) fn add_work(&self, this: u32, near: u32, item: T) -> CpuSet {
        let all = self.all();
        let entry = Entry { item, allowed: all };
        let is_watching =
            near != this && all & bit(near) != 0 && self.doing(near) == Doing::Polling;
        if !is_watching {
            self.cpu(this).work.0.push(entry, |_| ());
            return 0;
        }
        self.cpu(near).work.0.push(entry, |_| ());
        match self.rouse(near) {
            Doing::Polling => 0,
            // Even if it is busy: it may have looked for work already and be about to run a program.
            Doing::Halted | Doing::Unlimited | Doing::Busy => bit(near),
        }
    }

    /// How much work waits on CPU `this`.
    #[inline]
    pub(super) fn work(&self, this: u32) -> usize {
        self.cpu(this).work.0.len()
    }

    /// Takes work that waits on CPU `this`.
    pub(super) fn take_work(&self, this: u32) -> Option<T> {
        let entry = self.cpu(this).work.0.take(u64::MAX, |_| ())?;
        Some(entry.item)
    }

    /// Takes work that waits on another CPU, which must be in the kernel for long not to have done
    /// it itself.
    pub(super) fn steal_work(&self, this: u32) -> Option<T> {
        members(self.all() & !bit(this)).find_map(|number| self.take_work(number))
    }

    /// Whether threads wait on CPU `this`.
    #[inline]
    pub(super) fn has_threads(&self, this: u32) -> bool {
        !self.cpu(this).threads.0.is_empty()
    }

    /// Whether threads wait on other CPUs that might be taken by CPU `this`.
    #[inline]
    pub(super) fn has_others(&self, this: u32) -> bool {
        self.overloaded.0.load(Ordering::Relaxed) & !bit(this) != 0
    }

    /// Takes the thread that CPU `this` runs next: one that waits there, or else elsewhere.
    pub(super) fn take_thread(&self, this: u32) -> Option<T> {
        if let Some(entry) = self.take_from(this, u64::MAX) {
            return Some(entry.item);
        }
        while let Some(victim) = self.most_loaded(this) {
            if let Some(entry) = self.take_from(victim, bit(this)) {
                return Some(entry.item);
            }
            // Somebody was quicker, and has taken its bit away if it was the last.
        }
        None
    }

    /// The overloaded CPU other than `this` where most threads wait.
    fn most_loaded(&self, this: u32) -> Option<u32> {
        let overloaded = self.overloaded.0.load(Ordering::Relaxed) & !bit(this);
        members(overloaded).max_by_key(|number| self.cpu(*number).threads.0.len())
    }

    /// Evens out what waits here and elsewhere when a time slice ends on CPU `this`; gives whether
    /// a thread waits here then, and the CPUs that must be interrupted.
    ///
    /// Where no thread waits, one is fetched from where some do: so threads that compute share all
    /// CPUs evenly, also if their number is no multiple of that of the CPUs.
    #[must_use]
    pub(super) fn balance(&self, this: u32) -> (bool, CpuSet) {
        let own = self.cpu(this).threads.0.len();
        if let Some(victim) = self.most_loaded(this) {
            let theirs = self.cpu(victim).threads.0.len();
            if (own == 0 || theirs > own + 1)
                && let Some(entry) = self.take_from(victim, bit(this))
            {
                // The thread that runs here is about to wait behind it.
                self.push(this, entry, Spare(1));
                return (true, 0);
            }
        }
        if own == 0 {
            return (false, 0);
        }
        // What may not go everywhere was not taken by those who became idle.
        let others = self.all() & !bit(this);
        let idle = self.idle.0.load(Ordering::Relaxed) & others;
        if idle != 0
            && let Some(Entry { item, allowed }) = self.take_from(this, idle)
        {
            let choice = CpuChoice {
                allowed,
                last: this,
                goes_on: false,
            };
            let interrupted = self.add_thread(this, item, choice);
            return (self.has_threads(this), interrupted);
        }
        // Those who have a CPU for themselves are to take turns as well.
        let is_overloaded = self.overloaded.0.load(Ordering::Relaxed) & bit(this) != 0;
        let is_unlimited = |number: &u32| self.doing(*number) == Doing::Unlimited;
        let interrupted = match members(others).find(is_unlimited) {
            Some(number) if is_overloaded && self.must_interrupt(number) => bit(number),
            _ => 0,
        };
        (true, interrupted)
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
