//! The tree that becomes an archive: directories, files and symbolic links by path.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::cpio::{Archive, CpioError};

/// Why an image cannot be built; each names the path at fault.
#[derive(Debug, Error)]
pub enum ImageError {
    /// An input cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory on the host.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// An input is neither file, directory nor symbolic link.
    #[error("{} is neither a file, a directory nor a symbolic link", .0.display())]
    UnsupportedType(PathBuf),
    /// An entry's path is relative to nothing: empty, absolute, or with `.` or `..` in it.
    #[error("{} is no path inside an image", .0.display())]
    BadPath(PathBuf),
    /// Two inputs give the same path.
    #[error("/{} is given twice", .0.display())]
    Duplicate(PathBuf),
    /// A path goes through something that is not a directory.
    #[error("/{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// An entry does not fit into the archive.
    #[error("/{}: {source}", path.display())]
    Archive {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        source: CpioError,
    },
}

enum Node {
    Directory { mode: u32 },
    File { mode: u32, data: Vec<u8> },
    Symlink { target: Vec<u8> },
}

/// A file system tree. Paths are relative to its root; missing parents are made with mode 0755.
#[derive(Default)]
pub struct Image {
    // The order of the keys puts a directory before what it holds.
    nodes: BTreeMap<Vec<u8>, Node>,
}

impl Image {
    /// Adds a directory, or changes the mode of one that is there.
    ///
    /// # Errors
    ///
    /// [`ImageError`] for a bad path or one that is something else already.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), ImageError> {
        self.insert(Path::new(path), Node::Directory { mode })
    }

    /// Adds a file.
    ///
    /// # Errors
    ///
    /// [`ImageError`] for a bad path or one that is there already.
    pub fn file(&mut self, path: &str, mode: u32, data: Vec<u8>) -> Result<(), ImageError> {
        self.insert(Path::new(path), Node::File { mode, data })
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    ///
    /// [`ImageError`] for a bad path or one that is there already.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), ImageError> {
        let target = target.as_bytes().to_vec();
        self.insert(Path::new(path), Node::Symlink { target })
    }

    /// As [`file`](Self::file), with a path that need not be text.
    ///
    /// # Errors
    ///
    /// As for [`file`](Self::file).
    pub fn file_at(&mut self, path: &Path, mode: u32, data: Vec<u8>) -> Result<(), ImageError> {
        self.insert(path, Node::File { mode, data })
    }

    /// Adds everything in the host's directory `from`, with permissions, but owned by root. A directory
    /// that is there already is merged, anything else is replaced.
    ///
    /// # Errors
    ///
    /// [`ImageError`] for what cannot be read, has no place in an image, or is a directory on one side
    /// only.
    pub fn tree(&mut self, from: &Path) -> Result<(), ImageError> {
        self.subtree(from, Path::new(""))
    }

    /// The image as a cpio archive.
    ///
    /// # Errors
    ///
    /// [`ImageError::Archive`] for a path that is too long or an image that is too large.
    pub fn archive(&self) -> Result<Vec<u8>, ImageError> {
        let mut archive = Archive::new();
        for (path, node) in &self.nodes {
            match node {
                Node::Directory { mode } => archive.directory(path, *mode),
                Node::File { mode, data } => archive.file(path, *mode, data),
                Node::Symlink { target } => archive.symlink(path, target),
            }
            .map_err(|source| ImageError::Archive {
                path: path_buf(path),
                source,
            })?;
        }
        Ok(archive.finish())
    }

    fn subtree(&mut self, from: &Path, to: &Path) -> Result<(), ImageError> {
        let read = |source| ImageError::Read {
            path: from.to_owned(),
            source,
        };
        for entry in fs::read_dir(from).map_err(read)? {
            let entry = entry.map_err(read)?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let read = |source| ImageError::Read {
                path: from.clone(),
                source,
            };
            let metadata = entry.metadata().map_err(read)?;
            let mode = metadata.permissions().mode() & 0o7777;
            let kind = metadata.file_type();
            if kind.is_dir() {
                self.insert(&to, Node::Directory { mode })?;
                self.subtree(&from, &to)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&from).map_err(read)?;
                let target = target.into_os_string().into_vec();
                self.replace(&to, Node::Symlink { target })?;
            } else if kind.is_file() {
                let data = fs::read(&from).map_err(read)?;
                self.replace(&to, Node::File { mode, data })?;
            } else {
                return Err(ImageError::UnsupportedType(from));
            }
        }
        Ok(())
    }

    /// As [`insert`](Self::insert), in place of a file or link that is there.
    fn replace(&mut self, path: &Path, node: Node) -> Result<(), ImageError> {
        let bytes = path.as_os_str().as_bytes();
        if let Some(Node::File { .. } | Node::Symlink { .. }) = self.nodes.get(bytes) {
            self.nodes.remove(bytes);
        }
        self.insert(path, node)
    }

    fn insert(&mut self, path: &Path, node: Node) -> Result<(), ImageError> {
        let bytes = path.as_os_str().as_bytes();
        let mut names = bytes.split(|byte| *byte == b'/');
        if names.any(|name| name.is_empty() || name == b"." || name == b"..") || bytes.contains(&0)
        {
            return Err(ImageError::BadPath(path.to_owned()));
        }
        for end in (0..bytes.len()).filter(|at| bytes[*at] == b'/') {
            let parent = bytes[..end].to_vec();
            let node = self
                .nodes
                .entry(parent)
                .or_insert(Node::Directory { mode: 0o755 });
            if !matches!(node, Node::Directory { .. }) {
                return Err(ImageError::NotADirectory(path_buf(&bytes[..end])));
            }
        }
        match (self.nodes.get_mut(bytes), node) {
            (None, node) => {
                self.nodes.insert(bytes.to_vec(), node);
                Ok(())
            }
            (Some(Node::Directory { mode }), Node::Directory { mode: new }) => {
                *mode = new;
                Ok(())
            }
            (Some(_), _) => Err(ImageError::Duplicate(path.to_owned())),
        }
    }
}

