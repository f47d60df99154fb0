//! The process table: numbers, parents and children, process groups and sessions.
//!
//! One lock guards all of it. The lock of a process's threads may be taken under it, not the other way
//! round.

use super::control_block::{ControlBlock, ExitStatus, threads_max};
use super::job;
use super::signal::{Signal, SignalInfo};
use super::thread_group::{self, Consequence};
use super::thread_state::ThreadState;
use crate::error::{Errno, Result};
use crate::file::Terminal;
use crate::globals::global;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as raw;
use machine::lock::{Mutex, MutexGuard};

/// Numbers are below this (`pid_max`).
pub const PID_MAX: u32 = 1 << 22;
/// When all have been used the next ones begin here (`RESERVED_PIDS`).
const RESERVED: u32 = 300;
/// The number of the first process.
const FIRST: u32 = 1;

global! {
    static TABLE: Mutex<Table> = Mutex::new(Table::new());
}

/// All processes.
pub(super) struct Table {
    pub(super) processes: BTreeMap<u32, Entry>,
    /// Threads that are not the first of their process.
    threads: BTreeMap<u32, Weak<ControlBlock>>,
    /// The members of each process group.
    pub(super) groups: BTreeMap<u32, BTreeSet<u32>>,
    /// How many processes are in each session.
    pub(super) sessions: BTreeMap<u32, usize>,
    /// The controlling terminals of sessions.
    pub(super) terminals: BTreeMap<u32, Arc<dyn Terminal>>,
    /// The number that was given last.
    last: u32,
    /// Processes and threads that were ever made.
    made: u64,
}

/// A process in the table.
pub(super) struct Entry {
    pub(super) block: Arc<ControlBlock>,
    /// Its parent, 0 for none, and the thread of that which has made it.
    pub(super) parent: u32,
    pub(super) parent_tid: u32,
    pub(super) children: BTreeSet<u32>,
    /// Its process group and its session.
    pub(super) group: u32,
    pub(super) session: u32,
    /// The signal that tells its parent of its end; 0 for none.
    pub(super) exit_signal: u8,
    /// It has given up the terminal of its session.
    pub(super) has_left_terminal: bool,
    /// How it ended, if it has.
    pub(super) ended: Option<ExitStatus>,
    /// That it has stopped or goes on, if its parent has not waited for that.
    pub(super) change: Option<Change>,
}

/// That a process has stopped or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A signal has stopped it.
    Stopped(Signal),
    /// It goes on.
    Continued,
}

/// Signals that were sent under the lock, and what follows from them once it is free.
#[derive(Default)]
pub(super) struct Sent(Vec<(Arc<ControlBlock>, Consequence)>);

impl Sent {
    /// Sends a signal of the kernel's. It has come when the lock is given up.
    pub(super) fn send(&mut self, to: &Arc<ControlBlock>, info: SignalInfo) {
        let consequence = to.post_to_process(info);
        if !consequence.is_empty() {
            self.0.push((to.clone(), consequence));
        }
    }

    /// Without the lock.
    pub(super) fn follow(self) {
        for (process, consequence) in self.0 {
            process.follow(consequence);
        }
    }
}

pub(super) fn lock() -> MutexGuard<'static, Table> {
    TABLE.lock()
}

/// Begins anew, with the first process.
pub(super) fn start() -> Arc<ControlBlock> {
    let block = ControlBlock::first();
    let mut new = Table::new();
    let entry = Entry {
        block: block.clone(),
        parent: 0,
        parent_tid: 0,
        children: BTreeSet::new(),
        group: FIRST,
        session: FIRST,
        exit_signal: Signal::SIGCHLD.number(),
        has_left_terminal: false,
        ended: None,
        change: None,
    };
    new.insert(FIRST, entry);
    let before = core::mem::replace(&mut *lock(), new);
    drop(before);
    block
}

