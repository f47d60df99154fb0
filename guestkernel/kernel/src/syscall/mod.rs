//! System calls: the table of numbers and handlers.
//!
//! A handler decodes arguments, calls the one operation on kernel objects that does the work, and
//! encodes the result. Handlers stand in the file of what they are about; a new system call is
//! one line in the table here. The futures of all handlers that can wait share one allocation, of
//! the largest one's size: big ones box themselves.

mod arguments;
mod attributes;
mod descriptor;
#[cfg(test)]
mod file_tests;
mod futex;
mod io_uring;
mod memory;
mod path;
mod poll;
mod process;
mod read_write;
mod restart;
mod schedule;
mod signal;
mod system;
mod thread;
mod time;
mod timer;

pub use arguments::Args;
pub(crate) use io_uring::finish_enter;

use crate::error::{Errno, Result};
use crate::io_uring::Entered;
use crate::missing;
use crate::operation::Actor;
use crate::process::{Thread, call_name};
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as number;

/// How far a system call has come without waiting.
pub(crate) enum Dispatched {
    /// It is done.
    Done(Result<u64>),
    /// [`dispatch`] is to do it.
    Waits,
    /// `io_uring_enter(2)` has submitted, and [`finish_enter`] is to wait.
    Entered(Entered),
}

impl From<Option<Result<u64>>> for Dispatched {
    /// What an operation gives that is done at once if it can be.
    #[inline]
    fn from(done: Option<Result<u64>>) -> Self {
        done.map_or(Self::Waits, Self::Done)
    }
}

macro_rules! system_calls {
    (
        now { $($now:ident => $now_module:ident::$now_handler:ident),* $(,)? }
        first { $($first:ident => $first_module:ident::$first_handler:ident),* $(,)? }
        wait { $($wait:ident => $wait_module:ident::$wait_handler:ident),* $(,)? }
    ) => {
        /// The system calls that there are, by the names of their numbers: the tests have cases for
        /// each.
        pub static IMPLEMENTED: &[&str] = &[
            $(stringify!($now),)*
            $(stringify!($first),)*
            $(stringify!($wait),)*
        ];

        /// Does the system call with that number for `thread`, if it need not wait.
        #[inline]
        pub(crate) fn dispatch_now(thread: &mut Thread, number: u64, args: Args) -> Dispatched {
            match u32::try_from(number).unwrap_or(u32::MAX) {
                $(number::$now => Dispatched::Done($now_module::$now_handler(thread, args)),)*
                $(number::$first => $first_module::$first_handler(thread, args),)*
                _ => Dispatched::Waits,
            }
        }

        /// Does what [`dispatch_now`] has left of the system call with that number.
        ///
        /// # Errors
        ///
        /// Those of the system call; `ENOSYS` for all others, which is logged once.
        #[inline]
        pub(crate) async fn dispatch(
            thread: &mut Thread,
            number: u64,
            args: Args,
        ) -> Result<u64> {
            match u32::try_from(number).unwrap_or(u32::MAX) {
                $(number::$wait => $wait_module::$wait_handler(thread, args).await,)*
                _ => unimplemented(number),
            }
        }
    };
}

