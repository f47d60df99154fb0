//! The driver's side, for tests: negotiates through the registers and fills queues in guest memory.

use std::time::{Duration, Instant};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{Memory, MmioTransport, VirtioDevice};

/// Bytes of the test guest's memory.
pub(crate) const MEMORY_SIZE: usize = 16 << 20;
/// Each queue's rings are at this distance.
const QUEUE_SPACE: u64 = 0x8000;
const AVAIL: u64 = 0x4000;
const USED: u64 = 0x5000;
/// Buffers of the tests lie from here on.
pub(crate) const BUFFERS: u64 = 0x10_0000;

/// Long enough for a machine with many times more work than it has CPUs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn memory() -> Memory {
    let ranges = [(GuestAddress(0), MEMORY_SIZE)];
    Memory::new(GuestMemoryMmap::from_ranges(&ranges).unwrap())
}

/// A buffer of a chain.
#[derive(Clone, Copy)]
pub(crate) enum Buffer {
    Readable(u64, u32),
    Writable(u64, u32),
}

/// A descriptor as it is in memory.
#[derive(Clone, Copy)]
pub(crate) struct RawDescriptor {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

/// One queue as the driver sees it.
struct DriverQueue {
    base: u64,
    size: u16,
    next_descriptor: u16,
    avail_index: u16,
    used_index: u16,
}

/// A driver for a device behind a transport.
pub(crate) struct Driver<D> {
    pub(crate) transport: MmioTransport<D>,
    pub(crate) memory: Memory,
    queues: Vec<DriverQueue>,
}

pub(crate) fn read32<D: VirtioDevice>(transport: &mut MmioTransport<D>, offset: u64) -> u32 {
    let mut word = [0; 4];
    transport.read(offset, &mut word);
    u32::from_le_bytes(word)
}

pub(crate) fn write32<D: VirtioDevice>(transport: &mut MmioTransport<D>, offset: u64, value: u32) {
    transport.write(offset, &value.to_le_bytes());
}

impl<D: VirtioDevice> Driver<D> {
    /// A driver that has not touched the device.
    pub(crate) fn new(device: D) -> Self {
        let memory = memory();
        Self {
            transport: MmioTransport::new(device, memory.clone()).unwrap(),
            memory,
            queues: Vec::new(),
        }
    }

    /// A driver that accepted `features` beside VERSION_1 and EVENT_IDX, and set DRIVER_OK.
    pub(crate) fn started(device: D, features: u64) -> Self {
        let mut driver = Self::new(device);
        driver.start(features);
        driver
    }

    pub(crate) fn reg(&mut self, offset: u64) -> u32 {
        read32(&mut self.transport, offset)
    }

    pub(crate) fn set_reg(&mut self, offset: u64, value: u32) {
        write32(&mut self.transport, offset, value);
    }

    pub(crate) fn start(&mut self, features: u64) {
        let features = features | 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX;
        self.set_reg(0x70, 0);
        self.set_reg(0x70, 1 | 2);
        for (sel, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.set_reg(0x24, sel);
            self.set_reg(0x20, half);
        }
        self.set_reg(0x70, 1 | 2 | 8);
        assert_eq!(self.reg(0x70) & 8, 8, "FEATURES_OK");
        self.queues.clear();
        for index in 0..self.transport.doorbells().len() {
            let base = 0x1000 + index as u64 * QUEUE_SPACE;
            self.set_reg(0x30, index as u32);
            let size = self.reg(0x34) as u16;
            self.set_reg(0x38, size.into());
            for (register, addr) in [(0x80, base), (0x90, base + AVAIL), (0xa0, base + USED)] {
                self.set_reg(register, addr as u32);
                self.set_reg(register + 4, (addr >> 32) as u32);
            }
            // A device that was reset finds fresh rings.
            let zeros = vec![0; QUEUE_SPACE as usize];
            self.memory.write_slice(&zeros, GuestAddress(base)).unwrap();
            self.set_reg(0x44, 1);
            self.queues.push(DriverQueue {
                base,
                size,
                next_descriptor: 0,
                avail_index: 0,
                used_index: 0,
            });
        }
        self.set_reg(0x70, 1 | 2 | 8 | 4);
    }

    /// Whether DEVICE_NEEDS_RESET is set.
    pub(crate) fn needs_reset(&mut self) -> bool {
        self.reg(0x70) & 0x40 != 0
    }

    /// Waits until DEVICE_NEEDS_RESET is set.
    pub(crate) fn await_failure(&mut self) {
        let start = Instant::now();
        while !self.needs_reset() {
            assert!(start.elapsed() < DEADLINE, "the device did not fail");
            std::thread::yield_now();
        }
    }

