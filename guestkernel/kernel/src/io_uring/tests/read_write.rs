//! Reads and writes.

use super::*;
use raw::io_uring_register_op as register_op;

const EBADF: i32 = -9;
const EAGAIN: i32 = -11;
const EFAULT: i32 = -14;
const EINVAL: i32 = -22;
const EOPNOTSUPP: i32 = -95;

pub(super) fn read(fd: i32, address: u64, length: u32) -> Entry {
    Entry {
        opcode: op::IORING_OP_READ as u8,
        fd,
        address,
        length,
        ..nop()
    }
}

pub(super) fn write(fd: i32, address: u64, length: u32) -> Entry {
    Entry {
        opcode: op::IORING_OP_WRITE as u8,
        ..read(fd, address, length)
    }
}

/// A program with 0 to 15 at position 0 to 15 of a file.
fn program() -> (Program, i32) {
    let program = Program::new(8, 0);
    let fd = program.open(Arc::new(Digits), OpenFlags::READ_WRITE);
    (program, fd)
}

#[test]
fn reading_at_a_position_and_at_the_files_own() {
    let (program, fd) = program();
    let at = |offset| Entry {
        offset,
        ..read(fd, program.memory, 4)
    };
    assert_eq!(program.one(at(3)), 4);
    assert_eq!(program.read_memory(program.memory), [3, 4, 5, 6]);
    assert_eq!(program.one(at(u64::MAX)), 4);
    assert_eq!(program.read_memory(program.memory), [0, 1, 2, 3]);
    assert_eq!(program.one(at(u64::MAX)), 4);
    assert_eq!(program.read_memory(program.memory), [4, 5, 6, 7]);
    assert_eq!(program.one(at(14)), 2);
    assert_eq!(program.one(at(16)), 0);
    assert_eq!(program.one(at(u64::MAX - 1)), EINVAL);
    assert_eq!(program.one(at(i64::MAX as u64 - 1)), EINVAL);
}

#[test]
fn files_are_open_for_some_things_only() {
    let (program, _) = program();
    let memory = program.memory;
    let reader = program.open(Arc::new(Digits), OpenFlags::empty());
    let writer = program.open(Arc::new(Digits), OpenFlags::WRITE_ONLY);
    let path = program.open(Arc::new(Digits), OpenFlags::PATH);
    assert_eq!(program.one(read(reader, memory, 1)), 1);
    assert_eq!(program.one(write(reader, memory, 1)), EBADF);
    assert_eq!(program.one(read(writer, memory, 1)), EBADF);
    assert_eq!(program.one(read(path, memory, 1)), EBADF);
    assert_eq!(program.one(read(99, memory, 1)), EBADF);
    assert_eq!(program.one(read(-1, memory, 1)), EBADF);
    // A ring cannot be read, which a request finds out when there are CQEs.
    program.push(read(program.fd, memory, 1).data(1));
    assert_eq!(program.submit(1), Ok(1));
    assert_eq!(program.pop(), None);
    program.push(nop().data(2));
    assert_eq!(program.submit(1), Ok(1));
    crate::executor::block_on(crate::executor::yield_now());
    assert_eq!(program.pop(), Some((2, 0, 0)));
    assert_eq!(program.pop(), Some((1, EINVAL, 0)));
}

#[test]
fn memory_must_be_the_programs() {
    let (program, fd) = program();
    assert_eq!(program.one(read(fd, 8, 4)), EFAULT);
    assert_eq!(program.one(read(fd, 0, 0)), 0);
    assert_eq!(program.one(read(fd, 1 << 63, 0)), EFAULT);
    assert_eq!(program.one(read(99, 1 << 63, 4)), EFAULT);
    assert_eq!(program.one(read(fd, 0x7fff_ffff_ffff, 4)), EFAULT);
    // The range is checked at submission, the pages when they are used.
    program.push(read(fd, 1 << 63, 4));
    program.push(nop());
    assert_eq!(program.submit(2), Ok(1));
    program.push(read(fd, 8, 4));
    assert_eq!(program.submit(2), Ok(2));
}

