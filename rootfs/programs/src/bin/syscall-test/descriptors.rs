//! Descriptors: copies, flags, closing, polling.

use std::os::fd::AsRawFd;

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{create, open, owned};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_SETFD, F_SETFL, FD_CLOEXEC, O_APPEND, O_CLOEXEC,
    O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, POLLIN, POLLNVAL, POLLOUT, SEEK_CUR, SEEK_SET, pollfd,
};

pub(crate) const CHECKS: &[Check] = checks![
    dup_shares_the_position,
    dup_errors,
    dup2_replaces,
    dup2_errors,
    dup3_flags,
    fcntl_duplicates,
    fcntl_close_on_exec,
    fcntl_status_flags,
    fcntl_errors,
    close_twice,
    close_range_closes,
    descriptor_limit,
    poll_of_files,
    poll_of_nothing,
    poll_errors,
    ioctl_of_a_file,
];

fn dup_shares_the_position() -> Outcome {
    let fd = create(c"f", b"abcdef")?;
    let copy = owned(sys!(SYS_dup, &fd)?);
    expect!(copy.as_raw_fd() > fd.as_raw_fd());
    sys!(SYS_lseek, &fd, 4, SEEK_SET)?;
    expect_eq!(sys!(SYS_lseek, &copy, 0, SEEK_CUR), Ok(4));
    drop(fd);
    let mut byte = 0_u8;
    expect_eq!(sys!(SYS_read, &copy, &raw mut byte, 1), Ok(1));
    expect_eq!(byte, b'e');
    // Opened twice, a file has two positions.
    let other = open(c"f", O_RDONLY)?;
    expect_eq!(sys!(SYS_lseek, &other, 0, SEEK_CUR), Ok(0));
    Ok(())
}

fn dup_errors() -> Outcome {
    fails!(EBADF, SYS_dup, 999);
    fails!(EBADF, SYS_dup, -1);
    Ok(())
}

fn dup2_replaces() -> Outcome {
    let fd = create(c"f", b"")?;
    let other = create(c"other", b"")?;
    let number = other.as_raw_fd();
    expect_eq!(sys!(SYS_dup2, &fd, &other), Ok(number as usize));
    expect_eq!(
        crate::attributes::fstat(&other)?.st_ino,
        crate::attributes::fstat(&fd)?.st_ino
    );
    expect_eq!(sys!(SYS_dup2, &fd, 100), Ok(100));
    expect_eq!(sys!(SYS_close, 100), Ok(0));
    expect_eq!(sys!(SYS_dup2, &fd, &fd), Ok(fd.as_raw_fd() as usize));
    Ok(())
}

fn dup2_errors() -> Outcome {
    let fd = create(c"f", b"")?;
    fails!(EBADF, SYS_dup2, 999, 100);
    fails!(EBADF, SYS_dup2, 999, 999);
    fails!(EBADF, SYS_dup2, &fd, -1);
    fails!(EBADF, SYS_dup2, &fd, 1 << 30);
    fails!(EBADF, SYS_fcntl, 100, F_GETFD);
    Ok(())
}

fn dup3_flags() -> Outcome {
    let fd = create(c"f", b"")?;
    let copy = owned(sys!(SYS_dup3, &fd, 100, O_CLOEXEC)?);
    expect_eq!(sys!(SYS_fcntl, &copy, F_GETFD), Ok(FD_CLOEXEC as usize));
    fails!(EINVAL, SYS_dup3, &fd, &fd, 0);
    fails!(EINVAL, SYS_dup3, &fd, 101, O_APPEND);
    fails!(EBADF, SYS_dup3, 999, 101, 0);
    Ok(())
}

