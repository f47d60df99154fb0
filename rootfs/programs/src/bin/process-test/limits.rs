//! How many processes there can be, and that nothing is left of them.

use crate::child::{Child, exit, fork};
use guest_programs::check::{Check, Outcome, comes_true};
use guest_programs::{checks, expect, expect_eq, sys};

pub(crate) const CHECKS: &[Check] = checks![
    a_user_has_only_so_many_processes,
    nothing_is_left_of_processes,
    programs_leave_nothing,
];

fn a_user_has_only_so_many_processes() -> Outcome {
    if sys!(SYS_geteuid)? != 0 {
        return Ok(());
    }
    let status = fork(|| {
        let limit = [5_u64, 5];
        let is_set = sys!(SYS_setrlimit, libc::RLIMIT_NPROC, limit.as_ptr()).is_ok()
            && sys!(SYS_setresuid, 54321, 54321, 54321).is_ok();
        if !is_set {
            exit(50);
        }
        let mut children = Vec::new();
        loop {
            match fork(|| {
                loop {
                    let _ = sys!(SYS_pause);
                }
            }) {
                Ok(child) => children.push(child),
                Err(errno) if errno.0 == libc::EAGAIN => break,
                Err(_) => exit(51),
            }
            if children.len() > 10 {
                exit(52);
            }
        }
        let count = children.len() as i32;
        drop(children);
        // One that has gone makes room.
        match fork(|| 0).and_then(Child::wait) {
            Ok(0) => count,
            _ => 53,
        }
    })?
    .wait()?;
    expect_eq!(status, 4 << 8);
    Ok(())
}

/// Kibibytes of memory that nobody uses.
fn free_memory() -> std::io::Result<i64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|line| line.starts_with("MemFree:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    Ok(number.unwrap_or(0))
}

/// Whether this is a machine on which nobody else uses memory.
fn is_alone() -> bool {
    crate::child::getpid() == 1 || crate::child::getppid() == 0
}

fn nothing_is_left_of_processes() -> Outcome {
    // Of this process's own, what it has at any time.
    let touched = vec![1_u8; 1 << 20];
    let round = || -> Outcome {
        for _ in 0..20 {
            let child = fork(|| {
                let mut copy = touched.clone();
                copy[5000] = 2;
                i32::from(copy[5000] + touched[9])
            })?;
            expect_eq!(child.wait()?, 3 << 8);
        }
        Ok(())
    };
    round()?;
    if !is_alone() {
        return round();
    }
    let before = free_memory()?;
    for _ in 0..3 {
        round()?;
    }
    // Some is kept for what comes next, but no process's worth of it.
    expect!(comes_true(
        || free_memory().is_ok_and(|now| before - now < 512)
    ));
    Ok(())
}

fn programs_leave_nothing() -> Outcome {
    let round = || -> Outcome {
        for _ in 0..10 {
            let status = std::process::Command::new("/bin/true").status()?;
            expect!(status.success());
        }
        Ok(())
    };
    round()?;
    if !is_alone() {
        return round();
    }
    let before = free_memory()?;
    for _ in 0..3 {
        round()?;
    }
    expect!(comes_true(
        || free_memory().is_ok_and(|now| before - now < 512)
    ));
    Ok(())
}
