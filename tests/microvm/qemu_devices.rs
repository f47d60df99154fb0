//! The kernel on QEMU's own devices, started by hand as `docs/running-under-qemu.md` says, with
//! features that are missing and queues of other sizes.

use std::fs;
use std::process::{Command, Stdio};

use ringlet_tests::{Artifacts, Disk, Ringlet};

const MICROVM: &str = "microvm,acpi=off,pit=on,pic=on,rtc=on";
const SERIAL: &str = "virtio-serial-device";
const MODERN: &[&str] = &["-global", "virtio-mmio.force-legacy=false"];

/// What a guest said.
struct Said {
    /// On the serial port.
    serial: String,
    /// On the console.
    console: String,
}

/// Runs a program on machine type `machine`, with these devices beside a console.
fn qemu(machine: &str, options: &[&str], console: &str, program: &str) -> Said {
    qemu_with("", machine, options, console, program)
}

/// The same, with parameters for the kernel.
fn qemu_with(
    parameters: &str,
    machine: &str,
    options: &[&str],
    console: &str,
    program: &str,
) -> Said {
    let dir = tempfile::tempdir().unwrap();
    let written = dir.path().join("console");
    let artifacts = Artifacts::get();
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-M", machine, "-accel", "tcg", "-cpu", "max", "-m", "256M"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none"])
        .args(["-chardev", "stdio,id=serial", "-serial", "chardev:serial"])
        .arg("-chardev")
        .arg(format!("file,id=console,path={}", written.display()))
        .args(options);
    if !console.is_empty() {
        command.args(["-device", console]);
        command.args(["-device", "virtconsole,chardev=console"]);
    }
    command
        .arg("-kernel")
        .arg(artifacts.kernel())
        .arg("-initrd")
        .arg(artifacts.rootfs())
        .arg("-append")
        .arg(format!("loglevel=warn {parameters} -- {program}"));
    let output = Ringlet::command(command)
        .with(|command| {
            command.stdin(Stdio::null());
        })
        .output()
        .expect_code(0);
    Said {
        serial: output.out(),
        console: fs::read_to_string(written).unwrap_or_default(),
    }
}

/// Reads a disk in various ways, behind a block device and a console with these properties.
#[track_caller]
fn reads(block: &str, console: &str) {
    let disk = Disk::patterned((3 << 20) + 4096);
    let drive = format!(
        "driver=file,filename={},node-name=disk,read-only=on",
        disk.path().display()
    );
    let block = format!("virtio-blk-device,drive=disk{block}");
    let options = [MODERN, &["-blockdev", &drive, "-device", &block]].concat();
    let console = format!("virtio-serial-device{console}");
    let mut host = Command::new("sha256sum");
    host.arg(disk.path());
    let host = Ringlet::command(host).output().expect_success().out();
    let (digest, _) = host.split_once(' ').unwrap();
    for program in [
        "/bin/uring-sha256 /dev/vda",
        "/bin/uring-sha256 --qd 64 --block 4K /dev/vda",
        "/bin/uring-sha256 --buffered --block 256K /dev/vda",
    ] {
        let said = qemu(MICROVM, &options, &console, program);
        assert!(
            said.console.starts_with(digest),
            "{block}: {}{}",
            said.serial,
            said.console
        );
        assert!(
            said.serial.contains("ringlet-control: exit 0x0"),
            "{block}: {}",
            said.serial
        );
    }
}

#[test]
fn all_that_they_offer() {
    reads("", "");
}

#[test]
fn queues_of_other_sizes() {
    reads(",queue-size=4", "");
    reads(",queue-size=1024", "");
}

#[test]
fn interrupts_for_every_buffer() {
    reads(",event_idx=off", ",event_idx=off");
}

#[test]
fn descriptors_that_are_not_indirect() {
    reads(",indirect_desc=off", ",indirect_desc=off");
    reads(
        ",indirect_desc=off,event_idx=off,queue-size=8",
        ",indirect_desc=off,event_idx=off",
    );
}

#[test]
fn rings_that_could_be_packed() {
    reads(",packed=on", ",packed=on");
}

#[test]
fn large_sectors() {
    reads(",logical_block_size=4096,physical_block_size=4096", "");
}

/// Has a program write to a disk and gives what it said. The host checks what is there.
fn writes(block: &str) -> String {
    let disk = Disk::holding(&[1; 1 << 20]);
    let drive = format!(
        "driver=file,filename={},node-name=disk",
        disk.path().display()
    );
    let block = format!("virtio-blk-device,drive=disk{block}");
    let options = [MODERN, &["-blockdev", &drive, "-device", &block]].concat();
    let program = "/bin/dd if=/dev/zero of=/dev/vda bs=64K count=4 seek=2 conv=fsync";
    let said = qemu(MICROVM, &options, SERIAL, program);
    let contents = disk.contents();
    let is = |range: std::ops::Range<usize>, byte| contents[range].iter().all(|b| *b == byte);
    assert!(
        is(0..128 << 10, 1) && is(128 << 10..384 << 10, 0) && is(384 << 10..1 << 20, 1),
        "{block}: {}{}",
        said.serial,
        said.console
    );
    said.console
}

#[test]
fn writes_arrive_with_and_without_a_cache() {
    for block in [
        "",
        ",write-cache=off,config-wce=off",
        ",discard=off,write-zeroes=off",
    ] {
        let console = writes(block);
        assert!(console.contains("4+0 records out"), "{console}");
    }
}

#[test]
fn several_processors() {
    for mode in ["ring0", "shared"] {
        let options = [MODERN, &["-smp", "4"]].concat();
        let parameters = format!("ringlet.cpus=4 mode={mode}");
        let said = qemu_with(&parameters, MICROVM, &options, SERIAL, "/bin/nproc");
        assert_eq!(said.console.trim(), "4", "{}", said.serial);
    }
}

#[test]
fn what_is_missing_is_named() {
    let legacy = qemu(MICROVM, &[], SERIAL, "/bin/true");
    assert!(
        legacy.serial.contains("force-legacy=false"),
        "{}",
        legacy.serial
    );
    let q35 = qemu("q35", &[], "", "/bin/true");
    assert!(q35.serial.contains("-M microvm"), "{}", q35.serial);
}
