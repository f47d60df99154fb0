//! `io_uring_register`: tables, their limits and errors, and PROBE.

use std::os::fd::AsRawFd;

use guest_programs::aligned::AlignedBuffer;
use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Errno, Mapping, SysResult, create};
use guest_programs::{checks, expect, expect_eq, fails};
use libc::iovec;
use linux_raw_sys::io_uring::io_uring_op::*;
use linux_raw_sys::io_uring::io_uring_register_op::{
    IORING_REGISTER_BUFFERS, IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_FILES,
    IORING_REGISTER_PROBE, IORING_UNREGISTER_BUFFERS, IORING_UNREGISTER_FILES,
};

use crate::fixed::{register_buffers, register_files, unregister_buffers, unregister_files};
use guest_programs::ring::{Ring, Sqe, UNKNOWN_OPCODE, gives, register, vector};

pub(crate) const CHECKS: &[Check] = checks![
    register_bad_descriptors,
    register_unknown_operation,
    register_files_errors,
    register_files_twice,
    register_files_not_there,
    register_files_bad_members,
    register_files_failure_leaves_nothing,
    register_files_of_another_ring,
    register_files_many,
    register_buffers_errors,
    register_buffers_twice,
    register_buffers_not_there,
    register_buffers_bad_members,
    register_buffers_failure_leaves_nothing,
    register_buffers_limits,
    register_buffers_read_only,
    register_enable_twice,
    probe_tells_operations,
    probe_short,
    probe_errors,
];

fn errno(number: i32) -> SysResult {
    Err(Errno(number))
}

fn register_bad_descriptors() -> Outcome {
    let operation = IORING_UNREGISTER_FILES as u32;
    fails!(EBADF, SYS_io_uring_register, 999, operation, 0, 0);
    // No ring at all is for operations that need none; this one does.
    fails!(EINVAL, SYS_io_uring_register, -1, operation, 0, 0);
    let file = create(c"f", b"")?;
    fails!(EOPNOTSUPP, SYS_io_uring_register, &file, operation, 0, 0);
    Ok(())
}

fn register_unknown_operation() -> Outcome {
    let ring = Ring::new(4)?;
    for operation in [200, 1000, u32::MAX >> 1] {
        fails!(EINVAL, SYS_io_uring_register, &ring.fd, operation, 0, 0);
    }
    Ok(())
}

fn register_files_errors() -> Outcome {
    let ring = Ring::new(4)?;
    let operation = IORING_REGISTER_FILES as u32;
    let fd = create(c"f", b"")?.as_raw_fd();
    fails!(
        EINVAL,
        SYS_io_uring_register,
        &ring.fd,
        operation,
        &raw const fd,
        0
    );
    fails!(
        EFAULT,
        SYS_io_uring_register,
        &ring.fd,
        operation,
        Mapping::nowhere()?,
        1
    );
    fails!(
        EMFILE,
        SYS_io_uring_register,
        &ring.fd,
        operation,
        &raw const fd,
        1 << 20
    );
    fails!(
        EMFILE,
        SYS_io_uring_register,
        &ring.fd,
        operation,
        &raw const fd,
        1 << 30
    );
    Ok(())
}

fn register_files_twice() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"")?;
    expect_eq!(register_files(&ring, &[fd.as_raw_fd()]), Ok(0));
    expect_eq!(register_files(&ring, &[fd.as_raw_fd()]), errno(libc::EBUSY));
    Ok(())
}

fn register_files_not_there() -> Outcome {
    let ring = Ring::new(4)?;
    expect_eq!(unregister_files(&ring), errno(libc::ENXIO));
    let operation = IORING_UNREGISTER_FILES as u32;
    fails!(EINVAL, SYS_io_uring_register, &ring.fd, operation, 8, 0);
    fails!(EINVAL, SYS_io_uring_register, &ring.fd, operation, 0, 1);
    register_files(&ring, &[-1])?;
    expect_eq!(unregister_files(&ring), Ok(0));
    expect_eq!(unregister_files(&ring), errno(libc::ENXIO));
    Ok(())
}

fn register_files_bad_members() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"")?.as_raw_fd();
    expect_eq!(register_files(&ring, &[fd, 999]), errno(libc::EBADF));
    expect_eq!(register_files(&ring, &[-2]), errno(libc::EBADF));
    Ok(())
}

fn register_files_failure_leaves_nothing() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"")?;
    expect_eq!(
        register_files(&ring, &[fd.as_raw_fd(), 999]),
        errno(libc::EBADF)
    );
    expect_eq!(unregister_files(&ring), errno(libc::ENXIO));
    expect_eq!(register_files(&ring, &[fd.as_raw_fd()]), Ok(0));
    Ok(())
}

