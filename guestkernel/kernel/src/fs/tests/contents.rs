//! Reading, writing, seeking, holes, mapping.

use super::*;
use crate::mm::{Access, AddressSpace, MapRequest, Placement};
use alloc::boxed::Box;

const PAGE: u64 = 4096;
const MAX: u64 = i64::MAX as u64;

fn file() -> (Sandbox, Arc<OpenFile>) {
    let fs = Sandbox::new();
    let file = fs.open_file("f", raw::O_RDWR | raw::O_CREAT).unwrap();
    (fs, file)
}

fn seek(file: &OpenFile, offset: i64, whence: u32) -> Result<u64> {
    block_on(file.seek(offset, whence))
}

fn allocate(file: &OpenFile, mode: u32, offset: i64, length: i64) -> Result<()> {
    block_on(file.allocate(mode, offset, length))
}

fn blocks(file: &OpenFile) -> u64 {
    block_on(file.stat()).unwrap().blocks
}

#[test]
fn what_is_written_is_read_at_any_offset() {
    let (_fs, file) = file();
    let data: Vec<u8> = (0..3 * 4096 + 77)
        .map(|index| (index % 253) as u8)
        .collect();
    assert_eq!(write(&file, Some(100), &data), Ok(data.len()));
    for (start, count) in [
        (0, 20_000),
        (100, 4096),
        (4095, 2),
        (4196, 4096),
        (12_000, 9999),
    ] {
        let mut expected = vec![0; 100];
        expected.extend(&data);
        let end = (start + count).min(expected.len());
        assert_eq!(
            read(&file, Some(start as u64), count).unwrap(),
            expected[start..end]
        );
    }
    assert_eq!(read(&file, Some(data.len() as u64 + 100), 5).unwrap(), b"");
}

#[test]
fn the_position_moves_and_appending_ignores_it() {
    let (fs, file) = file();
    write(&file, None, b"abc").unwrap();
    write(&file, None, b"def").unwrap();
    assert_eq!(file.position(), 6);
    assert_eq!(write(&file, Some(1), b"B"), Ok(1));
    assert_eq!(file.position(), 6);
    file.set_position(0);
    assert_eq!(read(&file, None, 4).unwrap(), b"aBcd");
    assert_eq!(read(&file, None, 4).unwrap(), b"ef");
    let other = fs.open_file("f", raw::O_WRONLY | raw::O_APPEND).unwrap();
    assert_eq!(write(&other, Some(0), b"end"), Ok(3));
    assert_eq!(other.position(), 0);
    assert_eq!(write(&other, None, b"."), Ok(1));
    assert_eq!(other.position(), 10);
    assert_eq!(write_with(&file, Some(0), b"!", IoFlags::APPEND), Ok(1));
    assert_eq!(fs.read("f"), Ok(b"aBcdefend.!".to_vec()));
}

#[test]
fn positions_end_at_the_largest_size() {
    let (_fs, file) = file();
    assert_eq!(block_on(file.truncate(MAX)), Ok(()));
    assert_eq!(write(&file, Some(MAX), b"xx"), Err(Errno::EINVAL));
    assert_eq!(write(&file, Some(MAX - 1), b"x"), Ok(1));
    assert_eq!(read(&file, Some(MAX), 2), Err(Errno::EINVAL));
    assert_eq!(read(&file, Some(MAX - 2), 2).unwrap(), b"\0x");
    assert_eq!(seek(&file, MAX as i64, raw::SEEK_SET), Ok(MAX));
    assert_eq!(seek(&file, 1, raw::SEEK_CUR), Err(Errno::EINVAL));
    assert_eq!(seek(&file, -1, raw::SEEK_SET), Err(Errno::EINVAL));
    assert_eq!(seek(&file, 0, 5), Err(Errno::EINVAL));
    assert_eq!(seek(&file, -3, raw::SEEK_END), Ok(MAX - 3));
}

