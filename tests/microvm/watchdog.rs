//! A kernel that goes wrong on purpose (`ringlet.provoke=`, which only the kernel knows that
//! `make provoke` builds): how that is told, in every mode.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringlet_tests::{Artifacts, DEADLINE, Ringlet, has_kvm};

/// The machines that differ: KVM, if it is there, and QEMU in both modes.
fn machines() -> impl Iterator<Item = &'static [&'static str]> {
    const MACHINES: [&[&str]; 3] = [
        &["--accel", "kvm"],
        &["--accel", "tcg", "--mode", "ring0"],
        &["--accel", "tcg", "--mode", "shared"],
    ];
    MACHINES.into_iter().skip(usize::from(!has_kvm()))
}

/// A VM with `cpus`, whose kernel does `what`.
fn provoking(machine: &[&str], cpus: u32, what: &str) -> Ringlet {
    Ringlet::new(["run", "--kernel"])
        .args([Artifacts::get().provoking_kernel()])
        .args(machine)
        .args(["--cpus", &cpus.to_string()])
        .args(["--append", &format!("ringlet.provoke={what}")])
}

/// One with two CPUs and a short patience; the program waits for a line.
fn provoke(machine: &[&str], what: &str) -> Ringlet {
    provoking(machine, 2, &format!("{what} watchdog_thresh=1")).args([
        "--",
        "/bin/sh",
        "-c",
        "read x; exit 7",
    ])
}

/// All of `wanted` is reported, and the VM goes on.
fn is_reported(what: &str, wanted: &[&str]) {
    for machine in machines() {
        let mut running = provoke(machine, what).start();
        for text in wanted {
            running.stderr.wait_for(text.as_bytes());
        }
        running.write(b"\n");
        running.wait().expect_code(7);
    }
}

#[test]
fn a_cpu_that_is_stuck_is_reported() {
    is_reported(
        "stall",
        &["gets nowhere\n", "backtrace:\n", "kernel::provoke::spin+"],
    );
}

#[test]
fn a_lock_that_is_held_too_long_names_its_holder() {
    let wanted = [
        "for a lock at guestkernel/kernel/src/provoke.rs:",
        "took at guestkernel/kernel/src/provoke.rs:",
        "kernel::provoke::spin+",
    ];
    is_reported("lock", &wanted);
}

#[test]
fn a_cpu_that_does_not_flush_its_tlb_is_reported() {
    for machine in machines() {
        let mut running = provoking(machine, 2, "shootdown watchdog_thresh=1")
            .args([
                "--",
                "thread-test",
                "memory_maps_and_unmaps_from_all_threads",
            ])
            .start();
        running.stderr.wait_for(b"to flush its TLB\n");
        running.wait().expect_code(0);
    }
}

#[test]
fn softlockup_panic_ends_the_vm() {
    for machine in machines() {
        let mut running = provoke(machine, "stall softlockup_panic=1").start();
        // The program must not end before.
        let stdin = running.stdin.take();
        let text = running.wait().expect_code(125).err();
        drop(stdin);
        assert!(text.contains("gets nowhere"), "{text}");
        assert!(text.contains("softlockup_panic is set"), "{text}");
    }
}

#[test]
fn a_panic_shows_all_cpus() {
    for machine in machines() {
        let text = provoke(machine, "panic").output().expect_code(125).err();
        assert!(text.contains("kernel panic at "), "{text}");
        assert!(text.contains("CPU 1: "), "{text}");
    }
}

#[test]
fn a_stack_that_overflows_is_reported_with_registers() {
    for machine in machines() {
        let text = provoke(machine, "overflow").output().expect_code(125).err();
        assert!(
            text.contains("the kernel's stack has overflowed\nrip "),
            "{text}"
        );
        assert!(text.contains("kernel::provoke::recurse+"), "{text}");
    }
}

