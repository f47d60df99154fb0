//! Local sockets with names: paths, and abstract ones.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Errno, SysResult, create, owned};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    AF_INET, AF_UNIX, MSG_DONTWAIT, MSG_NOSIGNAL, POLLHUP, POLLIN, POLLOUT, SHUT_RD, SO_ACCEPTCONN,
    SO_ERROR, SO_PASSCRED, SO_PEERCRED, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_SEQPACKET,
    SOCK_STREAM, SOL_SOCKET,
};

use crate::kit::{
    accept, address_by, bind, connect, listen, local, name, option, peer, read, ready, receive,
    receive_from, send, send_to, set_option, shut_down, socket, write,
};

pub(crate) const CHECKS: &[Check] = checks![
    a_connection_by_path,
    a_connection_by_abstract_name,
    names_are_told,
    the_kernel_chooses_a_name,
    a_path_is_a_file,
    a_removed_path_cannot_be_connected_to,
    a_path_by_another_name,
    binding_has_errors,
    connecting_has_errors,
    listening_has_errors,
    accepting_has_errors,
    accepting_waits,
    the_backlog_is_bounded,
    a_full_backlog_waits,
    closing_a_listener,
    shutting_down_a_listener,
    readiness_of_a_listener,
    flags_of_the_accepted,
    what_is_sent_before_accepting,
    who_has_connected,
    datagrams_by_name,
    datagrams_between_strangers,
    datagrams_wait_for_room,
    datagrams_to_nobody,
    a_connected_datagram_socket_hears_one,
    connecting_datagrams_again,
    sending_has_errors,
    a_name_is_free_again,
    many_clients,
];

const KINDS: [i32; 2] = [SOCK_STREAM, SOCK_SEQPACKET];

/// A socket that listens at `at`.
fn listener(kind: i32, at: &[u8], backlog: i32) -> SysResult<OwnedFd> {
    let listener = socket(AF_UNIX, kind, 0)?;
    bind(&listener, at)?;
    listen(&listener, backlog)?;
    Ok(listener)
}

fn client(kind: i32, to: &[u8]) -> SysResult<OwnedFd> {
    let client = socket(AF_UNIX, kind, 0)?;
    connect(&client, to)?;
    Ok(client)
}

fn refused<T: std::fmt::Debug + PartialEq>(got: SysResult<T>, errno: i32) -> Outcome {
    expect_eq!(got, Err(Errno(errno)));
    Ok(())
}

fn converse(one: &OwnedFd, other: &OwnedFd) -> Outcome {
    write(one, b"there")?;
    expect_eq!(read(other, 100)?, b"there");
    write(other, b"and back")?;
    expect_eq!(read(one, 100)?, b"and back");
    Ok(())
}

fn a_connection_by_path() -> Outcome {
    for kind in KINDS {
        let at = local(format!("socket{kind}\0").as_bytes());
        let listener = listener(kind, &at, 5)?;
        let client = client(kind, &at)?;
        let accepted = accept(&listener, 0)?;
        converse(&client, &accepted)?;
        drop(listener);
        converse(&accepted, &client)?;
    }
    Ok(())
}

fn a_connection_by_abstract_name() -> Outcome {
    for kind in KINDS {
        let at = local(b"\0abstract \0 with a NUL");
        let listener = listener(kind, &at, 5)?;
        let client = client(kind, &at)?;
        let accepted = accept(&listener, 0)?;
        converse(&client, &accepted)?;
        let shorter = socket(AF_UNIX, kind, 0)?;
        refused(
            connect(&shorter, &local(b"\0abstract ")),
            libc::ECONNREFUSED,
        )?;
    }
    Ok(())
}

