//! READ, WRITE, READV and WRITEV on files and character devices.

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Mapping, contents, create, open};
use guest_programs::{checks, expect, expect_eq, sys};
use libc::{O_APPEND, O_RDONLY, O_RDWR, O_WRONLY, SEEK_CUR, SEEK_SET};

use guest_programs::ring::{Ring, Sqe, gives, refuses, vector};

pub(crate) const CHECKS: &[Check] = checks![
    read_at_offset,
    read_at_position,
    read_at_the_end,
    read_short,
    read_nothing,
    write_at_offset,
    write_at_position,
    write_appends,
    write_extends,
    rw_bad_descriptors,
    rw_access_mode,
    rw_directory,
    rw_bad_addresses,
    rw_partial_addresses,
    rw_negative_offset,
    rw_unknown_flags,
    rw_flags,
    rw_bad_priority,
    rw_lengths,
    readv_fills_in_order,
    writev_joins,
    vectors_at_position,
    vectors_bad_addresses,
    vectors_limits,
    vectors_are_copied,
    rw_null_and_zero,
    rw_untouched_memory,
    rw_large,
    rw_path_descriptor,
];

/// The offset that means the file's own position.
const POSITION: u64 = u64::MAX;

fn read_at_offset() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abcdef")?;
    let mut bytes = [0; 3];
    gives!(ring, 3, Sqe::read(&fd, &mut bytes, 2));
    expect_eq!(&bytes, b"cde");
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(0));
    Ok(())
}

fn read_at_position() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abcdef")?;
    let mut bytes = [0; 2];
    sys!(SYS_lseek, &fd, 1, SEEK_SET)?;
    gives!(ring, 2, Sqe::read(&fd, &mut bytes, POSITION));
    expect_eq!(&bytes, b"bc");
    gives!(ring, 2, Sqe::read(&fd, &mut bytes, POSITION));
    expect_eq!(&bytes, b"de");
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(5));
    Ok(())
}

fn read_at_the_end() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let mut bytes = [7; 4];
    gives!(ring, 0, Sqe::read(&fd, &mut bytes, 3));
    gives!(ring, 0, Sqe::read(&fd, &mut bytes, 1 << 40));
    expect_eq!(bytes, [7; 4]);
    Ok(())
}

fn read_short() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let mut bytes = [7; 8];
    gives!(ring, 2, Sqe::read(&fd, &mut bytes, 1));
    expect_eq!(&bytes, b"bc\x07\x07\x07\x07\x07\x07");
    Ok(())
}

fn read_nothing() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    gives!(ring, 0, Sqe::read(&fd, &mut [], 0));
    gives!(ring, 0, Sqe::write(&fd, &[], 0));
    gives!(ring, 0, Sqe::readv(&fd, &[], 0));
    Ok(())
}

fn write_at_offset() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abcdef")?;
    gives!(ring, 2, Sqe::write(&fd, b"XY", 2));
    expect_eq!(contents(&fd)?, b"abXYef");
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(0));
    Ok(())
}

fn write_at_position() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abcdef")?;
    sys!(SYS_lseek, &fd, 4, SEEK_SET)?;
    gives!(ring, 3, Sqe::write(&fd, b"XYZ", POSITION));
    gives!(ring, 1, Sqe::write(&fd, b"!", POSITION));
    expect_eq!(contents(&fd)?, b"abcdXYZ!");
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(8));
    Ok(())
}

fn write_appends() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    let fd = open(c"f", O_RDWR | O_APPEND)?;
    gives!(ring, 1, Sqe::write(&fd, b"d", 0));
    gives!(ring, 1, Sqe::write(&fd, b"e", POSITION));
    expect_eq!(contents(&fd)?, b"abcde");
    Ok(())
}

fn write_extends() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"")?;
    gives!(ring, 1, Sqe::write(&fd, b"z", 5000));
    let bytes = contents(&fd)?;
    expect!(bytes.len() == 5001 && bytes[..5000].iter().all(|byte| *byte == 0));
    Ok(())
}

fn rw_bad_descriptors() -> Outcome {
    let ring = Ring::new(4)?;
    let mut bytes = [0; 4];
    for fd in [999, -1, i32::MAX] {
        refuses!(ring, EBADF, Sqe::read(&fd, &mut bytes, 0));
        refuses!(ring, EBADF, Sqe::write(&fd, &bytes, 0));
        refuses!(ring, EBADF, Sqe::readv(&fd, &[vector(&mut bytes)], 0));
    }
    Ok(())
}

fn rw_access_mode() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    let mut bytes = [0; 4];
    let writer = open(c"f", O_WRONLY)?;
    refuses!(ring, EBADF, Sqe::read(&writer, &mut bytes, 0));
    let reader = open(c"f", O_RDONLY)?;
    refuses!(ring, EBADF, Sqe::write(&reader, &bytes, 0));
    refuses!(ring, EBADF, Sqe::writev(&reader, &[vector(&mut bytes)], 0));
    Ok(())
}

