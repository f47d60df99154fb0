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
        ThreadKind::Main => &[EVENTS, KICKS, SYMBOLS, TASKS, MAIN],
        ThreadKind::Vcpu => &[EVENTS, KICKS, SYMBOLS, VCPU],
        ThreadKind::Debugger => &[EVENTS, KICKS, SYMBOLS, CONNECTION, DEBUGGER],
        ThreadKind::Disk => &[EVENTS, DISK],
        ThreadKind::DiskPool => &[EVENTS, DISK_POOL, NEW_THREADS],
        ThreadKind::Input | ThreadKind::Output => &[EVENTS, STREAMS, CONNECTION],
        ThreadKind::VhostUser => &[EVENTS, KICKS, CONNECTION, VHOST_USER],
        ThreadKind::Qemu => &[EVENTS, KICKS, SYMBOLS, CONNECTION, QEMU],
        ThreadKind::Messages => &[EVENTS, KICKS, SYMBOLS, CONNECTION, TASKS],
        ThreadKind::Front => &[EVENTS, FRONT],
    }
}

/// Whether threads of a kind keep root's rights over files, in a VM that shares files with these rights.
pub(super) fn keeps_file_capabilities(kind: ThreadKind) -> bool {
    // Whoever serves such files is to be named here.
    match kind {
        ThreadKind::Main
        | ThreadKind::Vcpu
        | ThreadKind::Debugger
        | ThreadKind::Disk
        | ThreadKind::DiskPool
        | ThreadKind::Input
        | ThreadKind::Output
        | ThreadKind::VhostUser
        | ThreadKind::Qemu
        | ThreadKind::Messages
        | ThreadKind::Front => false,
    }
}

/// What a kind is told that the host does not have: the C library then does without.
pub(super) fn missing(kind: ThreadKind) -> &'static [c_long] {
    match kind {
        // Its arguments are in memory, where a filter cannot look.
        ThreadKind::DiskPool => &[libc::SYS_clone3],
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
    call(libc::SYS_close),
    call(libc::SYS_rt_sigprocmask),
    call(libc::SYS_rt_sigreturn),
    call(libc::SYS_sigaltstack),
    // abort(3), and the end by what the handler of a signal cannot handle.
    call_if(libc::SYS_tgkill, &[Own(0), Is(2, libc::SIGABRT as u32)]),
    call_if(libc::SYS_rt_sigaction, &[Is(0, libc::SIGABRT as u32)]),
    call_if(libc::SYS_tgkill, &[Own(0), Is(2, libc::SIGBUS as u32)]),
    call_if(libc::SYS_rt_sigaction, &[Is(0, libc::SIGBUS as u32)]),
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

/// The signal that has a thread of this process leave the guest or a system call.
const KICKS: &[Call] = &[call_if(libc::SYS_tgkill, &[Own(0), Is(2, KICK)])];

/// What the C library leaves of the real-time signals: its first one.
const KICK: u32 = 34;

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
    // QEMU, by the descriptor of its process.
    call(libc::SYS_pidfd_send_signal),
    call(libc::SYS_waitid),
];

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
const DISK: &[Call] = &[call(libc::SYS_io_uring_enter)];

const DISK_POOL: &[Call] = &[
    call(libc::SYS_preadv),
    call(libc::SYS_pwritev),
    call(libc::SYS_fdatasync),
    call(libc::SYS_fallocate),
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
    ioctl(&[Is(1, libc::TCGETS as u32)]),
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
];

const QEMU: &[Call] = &[
    call(libc::SYS_pidfd_send_signal),
    call(libc::SYS_waitid),
    call(libc::SYS_dup),
];

/// The process that the user sees: it passes signals on, sets the terminal, and waits for the VMM.
const FRONT: &[Call] = &[
    call(libc::SYS_ppoll),
    call(libc::SYS_sendto),
    call(libc::SYS_recvfrom),
    call(libc::SYS_waitid),
    call(libc::SYS_wait4),
    call(libc::SYS_pidfd_send_signal),
    call_if(libc::SYS_kill, &[Own(0)]),
    call_if(libc::SYS_tgkill, &[Own(0)]),
    ioctl(&[Is(1, libc::TCGETS as u32)]),
    ioctl(&[Is(1, libc::TCSETS as u32)]),
    ioctl(&[Is(1, libc::TIOCGPGRP as u32)]),
    ioctl(&[Is(1, libc::TIOCGWINSZ as u32)]),
    call(libc::SYS_getpgrp),
    call(libc::SYS_rt_sigaction),
    call(libc::SYS_unlink),
    call(libc::SYS_rmdir),
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

    #[test]
    fn the_kick_is_the_signal_that_workers_use() {
        assert_eq!(vmm_sys_util::signal::SIGRTMIN(), KICK as i32);
    }
}