fn names_are_told() -> Outcome {
    let nameless = (AF_UNIX as u16).to_ne_bytes().to_vec();
    for (at, told) in [
        (local(b"path"), local(b"path\0")),
        (local(b"path2\0garbage"), local(b"path2\0")),
        (local(b"\0abstract"), local(b"\0abstract")),
    ] {
        let listener = listener(SOCK_STREAM, &at, 5)?;
        expect_eq!(name(&listener)?, told);
        let client = client(SOCK_STREAM, &at)?;
        expect_eq!(
            (name(&client)?, peer(&client)?),
            (nameless.clone(), told.clone())
        );
        let mut accepted = None;
        let from = address_by(|at, length| {
            accepted = Some(sys!(SYS_accept, &listener, at, length).map(owned)?);
            Ok(0)
        })?;
        expect_eq!(from, nameless);
        let accepted = accepted.ok_or(Errno(0))?;
        expect_eq!(
            (name(&accepted)?, peer(&accepted)?),
            (told.clone(), nameless.clone())
        );
        // A name that comes later is told, too.
        bind(&client, &local(b"\0later"))?;
        expect_eq!(peer(&accepted)?, local(b"\0later"));
        write(&client, b"x")?;
        expect_eq!(
            receive_from(&accepted, 9, 0)?,
            (b"x".to_vec(), local(b"\0later"))
        );
    }
    Ok(())
}

fn the_kernel_chooses_a_name() -> Outcome {
    let family = (AF_UNIX as u16).to_ne_bytes();
    let (one, other) = (
        socket(AF_UNIX, SOCK_DGRAM, 0)?,
        socket(AF_UNIX, SOCK_STREAM, 0)?,
    );
    bind(&one, &family)?;
    bind(&other, &family)?;
    let names = [name(&one)?, name(&other)?];
    for name in &names {
        expect_eq!((name.len(), name[2]), (8, 0));
        expect!(name[3..].iter().all(u8::is_ascii_hexdigit));
    }
    expect!(names[0] != names[1]);
    // Once is enough.
    bind(&one, &family)?;
    expect_eq!(name(&one)?, names[0]);
    refused(bind(&one, &local(b"\0another")), libc::EINVAL)?;
    // Who wants to know senders gets one by connecting, and by sending.
    let target = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    bind(&target, &local(b"\0target"))?;
    let sender = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    set_option(&sender, SOL_SOCKET, SO_PASSCRED, 1)?;
    send_to(&sender, b"x", 0, &local(b"\0target"))?;
    expect_eq!(name(&sender)?.len(), 8);
    Ok(())
}

fn a_path_is_a_file() -> Outcome {
    let old = sys!(SYS_umask, 0o027)?;
    let listener = socket(AF_UNIX, SOCK_STREAM, 0)?;
    let bound = bind(&listener, &local(b"file"));
    sys!(SYS_umask, old)?;
    bound?;
    // SAFETY: integers, for which zero is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    sys!(SYS_stat, c"file", &raw mut stat)?;
    expect_eq!(stat.st_mode, libc::S_IFSOCK | 0o750);
    fails!(ENXIO, SYS_openat, libc::AT_FDCWD, c"file", libc::O_RDWR, 0);
    let second = socket(AF_UNIX, SOCK_STREAM, 0)?;
    refused(bind(&second, &local(b"file")), libc::EADDRINUSE)?;
    // It outlives the socket, but nobody is there.
    drop(listener);
    refused(connect(&second, &local(b"file")), libc::ECONNREFUSED)?;
    refused(bind(&second, &local(b"file")), libc::EADDRINUSE)?;
    sys!(SYS_unlink, c"file")?;
    bind(&second, &local(b"file"))?;
    Ok(())
}

fn a_removed_path_cannot_be_connected_to() -> Outcome {
    let listener = listener(SOCK_STREAM, &local(b"gone"), 5)?;
    let before = client(SOCK_STREAM, &local(b"gone"))?;
    sys!(SYS_unlink, c"gone")?;
    refused(client(SOCK_STREAM, &local(b"gone")).map(drop), libc::ENOENT)?;
    let accepted = accept(&listener, 0)?;
    converse(&before, &accepted)?;
    // A file that the kernel did not make for a socket.
    sys!(SYS_mknod, c"made", libc::S_IFSOCK | 0o777, 0)?;
    refused(
        client(SOCK_STREAM, &local(b"made")).map(drop),
        libc::ECONNREFUSED,
    )?;
    Ok(())
}

