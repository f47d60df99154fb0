//! Disks: what the guest writes is on the host, what it must not write is not, and host errors
//! reach the program.

use std::fs;
use std::process::Command;

use ringlet_tests::{Disk, LoopDevice, Ringlet, container};

fn host_sha256(disk: &Disk) -> String {
    let mut command = Command::new("sha256sum");
    command.arg(disk.path());
    let text = Ringlet::command(command).output().expect_success().out();
    text.split(' ').next().unwrap().to_owned()
}

/// Hashes the disk in the guest with these options of `uring-sha256`.
fn guest_sha256(disk: &Disk, read_only: bool, options: &[&str]) -> String {
    guest_sha256_where(&disk.option(read_only), options, |_| ())
}

/// As [`guest_sha256`], with this value of `--disk` and in this environment.
fn guest_sha256_where(option: &str, options: &[&str], change: impl FnOnce(&mut Command)) -> String {
    let mut program = vec!["/bin/uring-sha256", "/dev/vda"];
    program.extend(options);
    let output = Ringlet::run(["--disk", option], program)
        .with(change)
        .output()
        .expect_code(0);
    assert!(output.err().contains("MiB/s"), "{}", output.err());
    let text = output.out();
    let (digest, name) = text.split_once("  ").unwrap();
    assert_eq!(name, "/dev/vda\n");
    digest.to_owned()
}

#[test]
fn the_digest_is_the_same() {
    for size in [512, 1536, 4096, (1 << 20) + 512, 33 << 20] {
        let disk = Disk::patterned(size);
        assert_eq!(
            guest_sha256(&disk, true, &[]),
            host_sha256(&disk),
            "{size} bytes"
        );
        disk.assert_untouched();
    }
}

#[test]
fn the_digest_is_the_same_however_it_is_read() {
    let disk = Disk::patterned((5 << 20) + 512);
    let host = host_sha256(&disk);
    for options in [
        &["--qd", "1"][..],
        &["--qd", "128", "--block", "4K"],
        &["--qd", "3", "--block", "12K"],
        &["--qd", "4", "--block", "2M"],
        &["--buffered"],
        &["--buffered", "--qd", "64", "--block", "8K"],
    ] {
        assert_eq!(guest_sha256(&disk, false, options), host, "{options:?}");
    }
    disk.assert_untouched();
}

fn dd(disk: &Disk, operands: &[&str], input: &[u8]) -> ringlet_tests::Output {
    let option = disk.option(false);
    let mut program = vec!["/bin/dd", "of=/dev/vda"];
    program.extend(operands);
    Ringlet::run(["--disk", &option], program)
        .input(input)
        .output()
}

#[test]
fn what_was_synced_is_on_the_host() {
    let disk = Disk::patterned(4 << 20);
    let mut wanted = disk.contents();
    let data = Disk::patterned(1 << 20).contents();
    let operands = ["bs=64K", "seek=16", "conv=notrunc,fsync", "status=none"];
    dd(&disk, &operands, &data).expect_success();
    wanted[1 << 20..2 << 20].copy_from_slice(&data);
    assert!(disk.contents() == wanted);
    // Part of a sector: what surrounds it stays.
    dd(
        &disk,
        &["bs=1", "seek=100", "conv=notrunc,fsync", "status=none"],
        b"hello",
    )
    .expect_success();
    wanted[100..105].copy_from_slice(b"hello");
    assert!(disk.contents() == wanted);
}

#[test]
fn what_was_written_is_there_after_a_normal_end() {
    let disk = Disk::holding(&[0; 1 << 20]);
    let data = Disk::patterned(1 << 20).contents();
    dd(&disk, &["bs=4096", "status=none"], &data).expect_success();
    assert!(disk.contents() == data);
}

