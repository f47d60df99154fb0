//! What each kind of thread may do once it is confined: the one place to look at, and to change when a
//! thread gets something new to do.

use kvm_bindings::{
    kvm_fpu, kvm_guest_debug, kvm_mp_state, kvm_msi, kvm_msrs, kvm_regs, kvm_sregs,
};
use libc::c_long;
use ringlet_devices::ThreadKind;

/// A system call that may be made, if all the conditions hold. One that is listed twice may be made
/// under these conditions or those.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: c_long,
    pub(super) when: &'static [When],
}

/// A condition on the lower 32 bits of an argument of a system call, counted from 0: flags, requests and
/// descriptors have no more.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// It is this.
    Is(u8, u32),
    /// It has all of these bits.
    Has(u8, u32),
    /// It has none of these bits.
    Lacks(u8, u32),
    /// It is the number of this process.
    Own(u8),
}

use When::{Has, Is, Lacks, Own};

const fn call(number: c_long) -> Call {
    Call { number, when: &[] }
}

const fn call_if(number: c_long, when: &'static [When]) -> Call {
    Call { number, when }
}

/// What a kind may do, beside [`ALWAYS`].
pub(super) fn allowed(kind: ThreadKind) -> &'static [&'static [Call]] {
    match kind {
        ThreadKind::Main => &[EVENTS, SYMBOLS, TASKS, MAIN, REMOVE],
        ThreadKind::Messages => &[EVENTS, SYMBOLS, CONNECTION, TASKS],
        ThreadKind::Metrics => &[EVENTS, SYMBOLS, CONNECTION, METRICS],
        ThreadKind::Vcpu => &[EVENTS, SYMBOLS, VCPU],
        ThreadKind::Debugger => &[EVENTS, SYMBOLS, CONNECTION, DEBUGGER, REMOVE],
        ThreadKind::Disk => &[EVENTS, RING],
        ThreadKind::DiskPool => &[EVENTS, POOL, NEW_THREADS],
        ThreadKind::Share => &[EVENTS, RING, FILES],
        ThreadKind::ShareThreads => &[EVENTS, POOL, NEW_THREADS, FILES],
        ThreadKind::SharePool => &[EVENTS, FILES],
        ThreadKind::Input | ThreadKind::Output => &[EVENTS, STREAMS, CONNECTION],
        ThreadKind::VhostUser => &[EVENTS, CONNECTION, VHOST_USER],
        ThreadKind::Qemu => &[EVENTS, SYMBOLS, CONNECTION, QEMU],
    }
}

/// Whether threads of a kind serve the host's files, and open them.
pub(super) fn serves_files(kind: ThreadKind) -> bool {
    matches!(
        kind,
        ThreadKind::Share | ThreadKind::ShareThreads | ThreadKind::SharePool
    )
}

/// What a kind is told that the host does not have: the C library then does without.
pub(super) fn missing(kind: ThreadKind) -> &'static [c_long] {
    match kind {
        // Its arguments are in memory, where a filter cannot look.
        ThreadKind::DiskPool | ThreadKind::ShareThreads => &[libc::SYS_clone3],
        _ => &[],
    }
}

/// What every thread of a Rust program does: locks, time, memory of its own, messages, its end.
pub(super) const ALWAYS: &[Call] = &[
    call(libc::SYS_futex),
    call(libc::SYS_sched_yield),
    call(libc::SYS_clock_gettime),
    call(libc::SYS_clock_nanosleep),
    call(libc::SYS_nanosleep),
    call(libc::SYS_restart_syscall),
    call(libc::SYS_getpid),
    call(libc::SYS_gettid),
    call(libc::SYS_getrandom),
    // Memory that is no code and no file's.
    call_if(
        libc::SYS_mmap,
        &[
            Lacks(2, libc::PROT_EXEC as u32),
            Has(3, libc::MAP_ANONYMOUS as u32),
        ],
    ),
    call_if(libc::SYS_mprotect, &[Lacks(2, libc::PROT_EXEC as u32)]),
    call(libc::SYS_munmap),
    call(libc::SYS_mremap),
    call(libc::SYS_madvise),
    call(libc::SYS_brk),
    // To standard error, and not to wait for its reader.
    call_if(libc::SYS_write, &[Is(0, libc::STDERR_FILENO as u32)]),
    call(libc::SYS_poll),
    call(libc::SYS_ppoll),
    call(libc::SYS_close),
    call(libc::SYS_rt_sigprocmask),
    call(libc::SYS_rt_sigreturn),
    call(libc::SYS_sigaltstack),
    // To have another thread leave the guest or a system call; abort(3), and the end by a signal.
    call_if(libc::SYS_tgkill, &[Own(0)]),
    call(libc::SYS_rt_sigaction),
    // The terminal: whether there is one, whether it may be used, and what it was before.
    ioctl(&[Is(1, libc::TCGETS as u32)]),
    ioctl(&[Is(1, libc::TCGETS2 as u32)]),
    ioctl(&[Is(1, libc::TCSETS as u32)]),
    ioctl(&[Is(1, libc::TCSETS2 as u32)]),
    ioctl(&[Is(1, libc::TIOCGPGRP as u32)]),
    ioctl(&[Is(1, libc::TIOCGWINSZ as u32)]),
    call(libc::SYS_getpgrp),
    call(libc::SYS_exit),
    call(libc::SYS_exit_group),
];

