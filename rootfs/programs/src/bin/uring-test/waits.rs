//! What waits: POLL_ADD and POLL_REMOVE, LINK_TIMEOUT and TIMEOUT_REMOVE, futexes, and O_NONBLOCK.

use std::io::{Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU32;

use guest_programs::check::{Check, Outcome};
use guest_programs::ring::{Ring, Sqe, gives, milliseconds, refuses};
use guest_programs::{checks, expect, expect_eq, sys};
use libc::{ECANCELED, EINVAL, ETIME, O_NONBLOCK, POLLIN, POLLOUT, timespec};
use linux_raw_sys::general::{FUTEX2_PRIVATE, FUTEX2_SIZE_U32, futex_waitv};
use linux_raw_sys::io_uring::{
    IORING_CQE_F_MORE, IORING_LINK_TIMEOUT_UPDATE, IORING_POLL_ADD_MULTI,
    IORING_POLL_UPDATE_EVENTS, IORING_POLL_UPDATE_USER_DATA, IORING_TIMEOUT_ABS,
    IORING_TIMEOUT_UPDATE, io_uring_op,
};

pub(crate) const CHECKS: &[Check] = checks![
    poll_of_what_is_ready,
    poll_waits_and_is_told,
    poll_again_and_again,
    poll_is_removed,
    poll_is_changed,
    poll_fields,
    link_timeout_ends_what_waits,
    link_timeout_is_cancelled,
    link_timeout_needs_a_request,
    link_timeout_breaks_the_chain,
    timeout_is_removed,
    timeout_is_updated,
    timeout_remove_fields,
    futex_wakes_one_that_waits,
    futex_of_another_value,
    futex_of_many,
    futex_fields,
    nonblocking_files_wait,
    ranges_are_checked,
    failed_fsync_breaks_no_chain,
];

const LINK: u8 = 4;
const FOREVER: timespec = timespec {
    tv_sec: 1000,
    tv_nsec: 0,
};
const WORD: u32 = FUTEX2_SIZE_U32 | FUTEX2_PRIVATE;

fn poll(fd: &impl AsRawFd, events: i16) -> Sqe {
    Sqe::new(io_uring_op::IORING_OP_POLL_ADD)
        .fd(fd.as_raw_fd())
        .op_flags(events as u32)
}

fn remove(user_data: u64) -> Sqe {
    Sqe {
        fd: -1,
        addr: user_data,
        ..Sqe::new(io_uring_op::IORING_OP_POLL_REMOVE)
    }
}

fn link_timeout(time: &timespec) -> Sqe {
    Sqe {
        opcode: io_uring_op::IORING_OP_LINK_TIMEOUT as u8,
        ..Sqe::timeout(time, 0)
    }
}

fn timeout_remove(user_data: u64) -> Sqe {
    Sqe {
        fd: -1,
        addr: user_data,
        ..Sqe::new(io_uring_op::IORING_OP_TIMEOUT_REMOVE)
    }
}

fn futex(opcode: io_uring_op, word: &AtomicU32, value: u64, bits: u64) -> Sqe {
    Sqe {
        fd: WORD as i32,
        addr: word.as_ptr().addr() as u64,
        off: value,
        addr3: bits,
        ..Sqe::new(opcode)
    }
}

fn poll_of_what_is_ready() -> Outcome {
    let ring = Ring::new(4)?;
    let (reader, mut writer) = pipe()?;
    gives!(ring, POLLOUT as usize, poll(&writer, POLLOUT));
    writer.write_all(b"x")?;
    gives!(ring, POLLIN as usize, poll(&reader, POLLIN | POLLOUT));
    refuses!(ring, EBADF, poll(&99, POLLIN));
    Ok(())
}

fn poll_waits_and_is_told() -> Outcome {
    let ring = Ring::new(4)?;
    let (reader, mut writer) = pipe()?;
    ring.push(poll(&reader, POLLIN).data(1));
    ring.submit()?;
    ring.nothing_left()?;
    writer.write_all(b"x")?;
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res, cqe.flags), (1, POLLIN.into(), 0));
    ring.push(poll(&reader, POLLOUT).data(2));
    ring.submit()?;
    ring.nothing_left()?;
    drop(writer);
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res), (2, libc::POLLHUP.into()));
    Ok(())
}

