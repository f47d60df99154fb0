//! Attributes: sizes, times, modes.

use super::*;

#[test]
fn sizes_and_links_are_those_of_tmpfs() {
    let fs = Sandbox::new();
    fs.mkdir("d").unwrap();
    let stat = fs.stat("d").unwrap();
    assert_eq!(
        (stat.size, stat.links, stat.blocks, stat.block_size),
        (40, 2, 0, 4096)
    );
    fs.write("d/f", b"x");
    fs.mkdir("d/e").unwrap();
    let stat = fs.stat("d").unwrap();
    assert_eq!((stat.size, stat.links), (80, 3));
    let stat = fs.stat("d/f").unwrap();
    assert_eq!((stat.size, stat.links, stat.blocks), (1, 1, 8));
    for (length, blocks) in [(100, 0), (200, 8), (4094, 8)] {
        let name = alloc::format!("link{length}");
        fs.symlink(&"x".repeat(length), &name).unwrap();
        let stat = fs.lstat(&name).unwrap();
        assert_eq!((stat.size, stat.blocks), (length as u64, blocks));
        assert_eq!(stat.mode, raw::S_IFLNK | 0o777);
    }
}

#[test]
fn times_follow_what_is_done() {
    let fs = Sandbox::new();
    fs.write("f", b"x");
    let before = fs.stat("f").unwrap();
    fs.read("f").unwrap();
    let read = fs.stat("f").unwrap();
    assert!(read.accessed > before.accessed);
    assert_eq!(
        (read.modified, read.changed),
        (before.modified, before.changed)
    );
    // Once is enough until it is written again.
    fs.read("f").unwrap();
    assert_eq!(fs.stat("f").unwrap(), read);
    fs.write("f", b"y");
    let written = fs.stat("f").unwrap();
    assert!(written.modified > read.modified && written.changed > read.changed);
    let root = fs.stat("/").unwrap();
    fs.link("f", "g").unwrap();
    assert!(fs.stat("f").unwrap().changed > written.changed);
    assert!(fs.stat("/").unwrap().modified > root.modified);
    assert_eq!(fs.stat("f").unwrap().created, before.created);
}

#[test]
fn attributes_are_set() {
    let fs = Sandbox::new();
    fs.write("f", b"x");
    fs.symlink("f", "link").unwrap();
    let set = |path: &[u8], flags, change| {
        let at = At {
            fd: HERE,
            path,
            flags,
        };
        block_on(fs.view().set_attributes(at, change))
    };
    let time = Timestamp {
        seconds: -5,
        nanoseconds: 7,
    };
    let change = AttributeChange {
        mode: Some(0o4711),
        uid: Some(12),
        accessed: Some(SetTime::To(time)),
        ..AttributeChange::default()
    };
    set(b"link", 0, change).unwrap();
    let stat = fs.stat("f").unwrap();
    assert_eq!(
        (stat.mode, stat.uid, stat.gid),
        (raw::S_IFREG | 0o4711, 12, 0)
    );
    assert_eq!(stat.accessed, time);
    let mode = AttributeChange {
        mode: Some(0),
        ..AttributeChange::default()
    };
    let no_follow = raw::AT_SYMLINK_NOFOLLOW;
    assert_eq!(set(b"link", no_follow, mode), Err(Errno::EOPNOTSUPP));
    assert_eq!(decode_time(0, 1_000_000_000), Err(Errno::EINVAL));
    assert_eq!(decode_time(0, raw::UTIME_OMIT.into()), Ok(None));
    assert_eq!(
        decode_time(0, raw::UTIME_NOW.into()),
        Ok(Some(SetTime::Now))
    );
}

#[test]
fn access_is_root_s() {
    let fs = Sandbox::new();
    fs.write("f", b"");
    let access = |path: &[u8], mode| {
        let at = At {
            fd: HERE,
            path,
            flags: 0,
        };
        block_on(fs.view().access(at, mode))
    };
    assert_eq!(access(b"f", raw::R_OK | raw::W_OK), Ok(()));
    assert_eq!(access(b"f", raw::X_OK), Err(Errno::EACCES));
    assert_eq!(access(b"/", raw::X_OK), Ok(()));
    assert_eq!(access(b"f", 8), Err(Errno::EINVAL));
    assert_eq!(access(b"no", 0), Err(Errno::ENOENT));
}

#[test]
fn new_files_inherit_the_group_of_a_set_group_id_directory() {
    let fs = Sandbox::new();
    fs.mkdir("d").unwrap();
    let at = At {
        fd: HERE,
        path: b"d",
        flags: 0,
    };
    let change = AttributeChange {
        mode: Some(0o2755),
        gid: Some(77),
        ..AttributeChange::default()
    };
    block_on(fs.view().set_attributes(at, change)).unwrap();
    fs.write("d/f", b"");
    fs.mkdir("d/e").unwrap();
    assert_eq!(fs.stat("d/f").unwrap().gid, 77);
    let stat = fs.stat("d/e").unwrap();
    assert_eq!((stat.gid, stat.mode), (77, raw::S_IFDIR | 0o2755));
}

#[test]
fn statx_tells_more() {
    let fs = Sandbox::new();
    block_on(DeviceDirectory::mount(fs.context.namespace.clone())).unwrap();
    let statx = |path: &[u8]| {
        let at = At {
            fd: HERE,
            path,
            flags: 0,
        };
        block_on(fs.view().statx(at, raw::STATX_BASIC_STATS)).unwrap()
    };
    let (root, null) = (statx(b"/"), statx(b"/dev/null"));
    let is_mount =
        |statx: &raw::statx| statx.stx_attributes & u64::from(raw::STATX_ATTR_MOUNT_ROOT) != 0;
    assert!(is_mount(&root) && is_mount(&statx(b"/dev")) && !is_mount(&null));
    assert_ne!(root.stx_mnt_id, null.stx_mnt_id);
    assert_eq!((null.stx_rdev_major, null.stx_rdev_minor), (1, 3));
    let known = raw::STATX_BASIC_STATS | raw::STATX_BTIME | raw::STATX_MNT_ID;
    assert_eq!(root.stx_mask, known);
}