fn rw_directory() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = open(c".", O_RDONLY)?;
    let mut bytes = [0; 4];
    refuses!(ring, EISDIR, Sqe::read(&fd, &mut bytes, 0));
    refuses!(ring, EBADF, Sqe::write(&fd, &bytes, 0));
    Ok(())
}

fn rw_bad_addresses() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let locked = Mapping::new(4096, libc::PROT_NONE)?;
    for addr in [
        8,
        Mapping::nowhere()?.addr() as u64,
        locked.start.addr() as u64,
        0xffff_8880_0000_1000,
        1 << 63,
    ] {
        let at = |sqe| Sqe {
            addr,
            len: 2,
            ..sqe
        };
        refuses!(ring, EFAULT, at(Sqe::read(&fd, &mut [], 0)));
        refuses!(ring, EFAULT, at(Sqe::write(&fd, &[], 0)));
    }
    let constant = Mapping::new(4096, libc::PROT_READ)?;
    let addr = constant.start.addr() as u64;
    let read = Sqe::read(&fd, &mut [], 0);
    refuses!(
        ring,
        EFAULT,
        Sqe {
            addr,
            len: 2,
            ..read
        }
    );
    expect_eq!(contents(&fd)?, b"abc");
    Ok(())
}

fn rw_partial_addresses() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abcdef")?;
    let map = Mapping::new(8192, libc::PROT_READ | libc::PROT_WRITE)?;
    sys!(SYS_mprotect, map.at(4096), 4096, libc::PROT_NONE)?;
    let addr = map.at(4094).addr() as u64;
    let at = |sqe| Sqe {
        addr,
        len: 4,
        ..sqe
    };
    // What lies before the bad page is transferred.
    gives!(ring, 2, at(Sqe::read(&fd, &mut [], 0)));
    gives!(ring, 2, at(Sqe::write(&fd, &[], 4)));
    expect_eq!(contents(&fd)?, b"abcdab");
    Ok(())
}

fn rw_negative_offset() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let mut bytes = [0; 4];
    refuses!(ring, EINVAL, Sqe::read(&fd, &mut bytes, -2_i64 as u64));
    refuses!(ring, EINVAL, Sqe::write(&fd, &bytes, 1 << 63));
    Ok(())
}

fn rw_unknown_flags() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let mut bytes = [0; 4];
    let flag = 1 << 30;
    refuses!(
        ring,
        EOPNOTSUPP,
        Sqe::read(&fd, &mut bytes, 0).op_flags(flag)
    );
    refuses!(ring, EOPNOTSUPP, Sqe::write(&fd, &bytes, 0).op_flags(flag));
    Ok(())
}

fn rw_flags() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let append = libc::RWF_APPEND as u32;
    gives!(ring, 1, Sqe::write(&fd, b"d", 0).op_flags(append));
    let durable = (libc::RWF_DSYNC | libc::RWF_SYNC) as u32;
    gives!(ring, 1, Sqe::write(&fd, b"A", 0).op_flags(durable));
    expect_eq!(contents(&fd)?, b"Abcd");
    Ok(())
}

fn rw_bad_priority() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let mut bytes = [0; 4];
    // Class 7 does not exist (ioprio_set(2)).
    let read = Sqe {
        ioprio: 7 << 13,
        ..Sqe::read(&fd, &mut bytes, 0)
    };
    refuses!(ring, EINVAL, read);
    // Best effort, level 4.
    let read = Sqe {
        ioprio: 2 << 13 | 4,
        ..Sqe::read(&fd, &mut bytes, 0)
    };
    gives!(ring, 3, read);
    Ok(())
}

fn rw_lengths() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let mut bytes = vec![0; 4];
    // More than there is; the file's end stops it, not the memory's.
    let read = Sqe {
        len: 1 << 20,
        ..Sqe::read(&fd, &mut bytes, 0)
    };
    gives!(ring, 3, read);
    Ok(())
}

fn readv_fills_in_order() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abcdef")?;
    let (mut first, mut second) = ([0; 2], [0; 3]);
    let vectors = [vector(&mut first), vector(&mut []), vector(&mut second)];
    gives!(ring, 5, Sqe::readv(&fd, &vectors, 0));
    expect_eq!((&first, &second), (b"ab", b"cde"));
    gives!(ring, 2, Sqe::readv(&fd, &vectors, 4));
    expect_eq!((&first, &second), (b"ef", b"cde"));
    gives!(ring, 0, Sqe::readv(&fd, &vectors, 6));
    Ok(())
}

