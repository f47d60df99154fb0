//! What no client should do: nothing outside of what is shared is reached, what the device holds stays
//! bounded, and it goes on.

use std::os::unix::fs::symlink;

use super::*;
use crate::testing::{Random, hostile_chains};

#[test]
fn chains_that_make_no_sense_stop_the_device_until_a_reset() {
    for (name, attack) in hostile_chains::<Fs>() {
        for queue in 0..3 {
            let mut client = Client::new();
            client.driver.start(0);
            attack(&mut client.driver, queue);
            client.driver.await_failure();
            client.driver.start(0);
            assert!(client.init().is_ok(), "{name}");
        }
    }
}

#[test]
fn requests_without_header_or_room_stop_the_device() {
    let header = |opcode: u32| {
        let mut header = fuse_in_header::new_zeroed();
        (header.len, header.opcode, header.nodeid) = (40, opcode, 1);
        header
    };
    let statfs = header(fuse_opcode::FUSE_STATFS as u32);
    let chains: [&[Buffer]; 4] = [
        &[
            Buffer::Readable(ARGUMENTS, 39),
            Buffer::Writable(REPLY, 100),
        ],
        &[Buffer::Writable(REPLY, 100)],
        &[Buffer::Readable(ARGUMENTS, 40)],
        &[Buffer::Readable(ARGUMENTS, 40), Buffer::Writable(REPLY, 15)],
    ];
    for chain in chains {
        let mut client = Client::new();
        client.driver.write(ARGUMENTS, statfs.as_bytes());
        client.driver.send(1, chain);
        client.driver.await_failure();
    }
}

#[test]
fn requests_that_lie_about_themselves_are_refused() {
    let mut client = Client::new();
    let mut send = |header: fuse_in_header, arguments: &[u8]| {
        let bytes = [header.as_bytes(), arguments].concat();
        client.driver.write(ARGUMENTS, &bytes);
        let len = bytes.len() as u32;
        client.driver.send(
            1,
            &[
                Buffer::Readable(ARGUMENTS, len),
                Buffer::Writable(REPLY, 4096),
            ],
        );
        let (_, len) = client.driver.await_used(1);
        client.reply(header.unique, len)
    };
    let mut header = fuse_in_header::new_zeroed();
    (header.unique, header.nodeid) = (99, 1);
    for len in [0, 39, 40, 42, u32::MAX] {
        (header.len, header.opcode) = (len, fuse_opcode::FUSE_LOOKUP as u32);
        assert_eq!(send(header, b"x"), Err(Errno::INVAL), "{len}");
    }
    for opcode in [0, 7, 19, 53, 1000, u32::MAX] {
        (header.len, header.opcode) = (40, opcode);
        assert_eq!(send(header, b""), Err(Errno::NOSYS), "{opcode}");
    }
    // Every request with arguments that are cut short, or too long.
    for opcode in (0..53).filter(|opcode| ![2, 26, 36, 38, 42].contains(opcode)) {
        for len in [0, 1, 7, 39] {
            (header.len, header.opcode) = (40 + len, opcode);
            let arguments = vec![0xff; len as usize];
            let result = send(header, &arguments);
            // These take whatever follows, and 39 bytes are enough for many.
            let may = len == 39 || [17, 27, 50].contains(&opcode);
            assert!(result.is_err() || may, "{opcode} {len} {result:?}");
        }
        let long = vec![b'x'; 200_000];
        header.len = 40 + long.len() as u32;
        assert!(send(header, &long).is_err(), "{opcode}");
    }
}

#[test]
fn names_lead_to_one_entry_only() {
    let mut client = Client::new();
    fs::write(client.dir.as_path().join("secret"), "secret").unwrap();
    for name in ["..", ".", "", "../secret", "a/b", "/etc/passwd", "x/", "/"] {
        assert_eq!(client.look_up(1, name).err(), Some(Errno::INVAL), "{name}");
        assert_eq!(
            client.create(1, name, libc::O_RDWR, 0o600),
            Err(Errno::INVAL)
        );
        let zero = [name.as_bytes(), b"\0"].concat();
        for opcode in [fuse_opcode::FUSE_UNLINK, fuse_opcode::FUSE_RMDIR] {
            assert_eq!(client.act(opcode, 1, &[&zero]), Err(Errno::INVAL));
        }
        for names in [[name, "x"], ["x", name]] {
            let rename = named(&fuse_rename_in { newdir: 1 }, &names);
            assert_eq!(
                client.act(fuse_opcode::FUSE_RENAME, 1, &[&rename]),
                Err(Errno::INVAL)
            );
        }
        let mkdir = named(&fuse_mkdir_in::new_zeroed(), &[name]);
        assert_eq!(
            client.raw(fuse_opcode::FUSE_MKDIR, 1, &[&mkdir]),
            Err(Errno::INVAL)
        );
        let target = [&zero[..], b"target\0"].concat();
        assert_eq!(
            client.raw(fuse_opcode::FUSE_SYMLINK, 1, &[&target]),
            Err(Errno::INVAL)
        );
    }
    let name = "x".repeat(256);
    assert_eq!(client.look_up(1, &name).err(), Some(Errno::NAMETOOLONG));
    // Without an end.
    assert_eq!(
        client.raw(fuse_opcode::FUSE_LOOKUP, 1, &[b"abc"]),
        Err(Errno::INVAL)
    );
    assert_eq!(fs::read_dir(client.shared("")).unwrap().count(), 0);
    assert_eq!(
        fs::read(client.dir.as_path().join("secret")).unwrap(),
        b"secret"
    );
}

