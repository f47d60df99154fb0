//! `--accel`: QEMU's translator in place of KVM, and which of the two it is.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use ringlet_tests::{Artifacts, DEADLINE, Disk, Output, Ringlet, Running};

const TCG: [&str; 2] = ["--accel", "tcg"];

/// `ringlet run` with these options where there is no `/dev/kvm`; `/bin/echo here` is the program.
fn without_kvm(options: &[&str], path: Option<&OsStr>) -> Output {
    let script = r#"mount -t tmpfs none /dev && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    if let Some(path) = path {
        let mut assignment = OsStr::new("PATH=").to_owned();
        assignment.push(path);
        command.arg("/usr/bin/env").arg(assignment);
    }
    command.arg(Artifacts::get().ringlet());
    Ringlet::command(command)
        .args(["run"])
        .args(options)
        .args(["--", "/bin/echo", "here"])
        .output()
}

#[test]
fn without_kvm_it_is_qemu_and_one_line_says_so() {
    let output = without_kvm(&[], None).expect_code(0);
    assert_eq!(output.out(), "here\n");
    let said = output.err();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("/dev/kvm") && said.contains("QEMU"), "{said}");
    // Who asked for it knows.
    let output = without_kvm(&TCG, None).expect_success();
    assert_eq!(output.out(), "here\n");
}

#[test]
fn without_either_one_line_says_what_to_do() {
    let nothing = tempfile::tempdir().unwrap();
    let path = Some(nothing.path().as_os_str());
    let package = "apt-get install qemu-system-x86";
    without_kvm(&[], path).expect_refusal(125, package);
    without_kvm(&[], path).expect_refusal(125, "/dev/kvm");
    without_kvm(&TCG, path).expect_refusal(125, package);
    without_kvm(&["--accel", "kvm"], path).expect_refusal(125, "/dev/kvm");
}

/// `ringlet run --accel tcg` with something else for QEMU.
fn with_qemu(qemu: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    symlink(qemu, directory.path().join("qemu-system-x86_64")).unwrap();
    Ringlet::new(["run"])
        .args(TCG)
        .args(["--", "/bin/true"])
        .with(|command| {
            command.env("PATH", directory.path());
        })
        .output()
}

#[test]
fn a_qemu_that_does_not_run_the_guest() {
    with_qemu("/bin/false").expect_refusal(125, "status 1");
    // Something was started and has ended, but no kernel said how.
    with_qemu("/bin/true").expect_refusal(125, "QEMU ended");
}

#[test]
fn the_mode_is_what_is_asked_for() {
    for (mode, wanted) in [("auto", "ring0"), ("ring0", "ring0"), ("shared", "shared")] {
        let options = ["--accel", "tcg", "--mode", mode, "--timeline"];
        let output = Ringlet::new(["run"])
            .args(options)
            .args(["--", "/bin/true"])
            .output()
            .expect_code(0);
        let text = output.err();
        assert!(text.contains(&format!("mode: {wanted} ")), "{text}");
        assert_eq!(text.matches("timeline: ").count(), 5, "{text}");
    }
}

#[test]
fn too_much_of_everything() {
    Ringlet::new(["run"])
        .args(TCG)
        .args(["--cpus", "65", "--", "/bin/true"])
        .output()
        .expect_refusal(125, "--cpus 65");
}

#[test]
fn the_program_has_the_processors_that_are_asked_for() {
    for mode in ["ring0", "shared"] {
        for cpus in ["1", "3"] {
            let output = Ringlet::new(["run"])
                .args(TCG)
                .args(["--mode", mode, "--cpus", cpus, "--", "/bin/nproc"])
                .output();
            assert_eq!(output.expect_success().out().trim(), cpus, "{mode}");
        }
    }
}

#[test]
fn a_disk_is_read_while_the_processors_are_looked_at() {
    let disk = Disk::patterned(64 << 20);
    let mut host = Command::new("sha256sum");
    host.arg(disk.path());
    let host = Ringlet::command(host).output().expect_success().out();
    let mut vm = Ringlet::new(["run", "--kernel-log", "info", "--disk"])
        .args([disk.option(true)])
        .args(TCG)
        .args([
            "--",
            "uring-sha256",
            "--qd",
            "1",
            "--block",
            "4K",
            "/dev/vda",
        ])
        .start();
    vm.stderr.wait_for(b"CPL 0 is");
    for count in 1..=3 {
        vm.signal(libc::SIGQUIT);
        vm.stderr.wait_until("a report", |seen| {
            String::from_utf8_lossy(seen).matches("vCPU 0: ").count() == count
        });
    }
    let output = vm.wait().expect_code(0);
    assert_eq!(output.out().split(' ').next(), host.split(' ').next());
}

/// A program that never ends, and the process id of the QEMU that runs it.
fn spinning() -> (Running, i32) {
    let mut vm = Ringlet::new(["run"])
        .args(TCG)
        .args(["--", "/bin/sh", "-c", "echo ready; while :; do :; done"])
        .start();
    vm.stdout.wait_for(b"ready\n");
    // The only child of the VMM, which is the only child of what the user sees.
    let child = |parent: i32| -> i32 {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        children.unwrap().trim().parse().unwrap()
    };
    let qemu = child(child(vm.pid() as i32));
    (vm, qemu)
}

#[test]
fn a_killed_qemu_is_an_error() {
    let (vm, qemu) = spinning();
    // SAFETY: kill has no memory arguments; the process is a child of one that has not ended.
    unsafe { libc::kill(qemu, libc::SIGKILL) };
    let output = vm.wait().expect_code(125);
    assert_eq!(output.err(), "ringlet: QEMU was ended by signal 9\n");
}

#[test]
fn a_debugger_can_look_into_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("gdb");
    let mut vm = Ringlet::new(["run", "--gdb"])
        .args([&socket])
        .args(TCG)
        .args(["--", "/bin/echo", "debugged"])
        .start();
    vm.stderr.wait_for(b"waiting for a debugger");
    let mut gdb = Command::new("gdb");
    gdb.args(["--batch", "-nx", "-iex", "set debuginfod enabled off"])
        .arg("-ex")
        .arg(format!("target remote {}", socket.display()))
        .args(["-ex", "hbreak ringlet_kernel_main", "-ex", "continue"])
        .args(["-ex", "backtrace", "-ex", "delete", "-ex", "detach"])
        .arg(Artifacts::get().kernel());
    let text = Ringlet::command(gdb).output().out();
    assert!(text.contains("#0  ringlet_kernel_main"), "{text}");
    assert_eq!(vm.wait().expect_code(0).out(), "debugged\n");
    assert!(!socket.exists());
}

#[test]
fn a_stopped_ringlet_stops_qemu() {
    let (vm, qemu) = spinning();
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{qemu}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    };
    let await_state = |stopped: bool| {
        let deadline = Instant::now() + DEADLINE;
        while is_stopped() != stopped {
            assert!(Instant::now() < deadline, "QEMU stopped: {}", !stopped);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    assert!(!is_stopped());
    vm.signal(libc::SIGTSTP);
    await_state(true);
    vm.signal(libc::SIGCONT);
    await_state(false);
    vm.signal(libc::SIGTERM);
    vm.wait().expect_code(128 + libc::SIGTERM);
}
