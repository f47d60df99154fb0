//! Standard streams that nobody reads: neither a program nor a kernel makes ringlet deaf by filling them.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ringlet_tests::{DEADLINE, Ringlet};

/// How long a signal may take to end a VM.
const PROMISE: Duration = Duration::from_millis(100);
/// A busy machine may need several tries to show it.
const TRIES: usize = 20;

/// A pipe that is full; what keeps it from being closed comes with it.
fn full_pipe() -> (File, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut writer = File::from(std::os::fd::OwnedFd::from(writer));
    set_nonblocking(&writer, true);
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    set_nonblocking(&writer, false);
    (writer, reader)
}

fn set_nonblocking(file: &File, on: bool) {
    let flags = if on { libc::O_NONBLOCK } else { 0 };
    // SAFETY: fcntl has no memory arguments with this command.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
    assert_eq!(result, 0);
}

/// Which streams are full pipes.
#[derive(Clone, Copy)]
struct Full {
    output: bool,
    error: bool,
}

/// Starts a VM with full pipes, has `before` done to it, and ends it by `signal`; in at most the promised
/// time, at least once in some tries.
fn ends_at_once(full: Full, options: &[&str], program: &[&str], before: &[i32], signal: i32) {
    let mut slowest = Duration::ZERO;
    for _ in 0..TRIES {
        let pipes = [full_pipe(), full_pipe()];
        let [output, error] = &pipes;
        let running = Ringlet::run(options, program)
            .with(|command| {
                if full.output {
                    command.stdout(output.0.try_clone().unwrap());
                }
                if full.error {
                    command.stderr(error.0.try_clone().unwrap());
                }
            })
            .start();
        // It boots, and fills what it can.
        std::thread::sleep(Duration::from_millis(300));
        for signal in before {
            running.signal(*signal);
            std::thread::sleep(Duration::from_millis(20));
        }
        let start = Instant::now();
        running.signal(signal);
        let output = running.wait();
        let elapsed = start.elapsed();
        assert_eq!(output.code(), 128 + signal);
        if elapsed <= PROMISE {
            return;
        }
        slowest = slowest.max(elapsed);
        assert!(slowest < DEADLINE);
    }
    panic!("it took up to {slowest:?}");
}

const BOTH: Full = Full {
    output: true,
    error: true,
};
const ERROR: Full = Full {
    output: false,
    error: true,
};

#[test]
fn a_program_that_fills_its_streams() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        ends_at_once(BOTH, &[], &["/bin/yes"], &[], signal);
    }
    ends_at_once(BOTH, &[], &["/bin/sh", "-c", "yes >&2"], &[], libc::SIGTERM);
}

#[test]
fn a_kernel_that_logs_without_end() {
    let options = ["--kernel-log", "trace"];
    ends_at_once(ERROR, &options, &["/bin/yes"], &[], libc::SIGTERM);
}

#[test]
fn reports_that_nobody_reads() {
    let before = [libc::SIGQUIT; 4];
    ends_at_once(ERROR, &[], &["/bin/sleep", "1000"], &before, libc::SIGTERM);
    ends_at_once(ERROR, &[], &["/bin/sleep", "1000"], &before, libc::SIGINT);
}

#[test]
fn the_time_is_over() {
    let (pipe, _reader) = full_pipe();
    let output = Ringlet::run(["--timeout", "1s"], ["/bin/yes"])
        .with(|command| {
            command.stdout(pipe.try_clone().unwrap()).stderr(pipe);
        })
        .output();
    output.expect_code(124);
}

/// Nothing of it is lost that a slow reader has room for.
#[test]
fn a_slow_reader_gets_the_whole_log() {
    let mut running = Ringlet::run(["--kernel-log", "trace"], ["/bin/true"]).start();
    std::thread::sleep(Duration::from_millis(500));
    running.stderr.wait_for(b"Exited(0)");
    running.wait().expect_code(0);
}
