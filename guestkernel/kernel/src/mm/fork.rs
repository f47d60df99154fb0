//! A second address space with the contents of a first one, as `fork(2)` makes it.
//!
//! Private pages are shown by both until one of the two stores to them, which the other then does
//! not see. A page that a device works on, or that a registered buffer has, stays the first one's,
//! and the second gets a copy at once: what the device brings belongs to whoever asked for it.

use super::address_space::{AREA_COST, AddressSpace, Mappings};
use super::fault::take;
use super::vma::{Backing, NotForked};
use crate::error::Result;
use crate::heap;
use alloc::sync::Arc;
use machine::{Flush, Frame, PAGE_SIZE};

impl AddressSpace {
    /// An address space of its own with the same mappings and contents, for `fork(2)`. What is
    /// called on exhaustion is not passed on.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<Self>> {
        let child = Self::new()?;
        // Nobody else knows the child yet, so its lock cannot be waited for.
        self.change(|mappings, flush| {
            mappings.fork_into(&mut child.mappings.lock(), flush, |backing| {
                if let Backing::Source { source, .. } = backing
                    && let Some(mappers) = source.mappers()
                {
                    mappers.add(child.weak());
                }
            })
        })?;
        Ok(child)
    }
}

impl Mappings {
    /// Makes `child`, which is empty, a copy. `tell` is told of what each area of the child shows,
    /// before any page of it is mapped there.
    fn fork_into(
        &mut self,
        child: &mut Self,
        flush: &mut Flush,
        mut tell: impl FnMut(&Backing),
    ) -> Result<()> {
        child.inherit(self);
        for (start, area) in &self.areas {
            if area.not_forked.contains(NotForked::AREA) {
                continue;
            }
            heap::check(AREA_COST)?;
            tell(&area.backing);
            let mut copy = area.clone();
            copy.is_locked = false;
            child.insert(*start, copy);
            // Of shared memory the child sees the same pages whenever it asks for them.
            if !area.is_shared && area.not_forked.is_empty() {
                let range = *start..area.end;
                self.table
                    .share_with(&mut child.table, range, flush, copy_of)?;
            }
        }
        Ok(())
    }
}

/// A frame with the same contents.
fn copy_of(frame: &Frame) -> Result<Frame> {
    let copy = take(Frame::uninitialised)?;
    frame.copy_to(0, &copy, 0, PAGE_SIZE);
    Ok(copy)
}
