//! Reading, writing, seeking and truncating files.

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Errno, contents, create, open};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    O_APPEND, O_RDONLY, O_RDWR, RWF_APPEND, SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET,
    iovec,
};
use std::os::fd::OwnedFd;

pub(crate) const CHECKS: &[Check] = checks![
    read_moves_the_position,
    read_at_the_end,
    read_counts,
    write_extends,
    write_leaves_a_hole,
    pread_keeps_the_position,
    pread_negative_offset,
    pread_beyond_the_end,
    pwrite_keeps_the_position,
    readv_fills_in_order,
    readv_short,
    writev_joins,
    vectors_have_limits,
    preadv_and_pwritev,
    preadv2_position,
    pwritev2_appends_or_not,
    large_transfer,
    lseek_whences,
    lseek_errors,
    lseek_data_and_hole,
    ftruncate_shrinks_and_grows,
    ftruncate_errors,
    truncate_by_path,
    fallocate_allocates,
    fallocate_punches_holes,
    sync_calls,
    copy_file_range_copies,
    sendfile_copies,
];

fn vector(bytes: &mut [u8]) -> iovec {
    iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

fn read_moves_the_position() -> Outcome {
    let fd = create(c"f", b"abcdef")?;
    let mut bytes = [0_u8; 4];
    expect_eq!(sys!(SYS_read, &fd, bytes.as_mut_ptr(), 4), Ok(4));
    expect_eq!(&bytes, b"abcd");
    expect_eq!(sys!(SYS_read, &fd, bytes.as_mut_ptr(), 4), Ok(2));
    expect_eq!(&bytes, b"efcd");
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(6));
    Ok(())
}

fn read_at_the_end() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let mut bytes = [7_u8; 4];
    sys!(SYS_lseek, &fd, 3, SEEK_SET)?;
    expect_eq!(sys!(SYS_read, &fd, bytes.as_mut_ptr(), 4), Ok(0));
    sys!(SYS_lseek, &fd, 1_u64 << 40, SEEK_SET)?;
    expect_eq!(sys!(SYS_read, &fd, bytes.as_mut_ptr(), 4), Ok(0));
    expect_eq!(bytes, [7; 4]);
    Ok(())
}

fn read_counts() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let mut bytes = vec![0_u8; 4];
    // A count of 0 looks at no memory; one that leaves the address space is a bad pointer.
    expect_eq!(sys!(SYS_read, &fd, 8, 0), Ok(0));
    fails!(EFAULT, SYS_read, &fd, bytes.as_mut_ptr(), -1_i64);
    fails!(EFAULT, SYS_write, &fd, bytes.as_ptr(), -1_i64);
    // What is there is read; a count may be larger than the memory behind the pointer.
    expect_eq!(sys!(SYS_read, &fd, bytes.as_mut_ptr(), 1_u64 << 30), Ok(3));
    Ok(())
}

fn write_extends() -> Outcome {
    let fd = create(c"f", b"abc")?;
    sys!(SYS_lseek, &fd, 2, SEEK_SET)?;
    expect_eq!(sys!(SYS_write, &fd, b"xyz".as_ptr(), 3), Ok(3));
    expect_eq!(contents(&fd)?, b"abxyz");
    expect_eq!(sys!(SYS_write, &fd, 8, 0), Ok(0));
    Ok(())
}

fn write_leaves_a_hole() -> Outcome {
    let fd = create(c"f", b"a")?;
    expect_eq!(sys!(SYS_pwrite64, &fd, b"z".as_ptr(), 1, 9000), Ok(1));
    let bytes = contents(&fd)?;
    expect_eq!(bytes.len(), 9001);
    expect_eq!((bytes[0], bytes[9000]), (b'a', b'z'));
    expect!(bytes[1..9000].iter().all(|byte| *byte == 0));
    Ok(())
}

fn pread_keeps_the_position() -> Outcome {
    let fd = create(c"f", b"abcdef")?;
    let mut bytes = [0_u8; 3];
    expect_eq!(sys!(SYS_pread64, &fd, bytes.as_mut_ptr(), 3, 2), Ok(3));
    expect_eq!(&bytes, b"cde");
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(0));
    Ok(())
}

fn pread_negative_offset() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let mut byte = 0_u8;
    fails!(EINVAL, SYS_pread64, &fd, &raw mut byte, 1, -1_i64);
    fails!(EINVAL, SYS_pwrite64, &fd, &raw const byte, 1, -1_i64);
    Ok(())
}

