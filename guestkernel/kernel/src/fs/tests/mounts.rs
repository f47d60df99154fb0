//! Mounts: what covers what, and what mounts do not allow.

use super::*;
use crate::file::{Executed, Location, Mount, MountFlags, Place, is_same};

/// Mounts an empty file system at `path`.
fn mount(fs: &Sandbox, path: &str, flags: MountFlags) -> Arc<Mount> {
    let root = tmpfs::in_memory(0o755);
    let mount = tmpfs::mount(&tmpfs::TYPE, &root, b"test", flags);
    let place = place(fs, path);
    fs.context.namespace.mount(&mount, place).unwrap();
    mount
}

fn place(fs: &Sandbox, path: &str) -> Place {
    block_on(fs.view().lookup_place(HERE, path.as_bytes(), true)).unwrap()
}

fn location(fs: &Sandbox, path: &str) -> Location {
    place(fs, path).location
}

#[test]
fn a_mount_covers_a_directory_until_it_is_gone() {
    let fs = Sandbox::new();
    fs.mkdir("d").unwrap();
    fs.write("d/below", b"x");
    fs.write("f", b"");
    let mount = mount(&fs, "d", MountFlags::empty());
    assert_eq!(fs.read("d/below"), Err(Errno::ENOENT));
    fs.write("d/above", b"y");
    fs.chdir("d").unwrap();
    assert_eq!(fs.cwd().unwrap(), b"/d");
    assert_eq!(fs.read("../d/above").unwrap(), b"y");
    fs.chdir("..").unwrap();
    assert_eq!(fs.cwd().unwrap(), b"/");
    assert_ne!(fs.stat("d").unwrap().device, fs.stat("/").unwrap().device);
    assert_eq!(fs.rmdir("d"), Err(Errno::EBUSY));
    assert_eq!(fs.rename("d", "e"), Err(Errno::EBUSY));
    assert_eq!(fs.rename("d/above", "above"), Err(Errno::EXDEV));
    assert_eq!(fs.link("f", "d/f"), Err(Errno::EXDEV));
    let gone = fs.context.namespace.unmount(&mount, false).unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(fs.read("d/below").unwrap(), b"x");
    fs.unlink("d/below").unwrap();
    assert_eq!(fs.rmdir("d"), Ok(()));
}

#[test]
fn mounts_are_stacked_and_nested() {
    let fs = Sandbox::new();
    fs.mkdir("d").unwrap();
    let first = mount(&fs, "d", MountFlags::empty());
    fs.mkdir("d/e").unwrap();
    let inner = mount(&fs, "d/e", MountFlags::empty());
    let namespace = &fs.context.namespace;
    assert_eq!(namespace.unmount(&first, false).err(), Some(Errno::EBUSY));
    fs.chdir("d/e").unwrap();
    assert_eq!(fs.cwd().unwrap(), b"/d/e");
    let top = mount(&fs, "/d", MountFlags::empty());
    assert!(fs.list("/d").is_empty());
    // Who is below stays there, and its path says what it was.
    assert_eq!(fs.cwd().unwrap(), b"/d/e");
    assert!(location(&fs, "..").is_same(&top.root_location()));
    namespace.unmount(&top, false).unwrap();
    assert!(location(&fs, "..").is_same(&first.root_location()));
    let gone = namespace.unmount(&first, true).unwrap();
    assert!(gone.iter().any(|mount| Arc::ptr_eq(mount, &inner)));
    let cwd = fs.context.working_directory();
    let (path, is_reachable) = fs.context.path_of(cwd.into()).unwrap();
    assert_eq!((&path[..], is_reachable), (&b"/"[..], false));
    assert_eq!(namespace.mounts().len(), 1);
    assert_eq!(namespace.unmount(&first, true).err(), Some(Errno::EINVAL));
}

