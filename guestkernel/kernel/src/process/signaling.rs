//! Sending signals to a process and its threads, and what they do about them.

use super::control_block::{ControlBlock, ExitStatus};
use super::signal::{Action, Queued, SI_USER, Sender, Signal, SignalInfo, SignalSet};
use super::table::{self, Sent};
use super::thread_group::{Change, Consequence, Target};
use super::thread_state::ThreadState;
use crate::error::{Errno, Result};
use crate::heap;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

/// Bytes of the kernel's heap that a signal which waits may take: the queue grows by copying.
const WAITING_COST: usize = 3 * size_of::<Queued>();

impl ThreadState {
    /// Waits for `future`, but not longer than until a signal comes that the thread has to see to. One
    /// that has come before counts as well.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`: how the call goes on after the signal depends on its handler. What behaves
    /// otherwise on Linux makes another error of it.
    pub(crate) async fn until_signal<F: Future>(&self, future: F) -> Result<F::Output> {
        let mut future = pin!(future);
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            self.register(context.waker());
            match self.attention().is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(Err(Errno::ERESTARTSYS)),
            }
        })
        .await
    }
}

impl ControlBlock {
    /// Who it is as the sender of a signal.
    pub fn sender(&self) -> Sender {
        Sender {
            pid: self.pid,
            user: self.credentials.lock().user.real,
        }
    }

    /// Sends it a signal that the kernel makes.
    pub fn signal(&self, signal: Signal) {
        self.send_to_process(SignalInfo::kernel(signal));
    }

    /// Sends one of its threads a signal for what that has asked for, as if it had sent it itself.
    pub(crate) fn signal_by_itself(&self, tid: u32, signal: Signal) {
        let info = SignalInfo::sent(signal, SI_USER, self.sender());
        self.send_to_thread(tid, info);
    }

    /// Sends it a signal that always can be sent.
    pub(super) fn send_to_process(&self, info: SignalInfo) {
        // Only a queue of real-time signals can be full.
        let _ = self.send(Target::Process, info);
    }

    /// Sends a thread a signal that always can be sent; one that is gone does not get it.
    pub(super) fn send_to_thread(&self, tid: u32, info: SignalInfo) {
        let _ = self.send(Target::Thread(tid), info);
    }

    /// Sends it, or one of its threads, a signal.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is no such thread, `EAGAIN` if a real-time signal would have to wait and too
    /// many do.
    pub fn send(&self, target: Target, info: SignalInfo) -> Result<()> {
        let consequence = self.post(target, info)?;
        self.follow(consequence);
        Ok(())
    }

    /// Has it have a signal that always can be sent; the consequence is still to follow.
    pub(super) fn post_to_process(&self, info: SignalInfo) -> Consequence {
        self.post(Target::Process, info).unwrap_or_default()
    }

    fn post(&self, target: Target, info: SignalInfo) -> Result<Consequence> {
        let signal = info.signal;
        if self.is_ending() {
            return Ok(Consequence::default());
        }
        let keep = || {
            // What the kernel sends is not lost, and what `kill(2)` sends arrives without its sender.
            let is_forced = !signal.is_real_time() && info.code >= 0;
            let charge = heap::check(WAITING_COST)
                .ok()
                .and_then(|()| self.charge_signal());
            if charge.is_none() && !is_forced {
                return match signal.is_real_time() && info.code != SI_USER {
                    true => Err(Errno::EAGAIN),
                    false => Ok(None),
                };
            }
            Ok(Some(Queued {
                info,
                _charge: charge,
                expiry: None,
            }))
        };
        self.group.lock().post(signal, target, keep)
    }

    /// Sends a signal of a timer; false if it is ignored.
    pub(super) fn send_expiry(&self, target: Target, queued: Queued) -> bool {
        let consequence = self.group.lock().post_expiry(target, queued);
        match consequence {
            Some(consequence) => self.follow(consequence),
            None => return false,
        }
        true
    }

    /// Sends a thread a signal for what it did itself; false if that ends the process.
    pub(super) fn force_signal(&self, tid: u32, info: SignalInfo, is_fatal: bool) -> bool {
        let mut group = self.group.lock();
        group.unblock_forced(tid, info.signal, is_fatal);
        let keep = || {
            Ok(Some(Queued {
                info,
                _charge: None,
                expiry: None,
            }))
        };
        let consequence = group.post(info.signal, Target::Thread(tid), keep);
        drop(group);
        let consequence = consequence.unwrap_or_default();
        let is_handled = consequence.fatal.is_none();
        self.follow(consequence);
        is_handled
    }

    pub(super) fn follow(&self, consequence: Consequence) {
        let Consequence { fatal, change } = consequence;
        if let Some(change) = change {
            self.tell_parent(change);
        }
        if let Some(signal) = fatal {
            self.exit(ExitStatus::Signaled(signal.number()));
        }
    }

    /// The process has stopped or goes on.
    pub(super) fn tell_parent(&self, change: Change) {
        let mut sent = Sent::default();
        table::lock().tell_of_change(self.pid, change, &mut sent);
        sent.follow();
    }

    /// Has all threads stop.
    pub(super) fn stop(&self, signal: Signal) {
        self.group.lock().stop_all(signal);
    }

