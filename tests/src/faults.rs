//! Host calls that fail: `ringlet` run under ptrace(2), with one system call of its own failing.
//!
//! The call is made harmless before the kernel sees it, by an argument that it refuses, and the result is
//! replaced by the errno that was asked for. So every call of every thread can be made to fail, in the
//! very program that users run.

use std::collections::HashMap;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A system call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostCall {
    /// Its name.
    pub name: &'static str,
    number: i64,
    /// The argument that makes it harmless (0 is the first), and its value then.
    spoiler: (usize, u64),
    /// What it fails with.
    errno: i32,
}

const fn call(name: &'static str, number: i64, spoiler: (usize, u64), errno: i32) -> HostCall {
    HostCall {
        name,
        number,
        spoiler,
        errno,
    }
}

/// The calls by which a VMM gets what it needs of the host.
pub const HOST_CALLS: [HostCall; 13] = [
    call("mmap", libc::SYS_mmap, (1, 0), libc::ENOMEM),
    call("ioctl", libc::SYS_ioctl, (0, u64::MAX), libc::ENOMEM),
    call("openat", libc::SYS_openat, (1, 0), libc::EMFILE),
    call(
        "eventfd2",
        libc::SYS_eventfd2,
        (1, 0x7fff_0000),
        libc::EMFILE,
    ),
    call(
        "io_uring_setup",
        libc::SYS_io_uring_setup,
        (1, 0),
        libc::EPERM,
    ),
    call(
        "io_uring_enter",
        libc::SYS_io_uring_enter,
        (0, u64::MAX),
        libc::EIO,
    ),
    call(
        "io_uring_register",
        libc::SYS_io_uring_register,
        (0, u64::MAX),
        libc::EPERM,
    ),
    call(
        "epoll_create1",
        libc::SYS_epoll_create1,
        (0, 0x7fff_0000),
        libc::EMFILE,
    ),
    call(
        "epoll_ctl",
        libc::SYS_epoll_ctl,
        (0, u64::MAX),
        libc::ENOSPC,
    ),
    call("clone3", libc::SYS_clone3, (1, 0), libc::EAGAIN),
    call(
        "signalfd4",
        libc::SYS_signalfd4,
        (3, 0x7fff_0000),
        libc::EMFILE,
    ),
    call(
        "timerfd_create",
        libc::SYS_timerfd_create,
        (0, 0x7fff),
        libc::EMFILE,
    ),
    call("madvise", libc::SYS_madvise, (2, 0x7fff), libc::EINVAL),
];

/// The first call of `main`: what comes before is the loader's.
const FIRST: (i64, u64) = (libc::SYS_rt_sigaction, libc::SIGXFSZ as u64);

/// How a traced run ended.
#[derive(Debug)]
pub struct Traced {
    /// The exit status; 128 and the signal if one ended it.
    pub code: i32,
    /// Its standard error.
    pub stderr: String,
    /// How often each call was made, after the start of `main`.
    pub counts: HashMap<&'static str, usize>,
    /// Whether the fault was injected.
    pub is_injected: bool,
    /// It had to be killed: it did not end.
    pub hung: bool,
}

/// What ptrace(2) knows of a thread that is in a system call.
#[derive(Clone, Copy, Default)]
struct Thread {
    /// In a call; it stops again at its end.
    in_call: bool,
    /// What to replace the result by.
    errno: Option<i32>,
}

/// Runs `command` with the `nth` (0 is the first) of `fault` failing, if there is one.
///
/// # Errors
///
/// Those of ptrace(2) and of starting the command.
pub fn run_with_fault(
    command: &mut Command,
    fault: Option<(HostCall, usize)>,
    deadline: Duration,
) -> io::Result<Traced> {
    let mut stderr = tempfile::tempfile()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr.try_clone()?);
    // SAFETY: the closure makes a system call that has no memory arguments with this request.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let child = command.spawn()?;
    let pid = child.id() as libc::pid_t;
    let mut tracer = Tracer {
        pid,
        fault,
        threads: HashMap::new(),
        counts: HashMap::new(),
        has_begun: false,
        is_injected: false,
    };
    let (code, hung) = tracer.run(deadline)?;
    let mut text = String::new();
    stderr.rewind()?;
    stderr.read_to_string(&mut text)?;
    Ok(Traced {
        code,
        stderr: text,
        counts: tracer.counts,
        is_injected: tracer.is_injected,
        hung,
    })
}