#[test]
fn holes_and_data_are_told_apart() {
    let (_fs, file) = file();
    block_on(file.truncate(10 * PAGE)).unwrap();
    assert_eq!(seek(&file, 0, raw::SEEK_DATA), Err(Errno::ENXIO));
    assert_eq!(seek(&file, 5, raw::SEEK_HOLE), Ok(5));
    write(&file, Some(2 * PAGE + 9), b"x").unwrap();
    write(&file, Some(3 * PAGE), b"x").unwrap();
    assert_eq!(seek(&file, 1, raw::SEEK_DATA), Ok(2 * PAGE));
    assert_eq!(
        seek(&file, 2 * PAGE as i64 + 1, raw::SEEK_DATA),
        Ok(2 * PAGE + 1)
    );
    assert_eq!(seek(&file, 2 * PAGE as i64, raw::SEEK_HOLE), Ok(4 * PAGE));
    assert_eq!(
        seek(&file, 10 * PAGE as i64, raw::SEEK_HOLE),
        Err(Errno::ENXIO)
    );
    assert_eq!(seek(&file, -1, raw::SEEK_DATA), Err(Errno::ENXIO));
    assert_eq!(blocks(&file), 16);
}

#[test]
fn a_file_that_shrank_grows_with_zeros() {
    let (_fs, file) = file();
    write(&file, Some(0), &[7; 3 * 4096]).unwrap();
    block_on(file.truncate(PAGE + 10)).unwrap();
    assert_eq!(blocks(&file), 16);
    block_on(file.truncate(3 * PAGE)).unwrap();
    let mut expected = vec![7; PAGE as usize + 10];
    expected.resize(3 * PAGE as usize, 0);
    assert_eq!(read(&file, Some(0), 20_000).unwrap(), expected);
}

#[test]
fn space_is_allocated_and_given_back() {
    let (_fs, file) = file();
    write(&file, Some(0), &[7; 4 * 4096]).unwrap();
    let keep = raw::FALLOC_FL_KEEP_SIZE;
    let punch = raw::FALLOC_FL_PUNCH_HOLE | keep;
    assert_eq!(allocate(&file, punch, 10, 2 * PAGE as i64), Ok(()));
    assert_eq!(blocks(&file), 24);
    let data = read(&file, Some(0), 4 * 4096).unwrap();
    assert_eq!(data.iter().filter(|byte| **byte == 0).count(), 8192);
    assert_eq!(data[..10], [7; 10]);
    assert_eq!(allocate(&file, punch, 100, 10), Ok(()));
    assert_eq!(allocate(&file, keep, 0, 8 * PAGE as i64), Ok(()));
    assert_eq!(
        (block_on(file.ops.size()), blocks(&file)),
        (Ok(4 * PAGE), 64)
    );
    assert_eq!(allocate(&file, 0, 0, 9 * PAGE as i64 - 1), Ok(()));
    assert_eq!(block_on(file.ops.size()), Ok(9 * PAGE - 1));
    for (mode, offset, length, error) in [
        (raw::FALLOC_FL_ZERO_RANGE, 0, 4096, Errno::EOPNOTSUPP),
        (raw::FALLOC_FL_PUNCH_HOLE, 0, 4096, Errno::EOPNOTSUPP),
        (raw::FALLOC_FL_COLLAPSE_RANGE, 0, 4096, Errno::EOPNOTSUPP),
        (raw::FALLOC_FL_UNSHARE_RANGE, 0, 4096, Errno::EOPNOTSUPP),
        (0x1000, 0, 4096, Errno::EOPNOTSUPP),
        (keep, 0, 0, Errno::EINVAL),
        (0, -1, 10, Errno::EINVAL),
        (0, i64::MAX, 10, Errno::EFBIG),
        (keep, 0, 1 << 62, Errno::ENOSPC),
    ] {
        assert_eq!(allocate(&file, mode, offset, length), Err(error), "{mode}");
    }
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let (fs, file) = file();
    let free = || block_on(fs.view().file_system(b"/")).unwrap().free_blocks;
    let before = free();
    write(&file, Some(0), &[1; 10 * 4096]).unwrap();
    fs.unlink("f").unwrap();
    assert_eq!(block_on(file.stat()).unwrap().links, 0);
    assert_eq!(read(&file, Some(0), 2).unwrap(), [1, 1]);
    assert_eq!(free(), before - 10);
    drop(file);
    assert_eq!(free(), before);
}