    /// Has a thread stop if it is to; true if so.
    pub(super) fn stop_thread(&self, tid: u32) -> bool {
        let mut group = self.group.lock();
        let (is_stopped, change) = group.stop(tid);
        group.review(tid);
        drop(group);
        if let Some(change) = change {
            self.tell_parent(change);
        }
        is_stopped
    }

    /// Whether all its threads have stopped.
    pub fn is_stopped(&self) -> bool {
        self.group.lock().has_stopped()
    }

    /// Whether a thread has stopped.
    pub(super) fn is_thread_stopped(&self, tid: u32) -> bool {
        self.group.lock().is_stopped(tid)
    }

    /// Takes the next signal that a thread has to do something about.
    pub(super) fn take_signal(&self, tid: u32) -> Option<SignalInfo> {
        let queued = self.group.lock().take_deliverable(tid)?;
        Some(self.taken(queued))
    }

    /// Takes one of `wanted` that waits for a thread, blocked or not.
    pub fn take_wanted(&self, tid: u32, wanted: SignalSet) -> Option<SignalInfo> {
        let queued = self.group.lock().take(tid, wanted)?;
        Some(self.taken(queued))
    }

    /// Has timers go on whose signal was taken.
    fn taken(&self, queued: Queued) -> SignalInfo {
        let mut info = queued.info;
        if let Some(expiry) = queued.expiry {
            expiry.taken(&mut info);
        }
        if info.signal == Signal::SIGALRM {
            self.interval_timers.real().go_on();
        }
        info
    }

    /// What is done about `signal`.
    pub fn action(&self, signal: Signal) -> Action {
        self.group.lock().handlers.get(signal)
    }

    /// What is done about `signal` now that it is delivered: a handler may be for once.
    pub(super) fn action_for_delivery(&self, signal: Signal) -> Action {
        self.group.lock().handlers.take_for_delivery(signal)
    }

    /// Sets what is done about `signal`, and gives what was. One that is ignored now does not wait any
    /// more.
    pub fn set_action(&self, signal: Signal, action: Action) -> Action {
        let mut group = self.group.lock();
        let before = group.handlers.set(signal, action);
        if action.ignores(signal) {
            group.forget(SignalSet::of(&[signal]));
        }
        drop(group);
        if before.ignores(signal) && !action.ignores(signal) {
            let timers = self.timers.lock();
            let waiting: alloc::vec::Vec<_> = timers.ignored(signal).collect();
            drop(timers);
            waiting.iter().for_each(|timer| timer.send());
        }
        before
    }

    /// The signals that are ignored because the process says so, and those that have handlers.
    pub fn ignored_and_caught(&self) -> [SignalSet; 2] {
        self.group.lock().handlers.ignored_and_caught()
    }

    /// What a thread blocks.
    pub fn blocked(&self, tid: u32) -> SignalSet {
        self.group.lock().blocked(tid)
    }

    /// Sets what a thread blocks, and gives what it did.
    pub fn set_blocked(&self, tid: u32, blocked: SignalSet) -> SignalSet {
        self.group.lock().set_blocked(tid, blocked)
    }

    /// Sets what a thread blocks while it waits in a system call. If a signal ends that, it counts
    /// until the handler is called, and the thread blocks afterwards what it did before; else whoever
    /// has called this calls [`restore_blocked`](Self::restore_blocked).
    pub fn set_blocked_temporarily(&self, tid: u32, blocked: SignalSet) {
        self.group.lock().set_temporarily(tid, blocked);
    }

    /// Has a thread block again what it did before
    /// [`set_blocked_temporarily`](Self::set_blocked_temporarily), if that was called.
    pub fn restore_blocked(&self, tid: u32) {
        self.group.lock().restore_blocked(tid);
    }

    pub(super) fn blocked_after_handler(&self, tid: u32) -> SignalSet {
        self.group.lock().blocked_after_handler(tid)
    }

    pub(super) fn block_for_handler(&self, tid: u32, more: SignalSet) {
        self.group.lock().block_for_handler(tid, more);
    }

    /// The signals that have come for a thread alone, and for all.
    pub fn pending(&self, tid: u32) -> [SignalSet; 2] {
        self.group.lock().pending(tid)
    }

    /// Waits, in the thread of `state`, until one of `wanted` comes, or until `other` is ready.
    ///
    /// # Errors
    ///
    /// `EINTR` if another signal comes, and those of `other`.
    pub async fn wait_for_signal(
        &self,
        state: &ThreadState,
        wanted: SignalSet,
        other: impl Future<Output = Errno>,
    ) -> Result<SignalInfo> {
        /// The thread takes what it blocks as long as this exists.
        struct Awaiting<'a>(&'a ControlBlock, u32);
        impl Drop for Awaiting<'_> {
            fn drop(&mut self) {
                self.0.group.lock().end_wait(self.1);
            }
        }
        let tid = state.tid;
        if let Some(info) = self.take_wanted(tid, wanted) {
            return Ok(info);
        }
        self.group.lock().begin_wait(tid, wanted);
        let awaiting = Awaiting(self, tid);
        let mut other = pin!(other);
        let result = poll_fn(|context| {
            state.register(context.waker());
            if let Some(info) = self.take_wanted(tid, wanted) {
                return Poll::Ready(Ok(info));
            }
            if !state.attention().is_empty() {
                return Poll::Ready(Err(Errno::EINTR));
            }
            other.as_mut().poll(context).map(Err)
        })
        .await;
        drop(awaiting);
        result
    }
}
