//! The host's terminal: raw while the VM runs, restored on every way out.
//!
//! The guest does the line discipline (echo, editing, CR and NL), so the host's terminal does none,
//! but it still turns Ctrl-C, Ctrl-\ and Ctrl-Z into signals to Ringlet.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ringlet_abi::{StreamSet, TerminalSize};
use ringlet_devices::console::host::is_background;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{
    LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};
use vmm_sys_util::signal::register_signal_handler;

/// Signals that end the process at once, where no destructor runs; SIGBUS has a handler of its own
/// ([`crate::lost_memory`]).
const FATAL: [libc::c_int; 4] = [libc::SIGABRT, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV];

/// The terminal that was made raw and what it was like before. Set once, so that a signal handler
/// can read it.
static SAVED: OnceLock<(BorrowedFd<'static>, Termios)> = OnceLock::new();
static RAW: AtomicBool = AtomicBool::new(false);

/// Which standard streams are terminals.
pub fn streams() -> StreamSet {
    let streams = [
        io::stdin().is_terminal(),
        io::stdout().is_terminal(),
        io::stderr().is_terminal(),
    ];
    (0..)
        .zip(streams)
        .filter(|(_, is_terminal)| *is_terminal)
        .fold(StreamSet::default(), |set, (fd, _)| set.with(fd))
}

/// The size of the first of the standard streams that is a terminal; zeros without one.
pub fn size() -> TerminalSize {
    match first_terminal().map(tcgetwinsize) {
        Some(Ok(size)) => TerminalSize {
            columns: size.ws_col,
            rows: size.ws_row,
        },
        _ => TerminalSize::default(),
    }
}

fn first_terminal() -> Option<BorrowedFd<'static>> {
    [stdin(), stdout(), stderr()]
        .into_iter()
        .find(|fd| isatty(fd))
}

/// The terminal is raw while this lives.
pub struct RawMode(());

impl RawMode {
    /// Makes the terminal raw, if one of the standard streams is one. A background job leaves it
    /// alone until it comes to the foreground and [`resume`](Self::resume) is called.
    ///
    /// # Errors
    ///
    /// Those of tcgetattr(3), tcsetattr(3) and sigaction(2).
    pub fn enter() -> io::Result<Option<Self>> {
        let Some(fd) = first_terminal() else {
            return Ok(None);
        };
        let saved = tcgetattr(fd)?;
        if SAVED.set((fd, saved)).is_err() {
            return Ok(None);
        }
        for signal in FATAL {
            register_signal_handler(signal, restore_and_die)
                .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        }
        let mode = Self(());
        mode.resume()?;
        Ok(Some(mode))
    }

    /// Makes the terminal what it was, until [`resume`](Self::resume).
    pub fn suspend(&self) {
        restore();
    }

    /// Makes the terminal raw again.
    ///
    /// # Errors
    ///
    /// Those of tcsetattr(3).
    pub fn resume(&self) -> io::Result<()> {
        let Some((fd, saved)) = SAVED.get() else {
            return Ok(());
        };
        if is_background(*fd) {
            return Ok(());
        }
        let mut raw = saved.clone();
        raw.make_raw();
        raw.local_modes |= LocalModes::ISIG;
        // From here on a handler may restore: the other order could lose that.
        RAW.store(true, Ordering::Release);
        Ok(tcsetattr(fd, OptionalActions::Now, &raw)?)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was before [`RawMode`], if it is raw. Async-signal-safe.
pub fn restore() {
    if RAW.swap(false, Ordering::AcqRel)
        && let Some((fd, saved)) = SAVED.get()
    {
        // Nobody is left to tell of an error.
        let _ = tcsetattr(fd, OptionalActions::Now, saved);
    }
}

extern "C" fn restore_and_die(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    restore();
    // SAFETY: both are async-signal-safe. The default action ends the process once the handler
    // returns and the signal is no longer blocked.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Writes whole lines or parts of them to standard error, waiting for its reader; in one write, and
/// with CR NL where the terminal does not add the CR.
pub(crate) fn write_stderr(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    let raw = RAW.load(Ordering::Acquire)
        && SAVED
            .get()
            .is_some_and(|(fd, _)| same_terminal(*fd, stderr.as_fd()));
    // Nobody is left to tell of an error.
    let _ = match raw {
        true => stderr.write_all(&with_carriage_returns(bytes)),
        false => stderr.write_all(bytes),
    };
}

/// Writes a line to standard error unless that would wait. Async-signal-safe.
pub fn write_if_ready(line: &[u8]) {
    let mut fd = libc::pollfd {
        fd: libc::STDERR_FILENO,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: poll writes the one structure that it is given; write reads bytes that are borrowed.
    // Nobody is left to tell of an error.
    unsafe {
        if libc::poll(&raw mut fd, 1, 0) == 1 && fd.revents & libc::POLLOUT != 0 {
            libc::write(fd.fd, line.as_ptr().cast(), line.len());
        }
    }
}

/// Whether `fd` is a terminal, as the raw one is. (Two at once are as good as one here.)
fn same_terminal(raw: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> bool {
    raw.as_raw_fd() == fd.as_raw_fd() || isatty(fd)
}

fn with_carriage_returns(bytes: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(bytes.len() + 8);
    for byte in bytes {
        if *byte == b'\n' {
            lines.push(b'\r');
        }
        lines.push(*byte);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_carriage_returns() {
        assert_eq!(with_carriage_returns(b"a\nb\n\n"), b"a\r\nb\r\n\r\n");
        assert_eq!(with_carriage_returns(b""), b"");
    }
}
