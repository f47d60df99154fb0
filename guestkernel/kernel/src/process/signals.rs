//! Signals: what a process does about them and which are pending.
//!
//! Default actions are carried out. Handlers are remembered, but not called: a signal that has one
//! only interrupts what the thread waits for.

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

/// The signal state of a process.
#[derive(Debug)]
pub struct Signals {
    actions: [Action; 64],
    /// What the thread blocks.
    pub blocked: SignalSet,
    /// What has come and waits.
    pub pending: SignalSet,
    /// How many signals have come that have a handler: a change interrupts a wait.
    pub caught: u64,
}

impl core::default::Default for Signals {
    fn default() -> Self {
        Self {
            actions: [Action::default(); 64],
            blocked: SignalSet::default(),
            pending: SignalSet::default(),
            caught: 0,
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
            self.pending = self.pending.without(SignalSet::default().with(signal));
        }
    }

    /// Whether `signal` has no effect when it comes.
    pub fn is_ignored(&self, signal: Signal) -> bool {
        match self.action(signal).handler {
            0 => signal.default_action() == Default::Ignore,
            handler => handler == Action::IGNORE,
        }
    }

    /// Notes that `signal` has come.
    pub fn raise(&mut self, signal: Signal) {
        if self.blocked.contains(signal) || !self.is_ignored(signal) {
            self.pending = self.pending.with(signal);
        }
    }

    /// Carries out what pending signals that are not blocked do, until one ends the process.
    pub fn deliver(&mut self) -> Option<Signal> {
        while let Some(signal) = self.pending.without(self.blocked).first() {
            self.pending = self.pending.without(SignalSet::default().with(signal));
            if self.is_ignored(signal) {
                continue;
            }
            if self.action(signal).handler > Action::IGNORE {
                log::warn!("signal {}: handlers are not called", signal.number());
                self.caught += 1;
            } else if signal.default_action() == Default::Terminate {
                return Some(signal);
            }
        }
        None
    }

    /// Takes one of `wanted` if it is pending.
    pub fn take(&mut self, wanted: SignalSet) -> Option<Signal> {
        let signal = SignalSet(self.pending.0 & wanted.0).first()?;
        self.pending = self.pending.without(SignalSet::default().with(signal));
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

    #[test]
    fn default_actions_end_the_process_or_do_nothing() {
        let mut signals = Signals::default();
        signals.raise(Signal::SIGCHLD);
        signals.raise(Signal::SIGTSTP);
        assert_eq!(signals.deliver(), None);
        assert_eq!(signals.pending, SignalSet::default());
        signals.raise(Signal::SIGTERM);
        assert_eq!(signals.deliver(), Some(Signal::SIGTERM));
    }

    #[test]
    fn a_blocked_signal_waits_and_an_ignored_one_is_gone() {
        let mut signals = Signals {
            blocked: SignalSet::default().with(Signal::SIGTERM),
            ..Signals::default()
        };
        signals.raise(Signal::SIGTERM);
        assert_eq!(signals.deliver(), None);
        assert!(signals.pending.contains(Signal::SIGTERM));
        signals.set_action(Signal::SIGTERM, handler(Action::IGNORE));
        assert!(!signals.pending.contains(Signal::SIGTERM));
    }

    #[test]
    fn a_caught_signal_does_not_end_the_process() {
        let mut signals = Signals::default();
        signals.set_action(Signal::SIGALRM, handler(0x1000));
        signals.raise(Signal::SIGALRM);
        assert_eq!(signals.deliver(), None);
        assert_eq!(signals.caught, 1);
    }

    #[test]
    fn waiting_takes_the_lowest_wanted_signal() {
        let mut signals = Signals::default();
        let both = SignalSet::default()
            .with(Signal::SIGTERM)
            .with(Signal::SIGINT);
        signals.blocked = both;
        signals.raise(Signal::SIGTERM);
        signals.raise(Signal::SIGINT);
        assert_eq!(signals.take(both), Some(Signal::SIGINT));
        assert_eq!(signals.take(both), Some(Signal::SIGTERM));
        assert_eq!(signals.take(both), None);
    }
}