#[test]
fn a_shared_mapping_is_the_file_and_a_private_one_is_not() {
    let (_fs, file) = file();
    write(&file, Some(0), b"from the file").unwrap();
    let space = AddressSpace::new().unwrap();
    let map = |is_shared| {
        let source = file.ops.clone().page_source().unwrap();
        let access = Access::READ | Access::WRITE;
        let mut request = MapRequest::shared(source, 0, 2 * PAGE, access);
        request.placement = Placement::Hint(0);
        request.is_shared = is_shared;
        space.map(request).unwrap()
    };
    let (shared, private) = (map(true), map(false));
    space.write(shared, b"FROM").unwrap();
    space.write(private + 5, b"NOT").unwrap();
    assert_eq!(read(&file, Some(0), 13).unwrap(), b"FROM the file");
    write(&file, Some(9), b"FILE").unwrap();
    assert_eq!(space.read_value::<u8>(shared + 9), Ok(b'F'));
    // There is no page beyond the end.
    assert_eq!(space.read_value::<u8>(shared + PAGE), Err(Errno::EFAULT));
    block_on(file.truncate(PAGE + 1)).unwrap();
    assert_eq!(space.read_value::<u8>(shared + PAGE), Ok(0));
    // A read into a mapping of the very page that is read.
    let buffer = IoBuffer::user(space.clone(), shared + PAGE, 4);
    let mut io = Io::new(Direction::Read, Some(0), buffer, IoFlags::empty());
    assert_eq!(transfer(&file, &mut io), Ok(4));
}

#[test]
fn pages_that_leave_a_file_leave_its_mappings() {
    let (_fs, file) = file();
    write(&file, Some(0), &[1; 4 * 4096]).unwrap();
    let space = AddressSpace::new().unwrap();
    let map = |first: u64, is_shared| {
        let source = file.ops.clone().page_source().unwrap();
        let access = Access::READ | Access::WRITE;
        let mut request = MapRequest::shared(source, first, (4 - first) * PAGE, access);
        request.is_shared = is_shared;
        let start = space.map(request).unwrap();
        // Filled in from the second page of the file on.
        for page in 1..4 {
            let address = start + (page - first) * PAGE;
            assert_eq!(space.read_value::<u8>(address), Ok(1));
            space.write(address + 1, &[2]).unwrap();
        }
        // Where the file's first page would be.
        start.wrapping_sub(first * PAGE)
    };
    let (shared, private, part) = (map(0, true), map(0, false), map(1, true));
    let byte = |start: u64, page: u64| space.read_value::<u8>(start + page * PAGE + 1);
    block_on(file.allocate(
        raw::FALLOC_FL_PUNCH_HOLE | raw::FALLOC_FL_KEEP_SIZE,
        PAGE as i64 - 1,
        PAGE as i64 + 2,
    ))
    .unwrap();
    let bytes = |start| [1, 2, 3].map(|page| byte(start, page));
    assert_eq!(bytes(shared), [Ok(0), Ok(2), Ok(2)]);
    assert_eq!(bytes(part), [Ok(0), Ok(2), Ok(2)]);
    assert_eq!(
        bytes(private),
        [Ok(2); 3],
        "copies stay where a hole is made"
    );
    block_on(file.truncate(3 * PAGE)).unwrap();
    let gone = Err(Errno::EFAULT);
    for start in [shared, private, part] {
        assert_eq!(byte(start, 3), gone);
        assert!(byte(start, 2).is_ok());
    }
    block_on(file.truncate(0)).unwrap();
    block_on(file.truncate(4 * PAGE)).unwrap();
    for start in [shared, private, part] {
        assert_eq!(bytes(start), [Ok(0); 3]);
    }
    // What is stored there is in the file again.
    space.write(part + PAGE, b"new").unwrap();
    assert_eq!(read(&file, Some(PAGE), 3).unwrap(), b"new");
}

