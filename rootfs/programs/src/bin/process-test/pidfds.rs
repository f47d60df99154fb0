//! Processes as descriptors.

use crate::child::{CloneArgs, clone3, exit, fork, getpid, pipe, wait4, waitid};
use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{SysResult, create, owned};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{P_PIDFD, WEXITED, WNOHANG};
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) const CHECKS: &[Check] = checks![
    descriptors_of_processes_are_opened,
    a_descriptor_is_readable_when_its_process_has_ended,
    clone_gives_a_descriptor,
    children_are_waited_for_by_descriptor,
    signals_are_sent_by_descriptor,
    descriptors_of_others_are_taken,
];

fn pidfd_open(pid: i32, flags: i32) -> SysResult<OwnedFd> {
    sys!(SYS_pidfd_open, pid, flags).map(owned)
}

/// What a descriptor is ready for.
fn ready(fd: &OwnedFd, timeout: i32) -> SysResult<i16> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    sys!(SYS_poll, &raw mut poll, 1, timeout)?;
    Ok(poll.revents)
}

fn sleeper() -> SysResult<crate::child::Child> {
    fork(|| {
        loop {
            let _ = sys!(SYS_pause);
        }
    })
}

fn descriptors_of_processes_are_opened() -> Outcome {
    fails!(EINVAL, SYS_pidfd_open, 0, 0);
    fails!(EINVAL, SYS_pidfd_open, -1, 0);
    fails!(EINVAL, SYS_pidfd_open, getpid(), 1);
    fails!(ESRCH, SYS_pidfd_open, 4_000_000, 0);
    let fd = pidfd_open(getpid(), 0)?;
    expect_eq!(
        sys!(SYS_fcntl, &fd, libc::F_GETFD)?,
        libc::FD_CLOEXEC as usize
    );
    let patient = pidfd_open(getpid(), libc::O_NONBLOCK)?;
    let flags = sys!(SYS_fcntl, &patient, libc::F_GETFL)? as i32;
    expect!(flags & libc::O_NONBLOCK != 0);
    fails!(EINVAL, SYS_read, &fd, 0, 0);
    let (tid, other) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _ = tid.send(sys!(SYS_gettid).unwrap_or(0));
        let _ = ended.recv();
    });
    let number = other.recv()?;
    fails!(ENOENT, SYS_pidfd_open, number, 0);
    drop(end);
    let _ = thread.join();
    Ok(())
}

fn a_descriptor_is_readable_when_its_process_has_ended() -> Outcome {
    let child = sleeper()?;
    let fd = pidfd_open(child.pid, 0)?;
    expect_eq!(ready(&fd, 0)?, 0);
    child.kill(libc::SIGKILL)?;
    expect_eq!(ready(&fd, 10_000)?, libc::POLLIN);
    expect_eq!(child.wait()?, libc::SIGKILL);
    expect_eq!(ready(&fd, 0)?, libc::POLLIN | libc::POLLHUP);
    Ok(())
}

fn clone_gives_a_descriptor() -> Outcome {
    let mut fd = -1_i32;
    let args = CloneArgs {
        flags: libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut fd).expose_provenance() as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let child = clone3(&args, || 3)?;
    let file = owned(fd as usize);
    expect_eq!(ready(&file, 10_000)?, libc::POLLIN);
    let told = waitid(P_PIDFD, fd, WEXITED)?;
    expect_eq!((told.pid, told.status), (child.pid, 3));
    child.forget();
    // Nothing is left of one whose descriptor cannot be stored.
    let args = CloneArgs { pidfd: 8, ..args };
    let refused = match sys!(SYS_clone3, &raw const args, size_of::<CloneArgs>()) {
        Ok(0) => exit(0),
        other => other.err().map(|errno| errno.0),
    };
    expect_eq!(refused, Some(libc::EFAULT));
    fails!(ECHILD, SYS_wait4, -1, 0, 0, 0);
    Ok(())
}

fn children_are_waited_for_by_descriptor() -> Outcome {
    let child = sleeper()?;
    let fd = pidfd_open(child.pid, libc::O_NONBLOCK)?;
    let nothing = waitid(P_PIDFD, fd.as_raw_fd(), WEXITED | WNOHANG)?;
    expect_eq!(nothing.pid, 0);
    fails!(EAGAIN, SYS_waitid, P_PIDFD, &fd, 0, WEXITED, 0);
    child.kill(libc::SIGTERM)?;
    let own = pidfd_open(child.pid, 0)?;
    let told = waitid(P_PIDFD, own.as_raw_fd(), WEXITED)?;
    expect_eq!((told.pid, told.status), (child.pid, libc::SIGTERM));
    child.forget();
    fails!(ECHILD, SYS_waitid, P_PIDFD, &own, 0, WEXITED, 0);
    let [end, _] = pipe()?;
    fails!(EBADF, SYS_waitid, P_PIDFD, &end, 0, WEXITED, 0);
    Ok(())
}

fn signals_are_sent_by_descriptor() -> Outcome {
    let child = sleeper()?;
    let fd = pidfd_open(child.pid, 0)?;
    expect_eq!(sys!(SYS_pidfd_send_signal, &fd, 0, 0, 0)?, 0);
    fails!(EINVAL, SYS_pidfd_send_signal, &fd, 65, 0, 0);
    fails!(EINVAL, SYS_pidfd_send_signal, &fd, 0, 0, 8);
    fails!(EINVAL, SYS_pidfd_send_signal, &fd, 0, 0, 3);
    let mut info = [0_i32; 32];
    info[0] = libc::SIGUSR1;
    fails!(
        EPERM,
        SYS_pidfd_send_signal,
        &fd,
        libc::SIGUSR1,
        info.as_ptr(),
        0
    );
    info[2] = -1;
    fails!(
        EINVAL,
        SYS_pidfd_send_signal,
        &fd,
        libc::SIGUSR2,
        info.as_ptr(),
        0
    );
    let [end, _] = pipe()?;
    fails!(EBADF, SYS_pidfd_send_signal, &end, 0, 0, 0);
    sys!(SYS_pidfd_send_signal, &fd, libc::SIGUSR1, info.as_ptr(), 0)?;
    expect_eq!(child.wait()?, libc::SIGUSR1);
    fails!(ESRCH, SYS_pidfd_send_signal, &fd, 0, 0, 0);
    Ok(())
}

fn descriptors_of_others_are_taken() -> Outcome {
    let file = create(c"file", b"contents")?;
    let number = file.as_raw_fd();
    let child = sleeper()?;
    drop(file);
    let fd = pidfd_open(child.pid, 0)?;
    let taken = match sys!(SYS_pidfd_getfd, &fd, number, 0) {
        // Some hosts let nobody look into others.
        Err(errno) if errno.0 == libc::EPERM && sys!(SYS_geteuid)? != 0 => return Ok(()),
        taken => owned(taken?),
    };
    expect_eq!(guest_programs::sys::contents(&taken)?, b"contents");
    fails!(EINVAL, SYS_pidfd_getfd, &fd, number, 1);
    fails!(EBADF, SYS_pidfd_getfd, &fd, 999, 0);
    fails!(EBADF, SYS_pidfd_getfd, &taken, 0, 0);
    child.kill(libc::SIGKILL)?;
    expect_eq!(wait4(child.pid, 0)?.0, child.pid);
    child.forget();
    fails!(ESRCH, SYS_pidfd_getfd, &fd, number, 0);
    Ok(())
}
