//! A simulated virtio device: virtio-mmio registers and split virtqueues from the device's side,
//! with a [`Model`] behind them that answers requests.
//!
//! It works on the driver's thread, when the driver rings the doorbell or the test calls
//! [`SimulatedDevice::process`]. It can be told to write nonsense ([`Sabotage`]).

use super::mmio::{self, MmioDevice};
use crate::physical::{self, PhysAddr};
use crate::virtio_mmio::{register, ring_features};
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const FEATURES_OK: u32 = 8;
const DRIVER_OK: u32 = 4;
const NEEDS_RESET: u32 = 64;
const CONFIG: u64 = 0x100;

/// What a simulated device does.
pub trait Model: Send + 'static {
    /// Its kind (VIRTIO 1.2, chapter 5).
    fn device_id(&self) -> u32;

    /// Its own features; those of the transport come from [`SimulatedDevice::attach`].
    fn features(&self) -> u64 {
        0
    }

    /// 32 bits of its configuration space.
    fn config(&self, _offset: u64) -> u32 {
        0
    }

    /// The largest size of queue `index`; 0 if there is none.
    fn queue_size(&self, index: u32) -> u16;

    /// Answers a request that queue `index` brought: `readable` is what the driver wrote, and
    /// the answer has at most `writable` bytes. `None` keeps the request for later.
    fn serve(&mut self, index: u32, readable: &[u8], writable: usize) -> Option<Vec<u8>>;
}

/// Nonsense that a device writes into the used ring instead of its next answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The number of a descriptor that the queue does not have.
    UnknownId,
    /// A descriptor that starts no request in flight.
    IdleId,
    /// More bytes than the driver gave room for.
    HugeLength,
    /// An index that is further than there are requests.
    IndexJump,
    /// The same request a second time.
    Twice,
}

#[derive(Default)]
struct Queue {
    size: u16,
    is_ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
    next_available: u16,
    next_used: u16,
    /// Heads of requests that the model keeps.
    held: VecDeque<u16>,
}

struct DeviceState<M> {
    model: M,
    transport_features: u64,
    status: u32,
    feature_select: [u32; 2],
    driver_features: u64,
    selected: u32,
    queues: Vec<Queue>,
    is_paused: bool,
    sabotage: Option<Sabotage>,
    irq: Option<u32>,
    counts: Counts,
}

/// What has happened to a simulated device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Register accesses.
    pub accesses: usize,
    /// Doorbells among them.
    pub doorbells: usize,
    /// Interrupts that the driver had asked for.
    pub interrupts: usize,
    /// Requests answered.
    pub answers: usize,
}

/// A simulated virtio device.
pub struct SimulatedDevice<M>(Mutex<DeviceState<M>>);

impl<M: Model> SimulatedDevice<M> {
    /// Attaches a device that offers `VERSION_1`, `EVENT_IDX` and `INDIRECT_DESC`.
    pub fn attach(model: M) -> (Arc<Self>, PhysAddr) {
        let all = ring_features::VERSION_1 | ring_features::EVENT_IDX | ring_features::INDIRECT;
        Self::attach_with(model, all)
    }

    /// Attaches a device that offers nothing but `VERSION_1` besides its own features.
    pub fn attach_plain(model: M) -> (Arc<Self>, PhysAddr) {
        Self::attach_with(model, ring_features::VERSION_1)
    }

    fn attach_with(model: M, transport_features: u64) -> (Arc<Self>, PhysAddr) {
        let queues = (0..)
            .take_while(|index| model.queue_size(*index) > 0)
            .map(|_| Queue::default())
            .collect();
        let device = Arc::new(Self(Mutex::new(DeviceState {
            model,
            transport_features,
            status: 0,
            feature_select: [0; 2],
            driver_features: 0,
            selected: 0,
            queues,
            is_paused: false,
            sabotage: None,
            irq: None,
            counts: Counts::default(),
        })));
        let address = mmio::attach(device.clone());
        (device, address)
    }

    fn state(&self) -> MutexGuard<'_, DeviceState<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `look` with the model.
    pub fn with_model<T>(&self, look: impl FnOnce(&mut M) -> T) -> T {
        look(&mut self.state().model)
    }

    /// Has it ignore doorbells until [`process`](Self::process), or no longer.
    pub fn pause(&self, is_paused: bool) {
        self.state().is_paused = is_paused;
    }

    /// Answers all requests that there are and the model does not keep. A function of its own in
    /// any build, so that a profile tells the device from its driver.
    #[inline(never)]
    pub fn process(&self) {
        self.state().process();
    }

    /// Answers up to `count` requests of queue `index`.
    pub fn process_some(&self, index: usize, count: usize) {
        self.state().process_queue(index, count);
    }

    /// Has it write nonsense instead of its next answer.
    pub fn sabotage(&self, sabotage: Sabotage) {
        self.state().sabotage = Some(sabotage);
    }

