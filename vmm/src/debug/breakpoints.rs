//! The debugger's breakpoints: INT3 patches in guest memory, and the debug registers' addresses.

use std::collections::BTreeMap;

use ringlet_devices::Memory;
use vm_memory::{Bytes, GuestAddress};

/// The one-byte breakpoint instruction.
const INT3: u8 = 0xcc;
/// Debug registers that hold an address.
pub const DEBUG_REGISTERS: usize = 4;
/// DR7: exact breakpoints, which are recommended (Intel SDM volume 3, 19.2.4).
const DR7_EXACT: u64 = 1 << 9;

/// A byte of guest memory that was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patch {
    physical: u64,
    original: u8,
}

/// What a debug register watches for: its `R/W` field in DR7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Execution of the instruction at the address.
    Execute = 0,
    /// Writes.
    Write = 1,
    /// Reads and writes.
    ReadWrite = 3,
}

/// A use of a debug register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The guest-virtual address, a multiple of `len`.
    pub address: u64,
    /// 1, 2, 4 or 8 bytes; 1 for [`Access::Execute`].
    pub len: u64,
    /// What stops the guest.
    pub access: Access,
}

impl Watch {
    /// Whether a debug register can hold it.
    fn is_valid(&self) -> bool {
        matches!(self.len, 1 | 2 | 4 | 8) && self.address.is_multiple_of(self.len)
    }

    /// Its bits in DR7 as register `index`.
    fn dr7(&self, index: usize) -> u64 {
        let len = match self.len {
            1 => 0,
            2 => 1,
            8 => 2,
            _ => 3,
        };
        2 << (2 * index) | (self.access as u64 | len << 2) << (16 + 4 * index)
    }
}

/// The values of DR0 to DR3 and of DR7 for these watches.
pub fn debug_registers(watches: &[Watch]) -> ([u64; DEBUG_REGISTERS], u64) {
    let mut addresses = [0; DEBUG_REGISTERS];
    let mut dr7 = DR7_EXACT;
    for (index, (place, watch)) in addresses.iter_mut().zip(watches).enumerate() {
        *place = watch.address;
        dr7 |= watch.dr7(index);
    }
    (addresses, dr7)
}

/// All that a debugger has set.
#[derive(Debug, Default)]
pub struct Breakpoints {
    patches: BTreeMap<u64, Patch>,
    watches: Vec<Watch>,
}

impl Breakpoints {
    /// Patches the instruction at `address`, which is at `physical`. Setting it twice is once.
    /// False if there is no memory.
    pub fn insert(&mut self, memory: &Memory, address: u64, physical: u64) -> bool {
        if self.contains(address) {
            return true;
        }
        let Ok(byte) = memory.read_obj(GuestAddress(physical)) else {
            return false;
        };
        // Another address may lead there too.
        let original = self.original(physical).unwrap_or(byte);
        if memory.write_obj(INT3, GuestAddress(physical)).is_err() {
            return false;
        }
        let patch = Patch { physical, original };
        self.patches.insert(address, patch);
        true
    }

    /// Takes a patch back; false if there is none.
    pub fn remove(&mut self, memory: &Memory, address: u64) -> bool {
        let Some(patch) = self.patches.remove(&address) else {
            return false;
        };
        let is_shared = self.original(patch.physical).is_some();
        let now = memory.read_obj::<u8>(GuestAddress(patch.physical));
        // The guest may have put something else there meanwhile.
        if !is_shared && now.is_ok_and(|byte| byte == INT3) {
            // It was readable, so it is writable.
            let _ = memory.write_obj(patch.original, GuestAddress(patch.physical));
        }
        true
    }

    /// Whether the instruction at `address` is a patch.
    pub fn contains(&self, address: u64) -> bool {
        self.patches.contains_key(&address)
    }

    /// The byte of the guest that a patch at `physical` hides.
    fn original(&self, physical: u64) -> Option<u8> {
        self.patches
            .values()
            .find(|patch| patch.physical == physical)
            .map(|patch| patch.original)
    }

    /// Puts the guest's own bytes where `bytes`, read at `physical`, show patches.
    pub fn hide(&self, physical: u64, bytes: &mut [u8]) {
        for patch in self.patches.values() {
            let offset = patch.physical.checked_sub(physical);
            if let Some(byte) = offset.and_then(|offset| bytes.get_mut(offset as usize)) {
                *byte = patch.original;
            }
        }
    }

    /// Keeps patches in force after `bytes` was written at `physical`.
    pub fn renew(&mut self, memory: &Memory, physical: u64, bytes: &[u8]) {
        for patch in self.patches.values_mut() {
            let offset = patch.physical.checked_sub(physical);
            if let Some(byte) = offset.and_then(|offset| bytes.get(offset as usize)) {
                patch.original = *byte;
                // It was written just now, so it is writable.
                let _ = memory.write_obj(INT3, GuestAddress(patch.physical));
            }
        }
    }

