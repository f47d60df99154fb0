//! Pairs of local sockets.

use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Errno, Mapping, SysResult, open, owned};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    AF_UNIX, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, POLLERR, POLLHUP,
    POLLIN, POLLOUT, POLLRDHUP, SHUT_RD, SHUT_RDWR, SHUT_WR, SO_ERROR, SO_PASSCRED, SO_PEERCRED,
    SO_RCVLOWAT, SO_SNDBUF, SO_TYPE, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_SEQPACKET,
    SOCK_STREAM, SOL_SOCKET,
};

use crate::kit::{
    name, option, pair, peer, read, ready, receive, receive_from, receive_with, send, set_option,
    shut_down, socket, write,
};

pub(crate) const CHECKS: &[Check] = checks![
    streams_have_no_boundaries,
    packets_have_boundaries,
    empty_packets_and_the_end,
    both_ways_are_apart,
    what_is_peeked_stays,
    all_is_waited_for,
    low_water_is_waited_for,
    a_full_stream_takes_a_part,
    a_full_stream_waits_for_the_reader,
    a_large_write_arrives_whole,
    full_packets_wait,
    packets_can_be_too_long,
    reading_nothing,
    closing_one_end,
    closing_with_something_unread,
    shutting_down_one_way,
    shutting_down_the_other_way,
    shutting_down_packets,
    a_datagram_to_nobody,
    sigpipe_comes_from_streams,
    readiness,
    readiness_of_ends,
    a_reader_is_woken,
    epoll_hears_of_it,
    nonblocking_by_flag_and_by_file,
    descriptors_and_their_flags,
    attributes,
    names_of_pairs,
    who_is_at_the_other_end,
    options_of_pairs,
    timeouts,
    counting_what_is_there,
    vectors,
    bad_memory,
    making_has_errors,
    other_files_are_no_sockets,
    many_pairs,
];

const KINDS: [i32; 3] = [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET];

fn streams_have_no_boundaries() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    expect_eq!(send(&one, b"abc", 0)?, 3);
    expect_eq!(write(&one, b"def")?, 3);
    expect_eq!(read(&other, 100)?, b"abcdef");
    write(&one, b"0123456789")?;
    expect_eq!(read(&other, 3)?, b"012");
    expect_eq!(receive(&other, 4, 0)?, b"3456");
    expect_eq!(read(&other, 100)?, b"789");
    Ok(())
}

fn packets_have_boundaries() -> Outcome {
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        send(&one, b"abc", 0)?;
        write(&one, b"defgh")?;
        send(&one, b"i", 0)?;
        expect_eq!(read(&other, 100)?, b"abc");
        let cut = receive_with(&other, 2, 0, 0)?;
        expect_eq!((&cut.bytes[..], cut.flags), (&b"de"[..], MSG_TRUNC));
        let mut bytes = [0_u8; 2];
        send(&one, b"jklmn", 0)?;
        expect_eq!(read(&other, 100)?, b"i");
        let length = sys!(SYS_recvfrom, &other, bytes.as_mut_ptr(), 2, MSG_TRUNC, 0, 0)?;
        expect_eq!((length, bytes), (5, *b"jk"));
    }
    Ok(())
}

fn empty_packets_and_the_end() -> Outcome {
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        expect_eq!(send(&one, b"", 0)?, 0);
        expect_eq!(ready(&other)?, POLLIN | POLLOUT);
        expect_eq!(receive(&other, 10, MSG_DONTWAIT)?, b"");
        fails!(EAGAIN, SYS_recvfrom, &other, 0, 0, MSG_DONTWAIT, 0, 0);
    }
    let (one, other) = pair(SOCK_STREAM)?;
    expect_eq!(send(&one, b"", 0)?, 0);
    expect_eq!(ready(&other)?, POLLOUT);
    Ok(())
}

fn both_ways_are_apart() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        send(&one, b"to the other", 0)?;
        send(&other, b"to the one", 0)?;
        expect_eq!(read(&one, 100)?, b"to the one");
        expect_eq!(read(&other, 100)?, b"to the other");
    }
    Ok(())
}

fn what_is_peeked_stays() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        send(&one, b"abcdef", 0)?;
        expect_eq!(receive(&other, 3, MSG_PEEK)?, b"abc");
        expect_eq!(receive(&other, 100, MSG_PEEK)?, b"abcdef");
        expect_eq!(receive(&other, 100, 0)?, b"abcdef");
        fails!(
            EAGAIN,
            SYS_recvfrom,
            &other,
            0,
            0,
            MSG_DONTWAIT | MSG_PEEK,
            0,
            0
        );
    }
    Ok(())
}

