//! What a well-behaved client does, compared with what is then on the host.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

#[test]
fn configuration_and_init_say_what_there_is() {
    let mut client = Client::new();
    let mut config = [0; 48];
    client.driver.transport.read(0x100, &mut config);
    assert_eq!(&config[..6], b"share\0");
    assert_eq!(config[36..40], 2_u32.to_le_bytes());
    let reply = client.init().unwrap();
    assert_eq!((reply.major, reply.minor), (7, 40));
    assert_eq!(reply.max_write, 1 << 20);
    assert_eq!(reply.max_pages, 256);
    assert_ne!(reply.flags & FUSE_WRITEBACK_CACHE, 0);
    assert_ne!(reply.flags & FUSE_SUBMOUNTS, 0);
    assert_eq!(reply.flags & FUSE_HANDLE_KILLPRIV_V2, 0);
    // A version to come, one that is too old, and one that is cut short.
    let version = |major: u32, minor: u32| [major.to_le_bytes(), minor.to_le_bytes()].concat();
    let init = fuse_opcode::FUSE_INIT;
    let reply: fuse_init_out = client.call(init, 0, &[&version(8, 0)]).unwrap();
    assert_eq!((reply.major, reply.minor), (7, 40));
    assert_eq!(client.raw(init, 0, &[&version(7, 30)]), Err(Errno::PROTO));
    assert_eq!(client.raw(init, 0, &[&version(7, 40)]), Err(Errno::INVAL));
    assert_eq!(client.raw(init, 0, &[b"\x07"]), Err(Errno::INVAL));
}

#[test]
fn nothing_works_before_init_and_after_destroy() {
    let mut client = Client::new();
    let (node, fh) = client.create(1, "file", libc::O_RDWR, 0o644).unwrap();
    client.act(fuse_opcode::FUSE_DESTROY, 0, &[]).unwrap();
    assert_eq!(client.attributes(1).err(), Some(Errno::IO));
    assert_eq!(client.read(node, fh, 0, 1), Err(Errno::IO));
    client.init().unwrap();
    assert_eq!(client.attributes(node).err(), Some(Errno::STALE));
    assert_eq!(client.read(node, fh, 0, 1), Err(Errno::BADF));
    assert!(client.attributes(1).is_ok());
}

#[test]
fn files_are_made_written_and_read_by_each_engine() {
    for engine in ENGINES {
        let mut client = Client::with(true, Cache::Auto, LIMITS, engine);
        let file = client.create(1, "file", libc::O_RDWR, 0o666).unwrap();
        let data = pattern(100_000);
        assert_eq!(client.write(file, 0, &data), Ok(100_000));
        assert_eq!(client.write(file, 5, b""), Ok(0));
        assert_eq!(fs::read(client.shared("file")).unwrap(), data);
        let metadata = fs::metadata(client.shared("file")).unwrap();
        assert_eq!(
            metadata.permissions().mode() & 0o7777,
            0o644,
            "the umask counts"
        );

        let (node, fh) = file;
        assert_eq!(client.read(node, fh, 10, 1000).unwrap(), data[10..1010]);
        assert_eq!(client.read(node, fh, 99_999, 1000).unwrap(), data[99_999..]);
        assert_eq!(client.read(node, fh, 1 << 40, 10), Ok(vec![]));
        assert_eq!(client.read(node, fh, 0, 0), Ok(vec![]));
        // Odd buffers in odd places.
        let buffers = [(DATA + 1, 3), (DATA + 0x1000, 5000), (DATA + 10, 7)];
        assert_eq!(client.read_into(node, fh, 0, &buffers), Ok(5010));
        assert_eq!(client.driver.bytes(DATA + 1, 3), data[..3]);
        assert_eq!(client.driver.bytes(DATA + 0x1000, 5000), data[3..5003]);
        assert_eq!(client.driver.bytes(DATA + 10, 7), data[5003..5010]);

        let append = libc::O_APPEND | libc::O_WRONLY;
        assert_eq!(client.write_flags(file, 0, b"end", append), Ok(3));
        assert_eq!(fs::metadata(client.shared("file")).unwrap().len(), 100_003);

        for flags in [0, 1] {
            let mut sync = fuse_fsync_in::new_zeroed();
            (sync.fh, sync.fsync_flags) = (fh, flags);
            client
                .act(fuse_opcode::FUSE_FSYNC, node, &[sync.as_bytes()])
                .unwrap();
        }
        client.release(node, fh).unwrap();
        assert_eq!(client.release(node, fh), Err(Errno::BADF));
        assert_eq!(client.read(node, fh, 0, 1), Err(Errno::BADF));
        let opened = client.open(node, libc::O_RDONLY).unwrap();
        assert_eq!(client.write((node, opened.fh), 0, b"x"), Err(Errno::BADF));
        let opened = client.open(node, libc::O_RDWR | libc::O_TRUNC).unwrap();
        assert_eq!(client.read(node, opened.fh, 0, 1), Ok(vec![]));
    }
}

