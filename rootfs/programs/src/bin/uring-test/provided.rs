//! Provided buffers: lists and rings of them, reads that pick one, READ_MULTISHOT; READV_FIXED and
//! WRITEV_FIXED.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use guest_programs::aligned::AlignedBuffer;
use guest_programs::check::{Check, Outcome};
use guest_programs::ring::{Cqe, Ring, Sqe, gives, milliseconds, refuses, register, vector};
use guest_programs::sys::{Errno, Mapping, SysResult, contents, create, open, owned};
use guest_programs::{checks, expect, expect_eq, sys};
use linux_raw_sys::io_uring::io_uring_op::*;
use linux_raw_sys::io_uring::io_uring_register_op::*;
use linux_raw_sys::io_uring::io_uring_register_pbuf_ring_flags::*;
use linux_raw_sys::io_uring::{
    IORING_CQE_F_BUF_MORE, IORING_CQE_F_BUFFER, IORING_CQE_F_MORE, IORING_OFF_PBUF_RING,
    IORING_OFF_PBUF_SHIFT, io_uring_buf, io_uring_buf_reg, io_uring_buf_status,
};

use crate::fixed::register_buffers;

pub(crate) const CHECKS: &[Check] = checks![
    list_gives_buffers_in_turn,
    list_is_emptied,
    list_errors,
    list_and_a_regular_file,
    list_and_a_vector,
    list_after_a_failure,
    ring_of_buffers,
    ring_of_buffers_wraps,
    ring_of_buffers_that_is_mapped,
    ring_of_buffers_incremental,
    ring_of_buffers_errors,
    ring_of_buffers_status,
    waiting_takes_a_buffer_of_a_list,
    waiting_takes_no_buffer_of_a_ring,
    failures_and_buffers_of_a_ring,
    multishot_read,
    multishot_read_ends,
    multishot_read_errors,
    fixed_vectors,
    fixed_vectors_errors,
];

const SELECT: u8 = 1 << 5;

fn pipe() -> SysResult<[OwnedFd; 2]> {
    let mut ends = [0_i32; 2];
    sys!(SYS_pipe2, ends.as_mut_ptr(), 0)?;
    Ok(ends.map(|end| owned(end as usize)))
}

fn put(fd: &OwnedFd, bytes: &[u8]) -> SysResult {
    sys!(SYS_write, fd, bytes.as_ptr(), bytes.len())
}

fn provide(memory: &[u8], length: u32, count: i32, group: u16, first: u64) -> Sqe {
    Sqe {
        fd: count,
        addr: memory.as_ptr().addr() as u64,
        len: length,
        off: first,
        buf_index: group,
        ..Sqe::new(IORING_OP_PROVIDE_BUFFERS)
    }
}

fn remove(count: i32, group: u16) -> Sqe {
    Sqe {
        fd: count,
        buf_index: group,
        ..Sqe::new(IORING_OP_REMOVE_BUFFERS)
    }
}

fn pick(fd: &impl AsRawFd, length: u32, group: u16) -> Sqe {
    Sqe {
        fd: fd.as_raw_fd(),
        off: u64::MAX,
        len: length,
        buf_index: group,
        flags: SELECT,
        ..Sqe::new(IORING_OP_READ)
    }
}

/// The result and the flags of one entry.
fn complete(ring: &Ring, sqe: Sqe) -> SysResult<(i32, u32)> {
    ring.push(sqe);
    ring.submit()?;
    let cqe = ring.next()?;
    Ok((cqe.res, cqe.flags))
}

fn picked(number: u32) -> u32 {
    IORING_CQE_F_BUFFER | number << 16
}

