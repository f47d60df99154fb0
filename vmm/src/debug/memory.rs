//! Guest memory by the addresses that a vCPU uses: the guest's page tables are walked here, since
//! not every KVM translates addresses of both halves.

use std::iter;
use std::ops::Range;

use kvm_bindings::kvm_sregs;
use ringlet_devices::Memory;
use vm_memory::{Bytes, GuestAddress};

use super::Image;

const CR0_PAGING: u64 = 1 << 31;
const CR4_57_BITS: u64 = 1 << 12;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;

/// Page-table entries (Intel SDM volume 3, 5.5).
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Address bits below the page, and those that each level translates.
const PAGE_BITS: u32 = 12;
const LEVEL_BITS: u32 = 9;
/// The highest level at which an entry may be a page: 1 GiB.
const LARGEST_LEVEL: u32 = 2;

/// An address that leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing is mapped at {0:#x}")]
pub struct NotMapped(pub u64);

/// The address space that a vCPU's registers select.
pub struct AddressSpace<'a> {
    memory: &'a Memory,
    image: &'a Image,
    tables: Tables,
}

enum Tables {
    /// Paging is off.
    None,
    /// Long mode: the root, and how many levels there are.
    Long(u64, u32),
    /// 32-bit paging, which no kernel of ours uses.
    Legacy,
}

impl<'a> AddressSpace<'a> {
    /// What a vCPU with `sregs` sees of `memory`.
    pub fn new(memory: &'a Memory, image: &'a Image, sregs: &kvm_sregs) -> Self {
        let tables = match (sregs.cr0 & CR0_PAGING, sregs.efer & EFER_LONG_MODE_ACTIVE) {
            (0, _) => Tables::None,
            (_, 0) => Tables::Legacy,
            _ if sregs.cr4 & CR4_57_BITS != 0 => Tables::Long(sregs.cr3 & ADDRESS, 5),
            _ => Tables::Long(sregs.cr3 & ADDRESS, 4),
        };
        Self {
            memory,
            image,
            tables,
        }
    }

    /// The guest-physical address of `address`, and how many bytes follow it there. Before paging
    /// is on, the kernel is where its image says.
    pub fn translate(&self, address: u64) -> Option<(u64, u64)> {
        match self.tables {
            Tables::Legacy => None,
            Tables::None => self
                .image
                .physical(address)
                .or_else(|| Some((address, (1_u64 << 32).checked_sub(address)?)))
                .filter(|(_, left)| *left > 0),
            Tables::Long(root, levels) => self.walk(root, levels, address),
        }
    }

    fn walk(&self, root: u64, levels: u32, address: u64) -> Option<(u64, u64)> {
        // Canonical: the bits above those that are translated repeat the highest of them.
        let unused = u64::BITS - PAGE_BITS - levels * LEVEL_BITS;
        if ((address << unused) as i64 >> unused) as u64 != address {
            return None;
        }
        let mut table = root;
        for level in (0..levels).rev() {
            let shift = PAGE_BITS + level * LEVEL_BITS;
            let index = address >> shift & ((1 << LEVEL_BITS) - 1);
            let entry: u64 = self.memory.read_obj(GuestAddress(table + index * 8)).ok()?;
            if entry & PRESENT == 0 {
                return None;
            }
            let is_page = level == 0 || level <= LARGEST_LEVEL && entry & LARGE != 0;
            if is_page {
                let offset = address & ((1 << shift) - 1);
                // Bit 12 of a large page's entry is no part of its address.
                let page = entry & ADDRESS & !((1 << shift) - 1);
                return Some((page + offset, (1 << shift) - offset));
            }
            table = entry & ADDRESS;
        }
        None
    }

    /// The guest-physical pieces of `len` bytes at `address`, with the part of the bytes that each
    /// is; they end early where nothing is mapped.
    pub fn pieces(&self, address: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
        let mut done = 0;
        iter::from_fn(move || {
            let start = done;
            let (physical, left) = (start < len)
                .then(|| self.translate(address.wrapping_add(start as u64)))
                .flatten()?;
            done += (len - start).min(left.try_into().unwrap_or(usize::MAX));
            Some((physical, start..done))
        })
    }

