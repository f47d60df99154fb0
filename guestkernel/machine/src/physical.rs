//! Physical addresses and the map through which the kernel reaches all of guest memory.

/// Bytes in a page frame.
pub const PAGE_SIZE: usize = 4096;

/// A guest-physical address, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

impl core::fmt::LowerHex for PhysAddr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::LowerHex::fmt(&self.0, f)
    }
}

/// Where the kernel sees the byte at `address`.
///
/// The pointer is valid for reads and writes as long as `address` is RAM; whether the memory
/// may be touched at all is the caller's affair.
pub(crate) fn pointer(address: PhysAddr) -> *mut u8 {
    crate::backend::physical_map().wrapping_add(address.0 as usize)
}