fn list_gives_buffers_in_turn() -> Outcome {
    let ring = Ring::new(8)?;
    let [reader, writer] = pipe()?;
    let memory = [0_u8; 64];
    gives!(ring, 0, provide(&memory, 16, 4, 7, 100));
    put(&writer, b"abcdefgh")?;
    expect_eq!(complete(&ring, pick(&reader, 3, 7))?, (3, picked(100)));
    expect_eq!(complete(&ring, pick(&reader, 0, 7))?, (5, picked(101)));
    put(&writer, &[b'x'; 40])?;
    expect_eq!(complete(&ring, pick(&reader, 40, 7))?, (16, picked(102)));
    // Given back, it comes last.
    gives!(ring, 0, provide(&memory, 16, 1, 7, 100));
    expect_eq!(complete(&ring, pick(&reader, 40, 7))?, (16, picked(103)));
    expect_eq!(complete(&ring, pick(&reader, 40, 7))?, (8, picked(100)));
    put(&writer, b"abc")?;
    expect_eq!(complete(&ring, pick(&reader, 3, 7))?, (-libc::ENOBUFS, 0));
    expect_eq!(complete(&ring, pick(&reader, 3, 8))?, (-libc::ENOBUFS, 0));
    // SAFETY: it is the check's own, and the kernel is done with it.
    let seen = unsafe { std::ptr::read_volatile(&raw const memory) };
    expect_eq!(&seen[16..21], b"defgh");
    Ok(())
}

fn list_is_emptied() -> Outcome {
    let ring = Ring::new(8)?;
    let memory = [0_u8; 64];
    gives!(ring, 0, provide(&memory, 1, 10, 1, 0));
    gives!(ring, 4, remove(4, 1));
    gives!(ring, 6, remove(100, 1));
    gives!(ring, 0, remove(1, 1));
    refuses!(ring, ENOENT, remove(1, 2));
    Ok(())
}

fn list_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let memory = [0_u8; 64];
    let good = provide(&memory, 16, 4, 1, 0);
    refuses!(ring, E2BIG, good.fd(0));
    refuses!(ring, E2BIG, good.fd(-1));
    refuses!(ring, E2BIG, good.fd(65537));
    refuses!(ring, E2BIG, Sqe { off: 65536, ..good });
    refuses!(ring, EINVAL, Sqe { off: 65533, ..good });
    refuses!(ring, EINVAL, good.op_flags(1));
    refuses!(
        ring,
        EINVAL,
        Sqe {
            file_index: 1,
            ..good
        }
    );
    refuses!(
        ring,
        EOVERFLOW,
        Sqe {
            addr: u64::MAX - 3,
            ..good
        }
    );
    refuses!(
        ring,
        EFAULT,
        Sqe {
            addr: 1 << 62,
            ..good
        }
    );
    let gone = remove(1, 1);
    refuses!(ring, EINVAL, gone.fd(0));
    refuses!(ring, EINVAL, gone.fd(65537));
    refuses!(ring, EINVAL, gone.op_flags(1));
    refuses!(ring, EINVAL, Sqe { addr: 1, ..gone });
    refuses!(ring, EINVAL, Sqe { len: 1, ..gone });
    refuses!(ring, EINVAL, Sqe { off: 1, ..gone });
    refuses!(ring, EOPNOTSUPP, Sqe::nop().flags(SELECT));
    refuses!(ring, EOPNOTSUPP, Sqe::write(&1, &memory, 0).flags(SELECT));
    Ok(())
}

fn list_and_a_regular_file() -> Outcome {
    let ring = Ring::new(8)?;
    let memory = [0_u8; 64];
    let fd = create(c"f", b"abcdef")?;
    gives!(ring, 0, provide(&memory, 16, 2, 1, 0));
    let read = Sqe {
        off: 2,
        ..pick(&fd, 3, 1)
    };
    expect_eq!(complete(&ring, read)?, (3, picked(0)));
    let read = Sqe {
        off: 100,
        ..pick(&fd, 3, 1)
    };
    expect_eq!(complete(&ring, read)?, (0, picked(1)));
    expect_eq!(complete(&ring, read)?, (-libc::ENOBUFS, 0));
    Ok(())
}

