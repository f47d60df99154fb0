//! Names: links, renames, removals.

use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{SysResult, contents, create, open};
use guest_programs::{checks, expect_eq, fails, sys};
use libc::{
    AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, O_RDONLY, RENAME_EXCHANGE, RENAME_NOREPLACE,
};
use std::ffi::CStr;

use crate::attributes::{inode, lstat, stat};

pub(crate) const CHECKS: &[Check] = checks![
    mkdir_makes,
    mkdir_errors,
    rmdir_removes,
    rmdir_errors,
    unlink_removes,
    unlink_errors,
    unlink_keeps_open_files,
    unlinkat_flags,
    link_shares,
    link_errors,
    link_to_a_link,
    symlink_is_read_back,
    readlink_truncates,
    readlink_errors,
    symlink_errors,
    rename_moves,
    rename_replaces,
    rename_to_itself,
    rename_directories,
    rename_errors,
    rename_into_itself,
    rename_noreplace,
    rename_exchange,
    rename_flags,
    dots_are_protected,
    removed_directory_is_dead,
];

fn read(path: &CStr) -> SysResult<Vec<u8>> {
    contents(&open(path, O_RDONLY)?)
}

fn mkdir_makes() -> Outcome {
    expect_eq!(sys!(SYS_mkdir, c"d", 0o751), Ok(0));
    expect_eq!(stat(c"d")?.st_mode, 0o040_751);
    expect_eq!(
        sys!(SYS_mkdirat, &open(c"d", O_RDONLY)?, c"e", 0o700),
        Ok(0)
    );
    expect_eq!(stat(c"d/e")?.st_mode, 0o040_700);
    // A trailing slash is allowed.
    expect_eq!(sys!(SYS_mkdir, c"d/f/", 0o700), Ok(0));
    Ok(())
}

fn mkdir_errors() -> Outcome {
    create(c"f", b"")?;
    sys!(SYS_symlink, c"nowhere", c"l")?;
    fails!(EEXIST, SYS_mkdir, c"f", 0o755);
    fails!(EEXIST, SYS_mkdir, c".", 0o755);
    fails!(EEXIST, SYS_mkdir, c"l", 0o755);
    fails!(EEXIST, SYS_mkdir, c"/", 0o755);
    fails!(ENOENT, SYS_mkdir, c"none/d", 0o755);
    fails!(ENOTDIR, SYS_mkdir, c"f/d", 0o755);
    Ok(())
}

fn rmdir_removes() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    expect_eq!(sys!(SYS_rmdir, c"d"), Ok(0));
    fails!(ENOENT, SYS_rmdir, c"d");
    Ok(())
}

fn rmdir_errors() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    create(c"d/f", b"")?;
    sys!(SYS_symlink, c"d", c"l")?;
    fails!(ENOTEMPTY, SYS_rmdir, c"d");
    fails!(ENOTDIR, SYS_rmdir, c"d/f");
    fails!(ENOTDIR, SYS_rmdir, c"l");
    fails!(EINVAL, SYS_rmdir, c"d/.");
    fails!(ENOTEMPTY, SYS_rmdir, c"d/..");
    Ok(())
}

fn unlink_removes() -> Outcome {
    create(c"f", b"")?;
    expect_eq!(sys!(SYS_unlink, c"f"), Ok(0));
    fails!(ENOENT, SYS_unlink, c"f");
    // It is the link that goes, not its target.
    create(c"target", b"abc")?;
    sys!(SYS_symlink, c"target", c"l")?;
    expect_eq!(sys!(SYS_unlink, c"l"), Ok(0));
    expect_eq!(read(c"target")?, b"abc");
    Ok(())
}

fn unlink_errors() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    create(c"f", b"")?;
    fails!(EISDIR, SYS_unlink, c"d");
    fails!(EISDIR, SYS_unlink, c".");
    fails!(ENOTDIR, SYS_unlink, c"f/");
    fails!(ENOTDIR, SYS_unlink, c"f/x");
    Ok(())
}

fn unlink_keeps_open_files() -> Outcome {
    let fd = create(c"f", b"abc")?;
    sys!(SYS_unlink, c"f")?;
    expect_eq!(contents(&fd)?, b"abc");
    expect_eq!(sys!(SYS_pwrite64, &fd, b"x".as_ptr(), 1, 3), Ok(1));
    expect_eq!(contents(&fd)?, b"abcx");
    expect_eq!(crate::attributes::fstat(&fd)?.st_nlink, 0);
    // The name is free for another file.
    create(c"f", b"new")?;
    expect_eq!(contents(&fd)?, b"abcx");
    Ok(())
}

fn unlinkat_flags() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    create(c"f", b"")?;
    fails!(EISDIR, SYS_unlinkat, AT_FDCWD, c"d", 0);
    fails!(ENOTDIR, SYS_unlinkat, AT_FDCWD, c"f", AT_REMOVEDIR);
    fails!(EINVAL, SYS_unlinkat, AT_FDCWD, c"f", 1);
    expect_eq!(sys!(SYS_unlinkat, AT_FDCWD, c"d", AT_REMOVEDIR), Ok(0));
    expect_eq!(sys!(SYS_unlinkat, AT_FDCWD, c"f", 0), Ok(0));
    Ok(())
}

