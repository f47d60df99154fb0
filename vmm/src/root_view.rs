//! What is in a root file system, seen from the host: where a path leads to in it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Links that are followed on one path, as on Linux.
const MAX_LINKS: usize = 40;
/// Bytes of the header of an entry of a cpio archive (newc).
const HEADER: usize = 110;
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// What is at a place in the root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    Symlink(PathBuf),
    /// A file or what is opened like one.
    Other,
}

/// A root file system that is looked at before it is booted.
pub struct RootView(Source);

enum Source {
    Directory(PathBuf),
    /// By path, without a slash in front.
    Archive(HashMap<PathBuf, Entry>),
}

/// Where a path leads to: links in it are resolved in the root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path without links, starting at the root.
    pub path: PathBuf,
    /// Whether something is there.
    pub exists: bool,
}

impl RootView {
    /// The view of a directory of the host.
    pub fn directory(path: &Path) -> Self {
        Self(Source::Directory(path.to_owned()))
    }

    /// The view of the cpio archive (newc) at `path`.
    ///
    /// # Errors
    ///
    /// Those of opening and reading it.
    pub fn open_archive(path: &Path) -> io::Result<Self> {
        Self::archive(&crate::kernel_image::open(path)?)
    }

    /// The view of a cpio archive (newc). One that is damaged shows what comes before that.
    ///
    /// # Errors
    ///
    /// Those of reading it.
    pub fn archive(file: &File) -> io::Result<Self> {
        let bytes = read(file)?;
        let mut entries = HashMap::new();
        let mut rest = &bytes[..];
        while let Some((path, entry, after)) = next_entry(rest) {
            if let Some(entry) = entry {
                entries.insert(path, entry);
            }
            rest = after;
        }
        Ok(Self(Source::Archive(entries)))
    }

    fn entry(&self, path: &Path) -> Option<Entry> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        if inside.as_os_str().is_empty() {
            return Some(Entry::Directory);
        }
        match &self.0 {
            Source::Archive(entries) => entries.get(inside).cloned(),
            Source::Directory(root) => {
                // Every link on the way was resolved already.
                let path = root.join(inside);
                let kind = path.symlink_metadata().ok()?.file_type();
                Some(if kind.is_dir() {
                    Entry::Directory
                } else if kind.is_symlink() {
                    Entry::Symlink(fs::read_link(path).ok()?)
                } else {
                    Entry::Other
                })
            }
        }
    }

    /// Where `path`, which is absolute, leads to. A path with too many links, or through something that
    /// is no directory, is one where nothing is.
    pub fn resolve(&self, path: &Path) -> Place {
        let mut at = PathBuf::from("/");
        let mut todo: Vec<_> = names(path);
        todo.reverse();
        let mut links = 0;
        let mut exists = true;
        while let Some(name) = todo.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(&name);
            match self.entry(&at) {
                Some(Entry::Directory) => (),
                Some(Entry::Symlink(target)) if links < MAX_LINKS => {
                    links += 1;
                    at.pop();
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    let mut more = names(&target);
                    more.reverse();
                    todo.append(&mut more);
                }
                Some(Entry::Other) if todo.is_empty() => (),
                Some(Entry::Other | Entry::Symlink(_)) | None => exists = false,
            }
        }
        Place { path: at, exists }
    }
}

/// The names in a path, `..` too.
fn names(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut &*file, &mut bytes)?;
    Ok(bytes)
}

/// Takes an entry off the front: its path, what it is unless it ends the archive, and what follows.
fn next_entry(bytes: &[u8]) -> Option<(PathBuf, Option<Entry>, &[u8])> {
    // Between two archives there are zeros.
    let start = bytes.iter().position(|byte| *byte != 0)?;
    let bytes = &bytes[start..];
    let header = bytes.get(..HEADER)?;
    let field = |index: usize| {
        let digits = std::str::from_utf8(&header[6 + 8 * index..][..8]).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (mode, size, name_size) = (field(1)?, field(6)? as usize, field(11)? as usize);
    let name = bytes.get(HEADER..HEADER + name_size)?;
    let name = name.split(|byte| *byte == 0).next()?;
    let data = (HEADER + name_size).next_multiple_of(4);
    let contents = bytes.get(data..data + size)?;
    let after = bytes
        .get((data + size).next_multiple_of(4)..)
        .unwrap_or(&[]);
    let path: PathBuf = names(Path::new(OsStr::from_bytes(name))).iter().collect();
    let entry = match mode & TYPE {
        0 => None,
        DIRECTORY => Some(Entry::Directory),
        SYMLINK => {
            let target = std::ffi::OsString::from_vec(contents.to_vec());
            Some(Entry::Symlink(target.into()))
        }
        _ => Some(Entry::Other),
    };
    Some((path, entry, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootfs::Image;
    use std::io::{Seek, Write};
    use vmm_sys_util::tempdir::TempDir;
    use vmm_sys_util::tempfile::TempFile;

    fn check(view: &RootView) {
        let place = |path: &str| view.resolve(Path::new(path));
        let found = |path: &str| Place {
            path: path.into(),
            exists: true,
        };
        let missing = |path: &str| Place {
            path: path.into(),
            exists: false,
        };
        assert_eq!(place("/"), found("/"));
        assert_eq!(place("/usr/bin/tool"), found("/usr/bin/tool"));
        assert_eq!(place("/bin/tool"), found("/usr/bin/tool"));
        assert_eq!(place("/bin/../lib//tool"), missing("/usr/lib/tool"));
        assert_eq!(place("/up/usr"), found("/usr"));
        assert_eq!(place("/lib64/new/file"), missing("/usr/lib64/new/file"));
        assert_eq!(place("/usr/bin/tool/x"), missing("/usr/bin/tool/x"));
        assert!(!place("/loop/x").exists);
    }

    #[test]
    fn paths_are_resolved_in_an_archive_and_a_directory() {
        let links = [
            ("bin", "usr/bin"),
            ("lib64", "/usr/lib64"),
            ("up", "../../.."),
            ("loop", "loop"),
        ];
        let mut image = Image::default();
        image.file("usr/bin/tool", 0o755, b"x".to_vec()).unwrap();
        for (name, target) in links {
            image.symlink(name, target).unwrap();
        }
        let mut file = TempFile::new().unwrap().into_file();
        file.write_all(&image.archive().unwrap()).unwrap();
        file.rewind().unwrap();
        check(&RootView::archive(&file).unwrap());

        let dir = TempDir::new().unwrap();
        fs::create_dir_all(dir.as_path().join("usr/bin")).unwrap();
        fs::write(dir.as_path().join("usr/bin/tool"), "x").unwrap();
        for (name, target) in links {
            std::os::unix::fs::symlink(target, dir.as_path().join(name)).unwrap();
        }
        check(&RootView::directory(dir.as_path()));
    }

    #[test]
    fn a_damaged_archive_shows_what_can_be_read() {
        let mut image = Image::default();
        image.file("a", 0o644, vec![7; 10]).unwrap();
        image.file("b", 0o644, vec![7; 10]).unwrap();
        let bytes = image.archive().unwrap();
        for end in [0, 50, 5000, bytes.len()] {
            let mut file = TempFile::new().unwrap().into_file();
            file.write_all(&bytes[..end]).unwrap();
            file.rewind().unwrap();
            let view = RootView::archive(&file).unwrap();
            assert_eq!(view.resolve(Path::new("/b")).exists, end == bytes.len());
        }
    }
}
