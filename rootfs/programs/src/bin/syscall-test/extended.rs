//! Extended attributes.

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::create;
use guest_programs::{checks, expect, expect_eq, sys};
use libc::{XATTR_CREATE, XATTR_REPLACE};
use std::ffi::CStr;

pub(crate) const CHECKS: &[Check] = checks![
    xattrs_are_kept,
    xattrs_are_listed,
    xattrs_are_made_or_replaced,
    xattr_names_and_sizes,
    xattrs_of_other_files,
    xattr_bad_pointers,
];

const A: &CStr = c"user.a";
const B: &CStr = c"user.long name";

/// Whether a call has failed with that error.
fn fails<T>(result: guest_programs::sys::SysResult<T>, error: i32) -> bool {
    result.is_err_and(|errno| errno.0 == error)
}

/// Sets an attribute of `file`.
fn set(name: &CStr, value: &[u8], flags: i32) -> guest_programs::sys::SysResult<usize> {
    sys!(
        SYS_setxattr,
        c"file",
        name,
        value.as_ptr(),
        value.len(),
        flags
    )
}

fn get(name: &CStr, size: usize) -> guest_programs::sys::SysResult<Vec<u8>> {
    let mut value = vec![0_u8; size];
    let length = sys!(SYS_getxattr, c"file", name, value.as_mut_ptr(), size)?;
    value.truncate(length);
    Ok(value)
}

fn list(size: usize) -> guest_programs::sys::SysResult<Vec<Vec<u8>>> {
    let mut list = vec![0_u8; size];
    let length = sys!(SYS_listxattr, c"file", list.as_mut_ptr(), size)?;
    let names = list[..length].split(|byte| *byte == 0);
    let mut names: Vec<_> = names
        .filter(|name| name.starts_with(b"user."))
        .map(<[u8]>::to_vec)
        .collect();
    names.sort();
    Ok(names)
}

fn xattrs_are_kept() -> Outcome {
    let fd = create(c"file", b"x")?;
    set(A, b"value", 0)?;
    expect_eq!(get(A, 100)?, b"value");
    expect_eq!(get(A, 5)?, b"value");
    expect!(fails(get(A, 4), libc::ERANGE));
    expect_eq!(sys!(SYS_getxattr, c"file", A, 0, 0)?, 5);
    expect_eq!(sys!(SYS_fgetxattr, &fd, A, 0, 0)?, 5);
    expect_eq!(sys!(SYS_lgetxattr, c"file", A, 0, 0)?, 5);
    sys!(SYS_fsetxattr, &fd, A, b"new".as_ptr(), 3, 0)?;
    expect_eq!(get(A, 100)?, b"new");
    sys!(SYS_lsetxattr, c"file", A, b"".as_ptr(), 0, 0)?;
    expect_eq!(get(A, 100)?, b"");
    sys!(SYS_fremovexattr, &fd, A)?;
    expect!(fails(get(A, 100), libc::ENODATA));
    expect!(fails(sys!(SYS_removexattr, c"file", A), libc::ENODATA));
    set(A, &[7; 3000], 0)?;
    expect_eq!(get(A, 4000)?, [7; 3000]);
    sys!(SYS_lremovexattr, c"file", A)?;
    expect!(fails(sys!(SYS_getxattr, c"none", A, 0, 0), libc::ENOENT));
    expect!(fails(sys!(SYS_fgetxattr, -1, A, 0, 0), libc::EBADF));
    Ok(())
}

fn xattrs_are_listed() -> Outcome {
    let fd = create(c"file", b"x")?;
    expect_eq!(list(1000)?.len(), 0);
    set(A, b"1", 0)?;
    set(B, b"2", 0)?;
    let names = [A.to_bytes().to_vec(), B.to_bytes().to_vec()];
    expect_eq!(list(1000)?, names);
    expect!(fails(list(1), libc::ERANGE));
    let size = sys!(SYS_flistxattr, &fd, 0, 0)?;
    expect!(size >= A.to_bytes_with_nul().len() + B.to_bytes_with_nul().len());
    expect_eq!(sys!(SYS_llistxattr, c"file", 0, 0)?, size);
    Ok(())
}

fn xattrs_are_made_or_replaced() -> Outcome {
    create(c"file", b"x")?;
    expect!(fails(set(A, b"1", XATTR_REPLACE), libc::ENODATA));
    set(A, b"1", XATTR_CREATE)?;
    expect!(fails(set(A, b"2", XATTR_CREATE), libc::EEXIST));
    set(A, b"2", XATTR_REPLACE)?;
    expect_eq!(get(A, 9)?, b"2");
    expect!(fails(set(A, b"2", 4), libc::EINVAL));
    Ok(())
}

fn xattr_names_and_sizes() -> Outcome {
    create(c"file", b"x")?;
    let long = std::ffi::CString::new([b"user.".to_vec(), vec![b'x'; 251]].concat())?;
    expect!(fails(set(c"", b"1", 0), libc::ERANGE));
    expect!(fails(set(&long, b"1", 0), libc::ERANGE));
    expect!(fails(get(&long, 9), libc::ERANGE));
    expect!(fails(set(c"user.", b"1", 0), libc::EINVAL));
    for name in [c"nothing", c"system.nothing", c"other.x"] {
        expect!(fails(set(name, b"1", 0), libc::EOPNOTSUPP));
        expect!(fails(get(name, 9), libc::EOPNOTSUPP));
    }
    expect!(fails(set(A, &[0; 65537], 0), libc::E2BIG));
    Ok(())
}

fn xattrs_of_other_files() -> Outcome {
    create(c"file", b"x")?;
    sys!(SYS_mkdir, c"dir", 0o755)?;
    sys!(SYS_setxattr, c"dir", A, b"d".as_ptr(), 1, 0)?;
    expect_eq!(sys!(SYS_getxattr, c"dir", A, 0, 0)?, 1);
    sys!(SYS_symlink, c"file", c"link")?;
    sys!(SYS_setxattr, c"link", A, b"file".as_ptr(), 4, 0)?;
    expect_eq!(get(A, 9)?, b"file");
    // A link itself has none of these.
    expect!(fails(sys!(SYS_lgetxattr, c"link", A, 0, 0), libc::ENODATA));
    let set_link = sys!(SYS_lsetxattr, c"link", A, b"x".as_ptr(), 1, 0);
    expect!(fails(set_link, libc::EPERM));
    sys!(SYS_mknod, c"fifo", libc::S_IFIFO | 0o644, 0)?;
    let set_fifo = sys!(SYS_setxattr, c"fifo", A, b"x".as_ptr(), 1, 0);
    expect!(fails(set_fifo, libc::EPERM));
    Ok(())
}

fn xattr_bad_pointers() -> Outcome {
    create(c"file", b"x")?;
    set(A, b"value", 0)?;
    let bad = 0x1000;
    expect!(fails(sys!(SYS_getxattr, c"file", bad, 0, 0), libc::EFAULT));
    expect!(fails(sys!(SYS_getxattr, bad, A, 0, 0), libc::EFAULT));
    expect!(fails(sys!(SYS_getxattr, c"file", A, bad, 9), libc::EFAULT));
    expect!(fails(
        sys!(SYS_setxattr, c"file", A, bad, 9, 0),
        libc::EFAULT
    ));
    expect!(fails(sys!(SYS_listxattr, c"file", bad, 999), libc::EFAULT));
    Ok(())
}
