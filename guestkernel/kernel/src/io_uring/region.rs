//! Memory that program and kernel share beside the rings: of the program, pinned, or of the kernel, to
//! be mapped (`io_create_region` of Linux).

use super::budget::MemoryCharge;
use crate::error::{Errno, Result};
use crate::mm::{Access, AddressSpace};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::io_uring as raw;
use machine::lock::Mutex;
use machine::{Frame, PAGE_SIZE, Segment};

/// The most pages of one.
const PAGES_MAX: u64 = i32::MAX as u64;
/// `IORING_MEM_REGION_TYPE_USER`.
const TYPE_USER: u32 = raw::IORING_MEM_REGION_TYPE_USER as u32;

/// The pages of a region.
#[derive(Clone)]
pub(super) enum Region {
    /// The program's own.
    Pinned(Arc<[Segment]>),
    /// The kernel's, which the program maps.
    Mapped(Arc<[Frame]>),
}

impl Region {
    /// What a descriptor of a region asks for: `size` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`, `E2BIG`, `EOVERFLOW`, `ENOMEM`.
    pub(super) fn new(
        descriptor: &raw::io_uring_region_desc,
        space: &AddressSpace,
        charge: &mut MemoryCharge,
    ) -> Result<Self> {
        let is_users = descriptor.flags & TYPE_USER != 0;
        if descriptor.__resv != [0; 4] || descriptor.flags & !TYPE_USER != 0 {
            return Err(Errno::EINVAL);
        }
        let (address, size) = (descriptor.user_addr, descriptor.size);
        // An address is given if, and only if, the memory is the program's.
        if is_users != (address != 0) {
            return Err(Errno::EFAULT);
        }
        if size == 0 || descriptor.mmap_offset != 0 || descriptor.id != 0 {
            return Err(Errno::EINVAL);
        }
        let pages = size / PAGE_SIZE as u64;
        if pages > PAGES_MAX {
            return Err(Errno::E2BIG);
        }
        if (address | size) % PAGE_SIZE as u64 != 0 {
            return Err(Errno::EINVAL);
        }
        address.checked_add(size).ok_or(Errno::EOVERFLOW)?;
        match is_users {
            true => {
                charge.add(pages as usize * size_of::<Segment>())?;
                let needed = Access::READ | Access::WRITE;
                let segments = space.pin(address, size as usize, needed)?;
                Ok(Self::Pinned(segments.into_iter().collect()))
            }
            false => {
                charge.add(pages as usize * size_of::<Frame>())?;
                let mut frames = Vec::new();
                frames
                    .try_reserve_exact(pages as usize)
                    .map_err(|_| Errno::ENOMEM)?;
                for _ in 0..pages {
                    frames.push(Frame::zeroed()?);
                }
                Ok(Self::Mapped(frames.into()))
            }
        }
    }

    /// The page with byte `at`, and its offset in that.
    pub(super) fn page(&self, at: usize) -> Option<(&Frame, usize)> {
        let index = at / PAGE_SIZE;
        let frame = match self {
            Self::Pinned(segments) => segments.get(index)?.frame(),
            Self::Mapped(frames) => frames.get(index)?,
        };
        Some((frame, at % PAGE_SIZE))
    }

    /// Its bytes.
    pub(super) fn size(&self) -> u64 {
        let pages = match self {
            Self::Pinned(segments) => segments.len(),
            Self::Mapped(frames) => frames.len(),
        };
        (pages * PAGE_SIZE) as u64
    }
}

/// The regions of a ring that are mapped, by the offset in the ring's file.
#[derive(Default)]
pub(super) struct MappedRegions(Mutex<BTreeMap<u32, Arc<[Frame]>>>);

impl MappedRegions {
    /// Lets the program map `region` at that offset, if it is the kernel's.
    pub(super) fn add(&self, offset: u32, region: &Region) {
        if let Region::Mapped(frames) = region {
            self.0.lock().insert(offset, frames.clone());
        }
    }

    /// The program maps it no more. What is mapped stays so.
    pub(super) fn remove(&self, offset: u32) {
        let removed = self.0.lock().remove(&offset);
        drop(removed);
    }

    /// The pages of the region at that offset.
    pub(super) fn frames(&self, offset: u32) -> Option<Arc<[Frame]>> {
        self.0.lock().get(&offset).cloned()
    }
}
