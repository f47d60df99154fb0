use super::super::interrupt::Trigger;
use super::*;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use machine::hosted::device::{Sabotage, SimulatedDevice};
use machine::hosted::interrupt::raise;
use machine::hosted::models::SimulatedDisk;
use machine::{MmioRegion, PAGE_SIZE, PhysAddr};
use std::task::Wake;

type Disk = Arc<SimulatedDevice<SimulatedDisk>>;

/// An IRQ for tests that need none.
const NO_IRQ: u32 = 99;

pub(in super::super) fn start(disk: SimulatedDisk, irq: u32) -> (Disk, Arc<BlockDevice>) {
    start_at(SimulatedDevice::attach(disk), irq)
}

fn start_at((device, address): (Disk, PhysAddr), irq: u32) -> (Disk, Arc<BlockDevice>) {
    let region = MmioRegion::claim(address, 0x1000).unwrap();
    let found = VirtioFound::probe(region).unwrap().unwrap();
    let line = InterruptLine::enable(irq, Trigger::Edge);
    (device, BlockDevice::start(found, line).unwrap())
}

fn segments(frames: &[Frame]) -> DmaSegments {
    let whole = |frame: &Frame| Segment::new(frame.clone(), 0, PAGE_SIZE).unwrap();
    DmaSegments::Own(frames.iter().map(whole).collect())
}

fn frames(count: usize) -> Vec<Frame> {
    // Every other one by address, so that they are not adjacent.
    let mut all: Vec<_> = (0..2 * count).map(|_| Frame::zeroed().unwrap()).collect();
    all.sort_by_key(Frame::address);
    all.into_iter().step_by(2).collect()
}

#[derive(Default)]
struct CountingWaker(AtomicU32);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(ticket: &mut BlockTicket) -> Poll<Result<usize>> {
    ticket.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls ticket and device until there is a result.
fn wait(device: &BlockDevice, mut ticket: BlockTicket) -> Result<usize> {
    for _ in 0..100 {
        if let Poll::Ready(result) = poll(&mut ticket) {
            return result;
        }
        device.poll();
    }
    panic!("the request is never finished");
}

#[test]
fn few_registers_are_touched_to_start() {
    let (disk, device) = start(SimulatedDisk::numbered(64), NO_IRQ);
    assert!(disk.counts().accesses <= 26, "{:?}", disk.counts());
    assert_eq!(device.size(), 64 * 512);
    assert!(!device.is_read_only());
}

#[test]
fn sectors_are_read_and_written() {
    let (disk, device) = start(SimulatedDisk::numbered(64), NO_IRQ);
    let frames = frames(2);
    let read = BlockOp::Read(8, segments(&frames));
    assert_eq!(wait(&device, device.submit(read)), Ok(2 * PAGE_SIZE));
    assert_eq!(frames[0].read_array::<8>(0), 8_u64.to_le_bytes());
    assert_eq!(frames[1].read_array::<8>(512), 17_u64.to_le_bytes());
    frames[1].write(0, b"new!");
    let write = BlockOp::Write(32, segments(&frames[1..]));
    assert_eq!(wait(&device, device.submit(write)), Ok(PAGE_SIZE));
    disk.with_model(|disk| assert_eq!(disk.bytes[32 * 512..][..4], *b"new!"));
    assert!(!device.in_flight());
}

#[test]
fn a_batch_costs_one_doorbell_and_wakes_everybody() {
    let (disk, device) = start(SimulatedDisk::numbered(4096), NO_IRQ);
    disk.pause(true);
    let count = 200;
    let wakers: Vec<_> = (0..count)
        .map(|_| Arc::new(CountingWaker::default()))
        .collect();
    let mut tickets: Vec<_> = (0..count)
        .map(|sector| device.submit(BlockOp::Read(sector, segments(&frames(1)))))
        .collect();
    device.kick();
    assert_eq!(disk.counts().doorbells, 1);
    for (ticket, waker) in tickets.iter_mut().zip(&wakers) {
        let waker = Waker::from(waker.clone());
        assert!(ticket.poll(&mut Context::from_waker(&waker)).is_pending());
    }
    disk.process();
    assert!(device.in_flight() && device.poll() && !device.in_flight());
    for (mut ticket, waker) in tickets.into_iter().zip(wakers) {
        assert_eq!(waker.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&mut ticket), Poll::Ready(Ok(PAGE_SIZE)));
    }
    assert_eq!(disk.counts().doorbells, 1);
    assert_eq!(disk.counts().interrupts, 0);
}

