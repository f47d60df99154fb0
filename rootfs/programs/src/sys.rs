//! Raw system calls, with the kernel's result and nothing of libc's in between.
//!
//! [`sys!`](crate::sys!) is for programs that test a kernel. They pass it memory of their own that
//! the call may use, or addresses that are meant to be refused; that is what makes its `unsafe`
//! sound, and a wrong address in a check is a bug of the check.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An error number of Linux.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What a system call gives.
pub type SysResult<T = usize> = Result<T, Errno>;

macro_rules! names {
    ($($name:ident)*) => {
        const NAMES: &[(i32, &str)] = &[$((libc::$name, stringify!($name))),*];
    };
}

names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
    ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR
    EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE
    ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG
    ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK
    EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP
    EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET
    ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL
    EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED
    EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL
}

impl Errno {
    /// The error in the result of an io_uring operation, or of a system call: negated.
    pub fn from_result(result: i32) -> SysResult {
        usize::try_from(result).map_err(|_| Self(-result))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

/// What can be an argument of a system call.
pub trait Argument {
    /// The register value.
    fn word(self) -> i64;
}

macro_rules! integers {
    ($($type:ty)*) => {
        $(impl Argument for $type {
            fn word(self) -> i64 {
                self as i64
            }
        })*
    };
}

integers! { i32 u32 i64 u64 isize usize }

impl<T> Argument for *const T {
    fn word(self) -> i64 {
        self.addr() as i64
    }
}

impl<T> Argument for *mut T {
    fn word(self) -> i64 {
        self.addr() as i64
    }
}

impl Argument for &CStr {
    fn word(self) -> i64 {
        self.as_ptr().word()
    }
}

impl Argument for &OwnedFd {
    fn word(self) -> i64 {
        self.as_raw_fd().word()
    }
}

impl Argument for BorrowedFd<'_> {
    fn word(self) -> i64 {
        self.as_raw_fd().word()
    }
}

/// Makes a system call: `sys!(SYS_read, fd, pointer, length)`.
#[macro_export]
macro_rules! sys {
    ($number:ident $(, $argument:expr)* $(,)?) => {{
        // What the arguments borrow lives until the `match` ends.
        match [$($crate::sys::Argument::word($argument)),*] {
            // SAFETY: the caller's arguments follow the rule of the module's documentation.
            words => unsafe { $crate::sys::call(libc::$number, &words) },
        }
    }};
}

/// Makes the system call `number`.
///
/// # Errors
///
/// The kernel's.
///
/// # Safety
///
/// Where the call reads or writes memory, changes mappings or descriptors, these are the caller's
/// to give.
pub unsafe fn call(number: i64, arguments: &[i64]) -> SysResult {
    let word = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: by this function's contract.
    let result =
        unsafe { libc::syscall(number, word(0), word(1), word(2), word(3), word(4), word(5)) };
    if result == -1 {
        Err(Errno(
            std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
        ))
    } else {
        Ok(result as usize)
    }
}

/// Takes a descriptor that a system call has just made.
pub fn owned(fd: usize) -> OwnedFd {
    // SAFETY: the descriptor is new, so nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Opens `path`; a new file gets mode 0644.
///
/// # Errors
///
/// Those of `open(2)`.
pub fn open(path: &CStr, flags: i32) -> SysResult<OwnedFd> {
    sys!(SYS_openat, libc::AT_FDCWD, path, flags, 0o644).map(owned)
}

/// Makes a file that holds `contents`, open for reading and writing, its position at 0.
///
/// # Errors
///
/// Those of `open(2)` and `pwrite(2)`.
pub fn create(path: &CStr, contents: &[u8]) -> SysResult<OwnedFd> {
    let fd = open(path, libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC)?;
    let written = sys!(SYS_pwrite64, &fd, contents.as_ptr(), contents.len(), 0)?;
    if written == contents.len() {
        Ok(fd)
    } else {
        Err(Errno(libc::EIO))
    }
}

/// Everything in a file, from its start, in one `pread`.
///
/// # Errors
///
/// Those of `pread(2)`.
pub fn contents(fd: &OwnedFd) -> SysResult<Vec<u8>> {
    let mut bytes = vec![0; 1 << 16];
    let length = sys!(SYS_pread64, fd, bytes.as_mut_ptr(), bytes.len(), 0)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// A mapping, for checks that need an address with certain rights, or a ring's memory.
pub struct Mapping {
    /// Where it is.
    pub start: *mut u8,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes with the rights `protection` (`PROT_*`).
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)`.
    pub fn new(len: usize, protection: i32) -> SysResult<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = sys!(SYS_mmap, 0, len, protection, flags, -1, 0)?;
        Ok(Self {
            start: start as *mut u8,
            len,
        })
    }

    /// Maps `len` bytes of what `fd` has at `offset`, shared, to read and write.
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)`.
    pub fn shared(fd: &OwnedFd, len: usize, offset: u64) -> SysResult<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let start = sys!(SYS_mmap, 0, len, protection, libc::MAP_SHARED, fd, offset)?;
        Ok(Self {
            start: start as *mut u8,
            len,
        })
    }

    /// An address where nothing is mapped, until the next mapping is made.
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)`.
    pub fn nowhere() -> SysResult<*mut u8> {
        Ok(Self::new(4096, libc::PROT_NONE)?.start)
    }

    /// The address `offset` bytes from the start.
    pub fn at(&self, offset: usize) -> *mut u8 {
        self.start.wrapping_add(offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // What is unmapped already is no error.
        let _ = sys!(SYS_munmap, self.start, self.len);
    }
}
