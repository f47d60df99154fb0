//! What the VMM sees of the host's files: an empty directory that cannot be written; and what QEMU
//! sees, which has to load itself.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

/// Makes an empty directory the root of this process, which has a mount namespace of its own, and all
/// else unreachable.
///
/// # Errors
///
/// Those of fsopen(2), move_mount(2), pivot_root(2) and umount(2).
pub(super) fn enter_empty() -> io::Result<()> {
    let root = new_tmpfs(MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    enter(&root, || Ok(()))
}

/// A file system in memory that is mounted nowhere, with one empty directory.
fn new_tmpfs(attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0555")?;
    fsconfig_set_string(&context, "size", "64k")?;
    fsconfig_create(&context)?;
    let attributes =
        attributes | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Makes `root` the root directory, with what `fill` mounts in the working directory, and unmounts all
/// else.
fn enter(root: &OwnedFd, fill: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // What is mounted and unmounted here stays here.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    attach(root, "/")?;
    fchdir(root)?;
    fill()?;
    // The old root comes to lie over the new one, from where it is taken away.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    Ok(())
}

fn attach(tree: &OwnedFd, place: &str) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(tree, "", CWD, place, flags)?)
}

/// A mount of its own of the directory behind `file`, with all that is mounted below: one that stays
/// when the root directory goes.
///
/// # Errors
///
/// Those of open_tree(2).
pub(super) fn detach(file: impl AsFd) -> io::Result<OwnedFd> {
    Ok(open_tree(
        file,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )?)
}

/// Where a program of the distribution, and what it loads, may be.
const SYSTEM: [&str; 9] = [
    "usr",
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "etc/alternatives",
    "etc/ld.so.cache",
];
/// Devices that a program may expect.
const DEVICES: [&str; 3] = ["dev/null", "dev/zero", "dev/urandom"];

/// Leaves `program`, which is the absolute path of a file without links in it, and what the distribution's programs need, all of it for reading
/// only, and the processes of this process's namespace. This process must have a mount namespace of
/// its own.
///
/// # Errors
///
/// Those of fsopen(2), open_tree(2), mount_setattr(2), move_mount(2), pivot_root(2) and umount(2).
pub(super) fn enter_system(program: &Path) -> io::Result<()> {
    // One that is installed elsewhere has its files beside the directory that it is in, if that is called
    // as such are, else in it.
    let directory = program.parent();
    let place = match directory.is_some_and(|directory| directory.ends_with("bin")) {
        true => directory.and_then(Path::parent),
        false => directory,
    };
    let place = place.and_then(|place| place.strip_prefix("/").ok());
    let elsewhere = place.filter(|place| {
        !place.as_os_str().is_empty() && !SYSTEM.iter().any(|known| place.starts_with(known))
    });
    let root = new_tmpfs(MountAttrFlags::empty())?;
    enter(&root, || {
        let known = SYSTEM.iter().chain(&DEVICES).map(Path::new);
        for path in known.chain(elsewhere) {
            show(path)?;
        }
        mkdirat(CWD, "proc", Mode::from_raw_mode(0o555))?;
        attach(&processes()?, "proc")
    })
}

/// Has `path` of the root directory be there below the working directory, too, if it exists.
fn show(path: &Path) -> io::Result<()> {
    let original = Path::new("/").join(path);
    let Ok(metadata) = original.symlink_metadata() else {
        return Ok(());
    };
    for parent in path
        .ancestors()
        .skip(1)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        if !parent.as_os_str().is_empty() && !parent.exists() {
            mkdirat(CWD, parent, Mode::from_raw_mode(0o755))?;
        }
    }
    if metadata.is_symlink() {
        return Ok(symlinkat(&fs::read_link(&original)?, CWD, path)?);
    }
    match metadata.is_dir() {
        true => mkdirat(CWD, path, Mode::from_raw_mode(0o755))?,
        false => drop(openat(
            CWD,
            path,
            OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )?),
    }
    let tree = open_tree(
        CWD,
        &original,
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE,
    )?;
    let is_device = path.starts_with("dev");
    restrict(&tree, !is_device)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&tree, "", CWD, path, flags)?)
}

/// Lets nothing below `tree` be written, nor give rights; nor be a device, if that is not what it is for.
fn restrict(tree: &OwnedFd, refuses_devices: bool) -> io::Result<()> {
    let mut attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
    if refuses_devices {
        attributes |= libc::MOUNT_ATTR_NODEV;
    }
    let attributes = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, and the structure has the size that is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The processes of this process's namespace, or those that are in /proc already where no new file system
/// may show them.
fn processes() -> io::Result<OwnedFd> {
    let new = || {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    new().or_else(|_| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        Ok(open_tree(CWD, "/proc", flags)?)
    })
}
