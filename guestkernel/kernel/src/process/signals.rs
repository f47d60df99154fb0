//! Signals: what a process does about them and which are pending.
//!
//! A signal is for the process or for one of its threads; each thread has signals that it blocks.
//! Default actions are carried out. Handlers are remembered, but not called: a signal that has one
//! only interrupts what the thread waits for.

use alloc::collections::BTreeMap;
use linux_raw_sys::general as raw;

/// A set of signals: bit N-1 is signal N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(pub u64);

/// A signal's number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signal(u8);

/// What happens to a process that a signal reaches, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Default {
    Terminate,
    Ignore,
    /// Stops the process; there is nobody who could continue it, so nothing happens.
    Stop,
}

macro_rules! signals {
    ($($name:ident)*) => {
        #[expect(missing_docs, reason = "signal(7) describes them")]
        impl Signal {
            $(pub const $name: Self = Self(raw::$name as u8);)*
        }
    };
}

signals! {
    SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGSEGV SIGPIPE SIGALRM SIGTERM
    SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGWINCH SIGSYS SIGXCPU SIGXFSZ
    SIGVTALRM SIGPROF
}

impl Signal {
    /// The signal with that number, if there is one.
    pub fn new(number: i32) -> Option<Self> {
        u8::try_from(number)
            .ok()
            .filter(|number| (1..=64).contains(number))
            .map(Self)
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }

    fn default_action(self) -> Default {
        match self {
            Self::SIGCHLD | Self::SIGCONT | Self::SIGURG | Self::SIGWINCH => Default::Ignore,
            Self::SIGSTOP | Self::SIGTSTP | Self::SIGTTIN | Self::SIGTTOU => Default::Stop,
            _ => Default::Terminate,
        }
    }
}

impl SignalSet {
    /// Those that cannot be blocked, caught or ignored.
    pub const UNBLOCKABLE: Self = Self(1 << (Signal::SIGKILL.0 - 1) | 1 << (Signal::SIGSTOP.0 - 1));

    /// Whether `signal` is in the set.
    pub fn contains(self, signal: Signal) -> bool {
        self.0 & 1 << (signal.0 - 1) != 0
    }

    /// The set with `signal`.
    #[must_use]
    pub fn with(self, signal: Signal) -> Self {
        Self(self.0 | 1 << (signal.0 - 1))
    }

    /// The set without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The lowest signal that is in the set.
    pub fn first(self) -> Option<Signal> {
        Signal::new(self.0.trailing_zeros() as i32 + 1)
    }
}

/// What `rt_sigaction(2)` sets for a signal, as the program gave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// `SIG_DFL` (0), `SIG_IGN` (1) or a function's address.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// What the handler returns to.
    pub restorer: u64,
    /// What is blocked meanwhile.
    pub mask: SignalSet,
}

impl Action {
    const IGNORE: u64 = 1;
}

/// The signal state of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadSignals {
    /// What it blocks.
    pub blocked: SignalSet,
    /// What has come for it alone and waits.
    pub pending: SignalSet,
    /// How many signals it has had to handle: a change interrupts what it waits for.
    pub caught: u64,
}

/// The signal state of a process.
#[derive(Debug)]
pub struct Signals {
    actions: [Action; 64],
    /// What has come for any thread and waits.
    pub pending: SignalSet,
    threads: BTreeMap<u32, ThreadSignals>,
}

impl core::default::Default for Signals {
    fn default() -> Self {
        Self {
            actions: [Action::default(); 64],
            pending: SignalSet::default(),
            threads: BTreeMap::new(),
        }
    }
}

impl Signals {
    /// What is done about `signal`.
    pub fn action(&self, signal: Signal) -> Action {
        self.actions[usize::from(signal.0 - 1)]
    }

    /// Sets what is done about `signal`.
    pub fn set_action(&mut self, signal: Signal, action: Action) {
        self.actions[usize::from(signal.0 - 1)] = action;
        if self.is_ignored(signal) {
            let ignored = SignalSet::default().with(signal);
            self.pending = self.pending.without(ignored);
            for thread in self.threads.values_mut() {
                thread.pending = thread.pending.without(ignored);
            }
        }
    }

    /// The state of the thread `tid`, which is made if there is none.
    pub fn thread(&mut self, tid: u32) -> &mut ThreadSignals {
        self.threads.entry(tid).or_default()
    }

    /// The thread `tid` has ended.
    pub fn remove_thread(&mut self, tid: u32) {
        self.threads.remove(&tid);
    }

    /// Whether `signal` has no effect when it comes.
    pub fn is_ignored(&self, signal: Signal) -> bool {
        match self.action(signal).handler {
            0 => signal.default_action() == Default::Ignore,
            handler => handler == Action::IGNORE,
        }
    }

    /// Notes that `signal` has come, for the thread `target` or for whoever does not block it.
    pub fn raise(&mut self, signal: Signal, target: Option<u32>) {
        let blocks = |thread: &ThreadSignals| thread.blocked.contains(signal);
        let is_blocked = match target {
            Some(tid) => blocks(self.thread(tid)),
            // The main thread stands for the process.
            None => self.threads.values().next().is_some_and(blocks),
        };
        if !is_blocked && self.is_ignored(signal) {
            return;
        }
        let pending = match target {
            Some(tid) => &mut self.thread(tid).pending,
            None => &mut self.pending,
        };
        *pending = pending.with(signal);
    }

