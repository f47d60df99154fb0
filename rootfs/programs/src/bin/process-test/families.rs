//! Parents and children: orphans, those who adopt them, and what is told of an end.

use crate::child::{CloneArgs, SharedWord, clone3, exit, fork, getpid, getppid, wait4, waitid};
use guest_programs::check::{Check, Outcome, comes_true};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{WEXITED, WNOHANG};

pub(crate) const CHECKS: &[Check] = checks![
    orphans_get_another_parent,
    subreapers_adopt_orphans,
    zombies_are_adopted_too,
    the_end_of_a_child_is_told_by_sigchld,
    another_signal_may_tell_of_the_end,
    ignoring_sigchld_leaves_no_zombies,
    children_that_are_not_wanted_are_told_of,
    the_death_of_a_parent_is_told,
    clone_parent_makes_a_sibling,
];

fn subreaper(is_one: bool) -> Outcome {
    sys!(
        SYS_prctl,
        libc::PR_SET_CHILD_SUBREAPER,
        u64::from(is_one),
        0,
        0,
        0
    )?;
    Ok(())
}

fn orphans_get_another_parent() -> Outcome {
    let word = SharedWord::new()?;
    let child = fork(|| {
        let middle = getpid();
        let _ = fork(|| {
            while getppid() == middle {
                let _ = sys!(SYS_sched_yield);
            }
            word.set(1);
            0
        })
        .map(|orphan| orphan.forget());
        0
    })?;
    expect_eq!(child.wait()?, 0);
    expect!(comes_true(|| word.get() == 1));
    if getpid() == 1 {
        expect_eq!(wait4(-1, 0)?.1, 0);
    }
    // Otherwise it is not this process's.
    fails!(ECHILD, SYS_wait4, -1, 0, 0, 0);
    Ok(())
}

fn subreapers_adopt_orphans() -> Outcome {
    let mut is_one = 7_i32;
    sys!(
        SYS_prctl,
        libc::PR_GET_CHILD_SUBREAPER,
        &raw mut is_one,
        0,
        0,
        0
    )?;
    expect_eq!(is_one, 0);
    subreaper(true)?;
    sys!(
        SYS_prctl,
        libc::PR_GET_CHILD_SUBREAPER,
        &raw mut is_one,
        0,
        0,
        0
    )?;
    expect_eq!(is_one, 1);
    let own = getpid();
    let child = fork(|| {
        // It is not one itself.
        let mut is_one = 7_i32;
        let _ = sys!(
            SYS_prctl,
            libc::PR_GET_CHILD_SUBREAPER,
            &raw mut is_one,
            0,
            0,
            0
        );
        let _ = fork(move || {
            while getppid() != own {
                let _ = sys!(SYS_sched_yield);
            }
            6
        })
        .map(|orphan| orphan.forget());
        is_one
    })?;
    expect_eq!(child.wait()?, 0);
    expect_eq!(wait4(-1, 0)?.1, 6 << 8);
    subreaper(false)?;
    Ok(())
}

fn zombies_are_adopted_too() -> Outcome {
    subreaper(true)?;
    let child = fork(|| {
        let Ok(zombie) = fork(|| 8) else { return 1 };
        let told = waitid(libc::P_PID, zombie.pid, WEXITED | libc::WNOWAIT);
        zombie.forget();
        i32::from(told.is_err())
    })?;
    expect_eq!(child.wait()?, 0);
    expect_eq!(wait4(-1, WNOHANG)?.1, 8 << 8);
    subreaper(false)?;
    Ok(())
}

/// Blocks signals, and gives what was blocked.
fn block(signal: i32) -> u64 {
    let (set, mut before) = (1_u64 << (signal - 1), 0_u64);
    let _ = sys!(
        SYS_rt_sigprocmask,
        libc::SIG_BLOCK,
        &raw const set,
        &raw mut before,
        8
    );
    before
}

fn restore(before: u64) {
    let _ = sys!(
        SYS_rt_sigprocmask,
        libc::SIG_SETMASK,
        &raw const before,
        0,
        8
    );
}

/// Waits for a signal that is blocked: its code, sender and status.
fn take(signal: i32) -> guest_programs::sys::SysResult<[i32; 4]> {
    let (set, mut info) = (1_u64 << (signal - 1), [0_i32; 32]);
    let time = [10_i64, 0];
    sys!(
        SYS_rt_sigtimedwait,
        &raw const set,
        info.as_mut_ptr(),
        time.as_ptr(),
        8
    )?;
    Ok([info[2], info[4], info[5], info[6]])
}

fn pending(signal: i32) -> bool {
    let mut set = 0_u64;
    let _ = sys!(SYS_rt_sigpending, &raw mut set, 8);
    set >> (signal - 1) & 1 != 0
}

