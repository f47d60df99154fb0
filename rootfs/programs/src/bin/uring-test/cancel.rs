//! ASYNC_CANCEL, with timeouts as the requests that wait.

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::create;
use guest_programs::{checks, expect, expect_eq};
use libc::timespec;
use linux_raw_sys::io_uring::{
    IORING_ASYNC_CANCEL_ALL, IORING_ASYNC_CANCEL_ANY, IORING_ASYNC_CANCEL_FD,
    IORING_ASYNC_CANCEL_FD_FIXED, IORING_ASYNC_CANCEL_OP, IORING_ASYNC_CANCEL_USERDATA,
    io_uring_op,
};
use std::io::Write;
use std::os::fd::AsRawFd;

use crate::fixed::register_files;
use guest_programs::ring::{Ring, Sqe, milliseconds, refuses};

pub(crate) const CHECKS: &[Check] = checks![
    cancel_by_user_data,
    cancel_of_nothing,
    cancel_the_first_only,
    cancel_all_with_user_data,
    cancel_any,
    cancel_any_one,
    cancel_by_file,
    cancel_by_file_errors,
    cancel_by_operation,
    cancel_flags,
    cancel_fields,
    cancel_spares_others,
    cancel_breaks_a_chain,
    cancel_many,
];

const FOREVER: timespec = timespec {
    tv_sec: 1000,
    tv_nsec: 0,
};

/// Submits timeouts with these user data, and then a cancellation with user data 1000.
///
/// Gives the cancellation's result, and the user data of the requests it ended.
fn cancelled(
    ring: &Ring,
    waiting: &[u64],
    cancel: Sqe,
) -> Result<(i32, Vec<u64>), guest_programs::check::Failure> {
    for user_data in waiting {
        ring.push(Sqe::timeout(&FOREVER, 0).data(*user_data));
    }
    ring.push(cancel.data(1000));
    ring.submit()?;
    let mut result = None;
    let mut ended = Vec::new();
    // A wait that times out is the end: nothing else was ended.
    while ring.ready() > 0 || ring.wait_at_most(1, &milliseconds(20)).is_ok() {
        let cqe = ring.next()?;
        if cqe.user_data == 1000 {
            result = Some(cqe.res);
        } else {
            expect_eq!(cqe.res, -libc::ECANCELED);
            ended.push(cqe.user_data);
        }
    }
    ended.sort_unstable();
    let result = result.ok_or_else(|| guest_programs::check::Failure::new("no result"))?;
    Ok((result, ended))
}

fn cancel_by_user_data() -> Outcome {
    let ring = Ring::new(8)?;
    expect_eq!(cancelled(&ring, &[5, 6], Sqe::cancel(6, 0))?, (0, vec![6]));
    expect_eq!(cancelled(&ring, &[], Sqe::cancel(5, 0))?, (0, vec![5]));
    Ok(())
}

fn cancel_of_nothing() -> Outcome {
    let ring = Ring::new(8)?;
    refuses!(ring, ENOENT, Sqe::cancel(5, 0));
    expect_eq!(
        cancelled(&ring, &[5], Sqe::cancel(6, 0))?,
        (-libc::ENOENT, vec![])
    );
    Ok(())
}

fn cancel_the_first_only() -> Outcome {
    let ring = Ring::new(8)?;
    expect_eq!(
        cancelled(&ring, &[5, 5, 5], Sqe::cancel(5, 0))?,
        (0, vec![5])
    );
    Ok(())
}

fn cancel_all_with_user_data() -> Outcome {
    let ring = Ring::new(8)?;
    let cancel = Sqe::cancel(5, IORING_ASYNC_CANCEL_ALL);
    expect_eq!(cancelled(&ring, &[5, 6, 5, 5], cancel)?, (3, vec![5, 5, 5]));
    // With ALL, the result is how many there were: none is no error.
    expect_eq!(cancelled(&ring, &[], cancel)?, (0, vec![]));
    Ok(())
}

