//! All unsafe code of the guest kernel, behind types that are sound for any safe caller.
//!
//! Built with `--cfg baremetal` this is the machine itself: boot, the monitor, traps, paging,
//! clocks, MMIO. Built without, it is the *hosted backend*: physical memory is a block of the
//! heap, page tables are built but never loaded, programs are closures, so that everything
//! above can be tested, fuzzed and run under Miri as a normal library. Files that differ between
//! the two stand in `bare/` and `hosted/`; all others are shared.
#![cfg_attr(baremetal, no_std)]

extern crate alloc;

#[cfg(baremetal)]
mod bare;
#[cfg(not(baremetal))]
pub mod hosted;

#[cfg(baremetal)]
use bare as backend;
#[cfg(not(baremetal))]
use hosted as backend;

mod boot_info;
#[cfg(any(baremetal, test))]
mod calibration;
mod dma;
mod frame;
#[cfg(any(baremetal, test))]
mod heap_cache;
mod heap_use;
mod in_place;
pub mod lock;
mod mmio;
mod mode;
mod page_table;
mod physical;
mod plain;
mod random;
mod stall;
#[cfg(any(baremetal, test))]
mod tsc_sync;
mod user;
mod virtio_mmio;
mod virtqueue;
pub mod watchdog;

/// CPUs that the kernel can use; they are numbered from 0.
pub const MAX_CPUS: usize = 64;

pub use boot_info::{BootInfo, BootModule};
pub use dma::{DmaSegments, Segment};
pub use frame::{
    Frame, MemoryUse, OutOfMemory, PinnedFrame, has_free_blocks, idle_blocks, memory_use,
    release_block, take_free_blocks, watch_free_blocks,
};
pub use heap_use::HeapUse;
pub use in_place::InPlace;
pub use mmio::{MmioError, MmioRegion};
pub use mode::Mode;
pub use page_table::{Access, Flush, MapError, Missing, PageTable, Space};
pub use physical::{PAGE_SIZE, PhysAddr};
pub use plain::Plain;
pub use random::hardware_random;
pub use user::{PageFault, Registers, Trap, UserContext, syscall_gate};
pub use virtio_mmio::{VirtioError, VirtioFound, VirtioSetup, VirtioTransport};
pub use virtqueue::{
    AddError, BothWays, Completion, Payload, QueueBroken, Reply, ReplyBytes, SmallParts, VirtQueue,
};

pub use backend::clock;
pub use backend::extended::store_current as suspend_program;
pub use backend::heap::heap_use;
pub use backend::interrupt;
pub use backend::mode::{is_cpl0_emulated, mode};
pub use backend::power;
#[cfg(feature = "provoke")]
pub use backend::provoke;
pub use backend::report::cpus as report_cpus;
pub use backend::serial;
pub use backend::smp::{cpu_count, current_cpu, kick, start_cpus};
pub use backend::watch::progress;
