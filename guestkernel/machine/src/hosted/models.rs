//! What simulated devices do: a disk, a console, a source of entropy.

use super::device::Model;
use std::collections::VecDeque;

const SECTOR: usize = 512;

const RO: u64 = 1 << 5;
const SEG_MAX: u64 = 1 << 2;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;
const MULTIPORT: u64 = 1 << 1;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// The little-endian number that `bytes` are.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rfold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A virtio block device (VIRTIO 1.2, 5.2) in memory.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    /// What is on it.
    pub bytes: Vec<u8>,
    /// Whether it refuses to be written.
    pub is_read_only: bool,
    /// Bytes of a block.
    pub block_size: u32,
    /// Segments of a request.
    pub seg_max: u32,
    /// Whether it offers FLUSH, DISCARD and WRITE_ZEROES.
    pub has_extras: bool,
    /// Descriptors of its queue.
    pub queue_size: u16,
    /// The status of the next requests, instead of doing them.
    pub failures: VecDeque<u8>,
    /// Type and sector of each request so far.
    pub requests: Vec<(u32, u64)>,
}

impl SimulatedDisk {
    /// A disk with contents.
    pub fn new(bytes: Vec<u8>) -> Self {
        assert!(bytes.len().is_multiple_of(SECTOR));
        Self {
            bytes,
            is_read_only: false,
            block_size: 512,
            seg_max: 254,
            has_extras: true,
            queue_size: 256,
            failures: VecDeque::new(),
            requests: Vec::new(),
        }
    }

    /// A disk of which each sector starts with its number.
    pub fn numbered(sectors: usize) -> Self {
        let mut disk = Self::new(vec![0; sectors * SECTOR]);
        for (number, sector) in disk.bytes.chunks_mut(SECTOR).enumerate() {
            sector[..8].copy_from_slice(&(number as u64).to_le_bytes());
        }
        disk
    }

    fn range(&mut self, sector: u64, length: usize) -> Option<&mut [u8]> {
        let start = usize::try_from(sector).ok()?.checked_mul(SECTOR)?;
        self.bytes.get_mut(start..start.checked_add(length)?)
    }

    fn execute(&mut self, kind: u32, sector: u64, data: &[u8], answer: &mut [u8]) -> u8 {
        if let Some(status) = self.failures.pop_front() {
            return status;
        }
        match kind {
            0 => match self.range(sector, answer.len()) {
                Some(bytes) => answer.copy_from_slice(bytes),
                None => return IO_ERROR,
            },
            1 => match self.range(sector, data.len()) {
                Some(bytes) => bytes.copy_from_slice(data),
                None => return IO_ERROR,
            },
            4 if self.has_extras => {}
            8 => answer.copy_from_slice(b"simulated-disk\0\0\0\0\0\0"),
            11 | 13 if self.has_extras => {
                let count = number(&data[8..12]) as usize * SECTOR;
                match self.range(number(&data[..8]), count) {
                    Some(bytes) => bytes.fill(0),
                    None => return IO_ERROR,
                }
            }
            _ => return UNSUPPORTED,
        }
        OK
    }
}

impl Model for SimulatedDisk {
    fn device_id(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        let extras = if self.has_extras {
            FLUSH | DISCARD | WRITE_ZEROES
        } else {
            0
        };
        let read_only = if self.is_read_only { RO } else { 0 };
        let nospc = 1 << ringlet_abi::block::FEATURE_NOSPC;
        SEG_MAX | BLK_SIZE | extras | read_only | nospc
    }

    fn config(&self, offset: u64) -> u32 {
        let sectors = (self.bytes.len() / SECTOR) as u64;
        match offset {
            0 => sectors as u32,
            4 => (sectors >> 32) as u32,
            12 => self.seg_max,
            20 => self.block_size,
            // The most sectors of a discard, and of a write of zeros.
            36 | 48 => 64,
            _ => 0,
        }
    }

    fn queue_size(&self, index: u32) -> u16 {
        if index == 0 { self.queue_size } else { 0 }
    }

    fn serve(&mut self, _index: u32, readable: &[u8], writable: usize) -> Option<Vec<u8>> {
        let (header, data) = readable.split_at(16);
        let kind = number(&header[..4]) as u32;
        let sector = number(&header[8..]);
        self.requests.push((kind, sector));
        let mut answer = vec![0; writable];
        let (bytes, status) = answer.split_at_mut(writable - 1);
        status[0] = self.execute(kind, sector, data, bytes);
        Some(answer)
    }
}