fn a_path_by_another_name() -> Outcome {
    let listener = listener(SOCK_STREAM, &local(b"first"), 5)?;
    sys!(SYS_link, c"first", c"second")?;
    sys!(SYS_symlink, c"second", c"third")?;
    sys!(SYS_rename, c"first", c"fourth")?;
    for name in [b"second", b"third\0", b"fourth"] as [&[u8]; 3] {
        let client = client(SOCK_STREAM, &local(name))?;
        let accepted = accept(&listener, 0)?;
        converse(&client, &accepted)?;
        expect_eq!(peer(&client)?, local(b"first\0"));
    }
    Ok(())
}

fn binding_has_errors() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let one = socket(AF_UNIX, kind, 0)?;
        refused(bind(&one, b""), libc::EINVAL)?;
        refused(bind(&one, b"\x01"), libc::EINVAL)?;
        refused(bind(&one, &[0; 20]), libc::EINVAL)?;
        let mut other_family = local(b"\0x");
        other_family[0] = AF_INET as u8;
        refused(bind(&one, &other_family), libc::EINVAL)?;
        refused(bind(&one, &local(&[b'x'; 109])), libc::EINVAL)?;
        refused(bind(&one, &local(b"no/such/directory")), libc::ENOENT)?;
        create(c"plain", b"")?;
        refused(bind(&one, &local(b"plain/in it")), libc::ENOTDIR)?;
        refused(bind(&one, &local(b"plain")), libc::EADDRINUSE)?;
        refused(bind(&one, &local(b".")), libc::EADDRINUSE)?;
        fails!(EFAULT, SYS_bind, &one, 8, 10);
        fails!(EINVAL, SYS_bind, &one, local(b"x").as_ptr(), -1);
        fails!(EINVAL, SYS_bind, &one, [0_u8; 200].as_ptr(), 129);
        let at = local(format!("\0taken{kind}").as_bytes());
        let other = socket(AF_UNIX, kind, 0)?;
        bind(&other, &at)?;
        refused(bind(&one, &at), libc::EADDRINUSE)?;
        refused(bind(&other, &local(b"\0again")), libc::EINVAL)?;
        refused(bind(&other, &local(b"again")), libc::EINVAL)?;
        // Nothing of that is left.
        fails!(ENOENT, SYS_access, c"again", libc::F_OK);
        let longest = local(&[b'y'; 108]);
        bind(&one, &longest)?;
        let told = name(&one)?;
        expect_eq!((told.len(), &told[..110]), (111, &longest[..]));
        sys!(
            SYS_unlinkat,
            libc::AT_FDCWD,
            [&[b'y'; 108][..], b"\0"].concat().as_ptr(),
            0
        )?;
    }
    Ok(())
}

fn connecting_has_errors() -> Outcome {
    create(c"plain", b"")?;
    let datagrams = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    bind(&datagrams, &local(b"datagrams"))?;
    let silent = socket(AF_UNIX, SOCK_STREAM, 0)?;
    bind(&silent, &local(b"silent"))?;
    let listener = listener(SOCK_STREAM, &local(b"listener"), 5)?;
    let one = socket(AF_UNIX, SOCK_STREAM, 0)?;
    refused(connect(&one, b""), libc::EINVAL)?;
    refused(connect(&one, &(AF_UNIX as u16).to_ne_bytes()), libc::EINVAL)?;
    refused(connect(&one, &local(&[b'x'; 109])), libc::EINVAL)?;
    refused(connect(&one, &[0; 16]), libc::EINVAL)?;
    refused(connect(&one, &local(b"nowhere")), libc::ENOENT)?;
    refused(connect(&one, &local(b"plain/in it")), libc::ENOTDIR)?;
    refused(connect(&one, &local(b"plain")), libc::ECONNREFUSED)?;
    refused(connect(&one, &local(b"\0nowhere")), libc::ECONNREFUSED)?;
    refused(connect(&one, &local(b"datagrams")), libc::EPROTOTYPE)?;
    refused(connect(&one, &local(b"silent")), libc::ECONNREFUSED)?;
    let packets = socket(AF_UNIX, SOCK_SEQPACKET, 0)?;
    refused(connect(&packets, &local(b"listener")), libc::EPROTOTYPE)?;
    refused(connect(&listener, &local(b"listener")), libc::EINVAL)?;
    connect(&one, &local(b"listener"))?;
    refused(connect(&one, &local(b"listener")), libc::EISCONN)?;
    refused(connect(&one, &local(b"silent")), libc::ECONNREFUSED)?;
    fails!(EFAULT, SYS_connect, &one, 8, 10);
    let other = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    refused(connect(&other, &local(b"listener")), libc::EPROTOTYPE)?;
    Ok(())
}