    /// Has its interrupts become pending as `irq`, rather than only counted.
    pub fn set_irq(&self, irq: u32) {
        self.state().irq = Some(irq);
    }

    /// Has it fail: it says so in its status, and interrupts.
    pub fn fail(&self) {
        let mut state = self.state();
        state.status |= NEEDS_RESET;
        state.interrupt();
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }
}

impl<M: Model> MmioDevice for SimulatedDevice<M> {
    fn read(&self, offset: u64) -> u32 {
        let mut state = self.state();
        state.counts.accesses += 1;
        let queue = state.selected;
        match offset {
            register::MAGIC_VALUE => u32::from_le_bytes(*b"virt"),
            register::VERSION => 2,
            register::DEVICE_ID => state.model.device_id(),
            register::DEVICE_FEATURES => {
                let offered = state.model.features() | state.transport_features;
                (offered >> (32 * state.feature_select[0])) as u32
            }
            register::QUEUE_NUM_MAX => state.model.queue_size(queue).into(),
            register::STATUS => state.status,
            CONFIG.. => state.model.config(offset - CONFIG),
            _ => 0,
        }
    }

    fn write(&self, offset: u64, value: u32) {
        let mut state = self.state();
        state.counts.accesses += 1;
        match offset {
            register::DEVICE_FEATURES_SEL => state.feature_select[0] = value,
            register::DRIVER_FEATURES_SEL => state.feature_select[1] = value,
            register::DRIVER_FEATURES => {
                let shift = 32 * state.feature_select[1];
                state.driver_features |= u64::from(value) << shift;
            }
            register::QUEUE_SEL => state.selected = value,
            register::QUEUE_NOTIFY => {
                state.counts.doorbells += 1;
                if !state.is_paused {
                    state.process_queue(value as usize, usize::MAX);
                    state.process();
                }
            }
            register::STATUS => state.set_status(value),
            _ => state.set_queue(offset, value),
        }
    }
}