fn path_buf(path: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: Result<(), ImageError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn the_order_of_additions_does_not_show() {
        let mut one = Image::default();
        one.file("b/x", 0o644, b"x".to_vec()).unwrap();
        one.symlink("a", "b").unwrap();
        let mut two = Image::default();
        two.symlink("a", "b").unwrap();
        two.directory("b", 0o755).unwrap();
        two.file("b/x", 0o644, b"x".to_vec()).unwrap();
        assert_eq!(one.archive().unwrap(), two.archive().unwrap());
    }

    #[test]
    fn bad_paths_and_conflicts_are_refused() {
        let mut image = Image::default();
        for path in ["", "/etc", "a/../b", "./a", "a/", "a//b"] {
            assert!(error(image.directory(path, 0o755)).contains("no path inside"));
        }
        image.file("etc/x", 0o644, vec![]).unwrap();
        assert_eq!(error(image.symlink("etc/x", "y")), "/etc/x is given twice");
        assert_eq!(
            error(image.directory("etc/x/y", 0o755)),
            "/etc/x is not a directory"
        );
    }

    #[test]
    fn a_tree_is_copied_with_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let file = dir.path().join("sub/file");
        fs::write(&file, b"text").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o4711)).unwrap();
        std::os::unix::fs::symlink("sub/file", dir.path().join("link")).unwrap();
        let mut copied = Image::default();
        copied.tree(dir.path()).unwrap();

        let mut wanted = Image::default();
        let mode = fs::metadata(dir.path().join("sub"))
            .unwrap()
            .permissions()
            .mode();
        wanted.directory("sub", mode & 0o7777).unwrap();
        wanted.file("sub/file", 0o4711, b"text".to_vec()).unwrap();
        wanted.symlink("link", "sub/file").unwrap();
        assert_eq!(copied.archive().unwrap(), wanted.archive().unwrap());
    }

    #[test]
    fn trees_are_merged_and_the_later_one_wins() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, name, text) in [
            (&one, "etc/group", "one"),
            (&one, "etc/only", "one"),
            (&two, "etc/group", "two"),
            (&two, "etc/more", "two"),
        ] {
            fs::create_dir_all(dir.path().join("etc")).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("group", one.path().join("etc/link")).unwrap();
        fs::write(two.path().join("etc/link"), "two").unwrap();
        let mut merged = Image::default();
        merged.file("etc/group", 0o600, b"layout".to_vec()).unwrap();
        merged.tree(one.path()).unwrap();
        merged.tree(two.path()).unwrap();
        let data = |path: &str| match merged.nodes.get(path.as_bytes()) {
            Some(Node::File { data, .. }) => data.clone(),
            _ => panic!("{path} is no file"),
        };
        assert_eq!(data("etc/group"), b"two");
        assert_eq!(data("etc/only"), b"one");
        assert_eq!(data("etc/more"), b"two");
        assert_eq!(data("etc/link"), b"two");
        // A directory does not become a file, nor the other way.
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("etc"), "").unwrap();
        assert_eq!(error(merged.tree(other.path())), "/etc is given twice");
        let other = tempfile::tempdir().unwrap();
        fs::create_dir_all(other.path().join("etc/group")).unwrap();
        assert_eq!(
            error(merged.tree(other.path())),
            "/etc/group is given twice"
        );
    }

    #[test]
    fn sockets_and_missing_directories_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let message = error(Image::default().tree(dir.path()));
        assert!(message.starts_with(socket.to_str().unwrap()), "{message}");
        let message = error(Image::default().tree(&dir.path().join("none")));
        assert!(message.contains("none: No such file"), "{message}");
    }
}
