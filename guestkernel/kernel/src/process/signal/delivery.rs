//! What a thread does about its signals before its program goes on.

use super::frame;
use super::handlers::{Action, Effect};
use super::info::SignalInfo;
use super::set::{DefaultAction, Signal};
use crate::error::{Errno, Result};
use crate::process::control_block::ExitStatus;
use crate::process::thread::Thread;
use crate::process::thread_state::Attention;
use core::future::poll_fn;
use core::task::Poll;
use linux_raw_sys::general as raw;

/// Bytes of SYSCALL, which a call that is made again executes again.
const CALL_SIZE: u64 = 2;

/// A system call that ended because a signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The number of the call.
    pub number: u64,
    /// When it is made again.
    pub error: Errno,
}

impl Thread {
    /// Does what there is to do about signals and stops; false if the thread is to end.
    pub(crate) async fn attend(&mut self) -> bool {
        let process = self.process.clone();
        loop {
            if self.must_end() {
                return false;
            }
            if process.stop_thread(self.tid) {
                self.wait_until_continued().await;
            } else if let Some(info) = process.take_signal(self.tid) {
                self.deliver(info).await;
            } else {
                break;
            }
        }
        if let Some(call) = self.interrupted.take() {
            // No handler was called.
            self.make_call_again(call);
        }
        process.restore_blocked(self.tid);
        true
    }

    /// Whether it is to end, rather than to go on with its program.
    pub(crate) fn must_end(&self) -> bool {
        self.state.attention().contains(Attention::END)
    }

    async fn wait_until_continued(&self) {
        poll_fn(|context| {
            self.state.register(context.waker());
            match self.process.is_thread_stopped(self.tid) && !self.must_end() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    async fn deliver(&mut self, info: SignalInfo) {
        let signal = info.signal;
        let action = self.process.action_for_delivery(signal);
        match action.effect(signal) {
            Effect::Ignore | Effect::Default(DefaultAction::Ignore | DefaultAction::Continue) => {}
            Effect::Default(DefaultAction::Stop) => self.process.stop(signal),
            Effect::Default(DefaultAction::Terminate) => {
                self.process.exit(ExitStatus::Signaled(signal.number()));
            }
            Effect::Handler => self.call_handler(&info, &action).await,
        }
    }

    async fn call_handler(&mut self, info: &SignalInfo, action: &Action) {
        if let Some(call) = self.interrupted.take() {
            let is_made_again = match call.error {
                Errno::ERESTARTNOINTR => true,
                Errno::ERESTARTSYS => action.has(raw::SA_RESTART),
                _ => false,
            };
            match is_made_again {
                true => self.make_call_again(call),
                false => self.set_error(Errno::EINTR),
            }
        }
        let signal = info.signal;
        let blocked = self.process.blocked_after_handler(self.tid);
        let result = loop {
            let result = self
                .abort_sequence()
                .and_then(|()| frame::push(self, info, action, blocked));
            if result != Err(Errno::ABSENT) {
                break result;
            }
            // A page of the stack has to be read first.
            match self.bring_in_absent().await {
                Some(Ok(())) => {}
                Some(error) => break error,
                None => return,
            }
        };
        if result.is_err() {
            let why = format_args!("no room for the frame of signal {}", signal.number());
            self.fail(signal == Signal::SIGSEGV, why);
            return;
        }
        let mut more = action.mask;
        if !action.has(raw::SA_NODEFER) {
            more = more.with(signal);
        }
        self.process.block_for_handler(self.tid, more);
    }

    /// A restartable sequence that the handler interrupts starts again after it.
    fn abort_sequence(&mut self) -> Result<()> {
        self.sequences.disturb();
        self.sequences
            .prepare(&self.process.space, &mut self.context)
    }

    /// Has the program make a system call again.
    fn make_call_again(&mut self, call: Interrupted) {
        let number = match call.error {
            Errno::ERESTART_RESTARTBLOCK => raw::__NR_restart_syscall.into(),
            _ => call.number,
        };
        let registers = &mut self.context.registers;
        registers.rip = registers.rip.wrapping_sub(CALL_SIZE);
        registers.rax = number;
    }

    /// Has the system call that was made last give an error.
    pub(crate) fn set_error(&mut self, error: Errno) {
        let value = i64::from(error.as_result()) as u64;
        self.context.set_syscall_result(value);
    }

    /// The handler of a signal returns (`rt_sigreturn(2)`); gives what it leaves in RAX.
    ///
    /// # Errors
    ///
    /// [`Errno::ABSENT`], after which it is done again.
    pub(crate) fn return_from_handler(&mut self) -> Result<u64> {
        match frame::pop(self) {
            Ok(blocked) => {
                self.process.set_blocked(self.tid, blocked);
            }
            Err(Errno::ABSENT) => return Err(Errno::ABSENT),
            Err(_) => self.fail(false, format_args!("bad frame of a signal")),
        }
        *self.state.restart.lock() = None;
        Ok(self.context.registers.rax)
    }

    /// The program cannot go on: it gets SIGSEGV, or ends by it if `is_fatal`.
    pub(crate) fn fail(&mut self, is_fatal: bool, why: core::fmt::Arguments<'_>) {
        let info = SignalInfo::kernel(Signal::SIGSEGV);
        self.force(info, is_fatal, why);
    }

    /// Sends the thread a signal for what its program did.
    pub(crate) fn force(&self, info: SignalInfo, is_fatal: bool, why: core::fmt::Arguments<'_>) {
        let is_handled = self.process.force_signal(self.tid, info, is_fatal);
        if !is_handled {
            log::info!(
                "process {}: signal {} at {:#x}: {why}",
                self.process.pid,
                info.signal.number(),
                self.context.registers.rip,
            );
        }
    }
}