#[test]
fn links_are_never_followed() {
    let mut client = Client::new();
    let outside = client.dir.as_path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, client.shared("dir")).unwrap();
    symlink(outside.join("secret"), client.shared("file")).unwrap();
    symlink("/proc/self/fd/0", client.shared("magic")).unwrap();
    for name in ["dir", "file", "magic"] {
        let entry = client.look_up(1, name).unwrap();
        assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        let node = entry.nodeid;
        for flags in [libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR | libc::O_TRUNC] {
            assert_eq!(client.open(node, flags).err(), Some(Errno::LOOP));
            assert_eq!(client.create(1, name, flags, 0o600), Err(Errno::LOOP));
        }
        assert_eq!(client.look_up(node, "secret").err(), Some(Errno::NOTDIR));
        assert_eq!(client.list(node, 4096, true), Err(Errno::NOTDIR));
        assert_eq!(
            client.create(node, "new", libc::O_RDWR, 0o600),
            Err(Errno::NOTDIR)
        );
        let mut truncate = fuse_setattr_in::new_zeroed();
        truncate.valid = FATTR_SIZE;
        let opcode = fuse_opcode::FUSE_SETATTR;
        assert_eq!(
            client.raw(opcode, node, &[truncate.as_bytes()]),
            Err(Errno::INVAL)
        );
        truncate.valid = FATTR_MODE;
        assert_eq!(
            client.raw(opcode, node, &[truncate.as_bytes()]),
            Err(Errno::OPNOTSUPP)
        );
    }
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn links_that_the_host_plants_meanwhile_are_not_followed_either() {
    // So few descriptors that nodes must be opened again.
    let limits = DescriptorLimits {
        nodes: 2,
        handles: 100,
    };
    let mut client = Client::with(true, Cache::Auto, limits, EngineKind::Auto);
    let outside = client.dir.as_path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("deep/file"), "secret").unwrap();
    fs::create_dir_all(client.shared("dir/deep")).unwrap();
    fs::write(client.shared("dir/deep/file"), "text").unwrap();
    for number in 0..10 {
        fs::write(client.shared(&format!("other{number}")), "").unwrap();
    }
    let dir = client.look_up(1, "dir").unwrap().nodeid;
    let deep = client.look_up(dir, "deep").unwrap().nodeid;
    let file = client.look_up(deep, "file").unwrap().nodeid;
    for number in 0..10 {
        client.look_up(1, &format!("other{number}")).unwrap();
    }
    fs::rename(client.shared("dir"), client.shared("moved")).unwrap();
    symlink(&outside, client.shared("dir")).unwrap();
    for node in [dir, deep, file] {
        match client.open(node, libc::O_RDWR) {
            // It was open still, or could be found: then it is what it was.
            Ok(opened) => assert_eq!(client.read(node, opened.fh, 0, 10).unwrap(), b"text"),
            Err(errno) => assert!(matches!(errno, Errno::STALE | Errno::ISDIR | Errno::LOOP)),
        }
    }
    assert_eq!(fs::read(outside.join("deep/file")).unwrap(), b"secret");
}