fn all_is_waited_for() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    send(&one, b"abc", 0)?;
    let writer = thread::spawn(move || -> SysResult {
        thread::sleep(Duration::from_millis(30));
        send(&one, b"def", 0)?;
        thread::sleep(Duration::from_millis(30));
        send(&one, b"ghi", 0)
    });
    expect_eq!(receive(&other, 8, MSG_WAITALL)?, b"abcdefgh");
    // At the end there is less.
    expect_eq!(writer.join().map_err(|_| Errno(0))??, 3);
    expect_eq!(receive(&other, 8, MSG_WAITALL)?, b"i");
    expect_eq!(receive(&other, 8, MSG_WAITALL)?, b"");
    let (one, other) = pair(SOCK_STREAM)?;
    send(&one, b"abc", 0)?;
    expect_eq!(receive(&other, 8, MSG_WAITALL | MSG_DONTWAIT)?, b"abc");
    Ok(())
}

fn low_water_is_waited_for() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    set_option(&other, SOL_SOCKET, SO_RCVLOWAT, 4)?;
    expect_eq!(option(&other, SOL_SOCKET, SO_RCVLOWAT)?, 4);
    send(&one, b"abc", 0)?;
    let writer = thread::spawn(move || -> SysResult<OwnedFd> {
        thread::sleep(Duration::from_millis(30));
        send(&one, b"def", 0)?;
        Ok(one)
    });
    expect_eq!(receive(&other, 100, 0)?, b"abcdef");
    let one = writer.join().map_err(|_| Errno(0))??;
    send(&one, b"ab", 0)?;
    expect_eq!(receive(&other, 2, 0)?, b"ab");
    Ok(())
}

fn a_full_stream_takes_a_part() -> Outcome {
    let (one, other) = pair(SOCK_STREAM | SOCK_NONBLOCK)?;
    let much = vec![7_u8; 4 << 20];
    let sent = write(&one, &much)?;
    expect!(sent > 65536 && sent < much.len());
    fails!(EAGAIN, SYS_write, &one, much.as_ptr(), much.len());
    expect_eq!(ready(&one)? & POLLOUT, 0);
    let mut received = 0;
    while let Ok(bytes) = read(&other, 100_000) {
        received += bytes.len();
    }
    expect_eq!(received, sent);
    expect_eq!(ready(&one)?, POLLOUT);
    Ok(())
}

fn a_full_stream_waits_for_the_reader() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    while send(&one, &[1; 10_000], MSG_DONTWAIT).is_ok() {}
    let writer = thread::spawn(move || write(&one, &[2; 50_000]));
    thread::sleep(Duration::from_millis(20));
    let mut last: Vec<u8> = Vec::new();
    loop {
        let bytes = read(&other, 30_000)?;
        if bytes.is_empty() {
            break;
        }
        last.extend(bytes.into_iter().filter(|byte| *byte == 2));
    }
    expect_eq!(writer.join().map_err(|_| Errno(0))??, 50_000);
    expect_eq!(last.len(), 50_000);
    Ok(())
}

fn a_large_write_arrives_whole() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    let much: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    let copy = much.clone();
    let writer = thread::spawn(move || send(&one, &copy, 0));
    let mut all = Vec::new();
    loop {
        let bytes = read(&other, 77_777)?;
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    expect_eq!(writer.join().map_err(|_| Errno(0))??, much.len());
    expect!(all == much);
    Ok(())
}

fn full_packets_wait() -> Outcome {
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        let mut count = 0;
        while send(&one, &[1; 10_000], MSG_DONTWAIT).is_ok() {
            count += 1;
        }
        expect!(count >= 10);
        fails!(
            EAGAIN,
            SYS_sendto,
            &one,
            [1_u8; 10_000].as_ptr(),
            10_000,
            MSG_DONTWAIT,
            0,
            0
        );
        expect_eq!(ready(&one)? & POLLOUT, 0);
        let writer = thread::spawn(move || -> SysResult<OwnedFd> {
            write(&one, b"last")?;
            Ok(one)
        });
        thread::sleep(Duration::from_millis(20));
        for _ in 0..count {
            expect_eq!(read(&other, 20_000)?.len(), 10_000);
        }
        expect_eq!(read(&other, 20_000)?, b"last");
        let one = writer.join().map_err(|_| Errno(0))??;
        expect_eq!(ready(&one)? & POLLOUT, POLLOUT);
    }
    Ok(())
}

fn packets_can_be_too_long() -> Outcome {
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        let room = option(&one, SOL_SOCKET, SO_SNDBUF)? as usize;
        let much = vec![3_u8; room];
        fails!(EMSGSIZE, SYS_write, &one, much.as_ptr(), room - 31);
        expect_eq!(write(&one, &much[..room / 2])?, room / 2);
        expect_eq!(read(&other, room)?.len(), room / 2);
        set_option(&one, SOL_SOCKET, SO_SNDBUF, 10_000)?;
        fails!(EMSGSIZE, SYS_write, &one, much.as_ptr(), 20_000);
    }
    Ok(())
}

