//! Making, linking, renaming and removing; path resolution.

use super::*;
use crate::file::{MountOption, MountSource};

/// A directory `d` with a file `f` and a directory `e`.
fn tree() -> Sandbox {
    let fs = Sandbox::new();
    fs.mkdir("d").unwrap();
    fs.write("d/f", b"x");
    fs.mkdir("d/e").unwrap();
    fs
}

#[test]
fn paths_are_resolved_component_by_component() {
    let fs = tree();
    fs.symlink("d", "link").unwrap();
    fs.symlink("/d/f", "absolute").unwrap();
    for path in [
        "d/f", "/d/f", "//d///f", "./d/./f", "d/e/../f", "link/f", "absolute", "../d/f",
    ] {
        assert_eq!(fs.read(path), Ok(b"x".to_vec()), "{path}");
    }
    for (path, error) in [
        ("", Errno::ENOENT),
        ("no", Errno::ENOENT),
        ("no/f", Errno::ENOENT),
        ("d/f/", Errno::ENOTDIR),
        ("d/f/x", Errno::ENOTDIR),
        ("d/f/..", Errno::ENOTDIR),
        ("d/f/.", Errno::ENOTDIR),
    ] {
        assert_eq!(fs.stat(path), Err(error), "{path}");
    }
}

#[test]
fn symbolic_links_are_followed_forty_times() {
    let fs = Sandbox::new();
    fs.symlink("loop", "loop").unwrap();
    assert_eq!(fs.stat("loop"), Err(Errno::ELOOP));
    assert!(fs.lstat("loop").is_ok());
    assert_eq!(fs.lstat("loop/"), Err(Errno::ELOOP));
    fs.write("0", b"end");
    for index in 1..=41 {
        let (target, name) = (index - 1, index);
        fs.symlink(&alloc::format!("{target}"), &alloc::format!("{name}"))
            .unwrap();
    }
    assert_eq!(fs.read("40"), Ok(b"end".to_vec()));
    assert_eq!(fs.read("41"), Err(Errno::ELOOP));
}

#[test]
fn names_and_paths_have_limits() {
    let fs = Sandbox::new();
    assert_eq!(fs.mkdir(&"a".repeat(255)), Ok(()));
    assert_eq!(fs.mkdir(&"a".repeat(256)), Err(Errno::ENAMETOOLONG));
    assert_eq!(fs.stat(&"a".repeat(256)), Err(Errno::ENAMETOOLONG));
    assert!(fs.stat(&alloc::format!("{}.", "./".repeat(2047))).is_ok());
    assert_eq!(fs.stat(&"./".repeat(2048)), Err(Errno::ENAMETOOLONG));
    assert_eq!(fs.symlink(&"x".repeat(4095), "long"), Ok(()));
    assert_eq!(
        fs.symlink(&"x".repeat(4096), "longer"),
        Err(Errno::ENAMETOOLONG)
    );
    assert_eq!(fs.symlink("", "empty"), Err(Errno::ENOENT));
}

#[test]
fn directories_are_made() {
    let fs = tree();
    for (path, result) in [
        ("n/", Ok(())),
        ("n", Err(Errno::EEXIST)),
        (".", Err(Errno::EEXIST)),
        ("..", Err(Errno::EEXIST)),
        ("/", Err(Errno::EEXIST)),
        ("d/f/x", Err(Errno::ENOTDIR)),
        ("no/x", Err(Errno::ENOENT)),
    ] {
        assert_eq!(fs.mkdir(path), result, "{path}");
    }
    fs.symlink("nowhere", "dangling").unwrap();
    assert_eq!(fs.mkdir("dangling"), Err(Errno::EEXIST));
    assert_eq!(fs.mkdir("dangling/"), Err(Errno::EEXIST));
    assert_eq!(fs.symlink("x", "new/"), Err(Errno::ENOENT));
    assert_eq!(fs.symlink("x", "d"), Err(Errno::EEXIST));
}