fn listening_has_errors() -> Outcome {
    for kind in KINDS {
        let one = socket(AF_UNIX, kind, 0)?;
        refused(listen(&one, 5), libc::EINVAL)?;
        bind(&one, &local(format!("\0listening{kind}").as_bytes()))?;
        expect_eq!(option(&one, SOL_SOCKET, SO_ACCEPTCONN)?, 0);
        listen(&one, -1)?;
        listen(&one, 0)?;
        expect_eq!(option(&one, SOL_SOCKET, SO_ACCEPTCONN)?, 1);
        let client = client(kind, &local(format!("\0listening{kind}").as_bytes()))?;
        refused(listen(&client, 5), libc::EINVAL)?;
        refused(write(&one, b"x"), libc::ENOTCONN)?;
        refused(
            read(&one, 9),
            if kind == SOCK_STREAM {
                libc::EINVAL
            } else {
                libc::ENOTCONN
            },
        )?;
        refused(peer(&one), libc::ENOTCONN)?;
    }
    let datagrams = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    refused(listen(&datagrams, 5), libc::EOPNOTSUPP)?;
    Ok(())
}

fn accepting_has_errors() -> Outcome {
    let one = socket(AF_UNIX, SOCK_STREAM, 0)?;
    refused(accept(&one, 0).map(drop), libc::EINVAL)?;
    bind(&one, &local(b"\0accepting"))?;
    refused(accept(&one, 0).map(drop), libc::EINVAL)?;
    let datagrams = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    refused(accept(&datagrams, 0).map(drop), libc::EOPNOTSUPP)?;
    listen(&one, 5)?;
    refused(accept(&one, 1).map(drop), libc::EINVAL)?;
    sys!(SYS_fcntl, &one, libc::F_SETFL, libc::O_NONBLOCK)?;
    refused(accept(&one, 0).map(drop), libc::EAGAIN)?;
    let _client = client(SOCK_STREAM, &local(b"\0accepting"))?;
    fails!(EFAULT, SYS_accept, &one, [0_u8; 8].as_ptr(), 8);
    refused(accept(&one, 0).map(drop), libc::EAGAIN)?;
    Ok(())
}

fn accepting_waits() -> Outcome {
    for kind in KINDS {
        let at = local(format!("\0waiting{kind}").as_bytes());
        let listener = listener(kind, &at, 5)?;
        let server = thread::spawn(move || accept(&listener, 0));
        thread::sleep(Duration::from_millis(20));
        let client = client(kind, &at)?;
        let accepted = server.join().map_err(|_| Errno(0))??;
        converse(&client, &accepted)?;
    }
    Ok(())
}

fn the_backlog_is_bounded() -> Outcome {
    for (backlog, most) in [(0, 1), (1, 2), (3, 4)] {
        let at = local(format!("\0backlog{backlog}").as_bytes());
        let listener = listener(SOCK_STREAM, &at, backlog)?;
        let mut clients = Vec::new();
        for _ in 0..most {
            clients.push(client(SOCK_STREAM | SOCK_NONBLOCK, &at)?);
        }
        let late = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)?;
        refused(connect(&late, &at), libc::EAGAIN)?;
        let _accepted = accept(&listener, 0)?;
        connect(&late, &at)?;
    }
    Ok(())
}

