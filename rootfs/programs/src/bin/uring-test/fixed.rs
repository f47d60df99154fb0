//! Registered files and buffers in use: FIXED_FILE, READ_FIXED, WRITE_FIXED.

use std::os::fd::{AsRawFd, OwnedFd};

use guest_programs::aligned::AlignedBuffer;
use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{SysResult, contents, create, open};
use guest_programs::{checks, expect, expect_eq, sys};
use libc::{O_RDONLY, iovec};
use linux_raw_sys::io_uring::io_uring_register_op::{
    IORING_REGISTER_BUFFERS, IORING_REGISTER_FILES, IORING_UNREGISTER_BUFFERS,
    IORING_UNREGISTER_FILES,
};

use guest_programs::ring::{Ring, Sqe, gives, refuses, register, vector};

pub(crate) const CHECKS: &[Check] = checks![
    fixed_file_reads_and_writes,
    fixed_file_at_position,
    fixed_file_out_of_range,
    fixed_file_in_an_empty_slot,
    fixed_file_without_a_table,
    fixed_file_outlives_its_descriptor,
    fixed_file_outlives_its_name,
    fixed_file_after_removal,
    fixed_file_on_nop,
    fixed_buffer_reads_and_writes,
    fixed_buffer_whole_and_parts,
    fixed_buffer_index_out_of_range,
    fixed_buffer_address_outside,
    fixed_buffer_without_a_table,
    fixed_buffer_after_removal,
    fixed_buffer_empty_slot,
    fixed_buffer_survives_unmapping,
    fixed_buffer_and_file,
    fixed_buffers_many,
];

pub(crate) const FIXED_FILE: u8 = 1;

pub(crate) fn register_files(ring: &Ring, fds: &[i32]) -> SysResult {
    register(
        &ring.fd,
        IORING_REGISTER_FILES as u32,
        fds.as_ptr(),
        fds.len() as u32,
    )
}

pub(crate) fn register_buffers(ring: &Ring, vectors: &[iovec]) -> SysResult {
    let count = vectors.len() as u32;
    register(
        &ring.fd,
        IORING_REGISTER_BUFFERS as u32,
        vectors.as_ptr(),
        count,
    )
}

pub(crate) fn unregister_files(ring: &Ring) -> SysResult {
    register(
        &ring.fd,
        IORING_UNREGISTER_FILES as u32,
        std::ptr::null::<u8>(),
        0,
    )
}

pub(crate) fn unregister_buffers(ring: &Ring) -> SysResult {
    register(
        &ring.fd,
        IORING_UNREGISTER_BUFFERS as u32,
        std::ptr::null::<u8>(),
        0,
    )
}

fn in_slot(index: i32, sqe: Sqe) -> Sqe {
    sqe.fd(index).flags(FIXED_FILE)
}

fn table(fds: &[&OwnedFd]) -> SysResult<Ring> {
    let ring = Ring::new(8)?;
    let fds: Vec<i32> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    register_files(&ring, &fds)?;
    Ok(ring)
}

fn fixed_file_reads_and_writes() -> Outcome {
    let (a, b) = (create(c"a", b"aaa")?, create(c"b", b"bbb")?);
    let ring = table(&[&a, &b])?;
    let mut bytes = [0; 3];
    gives!(ring, 3, in_slot(1, Sqe::read(&-1, &mut bytes, 0)));
    expect_eq!(&bytes, b"bbb");
    gives!(ring, 2, in_slot(0, Sqe::write(&-1, b"xy", 1)));
    expect_eq!(contents(&a)?, b"axy");
    Ok(())
}

fn fixed_file_at_position() -> Outcome {
    let fd = create(c"f", b"abcdef")?;
    let ring = table(&[&fd])?;
    let mut bytes = [0; 4];
    gives!(ring, 4, in_slot(0, Sqe::read(&-1, &mut bytes, u64::MAX)));
    expect_eq!(sys!(SYS_lseek, &fd, 0, libc::SEEK_CUR), Ok(4));
    Ok(())
}

fn fixed_file_out_of_range() -> Outcome {
    let ring = table(&[&create(c"f", b"")?])?;
    let mut bytes = [0; 4];
    for index in [1, 1000, -1, i32::MAX, i32::MIN] {
        refuses!(ring, EBADF, in_slot(index, Sqe::read(&-1, &mut bytes, 0)));
    }
    Ok(())
}

