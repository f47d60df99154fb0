//! Error numbers, as programs see them.

use linux_raw_sys::errno;
use machine::{MapError, OutOfMemory};

/// An error number of Linux (`errno(3)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

/// The result of whatever a program asked for.
pub type Result<T, E = Errno> = core::result::Result<T, E>;

macro_rules! errnos {
    ($($name:ident)*) => {
        #[expect(missing_docs, reason = "errno(3) describes them")]
        impl Errno {
            $(pub const $name: Self = Self(errno::$name as u16);)*

            /// The name, as in `errno(3)`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    _ => "errno",
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK
    EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC
    ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOSYS ENOTEMPTY ELOOP ENODATA
    ENOLCK ETIME EPROTO EBADFD EOVERFLOW ENOTSOCK EOPNOTSUPP ETIMEDOUT EALREADY ECANCELED ESTALE
    EHWPOISON ENOBUFS ESRCH ELIBBAD EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT
    ESOCKTNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETUNREACH ECONNABORTED ECONNRESET EISCONN
    ENOTCONN ECONNREFUSED EINPROGRESS
}

/// What programs never see: a system call was interrupted by a signal, and how it goes on is decided
/// when that is delivered (Linux `include/linux/errno.h`).
impl Errno {
    /// It is made again if the handler says so (`SA_RESTART`) or there is none.
    pub const ERESTARTSYS: Self = Self(512);
    /// It is made again.
    pub const ERESTARTNOINTR: Self = Self(513);
    /// It is made again if there is no handler.
    pub const ERESTARTNOHAND: Self = Self(514);
    /// It goes on where it was if there is no handler.
    pub const ERESTART_RESTARTBLOCK: Self = Self(516);

    /// Whether it is one of these.
    pub fn is_restart(self) -> bool {
        matches!(
            self,
            Self::ERESTARTSYS
                | Self::ERESTARTNOINTR
                | Self::ERESTARTNOHAND
                | Self::ERESTART_RESTARTBLOCK
        )
    }
}

impl Errno {
    /// Not an error of Linux, and no program sees it: a page of the program's memory has to be
    /// read before the call can do what it was to do. What was done so far, if anything, is kept
    /// by whoever returns this; the call is made again when
    /// [`bring_in_absent`](crate::mm::AddressSpace::bring_in_absent) is done. The number is above all
    /// that a program takes for an error.
    pub(crate) const ABSENT: Self = Self(4096);

    /// The error that the host has with this number; `None` for 0 and for what is no errno.
    pub(crate) fn of_host(number: u16) -> Option<Self> {
        (1..Self::ABSENT.0)
            .contains(&number)
            .then_some(Self(number))
    }

    /// Not an error of Linux, and no program sees it: a read or write has kept its CPU for long
    /// enough, and goes on when others had their turn
    /// ([`Io::must_give_way`](crate::io::Io::must_give_way)).
    pub(crate) const GIVE_WAY: Self = Self(4097);

    /// What a system call returns, or a CQE's `res` holds: the negated number.
    pub fn as_result(self) -> i32 {
        -i32::from(self.0)
    }

    /// The error that has this number in the protocol of a device; `EIO` for one that programs do
    /// not know.
    pub fn from_number(number: u16) -> Self {
        match number {
            1..=LAST_OF_LINUX => Self(number),
            _ => Self::EIO,
        }
    }

    /// The number itself, positive.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// `EHWPOISON`, the last that programs know.
const LAST_OF_LINUX: u16 = 133;

impl core::fmt::Debug for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Self {
        Self::ENOMEM
    }
}

impl From<MapError> for Errno {
    fn from(error: MapError) -> Self {
        match error {
            MapError::OutOfMemory => Self::ENOMEM,
            MapError::Occupied => Self::EEXIST,
            MapError::BadAddress => Self::EINVAL,
        }
    }
}