fn list_and_a_vector() -> Outcome {
    let ring = Ring::new(8)?;
    let memory = [0_u8; 64];
    let fd = create(c"f", b"abcdef")?;
    gives!(ring, 0, provide(&memory, 16, 2, 1, 0));
    let mut unused = [0; 4];
    let vectors = [vector(&mut unused)];
    let read = Sqe {
        buf_index: 1,
        flags: SELECT,
        ..Sqe::readv(&fd, &vectors, 0)
    };
    expect_eq!(complete(&ring, read)?, (4, picked(0)));
    expect_eq!(complete(&ring, Sqe { len: 2, ..read })?.0, -libc::EINVAL);
    let bad = Sqe {
        addr: Mapping::nowhere()?.addr() as u64,
        ..read
    };
    expect_eq!(complete(&ring, bad)?.0, -libc::EFAULT);
    Ok(())
}

fn list_after_a_failure() -> Outcome {
    let ring = Ring::new(8)?;
    let memory = [0_u8; 64];
    let directory = open(c".", libc::O_RDONLY)?;
    gives!(ring, 0, provide(&memory, 16, 2, 1, 0));
    expect_eq!(complete(&ring, pick(&999, 3, 1))?, (-libc::EBADF, 0));
    expect_eq!(complete(&ring, pick(&directory, 3, 1))?.0, -libc::EISDIR);
    Ok(())
}

/// A ring of buffers, in memory of the program or of the kernel.
struct Buffers {
    memory: Memory,
    mask: u16,
}

enum Memory {
    Own(Mapping),
    Mapped(Mapping),
}

impl Buffers {
    fn registration(&self, group: u16) -> io_uring_buf_reg {
        let ring_addr = match &self.memory {
            Memory::Own(own) => own.at(0).addr() as u64,
            Memory::Mapped(_) => 0,
        };
        io_uring_buf_reg {
            ring_addr,
            ring_entries: u32::from(self.mask) + 1,
            bgid: group,
            flags: 0,
            resv: [0; 3],
        }
    }

    fn new(ring: &Ring, entries: u16, group: u16, flags: u16) -> SysResult<Self> {
        let size = usize::from(entries) * size_of::<io_uring_buf>();
        let buffers = Self {
            memory: Memory::Own(Mapping::new(size, libc::PROT_READ | libc::PROT_WRITE)?),
            mask: entries - 1,
        };
        let registration = io_uring_buf_reg {
            flags,
            ..buffers.registration(group)
        };
        change(ring, IORING_REGISTER_PBUF_RING as u32, &registration)?;
        Ok(buffers)
    }

    fn base(&self) -> *mut u8 {
        match &self.memory {
            Memory::Own(mapping) | Memory::Mapped(mapping) => mapping.at(0),
        }
    }

    fn tail(&self) -> &AtomicU16 {
        // SAFETY: the tail is the last word of the first entry; both sides access it atomically.
        unsafe { AtomicU16::from_ptr(self.base().add(14).cast()) }
    }

    fn add(&self, bytes: &[u8], number: u16) {
        let tail = self.tail().load(Ordering::Relaxed);
        let at = usize::from(tail & self.mask) * size_of::<io_uring_buf>();
        // SAFETY: the entry lies in the ring, and its first 14 bytes are the program's to write.
        unsafe {
            let entry = self.base().add(at);
            entry
                .cast::<u64>()
                .write_volatile(bytes.as_ptr().addr() as u64);
            entry
                .add(8)
                .cast::<u32>()
                .write_volatile(bytes.len() as u32);
            entry.add(12).cast::<u16>().write_volatile(number);
        }
        self.tail().store(tail.wrapping_add(1), Ordering::Release);
    }
}

fn change(ring: &Ring, operation: u32, registration: &io_uring_buf_reg) -> SysResult {
    register(&ring.fd, operation, std::ptr::from_ref(registration), 1)
}