#[test]
fn names_come_and_go() {
    let mut client = Client::new();
    let mkdir = fuse_mkdir_in {
        mode: 0o777,
        umask: 0o027,
    };
    let made: fuse_entry_out = client
        .call(fuse_opcode::FUSE_MKDIR, 1, &[&named(&mkdir, &["dir"])])
        .unwrap();
    let mode = fs::metadata(client.shared("dir")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o750);
    assert_eq!(client.look_up(1, "dir").unwrap().nodeid, made.nodeid);

    let link: fuse_entry_out = client
        .call(
            fuse_opcode::FUSE_SYMLINK,
            made.nodeid,
            &[b"link\0", b"../any where\0"],
        )
        .unwrap();
    assert_eq!(
        client
            .raw(fuse_opcode::FUSE_READLINK, link.nodeid, &[])
            .unwrap(),
        b"../any where"
    );
    assert_eq!(
        client.raw(fuse_opcode::FUSE_READLINK, 1, &[]),
        Err(Errno::INVAL)
    );

    let (file, fh) = client
        .create(1, "a", libc::O_RDWR | libc::O_EXCL, 0o600)
        .unwrap();
    let exclusive = client.create(1, "a", libc::O_RDWR | libc::O_EXCL, 0o600);
    assert_eq!(exclusive, Err(Errno::EXIST));
    let again = client.create(1, "a", libc::O_RDONLY, 0o600).unwrap();
    assert_eq!(again.0, file);
    assert_eq!(
        client.create(1, "dir", libc::O_RDWR, 0o600),
        Err(Errno::ISDIR)
    );
    assert_eq!(
        client.create(made.nodeid, "link", libc::O_RDWR, 0o600),
        Err(Errno::LOOP)
    );

    let linked = fuse_link_in { oldnodeid: file };
    let entry: fuse_entry_out = client
        .call(
            fuse_opcode::FUSE_LINK,
            made.nodeid,
            &[&named(&linked, &["b"])],
        )
        .unwrap();
    assert_eq!((entry.nodeid, entry.attr.nlink), (file, 2));

    let rename = fuse_rename_in {
        newdir: made.nodeid,
    };
    let arguments = named(&rename, &["a", "c"]);
    client
        .act(fuse_opcode::FUSE_RENAME, 1, &[&arguments])
        .unwrap();
    assert!(client.shared("dir/c").exists() && !client.shared("a").exists());
    let rename = |flags| fuse_rename2_in {
        newdir: made.nodeid,
        flags,
        padding: 0,
    };
    let act = |client: &mut Client, flags, names: [&str; 2]| {
        let arguments = named(&rename(flags), &names);
        client.act(fuse_opcode::FUSE_RENAME2, made.nodeid, &[&arguments])
    };
    fs::write(client.shared("dir/d"), "d").unwrap();
    assert_eq!(
        act(&mut client, libc::RENAME_NOREPLACE, ["d", "c"]),
        Err(Errno::EXIST)
    );
    act(&mut client, libc::RENAME_EXCHANGE, ["d", "c"]).unwrap();
    assert_eq!(fs::read(client.shared("dir/c")).unwrap(), b"d");
    assert_eq!(act(&mut client, 1 << 10, ["d", "c"]), Err(Errno::INVAL));

    assert_eq!(
        client.act(fuse_opcode::FUSE_RMDIR, 1, &[b"dir\0"]),
        Err(Errno::NOTEMPTY)
    );
    assert_eq!(
        client.act(fuse_opcode::FUSE_UNLINK, 1, &[b"dir\0"]),
        Err(Errno::ISDIR)
    );
    for name in [&b"b\0"[..], b"c\0", b"d\0", b"link\0"] {
        client
            .act(fuse_opcode::FUSE_UNLINK, made.nodeid, &[name])
            .unwrap();
    }
    client.act(fuse_opcode::FUSE_RMDIR, 1, &[b"dir\0"]).unwrap();
    // It is open, and so still a file.
    assert_eq!(client.write((file, fh), 0, b"text"), Ok(4));
    assert_eq!(client.attributes(file).unwrap().nlink, 0);
    assert_eq!(client.look_up(1, "dir").err(), Some(Errno::NOENT));
}

