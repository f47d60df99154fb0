//! The entropy device (VIRTIO 1.2, section 5.4): the host's getrandom(2).

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_manager::{EventOps, Events, MutEventSubscriber};
use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use vm_memory::Bytes;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use crate::{Activation, Bucket, Buffers, QueueError, Statistics, VirtioDevice, Virtqueue};

const QUEUE_SIZES: [u16; 1] = [64];

/// Most bytes that one request gets, so that no request keeps the event loop.
const REQUEST_MAX: usize = 1 << 12;

/// Bytes that a guest gets in a second, and at once after it was modest. Its kernel has a generator of
/// its own, which takes 32 bytes to start: this is to keep a hostile one from computing here for ever.
const RATE: u64 = 64 << 10;
const BURST: u64 = 1 << 20;

/// A virtio-rng device.
pub struct Entropy {
    state: Arc<Mutex<State>>,
    statistics: Arc<Statistics>,
}

struct State {
    queue: Option<Virtqueue>,
    /// It outlives a reset.
    bucket: Bucket,
}

impl Default for Entropy {
    fn default() -> Self {
        Self::with_bucket(Bucket::new(RATE, BURST))
    }
}

impl Entropy {
    fn with_bucket(bucket: Bucket) -> Self {
        let state = State {
            queue: None,
            bucket,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            statistics: Arc::default(),
        }
    }

    /// The subscriber that serves the queue of this device, whose doorbell is `doorbell`.
    ///
    /// # Errors
    ///
    /// Those of dup(2) and timerfd_create(2).
    pub fn subscriber(&self, doorbell: &EventFd) -> io::Result<EntropyQueue> {
        Ok(EntropyQueue {
            state: Arc::clone(&self.state),
            doorbell: doorbell.try_clone()?,
            statistics: Arc::clone(&self.statistics),
            timer: TimerFd::new().map_err(host_error)?,
        })
    }

    /// What the device has done.
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }
}

fn host_error(error: vmm_sys_util::errno::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

/// Serves the queue from an event loop.
pub struct EntropyQueue {
    state: Arc<Mutex<State>>,
    doorbell: EventFd,
    statistics: Arc<Statistics>,
    /// When the guest may have more.
    timer: TimerFd,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves what is available, no more in one go than the queue holds; gives how long to wait if that is
/// for the bucket.
fn serve(state: &mut State, statistics: &Statistics) -> Option<Duration> {
    let queue = state.queue.as_mut()?;
    match fill_buffers(queue, &mut state.bucket, statistics) {
        Ok(wait) => wait,
        Err(error) => {
            queue.interrupt().fail(&error);
            state.queue = None;
            None
        }
    }
}

fn fill_buffers(
    queue: &mut Virtqueue,
    bucket: &mut Bucket,
    statistics: &Statistics,
) -> Result<Option<Duration>, QueueError> {
    let mut buffers = Buffers::default();
    for _ in 0..queue.size() {
        let wait = bucket.wait(Instant::now());
        if !wait.is_zero() {
            queue.announce()?;
            return Ok(Some(wait));
        }
        if !queue.pop_or_arm(&mut buffers)? {
            queue.announce()?;
            return Ok(None);
        }
        let written = fill(queue, &buffers)?;
        statistics.reads.add(1);
        statistics.read_bytes.add(written.into());
        bucket.take(written.into(), Instant::now());
        queue.push_used(buffers.head, written)?;
    }
    // Others in the event loop come first; then this goes on.
    queue.doorbell().write(1)?;
    queue.announce()?;
    Ok(None)
}

/// Fills the writable buffers, up to [`REQUEST_MAX`] bytes; gives how many were written.
fn fill(queue: &Virtqueue, buffers: &Buffers) -> Result<u32, QueueError> {
    let mut random = [0; REQUEST_MAX];
    let mut rest = &mut random[..];
    let mut written = 0;
    for segment in &buffers.writable {
        let (now, later) = rest.split_at_mut(rest.len().min(segment.len as usize));
        fill_random(now)?;
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
fn fill_random(buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        done += retry_on_intr(|| getrandom(&mut *rest, GetRandomFlags::empty()))?;
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
        let queue = activation.queues.into_iter().flatten().next();
        if let Some(queue) = &queue {
            // What was made available before is served in the event loop, too.
            queue.doorbell().write(1)?;
        }
        lock(&self.state).queue = queue;
        Ok(())
    }

    fn reset(&mut self) {
        lock(&self.state).queue = None;
    }
}

impl MutEventSubscriber for EntropyQueue {
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        // EAGAIN says that a notification was taken already. A timer is read only when it has expired.
        let _ = self.doorbell.read();
        if events.fd() == self.timer.as_raw_fd() {
            let _ = self.timer.wait();
        }
        if let Some(wait) = serve(&mut lock(&self.state), &self.statistics)
            && let Err(error) = self.timer.reset(wait.max(Duration::from_millis(1)), None)
        {
            log::error!("entropy: {}", host_error(error));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for events in [
            Events::new(&self.doorbell, EventSet::IN),
            Events::new(&self.timer, EventSet::IN),
        ] {
            if let Err(error) = ops.add(events) {
                log::error!("entropy: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
