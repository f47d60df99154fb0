//! `/dev/pts`: the file system with the names of pseudo-terminals (`pts(4)`). All mounts of it show the
//! same ones.

use super::pty::{Multiplexer, Pty, SLAVE_MAJOR};
use crate::error::{Errno, Result};
use crate::executor::Answer;
use crate::file::{
    DeviceNumber, DirEntry, DirectorySink, FileOps, FileSystem, FileSystemInfo, FileSystemType,
    FileType, Inode, InodeState, Made, Mount, MountFlags, NewNode, OpenFlags, RenameMode, Stat,
    SuperBlock, Timestamp, next_device,
};
use crate::fs::{DeviceDirectory, Namespace};
use crate::globals::global;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::future::ready;
use linux_raw_sys::general as raw;
use machine::lock::Mutex;
use spin::Lazy;

/// The device number of `/dev/ptmx`.
const PTMX: DeviceNumber = DeviceNumber::new(5, 2);
/// Pseudo-terminals that there can be (`/proc/sys/kernel/pty/max`).
const MOST: usize = 4096;
/// Inode numbers of slaves begin here.
const SLAVES: u64 = 3;

/// The type.
static TYPE: FileSystemType = FileSystemType {
    name: "devpts",
    needs_device: false,
    make: |_| Box::pin(ready(Ok(made(&INSTANCE)))),
};

global! {
    static INSTANCE: Lazy<Arc<DevPts>> = Lazy::new(|| Arc::new(DevPts {
        device: next_device(),
        mounted: Timestamp::now(),
    }));
}

global! {
    /// The pseudo-terminals whose masters are open.
    static TERMINALS: Mutex<BTreeMap<u32, Weak<Pty>>> = Mutex::new(BTreeMap::new());
}

/// The file system.
struct DevPts {
    device: DeviceNumber,
    mounted: Timestamp,
}

fn made(fs: &Arc<DevPts>) -> Made {
    let root = Arc::new(Root {
        fs: fs.clone(),
        state: InodeState::default(),
    });
    (fs.clone(), root)
}

/// Makes `/dev/ptmx`, and mounts the names of slaves at `/dev/pts`.
///
/// # Errors
///
/// Those of making files and of mounting.
pub async fn mount(namespace: &Namespace, devices: &DeviceDirectory) -> Result<()> {
    crate::file::register(&TYPE);
    let kind = FileType::CharDevice;
    devices.add("ptmx", kind, PTMX, 0o666, Arc::new(Multiplexer))?;
    let (fs, root) = made(&INSTANCE);
    let super_block = SuperBlock::new(&TYPE, fs, root.clone(), false);
    let flags = MountFlags::NO_SUID | MountFlags::NO_EXEC | MountFlags::RELATIME;
    let mount = Mount::new(super_block, root, b"devpts", flags);
    namespace.mount_at(&mount, "dev/pts").await
}

/// Adds what `make` makes of the lowest free number.
///
/// # Errors
///
/// `ENOSPC` if there are too many.
pub(super) fn add(make: impl FnOnce(u32) -> Arc<Pty>) -> Result<Arc<Pty>> {
    let mut terminals = TERMINALS.lock();
    if terminals.len() >= MOST {
        return Err(Errno::ENOSPC);
    }
    let numbers = terminals.keys().copied();
    let free = (0..).zip(numbers).find(|(number, used)| number != used);
    let number = free.map_or(terminals.len() as u32, |(number, _)| number);
    let pty = make(number);
    terminals.insert(number, Arc::downgrade(&pty));
    Ok(pty)
}

/// The master of that one is closed.
pub(super) fn remove(number: u32) {
    TERMINALS.lock().remove(&number);
}

fn find(number: u32) -> Option<Arc<Pty>> {
    TERMINALS.lock().get(&number).and_then(Weak::upgrade)
}

impl FileSystem for DevPts {
    fn device(&self) -> DeviceNumber {
        self.device
    }

    fn info(&self) -> Answer<'_, FileSystemInfo> {
        Answer::ready(Ok(FileSystemInfo {
            magic: raw::DEVPTS_SUPER_MAGIC.into(),
            block_size: 4096,
            id: self.device.encode(),
            name_length: 255,
            ..FileSystemInfo::default()
        }))
    }
}

