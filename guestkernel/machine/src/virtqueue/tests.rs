use super::*;
use crate::dma::DmaSegments;
use crate::hosted::device::{Model, Sabotage, SimulatedDevice};
use crate::{MmioRegion, PhysAddr, Segment, VirtioFound, VirtioTransport};

/// Answers with what it read, cut or padded to the room it has, or writes nothing.
#[derive(Default)]
struct Echo {
    is_silent: bool,
}

impl Model for Echo {
    fn device_id(&self) -> u32 {
        42
    }

    fn queue_size(&self, index: u32) -> u16 {
        [16, 256].get(index as usize).copied().unwrap_or(0)
    }

    fn serve(&mut self, _index: u32, readable: &[u8], writable: usize) -> Option<Vec<u8>> {
        if self.is_silent {
            return Some(Vec::new());
        }
        let mut answer = readable.to_vec();
        answer.resize(writable, b'.');
        Some(answer)
    }
}

/// As requests of FUSE need it.
const LARGE: SmallParts = SmallParts {
    header: 100,
    reply: 300,
};

struct Rig {
    device: Arc<SimulatedDevice<Echo>>,
    queue: VirtQueue,
    _transport: VirtioTransport,
}

fn rig(index: u32, is_plain: bool) -> Rig {
    rig_for(index, is_plain, SmallParts::default())
}

fn rig_for(index: u32, is_plain: bool, small: SmallParts) -> Rig {
    let (device, address) = match is_plain {
        true => SimulatedDevice::attach_plain(Echo::default()),
        false => SimulatedDevice::attach(Echo::default()),
    };
    let region = MmioRegion::claim(address, 0x1000).unwrap();
    let found = VirtioFound::probe(region).unwrap().unwrap();
    assert_eq!(found.device_id(), 42);
    let mut setup = found.negotiate(0).unwrap();
    let queue = setup.queue_for(index, 256, small).unwrap();
    Rig {
        device,
        queue,
        _transport: setup.start(),
    }
}

/// One page in `pieces` pieces of 8 bytes that are not adjacent.
fn pieces(frame: &Frame, pieces: usize) -> DmaSegments {
    let segment = |piece| Segment::new(frame.clone(), 16 * piece, 8).unwrap();
    DmaSegments::Own((0..pieces).map(segment).collect())
}

fn reap(queue: &mut VirtQueue) -> Completion<'_> {
    queue.reap().unwrap().expect("nothing was completed")
}

#[test]
fn header_payload_and_reply_are_one_request() {
    for is_plain in [false, true] {
        let mut rig = rig(0, is_plain);
        let frame = Frame::zeroed().unwrap();
        let payload = Payload::FromDevice(pieces(&frame, 1));
        rig.queue
            .add(7, b"0123456789ab", payload, Reply::last(3))
            .unwrap();
        assert!(rig.queue.reap().unwrap().is_none());
        assert!(rig.queue.kick());
        let done = reap(&mut rig.queue);
        assert_eq!((done.cookie, done.written), (7, 11));
        assert_eq!((done.payload_written(), done.payload.total()), (8, 8));
        assert_eq!(frame.read_array::<8>(0), *b"01234567");
        assert_eq!(done.reply.array(), *b"89a\0");
        drop(done);
        assert_eq!(rig.queue.in_flight(), 0);
    }
}

fn both_ways(to_device: DmaSegments, from_device: DmaSegments) -> Payload {
    Payload::Both(Box::new(BothWays {
        to_device,
        from_device,
    }))
}

/// What is read and written of `frame`, in pieces.
fn both(frame: &Frame) -> Payload {
    let parts = |parts: &[(usize, usize)]| {
        let segment = |part: &(usize, usize)| Segment::new(frame.clone(), part.0, part.1).unwrap();
        parts.iter().map(segment).collect()
    };
    both_ways(
        DmaSegments::Own(parts(&[(0, 3), (100, 2)])),
        // Adjacent to what the device reads, and to each other.
        DmaSegments::Own(parts(&[(102, 1), (103, 4), (200, 6)])),
    )
}

