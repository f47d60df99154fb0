//! A virtqueue as a device uses it: checked chains, batched notifications.

use std::io;
use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use crate::{Buffers, ChainError, Interrupt, Memory};

/// Why a queue can be used no longer.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A chain makes no sense.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The rings make no sense.
    #[error("{0}")]
    Ring(virtio_queue::Error),
    /// A request that the device type does not allow.
    #[error("{0}")]
    Request(&'static str),
    /// The host denies what the device needs to go on.
    #[error("host: {0}")]
    Host(#[from] io::Error),
}

impl From<virtio_queue::Error> for QueueError {
    fn from(error: virtio_queue::Error) -> Self {
        Self::Ring(error)
    }
}

/// What is said of a queue before it is used.
#[derive(Clone, Copy, Default)]
pub(crate) struct QueueSetup {
    pub(crate) max_size: u16,
    pub(crate) size: u16,
    pub(crate) ready: bool,
    /// Guest-physical addresses of the three parts.
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    /// Where in the rings it goes on: as many chains were taken and given back before.
    pub(crate) position: u16,
}

impl QueueSetup {
    /// The queue of a fresh or reset device.
    pub(crate) fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            ..Self::default()
        }
    }

    /// The queue, if size and addresses are what the standard asks for (VIRTIO 1.2, 2.7).
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub(crate) fn build(&self, memory: &Memory, event_idx: bool) -> Result<Queue, &'static str> {
        let entries = usize::from(self.size);
        let rings = [
            (self.descriptors, 16 * entries),
            (self.driver, 6 + 2 * entries),
            (self.device, 6 + 8 * entries),
        ];
        for (addr, bytes) in rings {
            // Address 0 is what a queue has that was never set up.
            if addr == 0 || memory.get_slice(GuestAddress(addr), bytes).is_err() {
                return Err("a ring of a queue is not in guest memory");
            }
        }
        Queue::try_from(QueueState {
            max_size: self.max_size,
            next_avail: self.position,
            next_used: self.position,
            event_idx_enabled: event_idx,
            size: self.size,
            ready: true,
            desc_table: self.descriptors,
            avail_ring: self.driver,
            used_ring: self.device,
        })
        .map_err(|_| "a queue has a bad size or a ring that is not aligned")
    }
}

/// A split virtqueue (VIRTIO 1.2, 2.7) with its doorbell and interrupt.
pub struct Virtqueue {
    queue: Queue,
    memory: Memory,
    doorbell: EventFd,
    interrupt: Arc<Interrupt>,
    unannounced: bool,
}

impl Virtqueue {
    /// Joins the parts. `queue` must be valid in `memory`.
    pub(crate) fn new(
        queue: Queue,
        memory: Memory,
        doorbell: EventFd,
        interrupt: Arc<Interrupt>,
    ) -> Self {
        Self {
            queue,
            memory,
            doorbell,
            interrupt,
            unannounced: false,
        }
    }

    /// The guest memory that the queue is in.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The event that the driver's notification writes to.
    pub fn doorbell(&self) -> &EventFd {
        &self.doorbell
    }

    /// The device's interrupt.
    pub fn interrupt(&self) -> &Arc<Interrupt> {
        &self.interrupt
    }

    /// Entries of the queue.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Takes the next available chain into `buffers`; `false` if there is none.
    ///
    /// # Errors
    ///
    /// A chain or ring that makes no sense.
    pub fn pop(&mut self, buffers: &mut Buffers) -> Result<bool, QueueError> {
        let size = self.queue.size();
        let Some(chain) = self.queue.iter(&*self.memory)?.next() else {
            return Ok(false);
        };
        buffers.collect(chain, &self.memory, size)?;
        Ok(true)
    }

    /// As [`pop`](Self::pop), but where there is no chain the driver will notify of the next.
    ///
    /// # Errors
    ///
    /// As for [`pop`](Self::pop).
    pub fn pop_or_arm(&mut self, buffers: &mut Buffers) -> Result<bool, QueueError> {
        Ok(self.pop(buffers)? || (self.enable_notification()? && self.pop(buffers)?))
    }

    /// Gives chain `head` back with `written` bytes written; [`announce`](Self::announce) follows.
    ///
    /// # Errors
    ///
    /// The ring is not in guest memory.
    pub fn push_used(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.queue.add_used(&*self.memory, head, written)?;
        self.unannounced = true;
        Ok(())
    }

    /// Interrupts the driver if chains were given back since the last call and it asked for it.
    ///
    /// # Errors
    ///
    /// The ring is not in guest memory.
    pub fn announce(&mut self) -> Result<(), QueueError> {
        if std::mem::take(&mut self.unannounced) && self.queue.needs_notification(&*self.memory)? {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    /// Asks the driver for notifications; `true` if chains became available meanwhile, and then
    /// no notification may come for them.
    ///
    /// # Errors
    ///
    /// The ring is not in guest memory.
    pub fn enable_notification(&mut self) -> Result<bool, QueueError> {
        Ok(self.queue.enable_notification(&*self.memory)?)
    }

    /// Tells the driver that the device looks for chains by itself.
    ///
    /// # Errors
    ///
    /// The ring is not in guest memory.
    pub fn disable_notification(&mut self) -> Result<(), QueueError> {
        Ok(self.queue.disable_notification(&*self.memory)?)
    }
}
