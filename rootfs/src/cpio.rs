//! Writes cpio archives in the `newc` format (Linux's `early-userspace/buffer-format.rst`).
//!
//! The data of every file that is not empty starts at a multiple of [`PAGE`] in the archive, so
//! that a kernel can adopt whole pages of it without a copy. The format has no padding field; the
//! gap is made of extra NULs after the name, which `namesize` counts and every reader ignores.

use thiserror::Error;

/// File data is aligned to this many bytes, and so is the length of the archive.
pub const PAGE: usize = 4096;
/// The longest name Linux accepts, with its NULs (`PATH_MAX`).
const NAME_MAX: usize = 4096;
/// The longest path of an entry: a file's name field must hold it beside almost a page of NULs.
pub const PATH_MAX: usize = 1024;
/// The largest archive: it has to fit into guest memory beside what it unpacks to.
pub const ARCHIVE_MAX: usize = 1 << 30;

const HEADER: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
/// The root directory, which may be named any number of times, fills a gap too short for a name.
const ROOT: &[u8] = b".";

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Why an entry does not fit into the archive.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CpioError {
    /// The path is longer than [`PATH_MAX`].
    #[error("the path is longer than {PATH_MAX} bytes")]
    PathTooLong,
    /// The archive would be larger than [`ARCHIVE_MAX`].
    #[error("the image would be larger than {} MiB", ARCHIVE_MAX >> 20)]
    ArchiveTooLarge,
}

/// An archive in memory. Owner and group are root, times are 0, inode numbers count from 1.
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    limit: usize,
}

impl Archive {
    /// An archive that holds the root directory.
    pub fn new() -> Self {
        Self::with_limit(ARCHIVE_MAX)
    }

    fn with_limit(limit: usize) -> Self {
        let mut archive = Self {
            bytes: Vec::new(),
            entries: 0,
            limit,
        };
        archive.root();
        archive
    }

    /// Adds a directory; `mode` holds the permission bits.
    ///
    /// # Errors
    ///
    /// [`CpioError`]
    pub fn directory(&mut self, path: &[u8], mode: u32) -> Result<(), CpioError> {
        self.check(path, 0)?;
        self.entry(path, path.len() + 1, S_IFDIR | mode, 2, &[]);
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    ///
    /// [`CpioError`]
    pub fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<(), CpioError> {
        self.check(path, target.len())?;
        self.entry(path, path.len() + 1, S_IFLNK | 0o777, 1, target);
        Ok(())
    }

    /// Adds a regular file; `mode` holds the permission bits.
    ///
    /// # Errors
    ///
    /// [`CpioError`]
    pub fn file(&mut self, path: &[u8], mode: u32, data: &[u8]) -> Result<(), CpioError> {
        self.check(path, data.len())?;
        let mut name = path.len() + 1;
        if !data.is_empty() {
            while gap_after_header(self.bytes.len()) < name {
                self.root();
            }
            name = gap_after_header(self.bytes.len());
        }
        self.entry(path, name, S_IFREG | mode, 1, data);
        Ok(())
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.header(TRAILER, TRAILER.len() + 1, 0, 1, 0);
        self.pad(PAGE);
        self.bytes
    }

    fn check(&self, path: &[u8], data: usize) -> Result<(), CpioError> {
        if path.len() > PATH_MAX {
            return Err(CpioError::PathTooLong);
        }
        // Headers, names and gaps of this entry and of the trailer are less than four pages.
        let room = self.limit.saturating_sub(self.bytes.len() + 4 * PAGE);
        if data > room {
            return Err(CpioError::ArchiveTooLarge);
        }
        Ok(())
    }

    fn root(&mut self) {
        self.entry(ROOT, ROOT.len() + 1, S_IFDIR | 0o755, 2, &[]);
    }

    fn entry(&mut self, path: &[u8], name: usize, mode: u32, links: u32, data: &[u8]) {
        self.entries += 1;
        self.header(path, name, mode, links, data.len());
        self.bytes.extend_from_slice(data);
        self.pad(4);
    }

    /// Writes a header and a name field of `name` bytes.
    fn header(&mut self, path: &[u8], name: usize, mode: u32, links: u32, size: usize) {
        debug_assert!(path.len() < name && name <= NAME_MAX);
        self.bytes.extend_from_slice(b"070701");
        let (ino, uid, gid, mtime, device, checksum) = (self.entries, 0, 0, 0, 0, 0);
        let (size, name_size) = (size as u32, name as u32);
        for field in [
            ino, mode, uid, gid, links, mtime, size, device, device, device, device, name_size,
            checksum,
        ] {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path);
        self.bytes
            .resize(self.bytes.len() + name - path.len(), b'\0');
        self.pad(4);
    }

    fn pad(&mut self, alignment: usize) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(alignment), b'\0');
    }
}