#[test]
fn special_files_are_made_and_never_opened() {
    let mut client = Client::new();
    let make = |client: &mut Client, mode: u32, rdev: u32, name: &str| {
        let asked = fuse_mknod_in {
            mode,
            rdev,
            umask: 0,
            padding: 0,
        };
        client.call::<fuse_entry_out>(fuse_opcode::FUSE_MKNOD, 1, &[&named(&asked, &[name])])
    };
    for (mode, name) in [(libc::S_IFIFO, "fifo"), (libc::S_IFSOCK, "socket")] {
        let entry = make(&mut client, mode | 0o644, 0, name).unwrap();
        assert_eq!(entry.attr.mode, mode | 0o644);
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
            assert_eq!(client.open(entry.nodeid, flags).err(), Some(Errno::NXIO));
        }
        assert_eq!(client.create(1, name, libc::O_RDWR, 0), Err(Errno::NXIO));
    }
    let file = make(&mut client, libc::S_IFREG | 0o600, 0, "file").unwrap();
    assert!(client.open(file.nodeid, libc::O_RDWR).is_ok());
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        let null = make(&mut client, kind | 0o666, 0x103, "device");
        assert_eq!(null.err(), Some(Errno::PERM));
    }
    assert_eq!(
        make(&mut client, libc::S_IFDIR | 0o755, 0, "dir").err(),
        Some(Errno::INVAL)
    );
    assert!(!client.shared("device").exists());
}

#[test]
fn attributes_are_the_hosts_and_can_be_set() {
    let mut client = Client::new();
    let (node, fh) = client.create(1, "file", libc::O_RDWR, 0o600).unwrap();
    let path = client.shared("file");
    let set = |client: &mut Client, valid: u32, change: &dyn Fn(&mut fuse_setattr_in)| {
        let mut asked = fuse_setattr_in::new_zeroed();
        asked.valid = valid;
        change(&mut asked);
        client.call::<fuse_attr_out>(fuse_opcode::FUSE_SETATTR, node, &[asked.as_bytes()])
    };
    set(&mut client, FATTR_MODE, &|asked| asked.mode = 0o100_741).unwrap();
    set(&mut client, FATTR_SIZE, &|asked| asked.size = 5000).unwrap();
    let times = set(&mut client, FATTR_ATIME | FATTR_MTIME, &|asked| {
        (asked.atime, asked.atimensec) = (1000, 7);
        (asked.mtime, asked.mtimensec) = (-5_i64 as u64, 999_999_999);
    });
    let reply = times.unwrap().attr;
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.mode(), 0o100_741);
    assert_eq!((metadata.atime(), metadata.atime_nsec()), (1000, 7));
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-5, 999_999_999));
    let shown = (
        reply.ino,
        reply.size,
        reply.mode,
        reply.mtime as i64,
        reply.blocks,
    );
    let hosts = (metadata.ino(), 5000, metadata.mode(), -5, metadata.blocks());
    assert_eq!(shown, hosts);
    // By handle, of a file that is gone.
    fs::remove_file(&path).unwrap();
    set(&mut client, FATTR_SIZE | FATTR_FH, &|asked| {
        (asked.size, asked.fh) = (7, fh)
    })
    .unwrap();
    let mut asked = fuse_getattr_in::new_zeroed();
    (asked.getattr_flags, asked.fh) = (FUSE_GETATTR_FH, fh);
    let reply: fuse_attr_out = client
        .call(fuse_opcode::FUSE_GETATTR, node, &[asked.as_bytes()])
        .unwrap();
    assert_eq!((reply.attr.size, reply.attr.nlink), (7, 0));

    let asked = fuse_statx_in::new_zeroed();
    let reply: fuse_statx_out = client
        .call(fuse_opcode::FUSE_STATX, 1, &[asked.as_bytes()])
        .unwrap();
    let host = rustix::fs::statx(
        rustix::fs::CWD,
        client.shared("").as_path(),
        rustix::fs::AtFlags::empty(),
        rustix::fs::StatxFlags::BTIME,
    );
    assert_eq!(reply.stat.btime.tv_sec, host.unwrap().stx_btime.tv_sec);
    assert_ne!(reply.stat.btime.tv_sec, 0);
    let reply: fuse_statfs_out = client.call(fuse_opcode::FUSE_STATFS, 1, &[]).unwrap();
    assert!(reply.st.blocks > 0 && reply.st.namelen == 255);
}