fn a_full_backlog_waits() -> Outcome {
    let at = local(b"\0full");
    let listener = listener(SOCK_STREAM, &at, 0)?;
    let _first = client(SOCK_STREAM, &at)?;
    let waiting = {
        let at = at.clone();
        thread::spawn(move || client(SOCK_STREAM, &at))
    };
    thread::sleep(Duration::from_millis(20));
    let _accepted = accept(&listener, 0)?;
    let second = waiting.join().map_err(|_| Errno(0))??;
    let accepted = accept(&listener, 0)?;
    converse(&second, &accepted)?;
    // One that gives up.
    let _third = client(SOCK_STREAM, &at)?;
    let late = socket(AF_UNIX, SOCK_STREAM, 0)?;
    let time = [0_i64, 20_000];
    sys!(
        SYS_setsockopt,
        &late,
        SOL_SOCKET,
        libc::SO_SNDTIMEO,
        time.as_ptr(),
        16
    )?;
    refused(connect(&late, &at), libc::EAGAIN)?;
    // And one whose listener is closed.
    let waiting = thread::spawn(move || client(SOCK_STREAM, &at).map(drop));
    thread::sleep(Duration::from_millis(20));
    drop(listener);
    refused(waiting.join().map_err(|_| Errno(0))?, libc::ECONNREFUSED)
}

fn closing_a_listener() -> Outcome {
    for kind in KINDS {
        let at = local(format!("\0closing{kind}").as_bytes());
        let listener = listener(kind, &at, 5)?;
        let client = client(kind, &at)?;
        write(&client, b"never read")?;
        drop(listener);
        expect_eq!(option(&client, SOL_SOCKET, SO_ERROR)?, libc::ECONNRESET);
        expect_eq!(read(&client, 9)?, b"");
        refused(send(&client, b"x", MSG_NOSIGNAL), libc::EPIPE)?;
    }
    Ok(())
}

fn shutting_down_a_listener() -> Outcome {
    let at = local(b"\0shut");
    let listener = listener(SOCK_STREAM, &at, 5)?;
    let before = client(SOCK_STREAM, &at)?;
    shut_down(&listener, SHUT_RD)?;
    refused(client(SOCK_STREAM, &at).map(drop), libc::ECONNREFUSED)?;
    let accepted = accept(&listener, 0)?;
    converse(&before, &accepted)?;
    refused(accept(&listener, 0).map(drop), libc::EINVAL)
}

fn readiness_of_a_listener() -> Outcome {
    for kind in KINDS {
        let at = local(format!("\0ready{kind}").as_bytes());
        let one = socket(AF_UNIX, kind, 0)?;
        expect_eq!(ready(&one)?, POLLOUT | POLLHUP);
        bind(&one, &at)?;
        expect_eq!(ready(&one)?, POLLOUT | POLLHUP);
        listen(&one, 5)?;
        expect_eq!(ready(&one)?, 0);
        let client = client(kind, &at)?;
        expect_eq!((ready(&one)?, ready(&client)?), (POLLIN, POLLOUT));
        let _accepted = accept(&one, 0)?;
        expect_eq!(ready(&one)?, 0);
    }
    Ok(())
}

fn flags_of_the_accepted() -> Outcome {
    let at = local(b"\0flags");
    let listener = listener(SOCK_STREAM, &at, 5)?;
    for (flags, descriptor, file) in [
        (0, 0, libc::O_RDWR),
        (SOCK_CLOEXEC, libc::FD_CLOEXEC, libc::O_RDWR),
        (SOCK_NONBLOCK, 0, libc::O_RDWR | libc::O_NONBLOCK),
    ] {
        let _client = client(SOCK_STREAM, &at)?;
        let accepted = accept(&listener, flags)?;
        expect_eq!(
            sys!(SYS_fcntl, &accepted, libc::F_GETFD)? as i32,
            descriptor
        );
        expect_eq!(sys!(SYS_fcntl, &accepted, libc::F_GETFL)? as i32, file);
    }
    Ok(())
}

fn what_is_sent_before_accepting() -> Outcome {
    for kind in KINDS {
        let at = local(format!("\0early{kind}").as_bytes());
        let listener = listener(kind, &at, 5)?;
        let client = client(kind, &at)?;
        write(&client, b"early")?;
        drop(client);
        let accepted = accept(&listener, 0)?;
        expect_eq!(read(&accepted, 100)?, b"early");
        expect_eq!(read(&accepted, 100)?, b"");
    }
    Ok(())
}