fn pread_beyond_the_end() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let mut byte = 0_u8;
    expect_eq!(sys!(SYS_pread64, &fd, &raw mut byte, 1, 3), Ok(0));
    expect_eq!(
        sys!(SYS_pread64, &fd, &raw mut byte, 1, i64::MAX - 1),
        Ok(0)
    );
    Ok(())
}

fn pwrite_keeps_the_position() -> Outcome {
    let fd = create(c"f", b"abc")?;
    expect_eq!(sys!(SYS_pwrite64, &fd, b"x".as_ptr(), 1, 1), Ok(1));
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(0));
    expect_eq!(contents(&fd)?, b"axc");
    Ok(())
}

fn readv_fills_in_order() -> Outcome {
    let fd = create(c"f", b"abcdef")?;
    let (mut first, mut second) = ([0_u8; 2], [0_u8; 4]);
    let vectors = [vector(&mut first), vector(&mut []), vector(&mut second)];
    expect_eq!(sys!(SYS_readv, &fd, vectors.as_ptr(), 3), Ok(6));
    expect_eq!((&first, &second), (b"ab", b"cdef"));
    Ok(())
}

fn readv_short() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let (mut first, mut second) = ([0_u8; 2], [0_u8; 4]);
    let vectors = [vector(&mut first), vector(&mut second)];
    expect_eq!(sys!(SYS_readv, &fd, vectors.as_ptr(), 2), Ok(3));
    expect_eq!((&first, &second), (b"ab", b"c\0\0\0"));
    expect_eq!(sys!(SYS_readv, &fd, vectors.as_ptr(), 2), Ok(0));
    Ok(())
}

fn writev_joins() -> Outcome {
    let fd = create(c"f", b"")?;
    let (mut first, mut second) = (*b"ab", *b"cde");
    let vectors = [vector(&mut first), vector(&mut second)];
    expect_eq!(sys!(SYS_writev, &fd, vectors.as_ptr(), 2), Ok(5));
    expect_eq!(contents(&fd)?, b"abcde");
    Ok(())
}

fn vectors_have_limits() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let mut byte = [0_u8; 1];
    let vectors = vec![vector(&mut byte); 1025];
    expect_eq!(sys!(SYS_readv, &fd, vectors.as_ptr(), 0), Ok(0));
    fails!(EINVAL, SYS_readv, &fd, vectors.as_ptr(), 1025);
    fails!(EINVAL, SYS_readv, &fd, vectors.as_ptr(), -1);
    expect_eq!(sys!(SYS_readv, &fd, vectors.as_ptr(), 1024), Ok(3));
    let negative = iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: usize::MAX,
    };
    fails!(EINVAL, SYS_readv, &fd, &raw const negative, 1);
    fails!(EINVAL, SYS_writev, &fd, &raw const negative, 1);
    Ok(())
}

fn preadv_and_pwritev() -> Outcome {
    let fd = create(c"f", b"abcdef")?;
    let (mut first, mut second) = (*b"XY", *b"Z");
    let vectors = [vector(&mut first), vector(&mut second)];
    expect_eq!(sys!(SYS_pwritev, &fd, vectors.as_ptr(), 2, 1, 0), Ok(3));
    expect_eq!(contents(&fd)?, b"aXYZef");
    expect_eq!(sys!(SYS_preadv, &fd, vectors.as_ptr(), 2, 3, 0), Ok(3));
    expect_eq!((&first, &second), (b"Ze", b"f"));
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(0));
    fails!(EINVAL, SYS_preadv, &fd, vectors.as_ptr(), 2, -1_i64, 0);
    Ok(())
}

fn preadv2_position() -> Outcome {
    let fd = create(c"f", b"abcdef")?;
    let mut bytes = [0_u8; 2];
    let vectors = [vector(&mut bytes)];
    // An offset of -1 is the file's position.
    expect_eq!(
        sys!(SYS_preadv2, &fd, vectors.as_ptr(), 1, -1_i64, 0, 0),
        Ok(2)
    );
    expect_eq!(
        sys!(SYS_preadv2, &fd, vectors.as_ptr(), 1, -1_i64, 0, 0),
        Ok(2)
    );
    expect_eq!(&bytes, b"cd");
    fails!(
        EOPNOTSUPP,
        SYS_preadv2,
        &fd,
        vectors.as_ptr(),
        1,
        0,
        0,
        1 << 30
    );
    Ok(())
}

