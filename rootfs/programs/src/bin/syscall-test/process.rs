//! What a process knows of itself and of the machine, and signal bookkeeping.

use std::ffi::CStr;
use std::mem;

use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{Errno, Mapping, call};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK, SIGKILL, SIGSTOP, SIGUSR1, SIGUSR2};

pub(crate) const CHECKS: &[Check] = checks![
    uname_is_linux,
    identity,
    unknown_calls,
    arch_prctl_fs,
    sigaction_keeps_books,
    sigaction_errors,
    sigprocmask_keeps_books,
    sigprocmask_errors,
    sigaltstack_keeps_books,
    sysinfo_is_plausible,
    rlimits_are_kept,
    rlimit_errors,
    affinity_names_a_processor,
    yielding_returns,
    rusage_counts,
    thread_identity,
    umask_is_kept,
    auxiliary_vector,
    vector_registers_survive_calls,
    flags_and_registers_survive_calls,
];

fn zeroed<T>() -> T {
    // SAFETY: used only for the plain structures that the kernel fills, for which zeros are valid.
    unsafe { mem::zeroed() }
}

fn uname_is_linux() -> Outcome {
    let mut name: libc::utsname = zeroed();
    expect_eq!(sys!(SYS_uname, &raw mut name), Ok(0));
    let text = |field: &[i8; 65]| {
        let bytes = field.map(|byte| byte as u8);
        let text = CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().into());
        text.unwrap_or_else(|_| String::from("not terminated"))
    };
    expect_eq!(text(&name.sysname), "Linux");
    expect_eq!(text(&name.machine), "x86_64");
    let release = text(&name.release);
    if !release.starts_with("6.18.") {
        return Err(Failure::new(format!("the release is {release}")));
    }
    Ok(())
}

fn identity() -> Outcome {
    expect!(sys!(SYS_getpid)? > 0);
    expect_eq!(sys!(SYS_gettid), sys!(SYS_getpid));
    sys!(SYS_getppid)?;
    expect_eq!((sys!(SYS_getuid)?, sys!(SYS_geteuid)?), (0, 0));
    expect_eq!((sys!(SYS_getgid)?, sys!(SYS_getegid)?), (0, 0));
    let mut ids = [9_u32; 3];
    let (real, effective, saved) = (&raw mut ids[0], &raw mut ids[1], &raw mut ids[2]);
    expect_eq!(sys!(SYS_getresuid, real, effective, saved), Ok(0));
    expect_eq!(ids, [0; 3]);
    Ok(())
}

fn unknown_calls() -> Outcome {
    for number in [999, 400, 520, 100_000, -1] {
        // SAFETY: there are no such calls.
        let result = unsafe { call(number, &[]) };
        if result != Err(Errno(libc::ENOSYS)) {
            return Err(Failure::new(format!("call {number} gave {result:?}")));
        }
    }
    Ok(())
}

fn arch_prctl_fs() -> Outcome {
    const ARCH_SET_FS: i32 = 0x1002;
    const ARCH_GET_FS: i32 = 0x1003;
    let mut base = 0_u64;
    expect_eq!(sys!(SYS_arch_prctl, ARCH_GET_FS, &raw mut base), Ok(0));
    let pointer: u64;
    // SAFETY: the word at FS:0 is the thread's control block's address (x86-64 ABI).
    unsafe { std::arch::asm!("mov {}, fs:[0]", out(reg) pointer) };
    expect_eq!(base, pointer);
    expect_eq!(sys!(SYS_arch_prctl, ARCH_SET_FS, base), Ok(0));
    fails!(EPERM, SYS_arch_prctl, ARCH_SET_FS, 1_u64 << 63);
    fails!(EINVAL, SYS_arch_prctl, 0x9999, 0);
    Ok(())
}

/// The kernel's `struct sigaction`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

