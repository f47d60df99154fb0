//! What `ringlet` refuses: one line that names the thing, the right status, and no disk changed.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ringlet_tests::{Artifacts, Disk, Ringlet};

/// Runs `/bin/true` with these options and a disk, which must stay as it is.
#[track_caller]
fn refused(options: &[&str], code: i32, what: &str) {
    let disk = Disk::patterned(64 << 10);
    let disk_option = ["--disk".to_owned(), disk.option(false)];
    Ringlet::new(["run"])
        .args(&disk_option)
        .args(options)
        .args(["--", "/bin/true"])
        .output()
        .expect_refusal(code, what);
    disk.assert_untouched();
}

#[track_caller]
fn refused_file(option: &str, contents: &[u8], what: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, contents).unwrap();
    let path = path.to_str().unwrap();
    refused(&[option, path], 125, path);
    refused(&[option, path], 125, what);
}

#[test]
fn kernel_missing() {
    refused(&["--kernel", "/none/kernel"], 125, "/none/kernel");
}

#[test]
fn kernel_is_a_directory() {
    refused(&["--kernel", "/tmp"], 125, "/tmp");
}

#[test]
fn kernel_truncated() {
    let kernel = fs::read(Artifacts::get().kernel()).unwrap();
    for length in [1, 63, 64, 500, 4096, kernel.len() / 2] {
        refused_file("--kernel", &kernel[..length], "");
    }
}

#[test]
fn kernel_empty_or_garbage() {
    refused_file("--kernel", b"", "ELF");
    refused_file("--kernel", b"#!/bin/sh\nexit 0\n", "ELF");
    refused_file("--kernel", &[0xa5; 100_000], "ELF");
}

#[test]
fn kernel_of_another_machine() {
    let mut kernel = fs::read(Artifacts::get().kernel()).unwrap();
    // e_machine: AArch64.
    kernel[18..20].copy_from_slice(&183_u16.to_le_bytes());
    refused_file("--kernel", &kernel, "x86-64");
    // EI_CLASS: 32 bits.
    kernel[4] = 1;
    refused_file("--kernel", &kernel, "64-bit");
}

#[test]
fn kernel_without_an_entry_point() {
    refused(&["--kernel", "/bin/busybox"], 125, "PVH");
}

#[test]
fn rootfs_missing() {
    refused(&["--rootfs", "/none/rootfs"], 125, "/none/rootfs");
}

#[test]
fn rootfs_is_a_device() {
    refused(&["--rootfs", "/dev/null"], 125, "/dev/null");
}

#[test]
fn rootfs_is_of_the_hosts_kernel() {
    refused(&["--rootfs", "/proc"], 125, "/proc");
}

#[test]
fn volumes_that_cannot_be() {
    refused(&["-v", "/none/volume"], 125, "/none/volume");
    refused(&["-v", "/proc/self:/x"], 125, "/proc/self");
    refused(&["-v", "/dev/null:/x"], 125, "/dev/null");
    refused(&["-v", "/tmp:/"], 125, "--rootfs");
    refused(&["-v", "/tmp:/x", "--tmpfs", "/x"], 125, "/x");
    refused(&["--env-file", "/none/file"], 125, "/none/file");
}

/// Where the kernel cannot mount what it is told to, nothing runs.
#[test]
fn what_is_not_mounted_ends_the_start() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = vec![0; 1 << 16];
    bytes[1024..1028].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
    fs::write(image.path(), bytes).unwrap();
    let volume = format!("{}:/x", image.path().display());
    let output = Ringlet::run(["-v", &volume], ["/bin/true"]).output();
    let text = output.err();
    assert!(text.contains("mounts no images"), "{text}");
    output.expect_code(125);
}

#[test]
fn rootfs_truncated() {
    let rootfs = fs::read(Artifacts::get().rootfs()).unwrap();
    for length in [50, 4096, rootfs.len() / 2, rootfs.len() - 8192] {
        refused_file("--rootfs", &rootfs[..length], "root file system");
    }
}

#[test]
fn rootfs_empty_or_garbage() {
    refused_file("--rootfs", b"", "root file system");
    refused_file("--rootfs", &[0xa5; 100_000], "root file system");
}

#[test]
fn rootfs_larger_than_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rootfs");
    let mut image = fs::read(Artifacts::get().rootfs()).unwrap();
    image.resize(100 << 20, 0);
    fs::write(&path, &image).unwrap();
    refused(
        &["--rootfs", path.to_str().unwrap(), "--mem", "64M"],
        125,
        "--mem",
    );
}

#[test]
fn disk_missing() {
    refused(&["--disk", "/none/disk"], 125, "/none/disk");
    refused(&["--disk", "/none/disk,ro"], 125, "/none/disk");
}

#[test]
fn disk_is_a_directory() {
    refused(&["--disk", "/tmp"], 125, "/tmp");
}

#[test]
fn disk_is_a_character_device() {
    refused(&["--disk", "/dev/null"], 125, "/dev/null");
}

#[test]
fn disk_is_truncated() {
    for size in [1, 511, 513, 65535] {
        let disk = Disk::patterned(size);
        refused(&["--disk", &disk.option(false)], 125, "512");
        refused(
            &["--disk", &disk.option(true)],
            125,
            disk.path().to_str().unwrap(),
        );
        disk.assert_untouched();
    }
}