fn fcntl_duplicates() -> Outcome {
    let fd = create(c"f", b"")?;
    let copy = owned(sys!(SYS_fcntl, &fd, F_DUPFD, 200)?);
    expect_eq!(copy.as_raw_fd(), 200);
    let next = owned(sys!(SYS_fcntl, &fd, F_DUPFD_CLOEXEC, 200)?);
    expect_eq!(next.as_raw_fd(), 201);
    expect_eq!(sys!(SYS_fcntl, &copy, F_GETFD), Ok(0));
    expect_eq!(sys!(SYS_fcntl, &next, F_GETFD), Ok(FD_CLOEXEC as usize));
    fails!(EINVAL, SYS_fcntl, &fd, F_DUPFD, -1);
    fails!(EINVAL, SYS_fcntl, &fd, F_DUPFD, 1 << 30);
    Ok(())
}

fn fcntl_close_on_exec() -> Outcome {
    let plain = create(c"f", b"")?;
    expect_eq!(sys!(SYS_fcntl, &plain, F_GETFD), Ok(0));
    let marked = open(c"f", O_RDONLY | O_CLOEXEC)?;
    expect_eq!(sys!(SYS_fcntl, &marked, F_GETFD), Ok(FD_CLOEXEC as usize));
    expect_eq!(sys!(SYS_fcntl, &marked, F_SETFD, 0), Ok(0));
    expect_eq!(sys!(SYS_fcntl, &marked, F_GETFD), Ok(0));
    // The flag is the descriptor's; a copy has its own.
    sys!(SYS_fcntl, &marked, F_SETFD, FD_CLOEXEC)?;
    let copy = owned(sys!(SYS_dup, &marked)?);
    expect_eq!(sys!(SYS_fcntl, &copy, F_GETFD), Ok(0));
    Ok(())
}

fn fcntl_status_flags() -> Outcome {
    create(c"f", b"")?;
    let large = 0o100_000; // O_LARGEFILE, which a 64-bit kernel adds by itself
    let status = |fd| sys!(SYS_fcntl, fd, F_GETFL).map(|flags| flags as i32 & !large);
    let fd = open(c"f", O_WRONLY | O_APPEND)?;
    expect_eq!(status(&fd), Ok(O_WRONLY | O_APPEND));
    let fd = open(c"f", O_RDWR | libc::O_TRUNC | libc::O_CREAT)?;
    expect_eq!(status(&fd), Ok(O_RDWR));
    // The access mode and flags of opening cannot be changed, and are ignored.
    expect_eq!(
        sys!(
            SYS_fcntl,
            &fd,
            F_SETFL,
            O_APPEND | O_NONBLOCK | libc::O_CREAT
        ),
        Ok(0)
    );
    expect_eq!(status(&fd), Ok(O_RDWR | O_APPEND | O_NONBLOCK));
    let copy = owned(sys!(SYS_dup, &fd)?);
    expect_eq!(sys!(SYS_fcntl, &copy, F_SETFL, 0), Ok(0));
    expect_eq!(status(&fd), Ok(O_RDWR));
    Ok(())
}

fn fcntl_errors() -> Outcome {
    let fd = create(c"f", b"")?;
    fails!(EBADF, SYS_fcntl, 999, F_GETFD);
    fails!(EINVAL, SYS_fcntl, &fd, 9999);
    Ok(())
}

fn close_twice() -> Outcome {
    let fd = sys!(SYS_open, c".", O_RDONLY)?;
    expect_eq!(sys!(SYS_close, fd), Ok(0));
    fails!(EBADF, SYS_close, fd);
    fails!(EBADF, SYS_close, -1);
    fails!(EBADF, SYS_close, i32::MAX);
    Ok(())
}

fn close_range_closes() -> Outcome {
    let fd = create(c"f", b"")?;
    for number in 300..305 {
        sys!(SYS_dup2, &fd, number)?;
    }
    expect_eq!(sys!(SYS_close_range, 301, 303, 0), Ok(0));
    fails!(EBADF, SYS_fcntl, 301, F_GETFD);
    fails!(EBADF, SYS_fcntl, 303, F_GETFD);
    expect_eq!(sys!(SYS_fcntl, 300, F_GETFD), Ok(0));
    expect_eq!(
        sys!(SYS_close_range, 304, u32::MAX, libc::CLOSE_RANGE_CLOEXEC),
        Ok(0)
    );
    expect_eq!(sys!(SYS_fcntl, 304, F_GETFD), Ok(FD_CLOEXEC as usize));
    expect_eq!(sys!(SYS_close_range, 300, 304, 0), Ok(0));
    fails!(EINVAL, SYS_close_range, 2, 1, 0);
    fails!(EINVAL, SYS_close_range, 300, 304, 1);
    Ok(())
}

