//! Job control: who may use a terminal, and whose it is (`ioctl_tty(2)`, `termios(3)`).

use super::Actor;
use crate::error::{Errno, Result};
use crate::fs::{OpenFile, Terminal};
use crate::io::Direction;
use crate::process::{Signal, is_orphaned, members, session_of_group};
use alloc::sync::Arc;
use linux_raw_sys::ioctl;

/// Whether the actor may read from a terminal or write to it. One in the background may not: its
/// process group gets a signal that stops it.
///
/// # Errors
///
/// `EIO` where that would stop it for ever; `ERESTARTSYS`.
pub(super) fn check_transfer(
    actor: Actor<'_>,
    file: &OpenFile,
    direction: Direction,
) -> Result<()> {
    let Some(terminal) = file.ops.clone().terminal() else {
        return Ok(());
    };
    match direction {
        Direction::Read => check(actor, &terminal, Signal::SIGTTIN),
        Direction::Write if terminal.stops_output() => check(actor, &terminal, Signal::SIGTTOU),
        Direction::Write => Ok(()),
    }
}

/// As `__tty_check_change` of Linux.
fn check(actor: Actor<'_>, terminal: &Arc<dyn Terminal>, signal: Signal) -> Result<()> {
    let process = actor.process;
    if !is_own(actor, terminal) {
        return Ok(());
    }
    let (group, foreground) = (process.process_group(), terminal.foreground());
    if foreground == 0 || group == foreground {
        return Ok(());
    }
    let is_ignored = process.blocked(actor.tid).contains(signal)
        || process.ignored_and_caught()[0].contains(signal);
    if is_ignored {
        return match signal {
            Signal::SIGTTIN => Err(Errno::EIO),
            _ => Ok(()),
        };
    }
    if is_orphaned(group) {
        return Err(Errno::EIO);
    }
    members(group)
        .iter()
        .for_each(|member| member.signal(signal));
    Err(Errno::ERESTARTSYS)
}

/// Whether it is the actor's controlling terminal.
fn is_own(actor: Actor<'_>, terminal: &Arc<dyn Terminal>) -> bool {
    let own = actor.process.terminal();
    own.is_some_and(|own| own.identity() == terminal.identity())
}

/// Makes a terminal that was just opened the actor's, if it leads a session that has none.
pub(super) fn adopt(actor: Actor<'_>, file: &OpenFile) {
    let process = actor.process;
    if let Some(terminal) = file.ops.clone().terminal()
        && terminal.session() == 0
        && process.session() == process.pid
        && process.terminal().is_none()
    {
        process.set_terminal(terminal);
    }
}

/// Does what `ioctl(2)` asks of a terminal that is about job control; `None` if it is about something
/// else, and may be done.
///
/// # Errors
///
/// Those of `ioctl_tty(2)`; `EIO` and `ERESTARTSYS` for what those in the background may not.
pub(super) fn control(
    actor: Actor<'_>,
    file: &OpenFile,
    request: u32,
    argument: u64,
) -> Result<Option<u64>> {
    let Some(terminal) = file.ops.clone().terminal() else {
        return Ok(None);
    };
    let space = actor.space();
    match request {
        ioctl::TIOCSCTTY => take(actor, &terminal, file, argument)?,
        ioctl::TIOCNOTTY => {
            if !is_own(actor, &terminal) {
                return Err(Errno::ENOTTY);
            }
            actor.process.leave_terminal();
        }
        ioctl::TIOCGPGRP => {
            if !is_own(actor, &terminal) {
                return Err(Errno::ENOTTY);
            }
            space.write_value(argument, &terminal.foreground())?;
        }
        ioctl::TIOCSPGRP => set_foreground(actor, &terminal, argument)?,
        ioctl::TIOCGSID => {
            if !is_own(actor, &terminal) || terminal.session() == 0 {
                return Err(Errno::ENOTTY);
            }
            space.write_value(argument, &terminal.session())?;
        }
        ioctl::TCSETS
        | ioctl::TCSETSW
        | ioctl::TCSETSF
        | ioctl::TCSETS2
        | ioctl::TCSETSW2
        | ioctl::TCSETSF2
        | ioctl::TCSBRK
        | ioctl::TCSBRKP
        | ioctl::TCXONC
        | ioctl::TCFLSH => {
            check(actor, &terminal, Signal::SIGTTOU)?;
            return Ok(None);
        }
        _ => return Ok(None),
    }
    Ok(Some(0))
}

fn take(
    actor: Actor<'_>,
    terminal: &Arc<dyn Terminal>,
    file: &OpenFile,
    steals: u64,
) -> Result<()> {
    let process = actor.process;
    let session = process.session();
    let leads = session == process.pid;
    if leads && terminal.session() == session {
        return Ok(());
    }
    if !leads || process.terminal().is_some() {
        return Err(Errno::EPERM);
    }
    let is_root = process.credentials.lock().user.effective == 0;
    if terminal.session() != 0 && !(steals == 1 && is_root) {
        return Err(Errno::EPERM);
    }
    if !file.flags().can_read() && !is_root {
        return Err(Errno::EPERM);
    }
    process.set_terminal(terminal.clone());
    Ok(())
}

fn set_foreground(actor: Actor<'_>, terminal: &Arc<dyn Terminal>, argument: u64) -> Result<()> {
    check(actor, terminal, Signal::SIGTTOU).map_err(|error| match error {
        Errno::EIO => Errno::ENOTTY,
        error => error,
    })?;
    let session = actor.process.session();
    if !is_own(actor, terminal) || terminal.session() != session {
        return Err(Errno::ENOTTY);
    }
    let group: i32 = actor.space().read_value(argument)?;
    let group = u32::try_from(group).map_err(|_| Errno::EINVAL)?;
    match session_of_group(group) {
        None => Err(Errno::ESRCH),
        Some(other) if other != session => Err(Errno::EPERM),
        Some(_) => {
            terminal.set_foreground(group);
            Ok(())
        }
    }
}