/// Checks of `thread-test` that enter the kernel in all ways and do not look at the time.
const CHECKS: [&str; 8] = [
    "two_hundred_threads_at_once",
    "a_mutex_counts_right",
    "channels_carry_everything",
    "memory_maps_and_unmaps_from_all_threads",
    "vector_registers_are_per_thread",
    "futex_ping_pong",
    "one_ring_from_several_threads",
    "a_ring_for_each_thread",
];

#[test]
fn nmis_at_any_instruction_change_nothing() {
    for machine in machines() {
        provoking(machine, 3, "nmis")
            .args(["--", "thread-test"])
            .args(CHECKS)
            .output()
            .expect_success();
    }
}

#[test]
fn requests_list_the_tasks() {
    const THREAD: &str = "thread 1 (sh)";
    for machine in machines() {
        let mut running = Ringlet::new(["run", "--cpus", "2"])
            .args(machine)
            .args(["--", "/bin/sh", "-c", "echo ready; read x; exit 7"])
            .start();
        running.stdout.wait_for(b"ready\n");
        let start = Instant::now();
        // The program says that it is ready before it waits.
        for count in 1.. {
            running.signal(libc::SIGQUIT);
            let text = running.stderr.wait_until(THREAD, |seen| {
                let seen = String::from_utf8_lossy(seen);
                seen.matches(THREAD).count() >= count && seen.ends_with('\n')
            });
            let text = String::from_utf8_lossy(text).into_owned();
            let line = text.lines().rev().find(|line| line.starts_with(THREAD));
            if line.is_some_and(|line| line.contains(" in poll, off the CPU for ")) {
                assert!(text.contains("tasks:\n"), "{text}");
                assert!(text.contains("virtio-console"), "{text}");
                assert!(text.contains("machine_start"), "a backtrace: {text}");
                break;
            }
            assert!(start.elapsed() < DEADLINE, "{text}");
            // Requests in quick succession are one.
            std::thread::sleep(Duration::from_millis(200));
        }
        running.write(b"\n");
        running.wait().expect_code(7);
    }
}

/// What a kernel under QEMU, which waits, says when QEMU's monitor is told `command`.
fn tell_qemu(command: &str, wanted: &str) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("monitor");
    let artifacts = Artifacts::get();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-M",
            "microvm,acpi=off,pit=on,pic=on,rtc=on",
            "-accel",
            "tcg",
            "-cpu",
            "max",
        ])
        .args(["-m", "256M", "-nodefaults", "-no-user-config", "-no-reboot"])
        .args([
            "-display",
            "none",
            "-global",
            "virtio-mmio.force-legacy=false",
        ])
        .args([
            "-chardev",
            "stdio,id=terminal",
            "-serial",
            "chardev:terminal",
        ])
        .args([
            "-device",
            "virtio-serial-device",
            "-chardev",
            "null,id=none",
        ])
        .args([
            "-device",
            "virtconsole,chardev=none",
            "-device",
            "virtio-rng-device",
        ])
        .arg("-monitor")
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .arg("-kernel")
        .arg(artifacts.kernel())
        .arg("-initrd")
        .arg(artifacts.rootfs())
        .args(["-append", "loglevel=info -- /bin/sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(qemu.stdout.take().unwrap()).lines();
    let mut await_line = |part: &str| {
        let mut seen = Vec::new();
        for line in &mut lines {
            seen.push(line.unwrap());
            if seen.last().is_some_and(|line| line.contains(part)) {
                return;
            }
        }
        panic!("{part:?} is not in {seen:#?}");
    };
    await_line("ringlet-control: mark 0x3");
    let mut monitor = UnixStream::connect(&socket).unwrap();
    monitor.write_all(command.as_bytes()).unwrap();
    await_line(wanted);
    let _ = qemu.kill();
    qemu.wait().unwrap();
}

#[test]
fn machine_checks_are_reported() {
    let uncorrected = "mce 0 1 0xbe00000000000000 5 0x123000 0x8c\n";
    tell_qemu(
        uncorrected,
        "bank 1: status 0xbe00000000000000, address 0x123000",
    );
}