#[test]
fn directories_are_listed_in_pieces() {
    let mut client = Client::new();
    let mut expected: Vec<String> = (0..300)
        .map(|number| format!("name-{number:0>60}"))
        .collect();
    for name in &expected {
        fs::write(client.shared(name), "").unwrap();
    }
    expected.extend([".".to_owned(), "..".to_owned()]);
    expected.sort();
    for plus in [false, true] {
        for size in [300, 1000, 4096, 0x1_0000] {
            let mut entries = client.list(1, size, plus).unwrap();
            entries.sort();
            let names: Vec<_> = entries.iter().map(|(name, ..)| name.clone()).collect();
            assert_eq!(names, expected, "{size} {plus}");
            for (name, inode, node) in &entries[2..] {
                let metadata = fs::metadata(client.shared(name)).unwrap();
                assert_eq!(metadata.ino(), *inode);
                if plus {
                    assert_eq!(client.look_up(1, name).unwrap().nodeid, *node);
                }
            }
            if plus {
                assert_eq!((entries[0].2, entries[1].2), (0, 0));
            }
        }
    }
    assert_eq!(client.list(1, 20, false), Err(Errno::INVAL));
}

#[test]
fn holes_copies_and_allocations_are_the_hosts() {
    let mut client = Client::new();
    let from = client.create(1, "from", libc::O_RDWR, 0o600).unwrap();
    let to = client.create(1, "to", libc::O_RDWR, 0o600).unwrap();
    client.write(from, 1 << 20, &pattern(4096)).unwrap();
    let seek = |client: &mut Client, offset, whence: i32| {
        let asked = fuse_lseek_in {
            fh: from.1,
            offset,
            whence: whence as u32,
            padding: 0,
        };
        let reply =
            client.call::<fuse_lseek_out>(fuse_opcode::FUSE_LSEEK, from.0, &[asked.as_bytes()]);
        reply.map(|reply| reply.offset)
    };
    assert_eq!(seek(&mut client, 0, libc::SEEK_DATA), Ok(1 << 20));
    assert_eq!(seek(&mut client, 0, libc::SEEK_HOLE), Ok(0));
    assert_eq!(
        seek(&mut client, 1 << 30, libc::SEEK_DATA),
        Err(Errno::NXIO)
    );
    assert_eq!(seek(&mut client, 0, libc::SEEK_END), Err(Errno::INVAL));
    let copy = fuse_copy_file_range_in {
        fh_in: from.1,
        off_in: 1 << 20,
        nodeid_out: to.0,
        fh_out: to.1,
        off_out: 3,
        len: 10_000,
        flags: 0,
    };
    let reply: fuse_write_out = client
        .call(
            fuse_opcode::FUSE_COPY_FILE_RANGE,
            from.0,
            &[copy.as_bytes()],
        )
        .unwrap();
    assert_eq!(reply.size, 4096);
    assert_eq!(fs::read(client.shared("to")).unwrap()[3..], pattern(4096));
    let allocate = fuse_fallocate_in {
        fh: to.1,
        offset: 0,
        length: 1 << 20,
        mode: 0,
        padding: 0,
    };
    client
        .act(fuse_opcode::FUSE_FALLOCATE, to.0, &[allocate.as_bytes()])
        .unwrap();
    assert_eq!(fs::metadata(client.shared("to")).unwrap().len(), 1 << 20);
    client.act(fuse_opcode::FUSE_SYNCFS, 1, &[&[0; 8]]).unwrap();
}