fn reading_nothing() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        expect_eq!(sys!(SYS_read, &other, 0, 0)?, 0);
        expect_eq!(sys!(SYS_write, &one, 0, 0)?, 0);
    }
    let (one, other) = pair(SOCK_STREAM)?;
    fails!(EAGAIN, SYS_recvfrom, &other, 0, 0, MSG_DONTWAIT, 0, 0);
    send(&one, b"abc", 0)?;
    expect_eq!(receive(&other, 0, 0)?, b"");
    expect_eq!(receive(&other, 9, 0)?, b"abc");
    Ok(())
}

fn closing_one_end() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        send(&one, b"last", 0)?;
        drop(one);
        expect_eq!(ready(&other)?, POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
        expect_eq!(read(&other, 100)?, b"last");
        expect_eq!(read(&other, 100)?, b"");
        expect_eq!(receive(&other, 100, MSG_DONTWAIT)?, b"");
        fails!(
            EPIPE,
            SYS_sendto,
            &other,
            b"x".as_ptr(),
            1,
            MSG_NOSIGNAL,
            0,
            0
        );
        expect_eq!(option(&other, SOL_SOCKET, SO_ERROR)?, 0);
    }
    Ok(())
}

fn closing_with_something_unread() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        send(&one, b"unread", 0)?;
        send(&other, b"still here", 0)?;
        drop(other);
        expect_eq!(
            ready(&one)?,
            POLLIN | POLLOUT | POLLHUP | POLLRDHUP | POLLERR
        );
        // Of a stream the bytes come first, of packets the error.
        if kind == SOCK_STREAM {
            expect_eq!(read(&one, 100)?, b"still here");
        }
        fails!(ECONNRESET, SYS_read, &one, [0_u8; 8].as_ptr(), 8);
        if kind == SOCK_SEQPACKET {
            expect_eq!(read(&one, 100)?, b"still here");
        }
        expect_eq!(read(&one, 100)?, b"");
        fails!(
            EPIPE,
            SYS_sendto,
            &one,
            b"x".as_ptr(),
            1,
            MSG_NOSIGNAL,
            0,
            0
        );
        let (one, other) = pair(kind)?;
        send(&one, b"unread", 0)?;
        drop(other);
        expect_eq!(option(&one, SOL_SOCKET, SO_ERROR)?, libc::ECONNRESET);
        expect_eq!(option(&one, SOL_SOCKET, SO_ERROR)?, 0);
        expect_eq!(read(&one, 100)?, b"");
    }
    Ok(())
}

fn shutting_down_one_way() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        send(&one, b"before", 0)?;
        shut_down(&one, SHUT_WR)?;
        fails!(
            EPIPE,
            SYS_sendto,
            &one,
            b"x".as_ptr(),
            1,
            MSG_NOSIGNAL,
            0,
            0
        );
        expect_eq!(ready(&other)?, POLLIN | POLLOUT | POLLRDHUP);
        expect_eq!(ready(&one)?, POLLOUT);
        expect_eq!(read(&other, 100)?, b"before");
        expect_eq!(read(&other, 100)?, b"");
        send(&other, b"back", 0)?;
        expect_eq!(read(&one, 100)?, b"back");
        shut_down(&one, SHUT_WR)?;
        shut_down(&other, SHUT_WR)?;
        expect_eq!(ready(&one)?, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    }
    Ok(())
}

fn shutting_down_the_other_way() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        send(&other, b"before", 0)?;
        shut_down(&one, SHUT_RD)?;
        fails!(
            EPIPE,
            SYS_sendto,
            &other,
            b"x".as_ptr(),
            1,
            MSG_NOSIGNAL,
            0,
            0
        );
        expect_eq!(read(&one, 100)?, b"before");
        expect_eq!(read(&one, 100)?, b"");
        send(&one, b"still", 0)?;
        expect_eq!(read(&other, 100)?, b"still");
        shut_down(&one, SHUT_RDWR)?;
        expect_eq!(ready(&other)?, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    }
    for how in [3, -1] {
        let (one, _other) = pair(SOCK_STREAM)?;
        fails!(EINVAL, SYS_shutdown, &one, how);
    }
    Ok(())
}

