//! The virtio devices of Ringlet's VMM: block, console, entropy and
//! shared directories behind virtio-mmio.
//!
//! A device is a [`VirtioDevice`] inside an [`MmioTransport`], which owns the registers, the status
//! state machine and the doorbells; or inside a [`VhostUser`], where another process has these. Once the driver sets DRIVER_OK the device gets its
//! [`Virtqueue`]s and serves them on threads of its own or in the VMM's event loop. Those threads are
//! there from the start, so that they can be confined before the guest runs: see [`Threads`] and
//! [`Service`].
//!
//! Everything that comes from the guest is untrusted. A queue or request that makes no sense marks
//! the device failed ([`Interrupt::fail`]); it never panics and never reaches memory outside the
//! guest's.

pub mod block;
mod bucket;
mod chain;
pub mod console;
mod device;
mod engine;
pub mod entropy;
pub mod fs;
mod interrupt;
mod mmio;
mod poll;
mod queue;
mod service;
pub mod statistics;
#[cfg(test)]
mod testing;
mod threads;
mod vhost_user;
mod worker;

pub use bucket::Bucket;
pub use chain::{Buffers, ChainError, Segment};
pub use device::{Activation, VirtioDevice};
pub use interrupt::Interrupt;
pub use mmio::{MmioTransport, NOTIFY_OFFSET};
pub use queue::{QueueError, Virtqueue};
pub use service::Service;
pub use statistics::Statistics;
pub use threads::{ThreadKind, Threads};
pub use vhost_user::VhostUser;
pub use worker::{Stop, Worker};

/// Guest memory as the devices see it: shared with the VMM, mapped for the life of the VM.
pub type Memory = std::sync::Arc<vm_memory::GuestMemoryMmap>;