#[test]
fn extended_attributes_are_kept() {
    let mut client = Client::new();
    let (node, _) = client.create(1, "file", libc::O_RDWR, 0o600).unwrap();
    let set = |value: &[u8], flags: u32| {
        let asked = fuse_setxattr_in {
            size: value.len() as u32,
            flags,
            setxattr_flags: 0,
            padding: 0,
        };
        [named(&asked, &["user.name"]), value.to_vec()].concat()
    };
    let opcode = fuse_opcode::FUSE_SETXATTR;
    client.act(opcode, node, &[&set(b"value", 0)]).unwrap();
    assert_eq!(
        client.act(opcode, node, &[&set(b"x", 1)]),
        Err(Errno::EXIST)
    );
    let get = |size| named(&fuse_getxattr_in { size, padding: 0 }, &["user.name"]);
    let opcode = fuse_opcode::FUSE_GETXATTR;
    assert_eq!(client.raw(opcode, node, &[&get(100)]).unwrap(), b"value");
    assert_eq!(client.raw(opcode, node, &[&get(2)]), Err(Errno::RANGE));
    assert_eq!(client.call::<u32>(opcode, node, &[&get(0)]), Ok(5));
    let list = fuse_getxattr_in {
        size: 100,
        padding: 0,
    };
    let listed = client
        .raw(fuse_opcode::FUSE_LISTXATTR, node, &[list.as_bytes()])
        .unwrap();
    assert!(listed.windows(10).any(|window| window == b"user.name\0"));
    client
        .act(fuse_opcode::FUSE_REMOVEXATTR, node, &[b"user.name\0"])
        .unwrap();
    assert_eq!(client.raw(opcode, node, &[&get(100)]), Err(Errno::NODATA));
}

#[test]
fn a_file_without_a_name_can_get_one() {
    let mut client = Client::new();
    let asked = fuse_create_in {
        flags: libc::O_RDWR as u32,
        mode: 0o640,
        umask: 0,
        open_flags: 0,
    };
    let bytes = client
        .raw(fuse_opcode::FUSE_TMPFILE, 1, &[asked.as_bytes()])
        .unwrap();
    let (entry, rest) = fuse_entry_out::read_from_prefix(&bytes).unwrap();
    let (opened, _) = fuse_open_out::read_from_prefix(rest).unwrap();
    client.write((entry.nodeid, opened.fh), 0, b"text").unwrap();
    assert_eq!(fs::read_dir(client.shared("")).unwrap().count(), 0);
    let link = fuse_link_in {
        oldnodeid: entry.nodeid,
    };
    client
        .call::<fuse_entry_out>(fuse_opcode::FUSE_LINK, 1, &[&named(&link, &["named"])])
        .unwrap();
    assert_eq!(fs::read(client.shared("named")).unwrap(), b"text");
}

#[test]
fn what_a_request_makes_belongs_to_its_user() {
    let mut client = Client::new();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    client.user = (1000, 100);
    client.create(1, "file", libc::O_RDWR, 0o4755).unwrap();
    let metadata = fs::metadata(client.shared("file")).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode()),
        (1000, 100, 0o104_755)
    );
    fs::set_permissions(client.shared(""), PermissionsExt::from_mode(0o2777)).unwrap();
    std::os::unix::fs::chown(client.shared(""), None, Some(7)).unwrap();
    let mkdir = fuse_mkdir_in {
        mode: 0o755,
        umask: 0,
    };
    client
        .call::<fuse_entry_out>(fuse_opcode::FUSE_MKDIR, 1, &[&named(&mkdir, &["dir"])])
        .unwrap();
    let metadata = fs::metadata(client.shared("dir")).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode()),
        (1000, 7, 0o042_755)
    );
}