fn link_shares() -> Outcome {
    let fd = create(c"a", b"abc")?;
    expect_eq!(sys!(SYS_link, c"a", c"b"), Ok(0));
    expect_eq!(inode(c"a")?, inode(c"b")?);
    expect_eq!(stat(c"b")?.st_nlink, 2);
    sys!(SYS_pwrite64, &fd, b"x".as_ptr(), 1, 0)?;
    sys!(SYS_unlink, c"a")?;
    expect_eq!(read(c"b")?, b"xbc");
    expect_eq!(stat(c"b")?.st_nlink, 1);
    Ok(())
}

fn link_errors() -> Outcome {
    create(c"a", b"")?;
    create(c"b", b"")?;
    fails!(EEXIST, SYS_link, c"a", c"b");
    fails!(ENOENT, SYS_link, c"none", c"c");
    fails!(ENOENT, SYS_link, c"a", c"none/c");
    fails!(EPERM, SYS_link, c".", c"c");
    fails!(EINVAL, SYS_linkat, AT_FDCWD, c"a", AT_FDCWD, c"c", 1);
    Ok(())
}

fn link_to_a_link() -> Outcome {
    create(c"f", b"abc")?;
    sys!(SYS_symlink, c"f", c"l")?;
    sys!(SYS_link, c"l", c"same")?;
    expect_eq!(lstat(c"same")?.st_mode & libc::S_IFMT, libc::S_IFLNK);
    sys!(
        SYS_linkat,
        AT_FDCWD,
        c"l",
        AT_FDCWD,
        c"file",
        AT_SYMLINK_FOLLOW
    )?;
    expect_eq!(inode(c"file")?, inode(c"f")?);
    Ok(())
}

fn readlink(path: &CStr, len: usize) -> SysResult<Vec<u8>> {
    let mut bytes = vec![0_u8; 100];
    let count = sys!(SYS_readlink, path, bytes.as_mut_ptr(), len)?;
    bytes.truncate(count);
    Ok(bytes)
}

fn symlink_is_read_back() -> Outcome {
    expect_eq!(sys!(SYS_symlink, c"some/../where", c"l"), Ok(0));
    expect_eq!(readlink(c"l", 100)?, b"some/../where");
    let status = lstat(c"l")?;
    expect_eq!((status.st_mode, status.st_size), (0o120_777, 13));
    expect_eq!(sys!(SYS_symlinkat, c"l", AT_FDCWD, c"m"), Ok(0));
    let mut bytes = [0_u8; 4];
    expect_eq!(
        sys!(SYS_readlinkat, AT_FDCWD, c"m", bytes.as_mut_ptr(), 4),
        Ok(1)
    );
    expect_eq!(&bytes, b"l\0\0\0");
    Ok(())
}

fn readlink_truncates() -> Outcome {
    sys!(SYS_symlink, c"abcdef", c"l")?;
    expect_eq!(readlink(c"l", 3)?, b"abc");
    fails!(EINVAL, SYS_readlink, c"l", 8, 0);
    fails!(EINVAL, SYS_readlink, c"l", 8, -1);
    Ok(())
}

fn readlink_errors() -> Outcome {
    create(c"f", b"")?;
    let mut bytes = [0_u8; 8];
    fails!(EINVAL, SYS_readlink, c"f", bytes.as_mut_ptr(), 8);
    fails!(EINVAL, SYS_readlink, c".", bytes.as_mut_ptr(), 8);
    fails!(ENOENT, SYS_readlink, c"none", bytes.as_mut_ptr(), 8);
    Ok(())
}

fn symlink_errors() -> Outcome {
    create(c"f", b"")?;
    fails!(EEXIST, SYS_symlink, c"x", c"f");
    fails!(ENOENT, SYS_symlink, c"", c"l");
    fails!(ENOENT, SYS_symlink, c"x", c"none/l");
    Ok(())
}

fn rename_moves() -> Outcome {
    create(c"a", b"abc")?;
    sys!(SYS_mkdir, c"d", 0o755)?;
    expect_eq!(sys!(SYS_rename, c"a", c"d/b"), Ok(0));
    fails!(ENOENT, SYS_open, c"a", O_RDONLY);
    expect_eq!(read(c"d/b")?, b"abc");
    let directory = open(c"d", O_RDONLY)?;
    expect_eq!(sys!(SYS_renameat, &directory, c"b", AT_FDCWD, c"c"), Ok(0));
    expect_eq!(read(c"c")?, b"abc");
    Ok(())
}