fn sigaction_keeps_books() -> Outcome {
    let default = Action::default();
    let new = Action {
        handler: 0x1234,
        flags: (libc::SA_RESTART | libc::SA_SIGINFO) as u64 | 0x0400_0000,
        restorer: 0x5678,
        mask: 1 << (SIGUSR2 - 1),
    };
    let mut old = new;
    expect_eq!(
        sys!(SYS_rt_sigaction, SIGUSR1, &raw const new, &raw mut old, 8),
        Ok(0)
    );
    expect_eq!(old, default);
    expect_eq!(sys!(SYS_rt_sigaction, SIGUSR1, 0, &raw mut old, 8), Ok(0));
    expect_eq!(old, new);
    // Nobody can mask SIGKILL and SIGSTOP.
    let all = Action {
        mask: u64::MAX,
        ..new
    };
    sys!(SYS_rt_sigaction, SIGUSR1, &raw const all, 0, 8)?;
    sys!(
        SYS_rt_sigaction,
        SIGUSR1,
        &raw const default,
        &raw mut old,
        8
    )?;
    expect_eq!(old.mask, !(1 << (SIGKILL - 1) | 1 << (SIGSTOP - 1)));
    Ok(())
}

fn sigaction_errors() -> Outcome {
    let action = Action::default();
    let mut old = action;
    let new = &raw const action;
    fails!(EINVAL, SYS_rt_sigaction, 0, new, 0, 8);
    fails!(EINVAL, SYS_rt_sigaction, 65, new, 0, 8);
    fails!(EINVAL, SYS_rt_sigaction, SIGKILL, new, 0, 8);
    fails!(EINVAL, SYS_rt_sigaction, SIGSTOP, new, 0, 8);
    fails!(EINVAL, SYS_rt_sigaction, SIGUSR1, new, 0, 16);
    expect_eq!(sys!(SYS_rt_sigaction, SIGKILL, 0, &raw mut old, 8), Ok(0));
    expect_eq!(sys!(SYS_rt_sigaction, 64, new, 0, 8), Ok(0));
    Ok(())
}

fn sigprocmask_keeps_books() -> Outcome {
    let (one, two) = (1_u64 << (SIGUSR1 - 1), 1_u64 << (SIGUSR2 - 1));
    let mut before = 0_u64;
    let mut mask = 0_u64;
    let change = |how, set: u64, old: &mut u64| {
        sys!(SYS_rt_sigprocmask, how, &raw const set, &raw mut *old, 8)
    };
    change(SIG_SETMASK, one, &mut before)?;
    change(SIG_BLOCK, two, &mut mask)?;
    expect_eq!(mask, one);
    change(SIG_UNBLOCK, one, &mut mask)?;
    expect_eq!(mask, one | two);
    change(SIG_SETMASK, u64::MAX, &mut mask)?;
    expect_eq!(mask, two);
    // Without a set the mask is only read, whatever `how` says.
    expect_eq!(sys!(SYS_rt_sigprocmask, 99, 0, &raw mut mask, 8), Ok(0));
    expect_eq!(mask, !(1 << (SIGKILL - 1) | 1 << (SIGSTOP - 1)));
    change(SIG_SETMASK, before, &mut mask)?;
    Ok(())
}

fn sigprocmask_errors() -> Outcome {
    let set = 0_u64;
    fails!(EINVAL, SYS_rt_sigprocmask, 99, &raw const set, 0, 8);
    fails!(EINVAL, SYS_rt_sigprocmask, SIG_BLOCK, &raw const set, 0, 4);
    Ok(())
}

fn sigaltstack_keeps_books() -> Outcome {
    let map = Mapping::new(65536, libc::PROT_READ | libc::PROT_WRITE)?;
    let mut before: libc::stack_t = zeroed();
    let mut old: libc::stack_t = zeroed();
    let new = libc::stack_t {
        ss_sp: map.start.cast(),
        ss_flags: 0,
        ss_size: 65536,
    };
    expect_eq!(
        sys!(SYS_sigaltstack, &raw const new, &raw mut before),
        Ok(0)
    );
    expect_eq!(sys!(SYS_sigaltstack, 0, &raw mut old), Ok(0));
    let seen = (old.ss_sp, old.ss_flags, old.ss_size);
    let small = libc::stack_t {
        ss_size: 1000,
        ..new
    };
    let too_small = sys!(SYS_sigaltstack, &raw const small, 0);
    let bad_flags = libc::stack_t {
        ss_flags: 0x100,
        ..new
    };
    let invalid = sys!(SYS_sigaltstack, &raw const bad_flags, 0);
    expect_eq!(sys!(SYS_sigaltstack, &raw const before, 0), Ok(0));
    expect_eq!(seen, (new.ss_sp, 0, 65536));
    expect_eq!(too_small, Err(Errno(libc::ENOMEM)));
    expect_eq!(invalid, Err(Errno(libc::EINVAL)));
    Ok(())
}

