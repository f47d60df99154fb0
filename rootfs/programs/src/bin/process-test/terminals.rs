//! Pseudo-terminals and job control.

use crate::child::{Child, SharedWord, exit, fork, getpid, wait4};
use guest_programs::check::{Check, Failure, Outcome, comes_true};
use guest_programs::sys::{SysResult, owned};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) const CHECKS: &[Check] = checks![
    what_one_end_writes_the_other_reads,
    slaves_have_names_and_are_locked,
    each_end_hears_that_the_other_is_closed,
    a_session_gets_a_terminal,
    control_characters_are_signals_for_the_foreground,
    the_background_may_not_read,
    the_background_may_not_change_the_terminal,
    the_foreground_is_a_group_of_the_session,
    a_terminal_that_goes_is_told_of,
    sizes_are_told,
];

/// The master and the path of the slave.
fn open_pty() -> Result<(OwnedFd, CString), Failure> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let master = owned(sys!(SYS_openat, libc::AT_FDCWD, c"/dev/ptmx", flags, 0)?);
    let unlocked = 0_i32;
    sys!(SYS_ioctl, &master, libc::TIOCSPTLCK, &raw const unlocked)?;
    let mut number = -1_i32;
    sys!(SYS_ioctl, &master, libc::TIOCGPTN, &raw mut number)?;
    Ok((master, CString::new(format!("/dev/pts/{number}"))?))
}

fn open_slave(path: &CString, flags: i32) -> SysResult<OwnedFd> {
    let flags = libc::O_RDWR | flags;
    sys!(SYS_openat, libc::AT_FDCWD, path.as_c_str(), flags, 0).map(owned)
}

fn write(fd: &OwnedFd, text: &str) -> SysResult {
    sys!(SYS_write, fd, text.as_ptr(), text.len())
}

fn read(fd: &OwnedFd) -> SysResult<String> {
    let mut bytes = [0_u8; 256];
    let count = sys!(SYS_read, fd, bytes.as_mut_ptr(), bytes.len())?;
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// Reads until the text has come.
fn read_until(fd: &OwnedFd, wanted: &str) -> Result<String, Failure> {
    let mut all = String::new();
    while !all.contains(wanted) {
        all += &read(fd)?;
    }
    Ok(all)
}

fn what_one_end_writes_the_other_reads() -> Outcome {
    let (master, path) = open_pty()?;
    let slave = open_slave(&path, libc::O_NOCTTY)?;
    write(&master, "typed\n")?;
    expect_eq!(read(&slave)?, "typed\n");
    // It is echoed, with the line's end as terminals have it.
    expect_eq!(read_until(&master, "\n")?, "typed\r\n");
    write(&slave, "shown\n")?;
    expect_eq!(read_until(&master, "\n")?, "shown\r\n");
    Ok(())
}

fn slaves_have_names_and_are_locked() -> Outcome {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = owned(sys!(SYS_openat, libc::AT_FDCWD, c"/dev/ptmx", flags, 0)?);
    let mut number = -1_i32;
    sys!(SYS_ioctl, &master, libc::TIOCGPTN, &raw mut number)?;
    let path = CString::new(format!("/dev/pts/{number}"))?;
    expect_eq!(
        open_slave(&path, libc::O_NOCTTY).err().map(|e| e.0),
        Some(libc::EIO)
    );
    let unlocked = 0_i32;
    sys!(SYS_ioctl, &master, libc::TIOCSPTLCK, &raw const unlocked)?;
    let slave = open_slave(&path, libc::O_NOCTTY)?;
    let shown = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd()))?;
    expect_eq!(shown.to_string_lossy().as_bytes(), path.as_bytes());
    let name = number.to_string();
    let listed = || -> std::io::Result<bool> {
        let mut names = std::fs::read_dir("/dev/pts")?.flatten();
        Ok(names.any(|entry| entry.file_name().to_str() == Some(&name)))
    };
    expect!(listed()?);
    let (other, other_path) = open_pty()?;
    expect!(other_path != path);
    drop(other);
    drop(master);
    expect!(!listed()?);
    Ok(())
}

fn each_end_hears_that_the_other_is_closed() -> Outcome {
    let (master, path) = open_pty()?;
    let slave = open_slave(&path, libc::O_NOCTTY)?;
    write(&slave, "last")?;
    drop(slave);
    expect_eq!(read(&master)?, "last");
    expect_eq!(read(&master).err().map(|errno| errno.0), Some(libc::EIO));
    let slave = open_slave(&path, libc::O_NOCTTY)?;
    drop(master);
    expect_eq!(read(&slave)?, "");
    expect_eq!(
        write(&slave, "x").err().map(|errno| errno.0),
        Some(libc::EIO)
    );
    Ok(())
}

/// A child that leads a session with the slave as its terminal, and does `run` with that.
fn leader(path: &CString, run: impl FnOnce(&OwnedFd) -> i32) -> SysResult<Child> {
    fork(|| {
        let _ = sys!(SYS_setsid);
        match open_slave(path, 0) {
            Ok(slave) => run(&slave),
            Err(_) => 100,
        }
    })
}

