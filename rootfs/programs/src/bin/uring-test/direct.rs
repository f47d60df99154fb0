//! Direct descriptors: OPENAT, OPENAT2, PIPE and CLOSE with places of the file table, FILES_UPDATE,
//! FIXED_FD_INSTALL, ranges that are given out, tags; personalities.

use std::ffi::CStr;
use std::os::fd::AsRawFd;

use guest_programs::check::{Check, Outcome};
use guest_programs::ring::{Cqe, Ring, Sqe, gives, milliseconds, refuses, register};
use guest_programs::sys::{Errno, SysResult, create};
use guest_programs::{checks, expect_eq, sys};
use libc::{O_CLOEXEC, O_CREAT, O_RDONLY, O_RDWR};
use linux_raw_sys::io_uring::io_uring_op::*;
use linux_raw_sys::io_uring::io_uring_register_op::*;
use linux_raw_sys::io_uring::{
    io_uring_file_index_range, io_uring_rsrc_register, io_uring_rsrc_update2,
};

use crate::fixed::{FIXED_FILE, register_files, unregister_files};

pub(crate) const CHECKS: &[Check] = checks![
    open_direct,
    open_direct_errors,
    open_direct_in_a_free_place,
    open_direct_and_use_in_a_chain,
    open2_direct,
    open_needs_no_table_for_a_descriptor,
    pipe_direct,
    pipe_direct_errors,
    range_of_free_places,
    range_errors,
    tags_of_files,
    tags_of_files_in_use,
    tags_of_buffers,
    tags_errors,
    personality_by_number,
];

const ALLOCATE: u32 = u32::MAX;
const LINK: u8 = 4;

fn open_at(path: &CStr, flags: i32, place: u32) -> Sqe {
    Sqe {
        fd: libc::AT_FDCWD,
        addr: path.as_ptr().addr() as u64,
        len: 0o600,
        op_flags: flags as u32,
        file_index: place,
        ..Sqe::new(IORING_OP_OPENAT)
    }
}

fn read_place(index: i32, bytes: &mut [u8]) -> Sqe {
    Sqe::read(&index, bytes, 0).flags(FIXED_FILE)
}

fn close_place(index: u32) -> Sqe {
    Sqe {
        file_index: index + 1,
        ..Sqe::close(0)
    }
}

fn sparse(ring: &Ring, count: u32) -> SysResult {
    register_files(ring, &vec![-1; count as usize])
}

fn open_direct() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    create(c"g", b"xyz")?;
    sparse(&ring, 3)?;
    let mut bytes = [0; 3];
    gives!(ring, 0, open_at(c"f", O_RDONLY, 2));
    gives!(ring, 3, read_place(1, &mut bytes));
    expect_eq!(&bytes, b"abc");
    // What was there is replaced.
    gives!(ring, 0, open_at(c"g", O_RDONLY, 2));
    gives!(ring, 3, read_place(1, &mut bytes));
    expect_eq!(&bytes, b"xyz");
    gives!(ring, 0, close_place(1));
    refuses!(ring, EBADF, read_place(1, &mut bytes));
    gives!(ring, 0, open_at(c"new", O_RDWR | O_CREAT, 1));
    gives!(ring, 2, Sqe::write(&0, b"ab", 0).flags(FIXED_FILE));
    Ok(())
}

fn open_direct_errors() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    refuses!(ring, ENXIO, open_at(c"f", O_RDONLY, 1));
    refuses!(ring, ENFILE, open_at(c"f", O_RDONLY, ALLOCATE));
    sparse(&ring, 1)?;
    refuses!(ring, EINVAL, open_at(c"f", O_RDONLY, 2));
    refuses!(ring, EINVAL, open_at(c"f", O_RDONLY | O_CLOEXEC, 1));
    refuses!(ring, ENOENT, open_at(c"missing", O_RDONLY, 1));
    refuses!(ring, ENOENT, open_at(c"", O_RDONLY, 1));
    refuses!(ring, EBADF, open_at(c"f", O_RDONLY, 0).flags(FIXED_FILE));
    refuses!(
        ring,
        EINVAL,
        Sqe {
            buf_index: 1,
            ..open_at(c"f", O_RDONLY, 0)
        }
    );
    Ok(())
}

