//! A pseudo-terminal: the test has the keyboard and the screen, `ringlet` the terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::DEADLINE;

/// Both ends of a pseudo-terminal.
pub struct Terminal {
    keyboard: File,
    end: OwnedFd,
}

impl Terminal {
    /// A terminal of that size in characters.
    ///
    /// # Panics
    ///
    /// If the host has none.
    pub fn new(rows: u16, columns: u16) -> Self {
        let (mut keyboard, mut end) = (-1, -1);
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let name = std::ptr::null_mut();
        // SAFETY: the pointers are to live variables, or null where that is allowed.
        let result = unsafe {
            libc::openpty(
                &raw mut keyboard,
                &raw mut end,
                name,
                std::ptr::null(),
                &raw const size,
            )
        };
        assert_eq!(result, 0, "openpty: {}", std::io::Error::last_os_error());
        for fd in [keyboard, end] {
            // SAFETY: the descriptors are open; the flag keeps them from other tests' processes.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: the descriptors are new and nobody else's.
        let (keyboard, end) =
            unsafe { (OwnedFd::from_raw_fd(keyboard), OwnedFd::from_raw_fd(end)) };
        Self {
            keyboard: keyboard.into(),
            end,
        }
    }

    /// One more handle for a standard stream.
    ///
    /// # Panics
    ///
    /// If the process has too many descriptors.
    pub fn stdio(&self) -> Stdio {
        self.end.try_clone().expect("a descriptor").into()
    }

    /// Makes this the controlling terminal of the command, so that Ctrl-C is a signal to it.
    pub fn control(&self, command: &mut Command) {
        let end = self.end.as_raw_fd();
        let attach = move || {
            // SAFETY: between fork and exec these calls are allowed, and touch no memory.
            let attached =
                unsafe { libc::setsid() >= 0 && libc::ioctl(end, libc::TIOCSCTTY, 0) == 0 };
            match attached {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure only makes system calls.
        unsafe { command.pre_exec(attach) };
    }

    /// The terminal's settings, in a form that can be compared.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn settings(&self) -> (u32, u32, u32, u32, Vec<u8>) {
        // SAFETY: all-zero bytes are a valid termios: it is integers only.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live termios.
        let result = unsafe { libc::tcgetattr(self.end.as_raw_fd(), &raw mut settings) };
        assert_eq!(result, 0, "tcgetattr");
        (
            settings.c_iflag,
            settings.c_oflag,
            settings.c_cflag,
            settings.c_lflag,
            settings.c_cc.to_vec(),
        )
    }

    /// Gives the terminal another size.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the pointer is to a live winsize.
        let result =
            unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0, "TIOCSWINSZ");
    }

    /// Whether the terminal passes characters on as they are typed.
    pub fn is_raw(&self) -> bool {
        self.settings().3 & (libc::ICANON | libc::ECHO) == 0
    }

    /// Types.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn type_in(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("a terminal");
    }

    /// What the screen shows, once `wanted` is on it.
    ///
    /// # Panics
    ///
    /// If it does not come by the deadline.
    pub fn screen_with(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut screen = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&screen).into_owned();
            if text.contains(wanted) {
                return text;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && self.readable(left),
                "{wanted:?} is not on the screen: {text:?}"
            );
            let mut buffer = [0; 4096];
            let length = self.keyboard.read(&mut buffer).expect("a terminal");
            screen.extend_from_slice(&buffer[..length]);
        }
    }

    fn readable(&self, wait: Duration) -> bool {
        let mut poll = libc::pollfd {
            fd: self.keyboard.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the pointer is to one live pollfd.
        unsafe { libc::poll(&raw mut poll, 1, wait.as_millis() as i32) == 1 }
    }
}