fn poll_again_and_again() -> Outcome {
    let ring = Ring::new(4)?;
    let (mut reader, mut writer) = pipe()?;
    let repeated = Sqe {
        len: IORING_POLL_ADD_MULTI,
        ..poll(&reader, POLLIN)
    };
    ring.push(repeated.data(1));
    ring.submit()?;
    ring.nothing_left()?;
    for _ in 0..3 {
        writer.write_all(b"x")?;
        let cqe = ring.next()?;
        expect_eq!(
            (cqe.user_data, cqe.res, cqe.flags),
            (1, POLLIN.into(), IORING_CQE_F_MORE)
        );
        // What is read is no event for who waits for something to read.
        reader.read_exact(&mut [0])?;
        ring.nothing_left()?;
    }
    ring.push(remove(1).data(2));
    ring.submit()?;
    let mut ends = ring.take(2)?;
    ends.sort_by_key(|cqe| cqe.user_data);
    expect_eq!((ends[0].res, ends[0].flags), (-ECANCELED, 0));
    expect_eq!(ends[1].res, 0);
    Ok(())
}

fn poll_is_removed() -> Outcome {
    let ring = Ring::new(4)?;
    let (reader, _writer) = pipe()?;
    refuses!(ring, ENOENT, remove(7));
    ring.push(poll(&reader, POLLIN).data(7));
    ring.push(remove(7).data(8));
    ring.submit()?;
    let mut ends = ring.take(2)?;
    ends.sort_by_key(|cqe| cqe.user_data);
    expect_eq!((ends[0].user_data, ends[0].res), (7, -ECANCELED));
    expect_eq!((ends[1].user_data, ends[1].res), (8, 0));
    ring.nothing_left()
}

fn poll_is_changed() -> Outcome {
    let ring = Ring::new(4)?;
    let (reader, mut writer) = pipe()?;
    ring.push(poll(&reader, POLLOUT).data(7));
    let change = Sqe {
        len: IORING_POLL_UPDATE_EVENTS | IORING_POLL_UPDATE_USER_DATA,
        off: 9,
        ..remove(7)
    };
    ring.push(change.op_flags(POLLIN as u32).data(8));
    ring.submit()?;
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res), (8, 0));
    ring.nothing_left()?;
    writer.write_all(b"x")?;
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res), (9, POLLIN.into()));
    Ok(())
}

fn poll_fields() -> Outcome {
    let ring = Ring::new(4)?;
    let (_, writer) = pipe()?;
    let good = poll(&writer, POLLOUT);
    refuses!(ring, EINVAL, Sqe { off: 1, ..good });
    refuses!(ring, EINVAL, Sqe { addr: 1, ..good });
    refuses!(
        ring,
        EINVAL,
        Sqe {
            buf_index: 1,
            ..good
        }
    );
    refuses!(
        ring,
        EINVAL,
        Sqe {
            len: 1 << 5,
            ..good
        }
    );
    refuses!(
        ring,
        EINVAL,
        Sqe {
            off: 1,
            ..remove(1)
        }
    );
    refuses!(ring, EINVAL, remove(1).op_flags(1));
    refuses!(
        ring,
        EINVAL,
        Sqe {
            len: IORING_POLL_ADD_MULTI,
            ..remove(1)
        }
    );
    Ok(())
}

fn link_timeout_ends_what_waits() -> Outcome {
    let ring = Ring::new(4)?;
    let (reader, _writer) = pipe()?;
    let mut buffer = [0];
    let limit = milliseconds(20);
    let read = Sqe::read(&reader, &mut buffer, 0).flags(LINK);
    let results = ring.results(&[read, link_timeout(&limit)], 2)?;
    expect_eq!(results, [Some(-ECANCELED), Some(-ETIME)]);
    Ok(())
}

