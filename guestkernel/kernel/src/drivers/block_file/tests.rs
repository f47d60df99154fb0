use super::super::block::tests::start;
use super::*;
use crate::executor::{add_device, block_on};
use crate::file::{OpenFile, OpenFlags};
use crate::mm::{MapRequest, UserRange};
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::ioctl as request;
use machine::Access;
use machine::hosted::device::SimulatedDevice;
use machine::hosted::models::SimulatedDisk;

const SIZE: usize = 1 << 20;

struct Rig {
    disk: Arc<SimulatedDevice<SimulatedDisk>>,
    file: Arc<BlockFile>,
    space: Arc<AddressSpace>,
    /// Two pages of program memory; what follows is not mapped.
    memory: u64,
}

fn rig(change: impl FnOnce(&mut SimulatedDisk)) -> Rig {
    let mut disk = SimulatedDisk::numbered(SIZE / 512);
    change(&mut disk);
    let (disk, device) = start(disk, 99);
    add_device(device.clone());
    let space = AddressSpace::new().unwrap();
    let request = MapRequest::anonymous(2 * PAGE_SIZE as u64, Access::READ | Access::WRITE);
    let memory = space.map(request).unwrap();
    Rig {
        disk,
        file: Arc::new(BlockFile::new(device, DeviceNumber::new(254, 0))),
        space,
        memory,
    }
}

impl Rig {
    /// Reads or writes at `position` with ranges of program memory (offset, length).
    fn run(
        &self,
        direction: Direction,
        flags: OpenFlags,
        position: usize,
        ranges: &[(usize, usize)],
    ) -> Result<usize> {
        let range = |(offset, length): &(usize, usize)| UserRange {
            address: self.memory + *offset as u64,
            length: *length,
        };
        let buffer = IoBuffer::vectored(self.space.clone(), ranges.iter().map(range).collect());
        let open = OpenFile::new(self.file.clone(), flags | OpenFlags::READ_WRITE);
        let mut io = Io::new(direction, Some(position as u64), buffer, IoFlags::empty());
        block_on(open.complete(&mut io))
    }

    fn read_direct(&self, position: usize, ranges: &[(usize, usize)]) -> Result<usize> {
        self.run(Direction::Read, OpenFlags::DIRECT, position, ranges)
    }

    fn write_direct(&self, position: usize, ranges: &[(usize, usize)]) -> Result<usize> {
        self.run(Direction::Write, OpenFlags::DIRECT, position, ranges)
    }

    /// Reads through the kernel's pages into the kernel.
    fn read(&self, position: usize, length: usize) -> Result<Vec<u8>> {
        let open = OpenFile::new(self.file.clone(), OpenFlags::empty());
        let buffer = IoBuffer::Kernel(vec![0; length]);
        let mut io = Io::new(
            Direction::Read,
            Some(position as u64),
            buffer,
            IoFlags::empty(),
        );
        let count = block_on(open.complete(&mut io))?;
        let IoBuffer::Kernel(mut bytes) = io.buffer else {
            panic!("the buffer has changed")
        };
        bytes.truncate(count);
        Ok(bytes)
    }

    fn write(&self, position: usize, bytes: &[u8]) -> Result<usize> {
        let open = OpenFile::new(self.file.clone(), OpenFlags::WRITE_ONLY);
        let buffer = IoBuffer::Kernel(bytes.to_vec());
        let mut io = Io::new(
            Direction::Write,
            Some(position as u64),
            buffer,
            IoFlags::empty(),
        );
        block_on(open.complete(&mut io))
    }

    fn ioctl(&self, request: u32, argument: &[u64]) -> Result<u64> {
        let bytes: Vec<u8> = argument
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        self.space.write(self.memory, &bytes).unwrap();
        block_on(self.file.ioctl(request, self.memory, &self.space))?;
        self.space.read_value(self.memory)
    }

    fn kinds(&self) -> Vec<u32> {
        let kind = |(kind, _): (u32, u64)| kind;
        self.disk
            .with_model(|disk| core::mem::take(&mut disk.requests))
            .into_iter()
            .map(kind)
            .collect()
    }
}