fn descriptor_limit() -> Outcome {
    let fd = create(c"f", b"")?;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, &raw mut limit)?;
    let lower = libc::rlimit {
        rlim_cur: 64,
        ..limit
    };
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &raw const lower, 0)?;
    let mut copies = Vec::new();
    let last = loop {
        match sys!(SYS_dup, &fd) {
            Ok(copy) => copies.push(owned(copy)),
            Err(errno) => break errno,
        }
    };
    let replaced = sys!(SYS_dup2, &fd, 64);
    let opened = open(c"f", O_RDONLY).map(drop);
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &raw const limit, 0)?;
    let errno = guest_programs::sys::Errno;
    expect_eq!(last, errno(libc::EMFILE));
    expect_eq!(opened, Err(errno(libc::EMFILE)));
    expect_eq!(replaced, Err(errno(libc::EBADF)));
    expect!(copies.iter().all(|copy| copy.as_raw_fd() < 64));
    Ok(())
}

fn poll_of_files() -> Outcome {
    let fd = create(c"f", b"")?;
    let poll = |fd, events| pollfd {
        fd,
        events,
        revents: 0,
    };
    let mut fds = [
        poll(fd.as_raw_fd(), POLLIN | POLLOUT),
        poll(999, POLLIN),
        poll(-1, POLLIN),
        poll(fd.as_raw_fd(), 0),
    ];
    expect_eq!(sys!(SYS_poll, fds.as_mut_ptr(), 4, -1), Ok(2));
    let events = fds.map(|fd| fd.revents);
    expect_eq!(events, [POLLIN | POLLOUT, POLLNVAL, 0, 0]);
    Ok(())
}

fn poll_of_nothing() -> Outcome {
    let start = std::time::Instant::now();
    expect_eq!(sys!(SYS_poll, 0, 0, 20), Ok(0));
    expect!(start.elapsed().as_millis() >= 20);
    expect_eq!(sys!(SYS_poll, 0, 0, 0), Ok(0));
    let timeout = libc::timespec {
        tv_sec: 0,
        tv_nsec: 5_000_000,
    };
    expect_eq!(sys!(SYS_ppoll, 0, 0, &raw const timeout, 0, 0), Ok(0));
    Ok(())
}

fn poll_errors() -> Outcome {
    fails!(EFAULT, SYS_poll, 8, 1, 0);
    fails!(EINVAL, SYS_poll, 8, u32::MAX, 0);
    let timeout = libc::timespec {
        tv_sec: -1,
        tv_nsec: 0,
    };
    fails!(EINVAL, SYS_ppoll, 0, 0, &raw const timeout, 0, 0);
    Ok(())
}

fn ioctl_of_a_file() -> Outcome {
    let fd = create(c"f", b"")?;
    let mut termios = [0_u8; 64];
    fails!(ENOTTY, SYS_ioctl, &fd, libc::TCGETS, termios.as_mut_ptr());
    fails!(
        ENOTTY,
        SYS_ioctl,
        &fd,
        libc::TIOCGWINSZ,
        termios.as_mut_ptr()
    );
    fails!(EBADF, SYS_ioctl, 999, libc::TCGETS, termios.as_mut_ptr());
    expect_eq!(sys!(SYS_ioctl, &fd, libc::FIOCLEX), Ok(0));
    expect_eq!(sys!(SYS_fcntl, &fd, F_GETFD), Ok(FD_CLOEXEC as usize));
    expect_eq!(sys!(SYS_ioctl, &fd, libc::FIONCLEX), Ok(0));
    expect_eq!(sys!(SYS_fcntl, &fd, F_GETFD), Ok(0));
    Ok(())
}
