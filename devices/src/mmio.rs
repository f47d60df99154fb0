//! The virtio-mmio transport, version 2 (VIRTIO 1.2, section 4.2): registers and device status.

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::queue::QueueSetup;
use crate::{Activation, Interrupt, Memory, VirtioDevice, Virtqueue};

/// Offset of the register that the driver writes a queue's index to.
pub const NOTIFY_OFFSET: u64 = 0x50;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"RLET");
const CONFIG_OFFSET: u64 = 0x100;

const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// The registers (VIRTIO 1.2, table 4.1) by offset.
mod register {
    pub(super) const MAGIC: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE: u64 = 0x008;
    pub(super) const VENDOR: u64 = 0x00c;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(super) const QUEUE_SEL: u64 = 0x030;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x034;
    pub(super) const QUEUE_NUM: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const QUEUE_NOTIFY: u64 = super::NOTIFY_OFFSET;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const INTERRUPT_ACK: u64 = 0x064;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(super) const QUEUE_DESC_HIGH: u64 = 0x084;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub(super) const SHM_LEN_LOW: u64 = 0x0b0;
    pub(super) const SHM_BASE_HIGH: u64 = 0x0bc;
    pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
}

/// The registers of one device and the state behind them.
pub struct MmioTransport<D> {
    device: D,
    memory: Memory,
    interrupt: Arc<Interrupt>,
    doorbells: Vec<EventFd>,
    queues: Vec<QueueSetup>,
    queue_sel: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    /// The device status without DEVICE_NEEDS_RESET, which [`Interrupt`] holds.
    status: u32,
}

impl<D: VirtioDevice> MmioTransport<D> {
    /// A transport with `device` behind it, in the state of a device that was reset.
    ///
    /// # Errors
    ///
    /// Those of eventfd(2).
    pub fn new(device: D, memory: Memory) -> io::Result<Self> {
        let sizes = device.queue_sizes();
        Ok(Self {
            interrupt: Arc::new(Interrupt::new(device.name())?),
            doorbells: sizes
                .iter()
                .map(|_| EventFd::new(EFD_NONBLOCK))
                .collect::<io::Result<_>>()?,
            queues: sizes.iter().map(|size| QueueSetup::new(*size)).collect(),
            device,
            memory,
            queue_sel: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            status: 0,
        })
    }

    /// The device behind the registers.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The doorbell of each queue: to register as ioeventfds at [`NOTIFY_OFFSET`], each matching
    /// its index.
    pub fn doorbells(&self) -> &[EventFd] {
        &self.doorbells
    }

    /// The interrupt: to register as an irqfd.
    pub fn interrupt(&self) -> &Arc<Interrupt> {
        &self.interrupt
    }