/// What `/dev/loop0` with the same size does on Linux 6.18.
#[test]
fn direct_access_has_the_limits_that_linux_has() {
    let rig = rig(|_| ());
    for (name, position, range, expected) in [
        ("aligned", 0, (0, 512), Ok(512)),
        ("length", 0, (0, 100), Err(Errno::EINVAL)),
        ("position", 100, (0, 512), Err(Errno::EINVAL)),
        ("memory in one page", 0, (256, 512), Ok(512)),
        ("memory anywhere in one page", 0, (4, 512), Ok(512)),
        ("memory in two pages", 0, (4, 4096), Err(Errno::EINVAL)),
        ("nothing", 0, (0, 0), Ok(0)),
        ("nothing somewhere", 1, (0, 0), Ok(0)),
        ("at the end", SIZE, (0, 512), Ok(0)),
        ("beyond the end", SIZE + 513, (0, 100), Ok(0)),
        ("across the end", SIZE - 512, (0, 4096), Ok(512)),
        ("across the end, odd", SIZE - 512, (0, 1000), Ok(512)),
        ("nowhere", 0, (1 << 20, 512), Err(Errno::EFAULT)),
        ("in part", 0, (2 * 4096 - 512, 4096), Ok(512)),
    ] {
        assert_eq!(rig.read_direct(position, &[range]), expected, "{name}");
    }
    for (name, ranges, expected) in [
        ("apart", &[(0, 512), (4096, 1024)][..], Ok(1536)),
        ("in a row", &[(0, 256), (256, 256)], Ok(512)),
        ("halves", &[(0, 256), (4096, 256)], Err(Errno::EINVAL)),
        ("one is odd", &[(0, 512), (4100, 512)], Err(Errno::EINVAL)),
        ("empty", &[(0, 512), (4100, 0)], Ok(512)),
    ] {
        assert_eq!(rig.read_direct(0, ranges), expected, "{name}");
    }
    for (name, position, range, expected) in [
        ("length", 0, (0, 100), Err(Errno::EINVAL)),
        ("position", 100, (0, 512), Err(Errno::EINVAL)),
        ("nothing at the end", SIZE, (0, 0), Ok(0)),
        ("at the end", SIZE, (0, 512), Err(Errno::ENOSPC)),
        ("beyond the end", SIZE + 1, (0, 512), Err(Errno::ENOSPC)),
        ("across the end", SIZE - 512, (0, 1000), Ok(512)),
    ] {
        assert_eq!(rig.write_direct(position, &[range]), expected, "{name}");
    }
}

#[test]
fn direct_access_moves_the_bytes() {
    let rig = rig(|_| ());
    assert_eq!(rig.read_direct(1024, &[(4096, 512), (0, 4096)]), Ok(4608));
    let first: u64 = rig.space.read_value(rig.memory + 4096).unwrap();
    let second: u64 = rig.space.read_value(rig.memory).unwrap();
    assert_eq!((first, second), (2, 3));
    rig.space.write(rig.memory, b"direct").unwrap();
    assert_eq!(rig.write_direct(5 * 512, &[(0, 512)]), Ok(512));
    rig.disk
        .with_model(|disk| assert_eq!(disk.bytes[5 * 512..][..6], *b"direct"));
}

#[test]
fn access_through_the_kernel_has_any_bounds() {
    for block in [512, 4096] {
        let rig = rig(|disk| disk.block_size = block);
        let mut expected = rig.disk.with_model(|disk| disk.bytes.clone());
        for (position, length) in [
            (0, 10),
            (1, 511),
            (500, 24),
            (511, 1026),
            (1000, 300_000),
            (4096, 8192),
            (4095, 4098),
            (SIZE - 5, 5),
        ] {
            let bytes: Vec<u8> = (0..length).map(|byte| (byte % 239) as u8 ^ 0x55).collect();
            assert_eq!(rig.write(position, &bytes), Ok(length), "{position}");
            expected[position..position + length].copy_from_slice(&bytes);
            rig.disk
                .with_model(|disk| assert!(disk.bytes == expected, "{position} {length}"));
            let from = position.saturating_sub(3);
            let all = rig.read(from, length + 6).unwrap();
            assert!(all == expected[from..(from + length + 6).min(SIZE)]);
        }
        assert_eq!(rig.read(SIZE - 100, 512).map(|bytes| bytes.len()), Ok(100));
        assert_eq!(rig.read(SIZE, 10).map(|bytes| bytes.len()), Ok(0));
        assert_eq!(rig.write(SIZE - 100, &[1; 512]), Ok(100));
        assert_eq!(rig.write(SIZE, &[1]), Err(Errno::ENOSPC));
        assert_eq!(rig.write(SIZE, &[]), Ok(0));
    }
}

