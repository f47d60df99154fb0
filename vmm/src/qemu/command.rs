//! QEMU's command line, and the descriptors that go with it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use ringlet_abi::console::{FIRST_PORT, PORTS};
use ringlet_devices::block::{self, Access, Disk};

use super::process::Process;
use crate::config::Config;

/// Without ACPI the devices are announced on the kernel's command line, which is all it knows.
const MACHINE: &str = "microvm,acpi=off,pit=on,pic=on,rtc=on";
/// QEMU reserves port 0 for a console of the kind that serves all streams.
const FIRST: u32 = 1;

/// QEMU as it will be started.
pub(super) struct Launch {
    arguments: Vec<OsString>,
    /// What it inherits.
    passed: Vec<OwnedFd>,
    disks: usize,
}

impl Launch {
    /// A machine with memory, CPUs, kernel and `initrd`, and no devices yet.
    pub(super) fn new(config: &Config, initrd: File) -> Self {
        let mut launch = Self {
            arguments: Vec::new(),
            passed: Vec::new(),
            disks: 0,
        };
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            launch.arguments.push(flag.into());
        }
        let initrd = launch.pass(initrd.into());
        for (option, value) in [
            ("-machine", MACHINE.to_owned()),
            ("-accel", "tcg".to_owned()),
            ("-cpu", "max".to_owned()),
            ("-smp", config.cpus.to_string()),
            ("-m", format!("size={}B", config.memory)),
            ("-display", "none".to_owned()),
            ("-global", "virtio-mmio.force-legacy=false".to_owned()),
            ("-initrd", initrd),
            (
                "-append",
                format!(
                    "{FIRST_PORT}={FIRST} ringlet.cpus={} loglevel={} mode={} {}",
                    config.cpus, config.kernel_log, config.mode, config.append
                ),
            ),
        ] {
            launch.option(option, value);
        }
        launch.option("-kernel", &config.kernel);
        launch
    }

    /// Has the serial port written to a pipe, whose other end this gives.
    ///
    /// # Errors
    ///
    /// Those of pipe(2).
    pub(super) fn add_serial_port(&mut self) -> io::Result<PipeReader> {
        // Not a socket: that would be full after some hundred writes of one byte.
        let (reader, writer) = io::pipe()?;
        let path = self.pass(writer.into());
        self.option("-chardev", format!("file,id=serial,path={path}"));
        self.option("-serial", "chardev:serial");
        Ok(reader)
    }

    /// Adds the console with a port for each standard stream; gives the other ends.
    ///
    /// # Errors
    ///
    /// Those of socketpair(2).
    pub(super) fn add_console(&mut self) -> io::Result<[UnixStream; PORTS.len()]> {
        let ports = FIRST + PORTS.len() as u32;
        self.option("-device", format!("virtio-serial-device,max_ports={ports}"));
        let mut add = |(number, name): (u32, &str)| {
            let (ours, theirs) = UnixStream::pair()?;
            let fd = theirs.as_raw_fd();
            self.pass(theirs.into());
            self.option("-chardev", format!("socket,id={name},fd={fd}"));
            let number = FIRST + number;
            self.option(
                "-device",
                format!("virtserialport,nr={number},name={name},chardev={name}"),
            );
            io::Result::Ok(ours)
        };
        let [input, output, error] = PORTS;
        Ok([add(input)?, add(output)?, add(error)?])
    }

    /// Adds the entropy device.
    pub(super) fn add_entropy(&mut self) {
        self.option("-device", "virtio-rng-device");
    }

    /// Adds `disk`, by its descriptor: its lock holds as long as QEMU lives.
    ///
    /// # Errors
    ///
    /// Those of dup(2) and fstat(2).
    pub(super) fn add_disk(&mut self, disk: &Disk) -> io::Result<()> {
        let index = self.disks;
        self.disks += 1;
        let file = disk.file();
        let driver = match file.metadata()?.file_type().is_block_device() {
            true => "host_device",
            false => "file",
        };
        let on = |wanted| if wanted { "on" } else { "off" };
        let fd = file.as_fd().try_clone_to_owned()?;
        self.option("-add-fd", format!("fd={},set={index}", fd.as_raw_fd()));
        self.passed.push(fd);
        let engine = match block::has_io_uring() {
            true => "io_uring",
            false => "threads",
        };
        self.option(
            "-blockdev",
            format!(
                "driver={driver},node-name=disk{index},filename=/dev/fdset/{index},locking=off,\
                 aio={engine},cache.direct={},read-only={},discard=unmap",
                on(disk.is_direct()),
                on(disk.access() == Access::ReadOnly),
            ),
        );
        // Unless told, QEMU stops the guest when the host's disk is full.
        self.option(
            "-device",
            format!(
                "virtio-blk-device,drive=disk{index},serial=ringlet-disk{index},werror=report,\
                 rerror=report"
            ),
        );
        Ok(())
    }

    /// Waits for a debugger at `socket`, which listens.
    ///
    /// # Errors
    ///
    /// Those of dup(2).
    pub(super) fn add_debugger(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let fd = socket.try_clone_to_owned()?;
        let number = fd.as_raw_fd();
        self.passed.push(fd);
        self.option(
            "-chardev",
            format!("socket,id=gdb,fd={number},server=on,wait=off"),
        );
        self.option("-gdb", "chardev:gdb");
        self.arguments.push("-S".into());
        Ok(())
    }

    /// Starts QEMU, once.
    ///
    /// # Errors
    ///
    /// Those of [`Process::start`].
    pub(super) fn start(&mut self, qemu: &Path) -> io::Result<Process> {
        let mut command = Command::new(qemu);
        command.args(self.arguments.drain(..));
        log::debug!("{command:?}");
        // The copies here close with that: who reads the other ends sees the end of QEMU.
        let passed: Vec<_> = self.passed.drain(..).collect();
        Process::start(&mut command, &passed)
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.arguments.extend([name.into(), value.into()]);
    }

    /// Has QEMU inherit `fd`, and gives a path by which it can open that.
    fn pass(&mut self, fd: OwnedFd) -> String {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        self.passed.push(fd);
        path
    }
}
