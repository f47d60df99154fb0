//! Bad pointers: every call that takes one answers `EFAULT`, and nothing happens.

use std::ptr;

use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{Errno, Mapping, SysResult, contents, create, open};
use guest_programs::{checks, expect_eq, fails, sys};
use libc::{AT_FDCWD, O_DIRECTORY, O_RDONLY, PROT_NONE, PROT_READ, PROT_WRITE, iovec};

pub(crate) const CHECKS: &[Check] = checks![
    bad_paths,
    bad_buffers,
    bad_results,
    bad_inputs,
    bad_vectors,
    read_only_memory,
    paths_at_the_edge,
    transfers_stop_at_the_edge,
];

const PAGE: usize = 4096;

/// Addresses of no memory: a small one, an unmapped one, one without rights, the kernel's half,
/// none that the processor knows, and the last byte of all.
fn addresses() -> SysResult<(Mapping, [*mut u8; 6])> {
    let locked = Mapping::new(PAGE, PROT_NONE)?;
    let start = locked.start;
    let bad = [
        8,
        Mapping::nowhere()?.addr(),
        start.addr(),
        0xffff_8880_0000_1000,
        1 << 63,
        usize::MAX,
    ];
    Ok((locked, bad.map(|address| address as *mut u8)))
}

type Call<'a> = (&'a str, &'a dyn Fn(*mut u8) -> SysResult);

