//! Cancellation.

use super::read_write::read;
use super::timeout::timeout;
use super::*;

const ENOENT: i32 = -2;
const EBADF: i32 = -9;
const EINVAL: i32 = -22;
const EALREADY: i32 = -114;
const CANCELED: i32 = -125;
const LONG: u64 = 300_000_000;

fn cancel(op_flags: u32, user_data: u64) -> Entry {
    Entry {
        opcode: op::IORING_OP_ASYNC_CANCEL as u8,
        fd: -1,
        address: user_data,
        op_flags,
        user_data: 99,
        ..nop()
    }
}

#[test]
fn what_a_cancellation_may_say() {
    let program = Program::new(8, 0);
    let (fd, _channel) = program.channel();
    assert_eq!(program.one(cancel(0, 5)), ENOENT);
    for (flags, result) in [
        (raw::IORING_ASYNC_CANCEL_ALL, 0),
        (raw::IORING_ASYNC_CANCEL_FD, EBADF),
        (raw::IORING_ASYNC_CANCEL_ANY, 0),
        (raw::IORING_ASYNC_CANCEL_FD_FIXED, ENOENT),
        (raw::IORING_ASYNC_CANCEL_USERDATA, ENOENT),
        (raw::IORING_ASYNC_CANCEL_OP, ENOENT),
        (1 << 6, EINVAL),
        (
            raw::IORING_ASYNC_CANCEL_FD | raw::IORING_ASYNC_CANCEL_ANY,
            EINVAL,
        ),
        (
            raw::IORING_ASYNC_CANCEL_OP | raw::IORING_ASYNC_CANCEL_ANY,
            EINVAL,
        ),
    ] {
        assert_eq!(program.one(cancel(flags, 7)), result, "{flags:x}");
    }
    let by_fd = |flags, fd| Entry {
        fd,
        ..cancel(flags | raw::IORING_ASYNC_CANCEL_FD, 7)
    };
    assert_eq!(program.one(by_fd(0, fd)), ENOENT);
    assert_eq!(program.one(by_fd(raw::IORING_ASYNC_CANCEL_ALL, fd)), 0);
    assert_eq!(
        program.one(by_fd(raw::IORING_ASYNC_CANCEL_FD_FIXED, 0)),
        EBADF
    );
    assert_eq!(program.one(by_fd(0, 0).flags(FIXED)), EBADF);
    assert_eq!(program.one(cancel(0, 5).flags(SELECT)), -95);
    let changes: [fn(&mut Entry); 3] = [
        |it| it.offset = 1,
        |it| it.file_index = 1,
        |it| it.priority = 1,
    ];
    for change in changes {
        let mut entry = cancel(0, 5);
        change(&mut entry);
        assert_eq!(program.one(entry), EINVAL);
    }
}

#[test]
fn one_or_all_that_match() {
    let mut program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let long = timeout(&mut program, LONG);
    let reading = read(fd, program.memory, 1);
    let cqes = program.run(&[long.data(2), long.data(2), cancel(1, 2)]);
    assert_eq!(cqes, [(99, 2), (2, CANCELED), (2, CANCELED)]);

    let start = [reading.data(1), reading.data(2), long.data(2), long.data(3)];
    assert_eq!(program.run(&start), []);
    assert_eq!(program.run(&[cancel(0, 2)]), [(99, 0), (2, CANCELED)]);
    let by_fd = Entry {
        fd,
        ..cancel(
            raw::IORING_ASYNC_CANCEL_FD | raw::IORING_ASYNC_CANCEL_ALL,
            0,
        )
    };
    assert_eq!(program.run(&[by_fd]), [(99, 1), (1, CANCELED)]);
    let by_opcode = Entry {
        length: op::IORING_OP_TIMEOUT as u32,
        ..cancel(raw::IORING_ASYNC_CANCEL_OP, 0)
    };
    assert_eq!(program.run(&[by_opcode]), [(99, 0), (2, CANCELED)]);
    let both = Entry {
        length: op::IORING_OP_TIMEOUT as u32,
        ..cancel(
            raw::IORING_ASYNC_CANCEL_OP | raw::IORING_ASYNC_CANCEL_USERDATA,
            4,
        )
    };
    assert_eq!(program.run(&[both]), [(99, ENOENT)]);
    let any = cancel(raw::IORING_ASYNC_CANCEL_ANY, 0);
    assert_eq!(program.run(&[any]), [(99, 1), (3, CANCELED)]);
    // Nothing of what was cancelled comes back.
    channel.feed(b"x");
    assert_eq!(program.run(&[nop()]), [(0, 0)]);
}

#[test]
fn a_cancelled_request_breaks_its_chain() {
    let program = Program::new(8, 0);
    let (fd, _channel) = program.channel();
    let reading = read(fd, program.memory, 1).data(1);
    let cqes = program.run(&[reading.flags(LINK), nop().data(2), cancel(0, 1)]);
    assert_eq!(cqes, [(99, 0), (1, CANCELED), (2, CANCELED)]);
    let cqes = program.run(&[reading.flags(HARD_LINK), nop().data(2), cancel(0, 1)]);
    assert_eq!(cqes, [(99, 0), (1, CANCELED), (2, 0)]);
}

#[test]
fn what_waits_for_its_turn_is_not_found_and_what_runs_not_stopped() {
    let program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let reading = read(fd, program.memory, 1).data(1);
    let cqes = program.run(&[reading.flags(LINK), nop().data(2), cancel(0, 2)]);
    assert_eq!(cqes, [(99, ENOENT)]);
    channel.feed(b"x");
    program.wait(2);
    assert_eq!(program.cqes(), [(1, 1), (2, 0)]);

    let file = program.open(Arc::new(Digits), OpenFlags::READ_WRITE);
    let syncing = Entry {
        opcode: op::IORING_OP_FSYNC as u8,
        fd: file,
        ..nop()
    };
    program.push(syncing.data(5));
    program.push(cancel(0, 5));
    assert_eq!(program.enter(2, 0, 0), Ok(2));
    program.wait(2);
    let mut cqes = program.cqes();
    cqes.sort_unstable();
    assert_eq!(cqes, [(5, 0), (99, EALREADY)]);
}