#[test]
fn numbers_that_were_not_given_are_refused() {
    let mut client = Client::new();
    let (node, fh) = client.create(1, "file", libc::O_RDWR, 0o600).unwrap();
    for bad in [0, 2 + node, 1 << 32, u64::MAX] {
        assert_eq!(client.attributes(bad).err(), Some(Errno::STALE));
        assert_eq!(client.look_up(bad, "file").err(), Some(Errno::STALE));
        assert_eq!(client.open(bad, 0).err(), Some(Errno::STALE));
        assert_eq!(
            client.read(node, fh.wrapping_add(bad.max(1)), 0, 1),
            Err(Errno::BADF)
        );
        assert_eq!(
            client.release(node, fh.wrapping_add(bad.max(1))),
            Err(Errno::BADF)
        );
        client.note(fuse_opcode::FUSE_FORGET, bad, &[&u64::MAX.to_le_bytes()]);
    }
    // A directory's handle is no file's, and another file's is not this one's.
    let asked = fuse_open_in::new_zeroed();
    let opened: fuse_open_out = client
        .call(fuse_opcode::FUSE_OPENDIR, 1, &[asked.as_bytes()])
        .unwrap();
    assert_eq!(client.read(1, opened.fh, 0, 1), Err(Errno::BADF));
    let mut read = fuse_read_in::new_zeroed();
    (read.fh, read.size) = (fh, 4096);
    let opcode = fuse_opcode::FUSE_READDIR;
    assert_eq!(client.raw(opcode, 1, &[read.as_bytes()]), Err(Errno::BADF));
    (read.fh, read.offset) = (opened.fh, u64::MAX);
    assert_eq!(client.raw(opcode, 1, &[read.as_bytes()]), Err(Errno::INVAL));
    // Forgotten, and forgotten too often.
    client.release(node, fh).unwrap();
    client.note(fuse_opcode::FUSE_FORGET, node, &[&u64::MAX.to_le_bytes()]);
    client.note(fuse_opcode::FUSE_FORGET, 1, &[&u64::MAX.to_le_bytes()]);
    assert_eq!(client.attributes(node).err(), Some(Errno::STALE));
    assert!(client.attributes(1).is_ok());
    let batch = [&u32::MAX.to_le_bytes()[..], &[0; 4], &node.to_le_bytes()].concat();
    client.note(fuse_opcode::FUSE_BATCH_FORGET, 0, &[&batch]);
    assert!(client.look_up(1, "file").is_ok());
}

#[test]
fn floods_hold_a_bounded_number_of_descriptors() {
    let limits = DescriptorLimits {
        nodes: 20,
        handles: 10,
    };
    let mut client = Client::with(true, Cache::Auto, limits, EngineKind::Auto);
    for number in 0..200 {
        fs::write(client.shared(&format!("file{number}")), "").unwrap();
    }
    let nodes: Vec<_> = (0..200)
        .map(|number| client.look_up(1, &format!("file{number}")).unwrap().nodeid)
        .collect();
    let in_share = client.dir.as_path().join("shared");
    assert!(
        descriptors_in(&in_share) <= 25,
        "{}",
        descriptors_in(&in_share)
    );
    let mut opened = Vec::new();
    for node in &nodes {
        match client.open(*node, libc::O_RDONLY) {
            Ok(reply) => opened.push((*node, reply.fh)),
            Err(errno) => assert_eq!(errno, Errno::NFILE),
        }
    }
    assert_eq!(opened.len(), 10);
    assert_eq!(
        client.create(1, "new", libc::O_RDWR, 0o600),
        Err(Errno::NFILE)
    );
    assert!(!client.shared("new").exists());
    assert!(
        descriptors_in(&in_share) <= 45,
        "{}",
        descriptors_in(&in_share)
    );
    for (node, fh) in opened {
        client.release(node, fh).unwrap();
    }
    assert!(client.create(1, "new", libc::O_RDWR, 0o600).is_ok());
    // All that was looked up is there, whether it is open or not.
    for node in nodes {
        assert!(client.attributes(node).is_ok());
    }
}

#[test]
fn giant_transfers_are_cut_or_refused() {
    let mut client = Client::new();
    let (node, fh) = client.create(1, "file", libc::O_RDWR, 0o600).unwrap();
    fs::write(client.shared("file"), pattern(3 << 20)).unwrap();
    let mut read = fuse_read_in::new_zeroed();
    (read.fh, read.size) = (fh, u32::MAX);
    let header = client.header(fuse_opcode::FUSE_READ, node, 40);
    client
        .driver
        .write(ARGUMENTS, &[header.as_bytes(), read.as_bytes()].concat());
    let chain = [
        Buffer::Readable(ARGUMENTS, 80),
        Buffer::Writable(REPLY, 16),
        Buffer::Writable(DATA, 4 << 20),
    ];
    client.driver.send(1, &chain);
    assert_eq!(client.driver.await_used(1).1, 16 + (1 << 20));
    let mut write = fuse_write_in::new_zeroed();
    write.fh = fh;
    for (size, data) in [(10, 9), (9, 10), (u32::MAX, 10), (0, 1)] {
        write.size = size;
        let data = vec![0; data];
        let arguments = [write.as_bytes(), &data];
        let result = client.raw(fuse_opcode::FUSE_WRITE, node, &arguments);
        assert_eq!(result, Err(Errno::INVAL), "{size}");
    }
    assert_eq!(client.write((node, fh), u64::MAX, b"x"), Err(Errno::INVAL));
    assert_eq!(
        client.write((node, fh), i64::MAX as u64, b"x"),
        Err(Errno::INVAL)
    );
    assert_eq!(client.read(node, fh, u64::MAX, 1), Err(Errno::INVAL));
    assert_eq!(fs::metadata(client.shared("file")).unwrap().len(), 3 << 20);
}