fn rename_replaces() -> Outcome {
    create(c"a", b"new")?;
    let old = create(c"b", b"old")?;
    expect_eq!(sys!(SYS_rename, c"a", c"b"), Ok(0));
    expect_eq!(read(c"b")?, b"new");
    expect_eq!(contents(&old)?, b"old");
    Ok(())
}

fn rename_to_itself() -> Outcome {
    create(c"a", b"abc")?;
    sys!(SYS_link, c"a", c"b")?;
    expect_eq!(sys!(SYS_rename, c"a", c"a"), Ok(0));
    // Two names of one file: nothing happens, and both stay.
    expect_eq!(sys!(SYS_rename, c"a", c"b"), Ok(0));
    expect_eq!(
        (read(c"a")?, read(c"b")?),
        (b"abc".to_vec(), b"abc".to_vec())
    );
    Ok(())
}

fn rename_directories() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    create(c"d/f", b"abc")?;
    sys!(SYS_mkdir, c"empty", 0o755)?;
    sys!(SYS_mkdir, c"parent", 0o755)?;
    expect_eq!(sys!(SYS_rename, c"d", c"empty"), Ok(0));
    expect_eq!(read(c"empty/f")?, b"abc");
    expect_eq!(sys!(SYS_rename, c"empty", c"parent/child"), Ok(0));
    expect_eq!(inode(c"parent/child/..")?, inode(c"parent")?);
    expect_eq!((stat(c"parent")?.st_nlink, stat(c".")?.st_nlink), (3, 3));
    Ok(())
}

fn rename_errors() -> Outcome {
    create(c"f", b"")?;
    sys!(SYS_mkdir, c"d", 0o755)?;
    sys!(SYS_mkdir, c"full", 0o755)?;
    create(c"full/f", b"")?;
    fails!(ENOENT, SYS_rename, c"none", c"x");
    fails!(ENOENT, SYS_rename, c"f", c"none/x");
    fails!(EISDIR, SYS_rename, c"f", c"d");
    fails!(ENOTDIR, SYS_rename, c"d", c"f");
    fails!(ENOTEMPTY, SYS_rename, c"d", c"full");
    fails!(ENOTDIR, SYS_rename, c"f", c"x/");
    Ok(())
}

fn rename_into_itself() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    sys!(SYS_mkdir, c"d/e", 0o755)?;
    fails!(EINVAL, SYS_rename, c"d", c"d/x");
    fails!(EINVAL, SYS_rename, c"d", c"d/e/x");
    fails!(ENOTEMPTY, SYS_rename, c"d/e", c"d");
    Ok(())
}

fn renameat2(from: &CStr, to: &CStr, flags: u32) -> SysResult {
    sys!(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags)
}

fn rename_noreplace() -> Outcome {
    create(c"a", b"a")?;
    create(c"b", b"b")?;
    expect_eq!(
        renameat2(c"a", c"b", RENAME_NOREPLACE).map_err(|errno| errno.0),
        Err(libc::EEXIST)
    );
    expect_eq!(read(c"b")?, b"b");
    expect_eq!(renameat2(c"a", c"c", RENAME_NOREPLACE), Ok(0));
    expect_eq!(read(c"c")?, b"a");
    Ok(())
}

fn rename_exchange() -> Outcome {
    create(c"a", b"a")?;
    sys!(SYS_mkdir, c"d", 0o755)?;
    create(c"d/f", b"f")?;
    expect_eq!(renameat2(c"a", c"d", RENAME_EXCHANGE), Ok(0));
    expect_eq!((read(c"d")?, read(c"a/f")?), (b"a".to_vec(), b"f".to_vec()));
    expect_eq!(
        renameat2(c"a", c"none", RENAME_EXCHANGE).map_err(|errno| errno.0),
        Err(libc::ENOENT)
    );
    Ok(())
}

fn rename_flags() -> Outcome {
    create(c"a", b"")?;
    create(c"b", b"")?;
    for flags in [RENAME_NOREPLACE | RENAME_EXCHANGE, 1 << 10] {
        if renameat2(c"a", c"b", flags).map_err(|errno| errno.0) != Err(libc::EINVAL) {
            return Err(Failure::new(format!("flags {flags:#x} are not refused")));
        }
    }
    Ok(())
}

fn dots_are_protected() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    fails!(EBUSY, SYS_rename, c".", c"x");
    fails!(EBUSY, SYS_rename, c"d", c"..");
    fails!(EINVAL, SYS_rmdir, c".");
    fails!(EBUSY, SYS_rmdir, c"/");
    Ok(())
}

fn removed_directory_is_dead() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    let fd = open(c"d", O_RDONLY)?;
    sys!(SYS_rmdir, c"d")?;
    fails!(
        ENOENT,
        SYS_openat,
        &fd,
        c"f",
        libc::O_RDWR | libc::O_CREAT,
        0o644
    );
    fails!(ENOENT, SYS_mkdirat, &fd, c"e", 0o755);
    expect_eq!(crate::attributes::fstat(&fd)?.st_nlink, 0);
    Ok(())
}
