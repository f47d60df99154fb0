//! `clone(2)`, `clone3(2)` and the end of threads, without a library in between.

use guest_programs::check::{Check, Outcome, comes_true};
use guest_programs::sys::{Mapping, SysResult};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, CLONE_DETACHED, CLONE_FILES, CLONE_FS,
    CLONE_PARENT_SETTID, CLONE_SETTLS, CLONE_SIGHAND, CLONE_SYSVSEM, CLONE_THREAD, CLONE_VM,
};
use linux_raw_sys::general::clone_args;
use std::arch::asm;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) const CHECKS: &[Check] = checks![
    clone3_starts_a_thread,
    clone_starts_a_thread,
    clone3_errors,
    clone_errors,
    a_thread_has_its_own_thread_pointer,
    signals_reach_threads_that_exist,
    identity_of_threads,
];

const FLAGS: i32 = CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_THREAD
    | CLONE_SYSVSEM
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_SETTID
    | CLONE_CHILD_CLEARTID;
const STACK: usize = 64 << 10;

/// What a thread tells of itself. It runs code that no library knows of, so it only stores.
#[derive(Default)]
struct Report {
    parent_tid: AtomicU32,
    child_tid: AtomicU32,
    /// Its number as it was for the thread itself.
    seen_tid: AtomicU32,
    /// FS base, and a mark that the thread ran.
    thread_pointer: AtomicU64,
    argument: AtomicU64,
}

/// The thread: stores its number and the word at its thread pointer, and ends.
extern "C" fn body(report: &Report) {
    let tid: u64;
    // SAFETY: gettid touches nothing; the two registers are named.
    unsafe {
        asm!("syscall", inlateout("rax") libc::SYS_gettid as u64 => tid,
             out("rcx") _, out("r11") _, options(nostack));
    }
    report.seen_tid.store(tid as u32, Ordering::SeqCst);
    let pointer: u64;
    // SAFETY: the x86-64 ABI has the thread pointer stored where it points to.
    unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly)) };
    report.thread_pointer.store(pointer, Ordering::SeqCst);
    report.argument.store(77, Ordering::SeqCst);
}

/// Makes the system call `number`; where it gives 0, `body` runs, and the thread ends.
///
/// # Safety
///
/// The call must start a thread with a stack of its own that shares this one's memory.
unsafe fn start(number: i64, arguments: [u64; 5], report: &Report) -> i64 {
    let result;
    // SAFETY: in this thread it is a system call; the new one has another stack, calls a function
    // that needs nothing but its argument, and never comes back.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "xor edi, edi",
            "mov eax, 60",
            "syscall",
            "ud2",
            "2:",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r12") report,
            in("r13") body as extern "C" fn(&Report),
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// A report of a thread that is to be joined, whether it has begun or not.
fn report() -> Report {
    Report {
        child_tid: AtomicU32::new(1),
        ..Report::default()
    }
}

fn stack() -> SysResult<Mapping> {
    Mapping::new(STACK, libc::PROT_READ | libc::PROT_WRITE)
}

/// Waits as `pthread_join` does.
fn join(word: &AtomicU32) {
    loop {
        let tid = word.load(Ordering::SeqCst);
        if tid == 0 {
            return;
        }
        // The thread may end before: then the word is another, and the wait ends at once.
        let _ = sys!(SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, tid, 0);
    }
}

fn check(report: &Report, tid: i64) -> Outcome {
    expect!(tid > 0);
    expect_eq!(i64::from(report.parent_tid.load(Ordering::SeqCst)), tid);
    join(&report.child_tid);
    expect_eq!(i64::from(report.seen_tid.load(Ordering::SeqCst)), tid);
    expect_eq!(report.argument.load(Ordering::SeqCst), 77);
    Ok(())
}

fn own_thread_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: as in `body`.
    unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly)) };
    pointer
}

fn arguments(report: &Report, stack: &Mapping) -> clone_args {
    clone_args {
        flags: FLAGS as u64,
        pidfd: 0,
        child_tid: report.child_tid.as_ptr() as u64,
        parent_tid: report.parent_tid.as_ptr() as u64,
        exit_signal: 0,
        stack: stack.start as u64,
        stack_size: STACK as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    }
}

fn clone3_starts_a_thread() -> Outcome {
    let (report, stack) = (report(), stack()?);
    let arguments = arguments(&report, &stack);
    let size = size_of::<clone_args>() as u64;
    let pointer = (&raw const arguments) as u64;
    // SAFETY: the thread has its own stack and is joined before that goes.
    let tid = unsafe { start(libc::SYS_clone3, [pointer, size, 0, 0, 0], &report) };
    check(&report, tid)?;
    expect_eq!(
        report.thread_pointer.load(Ordering::SeqCst),
        own_thread_pointer()
    );
    Ok(())
}

fn clone_starts_a_thread() -> Outcome {
    for more in [0, CLONE_DETACHED] {
        let (report, stack) = (report(), stack()?);
        let arguments = [
            (FLAGS | more) as u64,
            stack.at(STACK) as u64,
            report.parent_tid.as_ptr() as u64,
            report.child_tid.as_ptr() as u64,
            0,
        ];
        // SAFETY: as above.
        let tid = unsafe { start(libc::SYS_clone, arguments, &report) };
        check(&report, tid)?;
    }
    Ok(())
}

