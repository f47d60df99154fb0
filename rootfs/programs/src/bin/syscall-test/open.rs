//! `open` and its flags.

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{contents, create, open};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    AT_FDCWD, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR,
    O_TRUNC, O_WRONLY,
};

pub(crate) const CHECKS: &[Check] = checks![
    open_missing,
    open_creates,
    open_create_is_exclusive,
    open_exclusive_sees_links,
    open_truncates,
    open_appends,
    open_access_mode_binds,
    open_directory_only,
    open_directory_for_writing,
    open_does_not_follow,
    open_follows_links,
    open_link_loop,
    open_through_a_file,
    open_trailing_slash,
    open_empty_path,
    open_long_names,
    open_relative_to_a_directory,
    open_old_call,
    open_creat_call,
    open_path_only,
    open_mode_and_umask,
    open_invalid_flags,
    open_lowest_descriptor,
];

fn open_missing() -> Outcome {
    fails!(ENOENT, SYS_open, c"none", O_RDONLY);
    fails!(ENOENT, SYS_open, c"none/deeper", O_RDONLY | O_CREAT, 0o644);
    fails!(ENOENT, SYS_openat, AT_FDCWD, c"none", O_RDWR, 0);
    Ok(())
}

fn open_creates() -> Outcome {
    let fd = open(c"f", O_WRONLY | O_CREAT)?;
    expect_eq!(sys!(SYS_write, &fd, b"abc".as_ptr(), 3), Ok(3));
    let again = open(c"f", O_RDWR | O_CREAT)?;
    expect_eq!(contents(&again)?, b"abc");
    Ok(())
}

fn open_create_is_exclusive() -> Outcome {
    open(c"f", O_RDWR | O_CREAT | O_EXCL)?;
    fails!(EEXIST, SYS_open, c"f", O_RDWR | O_CREAT | O_EXCL, 0o644);
    // Without O_CREAT the flag has no effect.
    open(c"f", O_RDWR | O_EXCL)?;
    Ok(())
}

fn open_exclusive_sees_links() -> Outcome {
    sys!(SYS_symlink, c"nowhere", c"l")?;
    fails!(EEXIST, SYS_open, c"l", O_RDWR | O_CREAT | O_EXCL, 0o644);
    // Without O_EXCL the link's target is made.
    open(c"l", O_RDWR | O_CREAT)?;
    open(c"nowhere", O_RDONLY)?;
    Ok(())
}

fn open_truncates() -> Outcome {
    let kept = create(c"f", b"abc")?;
    expect_eq!(contents(&kept)?, b"abc");
    open(c"f", O_WRONLY | O_TRUNC)?;
    expect_eq!(contents(&kept)?, b"");
    Ok(())
}

fn open_appends() -> Outcome {
    let whole = create(c"f", b"abc")?;
    let fd = open(c"f", O_RDWR | O_APPEND)?;
    expect_eq!(sys!(SYS_lseek, &fd, 0, libc::SEEK_SET), Ok(0));
    expect_eq!(sys!(SYS_write, &fd, b"de".as_ptr(), 2), Ok(2));
    expect_eq!(sys!(SYS_lseek, &fd, 0, libc::SEEK_CUR), Ok(5));
    // Linux appends even at an offset (pwrite(2), BUGS).
    expect_eq!(sys!(SYS_pwrite64, &fd, b"f".as_ptr(), 1, 0), Ok(1));
    expect_eq!(contents(&whole)?, b"abcdef");
    Ok(())
}

fn open_access_mode_binds() -> Outcome {
    create(c"f", b"abc")?;
    let mut byte = 0_u8;
    let reader = open(c"f", O_RDONLY)?;
    fails!(EBADF, SYS_write, &reader, &raw const byte, 1);
    fails!(EINVAL, SYS_ftruncate, &reader, 0);
    let writer = open(c"f", O_WRONLY)?;
    fails!(EBADF, SYS_read, &writer, &raw mut byte, 1);
    fails!(EBADF, SYS_pread64, &writer, &raw mut byte, 1, 0);
    Ok(())
}