fn fixed_file_in_an_empty_slot() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let ring = Ring::new(4)?;
    expect_eq!(register_files(&ring, &[-1, fd.as_raw_fd(), -1]), Ok(0));
    let mut bytes = [0; 3];
    refuses!(ring, EBADF, in_slot(0, Sqe::read(&-1, &mut bytes, 0)));
    gives!(ring, 3, in_slot(1, Sqe::read(&-1, &mut bytes, 0)));
    refuses!(ring, EBADF, in_slot(2, Sqe::read(&-1, &mut bytes, 0)));
    Ok(())
}

fn fixed_file_without_a_table() -> Outcome {
    let ring = Ring::new(4)?;
    let mut bytes = [0; 4];
    refuses!(ring, EBADF, in_slot(0, Sqe::read(&-1, &mut bytes, 0)));
    Ok(())
}

fn fixed_file_outlives_its_descriptor() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let ring = table(&[&fd])?;
    let number = fd.as_raw_fd();
    drop(fd);
    let mut bytes = [0; 3];
    gives!(ring, 3, in_slot(0, Sqe::read(&-1, &mut bytes, 0)));
    refuses!(ring, EBADF, Sqe::read(&number, &mut bytes, 0));
    Ok(())
}

fn fixed_file_outlives_its_name() -> Outcome {
    let ring = table(&[&create(c"f", b"abc")?])?;
    sys!(SYS_unlink, c"f")?;
    let mut bytes = [0; 3];
    gives!(ring, 3, in_slot(0, Sqe::read(&-1, &mut bytes, 0)));
    expect_eq!(&bytes, b"abc");
    Ok(())
}

fn fixed_file_after_removal() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let ring = table(&[&fd])?;
    expect_eq!(unregister_files(&ring), Ok(0));
    let mut bytes = [0; 3];
    refuses!(ring, EBADF, in_slot(0, Sqe::read(&-1, &mut bytes, 0)));
    // Another table may follow.
    expect_eq!(register_files(&ring, &[fd.as_raw_fd()]), Ok(0));
    gives!(ring, 3, in_slot(0, Sqe::read(&-1, &mut bytes, 0)));
    Ok(())
}

fn fixed_file_on_nop() -> Outcome {
    // A NOP has no file, so there is none to be missing.
    gives!(Ring::new(4)?, 0, in_slot(5, Sqe::nop()));
    Ok(())
}

fn buffers(sizes: &[usize]) -> Result<(Ring, Vec<AlignedBuffer>), guest_programs::check::Failure> {
    let mut buffers = Vec::new();
    for size in sizes {
        buffers.push(AlignedBuffer::new(*size)?);
    }
    let vectors: Vec<_> = buffers.iter_mut().map(|buffer| vector(buffer)).collect();
    let ring = Ring::new(8)?;
    register_buffers(&ring, &vectors)?;
    Ok((ring, buffers))
}

fn fixed_buffer_reads_and_writes() -> Outcome {
    let (ring, mut buffers) = buffers(&[4096, 4096])?;
    let fd = create(c"f", b"abcdef")?;
    gives!(ring, 3, Sqe::read_fixed(&fd, &mut buffers[1][..3], 1, 1));
    expect_eq!(&buffers[1][..4], b"bcd\0");
    buffers[0][..2].copy_from_slice(b"XY");
    gives!(
        ring,
        2,
        Sqe::read_fixed(&fd, &mut buffers[0][..2], 4, 0).into_write()
    );
    expect_eq!(contents(&fd)?, b"abcdXY");
    Ok(())
}

fn fixed_buffer_whole_and_parts() -> Outcome {
    let written: Vec<u8> = (0..3 * 4096_u32).map(|index| (index % 251) as u8).collect();
    let fd = create(c"f", &written)?;
    let (ring, mut buffers) = buffers(&[3 * 4096])?;
    gives!(ring, 3 * 4096, Sqe::read_fixed(&fd, &mut buffers[0], 0, 0));
    expect!(buffers[0][..] == written[..]);
    // Any part of it, aligned or not, across pages.
    gives!(
        ring,
        5000,
        Sqe::read_fixed(&fd, &mut buffers[0][4000..9000], 7, 0)
    );
    expect!(buffers[0][4000..9000] == written[7..5007]);
    expect!(buffers[0][..4000] == written[..4000] && buffers[0][9000..] == written[9000..]);
    gives!(
        ring,
        1,
        Sqe::read_fixed(&fd, &mut buffers[0][3 * 4096 - 1..], 0, 0)
    );
    Ok(())
}

