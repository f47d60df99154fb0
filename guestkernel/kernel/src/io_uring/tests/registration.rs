//! `io_uring_register`.

use super::*;
use raw::io_uring_register_op as register_op;

const EBADF: i64 = -9;
const EFAULT: i64 = -14;
const EBUSY: i64 = -16;
const EINVAL: i64 = -22;
const ENXIO: i64 = -6;

fn fds(fds: &[i32]) -> Vec<u8> {
    fds.iter().flat_map(|fd| fd.to_le_bytes()).collect()
}

#[test]
fn opcodes_and_descriptors() {
    let program = Program::new(8, 0);
    let (channel, _) = program.channel();
    let call = |fd, opcode| {
        let call = Call {
            opcode,
            argument: 0,
            count: 0,
        };
        register(&program.process, TASK, &mut Vec::new(), fd, call)
    };
    assert_eq!(call(99, 99), Err(Errno::EINVAL));
    assert_eq!(call(channel, 99), Err(Errno::EINVAL));
    assert_eq!(call(99, 8), Err(Errno::EBADF));
    assert_eq!(call(channel, 8), Err(Errno::EOPNOTSUPP));
    assert_eq!(call(-1, 0), Err(Errno::EINVAL));
    assert_eq!(call(program.fd, 4), Err(Errno::EINVAL));
    assert_eq!(call(program.fd, 12), Err(Errno::EBADFD));
}

#[test]
fn the_probe_tells_the_truth() {
    let mut program = Program::new(8, 0);
    let size = 16 + 8 * 256;
    let at = program.place(&[0; 16 + 8 * 256]);
    let probe = register_op::IORING_REGISTER_PROBE;
    assert_eq!(program.register(probe, 0, 4), EINVAL);
    assert_eq!(program.register(probe, at, 257), EINVAL);
    assert_eq!(program.register(probe, at, 256), 0);
    let bytes: [u8; 16 + 8 * 256] = program.read_memory(at);
    let count = usize::from(bytes[1]);
    assert_eq!(usize::from(bytes[0]) + 1, count);
    let supported: Vec<u8> = bytes[16..size]
        .chunks_exact(8)
        .filter(|entry| entry[2] == 1)
        .map(|entry| entry[0])
        .collect();
    let table = (0..=u8::MAX).filter(|number| super::super::opcode::opcode(*number).is_some());
    assert_eq!(supported, table.collect::<Vec<_>>());
    assert!(supported.contains(&(op::IORING_OP_READ as u8)) && !supported.contains(&63));
    assert!(bytes[16 + 8 * count..].iter().all(|byte| *byte == 0));
    assert_eq!(program.register(probe, at, 4), EINVAL);
    program.process.space.write(at, &bytes.map(|_| 0)).unwrap();
    assert_eq!(program.register(probe, at, 4), 0);
    assert_eq!(program.read_memory(at), [bytes[0], 4]);
}

#[test]
fn files() {
    let mut program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let files = register_op::IORING_REGISTER_FILES;
    let update = register_op::IORING_REGISTER_FILES_UPDATE;
    let unregister = register_op::IORING_UNREGISTER_FILES;
    let some = program.place(&fds(&[fd, -1, fd]));
    assert_eq!(program.register(files, 0, 3), EFAULT);
    assert_eq!(program.register(files, some, 0), EINVAL);
    assert_eq!(program.register(files, some, 1 << 21), -24);
    assert_eq!(program.register(files, some, 1025), -24);
    assert_eq!(program.register(files, 8, 1), EFAULT);
    for wrong in [99, program.fd, -2] {
        let list = program.place(&fds(&[fd, wrong]));
        assert_eq!(program.register(files, list, 2), EBADF);
    }
    assert_eq!(Arc::strong_count(&channel), 2);
    assert_eq!(program.register(unregister, 0, 0), ENXIO);
    assert_eq!(program.register(files, some, 3), 0);
    assert_eq!(program.register(files, some, 3), EBUSY);
    assert_eq!(program.register(unregister, 1, 0), EINVAL);

    let mut updated = |offset: u64, list: &[i32], count| {
        let list = program.place(&fds(list));
        let at = program.words(&[offset, list]);
        program.register(update, at, count)
    };
    assert_eq!(updated(0, &[fd, fd, fd], 3), 3);
    assert_eq!(updated(0, &[fd, fd, fd], 4), EINVAL);
    assert_eq!(updated(0, &[], 0), EINVAL);
    assert_eq!(updated(3, &[fd], 1), EINVAL);
    assert_eq!(updated(1 << 32, &[fd], 1), EINVAL);
    assert_eq!(updated(u32::MAX.into(), &[fd; 3], 3), -75);
    assert_eq!(updated(0, &[fd, 99, fd], 3), 1);
    assert_eq!(updated(0, &[99, fd, fd], 3), EBADF);
    assert_eq!(updated(0, &[-2, -1], 2), 2);
    assert_eq!(program.register(update, 0, 1), EFAULT);
    assert_eq!(program.register(unregister, 0, 0), 0);
    assert_eq!(program.register(update, some, 1), EINVAL);
    let at = program.words(&[0, some]);
    assert_eq!(program.register(update, at, 1), ENXIO);
    assert_eq!(Arc::strong_count(&channel), 2);
}