#[test]
fn requests_beyond_the_queue_wait_in_order() {
    let mut disk = SimulatedDisk::numbered(4096);
    disk.queue_size = 16;
    let (disk, device) = start(disk, NO_IRQ);
    disk.pause(true);
    let frames = frames(100);
    let mut tickets: Vec<_> = (0..100)
        .map(|sector| {
            let memory = segments(&frames[sector..=sector]);
            device.submit(BlockOp::Read(sector as u64, memory))
        })
        .collect();
    // Some give up while they wait, and two that the device works on.
    let abandoned = [3, 4, 50, 51, 98];
    for index in abandoned.iter().rev() {
        drop(tickets.remove(*index));
    }
    for _ in 0..20 {
        device.kick();
        disk.process_some(0, 7);
        device.poll();
    }
    for mut ticket in tickets {
        assert_eq!(poll(&mut ticket), Poll::Ready(Ok(PAGE_SIZE)));
    }
    assert!(!device.in_flight());
    let sectors: Vec<_> = disk.with_model(|disk| disk.requests.iter().map(|r| r.1).collect());
    let expected: Vec<_> = (0..100_u64).filter(|s| ![50, 51, 98].contains(s)).collect();
    assert_eq!(sectors, expected);
    for (sector, frame) in frames.iter().enumerate() {
        let number = if [50, 51, 98].contains(&sector) {
            0
        } else {
            sector as u64
        };
        assert_eq!(frame.read_array::<8>(0), number.to_le_bytes());
        assert!(frame.is_unique(), "memory of {sector} was not given back");
    }
}

#[test]
fn a_small_request_does_not_overtake_a_large_one() {
    let mut disk = SimulatedDisk::numbered(64);
    disk.queue_size = 8;
    // Without tables a request takes a descriptor for each piece.
    let (disk, device) = start_at(SimulatedDevice::attach_plain(disk), NO_IRQ);
    disk.pause(true);
    let frames = frames(4);
    let large = [0, 8].map(|sector| device.submit(BlockOp::Read(sector, segments(&frames))));
    let small = device.submit(BlockOp::Flush);
    device.kick();
    disk.pause(false);
    disk.process();
    assert_eq!(wait(&device, small), Ok(0));
    for ticket in large {
        assert_eq!(wait(&device, ticket), Ok(4 * PAGE_SIZE));
    }
    let requests = disk.with_model(|disk| disk.requests.clone());
    assert_eq!(requests, [(0, 0), (0, 8), (4, 0)]);
}

#[test]
fn an_abandoned_place_in_the_line_is_nobodys() {
    let mut disk = SimulatedDisk::numbered(64);
    disk.queue_size = 4;
    let (disk, device) = start(disk, NO_IRQ);
    disk.pause(true);
    let read = |sector| device.submit(BlockOp::Read(sector, segments(&frames(1))));
    let taken = [0, 1, 2, 3].map(read);
    let (abandoned, waiting) = (read(4), read(5));
    drop(abandoned);
    // It takes the slot of the abandoned one.
    let last = read(6);
    device.kick();
    disk.pause(false);
    disk.process();
    for ticket in taken.into_iter().chain([waiting, last]) {
        assert_eq!(wait(&device, ticket), Ok(PAGE_SIZE));
    }
    let sectors: Vec<_> = disk.with_model(|disk| disk.requests.iter().map(|r| r.1).collect());
    assert_eq!(sectors, [0, 1, 2, 3, 5, 6]);
}