fn open_direct_in_a_free_place() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    sparse(&ring, 3)?;
    for place in 0..3 {
        gives!(ring, place, open_at(c"f", O_RDONLY, ALLOCATE));
    }
    refuses!(ring, ENFILE, open_at(c"f", O_RDONLY, ALLOCATE));
    gives!(ring, 0, close_place(1));
    gives!(ring, 1, open_at(c"f", O_RDONLY, ALLOCATE));
    refuses!(ring, ENFILE, open_at(c"f", O_RDONLY, ALLOCATE));
    Ok(())
}

fn open_direct_and_use_in_a_chain() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    sparse(&ring, 2)?;
    let mut bytes = [0; 3];
    let chain = [
        open_at(c"f", O_RDONLY, 1).flags(LINK),
        read_place(0, &mut bytes).flags(FIXED_FILE | LINK),
        close_place(0),
    ];
    expect_eq!(ring.results(&chain, 3)?, [Some(0), Some(3), Some(0)]);
    expect_eq!(&bytes, b"abc");
    let chain = [
        open_at(c"missing", O_RDONLY, 1).flags(LINK),
        read_place(0, &mut bytes),
    ];
    let results = ring.results(&chain, 2)?;
    expect_eq!(results, [Some(-libc::ENOENT), Some(-libc::ECANCELED)]);
    Ok(())
}

fn open2_direct() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    sparse(&ring, 2)?;
    let open = |how: &[u64], place| Sqe {
        off: how.as_ptr().addr() as u64,
        len: size_of_val(how) as u32,
        op_flags: 0,
        ..Sqe {
            opcode: IORING_OP_OPENAT2 as u8,
            ..open_at(c"f", 0, place)
        }
    };
    gives!(ring, 0, open(&[O_RDONLY as u64, 0, 0], 2));
    gives!(ring, 0, open(&[O_RDONLY as u64, 0, 0, 0], ALLOCATE));
    refuses!(ring, EINVAL, open(&[O_CLOEXEC as u64, 0, 0], 2));
    refuses!(ring, EINVAL, open(&[O_RDONLY as u64, 0], 2));
    refuses!(ring, E2BIG, open(&[O_RDONLY as u64, 0, 0, 1], 2));
    refuses!(ring, EINVAL, open(&[1 << 40, 0, 0], 2));
    refuses!(ring, EINVAL, open(&[O_RDONLY as u64, 0o7, 0], 2));
    refuses!(ring, EINVAL, open(&[O_RDONLY as u64, 0, 1 << 30], 2));
    Ok(())
}

fn open_needs_no_table_for_a_descriptor() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    let fd = ring.result(open_at(c"f", O_RDONLY, 0))??;
    let mut bytes = [0; 3];
    expect_eq!(sys!(SYS_read, fd, bytes.as_mut_ptr(), 3), Ok(3));
    gives!(ring, 0, Sqe::close(fd as i32));
    Ok(())
}

fn pipe(ends: &mut [u32; 2], place: u32) -> Sqe {
    Sqe {
        addr: ends.as_mut_ptr().addr() as u64,
        file_index: place,
        ..Sqe::new(IORING_OP_PIPE)
    }
}

fn pipe_direct() -> Outcome {
    let ring = Ring::new(4)?;
    sparse(&ring, 4)?;
    let mut ends = [9; 2];
    gives!(ring, 0, pipe(&mut ends, 2));
    gives!(ring, 3, Sqe::write(&2, b"abc", 0).flags(FIXED_FILE));
    let mut bytes = [0; 3];
    gives!(ring, 3, read_place(1, &mut bytes));
    expect_eq!(&bytes, b"abc");
    gives!(ring, 0, pipe(&mut ends, ALLOCATE));
    expect_eq!(ends, [3, 0]);
    Ok(())
}

