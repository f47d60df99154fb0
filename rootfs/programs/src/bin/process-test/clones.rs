//! `fork(2)`, `vfork(2)`, `clone(2)` and `clone3(2)`: what a child begins with.

use crate::child::{
    Child, CloneArgs, SharedWord, clone3, exit, fork, getpid, getppid, pipe, wait4,
};
use guest_programs::check::{Check, Outcome};
use guest_programs::sys::create;
use guest_programs::{checks, expect, expect_eq, fails, sys};
use std::os::fd::AsRawFd;

pub(crate) const CHECKS: &[Check] = checks![
    a_child_is_a_copy,
    memory_is_copied_when_it_is_written,
    shared_memory_stays_shared,
    files_are_shared_by_description_and_not_by_table,
    clone_files_shares_the_table,
    the_working_directory_is_copied_or_shared,
    vfork_waits_for_exit,
    clone_vm_shares_memory,
    numbers_are_stored_where_asked,
    clear_child_tid_clears_the_word,
    handlers_can_be_cleared,
    clone_flags_have_errors,
    clone3_arguments_have_errors,
    a_chosen_number_is_given,
    many_children_come_and_go,
    a_child_of_a_thread_is_the_process_s,
];

fn a_child_is_a_copy() -> Outcome {
    let parent = getpid();
    let child = fork(|| i32::from(getppid() != parent || getpid() == parent) + 5)?;
    expect!(child.pid > parent);
    expect_eq!(child.wait()?, 5 << 8);
    Ok(())
}

fn memory_is_copied_when_it_is_written() -> Outcome {
    let mut bytes = vec![1_u8; 64 << 10];
    let [from_child, to_parent] = pipe()?;
    let child = fork(|| {
        bytes.fill(2);
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        let _ = sys!(SYS_write, &to_parent, &raw const sum, 4);
        0
    })?;
    let mut sum = 0_u32;
    expect_eq!(sys!(SYS_read, &from_child, &raw mut sum, 4)?, 4);
    expect_eq!(sum, 128 << 10);
    expect!(bytes.iter().all(|byte| *byte == 1));
    bytes[0] = 9;
    expect_eq!(child.wait()?, 0);
    Ok(())
}

fn shared_memory_stays_shared() -> Outcome {
    let word = SharedWord::new()?;
    let child = fork(|| {
        word.wait_for(1);
        word.set(2);
        0
    })?;
    word.set(1);
    expect_eq!(child.wait()?, 0);
    expect_eq!(word.get(), 2);
    Ok(())
}

fn files_are_shared_by_description_and_not_by_table() -> Outcome {
    let file = create(c"file", b"0123456789")?;
    let child = fork(|| {
        let _ = sys!(SYS_lseek, &file, 4, libc::SEEK_SET);
        let _ = sys!(SYS_close, &file);
        0
    })?;
    expect_eq!(child.wait()?, 0);
    expect_eq!(sys!(SYS_lseek, &file, 0, libc::SEEK_CUR)?, 4);
    Ok(())
}