#[test]
fn a_part_of_a_file_system_is_mounted_elsewhere() {
    let fs = Sandbox::new();
    fs.mkdir("d").unwrap();
    fs.mkdir("d/e").unwrap();
    fs.write("d/e/f", b"x");
    fs.mkdir("b").unwrap();
    fs.write("g", b"y");
    let namespace = &fs.context.namespace;
    let bind = |from: &str, to: &str, flags| {
        let from = location(&fs, from);
        let block = from.mount.super_block.clone();
        let mount = Mount::new(block, from.inode, b"bind", flags);
        namespace.mount(&mount, place(&fs, to)).map(|()| mount)
    };
    let directory = bind("d/e", "b", MountFlags::READ_ONLY).unwrap();
    assert_eq!(fs.read("b/f").unwrap(), b"x");
    fs.chdir("b").unwrap();
    assert_eq!(fs.cwd().unwrap(), b"/b");
    assert!(location(&fs, "..").is_same(&fs.context.root()));
    fs.chdir("/").unwrap();
    assert_eq!(fs.open("b/f", raw::O_WRONLY), Err(Errno::EROFS));
    assert_eq!(fs.open("b/n", raw::O_CREAT), Err(Errno::EROFS));
    assert_eq!(fs.unlink("b/f"), Err(Errno::EROFS));
    assert_eq!(fs.mkdir("b/n"), Err(Errno::EROFS));
    assert_eq!(fs.mkdir("b/f"), Err(Errno::EEXIST));
    assert_eq!(fs.rename("b/f", "b/n"), Err(Errno::EROFS));
    fs.write("d/e/f", b"z");
    assert_eq!(fs.read("b/f").unwrap(), b"z");
    assert_eq!(
        bind("g", "b", MountFlags::empty()).err(),
        Some(Errno::ENOTDIR)
    );
    let file = bind("g", "d/e/f", MountFlags::empty()).unwrap();
    assert_eq!(fs.read("d/e/f").unwrap(), b"y");
    assert_eq!(fs.unlink("d/e/f"), Err(Errno::EBUSY));
    // It covers a name as one mount shows it, not the file itself.
    assert_eq!(fs.read("b/f").unwrap(), b"z");
    let covered = file.place().unwrap().location;
    assert!(is_same(&*covered.inode, &*location(&fs, "b/f").inode));
    for mount in [&file, &directory] {
        namespace.unmount(mount, false).unwrap();
    }
    assert_eq!(fs.read("d/e/f").unwrap(), b"z");
}

#[test]
fn a_mount_is_moved_but_not_into_itself() {
    let fs = Sandbox::new();
    fs.mkdir("a").unwrap();
    fs.mkdir("b").unwrap();
    let moved = mount(&fs, "a", MountFlags::empty());
    fs.mkdir("a/c").unwrap();
    let inner = mount(&fs, "a/c", MountFlags::empty());
    fs.write("a/c/f", b"x");
    let namespace = &fs.context.namespace;
    let into_itself = namespace.move_mount(&moved, place(&fs, "a/c"));
    assert_eq!(into_itself, Err(Errno::ELOOP));
    namespace.move_mount(&moved, place(&fs, "b")).unwrap();
    assert_eq!(fs.read("b/c/f").unwrap(), b"x");
    assert!(fs.list("a").is_empty());
    assert!(namespace.has(&inner));
}

#[test]
fn what_a_mount_denies_is_denied() {
    let fs = Sandbox::new();
    fs.mkdir("d").unwrap();
    let flags = MountFlags::NO_DEV | MountFlags::NO_SYMLINKS;
    mount(&fs, "d", flags);
    let device = raw::S_IFCHR | 0o600;
    block_on(fs.view().make_node(HERE, b"d/null", device, 0x103)).unwrap();
    assert_eq!(fs.open("d/null", raw::O_RDWR), Err(Errno::EACCES));
    fs.symlink("null", "d/link").unwrap();
    assert_eq!(fs.stat("d/link").err(), Some(Errno::ELOOP));
    assert!(fs.lstat("d/link").is_ok());
}

#[test]
fn a_file_system_that_nobody_sees_is_gone() {
    let fs = Sandbox::new();
    fs.mkdir("d").unwrap();
    let mount = mount(&fs, "d", MountFlags::empty());
    fs.mkdir("d/e").unwrap();
    fs.mkdir("d/e/e").unwrap();
    fs.write("d/e/e/f", &[1; 4096]);
    let open = fs.open_file("d/e/e/f", raw::O_RDWR).unwrap();
    let inner = Arc::downgrade(&location(&fs, "d/e").inode);
    let namespace = &fs.context.namespace;
    assert_eq!(namespace.unmount(&mount, false).err(), Some(Errno::EBUSY));
    namespace.unmount(&mount, true).unwrap();
    drop(mount);
    // Directories refer to each other, and an open file keeps them.
    assert!(inner.upgrade().is_some());
    assert_eq!(read(&open, Some(0), 1).unwrap(), [1]);
    drop(open);
    assert!(inner.upgrade().is_none());
}

#[test]
fn a_program_that_runs_is_not_written() {
    let fs = Sandbox::new();
    fs.write("f", b"x");
    let running = Executed::new(location(&fs, "f").inode).unwrap();
    assert_eq!(fs.open("f", raw::O_WRONLY), Err(Errno::ETXTBSY));
    assert_eq!(fs.open("f", raw::O_TRUNC), Err(Errno::ETXTBSY));
    let cut = block_on(fs.view().truncate(b"f", 0));
    assert_eq!(cut, Err(Errno::ETXTBSY));
    assert_eq!(fs.read("f").unwrap(), b"x");
    drop(running);
    let open = fs.open_file("f", raw::O_RDWR).unwrap();
    assert_eq!(
        Executed::new(location(&fs, "f").inode).err(),
        Some(Errno::ETXTBSY)
    );
    drop(open);
    assert!(Executed::new(location(&fs, "f").inode).is_ok());
}