fn register_files_of_another_ring() -> Outcome {
    // It would keep itself alive.
    let (ring, other) = (Ring::new(4)?, Ring::new(4)?);
    expect_eq!(
        register_files(&ring, &[ring.fd.as_raw_fd()]),
        errno(libc::EBADF)
    );
    expect_eq!(
        register_files(&ring, &[other.fd.as_raw_fd()]),
        errno(libc::EBADF)
    );
    Ok(())
}

fn register_files_many() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    expect_eq!(register_files(&ring, &[fd.as_raw_fd(); 200]), Ok(0));
    let mut bytes = [0; 3];
    let read = Sqe::read(&199, &mut bytes, 0).flags(crate::fixed::FIXED_FILE);
    gives!(ring, 3, read);
    Ok(())
}

fn register_buffers_errors() -> Outcome {
    let ring = Ring::new(4)?;
    let operation = IORING_REGISTER_BUFFERS as u32;
    let mut bytes = [0; 16];
    let one = vector(&mut bytes);
    fails!(
        EINVAL,
        SYS_io_uring_register,
        &ring.fd,
        operation,
        &raw const one,
        0
    );
    fails!(
        EINVAL,
        SYS_io_uring_register,
        &ring.fd,
        operation,
        &raw const one,
        (1 << 14) + 1
    );
    fails!(
        EFAULT,
        SYS_io_uring_register,
        &ring.fd,
        operation,
        Mapping::nowhere()?,
        1
    );
    Ok(())
}

fn register_buffers_twice() -> Outcome {
    let ring = Ring::new(4)?;
    let mut buffer = AlignedBuffer::new(4096)?;
    expect_eq!(register_buffers(&ring, &[vector(&mut buffer)]), Ok(0));
    expect_eq!(
        register_buffers(&ring, &[vector(&mut buffer)]),
        errno(libc::EBUSY)
    );
    Ok(())
}

fn register_buffers_not_there() -> Outcome {
    let ring = Ring::new(4)?;
    expect_eq!(unregister_buffers(&ring), errno(libc::ENXIO));
    let operation = IORING_UNREGISTER_BUFFERS as u32;
    fails!(EINVAL, SYS_io_uring_register, &ring.fd, operation, 8, 0);
    fails!(EINVAL, SYS_io_uring_register, &ring.fd, operation, 0, 1);
    Ok(())
}

fn register_buffers_bad_members() -> Outcome {
    let ring = Ring::new(4)?;
    let map = Mapping::new(4096, libc::PROT_READ | libc::PROT_WRITE)?;
    let nowhere = Mapping::nowhere()?;
    let buffer = |base: *mut u8, iov_len| iovec {
        iov_base: base.cast(),
        iov_len,
    };
    for bad in [
        buffer(nowhere, 4096),
        buffer(map.start, 0),
        buffer(std::ptr::null_mut(), 4096),
        buffer(0xffff_8880_0000_0000_usize as *mut u8, 4096),
        buffer(map.start, (1 << 30) + 1),
    ] {
        expect_eq!(register_buffers(&ring, &[bad]), errno(libc::EFAULT));
    }
    let negative = buffer(map.start, usize::MAX);
    expect_eq!(register_buffers(&ring, &[negative]), errno(libc::EINVAL));
    Ok(())
}

fn register_buffers_failure_leaves_nothing() -> Outcome {
    let ring = Ring::new(4)?;
    let mut buffer = AlignedBuffer::new(4096)?;
    let bad = iovec {
        iov_base: Mapping::nowhere()?.cast(),
        iov_len: 16,
    };
    expect_eq!(
        register_buffers(&ring, &[vector(&mut buffer), bad]),
        errno(libc::EFAULT)
    );
    expect_eq!(unregister_buffers(&ring), errno(libc::ENXIO));
    expect_eq!(register_buffers(&ring, &[vector(&mut buffer)]), Ok(0));
    Ok(())
}

fn register_buffers_limits() -> Outcome {
    let ring = Ring::new(4)?;
    let mut buffer = AlignedBuffer::new(64 << 20)?;
    expect_eq!(register_buffers(&ring, &[vector(&mut buffer)]), Ok(0));
    expect_eq!(unregister_buffers(&ring), Ok(0));
    // Parts of pages, and the same memory twice.
    let parts = [vector(&mut buffer[1..100]), vector(&mut buffer[50..9000])];
    expect_eq!(register_buffers(&ring, &parts), Ok(0));
    let fd = create(c"f", b"abc")?;
    gives!(ring, 3, Sqe::read_fixed(&fd, &mut buffer[97..100], 0, 0));
    gives!(ring, 3, Sqe::read_fixed(&fd, &mut buffer[8997..9000], 0, 1));
    expect_eq!(&buffer[96..101], b"\0abc\0");
    Ok(())
}