#[test]
fn memory_is_read_and_written_in_one_request() {
    for (is_plain, small) in [
        (false, SmallParts::default()),
        (true, SmallParts::default()),
        (false, LARGE),
        (true, LARGE),
    ] {
        for (reply, expected, payload_at) in [
            (Reply::NONE, *b"\0\0\0\0", 0),
            (Reply::first(4), *b"hdab", 4),
            (Reply::last(4), *b"....", 0),
        ] {
            let mut rig = rig_for(0, is_plain, small);
            let frame = Frame::zeroed().unwrap();
            frame.write(0, b"abc");
            frame.write(100, b"de");
            rig.queue.add(1, b"hd", both(&frame), reply).unwrap();
            rig.queue.kick();
            let done = reap(&mut rig.queue);
            assert_eq!(
                (done.written, done.payload_written()),
                (11 + reply.bytes(), 11)
            );
            assert_eq!(done.reply.array(), expected);
            assert_eq!(done.payload.total(), 5 + 11);
            let written: Vec<u8> = [
                frame.read_array::<5>(102).to_vec(),
                frame.read_array::<6>(200).to_vec(),
            ]
            .concat();
            let mut answer = b"hdabcde".to_vec();
            answer.resize(15, b'.');
            assert_eq!(written, answer[payload_at..payload_at + 11]);
        }
    }
}

#[test]
fn large_small_parts_are_kept_apart() {
    for is_plain in [false, true] {
        let mut rig = rig_for(1, is_plain, LARGE);
        let header = |cookie: u32| [cookie as u8; 100];
        rig.device.pause(true);
        let most = if is_plain { 128 } else { 256 };
        for cookie in 0..most {
            let reply = Reply::first(300 - cookie as u16);
            rig.queue
                .add(cookie, &header(cookie), Payload::Nothing, reply)
                .unwrap();
        }
        rig.queue.kick();
        rig.device.process();
        for cookie in 0..most {
            let done = reap(&mut rig.queue);
            assert_eq!((done.cookie, done.payload_written()), (cookie, 0));
            let length = 300 - cookie as usize;
            let mut expected = vec![0; 304];
            expected[..length].fill(b'.');
            let echo = length.min(100);
            expected[..echo].copy_from_slice(&header(cookie)[..echo]);
            assert_eq!(done.reply.array::<304>()[..], expected);
            let mut part = [0; 20];
            done.reply.read(90, &mut part);
            assert_eq!(part[..], expected[90..110]);
        }
    }
}

#[test]
fn a_reply_that_the_device_did_not_write_is_ones() {
    let mut rig = rig(0, false);
    for round in 0..40 {
        rig.device
            .with_model(|echo| echo.is_silent = round % 2 == 1);
        rig.queue
            .add(0, b"0123456789", Payload::Nothing, Reply::first(9))
            .unwrap();
        rig.queue.kick();
        let done = reap(&mut rig.queue);
        match round % 2 {
            0 => assert_eq!(done.reply.array(), *b"012345678\0"),
            _ => assert_eq!(
                done.reply.array(),
                *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\0"
            ),
        }
        assert_eq!(done.payload_written(), 0);
    }
}

#[test]
fn registered_memory_may_be_shared_by_requests() {
    let frames: Vec<_> = (0..3).map(|_| Frame::zeroed().unwrap()).collect();
    let region: Arc<[Segment]> = frames
        .iter()
        .map(|frame| Segment::new(frame.clone(), 0, 4096).unwrap())
        .collect();
    let part = |offset, length| DmaSegments::Shared {
        region: region.clone(),
        offset,
        length,
    };
    frames[0].write(4090, b"source");
    frames[1].write(0, b"!");
    let mut rig = rig(0, true);
    let payload = both_ways(part(4090, 7), part(8190, 4));
    rig.queue.add(0, b"", payload, Reply::last(3)).unwrap();
    // Nothing of the region is no descriptor.
    rig.queue
        .add(1, b"x", Payload::ToDevice(part(5, 0)), Reply::last(1))
        .unwrap();
    rig.queue.kick();
    assert_eq!(reap(&mut rig.queue).reply.array(), *b"ce!");
    assert_eq!(frames[1].read_array(4094), *b"so");
    assert_eq!(frames[2].read_array(0), *b"ur");
    assert_eq!(reap(&mut rig.queue).reply.array(), *b"x");
}