#[test]
fn what_was_closed_survives_a_kill() {
    let disk = Disk::holding(&[0; 1 << 20]);
    let option = disk.option(false);
    // Closing a device writes out what is buffered.
    let script = "printf kept > /dev/vda; echo closed; read x";
    let mut running = Ringlet::run(["--disk", &option], ["sh", "-c", script]).start();
    running.stdout.wait_for(b"closed");
    running.signal(libc::SIGKILL);
    running.wait().expect_code(128 + libc::SIGKILL);
    let contents = disk.contents();
    assert!(contents.starts_with(b"kept"));
    assert!(contents[4..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_read_only_disk_is_read_only() {
    let disk = Disk::patterned(1 << 20);
    let option = disk.option(true);
    let program = ["/bin/dd", "of=/dev/vda", "bs=4096", "status=none"];
    let output = Ringlet::run(["--disk", &option], program)
        .input([0; 4096])
        .output();
    assert_eq!(output.code(), 1, "{}", output.err());
    assert!(output.err().contains("/dev/vda"), "{}", output.err());
    disk.assert_untouched();
    let output = Ringlet::run(
        ["--disk", &option],
        ["/bin/blockdev", "--getro", "/dev/vda"],
    );
    assert_eq!(output.output().expect_success().out(), "1\n");
}

#[test]
fn disks_keep_their_order() {
    let disks = [1, 2, 3].map(|byte| Disk::holding(&vec![byte; 512 * usize::from(byte)]));
    let options: Vec<_> = disks
        .iter()
        .flat_map(|disk| ["--disk".to_owned(), disk.option(true)])
        .collect();
    let output = Ringlet::run(&options, ["/bin/cat", "/dev/vda", "/dev/vdb", "/dev/vdc"]).output();
    let wanted: Vec<u8> = disks.iter().flat_map(Disk::contents).collect();
    assert!(output.expect_success().stdout == wanted);
    let program = ["/bin/blockdev", "--getsize64", "/dev/vdc"];
    let output = Ringlet::run(&options, program).output();
    assert_eq!(output.expect_success().out(), "1536\n");
}

#[test]
fn as_many_as_there_are_places_for() {
    let disks: Vec<_> = (1..=18)
        .map(|size| Disk::holding(&vec![7; 512 * size]))
        .collect();
    let options: Vec<_> = disks
        .iter()
        .flat_map(|disk| ["--disk".to_owned(), disk.option(true)])
        .collect();
    let program = ["/bin/blockdev", "--getsize64", "/dev/vdq"];
    let output = Ringlet::run(&options[..34], program).output();
    assert_eq!(output.expect_success().out(), format!("{}\n", 512 * 17));
    Ringlet::run(&options, ["/bin/true"])
        .output()
        .expect_refusal(125, "18 disks");
}

#[test]
fn a_full_host_is_enospc() {
    // A file system of its own, with room for some of the disk, which is sparse.
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=1M none "$0" && truncate -s 16M "$0/disk" &&
        "$@"; status=$?; od -An -c -N 4 "$0/disk"; exit $status"#;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script])
        .arg(dir.path());
    let disk = dir.path().join("disk");
    let options = ["--disk".as_ref(), disk.as_os_str()];
    let program = [
        "/bin/dd",
        "of=/dev/vda",
        "bs=64K",
        "conv=fsync",
        "status=none",
    ];
    let output = Ringlet::run_by(command, options, program)
        .input(vec![b'x'; 8 << 20])
        .output();
    assert_eq!(output.code(), 1, "{}", output.err());
    assert!(
        output.err().contains("No space left on device"),
        "{}",
        output.err()
    );
    // What went before is there.
    assert_eq!(output.out().split_whitespace().collect::<String>(), "xxxx");
}

#[test]
fn a_host_error_is_eio() {
    let disk = Disk::patterned(4 << 20);
    let option = disk.option(true);
    // cat reads its input to the end before it comes to the disk.
    let mut running = Ringlet::run(["--disk", &option], ["/bin/cat", "-", "/dev/vda"]).start();
    running.write(b"ready\n");
    running.stdout.wait_for(b"ready\n");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(disk.path())
        .unwrap();
    file.set_len(1 << 20).unwrap();
    let output = running.wait().expect_code(1);
    assert!(
        output.err().contains("Input/output error"),
        "{}",
        output.err()
    );
    assert!(output.stdout.len() < 4 << 20);
}

#[test]
fn devices_of_the_host() {
    // What is attached need not be a file.
    let disk = Disk::patterned(2 << 20);
    let digest = host_sha256(&disk);
    let device = LoopDevice::new(disk);
    let option = format!("{},ro", device.path());
    let output = Ringlet::run(["--disk", &option], ["/bin/uring-sha256", "/dev/vda"]).output();
    assert!(output.expect_code(0).out().starts_with(&digest));
}

#[test]
fn without_io_uring_on_the_host_threads_read_and_write() {
    let disk = Disk::patterned((5 << 20) + 512);
    let host = host_sha256(&disk);
    for options in [
        &["--qd", "1"][..],
        &["--qd", "64", "--block", "4K"],
        &["--buffered"],
    ] {
        let option = disk.option(true);
        let digest = guest_sha256_where(&option, options, container::deny_io_uring);
        assert_eq!(digest, host, "{options:?}");
    }
    disk.assert_untouched();
    let copy = [
        "/bin/dd",
        "of=/dev/vda",
        "bs=512",
        "seek=3",
        "conv=sync,fsync",
    ];
    Ringlet::run(["--disk", &disk.option(false)], copy)
        .input("text\n")
        .with(container::deny_io_uring)
        .output()
        .expect_code(0);
    let written = fs::read(disk.path()).unwrap();
    assert_eq!(&written[3 * 512..][..5], b"text\n");
}

#[test]
fn a_disk_gives_no_more_than_its_limits() {
    let disk = Disk::patterned(3 << 20);
    let option = disk.option(true);
    let time = |limit: &str, options: &[&str]| {
        let start = std::time::Instant::now();
        guest_sha256_where(&format!("{option}{limit}"), options, |_| ());
        start.elapsed().as_secs_f64()
    };
    // A burst of 1 MiB, and two seconds for the rest; of 256 requests, and two seconds for 512 more.
    assert!(time(",bps=1M", &[]) > 1.5);
    assert!(time(",iops=256", &["--block", "4K"]) > 1.5);
}
