//! Making children and waiting for them, without the C library's bookkeeping.

use guest_programs::sys;
use guest_programs::sys::SysResult;
use std::sync::atomic::{AtomicU32, Ordering};

/// A child; one that is dropped is killed, if need be, and waited for.
pub(crate) struct Child {
    pub(crate) pid: i32,
}

/// What `waitid(2)` tells, and `wait4(2)` less of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) pid: i32,
    pub(crate) code: i32,
    pub(crate) status: i32,
}

/// `struct clone_args`, as `clone3(2)` has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// Ends the process at once.
pub(crate) fn exit(status: i32) -> ! {
    let _ = sys!(SYS_exit_group, status);
    std::process::abort()
}

/// Makes a child with `clone3(2)` that does `run` and exits with what that gives.
pub(crate) fn clone3(args: &CloneArgs, run: impl FnOnce() -> i32) -> SysResult<Child> {
    let made = sys!(SYS_clone3, std::ptr::from_ref(args), size_of::<CloneArgs>())?;
    finish(made, run)
}

/// The same with `fork(2)`.
pub(crate) fn fork(run: impl FnOnce() -> i32) -> SysResult<Child> {
    let made = sys!(SYS_fork)?;
    finish(made, run)
}

fn finish(made: usize, run: impl FnOnce() -> i32) -> SysResult<Child> {
    match made {
        0 => exit(run()),
        pid => Ok(Child { pid: pid as i32 }),
    }
}

impl Child {
    /// Waits for its end; gives the status of `wait4(2)`.
    pub(crate) fn wait(self) -> SysResult<i32> {
        let (pid, status) = wait4(self.pid, 0)?;
        assert_eq!(pid, self.pid);
        std::mem::forget(self);
        Ok(status)
    }

    pub(crate) fn kill(&self, signal: i32) -> SysResult {
        sys!(SYS_kill, self.pid, signal)
    }

    /// It is not there any more.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill(libc::SIGKILL);
        let _ = wait4(self.pid, libc::__WALL);
    }
}

/// The number and status of a child.
pub(crate) fn wait4(pid: i32, options: i32) -> SysResult<(i32, i32)> {
    let mut status = -1_i32;
    let pid = sys!(SYS_wait4, pid, &raw mut status, options, 0)?;
    Ok((pid as i32, status))
}

/// What is told of a child; all zeros if nothing is.
pub(crate) fn waitid(kind: u32, id: i32, options: i32) -> SysResult<Told> {
    let mut info = [0_i32; 32];
    sys!(SYS_waitid, kind, id, info.as_mut_ptr(), options, 0)?;
    Ok(Told {
        pid: info[4],
        code: info[2],
        status: info[6],
    })
}

/// The process's number.
pub(crate) fn getpid() -> i32 {
    sys!(SYS_getpid).map_or(0, |pid| pid as i32)
}

pub(crate) fn getppid() -> i32 {
    sys!(SYS_getppid).map_or(0, |pid| pid as i32)
}

/// A word that a process and its children share.
pub(crate) struct SharedWord(*const AtomicU32);

impl SharedWord {
    pub(crate) fn new() -> SysResult<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let start = sys!(SYS_mmap, 0, 4096, protection, flags, -1, 0)?;
        Ok(Self(std::ptr::with_exposed_provenance(start)))
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: a word at the start of a page that stays mapped as long as this exists.
        unsafe { &*self.0 }
    }

    pub(crate) fn get(&self) -> u32 {
        self.word().load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, value: u32) {
        self.word().store(value, Ordering::SeqCst);
    }

    /// Waits until it is `value`: nobody is kept from running meanwhile.
    pub(crate) fn wait_for(&self, value: u32) {
        while self.get() != value {
            let _ = sys!(SYS_sched_yield);
        }
    }
}

impl Drop for SharedWord {
    fn drop(&mut self) {
        let _ = sys!(SYS_munmap, self.0, 4096);
    }
}

/// Both ends of a pipe.
pub(crate) fn pipe() -> SysResult<[std::os::fd::OwnedFd; 2]> {
    let mut ends = [0_i32; 2];
    sys!(SYS_pipe2, ends.as_mut_ptr(), 0)?;
    Ok(ends.map(|fd| guest_programs::sys::owned(fd as usize)))
}