fn shutting_down_packets() -> Outcome {
    let (one, other) = pair(SOCK_DGRAM)?;
    send(&other, b"before", 0)?;
    shut_down(&one, SHUT_RD)?;
    fails!(EPIPE, SYS_write, &other, b"x".as_ptr(), 1);
    expect_eq!(ready(&one)?, POLLIN | POLLOUT | POLLRDHUP);
    expect_eq!(read(&one, 100)?, b"before");
    expect_eq!(read(&one, 100)?, b"");
    fails!(EAGAIN, SYS_recvfrom, &one, 0, 0, MSG_DONTWAIT, 0, 0);
    shut_down(&one, SHUT_WR)?;
    fails!(EPIPE, SYS_write, &one, b"x".as_ptr(), 1);
    expect_eq!(ready(&one)?, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    Ok(())
}

fn a_datagram_to_nobody() -> Outcome {
    let (one, other) = pair(SOCK_DGRAM)?;
    send(&other, b"lost", 0)?;
    drop(other);
    expect_eq!(ready(&one)?, POLLIN | POLLOUT);
    fails!(ECONNREFUSED, SYS_write, &one, b"x".as_ptr(), 1);
    fails!(ENOTCONN, SYS_write, &one, b"x".as_ptr(), 1);
    // What the other had sent went with it.
    let mut byte = 0_u8;
    fails!(
        EAGAIN,
        SYS_recvfrom,
        &one,
        &raw mut byte,
        1,
        MSG_DONTWAIT,
        0,
        0
    );
    Ok(())
}

fn sigpipe_comes_from_streams() -> Outcome {
    let set: u64 = 1 << (libc::SIGPIPE - 1);
    let mut before = 0_u64;
    sys!(
        SYS_rt_sigprocmask,
        libc::SIG_BLOCK,
        &raw const set,
        &raw mut before,
        8
    )?;
    let pending = || -> SysResult<bool> {
        let mut pending = 0_u64;
        sys!(SYS_rt_sigpending, &raw mut pending, 8)?;
        let time = [0_i64; 2];
        if pending & set != 0 {
            sys!(SYS_rt_sigtimedwait, &raw const set, 0, time.as_ptr(), 8)?;
        }
        Ok(pending & set != 0)
    };
    let mut seen = Vec::new();
    for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        drop(other);
        fails!(EPIPE, SYS_write, &one, b"x".as_ptr(), 1);
        seen.push(pending()?);
        fails!(EPIPE, SYS_sendto, &one, b"x".as_ptr(), 1, 0, 0, 0);
        seen.push(pending()?);
        fails!(
            EPIPE,
            SYS_sendto,
            &one,
            b"x".as_ptr(),
            1,
            MSG_NOSIGNAL,
            0,
            0
        );
        seen.push(pending()?);
    }
    sys!(
        SYS_rt_sigprocmask,
        libc::SIG_SETMASK,
        &raw const before,
        0,
        8
    )?;
    expect_eq!(seen, [true, true, false, false, false, false]);
    Ok(())
}

fn readiness() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        expect_eq!(ready(&one)?, POLLOUT);
        send(&one, b"x", 0)?;
        expect_eq!(ready(&one)?, POLLOUT);
        expect_eq!(ready(&other)?, POLLIN | POLLOUT);
        read(&other, 1)?;
        expect_eq!(ready(&other)?, POLLOUT);
    }
    Ok(())
}

fn readiness_of_ends() -> Outcome {
    for (kind, alone) in [
        (SOCK_STREAM, POLLOUT | POLLHUP),
        (SOCK_SEQPACKET, POLLOUT | POLLHUP),
        (SOCK_DGRAM, POLLOUT),
    ] {
        expect_eq!(ready(&socket(AF_UNIX, kind, 0)?)?, alone);
    }
    let (one, other) = pair(SOCK_DGRAM)?;
    drop(other);
    expect_eq!(ready(&one)?, POLLOUT);
    Ok(())
}

fn a_reader_is_woken() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        let reader = thread::spawn(move || read(&other, 10));
        thread::sleep(Duration::from_millis(20));
        write(&one, b"wake up")?;
        expect_eq!(reader.join().map_err(|_| Errno(0))??, b"wake up");
    }
    for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
        let (one, other) = pair(kind)?;
        let reader = thread::spawn(move || read(&other, 10));
        thread::sleep(Duration::from_millis(20));
        drop(one);
        expect_eq!(reader.join().map_err(|_| Errno(0))??, b"");
    }
    Ok(())
}

fn epoll_hears_of_it() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        let set = sys!(SYS_epoll_create1, 0).map(owned)?;
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLET) as u32,
            u64: 7,
        };
        sys!(
            SYS_epoll_ctl,
            &set,
            libc::EPOLL_CTL_ADD,
            &other,
            &raw const event
        )?;
        expect_eq!(sys!(SYS_epoll_wait, &set, &raw mut event, 1, 0)?, 0);
        let writer = thread::spawn(move || -> SysResult<OwnedFd> {
            thread::sleep(Duration::from_millis(20));
            write(&one, b"abc")?;
            Ok(one)
        });
        expect_eq!(sys!(SYS_epoll_wait, &set, &raw mut event, 1, 10_000)?, 1);
        expect_eq!(event.events as i32, libc::EPOLLIN);
        let _one = writer.join().map_err(|_| Errno(0))??;
        expect_eq!(sys!(SYS_epoll_wait, &set, &raw mut event, 1, 0)?, 0);
    }
    Ok(())
}