fn pwritev2_appends_or_not() -> Outcome {
    const NO_APPEND: i32 = 0x20;
    let fd = create(c"f", b"abc")?;
    let appending = open(c"f", O_RDWR | O_APPEND)?;
    let mut bytes = *b"x";
    let vectors = [vector(&mut bytes)];
    let write = |fd: &OwnedFd, flags: i32| sys!(SYS_pwritev2, fd, vectors.as_ptr(), 1, 0, 0, flags);
    expect_eq!(write(&fd, RWF_APPEND), Ok(1));
    expect_eq!(contents(&fd)?, b"abcx");
    expect_eq!(write(&appending, 0), Ok(1));
    expect_eq!(contents(&fd)?, b"abcxx");
    expect_eq!(write(&appending, NO_APPEND), Ok(1));
    expect_eq!(contents(&fd)?, b"xbcxx");
    expect_eq!(write(&fd, NO_APPEND | RWF_APPEND), Err(Errno(libc::EINVAL)));
    expect_eq!(write(&fd, 1 << 20), Err(Errno(libc::EOPNOTSUPP)));
    Ok(())
}

fn large_transfer() -> Outcome {
    let fd = create(c"f", b"")?;
    let written: Vec<u8> = (0..1_000_003_u32)
        .map(|index| (index % 251) as u8)
        .collect();
    expect_eq!(
        sys!(SYS_write, &fd, written.as_ptr(), written.len()),
        Ok(written.len())
    );
    let mut read = vec![0_u8; written.len()];
    expect_eq!(
        sys!(SYS_pread64, &fd, read.as_mut_ptr(), read.len(), 0),
        Ok(read.len())
    );
    expect!(read == written);
    Ok(())
}

fn lseek_whences() -> Outcome {
    let fd = create(c"f", b"abcdef")?;
    expect_eq!(sys!(SYS_lseek, &fd, 2, SEEK_SET), Ok(2));
    expect_eq!(sys!(SYS_lseek, &fd, 3, SEEK_CUR), Ok(5));
    expect_eq!(sys!(SYS_lseek, &fd, -1, SEEK_CUR), Ok(4));
    expect_eq!(sys!(SYS_lseek, &fd, -6, SEEK_END), Ok(0));
    expect_eq!(sys!(SYS_lseek, &fd, 10, SEEK_END), Ok(16));
    Ok(())
}

fn lseek_errors() -> Outcome {
    let fd = create(c"f", b"abc")?;
    fails!(EINVAL, SYS_lseek, &fd, -1, SEEK_SET);
    fails!(EINVAL, SYS_lseek, &fd, -4, SEEK_END);
    fails!(EINVAL, SYS_lseek, &fd, 0, 99);
    fails!(EBADF, SYS_lseek, 999, 0, SEEK_SET);
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(0));
    Ok(())
}

fn lseek_data_and_hole() -> Outcome {
    let fd = create(c"f", b"")?;
    sys!(SYS_pwrite64, &fd, b"x".as_ptr(), 1, 64 << 10)?;
    sys!(SYS_ftruncate, &fd, 128 << 10)?;
    // Where a hole begins and ends is up to the file system, in units of its blocks.
    let data = sys!(SYS_lseek, &fd, 0, SEEK_DATA)?;
    expect!(data == 64 << 10);
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_HOLE), Ok(0));
    let hole = sys!(SYS_lseek, &fd, 64 << 10, SEEK_HOLE)?;
    expect!(hole > 64 << 10 && hole <= 128 << 10);
    fails!(ENXIO, SYS_lseek, &fd, 128 << 10, SEEK_DATA);
    fails!(ENXIO, SYS_lseek, &fd, 128 << 10, SEEK_HOLE);
    fails!(ENXIO, SYS_lseek, &fd, 100 << 10, SEEK_DATA);
    Ok(())
}

fn ftruncate_shrinks_and_grows() -> Outcome {
    let fd = create(c"f", b"abcdef")?;
    expect_eq!(sys!(SYS_ftruncate, &fd, 2), Ok(0));
    expect_eq!(contents(&fd)?, b"ab");
    expect_eq!(sys!(SYS_ftruncate, &fd, 5), Ok(0));
    expect_eq!(contents(&fd)?, b"ab\0\0\0");
    Ok(())
}