/// Event descriptors: doorbells, interrupts, orders to stop.
const EVENTS: &[Call] = &[
    call(libc::SYS_read),
    call(libc::SYS_write),
    call_if(libc::SYS_fcntl, &[Is(1, libc::F_DUPFD_CLOEXEC as u32)]),
    call_if(libc::SYS_fcntl, &[Is(1, libc::F_GETFD as u32)]),
];

/// The kernel's file, whose symbols a report needs.
const SYMBOLS: &[Call] = &[
    call(libc::SYS_pread64),
    call(libc::SYS_lseek),
    call_if(libc::SYS_statx, &[Has(2, libc::AT_EMPTY_PATH as u32)]),
    call_if(libc::SYS_newfstatat, &[Has(3, libc::AT_EMPTY_PATH as u32)]),
    call(libc::SYS_fstat),
];

/// A socket that is connected.
const CONNECTION: &[Call] = &[
    call(libc::SYS_recvfrom),
    call(libc::SYS_sendto),
    call(libc::SYS_recvmsg),
    call(libc::SYS_sendmsg),
    call(libc::SYS_shutdown),
    call_if(
        libc::SYS_setsockopt,
        &[
            Is(1, libc::SOL_SOCKET as u32),
            Is(2, libc::SO_RCVTIMEO as u32),
        ],
    ),
    call_if(
        libc::SYS_setsockopt,
        &[
            Is(1, libc::SOL_SOCKET as u32),
            Is(2, libc::SO_SNDTIMEO as u32),
        ],
    ),
    ioctl(&[Is(1, libc::FIONBIO as u32)]),
];

/// A file or socket that is there already.
const METRICS: &[Call] = &[
    call(libc::SYS_accept4),
    call(libc::SYS_pwrite64),
    call(libc::SYS_ftruncate),
];

/// The event loop.
const MAIN: &[Call] = &[
    call(libc::SYS_epoll_wait),
    call(libc::SYS_epoll_pwait),
    call(libc::SYS_epoll_ctl),
    call(libc::SYS_timerfd_settime),
    call(libc::SYS_sendto),
    call(libc::SYS_recvfrom),
    // For the report on the VM.
    call(libc::SYS_getrusage),
    // What was counted, and how the VM ended.
    call(libc::SYS_pwrite64),
    call(libc::SYS_ftruncate),
    // QEMU, by the descriptor of its process.
    call(libc::SYS_pidfd_send_signal),
    call(libc::SYS_waitid),
];

/// Files of sockets, of those that were made for this VM.
const REMOVE: &[Call] = &[call(libc::SYS_unlink)];

/// The interrupt that has the guest's kernel list its tasks.
const TASKS: &[Call] = &[ioctl(&[Is(
    1,
    kvm_ioctl(WRITE, 0xa5, size_of::<kvm_msi>()),
)])];

const VCPU: &[Call] = &[
    ioctl(&[Is(1, kvm_ioctl(NONE, 0x80, 0))]),
    // For reports and the debugger: registers, the state of the CPU, breakpoints.
    ioctl(&[Is(1, kvm_ioctl(READ, 0x81, size_of::<kvm_regs>()))]),
    ioctl(&[Is(1, kvm_ioctl(WRITE, 0x82, size_of::<kvm_regs>()))]),
    ioctl(&[Is(1, kvm_ioctl(READ, 0x83, size_of::<kvm_sregs>()))]),
    ioctl(&[Is(1, kvm_ioctl(WRITE, 0x84, size_of::<kvm_sregs>()))]),
    ioctl(&[Is(1, kvm_ioctl(READ | WRITE, 0x88, size_of::<kvm_msrs>()))]),
    ioctl(&[Is(1, kvm_ioctl(READ, 0x8c, size_of::<kvm_fpu>()))]),
    ioctl(&[Is(1, kvm_ioctl(WRITE, 0x8d, size_of::<kvm_fpu>()))]),
    ioctl(&[Is(1, kvm_ioctl(READ, 0x98, size_of::<kvm_mp_state>()))]),
    ioctl(&[Is(1, kvm_ioctl(WRITE, 0x9b, size_of::<kvm_guest_debug>()))]),
    // A share that the driver activates: its root, and how many files there may be.
    call_if(libc::SYS_statx, &[Has(2, libc::AT_EMPTY_PATH as u32)]),
    call_if(libc::SYS_prlimit64, &[Is(0, 0), Is(2, 0)]),
];

/// The port that GDB connects to, which listens already.
const DEBUGGER: &[Call] = &[
    call(libc::SYS_accept4),
    call_if(
        libc::SYS_setsockopt,
        &[
            Is(1, libc::IPPROTO_TCP as u32),
            Is(2, libc::TCP_NODELAY as u32),
        ],
    ),
];