    /// Carries out what pending signals that are not blocked do, until one ends the process.
    pub fn deliver(&mut self) -> Option<Signal> {
        while let Some((signal, tid)) = self.next_deliverable() {
            if self.is_ignored(signal) {
                continue;
            }
            if self.action(signal).handler > Action::IGNORE {
                log::warn!("signal {}: handlers are not called", signal.number());
                self.thread(tid).caught += 1;
            } else if signal.default_action() == Default::Terminate {
                return Some(signal);
            }
        }
        None
    }

    /// Takes a signal that a thread does not block, and says which thread.
    fn next_deliverable(&mut self) -> Option<(Signal, u32)> {
        for (tid, thread) in &mut self.threads {
            let own = thread.pending.without(thread.blocked).first();
            if let Some(signal) = own {
                thread.pending = thread.pending.without(SignalSet::default().with(signal));
                return Some((signal, *tid));
            }
            if let Some(signal) = self.pending.without(thread.blocked).first() {
                self.pending = self.pending.without(SignalSet::default().with(signal));
                return Some((signal, *tid));
            }
        }
        None
    }

    /// Takes one of `wanted` if it is pending for the thread `tid`.
    pub fn take(&mut self, tid: u32, wanted: SignalSet) -> Option<Signal> {
        let shared = self.pending;
        let thread = self.thread(tid);
        let both = thread.pending.0 | shared.0;
        let signal = SignalSet(both & wanted.0).first()?;
        let taken = SignalSet::default().with(signal);
        if thread.pending.contains(signal) {
            thread.pending = thread.pending.without(taken);
        } else {
            self.pending = shared.without(taken);
        }
        Some(signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(handler: u64) -> Action {
        Action {
            handler,
            ..Action::default()
        }
    }

    const MAIN: u32 = 1;
    const OTHER: u32 = 2;

    fn signals() -> Signals {
        let mut signals = Signals::default();
        signals.thread(MAIN);
        signals.thread(OTHER);
        signals
    }

    #[test]
    fn default_actions_end_the_process_or_do_nothing() {
        let mut signals = signals();
        signals.raise(Signal::SIGCHLD, None);
        signals.raise(Signal::SIGTSTP, Some(OTHER));
        assert_eq!(signals.deliver(), None);
        assert_eq!(signals.pending, SignalSet::default());
        signals.raise(Signal::SIGTERM, Some(OTHER));
        assert_eq!(signals.deliver(), Some(Signal::SIGTERM));
    }

    #[test]
    fn a_blocked_signal_waits_and_an_ignored_one_is_gone() {
        let mut signals = signals();
        for tid in [MAIN, OTHER] {
            signals.thread(tid).blocked = SignalSet::default().with(Signal::SIGTERM);
        }
        signals.raise(Signal::SIGTERM, None);
        signals.raise(Signal::SIGTERM, Some(OTHER));
        assert_eq!(signals.deliver(), None);
        assert!(signals.pending.contains(Signal::SIGTERM));
        assert!(signals.thread(OTHER).pending.contains(Signal::SIGTERM));
        signals.set_action(Signal::SIGTERM, handler(Action::IGNORE));
        assert!(!signals.pending.contains(Signal::SIGTERM));
        assert_eq!(signals.thread(OTHER).pending, SignalSet::default());
    }

    #[test]
    fn a_caught_signal_goes_to_a_thread_that_does_not_block_it() {
        let mut signals = signals();
        signals.set_action(Signal::SIGALRM, handler(0x1000));
        signals.thread(MAIN).blocked = SignalSet::default().with(Signal::SIGALRM);
        signals.raise(Signal::SIGALRM, None);
        assert_eq!(signals.deliver(), None);
        assert_eq!(signals.thread(OTHER).caught, 1);
        signals.raise(Signal::SIGALRM, Some(MAIN));
        assert_eq!(signals.deliver(), None);
        assert_eq!(signals.thread(MAIN).caught, 0);
        signals.thread(MAIN).blocked = SignalSet::default();
        assert_eq!(signals.deliver(), None);
        assert_eq!(signals.thread(MAIN).caught, 1);
    }

    #[test]
    fn waiting_takes_the_lowest_wanted_signal() {
        let mut signals = signals();
        let both = SignalSet::default()
            .with(Signal::SIGTERM)
            .with(Signal::SIGINT);
        signals.thread(MAIN).blocked = both;
        signals.thread(OTHER).blocked = both;
        signals.raise(Signal::SIGTERM, Some(MAIN));
        signals.raise(Signal::SIGINT, None);
        assert_eq!(signals.take(MAIN, both), Some(Signal::SIGINT));
        assert_eq!(signals.take(OTHER, both), None);
        assert_eq!(signals.take(MAIN, both), Some(Signal::SIGTERM));
        assert_eq!(signals.take(MAIN, both), None);
    }
}
