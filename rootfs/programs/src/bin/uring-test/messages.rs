//! MSG_RING: CQEs and files for other rings, and for the own one; `IORING_REGISTER_SEND_MSG_RING`.

use std::os::fd::AsRawFd;

use guest_programs::check::{Check, Outcome};
use guest_programs::ring::{Cqe, Ring, Sqe, gives, refuses};
use guest_programs::sys::{Errno, SysResult, create};
use guest_programs::{checks, expect_eq, sys};
use linux_raw_sys::io_uring::io_uring_op::*;
use linux_raw_sys::io_uring::io_uring_register_op::*;
use linux_raw_sys::io_uring::{
    IORING_MSG_RING_CQE_SKIP, IORING_MSG_RING_FLAGS_PASS, IORING_SETUP_R_DISABLED,
};

use crate::fixed::{FIXED_FILE, register_files};

pub(crate) const CHECKS: &[Check] = checks![
    message_for_another_ring,
    message_for_the_own_ring,
    message_with_flags,
    message_errors,
    message_without_a_ring,
    file_for_another_ring,
    file_for_another_ring_errors,
];

const DATA: u64 = 0;
const FILE: u64 = 1;

fn message(to: &Ring, command: u64, length: u32, user_data: u64) -> Sqe {
    Sqe {
        fd: to.fd.as_raw_fd(),
        addr: command,
        off: user_data,
        len: length,
        ..Sqe::new(IORING_OP_MSG_RING)
    }
}

fn told(user_data: u64, res: i32, flags: u32) -> Cqe {
    Cqe {
        user_data,
        res,
        flags,
    }
}

fn message_for_another_ring() -> Outcome {
    let (ring, other) = (Ring::new(4)?, Ring::new(4)?);
    gives!(ring, 0, message(&other, DATA, 77, 0x1234_5678_9abc));
    expect_eq!(other.take(1)?, [told(0x1234_5678_9abc, 77, 0)]);
    gives!(ring, 0, message(&other, DATA, u32::MAX, 0));
    expect_eq!(other.take(1)?, [told(0, -1, 0)]);
    // What finds no room is kept.
    for index in 0..20 {
        gives!(ring, 0, message(&other, DATA, index, 5));
    }
    for index in 0..20 {
        expect_eq!(other.next()?, told(5, index, 0));
    }
    other.nothing_left()?;
    Ok(())
}

fn message_for_the_own_ring() -> Outcome {
    let ring = Ring::new(4)?;
    ring.push(message(&ring, DATA, 77, 8).data(9));
    ring.submit()?;
    let mut both = ring.take(2)?;
    both.sort_by_key(|cqe| cqe.user_data);
    expect_eq!(both, [told(8, 77, 0), told(9, 0, 0)]);
    Ok(())
}

fn message_with_flags() -> Outcome {
    let (ring, other) = (Ring::new(4)?, Ring::new(4)?);
    let passed = Sqe {
        file_index: 0x1230,
        op_flags: IORING_MSG_RING_FLAGS_PASS,
        ..message(&other, DATA, 1, 2)
    };
    gives!(ring, 0, passed);
    expect_eq!(other.take(1)?, [told(2, 1, 0x1230)]);
    refuses!(ring, EINVAL, passed.op_flags(0));
    Ok(())
}

fn message_errors() -> Outcome {
    let (ring, other) = (Ring::new(4)?, Ring::new(4)?);
    let good = message(&other, DATA, 1, 2);
    let file = create(c"f", b"abc")?;
    refuses!(ring, EBADFD, good.fd(file.as_raw_fd()));
    refuses!(ring, EBADF, good.fd(999));
    refuses!(ring, EINVAL, Sqe { addr: 2, ..good });
    refuses!(ring, EINVAL, good.op_flags(4));
    refuses!(ring, EINVAL, good.op_flags(IORING_MSG_RING_CQE_SKIP));
    refuses!(ring, EINVAL, Sqe { addr3: 1, ..good });
    refuses!(
        ring,
        EINVAL,
        Sqe {
            buf_index: 1,
            ..good
        }
    );
    let disabled = Ring::flagged(4, IORING_SETUP_R_DISABLED)?;
    refuses!(ring, EBADFD, message(&disabled, DATA, 1, 2));
    refuses!(ring, EBADFD, message(&disabled, FILE, 0, 2));
    other.nothing_left()?;
    Ok(())
}