/// A ring that is restricted already.
const RING: &[Call] = &[call(libc::SYS_io_uring_enter)];

/// What a ring would do otherwise.
const POOL: &[Call] = &[
    call(libc::SYS_preadv),
    call(libc::SYS_pwritev),
    call(libc::SYS_pwritev2),
    call(libc::SYS_fsync),
    call(libc::SYS_fdatasync),
    call(libc::SYS_fallocate),
];

/// The files of a share: those below its directory, which is all that landlock and the device let
/// them be.
const FILES: &[Call] = &[
    call(libc::SYS_openat),
    call(libc::SYS_openat2),
    call(libc::SYS_statx),
    call(libc::SYS_newfstatat),
    call(libc::SYS_fstat),
    call(libc::SYS_fstatfs),
    call(libc::SYS_lseek),
    call(libc::SYS_getdents64),
    call(libc::SYS_readlinkat),
    call(libc::SYS_getxattr),
    call(libc::SYS_listxattr),
    call(libc::SYS_setxattr),
    call(libc::SYS_removexattr),
    call(libc::SYS_fchownat),
    call(libc::SYS_fchmodat),
    call(libc::SYS_utimensat),
    call(libc::SYS_ftruncate),
    call(libc::SYS_fallocate),
    call(libc::SYS_copy_file_range),
    call(libc::SYS_fsync),
    call(libc::SYS_fdatasync),
    call(libc::SYS_syncfs),
    call(libc::SYS_mknodat),
    call(libc::SYS_mkdirat),
    call(libc::SYS_symlinkat),
    call(libc::SYS_linkat),
    call(libc::SYS_unlinkat),
    call(libc::SYS_renameat2),
    call(libc::SYS_umask),
    call(libc::SYS_flock),
    call_if(libc::SYS_fcntl, &[Is(1, libc::F_OFD_SETLK as u32)]),
    call_if(libc::SYS_fcntl, &[Is(1, libc::F_OFD_GETLK as u32)]),
    call_if(libc::SYS_fcntl, &[Is(1, libc::F_GETFL as u32)]),
    call_if(libc::SYS_fcntl, &[Is(1, libc::F_SETFL as u32)]),
    call_if(libc::SYS_prlimit64, &[Is(0, 0), Is(2, 0)]),
];

/// More threads of the same kind.
const NEW_THREADS: &[Call] = &[
    call(libc::SYS_clone3),
    call_if(
        libc::SYS_clone,
        &[Has(0, (libc::CLONE_THREAD | libc::CLONE_VM) as u32)],
    ),
    call(libc::SYS_set_robust_list),
    call(libc::SYS_rseq),
    call_if(libc::SYS_prctl, &[Is(0, libc::PR_SET_NAME as u32)]),
    call(libc::SYS_sched_getaffinity),
];

/// A standard stream, and what kind of file it is.
const STREAMS: &[Call] = &[
    call(libc::SYS_readv),
    call(libc::SYS_writev),
    call(libc::SYS_fstat),
];

/// Guest memory comes as files, which are mapped; and QEMU's requests with descriptors.
const VHOST_USER: &[Call] = &[
    call_if(
        libc::SYS_mmap,
        &[
            Lacks(2, libc::PROT_EXEC as u32),
            Has(3, libc::MAP_SHARED as u32),
        ],
    ),
    call(libc::SYS_lseek),
    call_if(libc::SYS_statx, &[Has(2, libc::AT_EMPTY_PATH as u32)]),
    call(libc::SYS_fstat),
    call_if(libc::SYS_prlimit64, &[Is(0, 0), Is(2, 0)]),
];

const QEMU: &[Call] = &[
    call(libc::SYS_pidfd_send_signal),
    call(libc::SYS_waitid),
    call(libc::SYS_dup),
];

const fn ioctl(when: &'static [When]) -> Call {
    call_if(libc::SYS_ioctl, when)
}

/// Directions of an ioctl's argument (include/uapi/asm-generic/ioctl.h).
const NONE: u32 = 0;
const WRITE: u32 = 1;
const READ: u32 = 2;

/// The request of an ioctl of KVM (include/uapi/linux/kvm.h), whose argument has that many bytes.
const fn kvm_ioctl(direction: u32, number: u32, size: usize) -> u32 {
    const KVMIO: u32 = 0xae;
    direction << 30 | (size as u32) << 16 | KVMIO << 8 | number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctls_have_the_numbers_that_kvm_gives_them() {
        assert_eq!(kvm_ioctl(NONE, 0x80, 0), 0xae80);
        assert_eq!(kvm_ioctl(READ, 0x83, size_of::<kvm_sregs>()), 0x8138_ae83);
        assert_eq!(
            kvm_ioctl(READ | WRITE, 0x88, size_of::<kvm_msrs>()),
            0xc008_ae88
        );
    }
}