fn own_foreground(slave: &OwnedFd) -> SysResult<i32> {
    let mut group = -1_i32;
    sys!(SYS_ioctl, slave, libc::TIOCGPGRP, &raw mut group)?;
    Ok(group)
}

fn a_session_gets_a_terminal() -> Outcome {
    let (master, path) = open_pty()?;
    let child = leader(&path, |slave| {
        let own = getpid();
        let mut session = -1_i32;
        let asked = sys!(SYS_ioctl, slave, libc::TIOCGSID, &raw mut session);
        if asked.is_err() || session != own || own_foreground(slave) != Ok(own) {
            return 1;
        }
        let Ok(again) = sys!(SYS_openat, libc::AT_FDCWD, c"/dev/tty", libc::O_RDWR, 0) else {
            return 2;
        };
        if write(&owned(again), "by another way\n").is_err() {
            return 3;
        }
        if sys!(SYS_ioctl, slave, libc::TIOCNOTTY, 0).is_err() {
            return 4;
        }
        let gone = sys!(SYS_openat, libc::AT_FDCWD, c"/dev/tty", libc::O_RDWR, 0);
        i32::from(gone.err().map(|errno| errno.0) != Some(libc::ENXIO)) * 5
    });
    // Giving the terminal up sends SIGHUP, which would end it.
    let before = block(libc::SIGHUP);
    let child = child?;
    restore(before);
    expect_eq!(read_until(&master, "\n")?, "by another way\r\n");
    let status = child.wait()?;
    expect!(status == 0 || status == libc::SIGHUP);
    Ok(())
}

fn block(signal: i32) -> u64 {
    let (set, mut before) = (1_u64 << (signal - 1), 0_u64);
    let _ = sys!(
        SYS_rt_sigprocmask,
        libc::SIG_BLOCK,
        &raw const set,
        &raw mut before,
        8
    );
    before
}

fn restore(before: u64) {
    let _ = sys!(
        SYS_rt_sigprocmask,
        libc::SIG_SETMASK,
        &raw const before,
        0,
        8
    );
}

fn control_characters_are_signals_for_the_foreground() -> Outcome {
    for (typed, signal) in [("\u{3}", libc::SIGINT), ("\u{1c}", libc::SIGQUIT)] {
        let (master, path) = open_pty()?;
        let word = SharedWord::new()?;
        let child = leader(&path, |_| {
            word.set(1);
            loop {
                let _ = sys!(SYS_pause);
            }
        })?;
        word.wait_for(1);
        write(&master, typed)?;
        expect_eq!(child.wait()? & 0x7f, signal);
    }
    // The one in the foreground stops, and the leader goes on.
    let (master, path) = open_pty()?;
    let word = SharedWord::new()?;
    let child = leader(&path, |slave| {
        let before = block(libc::SIGTTOU);
        let Ok(job) = fork(|| {
            let _ = sys!(SYS_setpgid, 0, 0);
            loop {
                let _ = sys!(SYS_pause);
            }
        }) else {
            return 1;
        };
        let _ = sys!(SYS_setpgid, job.pid, 0);
        let group = job.pid;
        if sys!(SYS_ioctl, slave, libc::TIOCSPGRP, &raw const group).is_err() {
            return 2;
        }
        restore(before);
        word.set(1);
        match wait4(job.pid, libc::WUNTRACED) {
            Ok((_, status)) if status == libc::SIGTSTP << 8 | 0x7f => 7,
            _ => 3,
        }
    })?;
    word.wait_for(1);
    write(&master, "\u{1a}")?;
    expect_eq!(child.wait()?, 7 << 8);
    Ok(())
}

/// A child of the leader in a process group of its own, in the background, that does `run`; what it
/// does meanwhile is told by the status of a wait for its stops.
fn in_background(slave: &OwnedFd, run: impl FnOnce(&OwnedFd) -> i32) -> SysResult<i32> {
    let job = fork(|| {
        let _ = sys!(SYS_setpgid, 0, 0);
        run(slave)
    })?;
    let _ = sys!(SYS_setpgid, job.pid, 0);
    let (_, status) = wait4(job.pid, libc::WUNTRACED)?;
    if status & 0xff != 0x7f {
        job.forget();
    }
    Ok(status)
}

