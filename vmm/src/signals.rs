//! Signals to Ringlet, read from a descriptor in the event loop.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use vmm_sys_util::signal::create_sigset;

/// What a signal means to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// End the VM; the exit status says which signal it was.
    End(u8),
    /// Stop the process until it is continued.
    Suspend,
    /// The process was continued.
    Resume,
    /// Say what the vCPUs are doing.
    Report,
    /// The terminal has another size.
    Resize,
}

const SIGNALS: [(libc::c_int, Request); 7] = [
    (libc::SIGINT, Request::End(libc::SIGINT as u8)),
    (libc::SIGTERM, Request::End(libc::SIGTERM as u8)),
    (libc::SIGHUP, Request::End(libc::SIGHUP as u8)),
    (libc::SIGQUIT, Request::Report),
    (libc::SIGTSTP, Request::Suspend),
    (libc::SIGCONT, Request::Resume),
    (libc::SIGWINCH, Request::Resize),
];

/// The signals that Ringlet handles; blocked while this lives.
pub struct Signals {
    fd: OwnedFd,
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks the signals in this thread and those it starts from now on, and opens the descriptor.
    /// One that the parent chose to ignore (nohup(1)) stays ignored.
    ///
    /// # Errors
    ///
    /// Those of sigaction(2), pthread_sigmask(3) and signalfd(2).
    pub fn block() -> io::Result<Self> {
        let mut numbers = Vec::new();
        for (signal, _) in SIGNALS {
            if !is_ignored(signal)? {
                numbers.push(signal);
            }
        }
        let set =
            create_sigset(&numbers).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        // SAFETY: the set is initialized; no old set is asked for.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is initialized.
        let fd = unsafe { libc::signalfd(-1, &raw const set, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, set })
    }

    /// The next signal that has come, if any.
    ///
    /// # Errors
    ///
    /// Those of read(2).
    pub fn next(&self) -> io::Result<Option<Request>> {
        // SAFETY: all-zero bytes are a valid signalfd_siginfo: it is integers only.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: the buffer is valid for writes of its size.
        let count = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        let request = |number: u32| {
            SIGNALS
                .into_iter()
                .find(|(signal, _)| *signal as u32 == number)
                .map(|(_, request)| request)
        };
        Ok(request(info.ssi_signo))
    }
}

impl Drop for Signals {
    /// Unblocks the signals in this thread: they do what they did before.
    fn drop(&mut self) {
        // SAFETY: the set is initialized; no old set is asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const self.set, std::ptr::null_mut())
        };
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

/// Has a write beyond the limit of a file's size (RLIMIT_FSIZE) fail with EFBIG, which the guest hears
/// of, and not end this process.
pub fn ignore_file_size_signal() {
    // SAFETY: the disposition is a constant, and no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

fn is_ignored(signal: libc::c_int) -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid sigaction: integers and a nullable pointer.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the old action is written to a valid place; none is set.
    match unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } {
        0 => Ok(action.sa_sigaction == libc::SIG_IGN),
        _ => Err(io::Error::last_os_error()),
    }
}
