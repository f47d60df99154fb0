//! `wait4(2)` and `waitid(2)`.

use crate::child::{Child, CloneArgs, Told, clone3, fork, getpid, wait4, waitid};
use guest_programs::check::{Check, Outcome, comes_true};
use guest_programs::sys::Errno;
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{P_ALL, P_PGID, P_PID, WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED, WUNTRACED};

pub(crate) const CHECKS: &[Check] = checks![
    statuses_tell_how_a_child_ended,
    waiting_without_children_fails,
    waiting_may_look_only,
    a_child_can_be_waited_for_again,
    stops_and_continues_are_told,
    groups_can_be_waited_for,
    children_without_sigchld_are_waited_for_by_clone,
    wait_arguments_have_errors,
    the_last_thread_s_status_is_the_process_s,
    usage_is_told,
];

fn sleeper() -> Result<Child, Errno> {
    fork(|| {
        loop {
            let _ = sys!(SYS_pause);
        }
    })
}

fn statuses_tell_how_a_child_ended() -> Outcome {
    expect_eq!(fork(|| 0)?.wait()?, 0);
    expect_eq!(fork(|| 300)?.wait()?, (300 & 0xff) << 8);
    let child = sleeper()?;
    child.kill(libc::SIGTERM)?;
    expect_eq!(child.wait()?, libc::SIGTERM);
    let child = sleeper()?;
    child.kill(libc::SIGKILL)?;
    let pid = child.pid;
    let told = waitid(P_PID, pid, WEXITED)?;
    let expected = Told {
        pid,
        code: libc::CLD_KILLED,
        status: libc::SIGKILL,
    };
    child.forget();
    expect_eq!(told, expected);
    let child = fork(|| 7)?;
    let pid = child.pid;
    let told = waitid(P_ALL, 0, WEXITED)?;
    child.forget();
    let expected = Told {
        pid,
        code: libc::CLD_EXITED,
        status: 7,
    };
    expect_eq!(told, expected);
    Ok(())
}

fn waiting_without_children_fails() -> Outcome {
    fails!(ECHILD, SYS_wait4, -1, 0, 0, 0);
    fails!(ECHILD, SYS_wait4, -1, 0, WNOHANG, 0);
    fails!(ECHILD, SYS_wait4, getpid(), 0, 0, 0);
    let child = sleeper()?;
    fails!(ECHILD, SYS_wait4, child.pid + 1, 0, 0, 0);
    fails!(ECHILD, SYS_waitid, P_PGID, child.pid, 0, WEXITED, 0);
    Ok(())
}

fn waiting_may_look_only() -> Outcome {
    let child = sleeper()?;
    expect_eq!(wait4(-1, WNOHANG)?.0, 0);
    expect_eq!(waitid(P_ALL, 0, WEXITED | WNOHANG)?, Told::default());
    child.kill(libc::SIGKILL)?;
    let pid = child.pid;
    expect!(comes_true(
        || wait4(pid, WNOHANG) == Ok((pid, libc::SIGKILL))
    ));
    child.forget();
    Ok(())
}

fn a_child_can_be_waited_for_again() -> Outcome {
    let child = fork(|| 1)?;
    let first = waitid(P_PID, child.pid, WEXITED | WNOWAIT)?;
    let second = waitid(P_PID, child.pid, WEXITED | WNOWAIT)?;
    expect_eq!(first, second);
    expect_eq!((first.code, first.status), (libc::CLD_EXITED, 1));
    // It is there, though it has ended.
    expect_eq!(child.kill(0)?, 0);
    expect_eq!(child.wait()?, 1 << 8);
    Ok(())
}

fn stops_and_continues_are_told() -> Outcome {
    let child = sleeper()?;
    let pid = child.pid;
    child.kill(libc::SIGSTOP)?;
    expect_eq!(wait4(pid, WUNTRACED)?, (pid, libc::SIGSTOP << 8 | 0x7f));
    // Once.
    expect_eq!(wait4(pid, WUNTRACED | WNOHANG)?.0, 0);
    child.kill(libc::SIGCONT)?;
    expect_eq!(wait4(pid, WCONTINUED)?, (pid, 0xffff));
    child.kill(libc::SIGTSTP)?;
    let told = waitid(P_PID, pid, WSTOPPED)?;
    expect_eq!((told.code, told.status), (libc::CLD_STOPPED, libc::SIGTSTP));
    child.kill(libc::SIGCONT)?;
    let told = waitid(P_PID, pid, WCONTINUED)?;
    let expected = (libc::CLD_CONTINUED, libc::SIGCONT);
    expect_eq!((told.code, told.status), expected);
    // A stopped one can be killed.
    child.kill(libc::SIGSTOP)?;
    expect_eq!(wait4(pid, WUNTRACED)?.0, pid);
    child.kill(libc::SIGKILL)?;
    expect_eq!(child.wait()?, libc::SIGKILL);
    Ok(())
}

