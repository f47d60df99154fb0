//! The threads of a process, and the signals that wait for them all and for each.

use super::account::{Account, ThreadCharge};
use super::signal::{DefaultAction, Effect, Handlers, Queue, Queued, Signal, SignalSet};
use super::thread_state::{Attention, ThreadState};
use crate::error::{Errno, Result};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The process: any of its threads.
    Process,
    /// The thread with that number.
    Thread(u32),
}

/// The threads of a process.
pub(super) struct ThreadGroup {
    /// What is done about signals.
    pub(super) handlers: Arc<Handlers>,
    /// What has come for any thread.
    shared: Queue,
    members: BTreeMap<u32, Member>,
    /// The thread that the last signal for the process went to, unless the first took it.
    last_chosen: u32,
    stop: Stop,
    /// The thread that executes a program, for which the others end.
    sole: Option<u32>,
}

/// A thread.
struct Member {
    state: Arc<ThreadState>,
    blocked: SignalSet,
    /// What it blocks besides when it does not wait by `sigtimedwait(2)`.
    real_blocked: SignalSet,
    /// What it blocks when it has handled what interrupts a call with a set of its own
    /// (`sigsuspend(2)`).
    saved: Option<SignalSet>,
    queue: Queue,
    stop: MemberStop,
    /// Its part of what its user may have.
    charge: Option<ThreadCharge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberStop {
    /// It runs.
    No,
    /// It is to stop.
    Pending,
    /// It has stopped.
    Stopped,
}

/// Whether the process is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stop {
    #[default]
    No,
    /// Some of its threads run yet.
    Pending(Signal),
    Stopped(Signal),
}

/// What the parent is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Stopped(Signal),
    Continued,
    /// It was about to stop, and goes on.
    StoppedAndContinued(Signal),
}

/// What follows from a signal that was sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Consequence {
    /// It ends the process.
    pub(super) fatal: Option<Signal>,
    /// What the parent is to be told.
    pub(super) change: Option<Change>,
}

impl Consequence {
    /// Whether nothing follows.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ThreadGroup {
    pub(super) fn new(handlers: Arc<Handlers>) -> Self {
        Self {
            handlers,
            shared: Queue::default(),
            members: BTreeMap::new(),
            last_chosen: 0,
            stop: Stop::No,
            sole: None,
        }
    }

    /// Adds a thread that blocks these signals.
    pub(super) fn add(
        &mut self,
        state: Arc<ThreadState>,
        blocked: SignalSet,
        charge: Option<ThreadCharge>,
    ) {
        if self.sole.is_some() {
            state.notify(Attention::END);
        }
        let stop = match self.stop {
            Stop::No => MemberStop::No,
            Stop::Pending(_) | Stop::Stopped(_) => {
                state.notify(Attention::SIGNAL);
                MemberStop::Pending
            }
        };
        let member = Member {
            blocked,
            real_blocked: SignalSet::EMPTY,
            saved: None,
            queue: Queue::default(),
            stop,
            charge,
            state: state.clone(),
        };
        self.members.insert(state.tid, member);
    }

    /// A thread has ended: what it would have taken goes to others. Gives what the parent is told, and
    /// the thread's part of what its user has.
    pub(super) fn remove(&mut self, tid: u32) -> (Option<Change>, Option<ThreadCharge>) {
        let Some(gone) = self.members.remove(&tid) else {
            return (None, None);
        };
        let left = self.shared.set().without(gone.blocked);
        self.retarget(left);
        let change = match self.members.is_empty() {
            true => None,
            false => self.check_stopped(),
        };
        (change, gone.charge)
    }

    /// Has all threads but `tid` end, and those that are still made; false if another one wants the same.
    pub(super) fn begin_sole(&mut self, tid: u32) -> bool {
        if self.sole.is_some() {
            return false;
        }
        self.sole = Some(tid);
        let others = self
            .members
            .values()
            .filter(|member| member.state.tid != tid);
        others.for_each(|member| member.state.notify(Attention::END));
        true
    }

    /// There may be other threads again.
    pub(super) fn end_sole(&mut self) {
        self.sole = None;
    }

    /// Makes the thread `tid` the one of `state`.
    pub(super) fn rename(&mut self, tid: u32, state: &Arc<ThreadState>) {
        if let Some(mut member) = self.members.remove(&tid) {
            member.state = state.clone();
            self.members.insert(state.tid, member);
            self.review(state.tid);
        }
    }