    /// Uses a debug register; false if all are used or none can hold this.
    pub fn watch(&mut self, watch: Watch) -> bool {
        let fits = watch.is_valid() && self.watches.len() < DEBUG_REGISTERS;
        if fits {
            self.watches.push(watch);
        }
        fits
    }

    /// Frees a debug register; false if none is used for this.
    pub fn unwatch(&mut self, watch: Watch) -> bool {
        let at = self.watches.iter().position(|other| *other == watch);
        at.map(|at| self.watches.remove(at)).is_some()
    }

    /// The debug registers in use, by their number.
    pub fn watches(&self) -> &[Watch] {
        &self.watches
    }

    /// Removes everything.
    pub fn clear(&mut self, memory: &Memory) {
        let addresses: Vec<_> = self.patches.keys().copied().collect();
        for address in addresses {
            self.remove(memory, address);
        }
        self.watches.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::map;

    fn memory() -> Memory {
        let memory = Memory::new(map(32 << 20).unwrap());
        memory
            .write_slice(&[1, 2, 3, 4], GuestAddress(0x100))
            .unwrap();
        memory
    }

    fn bytes(memory: &Memory) -> [u8; 4] {
        memory.read_obj(GuestAddress(0x100)).unwrap()
    }

    #[test]
    fn patches_come_and_go_and_are_hidden() {
        let memory = memory();
        let mut breakpoints = Breakpoints::default();
        assert!(breakpoints.insert(&memory, 0x9101, 0x101));
        assert!(breakpoints.insert(&memory, 0x9101, 0x101));
        assert!(!breakpoints.insert(&memory, 0x9200, 1 << 40));
        assert_eq!(bytes(&memory), [1, INT3, 3, 4]);
        let mut seen = bytes(&memory);
        breakpoints.hide(0x100, &mut seen);
        assert_eq!(seen, [1, 2, 3, 4]);
        let mut later = [INT3; 2];
        breakpoints.hide(0x102, &mut later);
        assert_eq!(later, [INT3; 2]);
        assert!(breakpoints.contains(0x9101) && !breakpoints.contains(0x101));
        assert!(breakpoints.remove(&memory, 0x9101));
        assert!(!breakpoints.remove(&memory, 0x9101));
        assert_eq!(bytes(&memory), [1, 2, 3, 4]);
    }

    #[test]
    fn two_addresses_may_lead_to_one_byte() {
        let memory = memory();
        let mut breakpoints = Breakpoints::default();
        assert!(breakpoints.insert(&memory, 0x9101, 0x101));
        assert!(breakpoints.insert(&memory, 0xa101, 0x101));
        assert!(breakpoints.remove(&memory, 0x9101));
        assert_eq!(bytes(&memory), [1, INT3, 3, 4]);
        assert!(breakpoints.remove(&memory, 0xa101));
        assert_eq!(bytes(&memory), [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_written_over_a_patch_is_there_when_it_goes() {
        let memory = memory();
        let mut breakpoints = Breakpoints::default();
        assert!(breakpoints.insert(&memory, 0x9101, 0x101));
        // By the debugger:
        memory.write_slice(&[7, 8], GuestAddress(0x100)).unwrap();
        breakpoints.renew(&memory, 0x100, &[7, 8]);
        assert_eq!(bytes(&memory), [7, INT3, 3, 4]);
        breakpoints.clear(&memory);
        assert_eq!(bytes(&memory), [7, 8, 3, 4]);
        // By the guest:
        assert!(breakpoints.insert(&memory, 0x9101, 0x101));
        memory.write_obj(9_u8, GuestAddress(0x101)).unwrap();
        breakpoints.clear(&memory);
        assert_eq!(bytes(&memory), [7, 9, 3, 4]);
    }

    #[test]
    fn debug_registers_are_encoded_as_the_manual_says() {
        let mut breakpoints = Breakpoints::default();
        let watch = |address, len, access| Watch {
            address,
            len,
            access,
        };
        assert!(breakpoints.watch(watch(0x1001, 1, Access::Execute)));
        assert!(breakpoints.watch(watch(0x2000, 8, Access::Write)));
        assert!(breakpoints.watch(watch(0x3004, 4, Access::ReadWrite)));
        assert!(!breakpoints.watch(watch(0x3001, 4, Access::Write)));
        assert!(!breakpoints.watch(watch(0x3000, 3, Access::Write)));
        let (addresses, dr7) = debug_registers(breakpoints.watches());
        assert_eq!(addresses, [0x1001, 0x2000, 0x3004, 0]);
        // G0 to G2 and GE; 8-byte writes for DR1, 4-byte accesses for DR2.
        assert_eq!(dr7, 0x22a | 0b1001 << 20 | 0b1111 << 24);
        assert!(breakpoints.watch(watch(0x4000, 2, Access::Write)));
        assert!(!breakpoints.watch(watch(0x5000, 1, Access::Execute)));
        assert!(breakpoints.unwatch(watch(0x2000, 8, Access::Write)));
        assert!(!breakpoints.unwatch(watch(0x2000, 8, Access::Write)));
    }
}
