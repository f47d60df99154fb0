//! What cannot work is one line that names the culprit, and status 125.

use std::fs;
use std::process::Command;

use crate::guest::{Code, Dir, EXIT, finish, stderr};

fn exiting() -> Vec<u8> {
    Code::default().store(EXIT, 0).hang().elf(true)
}

/// Runs `command`, which must fail with one line that has all of `says`.
fn refused(command: &mut Command, says: &[&str]) {
    let output = finish(command);
    let text = stderr(&output, 125);
    assert!(
        text.starts_with("ringlet: ") && text.ends_with('\n'),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    for says in says {
        assert!(text.contains(says), "no {says:?} in {text}");
    }
}

#[test]
fn options() {
    let dir = Dir::new();
    for (args, says) in [
        (&["--cpus", "0"][..], &["--cpus", "'0'"][..]),
        (&["--cpus", "x"], &["--cpus", "'x'"]),
        (&["--cpus", "100000"], &["--cpus 100000", "at most"]),
        (&["--mem", "16M"], &["--mem", "32 MiB"]),
        (&["--mem", "999999G"], &["--mem", "more than"]),
        (&["--mem", "0"], &["--mem"]),
        (&["--mem", "lots"], &["--mem", "512M"]),
        (&["--mem", "40000001"], &["--mem", "4 KiB"]),
        (&["--mode", "ring9"], &["--mode", "ring9"]),
        (&["--kernel-log", "loud"], &["--kernel-log", "loud"]),
        (&["--env", "=x"], &["--env"]),
        (&["--gdb", "65536"], &["--gdb", "65536", "HOST:PORT"]),
        (&["--gdb", "127.0.0.1:http"], &["--gdb", "http"]),
        (
            &["--gdb", "no.such.host.invalid:1"],
            &["--gdb", "no.such.host.invalid:1"],
        ),
        (
            &["--gdb", "192.0.2.1:1"],
            &["--gdb", "192.0.2.1:1", "--gdb-insecure"],
        ),
        (
            &["--gdb-insecure", "--gdb", "192.0.2.1:1"],
            &["--gdb", "192.0.2.1:1", "assign"],
        ),
        (
            &["--gdb", "/does/not/exist"],
            &["--gdb", "/does/not/exist", "No such file"],
        ),
        (
            &["--gdb", "/proc/version"],
            &["--gdb", "/proc/version", "in use"],
        ),
        (
            &["--cgroup", "/proc"],
            &["--cgroup /proc", "no control group", "/sys/fs/cgroup"],
        ),
        (&["--cgroup", "/proc,cpus=0"], &["--cgroup", "cpus="]),
        (&["--jail", "strict", "--no-jail"], &["--jail", "--no-jail"]),
        (&["--no-such-option"], &["--no-such-option"]),
    ] {
        refused(dir.ringlet(&exiting()).args(args), says);
    }
}

#[test]
fn no_program_and_no_command() {
    for args in [
        &["run"][..],
        &[],
        &["fly"],
        &["completions"],
        &["completions", "tcsh"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringlet"))
            .args(args)
            .output()
            .unwrap();
        let text = stderr(&output, 125);
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn kernels() {
    let dir = Dir::new();
    let good = exiting();
    let code = Code::default().store(EXIT, 0).hang();
    let changed = |at: usize, byte: u8| {
        let mut elf = good.clone();
        elf[at] = byte;
        elf
    };
    let mut low = good.clone();
    low[64 + 24..64 + 32].copy_from_slice(&0x8000_u64.to_le_bytes());
    let mut far = good.clone();
    far[64 + 24..64 + 32].copy_from_slice(&0xffff_ffff_0000_u64.to_le_bytes());
    for (name, kernel, says) in [
        (
            "text",
            b"#!/bin/sh\necho this is quite something else, and longer than a header\n".to_vec(),
            "no ELF file",
        ),
        ("short", good[..20].to_vec(), "no ELF file"),
        ("empty", Vec::new(), "no ELF file"),
        ("headers-cut", good[..100].to_vec(), "truncated"),
        ("code-cut", good[..good.len() - 1].to_vec(), "truncated"),
        ("aarch64", changed(18, 183), "AArch64"),
        ("32-bit", changed(4, 1), "64-bit"),
        ("big-endian", changed(5, 2), "little-endian"),
        ("no-note", code.elf(false), "PVH"),
        ("far", far, "--mem"),
        ("low", low, "below 1 MiB"),
    ] {
        let path = dir.file(name, &kernel);
        let mut command = dir.ringlet(&good);
        refused(command.arg("--kernel").arg(&path), &["kernel", name, says]);
    }
    for (path, says) in [
        ("/does/not/exist", "No such file"),
        ("/", "not a regular file"),
    ] {
        refused(
            dir.ringlet(&good).args(["--kernel", path]),
            &["kernel", path, says],
        );
    }
}

#[test]
fn root_file_systems() {
    let dir = Dir::new();
    for (name, content, says) in [
        (
            "gzip",
            &b"\x1f\x8b\x08 compressed archives are not read"[..],
            "no cpio archive",
        ),
        ("empty", b"", "no cpio archive"),
    ] {
        let path = dir.file(name, content);
        let mut command = dir.ringlet(&exiting());
        refused(
            command.arg("--rootfs").arg(&path),
            &["root file system", name, says],
        );
    }
    for (path, says) in [
        ("/does/not/exist", "No such file"),
        ("/dev/null", "not a regular file"),
    ] {
        refused(
            dir.ringlet(&exiting()).args(["--rootfs", path]),
            &[path, says],
        );
    }
    // Nobody waits for the other end of a FIFO.
    let fifo = dir.file("fifo", b"").display().to_string();
    fs::remove_file(&fifo).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    for option in ["--rootfs", "--kernel"] {
        let mut command = dir.ringlet(&exiting());
        refused(command.args([option, &fifo]), &[&fifo, "regular file"]);
    }
    let mut command = dir.ringlet(&exiting());
    refused(command.args(["--rootfs", "two\nlines"]), &["two\\nlines"]);
    let large = dir.file("large", b"070701");
    fs::File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    let mut command = dir.ringlet(&exiting());
    refused(
        command.args(["--mem", "64M", "--rootfs"]).arg(&large),
        &["large", "--mem"],
    );
}

#[test]
fn images_that_are_nowhere() {
    let dir = Dir::new();
    let mut command = dir.ringlet(&exiting());
    command.env_remove("RINGLET_KERNEL");
    refused(&mut command, &["guest kernel", "make", "--kernel"]);
    let mut command = dir.ringlet(&exiting());
    command.env_remove("RINGLET_ROOTFS");
    refused(&mut command, &["root file system", "make", "--rootfs"]);
}

#[test]
fn disks() {
    let dir = Dir::new();
    let odd = dir.file("odd", &[7; 1000]);
    let empty = dir.file("empty", b"");
    for (disk, says) in [
        ("/does/not/exist".to_owned(), "No such file"),
        (dir.path().display().to_string(), "directory"),
        ("/dev/null".to_owned(), "character device"),
        (odd.display().to_string(), "multiple of 512"),
        (empty.display().to_string(), "empty"),
    ] {
        refused(
            dir.ringlet(&exiting()).args(["--disk", &disk]),
            &["disk", &disk, says],
        );
    }
    assert_eq!(fs::read(&odd).unwrap(), [7; 1000]);

    let good = dir.file("good", &[9; 4096]);
    let good = good.display().to_string();
    let mut twice = dir.ringlet(&exiting());
    refused(
        twice.args(["--disk", &good, "--disk", &good]),
        &[&good, "in use"],
    );
    let mut mixed = dir.ringlet(&exiting());
    let read_only = format!("{good},ro");
    refused(
        mixed.args(["--disk", &good, "--disk", &read_only]),
        &[&good, "in use"],
    );
    let mut readers = dir.ringlet(&exiting());
    let output = finish(readers.args(["--disk", &read_only, "--disk", &read_only]));
    stderr(&output, 0);
    let many: Vec<_> = (0..18).flat_map(|_| ["--disk", &read_only]).collect();
    refused(
        dir.ringlet(&exiting()).args(many),
        &["18 disks", "at most 17"],
    );
    assert_eq!(fs::read(dir.path().join("good")).unwrap(), [9; 4096]);
}

#[test]
fn no_kvm() {
    let dir = Dir::new();
    let script = "mount -t tmpfs none /dev && exec \"$@\"";
    let ringlet = dir.ringlet(&exiting());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(ringlet.get_program()).args(ringlet.get_args());
    for (name, value) in ringlet.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.args(["--accel", "kvm"]);
    refused(&mut command, &["/dev/kvm", "No such file", "kvm_intel"]);
}

#[test]
fn help_version_and_completions_go_to_stdout() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringlet"))
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(output.stderr, b"");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["--version"]).starts_with("ringlet 0."));
    let help = run(&["run", "--help"]);
    for word in [
        "--cpus", "--mem", "--disk", "--env", "--rootfs", "--kernel", "--mode", "--gdb",
    ] {
        assert!(help.contains(word), "{word}");
    }
    for word in [
        "--kernel-log",
        "--timeline",
        "PROGRAM",
        "125",
        "127",
        "RINGLET_LOG",
    ] {
        assert!(help.contains(word), "{word}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            run(&["completions", shell]).contains("kernel-log"),
            "{shell}"
        );
    }
}
