//! Unpacking an initramfs: cpio archives in the `newc` format, as the Linux kernel reads them
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`): several in a row, with NUL
//! bytes in between.
//!
//! The archive lies in page frames. File data that starts at a page boundary is not copied: its
//! pages become the file's.

use super::tmpfs::TmpfsInode;
use super::{DeviceNumber, FileType, NewNode, PATH_MAX, Timestamp};
use crate::error::Errno;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::{Frame, PAGE_SIZE};

/// Bytes of a header.
const HEADER: usize = 110;
/// Names and data are padded to a multiple of this.
const ALIGNMENT: usize = 4;
const TRAILER: &[u8] = b"TRAILER!!!";

/// Why an archive was not unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitramfsError {
    /// Where in the archive the entry starts that is at fault.
    pub offset: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Neither `070701` nor `070702` starts the entry.
    NoHeader,
    /// A field of the header is no hexadecimal number.
    BadNumber,
    /// The entry goes on after the end of the archive.
    Truncated,
    /// The name is empty, too long, or does not end with a NUL.
    BadName,
    /// The type in the mode is none.
    BadMode(u32),
    /// The file could not be made.
    NotMade(String, Errno),
}

impl core::fmt::Display for InitramfsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "initramfs, entry at byte {}: ", self.offset)?;
        match &self.problem {
            Problem::NoHeader => f.write_str("no cpio header (newc format, not compressed)"),
            Problem::BadNumber => f.write_str("the header holds something that is no number"),
            Problem::Truncated => f.write_str("it is cut short"),
            Problem::BadName => f.write_str("its name is empty, too long or not terminated"),
            Problem::BadMode(mode) => write!(f, "mode {mode:o} names no type of file"),
            Problem::NotMade(name, errno) => write!(f, "cannot make {name}: {errno:?}"),
        }
    }
}

impl core::error::Error for InitramfsError {}

/// Makes the files of the archive that `frames` hold, `length` bytes long, under `root`. Files
/// that are there already are replaced, directories are kept.
///
/// # Errors
///
/// [`InitramfsError`]; entries before the one at fault have been made.
pub fn unpack(
    root: &Arc<TmpfsInode>,
    frames: &[Frame],
    length: usize,
) -> Result<(), InitramfsError> {
    let archive = Archive {
        frames,
        length: length.min(frames.len() * PAGE_SIZE),
    };
    let mut unpacker = Unpacker {
        archive,
        root,
        parent: (Vec::new(), root.clone()),
        links: BTreeMap::new(),
        directories: Vec::new(),
    };
    let mut at = 0;
    loop {
        at = unpacker.skip_padding(at);
        if at >= length {
            break;
        }
        at = unpacker.entry(at).map_err(|problem| InitramfsError {
            offset: at,
            problem,
        })?;
    }
    for (directory, time) in unpacker.directories {
        directory.set_modified(time);
    }
    Ok(())
}

struct Archive<'a> {
    frames: &'a [Frame],
    length: usize,
}

impl Archive<'_> {
    fn read(&self, at: usize, out: &mut [u8]) -> Result<(), Problem> {
        if at > self.length || out.len() > self.length - at {
            return Err(Problem::Truncated);
        }
        let mut done = 0;
        while done < out.len() {
            let (page, offset) = ((at + done) / PAGE_SIZE, (at + done) % PAGE_SIZE);
            let count = (PAGE_SIZE - offset).min(out.len() - done);
            self.frames[page].read(offset, &mut out[done..done + count]);
            done += count;
        }
        Ok(())
    }

    /// The pages of a file whose `size` bytes start at `at`; the last one is filled up with zeros.
    fn pages(&self, at: usize, size: usize) -> Result<Vec<Frame>, Errno> {
        let mut pages = Vec::with_capacity(size.div_ceil(PAGE_SIZE));
        for start in (0..size).step_by(PAGE_SIZE) {
            let count = (size - start).min(PAGE_SIZE);
            let (index, offset) = ((at + start) / PAGE_SIZE, (at + start) % PAGE_SIZE);
            let source = &self.frames[index];
            if count == PAGE_SIZE && offset == 0 {
                pages.push(source.clone());
                continue;
            }
            let page = Frame::uninitialised()?;
            let here = count.min(PAGE_SIZE - offset);
            source.copy_to(offset, &page, 0, here);
            if here < count {
                self.frames[index + 1].copy_to(0, &page, here, count - here);
            }
            page.fill(count..PAGE_SIZE, 0);
            pages.push(page);
        }
        Ok(pages)
    }
}

/// The fields of a header that matter.
struct Header {
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    modified: u32,
    size: usize,
    device: DeviceNumber,
    special: DeviceNumber,
    name_size: usize,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Self, Problem> {
        let (magic, fields) = bytes.split_at(6);
        if magic != b"070701" && magic != b"070702" {
            return Err(Problem::NoHeader);
        }
        let mut numbers = [0; 13];
        for (number, digits) in numbers.iter_mut().zip(fields.chunks_exact(8)) {
            for digit in digits {
                let digit = char::from(*digit).to_digit(16).ok_or(Problem::BadNumber)?;
                *number = *number << 4 | digit;
            }
        }
        let [inode, mode, uid, gid, links, modified, size, rest @ ..] = numbers;
        let [
            device_major,
            device_minor,
            special_major,
            special_minor,
            name_size,
            _,
        ] = rest;
        Ok(Self {
            inode,
            mode,
            uid,
            gid,
            links,
            modified,
            size: size as usize,
            device: DeviceNumber::new(device_major, device_minor),
            special: DeviceNumber::new(special_major, special_minor),
            name_size: name_size as usize,
        })
    }
}

struct Unpacker<'a> {
    archive: Archive<'a>,
    root: &'a Arc<TmpfsInode>,
    /// The directory that the last entry was in.
    parent: (Vec<u8>, Arc<TmpfsInode>),
    /// Files with several names, by what tells them apart within an archive.
    links: BTreeMap<(DeviceNumber, u32), Arc<TmpfsInode>>,
    /// Directories and their times, which are set when nothing is made in them any more.
    directories: Vec<(Arc<TmpfsInode>, Timestamp)>,
}

impl Unpacker<'_> {
    /// The first byte from `at` on that is not NUL.
    fn skip_padding(&self, mut at: usize) -> usize {
        let mut chunk = [0; 64];
        while at < self.archive.length {
            let count = chunk.len().min(self.archive.length - at);
            if self.archive.read(at, &mut chunk[..count]).is_err() {
                break;
            }
            match chunk[..count].iter().position(|byte| *byte != 0) {
                Some(zeros) => return at + zeros,
                None => at += count,
            }
        }
        at
    }

    /// Unpacks the entry at `at` and gives where the next one starts.
    fn entry(&mut self, at: usize) -> Result<usize, Problem> {
        if !at.is_multiple_of(ALIGNMENT) {
            return Err(Problem::NoHeader);
        }
        let mut header = [0; HEADER];
        self.archive.read(at, &mut header)?;
        let header = Header::parse(&header)?;
        if !(2..=PATH_MAX).contains(&header.name_size) {
            return Err(Problem::BadName);
        }
        let mut name = alloc::vec![0; header.name_size];
        self.archive.read(at + HEADER, &mut name)?;
        if name.last() != Some(&0) || name[0] == 0 {
            return Err(Problem::BadName);
        }
        // A name may be padded with NULs, to align the data.
        let length = name.iter().take_while(|byte| **byte != 0).count();
        name.truncate(length);
        let data = (at + HEADER + header.name_size).next_multiple_of(ALIGNMENT);
        let end = data.checked_add(header.size).ok_or(Problem::Truncated)?;
        if end > self.archive.length {
            return Err(Problem::Truncated);
        }
        if name == TRAILER {
            self.links.clear();
        } else {
            self.make(&header, &name, data)
                .map_err(|problem| match problem {
                    Failure::Problem(problem) => problem,
                    Failure::Errno(errno) => {
                        Problem::NotMade(String::from_utf8_lossy(&name).into_owned(), errno)
                    }
                })?;
        }
        Ok(end.next_multiple_of(ALIGNMENT))
    }

    fn make(&mut self, header: &Header, name: &[u8], data: usize) -> Result<(), Failure> {
        let kind = FileType::of_mode(header.mode).ok_or(Problem::BadMode(header.mode))?;
        let node = match kind {
            FileType::Regular => NewNode::Regular,
            FileType::Directory => NewNode::Directory,
            FileType::Fifo => NewNode::Fifo,
            FileType::Socket => NewNode::Socket,
            FileType::CharDevice | FileType::BlockDevice => NewNode::Device(kind, header.special),
            FileType::Symlink => {
                if !(1..PATH_MAX).contains(&header.size) {
                    return Err(Errno::ENAMETOOLONG.into());
                }
                let mut target = alloc::vec![0; header.size];
                self.archive.read(data, &mut target)?;
                NewNode::Symlink(target)
            }
        };
        let is_directory = kind == FileType::Directory;
        let inode = match split(name) {
            (_, b"" | b".") if is_directory => self.root.clone(),
            (_, b"" | b".") => return Err(Errno::EISDIR.into()),
            (prefix, last) => {
                let parent = self.parent(prefix)?;
                self.place(header, &parent, last, node)?
            }
        };
        let time = Timestamp {
            seconds: header.modified.into(),
            nanoseconds: 0,
        };
        if kind == FileType::Regular && header.size > 0 {
            let pages = self.archive.pages(data, header.size)?;
            inode.adopt(pages.into_iter(), header.size as u64)?;
        }
        inode.set_owner(header.uid, header.gid, header.mode & 0o7777);
        inode.set_modified(time);
        if is_directory {
            self.directories.push((inode, time));
        }
        Ok(())
    }

    /// Gives the name `last` in `parent` to a new file, or to one that has another name already.
    fn place(
        &mut self,
        header: &Header,
        parent: &Arc<TmpfsInode>,
        last: &[u8],
        node: NewNode,
    ) -> Result<Arc<TmpfsInode>, Errno> {
        let is_directory = matches!(node, NewNode::Directory);
        if let Some(old) = parent.child(last)? {
            if is_directory && old.is_directory() {
                return Ok(old);
            }
            parent.remove_node(last)?;
        }
        if is_directory || header.links < 2 {
            return parent.create_node(last, node, 0);
        }
        let key = (header.device, header.inode);
        if let Some(other) = self.links.get(&key) {
            parent.link_node(last, other.clone())?;
            return Ok(other.clone());
        }
        let inode = parent.create_node(last, node, 0)?;
        self.links.insert(key, inode.clone());
        Ok(inode)
    }

    /// The directory whose name, without the last component, is `prefix`.
    fn parent(&mut self, prefix: &[u8]) -> Result<Arc<TmpfsInode>, Errno> {
        if self.parent.0 != prefix {
            let mut directory = self.root.clone();
            for component in prefix.split(|byte| *byte == b'/') {
                if !matches!(component, b"" | b".") {
                    directory = directory.child(component)?.ok_or(Errno::ENOENT)?;
                }
            }
            self.parent = (prefix.to_vec(), directory);
        }
        Ok(self.parent.1.clone())
    }
}

/// A name without its last component, and that. The latter is empty or `.` for the root.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    let mut name = name;
    while let Some(shorter) = name.strip_suffix(b"/").or(name.strip_suffix(b"/.")) {
        name = shorter;
    }
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (b"", name),
    }
}

/// Why an entry could not be made.
enum Failure {
    Problem(Problem),
    Errno(Errno),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

#[cfg(test)]
mod tests;
