//! Process groups and sessions.

use crate::child::{Child, SharedWord, exit, fork, getpid, wait4};
use guest_programs::check::{Check, Outcome, comes_true};
use guest_programs::sys::SysResult;
use guest_programs::{checks, expect, expect_eq, fails, sys};

pub(crate) const CHECKS: &[Check] = checks![
    a_child_is_in_its_parent_s_group_and_session,
    groups_are_made_and_joined,
    groups_have_errors,
    a_child_that_has_executed_is_left_alone,
    sessions_are_made_once,
    orphaned_groups_that_have_stopped_are_told,
    numbers_of_others_are_asked_for,
];

fn sleeper() -> SysResult<Child> {
    fork(|| {
        loop {
            let _ = sys!(SYS_pause);
        }
    })
}

fn group_of(pid: i32) -> SysResult<i32> {
    sys!(SYS_getpgid, pid).map(|group| group as i32)
}

fn session_of(pid: i32) -> SysResult<i32> {
    sys!(SYS_getsid, pid).map(|session| session as i32)
}

fn a_child_is_in_its_parent_s_group_and_session() -> Outcome {
    let child = sleeper()?;
    expect_eq!(group_of(child.pid)?, group_of(0)?);
    expect_eq!(session_of(child.pid)?, session_of(0)?);
    Ok(())
}

fn groups_are_made_and_joined() -> Outcome {
    let leader = sleeper()?;
    let member = sleeper()?;
    sys!(SYS_setpgid, leader.pid, 0)?;
    expect_eq!(group_of(leader.pid)?, leader.pid);
    sys!(SYS_setpgid, member.pid, leader.pid)?;
    expect_eq!(group_of(member.pid)?, leader.pid);
    // A group stays when its leader has gone.
    let group = leader.pid;
    drop(leader);
    expect_eq!(sys!(SYS_kill, -group, 0)?, 0);
    drop(member);
    fails!(ESRCH, SYS_kill, -group, 0);
    Ok(())
}

fn groups_have_errors() -> Outcome {
    fails!(EINVAL, SYS_setpgid, 0, -1);
    fails!(ESRCH, SYS_setpgid, 4_000_000, 0);
    let child = sleeper()?;
    fails!(EPERM, SYS_setpgid, child.pid, 4_000_000);
    fails!(EINVAL, SYS_setpgid, child.pid, -5);
    let status = fork(|| {
        let Ok(inner) = fork(|| {
            let _ = sys!(SYS_setsid);
            loop {
                let _ = sys!(SYS_pause);
            }
        }) else {
            return 1;
        };
        while session_of(inner.pid) != Ok(inner.pid) {
            let _ = sys!(SYS_sched_yield);
        }
        let is_refused = |result: SysResult| result.err().map(|e| e.0) == Some(libc::EPERM);
        i32::from(!is_refused(sys!(SYS_setpgid, inner.pid, 0)))
    })?
    .wait()?;
    expect_eq!(status, 0);
    // Not a child's child.
    let word = SharedWord::new()?;
    let middle = fork(|| {
        let Ok(inner) = sleeper() else { return 1 };
        word.set(inner.pid as u32);
        word.wait_for(0);
        0
    })?;
    while word.get() == 0 {
        let _ = sys!(SYS_sched_yield);
    }
    let inner = word.get();
    fails!(ESRCH, SYS_setpgid, inner, 0);
    word.set(0);
    expect_eq!(middle.wait()?, 0);
    Ok(())
}

fn a_child_that_has_executed_is_left_alone() -> Outcome {
    let mut child = std::process::Command::new("/bin/sleep")
        .arg("100")
        .spawn()?;
    fails!(EACCES, SYS_setpgid, child.id(), 0);
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn sessions_are_made_once() -> Outcome {
    let status = fork(|| {
        let own = getpid();
        if sys!(SYS_setsid) != Ok(own as usize) {
            exit(1);
        }
        if (session_of(0), group_of(0)) != (Ok(own), Ok(own)) {
            exit(2);
        }
        if sys!(SYS_setsid).err().map(|errno| errno.0) != Some(libc::EPERM) {
            exit(3);
        }
        if sys!(SYS_setpgid, 0, 0).err().map(|errno| errno.0) != Some(libc::EPERM) {
            exit(4);
        }
        0
    })?
    .wait()?;
    expect_eq!(status, 0);
    Ok(())
}

fn orphaned_groups_that_have_stopped_are_told() -> Outcome {
    let word = SharedWord::new()?;
    sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)?;
    // The outer one has a session of its own, so that this process does not hold the group.
    let outer = fork(|| {
        let _ = sys!(SYS_setsid);
        let Ok(inner) = fork(|| {
            let _ = sys!(SYS_setpgid, 0, 0);
            loop {
                let _ = sys!(SYS_pause);
            }
        }) else {
            return 1;
        };
        let _ = sys!(SYS_setpgid, inner.pid, 0);
        let _ = inner.kill(libc::SIGSTOP);
        let _ = wait4(inner.pid, libc::WUNTRACED);
        word.set(inner.pid as u32);
        inner.forget();
        0
    })?;
    expect_eq!(outer.wait()?, 0);
    let inner = word.get() as i32;
    expect!(inner > 0);
    // SIGHUP ends it, and SIGCONT has it take that.
    expect_eq!(wait4(inner, 0)?, (inner, libc::SIGHUP));
    sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)?;
    Ok(())
}

fn numbers_of_others_are_asked_for() -> Outcome {
    fails!(ESRCH, SYS_getpgid, -1);
    fails!(ESRCH, SYS_getsid, 4_000_000);
    let child = fork(|| 0)?;
    let pid = child.pid;
    expect!(comes_true(|| {
        let path = format!("/proc/{pid}/stat");
        std::fs::read_to_string(path).is_ok_and(|text| text.contains(") Z "))
    }));
    // A zombie has them still.
    expect_eq!(group_of(pid)?, group_of(0)?);
    expect_eq!(child.wait()?, 0);
    fails!(ESRCH, SYS_getpgid, pid);
    Ok(())
}