/// Gives a number to one more thread of `process`, which is not the first.
///
/// # Errors
///
/// `EAGAIN` if there are too many threads.
pub(super) fn add_thread(process: &Weak<ControlBlock>) -> Result<u32> {
    let mut table = lock();
    let tid = table.take_number()?;
    table.threads.insert(tid, process.clone());
    Ok(tid)
}

pub(super) fn remove_thread(tid: u32) {
    let gone = lock().threads.remove(&tid);
    drop(gone);
}

/// The process with the number `pid`, be it a zombie.
///
/// # Errors
///
/// `ESRCH`.
pub fn process(pid: i32) -> Result<Arc<ControlBlock>> {
    let pid = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let table = lock();
    let entry = table.processes.get(&pid).ok_or(Errno::ESRCH)?;
    Ok(entry.block.clone())
}

/// The process that the thread with number `tid` is of; 0 is no thread.
///
/// # Errors
///
/// `ESRCH`.
pub fn process_of(tid: i32) -> Result<Arc<ControlBlock>> {
    let tid = u32::try_from(tid).map_err(|_| Errno::ESRCH)?;
    let table = lock();
    let found = match table.processes.get(&tid) {
        Some(entry) => Some(entry.block.clone()),
        None => table.threads.get(&tid).and_then(Weak::upgrade),
    };
    found.ok_or(Errno::ESRCH)
}

/// The thread with number `tid` of whatever process.
///
/// # Errors
///
/// `ESRCH`, also for a process of which no thread is left.
pub fn thread(tid: i32) -> Result<(Arc<ControlBlock>, Arc<ThreadState>)> {
    let process = process_of(tid)?;
    let state = process.group.lock().thread(tid.unsigned_abs()).cloned();
    Ok((process, state.ok_or(Errno::ESRCH)?))
}

/// All processes, by number.
pub fn all() -> Vec<Arc<ControlBlock>> {
    let table = lock();
    let entries = table.processes.values();
    entries.map(|entry| entry.block.clone()).collect()
}

/// How many threads there are, the number that was given last, and how many processes and threads have
/// been made.
pub fn counts() -> (usize, u32, u64) {
    let table = lock();
    (table.count(), table.last, table.made)
}

/// Whether a process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    There,
    /// It has ended, and its parent has not waited for it.
    Ended,
    /// Nobody can wait for it any more.
    Gone,
}

/// Whether `process` is there.
pub(super) fn state_of(process: &ControlBlock) -> State {
    let table = lock();
    match table.processes.get(&process.pid) {
        Some(entry) if !core::ptr::eq(&*entry.block, process) => State::Gone,
        Some(entry) if entry.ended.is_some() => State::Ended,
        Some(_) => State::There,
        None => State::Gone,
    }
}

/// Whether the process with number `pid` has ended, and no other is left.
pub(super) fn is_last(pid: u32) -> bool {
    let table = lock();
    let entry = table.processes.get(&pid);
    entry.is_none_or(|entry| entry.ended.is_some()) && table.processes.len() <= 1
}

/// All threads of `process` have ended: it stays as a zombie until its parent has waited for it, or goes
/// at once if the parent does not want to; its children get another parent.
pub(super) fn bury(process: &ControlBlock, status: ExitStatus) {
    let mut sent = Sent::default();
    let mut gone = Vec::new();
    let mut table = lock();
    let first = table.processes.get(&FIRST).map(|entry| entry.block.clone());
    if let Some(entry) = table.processes.get_mut(&process.pid) {
        entry.ended = Some(status);
        entry.change = None;
    }
    let terminal = table.take_terminal_of_leader(process.pid);
    let children = table.adopt_children(process.pid, &mut sent, &mut gone);
    job::leave(&table, process.pid, &children, &mut sent);
    if process.pid == FIRST {
        for (pid, entry) in &table.processes {
            if *pid != FIRST {
                entry
                    .block
                    .exit(ExitStatus::Signaled(Signal::SIGKILL.number()));
            }
        }
    } else {
        table.tell_of_end(process.pid, &mut sent, &mut gone);
    }
    drop(table);
    if let Some(terminal) = terminal {
        job::hang_up(&terminal);
        terminal.end_session();
    }
    process.ends.wake_all();
    sent.follow();
    gone.iter().for_each(|entry| entry.block.ends.wake_all());
    drop(gone);
    if let Some(first) = first {
        first.changes.wake_all();
    }
}

