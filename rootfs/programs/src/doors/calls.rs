//! The system calls, a line for each: its arguments, what it gives, and the SQE of the same meaning.

use linux_raw_sys::io_uring::io_uring_op;

use super::argument::Arg;
use super::operation::{Entry, Gives, Kind, Kind::*, Operation, Signature, number, position};

/// Fields of an SQE that are plain numbers are set from arguments that are.
trait Field {
    fn set(&mut self, arg: Arg);
}

impl Field for Arg {
    fn set(&mut self, arg: Arg) {
        *self = arg;
    }
}

macro_rules! number_fields {
    ($($type:ty)*) => {
        $(impl Field for $type {
            fn set(&mut self, arg: Arg) {
                *self = number(&arg) as $type;
            }
        })*
    };
}

number_fields! { u32 }

macro_rules! entry {
    ($($arg:ident)*;) => {
        None
    };
    ($($arg:ident)*; $opcode:ident { $($($field:ident).+ = $value:expr),* }) => {
        Some(|args: &[Arg]| {
            let mut args = args.iter().cloned();
            $(
                #[allow(unused_variables, reason = "not every argument has a place in the SQE")]
                let $arg = args.next().unwrap_or(Arg::Word(0));
            )*
            let mut entry = Entry::new(stringify!($opcode), io_uring_op::$opcode as u8);
            $(Field::set(&mut entry.$($field).+, Arg::from($value));)*
            entry
        })
    };
}

macro_rules! calls {
    ($(
        $number:ident $name:ident($($arg:ident: $kind:expr),* $(,)?) $(-> $gives:ident)?
        $(= $opcode:ident { $($($field:ident).+ = $value:expr),* $(,)? })?;
    )*) => {
        /// All of them.
        pub static CALLS: &[Signature] = &[$(
            Signature {
                name: stringify!($name),
                number: libc::$number,
                kinds: &[$($kind),*] as &[Kind],
                gives: gives!($($gives)?),
                entry: entry!($($arg)*; $($opcode { $($($field).+ = $value),* })?),
            },
        )*];

        $(
            #[doc = concat!("`", stringify!($name), "(2)`.")]
            #[allow(clippy::too_many_arguments, reason = "as the system call")]
            pub fn $name($($arg: impl Into<Arg>),*) -> Operation {
                Operation::call(signature(stringify!($name)), vec![$($arg.into()),*])
            }
        )*
    };
}

macro_rules! gives {
    () => {
        Gives::Number
    };
    ($gives:ident) => {
        Gives::$gives
    };
}

/// The system call of that name.
///
/// # Panics
///
/// If the table has none.
fn signature(name: &str) -> &'static Signature {
    let found = CALLS.iter().find(|call| call.name == name);
    found.expect("the functions are made of the table")
}

const FD_FLAGS: &[i64] = &[0o2000000, 0o4000, 0o40000];
const OPEN: &[i64] = &[
    0o1, 0o2, 0o100, 0o200, 0o1000, 0o2000, 0o4000, 0o40000, 0o200000, 0o400000, 0o2000000,
    0o10000000,
];
const AT: &[i64] = &[0x100, 0x200, 0x400, 0x800, 0x1000];
const RWF: &[i64] = &[1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80];
const CLOCKS: &[i64] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, -1, -2, -6];
const PROTECTION: &[i64] = &[1, 2, 4, 0x0100_0000];
const MAP: &[i64] = &[1, 2, 0x10, 0x20, 0x40, 0x100, 0x4000, 0x8000, 0x10_0000];
const WHENCE: &[i64] = &[0, 1, 2, 3, 4, 5, -1];
const SELF: &[i64] = &[0];
const SIGNALS: &[i64] = &[0, 10, 12, 17, 23, 34, 64, 65, -1];
const SETS: &[i64] = &[8, 0, 4, 16];
const IDS: &[i64] = &[0, -1];
const RESOURCES: &[i64] = &[0, 1, 3, 4, 6, 7, 9, 15, 16, -1];
const FCNTL: &[i64] = &[
    0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 15, 16, 36, 37, 1024, 1025, 1030, 1031, 1032, 1033, 1034, 99,
];
const ADVICE: &[i64] = &[0, 1, 2, 3, 4, 5, 6, -1];
const MADVICE: &[i64] = &[
    0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 99,
];
const RANDOM_FLAGS: &[i64] = &[1, 2, 4, 8];