#[test]
fn memory_in_too_many_pieces_is_split_and_joined() {
    let mut disk = SimulatedDisk::numbered(4096);
    disk.seg_max = 5;
    let (disk, device) = start(disk, NO_IRQ);
    // Frames that follow each other would be one piece.
    let mut frames = frames(33);
    frames.sort_by_key(|frame| core::cmp::Reverse(frame.address().0));
    let read = BlockOp::Read(16, segments(&frames));
    assert_eq!(wait(&device, device.submit(read)), Ok(33 * PAGE_SIZE));
    for (index, frame) in frames.iter().enumerate() {
        let sector = 16 + 8 * index as u64;
        assert_eq!(frame.read_array::<8>(0), sector.to_le_bytes());
        assert_eq!(frame.read_array::<8>(3584), (sector + 7).to_le_bytes());
    }
    disk.with_model(|disk| {
        assert_eq!(disk.requests.len(), 7);
        let lengths: Vec<_> = disk
            .requests
            .windows(2)
            .map(|two| two[1].1 - two[0].1)
            .collect();
        assert_eq!(lengths, [40, 40, 40, 40, 40, 40], "the parts are alike");
        disk.failures.extend([0, 0, 1]);
    });
    let read = BlockOp::Read(16, segments(&frames));
    assert_eq!(wait(&device, device.submit(read)), Err(Errno::EIO));
    // Pieces that are no blocks cannot be split so that each part is.
    let piece = |index: usize| Segment::new(frames[index].clone(), 0, 64).unwrap();
    let pieces = DmaSegments::Own((0..8).map(piece).collect());
    let read = device.submit(BlockOp::Read(0, pieces));
    assert_eq!(wait(&device, read), Err(Errno::EINVAL));
    drop(device);
    assert!(frames.iter().all(Frame::is_unique));
}

#[test]
fn a_split_request_that_is_abandoned_stops() {
    let mut disk = SimulatedDisk::numbered(4096);
    (disk.seg_max, disk.queue_size) = (2, 4);
    let (disk, device) = start(disk, NO_IRQ);
    disk.pause(true);
    let frames = frames(20);
    drop(device.submit(BlockOp::Read(0, segments(&frames))));
    let last = device.submit(BlockOp::Read(0, segments(&frames[..1])));
    device.kick();
    disk.pause(false);
    disk.process();
    assert_eq!(wait(&device, last), Ok(PAGE_SIZE));
    assert_eq!(disk.with_model(|disk| disk.requests.len()), 5);
    assert!(!device.in_flight());
    assert!(frames.iter().all(Frame::is_unique));
}

#[test]
fn statuses_are_errors() {
    let (disk, device) = start(SimulatedDisk::numbered(64), NO_IRQ);
    for (status, error) in [
        (1, Errno::EIO),
        (2, Errno::EOPNOTSUPP),
        (ringlet::STATUS_NOSPC, Errno::ENOSPC),
        (ringlet::STATUS_FBIG, Errno::EFBIG),
        (77, Errno::EIO),
        (0xff, Errno::EIO),
    ] {
        disk.with_model(|disk| disk.failures.push_back(status));
        let write = device.submit(BlockOp::Write(0, segments(&frames(1))));
        assert_eq!(wait(&device, write), Err(error), "{status}");
    }
}

#[test]
fn what_makes_no_sense_never_reaches_the_device() {
    let mut disk = SimulatedDisk::numbered(65);
    disk.block_size = 1024;
    let (disk, device) = start(disk, NO_IRQ);
    let page = || segments(&frames(1));
    let part = |length| page().part(0, length);
    assert_eq!(device.sectors(), 64, "half a block at the end");
    let range = |start, count| Sectors { start, count };
    for (op, error) in [
        (BlockOp::Read(58, page()), Errno::EIO),
        (BlockOp::Read(u64::MAX, page()), Errno::EIO),
        (BlockOp::Write(64, part(1024)), Errno::EIO),
        (BlockOp::Read(1, part(1024)), Errno::EINVAL),
        (BlockOp::Read(0, part(512)), Errno::EINVAL),
        (BlockOp::Discard(range(63, 2)), Errno::EIO),
        (BlockOp::Discard(range(u64::MAX, 2)), Errno::EIO),
        (BlockOp::WriteZeroes(range(1, 2)), Errno::EINVAL),
        (BlockOp::WriteZeroes(range(0, 66)), Errno::EIO),
    ] {
        let name = std::format!("{op:?}");
        assert_eq!(wait(&device, device.submit(op)), Err(error), "{name}");
    }
    let nothing = device.submit(BlockOp::Read(0, part(0)));
    assert_eq!(wait(&device, nothing), Ok(0));
    assert_eq!(disk.with_model(|disk| disk.requests.len()), 0);
}

#[test]
fn read_only_and_plain_disks_say_so() {
    let mut disk = SimulatedDisk::numbered(64);
    (disk.is_read_only, disk.has_extras) = (true, false);
    let (_, device) = start(disk, NO_IRQ);
    assert!(device.is_read_only());
    let write = device.submit(BlockOp::Write(0, segments(&frames(1))));
    assert_eq!(wait(&device, write), Err(Errno::EROFS));
    assert_eq!(wait(&device, device.submit(BlockOp::Flush)), Ok(0));
    assert_eq!((device.max_discard(), device.max_write_zeroes()), (0, 0));

    let mut disk = SimulatedDisk::numbered(64);
    disk.has_extras = false;
    let (_, device) = start(disk, NO_IRQ);
    let range = Sectors { start: 0, count: 8 };
    let discard = device.submit(BlockOp::Discard(range));
    assert_eq!(wait(&device, discard), Err(Errno::EOPNOTSUPP));
}

