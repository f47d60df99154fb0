//! What an SQE may say, opcode by opcode: the first errors that Linux finds.

use super::*;

const EBADF: i32 = -9;
const EFAULT: i32 = -14;
const EINVAL: i32 = -22;
const EOPNOTSUPP: i32 = -95;

#[test]
fn unknown_opcodes_and_flags_are_refused() {
    let program = Program::new(8, 0);
    for opcode in 0..=255 {
        if super::super::opcode::opcode(opcode).is_none() {
            let entry = Entry { opcode, ..nop() };
            assert_eq!(program.one(entry.flags(SELECT)), EINVAL, "{opcode}");
        }
    }
    assert_eq!(program.one(nop().flags(1 << 7)), EINVAL);
    assert_eq!(program.one(nop().flags(SELECT)), EOPNOTSUPP);
    assert_eq!(program.one(nop().flags(1 << 4)), 0);
    let with = |change: fn(&mut Entry)| {
        let mut entry = nop();
        change(&mut entry);
        entry
    };
    assert_eq!(program.one(with(|it| it.priority = 1)), EINVAL);
    assert_eq!(program.one(with(|it| it.personality = 1)), EINVAL);
}

#[test]
fn nop_does_what_tests_ask_for() {
    let mut program = Program::new(8, 0);
    let nop = |op_flags, fd| Entry {
        op_flags,
        fd,
        length: 77,
        ..nop()
    };
    assert_eq!(program.one(nop(0, 99).flags(FIXED)), 0);
    assert_eq!(program.one(nop(raw::IORING_NOP_INJECT_RESULT, 99)), 77);
    assert_eq!(program.one(nop(raw::IORING_NOP_FILE, 99)), EBADF);
    assert_eq!(program.one(nop(raw::IORING_NOP_FILE, program.fd)), 0);
    let fixed = raw::IORING_NOP_FILE | raw::IORING_NOP_FIXED_FILE;
    assert_eq!(program.one(nop(fixed, 0)), EBADF);
    assert_eq!(program.one(nop(raw::IORING_NOP_FIXED_BUFFER, 0)), EFAULT);
    let buffer = program.words(&[program.memory, 8]);
    assert_eq!(
        program.register(
            raw::io_uring_register_op::IORING_REGISTER_BUFFERS,
            buffer,
            1
        ),
        0
    );
    assert_eq!(program.one(nop(raw::IORING_NOP_FIXED_BUFFER, 0)), 0);
    assert_eq!(program.one(nop(raw::IORING_NOP_TW, 0)), 0);
    assert_eq!(program.one(nop(1 << 5, 0)), EINVAL);
}

#[test]
fn fsync_takes_no_more_than_it_needs() {
    let program = Program::new(8, 0);
    let file = program.open(Arc::new(Digits), OpenFlags::READ_WRITE);
    let (channel, _) = program.channel();
    let fsync = |fd| Entry {
        opcode: op::IORING_OP_FSYNC as u8,
        fd,
        ..nop()
    };
    assert_eq!(program.one(fsync(file)), 0);
    assert_eq!(program.one(fsync(channel)), EINVAL);
    assert_eq!(program.one(fsync(99)), EBADF);
    let with = |change: fn(&mut Entry)| {
        let mut entry = fsync(file);
        change(&mut entry);
        entry
    };
    assert_eq!(program.one(with(|it| it.op_flags = 1)), 0);
    assert_eq!(program.one(with(|it| it.op_flags = 2)), EINVAL);
    assert_eq!(program.one(with(|it| it.address = 1)), EINVAL);
    assert_eq!(program.one(with(|it| it.buffer = 1)), EINVAL);
    assert_eq!(program.one(with(|it| it.file_index = 1)), EINVAL);
    assert_eq!(program.one(with(|it| it.priority = 1)), EINVAL);
    assert_eq!(program.one(with(|it| it.offset = u64::MAX)), EINVAL);
    assert_eq!(program.one(with(|it| it.address3 = 1)), 0);
}

#[test]
fn close_closes_descriptors_but_no_rings() {
    let program = Program::new(8, 0);
    let close = |fd| Entry {
        opcode: op::IORING_OP_CLOSE as u8,
        fd,
        ..nop()
    };
    let (fd, channel) = program.channel();
    assert_eq!(program.one(close(fd).flags(FIXED)), EBADF);
    let changes: [fn(&mut Entry); 7] = [
        |it| it.offset = 1,
        |it| it.address = 1,
        |it| it.length = 1,
        |it| it.op_flags = 1,
        |it| it.buffer = 1,
        |it| it.priority = 1,
        |it| it.file_index = 1,
    ];
    for change in changes {
        let mut entry = close(fd);
        change(&mut entry);
        assert_eq!(program.one(entry), EINVAL);
    }
    assert_eq!(program.one(close(fd)), 0);
    assert_eq!(program.one(close(fd)), EBADF);
    assert_eq!(Arc::strong_count(&channel), 1);
    assert_eq!(program.one(close(program.fd)), EBADF);
    assert_eq!(program.one(close(-1)), EBADF);
    let path = program.open(channel, OpenFlags::PATH);
    assert_eq!(program.one(close(path)), 0);
}

#[test]
fn a_bad_sqe_ends_the_batch_unless_all_are_wanted() {
    for (flags, taken) in [(0, 2), (raw::IORING_SETUP_SUBMIT_ALL, 3)] {
        let program = Program::new(8, flags);
        program.push(nop().data(1));
        program.push(bad().data(2));
        program.push(nop().data(3));
        assert_eq!(program.submit(3), Ok(taken));
        let cqes = program.cqes();
        assert_eq!(cqes[..2], [(1, 0), (2, EINVAL)]);
        assert_eq!(cqes.len() as u32, taken);
        assert_eq!(program.word(program.params.sq_off.head), taken);
    }
}