#[test]
fn names_are_removed() {
    let fs = tree();
    for (path, error) in [
        ("d", Errno::EISDIR),
        ("d/", Errno::EISDIR),
        ("d/f/", Errno::ENOTDIR),
        ("no/", Errno::ENOENT),
        (".", Errno::EISDIR),
        ("..", Errno::EISDIR),
        ("/", Errno::EISDIR),
    ] {
        assert_eq!(fs.unlink(path), Err(error), "unlink {path}");
    }
    fs.symlink("d", "link").unwrap();
    for (path, error) in [
        ("d", Errno::ENOTEMPTY),
        ("d/.", Errno::EINVAL),
        ("d/..", Errno::ENOTEMPTY),
        (".", Errno::EINVAL),
        ("/", Errno::EBUSY),
        ("d/f", Errno::ENOTDIR),
        ("d/f/", Errno::ENOTDIR),
        ("link", Errno::ENOTDIR),
        ("link/", Errno::ENOTDIR),
    ] {
        assert_eq!(fs.rmdir(path), Err(error), "rmdir {path}");
    }
    assert_eq!(fs.unlink("link/"), Err(Errno::ENOTDIR));
    assert_eq!(fs.rmdir("d/e/"), Ok(()));
    assert_eq!(fs.unlink("d/f"), Ok(()));
    assert_eq!(fs.rmdir("d"), Ok(()));
    assert_eq!(fs.unlink("link"), Ok(()));
    assert!(fs.list("/").is_empty());
}

#[test]
fn hard_links_share_the_file() {
    let fs = tree();
    assert_eq!(fs.link("d", "d2"), Err(Errno::EPERM));
    assert_eq!(fs.link("d/f", "d/e"), Err(Errno::EEXIST));
    assert_eq!(fs.link("d/f", "new/"), Err(Errno::ENOENT));
    assert_eq!(fs.link("d/f/", "new"), Err(Errno::ENOTDIR));
    fs.link("d/f", "g").unwrap();
    assert_eq!(fs.stat("g").unwrap().links, 2);
    fs.unlink("d/f").unwrap();
    assert_eq!(fs.read("g"), Ok(b"x".to_vec()));
    assert_eq!(fs.stat("g").unwrap().links, 1);
    fs.symlink("nowhere", "dangling").unwrap();
    fs.link("dangling", "too").unwrap();
    assert_eq!(fs.lstat("too").unwrap().links, 2);
}

#[test]
fn a_rename_replaces_what_it_may() {
    let fs = tree();
    for (from, to, error) in [
        ("no", "x", Errno::ENOENT),
        ("d/.", "x", Errno::EBUSY),
        ("d/..", "x", Errno::EBUSY),
        ("d", "d/e/x", Errno::EINVAL),
        ("d", "d/x", Errno::EINVAL),
        ("d/e", "d", Errno::ENOTEMPTY),
        ("d/f", "d", Errno::ENOTEMPTY),
        ("d/f", "d/e", Errno::EISDIR),
        ("d/e", "d/f", Errno::ENOTDIR),
        ("d/f/", "y", Errno::ENOTDIR),
        ("d/f", "y/", Errno::ENOTDIR),
    ] {
        assert_eq!(fs.rename(from, to), Err(error), "{from} to {to}");
    }
    assert_eq!(fs.rename("d/e", "y/"), Ok(()));
    assert_eq!(fs.stat("d").unwrap().links, 2);
    assert_eq!(fs.stat("/").unwrap().links, 4);
    fs.write("g", b"new");
    assert_eq!(fs.rename("g", "d/f"), Ok(()));
    assert_eq!(fs.read("d/f"), Ok(b"new".to_vec()));
    assert_eq!(fs.rename("y", "d2"), Ok(()));
    fs.mkdir("empty").unwrap();
    assert_eq!(fs.rename("d", "empty"), Ok(()));
    assert_eq!(fs.list("/"), [b"d2".to_vec(), b"empty".to_vec()]);
    assert_eq!(fs.stat("/").unwrap().links, 4);
    // Two names of one file: nothing happens.
    fs.link("empty/f", "empty/g").unwrap();
    assert_eq!(fs.rename("empty/f", "empty/g"), Ok(()));
    assert_eq!(fs.list("empty"), [b"f".to_vec(), b"g".to_vec()]);
}

