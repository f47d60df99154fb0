use super::super::interrupt::Trigger;
use super::*;
use crate::executor::{add_device, block_on};
use machine::hosted::device::{Model, Sabotage, SimulatedDevice};
use machine::{Frame, MmioRegion, Segment};

/// An IRQ for tests that need none.
const NO_IRQ: u32 = 99;

/// A request as the device sees it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) arguments: Vec<u8>,
    pub(crate) is_urgent: bool,
}

/// What a server replies to a request, header included; nothing to what has no reply.
pub(crate) type Answering = Box<dyn FnMut(&Asked) -> Vec<u8> + Send>;

/// A virtio-fs device with any server.
pub(crate) struct SimulatedFs {
    pub(crate) answer: Answering,
    pub(crate) asked: Vec<Asked>,
    /// Requests are kept for later.
    pub(crate) is_holding: bool,
}

impl Model for SimulatedFs {
    fn device_id(&self) -> u32 {
        26
    }

    fn config(&self, offset: u64) -> u32 {
        match offset {
            0 => u32::from_le_bytes(*b"test"),
            36 => 1,
            _ => 0,
        }
    }

    fn queue_size(&self, index: u32) -> u16 {
        if index < 2 { 1024 } else { 0 }
    }

    fn serve(&mut self, index: u32, readable: &[u8], _writable: usize) -> Option<Vec<u8>> {
        if self.is_holding {
            return None;
        }
        let number = |at: usize| u64::from_le_bytes(readable[at..at + 8].try_into().unwrap());
        let asked = Asked {
            opcode: (number(0) >> 32) as u32,
            unique: number(8),
            node: number(16),
            arguments: readable[40..].to_vec(),
            is_urgent: index == 0,
        };
        assert_eq!(number(0) as u32 as usize, readable.len());
        self.asked.push(asked.clone());
        Some((self.answer)(&asked))
    }
}

