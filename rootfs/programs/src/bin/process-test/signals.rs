//! Signals from process to process.

use crate::child::{Child, SharedWord, exit, fork, getpid};
use guest_programs::check::{Check, Outcome};
use guest_programs::sys::SysResult;
use guest_programs::{checks, expect_eq, fails, sys};

pub(crate) const CHECKS: &[Check] = checks![
    signals_reach_other_processes,
    threads_of_others_get_signals,
    zombies_take_signals,
    others_may_not_send_signals,
    process_groups_get_signals,
    a_child_has_no_signals_that_wait,
    a_child_blocks_what_its_parent_does,
    timers_are_not_inherited,
];

fn sleeper() -> SysResult<Child> {
    fork(|| {
        loop {
            let _ = sys!(SYS_pause);
        }
    })
}

fn signals_reach_other_processes() -> Outcome {
    let child = sleeper()?;
    let info = [0_u64, (-1_i32 as u32).into(), getpid() as u64, 5];
    let mut whole = [0_u64; 16];
    whole[..4].copy_from_slice(&info);
    let pid = child.pid;
    let usr1 = libc::SIGUSR1;
    sys!(SYS_rt_sigqueueinfo, pid, usr1, whole.as_ptr())?;
    expect_eq!(child.wait()?, usr1);
    fails!(ESRCH, SYS_kill, pid, 0);
    fails!(ESRCH, SYS_rt_sigqueueinfo, pid, usr1, whole.as_ptr());
    let child = sleeper()?;
    fails!(EINVAL, SYS_kill, child.pid, 65);
    // What the kernel or `kill(2)` says is nothing to be said.
    whole[1] = 0;
    fails!(EPERM, SYS_rt_sigqueueinfo, child.pid, usr1, whole.as_ptr());
    Ok(())
}

fn threads_of_others_get_signals() -> Outcome {
    let child = sleeper()?;
    let pid = child.pid;
    fails!(ESRCH, SYS_tgkill, getpid(), pid, 0);
    fails!(EINVAL, SYS_tgkill, 0, pid, 0);
    fails!(EINVAL, SYS_tkill, 0, 0);
    expect_eq!(sys!(SYS_tkill, pid, 0)?, 0);
    sys!(SYS_tgkill, pid, pid, libc::SIGTERM)?;
    expect_eq!(child.wait()?, libc::SIGTERM);
    Ok(())
}

fn zombies_take_signals() -> Outcome {
    let child = fork(|| 0)?;
    let told = crate::child::waitid(libc::P_PID, child.pid, libc::WEXITED | libc::WNOWAIT)?;
    expect_eq!(told.pid, child.pid);
    expect_eq!(child.kill(libc::SIGTERM)?, 0);
    expect_eq!(child.wait()?, 0);
    Ok(())
}

fn others_may_not_send_signals() -> Outcome {
    if sys!(SYS_geteuid)? != 0 {
        return Ok(());
    }
    let parent = getpid();
    let child = fork(|| {
        if sys!(SYS_setresuid, 1234, 1234, 1234).is_err() {
            exit(50);
        }
        let refused = |result: SysResult| result.err().map(|errno| errno.0) == Some(libc::EPERM);
        let mut whole = [0_u64; 16];
        whole[1] = u64::from(-1_i32 as u32);
        i32::from(!refused(sys!(SYS_kill, parent, 0)))
            | i32::from(!refused(sys!(SYS_kill, parent, libc::SIGTERM))) << 1
            | i32::from(!refused(sys!(SYS_tgkill, parent, parent, libc::SIGTERM))) << 2
            | i32::from(!refused(sys!(
                SYS_rt_sigqueueinfo,
                parent,
                libc::SIGTERM,
                whole.as_ptr()
            ))) << 3
            // In one session that is allowed.
            | i32::from(sys!(SYS_kill, parent, libc::SIGCONT).is_err()) << 4
    })?;
    expect_eq!(child.wait()?, 0);
    Ok(())
}

fn process_groups_get_signals() -> Outcome {
    let word = SharedWord::new()?;
    let leader = fork(|| {
        let _ = sys!(SYS_setpgid, 0, 0);
        let member = sleeper();
        word.set(1);
        let status = member.and_then(Child::wait);
        i32::from(status != Ok(libc::SIGUSR1))
    })?;
    word.wait_for(1);
    // The leader would end by it, too.
    fails!(ESRCH, SYS_kill, -(leader.pid + 100_000), 0);
    expect_eq!(sys!(SYS_kill, -leader.pid, 0)?, 0);
    sys!(SYS_kill, -leader.pid, libc::SIGUSR1)?;
    expect_eq!(leader.wait()?, libc::SIGUSR1);
    Ok(())
}

fn a_child_has_no_signals_that_wait() -> Outcome {
    let (set, mut before) = (1_u64 << (libc::SIGUSR1 - 1), 0_u64);
    sys!(
        SYS_rt_sigprocmask,
        libc::SIG_BLOCK,
        &raw const set,
        &raw mut before,
        8
    )?;
    sys!(SYS_kill, getpid(), libc::SIGUSR1)?;
    let child = fork(|| {
        let mut pending = 0_u64;
        let _ = sys!(SYS_rt_sigpending, &raw mut pending, 8);
        i32::from(pending != 0)
    })?;
    expect_eq!(child.wait()?, 0);
    let mut info = [0_i32; 32];
    sys!(SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), 0, 8)?;
    sys!(
        SYS_rt_sigprocmask,
        libc::SIG_SETMASK,
        &raw const before,
        0,
        8
    )?;
    Ok(())
}

fn a_child_blocks_what_its_parent_does() -> Outcome {
    let (set, mut before) = (1_u64 << (libc::SIGUSR1 - 1), 0_u64);
    sys!(
        SYS_rt_sigprocmask,
        libc::SIG_BLOCK,
        &raw const set,
        &raw mut before,
        8
    )?;
    let child = fork(|| {
        let mut blocked = 0_u64;
        let _ = sys!(SYS_rt_sigprocmask, 0, 0, &raw mut blocked, 8);
        i32::from(blocked != before | set)
    })?;
    expect_eq!(child.wait()?, 0);
    sys!(
        SYS_rt_sigprocmask,
        libc::SIG_SETMASK,
        &raw const before,
        0,
        8
    )?;
    Ok(())
}

fn timers_are_not_inherited() -> Outcome {
    sys!(SYS_alarm, 100)?;
    let child = fork(|| sys!(SYS_alarm, 0).map_or(99, |left| left as i32))?;
    expect_eq!(child.wait()?, 0);
    expect_eq!(sys!(SYS_alarm, 0)?, 100);
    Ok(())
}