fn pipe_direct_errors() -> Outcome {
    let ring = Ring::new(4)?;
    let mut ends = [9; 2];
    refuses!(ring, ENXIO, pipe(&mut ends, 1));
    sparse(&ring, 2)?;
    refuses!(ring, EINVAL, pipe(&mut ends, 3));
    refuses!(ring, EINVAL, pipe(&mut ends, 1).op_flags(O_CLOEXEC as u32));
    refuses!(ring, EINVAL, pipe(&mut ends, 0).op_flags(1));
    refuses!(ring, EINVAL, pipe(&mut ends, 0).fd(1));
    refuses!(
        ring,
        EINVAL,
        Sqe {
            off: 1,
            ..pipe(&mut ends, 0)
        }
    );
    refuses!(
        ring,
        EINVAL,
        Sqe {
            addr3: 1,
            ..pipe(&mut ends, 0)
        }
    );
    // There is room for one end only: nothing stays.
    create(c"f", b"abc")?;
    gives!(ring, 0, open_at(c"f", O_RDONLY, ALLOCATE));
    refuses!(ring, ENFILE, pipe(&mut ends, ALLOCATE));
    refuses!(
        ring,
        EFAULT,
        Sqe {
            addr: 8,
            ..pipe(&mut ends, 1)
        }
    );
    expect_eq!(ends, [9; 2]);
    Ok(())
}

fn set_range(ring: &Ring, off: u32, len: u32) -> SysResult {
    let range = io_uring_file_index_range { off, len, resv: 0 };
    let operation = IORING_REGISTER_FILE_ALLOC_RANGE as u32;
    register(&ring.fd, operation, &raw const range, 0)
}

fn range_of_free_places() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    sparse(&ring, 8)?;
    expect_eq!(set_range(&ring, 4, 2), Ok(0));
    gives!(ring, 4, open_at(c"f", O_RDONLY, ALLOCATE));
    gives!(ring, 5, open_at(c"f", O_RDONLY, ALLOCATE));
    refuses!(ring, ENFILE, open_at(c"f", O_RDONLY, ALLOCATE));
    gives!(ring, 0, open_at(c"f", O_RDONLY, 1));
    expect_eq!(set_range(&ring, 0, 0), Ok(0));
    refuses!(ring, ENFILE, open_at(c"f", O_RDONLY, ALLOCATE));
    Ok(())
}

fn range_errors() -> Outcome {
    let ring = Ring::new(4)?;
    expect_eq!(set_range(&ring, 0, 1), Err(Errno(libc::EINVAL)));
    sparse(&ring, 4)?;
    expect_eq!(set_range(&ring, 0, 5), Err(Errno(libc::EINVAL)));
    expect_eq!(set_range(&ring, 4, 0), Ok(0));
    expect_eq!(set_range(&ring, 5, 0), Err(Errno(libc::EINVAL)));
    expect_eq!(set_range(&ring, u32::MAX, 2), Err(Errno(libc::EOVERFLOW)));
    let operation = IORING_REGISTER_FILE_ALLOC_RANGE as u32;
    let range = [0_u32, 1, 0, 0];
    let with = |count| register(&ring.fd, operation, range.as_ptr(), count);
    expect_eq!(with(1), Err(Errno(libc::EINVAL)));
    let reserved = [0_u32, 1, 1, 0];
    expect_eq!(
        register(&ring.fd, operation, reserved.as_ptr(), 0),
        Err(Errno(libc::EINVAL))
    );
    Ok(())
}

/// `IORING_REGISTER_FILES2` or `BUFFERS2`.
pub(crate) fn register_tagged<T>(
    ring: &Ring,
    operation: u32,
    data: &[T],
    tags: &[u64],
) -> SysResult {
    let argument = io_uring_rsrc_register {
        nr: data.len() as u32,
        flags: 0,
        resv2: 0,
        data: data.as_ptr().addr() as u64,
        tags: tags.as_ptr().addr() as u64,
    };
    let size = size_of::<io_uring_rsrc_register>() as u32;
    register(&ring.fd, operation, &raw const argument, size)
}

