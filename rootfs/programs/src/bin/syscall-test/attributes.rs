//! What `stat` and its kin say, and what changes it.

use std::ffi::CStr;
use std::mem;
use std::os::fd::OwnedFd;

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{SysResult, create, open};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, F_OK, O_RDONLY, R_OK, UTIME_NOW, UTIME_OMIT,
    W_OK, X_OK, stat as Stat, statx as Statx, timespec,
};

pub(crate) const CHECKS: &[Check] = checks![
    stat_of_a_file,
    stat_of_a_directory,
    stat_of_links,
    stat_errors,
    fstat_of_descriptors,
    fstatat_flags,
    statx_fields,
    statx_arguments,
    inode_numbers_differ,
    chmod_changes,
    chmod_errors,
    fchmodat2_flags,
    chown_changes,
    chown_errors,
    utimensat_sets,
    utimensat_now_and_omit,
    utimensat_errors,
    times_follow_changes,
    access_as_root,
    access_errors,
    statfs_of_a_tmpfs,
];

fn zeroed<T>() -> T {
    // SAFETY: used only for the plain structures that the kernel fills, for which zeros are valid.
    unsafe { mem::zeroed() }
}

pub(crate) fn stat(path: &CStr) -> SysResult<Stat> {
    let mut status: Stat = zeroed();
    sys!(SYS_stat, path, &raw mut status)?;
    Ok(status)
}

pub(crate) fn lstat(path: &CStr) -> SysResult<Stat> {
    let mut status: Stat = zeroed();
    sys!(SYS_lstat, path, &raw mut status)?;
    Ok(status)
}

pub(crate) fn fstat(fd: &OwnedFd) -> SysResult<Stat> {
    let mut status: Stat = zeroed();
    sys!(SYS_fstat, fd, &raw mut status)?;
    Ok(status)
}

/// What tells files apart.
pub(crate) fn inode(path: &CStr) -> SysResult<(u64, u64)> {
    let status = stat(path)?;
    Ok((status.st_dev, status.st_ino))
}

fn statx(directory: i32, path: &CStr, flags: i32) -> SysResult<Statx> {
    let mut status: Statx = zeroed();
    sys!(
        SYS_statx,
        directory,
        path,
        flags,
        libc::STATX_BASIC_STATS,
        &raw mut status
    )?;
    Ok(status)
}

fn stat_of_a_file() -> Outcome {
    create(c"f", &[1; 5000])?;
    sys!(SYS_chmod, c"f", 0o640)?;
    let status = stat(c"f")?;
    expect_eq!(status.st_mode, 0o100_640);
    expect_eq!((status.st_size, status.st_nlink), (5000, 1));
    expect_eq!((status.st_uid, status.st_gid, status.st_rdev), (0, 0, 0));
    expect!(status.st_ino != 0);
    expect!(status.st_blksize >= 512);
    expect!(status.st_blocks >= 10);
    Ok(())
}

fn stat_of_a_directory() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o750)?;
    let status = stat(c"d")?;
    expect_eq!((status.st_mode, status.st_nlink), (0o040_750, 2));
    Ok(())
}

fn stat_of_links() -> Outcome {
    create(c"f", b"abc")?;
    sys!(SYS_symlink, c"f", c"l")?;
    expect_eq!(stat(c"l")?.st_size, 3);
    expect_eq!(stat(c"l")?.st_ino, stat(c"f")?.st_ino);
    let link = lstat(c"l")?;
    expect_eq!((link.st_mode, link.st_size), (0o120_777, 1));
    expect!(link.st_ino != stat(c"f")?.st_ino);
    Ok(())
}

fn stat_errors() -> Outcome {
    create(c"f", b"")?;
    sys!(SYS_symlink, c"none", c"l")?;
    let mut status: Stat = zeroed();
    fails!(ENOENT, SYS_stat, c"none", &raw mut status);
    fails!(ENOENT, SYS_stat, c"l", &raw mut status);
    fails!(ENOTDIR, SYS_stat, c"f/x", &raw mut status);
    fails!(EBADF, SYS_fstat, 999, &raw mut status);
    fails!(EBADF, SYS_fstat, -1, &raw mut status);
    Ok(())
}

fn fstat_of_descriptors() -> Outcome {
    let fd = create(c"f", b"abc")?;
    expect_eq!(fstat(&fd)?.st_ino, stat(c"f")?.st_ino);
    sys!(SYS_ftruncate, &fd, 9)?;
    expect_eq!(fstat(&fd)?.st_size, 9);
    let path_only = open(c"f", libc::O_PATH)?;
    expect_eq!(fstat(&path_only)?.st_size, 9);
    Ok(())
}