struct Tracer {
    pid: libc::pid_t,
    fault: Option<(HostCall, usize)>,
    threads: HashMap<libc::pid_t, Thread>,
    counts: HashMap<&'static str, usize>,
    has_begun: bool,
    is_injected: bool,
}

impl Tracer {
    /// Exit status, and whether it had to be killed.
    fn run(&mut self, deadline: Duration) -> io::Result<(i32, bool)> {
        let start = Instant::now();
        let mut hung = false;
        let mut has_options = false;
        loop {
            let mut status = 0;
            // Children of this thread only: other tests have theirs.
            let flags = libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG;
            // SAFETY: waitpid writes the status.
            let thread = unsafe { libc::waitpid(-1, &raw mut status, flags) };
            if thread == -1 {
                return Err(io::Error::last_os_error());
            }
            if thread == 0 {
                if start.elapsed() > deadline && !hung {
                    hung = true;
                    // SAFETY: kill has no memory arguments; the process has not been waited for.
                    unsafe { libc::kill(self.pid, libc::SIGKILL) };
                }
                std::thread::sleep(Duration::from_micros(100));
                continue;
            }
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                self.threads.remove(&thread);
                if thread == self.pid {
                    let code = match libc::WIFEXITED(status) {
                        true => libc::WEXITSTATUS(status),
                        false => 128 + libc::WTERMSIG(status),
                    };
                    return Ok((code, hung));
                }
                continue;
            }
            if !has_options {
                has_options = true;
                let options = libc::PTRACE_O_TRACESYSGOOD
                    | libc::PTRACE_O_TRACECLONE
                    | libc::PTRACE_O_EXITKILL;
                ptrace(libc::PTRACE_SETOPTIONS, thread, options as usize)?;
                ptrace(libc::PTRACE_SYSCALL, thread, 0)?;
                continue;
            }
            let signal = libc::WSTOPSIG(status);
            let pass_on = if signal == libc::SIGTRAP | 0x80 {
                match self.on_system_call(thread) {
                    // It was killed meanwhile, as all threads are when one ends the process.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => (),
                    result => result?,
                }
                0
            } else if status >> 16 != 0 || (signal == libc::SIGSTOP && self.is_new(thread)) {
                // A new thread, as its parent and as it says itself.
                0
            } else {
                signal
            };
            self.threads.entry(thread).or_default();
            // A thread that was killed meanwhile is heard of again.
            let _ = ptrace(libc::PTRACE_SYSCALL, thread, pass_on as usize);
        }
    }

    fn is_new(&self, thread: libc::pid_t) -> bool {
        !self.threads.contains_key(&thread)
    }

    /// A thread is at the start or end of a system call.
    fn on_system_call(&mut self, thread: libc::pid_t) -> io::Result<()> {
        let mut state = self.threads.get(&thread).copied().unwrap_or_default();
        // SAFETY: all-zero bytes are valid registers: they are integers only.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let place = &raw mut registers;
        ptrace(libc::PTRACE_GETREGS, thread, place as usize)?;
        if state.in_call {
            if let Some(errno) = state.errno.take() {
                registers.rax = i64::from(-errno) as u64;
                ptrace(
                    libc::PTRACE_SETREGS,
                    thread,
                    (&raw const registers) as usize,
                )?;
            }
        } else if self.is_to_fail(&registers)
            && let Some((call, _)) = self.fault
        {
            self.is_injected = true;
            state.errno = Some(call.errno);
            let (argument, value) = call.spoiler;
            *[
                &mut registers.rdi,
                &mut registers.rsi,
                &mut registers.rdx,
                &mut registers.r10,
            ][argument] = value;
            ptrace(
                libc::PTRACE_SETREGS,
                thread,
                (&raw const registers) as usize,
            )?;
        }
        state.in_call = !state.in_call;
        self.threads.insert(thread, state);
        Ok(())
    }

    /// Counts the call that is about to be made; whether it is the one.
    fn is_to_fail(&mut self, registers: &libc::user_regs_struct) -> bool {
        let number = registers.orig_rax as i64;
        self.has_begun |= (number, registers.rdi) == FIRST;
        let call = HOST_CALLS.iter().find(|call| call.number == number);
        let Some(call) = call.filter(|_| self.has_begun) else {
            return false;
        };
        let count = self.counts.entry(call.name).or_default();
        *count += 1;
        self.fault == Some((*call, *count - 1))
    }
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t, data: usize) -> io::Result<()> {
    // SAFETY: the data of each request used here is a number, or the address of registers that live
    // over the call; the tracee's memory is not addressed.
    match unsafe { libc::ptrace(request, thread, 0_usize, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