#[test]
fn vectors_are_read_at_submission() {
    let (mut program, fd) = program();
    let memory = program.memory + 0x1000;
    let vector = program.words(&[memory, 3, memory + 8, 2, 0, 0]);
    let readv = |address, length| Entry {
        opcode: op::IORING_OP_READV as u8,
        ..read(fd, address, length)
    };
    assert_eq!(program.one(readv(vector, 3)), 5);
    assert_eq!(
        program.read_memory(memory),
        [0, 1, 2, 0, 0, 0, 0, 0, 3, 4, 0]
    );
    assert_eq!(program.one(readv(vector, 0)), 0);
    assert_eq!(program.one(readv(8, 0)), 0);
    assert_eq!(program.one(readv(8, 1)), EFAULT);
    assert_eq!(program.one(readv(vector, 1025)), EINVAL);
    let too_long = program.words(&[memory, 3, memory, u64::MAX]);
    assert_eq!(program.one(readv(too_long, 2)), EINVAL);
    let foreign = program.words(&[memory, 3, 1 << 63, 5]);
    assert_eq!(program.one(readv(foreign, 2)), EFAULT);
    let missing = program.words(&[memory, 3, 8, 5]);
    assert_eq!(program.one(readv(missing, 2)), 3);
    assert_eq!(program.one(readv(vector, 2).flags(SELECT)), EINVAL);

    let (pipe, channel) = program.channel();
    program.push(Entry {
        fd: pipe,
        ..readv(vector, 1)
    });
    assert_eq!(program.submit(1), Ok(1));
    program.process.space.write(vector, &[0; 16]).unwrap();
    channel.feed(b"abc");
    program.wait(1);
    assert_eq!(program.cqes(), [(0, 3)]);
    assert_eq!(program.read_memory(memory), *b"abc");
}

#[test]
fn flags_and_priorities_are_checked() {
    let (program, fd) = program();
    let with = |op_flags, priority| Entry {
        op_flags,
        priority,
        ..read(fd, program.memory, 4)
    };
    for (flags, result) in [
        (0x01, EINVAL),
        (0x02, 4),
        (0x04, 4),
        (0x08, 4),
        (0x10, 4),
        (0x20, 4),
        (0x30, EINVAL),
        (0x40, EOPNOTSUPP),
        (0x80, EOPNOTSUPP),
        (0x100, 4),
        (0x200, EOPNOTSUPP),
    ] {
        assert_eq!(program.one(with(flags, 0)), result, "{flags:x}");
    }
    for (priority, result) in [
        (1, EINVAL),
        (1 << 13 | 3, 4),
        (2 << 13 | 9, 4),
        (3 << 13 | 7, 4),
        (4 << 13, EINVAL),
        (7 << 13, EINVAL),
    ] {
        assert_eq!(program.one(with(0, priority)), result, "{priority:x}");
    }
    let mut entry = with(0, 0);
    entry.file_index = 1;
    entry.address3 = 1;
    assert_eq!(program.one(entry), 4);
    entry.attributes = 2;
    assert_eq!(program.one(entry), EINVAL);
    // There are no buffer groups to select from.
    assert_eq!(program.one(with(0, 0).flags(SELECT)), -105);
    let write = write(fd, program.memory, 4);
    assert_eq!(program.one(write.flags(SELECT)), EOPNOTSUPP);
}