fn nonblocking_by_flag_and_by_file() -> Outcome {
    for kind in KINDS {
        let (one, _other) = pair(kind | SOCK_NONBLOCK)?;
        fails!(EAGAIN, SYS_read, &one, [0_u8; 1].as_ptr(), 1);
        fails!(EAGAIN, SYS_recvfrom, &one, [0_u8; 1].as_ptr(), 1, 0, 0, 0);
        let (one, _other) = pair(kind)?;
        fails!(
            EAGAIN,
            SYS_recvfrom,
            &one,
            [0_u8; 1].as_ptr(),
            1,
            MSG_DONTWAIT,
            0,
            0
        );
        let flags = sys!(SYS_fcntl, &one, libc::F_GETFL)?;
        expect_eq!(flags as i32, libc::O_RDWR);
        sys!(SYS_fcntl, &one, libc::F_SETFL, libc::O_NONBLOCK)?;
        fails!(EAGAIN, SYS_read, &one, [0_u8; 1].as_ptr(), 1);
    }
    Ok(())
}

fn descriptors_and_their_flags() -> Outcome {
    let (one, other) = pair(SOCK_STREAM | SOCK_CLOEXEC)?;
    for end in [&one, &other] {
        expect_eq!(
            sys!(SYS_fcntl, end, libc::F_GETFD)?,
            libc::FD_CLOEXEC as usize
        );
    }
    let copy = sys!(SYS_dup, &one).map(owned)?;
    drop(one);
    write(&copy, b"by the copy")?;
    expect_eq!(read(&other, 100)?, b"by the copy");
    fails!(ESPIPE, SYS_lseek, &copy, 0, libc::SEEK_CUR);
    fails!(ESPIPE, SYS_pread64, &copy, [0_u8; 1].as_ptr(), 1, 0);
    fails!(
        ENODEV,
        SYS_mmap,
        0,
        4096,
        libc::PROT_READ,
        libc::MAP_SHARED,
        &copy,
        0
    );
    fails!(EINVAL, SYS_fsync, &copy);
    fails!(EINVAL, SYS_ftruncate, &copy, 0);
    Ok(())
}

fn attributes() -> Outcome {
    let (one, other) = pair(SOCK_STREAM)?;
    let stat = |end: &OwnedFd| -> SysResult<libc::stat> {
        // SAFETY: integers, for which zero is a value.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        sys!(SYS_fstat, end, &raw mut stat)?;
        Ok(stat)
    };
    let (first, second) = (stat(&one)?, stat(&other)?);
    expect_eq!(first.st_mode, libc::S_IFSOCK | 0o777);
    expect_eq!((first.st_size, first.st_nlink), (0, 1));
    expect_eq!(first.st_dev, second.st_dev);
    expect!(first.st_ino != second.st_ino);
    let mut text = [0_u8; 64];
    let path = format!("/proc/self/fd/{}\0", one.as_raw_fd());
    let length = sys!(
        SYS_readlinkat,
        libc::AT_FDCWD,
        path.as_ptr(),
        text.as_mut_ptr(),
        text.len()
    )?;
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    expect_eq!(text, format!("socket:[{}]", first.st_ino));
    fails!(
        ENXIO,
        SYS_openat,
        libc::AT_FDCWD,
        path.as_ptr(),
        libc::O_RDWR,
        0
    );
    Ok(())
}

fn names_of_pairs() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        expect_eq!(name(&one)?, (AF_UNIX as u16).to_ne_bytes());
        expect_eq!(peer(&one)?, (AF_UNIX as u16).to_ne_bytes());
        write(&one, b"x")?;
        expect_eq!(receive_from(&other, 1, 0)?, (b"x".to_vec(), vec![]));
        let alone = socket(AF_UNIX, kind, 0)?;
        let mut room = 128_u32;
        fails!(
            ENOTCONN,
            SYS_getpeername,
            &alone,
            [0_u8; 128].as_ptr(),
            &raw mut room
        );
        let mut room = 1_u32;
        let mut bytes = [9_u8; 2];
        sys!(SYS_getsockname, &one, bytes.as_mut_ptr(), &raw mut room)?;
        expect_eq!((room, bytes), (2, [1, 9]));
        let mut room = -1_i32;
        fails!(
            EINVAL,
            SYS_getsockname,
            &one,
            bytes.as_mut_ptr(),
            &raw mut room
        );
        fails!(EFAULT, SYS_getsockname, &one, bytes.as_mut_ptr(), 8);
    }
    Ok(())
}

fn who_is_at_the_other_end() -> Outcome {
    for kind in KINDS {
        let (one, _other) = pair(kind)?;
        let mut identity = [0_u32; 3];
        let mut length = 12_u32;
        sys!(
            SYS_getsockopt,
            &one,
            SOL_SOCKET,
            SO_PEERCRED,
            identity.as_mut_ptr(),
            &raw mut length
        )?;
        expect_eq!(length, 12);
        expect_eq!(identity[0], std::process::id());
        expect_eq!(identity[1] as usize, sys!(SYS_geteuid)?);
        expect_eq!(identity[2] as usize, sys!(SYS_getegid)?);
        let alone = socket(AF_UNIX, kind, 0)?;
        sys!(
            SYS_getsockopt,
            &alone,
            SOL_SOCKET,
            SO_PEERCRED,
            identity.as_mut_ptr(),
            &raw mut length
        )?;
        expect_eq!(identity, [0, u32::MAX, u32::MAX]);
    }
    Ok(())
}

