//! The texts in `/proc`.

use super::ProcFs;
use crate::error::Result;
use crate::mm::{Access, PAGE};
use alloc::format;
use alloc::string::String;
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
    ProcessStat,
    Status,
}

impl Text {
    /// The text as it is now.
    pub(super) fn make(self, fs: &ProcFs) -> Result<Vec<u8>> {
        let text = match self {
            Self::Cpus => (0..machine::cpu_count())
                .map(|number| format!("processor\t: {number}\n\n"))
                .collect(),
            Self::FileSystems => String::from("nodev\ttmpfs\nnodev\tdevtmpfs\nnodev\tproc\n"),
            Self::Load => String::from("0.00 0.00 0.00 1/1 1\n"),
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
            Self::Name => format!("{}\n", name(fs)),
            Self::Maps => maps(fs)?,
            Self::Mounts => {
                let mut text = String::new();
                for mount in fs.process()?.fs.namespace.mounts() {
                    let (kind, path) = (mount.kind, mount.path);
                    // A string takes it all.
                    let _ = writeln!(text, "{kind} {path} {kind} rw,relatime 0 0");
                }
                text
            }
            Self::ProcessStat => process_stat(fs)?,
            Self::Status => status(fs)?,
        };
        Ok(text.into_bytes())
    }
}

/// The last component of the program's path, cut off as `comm` is.
fn name(fs: &ProcFs) -> String {
    let path = &fs.facts.program.0;
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    String::from_utf8_lossy(&name[..name.len().min(15)]).into_owned()
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
    let cpus = machine::cpu_count();
    // Which CPU spent the time is not counted: each is given the same share.
    let times = |cpus: u32, used: u64| {
        let idle = (now * u64::from(cpus)).saturating_sub(used);
        format!("{} 0 0 {} 0 0 0 0 0 0", used / TICK, idle / TICK)
    };
    let mut text = format!("cpu  {}\n", times(cpus, used));
    for number in 0..cpus {
        let _ = writeln!(text, "cpu{number} {}", times(1, used / u64::from(cpus)));
    }
    let boot = machine::clock::realtime().saturating_sub(now) / SECOND;
    let _ = writeln!(
        text,
        "btime {boot}\nprocesses 1\nprocs_running 1\nprocs_blocked 0"
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

fn process_stat(fs: &ProcFs) -> Result<String> {
    let process = fs.process()?;
    let (pid, name) = (process.pid, name(fs));
    let ticks = process.cpu_time() / TICK;
    let size = process.space.size();
    // Fields 3 to 23 of proc_pid_stat(5), and those that tools read beyond.
    Ok(format!(
        "{pid} ({name}) R 0 {pid} {pid} 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 0 {size} {} \
         18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        size / PAGE
    ))
}

fn status(fs: &ProcFs) -> Result<String> {
    let process = fs.process()?;
    let (pid, name) = (process.pid, name(fs));
    let ids = {
        let credentials = process.credentials.lock();
        let line = |ids: &crate::process::Ids| {
            let (real, effective, saved) = (ids.real, ids.effective, ids.saved);
            format!("{real}\t{effective}\t{saved}\t{effective}")
        };
        (line(&credentials.user), line(&credentials.group))
    };
    Ok(format!(
        "Name:\t{name}\nState:\tR (running)\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t0\nTracerPid:\t0\n\
         Uid:\t{}\nGid:\t{}\nFDSize:\t{}\nVmSize:\t{:8} kB\nThreads:\t1\n",
        ids.0,
        ids.1,
        process.files.limit(),
        process.space.size() / 1024
    ))
}