    /// Makes a chain of `buffers` available on `queue` and rings; gives its head.
    pub(crate) fn send(&mut self, queue: usize, buffers: &[Buffer]) -> u16 {
        let count = buffers.len();
        let first = self.queues[queue].next_descriptor;
        let size = self.queues[queue].size;
        let raw: Vec<_> = buffers
            .iter()
            .enumerate()
            .map(|(at, buffer)| {
                let (addr, len, write) = match *buffer {
                    Buffer::Readable(addr, len) => (addr, len, 0),
                    Buffer::Writable(addr, len) => (addr, len, VRING_DESC_F_WRITE),
                };
                let next = if at + 1 < count { VRING_DESC_F_NEXT } else { 0 };
                RawDescriptor {
                    addr,
                    len,
                    flags: (write | next) as u16,
                    next: (first + at as u16 + 1) % size,
                }
            })
            .collect();
        self.send_raw(queue, &raw)
    }

    /// Writes descriptors as they are and makes the first one available.
    pub(crate) fn send_raw(&mut self, queue: usize, raw: &[RawDescriptor]) -> u16 {
        let state = &mut self.queues[queue];
        let head = state.next_descriptor;
        for descriptor in raw {
            let at = state.base + 16 * u64::from(state.next_descriptor);
            write_descriptor(&self.memory, at, *descriptor);
            state.next_descriptor = (state.next_descriptor + 1) % state.size;
        }
        self.offer(queue, head);
        head
    }

    /// Makes descriptor `head` available and rings.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let state = &mut self.queues[queue];
        let slot = u64::from(state.avail_index % state.size);
        let avail = state.base + AVAIL;
        self.memory
            .write_obj(head, GuestAddress(avail + 4 + 2 * slot))
            .unwrap();
        state.avail_index = state.avail_index.wrapping_add(1);
        let index = state.avail_index;
        self.set_avail_index(queue, index);
    }

    /// Sets the available index, right or wrong, and rings.
    pub(crate) fn set_avail_index(&mut self, queue: usize, index: u16) {
        let addr = GuestAddress(self.queues[queue].base + AVAIL + 2);
        self.memory
            .store(index, addr, std::sync::atomic::Ordering::Release)
            .unwrap();
        self.set_reg(0x50, queue as u32);
    }

    /// The next used element, if there is one: head and length.
    pub(crate) fn used(&mut self, queue: usize) -> Option<(u16, u32)> {
        let state = &mut self.queues[queue];
        let used = state.base + USED;
        let order = std::sync::atomic::Ordering::Acquire;
        let index: u16 = self.memory.load(GuestAddress(used + 2), order).unwrap();
        if index == state.used_index {
            return None;
        }
        let slot = GuestAddress(used + 4 + 8 * u64::from(state.used_index % state.size));
        let [head, len]: [u32; 2] = self.memory.read_obj(slot).unwrap();
        state.used_index = state.used_index.wrapping_add(1);
        // Ask for an interrupt at the next one.
        let event = GuestAddress(state.base + AVAIL + 4 + 2 * u64::from(state.size));
        self.memory.write_obj(state.used_index, event).unwrap();
        Some((head as u16, len))
    }

    /// Waits for the next used element.
    pub(crate) fn await_used(&mut self, queue: usize) -> (u16, u32) {
        let start = Instant::now();
        loop {
            if let Some(used) = self.used(queue) {
                return used;
            }
            assert!(!self.needs_reset(), "the device failed");
            assert!(start.elapsed() < DEADLINE, "no buffer was used");
            std::thread::yield_now();
        }
    }

    pub(crate) fn write(&self, addr: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(addr)).unwrap();
    }

    pub(crate) fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(addr))
            .unwrap();
        bytes
    }
}

/// Writes a descriptor, for a table that is not a queue's too.
pub(crate) fn write_descriptor(memory: &GuestMemoryMmap, at: u64, descriptor: RawDescriptor) {
    let RawDescriptor {
        addr,
        len,
        flags,
        next,
    } = descriptor;
    let mut bytes = addr.to_le_bytes().to_vec();
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&next.to_le_bytes());
    memory.write_slice(&bytes, GuestAddress(at)).unwrap();
}

/// What sends a hostile chain on a queue.
pub(crate) type Attack<D> = fn(&mut Driver<D>, usize);

