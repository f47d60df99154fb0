//! Signals: what a process does about them and which are pending.
//!
//! Default actions are carried out. Handlers are remembered, but not called yet: a signal that has
//! one stays pending.

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
    pub const UNBLOCKABLE: Self =
        Self(1 << (Signal::SIGKILL.0 - 1) | 1 << (Signal::SIGSTOP.0 - 1));

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
}

impl core::default::Default for Signals {
    fn default() -> Self {
        Self {
            actions: [Action::default(); 64],
            blocked: SignalSet::default(),
            pending: SignalSet::default(),
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

    /// Takes pending signals that are not blocked until there is one that ends the process.
    pub fn take_fatal(&mut self) -> Option<Signal> {
        let mut due = self.pending.without(self.blocked);
        while let Some(signal) = due.first() {
            let this = SignalSet::default().with(signal);
            due = due.without(this);
            let handler = self.action(signal).handler;
            if handler > Action::IGNORE && !SignalSet::UNBLOCKABLE.contains(signal) {
                continue;
            }
            self.pending = self.pending.without(this);
            if !self.is_ignored(signal) && signal.default_action() == Default::Terminate {
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

    /// Whether a signal with a handler has come that is not blocked: it interrupts a wait.
    pub fn interrupts(&self) -> bool {
        self.pending.without(self.blocked) != SignalSet::default()
    }
}