/// A virtio console (VIRTIO 1.2, 5.3) with Ringlet's three ports, or with one.
#[derive(Debug, Default)]
pub struct SimulatedConsole {
    has_one_port: bool,
    /// The number of the first of three ports.
    first: u32,
    /// What the driver can read, in pieces.
    pub input: VecDeque<Vec<u8>>,
    /// What it has written, by port from the first on.
    pub output: [Vec<u8>; 3],
    /// Whether output is left in the queue.
    pub is_stuck: bool,
    /// Messages for the driver.
    pub control: VecDeque<Vec<u8>>,
    /// Messages of the driver: port, event, value.
    pub messages: Vec<(u32, u16, u16)>,
}

impl SimulatedConsole {
    /// A console with three ports.
    pub fn new() -> Self {
        Self::default()
    }

    /// A console with one port.
    pub fn single() -> Self {
        Self {
            has_one_port: true,
            ..Self::default()
        }
    }

    /// A console with three ports from number `first` on, whose names end with a NUL, as QEMU's.
    pub fn starting_at(first: u32) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// The stream of the queues' port, counted from the first; `None` for the control queues.
    fn stream(&self, queue: u32) -> Option<usize> {
        let port = match queue {
            0 | 1 => 0,
            2 | 3 => return None,
            queue => queue / 2 - 1,
        };
        Some(port.checked_sub(self.first)? as usize)
    }

    /// Adds a control message.
    pub fn say(&mut self, port: u32, event: u16, value: u16, text: &[u8]) {
        let mut message = port.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        message.extend(text);
        self.control.push_back(message);
    }

    fn hear(&mut self, message: &[u8]) {
        let port = number(&message[..4]) as u32;
        let event = number(&message[4..6]) as u16;
        let value = number(&message[6..8]) as u16;
        self.messages.push((port, event, value));
        match (event, value) {
            // DEVICE_READY is answered by PORT_ADD, PORT_READY by PORT_NAME and PORT_OPEN.
            (0, 1) => {
                (self.first..self.first + 3).for_each(|port| self.say(port, 1, 1, b""));
            }
            (3, 1) => {
                let name = ringlet_abi::console::PORTS[(port - self.first) as usize].1;
                let end: &[u8] = if self.first == 0 { b"" } else { b"\0" };
                self.say(port, 7, 1, &[name.as_bytes(), end].concat());
                self.say(port, 6, 1, b"");
            }
            _ => {}
        }
    }
}

impl Model for SimulatedConsole {
    fn device_id(&self) -> u32 {
        3
    }

    fn features(&self) -> u64 {
        let multiport = if self.has_one_port { 0 } else { MULTIPORT };
        multiport | 1
    }

    fn config(&self, offset: u64) -> u32 {
        match offset {
            0 => 25 << 16 | 80,
            4 => self.first + 3,
            _ => 0,
        }
    }

    fn queue_size(&self, index: u32) -> u16 {
        let queues = if self.has_one_port {
            2
        } else {
            2 * (self.first + 3) + 2
        };
        if index < queues { 64 } else { 0 }
    }

    fn serve(&mut self, index: u32, readable: &[u8], writable: usize) -> Option<Vec<u8>> {
        match (index, self.stream(index)) {
            (_, Some(0)) if index.is_multiple_of(2) => {
                let mut piece = self.input.pop_front()?;
                if piece.len() > writable {
                    self.input.push_front(piece.split_off(writable));
                }
                Some(piece)
            }
            (2, _) => self.control.pop_front(),
            (3, _) => {
                self.hear(readable);
                Some(Vec::new())
            }
            (_, Some(stream)) if !index.is_multiple_of(2) && !self.is_stuck => {
                self.output[stream].extend(readable);
                Some(Vec::new())
            }
            _ => None,
        }
    }
}

/// A virtio entropy device (VIRTIO 1.2, 5.4) that repeats a byte.
#[derive(Debug)]
pub struct SimulatedEntropy(pub u8);

impl Model for SimulatedEntropy {
    fn device_id(&self) -> u32 {
        4
    }

    fn queue_size(&self, index: u32) -> u16 {
        if index == 0 { 8 } else { 0 }
    }

    fn serve(&mut self, _index: u32, _readable: &[u8], writable: usize) -> Option<Vec<u8>> {
        Some(vec![self.0; writable])
    }
}