/// `IORING_REGISTER_FILES_UPDATE2` or `BUFFERS_UPDATE`.
pub(crate) fn update_tagged<T>(
    ring: &Ring,
    operation: u32,
    offset: u32,
    data: &[T],
    tags: &[u64],
) -> SysResult {
    let argument = io_uring_rsrc_update2 {
        offset,
        resv: 0,
        data: data.as_ptr().addr() as u64,
        tags: tags.as_ptr().addr() as u64,
        nr: data.len() as u32,
        resv2: 0,
    };
    let size = size_of::<io_uring_rsrc_update2>() as u32;
    register(&ring.fd, operation, &raw const argument, size)
}

fn tag(user_data: u64) -> Cqe {
    Cqe {
        user_data,
        res: 0,
        flags: 0,
    }
}

const FILES2: u32 = IORING_REGISTER_FILES2 as u32;
const FILES_UPDATE2: u32 = IORING_REGISTER_FILES_UPDATE2 as u32;
const BUFFERS2: u32 = IORING_REGISTER_BUFFERS2 as u32;
const BUFFERS_UPDATE: u32 = IORING_REGISTER_BUFFERS_UPDATE as u32;

fn tags_of_files() -> Outcome {
    let ring = Ring::new(8)?;
    let file = create(c"f", b"abc")?;
    let kept = file.as_raw_fd();
    expect_eq!(
        register_tagged(&ring, FILES2, &[kept, kept, -1, kept], &[11, 12, 0, 0]),
        Ok(0)
    );
    ring.nothing_left()?;
    expect_eq!(
        update_tagged(&ring, FILES_UPDATE2, 0, &[-1, kept], &[0, 22]),
        Ok(2)
    );
    expect_eq!(ring.take(2)?, [tag(11), tag(12)]);
    expect_eq!(
        update_tagged(&ring, FILES_UPDATE2, 2, &[kept, -2], &[33, 0]),
        Ok(2)
    );
    gives!(ring, 0, close_place(3));
    expect_eq!(unregister_files(&ring), Ok(0));
    expect_eq!(ring.take(2)?, [tag(33), tag(22)]);
    ring.nothing_left()?;
    Ok(())
}

fn tags_of_files_in_use() -> Outcome {
    let ring = Ring::new(8)?;
    let mut ends = [0_i32; 2];
    sys!(SYS_pipe2, ends.as_mut_ptr(), 0)?;
    expect_eq!(register_tagged(&ring, FILES2, &[ends[0]], &[11]), Ok(0));
    let mut bytes = [0; 3];
    ring.push(read_place(0, &mut bytes).data(1));
    ring.submit()?;
    expect_eq!(update_tagged(&ring, FILES_UPDATE2, 0, &[-1], &[0]), Ok(1));
    // The request still has the file.
    let _ = ring.wait_at_most(1, &milliseconds(20));
    ring.nothing_left()?;
    expect_eq!(sys!(SYS_write, ends[1], b"abc".as_ptr(), 3), Ok(3));
    let mut all = ring.take(2)?;
    all.sort_by_key(|cqe| cqe.user_data);
    expect_eq!(all[1], tag(11));
    expect_eq!((all[0].user_data, all[0].res), (1, 3));
    ring.nothing_left()?;
    Ok(())
}

fn tags_of_buffers() -> Outcome {
    let ring = Ring::new(8)?;
    let mut bytes = [0; 64];
    let buffer = guest_programs::ring::vector(&mut bytes);
    let none = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    expect_eq!(
        register_tagged(&ring, BUFFERS2, &[buffer, buffer, none], &[11, 12, 0]),
        Ok(0)
    );
    let update = |offset, data: &[libc::iovec], tags: &[u64]| {
        update_tagged(&ring, BUFFERS_UPDATE, offset, data, tags)
    };
    expect_eq!(update(1, &[none, buffer], &[0, 23]), Ok(2));
    expect_eq!(ring.take(1)?, [tag(12)]);
    let fd = create(c"f", b"abc")?;
    gives!(ring, 3, Sqe::read_fixed(&fd, &mut bytes[..3], 0, 2));
    refuses!(ring, EFAULT, Sqe::read_fixed(&fd, &mut bytes[..3], 0, 1));
    expect_eq!(update(2, &[none, none], &[0, 0]), Err(Errno(libc::EINVAL)));
    expect_eq!(crate::fixed::unregister_buffers(&ring), Ok(0));
    expect_eq!(ring.take(2)?, [tag(23), tag(11)]);
    expect_eq!(update(0, &[none], &[0]), Err(Errno(libc::ENXIO)));
    ring.nothing_left()?;
    Ok(())
}