fn options_of_pairs() -> Outcome {
    for kind in KINDS {
        let (one, _other) = pair(kind)?;
        expect_eq!(option(&one, SOL_SOCKET, SO_TYPE)?, kind);
        expect_eq!(option(&one, SOL_SOCKET, libc::SO_DOMAIN)?, AF_UNIX);
        expect_eq!(option(&one, SOL_SOCKET, libc::SO_PROTOCOL)?, 0);
        expect_eq!(option(&one, SOL_SOCKET, libc::SO_ACCEPTCONN)?, 0);
        expect_eq!(option(&one, SOL_SOCKET, SO_ERROR)?, 0);
        expect_eq!(option(&one, SOL_SOCKET, SO_PASSCRED)?, 0);
        set_option(&one, SOL_SOCKET, SO_PASSCRED, 5)?;
        expect_eq!(option(&one, SOL_SOCKET, SO_PASSCRED)?, 1);
        for name in [
            libc::SO_REUSEADDR,
            libc::SO_KEEPALIVE,
            libc::SO_BROADCAST,
            libc::SO_OOBINLINE,
        ] {
            expect_eq!(option(&one, SOL_SOCKET, name)?, 0);
            set_option(&one, SOL_SOCKET, name, 1)?;
            expect_eq!(option(&one, SOL_SOCKET, name)?, 1);
        }
        set_option(&one, SOL_SOCKET, SO_SNDBUF, 1)?;
        expect_eq!(option(&one, SOL_SOCKET, SO_SNDBUF)?, 4608);
        set_option(&one, SOL_SOCKET, SO_SNDBUF, 20_000)?;
        expect_eq!(option(&one, SOL_SOCKET, SO_SNDBUF)?, 40_000);
        set_option(&one, SOL_SOCKET, libc::SO_RCVBUF, 1)?;
        expect_eq!(option(&one, SOL_SOCKET, libc::SO_RCVBUF)?, 2304);
        for name in [
            SO_TYPE,
            SO_ERROR,
            libc::SO_DOMAIN,
            libc::SO_PROTOCOL,
            libc::SO_ACCEPTCONN,
            libc::SO_PEERCRED,
            12345,
        ] {
            let value = 1_i32;
            fails!(
                ENOPROTOOPT,
                SYS_setsockopt,
                &one,
                SOL_SOCKET,
                name,
                &raw const value,
                4
            );
        }
        let value = 1_i32;
        fails!(
            EINVAL,
            SYS_setsockopt,
            &one,
            SOL_SOCKET,
            SO_PASSCRED,
            &raw const value,
            3
        );
        fails!(
            EINVAL,
            SYS_setsockopt,
            &one,
            SOL_SOCKET,
            SO_PASSCRED,
            &raw const value,
            -1
        );
        fails!(EFAULT, SYS_setsockopt, &one, SOL_SOCKET, SO_PASSCRED, 8, 4);
        let mut length = 4_u32;
        fails!(
            ENOPROTOOPT,
            SYS_getsockopt,
            &one,
            SOL_SOCKET,
            12345,
            &raw const value,
            &raw mut length
        );
        fails!(
            EFAULT,
            SYS_getsockopt,
            &one,
            SOL_SOCKET,
            SO_TYPE,
            8,
            &raw mut length
        );
        fails!(
            EFAULT,
            SYS_getsockopt,
            &one,
            SOL_SOCKET,
            SO_TYPE,
            &raw const value,
            8
        );
        fails!(
            EOPNOTSUPP,
            SYS_getsockopt,
            &one,
            libc::IPPROTO_TCP,
            1,
            &raw const value,
            &raw mut length
        );
        fails!(
            EOPNOTSUPP,
            SYS_setsockopt,
            &one,
            libc::IPPROTO_TCP,
            1,
            &raw const value,
            4
        );
        let mut length = -1_i32;
        fails!(
            EINVAL,
            SYS_getsockopt,
            &one,
            SOL_SOCKET,
            SO_TYPE,
            &raw const value,
            &raw mut length
        );
        // A short value is cut off.
        let mut bytes = [9_u8; 4];
        let mut length = 2_u32;
        sys!(
            SYS_getsockopt,
            &one,
            SOL_SOCKET,
            SO_SNDBUF,
            bytes.as_mut_ptr(),
            &raw mut length
        )?;
        expect_eq!((length, bytes), (2, [64, 156, 9, 9]));
    }
    Ok(())
}

