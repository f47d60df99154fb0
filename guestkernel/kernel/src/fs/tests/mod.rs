//! The file system as programs see it. What Linux does was found out on a tmpfs of Linux 6.18.

mod attributes;
mod contents;
mod mounts;
mod names;
mod open;

use super::*;
use crate::error::{Errno, Result};
use crate::executor::block_on;
use crate::io::{Direction, Io, IoFlags};
use crate::mm::IoBuffer;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

const HERE: i32 = raw::AT_FDCWD;

/// An empty file system, and a process that works in it.
struct Sandbox {
    files: FdTable,
    context: Arc<FsContext>,
}

impl Sandbox {
    fn new() -> Self {
        let context = FsContext::new(Namespace::in_memory().0);
        context.set_umask(0);
        Self {
            files: FdTable::new(),
            context,
        }
    }

    fn view(&self) -> View<'_> {
        View {
            files: &self.files,
            context: &self.context,
        }
    }

    fn open_file(&self, path: &str, flags: u32) -> Result<Arc<OpenFile>> {
        let how = OpenHow::new(flags, 0o644)?;
        block_on(self.view().open(HERE, path.as_bytes(), how))
    }

    fn open(&self, path: &str, flags: u32) -> Result<()> {
        self.open_file(path, flags).map(drop)
    }

    /// Makes a file with that contents.
    fn write(&self, path: &str, contents: &[u8]) {
        let file = self.open_file(path, raw::O_WRONLY | raw::O_CREAT).unwrap();
        assert_eq!(write(&file, Some(0), contents), Ok(contents.len()));
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        block_on(read_all(&*self.open_file(path, raw::O_RDONLY)?))
    }

    fn stat_with(&self, path: &str, flags: u32) -> Result<Stat> {
        let at = At {
            fd: HERE,
            path: path.as_bytes(),
            flags,
        };
        block_on(self.view().stat(at))
    }

    fn stat(&self, path: &str) -> Result<Stat> {
        self.stat_with(path, 0)
    }

    fn lstat(&self, path: &str) -> Result<Stat> {
        self.stat_with(path, raw::AT_SYMLINK_NOFOLLOW)
    }

    fn mkdir(&self, path: &str) -> Result<()> {
        block_on(self.view().make_directory(HERE, path.as_bytes(), 0o755))
    }

    fn symlink(&self, target: &str, path: &str) -> Result<()> {
        let (target, path) = (target.as_bytes(), path.as_bytes());
        block_on(self.view().make_symlink(target, HERE, path))
    }

    fn link(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = ((HERE, from.as_bytes()), (HERE, to.as_bytes()));
        block_on(self.view().link(from, to, 0))
    }

    fn unlink(&self, path: &str) -> Result<()> {
        block_on(self.view().unlink(HERE, path.as_bytes(), 0))
    }

    fn rmdir(&self, path: &str) -> Result<()> {
        let flags = raw::AT_REMOVEDIR;
        block_on(self.view().unlink(HERE, path.as_bytes(), flags))
    }

    fn rename_with(&self, from: &str, to: &str, flags: u32) -> Result<()> {
        let (from, to) = ((HERE, from.as_bytes()), (HERE, to.as_bytes()));
        block_on(self.view().rename(from, to, flags))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.rename_with(from, to, 0)
    }

    fn chdir(&self, path: &str) -> Result<()> {
        let directory = block_on(self.view().lookup(HERE, path.as_bytes(), true))?;
        self.context.set_working_directory(directory)
    }

    fn cwd(&self) -> Result<Vec<u8>> {
        let path = self
            .context
            .path_of(self.context.working_directory().into());
        path.map(|(path, _)| path)
    }

    /// The names in a directory, sorted, without `.` and `..`.
    fn list(&self, path: &str) -> Vec<Vec<u8>> {
        let directory = self.open_file(path, raw::O_RDONLY).unwrap();
        let mut names = Vec::new();
        let mut sink = |entry: &DirEntry<'_>| {
            names.push(entry.name.to_vec());
            true
        };
        block_on(directory.ops.read_dir(0, &mut sink)).unwrap();
        assert_eq!(&names[..2], [b".".to_vec(), b"..".to_vec()]);
        let mut names = names.split_off(2);
        names.sort();
        names
    }
}

fn transfer(file: &OpenFile, io: &mut Io) -> Result<usize> {
    block_on(file.complete(io))
}

fn write_with(file: &OpenFile, at: Option<u64>, bytes: &[u8], flags: IoFlags) -> Result<usize> {
    let buffer = IoBuffer::Kernel(bytes.to_vec());
    transfer(file, &mut Io::new(Direction::Write, at, buffer, flags))
}

fn write(file: &OpenFile, at: Option<u64>, bytes: &[u8]) -> Result<usize> {
    write_with(file, at, bytes, IoFlags::empty())
}

fn read(file: &OpenFile, at: Option<u64>, count: usize) -> Result<Vec<u8>> {
    let buffer = IoBuffer::Kernel(vec![0xaa; count]);
    let mut io = Io::new(Direction::Read, at, buffer, IoFlags::empty());
    let count = transfer(file, &mut io)?;
    match io.buffer {
        IoBuffer::Kernel(bytes) => Ok(bytes[..count].to_vec()),
        _ => Err(Errno::EFAULT),
    }
}
