//! Programs' memory: address spaces and the memory side of reads and writes.

mod address_space;
mod change;
mod code;
mod fault;
mod fork;
mod io_buffer;
mod page_source;
mod pieces;
mod release;
#[cfg(test)]
mod tests;
mod user_access;
mod user_range;
mod vma;

pub use address_space::{AddressSpace, MMAP_MIN, TASK_SIZE};
pub use change::{Advice, Remap};
pub use fault::FaultError;
pub(crate) use fault::set_shrinker;
pub use io_buffer::IoBuffer;
pub use machine::{Access, Segment};
pub use page_source::{Mappers, PageSource, SharedMemory};
pub(crate) use release::give_back;
pub use user_range::{MAX_COUNT, UserRange, UserRanges, read_iovecs};
pub use vma::{Backing, MapRequest, NotForked, PAGE, Placement};
