//! Drivers of virtio devices, and the search for them.

pub mod block;
pub mod block_file;
pub mod console;
mod entropy;
mod interrupt;
pub mod virtio_fs;

use crate::command_line::parameter;
use crate::executor::add_device;
use crate::random;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use block::{BlockDevice, BlockError};
use console::{Console, ConsoleKind};
use entropy::EntropyDevice;
use interrupt::{InterruptLine, Trigger};
use machine::{MmioError, MmioRegion, PhysAddr, VirtioError, VirtioFound};
use ringlet_abi::console::FIRST_PORT;
use virtio_fs::FsDevice;
use virtio_spec::Id;

/// The devices that were found.
#[derive(Default)]
pub struct Devices {
    /// Block devices, in the order of the command line: `/dev/vda`, `/dev/vdb`, and so on.
    pub blocks: Vec<Arc<BlockDevice>>,
    /// The console.
    pub console: Option<Arc<Console>>,
    /// File systems of the host.
    pub shares: Vec<Arc<FsDevice>>,
}

/// Announces a device on the command line, as Linux wants it: `virtio_mmio.device=SIZE@BASE:IRQ`.
pub(crate) const DEVICE_PARAMETER: &str = "virtio_mmio.device=";

/// Where the command line says that a virtio-mmio device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    base: u64,
    length: u64,
    irq: u32,
}

#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Mmio(#[from] MmioError),
    #[error(transparent)]
    Virtio(#[from] VirtioError),
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// What the devices of the VMM have in common.
#[derive(Clone, Copy)]
struct Vmm {
    trigger: Trigger,
    console: ConsoleKind,
}

impl Vmm {
    fn of(command_line: &str) -> Self {
        if parameter(command_line, "ringlet.control").is_some() {
            return Self {
                trigger: Trigger::Edge,
                console: ConsoleKind::Ringlet,
            };
        }
        let first = parameter(command_line, FIRST_PORT).and_then(|first| first.parse().ok());
        Self {
            trigger: Trigger::Level,
            console: first.map_or(ConsoleKind::Single, ConsoleKind::From),
        }
    }
}

/// Starts the devices that `command_line` names ([`DEVICE_PARAMETER`]). What makes no sense is logged and left out.
pub fn probe(command_line: &str) -> Devices {
    let options = || command_line.split_ascii_whitespace();
    let vmm = Vmm::of(command_line);
    let mut devices = Devices::default();
    for option in options() {
        let Some(text) = option.strip_prefix(DEVICE_PARAMETER) else {
            continue;
        };
        let started = match parse_place(text) {
            Some(place) => start(place, vmm, &mut devices),
            None => {
                log::warn!("{option}: not SIZE@BASE:IRQ");
                continue;
            }
        };
        if let Err(error) = started {
            log::warn!("{option}: {error}");
        }
    }
    devices
}

fn start(place: Place, vmm: Vmm, devices: &mut Devices) -> Result<(), ProbeError> {
    let region = MmioRegion::claim(PhysAddr(place.base), place.length)?;
    let Some(found) = VirtioFound::probe(region)? else {
        return Ok(());
    };
    let line = || InterruptLine::enable(place.irq, vmm.trigger);
    match u8::try_from(found.device_id()).map(Id::from) {
        Ok(Id::Block) => {
            let block = BlockDevice::start(found, line())?;
            add_device(block.clone());
            devices.blocks.push(block);
        }
        Ok(Id::Console) if devices.console.is_none() => {
            let console = Console::start(found, line(), vmm.console)?;
            add_device(console.clone());
            devices.console = Some(console);
        }
        Ok(Id::Fs) => {
            let share = FsDevice::start(found, line())?;
            add_device(share.clone());
            devices.shares.push(share);
        }
        Ok(Id::Rng) => random::set_source(Box::new(EntropyDevice::start(found)?)),
        _ => log::info!("no driver for virtio device {}", found.device_id()),
    }
    Ok(())
}

/// Reads `SIZE@BASE:IRQ`, with an ID after another colon that is ignored.
fn parse_place(text: &str) -> Option<Place> {
    let (length, rest) = text.split_once('@')?;
    let (base, rest) = rest.split_once(':')?;
    let irq = rest.split(':').next()?;
    Some(Place {
        base: parse_number(base)?,
        length: parse_number(length)?,
        irq: u32::try_from(parse_number(irq)?).ok()?,
    })
}

/// Reads a number as Linux's `memparse` does: decimal or, after `0x`, hexadecimal, with a unit of
/// K, M or G.
fn parse_number(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    // `from_str_radix` would take a sign.
    if !digits.starts_with(|digit: char| digit.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix)
        .ok()?
        .checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::hosted::device::SimulatedDevice;
    use machine::hosted::models::{SimulatedConsole, SimulatedDisk};

    #[test]
    fn places_are_read_as_linux_reads_them() {
        let place = |length, base, irq| Some(Place { base, length, irq });
        assert_eq!(
            parse_place("0x1000@0xd0001000:5"),
            place(0x1000, 0xd000_1000, 5)
        );
        assert_eq!(
            parse_place("4K@0xd0000000:5:1"),
            place(4096, 0xd000_0000, 5)
        );
        assert_eq!(
            parse_place("512@0xfeb00e00:12"),
            place(512, 0xfeb0_0e00, 12)
        );
    }

    #[test]
    fn text_that_names_no_place_is_refused() {
        for text in [
            "",
            "@",
            ":",
            "@:",
            "1@2",
            "K@0x0:1",
            "1@0x:1",
            "+1@2:3",
            "1@-2:3",
            "1@2:+3",
            "é@2:3",
            "4é@2:3",
            "1@2:4294967296",
            "18446744073709551615K@2:3",
            "99999999999999999999@2:3",
        ] {
            assert_eq!(parse_place(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_devices_of_the_command_line_are_started() {
        let (_, disk) = SimulatedDevice::attach(SimulatedDisk::numbered(8));
        let (_, other) = SimulatedDevice::attach(SimulatedDisk::numbered(16));
        let (_, console) = SimulatedDevice::attach(SimulatedConsole::new());
        let line = alloc::format!(
            "quiet virtio_mmio.device=4K@{disk:#x}:5 virtio_mmio.device=4K@{console:#x}:6 \
             virtio_mmio.device=4K@{other:#x}:7 virtio_mmio.device=4K@{disk:#x}:8 \
             ringlet.control=0xd0000000"
        );
        let devices = probe(&line);
        let sizes: Vec<_> = devices.blocks.iter().map(|block| block.sectors()).collect();
        assert_eq!(
            sizes,
            [8, 16],
            "a device that is named twice is started once"
        );
        assert!(devices.console.is_some());
    }

    #[test]
    fn hostile_command_lines_find_nothing() {
        for line in [
            "virtio_mmio.device= virtio_mmio.device=4K@0:0 virtio_mmio.device=0@0xd0000000:5",
            "virtio_mmio.device=0xffffffffffffffff@0xffffffffffffffff:4294967295",
            "virtio_mmio.device=4K@0xfee00000:3 virtio_mmio.device=4K@0xd7000000:3",
            "virtio_mmio.device=4@0xd7000000:3",
        ] {
            let devices = probe(line);
            assert!(
                devices.blocks.is_empty() && devices.console.is_none(),
                "{line}"
            );
        }
    }
}