fn fstatat_flags() -> Outcome {
    let fd = create(c"f", b"abc")?;
    sys!(SYS_symlink, c"f", c"l")?;
    let mut status: Stat = zeroed();
    sys!(
        SYS_newfstatat,
        AT_FDCWD,
        c"l",
        &raw mut status,
        AT_SYMLINK_NOFOLLOW
    )?;
    expect_eq!(status.st_mode & libc::S_IFMT, libc::S_IFLNK);
    sys!(SYS_newfstatat, &fd, c"", &raw mut status, AT_EMPTY_PATH)?;
    expect_eq!(status.st_size, 3);
    sys!(
        SYS_newfstatat,
        AT_FDCWD,
        c"",
        &raw mut status,
        AT_EMPTY_PATH
    )?;
    expect_eq!(status.st_mode & libc::S_IFMT, libc::S_IFDIR);
    fails!(ENOENT, SYS_newfstatat, &fd, c"", &raw mut status, 0);
    fails!(EINVAL, SYS_newfstatat, AT_FDCWD, c"f", &raw mut status, 1);
    fails!(EBADF, SYS_newfstatat, 999, c"f", &raw mut status, 0);
    fails!(ENOTDIR, SYS_newfstatat, &fd, c"f", &raw mut status, 0);
    Ok(())
}

fn statx_fields() -> Outcome {
    let fd = create(c"f", &[1; 5000])?;
    let status = statx(AT_FDCWD, c"f", 0)?;
    let old = stat(c"f")?;
    expect_eq!(
        status.stx_mask & libc::STATX_BASIC_STATS,
        libc::STATX_BASIC_STATS
    );
    expect_eq!(u32::from(status.stx_mode), old.st_mode);
    expect_eq!((status.stx_size, status.stx_ino), (5000, old.st_ino));
    expect_eq!(status.stx_mtime.tv_sec, old.st_mtime);
    expect_eq!(i64::from(status.stx_mtime.tv_nsec), old.st_mtime_nsec);
    expect_eq!(u64::from(status.stx_nlink), old.st_nlink);
    let device = libc::makedev(status.stx_dev_major, status.stx_dev_minor);
    expect_eq!(device, old.st_dev);
    use std::os::fd::AsRawFd;
    expect_eq!(
        statx(fd.as_raw_fd(), c"", AT_EMPTY_PATH)?.stx_ino,
        old.st_ino
    );
    Ok(())
}

fn statx_arguments() -> Outcome {
    create(c"f", b"")?;
    let mut status: Statx = zeroed();
    let basic = libc::STATX_BASIC_STATS;
    fails!(EINVAL, SYS_statx, AT_FDCWD, c"f", 1, basic, &raw mut status);
    fails!(
        EINVAL,
        SYS_statx,
        AT_FDCWD,
        c"f",
        0,
        1_u32 << 31,
        &raw mut status
    );
    let both = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;
    fails!(
        EINVAL,
        SYS_statx,
        AT_FDCWD,
        c"f",
        both,
        basic,
        &raw mut status
    );
    fails!(
        ENOENT,
        SYS_statx,
        AT_FDCWD,
        c"none",
        0,
        basic,
        &raw mut status
    );
    Ok(())
}

fn inode_numbers_differ() -> Outcome {
    create(c"a", b"")?;
    create(c"b", b"")?;
    sys!(SYS_mkdir, c"d", 0o755)?;
    let (a, b, d) = (inode(c"a")?, inode(c"b")?, inode(c"d")?);
    expect!(a != b && b != d && a != d);
    sys!(SYS_rename, c"a", c"c")?;
    expect_eq!(inode(c"c")?, a);
    Ok(())
}

fn chmod_changes() -> Outcome {
    let fd = create(c"f", b"")?;
    expect_eq!(sys!(SYS_chmod, c"f", 0o4751), Ok(0));
    expect_eq!(stat(c"f")?.st_mode, 0o104_751);
    // Bits beyond the twelve are ignored.
    expect_eq!(sys!(SYS_fchmod, &fd, 0o7_770_604), Ok(0));
    expect_eq!(stat(c"f")?.st_mode, 0o100_604);
    expect_eq!(sys!(SYS_fchmodat, AT_FDCWD, c"f", 0o600), Ok(0));
    expect_eq!(stat(c"f")?.st_mode, 0o100_600);
    // Through a link it is the target that changes.
    sys!(SYS_symlink, c"f", c"l")?;
    expect_eq!(sys!(SYS_chmod, c"l", 0o700), Ok(0));
    expect_eq!(
        (stat(c"f")?.st_mode, lstat(c"l")?.st_mode),
        (0o100_700, 0o120_777)
    );
    Ok(())
}