fn open_directory_only() -> Outcome {
    create(c"f", b"")?;
    fails!(ENOTDIR, SYS_open, c"f", O_RDONLY | O_DIRECTORY);
    open(c".", O_RDONLY | O_DIRECTORY)?;
    fails!(
        EINVAL,
        SYS_open,
        c"new",
        O_RDWR | O_CREAT | O_DIRECTORY,
        0o644
    );
    Ok(())
}

fn open_directory_for_writing() -> Outcome {
    fails!(EISDIR, SYS_open, c".", O_WRONLY);
    fails!(EISDIR, SYS_open, c".", O_RDWR);
    fails!(EISDIR, SYS_open, c".", O_RDONLY | O_CREAT, 0o644);
    let fd = open(c".", O_RDONLY)?;
    let mut byte = 0_u8;
    fails!(EISDIR, SYS_read, &fd, &raw mut byte, 1);
    fails!(EBADF, SYS_write, &fd, &raw const byte, 1);
    Ok(())
}

fn open_does_not_follow() -> Outcome {
    create(c"f", b"")?;
    sys!(SYS_mkdir, c"d", 0o755)?;
    sys!(SYS_symlink, c"f", c"l")?;
    sys!(SYS_symlink, c"d", c"dl")?;
    fails!(ELOOP, SYS_open, c"l", O_RDONLY | O_NOFOLLOW);
    fails!(
        ENOTDIR,
        SYS_open,
        c"dl",
        O_RDONLY | O_NOFOLLOW | O_DIRECTORY
    );
    open(c"f", O_RDONLY | O_NOFOLLOW)?;
    Ok(())
}

fn open_follows_links() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    create(c"d/f", b"abc")?;
    sys!(SYS_symlink, c"../d/f", c"d/l")?;
    sys!(SYS_symlink, c"d", c"dl")?;
    expect_eq!(contents(&open(c"dl/l", O_RDONLY)?)?, b"abc");
    expect_eq!(contents(&open(c"./dl/.././d//f", O_RDONLY)?)?, b"abc");
    Ok(())
}

fn open_link_loop() -> Outcome {
    sys!(SYS_symlink, c"b", c"a")?;
    sys!(SYS_symlink, c"a", c"b")?;
    fails!(ELOOP, SYS_open, c"a", O_RDONLY);
    fails!(ELOOP, SYS_open, c"a/x", O_RDONLY);
    Ok(())
}

fn open_through_a_file() -> Outcome {
    create(c"f", b"")?;
    fails!(ENOTDIR, SYS_open, c"f/x", O_RDONLY);
    fails!(ENOTDIR, SYS_open, c"f/.", O_RDONLY);
    Ok(())
}

fn open_trailing_slash() -> Outcome {
    create(c"f", b"")?;
    fails!(ENOTDIR, SYS_open, c"f/", O_RDONLY);
    open(c"./", O_RDONLY)?;
    fails!(EISDIR, SYS_open, c"new/", O_RDWR | O_CREAT, 0o644);
    Ok(())
}

fn open_empty_path() -> Outcome {
    fails!(ENOENT, SYS_open, c"", O_RDONLY);
    fails!(ENOENT, SYS_mkdir, c"", 0o755);
    fails!(ENOENT, SYS_unlink, c"");
    Ok(())
}

fn open_long_names() -> Outcome {
    let mut name = vec![b'n'; 256];
    name.push(0);
    fails!(
        ENAMETOOLONG,
        SYS_open,
        name.as_ptr(),
        O_RDWR | O_CREAT,
        0o644
    );
    name.remove(0);
    let fd = sys!(SYS_open, name.as_ptr(), O_RDWR | O_CREAT, 0o644)?;
    sys!(SYS_close, fd)?;
    let mut path = b"./".repeat(2048);
    path.push(0);
    fails!(ENAMETOOLONG, SYS_open, path.as_ptr(), O_RDONLY);
    // 4095 bytes and the NUL are just short enough.
    let fd = sys!(SYS_open, path[2..].as_ptr(), O_RDONLY)?;
    sys!(SYS_close, fd)?;
    Ok(())
}

