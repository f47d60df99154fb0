//! The texts in `/proc`.

use super::{ProcFs, mounts};
use crate::error::{Errno, Result};
use crate::mm::{Access, PAGE};
use crate::process::ThreadState;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

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
    Name,
    Maps,
    Mounts,
    MountInfo,
    ProcessStat,
    Status,
}

impl Text {
    /// The text as it is now, about the thread `tid` or the process.
    pub(super) fn make(self, fs: &ProcFs, tid: Option<u32>) -> Result<Vec<u8>> {
        let text = match self {
            Self::Cpus => (0..machine::cpu_count())
                .map(|cpu| format!("processor\t: {cpu}\n\n"))
                .collect(),
            Self::FileSystems => mounts::types(),
            Self::Load => {
                let threads = fs.process()?.threads();
                let last = threads.iter().map(|thread| thread.tid).max();
                let (count, last) = (threads.len().max(1), last.unwrap_or(1));
                format!("0.00 0.00 0.00 1/{count} {last}\n")
            }
            Self::Memory => memory(),
            Self::System => system(fs)?,
            Self::Uptime => {
                let now = machine::clock::monotonic();
                let idle = now.saturating_sub(fs.process()?.cpu_time());
                let shown = |time: u64| format!("{}.{:02}", time / SECOND, time % SECOND / TICK);
                format!("{} {}\n", shown(now), shown(idle))
            }
            Self::Version => concat!(
                "Linux version 6.18.0-ringlet #1 Ringlet ",
                env!("CARGO_PKG_VERSION"),
                "\n"
            )
            .into(),
            Self::CommandLine => {
                let arguments = &fs.facts.arguments;
                let terminated = |argument: &Vec<u8>| [argument, &b"\0"[..]].concat();
                return Ok(arguments.iter().flat_map(terminated).collect());
            }
            Self::Name => format!("{}\n", name(fs, tid)?),
            Self::Maps => maps(fs)?,
            Self::Mounts => return Ok(mounts::mounts(&fs.process()?.fs)),
            Self::MountInfo => return Ok(mounts::mount_info(&fs.process()?.fs)),
            Self::ProcessStat => process_stat(fs, tid)?,
            Self::Status => status(fs, tid)?,
        };
        Ok(text.into_bytes())
    }
}

/// The thread `tid`, or the first one, if that has not ended.
fn thread(fs: &ProcFs, tid: Option<u32>) -> Result<Option<Arc<ThreadState>>> {
    let process = fs.process()?;
    let wanted = tid.unwrap_or(process.pid);
    let mut threads = process.threads().into_iter();
    match threads.find(|thread| thread.tid == wanted) {
        None if tid.is_some() => Err(Errno::ESRCH),
        thread => Ok(thread),
    }
}

/// The name of a thread. That of a process is its first thread's, which was at first the last
/// component of the program's path.
fn name(fs: &ProcFs, tid: Option<u32>) -> Result<String> {
    let name = match thread(fs, tid)? {
        Some(thread) => thread.name.lock().to_vec(),
        None => {
            let path = &fs.facts.program.0;
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
            name[..name.len().min(15)].to_vec()
        }
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

fn system(fs: &ProcFs) -> Result<String> {
    let now = machine::clock::monotonic();
    let used = fs.process()?.cpu_time();
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
    let _ = write!(
        text,
        "btime {boot}\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"
    );
    Ok(text)
}

fn maps(fs: &ProcFs) -> Result<String> {
    let mut text = String::new();
    fs.process()?
        .space
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
    Ok(text)
}

fn process_stat(fs: &ProcFs, tid: Option<u32>) -> Result<String> {
    let process = fs.process()?;
    let name = name(fs, tid)?;
    let (pid, own) = (process.pid, tid.unwrap_or(process.pid));
    let count = process.threads().len().max(1);
    let used = match (tid, thread(fs, tid)?) {
        (Some(_), Some(thread)) => thread.cpu_time(),
        _ => process.cpu_time(),
    };
    let ticks = used / TICK;
    let size = process.space.size();
    // Fields 3 to 23 of proc_pid_stat(5), and those that tools read beyond.
    Ok(format!(
        "{own} ({name}) R 0 {pid} {pid} 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 {count} 0 0 {size} {} \
         18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        size / PAGE
    ))
}

fn status(fs: &ProcFs, tid: Option<u32>) -> Result<String> {
    let process = fs.process()?;
    let name = name(fs, tid)?;
    let (pid, own) = (process.pid, tid.unwrap_or(process.pid));
    let count = process.threads().len().max(1);
    let ids = {
        let credentials = process.credentials.lock();
        let line = |ids: &crate::process::Ids| {
            let (real, effective, saved) = (ids.real, ids.effective, ids.saved);
            format!("{real}\t{effective}\t{saved}\t{effective}")
        };
        (line(&credentials.user), line(&credentials.group))
    };
    Ok(format!(
        "Name:\t{name}\nState:\tR (running)\nTgid:\t{pid}\nPid:\t{own}\nPPid:\t0\nTracerPid:\t0\n\
         Uid:\t{}\nGid:\t{}\nFDSize:\t{}\nVmSize:\t{:8} kB\nThreads:\t{count}\n",
        ids.0,
        ids.1,
        process.files.limit(),
        process.space.size() / 1024
    ))
}
