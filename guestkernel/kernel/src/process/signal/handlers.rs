//! What a process does about signals (`sigaction(2)`).

use super::set::{DefaultAction, Signal, SignalSet};
use linux_raw_sys::general as raw;
use machine::lock::Mutex;

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

/// What a signal does, given the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum Effect {
    Default(DefaultAction),
    Ignore,
    Handler,
}

impl Action {
    const DEFAULT: u64 = 0;
    const IGNORE: u64 = 1;

    /// Whether it has this of `SA_*`.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }

    /// Whether it says to ignore a signal.
    pub(in crate::process) fn is_ignore(&self) -> bool {
        self.handler == Self::IGNORE
    }

    /// What `signal` does.
    pub(in crate::process) fn effect(&self, signal: Signal) -> Effect {
        match self.handler {
            Self::DEFAULT => Effect::Default(signal.default_action()),
            Self::IGNORE => Effect::Ignore,
            _ => Effect::Handler,
        }
    }

    /// Whether `signal` has no effect when it comes.
    pub(in crate::process) fn ignores(&self, signal: Signal) -> bool {
        use DefaultAction::{Continue, Ignore};
        matches!(
            self.effect(signal),
            Effect::Ignore | Effect::Default(Ignore | Continue)
        )
    }
}

/// The actions for all signals: a process's, or shared by several (`CLONE_SIGHAND`).
pub(in crate::process) struct Handlers(Mutex<[Action; 64]>);

impl Default for Handlers {
    fn default() -> Self {
        Self(Mutex::new([Action::default(); 64]))
    }
}

impl Handlers {
    /// What is done about `signal`.
    pub(in crate::process) fn get(&self, signal: Signal) -> Action {
        self.0.lock()[signal.index()]
    }

    /// Sets what is done about `signal`, and gives what was.
    pub(in crate::process) fn set(&self, signal: Signal, action: Action) -> Action {
        core::mem::replace(&mut self.0.lock()[signal.index()], action)
    }

    /// Has `signal` do again what it does by default, if its handler is to be called once only;
    /// gives the action as it was.
    pub(in crate::process) fn take_for_delivery(&self, signal: Signal) -> Action {
        let action = &mut self.0.lock()[signal.index()];
        let taken = *action;
        if taken.has(raw::SA_RESETHAND) && taken.effect(signal) == Effect::Handler {
            action.handler = Action::DEFAULT;
        }
        taken
    }

    /// A copy, as a new process has it.
    pub(in crate::process) fn copy(&self) -> Self {
        Self(Mutex::new(*self.0.lock()))
    }

    /// What is left of them for a program that was just loaded, or with `CLONE_CLEAR_SIGHAND`: what is
    /// ignored stays ignored.
    pub(in crate::process) fn without_handlers(&self) -> Self {
        let actions = *self.0.lock();
        Self(Mutex::new(actions.map(|action| Action {
            handler: match action.handler {
                Action::IGNORE => Action::IGNORE,
                _ => Action::DEFAULT,
            },
            ..Action::default()
        })))
    }

    /// The signals that are ignored because the process says so, and those that have handlers.
    pub(in crate::process) fn ignored_and_caught(&self) -> [SignalSet; 2] {
        let actions = *self.0.lock();
        let set_of = |wanted: Effect| {
            let all = (1..=64).filter_map(Signal::new);
            let found = all.filter(|signal| actions[signal.index()].effect(*signal) == wanted);
            found.fold(SignalSet::EMPTY, SignalSet::with)
        };
        [set_of(Effect::Ignore), set_of(Effect::Handler)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(handler: u64, flags: u32) -> Action {
        Action {
            handler,
            flags: flags.into(),
            ..Action::default()
        }
    }

    #[test]
    fn a_handler_for_once_is_given_once() {
        let handlers = Handlers::default();
        handlers.set(Signal::SIGHUP, handler(0x1000, raw::SA_RESETHAND));
        assert_eq!(handlers.take_for_delivery(Signal::SIGHUP).handler, 0x1000);
        assert_eq!(handlers.take_for_delivery(Signal::SIGHUP).handler, 0);
    }

    #[test]
    fn new_programs_keep_what_is_ignored_and_new_processes_all() {
        let handlers = Handlers::default();
        handlers.set(Signal::SIGHUP, handler(0x1000, 0));
        handlers.set(Signal::SIGINT, handler(1, raw::SA_RESTART));
        for (copy, expected) in [
            (handlers.copy(), [0x1000, 1]),
            (handlers.without_handlers(), [0, 1]),
        ] {
            let found = [Signal::SIGHUP, Signal::SIGINT].map(|signal| copy.get(signal).handler);
            assert_eq!(found, expected);
        }
        let flags = |handlers: &Handlers| handlers.get(Signal::SIGINT).flags;
        assert_eq!(flags(&handlers.copy()), u64::from(raw::SA_RESTART));
        assert_eq!(flags(&handlers.without_handlers()), 0);
        let sets = handlers.ignored_and_caught();
        let expected = [Signal::SIGINT, Signal::SIGHUP].map(|signal| SignalSet::of(&[signal]));
        assert_eq!(sets, expected);
    }

    #[test]
    fn some_signals_do_nothing_by_default() {
        let action = Action::default();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGCONT,
            Signal::SIGURG,
            Signal::SIGWINCH,
        ] {
            assert!(action.ignores(signal));
        }
        for signal in [Signal::SIGSTOP, Signal::SIGTERM, Signal::SIGIO] {
            assert!(!action.ignores(signal));
        }
    }
}