#[test]
fn a_read_only_share_changes_nothing() {
    let mut client = Client::with(false, Cache::Auto, LIMITS, EngineKind::Auto);
    fs::write(client.shared("file"), "text").unwrap();
    let before = fs::metadata(client.shared("file")).unwrap();
    let file = client.look_up(1, "file").unwrap().nodeid;
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC] {
        assert_eq!(client.open(file, flags).err(), Some(Errno::ROFS));
    }
    let opened = client.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(file, opened.fh, 0, 10).unwrap(), b"text");
    assert_eq!(client.write((file, opened.fh), 0, b"x"), Err(Errno::ROFS));
    assert_eq!(
        client.create(1, "new", libc::O_RDWR, 0o600),
        Err(Errno::ROFS)
    );
    let mkdir = fuse_mkdir_in {
        mode: 0o755,
        umask: 0,
    };
    let mut setattr = fuse_setattr_in::new_zeroed();
    setattr.valid = FATTR_MODE;
    let xattr = [named(&fuse_setxattr_in::new_zeroed(), &["user.x"])].concat();
    let rename = named(&fuse_rename_in { newdir: 1 }, &["file", "other"]);
    let link = named(&fuse_link_in { oldnodeid: file }, &["link"]);
    let mknod = named(&fuse_mknod_in::new_zeroed(), &["node"]);
    let tmpfile = fuse_create_in {
        flags: 2,
        mode: 0o600,
        umask: 0,
        open_flags: 0,
    };
    let mut allocate = fuse_fallocate_in::new_zeroed();
    (allocate.fh, allocate.length) = (opened.fh, 10);
    for (opcode, node, arguments) in [
        (fuse_opcode::FUSE_MKDIR, 1, &named(&mkdir, &["dir"])[..]),
        (fuse_opcode::FUSE_MKNOD, 1, &mknod),
        (fuse_opcode::FUSE_SYMLINK, 1, b"link\0target\0"),
        (fuse_opcode::FUSE_UNLINK, 1, b"file\0"),
        (fuse_opcode::FUSE_RMDIR, 1, b"file\0"),
        (fuse_opcode::FUSE_RENAME, 1, &rename),
        (fuse_opcode::FUSE_LINK, 1, &link),
        (fuse_opcode::FUSE_TMPFILE, 1, tmpfile.as_bytes()),
        (fuse_opcode::FUSE_SETATTR, file, setattr.as_bytes()),
        (fuse_opcode::FUSE_SETXATTR, file, &xattr),
        (fuse_opcode::FUSE_REMOVEXATTR, file, b"user.x\0"),
        (fuse_opcode::FUSE_FALLOCATE, file, allocate.as_bytes()),
    ] {
        assert_eq!(
            client.raw(opcode, node, &[arguments]),
            Err(Errno::ROFS),
            "{opcode:?}"
        );
    }
    let after = fs::metadata(client.shared("file")).unwrap();
    assert_eq!(
        (before.ctime(), before.ctime_nsec()),
        (after.ctime(), after.ctime_nsec())
    );
    assert_eq!(fs::read_dir(client.shared("")).unwrap().count(), 1);
}

#[test]
fn how_long_things_are_valid_follows_from_the_cache() {
    for (cache, seconds, flags) in [
        (Cache::Auto, 1, 0),
        (Cache::None, 0, FOPEN_DIRECT_IO),
        (Cache::Always, 86_400, FOPEN_KEEP_CACHE),
    ] {
        let mut client = Client::with(true, cache, LIMITS, EngineKind::Auto);
        fs::write(client.shared("file"), "").unwrap();
        let entry = client.look_up(1, "file").unwrap();
        assert_eq!((entry.entry_valid, entry.attr_valid), (seconds, seconds));
        assert_eq!(client.open(entry.nodeid, 0).unwrap().open_flags, flags);
        let none = client.raw(fuse_opcode::FUSE_LOOKUP, 1, &[b"none\0"]);
        match cache {
            Cache::None => assert_eq!(none, Err(Errno::NOENT)),
            _ => {
                let (entry, _) = fuse_entry_out::read_from_prefix(&none.unwrap()).unwrap();
                assert_eq!((entry.nodeid, entry.entry_valid), (0, seconds));
            }
        }
    }
}

#[test]
fn a_single_file_can_be_shared() {
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("file");
    fs::write(&path, "text").unwrap();
    let share = Share::open(&path, true, Cache::Auto).unwrap();
    let mut client = Client::new();
    client.driver = Driver::started(device(share, LIMITS, EngineKind::Auto), 0);
    client.init().unwrap();
    assert_eq!(
        client.attributes(1).unwrap().mode & libc::S_IFMT,
        libc::S_IFREG
    );
    let opened = client.open(1, libc::O_RDWR).unwrap();
    assert_eq!(client.read(1, opened.fh, 0, 10).unwrap(), b"text");
    client.write((1, opened.fh), 4, b"more").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"textmore");
    assert_eq!(client.look_up(1, "x").err(), Some(Errno::NOTDIR));
    assert_eq!(client.list(1, 4096, false), Err(Errno::NOTDIR));
}
