//! `mmap(2)`: making mappings.

use super::Actor;
use super::memory::access;
use crate::error::{Errno, Result};
use crate::file::OpenFile;
use crate::mm::{Access, AddressSpace, Backing, MapRequest, PAGE, Placement};
use alloc::sync::Arc;
use linux_raw_sys::general as raw;

/// `MAP_HUGE_2MB` and `MAP_HUGE_1GB`.
const HUGE_SIZES: u32 = 21 << raw::MAP_HUGE_SHIFT | 30 << raw::MAP_HUGE_SHIFT;
const MAP_ABOVE4G: u32 = 0x80;
/// What `MAP_SHARED_VALIDATE` does not refuse (`LEGACY_MAP_MASK` of Linux).
const KNOWN: u32 = raw::MAP_SHARED
    | raw::MAP_PRIVATE
    | raw::MAP_FIXED
    | raw::MAP_ANONYMOUS
    | raw::MAP_DENYWRITE
    | raw::MAP_EXECUTABLE
    | raw::MAP_UNINITIALIZED
    | raw::MAP_GROWSDOWN
    | raw::MAP_LOCKED
    | raw::MAP_NORESERVE
    | raw::MAP_POPULATE
    | raw::MAP_NONBLOCK
    | raw::MAP_STACK
    | raw::MAP_HUGETLB
    | raw::MAP_32BIT
    | MAP_ABOVE4G
    | HUGE_SIZES;

/// `mmap(2)`.
pub struct Map {
    /// Where, or where about.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// `PROT_*`.
    pub protection: u64,
    /// `MAP_*`.
    pub flags: u32,
    /// The file, without `MAP_ANONYMOUS`.
    pub fd: i32,
    /// The byte of the file that the first one shows.
    pub offset: u64,
}

impl Map {
    /// Does it if that takes no time to speak of: `None`, and nothing done, if it may. Gives where
    /// it is.
    #[inline]
    pub fn run_now(&self, actor: Actor<'_>) -> Option<Result<u64>> {
        let replaces = raw::MAP_FIXED;
        let is_quick = !self.populates()
            && (self.flags & replaces == 0 || AddressSpace::is_small(self.length));
        is_quick.then(|| {
            let request = self.request(actor)?;
            actor.space().map(request)
        })
    }

    /// Does it; gives where it is.
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let request = self.request(actor)?;
        actor.space().map_in_pieces(request).await
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn populates(&self) -> bool {
        self.has(raw::MAP_POPULATE | raw::MAP_LOCKED) && !self.has(raw::MAP_NONBLOCK)
    }

    fn placement(&self) -> Placement {
        let address = self.address;
        if self.has(raw::MAP_FIXED_NOREPLACE) {
            Placement::FixedNoReplace(address)
        } else if self.has(raw::MAP_FIXED) {
            Placement::Fixed(address)
        } else if self.has(raw::MAP_32BIT) {
            Placement::Low(address)
        } else {
            Placement::Hint(address)
        }
    }

    fn request(&self, actor: Actor<'_>) -> Result<MapRequest> {
        if !self.offset.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let file = match self.has(raw::MAP_ANONYMOUS) {
            true if self.has(raw::MAP_HUGETLB) => return Err(Errno::ENOMEM),
            true => None,
            false => Some(actor.process.files.get(self.fd)?),
        };
        if self.length == 0 {
            return Err(Errno::EINVAL);
        }
        let placement = self.placement();
        actor.space().check_placement(placement, self.length)?;
        let access = access(self.protection);
        let (backing, is_shared, max_access) = match file {
            None => (
                Backing::Anonymous,
                self.is_anonymous_shared()?,
                MapRequest::ALL_ACCESS,
            ),
            Some(file) => self.file_backing(&file, access)?,
        };
        Ok(MapRequest {
            placement,
            length: self.length,
            access,
            max_access,
            backing,
            is_shared,
            populate: self.populates(),
            no_reserve: self.has(raw::MAP_NORESERVE),
        })
    }

    fn is_anonymous_shared(&self) -> Result<bool> {
        match self.flags & raw::MAP_TYPE {
            raw::MAP_PRIVATE => Ok(false),
            raw::MAP_SHARED if !self.has(raw::MAP_GROWSDOWN) => Ok(true),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What a mapping of `file` shows, whether stores reach it, and the most that it may allow.
    fn file_backing(
        &self,
        file: &Arc<OpenFile>,
        access: Access,
    ) -> Result<(Backing, bool, Access)> {
        // What no file can be as large as (`file_mmap_ok` of Linux).
        let last = (i64::MAX as u64).checked_sub(self.length.next_multiple_of(PAGE));
        if last.is_none_or(|last| self.offset / PAGE > last / PAGE) {
            return Err(Errno::EOVERFLOW);
        }
        let is_shared = match self.flags & raw::MAP_TYPE {
            raw::MAP_PRIVATE => false,
            raw::MAP_SHARED => true,
            raw::MAP_SHARED_VALIDATE if self.flags & !KNOWN == 0 => true,
            raw::MAP_SHARED_VALIDATE => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::EINVAL),
        };
        let opened = file.flags();
        let stores = is_shared && access.contains(Access::WRITE);
        if stores && !opened.can_write() || !opened.can_read() {
            return Err(Errno::EACCES);
        }
        let mut max_access = MapRequest::ALL_ACCESS;
        if is_shared && !opened.can_write() {
            max_access -= Access::WRITE;
        }
        let source = Arc::clone(&file.ops).page_source()?;
        if self.has(raw::MAP_GROWSDOWN) {
            return Err(Errno::EINVAL);
        }
        let first_page = self.offset / PAGE;
        source.check_start(first_page)?;
        Ok((
            Backing::Source { source, first_page },
            is_shared,
            max_access,
        ))
    }
}