fn who_has_connected() -> Outcome {
    let at = local(b"\0who");
    let listener = listener(SOCK_STREAM, &at, 5)?;
    let client = client(SOCK_STREAM, &at)?;
    let accepted = accept(&listener, 0)?;
    for end in [&client, &accepted, &listener] {
        let mut identity = [0_u32; 3];
        let mut length = 12_u32;
        sys!(
            SYS_getsockopt,
            end,
            SOL_SOCKET,
            SO_PEERCRED,
            identity.as_mut_ptr(),
            &raw mut length
        )?;
        expect_eq!(identity[0], std::process::id());
    }
    Ok(())
}

/// A socket of datagrams at `at`.
fn datagrams(at: &[u8]) -> SysResult<OwnedFd> {
    let new = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    bind(&new, at)?;
    Ok(new)
}

fn datagrams_by_name() -> Outcome {
    for (first, second) in [
        (local(b"one\0"), local(b"other\0")),
        (local(b"\0one"), local(b"\0other")),
    ] {
        let (one, other) = (datagrams(&first)?, datagrams(&second)?);
        send_to(&one, b"there", 0, &second)?;
        expect_eq!(
            receive_from(&other, 100, 0)?,
            (b"there".to_vec(), first.clone())
        );
        connect(&other, &first)?;
        expect_eq!(peer(&other)?, first);
        write(&other, b"and back")?;
        expect_eq!(receive_from(&one, 100, 0)?, (b"and back".to_vec(), second));
    }
    Ok(())
}

fn datagrams_between_strangers() -> Outcome {
    let at = local(b"\0stranger");
    let target = datagrams(&at)?;
    let nameless = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    send_to(&nameless, b"x", 0, &at)?;
    expect_eq!(receive_from(&target, 9, 0)?, (b"x".to_vec(), vec![]));
    send_to(&target, b"to itself", 0, &at)?;
    expect_eq!(receive_from(&target, 9, 0)?, (b"to itself".to_vec(), at));
    Ok(())
}

fn datagrams_wait_for_room() -> Outcome {
    let at = local(b"\0room");
    let target = datagrams(&at)?;
    let sender = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    connect(&sender, &at)?;
    let mut count = 0;
    while send(&sender, b"x", MSG_DONTWAIT).is_ok() {
        count += 1;
    }
    expect!(count >= 11);
    expect_eq!(ready(&sender)? & POLLOUT, 0);
    // Others may not send, either.
    let second = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    refused(send_to(&second, b"x", MSG_DONTWAIT, &at), libc::EAGAIN)?;
    let writer = thread::spawn(move || -> SysResult<OwnedFd> {
        send(&sender, b"last", 0)?;
        Ok(sender)
    });
    thread::sleep(Duration::from_millis(20));
    for _ in 0..count {
        expect_eq!(read(&target, 9)?, b"x");
    }
    expect_eq!(read(&target, 9)?, b"last");
    let sender = writer.join().map_err(|_| Errno(0))??;
    expect_eq!(ready(&sender)?, POLLOUT);
    Ok(())
}

fn datagrams_to_nobody() -> Outcome {
    let one = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    refused(write(&one, b"x"), libc::ENOTCONN)?;
    refused(
        send_to(&one, b"x", 0, &local(b"\0nobody")),
        libc::ECONNREFUSED,
    )?;
    refused(send_to(&one, b"x", 0, &local(b"nobody")), libc::ENOENT)?;
    let at = local(b"gone");
    let target = datagrams(&at)?;
    connect(&one, &at)?;
    drop(target);
    refused(send_to(&one, b"x", 0, &at), libc::ECONNREFUSED)?;
    refused(write(&one, b"x"), libc::ECONNREFUSED)?;
    refused(write(&one, b"x"), libc::ENOTCONN)?;
    Ok(())
}

fn a_connected_datagram_socket_hears_one() -> Outcome {
    let (here, there) = (local(b"\0here"), local(b"\0there"));
    let (one, other) = (datagrams(&here)?, datagrams(&there)?);
    connect(&one, &there)?;
    let stranger = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    refused(send_to(&stranger, b"x", 0, &here), libc::EPERM)?;
    refused(connect(&stranger, &here), libc::EPERM)?;
    send_to(&other, b"x", 0, &here)?;
    expect_eq!(receive(&one, 9, 0)?, b"x");
    Ok(())
}