#[test]
fn pieces_of_both_directions_count() {
    for is_plain in [false, true] {
        let mut rig = rig(0, is_plain);
        let frame = Frame::zeroed().unwrap();
        rig.queue.limit_payload(9);
        let mut add = |readable, writable| {
            let payload = both_ways(pieces(&frame, readable), pieces(&frame, writable));
            let added = rig.queue.add(0, b"h", payload, Reply::first(1));
            added.map_err(|(error, _)| error)
        };
        assert_eq!(add(5, 5), Err(AddError::TooManySegments));
        assert_eq!(add(5, 4), Ok(()));
    }
}

#[test]
fn long_chains_go_through_tables_of_their_own() {
    let mut rig = rig(1, false);
    let frame = Frame::zeroed().unwrap();
    for piece in 0..256 {
        frame.write(16 * piece, &[piece as u8; 8]);
    }
    // More requests than the queue could hold without tables.
    for cookie in 0..32 {
        let payload = Payload::ToDevice(pieces(&frame, 254));
        rig.queue
            .add(cookie, b"h", payload, Reply::last(16))
            .unwrap();
    }
    rig.queue.kick();
    for cookie in 0..32 {
        let done = reap(&mut rig.queue);
        assert_eq!((done.cookie, done.written), (cookie, 16));
        assert_eq!(
            done.reply.array(),
            *b"h\0\0\0\0\0\0\0\0\x01\x01\x01\x01\x01\x01\x01"
        );
    }
}

#[test]
fn a_full_queue_gives_the_payload_back() {
    for is_plain in [false, true] {
        let mut rig = rig(0, is_plain);
        let frame = Frame::zeroed().unwrap();
        let descriptors = if is_plain { 3 } else { 1 };
        let most = 16 / descriptors;
        for round in 0..5 {
            for cookie in 0..most {
                let payload = Payload::ToDevice(pieces(&frame, 1));
                rig.queue
                    .add(cookie, b"h", payload, Reply::last(1))
                    .unwrap();
            }
            let payload = Payload::ToDevice(pieces(&frame, 1));
            let (error, payload) = rig.queue.add(0, b"h", payload, Reply::last(1)).unwrap_err();
            assert_eq!((error, payload.total()), (AddError::Full, 8), "{round}");
            rig.queue.kick();
            for cookie in 0..most {
                assert_eq!(reap(&mut rig.queue).cookie, cookie);
            }
        }
    }
}

#[test]
fn too_many_segments_are_refused_for_good() {
    for is_plain in [false, true] {
        let mut rig = rig(0, is_plain);
        let frame = Frame::zeroed().unwrap();
        let error = |queue: &mut VirtQueue, count| {
            let payload = Payload::FromDevice(pieces(&frame, count));
            queue
                .add(0, b"h", payload, Reply::last(1))
                .map_err(|(error, _)| error)
        };
        assert_eq!(error(&mut rig.queue, 15), Err(AddError::TooManySegments));
        assert_eq!(error(&mut rig.queue, 14), Ok(()));
        rig.queue.kick();
        assert_eq!(reap(&mut rig.queue).written, 8 * 14 + 1);
        rig.queue.limit_payload(4);
        assert_eq!(error(&mut rig.queue, 5), Err(AddError::TooManySegments));
        assert_eq!(error(&mut rig.queue, 4), Ok(()));
    }
}

#[test]
fn one_doorbell_serves_a_batch_and_none_is_rung_while_the_device_looks() {
    let mut rig = rig(0, false);
    rig.device.pause(true);
    for cookie in 0..8 {
        rig.queue
            .add(cookie, b"h", Payload::Nothing, Reply::NONE)
            .unwrap();
    }
    assert!(rig.queue.needs_kick());
    assert!(rig.queue.kick());
    assert!(!rig.queue.kick());
    // The device has not come round to look at the ring since the last doorbell.
    rig.queue
        .add(8, b"h", Payload::Nothing, Reply::NONE)
        .unwrap();
    assert!(!rig.queue.kick());
    rig.device.process();
    for cookie in 0..9 {
        assert_eq!(reap(&mut rig.queue).cookie, cookie);
    }
    assert_eq!(rig.device.counts().doorbells, 1);
}