fn link_timeout_is_cancelled() -> Outcome {
    let ring = Ring::new(4)?;
    let limited = [Sqe::nop().flags(LINK), link_timeout(&FOREVER)];
    expect_eq!(ring.results(&limited, 2)?, [Some(0), Some(-ECANCELED)]);
    let (reader, mut writer) = pipe()?;
    let mut buffer = [0];
    ring.push(Sqe::read(&reader, &mut buffer, 0).flags(LINK).data(1));
    ring.push(link_timeout(&FOREVER).flags(LINK).data(2));
    ring.push(Sqe::nop().data(3));
    ring.submit()?;
    ring.nothing_left()?;
    writer.write_all(b"x")?;
    let mut ends = ring.take(3)?;
    ends.sort_by_key(|cqe| cqe.user_data);
    let ends: Vec<_> = ends.iter().map(|cqe| cqe.res).collect();
    expect_eq!(ends, [1, -ECANCELED, 0]);
    Ok(())
}

fn link_timeout_needs_a_request() -> Outcome {
    let ring = Ring::new(8)?;
    refuses!(ring, EINVAL, link_timeout(&FOREVER));
    let twice = [
        Sqe::nop().flags(LINK),
        link_timeout(&FOREVER).flags(LINK),
        link_timeout(&FOREVER),
    ];
    expect_eq!(
        ring.results(&twice, 3)?,
        [Some(-ECANCELED), Some(-ECANCELED), Some(-EINVAL)]
    );
    Ok(())
}

fn link_timeout_breaks_the_chain() -> Outcome {
    let ring = Ring::new(8)?;
    let (reader, _writer) = pipe()?;
    let mut buffer = [0];
    let limit = milliseconds(20);
    let chain = [
        Sqe::read(&reader, &mut buffer, 0).flags(LINK),
        link_timeout(&limit).flags(LINK),
        Sqe::nop(),
    ];
    expect_eq!(
        ring.results(&chain, 3)?,
        [Some(-ECANCELED), Some(-ETIME), Some(-ECANCELED)]
    );
    Ok(())
}

fn timeout_is_removed() -> Outcome {
    let ring = Ring::new(4)?;
    refuses!(ring, ENOENT, timeout_remove(7));
    ring.push(Sqe::timeout(&FOREVER, 0).data(7));
    ring.push(timeout_remove(7).data(8));
    ring.submit()?;
    let mut ends = ring.take(2)?;
    ends.sort_by_key(|cqe| cqe.user_data);
    expect_eq!((ends[0].res, ends[1].res), (-ECANCELED, 0));
    Ok(())
}

fn timeout_is_updated() -> Outcome {
    let ring = Ring::new(4)?;
    let soon = milliseconds(20);
    let at = std::ptr::from_ref(&soon).addr() as u64;
    ring.push(Sqe::timeout(&FOREVER, 0).data(7));
    let update = Sqe {
        off: at,
        ..timeout_remove(7)
    };
    ring.push(update.op_flags(IORING_TIMEOUT_UPDATE).data(8));
    ring.submit()?;
    let ends = ring.take(2)?;
    expect_eq!((ends[0].user_data, ends[0].res), (8, 0));
    expect_eq!((ends[1].user_data, ends[1].res), (7, -ETIME));
    let (reader, _writer) = pipe()?;
    let mut buffer = [0];
    ring.push(Sqe::read(&reader, &mut buffer, 0).flags(LINK).data(1));
    ring.push(link_timeout(&FOREVER).data(7));
    ring.submit()?;
    // With one of the flags alone it looks for a timeout of its own, to end it.
    refuses!(ring, ENOENT, update.op_flags(IORING_LINK_TIMEOUT_UPDATE));
    let both = IORING_TIMEOUT_UPDATE | IORING_LINK_TIMEOUT_UPDATE;
    ring.push(update.op_flags(both).data(8));
    ring.submit()?;
    expect_eq!(ring.next()?.res, 0);
    let mut ends = ring.take(2)?;
    ends.sort_by_key(|cqe| cqe.user_data);
    let ends: Vec<_> = ends.iter().map(|cqe| cqe.res).collect();
    expect_eq!(ends, [-ECANCELED, -ETIME]);
    Ok(())
}