fn forget(ring: &Ring, group: u16) -> SysResult {
    let registration = io_uring_buf_reg {
        ring_addr: 0,
        ring_entries: 0,
        bgid: group,
        flags: 0,
        resv: [0; 3],
    };
    change(ring, IORING_UNREGISTER_PBUF_RING as u32, &registration)
}

fn status(ring: &Ring, group: u32) -> SysResult<u32> {
    let mut status = io_uring_buf_status {
        buf_group: group,
        head: 99,
        resv: [0; 8],
    };
    let operation = IORING_REGISTER_PBUF_STATUS as u32;
    register(&ring.fd, operation, &raw mut status, 1)?;
    Ok(status.head)
}

fn ring_of_buffers() -> Outcome {
    let ring = Ring::new(8)?;
    let [reader, writer] = pipe()?;
    let memory = [0_u8; 64];
    let buffers = Buffers::new(&ring, 4, 5, 0)?;
    put(&writer, b"abcdefgh")?;
    expect_eq!(complete(&ring, pick(&reader, 3, 5))?, (-libc::ENOBUFS, 0));
    buffers.add(&memory[..16], 11);
    buffers.add(&memory[16..20], 12);
    expect_eq!(complete(&ring, pick(&reader, 3, 5))?, (3, picked(11)));
    expect_eq!(complete(&ring, pick(&reader, 0, 5))?, (4, picked(12)));
    expect_eq!(complete(&ring, pick(&reader, 3, 5))?, (-libc::ENOBUFS, 0));
    let fd = create(c"f", b"abcdef")?;
    buffers.add(&memory[..16], 13);
    expect_eq!(complete(&ring, pick(&fd, 16, 5))?, (6, picked(13)));
    expect_eq!(status(&ring, 5), Ok(3));
    expect_eq!(forget(&ring, 5), Ok(0));
    expect_eq!(complete(&ring, pick(&reader, 3, 5))?, (-libc::ENOBUFS, 0));
    Ok(())
}

fn ring_of_buffers_wraps() -> Outcome {
    let ring = Ring::new(8)?;
    let fd = create(c"f", b"abcdef")?;
    let memory = [0_u8; 64];
    let buffers = Buffers::new(&ring, 2, 5, 0)?;
    for round in 0..9 {
        buffers.add(&memory, round);
        let read = Sqe {
            off: 0,
            ..pick(&fd, 4, 5)
        };
        expect_eq!(complete(&ring, read)?, (4, picked(round.into())));
    }
    expect_eq!(status(&ring, 5), Ok(9));
    Ok(())
}

fn ring_of_buffers_that_is_mapped() -> Outcome {
    let ring = Ring::new(8)?;
    let fd = create(c"f", b"abcdef")?;
    let memory = [0_u8; 64];
    // So long a ring reaches beyond where the next group's would begin.
    let (entries, group) = (8192_u16, 3_u16);
    let registration = io_uring_buf_reg {
        ring_addr: 0,
        ring_entries: entries.into(),
        bgid: group,
        flags: IOU_PBUF_RING_MMAP as u16,
        resv: [0; 3],
    };
    let operation = IORING_REGISTER_PBUF_RING as u32;
    expect_eq!(change(&ring, operation, &registration), Ok(0));
    let offset = IORING_OFF_PBUF_RING | u32::from(group) << IORING_OFF_PBUF_SHIFT;
    let size = usize::from(entries) * size_of::<io_uring_buf>();
    let buffers = Buffers {
        memory: Memory::Mapped(Mapping::shared(&ring.fd, size, offset.into())?),
        mask: entries - 1,
    };
    for round in 0..entries {
        buffers.add(&memory, round);
    }
    let read = Sqe {
        off: 0,
        ..pick(&fd, 4, group)
    };
    for round in 0..6000 {
        expect_eq!(complete(&ring, read)?, (4, picked(round)));
    }
    expect_eq!(forget(&ring, group), Ok(0));
    // What is mapped stays so.
    buffers.add(&memory, 1);
    expect!(Mapping::shared(&ring.fd, size, offset.into()).is_err());
    Ok(())
}

