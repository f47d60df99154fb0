//! Descriptors: duplicates, what they can be of, readiness, locks.

use super::*;

#[test]
fn descriptors_are_duplicated_and_closed() {
    let mut caller = Caller::new();
    let fd = caller.file("f", b"x");
    let cloexec = u64::from(raw::O_CLOEXEC);
    for (number, args, result) in [
        (raw::__NR_dup, [fd, 0, 0], Ok(1)),
        (raw::__NR_dup2, [fd, fd, 0], Ok(fd)),
        (raw::__NR_dup2, [99, 99, 0], Err(Errno::EBADF)),
        (raw::__NR_dup2, [fd, 7, 0], Ok(7)),
        (raw::__NR_dup2, [fd, 1 << 20, 0], Err(Errno::EBADF)),
        (raw::__NR_dup2, [fd, minus(1), 0], Err(Errno::EBADF)),
        (raw::__NR_dup3, [fd, fd, 0], Err(Errno::EINVAL)),
        (raw::__NR_dup3, [fd, 9, 1], Err(Errno::EINVAL)),
        (raw::__NR_dup3, [fd, 9, cloexec], Ok(9)),
        (raw::__NR_fcntl, [9, raw::F_GETFD.into(), 0], Ok(1)),
        (raw::__NR_fcntl, [fd, raw::F_DUPFD.into(), 8], Ok(8)),
        (
            raw::__NR_fcntl,
            [fd, raw::F_DUPFD.into(), 1 << 20],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_fcntl,
            [fd, raw::F_DUPFD.into(), minus(1)],
            Err(Errno::EINVAL),
        ),
        (raw::__NR_fcntl, [fd, 9999, 0], Err(Errno::EINVAL)),
        (
            raw::__NR_fcntl,
            [fd, raw::F_GETPIPE_SZ.into(), 0],
            Err(Errno::EBADF),
        ),
        (raw::__NR_fcntl, [fd, raw::F_GET_SEALS.into(), 0], Ok(1)),
        (
            raw::__NR_fcntl,
            [fd, raw::F_ADD_SEALS.into(), 1],
            Err(Errno::EPERM),
        ),
        (raw::__NR_close_range, [10, 5, 0], Err(Errno::EINVAL)),
        (raw::__NR_close_range, [5, 10, 1], Err(Errno::EINVAL)),
        (raw::__NR_close_range, [7, 8, u64::from(4_u32)], Ok(0)),
        (raw::__NR_fcntl, [8, raw::F_GETFD.into(), 0], Ok(1)),
        (raw::__NR_close_range, [1, u64::from(u32::MAX), 0], Ok(0)),
        (raw::__NR_close, [9, 0, 0], Err(Errno::EBADF)),
        (raw::__NR_close, [fd, 0, 0], Ok(0)),
    ] {
        assert_eq!(caller.call(number, &args), result, "{number} {args:?}");
    }
}

#[test]
fn a_pipe_that_cannot_be_told_of_is_closed_again() {
    let mut caller = Caller::new();
    assert_eq!(caller.call(raw::__NR_pipe2, &[BAD, 0]), Err(Errno::EFAULT));
    let address = caller.at(0);
    assert_eq!(
        caller.call(raw::__NR_pipe2, &[address, 1]),
        Err(Errno::EINVAL)
    );
    assert_eq!(caller.pipe(), (0, 1));
    let nonblocking = u64::from(raw::O_NONBLOCK);
    caller
        .call(raw::__NR_fcntl, &[0, raw::F_SETFL.into(), nonblocking])
        .unwrap();
    assert_eq!(
        caller.call(raw::__NR_read, &[0, address, 1]),
        Err(Errno::EAGAIN)
    );
    caller.write(1, b"abc").unwrap();
    caller
        .call(raw::__NR_ioctl, &[0, ioctl::FIONREAD.into(), address])
        .unwrap();
    assert_eq!(caller.word(0) as u32, 3);
    assert_eq!(
        caller.call(raw::__NR_fcntl, &[0, raw::F_GETPIPE_SZ.into()]),
        Ok(65536)
    );
}