#[test]
fn file_systems_of_the_hosts_kernel_are_empty() {
    // The root holds /proc and /sys, and nothing here changes it.
    let share = Share::open(Path::new("/"), false, Cache::Auto).unwrap();
    let mut client = Client::new();
    client.driver = Driver::started(device(share, LIMITS, EngineKind::Auto), 0);
    client.init().unwrap();
    for name in ["proc", "sys"] {
        let entry = client.look_up(1, name).unwrap();
        assert_eq!(entry.attr.flags, FUSE_ATTR_SUBMOUNT, "{name}");
        for inside in ["self", "1", "kernel", "version"] {
            assert_eq!(
                client.look_up(entry.nodeid, inside).err(),
                Some(Errno::NOENT)
            );
        }
        for plus in [false, true] {
            let names: Vec<_> = client.list(entry.nodeid, 4096, plus).unwrap();
            let names: Vec<_> = names.iter().map(|(name, ..)| &name[..]).collect();
            assert_eq!(names, [".", ".."]);
        }
        let listed = fuse_getxattr_in {
            size: 100,
            padding: 0,
        };
        let opcode = fuse_opcode::FUSE_LISTXATTR;
        let result = client.raw(opcode, entry.nodeid, &[listed.as_bytes()]);
        assert_eq!(result, Err(Errno::OPNOTSUPP));
    }
    // Found by reading the directory, too.
    let entries = client.list(1, 0x1_0000, true).unwrap();
    let (_, _, proc) = entries
        .into_iter()
        .find(|(name, ..)| name == "proc")
        .unwrap();
    assert_eq!(client.look_up(proc, "self").err(), Some(Errno::NOENT));
}

#[test]
fn random_descriptors_never_bring_the_device_down() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut client = Client::new();
    for _ in 0..60 {
        client.driver.start(0);
        for queue in 0..3 {
            client.driver.scramble(queue, &mut random);
        }
    }
    client.driver.start(0);
    assert!(client.init().is_ok());
    assert!(client.attributes(1).is_ok());
    const { assert!(DATA + (4 << 20) < MEMORY_SIZE as u64) };
}

#[test]
fn random_requests_stay_inside() {
    let mut random = Random(88_172_645_463_325_252);
    let mut client = Client::new();
    let outside = client.dir.as_path().join("outside");
    fs::write(&outside, "outside").unwrap();
    fs::create_dir(client.shared("dir")).unwrap();
    symlink(&outside, client.shared("link")).unwrap();
    symlink("..", client.shared("dir/up")).unwrap();
    for _ in 0..3000 {
        let opcode = match random.below(8) {
            0 => random.below(60) as u32,
            _ => [1, 3, 4, 8, 9, 10, 12, 13, 14, 16, 27, 35, 44, 45, 51][random.below(15) as usize],
        };
        // Those have no reply, or end the session.
        if [2, 26, 36, 38, 42].contains(&opcode) {
            continue;
        }
        let mut arguments = Vec::new();
        for _ in 0..random.below(8) {
            match random.below(3) {
                0 => arguments.extend_from_slice(&random.below(6).to_le_bytes()),
                1 => arguments.extend_from_slice(&random.below(1 << 40).to_le_bytes()),
                _ => {
                    let names = ["dir", "link", "up", "..", "new", "a/b", ""];
                    let name = names[random.below(7) as usize];
                    arguments.extend_from_slice(name.as_bytes());
                    arguments.push(0);
                }
            }
        }
        let mut header = fuse_in_header::new_zeroed();
        (header.len, header.opcode) = (40 + arguments.len() as u32, opcode);
        (header.unique, header.nodeid) = (7, 1 + random.below(6));
        let bytes = [header.as_bytes(), &arguments].concat();
        client.driver.write(ARGUMENTS, &bytes);
        let len = bytes.len() as u32;
        client.driver.send(
            1,
            &[
                Buffer::Readable(ARGUMENTS, len),
                Buffer::Writable(REPLY, 8192),
            ],
        );
        client.driver.await_used(1);
    }
    assert_eq!(fs::read(&outside).unwrap(), b"outside");
    assert_eq!(fs::read_dir(client.dir.as_path()).unwrap().count(), 2);
}