#[test]
fn memory_that_ends_ends_the_access() {
    let rig = rig(|_| ());
    let plain = OpenFlags::empty();
    let before = 2 * PAGE_SIZE - 700;
    let read = rig.run(Direction::Read, plain, 512, &[(before, 5000)]);
    assert_eq!(read, Ok(700));
    let fault = rig.run(Direction::Read, plain, 0, &[(1 << 20, 10)]);
    assert_eq!(fault, Err(Errno::EFAULT));
    for position in [512, 600, 8192] {
        let bytes: Vec<u8> = (0..700).map(|byte| byte as u8 | 1).collect();
        rig.space.write(rig.memory + before as u64, &bytes).unwrap();
        let mut expected = rig.disk.with_model(|disk| disk.bytes.clone());
        expected[position..position + 700].copy_from_slice(&bytes);
        let written = rig.run(Direction::Write, plain, position, &[(before, 5000)]);
        assert_eq!(written, Ok(700));
        rig.disk
            .with_model(|disk| assert!(disk.bytes == expected, "{position}"));
        let fault = rig.run(Direction::Write, plain, position, &[(1 << 20, 5000)]);
        assert_eq!(fault, Err(Errno::EFAULT));
    }
}

#[test]
fn parts_of_one_block_are_written_one_after_the_other() {
    let rig = rig(|disk| disk.block_size = 4096);
    let write = |offset: usize| {
        let open = OpenFile::new(rig.file.clone(), OpenFlags::WRITE_ONLY);
        let buffer = IoBuffer::Kernel(vec![0xee; 64]);
        let position = Some(offset as u64 * 64);
        let io = Io::new(Direction::Write, position, buffer, IoFlags::empty());
        (open, io)
    };
    let mut writes: Vec<_> = (0..64).map(write).collect();
    // All at once: each is polled before any is done.
    block_on(core::future::poll_fn(|context| {
        writes.retain_mut(|(open, io)| open.poll_io(io, context).is_pending());
        match writes.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }));
    rig.disk
        .with_model(|disk| assert!(disk.bytes[..4096].iter().all(|byte| *byte == 0xee)));
    // One that is dropped lets the next one in.
    let (open, mut io) = write(0);
    let mut context = Context::from_waker(core::task::Waker::noop());
    rig.disk.pause(true);
    assert!(open.poll_io(&mut io, &mut context).is_pending());
    drop(io);
    rig.disk.pause(false);
    rig.disk.process();
    assert_eq!(rig.write(1, b"next"), Ok(4));
}

#[test]
fn synchronous_writes_are_flushed() {
    let rig = rig(|_| ());
    let sync = OpenFlags::SYNC;
    let direct = OpenFlags::DATA_SYNC | OpenFlags::DIRECT;
    rig.run(Direction::Write, direct, 0, &[(0, 512)]).unwrap();
    assert_eq!(rig.kinds(), [1, 4]);
    rig.run(Direction::Write, sync, 0, &[(0, 512)]).unwrap();
    assert_eq!(rig.kinds(), [1, 4]);
    rig.run(Direction::Read, direct | sync, 0, &[(0, 512)])
        .unwrap();
    rig.run(Direction::Write, OpenFlags::empty(), 0, &[(0, 512)])
        .unwrap();
    assert_eq!(rig.kinds(), [0, 1]);
    block_on(rig.file.sync(true)).unwrap();
    assert_eq!(rig.kinds(), [4]);
    rig.disk.with_model(|disk| disk.failures.extend([0, 1]));
    let failed = rig.run(Direction::Write, direct, 0, &[(0, 512)]);
    assert_eq!(failed, Err(Errno::EIO));
}