impl Table {
    const fn new() -> Self {
        Self {
            processes: BTreeMap::new(),
            threads: BTreeMap::new(),
            groups: BTreeMap::new(),
            sessions: BTreeMap::new(),
            terminals: BTreeMap::new(),
            last: FIRST,
            made: 1,
        }
    }

    /// Threads, those included that have ended and that nobody has waited for.
    fn count(&self) -> usize {
        self.processes.len() + self.threads.len()
    }

    /// Whether it is the number of a thread that is not the first of its process.
    pub(super) fn is_thread(&self, number: u32) -> bool {
        self.threads.contains_key(&number)
    }

    fn is_used(&self, number: u32) -> bool {
        self.processes.contains_key(&number)
            || self.threads.contains_key(&number)
            || self.groups.contains_key(&number)
            || self.sessions.contains_key(&number)
    }

    /// Whether there may be one more thread.
    ///
    /// # Errors
    ///
    /// `EAGAIN`.
    pub(super) fn check_room(&self) -> Result<()> {
        match (self.count() as u64) < threads_max() {
            true => Ok(()),
            false => Err(Errno::EAGAIN),
        }
    }

    /// A number for a thread or process.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are too many.
    pub(super) fn take_number(&mut self) -> Result<u32> {
        self.check_room()?;
        // There are far more numbers than what can use them.
        loop {
            let next = self.last + 1;
            self.last = if next < PID_MAX { next } else { RESERVED };
            if !self.is_used(self.last) {
                self.made += 1;
                return Ok(self.last);
            }
        }
    }

    /// Takes that number.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is none, `EEXIST` if it is used, `EAGAIN` if there are too many threads.
    pub(super) fn take_this_number(&mut self, number: i32) -> Result<u32> {
        self.check_room()?;
        let number = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
        if number == 0 || number >= PID_MAX {
            return Err(Errno::EINVAL);
        }
        if self.is_used(number) {
            return Err(Errno::EEXIST);
        }
        self.made += 1;
        Ok(number)
    }

    /// Adds a process.
    pub(super) fn insert(&mut self, pid: u32, entry: Entry) {
        self.groups.entry(entry.group).or_default().insert(pid);
        *self.sessions.entry(entry.session).or_default() += 1;
        if let Some(parent) = self.processes.get_mut(&entry.parent) {
            parent.children.insert(pid);
        }
        self.processes.insert(pid, entry);
    }

    /// Takes a process out, which nobody waits for any more. What is given is dropped without the lock.
    pub(super) fn remove(&mut self, pid: u32) -> Option<Entry> {
        let entry = self.processes.remove(&pid)?;
        if let Some(parent) = self.processes.get_mut(&entry.parent) {
            parent.children.remove(&pid);
        }
        self.leave_group(pid, entry.group);
        self.leave_session(entry.session);
        Some(entry)
    }