fn the_background_may_not_read() -> Outcome {
    let (master, path) = open_pty()?;
    write(&master, "line\n")?;
    let child = leader(&path, |slave| {
        let reads = |slave: &OwnedFd| i32::from(read(slave).is_err());
        if in_background(slave, reads) != Ok(libc::SIGTTIN << 8 | 0x7f) {
            return 1;
        }
        // One that does not hear the signal gets an error.
        let deaf = |slave: &OwnedFd| {
            let _ = block(libc::SIGTTIN);
            let errno = read(slave).err().map(|errno| errno.0);
            i32::from(errno != Some(libc::EIO)) + 20
        };
        if in_background(slave, deaf) != Ok(20 << 8) {
            return 2;
        }
        // Writing is no matter, unless the terminal says so.
        let writes = |slave: &OwnedFd| i32::from(write(slave, "x").is_err()) + 30;
        if in_background(slave, writes) != Ok(30 << 8) {
            return 3;
        }
        // SAFETY: all zeros are a `termios`, which the call fills in.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        let _ = sys!(SYS_ioctl, slave, libc::TCGETS, &raw mut settings);
        settings.c_lflag |= libc::TOSTOP;
        let _ = sys!(SYS_ioctl, slave, libc::TCSETS, &raw const settings);
        if in_background(slave, writes) != Ok(libc::SIGTTOU << 8 | 0x7f) {
            return 4;
        }
        i32::from(read(slave).as_deref() != Ok("line\n")) * 5
    })?;
    expect_eq!(child.wait()?, 0);
    Ok(())
}

fn the_background_may_not_change_the_terminal() -> Outcome {
    let (_master, path) = open_pty()?;
    let child = leader(&path, |slave| {
        let change = |slave: &OwnedFd| {
            // SAFETY: all zeros are a `termios`, which the call fills in.
            let mut settings: libc::termios = unsafe { std::mem::zeroed() };
            let _ = sys!(SYS_ioctl, slave, libc::TCGETS, &raw mut settings);
            i32::from(sys!(SYS_ioctl, slave, libc::TCSETS, &raw const settings).is_err()) + 40
        };
        if in_background(slave, change) != Ok(libc::SIGTTOU << 8 | 0x7f) {
            return 1;
        }
        let deaf = |slave: &OwnedFd| {
            let _ = block(libc::SIGTTOU);
            change(slave)
        };
        i32::from(in_background(slave, deaf) != Ok(40 << 8)) * 2
    })?;
    expect_eq!(child.wait()?, 0);
    Ok(())
}

fn the_foreground_is_a_group_of_the_session() -> Outcome {
    let (_master, path) = open_pty()?;
    let outside = sys!(SYS_getpgid, 0)? as i32;
    let child = leader(&path, |slave| {
        let set = |group: i32| {
            let result = sys!(SYS_ioctl, slave, libc::TIOCSPGRP, &raw const group);
            result.err().map_or(0, |errno| errno.0)
        };
        let results = [set(outside), set(4_000_000), set(-1), set(getpid())];
        let expected = [libc::EPERM, libc::ESRCH, libc::EINVAL, 0];
        i32::from(results != expected)
    })?;
    expect_eq!(child.wait()?, 0);
    // Whose terminal it is not cannot ask.
    let (_master, path) = open_pty()?;
    let slave = open_slave(&path, libc::O_NOCTTY)?;
    let mut group = 0_i32;
    fails!(ENOTTY, SYS_ioctl, &slave, libc::TIOCGPGRP, &raw mut group);
    fails!(ENOTTY, SYS_ioctl, &slave, libc::TIOCGSID, &raw mut group);
    fails!(ENOTTY, SYS_ioctl, &slave, libc::TIOCNOTTY, 0);
    Ok(())
}

fn a_terminal_that_goes_is_told_of() -> Outcome {
    let (master, path) = open_pty()?;
    let word = SharedWord::new()?;
    let child = leader(&path, |_| {
        word.set(1);
        loop {
            let _ = sys!(SYS_pause);
        }
    })?;
    word.wait_for(1);
    drop(master);
    expect_eq!(child.wait()?, libc::SIGHUP);
    // And when its leader ends, the others are.
    let (_master, path) = open_pty()?;
    let child = leader(&path, |_| {
        let member = fork(|| {
            loop {
                let _ = sys!(SYS_pause);
            }
        });
        if let Ok(member) = member {
            word.set(member.pid as u32);
            member.forget();
        }
        exit(6)
    })?;
    expect_eq!(child.wait()?, 6 << 8);
    let member = word.get() as i32;
    expect!(comes_true(|| {
        // The orphan is this process's where that is the first.
        let _ = wait4(member, libc::WNOHANG);
        sys!(SYS_kill, member, 0).is_err()
    }));
    Ok(())
}

fn sizes_are_told() -> Outcome {
    let (master, path) = open_pty()?;
    let word = SharedWord::new()?;
    let child = leader(&path, |slave| {
        let before = block(libc::SIGWINCH);
        word.set(1);
        let (set, time) = (1_u64 << (libc::SIGWINCH - 1), [10_i64, 0]);
        let told = sys!(SYS_rt_sigtimedwait, &raw const set, 0, time.as_ptr(), 8);
        restore(before);
        let mut size = [0_u16; 4];
        let _ = sys!(SYS_ioctl, slave, libc::TIOCGWINSZ, size.as_mut_ptr());
        i32::from(told.is_err()) | i32::from(size[..2] != [30, 90]) << 1
    })?;
    word.wait_for(1);
    let size = [30_u16, 90, 0, 0];
    sys!(SYS_ioctl, &master, libc::TIOCSWINSZ, size.as_ptr())?;
    expect_eq!(child.wait()?, 0);
    Ok(())
}