fn cancel_any() -> Outcome {
    let ring = Ring::new(8)?;
    let all = Sqe::cancel(0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
    expect_eq!(cancelled(&ring, &[5, 6, 7], all)?, (3, vec![5, 6, 7]));
    expect_eq!(cancelled(&ring, &[], all)?, (0, vec![]));
    // ANY alone means all, too.
    let any = Sqe::cancel(0, IORING_ASYNC_CANCEL_ANY);
    expect_eq!(cancelled(&ring, &[5, 6], any)?, (2, vec![5, 6]));
    Ok(())
}

fn cancel_any_one() -> Outcome {
    let ring = Ring::new(8)?;
    let any = Sqe::cancel(0, IORING_ASYNC_CANCEL_ANY);
    expect_eq!(cancelled(&ring, &[5], any)?, (1, vec![5]));
    Ok(())
}

fn cancel_by_file() -> Outcome {
    let ring = Ring::new(8)?;
    let fd = create(c"f", b"")?;
    // Timeouts have no file.
    let cancel = Sqe::cancel(0, IORING_ASYNC_CANCEL_FD).fd(fd.as_raw_fd());
    expect_eq!(cancelled(&ring, &[5, 6], cancel)?, (-libc::ENOENT, vec![]));
    register_files(&ring, &[fd.as_raw_fd()])?;
    let fixed = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_FD_FIXED;
    let cancel = Sqe::cancel(0, fixed).fd(0);
    expect_eq!(cancelled(&ring, &[], cancel)?, (-libc::ENOENT, vec![]));
    Ok(())
}

fn cancel_by_file_errors() -> Outcome {
    let ring = Ring::new(8)?;
    refuses!(ring, EBADF, Sqe::cancel(0, IORING_ASYNC_CANCEL_FD).fd(999));
    let fixed = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_FD_FIXED;
    refuses!(ring, EBADF, Sqe::cancel(0, fixed).fd(0));
    let both = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ANY;
    refuses!(ring, EINVAL, Sqe::cancel(0, both).fd(0));
    Ok(())
}

fn cancel_by_operation() -> Outcome {
    let ring = Ring::new(8)?;
    let operation = |len| Sqe {
        len,
        ..Sqe::cancel(0, IORING_ASYNC_CANCEL_OP | IORING_ASYNC_CANCEL_ALL)
    };
    let (read, timeout) = (io_uring_op::IORING_OP_READ, io_uring_op::IORING_OP_TIMEOUT);
    expect_eq!(
        cancelled(&ring, &[5, 6], operation(read as u32))?,
        (0, vec![])
    );
    expect_eq!(
        cancelled(&ring, &[], operation(timeout as u32))?,
        (2, vec![5, 6])
    );
    let both = Sqe {
        len: timeout as u32,
        ..Sqe::cancel(8, IORING_ASYNC_CANCEL_OP | IORING_ASYNC_CANCEL_USERDATA)
    };
    expect_eq!(cancelled(&ring, &[7, 8], both)?, (0, vec![8]));
    Ok(())
}

fn cancel_flags() -> Outcome {
    let ring = Ring::new(8)?;
    refuses!(ring, EINVAL, Sqe::cancel(0, 1 << 31));
    refuses!(ring, EINVAL, Sqe::cancel(0, 1 << 6));
    Ok(())
}

fn cancel_fields() -> Outcome {
    let ring = Ring::new(8)?;
    let cancel = Sqe::cancel(5, 0);
    refuses!(ring, EINVAL, Sqe { off: 1, ..cancel });
    refuses!(
        ring,
        EINVAL,
        Sqe {
            file_index: 1,
            ..cancel
        }
    );
    Ok(())
}

fn cancel_spares_others() -> Outcome {
    let ring = Ring::new(8)?;
    let (reader, mut writer) = std::io::pipe()?;
    let mut byte = [0];
    ring.push(Sqe::read(&reader, &mut byte, 0).data(1));
    expect_eq!(cancelled(&ring, &[2], Sqe::cancel(2, 0))?, (0, vec![2]));
    writer.write_all(&[7])?;
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res, byte), (1, 1, [7]));
    Ok(())
}

fn cancel_breaks_a_chain() -> Outcome {
    let ring = Ring::new(8)?;
    ring.push(Sqe::timeout(&FOREVER, 0).data(1).flags(crate::links::LINK));
    ring.push(Sqe::nop().data(2));
    expect_eq!(cancelled(&ring, &[], Sqe::cancel(1, 0))?, (0, vec![1, 2]));
    Ok(())
}

fn cancel_many() -> Outcome {
    let ring = Ring::new(256)?;
    let waiting: Vec<u64> = (0..200).collect();
    let all = Sqe::cancel(0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
    let (count, ended) = cancelled(&ring, &waiting, all)?;
    expect!(count == 200 && ended == waiting);
    Ok(())
}
