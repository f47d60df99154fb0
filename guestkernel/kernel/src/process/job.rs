//! Process groups and sessions: jobs of a shell (`setpgid(2)`, `setsid(2)`, credentials(7)).

use super::control_block::ControlBlock;
use super::signal::{Signal, SignalInfo};
use super::table::{self, Sent, Table};
use crate::error::{Errno, Result};
use crate::file::Terminal;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

impl ControlBlock {
    /// Its process group.
    pub fn process_group(&self) -> u32 {
        let table = table::lock();
        table
            .processes
            .get(&self.pid)
            .map_or(0, |entry| entry.group)
    }

    /// Its session.
    pub fn session(&self) -> u32 {
        let table = table::lock();
        let entry = table.processes.get(&self.pid);
        entry.map_or(0, |entry| entry.session)
    }

    /// Its parent; 0 for none.
    pub fn parent(&self) -> u32 {
        let table = table::lock();
        table
            .processes
            .get(&self.pid)
            .map_or(0, |entry| entry.parent)
    }

    /// Makes a new session, and a process group in it, with its number (`setsid(2)`).
    ///
    /// # Errors
    ///
    /// `EPERM` if there is a process group with that number.
    pub fn begin_session(&self) -> Result<u32> {
        let mut table = table::lock();
        let pid = self.pid;
        // Nobody can make a session twice: its process group is there as long as it is in it.
        if table.groups.contains_key(&pid) {
            return Err(Errno::EPERM);
        }
        if let Some(entry) = table.processes.get_mut(&pid) {
            let group = core::mem::replace(&mut entry.group, pid);
            let session = core::mem::replace(&mut entry.session, pid);
            entry.has_left_terminal = false;
            table.leave_group(pid, group);
            table.leave_session(session);
            table.groups.entry(pid).or_default().insert(pid);
            *table.sessions.entry(pid).or_default() += 1;
        }
        Ok(pid)
    }

    /// Its controlling terminal: that of its session, unless it has given that up.
    pub fn terminal(&self) -> Option<Arc<dyn Terminal>> {
        let table = table::lock();
        let entry = table.processes.get(&self.pid)?;
        match entry.has_left_terminal {
            true => None,
            false => table.terminals.get(&entry.session).cloned(),
        }
    }

    /// Makes `terminal` that of its session, with its process group in the foreground. Another session
    /// that has it loses it.
    pub fn set_terminal(&self, terminal: Arc<dyn Terminal>) {
        let mut table = table::lock();
        let Some(entry) = table.processes.get_mut(&self.pid) else {
            return;
        };
        entry.has_left_terminal = false;
        let (session, group) = (entry.session, entry.group);
        let stolen = table.terminals.remove(&terminal.session());
        terminal.belong_to(session, group);
        let before = table.terminals.insert(session, terminal);
        drop(table);
        drop((stolen, before));
    }

    /// Gives its controlling terminal up; for all of its session, if it leads that.
    pub fn leave_terminal(&self) {
        let mut table = table::lock();
        if let Some(entry) = table.processes.get_mut(&self.pid) {
            entry.has_left_terminal = true;
        }
        let terminal = table.take_terminal_of_leader(self.pid);
        drop(table);
        if let Some(terminal) = terminal {
            hang_up(&terminal);
            terminal.belong_to(0, 0);
        }
    }

    /// Puts the process `pid`, itself or a child of it, into the process group `group`; for either, 0 is
    /// the number of the process (`setpgid(2)`).
    ///
    /// # Errors
    ///
    /// `EINVAL`, `ESRCH`, `EACCES` for a child that has executed a program, `EPERM`.
    pub fn set_process_group(&self, pid: i32, group: i32) -> Result<()> {
        let pid = if pid == 0 { self.pid as i32 } else { pid };
        let group = if group == 0 { pid } else { group };
        if group < 0 {
            return Err(Errno::EINVAL);
        }
        let (pid, group) = (pid.unsigned_abs(), group.unsigned_abs());
        let mut table = table::lock();
        let own = table
            .processes
            .get(&self.pid)
            .map_or(0, |entry| entry.session);
        let Some(entry) = table.processes.get(&pid) else {
            // A thread that is not the first is no process.
            return Err(match table.is_thread(pid) {
                true => Errno::EINVAL,
                false => Errno::ESRCH,
            });
        };
        if entry.parent == self.pid {
            if entry.session != own {
                return Err(Errno::EPERM);
            }
            if entry.block.has_executed.load(Ordering::Relaxed) {
                return Err(Errno::EACCES);
            }
        } else if pid != self.pid {
            return Err(Errno::ESRCH);
        }
        if entry.session == pid {
            return Err(Errno::EPERM);
        }
        if group != pid {
            let members = table.groups.get(&group);
            let mut members = members.into_iter().flatten();
            let member = members.next().and_then(|pid| table.processes.get(pid));
            if member.is_none_or(|member| member.session != own) {
                return Err(Errno::EPERM);
            }
        }
        if let Some(entry) = table.processes.get_mut(&pid) {
            let before = core::mem::replace(&mut entry.group, group);
            table.leave_group(pid, before);
            table.groups.entry(group).or_default().insert(pid);
        }
        Ok(())
    }
}