fn timeouts() -> Outcome {
    let time = |socket: &OwnedFd, name: i32, seconds: i64, microseconds: i64| {
        let value = [seconds, microseconds];
        sys!(SYS_setsockopt, socket, SOL_SOCKET, name, value.as_ptr(), 16)
    };
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        time(&one, libc::SO_RCVTIMEO, 0, 30_000)?;
        let mut value = [9_i64; 2];
        let mut length = 16_u32;
        sys!(
            SYS_getsockopt,
            &one,
            SOL_SOCKET,
            libc::SO_RCVTIMEO,
            value.as_mut_ptr(),
            &raw mut length
        )?;
        expect!(value[0] == 0 && (30_000..40_001).contains(&value[1]));
        let start = Instant::now();
        fails!(EAGAIN, SYS_recvfrom, &one, [0_u8; 1].as_ptr(), 1, 0, 0, 0);
        fails!(EAGAIN, SYS_read, &one, [0_u8; 1].as_ptr(), 1);
        let passed = start.elapsed();
        expect!(passed >= Duration::from_millis(60));
        time(&other, libc::SO_SNDTIMEO, 0, 30_000)?;
        let mut count = 0_usize;
        while send(&other, &[1; 10_000], 0) == Ok(10_000) {
            count += 1;
        }
        expect!(count > 5);
        let value = [0_i64, 1_000_000];
        fails!(
            EDOM,
            SYS_setsockopt,
            &one,
            SOL_SOCKET,
            libc::SO_RCVTIMEO,
            value.as_ptr(),
            16
        );
        fails!(
            EINVAL,
            SYS_setsockopt,
            &one,
            SOL_SOCKET,
            libc::SO_RCVTIMEO,
            value.as_ptr(),
            8
        );
    }
    Ok(())
}

fn counting_what_is_there() -> Outcome {
    let count = |socket: &OwnedFd| -> SysResult<i32> {
        let mut count = -1_i32;
        sys!(SYS_ioctl, socket, libc::FIONREAD, &raw mut count)?;
        Ok(count)
    };
    for (kind, both) in [(SOCK_STREAM, 8), (SOCK_SEQPACKET, 8), (SOCK_DGRAM, 3)] {
        let (one, other) = pair(kind)?;
        expect_eq!(count(&other)?, 0);
        send(&one, b"abc", 0)?;
        expect_eq!(count(&other)?, 3);
        send(&one, b"defgh", 0)?;
        expect_eq!(count(&other)?, both);
        let mut unsent = -1_i32;
        sys!(SYS_ioctl, &one, libc::TIOCOUTQ, &raw mut unsent)?;
        expect!(unsent > 0);
        read(&other, 100)?;
        read(&other, if kind == SOCK_STREAM { 0 } else { 100 })?;
        sys!(SYS_ioctl, &one, libc::TIOCOUTQ, &raw mut unsent)?;
        expect_eq!(unsent, 0);
        fails!(ENOTTY, SYS_ioctl, &one, 0x1234_5678, 0);
    }
    Ok(())
}

fn vectors() -> Outcome {
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        let pieces = [
            libc::iovec {
                iov_base: b"abc".as_ptr().cast_mut().cast(),
                iov_len: 3,
            },
            libc::iovec {
                iov_base: b"defg".as_ptr().cast_mut().cast(),
                iov_len: 4,
            },
        ];
        expect_eq!(sys!(SYS_writev, &one, pieces.as_ptr(), 2)?, 7);
        let (mut first, mut second) = ([0_u8; 5], [0_u8; 5]);
        let rooms = [
            libc::iovec {
                iov_base: first.as_mut_ptr().cast(),
                iov_len: 5,
            },
            libc::iovec {
                iov_base: second.as_mut_ptr().cast(),
                iov_len: 5,
            },
        ];
        expect_eq!(sys!(SYS_readv, &other, rooms.as_ptr(), 2)?, 7);
        expect_eq!((&first, &second), (b"abcde", b"fg\0\0\0"));
    }
    Ok(())
}

fn bad_memory() -> Outcome {
    let nowhere = Mapping::nowhere()?;
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        fails!(EFAULT, SYS_write, &one, nowhere, 3);
        fails!(EFAULT, SYS_sendto, &one, nowhere, 3, 0, 0, 0);
        write(&one, b"abc")?;
        fails!(EFAULT, SYS_read, &other, nowhere, 3);
        // What could not be stored stays in a stream, and of packets it is gone.
        let left = receive(&other, 9, MSG_DONTWAIT);
        match kind {
            SOCK_STREAM => expect_eq!(left, Ok(b"abc".to_vec())),
            _ => expect_eq!(left, Err(Errno(libc::EAGAIN))),
        }
        fails!(EFAULT, SYS_sendmsg, &one, nowhere, 0);
        fails!(EFAULT, SYS_recvmsg, &one, nowhere, 0);
    }
    fails!(EFAULT, SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, nowhere);
    Ok(())
}

