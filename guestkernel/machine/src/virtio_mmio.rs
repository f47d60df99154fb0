//! The virtio-mmio transport, version 2, as a driver sees it (VIRTIO 1.2, 4.2).
//!
//! A register access costs tens of microseconds where the VMM is far, so each is made once and
//! none without need. Registers that select something, and the high halves of addresses, are
//! taken to be zero after a reset, and not written with zero then: the standard does not promise
//! that, but Ringlet's VMM, QEMU and Firecracker do it.

use crate::mmio::MmioRegion;
use crate::virtqueue::{SmallParts, VirtQueue};
use alloc::sync::Arc;
use virtio_spec::{DeviceStatus, F};

/// `MagicValue`: "virt".
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// The version of the interface; 1 is the legacy one.
const VERSION: u32 = 2;
/// Where the configuration space starts.
const CONFIG: u64 = 0x100;
/// Bit of `InterruptStatus`: the configuration has changed.
const CONFIG_CHANGE: u32 = 2;
/// Reads of the status after which a device that does not finish its reset is given up.
const RESET_READS: u32 = 100;

/// Registers (VIRTIO 1.2, table 4.1).
pub(crate) mod register {
    pub(crate) const MAGIC_VALUE: u64 = 0x000;
    pub(crate) const VERSION: u64 = 0x004;
    pub(crate) const DEVICE_ID: u64 = 0x008;
    pub(crate) const DEVICE_FEATURES: u64 = 0x010;
    pub(crate) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(crate) const DRIVER_FEATURES: u64 = 0x020;
    pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(crate) const QUEUE_SEL: u64 = 0x030;
    pub(crate) const QUEUE_NUM_MAX: u64 = 0x034;
    pub(crate) const QUEUE_NUM: u64 = 0x038;
    pub(crate) const QUEUE_READY: u64 = 0x044;
    pub(crate) const QUEUE_NOTIFY: u64 = 0x050;
    pub(crate) const INTERRUPT_STATUS: u64 = 0x060;
    pub(crate) const INTERRUPT_ACK: u64 = 0x064;
    pub(crate) const STATUS: u64 = 0x070;
    pub(crate) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(crate) const QUEUE_DESC_HIGH: u64 = 0x084;
    pub(crate) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(crate) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub(crate) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(crate) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
}

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VirtioError {
    /// What is there has another magic value.
    #[error("no virtio device is there")]
    NotVirtio,
    /// The interface has a version other than 2.
    #[error(
        "version {0} of virtio-mmio is not supported (QEMU: -global virtio-mmio.force-legacy=false)"
    )]
    Version(u32),
    /// The device does not offer `VIRTIO_F_VERSION_1`, or does not agree to the features chosen.
    #[error("the device does not agree to the features")]
    Features,
    /// The device has no such queue.
    #[error("the device has no queue {0}")]
    NoQueue(u32),
    /// There is no memory for the rings.
    #[error("out of memory")]
    OutOfMemory,
}

/// The registers of a virtio device, shared by its queues.
#[derive(Debug)]
pub(crate) struct Registers(MmioRegion);

impl Registers {
    /// Rings the doorbell of queue `index` (VIRTIO 1.2, 4.2.3.3).
    pub(crate) fn notify(&self, index: u32) {
        self.0.write(register::QUEUE_NOTIFY, index);
    }

    fn status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.0.read(register::STATUS) as u8)
    }

    fn set_status(&self, status: DeviceStatus) {
        self.0.write(register::STATUS, status.bits().into());
    }

    /// Resets the device; true once it is done and no longer accesses memory (VIRTIO 1.2, 2.4).
    pub(crate) fn reset(&self) -> bool {
        self.set_status(DeviceStatus::empty());
        (0..RESET_READS).any(|_| self.status().is_empty())
    }

    fn write_address(&self, low_register: u64, high_register: u64, address: u64) {
        self.0.write(low_register, address as u32);
        let high = (address >> 32) as u32;
        if high != 0 {
            self.0.write(high_register, high);
        }
    }
}

/// A virtio device that no driver has taken yet.
#[derive(Debug)]
pub struct VirtioFound {
    registers: Registers,
    device_id: u32,
}

impl VirtioFound {
    /// Looks for a device in `region`; `None` for a place that is empty (device ID 0).
    ///
    /// # Errors
    ///
    /// [`VirtioError::NotVirtio`] and [`VirtioError::Version`].
    pub fn probe(region: MmioRegion) -> Result<Option<Self>, VirtioError> {
        if region.length() < CONFIG || region.read(register::MAGIC_VALUE) != MAGIC {
            return Err(VirtioError::NotVirtio);
        }
        let version = region.read(register::VERSION);
        if version != VERSION {
            return Err(VirtioError::Version(version));
        }
        let device_id = region.read(register::DEVICE_ID);
        Ok((device_id != 0).then_some(Self {
            registers: Registers(region),
            device_id,
        }))
    }

    /// What kind of device it is (VIRTIO 1.2, chapter 5).
    pub fn device_id(&self) -> u32 {
        self.device_id
    }