/// The processes of a process group; none if there is no such one.
pub fn members(group: u32) -> Vec<Arc<ControlBlock>> {
    let table = table::lock();
    table.members(group)
}

/// Whether nobody is left who would have a process group go on that has stopped.
pub fn is_orphaned(group: u32) -> bool {
    table::lock().is_orphaned(group, None)
}

/// The session of a process group, if there is such a group.
pub fn session_of_group(group: u32) -> Option<u32> {
    let table = table::lock();
    let mut pids = table.groups.get(&group)?.iter();
    let entry = table.processes.get(pids.next()?)?;
    Some(entry.session)
}

/// Tells the process group in the foreground of a terminal that its session has none any more.
pub(super) fn hang_up(terminal: &Arc<dyn Terminal>) {
    for member in members(terminal.foreground()) {
        member.signal(Signal::SIGHUP);
        member.signal(Signal::SIGCONT);
    }
}

impl Table {
    /// The terminal of the session that `pid` leads, which has none any more.
    pub(super) fn take_terminal_of_leader(&mut self, pid: u32) -> Option<Arc<dyn Terminal>> {
        let entry = self.processes.get(&pid)?;
        match entry.session == pid {
            true => self.terminals.remove(&pid),
            false => None,
        }
    }

    /// The processes of a process group.
    fn members(&self, group: u32) -> Vec<Arc<ControlBlock>> {
        let pids = self.groups.get(&group).into_iter().flatten();
        let entries = pids.filter_map(|pid| self.processes.get(pid));
        entries.map(|entry| entry.block.clone()).collect()
    }

    /// Whether no process of the group, `ignored` aside, has a parent in another group of its session:
    /// nobody is left to have it go on when it stops.
    pub(super) fn is_orphaned(&self, group: u32, ignored: Option<u32>) -> bool {
        let pids = self.groups.get(&group).into_iter().flatten();
        let mut living = pids.filter(|pid| Some(**pid) != ignored).filter_map(|pid| {
            let entry = self.processes.get(pid)?;
            entry.ended.is_none().then_some(entry)
        });
        living.all(|entry| match self.processes.get(&entry.parent) {
            Some(parent) => parent.group == group || parent.session != entry.session,
            None => true,
        })
    }

    /// Has a process group that is orphaned now, and of which something has stopped, go on, after
    /// telling it. `pid` is one of it whose parent was `parent`.
    fn release_orphans(&self, pid: u32, parent: u32, ignored: Option<u32>, sent: &mut Sent) {
        let (Some(entry), Some(parent)) = (self.processes.get(&pid), self.processes.get(&parent))
        else {
            return;
        };
        let held = parent.group != entry.group && parent.session == entry.session;
        if !held || !self.is_orphaned(entry.group, ignored) {
            return;
        }
        let members = self.members(entry.group);
        if members.iter().any(|member| member.is_stopped()) {
            for signal in [Signal::SIGHUP, Signal::SIGCONT] {
                for member in &members {
                    sent.send(member, SignalInfo::kernel(signal));
                }
            }
        }
    }
}

/// The process `pid` has ended, and its children have another parent: what that means for process
/// groups.
pub(super) fn leave(table: &Table, pid: u32, children: &BTreeSet<u32>, sent: &mut Sent) {
    for child in children {
        table.release_orphans(*child, pid, None, sent);
    }
    if let Some(entry) = table.processes.get(&pid) {
        table.release_orphans(pid, entry.parent, Some(pid), sent);
    }
}
