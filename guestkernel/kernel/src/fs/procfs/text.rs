//! The texts in `/proc`.

use super::mounts;
use crate::error::{Errno, Result};
use crate::mm::{Access, PAGE};
use crate::process::{ControlBlock, Executable, ThreadState, all, counts};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;

/// Nanoseconds in a tick, as CPU time is counted (`USER_HZ` is 100).
const TICK: u64 = 10_000_000;
const SECOND: u64 = 1_000_000_000;

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Cpus,
    FileSystems,
    Load,
    Memory,
    System,
    Uptime,
    Version,
    CommandLine,
    Environment,
    Name,
    Maps,
    MemoryUse,
    Mounts,
    MountInfo,
    ProcessStat,
    Status,
}

impl Text {
    /// The text as it is now.
    pub(super) fn make(self) -> Result<Vec<u8>> {
        let text = match self {
            Self::Cpus => (0..machine::cpu_count())
                .map(|cpu| format!("processor\t: {cpu}\n\n"))
                .collect(),
            Self::FileSystems => mounts::types(),
            Self::Load => {
                let (threads, last, _) = counts();
                format!("0.00 0.00 0.00 {}/{threads} {last}\n", running())
            }
            Self::Memory => memory(),
            Self::System => system(),
            Self::Uptime => {
                let now = machine::clock::monotonic();
                let cpus = u64::from(machine::cpu_count());
                let idle = (now * cpus).saturating_sub(used_by_all());
                let shown = |time: u64| format!("{}.{:02}", time / SECOND, time % SECOND / TICK);
                format!("{} {}\n", shown(now), shown(idle))
            }
            Self::Version => concat!(
                "Linux version 6.18.0-ringlet #1 Ringlet ",
                env!("CARGO_PKG_VERSION"),
                "\n"
            )
            .into(),
            _ => return Err(Errno::ENOENT),
        };
        Ok(text.into_bytes())
    }

    /// The text as it is now, about the process `pid`, or its thread `tid`.
    pub(super) fn make_about(self, pid: u32, tid: Option<u32>) -> Result<Vec<u8>> {
        let process = super::process(pid)?;
        let text = match self {
            Self::CommandLine => {
                return Ok(strings(&process, |executable| executable.arguments.clone()));
            }
            Self::Environment => {
                return Ok(strings(&process, |executable| {
                    executable.environment.clone()
                }));
            }
            Self::Name => format!("{}\n", name(&process, tid)?),
            Self::Maps => maps(&process),
            Self::MemoryUse => {
                let pages = size(&process) / PAGE;
                format!("{pages} {pages} 0 0 0 {pages} 0\n")
            }
            Self::Mounts => return Ok(mounts::mounts(&super::view(pid)?.fs)),
            Self::MountInfo => return Ok(mounts::mount_info(&super::view(pid)?.fs)),
            Self::ProcessStat => process_stat(&process, tid)?,
            Self::Status => status(&process, tid)?,
            _ => return self.make(),
        };
        Ok(text.into_bytes())
    }
}

