//! Disk images for one test each.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A disk image in a directory of its own.
pub struct Disk {
    dir: TempDir,
    path: PathBuf,
    made: (Vec<u8>, i64, i64),
}

impl Disk {
    /// An image that holds `contents`.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn holding(contents: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("disk.img");
        let write = File::create(&path).and_then(|mut file| file.write_all(contents));
        write.expect("a disk image");
        let mut disk = Self {
            dir,
            path,
            made: Default::default(),
        };
        disk.made = disk.state();
        disk
    }

    /// An image of `size` bytes that differ from place to place.
    pub fn patterned(size: usize) -> Self {
        Self::holding(&pattern(size))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the file is alone in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The value for `--disk`: the path, and `,ro` if the guest is not to write.
    pub fn option(&self, read_only: bool) -> String {
        let suffix = if read_only { ",ro" } else { "" };
        format!("{}{suffix}", self.path.display())
    }

    /// What it holds now.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn contents(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the disk image")
    }

    /// Checks that nobody has written to it, or left anything beside it.
    ///
    /// # Panics
    ///
    /// If the contents, the time of the last change or the directory differ from the beginning.
    pub fn assert_untouched(&self) {
        assert!(self.made == self.state(), "the disk was changed");
        let entries = fs::read_dir(self.dir()).expect("the directory").count();
        assert_eq!(entries, 1, "something was left beside the disk");
    }

    fn state(&self) -> (Vec<u8>, i64, i64) {
        let metadata = fs::metadata(&self.path).expect("the disk image");
        (self.contents(), metadata.mtime(), metadata.mtime_nsec())
    }
}

/// A disk image as a block device of the host.
pub struct LoopDevice {
    path: String,
    _disk: Disk,
}

impl LoopDevice {
    /// Attaches the image.
    ///
    /// # Panics
    ///
    /// If losetup(8) cannot: it takes root and a free loop device.
    pub fn new(disk: Disk) -> Self {
        let mut losetup = Command::new("losetup");
        let output = losetup.args(["--find", "--show"]).arg(disk.path()).output();
        let output = output.expect("losetup");
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success() && !path.is_empty(), "{output:?}");
        Self { path, _disk: disk }
    }

    /// The device.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // If it fails, the device stays; there is nobody to tell.
        let _ = Command::new("losetup")
            .args(["--detach", &self.path])
            .status();
    }
}

/// Bytes that tell every place from every other: no period divides a block.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
