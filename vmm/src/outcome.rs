//! How a VM ended, and what that means for the exit status.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ringlet_abi::control::Exit;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::config::Config;

/// Exit status for any error of Ringlet itself.
pub const STATUS_ERROR: u8 = 125;
/// In place of success, where what the program wrote did not arrive and it did not hear of that: what
/// most programs exit with when a write fails.
pub const STATUS_LOST_OUTPUT: u8 = 1;
/// As timeout(1) has it.
const STATUS_TIMEOUT: u8 = 124;
const STATUS_NOT_EXECUTABLE: u8 = 126;
const STATUS_NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the program or Ringlet.
const STATUS_SIGNAL: u8 = 128;

/// Why a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest said so.
    Exit(Exit),
    /// Ringlet got this signal.
    Signal(u8),
    /// The time was over that `--timeout` gives.
    Timeout,
    /// The debugger ended the VM.
    Killed,
    /// The VM cannot go on: a report for the user.
    Crash(String),
}

impl Outcome {
    /// What the kernel means by the value of an exit.
    pub fn of_exit(value: u32) -> Self {
        match Exit::decode(value) {
            Some(exit) => Self::Exit(exit),
            None => Self::Crash(format!(
                "the guest kernel ended with {value:#x}, which means nothing; build kernel and \
                 ringlet from one source with 'make'"
            )),
        }
    }

    /// The exit status of `ringlet run`.
    pub fn status(&self) -> u8 {
        match self {
            Self::Exit(Exit::Exited(status)) => *status,
            Self::Exit(Exit::Signaled(signal)) | Self::Signal(signal) => {
                STATUS_SIGNAL.saturating_add(*signal)
            }
            Self::Timeout => STATUS_TIMEOUT,
            Self::Exit(Exit::NotFound) => STATUS_NOT_FOUND,
            Self::Exit(Exit::NotExecutable(_)) => STATUS_NOT_EXECUTABLE,
            Self::Exit(_) | Self::Killed | Self::Crash(_) => STATUS_ERROR,
        }
    }

    /// The signal that ended the program or Ringlet, if one did.
    pub fn signal(&self) -> Option<u8> {
        match self {
            Self::Exit(Exit::Signaled(signal)) | Self::Signal(signal) => Some(*signal),
            _ => None,
        }
    }

    /// Whether it is Ringlet's user, not the guest, who has ended the VM.
    pub fn is_forced(&self) -> bool {
        matches!(self, Self::Signal(_) | Self::Timeout)
    }

    /// Whether the program ran to its end and failed.
    pub fn is_failure_of_program(&self) -> bool {
        match self {
            Self::Exit(Exit::Exited(status)) => *status != 0,
            Self::Exit(Exit::Signaled(_)) => true,
            _ => false,
        }
    }

    /// What to tell the user, if anything.
    pub fn message(&self, config: &Config) -> Option<String> {
        let exit = match self {
            Self::Crash(report) => return Some(report.clone()),
            Self::Killed => return Some("the debugger ended the VM".to_owned()),
            Self::Signal(_) | Self::Timeout => return None,
            Self::Exit(exit) => exit,
        };
        let program = config.process.args.first().map_or(&[][..], Vec::as_slice);
        let program = match program {
            b"" => "''".into(),
            name => String::from_utf8_lossy(name),
        };
        let (kernel, rootfs) = (show(&config.kernel), show(&config.rootfs));
        let message = match exit {
            Exit::Exited(_) | Exit::Signaled(_) => return None,
            Exit::NotFound => format!("{program}: not found in the root file system {rootfs}"),
            Exit::NotExecutable(errno) => format!(
                "{program}: cannot be executed: {}",
                io::Error::from_raw_os_error((*errno).into())
            ),
            Exit::Panic => format!(
                "the guest kernel {kernel} panicked; its message is above, please report it"
            ),
            Exit::BadRootfs if config.is_rootfs_archive => format!(
                "the root file system {rootfs} cannot be used: it is damaged or no cpio archive \
                 (newc); build it again with 'make' or name another with --rootfs"
            ),
            Exit::BadRootfs => format!(
                "the root file system {rootfs}, or what is mounted in it, cannot be used; its message \
                 is on the serial port, see --kernel-log warn"
            ),
            Exit::OutOfMemory => format!(
                "guest memory of {} MiB does not suffice to start {program}; raise --mem",
                config.memory >> 20
            ),
            Exit::BadMode => format!(
                "the guest kernel cannot run in mode '{}' here, since CPL 0 is emulated; use --mode \
                 auto, or --accel tcg, which is slower",
                config.mode
            ),
            Exit::BadBoot => format!(
                "the guest kernel {kernel} does not understand this ringlet; build both from \
                 one source with 'make'"
            ),
        };
        Some(single_line(&message))
    }
}

/// `message` with control characters, which the names in it may have, as escapes.
pub fn single_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Where any thread says that the VM ends, and the event loop hears of it. The first word counts.
#[derive(Debug)]
pub struct Ending {
    outcome: Mutex<Option<Outcome>>,
    event: EventFd,
}

impl Ending {
    /// For a VM that runs.
    ///
    /// # Errors
    ///
    /// Those of eventfd(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            outcome: Mutex::new(None),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Ends the VM.
    pub fn end(&self, outcome: Outcome) {
        self.lock().get_or_insert(outcome);
        // It fails only when the counter is full, and then it is readable.
        let _ = self.event.write(1);
    }

    /// The outcome, once there is one.
    pub fn outcome(&self) -> Option<Outcome> {
        self.lock().clone()
    }

    /// Whether the VM is to end.
    pub fn is_set(&self) -> bool {
        self.lock().is_some()
    }

    /// Readable once the VM is to end.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (outcome, status) in [
            (Outcome::Exit(Exit::Exited(0)), 0),
            (Outcome::Exit(Exit::Exited(255)), 255),
            (Outcome::Exit(Exit::Signaled(9)), 137),
            (Outcome::Exit(Exit::NotFound), 127),
            (Outcome::Exit(Exit::NotExecutable(8)), 126),
            (Outcome::Exit(Exit::Panic), 125),
            (Outcome::Exit(Exit::BadRootfs), 125),
            (Outcome::Signal(2), 130),
            (Outcome::Timeout, 124),
            (Outcome::Killed, 125),
            (Outcome::Crash(String::new()), 125),
        ] {
            assert_eq!(outcome.status(), status, "{outcome:?}");
        }
    }

    #[test]
    fn names_do_not_break_lines() {
        assert_eq!(single_line("é a\nb\u{1b}[0m"), "é a\\nb\\u{1b}[0m");
    }

    #[test]
    fn the_first_outcome_counts() {
        let ending = Ending::new().unwrap();
        assert!(!ending.is_set());
        ending.end(Outcome::Signal(15));
        ending.end(Outcome::Exit(Exit::Exited(0)));
        assert_eq!(ending.outcome(), Some(Outcome::Signal(15)));
        assert!(ending.event().read().is_ok());
    }
}
