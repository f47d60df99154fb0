//! QEMU's command line, and the descriptors that go with it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use ringlet_abi::console::{FIRST_PORT, PORTS, SIZE_PORT};
use ringlet_abi::{REPORT_IRQ, REPORT_PORT};
use ringlet_devices::block;

use super::process::Process;
use crate::config::Config;
use crate::jail::ProgramJail;

/// With the second I/O APIC, which there is with ACPI only, there are more places for devices. Then
/// QEMU does not announce them on the kernel's command line, which is all that it knows.
const MACHINE: &str = "microvm,acpi=on,ioapic2=on,pit=on,pic=on,rtc=on,memory-backend=ram";
/// The places: addresses and interrupts one behind the other, counted from here on.
const VIRTIO_BASE: u64 = 0xfeb0_0000;
const VIRTIO_SIZE: u64 = 512;
const VIRTIO_IRQ: u32 = 24;
/// The first place is left free: QEMU takes pin 0 of any I/O APIC for the timer's, and has its
/// interrupt come in at pin 2.
const FIRST_PLACE: u32 = 1;
/// QEMU reserves port 0 for a console of the kind that serves all streams.
const FIRST: u32 = 1;

/// System calls that QEMU has no use for here: its own filter.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// QEMU as it will be started.
pub(super) struct Launch {
    arguments: Vec<OsString>,
    /// What it inherits.
    passed: Vec<OwnedFd>,
    next_place: u32,
    command_line: String,
}

impl Launch {
    /// A machine with CPUs, kernel, `initrd` and `memory`, and no devices yet.
    pub(super) fn new(config: &Config, initrd: File, memory: File) -> Self {
        let mut launch = Self {
            arguments: Vec::new(),
            passed: Vec::new(),
            next_place: FIRST_PLACE,
            command_line: format!(
                "{FIRST_PORT}={FIRST} ringlet.cpus={} loglevel={} mode={} {}",
                config.cpus, config.kernel_log, config.mode, config.append
            ),
        };
        for flag in ["-nodefaults", "-no-user-config"] {
            launch.arguments.push(flag.into());
        }
        let initrd = launch.pass(initrd.into());
        let memory = launch.pass(memory.into());
        for (option, value) in [
            (
                "-object",
                format!(
                    "memory-backend-file,id=ram,size={}B,mem-path={memory},share=on",
                    config.memory
                ),
            ),
            ("-machine", MACHINE.to_owned()),
            ("-accel", "tcg".to_owned()),
            ("-cpu", "max".to_owned()),
            ("-smp", config.cpus.to_string()),
            ("-m", format!("size={}B", config.memory)),
            ("-display", "none".to_owned()),
            // A guest that resets itself stays as it is, to be looked at.
            ("-action", "reboot=shutdown,shutdown=pause".to_owned()),
            ("-global", "virtio-mmio.force-legacy=false".to_owned()),
            ("-initrd", initrd),
            ("-sandbox", SANDBOX.to_owned()),
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

    /// Adds a second serial port, which asks the kernel for reports; gives the other end, which does
    /// not block.
    ///
    /// # Errors
    ///
    /// Those of socketpair(2).
    pub(super) fn add_request_port(&mut self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let fd = theirs.as_raw_fd();
        self.pass(theirs.into());
        self.option("-chardev", format!("socket,id=requests,fd={fd}"));
        self.option(
            "-device",
            format!("isa-serial,chardev=requests,iobase={REPORT_PORT:#x},irq={REPORT_IRQ}"),
        );
        Ok(ours)
    }

    /// Adds the console with a port for each standard stream, and one for the terminal's size; gives
    /// the other ends.
    ///
    /// # Errors
    ///
    /// Those of socketpair(2).
    pub(super) fn add_console(&mut self) -> io::Result<[UnixStream; PORTS.len() + 1]> {
        let ports = FIRST + PORTS.len() as u32 + 1;
        self.device(&format!("virtio-serial-device,max_ports={ports}"));
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
        Ok([add(input)?, add(output)?, add(error)?, add(SIZE_PORT)?])
    }

    /// Adds the entropy device.
    pub(super) fn add_entropy(&mut self) {
        self.device("virtio-rng-device");
    }

    /// Adds a disk that is served at the other end of `socket`.
    pub(super) fn add_disk(&mut self, socket: UnixStream) {
        let fd = socket.as_raw_fd();
        self.passed.push(socket.into());
        self.option("-chardev", format!("socket,id=disk{fd},fd={fd}"));
        self.device(&format!(
            "vhost-user-blk,chardev=disk{fd},queue-size={}",
            block::QUEUE_SIZE
        ));
    }

    /// Adds a share with so many request queues that is served at the other end of `socket`.
    pub(super) fn add_share(&mut self, socket: UnixStream, tag: &str, request_queues: u32) {
        let fd = socket.as_raw_fd();
        self.passed.push(socket.into());
        self.option("-chardev", format!("socket,id=share{fd},fd={fd}"));
        let queue_size = ringlet_abi::fs::QUEUE_SIZE;
        self.device(&format!(
            "vhost-user-fs-device,chardev=share{fd},tag={tag},queue-size={queue_size},\
             num-request-queues={request_queues}"
        ));
    }

    /// Adds a connection to the monitor, whose other end this gives.
    ///
    /// # Errors
    ///
    /// Those of socketpair(2).
    pub(super) fn add_monitor(&mut self, name: &str) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let fd = theirs.as_raw_fd();
        self.passed.push(theirs.into());
        self.option("-chardev", format!("socket,id={name},fd={fd}"));
        self.option("-mon", format!("chardev={name},mode=control"));
        Ok(ours)
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

    /// Starts QEMU, once, within `jail`.
    ///
    /// # Errors
    ///
    /// Those of [`Process::start`].
    pub(super) fn start(&mut self, qemu: &Path, jail: &ProgramJail) -> io::Result<Process> {
        let mut command = Command::new(qemu);
        command.args(self.arguments.drain(..));
        command.args(["-append", &self.command_line]);
        log::debug!("{command:?}");
        // The copies here close with that: who reads the other ends sees the end of QEMU.
        let passed: Vec<_> = self.passed.drain(..).collect();
        Process::start(&mut command, &passed, jail)
    }

    /// Adds a virtio device in the next place.
    fn device(&mut self, device: &str) {
        let place = self.next_place;
        self.next_place += 1;
        self.option("-device", format!("{device},bus=virtio-mmio-bus.{place}"));
        let base = VIRTIO_BASE + u64::from(place) * VIRTIO_SIZE;
        let irq = VIRTIO_IRQ + place;
        let announced = format!(" virtio_mmio.device={VIRTIO_SIZE}@{base:#x}:{irq}");
        self.command_line.push_str(&announced);
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