fn connecting_datagrams_again() -> Outcome {
    let (first, second) = (local(b"\0first"), local(b"\0second"));
    let (one, other) = (datagrams(&first)?, datagrams(&second)?);
    let sender = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    connect(&sender, &first)?;
    write(&sender, b"a")?;
    connect(&sender, &second)?;
    write(&sender, b"b")?;
    send_to(&sender, b"c", 0, &first)?;
    expect_eq!(
        (read(&one, 9)?, read(&other, 9)?, read(&one, 9)?),
        (b"a".to_vec(), b"b".to_vec(), b"c".to_vec())
    );
    // The family of none disconnects.
    connect(&sender, &[0; 16])?;
    refused(write(&sender, b"x"), libc::ENOTCONN)?;
    refused(peer(&sender), libc::ENOTCONN)?;
    Ok(())
}

fn sending_has_errors() -> Outcome {
    let at = local(b"\0sending");
    let listener = listener(SOCK_STREAM, &at, 5)?;
    let one = socket(AF_UNIX, SOCK_STREAM, 0)?;
    refused(write(&one, b"x"), libc::ENOTCONN)?;
    refused(send(&one, b"x", 0), libc::ENOTCONN)?;
    refused(send_to(&one, b"x", 0, &at), libc::EOPNOTSUPP)?;
    refused(read(&one, 9), libc::EINVAL)?;
    refused(receive(&one, 9, MSG_DONTWAIT), libc::EINVAL)?;
    connect(&one, &at)?;
    refused(send_to(&one, b"x", 0, &at), libc::EISCONN)?;
    let _accepted = accept(&listener, 0)?;
    let packets = socket(AF_UNIX, SOCK_SEQPACKET, 0)?;
    refused(write(&packets, b"x"), libc::ENOTCONN)?;
    refused(send_to(&packets, b"x", 0, &at), libc::ENOTCONN)?;
    refused(read(&packets, 9), libc::ENOTCONN)?;
    let datagrams = socket(AF_UNIX, SOCK_DGRAM, 0)?;
    refused(send_to(&datagrams, b"x", 0, &[0; 16]), libc::EINVAL)?;
    // Abstract names of another type are not seen.
    refused(send_to(&datagrams, b"x", 0, &at), libc::ECONNREFUSED)?;
    fails!(
        EINVAL,
        SYS_sendto,
        &datagrams,
        b"x".as_ptr(),
        1,
        0,
        at.as_ptr(),
        -1
    );
    fails!(
        EINVAL,
        SYS_sendto,
        &datagrams,
        b"x".as_ptr(),
        1,
        0,
        [0_u8; 200].as_ptr(),
        129
    );
    fails!(EFAULT, SYS_sendto, &datagrams, b"x".as_ptr(), 1, 0, 8, 12);
    Ok(())
}

fn a_name_is_free_again() -> Outcome {
    let at = local(b"\0free");
    for _ in 0..20 {
        let listener = listener(SOCK_STREAM, &at, 5)?;
        let client = client(SOCK_STREAM, &at)?;
        let accepted = accept(&listener, 0)?;
        drop(listener);
        // What was accepted shows the name, but does not have it.
        expect_eq!(name(&accepted)?, at);
        converse(&client, &accepted)?;
    }
    Ok(())
}

fn many_clients() -> Outcome {
    let at = local(b"\0many");
    let listener = listener(SOCK_STREAM, &at, 5)?;
    let clients: Vec<_> = (0..4_u8)
        .map(|number| {
            let at = at.clone();
            thread::spawn(move || -> SysResult<()> {
                for _ in 0..50 {
                    let client = client(SOCK_STREAM, &at)?;
                    write(&client, &[number; 3])?;
                    if read(&client, 9)? != [number; 3] {
                        return Err(Errno(libc::EIO));
                    }
                }
                Ok(())
            })
        })
        .collect();
    for _ in 0..200 {
        let accepted = accept(&listener, 0)?;
        let bytes = read(&accepted, 9)?;
        write(&accepted, &bytes)?;
    }
    for client in clients {
        client.join().map_err(|_| Errno(0))??;
    }
    expect_eq!(ready(&listener)?, 0);
    Ok(())
}
