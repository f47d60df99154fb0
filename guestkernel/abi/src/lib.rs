//! What the VMM and the guest kernel agree on: addresses, registers, boot modules.
//!
//! The kernel is loaded by PVH (the `hvm_start_info` of Xen's public headers): `rbx` holds the
//! physical address of the start info; modules carry the initramfs and the [`ProcessSpec`], told
//! apart by the module's own command line ([`MODULE_INITRAMFS`], [`MODULE_PROCESS`]). Under
//! another VMM there may be one module without a command line: it is the initramfs, perhaps with the
//! process behind it ([`Footer`]); else the process is taken from the kernel's command line.
//!
//! The kernel command line holds one `virtio_mmio.device=SIZE@BASE:IRQ` for each device, and
//! `ringlet.control=BASE` where the control page exists, `ringlet.cpus=N` where there are several,
//! [`console::FIRST_PORT`], `loglevel=LEVEL` and `mode=MODE`; what follows a word `--` is the
//! program and its arguments, where nothing else names it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod missing;
mod mount;
pub mod names;
mod process;

pub use mount::{Mount, MountAccess, MountSource};
pub use process::{Footer, ProcessSpec, ProcessSpecError, StreamSet, TerminalSize, User};

/// CPUs that the kernel can have.
pub const MAX_CPUS: usize = 64;

/// Guest RAM lies below this address and, what does not fit, from [`HIGH_RAM_BASE`] on.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// Where RAM continues above the 32-bit hole.
pub const HIGH_RAM_BASE: u64 = 0x1_0000_0000;

/// Physical address of the control page ([`control`]); also on the command line as
/// `ringlet.control=0xd0000000`.
pub const CONTROL_BASE: u64 = 0xd000_0000;
/// The first virtio-mmio device; device `i` is at `VIRTIO_BASE + i * VIRTIO_SIZE`.
pub const VIRTIO_BASE: u64 = 0xd000_1000;
/// Bytes of MMIO space for each virtio-mmio device.
pub const VIRTIO_SIZE: u64 = 0x1000;
/// The IOAPIC pin of the first virtio-mmio device; device `i` has pin `VIRTIO_IRQ + i`.
///
/// The VMM raises them edge-triggered (an irqfd without resampling), so a kernel that sees the
/// control page need not read or acknowledge `InterruptStatus` for used buffers.
pub const VIRTIO_IRQ: u32 = 5;
/// Devices that have a pin of their own on the 24-pin IOAPIC.
pub const VIRTIO_MAX: u32 = 24 - VIRTIO_IRQ;

/// Command line of the boot module that is the initramfs (cpio newc).
pub const MODULE_INITRAMFS: &str = "initramfs";
/// Command line of the boot module that is an encoded [`ProcessSpec`].
pub const MODULE_PROCESS: &str = "process";
/// What the command line of a boot module starts with that is an EROFS image: its name follows. Such
/// a module may lie outside of RAM, and must not be written.
pub const MODULE_IMAGE: &str = "image:";

/// TSC cycles that the boot code's loop at CPL 0 ([`control::ModeChoice`]) takes where each instruction
/// there is emulated, at least. It takes tens where CPL 0 is native, and thousands in an emulator
/// that translates.
pub const EMULATED_CYCLES: u32 = 10_000;

/// I/O port of the 16550 serial port: kernel log and panics; the VMM copies it to stderr.
pub const SERIAL_PORT: u16 = 0x3f8;

/// The interrupt vector by which a VMM asks the kernel to list its tasks on the serial port: a message
/// to all local APICs.
pub const REPORT_VECTOR: u32 = 0x5a;
/// I/O port and IOAPIC pin of a second serial port, where there is no control page: a byte that
/// arrives there asks for the tasks, [`REPORT_CPUS`] for what all CPUs do as well.
pub const REPORT_PORT: u16 = 0x2f8;
/// See [`REPORT_PORT`].
pub const REPORT_IRQ: u32 = 3;
/// See [`REPORT_PORT`]. The letter is that of Linux's SysRq key.
pub const REPORT_CPUS: u8 = b'l';

/// Registers of the control page: 32-bit little-endian writes; a read gives 0. Where the command
/// line announces no control page the kernel says the same on the serial port.
pub mod control {
    /// Ends the VM. The value is an encoded [`Exit`].
    pub const EXIT: u64 = 0x0;
    /// A stage of the timeline was reached: a [`Mark`] as a number.
    pub const MARK: u64 = 0x8;

    /// The kernel's mode was chosen: a [`ModeChoice`], encoded.
    pub const MODE: u64 = 0x10;

    /// The table of what the program asked for in vain is in this page of guest memory, by number:
    /// see [`missing`](super::missing).
    pub const MISSING: u64 = 0x18;

