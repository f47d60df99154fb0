//! The numbers of signals, sets of them, and what they do by default (`signal(7)`).

use linux_raw_sys::general as raw;

/// A signal's number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signal(u8);

/// A set of signals: bit N-1 is signal N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(pub u64);

/// What happens to a process that a signal reaches, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum DefaultAction {
    /// It ends.
    Terminate,
    /// Nothing.
    Ignore,
    /// It stops.
    Stop,
    /// It goes on if it has stopped; nothing otherwise.
    Continue,
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
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2
    SIGPIPE SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG
    SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
}

/// The first real-time signal, as the kernel counts: libraries keep two for themselves.
const REAL_TIME: u8 = 32;

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

    /// Its place in an array by signal.
    pub(super) fn index(self) -> usize {
        usize::from(self.0 - 1)
    }

    /// What it does unless the process says otherwise.
    pub(super) fn default_action(self) -> DefaultAction {
        match self {
            Self::SIGCHLD | Self::SIGURG | Self::SIGWINCH => DefaultAction::Ignore,
            Self::SIGCONT => DefaultAction::Continue,
            _ if SignalSet::STOP.contains(self) => DefaultAction::Stop,
            _ => DefaultAction::Terminate,
        }
    }

    /// Whether each one that is sent arrives, with its value; of others one waits at most.
    pub fn is_real_time(self) -> bool {
        self.0 >= REAL_TIME
    }
}

impl SignalSet {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// Those that cannot be blocked, caught or ignored.
    pub const UNBLOCKABLE: Self = Self::of(&[Signal::SIGKILL, Signal::SIGSTOP]);
    /// Those that stop a process.
    pub const STOP: Self = Self::of(&[
        Signal::SIGSTOP,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ]);
    /// Those by which a thread is told of what it has just done itself, which go first.
    pub const SYNCHRONOUS: Self = Self::of(&[
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGFPE,
        Signal::SIGSYS,
    ]);

    /// The set of these.
    pub const fn of(signals: &[Signal]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < signals.len() {
            bits |= 1 << (signals[index].0 - 1);
            index += 1;
        }
        Self(bits)
    }

    /// Whether `signal` is in the set.
    pub fn contains(self, signal: Signal) -> bool {
        self.0 & 1 << (signal.0 - 1) != 0
    }

    /// Whether there is none in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set with `signal`.
    #[must_use]
    pub fn with(self, signal: Signal) -> Self {
        Self(self.0 | 1 << (signal.0 - 1))
    }

    /// What is in one of the sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_64_signals() {
        assert_eq!(Signal::new(0), None);
        assert_eq!(Signal::new(65), None);
        assert_eq!(Signal::new(-1), None);
        assert_eq!(Signal::new(9), Some(Signal::SIGKILL));
        assert!(Signal::new(64).is_some_and(Signal::is_real_time));
        assert!(!Signal::SIGSYS.is_real_time());
    }

    #[test]
    fn sets_give_their_lowest_signal_first() {
        let set = SignalSet::of(&[Signal::SIGTERM, Signal::SIGINT]);
        assert_eq!(set.first(), Some(Signal::SIGINT));
        let left = set.without(SignalSet::of(&[Signal::SIGINT]));
        assert_eq!(left.first(), Some(Signal::SIGTERM));
        assert_eq!(SignalSet::EMPTY.first(), None);
        assert!(SignalSet(1 << 63).contains(Signal(64)));
    }
}