/// Chains that no device may accept, each to be sent first on a fresh queue: a name and what to
/// do with the driver.
pub(crate) fn hostile_chains<D: VirtioDevice>() -> Vec<(&'static str, Attack<D>)> {
    const NEXT: u16 = VRING_DESC_F_NEXT as u16;
    const WRITE: u16 = VRING_DESC_F_WRITE as u16;
    const INDIRECT: u16 = virtio_bindings::virtio_ring::VRING_DESC_F_INDIRECT as u16;
    const fn raw(addr: u64, len: u32, flags: u16, next: u16) -> RawDescriptor {
        RawDescriptor {
            addr,
            len,
            flags,
            next,
        }
    }
    vec![
        ("a head out of range", |driver, queue| {
            driver.offer(queue, u16::MAX)
        }),
        ("an index that jumps", |driver, queue| {
            driver.set_avail_index(queue, 0x7fff)
        }),
        ("a cycle", |driver, queue| {
            driver.send_raw(queue, &[raw(BUFFERS, 16, NEXT, 0)]);
        }),
        ("a next out of range", |driver, queue| {
            driver.send_raw(queue, &[raw(BUFFERS, 16, NEXT, 0x7fff)]);
        }),
        ("a buffer past the end of memory", |driver, queue| {
            driver.send_raw(queue, &[raw(MEMORY_SIZE as u64 - 8, 16, WRITE, 0)]);
        }),
        ("a buffer around the address space", |driver, queue| {
            driver.send_raw(queue, &[raw(u64::MAX - 7, 16, 0, 0)]);
        }),
        ("four GiB in two buffers", |driver, queue| {
            driver.send_raw(
                queue,
                &[
                    raw(BUFFERS, u32::MAX, NEXT, 1),
                    raw(BUFFERS, u32::MAX, 0, 0),
                ],
            );
        }),
        ("readable after writable", |driver, queue| {
            driver.send_raw(
                queue,
                &[raw(BUFFERS, 16, WRITE | NEXT, 1), raw(BUFFERS, 16, 0, 0)],
            );
        }),
        ("an indirect table outside memory", |driver, queue| {
            driver.send_raw(queue, &[raw(u64::MAX - 15, 16, INDIRECT, 0)]);
        }),
        ("an indirect table of odd size", |driver, queue| {
            driver.send_raw(queue, &[raw(BUFFERS, 17, INDIRECT, 0)]);
        }),
        ("an empty indirect table", |driver, queue| {
            driver.send_raw(queue, &[raw(BUFFERS, 0, INDIRECT, 0)]);
        }),
        ("an indirect table in an indirect table", |driver, queue| {
            write_descriptor(
                &driver.memory,
                BUFFERS,
                raw(BUFFERS + 4096, 16, INDIRECT, 0),
            );
            driver.send_raw(queue, &[raw(BUFFERS, 16, INDIRECT, 0)]);
        }),
        (
            "an indirect table longer than the queue",
            |driver, queue| {
                for at in 0..2000 {
                    let entry = raw(BUFFERS + 0x10_0000, 1, NEXT, at + 1);
                    write_descriptor(&driver.memory, BUFFERS + 16 * u64::from(at), entry);
                }
                driver.send_raw(queue, &[raw(BUFFERS, 16 * 2000, INDIRECT, 0)]);
            },
        ),
    ]
}

/// Random numbers that are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

impl<D: VirtioDevice> Driver<D> {
    /// Fills `queue` with random descriptors, half sensible, that point everywhere (the rings
    /// included), makes a random number of them available and rings.
    pub(crate) fn scramble(&mut self, queue: usize, random: &mut Random) {
        let (base, size) = (self.queues[queue].base, self.queues[queue].size);
        let end = MEMORY_SIZE as u64;
        for index in 0..u64::from(size) {
            let addr = match random.below(8) {
                0 => base + random.below(QUEUE_SPACE),
                1 => end - random.below(64),
                2 => u64::MAX - random.below(64),
                _ => BUFFERS + random.below(0x10_0000),
            };
            let len = match random.below(8) {
                0 => u32::MAX - random.below(16) as u32,
                1 => 0,
                2 => 16 * random.below(600) as u32,
                3 => 1,
                4 => 16,
                _ => random.below(5000) as u32,
            };
            // Mostly NEXT and WRITE, rarely INDIRECT or a bit that means nothing.
            let flags = match random.below(16) {
                0 => random.below(1 << 16),
                1 => 4,
                _ => random.below(4),
            };
            let next = match random.below(4) {
                0 => random.below(1 << 16),
                _ => (index + 1) % u64::from(size),
            };
            let descriptor = RawDescriptor {
                addr,
                len,
                flags: flags as u16,
                next: next as u16,
            };
            write_descriptor(&self.memory, base + 16 * index, descriptor);
            let head = (random.below(u64::from(size) + 1)) as u16;
            self.memory
                .write_obj(head, GuestAddress(base + AVAIL + 4 + 2 * index))
                .unwrap();
        }
        let available = 1 + random.below(u64::from(size)) as u16;
        self.set_avail_index(queue, available);
    }
}
