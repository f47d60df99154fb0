//! Guest RAM, in two regions around the 32-bit hole: private anonymous memory, or a file in memory
//! where another process is to map it, too.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use ringlet_abi::control::RELEASE_SIZE;
use ringlet_abi::{HIGH_RAM_BASE, LOW_RAM_END};
use ringlet_devices::Memory;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionMmap,
};

use crate::metrics::Metrics;

/// Less does not hold the kernel and a root file system.
const MIN: u64 = 32 << 20;
const PAGE: u64 = 4096;

/// Why guest memory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Less than the kernel needs.
    #[error("{} KiB of guest memory is too little; give at least {} MiB", .0 >> 10, MIN >> 20)]
    TooSmall(u64),
    /// More than the host has.
    #[error(
        "{} MiB of guest memory is more than the {} MiB that this host has; give less",
        .wanted >> 20,
        .host >> 20
    )]
    TooLarge {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes of RAM in the host.
        host: u64,
    },
    /// No whole number of pages.
    #[error("{0} bytes of guest memory is no multiple of 4 KiB; give one, as in 512M")]
    Unaligned(u64),
    /// The host denies the address space.
    #[error("cannot map {} MiB of guest memory: {cause}; give less", .size >> 20)]
    Map {
        /// Bytes asked for.
        size: u64,
        /// What the host says.
        cause: String,
    },
    /// KVM denies the region.
    #[error("KVM does not take the guest memory: {0}")]
    Kvm(kvm_ioctls::Error),
}

/// The regions of `size` bytes of guest RAM: guest-physical address and bytes.
pub fn layout(size: u64) -> Vec<(u64, u64)> {
    let low = size.min(LOW_RAM_END);
    let mut regions = vec![(0, low)];
    if size > low {
        regions.push((HIGH_RAM_BASE, size - low));
    }
    regions
}

/// Maps `size` bytes of guest RAM and asks for huge pages.
///
/// # Errors
///
/// [`MemoryError`], before anything is mapped if the size makes no sense.
pub fn map(size: u64) -> Result<GuestMemoryMmap, MemoryError> {
    map_regions(size, None)
}

/// As [`map`], with all RAM in one file in memory, which it gives: for another process to map.
///
/// # Errors
///
/// As for [`map`].
pub fn map_shared(size: u64) -> Result<(GuestMemoryMmap, File), MemoryError> {
    check(size, host_ram())?;
    let failed = |error: io::Error| MemoryError::Map {
        size,
        cause: error.to_string(),
    };
    let file = memory_file(c"ringlet-ram").map_err(failed)?;
    file.set_len(size).map_err(failed)?;
    Ok((map_regions(size, Some(&file))?, file))
}

/// An empty file in memory.
///
/// # Errors
///
/// Those of memfd_create(2).
pub fn memory_file(name: &CStr) -> io::Result<File> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    match fd {
        // SAFETY: the descriptor is new and nobody else's.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Maps the regions, of `file` one behind the other if there is one.
fn map_regions(size: u64, file: Option<&File>) -> Result<GuestMemoryMmap, MemoryError> {
    check(size, host_ram())?;
    let failed = |cause: &dyn std::fmt::Display| MemoryError::Map {
        size,
        cause: cause.to_string(),
    };
    let mut regions = Vec::new();
    let mut offset = 0;
    for (base, len) in layout(size) {
        let builder =
            MmapRegionBuilder::new(len as usize).with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
        let builder = match file {
            Some(file) => {
                let file = file.try_clone().map_err(|error| failed(&error))?;
                builder
                    .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
                    .with_file_offset(FileOffset::new(file, offset))
            }
            None => builder
                .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE),
        };
        offset += len;
        let mapping = builder.build().map_err(|error| failed(&error))?;
        // SAFETY: the range is the mapping that was just made; the advice changes no content.
        let advised =
            unsafe { libc::madvise(mapping.as_ptr().cast(), len as usize, libc::MADV_HUGEPAGE) };
        if advised != 0 {
            let error = io::Error::last_os_error();
            log::debug!("no huge pages for guest memory: {error}");
        }
        hide_from_cores(mapping.as_ptr(), len as usize);
        regions.push(
            GuestRegionMmap::new(mapping, GuestAddress(base))
                .ok_or_else(|| failed(&"the address range is too large"))?,
        );
    }
    GuestMemoryMmap::from_regions(regions).map_err(|error| failed(&error))
}

