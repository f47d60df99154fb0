//! `/dev`: its file system, and the devices that are memory only (`mem(4)`, `random(4)`).

use super::tmpfs::{self, TmpfsInode};
use super::{BoxFuture, DeviceNumber, FileOps, FileType, Namespace, NewNode};
use crate::error::{Errno, Result};
use crate::file::{FileSystemType, Location, Mount, MountFlags};
use crate::globals::global;
use crate::io::{Direction, Io};
use crate::mm::{AddressSpace, PageSource, SharedMemory};
use crate::random::fill_random;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::task::{Context, Poll};
use linux_raw_sys::ioctl;
use machine::lock::Mutex;

/// The type of `/dev`: all mounts of it show the same files.
pub(super) static TYPE: FileSystemType = FileSystemType {
    name: "devtmpfs",
    needs_device: false,
    make: |_| {
        let root = ROOT.lock().clone();
        Box::pin(core::future::ready(
            root.ok_or(Errno::ENODEV).map(TmpfsInode::made),
        ))
    },
};

global! {
    /// The root directory of `/dev`, when it is there.
    static ROOT: Mutex<Option<Arc<TmpfsInode>>> = Mutex::new(None);
}

/// The mounted `/dev`.
#[derive(Clone)]
pub struct DeviceDirectory {
    namespace: Arc<Namespace>,
    mount: Arc<Mount>,
    root: Arc<TmpfsInode>,
}

impl DeviceDirectory {
    /// Mounts `/dev`, with the devices that are always there and the links to descriptors.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` if the root directory has a `dev` that is no directory; `ENOSPC`.
    pub async fn mount(namespace: Arc<Namespace>) -> Result<Self> {
        let root = tmpfs::in_memory(0o755);
        *ROOT.lock() = Some(root.clone());
        let flags = MountFlags::NO_SUID | MountFlags::RELATIME;
        let mount = tmpfs::mount(&TYPE, &root, b"devtmpfs", flags);
        namespace.mount_at(&mount, "dev").await?;
        let directory = Self {
            namespace,
            mount,
            root,
        };
        for (name, minor, file) in MEMORY {
            let number = DeviceNumber::new(MEMORY_MAJOR, minor);
            directory.add(name, FileType::CharDevice, number, 0o666, Arc::new(file))?;
        }
        for (name, target) in LINKS {
            let target = NewNode::Symlink(target.as_bytes().to_vec());
            directory.root.create_node(name.as_bytes(), target, 0o777)?;
        }
        directory
            .root
            .create_node(b"shm", NewNode::Directory, 0o1777)?;
        Ok(directory)
    }

    /// Adds a device and the file that opens it, and returns its inode.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOSPC`.
    pub fn add(
        &self,
        name: &str,
        kind: FileType,
        number: DeviceNumber,
        mode: u32,
        file: Arc<dyn FileOps>,
    ) -> Result<Arc<TmpfsInode>> {
        self.namespace.add_device(kind, number, file);
        self.add_node(name, kind, number, mode)
    }

    /// Adds a device file; nothing opens it yet.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOSPC`.
    pub fn add_node(
        &self,
        name: &str,
        kind: FileType,
        number: DeviceNumber,
        mode: u32,
    ) -> Result<Arc<TmpfsInode>> {
        let node = NewNode::Device(kind, number);
        self.root.create_node(name.as_bytes(), node, mode)
    }

    /// How the device file `inode`, one of its own, is reached.
    pub fn location_of(&self, inode: Arc<TmpfsInode>) -> Location {
        Location {
            mount: self.mount.clone(),
            inode,
        }
    }

    /// Its root directory.
    pub fn root(&self) -> &Arc<TmpfsInode> {
        &self.root
    }
}

const MEMORY_MAJOR: u32 = 1;
/// Name, minor number, device.
const MEMORY: [(&str, u32, MemoryDevice); 5] = [
    ("null", 3, MemoryDevice::Null),
    ("zero", 5, MemoryDevice::Zero),
    ("full", 7, MemoryDevice::Full),
    ("random", 8, MemoryDevice::Random),
    ("urandom", 9, MemoryDevice::Random),
];
/// Symbolic links that Linux systems have in `/dev`.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// A device without hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemoryDevice {
    /// Nothing to read, room for everything.
    Null,
    /// Zeros to read, room for everything.
    Zero,
    /// Zeros to read, no room.
    Full,
    /// Random bytes.
    Random,
}

impl MemoryDevice {
    fn read(self, io: &mut Io) -> Result<usize> {
        let length = io.buffer.len();
        match self {
            Self::Null => Ok(0),
            Self::Zero | Self::Full => {
                while io.done < length {
                    if io.must_give_way() {
                        return Err(Errno::GIVE_WAY);
                    }
                    let count = (Io::PART - io.done % Io::PART).min(length - io.done);
                    match io.buffer.fill_zeros(io.done, count) {
                        Ok(copied) => io.done += copied,
                        Err(error) => return io.cut_short(error),
                    }
                }
                Ok(length)
            }
            Self::Random => {
                let mut bytes = [0; 1024];
                while io.done < length {
                    if io.must_give_way() {
                        return Err(Errno::GIVE_WAY);
                    }
                    let count = bytes.len().min(length - io.done);
                    fill_random(&mut bytes[..count]);
                    match io.buffer.fill(io.done, &bytes[..count]) {
                        Ok(copied) => io.done += copied,
                        Err(error) => return io.cut_short(error),
                    }
                }
                Ok(length)
            }
        }
    }

    fn write(self, io: &Io) -> Result<usize> {
        match self {
            Self::Full => Err(Errno::ENOSPC),
            // The generator needs no more entropy than the host's.
            Self::Null | Self::Zero | Self::Random => Ok(io.buffer.len()),
        }
    }
}

impl FileOps for MemoryDevice {
    fn poll_io(&self, io: &mut Io, _context: &mut Context<'_>) -> Poll<Result<usize>> {
        Poll::Ready(match io.direction {
            Direction::Read => self.read(io),
            Direction::Write => self.write(io),
        })
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn ignores_position(&self) -> bool {
        true
    }

    fn writes_by_piece(&self) -> bool {
        *self == Self::Full
    }

    fn can_splice(&self, direction: Direction) -> bool {
        match direction {
            Direction::Read => *self != Self::Null,
            Direction::Write => *self != Self::Full,
        }
    }

    fn ioctl<'a>(
        &'a self,
        request: u32,
        argument: u64,
        space: &'a AddressSpace,
    ) -> BoxFuture<'a, Result<u64>> {
        let result = match (self, request) {
            (Self::Random, ioctl::RNDGETENTCNT) => {
                // Bits in the pool, which is full once it was seeded.
                space.write_value(argument, &256_i32).map(|()| 0)
            }
            (Self::Random, _) => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTTY),
        };
        Box::pin(core::future::ready(result))
    }

    fn page_source(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        match *self {
            Self::Zero => Ok(Arc::new(SharedMemory::default())),
            _ => Err(Errno::ENODEV),
        }
    }
}