#[test]
fn disk_with_an_unknown_option() {
    let disk = Disk::patterned(4096);
    let option = format!("{},rx", disk.path().display());
    refused(&["--disk", &option], 125, "rx");
    disk.assert_untouched();
}

#[test]
fn disk_in_use() {
    let disk = Disk::patterned(1 << 20);
    let script = "echo ready; read x";
    let start = |read_only| {
        let option = disk.option(read_only);
        let mut running = Ringlet::run(["--disk", &option], ["/bin/sh", "-c", script]).start();
        running.stdout.wait_for(b"ready\n");
        running
    };
    let path = disk.path().to_str().unwrap();
    let writer = start(false);
    refused(&["--disk", &disk.option(false)], 125, path);
    refused(&["--disk", &disk.option(true)], 125, path);
    drop(writer);
    // Readers may share, but not with a writer.
    let reader = start(true);
    refused(&["--disk", &disk.option(false)], 125, path);
    Ringlet::run(["--disk", &disk.option(true)], ["/bin/true"])
        .output()
        .expect_success();
    drop(reader);
    disk.assert_untouched();
}

#[test]
fn the_same_disk_twice() {
    let disk = Disk::patterned(4096);
    let path = disk.path().to_str().unwrap();
    let option = disk.option(false);
    refused(&["--disk", &option, "--disk", &option], 125, path);
    disk.assert_untouched();
}

#[test]
fn disk_that_cannot_be_written() {
    // Root may write anything that is not on a read-only file system.
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs none "$0" && head -c 4096 /dev/zero > "$0/disk" &&
        mount -o remount,ro "$0" && exec "$@""#;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script])
        .arg(dir.path())
        .arg(Artifacts::get().ringlet());
    let disk = dir.path().join("disk");
    let disk = disk.to_str().unwrap();
    Ringlet::command(command)
        .args(["run", "--disk", disk, "--", "/bin/true"])
        .output()
        .expect_refusal(125, disk);
}

#[test]
fn too_many_disks() {
    let disk = Disk::patterned(4096);
    let option = disk.option(true);
    let options: Vec<_> = (0..60).flat_map(|_| ["--disk", &option]).collect();
    refused(&options, 125, "disks");
    disk.assert_untouched();
}

#[test]
fn memory() {
    refused(&["--mem", "1M"], 125, "--mem");
    refused(&["--mem", "100000G"], 125, "--mem");
    refused(&["--mem", "0"], 125, "--mem");
    refused(&["--mem", "-1"], 125, "-1");
    refused(&["--mem", "much"], 125, "much");
    refused(&["--mem", "99999999999999999999G"], 125, "--mem");
}

#[test]
fn memory_of_the_whole_host_and_more() {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let kibibytes: u64 = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap();
    let size = format!("{}M", kibibytes / 1024 * 2);
    refused(&["--mem", &size], 125, "--mem");
}

#[test]
fn processors() {
    refused(&["--cpus", "0"], 125, "--cpus");
    refused(&["--cpus", "many"], 125, "many");
    refused(&["--cpus", "1000000"], 125, "--cpus");
}

#[test]
fn options() {
    refused(&["--mode", "none"], 125, "none");
    refused(&["--kernel-log", "loud"], 125, "loud");
    refused(&["--nonsense"], 125, "--nonsense");
    refused(&["--env", "=value"], 125, "=value");
    refused(&["--env", ""], 125, "--env");
}

#[test]
fn no_program() {
    for arguments in [&["run"][..], &["run", "--"], &["run", "--mem", "128M"]] {
        Ringlet::new(arguments)
            .output()
            .expect_refusal(125, "PROGRAM");
    }
}

#[test]
fn commands() {
    Ringlet::new(["walk"]).output().expect_refusal(125, "walk");
    Ringlet::new(["completions", "csh"])
        .output()
        .expect_refusal(125, "csh");
    Ringlet::new(["completions"]).output().expect_code(125);
}

/// `ringlet run` where `/dev` holds only what the script leaves there.
fn without_devices(script: &str) -> Ringlet {
    let script = format!(r#"mount -t tmpfs none /dev && {script} exec "$@""#);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(Artifacts::get().ringlet());
    Ringlet::command(command).args(["run", "--accel", "kvm", "--", "/bin/true"])
}

#[test]
fn no_kvm() {
    without_devices("").output().expect_refusal(125, "/dev/kvm");
}

#[test]
fn kvm_is_something_else() {
    let output = without_devices("mknod /dev/kvm c 1 3 &&").output();
    output.expect_refusal(125, "/dev/kvm");
}

#[test]
fn kvm_without_permission() {
    let dir = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::get();
    // Where anybody may go, which is not said of the build directory.
    let place = |from: &Path| -> OsString {
        let to = dir.path().join(from.file_name().unwrap());
        // By a process of its own: a copy of ours could be open in another test's child still, and
        // what is open for writing cannot be executed.
        let status = Command::new("cp").args([from, &to]).status();
        assert!(status.unwrap().success());
        to.into()
    };
    let ringlet = place(&artifacts.ringlet());
    let options = [
        "--kernel".into(),
        place(&artifacts.kernel()),
        "--rootfs".into(),
        place(&artifacts.rootfs()),
    ];
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), mode).unwrap();
    let mut command = Command::new(ringlet);
    command.uid(65534).gid(65534);
    command.args(["run", "--accel", "kvm"]);
    Ringlet::command(command)
        .args(options)
        .args(["--", "/bin/true"])
        .output()
        .expect_refusal(125, "/dev/kvm");
}