#[test]
fn buffers() {
    let mut program = Program::new(8, 0);
    let buffers = register_op::IORING_REGISTER_BUFFERS;
    let unregister = register_op::IORING_UNREGISTER_BUFFERS;
    let memory = program.memory;
    let good = program.words(&[memory, 12, 0, 0]);
    assert_eq!(program.register(buffers, 0, 1), EFAULT);
    assert_eq!(program.register(buffers, good, 0), EINVAL);
    assert_eq!(program.register(buffers, good, 16385), EINVAL);
    assert_eq!(program.register(buffers, 8, 1), EFAULT);
    let read_only = MapRequest::anonymous(4096, Access::READ);
    let read_only = program.process.space.map(read_only).unwrap();
    for (address, length, result) in [
        (0, 1, EFAULT),
        (8, 4, EFAULT),
        (memory, 0, EFAULT),
        (memory, (1 << 30) + 1, EFAULT),
        (u64::MAX - 7, 64, -75),
        (memory, u64::MAX, EINVAL),
        (read_only, 8, EFAULT),
    ] {
        let list = program.words(&[memory, 12, address, length]);
        assert_eq!(program.register(buffers, list, 2), result);
    }
    assert_eq!(program.register(unregister, 0, 0), ENXIO);
    assert_eq!(program.register(buffers, good, 2), 0);
    assert_eq!(program.register(buffers, good, 2), EBUSY);
    assert_eq!(program.register(unregister, good, 0), EINVAL);
    assert_eq!(program.register(unregister, 0, 1), EINVAL);
    assert_eq!(program.register(unregister, 0, 0), 0);
}

#[test]
fn tables_can_start_empty() {
    let mut program = Program::new(8, 0);
    let (fd, _channel) = program.channel();
    let files = register_op::IORING_REGISTER_FILES2;
    let buffers = register_op::IORING_REGISTER_BUFFERS2;
    let list = program.place(&fds(&[fd]));
    let mut call = |opcode, count: u64, flags: u64, reserved, data, size| {
        let at = program.words(&[count | flags << 32, reserved, data, 0]);
        program.register(opcode, at, size)
    };
    assert_eq!(call(files, 4, 1, 0, 0, 31), EINVAL);
    assert_eq!(call(files, 4, 1, 0, list, 32), EINVAL);
    assert_eq!(call(files, 4, 2, 0, list, 32), EINVAL);
    assert_eq!(call(files, 4, 0, 1, list, 32), EINVAL);
    assert_eq!(call(files, 0, 0, 0, list, 32), EINVAL);
    assert_eq!(call(files, 4, 1, 0, 0, 32), 0);
    assert_eq!(call(files, 4, 1, 0, 0, 32), EBUSY);
    assert_eq!(call(buffers, 2, 1, 0, 0, 32), 0);
    assert_eq!(call(buffers, 2, 1, 0, 0, 32), EBUSY);
    assert_eq!(program.register(files, 0, 32), EFAULT);
    assert_eq!(
        program.register(register_op::IORING_UNREGISTER_FILES, 0, 0),
        0
    );
    let at = program.words(&[1, 0, list, 0]);
    assert_eq!(program.register(files, at, 32), 0);
}