calls! {
    // Transfers.
    SYS_read read(fd: Fd, buffer: Out, length: Size)
        = IORING_OP_READ { fd = fd, addr = buffer, len = length, off = -1 };
    SYS_write write(fd: Fd, buffer: In, length: Size)
        = IORING_OP_WRITE { fd = fd, addr = buffer, len = length, off = -1 };
    SYS_pread64 pread64(fd: Fd, buffer: Out, length: Size, offset: Offset)
        = IORING_OP_READ { fd = fd, addr = buffer, len = length, off = offset };
    SYS_pwrite64 pwrite64(fd: Fd, buffer: In, length: Size, offset: Offset)
        = IORING_OP_WRITE { fd = fd, addr = buffer, len = length, off = offset };
    SYS_readv readv(fd: Fd, vectors: VectorOut, count: Count)
        = IORING_OP_READV { fd = fd, addr = vectors, len = count, off = -1 };
    SYS_writev writev(fd: Fd, vectors: VectorIn, count: Count)
        = IORING_OP_WRITEV { fd = fd, addr = vectors, len = count, off = -1 };
    SYS_preadv preadv(fd: Fd, vectors: VectorOut, count: Count, low: Offset, high: Only(&[0]))
        = IORING_OP_READV { fd = fd, addr = vectors, len = count, off = low };
    SYS_pwritev pwritev(fd: Fd, vectors: VectorIn, count: Count, low: Offset, high: Only(&[0]))
        = IORING_OP_WRITEV { fd = fd, addr = vectors, len = count, off = low };
    SYS_preadv2 preadv2(fd: Fd, vectors: VectorOut, count: Count, low: Offset, high: Only(&[0]), flags: Flags(RWF))
        = IORING_OP_READV { fd = fd, addr = vectors, len = count, off = low, sqe.op_flags = flags };
    SYS_pwritev2 pwritev2(fd: Fd, vectors: VectorIn, count: Count, low: Offset, high: Only(&[0]), flags: Flags(RWF))
        = IORING_OP_WRITEV { fd = fd, addr = vectors, len = count, off = low, sqe.op_flags = flags };
    SYS_lseek lseek(fd: Fd, offset: Offset, whence: One(WHENCE));
    SYS_sendfile sendfile(to: Fd, from: Fd, offset: In, length: Size);
    SYS_copy_file_range copy_file_range(from: Fd, from_at: In, to: Fd, to_at: In, length: Size, flags: Flags(&[1]));
    SYS_splice splice(from: Fd, from_at: In, to: Fd, to_at: In, length: Size, flags: Flags(&[1, 2, 4, 8, 16]))
        = IORING_OP_SPLICE { fd = to, file = from, off = position(&to_at), addr = position(&from_at), len = length, sqe.op_flags = flags };
    SYS_tee tee(from: Fd, to: Fd, length: Size, flags: Flags(&[1, 2, 4, 8, 16]))
        = IORING_OP_TEE { fd = to, file = from, len = length, sqe.op_flags = flags };
    SYS_vmsplice vmsplice(fd: Fd, vectors: VectorIn, count: Count, flags: Flags(&[1, 2, 4, 8]));
    // Files.
    SYS_fsync fsync(fd: Fd) = IORING_OP_FSYNC { fd = fd };
    SYS_fdatasync fdatasync(fd: Fd) = IORING_OP_FSYNC { fd = fd, sqe.op_flags = 1 };
    SYS_sync sync();
    SYS_syncfs syncfs(fd: Fd);
    SYS_sync_file_range sync_file_range(fd: Fd, offset: Offset, length: Offset, flags: Flags(&[1, 2, 4, 8]))
        = IORING_OP_SYNC_FILE_RANGE { fd = fd, off = offset, len = length, sqe.op_flags = flags };
    SYS_ftruncate ftruncate(fd: Fd, length: Offset) = IORING_OP_FTRUNCATE { fd = fd, off = length };
    SYS_fallocate fallocate(fd: Fd, mode: Flags(&[1, 2, 8, 0x10, 0x20, 0x40]), offset: Offset, length: Offset)
        = IORING_OP_FALLOCATE { fd = fd, len = mode, off = offset, addr = length };
    SYS_fadvise64 fadvise64(fd: Fd, offset: Offset, length: Offset, advice: One(ADVICE))
        = IORING_OP_FADVISE { fd = fd, off = offset, addr = length, sqe.op_flags = advice };
    SYS_readahead readahead(fd: Fd, offset: Offset, length: Size);
    SYS_flock flock(fd: Fd, operation: Flags(&[1, 2, 4, 8]));
    SYS_fcntl fcntl(fd: Fd, command: One(FCNTL), argument: One(&[0, 1, 0o4000, 0o2000, 100, -1]));
    SYS_ioctl ioctl(fd: Fd, command: One(&[0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451, 0x1272, 2]), argument: In);
    // Descriptors.
    SYS_open open(path: Path, flags: Flags(OPEN), mode: Mode) -> Fd;
    SYS_openat openat(at: DirFd, path: Path, flags: Flags(OPEN), mode: Mode) -> Fd
        = IORING_OP_OPENAT { fd = at, addr = path, sqe.op_flags = flags, len = mode };
    SYS_openat2 openat2(at: DirFd, path: Path, how: In, size: One(&[24, 0, 32, 8])) -> Fd
        = IORING_OP_OPENAT2 { fd = at, addr = path, off = how, len = size };
    SYS_creat creat(path: Path, mode: Mode) -> Fd;
    SYS_close close(fd: Fd) = IORING_OP_CLOSE { fd = fd };
    SYS_close_range close_range(first: One(&[4, 5, 8, 12, -1]), last: One(&[4, 6, 20, 3]), flags: Flags(&[4, 1]));
    SYS_dup dup(fd: Fd) -> Fd;
    SYS_dup2 dup2(from: Fd, to: One(&[5, 9, 14, 20, -1, 5000])) -> Fd;
    SYS_dup3 dup3(from: Fd, to: One(&[5, 9, 14, 20, -1, 5000]), flags: Flags(FD_FLAGS)) -> Fd;
    SYS_pipe pipe(ends: Out);
    SYS_pipe2 pipe2(ends: Out, flags: Flags(&[0o2000000, 0o4000, 0o40000, 0o200]))
        = IORING_OP_PIPE { addr = ends, sqe.op_flags = flags };
    SYS_eventfd eventfd(count: One(&[0, 1, -1])) -> Fd;
    SYS_eventfd2 eventfd2(count: One(&[0, 1, 7, -1]), flags: Flags(&[1, 0o2000000, 0o4000, 2])) -> Fd;
    SYS_memfd_create memfd_create(name: Path, flags: Flags(&[1, 2, 8, 16, 32])) -> Fd;
    SYS_poll poll(descriptors: In, count: Count, time: Only(&[0, 20]));
    SYS_ppoll ppoll(descriptors: In, count: Count, time: Time, mask: In, size: One(SETS));
    SYS_select select(count: Count, read: In, write: In, except: In, time: Time);
    SYS_pselect6 pselect6(count: Count, read: In, write: In, except: In, time: Time, mask: In);
    // Paths.
    SYS_getcwd getcwd(buffer: Out, length: Size);
    SYS_chdir chdir(path: Path);
    SYS_fchdir fchdir(fd: Fd);
    SYS_chroot chroot(path: Path);
    SYS_umask umask(mask: Mode);
    SYS_mkdir mkdir(path: Path, mode: Mode);
    SYS_mkdirat mkdirat(at: DirFd, path: Path, mode: Mode)
        = IORING_OP_MKDIRAT { fd = at, addr = path, len = mode };
    SYS_mknod mknod(path: Path, mode: One(&[0o100644, 0o010600, 0o140600, 0o644, 0o040700, 0o120777, 0o170000]), device: Only(&[0]));
    SYS_mknodat mknodat(at: DirFd, path: Path, mode: One(&[0o100644, 0o010600, 0o140600, 0o644, 0o040700, 0o120777, 0o170000]), device: Only(&[0]));
    SYS_rmdir rmdir(path: Path);
    SYS_unlink unlink(path: Path);
    SYS_unlinkat unlinkat(at: DirFd, path: Path, flags: Flags(AT))
        = IORING_OP_UNLINKAT { fd = at, addr = path, sqe.op_flags = flags };
    SYS_rename rename(from: Path, to: Path);
    SYS_renameat renameat(from_at: DirFd, from: Path, to_at: DirFd, to: Path)
        = IORING_OP_RENAMEAT { fd = from_at, addr = from, len = to_at, off = to };
    SYS_renameat2 renameat2(from_at: DirFd, from: Path, to_at: DirFd, to: Path, flags: Flags(&[1, 2, 4, 8]))
        = IORING_OP_RENAMEAT { fd = from_at, addr = from, len = to_at, off = to, sqe.op_flags = flags };
    SYS_link link(from: Path, to: Path);
    SYS_linkat linkat(from_at: DirFd, from: Path, to_at: DirFd, to: Path, flags: Flags(AT))
        = IORING_OP_LINKAT { fd = from_at, addr = from, len = to_at, off = to, sqe.op_flags = flags };
    SYS_symlink symlink(target: Path, path: Path);
    SYS_symlinkat symlinkat(target: Path, at: DirFd, path: Path)
        = IORING_OP_SYMLINKAT { fd = at, addr = target, off = path };
    SYS_getdents getdents(fd: Fd, buffer: Out, length: Size) -> Opaque;
    SYS_getdents64 getdents64(fd: Fd, buffer: Out, length: Size) -> Opaque;
    // Attributes.
    SYS_stat stat(path: Path, result: Out);
    SYS_lstat lstat(path: Path, result: Out);
    SYS_fstat fstat(fd: Fd, result: Out);
    SYS_newfstatat newfstatat(at: DirFd, path: Path, result: Out, flags: Flags(AT));
    SYS_statx statx(at: DirFd, path: Path, flags: Flags(AT), mask: One(&[0x7ff, 0, 0xfff, 0x8000_0000]), result: Out)
        = IORING_OP_STATX { fd = at, addr = path, sqe.op_flags = flags, len = mask, off = result };
    SYS_access access(path: Path, mode: One(&[0, 1, 2, 4, 7, 8, -1]));
    SYS_faccessat faccessat(at: DirFd, path: Path, mode: One(&[0, 1, 2, 4, 7, 8, -1]));
    SYS_faccessat2 faccessat2(at: DirFd, path: Path, mode: One(&[0, 1, 2, 4, 7, 8, -1]), flags: Flags(AT));
    SYS_readlink readlink(path: Path, buffer: Out, length: Size);
    SYS_readlinkat readlinkat(at: DirFd, path: Path, buffer: Out, length: Size);
    SYS_chmod chmod(path: Path, mode: Mode);
    SYS_fchmod fchmod(fd: Fd, mode: Mode);
    SYS_fchmodat fchmodat(at: DirFd, path: Path, mode: Mode);
    SYS_fchmodat2 fchmodat2(at: DirFd, path: Path, mode: Mode, flags: Flags(AT));
    SYS_chown chown(path: Path, user: One(IDS), group: One(IDS));
    SYS_lchown lchown(path: Path, user: One(IDS), group: One(IDS));
    SYS_fchown fchown(fd: Fd, user: One(IDS), group: One(IDS));
    SYS_fchownat fchownat(at: DirFd, path: Path, user: One(IDS), group: One(IDS), flags: Flags(AT));
    SYS_utimensat utimensat(at: DirFd, path: Path, times: In, flags: Flags(AT));
    SYS_utimes utimes(path: Path, times: In);
    SYS_futimesat futimesat(at: DirFd, path: Path, times: In);
    SYS_utime utime(path: Path, times: In);
    SYS_truncate truncate(path: Path, length: Offset);
    SYS_statfs statfs(path: Path, result: Out);
    SYS_fstatfs fstatfs(fd: Fd, result: Out);
    SYS_setxattr setxattr(path: Path, name: Path, value: In, size: Size, flags: Flags(&[1, 2, 4]))
        = IORING_OP_SETXATTR { addr3 = path, addr = name, off = value, len = size, sqe.op_flags = flags };
    SYS_lsetxattr lsetxattr(path: Path, name: Path, value: In, size: Size, flags: Flags(&[1, 2, 4]));
    SYS_fsetxattr fsetxattr(fd: Fd, name: Path, value: In, size: Size, flags: Flags(&[1, 2, 4]))
        = IORING_OP_FSETXATTR { fd = fd, addr = name, off = value, len = size, sqe.op_flags = flags };
    SYS_getxattr getxattr(path: Path, name: Path, value: Out, size: Size)
        = IORING_OP_GETXATTR { addr3 = path, addr = name, off = value, len = size };
    SYS_lgetxattr lgetxattr(path: Path, name: Path, value: Out, size: Size);
    SYS_fgetxattr fgetxattr(fd: Fd, name: Path, value: Out, size: Size)
        = IORING_OP_FGETXATTR { fd = fd, addr = name, off = value, len = size };
    SYS_removexattr removexattr(path: Path, name: Path);
    SYS_lremovexattr lremovexattr(path: Path, name: Path);
    SYS_fremovexattr fremovexattr(fd: Fd, name: Path);
    SYS_listxattr listxattr(path: Path, list: Out, size: Size);
    SYS_llistxattr llistxattr(path: Path, list: Out, size: Size);
    SYS_flistxattr flistxattr(fd: Fd, list: Out, size: Size);
    // Memory.
    SYS_mmap mmap(address: Address, length: Size, protection: Flags(PROTECTION), flags: Flags(MAP), fd: Fd, offset: Offset) -> Address;
    SYS_munmap munmap(address: Address, length: Size);
    SYS_mprotect mprotect(address: Address, length: Size, protection: Flags(PROTECTION));
    SYS_mremap mremap(address: Address, old: Size, new: Size, flags: Flags(&[1, 2, 4, 8]), to: Address) -> Address;
    SYS_madvise madvise(address: Address, length: Size, advice: One(MADVICE))
        = IORING_OP_MADVISE { addr = address, len = length, sqe.op_flags = advice };
    SYS_brk brk(address: Only(&[0])) -> Opaque;
    SYS_mincore mincore(address: Address, length: Size, result: Out);
    SYS_msync msync(address: Address, length: Size, flags: Flags(&[1, 2, 4, 8]));
    SYS_mlock mlock(address: Address, length: Size);
    SYS_mlock2 mlock2(address: Address, length: Size, flags: Flags(&[1, 2]));
    SYS_munlock munlock(address: Address, length: Size);
    SYS_mlockall mlockall(flags: Flags(&[4, 8]));
    SYS_munlockall munlockall();
    SYS_membarrier membarrier(command: One(&[0, 1, 2, 4, 8, 16, 128, -1]), flags: Flags(&[1, 2]), cpu: One(&[0, 1]));
    // Threads and processes.
    SYS_clone clone(flags: Only(&[]), stack: Only(&[]), parent: Only(&[]), child: Only(&[]), tls: Only(&[])) -> Opaque;
    SYS_clone3 clone3(arguments: In, size: Only(&[0, 8, 1 << 20])) -> Opaque;
    SYS_exit exit(status: Only(&[]));
    SYS_exit_group exit_group(status: Only(&[]));
    SYS_getpid getpid() -> Opaque;
    SYS_gettid gettid() -> Opaque;
    SYS_getppid getppid() -> Opaque;
    SYS_wait4 wait4(pid: One(&[-1, 0, 1 << 22, i32::MIN as i64]), status: Out, options: Flags(&[1, 2, 8, 0x4000_0000, 16]), usage: Out);
    SYS_waitid waitid(kind: One(&[0, 1, 2, 3, 4, -1]), id: One(&[0, 1 << 22, -1]), info: Out, options: Flags(&[1, 2, 4, 8, 16]), usage: Out);
    SYS_set_tid_address set_tid_address(address: Only(&[])) -> Opaque;
    SYS_set_robust_list set_robust_list(list: Address, size: One(&[24, 0, 16]));
    SYS_get_robust_list get_robust_list(pid: One(&[0, -1, 1 << 22]), list: Out, size: Out);
    SYS_arch_prctl arch_prctl(code: One(&[0x1003, 0x1004, 0x1011, 0, -1]), address: Out);
    SYS_getuid getuid();
    SYS_geteuid geteuid();
    SYS_getgid getgid();
    SYS_getegid getegid();
    SYS_setuid setuid(id: One(IDS));
    SYS_setgid setgid(id: One(IDS));
    SYS_setreuid setreuid(real: One(IDS), effective: One(IDS));
    SYS_setregid setregid(real: One(IDS), effective: One(IDS));
    SYS_setresuid setresuid(real: One(IDS), effective: One(IDS), saved: One(IDS));
    SYS_setresgid setresgid(real: One(IDS), effective: One(IDS), saved: One(IDS));
    SYS_getresuid getresuid(real: Out, effective: Out, saved: Out);
    SYS_getresgid getresgid(real: Out, effective: Out, saved: Out);
    SYS_setfsuid setfsuid(id: One(IDS));
    SYS_setfsgid setfsgid(id: One(IDS));
    SYS_getgroups getgroups(size: One(&[0, 1, 32, -1]), list: Out);
    SYS_setgroups setgroups(size: One(&[0, -1, 65537]), list: In);
    SYS_capget capget(header: In, data: Out);
    SYS_capset capset(header: In, data: Only(&[]));
    SYS_getpgid getpgid(pid: One(&[0, -1, 1 << 22])) -> Opaque;
    SYS_getpgrp getpgrp() -> Opaque;
    SYS_getsid getsid(pid: One(&[0, -1, 1 << 22])) -> Opaque;
    SYS_setpgid setpgid(pid: One(&[0, -1, 1 << 22]), group: One(&[0, -1, 1 << 22]));
    SYS_setsid setsid() -> Opaque;
    SYS_prctl prctl(option: One(&[3, 16, 21, 22, 38, 39, 99999]), second: One(&[0, 1, -1]), third: Only(&[0]), fourth: Only(&[0]), fifth: Only(&[0]));
    SYS_personality personality(persona: Only(&[-1]));
    SYS_prlimit64 prlimit64(pid: One(&[0, 1 << 22, -1]), resource: One(RESOURCES), new: Only(&[0]), old: Out);
    SYS_getrlimit getrlimit(resource: One(RESOURCES), limit: Out);
    SYS_setrlimit setrlimit(resource: One(&[16, -1]), limit: In);
    SYS_getpriority getpriority(which: One(&[0, 1, 2, 3, -1]), who: One(&[0, -1, 1 << 22]));
    SYS_setpriority setpriority(which: One(&[0, 3, -1]), who: One(&[0, 1 << 22]), priority: Only(&[0]));
    SYS_rseq rseq(area: Only(&[]), length: Only(&[]), flags: Only(&[]), signature: Only(&[]));
    SYS_sched_getaffinity sched_getaffinity(pid: One(&[0, -1, 1 << 22]), size: One(&[0, 7, 8, 128]), mask: Out) -> Opaque;
    SYS_sched_setaffinity sched_setaffinity(pid: One(&[0, -1, 1 << 22]), size: One(&[0, 8]), mask: In);
    SYS_getcpu getcpu(cpu: Out, node: Out);
    SYS_sched_yield sched_yield();
    SYS_sched_getscheduler sched_getscheduler(pid: One(&[0, -1, 1 << 22]));
    SYS_sched_getparam sched_getparam(pid: One(&[0, -1, 1 << 22]), parameter: Out);
    SYS_sched_setparam sched_setparam(pid: One(&[0, -1, 1 << 22]), parameter: In);
    SYS_sched_setscheduler sched_setscheduler(pid: One(&[0, -1, 1 << 22]), policy: One(&[0, 3, 7, 99, -1]), parameter: In);
    SYS_sched_get_priority_max sched_get_priority_max(policy: One(&[0, 1, 2, 3, 4, 5, 6, 7, -1]));
    SYS_sched_get_priority_min sched_get_priority_min(policy: One(&[0, 1, 2, 3, 4, 5, 6, 7, -1]));
    SYS_futex futex(word: Address, operation: One(&[0, 1, 3, 4, 5, 9, 10, 128, 129, 131, 132, 6, 7, 8, 99, 256]), value: One(&[0, 1, -1]), time: Time, second: Address, third: One(&[0, 1]));
    // Signals.
    SYS_rt_sigaction rt_sigaction(signal: One(SIGNALS), new: Only(&[0]), old: Out, size: One(SETS));
    SYS_rt_sigprocmask rt_sigprocmask(how: One(&[0, 1, 2, 3, -1]), new: In, old: Out, size: One(SETS));
    SYS_rt_sigpending rt_sigpending(set: Out, size: One(SETS));
    SYS_sigaltstack sigaltstack(new: Only(&[0]), old: Out);
    SYS_kill kill(pid: Only(SELF), signal: Only(&[0, 65, -1]));
    SYS_tkill tkill(tid: One(&[0, -1, 1 << 22]), signal: One(&[0, 65, -1]));
    SYS_tgkill tgkill(tgid: One(&[0, -1, 1 << 22]), tid: One(&[0, -1, 1 << 22]), signal: One(&[0, 65, -1]));
    SYS_pause pause();
    SYS_rt_sigsuspend rt_sigsuspend(mask: In, size: One(SETS));
    SYS_rt_sigtimedwait rt_sigtimedwait(set: In, info: Out, time: Time, size: One(SETS));
    // Time.
    SYS_nanosleep nanosleep(time: Time, left: Out);
    SYS_clock_nanosleep clock_nanosleep(clock: One(CLOCKS), flags: Only(&[0]), time: Time, left: Out);
    SYS_clock_gettime clock_gettime(clock: One(CLOCKS), result: Out);
    SYS_clock_getres clock_getres(clock: One(CLOCKS), result: Out);
    SYS_clock_settime clock_settime(clock: Only(&[1, 2, 99]), time: In);
    SYS_settimeofday settimeofday(time: Only(&[0]), zone: Only(&[0]));
    SYS_gettimeofday gettimeofday(time: Out, zone: Out);
    SYS_time time(result: Out) -> Opaque;
    SYS_getitimer getitimer(which: One(&[1, 2, 3, -1]), result: Out);
    SYS_setitimer setitimer(which: One(&[1, 2, 3, -1]), new: Only(&[0]), old: Out);
    SYS_alarm alarm(seconds: Only(&[]));
    SYS_times times(result: Out) -> Opaque;
    SYS_getrusage getrusage(who: One(&[0, 1, -1, 2]), result: Out);
    // The system.
    SYS_uname uname(result: Out);
    SYS_sethostname sethostname(name: In, length: Only(&[-1, 65]));
    SYS_setdomainname setdomainname(name: In, length: Only(&[-1, 65]));
    SYS_sysinfo sysinfo(result: Out);
    SYS_getrandom getrandom(buffer: Out, length: Size, flags: Flags(RANDOM_FLAGS));
    // Rings.
    SYS_io_uring_setup io_uring_setup(entries: One(&[0, 1, 4, 32769, -1]), parameters: In) -> Fd;
    SYS_io_uring_enter io_uring_enter(fd: Fd, submit: One(&[0, 1, 4]), wait: Only(&[0]), flags: Flags(&[1, 2, 4, 8, 16, 32, 64]), argument: In, size: One(&[0, 8, 24]));
    SYS_io_uring_register io_uring_register(fd: Fd, opcode: One(&[0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 15, 16, 19, 20, 99]), argument: In, count: One(&[0, 1, 2, 48, 300]));
}