/// The strings that a process was given, as its memory has them; nothing of one that has ended.
fn strings(process: &ControlBlock, part: fn(&Executable) -> Range<u64>) -> Vec<u8> {
    let Some(view) = process.view() else {
        return Vec::new();
    };
    let range = part(&view.executable);
    let mut bytes = alloc::vec![0; (range.end - range.start) as usize];
    match view.space.read(range.start, &mut bytes) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

/// Nanoseconds of CPU time that all processes have used that are there.
fn used_by_all() -> u64 {
    let all = all();
    let used = |process: &Arc<ControlBlock>| process.cpu_time() + process.children_cpu_time();
    all.iter().map(used).sum()
}

/// How many threads are not waiting.
fn running() -> usize {
    let threads = all().into_iter().flat_map(|process| process.threads());
    threads.filter(|thread| !thread.is_waiting()).count().max(1)
}

/// Bytes in all mappings of a process.
fn size(process: &ControlBlock) -> u64 {
    process.view().map_or(0, |view| view.space.size())
}

/// The thread `tid`, or the first one, if that has not ended.
fn thread(process: &ControlBlock, tid: Option<u32>) -> Result<Option<Arc<ThreadState>>> {
    let wanted = tid.unwrap_or(process.pid);
    let mut threads = process.threads().into_iter();
    match threads.find(|thread| thread.tid == wanted) {
        None if tid.is_some() => Err(Errno::ESRCH),
        thread => Ok(thread),
    }
}

/// The name of a thread. That of a process is its first thread's, which was at first the last
/// component of the program's path.
fn name(process: &ControlBlock, tid: Option<u32>) -> Result<String> {
    let name = match thread(process, tid)? {
        Some(thread) => *thread.name.lock(),
        None => process.name(),
    };
    let end = name.iter().position(|byte| *byte == 0);
    let name = &name[..end.unwrap_or(name.len())];
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn memory() -> String {
    let memory = machine::memory_use();
    let kibibytes = |pages: usize| pages as u64 * PAGE / 1024;
    let (total, free) = (kibibytes(memory.total), kibibytes(memory.free));
    let mut text = String::new();
    for (name, value) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Shmem", 0),
        ("SReclaimable", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
    ] {
        let name = format!("{name}:");
        let _ = writeln!(text, "{name:<16}{value:>8} kB");
    }
    text
}

fn system() -> String {
    let now = machine::clock::monotonic();
    let used = used_by_all();
    let cpus = u64::from(machine::cpu_count());
    let times = |share: u64| {
        let idle = (now * cpus).saturating_sub(used) / share;
        format!("{} 0 0 {} 0 0 0 0 0 0", used / share / TICK, idle / TICK)
    };
    let mut text = format!("cpu  {}\n", times(1));
    for cpu in 0..cpus {
        // Which CPU a thread used is not kept.
        let _ = writeln!(text, "cpu{cpu} {}", times(cpus));
    }
    let boot = machine::clock::realtime().saturating_sub(now) / SECOND;
    let (_, _, made) = counts();
    let running = running();
    let _ = write!(
        text,
        "btime {boot}\nprocesses {made}\nprocs_running {running}\nprocs_blocked 0\n"
    );
    text
}

fn maps(process: &ControlBlock) -> String {
    let mut text = String::new();
    let Some(view) = process.view() else {
        return text;
    };
    view.space
        .for_each_area(|range, access, is_shared, is_stack| {
            let letter = |flag, letter| if access.contains(flag) { letter } else { '-' };
            let _ = writeln!(
                text,
                "{:08x}-{:08x} {}{}{}{} 00000000 00:00 0 {}",
                range.start,
                range.end,
                letter(Access::READ, 'r'),
                letter(Access::WRITE, 'w'),
                letter(Access::EXECUTE, 'x'),
                if is_shared { 's' } else { 'p' },
                if is_stack { "[stack]" } else { "" },
            );
        });
    text
}

/// The letter of a thread's or process's state.
fn state(process: &ControlBlock, tid: Option<u32>) -> Result<char> {
    let thread = thread(process, tid)?;
    Ok(match (tid, process.state_letter(), thread) {
        (Some(_), letter @ ('T' | 'Z'), _) | (None, letter, _) => letter,
        (Some(_), _, Some(thread)) if thread.is_waiting() => 'S',
        (Some(_), ..) => 'R',
    })
}

fn process_stat(process: &ControlBlock, tid: Option<u32>) -> Result<String> {
    let name = name(process, tid)?;
    let state = state(process, tid)?;
    let own = tid.unwrap_or(process.pid);
    let (parent, group, session) = (process.parent(), process.process_group(), process.session());
    let count = process.threads().len().max(1);
    let used = match (tid, thread(process, tid)?) {
        (Some(_), Some(thread)) => thread.cpu_time(),
        _ => process.cpu_time(),
    };
    let (ticks, of_children) = (used / TICK, process.children_cpu_time() / TICK);
    let nice = *process.nice.lock();
    let priority = 20 + nice;
    let started = process.started / TICK;
    let size = size(process);
    // Fields 3 to 24 of proc_pid_stat(5), and those that tools read beyond.
    Ok(format!(
        "{own} ({name}) {state} {parent} {group} {session} 0 -1 0 0 0 0 0 {ticks} 0 {of_children} 0 \
         {priority} {nice} {count} 0 {started} {size} {} \
         18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        size / PAGE
    ))
}

fn status(process: &ControlBlock, tid: Option<u32>) -> Result<String> {
    let name = name(process, tid)?;
    let state = match state(process, tid)? {
        'R' => "R (running)",
        'S' => "S (sleeping)",
        'T' => "T (stopped)",
        _ => "Z (zombie)",
    };
    let (pid, own) = (process.pid, tid.unwrap_or(process.pid));
    let parent = process.parent();
    let count = process.threads().len().max(1);
    let (user, group, groups) = {
        let credentials = process.credentials.lock();
        let line = |ids: &crate::process::Ids| {
            let (real, effective, saved) = (ids.real, ids.effective, ids.saved);
            format!("{real}\t{effective}\t{saved}\t{effective}")
        };
        let groups: String = credentials
            .groups
            .iter()
            .map(|id| format!("{id} "))
            .collect();
        (line(&credentials.user), line(&credentials.group), groups)
    };
    let mut text = format!(
        "Name:\t{name}\nState:\t{state}\nTgid:\t{pid}\nPid:\t{own}\nPPid:\t{parent}\n\
         TracerPid:\t0\nUid:\t{user}\nGid:\t{group}\n"
    );
    if let Some(view) = process.view() {
        let _ = write!(
            text,
            "FDSize:\t{}\nGroups:\t{groups}\nVmSize:\t{:8} kB\n",
            view.files.limit(),
            view.space.size() / 1024
        );
    }
    let [own_pending, shared] = process.pending(own);
    let blocked = process.blocked(own);
    let [ignored, caught] = process.ignored_and_caught();
    let _ = writeln!(text, "Threads:\t{count}");
    for (name, set) in [
        ("SigPnd", own_pending),
        ("ShdPnd", shared),
        ("SigBlk", blocked),
        ("SigIgn", ignored),
        ("SigCgt", caught),
    ] {
        let _ = writeln!(text, "{name}:\t{:016x}", set.0);
    }
    Ok(text)
}
