//! The terminal is raw while the VM runs and is restored on every way out.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Child;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use crate::guest::{Code, DEADLINE, Dir, EXIT, Transcript, await_end};

/// A pseudo-terminal with `ringlet` as the leader of its session.
struct Terminal {
    master: File,
    slave: OwnedFd,
    child: Child,
    screen: Transcript,
    /// What the terminal was like before.
    before: libc::termios,
    dir: Dir,
}

impl Terminal {
    fn start(code: &Code, args: &[&str]) -> Self {
        Self::start_in(Dir::new(), code, args)
    }

    /// Starts a VM that waits for its debugger before the first instruction.
    fn start_held(code: &Code, args: &[&str]) -> Self {
        let dir = Dir::new();
        let socket = dir.path().join("gdb");
        let args = [&["--gdb", socket.to_str().unwrap()], args].concat();
        Self::start_in(dir, code, &args)
    }

    /// Lets such a VM go: its debugger comes and leaves.
    fn release(&self) {
        drop(UnixStream::connect(self.dir.path().join("gdb")).unwrap());
    }

    fn start_in(dir: Dir, code: &Code, args: &[&str]) -> Self {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: the descriptors are written to valid places; name, modes and size are not given.
        let result = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                null_mut(),
                null_mut(),
                null_mut(),
            )
        };
        assert_eq!(result, 0);
        // SAFETY: both are new and nobody else's.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let before = modes(&slave);
        let stream = || slave.try_clone().unwrap();
        let mut command = dir.ringlet(&code.elf(true));
        command
            .args(args)
            .args(["--", "/bin/program"])
            .stdin(stream())
            .stdout(stream())
            .stderr(stream());
        // SAFETY: both are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            })
        };
        let child = command.spawn().unwrap();
        Self {
            screen: Transcript::of(master.try_clone().unwrap()),
            master,
            slave,
            child,
            before,
            dir,
        }
    }

    fn is_raw(&self) -> bool {
        let modes = modes(&self.slave);
        modes.c_lflag & (libc::ICANON | libc::ECHO) == 0 && modes.c_oflag & libc::OPOST == 0
    }

    fn await_raw(&self, raw: bool) {
        let start = Instant::now();
        while self.is_raw() != raw {
            assert!(start.elapsed() < DEADLINE, "raw: {}", !raw);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn type_in(&mut self, text: &[u8]) {
        self.master.write_all(text).unwrap();
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill has no memory arguments, and the child is not waited for yet.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// Waits for the end; the terminal must be as it was. Gives status and what was written.
    fn end(self) -> (std::process::ExitStatus, String) {
        let status = await_end(self.child).status;
        let (before, after) = (self.before, modes(&self.slave));
        assert_eq!(after.c_lflag, before.c_lflag);
        assert_eq!(
            (after.c_oflag, after.c_iflag),
            (before.c_oflag, before.c_iflag)
        );
        drop(self.slave);
        let text = String::from_utf8_lossy(&self.screen.end()).into_owned();
        (status, text)
    }
}

fn modes(terminal: &OwnedFd) -> libc::termios {
    // SAFETY: all-zero bytes are a valid termios, and tcgetattr writes one.
    unsafe {
        let mut modes = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &raw mut modes), 0);
        modes
    }
}

#[test]
fn control_characters_end_the_vm_or_report() {
    let mut terminal = Terminal::start(&Code::default().hang(), &[]);
    terminal.await_raw(true);
    assert_ne!(modes(&terminal.slave).c_lflag & libc::ISIG, 0);
    // Ctrl-\ only asks for a report.
    terminal.type_in(b"\x1c");
    terminal.screen.wait_for("vCPU 0: ", 1);
    terminal.type_in(b"\x03");
    let (status, text) = terminal.end();
    assert_eq!(status.code(), Some(130));
    assert!(text.contains("vCPU 0: running"), "{text:?}");
    assert!(text.contains("\r\nrip=0x200000 "), "{text:?}");
}

#[test]
fn the_terminal_is_restored_after_an_exit_a_crash_and_a_fatal_signal() {
    let exit = Code::default().store(EXIT, 4).hang();
    let terminal = Terminal::start_held(&exit, &["--timeline"]);
    terminal.await_raw(true);
    terminal.release();
    let (status, text) = terminal.end();
    assert_eq!(status.code(), Some(4));
    assert!(
        text.contains("kernel") || text.contains("VM created\r\n"),
        "{text}"
    );

    let crash = Code::default()
        .bytes(&[0x0f, 0x01, 0x1d])
        .bytes(&0x30_0000_u32.to_le_bytes())
        .bytes(&[0x0f, 0x0b]);
    let terminal = Terminal::start_held(&crash, &[]);
    terminal.await_raw(true);
    terminal.release();
    let (status, text) = terminal.end();
    assert_eq!(status.code(), Some(125));
    assert!(text.contains("triple-faulted"), "{text}");

    for signal in [libc::SIGTERM, libc::SIGABRT, libc::SIGSEGV] {
        let terminal = Terminal::start(&Code::default().hang(), &[]);
        terminal.await_raw(true);
        terminal.signal(signal);
        let (status, _) = terminal.end();
        match signal {
            libc::SIGTERM => assert_eq!(status.code(), Some(143)),
            signal => assert_eq!(status.signal(), Some(signal)),
        }
    }
}

#[test]
fn lines_of_the_kernel_start_at_the_left_edge() {
    let code = Code::default().print("one\ntwo\n").store(EXIT, 0).hang();
    let terminal = Terminal::start(&code, &[]);
    let (_, text) = terminal.end();
    assert!(text.contains("one\r\ntwo\r\n"), "{text:?}");
}

#[test]
fn suspending_gives_the_terminal_back_and_continuing_takes_it() {
    let terminal = Terminal::start(&Code::default().hang(), &[]);
    terminal.await_raw(true);
    terminal.signal(libc::SIGTSTP);
    terminal.await_raw(false);
    terminal.signal(libc::SIGCONT);
    terminal.await_raw(true);
    terminal.signal(libc::SIGTERM);
    assert_eq!(terminal.end().0.code(), Some(143));
}
