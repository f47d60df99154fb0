//! `/proc/mounts`, `/proc/self/mountinfo` and `/proc/filesystems` (`proc_pid_mountinfo(5)`).

use crate::file::{Mount, MountFlags, Place, file_system_types};
use crate::fs::FsContext;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// How flags are shown, in this order.
const FLAGS: [(MountFlags, &str); 7] = [
    (MountFlags::NO_SUID, ",nosuid"),
    (MountFlags::NO_DEV, ",nodev"),
    (MountFlags::NO_EXEC, ",noexec"),
    (MountFlags::NO_ATIME, ",noatime"),
    (MountFlags::NO_DIR_ATIME, ",nodiratime"),
    (MountFlags::RELATIME, ",relatime"),
    (MountFlags::NO_SYMLINKS, ",nosymfollow"),
];

/// The types of file systems.
pub(super) fn types() -> String {
    let line = |name: &str, needs_device: bool| match needs_device {
        true => format!("\t{name}\n"),
        false => format!("nodev\t{name}\n"),
    };
    let types = file_system_types().into_iter();
    types
        .map(|kind| line(kind.name, kind.needs_device))
        .collect()
}

/// `bytes`, with those in `special` as octal numbers.
fn escaped(bytes: &[u8], special: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match special.contains(byte) {
            true => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            false => out.push(*byte),
        }
    }
    out
}

const IN_PATHS: &[u8] = b" \t\n\\";
const IN_SOURCES: &[u8] = b" \t\n\\#";

fn source(mount: &Mount) -> Vec<u8> {
    match mount.source.as_slice() {
        b"" => b"none".to_vec(),
        source => escaped(source, IN_SOURCES),
    }
}

/// Where a mount is, for one with that root directory; `None` if he does not see it.
fn point(context: &FsContext, mount: &Arc<Mount>) -> Option<Vec<u8>> {
    let place = Place::from(mount.root_location());
    let (path, is_reachable) = context.path_of(place).ok()?;
    is_reachable.then(|| escaped(&path, IN_PATHS))
}

fn flags(mount: &Mount) -> String {
    let known = FLAGS.iter();
    let set = known.filter(|(flag, _)| mount.flags().contains(*flag));
    set.map(|(_, name)| *name).collect()
}

fn access(is_read_only: bool) -> &'static str {
    match is_read_only {
        true => "ro",
        false => "rw",
    }
}

/// The mounts that a process sees, one a line.
pub(super) fn mounts(context: &FsContext) -> Vec<u8> {
    let mut text = Vec::new();
    for mount in context.namespace.mounts() {
        let Some(point) = point(context, &mount) else {
            continue;
        };
        let block = &mount.super_block;
        let options = format!(
            " {} {}{}{} 0 0\n",
            block.kind.name,
            access(mount.check_writable().is_err()),
            flags(&mount),
            block.fs.options(),
        );
        let parts = [&source(&mount)[..], b" ", &point, options.as_bytes()];
        parts.iter().for_each(|part| text.extend_from_slice(part));
    }
    text
}

/// The same in more detail.
pub(super) fn mount_info(context: &FsContext) -> Vec<u8> {
    let mut text = Vec::new();
    for mount in context.namespace.mounts() {
        let Some(point) = point(context, &mount) else {
            continue;
        };
        let block = &mount.super_block;
        let parent = mount
            .place()
            .map_or(mount.id, |place| place.location.mount.id);
        let device = block.fs.device();
        let numbers = format!("{} {parent} {}:{} ", mount.id, device.major, device.minor);
        let own = format!(
            " {}{} - {} ",
            access(mount.flags().contains(MountFlags::READ_ONLY)),
            flags(&mount),
            block.kind.name,
        );
        let shared = format!(" {}{}\n", access(block.is_read_only()), block.fs.options());
        let parts = [
            numbers.as_bytes(),
            &root_in_file_system(&mount),
            b" ",
            &point,
            own.as_bytes(),
            &source(&mount),
            shared.as_bytes(),
        ];
        parts.iter().for_each(|part| text.extend_from_slice(part));
    }
    text
}

/// The path, in its file system, of what a mount shows.
fn root_in_file_system(mount: &Mount) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = mount.root.clone();
    while let Some(parent) = at.parent() {
        match parent.name_of(&*at) {
            Ok(name) => names.push(name),
            Err(_) => break,
        }
        at = parent;
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend(escaped(name, IN_PATHS));
    }
    match path.is_empty() {
        true => b"/".to_vec(),
        false => path,
    }
}