#[test]
fn poll_and_select_tell_what_is_ready() {
    let mut caller = Caller::new();
    let (reader, writer) = caller.pipe();
    let entry = |fd: u64, events: u32| fd & 0xffff_ffff | u64::from(events) << 32;
    let entries = [
        entry(reader, raw::POLLIN),
        entry(writer, raw::POLLOUT | raw::POLLIN),
        entry(99, raw::POLLIN),
        entry(minus(1), raw::POLLIN),
    ];
    let address = caller.put_words(0, &entries);
    assert_eq!(caller.call(raw::__NR_poll, &[address, 4, minus(1)]), Ok(2));
    let revents = |caller: &Caller, index: u64| caller.word(index * 8) >> 48;
    assert_eq!(revents(&caller, 0), 0);
    assert_eq!(revents(&caller, 1), raw::POLLOUT.into());
    assert_eq!(revents(&caller, 2), raw::POLLNVAL.into());
    assert_eq!(revents(&caller, 3), 0);
    assert_eq!(caller.call(raw::__NR_poll, &[address, 1, 1]), Ok(0));
    assert_eq!(
        caller.call(raw::__NR_poll, &[address, 1025, 0]),
        Err(Errno::EINVAL)
    );
    let timeout = caller.put_words(100, &[0, 1_000_000]);
    assert_eq!(
        caller.call(raw::__NR_ppoll, &[address, 1, timeout, 0, 8]),
        Ok(0)
    );
    assert_eq!((caller.word(100), caller.word(108)), (0, 0));
    caller.put_words(100, &[0, 1_000_000_000]);
    assert_eq!(
        caller.call(raw::__NR_ppoll, &[address, 1, timeout]),
        Err(Errno::EINVAL)
    );
    caller.write(writer, b"x").unwrap();
    let sets = caller.put_words(200, &[1 << reader, 1 << writer, 0]);
    let select = [8, sets, sets + 8, 0, 0];
    assert_eq!(caller.call(raw::__NR_select, &select), Ok(2));
    assert_eq!(
        (caller.word(200), caller.word(208)),
        (1 << reader, 1 << writer)
    );
    caller.put_words(200, &[1 << 7, 0]);
    assert_eq!(caller.call(raw::__NR_select, &select), Err(Errno::EBADF));
    assert_eq!(
        caller.call(raw::__NR_select, &[minus(1), 0, 0, 0, 0]),
        Err(Errno::EINVAL)
    );
}

#[test]
fn memory_files_and_counters_are_files() {
    let mut caller = Caller::new();
    let long = caller.put(0, &[vec![b'x'; 250], vec![0]].concat());
    assert_eq!(
        caller.call(raw::__NR_memfd_create, &[long, 0]),
        Err(Errno::EINVAL)
    );
    let name = caller.put(0, b"name\0");
    assert_eq!(
        caller.call(raw::__NR_memfd_create, &[name, 0x100]),
        Err(Errno::EINVAL)
    );
    let fd = caller.call(raw::__NR_memfd_create, &[name, 0]).unwrap();
    assert_eq!(caller.write(fd, b"kept"), Ok(4));
    let out = caller.at(PAGE);
    caller.call(raw::__NR_fstat, &[fd, out]).unwrap();
    assert_eq!((caller.word(PAGE + 16), caller.word(PAGE + 48)), (0, 4));
    assert_eq!(caller.word(PAGE + 24) as u32, raw::S_IFREG | 0o777);
    assert_eq!(caller.call(raw::__NR_eventfd2, &[0, 2]), Err(Errno::EINVAL));
    let event = caller.call(raw::__NR_eventfd2, &[3, 0]).unwrap();
    assert_eq!(
        caller.call(raw::__NR_read, &[event, out, 4]),
        Err(Errno::EINVAL)
    );
    assert_eq!(caller.call(raw::__NR_read, &[event, out, 8]), Ok(8));
    assert_eq!(caller.word(PAGE), 3);
}

#[test]
fn locks_of_ranges_are_kept_and_told() {
    let mut caller = Caller::new();
    let fd = caller.file("f", b"");
    let other = caller.open("f", raw::O_RDWR.into()).unwrap();
    let (set, get) = (u64::from(raw::F_OFD_SETLK), u64::from(raw::F_OFD_GETLK));
    // l_type and l_whence, l_start, l_len, l_pid.
    let lock = caller.put_words(100, &[raw::F_WRLCK.into(), 10, 20, 0]);
    assert_eq!(caller.call(raw::__NR_fcntl, &[fd, set, lock]), Ok(0));
    assert_eq!(
        caller.call(raw::__NR_fcntl, &[other, set, lock]),
        Err(Errno::EAGAIN)
    );
    caller.put_words(100, &[raw::F_RDLCK.into(), 29, 0, 0]);
    assert_eq!(caller.call(raw::__NR_fcntl, &[other, get, lock]), Ok(0));
    assert_eq!(
        [caller.word(100) as u16, caller.word(108) as u16],
        [raw::F_WRLCK as u16, 10]
    );
    assert_eq!((caller.word(116), caller.word(124) as i32), (20, -1));
    caller.put_words(100, &[raw::F_RDLCK.into(), 30, 0, 0]);
    assert_eq!(caller.call(raw::__NR_fcntl, &[other, set, lock]), Ok(0));
    caller.put_words(100, &[9, 30, 0, 0]);
    assert_eq!(
        caller.call(raw::__NR_fcntl, &[other, set, lock]),
        Err(Errno::EINVAL)
    );
}