#[test]
fn a_rename_can_refuse_to_replace_or_exchange() {
    let fs = tree();
    fs.write("g", b"g");
    let (keep, exchange) = (raw::RENAME_NOREPLACE, raw::RENAME_EXCHANGE);
    assert_eq!(fs.rename_with("g", "d/f", keep), Err(Errno::EEXIST));
    assert_eq!(fs.rename_with("g", "h", keep), Ok(()));
    assert_eq!(fs.rename_with("h", "no", exchange), Err(Errno::ENOENT));
    assert_eq!(fs.rename_with("d", "d/e", exchange), Err(Errno::EINVAL));
    assert_eq!(fs.rename_with("d/e", "d", exchange), Err(Errno::EINVAL));
    assert_eq!(fs.rename_with("h", "d/e", exchange), Ok(()));
    assert_eq!(fs.read("d/e"), Ok(b"g".to_vec()));
    assert_eq!(fs.stat("d").unwrap().links, 2);
    assert_eq!(fs.stat("h").unwrap().links, 2);
    fs.chdir("h").unwrap();
    assert_eq!(fs.cwd(), Ok(b"/h".to_vec()));
    assert_eq!(
        fs.rename_with("x", "y", keep | exchange),
        Err(Errno::EINVAL)
    );
    assert_eq!(fs.rename_with("x", "y", 8), Err(Errno::EINVAL));
}

#[test]
fn the_working_directory_moves_with_its_directory() {
    let fs = tree();
    fs.chdir("d/e").unwrap();
    assert_eq!(fs.cwd(), Ok(b"/d/e".to_vec()));
    fs.rename("/d", "/moved").unwrap();
    assert_eq!(fs.cwd(), Ok(b"/moved/e".to_vec()));
    assert_eq!(fs.read("../f"), Ok(b"x".to_vec()));
    fs.rmdir("/moved/e").unwrap();
    assert_eq!(fs.cwd(), Err(Errno::ENOENT));
    assert_eq!(fs.mkdir("x"), Err(Errno::ENOENT));
    assert_eq!(fs.stat(".").unwrap().links, 0);
    assert_eq!(fs.read("../f"), Ok(b"x".to_vec()));
    assert_eq!(fs.chdir("/moved/f"), Err(Errno::ENOTDIR));
}

#[test]
fn a_mount_covers_its_directory() {
    let fs = Sandbox::new();
    fs.mkdir("dev").unwrap();
    fs.write("dev/hidden", b"");
    block_on(DeviceDirectory::mount(fs.context.namespace.clone())).unwrap();
    assert_eq!(fs.stat("dev/hidden"), Err(Errno::ENOENT));
    let null = fs.stat("/dev/null").unwrap();
    assert_eq!(null.mode, raw::S_IFCHR | 0o666);
    assert_ne!(null.device, fs.stat("/").unwrap().device);
    fs.chdir("/dev/shm").unwrap();
    assert_eq!(fs.cwd(), Ok(b"/dev/shm".to_vec()));
    assert_eq!(fs.stat("../..").unwrap(), fs.stat("/").unwrap());
    assert_eq!(fs.rmdir("/dev"), Err(Errno::EBUSY));
    assert_eq!(fs.rename("/dev", "/x"), Err(Errno::EBUSY));
    fs.write("/f", b"");
    assert_eq!(fs.rename("/f", "/dev/f"), Err(Errno::EXDEV));
    assert_eq!(fs.link("/f", "/dev/f"), Err(Errno::EXDEV));
}

