//! Guest memory that a program gives back goes back to the host.

use std::fs;
use std::time::{Duration, Instant};

use ringlet_tests::{DEADLINE, Ringlet, Running, has_kvm};

/// Resident memory of `ringlet`, in MiB.
fn resident(running: &Running) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/statm", running.pid())).unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096 / (1 << 20)
}

/// Enforces a promise of docs/specification.md: within a second, on a machine that has time for it.
#[test]
fn what_a_program_frees_goes_back_to_the_host() {
    // Under QEMU it stays.
    if !has_kvm() {
        return;
    }
    // Files in memory; all of it is the shell's own doing.
    let script = "i=0; while [ $i -lt 8 ]; do printf '%40000000s' x > /tmp/$i; i=$((i+1)); done
        echo used; read x
        while [ $i -gt 0 ]; do i=$((i-1)); : > /tmp/$i; done
        echo freed; read x";
    let options = ["--accel", "kvm", "--mem", "1G"];
    let mut running = Ringlet::new(["run"])
        .args(options)
        .args(["--", "/bin/sh", "-c", script])
        .start();
    running.stdout.wait_for(b"used\n");
    let used = resident(&running);
    assert!(used > 300, "{used} MiB");
    running.write(b"\n");
    running.stdout.wait_for(b"freed\n");
    let start = Instant::now();
    while resident(&running) > used - 250 {
        assert!(start.elapsed() < DEADLINE, "{} MiB", resident(&running));
        std::thread::sleep(Duration::from_millis(20));
    }
    // It goes on, and gets zeros again.
    running.write(b"\n");
    running.wait().expect_success();
}
