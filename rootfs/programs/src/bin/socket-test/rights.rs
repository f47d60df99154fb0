//! What is sent along with messages: descriptors, and who sends.

use std::os::fd::{AsRawFd, OwnedFd};

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Errno, SysResult, create, open, owned};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_DONTWAIT, MSG_PEEK, SCM_CREDENTIALS, SCM_RIGHTS, SO_PASSCRED,
    SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET,
};

use crate::kit::{
    Entry, control, descriptors, pair, read, receive, receive_with, send, send_with, set_option,
    write,
};

pub(crate) const CHECKS: &[Check] = checks![
    descriptors_go_along,
    a_file_keeps_its_position,
    a_stream_stops_after_descriptors,
    descriptors_that_nobody_takes,
    descriptors_without_room,
    descriptors_that_are_peeked,
    descriptors_can_be_closed_by_exec,
    sockets_and_sets_can_be_sent,
    a_socket_sent_to_itself,
    rings_cannot_be_sent,
    descriptors_have_errors,
    who_sends_is_told,
    who_sends_is_told_of_itself,
    who_sends_can_be_said,
    streams_tell_senders_apart,
    control_has_errors,
    several_messages_at_once,
    several_messages_have_errors,
];

const KINDS: [i32; 3] = [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET];

fn pipe() -> SysResult<(OwnedFd, OwnedFd)> {
    let mut ends = [0_i32; 2];
    sys!(SYS_pipe2, ends.as_mut_ptr(), libc::O_NONBLOCK)?;
    Ok((owned(ends[0] as usize), owned(ends[1] as usize)))
}

fn descriptors_go_along() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        let (reader, writer) = pipe()?;
        send_with(
            &one,
            b"two ends",
            &control(&[descriptors(&[&reader, &writer])]),
            0,
        )?;
        drop((reader, writer));
        let got = receive_with(&other, 100, 64, 0)?;
        expect_eq!((&got.bytes[..], got.flags), (&b"two ends"[..], 0));
        expect_eq!(got.entries.len(), 1);
        let files = got.files();
        expect_eq!(files.len(), 2);
        write(&files[1], b"through")?;
        expect_eq!(read(&files[0], 100)?, b"through");
        expect_eq!(sys!(SYS_fcntl, &files[0], libc::F_GETFD)?, 0);
    }
    Ok(())
}

fn a_file_keeps_its_position() -> Outcome {
    let (one, other) = pair(SOCK_DGRAM)?;
    let file = create(c"file", b"0123456789")?;
    read(&file, 4)?;
    send_with(&one, b"x", &control(&[descriptors(&[&file])]), 0)?;
    let got = receive_with(&other, 100, 64, 0)?;
    let files = got.files();
    expect_eq!(read(&files[0], 3)?, b"456");
    expect_eq!(read(&file, 3)?, b"789");
    Ok(())
}

fn a_stream_stops_after_descriptors() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    let (reader, writer) = pipe()?;
    send(&one, b"before ", 0)?;
    send_with(&one, b"with", &control(&[descriptors(&[&reader])]), 0)?;
    send_with(&one, b"again", &control(&[descriptors(&[&writer])]), 0)?;
    send(&one, b" after", 0)?;
    let got = receive_with(&other, 100, 64, 0)?;
    expect_eq!(
        (got.bytes.clone(), got.files().len()),
        (b"before with".to_vec(), 1)
    );
    // They come with the first of their bytes.
    let got = receive_with(&other, 2, 64, 0)?;
    expect_eq!((got.bytes.clone(), got.files().len()), (b"ag".to_vec(), 1));
    // The rest of them is nothing special any more.
    let got = receive_with(&other, 100, 64, 0)?;
    let rest = (b"ain after".to_vec(), 0);
    expect_eq!((got.bytes.clone(), got.files().len()), rest);
    Ok(())
}

fn is_closed(writer: &OwnedFd) -> bool {
    guest_programs::check::comes_true(|| {
        let mut set = libc::pollfd {
            fd: writer.as_raw_fd(),
            events: 0,
            revents: 0,
        };
        sys!(SYS_poll, &raw mut set, 1, 0).is_ok() && set.revents == libc::POLLERR
    })
}