fn ring_of_buffers_incremental() -> Outcome {
    let ring = Ring::new(8)?;
    let [reader, writer] = pipe()?;
    let memory = [0_u8; 64];
    let buffers = Buffers::new(&ring, 4, 5, IOU_PBUF_RING_INC as u16)?;
    buffers.add(&memory[..8], 1);
    buffers.add(&memory[8..12], 2);
    let more = |number| picked(number) | IORING_CQE_F_BUF_MORE;
    put(&writer, b"abcdefghijkl")?;
    expect_eq!(complete(&ring, pick(&reader, 3, 5))?, (3, more(1)));
    expect_eq!(complete(&ring, pick(&reader, 3, 5))?, (3, more(1)));
    expect_eq!(complete(&ring, pick(&reader, 3, 5))?, (2, picked(1)));
    expect_eq!(complete(&ring, pick(&reader, 1, 5))?, (1, more(2)));
    expect_eq!(complete(&ring, pick(&reader, 0, 5))?, (3, picked(2)));
    expect_eq!(status(&ring, 5), Ok(2));
    // SAFETY: it is the check's own, and the kernel is done with it.
    let seen = unsafe { std::ptr::read_volatile(&raw const memory) };
    expect_eq!(&seen[..12], b"abcdefghijkl");
    Ok(())
}

fn ring_of_buffers_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let memory = [0_u8; 64];
    let buffers = Buffers::new(&ring, 4, 5, 0)?;
    let add = IORING_REGISTER_PBUF_RING as u32;
    let good = buffers.registration(6);
    let with = |registration: io_uring_buf_reg| change(&ring, add, &registration);
    let einval = Err(Errno(libc::EINVAL));
    expect_eq!(with(buffers.registration(5)), Err(Errno(libc::EEXIST)));
    expect_eq!(with(io_uring_buf_reg { flags: 4, ..good }), einval);
    for ring_entries in [0, 3, 65536, u32::MAX] {
        let odd = io_uring_buf_reg {
            ring_entries,
            ..good
        };
        expect_eq!(with(odd), einval);
    }
    let reserved = io_uring_buf_reg {
        resv: [0, 0, 1],
        ..good
    };
    expect_eq!(with(reserved), einval);
    let nowhere = io_uring_buf_reg {
        ring_addr: 0,
        ..good
    };
    expect_eq!(with(nowhere), Err(Errno(libc::EFAULT)));
    let unaligned = io_uring_buf_reg {
        ring_addr: good.ring_addr + 16,
        ..good
    };
    expect_eq!(with(unaligned), einval);
    gives!(ring, 0, provide(&memory, 16, 1, 7, 0));
    expect_eq!(with(buffers.registration(7)), Err(Errno(libc::EEXIST)));
    gives!(ring, 1, remove(1, 7));
    expect_eq!(with(buffers.registration(7)), Ok(0));
    refuses!(ring, EINVAL, provide(&memory, 16, 1, 5, 0));
    refuses!(ring, EINVAL, remove(1, 5));
    expect_eq!(forget(&ring, 9), Err(Errno(libc::ENOENT)));
    gives!(ring, 0, provide(&memory, 16, 1, 10, 0));
    expect_eq!(forget(&ring, 10), einval);
    expect_eq!(register(&ring.fd, add, &raw const good, 0), einval);
    expect_eq!(register(&ring.fd, add, &raw const good, 2), einval);
    expect_eq!(register(&ring.fd, add, std::ptr::null::<u8>(), 1), einval);
    Ok(())
}

