//! Drivers of virtio devices, and the search for them.

mod batch;
pub mod block;
mod interrupt;

pub use batch::Batch;