fn all_fault(calls: &[Call<'_>]) -> Outcome {
    let (_locked, addresses) = addresses()?;
    for (name, call) in calls {
        for address in addresses {
            let result = call(address);
            if result != Err(Errno(libc::EFAULT)) {
                let why = format!("{name} at {address:p} gave {result:?}");
                return Err(Failure::new(why));
            }
        }
    }
    Ok(())
}

fn bad_paths() -> Outcome {
    all_fault(&[
        ("open", &|path| sys!(SYS_open, path, O_RDONLY)),
        ("openat", &|path| sys!(SYS_openat, AT_FDCWD, path, O_RDONLY)),
        ("mkdir", &|path| sys!(SYS_mkdir, path, 0o755)),
        ("rmdir", &|path| sys!(SYS_rmdir, path)),
        ("unlink", &|path| sys!(SYS_unlink, path)),
        ("rename from", &|path| sys!(SYS_rename, path, c"x")),
        ("rename to", &|path| sys!(SYS_rename, c"x", path)),
        ("link", &|path| sys!(SYS_link, path, c"x")),
        ("symlink target", &|path| sys!(SYS_symlink, path, c"x")),
        ("symlink name", &|path| sys!(SYS_symlink, c"x", path)),
        ("chdir", &|path| sys!(SYS_chdir, path)),
        ("chmod", &|path| sys!(SYS_chmod, path, 0o600)),
        ("access", &|path| sys!(SYS_access, path, libc::F_OK)),
        ("truncate", &|path| sys!(SYS_truncate, path, 0)),
        ("readlink", &|path| sys!(SYS_readlink, path, path, 8)),
    ])
}

fn bad_buffers() -> Outcome {
    let file = create(c"f", b"abcdef")?;
    let zero = open(c"/dev/zero", O_RDONLY)?;
    let random = open(c"/dev/urandom", O_RDONLY)?;
    all_fault(&[
        ("read", &|buffer| sys!(SYS_read, &file, buffer, 4)),
        ("pread", &|buffer| sys!(SYS_pread64, &file, buffer, 4, 0)),
        ("write", &|buffer| sys!(SYS_write, &file, buffer, 4)),
        ("pwrite", &|buffer| sys!(SYS_pwrite64, &file, buffer, 4, 0)),
        ("read zeros", &|buffer| sys!(SYS_read, &zero, buffer, 4)),
        ("read random", &|buffer| sys!(SYS_read, &random, buffer, 4)),
        ("getrandom", &|buffer| sys!(SYS_getrandom, buffer, 4, 0)),
    ])?;
    expect_eq!(contents(&file)?, b"abcdef");
    expect_eq!(sys!(SYS_lseek, &file, 0, libc::SEEK_CUR), Ok(0));
    Ok(())
}

fn bad_results() -> Outcome {
    let file = create(c"f", b"")?;
    let directory = open(c".", O_RDONLY | O_DIRECTORY)?;
    sys!(SYS_symlink, c"f", c"l")?;
    let basic = libc::STATX_BASIC_STATS;
    all_fault(&[
        ("stat", &|result| sys!(SYS_stat, c"f", result)),
        ("lstat", &|result| sys!(SYS_lstat, c"f", result)),
        ("fstat", &|result| sys!(SYS_fstat, &file, result)),
        ("newfstatat", &|result| {
            sys!(SYS_newfstatat, AT_FDCWD, c"f", result, 0)
        }),
        ("statx", &|result| {
            sys!(SYS_statx, AT_FDCWD, c"f", 0, basic, result)
        }),
        ("statfs", &|result| sys!(SYS_statfs, c".", result)),
        ("getdents64", &|result| {
            sys!(SYS_getdents64, &directory, result, 256)
        }),
        ("getcwd", &|result| sys!(SYS_getcwd, result, 4096)),
        ("readlink", &|result| sys!(SYS_readlink, c"l", result, 8)),
        ("uname", &|result| sys!(SYS_uname, result)),
        ("sysinfo", &|result| sys!(SYS_sysinfo, result)),
        ("clock_gettime", &|result| {
            sys!(SYS_clock_gettime, libc::CLOCK_MONOTONIC, result)
        }),
        ("clock_getres", &|result| {
            sys!(SYS_clock_getres, libc::CLOCK_MONOTONIC, result)
        }),
        ("gettimeofday", &|result| sys!(SYS_gettimeofday, result, 0)),
        ("getrlimit", &|result| {
            sys!(SYS_prlimit64, 0, libc::RLIMIT_STACK, 0, result)
        }),
        ("sigaction", &|result| {
            sys!(SYS_rt_sigaction, libc::SIGUSR1, 0, result, 8)
        }),
        ("sigprocmask", &|result| {
            sys!(SYS_rt_sigprocmask, 0, 0, result, 8)
        }),
        ("arch_prctl", &|result| sys!(SYS_arch_prctl, 0x1003, result)),
        ("getrusage", &|result| sys!(SYS_getrusage, 0, result)),
        ("times", &|result| sys!(SYS_times, result)),
    ])
}

fn bad_inputs() -> Outcome {
    create(c"f", b"")?;
    all_fault(&[
        ("nanosleep", &|input| sys!(SYS_nanosleep, input, 0)),
        ("clock_nanosleep", &|input| {
            sys!(SYS_clock_nanosleep, 1, 0, input, 0)
        }),
        ("utimensat", &|input| {
            sys!(SYS_utimensat, AT_FDCWD, c"f", input, 0)
        }),
        ("sigaction", &|input| {
            sys!(SYS_rt_sigaction, libc::SIGUSR1, input, 0, 8)
        }),
        ("sigprocmask", &|input| {
            sys!(SYS_rt_sigprocmask, 0, input, 0, 8)
        }),
        ("setrlimit", &|input| {
            sys!(SYS_prlimit64, 0, libc::RLIMIT_STACK, input, 0)
        }),
        ("sigaltstack", &|input| sys!(SYS_sigaltstack, input, 0)),
    ])
}

fn bad_vectors() -> Outcome {
    let file = create(c"f", b"abcdef")?;
    all_fault(&[
        ("readv", &|vectors| sys!(SYS_readv, &file, vectors, 1)),
        ("writev", &|vectors| sys!(SYS_writev, &file, vectors, 1)),
        ("preadv", &|vectors| {
            sys!(SYS_preadv, &file, vectors, 1, 0, 0)
        }),
        ("pwritev", &|vectors| {
            sys!(SYS_pwritev, &file, vectors, 1, 0, 0)
        }),
    ])?;
    let inside = |iov_base: *mut u8| iovec {
        iov_base: iov_base.cast(),
        iov_len: 4,
    };
    all_fault(&[
        ("readv's buffer", &|buffer| {
            sys!(SYS_readv, &file, ptr::from_ref(&inside(buffer)), 1)
        }),
        ("writev's buffer", &|buffer| {
            sys!(SYS_writev, &file, ptr::from_ref(&inside(buffer)), 1)
        }),
    ])?;
    expect_eq!(contents(&file)?, b"abcdef");
    Ok(())
}

fn read_only_memory() -> Outcome {
    let map = Mapping::new(PAGE, PROT_READ)?;
    let file = create(c"f", b"abc")?;
    fails!(EFAULT, SYS_read, &file, map.start, 3);
    fails!(EFAULT, SYS_fstat, &file, map.start);
    fails!(EFAULT, SYS_uname, map.start);
    fails!(EFAULT, SYS_getrandom, map.start, 8, 0);
    expect_eq!(sys!(SYS_write, &file, map.start, 3), Ok(3));
    Ok(())
}

/// Two pages, of which the second has no rights, and the address between them.
fn edge() -> SysResult<(Mapping, *mut u8)> {
    let map = Mapping::new(2 * PAGE, PROT_READ | PROT_WRITE)?;
    sys!(SYS_mprotect, map.at(PAGE), PAGE, PROT_NONE)?;
    let edge = map.at(PAGE);
    Ok((map, edge))
}

fn put(at: *mut u8, bytes: &[u8]) {
    for (offset, byte) in bytes.iter().enumerate() {
        // SAFETY: the checks put bytes only below the edge of their mapping.
        unsafe { at.wrapping_add(offset).write_volatile(*byte) };
    }
}

fn paths_at_the_edge() -> Outcome {
    create(c"f", b"")?;
    let (_map, edge) = edge()?;
    let path = edge.wrapping_sub(2);
    put(path, b"f\0");
    let fd = sys!(SYS_open, path, O_RDONLY)?;
    sys!(SYS_close, fd)?;
    put(path, b"ff");
    fails!(EFAULT, SYS_open, path, O_RDONLY);
    Ok(())
}

fn transfers_stop_at_the_edge() -> Outcome {
    let file = create(c"f", b"abcdef")?;
    let (_map, edge) = edge()?;
    let buffer = edge.wrapping_sub(2);
    expect_eq!(sys!(SYS_read, &file, buffer, 4), Ok(2));
    expect_eq!(sys!(SYS_lseek, &file, 0, libc::SEEK_CUR), Ok(2));
    put(buffer, b"xy");
    expect_eq!(sys!(SYS_pwrite64, &file, buffer, 4, 0), Ok(2));
    expect_eq!(contents(&file)?, b"xycdef");
    Ok(())
}
