//! QEMU's process: started so that it ends with Ringlet, signalled, and asked why it ended.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::jail::ProgramJail;
use crate::memory::memory_file;

/// A process of QEMU. Dropping it kills it and waits for its end.
pub(super) struct Process {
    /// A confined thread may signal nothing but what it has a descriptor of.
    process: OwnedFd,
    /// Its end (`si_code` and `si_status` of waitid(2)) once it was waited for.
    end: Mutex<Option<(libc::c_int, libc::c_int)>>,
    /// What it has written to its standard output and error.
    messages: File,
}

impl Process {
    /// Starts `command` within `jail`; it inherits the descriptors `passed` under their numbers, and no
    /// others. It is killed when the calling thread ends, and signals of the terminal do not reach it.
    ///
    /// # Errors
    ///
    /// Those of memfd_create(2), fork(2), execve(2) and pidfd_open(2), and of the jail.
    pub(super) fn start(
        command: &mut Command,
        passed: &[OwnedFd],
        jail: &ProgramJail,
    ) -> io::Result<Self> {
        let messages = memory_file(c"qemu-messages")?;
        let numbers: Vec<RawFd> = passed.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: getpid has no arguments.
        let parent = unsafe { libc::getpid() };
        let jail = jail.try_clone()?;
        let prepare = move || {
            let cloexec = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
            // SAFETY: close_range has no memory arguments.
            check(unsafe { libc::close_range(3, libc::c_uint::MAX, cloexec) })?;
            for number in &numbers {
                // SAFETY: fcntl has no memory arguments with this command.
                check(unsafe { libc::fcntl(*number, libc::F_SETFD, 0) })?;
            }
            // SAFETY: prctl has no memory arguments with this option.
            check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
            // SAFETY: getppid has no arguments. A parent that died before the prctl sends nothing.
            match unsafe { libc::getppid() } == parent {
                true => jail.enter(),
                false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            }
        };
        command
            .stdin(memory_file(c"qemu-no-input")?)
            .stdout(messages.try_clone()?)
            .stderr(messages.try_clone()?)
            .process_group(0);
        // SAFETY: the closure makes system calls only, and allocates nothing.
        let child = unsafe { command.pre_exec(prepare) }.spawn()?;
        let pid = Pid::from_raw(child.id() as libc::pid_t).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            process: pidfd_open(pid, PidfdFlags::empty())?,
            end: Mutex::default(),
            messages,
        })
    }

    /// Sends a signal, if the process still runs.
    pub(super) fn signal(&self, signal: Signal) {
        // It fails when the process has ended.
        let _ = pidfd_send_signal(&self.process, signal);
    }

    fn lock_end(&self) -> MutexGuard<'_, Option<(libc::c_int, libc::c_int)>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the process at once, and waits until it has ended.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
        self.await_end();
    }

    /// Waits for the process's end, which it has not been told, and says what came of it.
    pub(super) fn describe_end(&self) -> String {
        let (code, status) = self.await_end();
        let mut text = String::new();
        // The descriptor is shared with QEMU, but that has ended.
        let read = (&self.messages)
            .rewind()
            .and_then(|()| (&self.messages).read_to_string(&mut text));
        if let Err(error) = read {
            log::debug!("QEMU's messages: {error}");
        }
        log::debug!("QEMU ended ({code}, {status}): {text}");
        match (code, status) {
            (libc::CLD_EXITED, 0) => "QEMU ended and does not say why".to_owned(),
            (libc::CLD_EXITED, status) => {
                let reason = text.lines().last().unwrap_or("it does not say why");
                let prefix = "qemu-system-x86_64: ";
                let reason = reason.strip_prefix(prefix).unwrap_or(reason);
                format!("QEMU cannot run the guest: {reason} (status {status})")
            }
            (_, signal) => format!("QEMU was ended by signal {signal}"),
        }
    }

    /// Waits for the end: `si_code` and `si_status` of waitid(2).
    fn await_end(&self) -> (libc::c_int, libc::c_int) {
        // Several threads may wait. The lock is held only when the wait is over.
        let end = self.wait_id(WaitIdOptions::NOWAIT);
        let mut known = self.lock_end();
        *known.get_or_insert_with(|| {
            self.wait_id(WaitIdOptions::empty());
            end
        })
    }

    fn wait_id(&self, options: WaitIdOptions) -> (libc::c_int, libc::c_int) {
        let id = WaitId::PidFd(self.process.as_fd());
        loop {
            match waitid(id.clone(), WaitIdOptions::EXITED | options) {
                Err(Errno::INTR) => (),
                Ok(Some(status)) => {
                    return match status.exit_status() {
                        Some(code) => (libc::CLD_EXITED, code),
                        None => (libc::CLD_KILLED, status.terminating_signal().unwrap_or(0)),
                    };
                }
                Ok(None) | Err(_) => return (0, 0),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jail::Policy;

    fn free() -> ProgramJail {
        let nothing = std::path::Path::new("/");
        Policy::Off.for_program(nothing, &[]).unwrap()
    }

    #[test]
    fn the_end_is_told() {
        let mut command = Command::new("/bin/sh");
        let script = "echo one >&2; echo 'qemu-system-x86_64: no such device' >&2; exit 1";
        let process = Process::start(command.args(["-c", script]), &[], &free()).unwrap();
        let told = process.describe_end();
        assert!(told.contains(": no such device (status 1)"), "{told}");
        let process = Process::start(&mut Command::new("/bin/true"), &[], &free()).unwrap();
        assert!(process.describe_end().contains("QEMU ended"));
        let process = Process::start(Command::new("/bin/sleep").arg("100"), &[], &free()).unwrap();
        process.kill();
        assert!(process.describe_end().contains("signal 9"));
    }

    #[test]
    fn only_what_is_passed_is_inherited() {
        let (kept, passed) = (File::open("/").unwrap(), File::open("/").unwrap());
        let script = format!(
            "test -d /proc/self/fd/{} && ! test -e /proc/self/fd/{}",
            passed.as_raw_fd(),
            kept.as_raw_fd()
        );
        let mut command = Command::new("/bin/sh");
        let process =
            Process::start(command.args(["-c", &script]), &[passed.into()], &free()).unwrap();
        assert!(process.describe_end().contains("QEMU ended"));
    }
}
