//! Signals that have come and wait: for a process or for a thread.

use super::info::SignalInfo;
use super::set::{Signal, SignalSet};
use crate::process::account::SignalCharge;
use crate::process::posix_timer::Expiry;
use alloc::collections::VecDeque;

/// A signal that waits.
pub(in crate::process) struct Queued {
    pub(in crate::process) info: SignalInfo,
    /// Its part of what a user may have waiting.
    pub(in crate::process) _charge: Option<SignalCharge>,
    /// The timer that has sent it, which goes on when it is taken.
    pub(in crate::process) expiry: Option<Expiry>,
}

/// What waits, those that came first first.
#[derive(Default)]
pub(in crate::process) struct Queue {
    /// Those that wait; of one that is not in the list nothing is known.
    set: SignalSet,
    list: VecDeque<Queued>,
}

impl Queue {
    /// The signals that wait.
    pub(in crate::process) fn set(&self) -> SignalSet {
        self.set
    }

    /// Adds a signal.
    pub(in crate::process) fn push(&mut self, queued: Queued) {
        self.set = self.set.with(queued.info.signal);
        self.list.push_back(queued);
    }

    /// Adds a signal of which nothing will be known.
    pub(in crate::process) fn push_bare(&mut self, signal: Signal) {
        self.set = self.set.with(signal);
    }

    /// Forgets the signals of a set.
    pub(in crate::process) fn remove(&mut self, signals: SignalSet) {
        if self.set.intersection(signals).is_empty() {
            return;
        }
        self.set = self.set.without(signals);
        self.list
            .retain(|queued| !signals.contains(queued.info.signal));
    }

    /// Forgets what a timer has sent.
    pub(in crate::process) fn remove_expiry(&mut self, is_gone: impl Fn(&Expiry) -> bool) {
        let before = self.list.len();
        let mut gone = SignalSet::EMPTY;
        self.list.retain(|queued| {
            let goes = queued.expiry.as_ref().is_some_and(&is_gone);
            if goes {
                gone = gone.with(queued.info.signal);
            }
            !goes
        });
        if self.list.len() != before {
            let left = self.list.iter();
            let left = left.fold(SignalSet::EMPTY, |set, queued| set.with(queued.info.signal));
            self.set = self.set.without(gone.without(left));
        }
    }

    /// Takes the first of those signals of the set that go first: what the thread did itself, then
    /// those of low numbers.
    pub(in crate::process) fn take(&mut self, wanted: SignalSet) -> Option<Queued> {
        let waiting = self.set.intersection(wanted);
        let first = waiting.intersection(SignalSet::SYNCHRONOUS).first();
        let signal = first.or_else(|| waiting.first())?;
        Some(self.take_signal(signal))
    }

    /// Takes a signal that waits.
    fn take_signal(&mut self, signal: Signal) -> Queued {
        let is_it = |queued: &Queued| queued.info.signal == signal;
        let place = self.list.iter().position(is_it);
        let queued = place.and_then(|place| self.list.remove(place));
        let place = place.unwrap_or(self.list.len());
        if !self.list.iter().skip(place).any(is_it) {
            self.set = self.set.without(SignalSet::of(&[signal]));
        }
        queued.unwrap_or_else(|| Queued {
            info: SignalInfo::sent(signal, super::info::SI_USER, Default::default()),
            _charge: None,
            expiry: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(signal: Signal, code: i32) -> Queued {
        Queued {
            info: SignalInfo::sent(signal, code, Default::default()),
            _charge: None,
            expiry: None,
        }
    }

    const ALL: SignalSet = SignalSet(u64::MAX);

    #[test]
    fn low_numbers_go_first_and_what_the_thread_did_itself_before_them() {
        let mut queue = Queue::default();
        let last = Signal::new(64).unwrap();
        for (signal, code) in [
            (last, 1),
            (last, 2),
            (Signal::SIGHUP, 3),
            (Signal::SIGSEGV, 4),
        ] {
            queue.push(queued(signal, code));
        }
        let mut codes = core::iter::from_fn(|| queue.take(ALL)).map(|queued| queued.info.code);
        assert!([4, 3, 1, 2].into_iter().eq(&mut codes));
        drop(codes);
        assert!(queue.set().is_empty());
    }

    #[test]
    fn only_wanted_ones_are_taken_and_unknown_ones_have_no_sender() {
        let mut queue = Queue::default();
        queue.push(queued(Signal::SIGHUP, 3));
        queue.push_bare(Signal::SIGTERM);
        let wanted = SignalSet::of(&[Signal::SIGTERM]);
        assert_eq!(queue.take(wanted).map(|queued| queued.info.code), Some(0));
        assert!(queue.take(wanted).is_none());
        queue.remove(ALL);
        assert!(queue.take(ALL).is_none());
    }
}
