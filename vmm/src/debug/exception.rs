//! What the processor looks up in guest memory when it enters or leaves an exception handler: gates,
//! frames and segments.

use kvm_bindings::{kvm_segment, kvm_sregs};

use super::memory::{AddressSpace, NotMapped};

/// EFER: long mode is active.
pub(super) const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;

/// What IRETQ pops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
}

/// Bytes of it.
pub(super) const FRAME_SIZE: usize = 40;

impl Frame {
    pub(super) fn read(space: &AddressSpace<'_>, at: u64) -> Result<Self, NotMapped> {
        let word = |index: u64| space.read_u64(at.wrapping_add(8 * index));
        Ok(Self {
            rip: word(0)?,
            cs: word(1)?,
            rflags: word(2)?,
            rsp: word(3)?,
            ss: word(4)?,
        })
    }
}

/// The handler in the 64-bit gate of `vector` (Intel SDM volume 3, 7.14.1); none if the guest has no
/// IDT or no such gate.
pub(super) fn handler(
    space: &AddressSpace<'_>,
    sregs: &kvm_sregs,
    vector: u32,
) -> Result<Option<u64>, NotMapped> {
    let index = 16 * u64::from(vector);
    if sregs.efer & EFER_LONG_MODE_ACTIVE == 0 || u64::from(sregs.idt.limit) < index + 15 {
        return Ok(None);
    }
    let low = space.read_u64(sregs.idt.base.wrapping_add(index))?;
    let high = space.read_u64(sregs.idt.base.wrapping_add(index + 8))?;
    let is_present = low >> 47 & 1 == 1;
    Ok(is_present.then_some(low & 0xffff | low >> 32 & 0xffff_0000 | high << 32))
}

/// The segment that `selector` names in the GDT (Intel SDM volume 3, 3.4.5).
pub(super) fn segment(
    space: &AddressSpace<'_>,
    table: u64,
    selector: u64,
) -> Result<kvm_segment, NotMapped> {
    let descriptor = space.read_u64(table.wrapping_add(selector & 0xfff8))?;
    let field = |shift: u32, bits: u32| descriptor >> shift & ((1 << bits) - 1);
    let limit = (field(0, 16) | field(48, 4) << 16) as u32;
    let granularity = field(55, 1) as u8;
    Ok(kvm_segment {
        base: field(16, 24) | field(56, 8) << 24,
        limit: match granularity {
            0 => limit,
            _ => limit << 12 | 0xfff,
        },
        selector: selector as u16,
        type_: field(40, 4) as u8,
        s: field(44, 1) as u8,
        dpl: field(45, 2) as u8,
        present: field(47, 1) as u8,
        avl: field(52, 1) as u8,
        l: field(53, 1) as u8,
        db: field(54, 1) as u8,
        g: granularity,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use ringlet_devices::Memory;
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::debug::Image;
    use crate::kernel_image::LoadedKernel;
    use crate::memory::map;

    fn guest() -> (Memory, Image) {
        let image = Image::new(LoadedKernel {
            entry: 0,
            end: 0,
            file: File::open("/dev/null").unwrap(),
            segments: Vec::new(),
        });
        (Memory::new(map(32 << 20).unwrap()), image)
    }

    #[test]
    fn segments_are_those_of_the_descriptors() {
        let (memory, image) = guest();
        let sregs = kvm_sregs::default();
        let space = AddressSpace::new(&memory, &image, &sregs);
        // A 64-bit code segment for CPL 3; a small one with a base.
        for (at, descriptor) in [
            (0x5030, 0x00af_fb00_0000_ffff_u64),
            (0x5038, 0x1200_9334_5678_0123),
        ] {
            memory.write_obj(descriptor, GuestAddress(at)).unwrap();
        }
        let code = segment(&space, 0x5000, 0x33).unwrap();
        assert_eq!(
            (code.limit, code.selector, code.type_),
            (u32::MAX, 0x33, 0xb)
        );
        assert_eq!(
            (code.dpl, code.present, code.s, code.l, code.db, code.g),
            (3, 1, 1, 1, 0, 1)
        );
        let small = segment(&space, 0x5000, 0x38).unwrap();
        assert_eq!((small.base, small.limit), (0x1234_5678, 0x123));
        assert_eq!((small.dpl, small.l, small.g), (0, 0, 0));
    }

    #[test]
    fn gates_count_only_in_long_mode_and_when_present() {
        let (memory, image) = guest();
        let mut sregs = kvm_sregs {
            efer: EFER_LONG_MODE_ACTIVE,
            ..Default::default()
        };
        sregs.idt.base = 0x7000;
        sregs.idt.limit = 4 * 16 - 1;
        let low = 0x8123_8e02_0010_4567_u64;
        memory.write_obj(low, GuestAddress(0x7030)).unwrap();
        memory
            .write_obj(0xffff_ffff_u64, GuestAddress(0x7038))
            .unwrap();
        let space = AddressSpace::new(&memory, &image, &kvm_sregs::default());
        let found = |sregs: &kvm_sregs, vector| handler(&space, sregs, vector).unwrap();
        assert_eq!(found(&sregs, 3), Some(0xffff_ffff_8123_4567));
        assert_eq!(found(&sregs, 1), None);
        assert_eq!(found(&sregs, 4), None);
        sregs.efer = 0;
        assert_eq!(found(&sregs, 3), None);
    }
}