impl Default for Archive {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes from the end of a header written at `offset` to the next page.
fn gap_after_header(offset: usize) -> usize {
    PAGE - (offset + HEADER) % PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Entry {
        path: Vec<u8>,
        ino: u32,
        mode: u32,
        offset: usize,
        data: Vec<u8>,
    }

    /// Reads an archive as Linux's `init/initramfs.c` does.
    fn read(bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            let header = &bytes[at..at + HEADER];
            assert_eq!(&header[..6], b"070701");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&header[6 + 8 * index..][..8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (size, name_size) = (field(6) as usize, field(11) as usize);
            assert!(name_size <= NAME_MAX);
            let name = &bytes[at + HEADER..][..name_size];
            assert_eq!(name.last(), Some(&0));
            let path = name.split(|byte| *byte == 0).next().unwrap().to_vec();
            if path == TRAILER {
                return entries;
            }
            let offset = (at + HEADER + name_size).next_multiple_of(4);
            entries.push(Entry {
                path,
                ino: field(0),
                mode: field(1),
                offset,
                data: bytes[offset..offset + size].to_vec(),
            });
            at = (offset + size).next_multiple_of(4);
        }
    }

    #[test]
    fn entries_are_read_back() {
        let mut archive = Archive::new();
        archive.directory(b"bin", 0o755).unwrap();
        archive.file(b"bin/tool", 0o755, b"data").unwrap();
        archive.symlink(b"bin/link", b"tool").unwrap();
        archive.file(b"empty", 0o600, b"").unwrap();
        let entries = read(&archive.finish());
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| (&entry.path[..], entry.mode, &entry.data[..]))
            .collect();
        assert_eq!(
            seen,
            [
                (&b"."[..], 0o040_755, &b""[..]),
                (b"bin", 0o040_755, b""),
                (b"bin/tool", 0o100_755, b"data"),
                (b"bin/link", 0o120_777, b"tool"),
                (b"empty", 0o100_600, b""),
            ]
        );
        let inodes: Vec<_> = entries.iter().map(|entry| entry.ino).collect();
        assert_eq!(inodes, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn data_is_page_aligned_wherever_the_header_falls() {
        for before in 0..PAGE / 4 {
            for length in [1, 60, PATH_MAX] {
                let path = vec![b'p'; length];
                let mut archive = Archive::new();
                archive.symlink(b"x", &vec![b't'; before * 4]).unwrap();
                archive.file(&path, 0o644, b"contents").unwrap();
                let bytes = archive.finish();
                assert_eq!(bytes.len() % PAGE, 0);
                let entries = read(&bytes);
                let file = entries.last().unwrap();
                assert_eq!((&file.path, &file.data[..]), (&path, &b"contents"[..]));
                assert_eq!(file.offset % PAGE, 0);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut archive = Archive::new();
        assert_eq!(
            archive.directory(&[b'p'; PATH_MAX + 1], 0o755),
            Err(CpioError::PathTooLong)
        );
        let mut archive = Archive::with_limit(16 * PAGE);
        let large = [0; 13 * PAGE];
        assert_eq!(
            archive.file(b"f", 0o644, &large),
            Err(CpioError::ArchiveTooLarge)
        );
        assert_eq!(archive.file(b"f", 0o644, &large[..11 * PAGE]), Ok(()));
        assert!(archive.finish().len() <= 16 * PAGE);
    }
}