    /// A read of `data.len()` bytes at `offset`.
    ///
    /// Outside configuration space only aligned reads of four bytes are defined; others give 0.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= CONFIG_OFFSET {
            self.device.read_config(offset - CONFIG_OFFSET, data);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.read_register(offset).to_le_bytes();
        }
    }

    /// A write of `data` at `offset`. What the standard does not define is ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= CONFIG_OFFSET {
            self.device.write_config(offset - CONFIG_OFFSET, data);
        } else if let Ok(word) = <[u8; 4]>::try_from(data) {
            self.write_register(offset, u32::from_le_bytes(word));
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_sel as usize);
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE => self.device.device_type(),
            register::VENDOR => VENDOR,
            register::DEVICE_FEATURES => half(self.offered(), self.device_features_sel),
            register::QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max_size.into()),
            register::QUEUE_READY => queue.map_or(0, |queue| queue.ready.into()),
            register::INTERRUPT_STATUS => self.interrupt.status(),
            register::STATUS => self.status(),
            register::CONFIG_GENERATION => self.interrupt.generation(),
            // No region of shared memory exists: its length and base read as -1.
            register::SHM_LEN_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            register::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            register::QUEUE_SEL => self.queue_sel = value,
            register::QUEUE_NOTIFY => {
                // Reached only where no ioeventfd took the write.
                if let Some(doorbell) = self.doorbells.get(value as usize) {
                    let _ = doorbell.write(1);
                }
            }
            register::INTERRUPT_ACK => self.interrupt.acknowledge(value),
            register::STATUS => self.write_status(value),
            register::DRIVER_FEATURES => self.write_driver_features(value),
            _ => self.write_queue_register(offset, value),
        }
    }

    /// The features: only between DRIVER and FEATURES_OK (VIRTIO 1.2, 3.1.1).
    fn write_driver_features(&mut self, value: u32) {
        if !self.has(VIRTIO_CONFIG_S_DRIVER) || self.has(VIRTIO_CONFIG_S_FEATURES_OK) {
            return;
        }
        match self.driver_features_sel {
            sel @ 0..=1 => set_half(&mut self.driver_features, sel, value),
            // No such feature is offered; accepting one must make FEATURES_OK fail.
            _ if value != 0 => self.driver_features |= !self.offered(),
            _ => (),
        }
    }

    /// A queue's registers: only between FEATURES_OK and DRIVER_OK.
    fn write_queue_register(&mut self, offset: u64, value: u32) {
        if !self.has(VIRTIO_CONFIG_S_FEATURES_OK)
            || self.has(VIRTIO_CONFIG_S_DRIVER_OK)
            || self.has(VIRTIO_CONFIG_S_FAILED)
        {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize) else {
            return;
        };
        if offset == register::QUEUE_READY {
            queue.ready = value & 1 != 0;
            return;
        }
        // The driver must not change a queue that is ready (VIRTIO 1.2, 4.2.2.2).
        if queue.ready {
            return;
        }
        match offset {
            register::QUEUE_NUM => match u16::try_from(value) {
                Ok(size) if size.is_power_of_two() && size <= queue.max_size => queue.size = size,
                _ => self
                    .interrupt
                    .fail(&"a queue size is no power of two or too large"),
            },
            register::QUEUE_DESC_LOW => set_half(&mut queue.descriptors, 0, value),
            register::QUEUE_DESC_HIGH => set_half(&mut queue.descriptors, 1, value),
            register::QUEUE_DRIVER_LOW => set_half(&mut queue.driver, 0, value),
            register::QUEUE_DRIVER_HIGH => set_half(&mut queue.driver, 1, value),
            register::QUEUE_DEVICE_LOW => set_half(&mut queue.device, 0, value),
            register::QUEUE_DEVICE_HIGH => set_half(&mut queue.device, 1, value),
            _ => (),
        }
    }

    fn has(&self, bit: u32) -> bool {
        self.status & bit != 0
    }

    fn status(&self) -> u32 {
        match self.interrupt.has_failed() {
            true => self.status | VIRTIO_CONFIG_S_NEEDS_RESET,
            false => self.status,
        }
    }

    /// The device status (VIRTIO 1.2, 2.1): bits are set in order, one at a time or together, and
    /// cleared only by writing 0.
    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        if value & self.status != self.status {
            log::debug!("{}: status {value:#x} clears bits", self.device.name());
            return;
        }
        for bit in [
            VIRTIO_CONFIG_S_ACKNOWLEDGE,
            VIRTIO_CONFIG_S_DRIVER,
            VIRTIO_CONFIG_S_FEATURES_OK,
            VIRTIO_CONFIG_S_DRIVER_OK,
            VIRTIO_CONFIG_S_FAILED,
        ] {
            if value & !self.status & bit != 0 {
                self.set_status_bit(bit);
            }
        }
    }

    fn set_status_bit(&mut self, bit: u32) {
        let allowed = match bit {
            VIRTIO_CONFIG_S_DRIVER => self.has(VIRTIO_CONFIG_S_ACKNOWLEDGE),
            VIRTIO_CONFIG_S_FEATURES_OK => self.has(VIRTIO_CONFIG_S_DRIVER) && self.acceptable(),
            VIRTIO_CONFIG_S_DRIVER_OK => self.has(VIRTIO_CONFIG_S_FEATURES_OK),
            _ => true,
        };
        if !allowed {
            log::debug!("{}: status bit {bit:#x} refused", self.device.name());
            return;
        }
        self.status |= bit;
        if bit == VIRTIO_CONFIG_S_DRIVER_OK {
            self.activate();
        }
    }

    /// Whether the driver's features can be granted: VERSION_1, and none that was not offered.
    fn acceptable(&self) -> bool {
        self.driver_features & !self.offered() == 0
            && self.driver_features & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn activate(&mut self) {
        if self.interrupt.has_failed() {
            return;
        }
        let event_idx = self.driver_features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        for (setup, doorbell) in self.queues.iter().zip(&self.doorbells) {
            if !setup.ready {
                queues.push(None);
                continue;
            }
            let queue = match setup.build(&self.memory, event_idx) {
                Ok(queue) => queue,
                Err(why) => return self.interrupt.fail(&why),
            };
            let doorbell = match doorbell.try_clone() {
                Ok(doorbell) => doorbell,
                Err(error) => return self.interrupt.fail(&error),
            };
            queues.push(Some(Virtqueue::new(
                queue,
                Arc::clone(&self.memory),
                doorbell,
                Arc::clone(&self.interrupt),
            )));
        }
        let activation = Activation {
            features: self.driver_features,
            queues,
            interrupt: Arc::clone(&self.interrupt),
        };
        if let Err(error) = self.device.activate(activation) {
            self.interrupt.fail(&error);
        }
    }

    fn reset(&mut self) {
        self.device.reset();
        self.interrupt.reset();
        for (queue, doorbell) in self.queues.iter_mut().zip(&self.doorbells) {
            *queue = QueueSetup::new(queue.max_size);
            // An old notification must not wake the device's next life; EAGAIN says none waits.
            let _ = doorbell.read();
        }
        self.queue_sel = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.status = 0;
    }
}

/// The 32 bits of `value` that selector `sel` names; zero past the 64 that exist.
fn half(value: u64, sel: u32) -> u32 {
    match sel {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// Replaces the half of `target` that `sel` (0 or 1) names.
fn set_half(target: &mut u64, sel: u32, value: u32) {
    let shift = 32 * sel;
    *target = *target & !(0xffff_ffff << shift) | u64::from(value) << shift;
}

#[cfg(test)]
mod tests;