impl DevPts {
    fn stat(&self, inode: u64, mode: u32, links: u32) -> Stat {
        Stat {
            device: self.device,
            inode,
            mode,
            links,
            block_size: 1024,
            accessed: self.mounted,
            modified: self.mounted,
            changed: self.mounted,
            ..Stat::default()
        }
    }
}

/// The directory.
struct Root {
    fs: Arc<DevPts>,
    state: InodeState,
}

/// The name of a slave.
struct Slave {
    fs: Arc<DevPts>,
    number: u32,
    state: InodeState,
}

macro_rules! nothing_is_made {
    () => {
        fn create<'a>(&'a self, _: &'a [u8], _: NewNode, _: u32) -> Answer<'a, Arc<dyn Inode>> {
            Errno::EPERM.into()
        }

        fn link<'a>(&'a self, _: &'a [u8], _: Arc<dyn Inode>) -> Answer<'a, ()> {
            Errno::EPERM.into()
        }

        fn unlink<'a>(&'a self, _: &'a [u8]) -> Answer<'a, ()> {
            Errno::EPERM.into()
        }

        fn remove_directory<'a>(&'a self, _: &'a [u8]) -> Answer<'a, ()> {
            Errno::EPERM.into()
        }

        fn rename<'a>(
            &'a self,
            _: &'a [u8],
            _: Arc<dyn Inode>,
            _: &'a [u8],
            _: RenameMode,
        ) -> Answer<'a, ()> {
            Errno::EPERM.into()
        }
    };
}

impl Inode for Root {
    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(Ok(self.fs.stat(1, FileType::Directory as u32 | 0o755, 2)))
    }

    fn open(self: Arc<Self>, _: OpenFlags) -> Answer<'static, Arc<dyn FileOps>> {
        Answer::ready(Ok(self))
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Answer<'a, Arc<dyn Inode>> {
        let number = core::str::from_utf8(name).ok();
        let number = number.and_then(|name| name.parse().ok());
        let is_listed = |number: &u32| format!("{number}").as_bytes() == name;
        let number = number.filter(|number| is_listed(number) && find(*number).is_some());
        Answer::ready(number.ok_or(Errno::ENOENT).map(|number| {
            let slave: Arc<dyn Inode> = Arc::new(Slave {
                fs: self.fs.clone(),
                number,
                state: InodeState::default(),
            });
            slave
        }))
    }

    nothing_is_made!();
}

impl FileOps for Root {
    fn is_seekable(&self) -> bool {
        true
    }

    fn read_dir<'a>(&'a self, position: u64, sink: &'a mut DirectorySink<'_>) -> Answer<'a, u64> {
        let numbers: Vec<u32> = TERMINALS.lock().keys().copied().collect();
        let dots = [(0, b".".to_vec(), 1), (1, b"..".to_vec(), 1)].into_iter();
        let slaves = numbers.into_iter().map(|number| {
            let place = u64::from(number) + 2;
            let inode = u64::from(number) + SLAVES;
            (place, format!("{number}").into_bytes(), inode)
        });
        let mut next = position;
        for (place, name, inode) in dots.chain(slaves).filter(|entry| entry.0 >= position) {
            let kind = match place {
                0 | 1 => FileType::Directory,
                _ => FileType::CharDevice,
            };
            let entry = DirEntry {
                name: &name,
                inode,
                kind: kind.directory_type(),
                next: place + 1,
            };
            if !sink(&entry) {
                break;
            }
            next = place + 1;
        }
        Answer::ready(Ok(next))
    }
}

impl Inode for Slave {
    fn file_type(&self) -> FileType {
        FileType::CharDevice
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn special(&self) -> DeviceNumber {
        DeviceNumber::new(SLAVE_MAJOR, self.number)
    }

    fn stat(&self) -> Answer<'_, Stat> {
        let inode = u64::from(self.number) + SLAVES;
        let mode = FileType::CharDevice as u32 | 0o620;
        Answer::ready(Ok(Stat {
            special: self.special(),
            ..self.fs.stat(inode, mode, 1)
        }))
    }

    fn open(self: Arc<Self>, _: OpenFlags) -> Answer<'static, Arc<dyn FileOps>> {
        let pty = find(self.number).ok_or(Errno::EIO);
        Answer::ready(pty.and_then(|pty| pty.open_by_name()))
    }

    fn lookup<'a>(&'a self, _: &'a [u8]) -> Answer<'a, Arc<dyn Inode>> {
        Errno::ENOTDIR.into()
    }

    nothing_is_made!();
}