fn descriptors_that_nobody_takes() -> Outcome {
    for kind in KINDS {
        // Read without room for them.
        let (one, other) = pair(kind)?;
        let (reader, writer) = pipe()?;
        send_with(&one, b"x", &control(&[descriptors(&[&reader])]), 0)?;
        drop(reader);
        expect_eq!(read(&other, 100)?, b"x");
        expect!(is_closed(&writer));
        // Never read.
        let (reader, writer) = pipe()?;
        send_with(&one, b"x", &control(&[descriptors(&[&reader])]), 0)?;
        drop(reader);
        drop((one, other));
        expect!(is_closed(&writer));
    }
    Ok(())
}

fn descriptors_without_room() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        let (reader, writer) = pipe()?;
        let along = control(&[descriptors(&[&reader, &writer, &reader])]);
        for (room, count) in [
            (0, 0),
            (10, 0),
            (16, 0),
            (19, 0),
            (20, 1),
            (24, 2),
            (27, 2),
            (28, 3),
        ] {
            send_with(&one, b"x", &along, 0)?;
            let got = receive_with(&other, 100, room, 0)?;
            let flags = if count < 3 { MSG_CTRUNC } else { 0 };
            expect_eq!((room, got.files().len(), got.flags), (room, count, flags));
        }
    }
    Ok(())
}

fn descriptors_that_are_peeked() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        let (reader, writer) = pipe()?;
        send_with(&one, b"x", &control(&[descriptors(&[&writer])]), 0)?;
        let peeked = receive_with(&other, 100, 64, MSG_PEEK)?;
        let first = peeked.files();
        let second = receive_with(&other, 100, 64, 0)?.files();
        expect_eq!((first.len(), second.len()), (1, 1));
        write(&first[0], b"a")?;
        write(&second[0], b"b")?;
        expect_eq!(read(&reader, 10)?, b"ab");
    }
    Ok(())
}

fn descriptors_can_be_closed_by_exec() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    let (reader, _writer) = pipe()?;
    send_with(&one, b"x", &control(&[descriptors(&[&reader])]), 0)?;
    let got = receive_with(&other, 100, 64, MSG_CMSG_CLOEXEC)?;
    expect_eq!(got.flags, MSG_CMSG_CLOEXEC);
    let files = got.files();
    expect_eq!(
        sys!(SYS_fcntl, &files[0], libc::F_GETFD)?,
        libc::FD_CLOEXEC as usize
    );
    Ok(())
}

fn sockets_and_sets_can_be_sent() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    let (left, right) = pair(SOCK_DGRAM)?;
    let set = sys!(SYS_epoll_create1, 0).map(owned)?;
    let path = open(c"/", libc::O_PATH)?;
    let along = control(&[descriptors(&[&right, &set, &path])]);
    send_with(&one, b"x", &along, 0)?;
    drop(right);
    let files = receive_with(&other, 100, 64, 0)?.files();
    expect_eq!(files.len(), 3);
    send(&left, b"to a socket that was sent", 0)?;
    expect_eq!(receive(&files[0], 100, 0)?, b"to a socket that was sent");
    fails!(EBADF, SYS_read, &files[2], 0, 0);
    Ok(())
}

fn a_socket_sent_to_itself() -> Outcome {
    for kind in KINDS {
        for _ in 0..100 {
            let (one, other) = pair(kind)?;
            let (left, right) = pair(kind)?;
            send_with(&one, b"x", &control(&[descriptors(&[&other, &one])]), 0)?;
            send_with(&one, b"x", &control(&[descriptors(&[&right])]), 0)?;
            send_with(&left, b"x", &control(&[descriptors(&[&other, &left])]), 0)?;
        }
    }
    // The files in them are closed.
    let (one, other) = pair(SOCK_STREAM)?;
    let (reader, writer) = pipe()?;
    send_with(&one, b"x", &control(&[descriptors(&[&other, &reader])]), 0)?;
    drop((one, other, reader));
    expect!(is_closed(&writer));
    Ok(())
}