impl<M: Model> DeviceState<M> {
    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.status = 0;
            self.feature_select = [0; 2];
            self.driver_features = 0;
            self.selected = 0;
            self.queues.fill_with(Queue::default);
            return;
        }
        let offered = self.model.features() | self.transport_features;
        let is_acceptable = self.driver_features & !offered == 0;
        self.status = match is_acceptable {
            true => value,
            false => value & !FEATURES_OK,
        };
    }

    fn set_queue(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.queues.get_mut(self.selected as usize) else {
            return;
        };
        let (low, high) = (u64::from(value), u64::from(value) << 32);
        match offset {
            register::QUEUE_NUM => queue.size = value as u16,
            register::QUEUE_READY => queue.is_ready = value == 1,
            register::QUEUE_DESC_LOW => queue.descriptors |= low,
            register::QUEUE_DESC_HIGH => queue.descriptors |= high,
            register::QUEUE_DRIVER_LOW => queue.available |= low,
            register::QUEUE_DRIVER_HIGH => queue.available |= high,
            register::QUEUE_DEVICE_LOW => queue.used |= low,
            register::QUEUE_DEVICE_HIGH => queue.used |= high,
            _ => {}
        }
    }

    fn has(&self, feature: u64) -> bool {
        self.driver_features & feature != 0
    }

    /// Serves all queues, until that changes nothing: one may bring answers to another.
    fn process(&mut self) {
        let mut before = None;
        while before != Some(self.counts.answers) {
            before = Some(self.counts.answers);
            for index in 0..self.queues.len() {
                self.process_queue(index, usize::MAX);
            }
        }
    }

    fn process_queue(&mut self, index: usize, count: usize) {
        let is_running = self.status & DRIVER_OK != 0 && self.status & NEEDS_RESET == 0;
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        if !is_running || !queue.is_ready {
            return;
        }
        while queue.next_available != atomic_u16(queue.available + 2).load(Ordering::Acquire) {
            let slot = u64::from(queue.next_available % queue.size);
            let head = atomic_u16(queue.available + 4 + 2 * slot).load(Ordering::Relaxed);
            queue.held.push_back(head);
            queue.next_available = queue.next_available.wrapping_add(1);
        }
        let event = queue.used + 4 + 8 * u64::from(queue.size);
        atomic_u16(event).store(queue.next_available, Ordering::Relaxed);
        let mut answered = 0;
        for _ in 0..queue.held.len() {
            if answered == count {
                break;
            }
            let Some(head) = self.queues[index].held.pop_front() else {
                break;
            };
            let (readable, writable) = self.chain(index, head);
            let room = writable.iter().map(|(_, length)| length).sum();
            match self.model.serve(index as u32, &readable, room) {
                Some(answer) => {
                    scatter(&writable, &answer);
                    self.push_used(index, head, answer.len() as u32);
                    answered += 1;
                }
                None => {
                    // What is kept keeps its turn.
                    self.queues[index].held.push_front(head);
                    break;
                }
            }
        }
        if answered > 0 {
            self.interrupt_if_wanted(index, answered as u16);
        }
    }

    /// The bytes to read and the places to write of the chain that starts at `head`.
    fn chain(&self, index: usize, head: u16) -> (Vec<u8>, Vec<(u64, usize)>) {
        let queue = &self.queues[index];
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        let (mut table, mut at, mut entries) = (queue.descriptors, head, queue.size);
        for _ in 0..=queue.size {
            assert!(
                at < entries,
                "the driver links to a descriptor beyond the table"
            );
            let [address, word] = [0, 8]
                .map(|half| atomic_u64(table + 16 * u64::from(at) + half).load(Ordering::Relaxed));
            let (length, flags, next) = (word as u32, (word >> 32) as u16, (word >> 48) as u16);
            if flags & 4 != 0 {
                assert!(self.has(ring_features::INDIRECT) && flags & 1 == 0);
                (table, at, entries) = (address, 0, (length / 16) as u16);
                assert!(entries <= queue.size, "a chain longer than the queue");
                continue;
            }
            if flags & 2 != 0 {
                writable.push((address, length as usize));
            } else {
                assert!(writable.is_empty(), "readable descriptors come first");
                readable.extend(gather(address, length as usize));
            }
            if flags & 1 == 0 {
                return (readable, writable);
            }
            at = next;
        }
        panic!("a chain longer than the queue");
    }

    fn push_used(&mut self, index: usize, head: u16, written: u32) {
        let sabotage = self.sabotage.take();
        self.counts.answers += 1;
        let queue = &mut self.queues[index];
        let (mut id, mut length, mut step) = (u64::from(head), u64::from(written), 1);
        match sabotage {
            None => {}
            Some(Sabotage::UnknownId) => id = 0xffff_0000,
            Some(Sabotage::IdleId) => id = u64::from(queue.size - 1),
            Some(Sabotage::HugeLength) => length = u32::MAX.into(),
            Some(Sabotage::IndexJump) => step = queue.size + 1,
            Some(Sabotage::Twice) => step = 2,
        }
        for place in 0..step.min(2) {
            let slot = u64::from(queue.next_used.wrapping_add(place) % queue.size);
            // The element's halves may be aligned to four bytes only, so it is copied as bytes.
            let element = (id | length << 32).to_le_bytes();
            scatter(&[(queue.used + 4 + 8 * slot, 8)], &element);
        }
        queue.next_used = queue.next_used.wrapping_add(step);
        atomic_u16(queue.used + 2).store(queue.next_used, Ordering::Release);
    }

    fn interrupt_if_wanted(&mut self, index: usize, answered: u16) {
        fence(Ordering::SeqCst);
        let queue = &self.queues[index];
        let is_wanted = if self.has(ring_features::EVENT_IDX) {
            let event = queue.available + 4 + 2 * u64::from(queue.size);
            let event = atomic_u16(event).load(Ordering::Relaxed);
            queue.next_used.wrapping_sub(event).wrapping_sub(1) < answered
        } else {
            atomic_u16(queue.available).load(Ordering::Relaxed) & 1 == 0
        };
        if is_wanted {
            self.interrupt();
        }
    }

    fn interrupt(&mut self) {
        self.counts.interrupts += 1;
        if let Some(irq) = self.irq {
            super::interrupt::raise(irq);
        }
    }
}

/// Where the `length` bytes at `address` of simulated RAM are.
fn locate(address: u64, length: usize) -> *mut u8 {
    let end = u64::from(super::FRAMES) * physical::PAGE_SIZE as u64;
    assert!(
        address != 0 && address <= end && length as u64 <= end - address,
        "the driver names memory that does not exist: {address:#x}"
    );
    physical::pointer(PhysAddr(address))
}

fn atomic_u16(address: u64) -> &'static AtomicU16 {
    assert!(address.is_multiple_of(2));
    // SAFETY: aligned, in simulated RAM, which is never freed, and rings are accessed as atomics.
    unsafe { AtomicU16::from_ptr(locate(address, 2).cast()) }
}

fn atomic_u64(address: u64) -> &'static AtomicU64 {
    assert!(address.is_multiple_of(8));
    // SAFETY: as above.
    unsafe { AtomicU64::from_ptr(locate(address, 8).cast()) }
}

fn gather(address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // SAFETY: the source is in simulated RAM, which is only ever accessed through raw pointers,
    // and the device works on the thread of its driver.
    unsafe { super::copy(locate(address, length), bytes.as_mut_ptr(), length) }
    bytes
}

fn scatter(places: &[(u64, usize)], mut bytes: &[u8]) {
    for (address, length) in places {
        let here;
        (here, bytes) = bytes.split_at(bytes.len().min(*length));
        // SAFETY: as in `gather`.
        unsafe { super::copy(here.as_ptr(), locate(*address, here.len()), here.len()) }
    }
    assert!(
        bytes.is_empty(),
        "the model answers more than there is room for"
    );
}