fn the_end_of_a_child_is_told_by_sigchld() -> Outcome {
    let before = block(libc::SIGCHLD);
    let user = sys!(SYS_getuid)? as i32;
    let child = fork(|| 4)?;
    let pid = child.pid;
    expect_eq!(take(libc::SIGCHLD)?, [libc::CLD_EXITED, pid, user, 4]);
    // Who is told can wait at once.
    expect_eq!(wait4(pid, WNOHANG)?, (pid, 4 << 8));
    child.forget();
    let child = fork(|| {
        loop {
            let _ = sys!(SYS_pause);
        }
    })?;
    let pid = child.pid;
    child.kill(libc::SIGSTOP)?;
    expect_eq!(
        take(libc::SIGCHLD)?,
        [libc::CLD_STOPPED, pid, user, libc::SIGSTOP]
    );
    child.kill(libc::SIGCONT)?;
    expect_eq!(
        take(libc::SIGCHLD)?,
        [libc::CLD_CONTINUED, pid, user, libc::SIGCONT]
    );
    child.kill(libc::SIGHUP)?;
    expect_eq!(
        take(libc::SIGCHLD)?,
        [libc::CLD_KILLED, pid, user, libc::SIGHUP]
    );
    expect_eq!(child.wait()?, libc::SIGHUP);
    restore(before);
    Ok(())
}

fn another_signal_may_tell_of_the_end() -> Outcome {
    let before = block(libc::SIGUSR1);
    let args = CloneArgs {
        exit_signal: libc::SIGUSR1 as u64,
        ..CloneArgs::default()
    };
    let child = clone3(&args, || 2)?;
    let told = take(libc::SIGUSR1)?;
    expect_eq!(
        (told[0], told[1], told[3]),
        (libc::CLD_EXITED, child.pid, 2)
    );
    let pid = child.pid;
    child.forget();
    expect_eq!(wait4(pid, libc::__WALL)?, (pid, 2 << 8));
    restore(before);
    Ok(())
}

fn with_sigchld(handler: u64, flags: u64, run: impl FnOnce() -> Outcome) -> Outcome {
    let words = [handler, flags, 0, 0];
    sys!(SYS_rt_sigaction, libc::SIGCHLD, words.as_ptr(), 0, 8)?;
    let outcome = run();
    let words = [0_u64; 4];
    sys!(SYS_rt_sigaction, libc::SIGCHLD, words.as_ptr(), 0, 8)?;
    outcome
}

fn ignoring_sigchld_leaves_no_zombies() -> Outcome {
    let before = block(libc::SIGCHLD);
    let outcome = with_sigchld(1, 0, || {
        let child = fork(|| 4)?;
        let pid = child.pid;
        child.forget();
        // It waits until there is none any more.
        fails!(ECHILD, SYS_wait4, pid, 0, 0, 0);
        fails!(ESRCH, SYS_kill, pid, 0);
        expect!(!pending(libc::SIGCHLD));
        Ok(())
    });
    restore(before);
    outcome
}

fn children_that_are_not_wanted_are_told_of() -> Outcome {
    let before = block(libc::SIGCHLD);
    let outcome = with_sigchld(0, libc::SA_NOCLDWAIT as u64, || {
        let child = fork(|| 4)?;
        let pid = child.pid;
        child.forget();
        let told = take(libc::SIGCHLD)?;
        expect_eq!((told[0], told[1], told[3]), (libc::CLD_EXITED, pid, 4));
        fails!(ECHILD, SYS_wait4, pid, 0, 0, 0);
        Ok(())
    });
    let outcome = outcome.and_then(|()| {
        with_sigchld(0, libc::SA_NOCLDSTOP as u64, || {
            let child = fork(|| {
                loop {
                    let _ = sys!(SYS_pause);
                }
            })?;
            child.kill(libc::SIGSTOP)?;
            expect_eq!(wait4(child.pid, libc::WUNTRACED)?.0, child.pid);
            expect!(!pending(libc::SIGCHLD));
            Ok(())
        })
    });
    let _ = take(libc::SIGCHLD);
    restore(before);
    outcome
}

fn the_death_of_a_parent_is_told() -> Outcome {
    let word = SharedWord::new()?;
    subreaper(true)?;
    let child = fork(|| {
        let orphan = fork(|| {
            let before = block(libc::SIGUSR2);
            let _ = sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGUSR2);
            word.set(1);
            let told = take(libc::SIGUSR2);
            restore(before);
            i32::from(told.is_err()) + 20
        });
        word.wait_for(1);
        let _ = orphan.map(|orphan| orphan.forget());
        0
    })?;
    expect_eq!(child.wait()?, 0);
    expect_eq!(wait4(-1, 0)?.1, 20 << 8);
    subreaper(false)?;
    let mut signal = 9_i32;
    sys!(SYS_prctl, libc::PR_GET_PDEATHSIG, &raw mut signal)?;
    expect_eq!(signal, 0);
    fails!(EINVAL, SYS_prctl, libc::PR_SET_PDEATHSIG, 65);
    // A child does not have its parent's.
    sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGUSR2)?;
    let child = fork(|| {
        let mut signal = 9_i32;
        let _ = sys!(SYS_prctl, libc::PR_GET_PDEATHSIG, &raw mut signal);
        signal
    })?;
    expect_eq!(child.wait()?, 0);
    sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, 0)?;
    Ok(())
}

fn clone_parent_makes_a_sibling() -> Outcome {
    let own = getpid();
    let child = fork(move || {
        let args = CloneArgs {
            flags: libc::CLONE_PARENT as u64,
            ..CloneArgs::default()
        };
        match clone3(&args, || i32::from(getppid() != own) + 30) {
            Ok(sibling) => sibling.forget(),
            Err(_) => exit(1),
        }
        0
    })?;
    expect_eq!(child.wait()?, 0);
    expect_eq!(wait4(-1, 0)?.1, 30 << 8);
    Ok(())
}