    pub(super) fn leave_group(&mut self, pid: u32, group: u32) {
        if let Some(members) = self.groups.get_mut(&group) {
            members.remove(&pid);
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    pub(super) fn leave_session(&mut self, session: u32) {
        if let Some(members) = self.sessions.get_mut(&session) {
            *members -= 1;
            if *members == 0 {
                self.sessions.remove(&session);
            }
        }
    }

    /// The process that orphans of `pid` go to: the nearest above it that wants them, else the first.
    fn reaper_of(&self, pid: u32) -> u32 {
        let mut at = self.processes.get(&pid).map_or(0, |entry| entry.parent);
        while let Some(entry) = self.processes.get(&at) {
            let is_willing = entry.block.is_subreaper.load(Ordering::Relaxed);
            if is_willing && entry.ended.is_none() && !entry.block.is_ending() {
                return at;
            }
            at = entry.parent;
        }
        FIRST
    }

    /// The children of `pid`, which ends, get another parent; gives them.
    fn adopt_children(
        &mut self,
        pid: u32,
        sent: &mut Sent,
        gone: &mut Vec<Entry>,
    ) -> BTreeSet<u32> {
        let Some(entry) = self.processes.get_mut(&pid) else {
            return BTreeSet::new();
        };
        let children = core::mem::take(&mut entry.children);
        let dead = entry.block.sender();
        if children.is_empty() {
            return children;
        }
        let reaper = self.reaper_of(pid);
        for child in children.iter().copied() {
            if let Some(adopter) = self.processes.get_mut(&reaper) {
                adopter.children.insert(child);
            }
            let Some(entry) = self.processes.get_mut(&child) else {
                continue;
            };
            entry.parent = reaper;
            entry.parent_tid = reaper;
            entry.exit_signal = Signal::SIGCHLD.number();
            let signal = entry.block.death_signal.load(Ordering::Relaxed);
            if let Some(signal) = Signal::new(signal as i32) {
                let block = entry.block.clone();
                sent.send(&block, SignalInfo::user(signal, dead));
            }
            if self
                .processes
                .get(&child)
                .is_some_and(|entry| entry.ended.is_some())
            {
                self.tell_of_end(child, sent, gone);
            }
        }
        children
    }

    /// Tells the parent of `pid` that it has stopped or goes on.
    pub(super) fn tell_of_change(
        &mut self,
        pid: u32,
        change: thread_group::Change,
        sent: &mut Sent,
    ) {
        let Some(entry) = self.processes.get_mut(&pid) else {
            return;
        };
        let (code, signal, kept) = match change {
            thread_group::Change::Stopped(signal) => {
                (raw::CLD_STOPPED, signal, Change::Stopped(signal))
            }
            thread_group::Change::StoppedAndContinued(signal) => {
                (raw::CLD_STOPPED, signal, Change::Continued)
            }
            thread_group::Change::Continued => {
                (raw::CLD_CONTINUED, Signal::SIGCONT, Change::Continued)
            }
        };
        entry.change = Some(kept);
        let (block, parent) = (entry.block.clone(), entry.parent);
        let Some(parent) = self.processes.get(&parent) else {
            return;
        };
        let action = parent.block.action(Signal::SIGCHLD);
        if !action.has(raw::SA_NOCLDSTOP) {
            let info = block.child_info(Signal::SIGCHLD, code, signal.number().into());
            sent.send(&parent.block, info);
        }
        parent.block.changes.wake_all();
    }

    /// Tells the parent of the end of `pid`; takes that out if the parent does not want to wait for it.
    fn tell_of_end(&mut self, pid: u32, sent: &mut Sent, gone: &mut Vec<Entry>) {
        let Some(entry) = self.processes.get(&pid) else {
            return;
        };
        let status = entry.ended.unwrap_or(ExitStatus::Exited(0));
        let parent = self.processes.get(&entry.parent);
        let Some(parent) = parent.filter(|parent| parent.ended.is_none()) else {
            gone.extend(self.remove(pid));
            return;
        };
        let signal = Signal::new(entry.exit_signal.into());
        let (is_wanted, is_told) = match signal {
            Some(Signal::SIGCHLD) => parent.block.wants_children(),
            _ => (true, true),
        };
        if let Some(signal) = signal.filter(|_| is_told) {
            sent.send(&parent.block, entry.block.end_info(signal, status));
        }
        parent.block.changes.wake_all();
        if !is_wanted {
            gone.extend(self.remove(pid));
        }
    }
}

#[cfg(test)]
mod tests;