fn rings_cannot_be_sent() -> Outcome {
    let (one, _other) = pair(SOCK_STREAM)?;
    let mut parameters = [0_u8; 120];
    let ring = sys!(SYS_io_uring_setup, 2, parameters.as_mut_ptr()).map(owned)?;
    let sent = send_with(&one, b"x", &control(&[descriptors(&[&ring])]), 0);
    expect_eq!(sent, Err(Errno(libc::EINVAL)));
    Ok(())
}

fn descriptors_have_errors() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    let number = |fd: i32| -> Entry { (SOL_SOCKET, SCM_RIGHTS, fd.to_ne_bytes().to_vec()) };
    for bad in [-1, 1_000_000] {
        let sent = send_with(&one, b"x", &control(&[number(bad)]), 0);
        expect_eq!(sent, Err(Errno(libc::EBADF)));
    }
    let many = |count: usize| -> Entry {
        let bytes = one.as_raw_fd().to_ne_bytes();
        (SOL_SOCKET, SCM_RIGHTS, bytes.repeat(count))
    };
    expect_eq!(
        send_with(&one, b"x", &control(&[many(254)]), 0),
        Err(Errno(libc::EINVAL))
    );
    expect_eq!(
        send_with(&one, b"x", &control(&[many(200), many(54)]), 0),
        Err(Errno(libc::EINVAL))
    );
    expect_eq!(send_with(&one, b"x", &control(&[many(253)]), 0), Ok(1));
    expect_eq!(send_with(&one, b"x", &control(&[many(0)]), 0), Ok(1));
    expect_eq!(receive_with(&other, 9, 2000, 0)?.files().len(), 253);
    // Two entries become one.
    expect_eq!(
        send_with(&one, b"x", &control(&[many(2), many(3)]), 0),
        Ok(1)
    );
    expect_eq!(receive(&other, 1, 0)?, b"x");
    let got = receive_with(&other, 9, 200, 0)?;
    expect_eq!((got.entries.len(), got.files().len()), (1, 5));
    fails!(EAGAIN, SYS_recvfrom, &other, 0, 0, MSG_DONTWAIT, 0, 0);
    Ok(())
}

fn identity(pid: u32, uid: u32, gid: u32) -> Entry {
    let words = [pid, uid, gid].into_iter().flat_map(u32::to_ne_bytes);
    (SOL_SOCKET, SCM_CREDENTIALS, words.collect())
}

fn own_identity() -> SysResult<Entry> {
    let (uid, gid) = (sys!(SYS_getuid)?, sys!(SYS_getgid)?);
    Ok(identity(std::process::id(), uid as u32, gid as u32))
}

fn who_sends_is_told() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        set_option(&other, SOL_SOCKET, SO_PASSCRED, 1)?;
        send(&one, b"by send", 0)?;
        let got = receive_with(&other, 100, 64, 0)?;
        expect_eq!(
            (got.bytes, got.entries),
            (b"by send".to_vec(), vec![own_identity()?])
        );
        write(&one, b"by write")?;
        let got = receive_with(&other, 100, 64, 0)?;
        expect_eq!(
            (got.bytes, got.entries),
            (b"by write".to_vec(), vec![own_identity()?])
        );
        write(&one, b"without room")?;
        let got = receive_with(&other, 100, 0, 0)?;
        expect_eq!((got.entries.len(), got.flags), (0, MSG_CTRUNC));
        // Before descriptors.
        send_with(&one, b"both", &control(&[descriptors(&[&one])]), 0)?;
        let got = receive_with(&other, 100, 64, 0)?;
        let kinds: Vec<i32> = got.entries.iter().map(|(_, kind, _)| *kind).collect();
        expect_eq!(
            (kinds, got.files().len()),
            (vec![SCM_CREDENTIALS, SCM_RIGHTS], 1)
        );
    }
    Ok(())
}

fn who_sends_is_told_of_itself() -> Outcome {
    for kind in KINDS {
        // It is who sends, not who receives, that has asked at the time.
        let (one, other) = pair(kind)?;
        write(&one, b"before")?;
        set_option(&other, SOL_SOCKET, SO_PASSCRED, 1)?;
        let got = receive_with(&other, 100, 64, 0)?;
        expect_eq!(got.entries, vec![identity(0, 65534, 65534)]);
        set_option(&other, SOL_SOCKET, SO_PASSCRED, 0)?;
        set_option(&one, SOL_SOCKET, SO_PASSCRED, 1)?;
        write(&one, b"known")?;
        set_option(&other, SOL_SOCKET, SO_PASSCRED, 1)?;
        let got = receive_with(&other, 100, 64, 0)?;
        expect_eq!(got.entries, vec![own_identity()?]);
    }
    Ok(())
}

