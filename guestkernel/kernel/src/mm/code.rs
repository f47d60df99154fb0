//! Changing a program's code on the kernel's behalf.

use super::vma::PAGE;
use super::{AddressSpace, MapRequest, Placement};
use crate::error::{Errno, Result};
use machine::{Access, Frame, PAGE_SIZE};

/// How far below the code, and in which steps, room for more is looked for.
const SEARCH_STEP: u64 = 16 * PAGE;
const SEARCH_STEPS: u64 = 64;

impl AddressSpace {
    /// Puts `bytes` in place of the code at `address`, in a copy of the page that this address
    /// space alone has. Other CPUs see either the old page or the new one.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the bytes cross a page, `EFAULT` if none is mapped, `EACCES` if the page is no
    /// private code or the program may write it, `ENOMEM`.
    pub(crate) fn patch_code(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let page = address & !(PAGE - 1);
        let offset = (address - page) as usize;
        if bytes.len() > PAGE_SIZE - offset {
            return Err(Errno::EINVAL);
        }
        self.change(|mappings, flush| {
            let (_, area) = mappings.area_at(page).ok_or(Errno::EFAULT)?;
            let is_code = area.access == Access::READ | Access::EXECUTE;
            if area.is_shared || !is_code {
                return Err(Errno::EACCES);
            }
            let (frame, access) = mappings.table.lookup(page).ok_or(Errno::EFAULT)?;
            let copy = Frame::uninitialised()?;
            frame.copy_to(0, &copy, 0, PAGE_SIZE);
            copy.write(offset, bytes);
            mappings.table.replace(page, copy, access, flush)?;
            Ok(())
        })
    }

    /// Maps a page for code that jumps reach from the area of code around `address`.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there is no area, `ENOMEM` if there is no room or memory.
    pub(crate) fn map_code_near(&self, address: u64) -> Result<u64> {
        let start = {
            let mappings = self.mappings.lock();
            let (start, _) = mappings.area_at(address).ok_or(Errno::EFAULT)?;
            start
        };
        let page = (1..=SEARCH_STEPS)
            .filter_map(|step| start.checked_sub(step * SEARCH_STEP))
            .find_map(|candidate| {
                let request = MapRequest {
                    placement: Placement::FixedNoReplace(candidate),
                    access: Access::READ | Access::EXECUTE,
                    ..MapRequest::anonymous(PAGE, Access::READ | Access::EXECUTE)
                };
                self.map(request).ok()
            })
            .ok_or(Errno::ENOMEM)?;
        self.populate(page..page + PAGE);
        Ok(page)
    }
}