fn send(sqe: &Sqe, count: u32) -> SysResult {
    let operation = IORING_REGISTER_SEND_MSG_RING as u32;
    let sqe = std::ptr::from_ref(sqe);
    sys!(SYS_io_uring_register, -1, operation, sqe, count)
}

fn message_without_a_ring() -> Outcome {
    let other = Ring::new(4)?;
    let good = message(&other, DATA, 1, 2);
    expect_eq!(send(&good, 1), Ok(0));
    expect_eq!(other.take(1)?, [told(2, 1, 0)]);
    let einval = Err(Errno(libc::EINVAL));
    expect_eq!(send(&good, 0), einval);
    expect_eq!(send(&good.flags(FIXED_FILE), 1), einval);
    expect_eq!(send(&Sqe::nop(), 1), einval);
    expect_eq!(send(&message(&other, FILE, 0, 2), 1), einval);
    expect_eq!(send(&good.fd(999), 1), Err(Errno(libc::EBADF)));
    let file = create(c"f", b"abc")?;
    let odd = good.fd(file.as_raw_fd());
    expect_eq!(send(&odd, 1), Err(Errno(libc::EBADFD)));
    Ok(())
}

/// The file at index `from`, for a place of the other ring.
fn file(to: &Ring, from: u64, place: u32) -> Sqe {
    Sqe {
        addr3: from,
        file_index: place,
        ..message(to, FILE, 0, 6)
    }
}

fn file_for_another_ring() -> Outcome {
    let (ring, other) = (Ring::new(4)?, Ring::new(4)?);
    let fd = create(c"f", b"abc")?;
    register_files(&ring, &[-1, fd.as_raw_fd()])?;
    register_files(&other, &[-1, -1, -1])?;
    drop(fd);
    let mut bytes = [0; 3];
    gives!(ring, 0, file(&other, 1, 2));
    expect_eq!(other.take(1)?, [told(6, 0, 0)]);
    gives!(other, 3, Sqe::read(&1, &mut bytes, 0).flags(FIXED_FILE));
    gives!(ring, 2, file(&other, 1, u32::MAX));
    expect_eq!(other.take(1)?, [told(6, 2, 0)]);
    let silent = file(&other, 1, u32::MAX).op_flags(IORING_MSG_RING_CQE_SKIP);
    gives!(ring, 0, silent);
    other.nothing_left()?;
    gives!(other, 3, Sqe::read(&0, &mut bytes, 0).flags(FIXED_FILE));
    Ok(())
}

fn file_for_another_ring_errors() -> Outcome {
    let (ring, other) = (Ring::new(4)?, Ring::new(4)?);
    let fd = create(c"f", b"abc")?;
    refuses!(ring, EBADF, file(&other, 0, 1));
    register_files(&ring, &[-1, fd.as_raw_fd()])?;
    refuses!(ring, ENXIO, file(&other, 1, 1));
    register_files(&other, &[-1])?;
    refuses!(ring, EBADF, file(&other, 0, 1));
    refuses!(ring, EBADF, file(&other, 5, 1));
    refuses!(ring, EINVAL, file(&other, 1, 2));
    refuses!(
        ring,
        EINVAL,
        Sqe {
            len: 1,
            ..file(&other, 1, 1)
        }
    );
    refuses!(ring, EINVAL, file(&ring, 1, 1));
    gives!(ring, 0, file(&other, 1, 1));
    expect_eq!(other.take(1)?, [told(6, 0, 0)]);
    refuses!(ring, ENFILE, file(&other, 1, u32::MAX));
    other.nothing_left()?;
    Ok(())
}