fn ring_of_buffers_status() -> Outcome {
    let ring = Ring::new(8)?;
    let memory = [0_u8; 64];
    let _buffers = Buffers::new(&ring, 4, 5, 0)?;
    expect_eq!(status(&ring, 5), Ok(0));
    expect_eq!(status(&ring, 6), Err(Errno(libc::ENOENT)));
    gives!(ring, 0, provide(&memory, 16, 1, 7, 0));
    expect_eq!(status(&ring, 7), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn waiting_takes_a_buffer_of_a_list() -> Outcome {
    let ring = Ring::new(8)?;
    let [reader, writer] = pipe()?;
    let memory = [0_u8; 64];
    expect_eq!(complete(&ring, pick(&reader, 3, 1))?, (-libc::ENOBUFS, 0));
    gives!(ring, 0, provide(&memory, 16, 1, 1, 0));
    ring.push(pick(&reader, 3, 1).data(1));
    ring.submit()?;
    ring.nothing_left()?;
    gives!(ring, 0, remove(10, 1));
    expect_eq!(complete(&ring, pick(&reader, 3, 1))?, (-libc::ENOBUFS, 0));
    put(&writer, b"abc")?;
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res, cqe.flags), (1, 3, picked(0)));
    Ok(())
}

fn waiting_takes_no_buffer_of_a_ring() -> Outcome {
    let ring = Ring::new(8)?;
    let [reader, writer] = pipe()?;
    let [other, other_writer] = pipe()?;
    let memory = [0_u8; 64];
    let buffers = Buffers::new(&ring, 4, 1, 0)?;
    buffers.add(&memory, 0);
    ring.push(pick(&reader, 3, 1).data(1));
    ring.push(pick(&other, 3, 1).data(2));
    ring.submit()?;
    ring.nothing_left()?;
    put(&other_writer, b"abc")?;
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res, cqe.flags), (2, 3, picked(0)));
    put(&writer, b"abc")?;
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res, cqe.flags), (1, -libc::ENOBUFS, 0));
    Ok(())
}

fn failures_and_buffers_of_a_ring() -> Outcome {
    let ring = Ring::new(8)?;
    let [_reader, writer] = pipe()?;
    let memory = [0_u8; 64];
    let buffers = Buffers::new(&ring, 4, 1, 0)?;
    buffers.add(&memory, 6);
    expect_eq!(complete(&ring, pick(&writer, 3, 1))?, (-libc::EBADF, 0));
    expect_eq!(status(&ring, 1), Ok(0));
    let directory = open(c".", libc::O_RDONLY)?;
    let failed = complete(&ring, pick(&directory, 3, 1))?;
    expect_eq!(failed, (-libc::EISDIR, picked(6)));
    expect_eq!(status(&ring, 1), Ok(1));
    Ok(())
}

fn multishot(fd: &impl AsRawFd, group: u16) -> Sqe {
    Sqe {
        fd: fd.as_raw_fd(),
        off: u64::MAX,
        buf_index: group,
        flags: SELECT,
        ..Sqe::new(IORING_OP_READ_MULTISHOT)
    }
}

fn multishot_read() -> Outcome {
    let ring = Ring::new(8)?;
    let [reader, writer] = pipe()?;
    let memory = [0_u8; 64];
    gives!(ring, 0, provide(&memory, 16, 4, 1, 0));
    ring.push(multishot(&reader, 1).data(9));
    ring.submit()?;
    ring.nothing_left()?;
    let told = |res, number| Cqe {
        user_data: 9,
        res,
        flags: picked(number) | IORING_CQE_F_MORE,
    };
    put(&writer, b"abc")?;
    expect_eq!(ring.next()?, told(3, 0));
    put(&writer, &[b'x'; 20])?;
    expect_eq!(ring.take(2)?, [told(16, 1), told(4, 2)]);
    put(&writer, b"abc")?;
    expect_eq!(ring.next()?, told(3, 3));
    put(&writer, b"abc")?;
    let last = ring.next()?;
    expect_eq!(
        (last.user_data, last.res, last.flags),
        (9, -libc::ENOBUFS, 0)
    );
    ring.nothing_left()?;
    Ok(())
}