fn clone_files_shares_the_table() -> Outcome {
    let file = create(c"file", b"x")?;
    let args = CloneArgs {
        flags: libc::CLONE_FILES as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let spare = sys!(SYS_dup, &file)?;
    let child = clone3(&args, || i32::from(sys!(SYS_close, spare).is_err()))?;
    expect_eq!(child.wait()?, 0);
    fails!(EBADF, SYS_close, spare);
    // The end of the child has closed nothing else.
    expect_eq!(sys!(SYS_lseek, &file, 0, libc::SEEK_CUR)?, 0);
    Ok(())
}

fn the_working_directory_is_copied_or_shared() -> Outcome {
    std::fs::create_dir("below")?;
    let change = || i32::from(sys!(SYS_chdir, c"below").is_err());
    let before = std::env::current_dir()?;
    expect_eq!(fork(change)?.wait()?, 0);
    expect_eq!(std::env::current_dir()?, before);
    let args = CloneArgs {
        flags: libc::CLONE_FS as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    expect_eq!(clone3(&args, change)?.wait()?, 0);
    expect_eq!(std::env::current_dir()?, before.join("below"));
    Ok(())
}

fn vfork_waits_for_exit() -> Outcome {
    let word = SharedWord::new()?;
    let args = CloneArgs {
        flags: libc::CLONE_VFORK as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let child = clone3(&args, || {
        for _ in 0..50 {
            let _ = sys!(SYS_sched_yield);
        }
        word.set(1);
        3
    })?;
    expect_eq!(word.get(), 1);
    expect_eq!(child.wait()?, 3 << 8);
    Ok(())
}

/// A stack for a child that shares the memory, and what it does there: `start` gets `argument`.
fn on_own_stack(
    flags: i32,
    start: extern "C" fn(*mut libc::c_void) -> i32,
    argument: *mut libc::c_void,
) -> std::io::Result<Child> {
    let stack = vec![0_u8; 64 << 10].leak();
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is nobody else's, ever; the function returns a status.
    let pid = unsafe { libc::clone(start, top.cast(), flags, argument) };
    match pid {
        -1 => Err(std::io::Error::last_os_error()),
        pid => Ok(Child { pid }),
    }
}

extern "C" fn store(word: *mut libc::c_void) -> i32 {
    // SAFETY: the callers pass a `u32` that outlives the child.
    unsafe { word.cast::<u32>().write_volatile(77) };
    4
}

fn clone_vm_shares_memory() -> Outcome {
    let mut word = 0_u32;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let child = on_own_stack(flags, store, (&raw mut word).cast())?;
    // SAFETY: as any other load; the child has written it.
    expect_eq!(unsafe { (&raw const word).read_volatile() }, 77);
    expect_eq!(child.wait()?, 4 << 8);
    Ok(())
}

fn numbers_are_stored_where_asked() -> Outcome {
    let mut for_parent = 0_i32;
    let mut for_child = 0_i32;
    let args = CloneArgs {
        flags: (libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID) as u64,
        parent_tid: (&raw mut for_parent).expose_provenance() as u64,
        child_tid: (&raw mut for_child).expose_provenance() as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: as any other load.
    let stored = || unsafe { (&raw const for_child).read_volatile() };
    let child = clone3(&args, || i32::from(stored() != getpid()))?;
    expect_eq!(for_parent, child.pid);
    // It was stored in the child's copy.
    expect_eq!(stored(), 0);
    expect_eq!(child.wait()?, 0);
    Ok(())
}

fn clear_child_tid_clears_the_word() -> Outcome {
    let mut tid = 5_i32;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
    let stack = vec![0_u8; 64 << 10].leak();
    let top = stack.as_mut_ptr_range().end;
    let mut stored = 0_u32;
    // SAFETY: the stack is nobody else's; both words outlive the child, for which this waits.
    let pid = unsafe {
        libc::clone(
            store,
            top.cast(),
            flags,
            (&raw mut stored).cast(),
            std::ptr::null_mut::<i32>(),
            std::ptr::null_mut::<libc::c_void>(),
            &raw mut tid,
        )
    };
    expect!(pid > 0);
    let child = Child { pid };
    // SAFETY: as any other load.
    expect_eq!(unsafe { (&raw const tid).read_volatile() }, 0);
    expect_eq!(child.wait()?, 4 << 8);
    Ok(())
}

extern "C" fn ignore(_: i32) {}

fn handlers_can_be_cleared() -> Outcome {
    let action = |signal: i32| {
        let mut words = [0_u64; 4];
        let result = sys!(SYS_rt_sigaction, signal, 0, words.as_mut_ptr(), 8);
        result.map(|_| words[0])
    };
    // SAFETY: the handler does nothing.
    unsafe {
        libc::signal(libc::SIGUSR1, ignore as *const () as libc::sighandler_t);
        libc::signal(libc::SIGUSR2, libc::SIG_IGN);
    }
    let state = || match (action(libc::SIGUSR1), action(libc::SIGUSR2)) {
        (Ok(one), Ok(two)) => i32::from(one == 0) | i32::from(two == 1) << 1,
        _ => 9,
    };
    expect_eq!(fork(state)?.wait()?, 2 << 8);
    let args = CloneArgs {
        flags: 1 << 32,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    expect_eq!(clone3(&args, state)?.wait()?, 3 << 8);
    // SAFETY: back to what they do by default.
    unsafe {
        libc::signal(libc::SIGUSR1, libc::SIG_DFL);
        libc::signal(libc::SIGUSR2, libc::SIG_DFL);
    }
    Ok(())
}

fn clone_flags_have_errors() -> Outcome {
    fails!(EINVAL, SYS_clone, libc::CLONE_SIGHAND, 0, 0, 0, 0);
    fails!(EINVAL, SYS_clone, libc::CLONE_THREAD, 0, 0, 0, 0);
    let thread = libc::CLONE_THREAD | libc::CLONE_VM;
    fails!(EINVAL, SYS_clone, thread, 0, 0, 0, 0);
    let both = libc::CLONE_NEWNS | libc::CLONE_FS;
    fails!(EINVAL, SYS_clone, both, 0, 0, 0, 0);
    let tls = libc::CLONE_SETTLS | libc::SIGCHLD;
    fails!(EPERM, SYS_clone, tls, 0, 0, 0, u64::MAX);
    Ok(())
}

fn clone3_arguments_have_errors() -> Outcome {
    let good = CloneArgs {
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let refused = |args: CloneArgs, size: usize| match sys!(SYS_clone3, &raw const args, size) {
        Ok(0) => exit(0),
        other => other.err().map(|errno| errno.0),
    };
    let whole = size_of::<CloneArgs>();
    let einval = Some(libc::EINVAL);
    expect_eq!(refused(good, 63), einval);
    expect_eq!(refused(good, 4097), Some(libc::E2BIG));
    let with = |change: fn(&mut CloneArgs)| {
        let mut args = good;
        change(&mut args);
        refused(args, whole)
    };
    expect_eq!(with(|args| args.flags = 1 << 40), einval);
    expect_eq!(
        with(|args| args.flags = libc::CLONE_DETACHED as u64),
        einval
    );
    expect_eq!(with(|args| args.flags = 1), einval);
    expect_eq!(with(|args| args.exit_signal = 65), einval);
    expect_eq!(with(|args| args.exit_signal = 256), einval);
    expect_eq!(with(|args| args.stack = 4096), einval);
    expect_eq!(with(|args| args.stack_size = 4096), einval);
    expect_eq!(with(|args| args.flags = libc::CLONE_PARENT as u64), einval);
    expect_eq!(with(|args| args.set_tid_size = 1), einval);
    expect_eq!(with(|args| args.set_tid_size = 33), einval);
    let both =
        |args: &mut CloneArgs| args.flags = 1 << 32 | (libc::CLONE_SIGHAND | libc::CLONE_VM) as u64;
    expect_eq!(with(both), einval);
    Ok(())
}

fn a_chosen_number_is_given() -> Outcome {
    if sys!(SYS_geteuid)? != 0 {
        return Ok(());
    }
    // One that was free a moment ago.
    let number = {
        let child = fork(|| 0)?;
        let pid = child.pid;
        expect_eq!(child.wait()?, 0);
        pid
    };
    let mut args = CloneArgs {
        set_tid: (&raw const number).expose_provenance() as u64,
        set_tid_size: 1,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let child = clone3(&args, || i32::from(getpid() != number))?;
    expect_eq!(child.pid, number);
    expect_eq!(child.wait()?, 0);
    let own = getpid();
    args.set_tid = (&raw const own).expose_provenance() as u64;
    let refused = sys!(SYS_clone3, &raw const args, size_of::<CloneArgs>());
    expect_eq!(refused.err().map(|errno| errno.0), Some(libc::EEXIST));
    Ok(())
}

fn many_children_come_and_go() -> Outcome {
    for round in 0..30 {
        let children: Result<Vec<_>, _> = (0..10).map(|index| fork(|| index)).collect();
        for (index, child) in children?.into_iter().enumerate() {
            expect_eq!((round, child.wait()?), (round, (index as i32) << 8));
        }
    }
    expect_eq!(wait4(-1, 0).err().map(|errno| errno.0), Some(libc::ECHILD));
    Ok(())
}

fn a_child_of_a_thread_is_the_process_s() -> Outcome {
    let own = getpid();
    let child = std::thread::spawn(move || fork(|| i32::from(getppid() != own)))
        .join()
        .map_err(|_| guest_programs::check::Failure::new("the thread panicked"))??;
    expect_eq!(child.wait()?, 0);
    expect!(pipe()?[0].as_raw_fd() >= 0);
    Ok(())
}