fn making_has_errors() -> Outcome {
    let mut room = [0_i32; 2];
    let room = room.as_mut_ptr();
    fails!(EAFNOSUPPORT, SYS_socket, 99, SOCK_STREAM, 0);
    fails!(EAFNOSUPPORT, SYS_socket, -1, SOCK_STREAM, 0);
    fails!(EINVAL, SYS_socket, AF_UNIX, 15, 0);
    fails!(EINVAL, SYS_socket, AF_UNIX, SOCK_STREAM | 0x10, 0);
    fails!(ESOCKTNOSUPPORT, SYS_socket, AF_UNIX, 4, 0);
    fails!(ESOCKTNOSUPPORT, SYS_socket, AF_UNIX, 0, 0);
    fails!(EPROTONOSUPPORT, SYS_socket, AF_UNIX, SOCK_STREAM, 5);
    fails!(EINVAL, SYS_socketpair, AF_UNIX, SOCK_STREAM | 0x10, 0, room);
    fails!(EAFNOSUPPORT, SYS_socketpair, 99, SOCK_STREAM, 0, room);
    fails!(
        EPROTONOSUPPORT,
        SYS_socketpair,
        AF_UNIX,
        SOCK_STREAM,
        5,
        room
    );
    fails!(EFAULT, SYS_socketpair, 99, SOCK_STREAM, 0, 8);
    socket(AF_UNIX, SOCK_STREAM, AF_UNIX)?;
    socket(AF_UNIX, libc::SOCK_RAW, 0)?;
    Ok(())
}

fn other_files_are_no_sockets() -> Outcome {
    let file = open(c"/dev/null", libc::O_RDWR)?;
    let mut word = 128_u32;
    let word = &raw mut word;
    let bytes = [0_u8; 128];
    let bytes = bytes.as_ptr();
    fails!(ENOTSOCK, SYS_bind, &file, bytes, 2);
    fails!(ENOTSOCK, SYS_listen, &file, 1);
    fails!(ENOTSOCK, SYS_accept, &file, 0, 0);
    fails!(ENOTSOCK, SYS_accept4, &file, 0, 0, 0);
    fails!(EINVAL, SYS_accept4, &file, 0, 0, 1);
    fails!(ENOTSOCK, SYS_connect, &file, bytes, 2);
    fails!(ENOTSOCK, SYS_shutdown, &file, 0);
    fails!(ENOTSOCK, SYS_sendto, &file, bytes, 1, 0, 0, 0);
    fails!(ENOTSOCK, SYS_recvfrom, &file, bytes, 1, 0, 0, 0);
    fails!(ENOTSOCK, SYS_sendmsg, &file, bytes, 0);
    fails!(ENOTSOCK, SYS_recvmsg, &file, bytes, 0);
    fails!(ENOTSOCK, SYS_sendmmsg, &file, bytes, 1, 0);
    fails!(ENOTSOCK, SYS_recvmmsg, &file, bytes, 1, 0, 0);
    fails!(ENOTSOCK, SYS_getsockname, &file, bytes, word);
    fails!(ENOTSOCK, SYS_getpeername, &file, bytes, word);
    fails!(
        ENOTSOCK,
        SYS_getsockopt,
        &file,
        SOL_SOCKET,
        SO_TYPE,
        bytes,
        word
    );
    fails!(
        ENOTSOCK,
        SYS_setsockopt,
        &file,
        SOL_SOCKET,
        SO_TYPE,
        bytes,
        4
    );
    fails!(EBADF, SYS_bind, -1, bytes, 2);
    fails!(EBADF, SYS_listen, -1, 1);
    fails!(EBADF, SYS_accept, -1, 0, 0);
    fails!(EBADF, SYS_accept4, -1, 0, 0, 1);
    fails!(EBADF, SYS_connect, -1, bytes, 2);
    fails!(EBADF, SYS_shutdown, -1, 7);
    fails!(EBADF, SYS_sendto, -1, bytes, 1, 0, 0, 0);
    fails!(EBADF, SYS_recvfrom, -1, bytes, 1, 0, 0, 0);
    fails!(EBADF, SYS_sendmsg, -1, bytes, 0);
    fails!(EBADF, SYS_recvmsg, -1, bytes, 0);
    fails!(EBADF, SYS_sendmmsg, -1, bytes, 1, 0);
    fails!(EBADF, SYS_recvmmsg, -1, bytes, 1, 0, 0);
    fails!(EBADF, SYS_getsockname, -1, bytes, word);
    fails!(EBADF, SYS_getpeername, -1, bytes, word);
    fails!(EBADF, SYS_getsockopt, -1, SOL_SOCKET, SO_TYPE, bytes, word);
    fails!(EBADF, SYS_setsockopt, -1, SOL_SOCKET, SO_TYPE, bytes, 4);
    Ok(())
}

fn many_pairs() -> Outcome {
    for _ in 0..20 {
        let mut all = Vec::new();
        for kind in KINDS {
            for _ in 0..50 {
                let (one, other) = pair(kind)?;
                write(&one, &[1; 1000])?;
                all.push((one, other));
            }
        }
        for (_, other) in &all {
            expect_eq!(read(other, 2000)?.len(), 1000);
        }
    }
    Ok(())
}