fn sysinfo_is_plausible() -> Outcome {
    let mut info: libc::sysinfo = zeroed();
    expect_eq!(sys!(SYS_sysinfo, &raw mut info), Ok(0));
    expect!(info.mem_unit > 0 && info.procs > 0 && info.uptime >= 0);
    let unit = u64::from(info.mem_unit);
    expect!(info.totalram * unit >= 16 << 20);
    expect!(info.freeram > 0 && info.freeram <= info.totalram);
    Ok(())
}

fn limit(rlim_cur: u64, rlim_max: u64) -> libc::rlimit {
    libc::rlimit { rlim_cur, rlim_max }
}

fn rlimits_are_kept() -> Outcome {
    let core = libc::RLIMIT_CORE;
    let (mut before, mut seen) = (limit(0, 0), limit(0, 0));
    sys!(SYS_prlimit64, 0, core, 0, &raw mut before)?;
    let new = limit(0, before.rlim_max);
    expect_eq!(sys!(SYS_prlimit64, 0, core, &raw const new, 0), Ok(0));
    expect_eq!(sys!(SYS_getrlimit, core, &raw mut seen), Ok(0));
    expect_eq!((seen.rlim_cur, seen.rlim_max), (0, before.rlim_max));
    expect_eq!(sys!(SYS_setrlimit, core, &raw const before), Ok(0));
    // A stack has a limit, which programs look at, and it is not tiny.
    sys!(SYS_prlimit64, 0, libc::RLIMIT_STACK, 0, &raw mut seen)?;
    expect!(seen.rlim_cur >= 1 << 20);
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, &raw mut seen)?;
    expect!(seen.rlim_cur >= 256 && seen.rlim_cur <= seen.rlim_max);
    Ok(())
}

fn rlimit_errors() -> Outcome {
    let mut seen = limit(0, 0);
    fails!(EINVAL, SYS_prlimit64, 0, 99, 0, &raw mut seen);
    let new = limit(2, 1);
    fails!(
        EINVAL,
        SYS_prlimit64,
        0,
        libc::RLIMIT_CORE,
        &raw const new,
        0
    );
    fails!(
        ESRCH,
        SYS_prlimit64,
        999_999,
        libc::RLIMIT_CORE,
        0,
        &raw mut seen
    );
    Ok(())
}

fn affinity_names_a_processor() -> Outcome {
    let mut mask = [0_u64; 128];
    let bytes = sys!(SYS_sched_getaffinity, 0, 1024, mask.as_mut_ptr())?;
    expect!(bytes % 8 == 0 && bytes > 0);
    expect!(mask.iter().any(|word| *word != 0));
    fails!(EINVAL, SYS_sched_getaffinity, 0, 7, mask.as_mut_ptr());
    let (mut cpu, mut node) = (u32::MAX, u32::MAX);
    expect_eq!(sys!(SYS_getcpu, &raw mut cpu, &raw mut node, 0), Ok(0));
    expect!(mask[cpu as usize / 64] & 1 << (cpu % 64) != 0);
    Ok(())
}

fn yielding_returns() -> Outcome {
    for _ in 0..100 {
        expect_eq!(sys!(SYS_sched_yield), Ok(0));
    }
    Ok(())
}

fn rusage_counts() -> Outcome {
    let mut usage: libc::rusage = zeroed();
    expect_eq!(
        sys!(SYS_getrusage, libc::RUSAGE_SELF, &raw mut usage),
        Ok(0)
    );
    let time = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec;
    expect!((0..3600).contains(&time));
    fails!(EINVAL, SYS_getrusage, 99, &raw mut usage);
    Ok(())
}

fn thread_identity() -> Outcome {
    let mut word = 0_u32;
    expect_eq!(sys!(SYS_set_tid_address, &raw mut word), sys!(SYS_gettid));
    fails!(EINVAL, SYS_set_robust_list, &raw mut word, 7);
    Ok(())
}

