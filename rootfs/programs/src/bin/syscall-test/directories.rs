//! Listing directories, and the working directory.

use std::collections::BTreeMap;

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{SysResult, create, open};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{O_DIRECTORY, O_RDONLY};
use std::os::fd::OwnedFd;

use crate::attributes::{inode, stat};

pub(crate) const CHECKS: &[Check] = checks![
    getdents_lists_all,
    getdents_types,
    getdents_small_buffers,
    getdents_rewinds,
    getdents_survives_removals,
    getdents_errors,
    getcwd_follows_chdir,
    getcwd_errors,
    chdir_errors,
    fchdir_changes,
    root_is_its_own_parent,
    directory_links_are_counted,
];

struct Listed {
    inode: u64,
    kind: u8,
}

/// One call's entries; `size` is the buffer's.
fn getdents(fd: &OwnedFd, size: usize) -> SysResult<Vec<(String, Listed)>> {
    let mut bytes = vec![0_u8; size];
    let filled = sys!(SYS_getdents64, fd, bytes.as_mut_ptr(), size)?;
    let mut rest = &bytes[..filled];
    let mut entries = Vec::new();
    // struct linux_dirent64: inode u64, offset i64, length u16, type u8, name.
    while let Some((head, _)) = rest.split_at_checked(19) {
        let inode = u64::from_ne_bytes(head[..8].try_into().unwrap_or_default());
        let length = usize::from(u16::from_ne_bytes([head[16], head[17]]));
        let name: Vec<u8> = rest[19..]
            .iter()
            .copied()
            .take_while(|byte| *byte != 0)
            .collect();
        let kind = head[18];
        entries.push((
            String::from_utf8_lossy(&name).into_owned(),
            Listed { inode, kind },
        ));
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(entries)
}

fn list(fd: &OwnedFd, size: usize) -> SysResult<Vec<(String, Listed)>> {
    let mut all = Vec::new();
    loop {
        let some = getdents(fd, size)?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

fn getdents_lists_all() -> Outcome {
    let mut wanted = vec![".".to_owned(), "..".to_owned()];
    for index in 0..100 {
        let name = format!("file-{index}\0");
        let fd = sys!(SYS_open, name.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o644)?;
        sys!(SYS_close, fd)?;
        wanted.push(name.trim_end_matches('\0').to_owned());
    }
    wanted.sort();
    let fd = open(c".", O_RDONLY | O_DIRECTORY)?;
    let mut names: Vec<_> = list(&fd, 4096)?.into_iter().map(|(name, _)| name).collect();
    names.sort();
    expect!(names == wanted);
    Ok(())
}

fn getdents_types() -> Outcome {
    create(c"file", b"")?;
    sys!(SYS_mkdir, c"directory", 0o755)?;
    sys!(SYS_symlink, c"file", c"link")?;
    let fd = open(c".", O_RDONLY)?;
    let entries: BTreeMap<_, _> = list(&fd, 4096)?.into_iter().collect();
    let kind = |name: &str| entries.get(name).map(|entry| entry.kind);
    expect_eq!(kind("file"), Some(libc::DT_REG));
    expect_eq!(kind("directory"), Some(libc::DT_DIR));
    expect_eq!(kind("link"), Some(libc::DT_LNK));
    expect_eq!(kind(".."), Some(libc::DT_DIR));
    let number = |name: &str| entries.get(name).map(|entry| entry.inode);
    expect_eq!(number("file"), Some(stat(c"file")?.st_ino));
    expect_eq!(number("."), Some(stat(c".")?.st_ino));
    expect_eq!(number(".."), Some(stat(c"..")?.st_ino));
    Ok(())
}

fn getdents_small_buffers() -> Outcome {
    for name in [c"one", c"two", c"three"] {
        create(name, b"")?;
    }
    let fd = open(c".", O_RDONLY)?;
    // One entry of up to 5 letters at a time: 19 bytes, the name and its NUL, rounded up to 8.
    let mut names: Vec<_> = list(&fd, 32)?.into_iter().map(|(name, _)| name).collect();
    names.sort();
    expect_eq!(names, [".", "..", "one", "three", "two"]);
    Ok(())
}

fn getdents_rewinds() -> Outcome {
    create(c"f", b"")?;
    let fd = open(c".", O_RDONLY)?;
    expect_eq!(list(&fd, 4096)?.len(), 3);
    expect_eq!(list(&fd, 4096)?.len(), 0);
    expect_eq!(sys!(SYS_lseek, &fd, 0, libc::SEEK_SET), Ok(0));
    expect_eq!(list(&fd, 4096)?.len(), 3);
    Ok(())
}

fn getdents_survives_removals() -> Outcome {
    for index in 0..50 {
        let name = format!("{index}\0");
        sys!(SYS_mkdir, name.as_ptr(), 0o755)?;
    }
    let fd = open(c".", O_RDONLY)?;
    let mut removed = 0;
    loop {
        let entries = getdents(&fd, 256)?;
        if entries.is_empty() {
            break;
        }
        for (name, _) in entries.iter().filter(|(name, _)| !name.starts_with('.')) {
            sys!(SYS_rmdir, format!("{name}\0").as_ptr())?;
            removed += 1;
        }
    }
    expect_eq!(removed, 50);
    Ok(())
}

fn getdents_errors() -> Outcome {
    let file = create(c"f", b"")?;
    let mut bytes = [0_u8; 256];
    fails!(ENOTDIR, SYS_getdents64, &file, bytes.as_mut_ptr(), 256);
    fails!(EBADF, SYS_getdents64, 999, bytes.as_mut_ptr(), 256);
    let fd = open(c".", O_RDONLY)?;
    fails!(EINVAL, SYS_getdents64, &fd, bytes.as_mut_ptr(), 8);
    Ok(())
}

fn getcwd() -> SysResult<String> {
    let mut bytes = [0_u8; 4096];
    // The length that is given includes the NUL.
    let length = sys!(SYS_getcwd, bytes.as_mut_ptr(), bytes.len())?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

fn getcwd_follows_chdir() -> Outcome {
    let start = getcwd()?;
    let start = start.trim_end_matches('\0');
    sys!(SYS_mkdir, c"d", 0o755)?;
    sys!(SYS_symlink, c"d", c"l")?;
    expect_eq!(sys!(SYS_chdir, c"l"), Ok(0));
    expect_eq!(getcwd()?, format!("{start}/d\0"));
    expect_eq!(sys!(SYS_rename, c"../d", c"../e"), Ok(0));
    expect_eq!(getcwd()?, format!("{start}/e\0"));
    expect_eq!(sys!(SYS_chdir, c"/"), Ok(0));
    expect_eq!(getcwd()?, "/\0");
    Ok(())
}

fn getcwd_errors() -> Outcome {
    let mut bytes = [0_u8; 4096];
    fails!(ERANGE, SYS_getcwd, bytes.as_mut_ptr(), 2);
    fails!(ERANGE, SYS_getcwd, bytes.as_mut_ptr(), 0);
    fails!(EFAULT, SYS_getcwd, 8, 4096);
    sys!(SYS_mkdir, c"d", 0o755)?;
    sys!(SYS_chdir, c"d")?;
    sys!(SYS_rmdir, c"../d")?;
    fails!(ENOENT, SYS_getcwd, bytes.as_mut_ptr(), bytes.len());
    Ok(())
}

fn chdir_errors() -> Outcome {
    create(c"f", b"")?;
    fails!(ENOTDIR, SYS_chdir, c"f");
    fails!(ENOENT, SYS_chdir, c"none");
    fails!(ENOENT, SYS_chdir, c"");
    Ok(())
}

fn fchdir_changes() -> Outcome {
    let file = create(c"f", b"")?;
    sys!(SYS_mkdir, c"d", 0o755)?;
    create(c"d/inside", b"")?;
    expect_eq!(sys!(SYS_fchdir, &open(c"d", O_RDONLY)?), Ok(0));
    open(c"inside", O_RDONLY)?;
    fails!(ENOTDIR, SYS_fchdir, &file);
    fails!(EBADF, SYS_fchdir, 999);
    Ok(())
}

fn root_is_its_own_parent() -> Outcome {
    expect_eq!(inode(c"/..")?, inode(c"/")?);
    expect_eq!(inode(c"/../../.")?, inode(c"/")?);
    Ok(())
}

fn directory_links_are_counted() -> Outcome {
    sys!(SYS_mkdir, c"d", 0o755)?;
    expect_eq!(stat(c"d")?.st_nlink, 2);
    sys!(SYS_mkdir, c"d/a", 0o755)?;
    create(c"d/f", b"")?;
    expect_eq!(stat(c"d")?.st_nlink, 3);
    sys!(SYS_rmdir, c"d/a")?;
    expect_eq!(stat(c"d")?.st_nlink, 2);
    Ok(())
}
