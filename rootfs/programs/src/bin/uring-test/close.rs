//! CLOSE.

use std::os::fd::{AsRawFd, IntoRawFd};

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::create;
use guest_programs::{checks, expect_eq, fails, sys};
use linux_raw_sys::io_uring::IORING_ENTER_GETEVENTS;

use crate::fixed::{FIXED_FILE, register_files};
use guest_programs::ring::{Ring, Sqe, gives, milliseconds, refuses};

pub(crate) const CHECKS: &[Check] = checks![
    close_a_descriptor,
    close_errors,
    close_of_a_ring,
    close_fields,
    close_a_slot,
    close_slot_errors,
    closing_a_ring_with_work,
    closing_a_ring_unread,
];

fn close_a_descriptor() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"")?.into_raw_fd();
    gives!(ring, 0, Sqe::close(fd));
    fails!(EBADF, SYS_fcntl, fd, libc::F_GETFD);
    refuses!(ring, EBADF, Sqe::close(fd));
    Ok(())
}

fn close_errors() -> Outcome {
    let ring = Ring::new(4)?;
    for fd in [999, -1, i32::MAX] {
        refuses!(ring, EBADF, Sqe::close(fd));
    }
    Ok(())
}

fn close_of_a_ring() -> Outcome {
    let (ring, other) = (Ring::new(4)?, Ring::new(4)?);
    refuses!(ring, EBADF, Sqe::close(ring.fd.as_raw_fd()));
    refuses!(ring, EBADF, Sqe::close(other.fd.as_raw_fd()));
    gives!(other, 0, Sqe::nop());
    Ok(())
}

fn close_fields() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"")?;
    let close = Sqe::close(fd.as_raw_fd());
    refuses!(ring, EINVAL, Sqe { off: 1, ..close });
    refuses!(ring, EINVAL, Sqe { addr: 1, ..close });
    refuses!(ring, EINVAL, Sqe { len: 1, ..close });
    refuses!(ring, EINVAL, close.op_flags(1));
    refuses!(
        ring,
        EINVAL,
        Sqe {
            buf_index: 1,
            ..close
        }
    );
    refuses!(ring, EBADF, close.flags(FIXED_FILE));
    expect_eq!(sys!(SYS_fcntl, &fd, libc::F_GETFD), Ok(0));
    Ok(())
}

fn close_a_slot() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    register_files(&ring, &[-1, fd.as_raw_fd()])?;
    let slot = |index: u32| Sqe {
        file_index: index + 1,
        ..Sqe::close(0)
    };
    gives!(ring, 0, slot(1));
    let mut bytes = [0; 3];
    refuses!(ring, EBADF, Sqe::read(&1, &mut bytes, 0).flags(FIXED_FILE));
    refuses!(ring, EBADF, slot(1));
    // The descriptor is another thing, and still open.
    gives!(ring, 3, Sqe::read(&fd, &mut bytes, 0));
    Ok(())
}

fn close_slot_errors() -> Outcome {
    let ring = Ring::new(4)?;
    let slot = |file_index, fd| Sqe {
        file_index,
        ..Sqe::close(fd)
    };
    refuses!(ring, ENXIO, slot(1, 0));
    register_files(&ring, &[-1])?;
    refuses!(ring, EBADF, slot(1, 0));
    refuses!(ring, EINVAL, slot(2, 0));
    refuses!(ring, EINVAL, slot(1, 5));
    Ok(())
}

fn closing_a_ring_with_work() -> Outcome {
    // Requests that nobody will see the end of hold up neither closing nor what comes after.
    for _ in 0..10 {
        let ring = Ring::new(16)?;
        let time = milliseconds(60_000);
        for count in 0..8 {
            ring.push(Sqe::timeout(&time, count));
        }
        ring.submit()?;
    }
    gives!(Ring::new(4)?, 0, Sqe::nop());
    Ok(())
}

fn closing_a_ring_unread() -> Outcome {
    for _ in 0..10 {
        let ring = Ring::new(4)?;
        for _ in 0..20 {
            ring.push(Sqe::nop());
            ring.submit()?;
        }
        ring.enter(0, 0, IORING_ENTER_GETEVENTS)?;
    }
    Ok(())
}