fn open_relative_to_a_directory() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    create(c"d/f", b"abc")?;
    let file = open(c"d/f", O_RDONLY)?;
    let directory = open(c"d", O_RDONLY | O_DIRECTORY)?;
    let fd = sys!(SYS_openat, &directory, c"f", O_RDONLY)?;
    sys!(SYS_close, fd)?;
    fails!(ENOTDIR, SYS_openat, &file, c"f", O_RDONLY);
    fails!(EBADF, SYS_openat, 999, c"f", O_RDONLY);
    // An absolute path needs no directory.
    let fd = sys!(SYS_openat, 999, c"/", O_RDONLY)?;
    sys!(SYS_close, fd)?;
    Ok(())
}

fn open_old_call() -> Outcome {
    let fd = sys!(SYS_open, c"f", O_RDWR | O_CREAT, 0o600)?;
    expect_eq!(sys!(SYS_close, fd), Ok(0));
    fails!(EBADF, SYS_close, fd);
    Ok(())
}

fn open_creat_call() -> Outcome {
    let kept = create(c"f", b"abc")?;
    let fd = sys!(SYS_creat, c"f", 0o644)?;
    expect_eq!(sys!(SYS_write, fd, b"x".as_ptr(), 1), Ok(1));
    expect_eq!(contents(&kept)?, b"x");
    let mut byte = 0_u8;
    fails!(EBADF, SYS_read, fd, &raw mut byte, 1);
    sys!(SYS_close, fd)?;
    Ok(())
}

fn open_path_only() -> Outcome {
    create(c"f", b"abc")?;
    sys!(SYS_symlink, c"f", c"l")?;
    let fd = open(c"f", O_PATH)?;
    let mut byte = 0_u8;
    fails!(EBADF, SYS_read, &fd, &raw mut byte, 1);
    fails!(EBADF, SYS_lseek, &fd, 0, libc::SEEK_SET);
    fails!(EBADF, SYS_fchmod, &fd, 0o600);
    let directory = open(c".", O_PATH | O_DIRECTORY)?;
    let file = sys!(SYS_openat, &directory, c"f", O_RDONLY)?;
    sys!(SYS_close, file)?;
    // With O_NOFOLLOW it is the link itself that is opened.
    open(c"l", O_PATH | O_NOFOLLOW)?;
    Ok(())
}

fn open_mode_and_umask() -> Outcome {
    let old = sys!(SYS_umask, 0o027)?;
    let made = sys!(SYS_open, c"f", O_RDWR | O_CREAT, 0o4777);
    let set = sys!(SYS_umask, old)?;
    sys!(SYS_close, made?)?;
    expect_eq!(set, 0o027);
    expect_eq!(crate::attributes::stat(c"f")?.st_mode, 0o104_750);
    Ok(())
}

fn open_invalid_flags() -> Outcome {
    create(c"f", b"")?;
    // The access mode 3 opens for neither, but is allowed (open(2), NOTES).
    let fd = open(c"f", 3)?;
    let mut byte = 0_u8;
    fails!(EBADF, SYS_read, &fd, &raw mut byte, 1);
    fails!(EBADF, SYS_write, &fd, &raw const byte, 1);
    // O_TMPFILE is a flag that needs O_DIRECTORY and write access.
    fails!(EINVAL, SYS_open, c".", libc::O_TMPFILE | O_RDONLY, 0o600);
    Ok(())
}

fn open_lowest_descriptor() -> Outcome {
    let first = sys!(SYS_open, c".", O_RDONLY)?;
    let second = sys!(SYS_open, c".", O_RDONLY)?;
    sys!(SYS_close, first)?;
    let third = sys!(SYS_open, c".", O_RDONLY)?;
    sys!(SYS_close, second)?;
    sys!(SYS_close, third)?;
    expect_eq!(third, first);
    expect!(second > first);
    Ok(())
}