fn groups_can_be_waited_for() -> Outcome {
    let one = fork(|| 1)?;
    let other = sleeper()?;
    sys!(SYS_setpgid, other.pid, other.pid)?;
    other.kill(libc::SIGKILL)?;
    let pid = other.pid;
    let waited = wait4(-pid, 0)?;
    other.forget();
    expect_eq!(waited, (pid, libc::SIGKILL));
    let pid = one.pid;
    let waited = wait4(0, 0)?;
    one.forget();
    expect_eq!(waited, (pid, 1 << 8));
    Ok(())
}

fn children_without_sigchld_are_waited_for_by_clone() -> Outcome {
    let args = CloneArgs::default();
    let child = clone3(&args, || 4)?;
    fails!(ECHILD, SYS_wait4, child.pid, 0, 0, 0);
    let pid = child.pid;
    let waited = wait4(pid, libc::__WCLONE)?;
    child.forget();
    expect_eq!(waited, (pid, 4 << 8));
    let child = clone3(&args, || 5)?;
    let pid = child.pid;
    let waited = wait4(-1, libc::__WALL)?;
    child.forget();
    expect_eq!(waited, (pid, 5 << 8));
    Ok(())
}

fn wait_arguments_have_errors() -> Outcome {
    fails!(EINVAL, SYS_wait4, -1, 0, 0x100, 0);
    fails!(EINVAL, SYS_wait4, -1, 0, WEXITED, 0);
    fails!(ESRCH, SYS_wait4, i32::MIN, 0, 0, 0);
    fails!(EINVAL, SYS_waitid, P_ALL, 0, 0, 0, 0);
    fails!(EINVAL, SYS_waitid, P_ALL, 0, 0, WNOHANG, 0);
    fails!(EINVAL, SYS_waitid, P_PID, 0, 0, WEXITED, 0);
    fails!(EINVAL, SYS_waitid, P_PID, -1, 0, WEXITED, 0);
    fails!(EINVAL, SYS_waitid, P_PGID, -1, 0, WEXITED, 0);
    fails!(EINVAL, SYS_waitid, 9, 0, 0, WEXITED, 0);
    fails!(EINVAL, SYS_waitid, libc::P_PIDFD, -1, 0, WEXITED, 0);
    fails!(EBADF, SYS_waitid, libc::P_PIDFD, 999, 0, WEXITED, 0);
    let child = fork(|| 3)?;
    let pid = child.pid;
    let told = waitid(P_PID, pid, WEXITED | WNOWAIT)?;
    expect_eq!(told.pid, pid);
    // The child is waited for, though its status goes nowhere.
    fails!(EFAULT, SYS_wait4, pid, 8, 0, 0);
    child.forget();
    fails!(ECHILD, SYS_wait4, pid, 0, 0, 0);
    Ok(())
}

fn the_last_thread_s_status_is_the_process_s() -> Outcome {
    let child = fork(|| {
        std::thread::spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let _ = sys!(SYS_exit, 3);
        });
        let _ = sys!(SYS_exit, 9);
        1
    })?;
    expect_eq!(child.wait()?, 3 << 8);
    Ok(())
}

fn usage_is_told() -> Outcome {
    let child = fork(|| {
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(30) {}
        0
    })?;
    let mut usage = [0_i64; 18];
    let waited = sys!(SYS_wait4, child.pid, 0, 0, usage.as_mut_ptr())?;
    expect_eq!(waited as i32, child.pid);
    child.forget();
    let [seconds, micros, system_seconds, system_micros] = [usage[0], usage[1], usage[2], usage[3]];
    expect!((seconds + system_seconds) * 1_000_000 + micros + system_micros > 5000);
    Ok(())
}