    /// Has all threads count for another user; gives what they had, to be dropped without the lock.
    pub(super) fn change_account(
        &mut self,
        account: &Arc<Account>,
    ) -> alloc::vec::Vec<ThreadCharge> {
        let members = self.members.values_mut();
        members
            .filter_map(|member| {
                let new = account.charge_thread(u64::MAX);
                core::mem::replace(&mut member.charge, new)
            })
            .collect()
    }

    /// Whether all threads have stopped.
    pub(super) fn has_stopped(&self) -> bool {
        matches!(self.stop, Stop::Stopped(_))
    }

    /// The threads, by number.
    pub(super) fn threads(&self) -> impl Iterator<Item = &Arc<ThreadState>> {
        self.members.values().map(|member| &member.state)
    }

    /// The thread with that number.
    pub(super) fn thread(&self, tid: u32) -> Option<&Arc<ThreadState>> {
        self.members.get(&tid).map(|member| &member.state)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The signals that a thread blocks.
    pub(super) fn blocked(&self, tid: u32) -> SignalSet {
        let member = self.members.get(&tid);
        member.map_or(SignalSet::EMPTY, |member| member.blocked)
    }

    /// The signals that have come for a thread alone, and for all.
    pub(super) fn pending(&self, tid: u32) -> [SignalSet; 2] {
        let own = self.members.get(&tid).map(|member| member.queue.set());
        [own.unwrap_or_default(), self.shared.set()]
    }

    /// Forgets signals that are ignored now, and what else `signals` says.
    pub(super) fn forget(&mut self, signals: SignalSet) {
        self.shared.remove(signals);
        for member in self.members.values_mut() {
            member.queue.remove(signals);
        }
    }

    /// Forgets what timers have sent of which `is_gone` is true.
    pub(super) fn forget_expiries(
        &mut self,
        is_gone: impl Fn(&super::posix_timer::Expiry) -> bool,
    ) {
        self.shared.remove_expiry(&is_gone);
        for member in self.members.values_mut() {
            member.queue.remove_expiry(&is_gone);
        }
    }

    /// Whether `signal`, sent to `target`, does nothing.
    fn is_ignored(&self, signal: Signal, target: Target) -> bool {
        let member = match target {
            Target::Thread(tid) => self.members.get(&tid),
            // The first thread stands for the process.
            Target::Process => self.members.values().next(),
        };
        // What is blocked may have a handler by the time that it is not blocked any more.
        let is_blocked =
            member.is_some_and(|member| member.blocked.union(member.real_blocked).contains(signal));
        !is_blocked && self.handlers.get(signal).ignores(signal)
    }

    /// Whether one of `signal` that waits for `target` already stands for others.
    fn is_pending(&self, signal: Signal, target: Target) -> bool {
        let queue = match target {
            Target::Process => Some(&self.shared),
            Target::Thread(tid) => self.members.get(&tid).map(|member| &member.queue),
        };
        !signal.is_real_time() && queue.is_some_and(|queue| queue.set().contains(signal))
    }

    /// Notes that a signal has come; `keep` is asked for what is kept of it if it has to wait, or
    /// gives an error, or nothing if only its number is kept.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is no such thread, and those of `keep`.
    pub(super) fn post(
        &mut self,
        signal: Signal,
        target: Target,
        keep: impl FnOnce() -> Result<Option<Queued>>,
    ) -> Result<Consequence> {
        self.check_target(target)?;
        let change = self.stop_or_continue(signal);
        let mut consequence = Consequence {
            change,
            ..Consequence::default()
        };
        if self.is_ignored(signal, target) || self.is_pending(signal, target) {
            return Ok(consequence);
        }
        consequence.fatal = self.queue(signal, target, keep()?);
        Ok(consequence)
    }

    /// As [`post`](Self::post) for what a timer sends, which waits beside others; `None` if it is
    /// ignored.
    pub(super) fn post_expiry(&mut self, target: Target, queued: Queued) -> Option<Consequence> {
        let signal = queued.info.signal;
        if self.check_target(target).is_err() {
            return Some(Consequence::default());
        }
        let change = self.stop_or_continue(signal);
        if self.is_ignored(signal, target) {
            return None;
        }
        let fatal = self.queue(signal, target, Some(queued));
        Some(Consequence { fatal, change })
    }

    fn check_target(&self, target: Target) -> Result<()> {
        match target {
            Target::Thread(tid) if !self.members.contains_key(&tid) => Err(Errno::ESRCH),
            _ => Ok(()),
        }
    }

    /// Puts a signal where it waits and finds who takes it; gives it if it ends the process.
    fn queue(&mut self, signal: Signal, target: Target, kept: Option<Queued>) -> Option<Signal> {
        let queue = match target {
            Target::Process => Some(&mut self.shared),
            Target::Thread(tid) => self.members.get_mut(&tid).map(|member| &mut member.queue),
        };
        match (queue, kept) {
            (Some(queue), Some(queued)) => queue.push(queued),
            (Some(queue), None) => queue.push_bare(signal),
            (None, _) => {}
        }
        let tid = self.choose(signal, target)?;
        let member = self.members.get(&tid)?;
        let effect = self.handlers.get(signal).effect(signal);
        let ends = effect == Effect::Default(DefaultAction::Terminate);
        if ends && !member.real_blocked.contains(signal) {
            return Some(signal);
        }
        member.state.notify(Attention::SIGNAL);
        None
    }

    /// The thread that is to take `signal`.
    fn choose(&mut self, signal: Signal, target: Target) -> Option<u32> {
        let wants = |member: &Member| {
            !member.blocked.contains(signal)
                && (signal == Signal::SIGKILL || member.stop != MemberStop::Stopped)
        };
        match target {
            Target::Thread(tid) => self.members.get(&tid).is_some_and(wants).then_some(tid),
            Target::Process => {
                // The first thread if it can, else each in turn.
                let first = self.members.first_key_value();
                if let Some((tid, _)) = first.filter(|(_, member)| wants(member)) {
                    return Some(*tid);
                }
                let after = self.members.range(self.last_chosen + 1..);
                let all = after.chain(self.members.range(..=self.last_chosen));
                let mut willing = all.filter(|(_, member)| wants(member));
                let chosen = willing.next().map(|(tid, _)| *tid)?;
                self.last_chosen = chosen;
                Some(chosen)
            }
        }
    }

    /// Has other threads look for `signals` that wait for any of them.
    fn retarget(&self, signals: SignalSet) {
        let mut left = signals;
        for member in self.members.values() {
            if left.is_empty() {
                return;
            }
            let takes = left.without(member.blocked);
            if !takes.is_empty() {
                member.state.notify(Attention::SIGNAL);
                left = left.without(takes);
            }
        }
    }

    /// What signals that stop a process or have it go on do when they are sent, whatever the process
    /// does about them when they arrive: each takes the others back.
    fn stop_or_continue(&mut self, signal: Signal) -> Option<Change> {
        if SignalSet::STOP.contains(signal) {
            self.forget(SignalSet::of(&[Signal::SIGCONT]));
            return None;
        }
        if signal != Signal::SIGCONT {
            return None;
        }
        self.forget(SignalSet::STOP);
        let before = core::mem::take(&mut self.stop);
        for member in self.members.values_mut() {
            if member.stop != MemberStop::No {
                member.stop = MemberStop::No;
                member.state.notify(Attention::SIGNAL);
            }
        }
        match before {
            Stop::No => None,
            // It was on the way: it has stopped and gone on.
            Stop::Pending(signal) => Some(Change::StoppedAndContinued(signal)),
            Stop::Stopped(_) => Some(Change::Continued),
        }
    }

    /// Has all threads stop.
    pub(super) fn stop_all(&mut self, signal: Signal) {
        if self.stop != Stop::No {
            return;
        }
        self.stop = Stop::Pending(signal);
        for member in self.members.values_mut() {
            member.stop = MemberStop::Pending;
            member.state.notify(Attention::SIGNAL);
        }
    }

    /// Has a thread stop that is to; true if so. Gives what the parent is told.
    pub(super) fn stop(&mut self, tid: u32) -> (bool, Option<Change>) {
        let Some(member) = self.members.get_mut(&tid) else {
            return (false, None);
        };
        if member.stop != MemberStop::Pending {
            return (false, None);
        }
        member.stop = MemberStop::Stopped;
        (true, self.check_stopped())
    }

    /// Whether the thread has stopped.
    pub(super) fn is_stopped(&self, tid: u32) -> bool {
        let member = self.members.get(&tid);
        member.is_some_and(|member| member.stop == MemberStop::Stopped)
    }

    fn check_stopped(&mut self) -> Option<Change> {
        let Stop::Pending(signal) = self.stop else {
            return None;
        };
        let mut members = self.members.values();
        if !members.all(|member| member.stop == MemberStop::Stopped) {
            return None;
        }
        self.stop = Stop::Stopped(signal);
        Some(Change::Stopped(signal))
    }

    /// Sets what a thread blocks.
    pub(super) fn set_blocked(&mut self, tid: u32, blocked: SignalSet) -> SignalSet {
        let blocked = blocked.without(SignalSet::UNBLOCKABLE);
        let Some(member) = self.members.get_mut(&tid) else {
            return SignalSet::EMPTY;
        };
        let before = core::mem::replace(&mut member.blocked, blocked);
        let left = self.shared.set().intersection(blocked.without(before));
        if !left.is_empty() {
            self.retarget(left);
        }
        self.review(tid);
        before
    }

    /// Sets what a thread blocks until it has handled a signal.
    pub(super) fn set_temporarily(&mut self, tid: u32, blocked: SignalSet) {
        let before = self.set_blocked(tid, blocked);
        if let Some(member) = self.members.get_mut(&tid) {
            member.saved.get_or_insert(before);
        }
    }

    /// Has a thread block again what it did before [`set_temporarily`](Self::set_temporarily).
    pub(super) fn restore_blocked(&mut self, tid: u32) {
        let member = self.members.get_mut(&tid);
        if let Some(saved) = member.and_then(|member| member.saved.take()) {
            self.set_blocked(tid, saved);
        }
    }

    /// What a thread blocks after the handler of the signal that it has taken.
    pub(super) fn blocked_after_handler(&self, tid: u32) -> SignalSet {
        let member = self.members.get(&tid);
        member.map_or(SignalSet::EMPTY, |member| {
            member.saved.unwrap_or(member.blocked)
        })
    }

    /// A handler is called: the thread blocks more meanwhile.
    pub(super) fn block_for_handler(&mut self, tid: u32, more: SignalSet) {
        if let Some(member) = self.members.get_mut(&tid) {
            member.saved = None;
            let blocked = member.blocked.union(more);
            self.set_blocked(tid, blocked);
        }
    }

    /// A thread waits for `wanted`, which it takes though it blocks them, until
    /// [`end_wait`](Self::end_wait).
    pub(super) fn begin_wait(&mut self, tid: u32, wanted: SignalSet) {
        if let Some(member) = self.members.get_mut(&tid) {
            member.real_blocked = member.blocked;
            let blocked = member.blocked.without(wanted);
            self.set_blocked(tid, blocked);
        }
    }

    /// A thread waits no longer.
    pub(super) fn end_wait(&mut self, tid: u32) {
        if let Some(member) = self.members.get_mut(&tid) {
            let blocked = core::mem::take(&mut member.real_blocked);
            self.set_blocked(tid, blocked);
        }
    }

    /// Takes one of `wanted` that waits for a thread.
    pub(super) fn take(&mut self, tid: u32, wanted: SignalSet) -> Option<Queued> {
        let member = self.members.get_mut(&tid)?;
        let taken = member.queue.take(wanted);
        let taken = taken.or_else(|| self.shared.take(wanted));
        self.review(tid);
        taken
    }

    /// Takes the next signal that a thread has to do something about.
    pub(super) fn take_deliverable(&mut self, tid: u32) -> Option<Queued> {
        let wanted = SignalSet(!self.blocked(tid).0);
        self.take(tid, wanted)
    }

    /// Looks anew whether there is something that a thread has to do about signals.
    pub(super) fn review(&self, tid: u32) {
        let Some(member) = self.members.get(&tid) else {
            return;
        };
        let waiting = member.queue.set().union(self.shared.set());
        let is_needed =
            !waiting.without(member.blocked).is_empty() || member.stop == MemberStop::Pending;
        member.state.set_attention(Attention::SIGNAL, is_needed);
    }

    /// Sees to it that a signal that a thread has caused reaches it: if it blocks or ignores it, or if
    /// `is_fatal`, it does what it does by default.
    pub(super) fn unblock_forced(&mut self, tid: u32, signal: Signal, is_fatal: bool) {
        let blocked = self.blocked(tid);
        let is_blocked = blocked.contains(signal);
        let is_ignored = self.handlers.get(signal).effect(signal) == Effect::Ignore;
        if is_blocked || is_ignored || is_fatal {
            self.handlers.set(signal, Default::default());
        }
        if is_blocked {
            self.set_blocked(tid, blocked.without(SignalSet::of(&[signal])));
        }
    }
}