#[test]
fn interrupts_come_only_when_armed() {
    for is_plain in [false, true] {
        let mut rig = rig(0, is_plain);
        let request = |queue: &mut VirtQueue| {
            queue
                .add(0, b"h", Payload::Nothing, Reply::last(1))
                .unwrap();
            queue.kick();
        };
        request(&mut rig.queue);
        assert_eq!(rig.device.counts().interrupts, 0);
        assert!(rig.queue.arm(), "a completion is there already");
        reap(&mut rig.queue);
        assert!(!rig.queue.arm());
        request(&mut rig.queue);
        assert_eq!(rig.device.counts().interrupts, 1);
        reap(&mut rig.queue);
        assert!(!rig.queue.arm());
        assert!(rig.queue.reap().unwrap().is_none());
        request(&mut rig.queue);
        assert_eq!(rig.device.counts().interrupts, 1, "polling disarms");
    }
}

#[test]
fn indices_wrap_around() {
    let rounds = if cfg!(miri) { 40 } else { 70_000 };
    let mut rig = rig(0, false);
    for round in 0..rounds {
        rig.queue
            .add(round, b"h", Payload::Nothing, Reply::last(1))
            .unwrap();
        rig.queue.kick();
        assert_eq!(reap(&mut rig.queue).cookie, round);
        if round % 7 == 0 {
            assert!(!rig.queue.arm());
        }
    }
}

#[test]
fn requests_complete_out_of_order() {
    let mut rig = rig(0, true);
    let frame = Frame::zeroed().unwrap();
    rig.device.pause(true);
    for round in 0..20 {
        for cookie in 0..4 {
            let payload = Payload::ToDevice(pieces(&frame, 1 + cookie));
            rig.queue
                .add(cookie as u32, b"h", payload, Reply::NONE)
                .unwrap();
        }
        rig.queue.kick();
        rig.device.process_some(0, 2);
        assert_eq!(reap(&mut rig.queue).cookie, 0);
        rig.queue
            .add(9, b"h", Payload::Nothing, Reply::last(1))
            .unwrap();
        rig.device.process();
        for cookie in [1, 2, 3, 9] {
            assert_eq!(reap(&mut rig.queue).cookie, cookie, "{round}");
        }
        assert!(rig.queue.reap().unwrap().is_none());
    }
}

#[test]
fn nonsense_from_the_device_breaks_the_queue_for_good() {
    for sabotage in [
        Sabotage::UnknownId,
        Sabotage::IdleId,
        Sabotage::HugeLength,
        Sabotage::IndexJump,
        Sabotage::Twice,
    ] {
        let mut rig = rig(0, false);
        let frame = Frame::zeroed().unwrap();
        for cookie in 0..2 {
            let payload = Payload::FromDevice(pieces(&frame, 1));
            rig.queue
                .add(cookie, b"h", payload, Reply::last(1))
                .unwrap();
        }
        rig.device.pause(true);
        rig.queue.kick();
        rig.device.sabotage(sabotage);
        rig.device.process_some(0, 1);
        let results: Vec<_> = (0..3)
            .map(|_| rig.queue.reap().map(|done| done.is_some()))
            .collect();
        assert_eq!(results.last(), Some(&Err(QueueBroken)), "{sabotage:?}");
        let refused = rig
            .queue
            .add(0, b"h", Payload::Nothing, Reply::NONE)
            .unwrap_err();
        assert_eq!(refused.0, AddError::Broken);
        assert!(!rig.queue.kick() && !rig.queue.arm());
        assert!(!frame.is_unique(), "memory in flight was given up");
        // Dropping the queue resets the device, and only then gives the memory back.
        drop(rig.queue);
        assert!(frame.is_unique());
    }
}

#[test]
fn a_place_without_a_device_is_told_from_a_bad_one() {
    let region = MmioRegion::claim(PhysAddr(0xd800_0000), 0x200).unwrap();
    let error = VirtioFound::probe(region).unwrap_err();
    assert_eq!(error, crate::VirtioError::NotVirtio);
    let mut setup = {
        let (_, address) = SimulatedDevice::attach(Echo::default());
        let region = MmioRegion::claim(address, 0x1000).unwrap();
        VirtioFound::probe(region).unwrap().unwrap().negotiate(0)
    }
    .unwrap();
    assert_eq!(
        setup.queue(2, 16).unwrap_err(),
        crate::VirtioError::NoQueue(2)
    );
}
