//! The MMIO bus: which device an address belongs to.

use std::sync::{Mutex, PoisonError};

use ringlet_devices::{MmioTransport, VirtioDevice};

/// A device with registers in memory.
pub trait MmioDevice: Send {
    /// Reads `data.len()` bytes (1, 2, 4 or 8) at `offset` from the device's base.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Writes `data` (1, 2, 4 or 8 bytes) at `offset` from the device's base.
    fn write(&mut self, offset: u64, data: &[u8]);
}

impl<D: VirtioDevice> MmioDevice for MmioTransport<D> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        MmioTransport::read(self, offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        MmioTransport::write(self, offset, data);
    }
}

struct Slot {
    base: u64,
    size: u64,
    device: Mutex<Box<dyn MmioDevice>>,
}

/// The devices by address. vCPUs share it; each device has its own lock.
#[derive(Default)]
pub struct Bus {
    slots: Vec<Slot>,
}

/// Two devices would answer to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MMIO range at {0:#x} is taken")]
pub struct RangeTaken(pub u64);

impl Bus {
    /// Puts `device` at `base`, for `size` bytes.
    ///
    /// # Errors
    ///
    /// [`RangeTaken`].
    pub fn insert(
        &mut self,
        base: u64,
        size: u64,
        device: Box<dyn MmioDevice>,
    ) -> Result<(), RangeTaken> {
        let overlaps =
            |slot: &Slot| base < slot.base + slot.size && slot.base < base.saturating_add(size);
        if self.slots.iter().any(overlaps) {
            return Err(RangeTaken(base));
        }
        self.slots.push(Slot {
            base,
            size,
            device: Mutex::new(device),
        });
        Ok(())
    }

    /// A guest's read; all ones where no device is.
    pub fn read(&self, addr: u64, data: &mut [u8]) {
        match self.find(addr, data.len()) {
            Some(slot) => slot.lock().read(addr - slot.base, data),
            None => {
                log::debug!(
                    "read of {} bytes at {addr:#x}, where no device is",
                    data.len()
                );
                data.fill(0xff);
            }
        }
    }

    /// A guest's write; ignored where no device is.
    pub fn write(&self, addr: u64, data: &[u8]) {
        match self.find(addr, data.len()) {
            Some(slot) => slot.lock().write(addr - slot.base, data),
            None => log::debug!("write of {data:x?} at {addr:#x}, where no device is"),
        }
    }

    fn find(&self, addr: u64, len: usize) -> Option<&Slot> {
        let end = addr.checked_add(len as u64)?;
        self.slots
            .iter()
            .find(|slot| addr >= slot.base && end <= slot.base + slot.size)
    }
}

impl Slot {
    /// A vCPU that panicked inside a device ends the process; until then others may go on.
    fn lock(&self) -> std::sync::MutexGuard<'_, Box<dyn MmioDevice>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(Vec<u8>);

    impl MmioDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            self.0 = data.to_vec();
            self.0.push(offset as u8);
        }
    }

    #[test]
    fn accesses_reach_the_device_that_owns_them() {
        let mut bus = Bus::default();
        bus.insert(0x1000, 0x100, Box::new(Echo(Vec::new())))
            .unwrap();
        bus.insert(0x1100, 0x100, Box::new(Echo(Vec::new())))
            .unwrap();
        let mut data = [0; 4];
        bus.read(0x1104, &mut data);
        assert_eq!(data, [4; 4]);
        bus.read(0xfff, &mut data);
        assert_eq!(data, [0xff; 4]);
        // Across the end of a device, and around the end of the address space.
        bus.read(0x11fe, &mut data);
        assert_eq!(data, [0xff; 4]);
        bus.read(u64::MAX, &mut data);
        assert_eq!(data, [0xff; 4]);
        bus.write(u64::MAX - 1, &data);
    }

    #[test]
    fn ranges_do_not_overlap() {
        let mut bus = Bus::default();
        bus.insert(0x1000, 0x100, Box::new(Echo(Vec::new())))
            .unwrap();
        for base in [0x1000, 0x10ff, 0xf01] {
            let taken = bus.insert(base, 0x100, Box::new(Echo(Vec::new())));
            assert_eq!(taken, Err(RangeTaken(base)));
        }
    }
}
