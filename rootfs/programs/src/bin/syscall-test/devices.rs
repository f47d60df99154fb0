//! `/dev/null`, `/dev/zero`, `/dev/full`, `/dev/urandom`, and `getrandom`.

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::open;
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};

use crate::attributes::{fstat, stat};

pub(crate) const CHECKS: &[Check] = checks![
    dev_null,
    dev_zero,
    dev_full,
    dev_urandom,
    device_numbers,
    devices_seek,
    devices_cannot_be_truncated,
    devices_open_with_truncation,
    getrandom_fills,
    getrandom_errors,
];

fn dev_null() -> Outcome {
    let fd = open(c"/dev/null", O_RDWR)?;
    let mut bytes = [7_u8; 16];
    expect_eq!(sys!(SYS_read, &fd, bytes.as_mut_ptr(), 16), Ok(0));
    expect_eq!(sys!(SYS_write, &fd, bytes.as_ptr(), 16), Ok(16));
    expect_eq!(sys!(SYS_pread64, &fd, bytes.as_mut_ptr(), 16, 100), Ok(0));
    expect_eq!(sys!(SYS_pwrite64, &fd, bytes.as_ptr(), 16, 100), Ok(16));
    expect_eq!(bytes, [7; 16]);
    Ok(())
}

fn dev_zero() -> Outcome {
    let fd = open(c"/dev/zero", O_RDWR)?;
    let mut bytes = vec![7_u8; 100_000];
    expect_eq!(
        sys!(SYS_read, &fd, bytes.as_mut_ptr(), bytes.len()),
        Ok(bytes.len())
    );
    expect!(bytes.iter().all(|byte| *byte == 0));
    expect_eq!(
        sys!(SYS_write, &fd, bytes.as_ptr(), bytes.len()),
        Ok(bytes.len())
    );
    Ok(())
}

fn dev_full() -> Outcome {
    let fd = open(c"/dev/full", O_RDWR)?;
    let mut byte = 7_u8;
    expect_eq!(sys!(SYS_read, &fd, &raw mut byte, 1), Ok(1));
    expect_eq!(byte, 0);
    fails!(ENOSPC, SYS_write, &fd, &raw const byte, 1);
    Ok(())
}

fn dev_urandom() -> Outcome {
    for path in [c"/dev/urandom", c"/dev/random"] {
        let fd = open(path, O_RDONLY)?;
        let (mut first, mut second) = ([0_u8; 64], [0_u8; 64]);
        expect_eq!(sys!(SYS_read, &fd, first.as_mut_ptr(), 64), Ok(64));
        expect_eq!(sys!(SYS_read, &fd, second.as_mut_ptr(), 64), Ok(64));
        expect!(first != second);
    }
    let fd = open(c"/dev/urandom", O_RDONLY)?;
    let mut bytes = vec![0_u8; 100_000];
    expect_eq!(
        sys!(SYS_read, &fd, bytes.as_mut_ptr(), bytes.len()),
        Ok(bytes.len())
    );
    // A value that is missing, or one that is twice as frequent as it should be, is no chance.
    let mut counts = [0_u32; 256];
    bytes
        .iter()
        .for_each(|byte| counts[usize::from(*byte)] += 1);
    expect!(counts.iter().all(|count| (200..800).contains(count)));
    Ok(())
}

fn device_numbers() -> Outcome {
    for (path, minor) in [
        (c"/dev/null", 3),
        (c"/dev/zero", 5),
        (c"/dev/full", 7),
        (c"/dev/random", 8),
        (c"/dev/urandom", 9),
    ] {
        let status = stat(path)?;
        expect_eq!(status.st_mode & libc::S_IFMT, libc::S_IFCHR);
        expect_eq!(status.st_rdev, libc::makedev(1, minor));
        expect_eq!(fstat(&open(path, O_RDONLY)?)?.st_rdev, status.st_rdev);
    }
    Ok(())
}

fn devices_seek() -> Outcome {
    for path in [c"/dev/null", c"/dev/zero"] {
        let fd = open(path, O_RDWR)?;
        expect_eq!(sys!(SYS_lseek, &fd, 100, libc::SEEK_SET), Ok(0));
        expect_eq!(sys!(SYS_lseek, &fd, 0, libc::SEEK_END), Ok(0));
    }
    Ok(())
}

fn devices_cannot_be_truncated() -> Outcome {
    let fd = open(c"/dev/null", O_RDWR)?;
    fails!(EINVAL, SYS_ftruncate, &fd, 0);
    fails!(EINVAL, SYS_fsync, &fd);
    Ok(())
}

fn devices_open_with_truncation() -> Outcome {
    // As a shell opens the target of a redirection.
    let fd = open(c"/dev/null", O_WRONLY | O_TRUNC | libc::O_CREAT)?;
    expect_eq!(sys!(SYS_write, &fd, b"x".as_ptr(), 1), Ok(1));
    let mut byte = 0_u8;
    fails!(EBADF, SYS_read, &fd, &raw mut byte, 1);
    fails!(ENOTDIR, SYS_open, c"/dev/null/x", O_RDONLY);
    Ok(())
}

fn getrandom_fills() -> Outcome {
    let (mut first, mut second) = ([0_u8; 32], [0_u8; 32]);
    expect_eq!(sys!(SYS_getrandom, first.as_mut_ptr(), 32, 0), Ok(32));
    expect_eq!(
        sys!(SYS_getrandom, second.as_mut_ptr(), 32, libc::GRND_NONBLOCK),
        Ok(32)
    );
    expect!(first != second && first != [0; 32]);
    let mut large = vec![0_u8; 100_000];
    expect_eq!(
        sys!(SYS_getrandom, large.as_mut_ptr(), large.len(), 0),
        Ok(large.len())
    );
    expect!(large[99_000..].iter().any(|byte| *byte != 0));
    expect_eq!(sys!(SYS_getrandom, 0, 0, 0), Ok(0));
    Ok(())
}

fn getrandom_errors() -> Outcome {
    let mut bytes = [0_u8; 8];
    fails!(EINVAL, SYS_getrandom, bytes.as_mut_ptr(), 8, 0x100);
    let both = libc::GRND_RANDOM | libc::GRND_INSECURE;
    fails!(EINVAL, SYS_getrandom, bytes.as_mut_ptr(), 8, both);
    fails!(EFAULT, SYS_getrandom, 8, 8, 0);
    Ok(())
}
