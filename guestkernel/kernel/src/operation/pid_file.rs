//! `pidfd_open(2)`, `pidfd_send_signal(2)` and `pidfd_getfd(2)`.

use super::{Actor, Kill, Receiver};
use crate::error::{Errno, Result};
use crate::fs::OpenFlags;
use crate::process::{
    INFO_SIZE, PidFile, SI_TKILL, Signal, SignalInfo, members, process_of, process_with,
};
use linux_raw_sys::general as raw;

/// `PIDFD_NONBLOCK`.
const NONBLOCK: u32 = raw::O_NONBLOCK;
/// `PIDFD_SIGNAL_PROCESS_GROUP` and its neighbours: to the thread, to the process.
const TO_THREAD: u32 = 1;
const TO_PROCESS: u32 = 2;
const TO_GROUP: u32 = 4;

/// `pidfd_open(2)`.
#[derive(Clone, Copy, Debug)]
pub struct OpenPid {
    /// The process.
    pub pid: i32,
    /// `PIDFD_*`.
    pub flags: u32,
}

impl OpenPid {
    /// Does it; gives the descriptor.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `ESRCH`, `ENOENT` for a thread that is not the first of its process, `EMFILE`.
    pub fn run(self, actor: Actor<'_>) -> Result<i32> {
        if self.flags & !NONBLOCK != 0 || self.pid <= 0 {
            return Err(Errno::EINVAL);
        }
        let process = process_with(self.pid).map_err(|error| match process_of(self.pid) {
            Ok(_) => Errno::ENOENT,
            Err(_) => error,
        })?;
        let mut flags = OpenFlags::empty();
        flags.set(OpenFlags::NONBLOCK, self.flags & NONBLOCK != 0);
        let file = PidFile::open(process, flags);
        actor.process.files.insert(file, true, 0)
    }
}

/// `pidfd_send_signal(2)`.
#[derive(Clone, Copy, Debug)]
pub struct SignalPid {
    /// The descriptor.
    pub fd: i32,
    /// The signal; 0 only asks.
    pub signal: i32,
    /// The address of what the sender says of it; 0 for nothing.
    pub info_at: u64,
    /// `PIDFD_SIGNAL_*`.
    pub flags: u32,
}

impl SignalPid {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `pidfd_send_signal(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let known = TO_THREAD | TO_PROCESS | TO_GROUP;
        if self.flags & !known != 0 || self.flags.count_ones() > 1 {
            return Err(Errno::EINVAL);
        }
        let file = actor.process.files.get(self.fd)?;
        let process = PidFile::process_of(&file)?;
        let info = match self.info_at {
            0 => None,
            address => {
                let mut bytes = [0; INFO_SIZE];
                actor.space().read(address, &mut bytes)?;
                let stand_in = Signal::new(self.signal).unwrap_or(Signal::SIGKILL);
                let info = SignalInfo::from_bytes(stand_in, &bytes)?;
                if bytes[..4] != self.signal.to_ne_bytes() {
                    return Err(Errno::EINVAL);
                }
                let is_forged = info.code >= 0 || info.code == SI_TKILL;
                let is_own = process.pid == actor.tid && self.flags != TO_GROUP;
                if is_forged && !is_own {
                    return Err(Errno::EPERM);
                }
                Some(info)
            }
        };
        if process.is_gone() {
            return Err(Errno::ESRCH);
        }
        let pid = process.pid as i32;
        let to = match self.flags {
            TO_THREAD => Receiver::Thread(pid),
            TO_GROUP if members(process.pid).is_empty() => return Err(Errno::ESRCH),
            TO_GROUP => Receiver::Processes(-pid),
            _ => Receiver::Process(pid),
        };
        let kill = Kill {
            to,
            signal: self.signal,
            info,
        };
        kill.run(actor)
    }
}

/// `pidfd_getfd(2)`.
#[derive(Clone, Copy, Debug)]
pub struct GetFileOfPid {
    /// The descriptor of the process.
    pub fd: i32,
    /// The one that it has.
    pub target: i32,
    /// There are none.
    pub flags: u32,
}

impl GetFileOfPid {
    /// Does it; gives the descriptor.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EBADF`, `ESRCH`, `EPERM`, `EMFILE`.
    pub fn run(self, actor: Actor<'_>) -> Result<i32> {
        if self.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let file = actor.process.files.get(self.fd)?;
        let process = PidFile::process_of(&file)?;
        if process.is_gone() {
            return Err(Errno::ESRCH);
        }
        if !actor.process.may_trace(process) {
            return Err(Errno::EPERM);
        }
        let view = process.view().ok_or(Errno::ESRCH)?;
        let target = view.files.get_any(self.target)?;
        actor.process.files.insert(target, true, 0)
    }
}