fn who_sends_can_be_said() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        let own = own_identity()?;
        // Not told unless asked for.
        send_with(&one, b"x", &control(std::slice::from_ref(&own)), 0)?;
        expect_eq!(receive_with(&other, 100, 64, 0)?.entries, vec![]);
        set_option(&other, SOL_SOCKET, SO_PASSCRED, 1)?;
        send_with(&one, b"x", &control(std::slice::from_ref(&own)), 0)?;
        expect_eq!(receive_with(&other, 100, 64, 0)?.entries, vec![own]);
        // Root may say anything of its user.
        if sys!(SYS_geteuid)? == 0 {
            let said = identity(std::process::id(), 1234, 5678);
            send_with(&one, b"x", &control(std::slice::from_ref(&said)), 0)?;
            expect_eq!(receive_with(&other, 100, 64, 0)?.entries, vec![said]);
        }
        let bad = identity(std::process::id(), u32::MAX, 0);
        expect_eq!(
            send_with(&one, b"x", &control(&[bad]), 0),
            Err(Errno(libc::EINVAL))
        );
        let short = (SOL_SOCKET, SCM_CREDENTIALS, vec![0; 8]);
        expect_eq!(
            send_with(&one, b"x", &control(&[short]), 0),
            Err(Errno(libc::EINVAL))
        );
    }
    Ok(())
}

fn streams_tell_senders_apart() -> Outcome {
    if sys!(SYS_geteuid)? != 0 {
        return Ok(());
    }
    let (one, other) = pair(SOCK_STREAM)?;
    let first = identity(std::process::id(), 1, 1);
    let second = identity(std::process::id(), 2, 2);
    for (who, bytes) in [
        (&first, b"aa"),
        (&first, b"bb"),
        (&second, b"cc"),
        (&second, b"dd"),
    ] {
        send_with(&one, bytes, &control(std::slice::from_ref(who)), 0)?;
    }
    set_option(&other, SOL_SOCKET, SO_PASSCRED, 1)?;
    let got = receive_with(&other, 100, 64, 0)?;
    expect_eq!((got.bytes, got.entries), (b"aabb".to_vec(), vec![first]));
    let got = receive_with(&other, 100, 64, 0)?;
    expect_eq!((got.bytes, got.entries), (b"ccdd".to_vec(), vec![second]));
    Ok(())
}

fn control_has_errors() -> Outcome {
    let (one, other) = pair(SOCK_DGRAM)?;
    let raw = |length: u64, level: i32, kind: i32| {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes
    };
    for (bytes, error) in [
        (raw(15, SOL_SOCKET, SCM_RIGHTS), libc::EINVAL),
        (raw(25, SOL_SOCKET, SCM_RIGHTS), libc::EINVAL),
        (raw(u64::MAX, SOL_SOCKET, SCM_RIGHTS), libc::EINVAL),
        (raw(24, SOL_SOCKET, 77), libc::EINVAL),
    ] {
        expect_eq!(send_with(&one, b"x", &bytes, 0), Err(Errno(error)));
    }
    // Of another level, or too short to be an entry: not looked at.
    expect_eq!(
        send_with(&one, b"x", &raw(24, libc::IPPROTO_TCP, 77), 0),
        Ok(1)
    );
    expect_eq!(
        send_with(&one, b"x", &raw(16, SOL_SOCKET, SCM_RIGHTS)[..12], 0),
        Ok(1)
    );
    let mut words = [0_u64; 7];
    words[4] = 8;
    words[5] = 1 << 40;
    fails!(ENOBUFS, SYS_sendmsg, &one, words.as_ptr(), 0);
    words[5] = 24;
    fails!(EFAULT, SYS_sendmsg, &one, words.as_ptr(), 0);
    let mut words = [0_u64; 7];
    words[3] = 1025;
    fails!(EMSGSIZE, SYS_sendmsg, &one, words.as_ptr(), 0);
    fails!(EMSGSIZE, SYS_recvmsg, &other, words.as_ptr(), 0);
    words[3] = 1;
    words[2] = 8;
    fails!(EFAULT, SYS_sendmsg, &one, words.as_ptr(), 0);
    let mut words = [0_u64; 7];
    words[0] = words.as_ptr().addr() as u64;
    words[1] = u64::from(-1_i32 as u32);
    fails!(EINVAL, SYS_sendmsg, &one, words.as_ptr(), 0);
    fails!(EINVAL, SYS_recvmsg, &other, words.as_ptr(), 0);
    Ok(())
}

