//! `kill(2)`, `tgkill(2)`, `rt_sigqueueinfo(2)` and their like: signals to processes and threads.

use super::Actor;
use crate::error::{Errno, Result};
use crate::process::{
    ControlBlock, SI_TKILL, SI_USER, Signal, SignalInfo, Target, all, members, process_of,
};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A signal to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// To whom.
    pub to: Receiver,
    /// Which; 0 only asks whether one could be sent.
    pub signal: i32,
    /// What the sender says of it, if that is not what the kernel knows.
    pub info: Option<SignalInfo>,
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// As `kill(2)` has it: a process, its own process group (0), all that can be sent one (-1), or
    /// another process group.
    Processes(i32),
    /// The process of that thread.
    Process(i32),
    /// A thread.
    Thread(i32),
    /// A thread of the process with the first number.
    ThreadOf(i32, i32),
}

impl Kill {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `kill(2)` and its like.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        match self.to {
            Receiver::Processes(pid) if pid > 0 => self.send_to_process(actor, pid),
            Receiver::Processes(-1) => {
                let own = actor.process.pid;
                let others = all().into_iter();
                self.send_to_all(
                    actor,
                    others
                        .filter(|other| other.pid > 1 && other.pid != own)
                        .collect(),
                )
            }
            Receiver::Processes(i32::MIN) => Err(Errno::ESRCH),
            Receiver::Processes(group) => {
                let group = match group {
                    0 => actor.process.process_group(),
                    group => group.unsigned_abs(),
                };
                self.send_to_all(actor, members(group))
            }
            Receiver::Process(pid) => self.send_to_process(actor, pid),
            Receiver::Thread(tid) => self.send_to_thread(actor, tid, None),
            Receiver::ThreadOf(pid, tid) => self.send_to_thread(actor, tid, Some(pid)),
        }
    }

    fn info(&self, actor: Actor<'_>, signal: Signal, code: i32) -> SignalInfo {
        let known = SignalInfo::sent(signal, code, actor.process.sender());
        self.info.unwrap_or(known)
    }

    /// The signal, or none if this only asks.
    fn signal(&self) -> Result<Option<Signal>> {
        match self.signal {
            0 => Ok(None),
            number => Signal::new(number).map(Some).ok_or(Errno::EINVAL),
        }
    }

    fn send_to_process(&self, actor: Actor<'_>, pid: i32) -> Result<()> {
        self.send_to_one(actor, &process_of(pid)?)
    }

    fn send_to_one(&self, actor: Actor<'_>, process: &Arc<ControlBlock>) -> Result<()> {
        let signal = self.signal()?;
        check_allowed(actor, process, signal)?;
        match signal {
            Some(signal) => process.send(Target::Process, self.info(actor, signal, SI_USER)),
            None => Ok(()),
        }
    }

    /// Sends it to several: it is enough if one gets it.
    fn send_to_all(&self, actor: Actor<'_>, processes: Vec<Arc<ControlBlock>>) -> Result<()> {
        let mut result = Err(Errno::ESRCH);
        for process in processes {
            let sent = self.send_to_one(actor, &process);
            if result.is_err() {
                result = sent;
            }
        }
        result
    }

    fn send_to_thread(&self, actor: Actor<'_>, tid: i32, of: Option<i32>) -> Result<()> {
        let process = process_of(tid)?;
        if of.is_some_and(|pid| process.pid as i32 != pid) {
            return Err(Errno::ESRCH);
        }
        let signal = self.signal()?;
        check_allowed(actor, &process, signal)?;
        let Some(signal) = signal else {
            return Ok(());
        };
        let info = self.info(actor, signal, SI_TKILL);
        let sent = process.send(Target::Thread(tid.unsigned_abs()), info);
        match sent {
            // The first thread is there as long as its process, though it hears of nothing.
            Err(Errno::ESRCH) => Ok(()),
            sent => sent,
        }
    }
}

/// Whether the actor may send `signal` to `process` (`check_kill_permission` of Linux).
fn check_allowed(
    actor: Actor<'_>,
    process: &Arc<ControlBlock>,
    signal: Option<Signal>,
) -> Result<()> {
    if process.pid == actor.process.pid {
        return Ok(());
    }
    let own = actor.process.credentials.lock().user;
    let other = process.credentials.lock().user;
    let is_allowed = own.effective == 0
        || [own.effective, own.real]
            .into_iter()
            .any(|id| id == other.real || id == other.saved);
    let is_continued =
        || signal == Some(Signal::SIGCONT) && process.session() == actor.process.session();
    match is_allowed || is_continued() {
        true => Ok(()),
        false => Err(Errno::EPERM),
    }
}
