//! `wait4(2)` and `waitid(2)`: what has become of children.

use super::Actor;
use crate::error::{Errno, Result};
use crate::fs::OpenFlags;
use crate::process::{PidFile, WaitOptions, Waited, Which};
use linux_raw_sys::general as raw;

/// A wait for children.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Which.
    pub which: Which,
    /// For what.
    pub options: WaitOptions,
    /// Whether it waits, or says nothing if it is not to; otherwise that is an error.
    is_patient: bool,
}

impl Wait {
    /// As `wait4(2)` is asked for it.
    ///
    /// # Errors
    ///
    /// `EINVAL`; `ESRCH` for a process group that cannot be.
    pub fn for_process(pid: i32, options: u32) -> Result<Self> {
        let allowed = WaitOptions::NO_HANG
            | WaitOptions::STOPPED
            | WaitOptions::CONTINUED
            | WaitOptions::NO_THREAD
            | WaitOptions::CLONE
            | WaitOptions::ALL;
        let options = WaitOptions::from_bits(options).ok_or(Errno::EINVAL)?;
        if !allowed.contains(options) {
            return Err(Errno::EINVAL);
        }
        let which = match pid {
            i32::MIN => return Err(Errno::ESRCH),
            -1 => Which::Any,
            // Of the caller: known when it is run.
            0 => Which::Group(0),
            pid if pid < 0 => Which::Group(pid.unsigned_abs()),
            pid => Which::Process(pid.unsigned_abs()),
        };
        Ok(Self {
            which,
            options: options | WaitOptions::EXITED,
            is_patient: true,
        })
    }

    /// As `waitid(2)` is asked for it.
    ///
    /// # Errors
    ///
    /// `EINVAL`; `EBADF` for what is no descriptor of a process.
    pub fn for_id(actor: Actor<'_>, kind: u32, id: i32, options: u32) -> Result<Self> {
        let options = WaitOptions::from_bits(options).ok_or(Errno::EINVAL)?;
        let events = WaitOptions::EXITED | WaitOptions::STOPPED | WaitOptions::CONTINUED;
        if !options.intersects(events) {
            return Err(Errno::EINVAL);
        }
        let mut is_patient = true;
        let which = match kind {
            raw::P_ALL => Which::Any,
            raw::P_PID if id > 0 => Which::Process(id.unsigned_abs()),
            raw::P_PGID if id >= 0 => Which::Group(id.unsigned_abs()),
            raw::P_PIDFD if id >= 0 => {
                let file = actor.process.files.get(id)?;
                is_patient = !file.flags().contains(OpenFlags::NONBLOCK);
                Which::Process(PidFile::process_of(&file)?.pid)
            }
            _ => return Err(Errno::EINVAL),
        };
        Ok(Self {
            which,
            options,
            is_patient: is_patient || options.contains(WaitOptions::NO_HANG),
        })
    }

    /// Does it; `None` if there is nothing to tell, and it is not to wait.
    ///
    /// # Errors
    ///
    /// `ECHILD`, `ERESTARTSYS`; `EAGAIN` for a descriptor that is not to wait.
    pub async fn run(self, actor: Actor<'_>) -> Result<Option<Waited>> {
        let which = match self.which {
            Which::Group(0) => Which::Group(actor.process.process_group()),
            which => which,
        };
        let mut options = self.options;
        options.set(
            WaitOptions::NO_HANG,
            options.contains(WaitOptions::NO_HANG) || !self.is_patient,
        );
        let process = actor.process.block();
        match process.wait_for_child(actor.tid, which, options).await? {
            None if !self.is_patient => Err(Errno::EAGAIN),
            waited => Ok(waited),
        }
    }
}