fn chmod_errors() -> Outcome {
    fails!(ENOENT, SYS_chmod, c"none", 0o600);
    fails!(EBADF, SYS_fchmod, 999, 0o600);
    Ok(())
}

fn fchmodat2_flags() -> Outcome {
    create(c"f", b"")?;
    sys!(SYS_symlink, c"f", c"l")?;
    expect_eq!(sys!(SYS_fchmodat2, AT_FDCWD, c"f", 0o611, 0), Ok(0));
    expect_eq!(stat(c"f")?.st_mode, 0o100_611);
    fails!(
        EOPNOTSUPP,
        SYS_fchmodat2,
        AT_FDCWD,
        c"l",
        0o600,
        AT_SYMLINK_NOFOLLOW
    );
    fails!(EINVAL, SYS_fchmodat2, AT_FDCWD, c"f", 0o600, 1);
    Ok(())
}

fn chown_changes() -> Outcome {
    let fd = create(c"f", b"")?;
    sys!(SYS_symlink, c"f", c"l")?;
    expect_eq!(sys!(SYS_chown, c"l", 1, 2), Ok(0));
    let owner = |status: Stat| (status.st_uid, status.st_gid);
    expect_eq!((owner(stat(c"f")?), owner(lstat(c"l")?)), ((1, 2), (0, 0)));
    // -1 leaves one as it is.
    expect_eq!(sys!(SYS_fchown, &fd, -1, 3), Ok(0));
    expect_eq!(owner(stat(c"f")?), (1, 3));
    expect_eq!(sys!(SYS_lchown, c"l", 4, 5), Ok(0));
    expect_eq!((owner(stat(c"f")?), owner(lstat(c"l")?)), ((1, 3), (4, 5)));
    expect_eq!(sys!(SYS_fchownat, &fd, c"", 6, 7, AT_EMPTY_PATH), Ok(0));
    expect_eq!(owner(stat(c"f")?), (6, 7));
    // A change of owner takes the set-user-ID bit away.
    sys!(SYS_chmod, c"f", 0o4755)?;
    sys!(SYS_chown, c"f", 0, 0)?;
    expect_eq!(stat(c"f")?.st_mode, 0o100_755);
    Ok(())
}

fn chown_errors() -> Outcome {
    fails!(ENOENT, SYS_chown, c"none", 0, 0);
    fails!(EBADF, SYS_fchown, 999, 0, 0);
    fails!(EINVAL, SYS_fchownat, AT_FDCWD, c".", 0, 0, 1);
    Ok(())
}

fn time(tv_sec: i64, tv_nsec: i64) -> timespec {
    timespec { tv_sec, tv_nsec }
}

fn utimensat_sets() -> Outcome {
    let fd = create(c"f", b"")?;
    sys!(SYS_symlink, c"f", c"l")?;
    let times = [time(1000, 1), time(2000, 999_999_999)];
    expect_eq!(
        sys!(SYS_utimensat, AT_FDCWD, c"l", times.as_ptr(), 0),
        Ok(0)
    );
    let status = stat(c"f")?;
    expect_eq!((status.st_atime, status.st_atime_nsec), (1000, 1));
    expect_eq!((status.st_mtime, status.st_mtime_nsec), (2000, 999_999_999));
    let times = [time(3, 0), time(4, 0)];
    sys!(
        SYS_utimensat,
        AT_FDCWD,
        c"l",
        times.as_ptr(),
        AT_SYMLINK_NOFOLLOW
    )?;
    expect_eq!((lstat(c"l")?.st_mtime, stat(c"f")?.st_mtime), (4, 2000));
    // Without a path it is the descriptor's file.
    expect_eq!(sys!(SYS_utimensat, &fd, 0, times.as_ptr(), 0), Ok(0));
    expect_eq!(stat(c"f")?.st_mtime, 4);
    Ok(())
}

fn utimensat_now_and_omit() -> Outcome {
    create(c"f", b"")?;
    let before = stat(c"f")?;
    let times = [time(5, 0), time(99, UTIME_OMIT)];
    sys!(SYS_utimensat, AT_FDCWD, c"f", times.as_ptr(), 0)?;
    expect_eq!(
        (stat(c"f")?.st_atime, stat(c"f")?.st_mtime),
        (5, before.st_mtime)
    );
    let times = [time(0, UTIME_NOW), time(6, 0)];
    sys!(SYS_utimensat, AT_FDCWD, c"f", times.as_ptr(), 0)?;
    expect!(stat(c"f")?.st_atime >= before.st_atime);
    expect_eq!(stat(c"f")?.st_mtime, 6);
    expect_eq!(sys!(SYS_utimensat, AT_FDCWD, c"f", 0, 0), Ok(0));
    expect!(stat(c"f")?.st_mtime >= before.st_mtime);
    Ok(())
}