    /// Resets the device and agrees on features: those of `wanted` that it offers, and those of
    /// the transport and the queues (`VERSION_1`, `RING_EVENT_IDX`, `RING_INDIRECT_DESC`).
    ///
    /// # Errors
    ///
    /// [`VirtioError::Features`].
    pub fn negotiate(self, wanted: u64) -> Result<VirtioSetup, VirtioError> {
        let registers = self.registers;
        let region = &registers.0;
        // Reset without waiting: a device that was not used yet has nothing to finish.
        registers.set_status(DeviceStatus::empty());
        registers.set_status(DeviceStatus::ACKNOWLEDGE);
        registers.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        let low = region.read(register::DEVICE_FEATURES);
        region.write(register::DEVICE_FEATURES_SEL, 1);
        let high = region.read(register::DEVICE_FEATURES);
        let offered = u64::from(high) << 32 | u64::from(low);
        let ours = ring_features::VERSION_1 | ring_features::EVENT_IDX | ring_features::INDIRECT;
        let features = offered & (wanted | ours);
        region.write(register::DRIVER_FEATURES, features as u32);
        region.write(register::DRIVER_FEATURES_SEL, 1);
        region.write(register::DRIVER_FEATURES, (features >> 32) as u32);
        let agreed = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
        registers.set_status(agreed);
        let is_agreed = registers.status().contains(DeviceStatus::FEATURES_OK);
        if features & ring_features::VERSION_1 == 0 || !is_agreed {
            registers.set_status(DeviceStatus::FAILED);
            return Err(VirtioError::Features);
        }
        Ok(VirtioSetup {
            registers: Arc::new(registers),
            features,
            selected: 0,
        })
    }
}

/// The features that queues and transport know of themselves, as bits.
pub(crate) mod ring_features {
    use super::F;

    pub(crate) const VERSION_1: u64 = F::VERSION_1.bits().to_ne() as u64;
    pub(crate) const EVENT_IDX: u64 = F::EVENT_IDX.bits().to_ne() as u64;
    pub(crate) const INDIRECT: u64 = F::INDIRECT_DESC.bits().to_ne() as u64;
}

/// A virtio device between agreement on its features and the start of its work.
#[derive(Debug)]
pub struct VirtioSetup {
    registers: Arc<Registers>,
    features: u64,
    /// What `QueueSel` holds.
    selected: u32,
}

impl VirtioSetup {
    /// The features agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Reads 32 bits of the configuration space; all ones beyond its end.
    ///
    /// # Panics
    ///
    /// If `offset` is no multiple of 4.
    pub fn config(&self, offset: u64) -> u32 {
        config(&self.registers, offset)
    }

    /// Sets up queue `index` with the largest size the device allows, `max_size` at most, and
    /// room for small parts of 16 bytes.
    ///
    /// # Errors
    ///
    /// [`VirtioError::NoQueue`] and [`VirtioError::OutOfMemory`].
    pub fn queue(&mut self, index: u32, max_size: u16) -> Result<VirtQueue, VirtioError> {
        self.queue_for(index, max_size, SmallParts::default())
    }

    /// As [`queue`](Self::queue), for requests whose headers and replies are no larger than
    /// `small` says.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue).
    ///
    /// # Panics
    ///
    /// If `small` is more than fits in a page.
    pub fn queue_for(
        &mut self,
        index: u32,
        max_size: u16,
        small: SmallParts,
    ) -> Result<VirtQueue, VirtioError> {
        let region = &self.registers.0;
        if self.selected != index {
            region.write(register::QUEUE_SEL, index);
            self.selected = index;
        }
        let offered = region.read(register::QUEUE_NUM_MAX);
        let size = u32::from(max_size.min(VirtQueue::MAX_SIZE)).min(offered);
        // A split queue's size is a power of two (VIRTIO 1.2, 2.7).
        let size = match size.checked_ilog2() {
            Some(order) => 1 << order,
            None => return Err(VirtioError::NoQueue(index)),
        };
        let queue = VirtQueue::new(self.registers.clone(), index, size, small, self.features)
            .map_err(|_| VirtioError::OutOfMemory)?;
        let rings = queue.addresses();
        region.write(register::QUEUE_NUM, size.into());
        let registers = &self.registers;
        registers.write_address(
            register::QUEUE_DESC_LOW,
            register::QUEUE_DESC_HIGH,
            rings.descriptors,
        );
        registers.write_address(
            register::QUEUE_DRIVER_LOW,
            register::QUEUE_DRIVER_HIGH,
            rings.available,
        );
        registers.write_address(
            register::QUEUE_DEVICE_LOW,
            register::QUEUE_DEVICE_HIGH,
            rings.used,
        );
        region.write(register::QUEUE_READY, 1);
        Ok(queue)
    }

    /// Lets the device work.
    pub fn start(self) -> VirtioTransport {
        self.registers.set_status(
            DeviceStatus::ACKNOWLEDGE
                | DeviceStatus::DRIVER
                | DeviceStatus::FEATURES_OK
                | DeviceStatus::DRIVER_OK,
        );
        VirtioTransport {
            registers: self.registers,
            features: self.features,
        }
    }
}

/// A virtio device at work.
#[derive(Debug)]
pub struct VirtioTransport {
    registers: Arc<Registers>,
    features: u64,
}

impl VirtioTransport {
    /// The features agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Reads 32 bits of the configuration space; all ones beyond its end.
    ///
    /// # Panics
    ///
    /// If `offset` is no multiple of 4.
    pub fn config(&self, offset: u64) -> u32 {
        config(&self.registers, offset)
    }

    /// Takes back the device's interrupt, where that is level-triggered; true if it says that the
    /// configuration has changed (VIRTIO 1.2, 4.2.2).
    pub fn acknowledge_interrupt(&self) -> bool {
        let region = &self.registers.0;
        let status = region.read(register::INTERRUPT_STATUS);
        if status != 0 {
            region.write(register::INTERRUPT_ACK, status);
        }
        status & CONFIG_CHANGE != 0
    }

    /// Whether the device says that it has failed (`DEVICE_NEEDS_RESET`).
    pub fn has_failed(&self) -> bool {
        self.registers
            .status()
            .contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }
}

fn config(registers: &Registers, offset: u64) -> u32 {
    assert!(offset.is_multiple_of(4));
    match CONFIG.checked_add(offset) {
        Some(at) if at < registers.0.length() => registers.0.read(at),
        _ => u32::MAX,
    }
}