fn register_buffers_read_only() -> Outcome {
    let ring = Ring::new(4)?;
    let map = Mapping::new(4096, libc::PROT_READ)?;
    let buffer = iovec {
        iov_base: map.start.cast(),
        iov_len: 4096,
    };
    // A registered buffer must be writable, whatever it is used for.
    expect_eq!(register_buffers(&ring, &[buffer]), errno(libc::EFAULT));
    Ok(())
}

fn register_enable_twice() -> Outcome {
    let ring = Ring::new(4)?;
    let operation = IORING_REGISTER_ENABLE_RINGS as u32;
    fails!(EBADFD, SYS_io_uring_register, &ring.fd, operation, 0, 0);
    fails!(EINVAL, SYS_io_uring_register, &ring.fd, operation, 8, 0);
    fails!(EINVAL, SYS_io_uring_register, &ring.fd, operation, 0, 1);
    Ok(())
}

/// `struct io_uring_probe` and `struct io_uring_probe_op`.
#[repr(C)]
struct Probe {
    last_op: u8,
    ops_len: u8,
    resv: u16,
    resv2: [u32; 3],
    ops: [[u8; 8]; 256],
}

impl Probe {
    fn new() -> Self {
        Self {
            last_op: 0,
            ops_len: 0,
            resv: 0,
            resv2: [0; 3],
            ops: [[0; 8]; 256],
        }
    }

    /// Operation number and whether it is supported, of entry `index`.
    fn operation(&self, index: usize) -> (u8, bool) {
        let [op, _, flags, ..] = self.ops[index];
        (op, flags & 1 != 0)
    }
}

fn probe(ring: &Ring, probe: &mut Probe, count: u32) -> SysResult {
    register(
        &ring.fd,
        IORING_REGISTER_PROBE as u32,
        &raw const *probe,
        count,
    )
}

fn probe_tells_operations() -> Outcome {
    let ring = Ring::new(4)?;
    let mut answer = Probe::new();
    expect_eq!(probe(&ring, &mut answer, 256), Ok(0));
    let count = usize::from(answer.ops_len);
    expect_eq!(usize::from(answer.last_op) + 1, count);
    for operation in [
        IORING_OP_NOP,
        IORING_OP_READV,
        IORING_OP_WRITEV,
        IORING_OP_FSYNC,
        IORING_OP_READ_FIXED,
        IORING_OP_WRITE_FIXED,
        IORING_OP_TIMEOUT,
        IORING_OP_ASYNC_CANCEL,
        IORING_OP_CLOSE,
        IORING_OP_READ,
        IORING_OP_WRITE,
    ] {
        let index = operation as u8;
        expect!(usize::from(index) < count);
        expect_eq!(answer.operation(index.into()), (index, true));
    }
    expect!(count <= usize::from(UNKNOWN_OPCODE));
    expect_eq!(answer.operation(UNKNOWN_OPCODE.into()), (0, false));
    Ok(())
}

fn probe_short() -> Outcome {
    let ring = Ring::new(4)?;
    let mut answer = Probe::new();
    expect_eq!(probe(&ring, &mut answer, 3), Ok(0));
    expect_eq!(answer.ops_len, 3);
    expect_eq!(answer.operation(2), (2, true));
    expect_eq!(answer.operation(3), (0, false));
    expect_eq!(probe(&ring, &mut Probe::new(), 0), Ok(0));
    Ok(())
}

fn probe_errors() -> Outcome {
    let ring = Ring::new(4)?;
    expect_eq!(probe(&ring, &mut Probe::new(), 257), errno(libc::EINVAL));
    let operation = IORING_REGISTER_PROBE as u32;
    fails!(EINVAL, SYS_io_uring_register, &ring.fd, operation, 0, 256);
    fails!(
        EFAULT,
        SYS_io_uring_register,
        &ring.fd,
        operation,
        Mapping::nowhere()?,
        256
    );
    let mut dirty = Probe::new();
    dirty.ops[10][0] = 1;
    expect_eq!(probe(&ring, &mut dirty, 256), errno(libc::EINVAL));
    let mut dirty = Probe::new();
    dirty.resv = 1;
    expect_eq!(probe(&ring, &mut dirty, 256), errno(libc::EINVAL));
    Ok(())
}