fn timeout_remove_fields() -> Outcome {
    let ring = Ring::new(4)?;
    let good = timeout_remove(7);
    refuses!(ring, EINVAL, Sqe { len: 1, ..good });
    refuses!(
        ring,
        EINVAL,
        Sqe {
            buf_index: 1,
            ..good
        }
    );
    refuses!(
        ring,
        EINVAL,
        Sqe {
            file_index: 1,
            ..good
        }
    );
    refuses!(ring, EINVAL, good.op_flags(IORING_TIMEOUT_ABS));
    refuses!(
        ring,
        EFAULT,
        Sqe { off: 8, ..good }.op_flags(IORING_TIMEOUT_UPDATE)
    );
    Ok(())
}

fn futex_wakes_one_that_waits() -> Outcome {
    let ring = Ring::new(4)?;
    let word = AtomicU32::new(5);
    let wait = futex(io_uring_op::IORING_OP_FUTEX_WAIT, &word, 5, u32::MAX.into());
    let wake = futex(io_uring_op::IORING_OP_FUTEX_WAKE, &word, 1, u32::MAX.into());
    gives!(ring, 0, wake);
    ring.push(wait.data(1));
    ring.submit()?;
    ring.nothing_left()?;
    ring.push(wake.data(2));
    ring.submit()?;
    let mut ends = ring.take(2)?;
    ends.sort_by_key(|cqe| cqe.user_data);
    expect_eq!((ends[0].res, ends[1].res), (0, 1));
    Ok(())
}

fn futex_of_another_value() -> Outcome {
    let ring = Ring::new(4)?;
    let word = AtomicU32::new(5);
    let wait = futex(io_uring_op::IORING_OP_FUTEX_WAIT, &word, 6, u32::MAX.into());
    refuses!(ring, EAGAIN, wait);
    refuses!(
        ring,
        EINVAL,
        Sqe {
            addr3: 0,
            off: 5,
            ..wait
        }
    );
    refuses!(
        ring,
        EINVAL,
        Sqe {
            addr: wait.addr + 1,
            ..wait
        }
    );
    Ok(())
}

fn futex_of_many() -> Outcome {
    let ring = Ring::new(4)?;
    let words = [const { AtomicU32::new(0) }; 3];
    let vector = words.each_ref().map(|word| futex_waitv {
        val: 0,
        uaddr: word.as_ptr().addr() as u64,
        flags: WORD,
        __reserved: 0,
    });
    let wait = Sqe {
        addr: vector.as_ptr().addr() as u64,
        len: 3,
        ..Sqe::new(io_uring_op::IORING_OP_FUTEX_WAITV)
    };
    ring.push(wait.data(1));
    ring.submit()?;
    ring.nothing_left()?;
    let number = sys!(SYS_futex, words[2].as_ptr(), 1 | 128, 1, 0, 0, 0)?;
    expect_eq!(number, 1);
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res), (1, 2));
    refuses!(ring, EINVAL, Sqe { len: 0, ..wait });
    refuses!(ring, EINVAL, Sqe { len: 129, ..wait });
    refuses!(ring, EFAULT, Sqe { addr: 8, ..wait });
    Ok(())
}

fn futex_fields() -> Outcome {
    let ring = Ring::new(4)?;
    let word = AtomicU32::new(0);
    let wait = futex(io_uring_op::IORING_OP_FUTEX_WAIT, &word, 1, 1);
    refuses!(ring, EINVAL, Sqe { len: 1, ..wait });
    refuses!(ring, EINVAL, wait.op_flags(1));
    refuses!(ring, EINVAL, Sqe { fd: 0, ..wait });
    refuses!(
        ring,
        EINVAL,
        Sqe {
            fd: 1 << 10,
            ..wait
        }
    );
    refuses!(
        ring,
        EINVAL,
        Sqe {
            off: 1 << 32,
            ..wait
        }
    );
    Ok(())
}

