//! Directories, paths, and what is known of a file.

use super::*;

#[test]
fn directories_are_listed_in_both_layouts() {
    let mut caller = Caller::new();
    caller.file("some-file", b"");
    let fd = caller.open("/", u64::from(raw::O_DIRECTORY)).unwrap();
    let buffer = caller.at(0);
    let list = [fd, buffer, 4096];
    let count = caller.call(raw::__NR_getdents64, &list).unwrap();
    let bytes = caller.get(0, count as usize);
    let length = |entry: &[u8]| usize::from(u16::from_ne_bytes([entry[16], entry[17]]));
    let mut entries = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (entry, after) = rest.split_at(length(rest));
        let name = entry[19..].split(|byte| *byte == 0).next().unwrap();
        entries.push((name.to_vec(), u32::from(entry[18])));
        rest = after;
    }
    let named = |name: &[u8], kind| (name.to_vec(), kind);
    assert_eq!(
        entries,
        [
            named(b".", raw::DT_DIR),
            named(b"..", raw::DT_DIR),
            named(b"dev", raw::DT_DIR),
            named(b"some-file", raw::DT_REG),
        ]
    );
    assert_eq!(caller.call(raw::__NR_getdents64, &list), Ok(0));
    caller.call(raw::__NR_lseek, &[fd, 0, 0]).unwrap();
    assert_eq!(
        caller.call(raw::__NR_getdents64, &[fd, buffer, 10]),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        caller.call(raw::__NR_getdents64, &[fd, BAD, 100]),
        Err(Errno::EFAULT)
    );
    assert_eq!(caller.call(raw::__NR_getdents, &[fd, buffer, 24]), Ok(24));
    let old = caller.get(0, 24);
    assert_eq!(
        (length(&old), &old[18..20], old[23]),
        (24, &b".\0"[..], raw::DT_DIR as u8)
    );
    let file = caller.open("some-file", 0).unwrap();
    assert_eq!(
        caller.call(raw::__NR_getdents64, &[file, buffer, 100]),
        Err(Errno::ENOTDIR)
    );
}

#[test]
fn openat2_reads_structures_of_all_versions() {
    let mut caller = Caller::new();
    caller.file("f", b"");
    let path = caller.put(0, b"f\0");
    let how = caller.put_words(100, &[0, 0, 0, 0]);
    let mut open = |size| caller.call(raw::__NR_openat2, &[HERE, path, how, size]);
    assert_eq!(open(8), Err(Errno::EINVAL));
    assert_eq!(open(24), Ok(1));
    assert_eq!(open(32), Ok(2));
    assert_eq!(open(5000), Err(Errno::E2BIG));
    caller.put_words(124, &[1]);
    let later = [HERE, path, how, 32];
    assert_eq!(caller.call(raw::__NR_openat2, &later), Err(Errno::E2BIG));
}

#[test]
fn attributes_are_asked_and_set_by_path_and_descriptor() {
    let mut caller = Caller::new();
    let fd = caller.file("f", b"abc");
    let path = caller.put(0, b"f\0\0");
    let (empty, out) = (caller.at(2), caller.at(PAGE));
    let (empty_path, no_follow) = (
        u64::from(raw::AT_EMPTY_PATH),
        u64::from(raw::AT_SYMLINK_NOFOLLOW),
    );
    for (number, args, result) in [
        (raw::__NR_stat, [path, out, 0, 0, 0], Ok(0)),
        (raw::__NR_fstat, [fd, BAD, 0, 0, 0], Err(Errno::EFAULT)),
        (
            raw::__NR_newfstatat,
            [fd, empty, out, 0, 0],
            Err(Errno::ENOENT),
        ),
        (raw::__NR_newfstatat, [fd, empty, out, empty_path, 0], Ok(0)),
        (raw::__NR_newfstatat, [fd, 0, out, empty_path, 0], Ok(0)),
        (
            raw::__NR_newfstatat,
            [HERE, path, out, 1, 0],
            Err(Errno::EINVAL),
        ),
        (raw::__NR_statx, [HERE, path, 1, 0, out], Err(Errno::EINVAL)),
        (
            raw::__NR_statx,
            [HERE, path, 0x6000, 0, out],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_statx,
            [HERE, path, 0, 1 << 31, out],
            Err(Errno::EINVAL),
        ),
        (raw::__NR_statx, [fd, 0, empty_path, 0xfff, out], Ok(0)),
        (raw::__NR_chmod, [path, 0o4755, 0, 0, 0], Ok(0)),
        (raw::__NR_chown, [path, 5, minus(1), 0, 0], Ok(0)),
        (
            raw::__NR_fchmodat2,
            [HERE, path, 0o600, no_follow, 0],
            Ok(0),
        ),
        (raw::__NR_fchownat, [fd, empty, 6, 7, empty_path], Ok(0)),
        (raw::__NR_utimensat, [fd, 0, 0, 0, 0], Ok(0)),
        (raw::__NR_utimensat, [HERE, 0, 0, 0, 0], Err(Errno::EFAULT)),
        (
            raw::__NR_utimensat,
            [fd, empty, 0, 1, 0],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_faccessat2,
            [HERE, path, 0, 1, 0],
            Err(Errno::EINVAL),
        ),
        (raw::__NR_access, [path, 8, 0, 0, 0], Err(Errno::EINVAL)),
        (raw::__NR_readlink, [path, out, 0, 0, 0], Err(Errno::EINVAL)),
        (
            raw::__NR_readlinkat,
            [fd, empty, out, 9, 0],
            Err(Errno::ENOENT),
        ),
        (
            raw::__NR_unlinkat,
            [HERE, path, 1, 0, 0],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_linkat,
            [HERE, path, HERE, path, 1],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_getxattr,
            [path, path, out, 9, 0],
            // A path is no name of one.
            Err(Errno::EOPNOTSUPP),
        ),
        (raw::__NR_listxattr, [path, out, 9, 0, 0], Ok(0)),
        (raw::__NR_statfs, [path, out, 0, 0, 0], Ok(0)),
        (raw::__NR_fstat, [fd, out, 0, 0, 0], Ok(0)),
    ] {
        assert_eq!(caller.call(number, &args), result, "{number} {args:?}");
    }
    // st_mode, st_uid, st_gid of the last.
    assert_eq!(
        caller.word(PAGE + 24),
        6 << 32 | u64::from(raw::S_IFREG | 0o600)
    );
    assert_eq!(caller.word(PAGE + 32), 7);
    assert_eq!(caller.call(raw::__NR_umask, &[0o7777]), Ok(0o22));
    assert_eq!(caller.call(raw::__NR_umask, &[0]), Ok(0o777));
    assert_eq!(caller.call(raw::__NR_getcwd, &[out, 1]), Err(Errno::ERANGE));
    assert_eq!(caller.call(raw::__NR_getcwd, &[out, 2]), Ok(2));
}