system_calls! {
    // `fn(&mut Thread, Args) -> Result<u64>`
    now {
        __NR_dup => descriptor::dup,
        __NR_pipe => descriptor::pipe,
        __NR_pipe2 => descriptor::pipe2,
        __NR_eventfd => descriptor::eventfd,
        __NR_eventfd2 => descriptor::eventfd2,
        __NR_fadvise64 => read_write::fadvise64,
        __NR_readahead => read_write::readahead,
        __NR_getcwd => path::getcwd,
        __NR_fchdir => path::fchdir,
        __NR_umask => path::umask,
        __NR_mremap => memory::mremap,
        __NR_msync => memory::msync,
        __NR_mlockall => memory::mlockall,
        __NR_munlockall => memory::munlockall,
        __NR_membarrier => memory::membarrier,
        __NR_clone => thread::clone,
        __NR_clone3 => thread::clone3,
        __NR_exit => thread::exit,
        __NR_exit_group => thread::exit_group,
        __NR_getpid => process::getpid,
        __NR_gettid => thread::gettid,
        __NR_getppid => process::getppid,
        __NR_wait4 => process::wait4,
        __NR_waitid => process::waitid,
        __NR_set_tid_address => thread::set_tid_address,
        __NR_set_robust_list => thread::set_robust_list,
        __NR_get_robust_list => thread::get_robust_list,
        __NR_arch_prctl => process::arch_prctl,
        __NR_getuid => process::getuid,
        __NR_geteuid => process::geteuid,
        __NR_getgid => process::getgid,
        __NR_getegid => process::getegid,
        __NR_setuid => process::setuid,
        __NR_setgid => process::setgid,
        __NR_setreuid => process::setreuid,
        __NR_setregid => process::setregid,
        __NR_setresuid => process::setresuid,
        __NR_setresgid => process::setresgid,
        __NR_getresuid => process::getresuid,
        __NR_getresgid => process::getresgid,
        __NR_setfsuid => process::setfsuid,
        __NR_setfsgid => process::setfsgid,
        __NR_getgroups => process::getgroups,
        __NR_setgroups => process::setgroups,
        __NR_capget => process::capget,
        __NR_capset => process::capset,
        __NR_getpgid => process::getpgid,
        __NR_getpgrp => process::getpgrp,
        __NR_getsid => process::getsid,
        __NR_setpgid => process::setpgid,
        __NR_setsid => process::setsid,
        __NR_prctl => process::prctl,
        __NR_personality => process::personality,
        __NR_prlimit64 => process::prlimit64,
        __NR_getrlimit => process::getrlimit,
        __NR_setrlimit => process::setrlimit,
        __NR_getpriority => process::getpriority,
        __NR_setpriority => process::setpriority,
        __NR_rseq => thread::rseq,
        __NR_sched_getaffinity => schedule::sched_getaffinity,
        __NR_sched_setaffinity => schedule::sched_setaffinity,
        __NR_getcpu => schedule::getcpu,
        __NR_sched_getscheduler => schedule::sched_getscheduler,
        __NR_sched_getparam => schedule::sched_getparam,
        __NR_sched_setparam => schedule::sched_setparam,
        __NR_sched_setscheduler => schedule::sched_setscheduler,
        __NR_sched_get_priority_max => schedule::sched_get_priority_max,
        __NR_sched_get_priority_min => schedule::sched_get_priority_min,
        __NR_rt_sigaction => signal::rt_sigaction,
        __NR_rt_sigprocmask => signal::rt_sigprocmask,
        __NR_rt_sigpending => signal::rt_sigpending,
        __NR_sigaltstack => signal::sigaltstack,
        __NR_rt_sigreturn => signal::rt_sigreturn,
        __NR_rt_sigqueueinfo => signal::rt_sigqueueinfo,
        __NR_rt_tgsigqueueinfo => signal::rt_tgsigqueueinfo,
        __NR_kill => signal::kill,
        __NR_tkill => signal::tkill,
        __NR_tgkill => signal::tgkill,
        __NR_io_uring_setup => io_uring::io_uring_setup,
        __NR_uname => system::uname,
        __NR_sethostname => system::sethostname,
        __NR_setdomainname => system::setdomainname,
        __NR_sysinfo => system::sysinfo,
        __NR_clock_gettime => time::clock_gettime,
        __NR_clock_getres => time::clock_getres,
        __NR_clock_settime => time::clock_settime,
        __NR_settimeofday => time::settimeofday,
        __NR_gettimeofday => time::gettimeofday,
        __NR_time => time::time,
        __NR_getitimer => timer::getitimer,
        __NR_setitimer => timer::setitimer,
        __NR_alarm => timer::alarm,
        __NR_timer_create => timer::timer_create,
        __NR_timer_settime => timer::timer_settime,
        __NR_timer_gettime => timer::timer_gettime,
        __NR_timer_getoverrun => timer::timer_getoverrun,
        __NR_timer_delete => timer::timer_delete,
        __NR_times => time::times,
        __NR_getrusage => time::getrusage,
    }
    // `fn(&mut Thread, Args) -> Dispatched`: what often need not wait, and is to cost little then.
    first {
        __NR_close => descriptor::close_now,
        __NR_mmap => memory::mmap_now,
        __NR_munmap => memory::munmap_now,
        __NR_mprotect => memory::mprotect_now,
        __NR_madvise => memory::madvise_now,
        __NR_brk => memory::brk_now,
        __NR_futex => futex::futex_now,
        __NR_getrandom => system::getrandom_now,
        __NR_io_uring_enter => io_uring::io_uring_enter_now,
        __NR_io_uring_register => io_uring::io_uring_register_now,
    }
    // `async fn(&mut Thread, Args) -> Result<u64>`
    wait {
        __NR_getrandom => system::getrandom,
        __NR_read => read_write::read,
        __NR_write => read_write::write,
        __NR_pread64 => read_write::pread64,
        __NR_pwrite64 => read_write::pwrite64,
        __NR_readv => read_write::readv,
        __NR_writev => read_write::writev,
        __NR_preadv => read_write::preadv,
        __NR_pwritev => read_write::pwritev,
        __NR_preadv2 => read_write::preadv2,
        __NR_pwritev2 => read_write::pwritev2,
        __NR_lseek => read_write::lseek,
        __NR_sendfile => read_write::sendfile,
        __NR_copy_file_range => read_write::copy_file_range,
        __NR_splice => read_write::splice,
        __NR_tee => read_write::tee,
        __NR_fsync => read_write::fsync,
        __NR_sync => read_write::sync,
        __NR_syncfs => read_write::syncfs,
        __NR_fdatasync => read_write::fdatasync,
        __NR_sync_file_range => read_write::sync_file_range,
        __NR_ftruncate => read_write::ftruncate,
        __NR_fallocate => read_write::fallocate,
        __NR_open => descriptor::open,
        __NR_openat => descriptor::openat,
        __NR_openat2 => descriptor::openat2,
        __NR_creat => descriptor::creat,
        __NR_close => descriptor::close,
        __NR_close_range => descriptor::close_range,
        __NR_dup2 => descriptor::dup2,
        __NR_dup3 => descriptor::dup3,
        __NR_fcntl => descriptor::fcntl,
        __NR_flock => descriptor::flock,
        __NR_ioctl => descriptor::ioctl,
        __NR_memfd_create => descriptor::memfd_create,
        __NR_mkdir => path::mkdir,
        __NR_mkdirat => path::mkdirat,
        __NR_mknod => path::mknod,
        __NR_mknodat => path::mknodat,
        __NR_rmdir => path::rmdir,
        __NR_unlink => path::unlink,
        __NR_unlinkat => path::unlinkat,
        __NR_rename => path::rename,
        __NR_renameat => path::renameat,
        __NR_renameat2 => path::renameat2,
        __NR_link => path::link,
        __NR_linkat => path::linkat,
        __NR_symlink => path::symlink,
        __NR_symlinkat => path::symlinkat,
        __NR_chdir => path::chdir,
        __NR_chroot => path::chroot,
        __NR_getdents => path::getdents,
        __NR_mount => path::mount,
        __NR_umount2 => path::umount2,
        __NR_getdents64 => path::getdents64,
        __NR_stat => attributes::stat,
        __NR_lstat => attributes::lstat,
        __NR_fstat => attributes::fstat,
        __NR_newfstatat => attributes::newfstatat,
        __NR_statx => attributes::statx,
        __NR_access => attributes::access,
        __NR_faccessat => attributes::faccessat,
        __NR_faccessat2 => attributes::faccessat2,
        __NR_readlink => attributes::readlink,
        __NR_readlinkat => attributes::readlinkat,
        __NR_chmod => attributes::chmod,
        __NR_fchmod => attributes::fchmod,
        __NR_fchmodat => attributes::fchmodat,
        __NR_fchmodat2 => attributes::fchmodat2,
        __NR_chown => attributes::chown,
        __NR_lchown => attributes::lchown,
        __NR_fchown => attributes::fchown,
        __NR_fchownat => attributes::fchownat,
        __NR_utimensat => attributes::utimensat,
        __NR_utimes => attributes::utimes,
        __NR_futimesat => attributes::futimesat,
        __NR_utime => attributes::utime,
        __NR_truncate => attributes::truncate,
        __NR_statfs => attributes::statfs,
        __NR_fstatfs => attributes::fstatfs,
        __NR_mmap => memory::mmap,
        __NR_munmap => memory::munmap,
        __NR_mprotect => memory::mprotect,
        __NR_madvise => memory::madvise,
        __NR_brk => memory::brk,
        __NR_mincore => memory::mincore,
        __NR_mlock => memory::mlock,
        __NR_mlock2 => memory::mlock2,
        __NR_munlock => memory::munlock,
        __NR_setxattr => attributes::setxattr,
        __NR_lsetxattr => attributes::lsetxattr,
        __NR_fsetxattr => attributes::fsetxattr,
        __NR_getxattr => attributes::getxattr,
        __NR_lgetxattr => attributes::lgetxattr,
        __NR_fgetxattr => attributes::fgetxattr,
        __NR_listxattr => attributes::listxattr,
        __NR_llistxattr => attributes::llistxattr,
        __NR_flistxattr => attributes::flistxattr,
        __NR_removexattr => attributes::removexattr,
        __NR_lremovexattr => attributes::lremovexattr,
        __NR_fremovexattr => attributes::fremovexattr,
        __NR_poll => poll::poll,
        __NR_ppoll => poll::ppoll,
        __NR_select => poll::select,
        __NR_pselect6 => poll::pselect6,
        __NR_futex => futex::futex,
        __NR_io_uring_register => io_uring::io_uring_register,
        __NR_sched_yield => schedule::sched_yield,
        __NR_restart_syscall => restart::restart_syscall,
        __NR_pause => signal::pause,
        __NR_rt_sigsuspend => signal::rt_sigsuspend,
        __NR_rt_sigtimedwait => signal::rt_sigtimedwait,
        __NR_nanosleep => time::nanosleep,
        __NR_clock_nanosleep => time::clock_nanosleep,
    }
}

/// The thread, as who asks for an operation.
#[inline]
fn actor(thread: &Thread) -> Actor<'_> {
    Actor::caller(&thread.process, &thread.state)
}

/// Whether the system call, if it waits, waits for what other threads of programs do not see to by
/// system calls of their own, but a device or the time does.
pub(crate) fn waits_for_others(number: u64, args: Args) -> bool {
    match u32::try_from(number) {
        Ok(number::__NR_sched_yield) => false,
        // With a timeout it is also for the time.
        Ok(number::__NR_futex) => args.get(3) != 0,
        _ => true,
    }
}

#[cold]
fn unimplemented(number: u64) -> Result<u64> {
    static LOGGED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
    if let Some(name) = call_name(number) {
        let bit = 1 << (number % 64);
        let is_new = LOGGED
            .get(number as usize / 64)
            .is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0);
        if is_new {
            log::warn!("system call {name} ({number}) is not implemented");
        }
    }
    if let Ok(number) = u32::try_from(number) {
        missing::note(missing::Kind::SystemCall, number);
    }
    Err(Errno::ENOSYS)
}
