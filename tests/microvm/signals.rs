//! Signals to `ringlet`: the VM ends, and nothing is left behind.

use std::fs;
use std::time::{Duration, Instant};

use ringlet_tests::{DEADLINE, Disk, Ringlet, Running, machine_options};

/// A VM that is known to run its program, which never ends.
fn spinning(options: &[&str]) -> Running {
    let script = "echo ready; while :; do :; done";
    let mut running = Ringlet::run(options, ["/bin/sh", "-c", script]).start();
    running.stdout.wait_for(b"ready\n");
    running
}

/// A VM whose program waits for input that does not come.
fn waiting(options: &[&str]) -> Running {
    let script = "echo ready; read x";
    let mut running = Ringlet::run(options, ["/bin/sh", "-c", script]).start();
    running.stdout.wait_for(b"ready\n");
    running
}

#[test]
fn a_busy_program_is_ended() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let running = spinning(&[]);
        running.signal(signal);
        let output = running.wait().expect_code(128 + signal);
        assert_eq!(output.err(), "");
    }
}

/// Sends SIGQUIT until a report, from behind the words `vCPU 0: ` on, is as `wanted` says.
fn report_that_is(running: &mut Running, wanted: impl Fn(&str) -> bool) -> String {
    const FIRST: &str = "vCPU 0: ";
    let start = Instant::now();
    for count in 1.. {
        running.signal(libc::SIGQUIT);
        let text = running.stderr.wait_until(FIRST, |seen| {
            String::from_utf8_lossy(seen).matches(FIRST).count() == count
        });
        let text = String::from_utf8_lossy(text).into_owned();
        // The one before this is complete.
        if let Some(report) = text.split(FIRST).nth(count - 1)
            && count > 1
            && wanted(report)
        {
            return report.to_owned();
        }
        assert!(start.elapsed() < DEADLINE, "{text}");
    }
    unreachable!()
}

#[test]
fn sigquit_reports_what_the_vcpus_do_and_the_vm_goes_on() {
    let options = machine_options();
    let cpus = options
        .iter()
        .skip_while(|option| *option != "--cpus")
        .nth(1);
    let mut running = match cpus {
        Some(_) => spinning(&[]),
        None => spinning(&["--cpus", "2"]),
    };
    let cpus = cpus.map_or(2, |cpus| cpus.parse().unwrap());
    // For a moment it is the kernel still, which writes what the program said.
    let report = report_that_is(&mut running, |report| report.contains("in the program"));
    assert_eq!(
        report.matches("running in the program").count(),
        1,
        "{report}"
    );
    assert_eq!(report.matches("vCPU ").count(), cpus - 1, "{report}");
    assert_eq!(
        report.matches("\nrax=").count(),
        report.matches("\ncr0=").count()
    );
    running.signal(libc::SIGTERM);
    running.wait().expect_code(128 + libc::SIGTERM);
}

#[test]
fn sigquit_shows_the_kernels_backtrace() {
    let mut running = waiting(&[]);
    // For a moment the kernel looks for input, and then halts: all CPUs do, so that nothing changes while the
    // stack is read.
    let report = report_that_is(&mut running, |report| {
        report.starts_with("halted in the kernel") && !report.contains(": running in the")
    });
    let mut rest = report.as_str();
    for call in ["kernel::boot::", "ringlet_kernel_main", "machine_start+"] {
        rest = rest
            .split_once(call)
            .unwrap_or_else(|| panic!("{call}: {report}"))
            .1;
    }
    running.write(b"\n");
    running.wait().expect_code(0);
}

#[test]
fn a_waiting_program_is_ended() {
    let mut running = waiting(&[]);
    running.signal(libc::SIGTERM);
    // The end must not come from the end of the input.
    let stdin = running.stdin.take();
    running.wait().expect_code(128 + libc::SIGTERM);
    drop(stdin);
}

/// Waits until the process does not run any more, whether or not anybody has waited for it.
fn await_end(pid: &str) {
    let deadline = Instant::now() + DEADLINE;
    while let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
        if stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'))
        {
            return;
        }
        assert!(Instant::now() < deadline, "it still runs: {stat}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_ringlet_leaves_nothing() {
    let disk = Disk::patterned(1 << 20);
    let running = waiting(&["--disk", &disk.option(false)]);
    let pid = running.pid();
    // There is none with KVM, and QEMU without.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    running.signal(libc::SIGKILL);
    running.wait().expect_code(128 + libc::SIGKILL);
    for child in children.split_whitespace() {
        await_end(child);
    }
    disk.assert_untouched();
    // The lock goes with it, or with the last thread of what it had started.
    let deadline = Instant::now() + DEADLINE;
    let again = || Ringlet::run(["--disk", &disk.option(false)], ["/bin/true"]).output();
    while again().code() != 0 {
        assert!(Instant::now() < deadline, "the disk is still locked");
    }
}

#[test]
fn the_lock_goes_with_an_ended_vm() {
    let disk = Disk::patterned(1 << 20);
    let running = spinning(&["--disk", &disk.option(false)]);
    running.signal(libc::SIGTERM);
    running.wait().expect_code(128 + libc::SIGTERM);
    disk.assert_untouched();
    Ringlet::run(["--disk", &disk.option(false)], ["/bin/true"])
        .output()
        .expect_success();
}