#[test]
fn a_read_that_waits_is_polled_when_it_is_woken() {
    for flags in [
        0,
        raw::IORING_SETUP_COOP_TASKRUN,
        raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN,
    ] {
        let program = Program::new(8, flags);
        let (fd, channel) = program.channel();
        assert_eq!(program.run(&[read(fd, program.memory, 8).data(7)]), []);
        assert_eq!(program.submit(0), Ok(0));
        assert_eq!(channel.polls.load(Ordering::Relaxed), 1);
        channel.feed(b"hello");
        program.wait(1);
        assert_eq!(program.cqes(), [(7, 5)]);
        assert_eq!(program.read_memory(program.memory), *b"hello");
        assert_eq!(channel.polls.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn a_stream_takes_any_position_and_need_not_wait() {
    let program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    channel.feed(b"abc");
    let at = |offset, op_flags| Entry {
        offset,
        op_flags,
        ..read(fd, program.memory, 2)
    };
    assert_eq!(program.one(at(5, 0)), 2);
    assert_eq!(program.one(at(u64::MAX - 1, 0x08)), EINVAL);
    assert_eq!(program.one(at(0, 0x08)), 1);
    assert_eq!(program.one(at(0, 0x08)), EAGAIN);
}

/// A pipe that nobody reads.
struct Broken;

impl FileOps for Broken {
    fn poll_io(&self, _: &mut Io, _: &mut Context<'_>) -> Poll<Result<usize>> {
        Poll::Ready(Err(Errno::EPIPE))
    }
}

#[test]
fn writing_to_nobody_sends_a_signal_unless_it_must_not() {
    const NOSIGNAL: u32 = 0x100;
    for (op_flags, is_sent) in [(NOSIGNAL, false), (0, true)] {
        let program = Program::new(8, 0);
        let fd = program.open(Arc::new(Broken), OpenFlags::READ_WRITE);
        let write = Entry {
            op_flags,
            ..write(fd, program.memory, 1)
        };
        assert_eq!(program.one(write), -32);
        assert_eq!(program.process.is_ending(), is_sent);
    }
}

#[test]
fn completions_show_without_a_system_call_unless_they_are_deferred() {
    for (flags, is_shown) in [
        (0, true),
        (
            raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN,
            false,
        ),
    ] {
        let program = Program::new(8, flags);
        let (fd, channel) = program.channel();
        assert_eq!(program.run(&[read(fd, program.memory, 8)]), []);
        channel.feed(b"x");
        for _ in 0..100 {
            executor::block_on(executor::yield_now());
        }
        assert_eq!(program.pop().is_some(), is_shown);
    }
}

#[test]
fn registered_buffers_and_files() {
    let (mut program, fd) = program();
    let memory = program.memory + 0x1ffe;
    let fixed = |address, length, buffer| Entry {
        opcode: op::IORING_OP_READ_FIXED as u8,
        buffer,
        ..read(fd, address, length)
    };
    assert_eq!(program.one(fixed(memory, 4, 0)), EFAULT);
    let buffers = program.words(&[memory, 4096, 0, 0]);
    assert_eq!(
        program.register(register_op::IORING_REGISTER_BUFFERS, buffers, 2),
        0
    );
    assert_eq!(program.one(fixed(memory, 4, 0)), 4);
    assert_eq!(program.read_memory(memory), [0, 1, 2, 3]);
    assert_eq!(program.one(fixed(memory + 4092, 4, 0)), 4);
    for (address, length, buffer, result) in [
        (memory, 4, 1, EFAULT),
        (memory, 4, 2, EFAULT),
        (memory - 1, 4, 0, EFAULT),
        (memory + 4092, 5, 0, EFAULT),
        (memory + 4096, 0, 0, 0),
        (memory + 4097, 0, 0, EFAULT),
        (memory, u32::MAX, 0, EFAULT),
        (u64::MAX - 1, 4, 0, EFAULT),
    ] {
        assert_eq!(program.one(fixed(address, length, buffer)), result);
    }
    let entry = Entry {
        fd: 99,
        ..fixed(memory, 4, 0)
    };
    assert_eq!(program.one(entry), EBADF);
    assert_eq!(program.one(fixed(memory, 4, 0).flags(SELECT)), EOPNOTSUPP);
    let write = Entry {
        opcode: op::IORING_OP_WRITE_FIXED as u8,
        ..fixed(memory, 4, 0)
    };
    assert_eq!(program.one(write), 4);

    // The pages stay what they are although the program unmaps them.
    program
        .process
        .space
        .unmap(program.memory + 0x1000, 0x3000)
        .unwrap();
    assert_eq!(program.one(fixed(memory, 4, 0)), 4);

    let files = program.place(&[fd.to_le_bytes(), (-1_i32).to_le_bytes()].concat());
    assert_eq!(
        program.register(register_op::IORING_REGISTER_FILES, files, 2),
        0
    );
    let indexed = |index| fixed(memory, 4, 0).flags(FIXED).with_fd(index);
    assert_eq!(program.one(indexed(0)), 4);
    for index in [1, 2, -1] {
        assert_eq!(program.one(indexed(index)), EBADF);
    }
    program.process.files.close(fd).unwrap();
    assert_eq!(program.one(indexed(0)), 4);
    let close = |file_index| Entry {
        opcode: op::IORING_OP_CLOSE as u8,
        file_index,
        ..nop()
    };
    for (index, result) in [
        (1, 0),
        (1, EBADF),
        (2, EBADF),
        (3, EINVAL),
        (u32::MAX, EINVAL),
    ] {
        assert_eq!(program.one(close(index)), result);
    }
    assert_eq!(program.one(indexed(0)), EBADF);
    assert_eq!(
        program.register(register_op::IORING_UNREGISTER_FILES, 0, 0),
        0
    );
    assert_eq!(program.one(close(1)), -6);
}

impl Entry {
    fn with_fd(self, fd: i32) -> Self {
        Self { fd, ..self }
    }
}