    /// Reads all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`NotMapped`].
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), NotMapped> {
        let mut done = 0;
        for (physical, part) in self.pieces(address, bytes.len()) {
            let read = self
                .memory
                .read_slice(&mut bytes[part.clone()], GuestAddress(physical));
            if read.is_err() {
                break;
            }
            done = part.end;
        }
        match done == bytes.len() {
            true => Ok(()),
            false => Err(NotMapped(address.wrapping_add(done as u64))),
        }
    }

    /// Reads a word.
    ///
    /// # Errors
    ///
    /// [`NotMapped`].
    pub fn read_u64(&self, address: u64) -> Result<u64, NotMapped> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes all of `bytes`, also where the guest may only read.
    ///
    /// # Errors
    ///
    /// [`NotMapped`]; what is mapped before it has been written.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), NotMapped> {
        let mut done = 0;
        for (physical, part) in self.pieces(address, bytes.len()) {
            let written = self
                .memory
                .write_slice(&bytes[part.clone()], GuestAddress(physical));
            if written.is_err() {
                break;
            }
            done = part.end;
        }
        match done == bytes.len() {
            true => Ok(()),
            false => Err(NotMapped(address.wrapping_add(done as u64))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::kernel_image::{LoadedKernel, Segment};
    use crate::memory::map;

    const SIZE: u64 = 32 << 20;
    const HIGH: u64 = 0xffff_ffff_8000_0000;

    fn image() -> Image {
        Image::new(LoadedKernel {
            entry: 0,
            end: 0,
            file: File::open("/dev/null").unwrap(),
            segments: vec![Segment {
                linked: HIGH,
                physical: 0x10_0000,
                size: 0x1000,
            }],
        })
    }

    /// Page tables for a page of each size in the upper half and a 4 KiB page in the lower half.
    fn paged() -> (Memory, kvm_sregs) {
        let memory = Memory::new(map(SIZE).unwrap());
        for (at, entry) in [
            (0x1000, 0x2007_u64),
            (0x2000, 0x3007),
            (0x3000 + 2 * 8, 0x4007),
            (0x4000 + 8, 0x5067),
            (0x4000 + 2 * 8, 0x60_0000_u64 | 1 << 63 | 7),
            (0x1000 + 511 * 8, 0x6007),
            (0x6000 + 510 * 8, 0x7007),
            (0x7000 + 3 * 8, 0x20_0087 | 1 << 12),
            (0x6000 + 511 * 8, 0x87),
        ] {
            memory.write_obj(entry, GuestAddress(at)).unwrap();
        }
        let sregs = kvm_sregs {
            cr0: CR0_PAGING | 1,
            cr3: 0x1018,
            efer: EFER_LONG_MODE_ACTIVE,
            ..Default::default()
        };
        (memory, sregs)
    }

    #[test]
    fn page_tables_are_walked_in_both_halves() {
        let (memory, sregs) = paged();
        let image = image();
        let space = AddressSpace::new(&memory, &image, &sregs);
        for (address, physical) in [
            (0x40_1234, Some((0x5234, 0x1000 - 0x234))),
            (0x40_2000, Some((0x60_0000, 0x1000))),
            (0x40_0000, None),
            (0x40_3000, None),
            (HIGH + 0x60_0010, Some((0x20_0010, 0x20_0000 - 0x10))),
            (HIGH, None),
            (0xffff_ffff_c000_0001, Some((1, (1 << 30) - 1))),
            (0x0000_8000_0040_1234, None),
            (0xffff_0000_0040_1234, None),
        ] {
            assert_eq!(space.translate(address), physical, "{address:#x}");
        }
    }

    #[test]
    fn accesses_cross_pages_and_stop_where_nothing_is_mapped() {
        let (memory, sregs) = paged();
        let image = image();
        let space = AddressSpace::new(&memory, &image, &sregs);
        space.write(0x40_1ffe, &[1, 2, 3, 4]).unwrap();
        let mut halves = [[0; 2]; 2];
        memory
            .read_slice(&mut halves[0], GuestAddress(0x5ffe))
            .unwrap();
        memory
            .read_slice(&mut halves[1], GuestAddress(0x60_0000))
            .unwrap();
        assert_eq!(halves, [[1, 2], [3, 4]]);
        let mut bytes = [0; 4];
        space.read(0x40_1ffe, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4]);
        assert_eq!(space.read(0x40_2ffd, &mut bytes), Err(NotMapped(0x40_3000)));
        assert_eq!(space.write(0x40_3000, &[0]), Err(NotMapped(0x40_3000)));
        // The 1 GiB page is larger than the guest's memory.
        let past = 0xffff_ffff_c000_0000 + SIZE;
        assert_eq!(space.read(past, &mut bytes), Err(NotMapped(past)));
    }

    #[test]
    fn tables_that_lead_out_of_memory_map_nothing() {
        let (memory, sregs) = paged();
        let image = image();
        memory
            .write_obj(0xff_ffff_f007_u64, GuestAddress(0x2000))
            .unwrap();
        let space = AddressSpace::new(&memory, &image, &sregs);
        assert_eq!(space.translate(0x40_1234), None);
    }

    #[test]
    fn before_paging_addresses_are_physical_or_the_images() {
        let memory = Memory::new(map(SIZE).unwrap());
        let image = image();
        let space = AddressSpace::new(&memory, &image, &kvm_sregs::default());
        assert_eq!(space.translate(HIGH + 4), Some((0x10_0004, 0xffc)));
        assert_eq!(space.translate(4), Some((4, (1 << 32) - 4)));
        assert_eq!(space.translate(HIGH + 0x1000), None);
        assert_eq!(space.translate(1 << 32), None);
    }
}