fn multishot_read_ends() -> Outcome {
    let ring = Ring::new(8)?;
    let memory = [0_u8; 64];
    gives!(ring, 0, provide(&memory, 16, 4, 1, 0));
    let [reader, writer] = pipe()?;
    ring.push(multishot(&reader, 1).data(9));
    ring.submit()?;
    put(&writer, b"abc")?;
    expect_eq!(ring.next()?.flags, picked(0) | IORING_CQE_F_MORE);
    drop(writer);
    let last = ring.next()?;
    expect_eq!((last.user_data, last.res, last.flags), (9, 0, 0));
    // The buffer that was not used is still there.
    let [reader, _writer] = pipe()?;
    ring.push(multishot(&reader, 1).data(9));
    ring.submit()?;
    gives!(ring, 0, provide(&memory, 16, 1, 2, 0));
    ring.push(Sqe::cancel(9, 0).data(1));
    ring.submit()?;
    let mut both = ring.take(2)?;
    both.sort_by_key(|cqe| cqe.user_data);
    expect_eq!((both[0].user_data, both[0].res), (1, 0));
    let cancelled = (both[1].user_data, both[1].res, both[1].flags);
    expect_eq!(cancelled, (9, -libc::ECANCELED, 0));
    let _ = ring.wait_at_most(1, &milliseconds(5));
    gives!(ring, 3, remove(10, 1));
    Ok(())
}

fn multishot_read_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let [reader, _writer] = pipe()?;
    let fd = create(c"f", b"abc")?;
    let good = multishot(&reader, 1);
    refuses!(ring, EINVAL, good.flags(0));
    refuses!(ring, EINVAL, Sqe { addr: 1, ..good });
    refuses!(ring, EINVAL, Sqe { len: 1, ..good });
    refuses!(ring, EINVAL, Sqe { ioprio: 1, ..good });
    refuses!(ring, EBADFD, multishot(&fd, 1));
    refuses!(ring, EBADF, multishot(&999, 1));
    Ok(())
}

fn fixed_vectors() -> Outcome {
    let ring = Ring::new(8)?;
    let fd = create(c"f", b"abcdef")?;
    let mut memory = AlignedBuffer::new(8192)?;
    register_buffers(&ring, &[vector(&mut memory)])?;
    let (first, second) = memory.split_at_mut(4095);
    let parts = [vector(&mut first[4093..]), vector(&mut second[..3])];
    let read = Sqe {
        opcode: IORING_OP_READV_FIXED as u8,
        ..Sqe::readv(&fd, &parts, 1)
    };
    gives!(ring, 5, read);
    let parts = [parts[1], parts[0]];
    let write = Sqe {
        opcode: IORING_OP_WRITEV_FIXED as u8,
        ..Sqe::readv(&fd, &parts, 0)
    };
    gives!(ring, 5, write);
    expect_eq!(&memory[4093..4098], b"bcdef");
    expect_eq!(contents(&fd)?, b"defbcf");
    Ok(())
}

fn fixed_vectors_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let fd = create(c"f", b"abcdef")?;
    let mut memory = AlignedBuffer::new(8192)?;
    let mut other = [0; 8];
    let inside = vector(&mut memory[..100]);
    let read = |vectors: &[libc::iovec]| Sqe {
        opcode: IORING_OP_READV_FIXED as u8,
        ..Sqe::readv(&fd, vectors, 0)
    };
    let one = [inside];
    refuses!(ring, EFAULT, read(&one));
    register_buffers(&ring, &[vector(&mut memory)])?;
    let bad = [inside, vector(&mut other)];
    refuses!(ring, EFAULT, read(&bad));
    let empty = [inside, vector(&mut memory[..0])];
    refuses!(ring, EFAULT, read(&empty));
    refuses!(
        ring,
        EFAULT,
        Sqe {
            buf_index: 1,
            ..read(&one)
        }
    );
    refuses!(ring, EBADF, read(&one).fd(999));
    refuses!(ring, EOPNOTSUPP, read(&one).flags(SELECT));
    gives!(ring, 6, read(&one));
    Ok(())
}