fn nonblocking_files_wait() -> Outcome {
    let ring = Ring::new(4)?;
    let (reader, mut writer) = pipe()?;
    sys!(SYS_fcntl, reader.as_raw_fd(), libc::F_SETFL, O_NONBLOCK)?;
    let mut buffer = [0];
    ring.push(Sqe::read(&reader, &mut buffer, 0).data(1));
    ring.submit()?;
    ring.nothing_left()?;
    writer.write_all(b"x")?;
    expect_eq!(ring.next()?.res, 1);
    const RWF_NOWAIT: u32 = 8;
    refuses!(
        ring,
        EAGAIN,
        Sqe::read(&reader, &mut buffer, 0).op_flags(RWF_NOWAIT)
    );
    Ok(())
}

fn ranges_are_checked() -> Outcome {
    let ring = Ring::new(4)?;
    let file = sys::create(c"/tmp/uring-ranges", b"0123456789")?;
    let truncate = |size| Sqe {
        fd: file.as_raw_fd(),
        off: size,
        ..Sqe::new(io_uring_op::IORING_OP_FTRUNCATE)
    };
    gives!(ring, 0, truncate(4));
    expect_eq!(sys::contents(&file)?, b"0123");
    refuses!(ring, EINVAL, truncate(1 << 63));
    let allocate = |offset, length| Sqe {
        fd: file.as_raw_fd(),
        off: offset,
        addr: length,
        ..Sqe::new(io_uring_op::IORING_OP_FALLOCATE)
    };
    gives!(ring, 0, allocate(0, 6));
    expect_eq!(sys::contents(&file)?, b"0123\0\0");
    refuses!(ring, EINVAL, allocate(0, 0));
    let advise = |advice| Sqe {
        fd: file.as_raw_fd(),
        ..Sqe::new(io_uring_op::IORING_OP_FADVISE).op_flags(advice)
    };
    gives!(ring, 0, advise(1));
    refuses!(ring, EINVAL, advise(77));
    let (reader, _writer) = pipe()?;
    refuses!(ring, ESPIPE, advise(1).fd(reader.as_raw_fd()));
    let range = Sqe::new(io_uring_op::IORING_OP_SYNC_FILE_RANGE).fd(file.as_raw_fd());
    gives!(ring, 0, Sqe { len: 4, ..range });
    refuses!(ring, EINVAL, range.op_flags(64));
    // None of these failures breaks a chain, but that of FADVISE.
    let bad = [allocate(0, 0), truncate(1 << 63), range.op_flags(64)];
    for bad in bad {
        let chain = [bad.flags(LINK), Sqe::nop()];
        expect_eq!(ring.results(&chain, 2)?, [Some(-EINVAL), Some(0)]);
    }
    let chain = [advise(77).flags(LINK), Sqe::nop()];
    expect_eq!(ring.results(&chain, 2)?, [Some(-EINVAL), Some(-ECANCELED)]);
    Ok(())
}

fn failed_fsync_breaks_no_chain() -> Outcome {
    let ring = Ring::new(4)?;
    let (reader, _writer) = pipe()?;
    let chain = [Sqe::fsync(&reader).flags(LINK), Sqe::nop()];
    expect_eq!(ring.results(&chain, 2)?, [Some(-EINVAL), Some(0)]);
    let negative = Sqe {
        off: 1 << 63,
        ..Sqe::fsync(&reader)
    };
    ring.push(negative.data(1));
    ring.push(Sqe::nop().data(2));
    // It is refused as it is prepared, which ends the batch.
    expect_eq!(ring.enter(2, 0, 0)?, 1);
    expect_eq!(ring.next()?.res, -EINVAL);
    expect!(ring.queued() == 1);
    Ok(())
}