fn umask_is_kept() -> Outcome {
    let before = sys!(SYS_umask, 0o7077)?;
    // Only the permission bits count.
    expect_eq!(sys!(SYS_umask, before), Ok(0o077));
    expect_eq!(sys!(SYS_umask, before), Ok(before));
    Ok(())
}

fn auxiliary(kind: u64) -> u64 {
    // SAFETY: getauxval only reads what the kernel put on the stack.
    unsafe { libc::getauxval(kind) }
}

fn auxiliary_vector() -> Outcome {
    expect_eq!(auxiliary(libc::AT_PAGESZ), 4096);
    expect_eq!(auxiliary(libc::AT_CLKTCK), 100);
    expect_eq!(
        (auxiliary(libc::AT_UID), auxiliary(libc::AT_SECURE)),
        (0, 0)
    );
    expect_eq!(auxiliary(libc::AT_PHENT), 56);
    expect!(auxiliary(libc::AT_PHDR) != 0 && auxiliary(libc::AT_PHNUM) != 0);
    expect!(auxiliary(libc::AT_ENTRY) != 0 && auxiliary(libc::AT_HWCAP) != 0);
    let text = |kind| match auxiliary(kind) {
        0 => String::new(),
        // SAFETY: these entries are the addresses of strings that live as long as the process.
        address => unsafe { CStr::from_ptr(address as *const i8) }
            .to_string_lossy()
            .into_owned(),
    };
    expect!(text(libc::AT_EXECFN).ends_with("syscall-test"));
    expect_eq!(text(libc::AT_PLATFORM), "x86_64");
    let random = auxiliary(libc::AT_RANDOM) as *const [u8; 16];
    expect!(!random.is_null());
    // SAFETY: AT_RANDOM is the address of 16 bytes that live as long as the process.
    expect!(unsafe { *random } != [0; 16]);
    Ok(())
}

fn vector_registers_survive_calls() -> Outcome {
    let before: [u64; 4] = [0x0123_4567_89ab_cdef, 2, 3, 0xfedc_ba98_7654_3210];
    let mut after = [0_u64; 4];
    // SAFETY: `getppid` and `clock_nanosleep` read at most the zeroed time; the arrays are live.
    unsafe {
        std::arch::asm!(
            "movdqu xmm0, [{before}]",
            "movdqu xmm15, [{before} + 16]",
            "mov eax, 110",
            "syscall",
            "mov eax, 24",
            "syscall",
            "movdqu [{after}], xmm0",
            "movdqu [{after} + 16], xmm15",
            before = in(reg) before.as_ptr(),
            after = in(reg) after.as_mut_ptr(),
            out("rax") _, out("rcx") _, out("r11") _, out("xmm0") _, out("xmm15") _,
        );
    }
    expect_eq!(after, before);
    Ok(())
}

fn flags_and_registers_survive_calls() -> Outcome {
    let (rdi, rsi, rdx, r8, r9, r10): (u64, u64, u64, u64, u64, u64);
    let (r12, r13, r14, r15): (u64, u64, u64, u64);
    let flags: u64;
    // SAFETY: `getppid` takes no arguments; every register it might change is declared.
    unsafe {
        std::arch::asm!(
            "mov eax, 110",
            "stc",
            "syscall",
            "pushfq",
            "pop rax",
            inout("rdi") 1_u64 => rdi, inout("rsi") 2_u64 => rsi, inout("rdx") 3_u64 => rdx,
            inout("r8") 4_u64 => r8, inout("r9") 5_u64 => r9, inout("r10") 6_u64 => r10,
            inout("r12") 7_u64 => r12, inout("r13") 8_u64 => r13, inout("r14") 9_u64 => r14,
            inout("r15") 10_u64 => r15,
            out("rax") flags, out("rcx") _, out("r11") _,
        );
    }
    expect_eq!([rdi, rsi, rdx, r8, r9, r10], [1, 2, 3, 4, 5, 6]);
    expect_eq!([r12, r13, r14, r15], [7, 8, 9, 10]);
    expect!(flags & 1 == 1);
    Ok(())
}