    /// Gives a block of guest memory back to the host: one of [`RELEASE_SIZE`] bytes, by number. From
    /// the end of the write on it holds zeros.
    pub const RELEASE: u64 = 0x20;
    /// Bytes of a block.
    pub const RELEASE_SIZE: u64 = 2 << 20;

    /// Starts the line on the serial port by which a kernel without a control page ends the VM:
    /// an encoded [`Exit`] in hexadecimal with `0x` follows.
    pub const SERIAL_EXIT: &str = "ringlet-control: exit ";
    /// As above, for a [`Mark`].
    pub const SERIAL_MARK: &str = "ringlet-control: mark ";
    /// As above, for a [`ModeChoice`].
    pub const SERIAL_MODE: &str = "ringlet-control: mode ";
    /// As above, for the page of [`MISSING`].
    pub const SERIAL_MISSING: &str = "ringlet-control: missing ";

    /// The stages that the guest reports through [`MARK`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u32)]
    pub enum Mark {
        /// The kernel's first instruction.
        KernelEntered = 1,
        /// Devices found, root file system unpacked.
        KernelReady = 2,
        /// Just before the program's first instruction.
        ProgramEntered = 3,
        /// The program ended.
        ProgramExited = 4,
    }

    impl Mark {
        /// The stage with that number, if there is one.
        pub fn from_number(number: u32) -> Option<Self> {
            [
                Self::KernelEntered,
                Self::KernelReady,
                Self::ProgramEntered,
                Self::ProgramExited,
            ]
            .into_iter()
            .find(|mark| *mark as u32 == number)
        }
    }

    /// In which mode the kernel runs, and what it found.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ModeChoice {
        /// The kernel runs at CPL 0 (`ring0`), not at CPL 3 (`shared`).
        pub is_ring0: bool,
        /// TSC cycles that a loop of 16 instructions took at CPL 0; at most `u32::MAX >> 1`.
        pub loop_cycles: u32,
    }

    impl ModeChoice {
        /// The register value.
        pub fn encode(self) -> u32 {
            self.loop_cycles.min(u32::MAX >> 1) << 1 | u32::from(self.is_ring0)
        }

        /// The meaning of a register value.
        pub fn decode(value: u32) -> Self {
            Self {
                is_ring0: value & 1 != 0,
                loop_cycles: value >> 1,
            }
        }
    }

    /// Why the VM ends: bits 0..16 of the register are a detail, bits 16..32 the kind.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Exit {
        /// The program exited with this status.
        Exited(u8),
        /// This signal ended the program.
        Signaled(u8),
        /// The program is not in the root file system.
        NotFound,
        /// The program is there, but cannot be executed: the detail is the errno.
        NotExecutable(u16),
        /// The kernel panicked; it has said why on the serial port.
        Panic,
        /// The root file system image cannot be used; details are on the serial port.
        BadRootfs,
        /// Guest memory does not suffice to start the program.
        OutOfMemory,
        /// The kernel cannot run in the mode asked for on this host.
        BadMode,
        /// The boot information (command line, modules) makes no sense.
        BadBoot,
    }

    impl Exit {
        /// The register value.
        pub fn encode(self) -> u32 {
            let (kind, detail) = match self {
                Self::Exited(status) => (0, u16::from(status)),
                Self::Signaled(signal) => (1, u16::from(signal)),
                Self::NotFound => (2, 0),
                Self::NotExecutable(errno) => (3, errno),
                Self::Panic => (4, 0),
                Self::BadRootfs => (5, 0),
                Self::OutOfMemory => (6, 0),
                Self::BadMode => (7, 0),
                Self::BadBoot => (8, 0),
            };
            kind << 16 | u32::from(detail)
        }

        /// The meaning of a register value; `None` for one that no kernel writes.
        pub fn decode(value: u32) -> Option<Self> {
            let detail = (value & 0xffff) as u16;
            let byte = u8::try_from(detail).ok();
            Some(match (value >> 16, detail) {
                (0, _) => Self::Exited(byte?),
                (1, 1..=64) => Self::Signaled(byte?),
                (2, 0) => Self::NotFound,
                (3, errno) => Self::NotExecutable(errno),
                (4, 0) => Self::Panic,
                (5, 0) => Self::BadRootfs,
                (6, 0) => Self::OutOfMemory,
                (7, 0) => Self::BadMode,
                (8, 0) => Self::BadBoot,
                _ => return None,
            })
        }
    }
}

/// The virtio-console device: one port for each standard stream.
pub mod console {
    /// Ports, by number and by the name that `VIRTIO_CONSOLE_PORT_NAME` gives.
    pub const PORTS: [(u32, &str); 3] = [(0, "stdin"), (1, "stdout"), (2, "stderr")];