/// Entries for several messages, of one piece each.
fn entries(pieces: &[libc::iovec]) -> Vec<[u64; 8]> {
    let entry = |piece: &libc::iovec| {
        let at = std::ptr::from_ref(piece).addr() as u64;
        [0, 0, at, 1, 0, 0, 0, 0]
    };
    pieces.iter().map(entry).collect()
}

fn piece(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

fn several_messages_at_once() -> Outcome {
    let (one, other) = pair(SOCK_DGRAM)?;
    let pieces = [piece(b"first"), piece(b""), piece(b"the third")];
    let mut sent = entries(&pieces);
    expect_eq!(sys!(SYS_sendmmsg, &one, sent.as_mut_ptr(), 3, 0)?, 3);
    let lengths = |entries: &[[u64; 8]]| {
        entries
            .iter()
            .map(|entry| entry[7] as u32)
            .collect::<Vec<_>>()
    };
    expect_eq!(lengths(&sent), [5, 0, 9]);
    let buffers = [[0_u8; 6]; 4];
    let pieces: Vec<_> = buffers.iter().map(|buffer| piece(buffer)).collect();
    let mut got = entries(&pieces);
    expect_eq!(
        sys!(SYS_recvmmsg, &other, got.as_mut_ptr(), 4, MSG_DONTWAIT, 0)?,
        3
    );
    expect_eq!(lengths(&got), [5, 0, 6, 0]);
    expect_eq!(got[2][6] as i32, libc::MSG_TRUNC);
    // One is enough to end the wait.
    send(&one, b"x", 0)?;
    expect_eq!(
        sys!(
            SYS_recvmmsg,
            &other,
            got.as_mut_ptr(),
            4,
            libc::MSG_WAITFORONE,
            0
        )?,
        1
    );
    let time = [0_i64, 0];
    send(&one, b"y", 0)?;
    expect_eq!(
        sys!(SYS_recvmmsg, &other, got.as_mut_ptr(), 4, 0, time.as_ptr())?,
        1
    );
    expect_eq!(sys!(SYS_sendmmsg, &one, sent.as_mut_ptr(), 0, 0)?, 0);
    expect_eq!(sys!(SYS_recvmmsg, &other, got.as_mut_ptr(), 0, 0, 0)?, 0);
    Ok(())
}

fn several_messages_have_errors() -> Outcome {
    let (one, other) = pair(SOCK_DGRAM)?;
    let pieces = [piece(b"good"), piece(b"bad")];
    let mut sent = entries(&pieces);
    sent[1][2] = 8;
    expect_eq!(sys!(SYS_sendmmsg, &one, sent.as_mut_ptr(), 2, 0)?, 1);
    fails!(EFAULT, SYS_sendmmsg, &one, sent[1..].as_mut_ptr(), 1, 0);
    fails!(EFAULT, SYS_sendmmsg, &one, 8, 1, 0);
    fails!(EFAULT, SYS_recvmmsg, &other, 8, 1, 0, 0);
    let time = [0_i64, 1_000_000_000];
    fails!(
        EINVAL,
        SYS_recvmmsg,
        &other,
        sent.as_mut_ptr(),
        1,
        0,
        time.as_ptr()
    );
    fails!(EFAULT, SYS_recvmmsg, &other, sent.as_mut_ptr(), 1, 0, 8);
    expect_eq!(read(&other, 100)?, b"good");
    fails!(
        EAGAIN,
        SYS_recvmmsg,
        &other,
        sent.as_mut_ptr(),
        1,
        MSG_DONTWAIT,
        0
    );
    Ok(())
}