#[test]
fn a_bad_pointer_ends_a_transfer_where_it_is() {
    let (_fs, file) = file();
    write(&file, Some(0), &[5; 3 * 4096]).unwrap();
    let space = AddressSpace::new().unwrap();
    let access = Access::READ | Access::WRITE;
    let page = space.map(MapRequest::anonymous(PAGE, access)).unwrap();
    let try_io = |direction, address: u64| {
        let buffer = IoBuffer::user(space.clone(), address, 8192);
        let mut io = Io::new(direction, Some(0), buffer, IoFlags::empty());
        transfer(&file, &mut io)
    };
    assert_eq!(try_io(Direction::Read, page + PAGE - 100), Ok(100));
    assert_eq!(try_io(Direction::Read, 8), Err(Errno::EFAULT));
    assert_eq!(try_io(Direction::Write, page + PAGE - 10), Ok(10));
    assert_eq!(try_io(Direction::Write, 8), Err(Errno::EFAULT));
    // Nothing of a page that could not be filled shows up in the file.
    let buffer = IoBuffer::user(space.clone(), page + PAGE - 10, 4096);
    let mut io = Io::new(Direction::Write, Some(100 * PAGE), buffer, IoFlags::empty());
    assert_eq!(transfer(&file, &mut io), Ok(10));
    block_on(file.truncate(101 * PAGE)).unwrap();
    assert_eq!(
        read(&file, Some(100 * PAGE + 10), 4086).unwrap(),
        vec![0; 4086]
    );
}

#[test]
fn files_are_copied_and_ranges_checked() {
    let (fs, file) = file();
    write(&file, Some(0), &[9; 100_000]).unwrap();
    let other = fs.open_file("g", raw::O_RDWR | raw::O_CREAT).unwrap();
    let range = |from: (&OpenFile, Option<u64>), to: (&OpenFile, Option<u64>), count| {
        block_on(Box::pin(copy_range(from, to, count)))
    };
    assert_eq!(
        range((&file, Some(0)), (&other, Some(5)), 200_000),
        Ok(100_000)
    );
    assert_eq!(block_on(other.ops.size()), Ok(100_005));
    assert_eq!(range((&file, None), (&other, None), 10), Ok(10));
    assert_eq!((file.position(), other.position()), (10, 10));
    assert_eq!(
        range((&file, Some(0)), (&file, Some(5)), 10),
        Err(Errno::EINVAL)
    );
    assert_eq!(range((&file, Some(0)), (&file, Some(10)), 10), Ok(10));
    let directory = fs.open_file("/", raw::O_RDONLY).unwrap();
    assert_eq!(
        range((&directory, None), (&file, None), 1),
        Err(Errno::EISDIR)
    );
    let reader = fs.open_file("f", raw::O_RDONLY).unwrap();
    assert_eq!(range((&file, None), (&reader, None), 1), Err(Errno::EBADF));
    let (pipe, _writer) = fs.view().pipe(OpenFlags::empty()).unwrap();
    assert_eq!(range((&pipe, None), (&file, None), 1), Err(Errno::EINVAL));
}

#[test]
fn memory_devices_give_and_take_what_they_should() {
    let fs = Sandbox::new();
    DeviceDirectory::mount(fs.context.namespace.clone()).unwrap();
    let open = |name: &str| fs.open_file(name, raw::O_RDWR).unwrap();
    let null = open("/dev/null");
    assert_eq!(read(&null, None, 5).unwrap(), b"");
    assert_eq!(write(&null, None, b"gone"), Ok(4));
    assert_eq!(seek(&null, 5, raw::SEEK_END), Ok(0));
    assert_eq!(block_on(null.sync(false)), Err(Errno::EINVAL));
    assert_eq!(allocate(&null, 0, 0, 1), Err(Errno::ENODEV));
    assert_eq!(read(&open("/dev/zero"), Some(7), 3).unwrap(), [0; 3]);
    assert_eq!(write(&open("/dev/full"), None, b"x"), Err(Errno::ENOSPC));
    let urandom = open("/dev/urandom");
    assert_ne!(
        read(&urandom, None, 600).unwrap(),
        read(&urandom, None, 600).unwrap()
    );
    block_on(
        fs.view()
            .make_node(HERE, b"mine", raw::S_IFCHR | 0o600, 0x103),
    )
    .unwrap();
    assert_eq!(write(&open("mine"), None, b"gone"), Ok(4));
    block_on(
        fs.view()
            .make_node(HERE, b"none", raw::S_IFCHR | 0o600, 0xfafa),
    )
    .unwrap();
    assert_eq!(fs.open("none", raw::O_RDONLY), Err(Errno::ENXIO));
}