fn utimensat_errors() -> Outcome {
    create(c"f", b"")?;
    let times = [time(0, 1_000_000_000), time(0, 0)];
    fails!(EINVAL, SYS_utimensat, AT_FDCWD, c"f", times.as_ptr(), 0);
    fails!(EINVAL, SYS_utimensat, AT_FDCWD, c"f", 0, 1);
    fails!(ENOENT, SYS_utimensat, AT_FDCWD, c"none", 0, 0);
    fails!(EBADF, SYS_utimensat, 999, c"f", 0, 0);
    Ok(())
}

fn times_follow_changes() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let old = [time(10, 0), time(20, 0)];
    let set = || sys!(SYS_utimensat, AT_FDCWD, c"f", old.as_ptr(), 0);
    set()?;
    let changed = stat(c"f")?.st_ctime;
    expect!(changed > 1_000_000);
    sys!(SYS_pwrite64, &fd, b"x".as_ptr(), 1, 0)?;
    expect!(stat(c"f")?.st_mtime >= changed);
    set()?;
    sys!(SYS_ftruncate, &fd, 1)?;
    expect!(stat(c"f")?.st_mtime >= changed);
    set()?;
    sys!(SYS_chmod, c"f", 0o600)?;
    expect_eq!(stat(c"f")?.st_mtime, 20);
    // A directory's time is when names in it changed.
    sys!(SYS_mkdir, c"d", 0o755)?;
    sys!(SYS_utimensat, AT_FDCWD, c"d", old.as_ptr(), 0)?;
    create(c"d/f", b"")?;
    expect!(stat(c"d")?.st_mtime >= changed);
    sys!(SYS_utimensat, AT_FDCWD, c"d", old.as_ptr(), 0)?;
    sys!(SYS_unlink, c"d/f")?;
    expect!(stat(c"d")?.st_mtime >= changed);
    Ok(())
}

fn access_as_root() -> Outcome {
    create(c"f", b"")?;
    sys!(SYS_chmod, c"f", 0)?;
    expect_eq!(sys!(SYS_access, c"f", F_OK), Ok(0));
    expect_eq!(sys!(SYS_access, c"f", R_OK | W_OK), Ok(0));
    // Root, too, executes only what somebody may execute.
    fails!(EACCES, SYS_access, c"f", X_OK);
    sys!(SYS_chmod, c"f", 0o001)?;
    expect_eq!(sys!(SYS_access, c"f", X_OK), Ok(0));
    expect_eq!(sys!(SYS_access, c".", R_OK | W_OK | X_OK), Ok(0));
    Ok(())
}

fn access_errors() -> Outcome {
    create(c"f", b"")?;
    sys!(SYS_symlink, c"none", c"l")?;
    fails!(ENOENT, SYS_access, c"none", F_OK);
    fails!(ENOENT, SYS_access, c"l", F_OK);
    fails!(EINVAL, SYS_access, c"f", 8);
    expect_eq!(sys!(SYS_faccessat, AT_FDCWD, c"f", R_OK), Ok(0));
    expect_eq!(
        sys!(SYS_faccessat2, AT_FDCWD, c"l", F_OK, AT_SYMLINK_NOFOLLOW),
        Ok(0)
    );
    expect_eq!(
        sys!(SYS_faccessat2, AT_FDCWD, c"f", F_OK, libc::AT_EACCESS),
        Ok(0)
    );
    fails!(EINVAL, SYS_faccessat2, AT_FDCWD, c"f", F_OK, 1);
    fails!(EBADF, SYS_faccessat, 999, c"f", R_OK);
    Ok(())
}

fn statfs_of_a_tmpfs() -> Outcome {
    let fd = open(c".", O_RDONLY)?;
    let mut status: libc::statfs = zeroed();
    expect_eq!(sys!(SYS_statfs, c".", &raw mut status), Ok(0));
    expect_eq!(status.f_type, libc::TMPFS_MAGIC);
    expect_eq!(status.f_namelen, 255);
    expect!(status.f_bsize >= 512);
    expect_eq!(sys!(SYS_fstatfs, &fd, &raw mut status), Ok(0));
    fails!(ENOENT, SYS_statfs, c"none", &raw mut status);
    fails!(EBADF, SYS_fstatfs, 999, &raw mut status);
    Ok(())
}
