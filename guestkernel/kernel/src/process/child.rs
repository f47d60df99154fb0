//! Children: what their parent is told of them, and waiting for them (`waitid(2)`).

use super::control_block::{ControlBlock, ExitStatus};
use super::signal::{Signal, SignalInfo};
use super::table::{self, Change, Entry};
use crate::error::{Errno, Result};
use bitflags::bitflags;
use core::future::poll_fn;
use core::sync::atomic::Ordering;
use core::task::Poll;
use linux_raw_sys::general as raw;

/// Nanoseconds in a tick, as CPU time is told to parents.
const TICK: u64 = 1_000_000_000 / super::CLOCK_TICKS;

/// The children that are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    Any,
    /// The one with that number.
    Process(u32),
    /// Those of that process group.
    Group(u32),
}

bitflags! {
    /// What of children is waited for, and how.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WaitOptions: u32 {
        /// Do not wait.
        const NO_HANG = raw::WNOHANG;
        /// That they stop.
        const STOPPED = raw::WSTOPPED;
        /// That they end.
        const EXITED = raw::WEXITED;
        /// That they go on.
        const CONTINUED = raw::WCONTINUED;
        /// It can be waited for again.
        const NO_WAIT = raw::WNOWAIT;
        /// Only children of this thread.
        const NO_THREAD = raw::__WNOTHREAD;
        /// Children whose end is told by SIGCHLD, and others.
        const ALL = raw::__WALL;
        /// Only others.
        const CLONE = raw::__WCLONE;
    }
}

/// What has become of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Its number.
    pub pid: u32,
    /// Its real user.
    pub user: u32,
    /// `CLD_*`.
    pub code: u32,
    /// What it said when it ended, or the number of a signal.
    pub status: u8,
    /// Nanoseconds of CPU time that it has used, with children that it has waited for.
    pub cpu_time: u64,
}

impl ControlBlock {
    /// Whether it wants to wait for children that have ended, and whether it is told of them.
    pub(super) fn wants_children(&self) -> (bool, bool) {
        let action = self.action(Signal::SIGCHLD);
        let is_told = !action.is_ignore();
        (is_told && !action.has(raw::SA_NOCLDWAIT), is_told)
    }

    /// What its parent is told of it.
    pub(super) fn child_info(&self, signal: Signal, code: u32, status: i32) -> SignalInfo {
        let ticks = self.cpu_time() / TICK;
        SignalInfo::child(signal, code as i32, self.sender(), status, ticks)
    }

    /// What its parent is told of its end.
    pub(super) fn end_info(&self, signal: Signal, status: ExitStatus) -> SignalInfo {
        let (code, status) = code_of(status);
        self.child_info(signal, code, status.into())
    }

    /// Waits, in its thread `tid`, for a child to change; `None` if none has and it is not to wait.
    ///
    /// # Errors
    ///
    /// `ECHILD` if there is no child that could; `ERESTARTSYS`.
    pub async fn wait_for_child(
        &self,
        tid: u32,
        which: Which,
        options: WaitOptions,
    ) -> Result<Option<Waited>> {
        let waiting = poll_fn(|context| {
            self.changes.register(context.waker());
            match self.look_at_children(tid, which, options) {
                Ok(None) if !options.contains(WaitOptions::NO_HANG) => Poll::Pending,
                result => Poll::Ready(result),
            }
        });
        self.until_signal(tid, waiting).await?
    }

    fn look_at_children(
        &self,
        tid: u32,
        which: Which,
        options: WaitOptions,
    ) -> Result<Option<Waited>> {
        let mut table = table::lock();
        let own = table.processes.get(&self.pid).ok_or(Errno::ECHILD)?;
        let mut is_hopeless = true;
        let mut found = None;
        for pid in &own.children {
            let Some(child) = table.processes.get(pid) else {
                continue;
            };
            if !is_meant(child, tid, which, options) {
                continue;
            }
            is_hopeless &= child.ended.is_some() && !options.contains(WaitOptions::EXITED);
            if let Some((code, status)) = event(child, options) {
                found = Some((*pid, code, status));
                break;
            }
        }
        let Some((pid, code, status)) = found else {
            return match is_hopeless {
                true => Err(Errno::ECHILD),
                false => Ok(None),
            };
        };
        let keeps = options.contains(WaitOptions::NO_WAIT);
        let entry = table.processes.get_mut(&pid).ok_or(Errno::ECHILD)?;
        let block = entry.block.clone();
        let is_end = entry.ended.is_some();
        if !is_end && !keeps {
            entry.change = None;
        }
        let gone = (is_end && !keeps).then(|| table.remove(pid));
        drop(table);
        if gone.is_some() {
            block.ends.wake_all();
        }
        drop(gone);
        let cpu_time = block.cpu_time() + block.children_cpu_time();
        if is_end && !keeps {
            self.children_cpu_time
                .fetch_add(cpu_time, Ordering::Relaxed);
        }
        let user = block.credentials.lock().user.real;
        Ok(Some(Waited {
            pid,
            user,
            code,
            status,
            cpu_time,
        }))
    }
}

/// Why a parent is told of an end, and the status.
fn code_of(status: ExitStatus) -> (u32, u8) {
    match status {
        ExitStatus::Exited(status) => (raw::CLD_EXITED, status),
        ExitStatus::Signaled(signal) => (raw::CLD_KILLED, signal),
    }
}

fn is_meant(child: &Entry, tid: u32, which: Which, options: WaitOptions) -> bool {
    let is_named = match which {
        Which::Any => true,
        Which::Process(pid) => child.block.pid == pid,
        Which::Group(group) => child.group == group,
    };
    let is_clone = child.exit_signal != Signal::SIGCHLD.number();
    let is_kind =
        options.contains(WaitOptions::ALL) || is_clone == options.contains(WaitOptions::CLONE);
    let is_own = !options.contains(WaitOptions::NO_THREAD) || child.parent_tid == tid;
    is_named && is_kind && is_own
}

/// What there is to tell of a child.
fn event(child: &Entry, options: WaitOptions) -> Option<(u32, u8)> {
    if let Some(status) = child.ended {
        return options
            .contains(WaitOptions::EXITED)
            .then(|| code_of(status));
    }
    match child.change? {
        Change::Stopped(signal) if options.contains(WaitOptions::STOPPED) => {
            Some((raw::CLD_STOPPED, signal.number()))
        }
        Change::Continued if options.contains(WaitOptions::CONTINUED) => {
            Some((raw::CLD_CONTINUED, Signal::SIGCONT.number()))
        }
        _ => None,
    }
}

impl Waited {
    /// As `wait4(2)` has it.
    pub fn status_word(&self) -> i32 {
        match self.code {
            raw::CLD_EXITED => i32::from(self.status) << 8,
            raw::CLD_STOPPED => i32::from(self.status) << 8 | 0x7f,
            raw::CLD_CONTINUED => 0xffff,
            _ => self.status.into(),
        }
    }
}
