//! Runs `ringlet run` with a deadline, and keeps what it printed.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Artifacts, hang};

/// How long anything may take: enough for a machine with many times more work than it has CPUs.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// What a VM that hangs has to report its state.
const REPORT: Duration = Duration::from_secs(5);

/// The options in `RINGLET_TEST_OPTIONS`: the machine that the tests are for.
pub fn machine_options() -> Vec<String> {
    let options = std::env::var("RINGLET_TEST_OPTIONS").unwrap_or_default();
    options.split_whitespace().map(str::to_owned).collect()
}

/// Whether the host is the Linux that the guest is to be as.
pub fn host_is_the_oracle() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .is_ok_and(|release| release.starts_with("6.18."))
}

/// A `ringlet` command under construction.
pub struct Ringlet {
    command: Command,
    input: Vec<u8>,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, unless the test put it elsewhere.
    pub stdout: Vec<u8>,
    /// Its standard error, unless the test put it elsewhere.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub elapsed: Duration,
}

impl Ringlet {
    /// `ringlet` with these arguments. Standard input is empty; the other streams are kept.
    pub fn new<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::command(Command::new(Artifacts::get().ringlet())).args(arguments)
    }

    /// `ringlet run` with these options, then the program and its arguments. The options in
    /// `RINGLET_TEST_OPTIONS`, by which the same tests run on other machines, come first.
    pub fn run<S: AsRef<OsStr>, T: AsRef<OsStr>>(
        options: impl IntoIterator<Item = S>,
        program: impl IntoIterator<Item = T>,
    ) -> Self {
        Self::new(["run"])
            .args(machine_options())
            .args(options)
            .args(["--"])
            .args(program)
    }

    /// As [`run`](Self::run), by another command, which runs the one behind its own arguments.
    pub fn run_by<S: AsRef<OsStr>, T: AsRef<OsStr>>(
        mut command: Command,
        options: impl IntoIterator<Item = S>,
        program: impl IntoIterator<Item = T>,
    ) -> Self {
        command.arg(Artifacts::get().ringlet());
        Self::command(command)
            .args(["run"])
            .args(machine_options())
            .args(options)
            .args(["--"])
            .args(program)
    }

    /// A `ringlet run` of the program without options.
    pub fn program<T: AsRef<OsStr>>(program: impl IntoIterator<Item = T>) -> Self {
        Self::run([""; 0], program)
    }

    /// Any command, run in the same way.
    pub fn command(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("RINGLET_KERNEL")
            .env_remove("RINGLET_ROOTFS")
            .env_remove("RINGLET_LOG");
        Self {
            command,
            input: Vec::new(),
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Gives the run these bytes as standard input.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Changes the command in other ways, such as its streams and environment.
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Starts the VM, leaving standard input open.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(mut self) -> Running {
        let start = Instant::now();
        let mut child = self.command.spawn().expect("ringlet can be started");
        Running {
            stdin: child.stdin.take(),
            stdout: Stream::read(child.stdout.take()),
            stderr: Stream::read(child.stderr.take()),
            command: self.command.get_program().into(),
            child,
            start,
        }
    }

    /// Runs the VM to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started or has not ended by the deadline.
    pub fn output(mut self) -> Output {
        let input = std::mem::take(&mut self.input);
        let mut running = self.start();
        let stdin = running.stdin.take();
        let writer = thread::spawn(move || {
            // A program need not read what it is given.
            stdin.map(|mut stdin| stdin.write_all(&input))
        });
        let output = running.wait();
        // The pipe has no reader any more, so the writer has ended or will at once.
        let _ = writer.join();
        output
    }
}

/// A VM that runs.
pub struct Running {
    /// Its standard input; dropping it is the end of the input.
    pub stdin: Option<ChildStdin>,
    /// Its standard output.
    pub stdout: Stream,
    /// Its standard error.
    pub stderr: Stream,
    command: PathBuf,
    child: Child,
    start: Instant,
}

impl Running {
    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    ///
    /// If it is closed.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("an open standard input");
        stdin.write_all(bytes).expect("a reader of standard input");
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it has been waited for.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is a child that has not been waited for, so the number is its own.
        let result = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(result, 0, "a process to signal");
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it does not come by the deadline; the process is killed then.
    pub fn wait(mut self) -> Output {
        drop(self.stdin.take());
        loop {
            if let Some(status) = self.child.try_wait().expect("a child to wait for") {
                return Output {
                    status,
                    elapsed: self.start.elapsed(),
                    stdout: self.stdout.rest(),
                    stderr: self.stderr.rest(),
                };
            }
            if self.start.elapsed() > DEADLINE {
                let threads = hang::describe(self.child.id());
                // What it says of its guest, if it still can.
                self.signal(libc::SIGQUIT);
                thread::sleep(REPORT);
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!(
                    "{} has not ended after {DEADLINE:?}\n{threads}stdout: {}\nstderr: {}",
                    self.command.display(),
                    show(&self.stdout.rest()),
                    show(&self.stderr.rest()),
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failed assertion nothing may stay behind; it fails for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process prints, as it comes.
pub struct Stream {
    chunks: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Stream {
    fn read(from: Option<impl Read + Send + 'static>) -> Self {
        let (sender, chunks) = mpsc::channel();
        if let Some(mut from) = from {
            thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    if sender.send(buffer[..length].to_vec()).is_err() {
                        break;
                    }
                }
            });
        }
        Self {
            chunks,
            seen: Vec::new(),
        }
    }

    /// Waits until `wanted` has come, and gives everything so far.
    ///
    /// # Panics
    ///
    /// If it does not come by the deadline, or the stream ends first.
    pub fn wait_for(&mut self, wanted: &[u8]) -> &[u8] {
        self.wait_until(&show(wanted), |seen| {
            seen.windows(wanted.len()).any(|window| window == wanted)
        })
    }

    /// Waits until `enough` is true of everything that has come, and gives that. `wanted` names it
    /// in messages.
    ///
    /// # Panics
    ///
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_until(&mut self, wanted: &str, enough: impl Fn(&[u8]) -> bool) -> &[u8] {
        let deadline = Instant::now() + DEADLINE;
        while !enough(&self.seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.seen.extend(chunk),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{wanted:?} has not come, only {:?}", show(&self.seen))
                }
            }
        }
        &self.seen
    }

    /// Everything, to the end of the stream.
    fn rest(&mut self) -> Vec<u8> {
        while let Ok(chunk) = self.chunks.recv() {
            self.seen.extend(chunk);
        }
        std::mem::take(&mut self.seen)
    }
}

impl Output {
    /// The exit status; 128 and the signal if one ended ringlet itself.
    pub fn code(&self) -> i32 {
        let signal = self.status.signal().unwrap_or(0);
        self.status.code().unwrap_or(128 + signal)
    }

    /// Standard output as text.
    pub fn out(&self) -> String {
        show(&self.stdout)
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        show(&self.stderr)
    }

    /// Checks the exit status, and gives the output back.
    ///
    /// # Panics
    ///
    /// If it is another; the message shows what was printed.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            code,
            "the exit status\nstdout: {}\nstderr: {}",
            self.out(),
            self.err()
        );
        self
    }

    /// Checks that the run succeeded and printed nothing on standard error.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        let output = self.expect_code(0);
        assert_eq!(output.err(), "");
        output
    }

    /// Checks that ringlet refused with `code` and one line on standard error that names `what`.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[track_caller]
    pub fn expect_refusal(self, code: i32, what: &str) {
        let output = self.expect_code(code);
        let message = output.err();
        assert!(
            message.ends_with('\n') && message.lines().count() == 1,
            "one line, not: {message}"
        );
        assert!(message.contains(what), "{what:?} is not in: {message}");
        assert_eq!(output.out(), "");
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