fn writev_joins() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"")?;
    let (mut first, mut second) = (*b"ab", *b"cde");
    let vectors = [vector(&mut first), vector(&mut second)];
    gives!(ring, 5, Sqe::writev(&fd, &vectors, 1));
    expect_eq!(contents(&fd)?, b"\0abcde");
    Ok(())
}

fn vectors_at_position() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abcdef")?;
    let mut bytes = [0; 4];
    let vectors = [vector(&mut bytes)];
    gives!(ring, 4, Sqe::readv(&fd, &vectors, POSITION));
    gives!(ring, 2, Sqe::readv(&fd, &vectors, POSITION));
    gives!(ring, 4, Sqe::writev(&fd, &vectors, POSITION));
    expect_eq!(contents(&fd)?, b"abcdefefcd");
    Ok(())
}

fn vectors_bad_addresses() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let addr = Mapping::nowhere()?.addr() as u64;
    let vectors = Sqe {
        addr,
        len: 1,
        ..Sqe::readv(&fd, &[], 0)
    };
    refuses!(ring, EFAULT, vectors);
    let inside = libc::iovec {
        iov_base: addr as *mut _,
        iov_len: 2,
    };
    refuses!(ring, EFAULT, Sqe::readv(&fd, &[inside], 0));
    refuses!(ring, EFAULT, Sqe::writev(&fd, &[inside], 0));
    Ok(())
}

fn vectors_limits() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let mut byte = [0; 1];
    let vectors = vec![vector(&mut byte); 1025];
    gives!(ring, 3, Sqe::readv(&fd, &vectors[..1024], 0));
    refuses!(ring, EINVAL, Sqe::readv(&fd, &vectors, 0));
    let endless = libc::iovec {
        iov_len: usize::MAX,
        ..vectors[0]
    };
    refuses!(ring, EINVAL, Sqe::readv(&fd, &[endless], 0));
    Ok(())
}

fn vectors_are_copied() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let mut bytes = [0; 3];
    let mut vectors = [vector(&mut bytes)];
    // SUBMIT_STABLE: what an entry points at may change once it is submitted.
    ring.push(Sqe::readv(&fd, &vectors, 0));
    ring.submit()?;
    vectors[0].iov_base = std::ptr::null_mut();
    expect_eq!(ring.next()?.res, 3);
    expect_eq!((&bytes, vectors[0].iov_len), (b"abc", 3));
    Ok(())
}

fn rw_null_and_zero() -> Outcome {
    let ring = Ring::new(4)?;
    let null = open(c"/dev/null", O_RDWR)?;
    let zero = open(c"/dev/zero", O_RDWR)?;
    let mut bytes = [7; 100];
    for offset in [0, 50, POSITION] {
        gives!(ring, 0, Sqe::read(&null, &mut bytes, offset));
        gives!(ring, 100, Sqe::write(&null, &bytes, offset));
        gives!(ring, 100, Sqe::write(&zero, &bytes, offset));
    }
    expect_eq!(bytes, [7; 100]);
    gives!(ring, 100, Sqe::read(&zero, &mut bytes, 0));
    expect_eq!(bytes, [0; 100]);
    let random = open(c"/dev/urandom", O_RDONLY)?;
    gives!(ring, 100, Sqe::read(&random, &mut bytes, POSITION));
    expect!(bytes != [0; 100]);
    Ok(())
}

fn rw_untouched_memory() -> Outcome {
    let ring = Ring::new(4)?;
    let written: Vec<u8> = (0..20_000_u32).map(|index| (index % 251) as u8).collect();
    let fd = create(c"f", &written)?;
    let map = Mapping::new(5 * 4096, libc::PROT_READ | libc::PROT_WRITE)?;
    let read = Sqe {
        addr: map.at(10).addr() as u64,
        len: 20_000,
        ..Sqe::read(&fd, &mut [], 0)
    };
    gives!(ring, 20_000, read);
    // SAFETY: bytes of the live mapping.
    let byte = |index: usize| unsafe { map.at(10 + index).read_volatile() };
    expect!((0..20_000).all(|index| byte(index) == written[index]));
    Ok(())
}

fn rw_large() -> Outcome {
    let ring = Ring::new(4)?;
    let written: Vec<u8> = (0..3_000_001_u32)
        .map(|index| (index % 253) as u8)
        .collect();
    let fd = create(c"f", b"")?;
    gives!(ring, written.len(), Sqe::write(&fd, &written, 0));
    let mut read = vec![0; written.len()];
    gives!(ring, written.len(), Sqe::read(&fd, &mut read, 0));
    expect!(read == written);
    Ok(())
}

fn rw_path_descriptor() -> Outcome {
    let ring = Ring::new(4)?;
    create(c"f", b"abc")?;
    let fd = open(c"f", libc::O_PATH)?;
    let mut bytes = [0; 4];
    refuses!(ring, EBADF, Sqe::read(&fd, &mut bytes, 0));
    Ok(())
}
