//! The process that the user sees: it stays outside of the jail, and does for the VMM, its child, what
//! that cannot do from inside.
//!
//! It takes the signals that are meant for Ringlet and passes them on, makes the terminal raw and what
//! it was before, stops and continues with its job, and waits. Whatever becomes of the VMM, the
//! terminal is restored, what was made on the host for the time of the VM is removed, and there is a
//! status. The two talk by a socket, in messages of a few bytes; what comes from the VMM is not trusted.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlet_abi::TerminalSize;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, waitid,
};

use crate::jail::{Jail, JailError};
use crate::messages::say_at_once;
use crate::outcome::{STATUS_ERROR, STATUS_SIGNAL};
use crate::signals::{Request, Signals};
use crate::terminal::{self, RawMode};

/// How long a VMM may take to end that was told to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one may take to get ready for being stopped.
const STOP_PATIENCE: Duration = Duration::from_millis(200);

/// Bytes of the longest message: what it is, and two numbers.
const MESSAGE: usize = 5;

/// Messages of the front begin with one of these.
mod order {
    pub(super) const END: u8 = 1;
    pub(super) const REPORT: u8 = 2;
    pub(super) const SUSPEND: u8 = 3;
    pub(super) const RESUME: u8 = 4;
    pub(super) const RESIZE: u8 = 5;
}

/// Messages of the VMM are one of these.
mod wish {
    pub(super) const RAW: u8 = 1;
    pub(super) const COOKED: u8 = 2;
    pub(super) const SUSPENDED: u8 = 3;
    /// It made something, whose number follows.
    pub(super) const MADE: u8 = 4;
}

/// Why there is no VMM.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The host denies a process or descriptor.
    #[error("cannot start the VMM: {0}")]
    Host(#[from] io::Error),
}

/// What a VMM may make on the host, for the time of the VM: it is removed when the VMM has ended,
/// however it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A file, as a socket that somebody can connect to.
    File(PathBuf),
    /// A directory, which is empty by then.
    Directory(PathBuf),
}

impl Made {
    fn remove(&self) {
        // Somebody may have removed it already.
        let _ = match self {
            Self::File(path) => std::fs::remove_file(path),
            Self::Directory(path) => std::fs::remove_dir(path),
        };
    }
}

/// Makes this process, which must have one thread only, the front of a VMM, which it becomes the other
/// side of: this returns there alone. The front ends by itself when the VMM has ended, with its status,
/// and removes what the VMM has made of `removable`.
///
/// # Errors
///
/// [`SplitError`], in the only process that there is then, or in the front, and then there is no VMM.
pub fn split(jail: &mut Jail, removable: Vec<Made>) -> Result<Link, SplitError> {
    let signals = Signals::block()?;
    terminal::share()?;
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(io::Error::from)?;
    jail.prepare_fork()?;
    // SAFETY: this process has one thread only, so the child may do anything.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error().into()),
        0 => {
            signals.leave_blocked();
            drop(ours);
            ignore_terminal_stops();
            return Ok(Link {
                socket: Arc::new(theirs),
                removable: removable.into(),
            });
        }
        child => child,
    };
    drop(theirs);
    let mut front = Front {
        vmm: open(child)?,
        link: ours,
        signals,
        raw: None,
        ended_by: None,
        deadline: None,
        made: removable.into_iter().map(|made| (made, false)).collect(),
    };
    let status = match jail.confine_front() {
        Ok(()) => front.serve(),
        Err(error) => {
            front.kill();
            say_at_once(&error.to_string());
            STATUS_ERROR
        }
    };
    front.remove();
    exit(status.into());
}

fn open(child: libc::pid_t) -> io::Result<OwnedFd> {
    let child = Pid::from_raw(child).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(child, PidfdFlags::empty())?)
}