fn fixed_buffer_index_out_of_range() -> Outcome {
    let (ring, mut buffers) = buffers(&[4096])?;
    let fd = create(c"f", b"abc")?;
    for index in [1, 2, u16::MAX] {
        refuses!(
            ring,
            EFAULT,
            Sqe::read_fixed(&fd, &mut buffers[0][..3], 0, index)
        );
    }
    Ok(())
}

fn fixed_buffer_address_outside() -> Outcome {
    let (ring, mut buffers) = buffers(&[4096])?;
    let fd = create(c"f", b"abc")?;
    let inside = Sqe::read_fixed(&fd, &mut buffers[0][..16], 0, 0);
    let start = inside.addr;
    for (addr, len) in [
        (start - 1, 16),
        (start + 4096, 16),
        (start + 4090, 16),
        (start, 4097),
        (start, u32::MAX),
        (0, 16),
        (u64::MAX - 8, 16),
    ] {
        refuses!(
            ring,
            EFAULT,
            Sqe {
                addr,
                len,
                ..inside
            }
        );
        refuses!(
            ring,
            EFAULT,
            Sqe {
                addr,
                len,
                ..inside
            }
            .into_write()
        );
    }
    gives!(ring, 3, inside);
    Ok(())
}

fn fixed_buffer_without_a_table() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    let mut bytes = [0; 4];
    refuses!(ring, EFAULT, Sqe::read_fixed(&fd, &mut bytes, 0, 0));
    refuses!(
        ring,
        EFAULT,
        Sqe::read_fixed(&fd, &mut bytes, 0, 0).into_write()
    );
    Ok(())
}

fn fixed_buffer_after_removal() -> Outcome {
    let (ring, mut buffers) = buffers(&[4096])?;
    let fd = create(c"f", b"abc")?;
    expect_eq!(unregister_buffers(&ring), Ok(0));
    refuses!(
        ring,
        EFAULT,
        Sqe::read_fixed(&fd, &mut buffers[0][..3], 0, 0)
    );
    expect_eq!(register_buffers(&ring, &[vector(&mut buffers[0])]), Ok(0));
    gives!(ring, 3, Sqe::read_fixed(&fd, &mut buffers[0][..3], 0, 0));
    Ok(())
}

fn fixed_buffer_empty_slot() -> Outcome {
    let ring = Ring::new(4)?;
    let mut buffer = AlignedBuffer::new(4096)?;
    let empty = iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    expect_eq!(
        register_buffers(&ring, &[empty, vector(&mut buffer)]),
        Ok(0)
    );
    let fd = create(c"f", b"abc")?;
    refuses!(ring, EFAULT, Sqe::read_fixed(&fd, &mut buffer[..3], 0, 0));
    gives!(ring, 3, Sqe::read_fixed(&fd, &mut buffer[..3], 0, 1));
    Ok(())
}

fn fixed_buffer_survives_unmapping() -> Outcome {
    let (ring, mut buffers) = buffers(&[4096])?;
    let fd = create(c"f", b"abc")?;
    let read = Sqe::read_fixed(&fd, &mut buffers[0][..3], 0, 0);
    buffers.clear();
    // The registration holds the pages, wherever they are mapped, if anywhere.
    gives!(ring, 3, read);
    gives!(ring, 3, Sqe { off: 3, ..read }.into_write());
    expect_eq!(contents(&fd)?, b"abcabc");
    Ok(())
}

fn fixed_buffer_and_file() -> Outcome {
    let (ring, mut buffers) = buffers(&[4096])?;
    create(c"f", b"abc")?;
    register_files(&ring, &[open(c"f", O_RDONLY)?.as_raw_fd()])?;
    gives!(
        ring,
        3,
        in_slot(0, Sqe::read_fixed(&-1, &mut buffers[0][..3], 0, 0))
    );
    expect_eq!(&buffers[0][..3], b"abc");
    let write = Sqe::read_fixed(&-1, &mut buffers[0][..3], 0, 0).into_write();
    refuses!(ring, EBADF, in_slot(0, write));
    Ok(())
}

fn fixed_buffers_many() -> Outcome {
    let (ring, mut buffers) = buffers(&[4096; 64])?;
    let zero = open(c"/dev/zero", O_RDONLY)?;
    for (index, buffer) in buffers.iter_mut().enumerate() {
        buffer.fill(index as u8 + 1);
        gives!(
            ring,
            10,
            Sqe::read_fixed(&zero, &mut buffer[..10], 0, index as u16)
        );
    }
    expect!(
        buffers
            .iter()
            .all(|buffer| buffer[..10] == [0; 10] && buffer[10] != 0)
    );
    Ok(())
}