/// Gives the regions of `memory` to the VM.
///
/// # Errors
///
/// [`MemoryError::Kvm`].
pub fn register(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), MemoryError> {
    for (slot, region) in memory.iter().enumerate() {
        let host = memory
            .get_host_address(region.start_addr())
            .map_err(|_| MemoryError::Kvm(kvm_ioctls::Error::new(libc::EFAULT)))?;
        let region = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the range is a mapping that lives as long as the VM: the VM's owner keeps it.
        unsafe { vm.set_user_memory_region(region) }.map_err(MemoryError::Kvm)?;
    }
    Ok(())
}

/// Maps the first `len` bytes of `file` over guest RAM at `at`, which is page-aligned: a private
/// copy, of which only what the guest touches takes time and memory.
///
/// What the guest has not written yet is the file's, so a file that changes changes in the guest
/// too. If it is truncated, the VM ends where the guest touches what is gone.
///
/// # Errors
///
/// Those of mmap(2); EINVAL if the range is not in one region.
pub fn map_file(
    memory: &GuestMemoryMmap,
    at: GuestAddress,
    file: &File,
    len: usize,
) -> io::Result<()> {
    let pages = len.next_multiple_of(PAGE as usize);
    let range = memory
        .get_slice(at, pages)
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let start = range.ptr_guard_mut().as_ptr();
    // SAFETY: the range is guest RAM, mapped by `map` and unmapped as a whole with its region.
    // Nothing but guest memory accesses, which expect any content, goes there.
    let mapped = unsafe {
        libc::mmap(
            start.cast(),
            pages,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED,
            file.as_raw_fd(),
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    hide_from_cores(start, pages);
    Ok(())
}

/// Leaves memory out of cores: it is the guest's. What is mapped over it later is to be left out, too.
fn hide_from_cores(address: *mut u8, len: usize) {
    // SAFETY: the range is a mapping of guest RAM; the advice changes no content.
    if unsafe { libc::madvise(address.cast(), len, libc::MADV_DONTDUMP) } != 0 {
        log::debug!("guest memory in cores: {}", io::Error::last_os_error());
    }
}

/// Guest RAM as a guest gives it back.
pub struct Ram {
    memory: Memory,
    /// Where a file is mapped over it.
    file: Range<u64>,
    metrics: Arc<Metrics>,
}

impl Ram {
    /// All of `memory`, which holds a file at the addresses `file`. What is given back is counted.
    pub fn new(memory: Memory, file: Range<u64>, metrics: Arc<Metrics>) -> Self {
        Self {
            memory,
            file,
            metrics,
        }
    }

    /// Gives a block ([`RELEASE_SIZE`]) back to the host: it holds zeros afterwards, however that is
    /// done. What is no block of guest RAM is ignored.
    pub fn release(&self, block: u32) {
        let start = u64::from(block) * RELEASE_SIZE;
        let Ok(slice) = self
            .memory
            .get_slice(GuestAddress(start), RELEASE_SIZE as usize)
        else {
            return log::debug!("block {block:#x} to release is not in guest memory");
        };
        let address = slice.ptr_guard_mut().as_ptr();
        let holds_file = start < self.file.end && self.file.start < start + RELEASE_SIZE;
        let result = match holds_file {
            // To forget a private copy of a file's page is to see the file again.
            true => map_zeros(address, RELEASE_SIZE as usize),
            // SAFETY: the range is guest RAM, in whose content nothing of this process relies.
            false => match unsafe {
                libc::madvise(address.cast(), RELEASE_SIZE as usize, libc::MADV_DONTNEED)
            } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        };
        self.metrics.released_bytes.add(RELEASE_SIZE);
        if let Err(error) = result {
            log::debug!("block {block:#x} is not released: {error}");
            // As promised, at least. The range is in guest memory, so it succeeds.
            let zeros = [0; PAGE as usize];
            for offset in (0..RELEASE_SIZE).step_by(zeros.len()) {
                let _ = self
                    .memory
                    .write_slice(&zeros, GuestAddress(start + offset));
            }
        }
    }
}

/// Maps fresh memory over guest RAM at `address`, in place of what is mapped there.
fn map_zeros(address: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: as in `map_file`.
    let mapped = unsafe {
        libc::mmap(
            address.cast(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    hide_from_cores(address, len);
    Ok(())
}

fn check(size: u64, host: u64) -> Result<(), MemoryError> {
    if size < MIN {
        return Err(MemoryError::TooSmall(size));
    }
    if !size.is_multiple_of(PAGE) {
        return Err(MemoryError::Unaligned(size));
    }
    if size > host {
        return Err(MemoryError::TooLarge { wanted: size, host });
    }
    Ok(())
}

/// Bytes of RAM in the host.
fn host_ram() -> u64 {
    // SAFETY: sysconf has no memory arguments.
    let (pages, page) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    u64::try_from(pages).unwrap_or(0) * u64::try_from(page).unwrap_or(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_goes_around_the_hole() {
        assert_eq!(layout(512 << 20), [(0, 512 << 20)]);
        assert_eq!(layout(LOW_RAM_END), [(0, LOW_RAM_END)]);
        assert_eq!(
            layout(LOW_RAM_END + 4096),
            [(0, LOW_RAM_END), (HIGH_RAM_BASE, 4096)]
        );
    }

    #[test]
    fn sizes_are_checked() {
        let host = 1 << 33;
        assert!(check(MIN, host).is_ok());
        assert!(check(host, host).is_ok());
        assert!(matches!(
            check(MIN - PAGE, host),
            Err(MemoryError::TooSmall(_))
        ));
        assert!(matches!(
            check(MIN + 1, host),
            Err(MemoryError::Unaligned(_))
        ));
        assert!(matches!(
            check(host + PAGE, host),
            Err(MemoryError::TooLarge { .. })
        ));
    }

    #[test]
    fn mapped_memory_is_zero_and_ends_where_it_says() {
        use vm_memory::Bytes;
        let memory = map(64 << 20).unwrap();
        let last: u8 = memory.read_obj(GuestAddress((64 << 20) - 1)).unwrap();
        assert_eq!(last, 0);
        assert!(memory.read_obj::<u8>(GuestAddress(64 << 20)).is_err());
    }

    #[test]
    fn released_blocks_hold_zeros_also_where_a_file_was() {
        use std::io::Write;
        let memory = Memory::new(map(32 << 20).unwrap());
        let mut file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.write_all(&[7; 8192]).unwrap();
        let image = (8 << 20) - 4096;
        map_file(&memory, GuestAddress(image), &file, 8192).unwrap();
        for at in [6 << 20, image, 8 << 20, 10 << 20] {
            memory.write_obj(9_u8, GuestAddress(at)).unwrap();
        }
        let ram = Ram::new(Memory::clone(&memory), image..image + 8192, Arc::default());
        for block in [3, 4, 16, u32::MAX] {
            ram.release(block);
        }
        let mut bytes = vec![1; 4 << 20];
        memory
            .read_slice(&mut bytes, GuestAddress(6 << 20))
            .unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        assert_eq!(memory.read_obj::<u8>(GuestAddress(10 << 20)).unwrap(), 9);
    }

    #[test]
    fn a_mapped_file_is_a_private_copy_between_zeros() {
        use std::io::{Seek, Write};
        use vm_memory::Bytes;
        let memory = map(32 << 20).unwrap();
        let at = GuestAddress(0x10_0000);
        let mut file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.write_all(&[7; 5000]).unwrap();
        map_file(&memory, at, &file, 5000).unwrap();
        let mut bytes = vec![9; 3 * 4096];
        memory
            .read_slice(&mut bytes, GuestAddress(at.0 - 4096))
            .unwrap();
        assert!(bytes[..4096].iter().all(|byte| *byte == 0));
        assert!(bytes[4096..9096].iter().all(|byte| *byte == 7));
        assert!(bytes[9096..].iter().all(|byte| *byte == 0));
        memory.write_obj(1_u8, at).unwrap();
        let mut first = [0];
        file.rewind().unwrap();
        std::io::Read::read_exact(&mut file, &mut first).unwrap();
        assert_eq!(first, [7]);
        let past = GuestAddress((32 << 20) - 4096);
        assert!(map_file(&memory, past, &file, 5000).is_err());
    }
}