fn tags_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let fd = create(c"f", b"abc")?;
    let fd = fd.as_raw_fd();
    let einval = Err(Errno(libc::EINVAL));
    // An empty place has no tag.
    expect_eq!(register_tagged(&ring, FILES2, &[-1], &[1]), einval);
    expect_eq!(
        update_tagged(&ring, FILES_UPDATE2, 0, &[fd], &[1]),
        Err(Errno(libc::ENXIO))
    );
    // Where one file is bad, no tag is posted for those before it.
    expect_eq!(
        register_tagged(&ring, FILES2, &[fd, 999], &[1, 2]),
        Err(Errno(libc::EBADF))
    );
    ring.nothing_left()?;
    expect_eq!(register_tagged(&ring, FILES2, &[fd, fd], &[1, 2]), Ok(0));
    let update = |offset, data: &[i32], tags: &[u64]| {
        update_tagged(&ring, FILES_UPDATE2, offset, data, tags)
    };
    expect_eq!(update(0, &[-2], &[5]), einval);
    expect_eq!(update(0, &[-1], &[5]), einval);
    expect_eq!(update(2, &[fd], &[5]), einval);
    expect_eq!(update(u32::MAX, &[fd], &[5]), Err(Errno(libc::EOVERFLOW)));
    expect_eq!(update(0, &[], &[]), einval);
    // The place is empty although no file has come to be there.
    expect_eq!(update(0, &[999], &[5]), Err(Errno(libc::EBADF)));
    expect_eq!(ring.take(1)?, [tag(1)]);
    let mut bytes = [0; 3];
    refuses!(ring, EBADF, read_place(0, &mut bytes));
    gives!(ring, 3, read_place(1, &mut bytes));
    let bad = [0_u64; 4];
    for operation in [FILES2, FILES_UPDATE2, BUFFERS2, BUFFERS_UPDATE] {
        for size in [0, 16, 31, 33, 40] {
            let result = register(&ring.fd, operation, bad.as_ptr(), size);
            expect_eq!(result, einval);
        }
        let result = register(&ring.fd, operation, bad.as_ptr(), 32);
        expect_eq!(result, einval);
    }
    Ok(())
}

fn personality_by_number() -> Outcome {
    let ring = Ring::new(4)?;
    let add = || {
        let operation = IORING_REGISTER_PERSONALITY as u32;
        register(&ring.fd, operation, std::ptr::null::<u8>(), 0)
    };
    let remove = |number: usize| {
        let operation = IORING_UNREGISTER_PERSONALITY as u32;
        register(&ring.fd, operation, std::ptr::null::<u8>(), number as u32)
    };
    let with = |personality: u16| Sqe {
        personality,
        ..Sqe::nop()
    };
    let einval = Err(Errno(libc::EINVAL));
    expect_eq!(remove(1), einval);
    refuses!(ring, EINVAL, with(1));
    expect_eq!(add(), Ok(1));
    expect_eq!(add(), Ok(2));
    gives!(ring, 0, with(1));
    gives!(ring, 0, with(2));
    refuses!(ring, EINVAL, with(3));
    expect_eq!(remove(1), Ok(0));
    refuses!(ring, EINVAL, with(1));
    // Numbers are not used again at once.
    expect_eq!(add(), Ok(3));
    expect_eq!(remove(1), einval);
    expect_eq!(remove(0), einval);
    expect_eq!(remove(70_000), einval);
    create(c"f", b"abc")?;
    let fd = ring.result(Sqe {
        personality: 3,
        ..open_at(c"f", O_RDONLY, 0)
    })??;
    gives!(ring, 0, Sqe::close(fd as i32));
    let operation = IORING_REGISTER_PERSONALITY as u32;
    let number = 1_u32;
    expect_eq!(register(&ring.fd, operation, &raw const number, 0), einval);
    expect_eq!(
        register(&ring.fd, operation, std::ptr::null::<u8>(), 1),
        einval
    );
    Ok(())
}