#[test]
fn flush_discard_zeroes_and_identity() {
    let (disk, device) = start(SimulatedDisk::numbered(64), NO_IRQ);
    assert_eq!(wait(&device, device.submit(BlockOp::Flush)), Ok(0));
    let range = |start, count| Sectors { start, count };
    let discard = device.submit(BlockOp::Discard(range(8, 8)));
    assert_eq!(wait(&device, discard), Ok(0));
    let zeroes = device.submit(BlockOp::WriteZeroes(range(17, 1)));
    assert_eq!(wait(&device, zeroes), Ok(0));
    disk.with_model(|disk| {
        let number = |sector: usize| disk.bytes[512 * sector];
        assert_eq!([7, 8, 15, 16, 17, 18].map(number), [7, 0, 0, 16, 0, 18]);
        let kinds: Vec<_> = disk.requests.iter().map(|request| request.0).collect();
        assert_eq!(kinds, [4, 11, 13]);
    });
    crate::executor::add_device(device.clone());
    let id = crate::executor::block_on(device.id());
    assert_eq!(id.as_deref(), Ok(&b"simulated-disk"[..]));
}

#[test]
fn nonsense_in_the_used_ring_fails_everything_but_frees_nothing() {
    for sabotage in [
        Sabotage::UnknownId,
        Sabotage::HugeLength,
        Sabotage::IndexJump,
    ] {
        let (disk, device) = start(SimulatedDisk::numbered(64), NO_IRQ);
        let frames = frames(2);
        disk.pause(true);
        let tickets =
            [0, 1].map(|index| device.submit(BlockOp::Read(0, segments(&frames[index..=index]))));
        device.kick();
        disk.sabotage(sabotage);
        disk.process_some(0, 1);
        assert!(device.poll());
        for mut ticket in tickets {
            assert_eq!(poll(&mut ticket), Poll::Ready(Err(Errno::EIO)));
        }
        assert!(!device.in_flight());
        assert!(frames.iter().all(|frame| !frame.is_unique()));
        let late = device.submit(BlockOp::Flush);
        assert_eq!(wait(&device, late), Err(Errno::EIO));
    }
}

#[test]
fn a_device_that_fails_is_noticed_by_its_interrupt() {
    let irq = 40;
    let (disk, device) = start(SimulatedDisk::numbered(64), irq);
    disk.set_irq(irq);
    disk.pause(true);
    let mut ticket = device.submit(BlockOp::Flush);
    assert!(poll(&mut ticket).is_pending());
    assert!(!device.arm() && !device.poll());
    // An interrupt of no consequence.
    raise(irq);
    assert!(!device.poll());
    assert!(poll(&mut ticket).is_pending());
    disk.fail();
    assert!(device.poll());
    assert_eq!(poll(&mut ticket), Poll::Ready(Err(Errno::EIO)));
}

#[test]
fn arming_asks_for_one_interrupt() {
    let (disk, device) = start(SimulatedDisk::numbered(64), NO_IRQ);
    disk.pause(true);
    assert!(!device.arm());
    for round in 1..4 {
        let mut ticket = device.submit(BlockOp::Flush);
        // Arming tells the device of what was put off.
        assert!(!device.arm());
        disk.process();
        assert_eq!(disk.counts().interrupts, round);
        assert!(device.arm(), "something is there");
        assert!(device.poll());
        assert_eq!(poll(&mut ticket), Poll::Ready(Ok(0)));
    }
}

#[test]
fn slots_are_used_again() {
    let (_disk, device) = start(SimulatedDisk::numbered(64), NO_IRQ);
    for _ in 0..20 {
        let tickets =
            [0; 3].map(|sector| device.submit(BlockOp::Read(sector, segments(&frames(1)))));
        for ticket in tickets {
            assert_eq!(wait(&device, ticket), Ok(PAGE_SIZE));
        }
        drop(device.submit(BlockOp::Flush));
    }
    device.poll();
    assert!(device.requests.lock().slots() <= 4);
}
