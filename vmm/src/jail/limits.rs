//! Limits on what the VMM may have of the host, and what of it may be looked at.

use std::fs;
use std::io;
use std::os::fd::RawFd;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Limits this process for good.
///
/// # Errors
///
/// Those of setrlimit(2).
pub(super) fn set() -> io::Result<()> {
    // A core would hold the guest's memory. Nobody needs queues of messages or real-time priority.
    for resource in [
        Resource::Core,
        Resource::Msgqueue,
        Resource::Rtprio,
        Resource::Nice,
    ] {
        lower(resource, 0)?;
    }
    // What is allowed now is all that there will be.
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current,
        maximum: current.or(maximum),
    };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Sets a limit, for good, unless there is a lower one.
fn lower(resource: Resource, limit: u64) -> io::Result<()> {
    let allowed = getrlimit(resource).maximum;
    let limit = Some(allowed.map_or(limit, |allowed| allowed.min(limit)));
    Ok(setrlimit(
        resource,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )?)
}

/// Has the C library's allocator serve all threads from one place. Otherwise it looks in /sys how many CPUs
/// there are, for a new thread, and in /proc how memory is overcommitted, before it gives some back: a
/// confined thread cannot. And each place takes memory.
pub(super) fn use_one_heap() {
    // SAFETY: the call has no memory arguments.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Closes what this process was given and is none of the standard streams: all that is not closed when a
/// program is executed. It must not have opened anything itself.
///
/// # Errors
///
/// Those of opendir(3) in /proc.
pub(super) fn close_inherited() -> io::Result<()> {
    let mut inherited = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // SAFETY: fcntl has no memory arguments with this command.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if number > libc::STDERR_FILENO && flags != -1 && flags & libc::FD_CLOEXEC == 0 {
            inherited.push(number);
        }
    }
    for number in inherited {
        // SAFETY: nothing in this process knows the descriptor: it has opened none yet.
        unsafe { libc::close(number) };
    }
    Ok(())
}

/// Neither a core nor ptrace(2) shows this process's memory to others of the same user.
///
/// # Errors
///
/// Those of prctl(2).
pub(super) fn hide_memory() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