/// The reply to request `unique` with these bytes behind the header.
pub(crate) fn reply(unique: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = (OUT_HEADER as u32 + body.len() as u32)
        .to_le_bytes()
        .to_vec();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&unique.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The reply that is an error.
pub(crate) fn error(unique: u64, number: i32) -> Vec<u8> {
    let mut bytes = reply(unique, &[]);
    bytes[4..8].copy_from_slice(&(-number).to_le_bytes());
    bytes
}

pub(crate) type Simulated = Arc<SimulatedDevice<SimulatedFs>>;

/// A device whose server answers so, and its driver.
pub(crate) fn start(answer: Answering) -> (Simulated, Arc<FsDevice>) {
    let (simulated, address) = SimulatedDevice::attach(SimulatedFs {
        answer,
        asked: Vec::new(),
        is_holding: false,
    });
    let region = MmioRegion::claim(address, 0x1000).unwrap();
    let found = VirtioFound::probe(region).unwrap().unwrap();
    let line = InterruptLine::enable(NO_IRQ, Trigger::Edge);
    let device = FsDevice::start(found, line).unwrap();
    add_device(device.clone());
    (simulated, device)
}

fn request(fixed: u16, data: usize) -> FsRequest {
    let frame = Frame::zeroed().unwrap();
    let segment = Segment::new(frame, 0, data.max(1)).unwrap();
    FsRequest {
        opcode: 3,
        node: 5,
        owner: (0, 0),
        arguments: SmallVec::from_slice(b"arguments"),
        to_device: None,
        from_device: (data > 0).then(|| DmaSegments::Own([segment].into_iter().collect())),
        reply: Some(fixed),
    }
}

#[test]
fn a_request_is_answered() {
    let (simulated, device) = start(Box::new(|asked| reply(asked.unique, b"12345678rest")));
    assert_eq!(device.tag(), b"test");
    let answer = block_on(device.submit(request(8, 100))).unwrap();
    assert_eq!(&answer.fixed[..], b"12345678");
    assert_eq!(answer.length, 4);
    let data = answer.data.unwrap();
    assert_eq!(data.total(), 100);
    simulated.with_model(|model| {
        assert_eq!(model.asked[0].node, 5);
        assert_eq!(model.asked[0].arguments, b"arguments");
    });
}

#[test]
fn replies_that_make_no_sense_are_errors() {
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [(Spoil, Errno); 9] = [
        (|bytes| bytes[8] ^= 1, Errno::EIO),
        (|bytes| bytes[0] += 1, Errno::EIO),
        (|bytes| bytes[0] = 15, Errno::EIO),
        (|bytes| bytes.truncate(8), Errno::EIO),
        (Vec::clear, Errno::EIO),
        // Too short for what was asked.
        (
            |bytes| {
                bytes.truncate(20);
                bytes[0] = 20;
            },
            Errno::EIO,
        ),
        // An error with more behind it, one that is none, and one that programs do not know.
        (
            |bytes| bytes[4..8].copy_from_slice(&(-2_i32).to_le_bytes()),
            Errno::EIO,
        ),
        (
            |bytes| {
                *bytes = error(u64::from_le_bytes(bytes[8..16].try_into().unwrap()), -2);
            },
            Errno::EIO,
        ),
        (
            |bytes| {
                *bytes = error(u64::from_le_bytes(bytes[8..16].try_into().unwrap()), 512);
            },
            Errno::EIO,
        ),
    ];
    for (number, (spoil, expected)) in spoils.into_iter().enumerate() {
        let (_, device) = start(Box::new(move |asked| {
            let mut bytes = reply(asked.unique, b"12345678");
            spoil(&mut bytes);
            bytes
        }));
        let result = block_on(device.submit(request(8, 0))).map(|_| ());
        assert_eq!(result, Err(expected), "{number}");
    }
    let (_, device) = start(Box::new(|asked| error(asked.unique, 2)));
    let result = block_on(device.submit(request(8, 0))).map(|_| ());
    assert_eq!(result, Err(Errno::ENOENT));
}

#[test]
fn a_device_that_dies_ends_all_requests() {
    for sabotage in [
        Sabotage::UnknownId,
        Sabotage::HugeLength,
        Sabotage::IndexJump,
    ] {
        let (simulated, device) = start(Box::new(|asked| reply(asked.unique, b"12345678")));
        simulated.pause(true);
        let tickets: Vec<_> = (0..300).map(|_| device.submit(request(8, 0))).collect();
        Device::kick(&*device);
        simulated.sabotage(sabotage);
        simulated.pause(false);
        simulated.process();
        for ticket in tickets {
            // Those before the nonsense may have been answered.
            let _ = block_on(ticket);
        }
        let result = block_on(device.submit(request(8, 0))).map(|_| ());
        assert_eq!(result, Err(Errno::EIO));
        assert!(!device.in_flight());
    }
}

#[test]
fn more_requests_than_the_queue_has_room_for_wait_their_turn() {
    let (simulated, device) = start(Box::new(|asked| reply(asked.unique, b"12345678")));
    simulated.pause(true);
    let tickets: Vec<_> = (0..600).map(|_| device.submit(request(8, 10))).collect();
    simulated.pause(false);
    for ticket in tickets {
        assert_eq!(&block_on(ticket).unwrap().fixed[..], b"12345678");
    }
}

#[test]
fn what_nobody_waits_for_is_given_up_or_taken_up() {
    let (simulated, device) = start(Box::new(|asked| reply(asked.unique, b"12345678")));
    let adopted = Arc::new(AtomicUsize::new(0));
    let count = adopted.clone();
    device.set_adopt(move |orphan| {
        assert_eq!(orphan.opcode, 3);
        assert_eq!(&orphan.reply.fixed[..], b"12345678");
        count.fetch_add(1, Ordering::Relaxed);
    });
    simulated.pause(true);
    drop(device.submit(request(8, 0)));
    simulated.pause(false);
    Device::kick(&*device);
    simulated.process();
    device.poll();
    // One that was answered before it was given up.
    let ticket = device.submit(request(8, 0));
    Device::kick(&*device);
    device.poll();
    drop(ticket);
    assert_eq!(adopted.load(Ordering::Relaxed), 2);
    assert!(!device.in_flight());
}