/// A VMM in a process namespace of its own does not see whether its job is in the background. A read
/// there then fails (EIO), and is tried again later; nothing stops it, or it would try for ever.
fn ignore_terminal_stops() {
    for signal in [libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: the disposition is a constant, and no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The front's side.
struct Front {
    /// The VMM's process.
    vmm: OwnedFd,
    link: OwnedFd,
    signals: Signals,
    raw: Option<RawMode>,
    /// The signal that the VMM was told to end by.
    ended_by: Option<u8>,
    /// When the VMM is killed.
    deadline: Option<Instant>,
    /// What the VMM may make, and whether it has.
    made: Vec<(Made, bool)>,
}

impl Front {
    /// Serves the VMM until it ends, and gives the exit status.
    fn serve(&mut self) -> u8 {
        loop {
            let timeout = self
                .deadline
                .map(|at| at.saturating_duration_since(Instant::now()));
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                self.kill();
                self.deadline = None;
            }
            let [signal, message, end] = self.wait(
                [self.signals.as_fd(), self.link.as_fd(), self.vmm.as_fd()],
                timeout,
            );
            if signal {
                self.handle_signals();
            }
            if message {
                self.hear();
            }
            if end {
                break;
            }
        }
        // What it said last.
        self.hear();
        drop(self.raw.take());
        self.reap()
    }

    /// Waits until some of `fds` are readable, or for `timeout`; which are.
    fn wait<const N: usize>(
        &self,
        fds: [BorrowedFd<'_>; N],
        timeout: Option<Duration>,
    ) -> [bool; N] {
        let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => fds.map(|fd| !fd.revents().is_empty()),
            // A signal that nobody handles.
            Err(_) => [false; N],
        }
    }

    fn handle_signals(&mut self) {
        while let Ok(Some(request)) = self.signals.next() {
            match request {
                Request::End(signal) => {
                    self.tell([order::END, signal, 0, 0, 0]);
                    self.ended_by.get_or_insert(signal);
                    self.deadline.get_or_insert(Instant::now() + PATIENCE);
                }
                Request::Report => self.tell([order::REPORT, 0, 0, 0, 0]),
                Request::Suspend => self.suspend(),
                Request::Resume => self.resume(),
                Request::Resize(size) => {
                    let [c0, c1] = size.columns.to_le_bytes();
                    let [r0, r1] = size.rows.to_le_bytes();
                    self.tell([order::RESIZE, c0, c1, r0, r1]);
                }
            }
        }
    }

    fn tell(&self, message: [u8; MESSAGE]) {
        // One that takes no more messages is killed when it was to end, and else has enough of them.
        let _ = send(&self.link, &message, SendFlags::NOSIGNAL);
    }

    /// Hears what the VMM wishes; whether it is ready for being stopped.
    fn hear(&mut self) -> bool {
        let mut message = [0; MESSAGE];
        let mut is_suspended = false;
        while let Ok((1.., _)) = recv(&self.link, &mut message, RecvFlags::empty()) {
            match message[0] {
                wish::RAW if self.raw.is_none() => match RawMode::enter() {
                    Ok(raw) => self.raw = raw,
                    Err(error) => say_at_once(&format!("cannot set up the terminal: {error}")),
                },
                wish::COOKED => drop(self.raw.take()),
                wish::SUSPENDED => is_suspended = true,
                wish::MADE => {
                    if let Some((_, is_made)) = self.made.get_mut(usize::from(message[1])) {
                        *is_made = true;
                    }
                }
                _ => (),
            }
        }
        is_suspended
    }

    /// Stops this process and the VMM, as SIGTSTP does where nobody handles it.
    fn suspend(&mut self) {
        if let Some(raw) = &self.raw {
            raw.suspend();
        }
        self.tell([order::SUSPEND, 0, 0, 0, 0]);
        let last = Instant::now() + STOP_PATIENCE;
        let mut is_suspended = false;
        while !is_suspended && Instant::now() < last {
            let patience = last.saturating_duration_since(Instant::now());
            let [_, end] = self.wait([self.link.as_fd(), self.vmm.as_fd()], Some(patience));
            is_suspended = self.hear() || end;
        }
        self.signal(Signal::STOP);
        // SAFETY: raise has no memory arguments. It returns when the process is continued.
        unsafe { libc::raise(libc::SIGSTOP) };
        self.signal(Signal::CONT);
    }

    /// The job goes on, perhaps in the foreground.
    fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.tell([order::RESUME, 0, 0, 0, 0]);
        if let Some(raw) = &self.raw
            && let Err(error) = raw.resume()
        {
            log::warn!("terminal: {error}");
        }
    }

    fn remove(&self) {
        for (made, _) in self.made.iter().filter(|(_, is_made)| *is_made) {
            made.remove();
        }
    }

    fn signal(&self, signal: Signal) {
        // It fails when the VMM has ended.
        let _ = pidfd_send_signal(&self.vmm, signal);
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for the end of the VMM, which has come or is about to, and gives the exit status.
    fn reap(&self) -> u8 {
        let status = loop {
            match waitid(WaitId::PidFd(self.vmm.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => (),
                Ok(Some(status)) => break status,
                Ok(None) | Err(_) => return STATUS_ERROR,
            }
        };
        status_of(&status, self.ended_by)
    }
}

/// The exit status for the end of a VMM that may have been told to end.
fn status_of(status: &WaitIdStatus, ended_by: Option<u8>) -> u8 {
    if let Some(code) = status.exit_status() {
        return code as u8;
    }
    if let Some(signal) = ended_by {
        return STATUS_SIGNAL.saturating_add(signal);
    }
    let signal = status.terminating_signal().unwrap_or(0);
    match signal {
        libc::SIGKILL => {
            say_at_once("the VMM was killed; perhaps the host is out of memory");
            STATUS_SIGNAL.saturating_add(signal as u8)
        }
        _ => {
            say_at_once(&format!(
                "the VMM was ended by signal {signal}; if nobody sent that, please report it"
            ));
            STATUS_ERROR
        }
    }
}

/// The VMM's side.
#[derive(Clone, Debug)]
pub struct Link {
    socket: Arc<OwnedFd>,
    removable: Arc<[Made]>,
}

impl Link {
    /// What the user wants next, if anything. That the front has gone is an order to end.
    ///
    /// # Errors
    ///
    /// Those of recv(2).
    pub fn next(&self) -> io::Result<Option<Request>> {
        let mut message = [0; MESSAGE];
        match recv(&self.socket, &mut message, RecvFlags::empty()) {
            Ok((0, _)) => return Ok(Some(Request::End(libc::SIGKILL as u8))),
            Ok(_) => (),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let [what, a, b, c, d] = message;
        Ok(Some(match what {
            order::END => Request::End(a),
            order::REPORT => Request::Report,
            order::SUSPEND => Request::Suspend,
            order::RESUME => Request::Resume,
            order::RESIZE => Request::Resize(TerminalSize {
                columns: u16::from_le_bytes([a, b]),
                rows: u16::from_le_bytes([c, d]),
            }),
            _ => return Ok(None),
        }))
    }

    /// Has the terminal raw from now on, if there is one.
    pub fn make_raw(&self) {
        self.tell(wish::RAW);
    }

    /// Has the terminal what it was before.
    pub fn make_cooked(&self) {
        self.tell(wish::COOKED);
    }

    /// This process is about to be stopped, which it is ready for.
    pub fn accept_stop(&self) {
        self.tell(wish::SUSPENDED);
    }

    /// Has the front remove what was just made, if that is known to it.
    pub fn note_made(&self, made: &Made) {
        let number = self.removable.iter().position(|known| known == made);
        if let Some(number) = number.and_then(|number| u8::try_from(number).ok()) {
            self.send(&[wish::MADE, number]);
        }
    }

    /// Has this process end when the front does. A change of its user or capabilities undoes that.
    ///
    /// # Errors
    ///
    /// Those of prctl(2).
    pub fn end_with_front(&self) -> io::Result<()> {
        Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
    }

    fn tell(&self, wish: u8) {
        self.send(&[wish]);
    }

    fn send(&self, message: &[u8]) {
        // Without a front this process is about to end.
        let _ = send(&self.socket, message, SendFlags::NOSIGNAL);
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, Link) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (front, socket) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let link = Link {
            socket: Arc::new(socket),
            removable: Arc::default(),
        };
        (front, link)
    }

    #[test]
    fn orders_arrive_one_by_one() {
        let (front, link) = pair();
        assert_eq!(link.next().unwrap(), None);
        for message in [
            [order::RESIZE, 0x34, 0x12, 50, 0],
            [order::REPORT, 0, 0, 0, 0],
            [99, 0, 0, 0, 0],
            [order::END, 15, 0, 0, 0],
        ] {
            send(&front, &message, SendFlags::empty()).unwrap();
        }
        let size = TerminalSize {
            columns: 0x1234,
            rows: 50,
        };
        assert_eq!(link.next().unwrap(), Some(Request::Resize(size)));
        assert_eq!(link.next().unwrap(), Some(Request::Report));
        assert_eq!(link.next().unwrap(), None);
        assert_eq!(link.next().unwrap(), Some(Request::End(15)));
        drop(front);
        assert_eq!(link.next().unwrap(), Some(Request::End(9)));
    }
}
