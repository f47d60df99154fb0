//! Devices: whatever a driver writes to the registers and into the rings, a queue gives only buffers
//! that lie in guest memory.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use ringlet_devices::{
    Activation, Buffers, Memory, MmioTransport, QueueError, Segment, VirtioDevice, Virtqueue,
};
use std::io;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY: usize = 1 << 16;
/// Where the rings are that [`Step::Start`] tells the device.
const DESCRIPTORS: u32 = 0x1000;
const DRIVER: u32 = 0x2000;
const DEVICE: u32 = 0x3000;
/// Chains served in one go.
const SERVED: usize = 64;

/// What a driver does.
#[derive(Arbitrary, Debug)]
enum Step {
    /// Sets the device up as it should be, with a queue of 2 to the power of this many entries.
    Start(u8),
    /// Writes to a register.
    Write(u8, u32),
    /// Reads registers.
    Read(u8, u8),
    /// Writes to memory.
    Memory(u16, Vec<u8>),
    /// Writes a descriptor.
    Descriptor {
        place: u8,
        address: u32,
        length: u16,
        flags: u8,
        next: u8,
    },
    /// Makes chains available.
    Offer(u8, u8),
    /// The device has its turn.
    Serve,
}

/// A device that fills what it may write and reads the rest.
#[derive(Default)]
struct Filler {
    queue: std::sync::Mutex<Option<Virtqueue>>,
}

impl Filler {
    fn serve(&self) {
        let mut queue = self.queue.lock().expect("no panic");
        let Some(active) = queue.as_mut() else { return };
        if let Err(error) = fill(active) {
            active.interrupt().fail(&error);
            *queue = None;
        }
    }
}

fn fill(queue: &mut Virtqueue) -> Result<(), QueueError> {
    let mut buffers = Buffers::default();
    let memory = queue.memory().clone();
    for _ in 0..SERVED {
        if !queue.pop_or_arm(&mut buffers)? {
            break;
        }
        let count = buffers.readable.len() + buffers.writable.len();
        assert!(
            count <= usize::from(queue.size()),
            "a chain is longer than its queue"
        );
        let bytes = |segment: &Segment| vec![0xaa; segment.len as usize];
        for segment in &buffers.readable {
            let read = memory.read_slice(&mut bytes(segment), segment.addr);
            read.expect("what is readable is in memory");
        }
        let mut written = 0;
        for segment in &buffers.writable {
            // Not the rings: what stands there is the driver's to say.
            if segment.addr.0 >= 0x8000 {
                let write = memory.write_slice(&bytes(segment), segment.addr);
                write.expect("what is writable is in memory");
            }
            written += segment.len;
        }
        queue.push_used(buffers.head, written)?;
    }
    queue.announce()
}

impl VirtioDevice for Filler {
    fn device_type(&self) -> u32 {
        4
    }

    fn name(&self) -> &str {
        "filler"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        *self.queue.lock().expect("no panic") = activation.queues.into_iter().flatten().next();
        Ok(())
    }

    fn reset(&mut self) {
        *self.queue.lock().expect("no panic") = None;
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let ranges = [(GuestAddress(0), MEMORY)];
    let memory = Memory::new(GuestMemoryMmap::from_ranges(&ranges).expect("memory"));
    let device = MmioTransport::new(Filler::default(), memory.clone());
    let mut device = device.expect("descriptors");
    let mut available = 0_u16;
    // What lies outside of memory is nobody's business.
    let put = |at: u64, bytes: &[u8]| {
        let _ = memory.write_slice(bytes, GuestAddress(at));
    };
    for step in steps {
        match step {
            Step::Start(log) => {
                available = 0;
                put(u64::from(DRIVER), &[0; 4]);
                let size = 1 << (log % 7);
                for (register, value) in [
                    (0x70, 0),
                    (0x70, 3),
                    (0x24, 1),
                    (0x20, 1),
                    (0x70, 11),
                    (0x30, 0),
                    (0x38, size),
                    (0x80, DESCRIPTORS),
                    (0x90, DRIVER),
                    (0xa0, DEVICE),
                    (0x44, 1),
                    (0x70, 15),
                ] {
                    device.write(register, &u32::to_le_bytes(value));
                }
            }
            Step::Write(register, value) => device.write(register.into(), &value.to_le_bytes()),
            Step::Read(register, width) => {
                device.read(register.into(), &mut vec![0; usize::from(width % 9)]);
            }
            Step::Memory(at, bytes) => put(at.into(), &bytes),
            Step::Descriptor {
                place,
                address,
                length,
                flags,
                next,
            } => {
                let mut bytes = u64::from(address).to_le_bytes().to_vec();
                bytes.extend(u32::from(length).to_le_bytes());
                bytes.extend(u16::from(flags % 8).to_le_bytes());
                bytes.extend(u16::from(next).to_le_bytes());
                put(u64::from(DESCRIPTORS) + 16 * u64::from(place), &bytes);
            }
            Step::Offer(head, count) => {
                for place in 0..=count % 8 {
                    let head = head.wrapping_add(place);
                    let place = 4 + 2 * u64::from(available % 64);
                    put(u64::from(DRIVER) + place, &u16::from(head).to_le_bytes());
                    available = available.wrapping_add(1);
                }
                put(u64::from(DRIVER) + 2, &available.to_le_bytes());
            }
            Step::Serve => device.device().serve(),
        }
    }
});