#[test]
fn a_listing_is_stable_while_names_change() {
    let fs = Sandbox::new();
    for index in 0..100 {
        fs.write(&alloc::format!("f{index}"), b"");
    }
    let directory = fs.open_file("/", raw::O_RDONLY).unwrap();
    let mut seen = Vec::new();
    let mut position = 0;
    loop {
        let before = seen.len();
        let mut sink = |entry: &DirEntry<'_>| {
            if seen.len() - before == 7 {
                return false;
            }
            seen.push(entry.name.to_vec());
            true
        };
        position = block_on(directory.ops.read_dir(position, &mut sink)).unwrap();
        if seen.len() == before {
            break;
        }
        // Those that were listed go, and are no more counted.
        for name in &seen[before..] {
            if name.starts_with(b"f") {
                fs.unlink(core::str::from_utf8(name).unwrap()).unwrap();
            }
        }
    }
    assert_eq!(seen.len(), 102);
    assert!(fs.list("/").is_empty());
}

#[test]
fn file_systems_have_a_limit() {
    let source = MountSource {
        name: b"",
        device: None,
        options: &MountOption::parse(b"nr_blocks=3,nr_inodes=4"),
        is_read_only: false,
        owner: (0, 0),
    };
    let (_, root) = block_on((tmpfs::TYPE.make)(source)).unwrap();
    let root: Arc<dyn core::any::Any + Send + Sync> = root;
    let root: Arc<tmpfs::TmpfsInode> = root.downcast().unwrap();
    let make = |name: &[u8], node| root.create_node(name, node, 0o644);
    let file = make(b"a", NewNode::Regular).unwrap();
    make(b"b", NewNode::Directory).unwrap();
    make(b"c", NewNode::Regular).unwrap();
    assert_eq!(make(b"d", NewNode::Regular).err(), Some(Errno::ENOSPC));
    root.remove_node(b"b").unwrap();
    assert!(make(b"d", NewNode::Regular).is_ok());
    let file = OpenFile::new(file, OpenFlags::READ_WRITE);
    assert_eq!(write(&file, Some(0), &[1; 20_000]), Ok(3 * 4096));
    assert_eq!(write(&file, None, &[1]), Ok(1));
    assert_eq!(write(&file, Some(1 << 20), &[1]), Err(Errno::ENOSPC));
    assert_eq!(block_on(file.allocate(0, 0, 1 << 20)), Err(Errno::ENOSPC));
    block_on(file.truncate(0)).unwrap();
    assert_eq!(write(&file, Some(1 << 20), &[1]), Ok(1));
}

#[test]
fn directories_are_as_deep_as_there_is_room_for() {
    const DEPTH: usize = if cfg!(miri) { 100 } else { 20_000 };
    let fs = Sandbox::new();
    for _ in 0..DEPTH {
        fs.mkdir("d").unwrap();
        fs.chdir("d").unwrap();
    }
    assert_eq!(fs.cwd(), Err(Errno::ENAMETOOLONG));
    // The last one keeps all those above it, which have no names any more.
    let last = fs.open_file(".", raw::O_DIRECTORY).unwrap();
    for _ in 0..DEPTH {
        fs.chdir("..").unwrap();
        fs.rmdir("d").unwrap();
    }
    let files = || {
        block_on(fs.context.root().mount.super_block.fs.info())
            .unwrap()
            .free_files
    };
    let before = files();
    drop(last);
    assert_eq!(files(), before + DEPTH as u64);
}

#[test]
fn names_and_pages_leave_a_part_of_the_heap() {
    use crate::heap::exhausted;
    let fs = tree();
    exhausted(|| {
        assert_eq!(fs.mkdir("new"), Err(Errno::ENOMEM));
        assert_eq!(fs.symlink("x", "new"), Err(Errno::ENOMEM));
        assert_eq!(fs.link("d/f", "new"), Err(Errno::ENOMEM));
        assert_eq!(fs.unlink("d/f"), Ok(()));
    });
    let file = fs.open_file("file", raw::O_CREAT | raw::O_RDWR).unwrap();
    exhausted(|| {
        assert_eq!(write(&file, Some(1 << 40), b"x"), Err(Errno::ENOMEM));
    });
    assert_eq!(write(&file, Some(1 << 40), b"x"), Ok(1));
}