fn a_thread_has_its_own_thread_pointer() -> Outcome {
    let (report, stack) = (report(), stack()?);
    // The word that it points to holds its own address.
    let area = AtomicU64::new(0);
    let pointer = area.as_ptr() as u64;
    area.store(pointer, Ordering::SeqCst);
    let arguments = [
        (FLAGS | CLONE_SETTLS) as u64,
        stack.at(STACK) as u64,
        report.parent_tid.as_ptr() as u64,
        report.child_tid.as_ptr() as u64,
        pointer,
    ];
    // SAFETY: as above.
    let tid = unsafe { start(libc::SYS_clone, arguments, &report) };
    check(&report, tid)?;
    expect_eq!(report.thread_pointer.load(Ordering::SeqCst), pointer);
    expect!(own_thread_pointer() != pointer);
    Ok(())
}

fn clone3_errors() -> Outcome {
    let (report, stack) = (report(), stack()?);
    let good = arguments(&report, &stack);
    let size = size_of::<clone_args>();
    let with = |change: fn(&mut clone_args)| {
        let mut arguments = good;
        change(&mut arguments);
        arguments
    };
    fails!(EINVAL, SYS_clone3, &raw const good, 63);
    fails!(E2BIG, SYS_clone3, &raw const good, 4097);
    fails!(EFAULT, SYS_clone3, Mapping::nowhere()?, size);
    for bad in [
        with(|arguments| arguments.flags |= 17),
        with(|arguments| arguments.flags |= CLONE_DETACHED as u64),
        with(|arguments| arguments.flags |= 1 << 40),
        with(|arguments| arguments.flags &= !(CLONE_SIGHAND as u64)),
        with(|arguments| arguments.exit_signal = 17),
        with(|arguments| arguments.exit_signal = 65),
        with(|arguments| arguments.stack = 0),
        with(|arguments| arguments.stack_size = 0),
        with(|arguments| arguments.stack = u64::MAX - 100),
        with(|arguments| arguments.set_tid_size = 1),
        with(|arguments| arguments.set_tid_size = 99),
    ] {
        fails!(EINVAL, SYS_clone3, &raw const bad, size);
    }
    let mut longer = [0_u64; 12];
    longer[11] = 1;
    fails!(E2BIG, SYS_clone3, longer.as_ptr(), 96);
    Ok(())
}

fn clone_errors() -> Outcome {
    fails!(EINVAL, SYS_clone, CLONE_THREAD, 0, 0, 0, 0);
    fails!(EINVAL, SYS_clone, CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0);
    fails!(EINVAL, SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0);
    let tls = FLAGS & !CLONE_CHILD_SETTID & !CLONE_PARENT_SETTID | CLONE_SETTLS;
    fails!(EPERM, SYS_clone, tls, 0x1000, 0, 0, u64::MAX as i64);
    Ok(())
}

fn signals_reach_threads_that_exist() -> Outcome {
    let pid = sys!(SYS_getpid)?;
    let (sender, receiver) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(sys!(SYS_gettid));
        let _ = ended.recv();
    });
    let tid = receiver.recv()??;
    expect_eq!(sys!(SYS_tgkill, pid, tid, 0), Ok(0));
    expect_eq!(sys!(SYS_tkill, tid, 0), Ok(0));
    fails!(EINVAL, SYS_tgkill, pid, tid, 65);
    fails!(EINVAL, SYS_tgkill, pid, 0, 0);
    fails!(EINVAL, SYS_tkill, 0, 0);
    drop(end);
    expect!(thread.join().is_ok());
    // It is gone a moment after it was joined.
    expect!(comes_true(|| sys!(SYS_tgkill, pid, tid, 0).is_err()));
    fails!(ESRCH, SYS_tgkill, pid, tid, 0);
    Ok(())
}

fn identity_of_threads() -> Outcome {
    let (pid, group) = (sys!(SYS_getpid)?, sys!(SYS_getpgid, 0)?);
    let other = std::thread::spawn(|| {
        let pid = sys!(SYS_getpid)?;
        let tid = sys!(SYS_gettid)?;
        // A thread's own signals are blocked for it alone.
        let mask = 1_u64 << (libc::SIGUSR1 - 1);
        let mut before = 0_u64;
        sys!(
            SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            &raw const mask,
            &raw mut before,
            8
        )?;
        sys!(SYS_tgkill, pid, tid, libc::SIGUSR1)?;
        let mut pending = 0_u64;
        sys!(SYS_rt_sigpending, &raw mut pending, 8)?;
        Ok::<_, guest_programs::sys::Errno>((pid, sys!(SYS_getpgid, 0)?, pending == mask))
    });
    expect_eq!(other.join().ok(), Some(Ok((pid, group, true))));
    let mut pending = 1_u64;
    expect_eq!(sys!(SYS_rt_sigpending, &raw mut pending, 8), Ok(0));
    expect_eq!(pending, 0);
    let mut mask = 1_u64;
    sys!(SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, &raw mut mask, 8)?;
    expect_eq!(mask, 0);
    Ok(())
}
