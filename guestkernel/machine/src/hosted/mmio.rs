//! Access to device registers: calls of simulated devices.

use crate::physical::PhysAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// A simulated device behind registers.
pub trait MmioDevice: Send + Sync {
    /// The driver reads the register at `offset`.
    fn read(&self, offset: u64) -> u32;

    /// The driver writes the register at `offset`.
    fn write(&self, offset: u64, value: u32);
}

/// Bytes of registers for each device.
pub const REGION: u64 = 0x1000;

const BASE: u64 = ringlet_abi::LOW_RAM_END;

static DEVICES: Mutex<Vec<Arc<dyn MmioDevice>>> = Mutex::new(Vec::new());

/// Puts `device` at an address of its own, where it stays.
pub fn attach(device: Arc<dyn MmioDevice>) -> PhysAddr {
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    devices.push(device);
    PhysAddr(BASE + (devices.len() as u64 - 1) * REGION)
}

fn find(address: PhysAddr) -> Option<(Arc<dyn MmioDevice>, u64)> {
    let offset = address.0 - BASE;
    let devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    let device = devices.get((offset / REGION) as usize)?;
    Some((device.clone(), offset % REGION))
}

/// Reads a device register; all ones where there is no device, as on a bus.
///
/// # Safety
///
/// None is needed: it is that of the other backend.
pub(crate) unsafe fn read_register(address: PhysAddr) -> u32 {
    find(address).map_or(u32::MAX, |(device, offset)| device.read(offset))
}

/// Writes a device register.
///
/// # Safety
///
/// None is needed: it is that of the other backend.
pub(crate) unsafe fn write_register(address: PhysAddr, value: u32) {
    if let Some((device, offset)) = find(address) {
        device.write(offset, value);
    }
}
