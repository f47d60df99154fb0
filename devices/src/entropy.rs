//! The entropy device (VIRTIO 1.2, section 5.4): the host's getrandom(2).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, Events, MutEventSubscriber};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use vm_memory::Bytes;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use crate::{Activation, Buffers, QueueError, Statistics, VirtioDevice, Virtqueue};

const QUEUE_SIZES: [u16; 1] = [64];

/// Most bytes that one request gets, so that no request keeps the event loop.
const REQUEST_MAX: usize = 1 << 12;

/// A virtio-rng device.
#[derive(Default)]
pub struct Entropy {
    queue: Arc<Mutex<Option<Virtqueue>>>,
    statistics: Arc<Statistics>,
}

impl Entropy {
    /// The subscriber that serves the queue of this device, whose doorbell is `doorbell`.
    ///
    /// # Errors
    ///
    /// Those of dup(2).
    pub fn subscriber(&self, doorbell: &EventFd) -> io::Result<EntropyQueue> {
        Ok(EntropyQueue {
            queue: Arc::clone(&self.queue),
            doorbell: doorbell.try_clone()?,
            statistics: Arc::clone(&self.statistics),
        })
    }

    /// What the device has done.
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }
}

/// Serves the queue from an event loop.
pub struct EntropyQueue {
    queue: Arc<Mutex<Option<Virtqueue>>>,
    doorbell: EventFd,
    statistics: Arc<Statistics>,
}

fn lock(queue: &Mutex<Option<Virtqueue>>) -> MutexGuard<'_, Option<Virtqueue>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves what is available, no more in one go than the queue holds.
fn serve(active: &mut Option<Virtqueue>, statistics: &Statistics) {
    let Some(queue) = active else { return };
    if let Err(error) = fill_buffers(queue, statistics) {
        queue.interrupt().fail(&error);
        *active = None;
    }
}

fn fill_buffers(queue: &mut Virtqueue, statistics: &Statistics) -> Result<(), QueueError> {
    let mut buffers = Buffers::default();
    for _ in 0..queue.size() {
        if !queue.pop_or_arm(&mut buffers)? {
            return queue.announce();
        }
        let written = fill(queue, &buffers)?;
        statistics.reads.add(1);
        statistics.read_bytes.add(written.into());
        queue.push_used(buffers.head, written)?;
    }
    // Others in the event loop come first; then this goes on.
    queue.doorbell().write(1)?;
    queue.announce()
}

/// Fills the writable buffers, up to [`REQUEST_MAX`] bytes; gives how many were written.
fn fill(queue: &Virtqueue, buffers: &Buffers) -> Result<u32, QueueError> {
    let mut random = [0; REQUEST_MAX];
    let mut rest = &mut random[..];
    let mut written = 0;
    for segment in &buffers.writable {
        let (now, later) = rest.split_at_mut(rest.len().min(segment.len as usize));
        getrandom(now)?;
        queue
            .memory()
            .write_slice(now, segment.addr)
            .map_err(|_| QueueError::Request("a buffer left guest memory"))?;
        written += now.len() as u32;
        rest = later;
    }
    Ok(written)
}

/// Fills `buffer` from the host's random pool.
fn getrandom(buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        // SAFETY: the buffer is valid for writes of its length.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => done += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

impl VirtioDevice for Entropy {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn name(&self) -> &str {
        "entropy"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut active = lock(&self.queue);
        *active = activation.queues.into_iter().flatten().next();
        // A notification that came before is in the queue now.
        serve(&mut active, &self.statistics);
        Ok(())
    }

    fn reset(&mut self) {
        *lock(&self.queue) = None;
    }
}

impl MutEventSubscriber for EntropyQueue {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        // EAGAIN says that a notification was taken already.
        let _ = self.doorbell.read();
        serve(&mut lock(&self.queue), &self.statistics);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.doorbell, EventSet::IN)) {
            log::error!("entropy: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
