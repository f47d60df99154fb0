//! What several targets stand on: guest memory, and the image of a kernel.

use ringlet_devices::Memory;
use ringlet_vmm::debug::Image;
use ringlet_vmm::kernel_image::{LoadedKernel, Segment};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Bytes of guest memory.
pub const MEMORY: usize = 1 << 16;

/// Guest memory that starts with `bytes`, as far as there is room.
pub fn memory(bytes: &[u8]) -> Memory {
    let ranges = [(GuestAddress(0), MEMORY)];
    let memory = GuestMemoryMmap::from_ranges(&ranges).expect("memory");
    let bytes = &bytes[..bytes.len().min(MEMORY)];
    memory.write_slice(bytes, GuestAddress(0)).expect("room");
    Memory::new(memory)
}

/// A kernel of one segment, without symbols.
pub fn image() -> Image {
    Image::new(LoadedKernel {
        entry: 0x1000,
        end: 0x3000,
        file: std::fs::File::open("/dev/null").expect("/dev/null"),
        segments: vec![Segment {
            linked: 0xffff_ffff_8000_1000,
            physical: 0x1000,
            size: 0x2000,
        }],
    })
}
