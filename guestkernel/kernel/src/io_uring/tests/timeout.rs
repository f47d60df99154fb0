//! Timeouts.

use super::*;
use crate::io_uring::tests::read_write::read;
use machine::clock;

const EFAULT: i32 = -14;
const EINVAL: i32 = -22;
const ETIME: i32 = -62;
const MS: u64 = 1_000_000;

/// A timeout of `ns` nanoseconds.
pub(super) fn timeout(program: &mut Program, ns: u64) -> Entry {
    Entry {
        opcode: op::IORING_OP_TIMEOUT as u8,
        fd: -1,
        length: 1,
        address: program.words(&[ns / 1_000_000_000, ns % 1_000_000_000]),
        ..nop()
    }
}

#[test]
fn what_a_timeout_may_say() {
    let mut program = Program::new(8, 0);
    let base = timeout(&mut program, MS);
    assert_eq!(program.one(base), ETIME);
    assert_eq!(program.one(base.flags(FIXED)), ETIME);
    let changes: [fn(&mut Entry); 11] = [
        |it| it.op_flags = raw::IORING_TIMEOUT_UPDATE,
        |it| it.op_flags = raw::IORING_LINK_TIMEOUT_UPDATE,
        |it| it.op_flags = raw::IORING_TIMEOUT_CLOCK_MASK,
        |it| it.op_flags = raw::IORING_TIMEOUT_MULTISHOT | raw::IORING_TIMEOUT_ABS,
        |it| it.buffer = 1,
        |it| it.file_index = 1,
        |it| it.address3 = 1,
        |it| it.attributes = 1,
        |it| it.priority = 1,
        |it| it.length = 0,
        |it| it.length = 2,
    ];
    for change in changes {
        let mut entry = base;
        change(&mut entry);
        assert_eq!(program.one(entry), EINVAL, "{entry:?}");
    }
    assert_eq!(program.one(Entry { address: 8, ..base }), EFAULT);
    for time in [[0, u64::MAX], [u64::MAX, 0]] {
        let address = program.words(&time);
        assert_eq!(program.one(Entry { address, ..base }), EINVAL);
    }
    let now = timeout(&mut program, 0);
    assert_eq!(program.one(now), ETIME);
}

#[test]
fn clocks() {
    let mut program = Program::new(8, 0);
    let clocks: [(u32, fn() -> u64); 3] = [
        (0, clock::monotonic),
        (raw::IORING_TIMEOUT_BOOTTIME, clock::monotonic),
        (raw::IORING_TIMEOUT_REALTIME, clock::realtime),
    ];
    for (flags, now) in clocks {
        let entry = timeout(&mut program, now() + 5 * MS);
        let op_flags = flags | raw::IORING_TIMEOUT_ABS;
        let start = clock::monotonic();
        assert_eq!(program.one(Entry { op_flags, ..entry }), ETIME);
        let took = clock::monotonic() - start;
        assert!((MS..2000 * MS).contains(&took), "{took}");
    }
}

#[test]
fn cqes_end_it() {
    let mut program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let counting = Entry {
        offset: 2,
        ..timeout(&mut program, 60_000 * MS)
    };
    let reading = read(fd, program.memory, 1);
    // Those of its own batch count, before it or after it.
    let cqes = program.run(&[nop().data(1), counting.data(2), nop().data(3)]);
    assert_eq!(cqes, [(1, 0), (3, 0), (2, 0)]);
    let cqes = program.run(&[
        reading.data(1),
        counting.data(2).flags(LINK),
        nop().data(3),
        nop().data(4),
    ]);
    assert_eq!(cqes, [(4, 0)]);
    channel.feed(b"x");
    program.wait(3);
    assert_eq!(program.cqes(), [(1, 1), (2, 0), (3, 0)]);
}

#[test]
fn firing_does_not_count_for_others_and_breaks_chains_unless_asked_not_to() {
    let mut program = Program::new(8, 0);
    let counting = Entry {
        offset: 1,
        ..timeout(&mut program, 20 * MS)
    };
    let short = timeout(&mut program, MS);
    let cqes = program.run(&[counting.data(1)]);
    assert_eq!(cqes, []);
    assert_eq!(program.one(short.data(2)), ETIME);
    program.wait(1);
    assert_eq!(program.cqes(), [(1, ETIME)]);
    let as_success = Entry {
        op_flags: raw::IORING_TIMEOUT_ETIME_SUCCESS,
        ..short
    };
    for (entry, next) in [(short, -125), (as_success, 0)] {
        assert_eq!(program.run(&[entry.data(1).flags(LINK), nop().data(2)]), []);
        program.wait(2);
        assert_eq!(program.cqes(), [(1, ETIME), (2, next)]);
    }
}

#[test]
fn a_repeated_one_says_whether_more_come() {
    let mut program = Program::new(8, 0);
    let entry = Entry {
        op_flags: raw::IORING_TIMEOUT_MULTISHOT,
        offset: 3,
        ..timeout(&mut program, MS)
    };
    program.push(entry.data(1));
    assert_eq!(program.submit(1), Ok(1));
    let mut flags = Vec::new();
    while flags.len() < 3 {
        program.wait(1);
        while let Some((user_data, result, more)) = program.pop() {
            assert_eq!((user_data, result), (1, ETIME));
            flags.push(more);
        }
    }
    let more = raw::IORING_CQE_F_MORE;
    assert_eq!(flags, [more, more, 0]);
}