#[test]
fn errors_of_the_host_reach_the_program() {
    let rig = rig(|_| ());
    for (status, error) in [(1, Errno::EIO), (3, Errno::ENOSPC)] {
        let fail = || rig.disk.with_model(|disk| disk.failures.push_back(status));
        fail();
        assert_eq!(rig.write_direct(0, &[(0, 512)]), Err(error));
        fail();
        assert_eq!(rig.write(100, b"x"), Err(error));
        fail();
        assert_eq!(rig.write(0, &[0; 512]), Err(error));
    }
}

#[test]
fn a_page_that_cannot_be_read_is_the_only_one() {
    let rig = rig(|_| ());
    // The run fails, then its first page by itself.
    rig.disk.with_model(|disk| disk.failures.extend([1, 1]));
    assert_eq!(rig.read(0, 8192), Err(Errno::EIO));
    assert_eq!(rig.read(0, 8192).map(|bytes| bytes.len()), Ok(8192));
    let end = SIZE - 4 * PAGE_SIZE;
    rig.disk
        .with_model(|disk| disk.failures.extend([1, 0, 1, 1]));
    let half = rig.read(end, 4 * PAGE_SIZE).map(|bytes| bytes.len());
    assert_eq!(half, Ok(PAGE_SIZE), "what was read before the error counts");
}

#[test]
fn small_reads_in_a_row_are_few_requests() {
    let rig = rig(|_| ());
    let expected = rig.disk.with_model(|disk| disk.bytes.clone());
    for position in (0..SIZE).step_by(512) {
        assert_eq!(
            rig.read(position, 512).unwrap(),
            expected[position..][..512]
        );
    }
    assert!(rig.kinds().len() <= 8);
    // Now all of it is there.
    assert!(rig.read(0, SIZE).unwrap() == expected);
    assert!(rig.kinds().is_empty());
}

#[test]
fn reads_here_and_there_read_what_they_ask_for() {
    let rig = rig(|disk| disk.block_size = 4096);
    for page in [200, 100, 50] {
        let bytes = rig.read(page * PAGE_SIZE + 512, 8).unwrap();
        assert_eq!(bytes, (8 * page as u64 + 1).to_le_bytes());
    }
    assert_eq!(rig.kinds(), [0; 3]);
    let pages = || rig.file.cache.pages_held();
    assert_eq!(pages(), 3);
    assert_eq!(rig.ioctl(request::BLKFLSBUF, &[0]), Ok(0));
    assert_eq!(pages(), 0);
}

#[test]
fn the_cache_has_a_limit() {
    const LARGE: usize = 16 << 20;
    let rig = rig(|disk| *disk = SimulatedDisk::numbered(LARGE / 512));
    let most = machine::memory_use().total / 32;
    assert!(most < LARGE / PAGE_SIZE);
    for position in (0..LARGE).step_by(1 << 20) {
        rig.read(position, 1 << 20).unwrap();
        assert!(rig.file.cache.pages_held() <= most);
    }
    // The end is there, the start is not.
    rig.kinds();
    rig.read(LARGE - 4096, 4096).unwrap();
    assert!(rig.kinds().is_empty());
    rig.read(0, 4096).unwrap();
    assert!(!rig.kinds().is_empty());
}

#[test]
fn what_is_written_is_read() {
    let rig = rig(|_| ());
    let first = |position: usize| rig.read(position, 4).unwrap();
    let all = rig.read(0, SIZE).unwrap();
    rig.write(70_000, b"kern").unwrap();
    assert_eq!(first(70_000), b"kern");
    rig.space.write(rig.memory, b"user").unwrap();
    rig.write_direct(512 * 9, &[(0, 512)]).unwrap();
    assert_eq!(first(512 * 9), b"user");
    rig.ioctl(request::BLKZEROOUT, &[512 * 300, 512]).unwrap();
    assert_eq!(first(512 * 300), [0; 4]);
    rig.ioctl(request::BLKDISCARD, &[512 * 400, 512]).unwrap();
    assert_eq!(first(512 * 400), [0; 4]);
    // Pages beside them are not read again.
    rig.kinds();
    assert_eq!(first(512 * 16), all[512 * 16..][..4]);
    assert!(rig.kinds().is_empty());
}