    /// One more port where [`FIRST_PORT`] is given, if the device has it: through it the VMM says that
    /// the terminal has another size, in columns and rows of 16 bits each, little-endian. Ringlet's
    /// own device has the size in its configuration space.
    pub const SIZE_PORT: (u32, &str) = (PORTS.len() as u32, "size");
    /// Bytes of such a message.
    pub const SIZE_MESSAGE: usize = 4;

    /// In place of the columns of a [`SIZE_PORT`]'s message: standard input cannot be read any further,
    /// and what stands for the rows is the errno.
    pub const INPUT_FAILED: u16 = u16::MAX;

    /// Feature bit (of the range 50..127 that the standard leaves to device types): a chain of output
    /// may end with [`STATUS_SIZE`] writable bytes, which the device fills in when it gives the chain
    /// back: the errno of the write, 0 if it succeeded, and how many bytes were written, both `u32`
    /// little-endian. And the device says with [`EVENT_INPUT_FAILED`] why input ends, and with
    /// [`CONFIG_REFUSING`] which ports may refuse output.
    pub const FEATURE_STATUS: u64 = 63;
    /// See [`FEATURE_STATUS`].
    pub const STATUS_SIZE: usize = 8;
    /// The event of a control message: the port's input cannot be read any further; the value is the
    /// errno.
    pub const EVENT_INPUT_FAILED: u16 = 0x100;
    /// Offset in the configuration space of a `u32`, behind what the standard has there: bit N says that
    /// what is written to port N is a file, which may refuse it, and not a pipe or terminal. A program
    /// is to hear of that from its write.
    pub const CONFIG_REFUSING: u64 = 12;

    /// On the command line, without a control page: another VMM's device has such ports too, and
    /// this is what their numbers are counted from. Without it port 0 serves all three streams.
    ///
    /// There the kernel writes one byte to the port of standard input when a program first wants
    /// input: a process between the port and the real input does not know that by itself, and
    /// should not read before.
    pub const FIRST_PORT: &str = "ringlet.ports";
}

/// The virtio-fs device: nothing but what Linux's FUSE and VIRTIO 1.2 (5.11) say, in
/// `docs/virtio-fs.md`.
pub mod fs {
    /// Most request queues of a device; the queue for urgent requests comes before them.
    pub const MAX_REQUEST_QUEUES: u32 = 8;
    /// Most entries of a queue, and so most buffers of a request.
    pub const QUEUE_SIZE: u16 = 1024;
    /// Most bytes of data that one READ or WRITE moves.
    pub const MAX_TRANSFER: u32 = 1 << 20;
}

/// The virtio-blk device: one addition to the standard's, which has no status for a full host.
pub mod block {
    /// Feature bit (of the range 50..127 that the standard leaves to device types): the driver
    /// understands [`STATUS_NOSPC`]. Without it such a request fails with `VIRTIO_BLK_S_IOERR`.
    pub const FEATURE_NOSPC: u64 = 63;
    /// Request status: the host's file system or quota is full (`ENOSPC`, `EDQUOT`). The request
    /// may have been carried out in part.
    pub const STATUS_NOSPC: u8 = 3;
    /// Feature bit: the driver understands [`STATUS_FBIG`]. Without it such a request fails with
    /// `VIRTIO_BLK_S_IOERR`.
    pub const FEATURE_FBIG: u64 = 62;
    /// Request status: the host's limit of a file's size is reached (`EFBIG`).
    pub const STATUS_FBIG: u8 = 4;
}

#[cfg(test)]
mod tests {
    use super::control::{Exit, Mark, ModeChoice};

    #[test]
    fn exit_values_survive_the_register() {
        for exit in [
            Exit::Exited(0),
            Exit::Exited(255),
            Exit::Signaled(64),
            Exit::NotFound,
            Exit::NotExecutable(8),
            Exit::Panic,
            Exit::BadRootfs,
            Exit::OutOfMemory,
            Exit::BadMode,
            Exit::BadBoot,
        ] {
            assert_eq!(Exit::decode(exit.encode()), Some(exit));
        }
        assert_eq!(Exit::decode(256), None);
        assert_eq!(Exit::decode(1 << 16), None);
        assert_eq!(Exit::decode(99 << 16), None);
    }

    #[test]
    fn modes_survive_the_register() {
        for (is_ring0, loop_cycles) in [(true, 0), (false, u32::MAX >> 1)] {
            let choice = ModeChoice {
                is_ring0,
                loop_cycles,
            };
            assert_eq!(ModeChoice::decode(choice.encode()), choice);
        }
    }

    #[test]
    fn marks_are_numbered() {
        assert_eq!(Mark::from_number(3), Some(Mark::ProgramEntered));
        assert_eq!(Mark::from_number(0), None);
    }
}