fn ftruncate_errors() -> Outcome {
    let fd = create(c"f", b"abc")?;
    fails!(EINVAL, SYS_ftruncate, &fd, -1_i64);
    fails!(EINVAL, SYS_ftruncate, &open(c".", O_RDONLY)?, 0);
    fails!(EBADF, SYS_ftruncate, 999, 0);
    Ok(())
}

fn truncate_by_path() -> Outcome {
    let fd = create(c"f", b"abc")?;
    expect_eq!(sys!(SYS_truncate, c"f", 1), Ok(0));
    expect_eq!(contents(&fd)?, b"a");
    fails!(EISDIR, SYS_truncate, c".", 0);
    fails!(ENOENT, SYS_truncate, c"none", 0);
    fails!(EINVAL, SYS_truncate, c"f", -1_i64);
    Ok(())
}

fn fallocate_allocates() -> Outcome {
    let fd = create(c"f", b"abc")?;
    expect_eq!(sys!(SYS_fallocate, &fd, 0, 0, 8192), Ok(0));
    expect_eq!(contents(&fd)?.len(), 8192);
    expect_eq!(
        sys!(SYS_fallocate, &fd, libc::FALLOC_FL_KEEP_SIZE, 0, 16384),
        Ok(0)
    );
    expect_eq!(contents(&fd)?.len(), 8192);
    fails!(EINVAL, SYS_fallocate, &fd, 0, 0, 0);
    fails!(EINVAL, SYS_fallocate, &fd, 0, -1_i64, 1);
    fails!(EBADF, SYS_fallocate, &open(c"f", O_RDONLY)?, 0, 0, 1);
    Ok(())
}

fn fallocate_punches_holes() -> Outcome {
    let fd = create(c"f", &[7; 3 * 4096])?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    expect_eq!(sys!(SYS_fallocate, &fd, mode, 4096, 4096), Ok(0));
    let bytes = contents(&fd)?;
    expect_eq!(bytes.len(), 3 * 4096);
    expect!(bytes[..4096].iter().all(|byte| *byte == 7));
    expect!(bytes[4096..8192].iter().all(|byte| *byte == 0));
    expect!(bytes[8192..].iter().all(|byte| *byte == 7));
    fails!(
        EOPNOTSUPP,
        SYS_fallocate,
        &fd,
        libc::FALLOC_FL_PUNCH_HOLE,
        0,
        4096
    );
    Ok(())
}

fn sync_calls() -> Outcome {
    let fd = create(c"f", b"abc")?;
    expect_eq!(sys!(SYS_fsync, &fd), Ok(0));
    expect_eq!(sys!(SYS_fdatasync, &fd), Ok(0));
    expect_eq!(sys!(SYS_sync), Ok(0));
    expect_eq!(sys!(SYS_syncfs, &fd), Ok(0));
    fails!(EBADF, SYS_fsync, 999);
    fails!(EBADF, SYS_fdatasync, 999);
    Ok(())
}

fn copy_file_range_copies() -> Outcome {
    let from = create(c"from", b"abcdef")?;
    let to = create(c"to", b"")?;
    let mut offset = 2_i64;
    expect_eq!(
        sys!(SYS_copy_file_range, &from, &raw mut offset, &to, 0, 100, 0),
        Ok(4)
    );
    expect_eq!(offset, 6);
    expect_eq!(contents(&to)?, b"cdef");
    expect_eq!(
        sys!(SYS_copy_file_range, &from, &raw mut offset, &to, 0, 100, 0),
        Ok(0)
    );
    fails!(EINVAL, SYS_copy_file_range, &from, 0, &to, 0, 1, 1);
    Ok(())
}

fn sendfile_copies() -> Outcome {
    let from = create(c"from", b"abcdef")?;
    let to = create(c"to", b"")?;
    expect_eq!(sys!(SYS_sendfile, &to, &from, 0, 4), Ok(4));
    expect_eq!(sys!(SYS_lseek, &from, 0, SEEK_CUR), Ok(4));
    let mut offset = 5_i64;
    expect_eq!(sys!(SYS_sendfile, &to, &from, &raw mut offset, 10), Ok(1));
    expect_eq!((offset, contents(&to)?), (6, b"abcdf".to_vec()));
    Ok(())
}