#[test]
fn readers_of_the_same_pages_wait_for_one_request() {
    let rig = rig(|_| ());
    rig.disk.pause(true);
    let start = || {
        let open = OpenFile::new(rig.file.clone(), OpenFlags::empty());
        let buffer = IoBuffer::Kernel(vec![0; 100]);
        let io = Io::new(Direction::Read, Some(1 << 16), buffer, IoFlags::empty());
        (open, io)
    };
    let mut readers: Vec<_> = (0..4).map(|_| start()).collect();
    let (open, mut impatient) = start();
    impatient.flags = IoFlags::NOWAIT;
    let mut context = Context::from_waker(core::task::Waker::noop());
    for (open, io) in &mut readers {
        assert!(open.poll_io(io, &mut context).is_pending());
    }
    let refused = open.poll_io(&mut impatient, &mut context);
    assert_eq!(refused, Poll::Ready(Err(Errno::EAGAIN)));
    readers.pop();
    rig.disk.pause(false);
    rig.disk.process();
    for (open, io) in &mut readers {
        assert_eq!(block_on(open.complete(io)), Ok(100));
    }
    assert_eq!(rig.kinds(), [0]);
    let served = open.poll_io(&mut impatient, &mut context);
    assert_eq!(served, Poll::Ready(Ok(100)));
}

#[test]
fn a_write_that_nobody_waits_for_counts_when_the_device_is_done() {
    for flags in [OpenFlags::empty(), OpenFlags::DIRECT] {
        let rig = rig(|disk| disk.block_size = 4096);
        rig.space.write(rig.memory, &[7; PAGE_SIZE]).unwrap();
        let open = OpenFile::new(rig.file.clone(), flags | OpenFlags::READ_WRITE);
        let buffer = IoBuffer::user(rig.space.clone(), rig.memory, PAGE_SIZE);
        let mut io = Io::new(Direction::Write, Some(0), buffer, IoFlags::empty());
        let mut context = Context::from_waker(core::task::Waker::noop());
        rig.disk.pause(true);
        assert!(open.poll_io(&mut io, &mut context).is_pending());
        drop(io);
        // The next write of a part of that block must see it.
        let part = IoBuffer::Kernel(vec![8; 10]);
        let mut part = Io::new(Direction::Write, Some(0), part, IoFlags::empty());
        let second = OpenFile::new(rig.file.clone(), OpenFlags::READ_WRITE);
        assert!(second.poll_io(&mut part, &mut context).is_pending());
        rig.disk.pause(false);
        rig.disk.process();
        assert_eq!(block_on(second.complete(&mut part)), Ok(10));
        let bytes = rig.read(0, 20).unwrap();
        assert_eq!(bytes, [[8; 10], [7; 10]].concat(), "{flags:?}");
    }
}

#[test]
fn read_only_devices_refuse_writes() {
    let rig = rig(|disk| disk.is_read_only = true);
    assert_eq!(rig.write(0, b"x"), Err(Errno::EPERM));
    assert_eq!(rig.write(SIZE, b""), Err(Errno::EPERM));
    assert_eq!(rig.write_direct(100, &[(0, 100)]), Err(Errno::EPERM));
    assert_eq!(rig.ioctl(request::BLKROGET, &[0]), Ok(1));
    for (name, argument, error) in [
        (request::BLKDISCARD, [0, 100], Errno::EPERM),
        (request::BLKZEROOUT, [0, 100], Errno::EINVAL),
        (request::BLKZEROOUT, [0, 512], Errno::EPERM),
    ] {
        assert_eq!(rig.ioctl(name, &argument), Err(error));
    }
    assert_eq!(rig.read(0, 8), Ok(vec![0; 8]));
}

