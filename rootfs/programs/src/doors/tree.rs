//! The files that operations find, and what has become of them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::Path;

use super::observe::shown;

/// The time of everything that nothing has changed, in seconds.
const THEN: i64 = 1_000_000_000;
/// What `f` holds.
pub(super) const CONTENTS: &[u8] = b"0123456789abcdef";

/// What is in a directory, by path: what can be seen of each.
pub(super) type Tree = BTreeMap<String, String>;

/// Makes the tree in the working directory, which is empty.
pub(super) fn make() -> io::Result<()> {
    fs::write("f", CONTENTS)?;
    fs::write("n", "root's")?;
    fs::set_permissions("n", std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    fs::set_permissions("f", std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    fs::DirBuilder::new().mode(0o755).create("d")?;
    fs::write("d/g", "deep")?;
    fs::set_permissions("d/g", std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::DirBuilder::new().mode(0o755).create("e")?;
    symlink("f", "l")?;
    symlink("d", "ld")?;
    symlink("nothing", "dangling")?;
    symlink("loop", "loop")?;
    for name in [
        "d/g", "f", "n", "d", "e", "l", "ld", "dangling", "loop", ".",
    ] {
        let time = libc::timespec {
            tv_sec: THEN,
            tv_nsec: 0,
        };
        let times = [time, time];
        let name = CString::new(name)?;
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        // SAFETY: path and times are valid for the call.
        let result =
            unsafe { libc::utimensat(libc::AT_FDCWD, name.as_ptr(), times.as_ptr(), flags) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What is in the working directory now.
pub(super) fn look() -> Tree {
    let mut tree = Tree::new();
    add(Path::new("."), &mut tree);
    tree
}

fn add(path: &Path, tree: &mut Tree) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        tree.insert(path.display().to_string(), "unreadable".to_owned());
        return;
    };
    let kind = metadata.file_type();
    let time = match metadata.mtime() {
        THEN => "",
        time if now().abs_diff(time) < 1000 => " changed",
        _ => " dated otherwise",
    };
    let owner = match (metadata.uid(), metadata.gid()) {
        (0, 0) => String::new(),
        (user, group) => format!(" {user}:{group}"),
    };
    let what = if kind.is_symlink() {
        let target = fs::read_link(path).unwrap_or_default();
        format!("-> {}", shown(target.as_os_str().as_bytes()))
    } else if kind.is_file() {
        format!("{} {}", metadata.len(), contents(path, metadata.len()))
    } else {
        String::new()
    };
    // The links of the root depend on where it is.
    let links = if path == Path::new(".") {
        0
    } else {
        metadata.nlink()
    };
    let text = format!("{:o} {links}{owner}{time} {what}", metadata.mode());
    tree.insert(path.display().to_string(), text.trim_end().to_owned());
    if kind.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)
            .map(|entries| entries.filter_map(Result::ok).collect())
            .unwrap_or_default();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            add(&entry.path(), tree);
        }
    }
}

fn contents(path: &Path, length: u64) -> String {
    // What is sparse and huge is known by its length.
    if length > 1 << 20 {
        return String::new();
    }
    fs::read(path).map_or_else(|_| "unreadable".to_owned(), |bytes| shown(&bytes))
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() as i64)
}

/// What differs, an item for each path.
pub(super) fn changes(before: &Tree, after: &Tree) -> Vec<String> {
    let mut changes = Vec::new();
    for (path, text) in after {
        match before.get(path) {
            None => changes.push(format!("+{path} {text}")),
            Some(old) if old != text => changes.push(format!("{path} {text}")),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    changes.extend(gone.map(|path| format!("-{path}")));
    changes
}