#[test]
fn ioctls_describe_the_device() {
    let rig = rig(|disk| disk.block_size = 1024);
    let size = SIZE as u64;
    for (name, expected) in [
        (request::BLKGETSIZE64, size),
        (request::BLKGETSIZE, size / 512),
        (request::BLKSSZGET, 1024),
        (request::BLKPBSZGET, 1024),
        (request::BLKBSZGET, 4096),
        (request::BLKROGET, 0),
        (request::BLKIOMIN, 1024),
        (request::BLKIOOPT, 0),
        (request::BLKFLSBUF, 0),
    ] {
        assert_eq!(rig.ioctl(name, &[0]), Ok(expected), "{name:#x}");
    }
    assert_eq!(rig.kinds(), [4]);
    let fault = block_on(rig.file.ioctl(request::BLKGETSIZE64, 8, &rig.space));
    assert_eq!(fault, Err(Errno::EFAULT));
    assert_eq!(rig.ioctl(request::TCGETS, &[0]), Err(Errno::ENOTTY));
    assert_eq!(rig.ioctl(request::BLKBSZSET, &[2048]), Ok(2048));
    assert_eq!(rig.ioctl(request::BLKBSZSET, &[512]), Err(Errno::EINVAL));
    assert_eq!(
        rig.ioctl(request::BLKSECDISCARD, &[0, 1024]),
        Err(Errno::EOPNOTSUPP)
    );
}

#[test]
fn changes_need_a_file_that_is_open_for_writing() {
    let rig = rig(|_| ());
    for (flags, is_refused) in [
        (OpenFlags::empty(), true),
        (OpenFlags::WRITE_ONLY, false),
        (OpenFlags::READ_WRITE, false),
    ] {
        let open = OpenFile::new(rig.file.clone(), flags);
        assert_eq!(needs_writable(&open, request::BLKDISCARD), is_refused);
        assert!(!needs_writable(&open, request::BLKGETSIZE64));
    }
}

#[test]
fn ranges_are_discarded_and_zeroed_in_parts_the_device_takes() {
    let rig = rig(|_| ());
    let size = SIZE as u64;
    for argument in [
        [0, 100],
        [size, 512],
        [0, 0],
        [size - 512, 1024],
        [u64::MAX - 511, 1024],
    ] {
        for name in [request::BLKDISCARD, request::BLKZEROOUT] {
            assert_eq!(
                rig.ioctl(name, &argument),
                Err(Errno::EINVAL),
                "{argument:?}"
            );
        }
    }
    assert!(rig.kinds().is_empty());
    // The device takes 64 sectors at a time.
    rig.ioctl(request::BLKDISCARD, &[512, 100 * 512]).unwrap();
    assert_eq!(rig.kinds(), [11, 11]);
    rig.ioctl(request::BLKZEROOUT, &[200 * 512, 128 * 512])
        .unwrap();
    assert_eq!(rig.kinds(), [13, 13]);
    let is_zero = |sector: usize| rig.disk.with_model(|disk| disk.bytes[sector * 512] == 0);
    assert!((1..101).all(is_zero) && !is_zero(101));
    assert!(!is_zero(199) && (200..328).all(is_zero) && !is_zero(328));
    // A device that refuses gets zeros to write.
    rig.disk.with_model(|disk| disk.failures.push_back(2));
    rig.ioctl(request::BLKZEROOUT, &[400 * 512, 700 * 512])
        .unwrap();
    assert_eq!(rig.kinds(), [13, 1, 1]);
    assert!(!is_zero(399) && (400..1100).all(is_zero) && !is_zero(1100));
}

/// What `/dev/loop0` with the same size does on Linux 6.18.
#[test]
fn fallocate_zeroes_and_nothing_else() {
    let rig = rig(|_| ());
    let (invalid, refused) = (Err(Errno::EINVAL), Err(Errno::EOPNOTSUPP));
    let size = SIZE as u64;
    let ranges = [(0, 512), (0, 100), (size, 512), (size - 512, 1024)];
    for (mode, expected) in [
        (0, [refused, invalid, invalid, invalid]),
        (1, [refused, invalid, invalid, refused]),
        (2, [refused; 4]),
        (3, [Ok(()), invalid, invalid, Ok(())]),
        (0x10, [Ok(()), invalid, invalid, invalid]),
        (0x11, [Ok(()), invalid, invalid, Ok(())]),
        (8, [refused; 4]),
    ] {
        for ((offset, length), expected) in ranges.into_iter().zip(expected) {
            let result = block_on(FileOps::allocate(&*rig.file, mode, offset, length));
            assert_eq!(result, expected, "{mode:#x} {offset} {length}");
        }
    }
}
