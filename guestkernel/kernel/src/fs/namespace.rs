//! The name space: what is mounted where, and which device a device file opens.

use super::tmpfs::{self, TmpfsInode};
use super::{DeviceNumber, FileOps, FileType, NewNode};
use crate::error::{Errno, Result};
use crate::file::{Inode, Location, Mount, MountFlags, Place, is_same};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashMap;
use machine::lock::RwLock;

/// Mounts that a name space can have (`fs.mount-max`).
const MOUNTS_MAX: usize = 100_000;

/// All mounts and devices.
pub struct Namespace {
    table: RwLock<Table>,
    devices: RwLock<BTreeMap<(u8, DeviceNumber), Arc<dyn FileOps>>>,
    /// The file system of files that never had a name.
    unnamed: Arc<Mount>,
    unnamed_root: Arc<TmpfsInode>,
}

struct Table {
    /// The mount that the tree of files begins with.
    root: Arc<Mount>,
    /// All that are somewhere, in the order in which they were mounted.
    mounts: Vec<Arc<Mount>>,
    /// By the file that they cover.
    points: HashMap<Point, Arc<Mount>>,
}

/// A file as it is reached: the number of the mount, and which file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Point(u64, usize);

impl Point {
    fn of(mount: &Mount, inode: &dyn Inode) -> Self {
        Self(mount.id, core::ptr::from_ref(inode).addr())
    }
}

impl Namespace {
    /// A tree of files that consists of the mount `root`.
    pub fn new(root: Arc<Mount>) -> Arc<Self> {
        let unnamed_root = tmpfs::in_memory(0o755);
        let flags = MountFlags::empty();
        let unnamed = tmpfs::mount(&tmpfs::TYPE, &unnamed_root, b"none", flags);
        Arc::new(Self {
            table: RwLock::new(Table {
                mounts: Vec::from([root.clone()]),
                root,
                points: HashMap::new(),
            }),
            devices: RwLock::new(BTreeMap::new()),
            unnamed,
            unnamed_root,
        })
    }

    /// A tree of files in memory, with its root directory.
    pub fn in_memory() -> (Arc<Self>, Arc<TmpfsInode>) {
        let root = tmpfs::in_memory(0o755);
        let flags = MountFlags::RELATIME;
        let mount = tmpfs::mount(&tmpfs::TYPE, &root, b"tmpfs", flags);
        (Self::new(mount), root)
    }

    /// The root of the tree.
    pub fn root(&self) -> Location {
        self.uncover(self.table.read().root.root_location()).0
    }

    /// The directory in which files without a name are made.
    pub fn unnamed(&self) -> &Arc<TmpfsInode> {
        &self.unnamed_root
    }

    /// How `inode`, a file that never had a name, is reached.
    pub fn unnamed_location(&self, inode: Arc<dyn Inode>) -> Location {
        Location {
            mount: self.unnamed.clone(),
            inode,
        }
    }

    /// Has `mount` cover the directory at `path`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// Those of [`mount`](Self::mount) and of making directories.
    pub async fn mount_at(&self, mount: &Arc<Mount>, path: &str) -> Result<()> {
        let mut at = self.root();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let name = name.as_bytes();
            at.inode = match at.inode.lookup(name).await {
                Err(Errno::ENOENT) => at.inode.create(name, NewNode::Directory, 0o755).await?,
                found => found?,
            };
            at = self.uncover(at).0;
        }
        at.check_directory()?;
        self.mount(mount, at.into())
    }

    /// Has `mount`, which is nowhere yet, cover `place`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the place is not in the tree, `ENOTDIR` if one is a directory and the other is
    /// not, `EBUSY` if it is covered already, `ENOSPC` if there are too many mounts.
    pub fn mount(&self, mount: &Arc<Mount>, place: Place) -> Result<()> {
        let Location {
            mount: parent,
            inode,
        } = &place.location;
        let is_directory = |inode: &Arc<dyn Inode>| inode.file_type() == FileType::Directory;
        if is_directory(&mount.root) != is_directory(inode) {
            return Err(Errno::ENOTDIR);
        }
        let mut table = self.table.write();
        if table.mounts.len() >= MOUNTS_MAX {
            return Err(Errno::ENOSPC);
        }
        if !table.has(parent) {
            return Err(Errno::EINVAL);
        }
        let point = Point::of(parent, &**inode);
        if table.points.contains_key(&point) {
            return Err(Errno::EBUSY);
        }
        inode.state().note_mount(true);
        mount.set_place(Some(place));
        table.points.insert(point, mount.clone());
        table.mounts.push(mount.clone());
        Ok(())
    }

    /// Takes a mount out, which nobody uses but the caller, by one reference. If it `is_detached`,
    /// it may be in use, and those mounted in it go with it. Gives what was taken out.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not mounted or is the root, `EBUSY` if it is in use.
    pub fn unmount(&self, mount: &Arc<Mount>, is_detached: bool) -> Result<Vec<Arc<Mount>>> {
        /// Those of the table, and the caller's.
        const UNUSED: usize = 3;
        let mut table = self.table.write();
        if !table.has(mount) || Arc::ptr_eq(&table.root, mount) {
            return Err(Errno::EINVAL);
        }
        if !is_detached && Arc::strong_count(mount) > UNUSED {
            return Err(Errno::EBUSY);
        }
        let mut gone = Vec::from([mount.clone()]);
        let mut next = 0;
        while let Some(parent) = gone.get(next).cloned() {
            gone.extend(table.children(&parent));
            next += 1;
        }
        for mount in &gone {
            table.remove(mount);
        }
        Ok(gone)
    }

    /// Moves a mount, with what is mounted in it, to cover `place`.
    ///
    /// # Errors
    ///
    /// As [`mount`](Self::mount); `EINVAL` if it is not mounted or is the root, `ELOOP` if the
    /// place is in it.
    pub fn move_mount(&self, mount: &Arc<Mount>, place: Place) -> Result<()> {
        {
            let mut table = self.table.write();
            if !table.has(mount) || Arc::ptr_eq(&table.root, mount) {
                return Err(Errno::EINVAL);
            }
            let mut above = Some(place.location.mount.clone());
            while let Some(at) = above {
                if Arc::ptr_eq(&at, mount) {
                    return Err(Errno::ELOOP);
                }
                above = at.place().map(|place| place.location.mount);
            }
            let is_directory = |inode: &Arc<dyn Inode>| inode.file_type() == FileType::Directory;
            if is_directory(&mount.root) != is_directory(&place.location.inode) {
                return Err(Errno::ENOTDIR);
            }
            table.remove(mount);
        }
        self.mount(mount, place)
    }

    /// What is mounted, in the order in which it was.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.table.read().mounts.clone()
    }

    /// The mounts that are seen at or below `location`, parents before those in them.
    pub fn mounts_below(&self, location: &Location) -> Vec<Arc<Mount>> {
        let table = self.table.read();
        let mut below = Vec::new();
        let is_in = |place: &Place| {
            let Location { mount, inode } = &place.location;
            if !Arc::ptr_eq(mount, &location.mount) {
                return false;
            }
            let entry = place.entry.as_ref();
            let mut at = Some(inode.clone());
            if inode.file_type() != FileType::Directory && !is_same(&**inode, &*location.inode) {
                at = entry.map(|entry| entry.directory.clone());
            }
            while let Some(inode) = at {
                if is_same(&*inode, &*location.inode) {
                    return true;
                }
                at = inode.parent();
            }
            false
        };
        for mount in table.children(&location.mount) {
            if mount.place().is_some_and(|place| is_in(&place)) {
                below.push(mount);
            }
        }
        let mut next = 0;
        while let Some(parent) = below.get(next).cloned() {
            below.extend(table.children(&parent));
            next += 1;
        }
        below
    }

    /// Whether `mount` is in the tree.
    pub fn has(&self, mount: &Arc<Mount>) -> bool {
        self.table.read().has(mount)
    }

    /// What is mounted on `location`, or that itself; and whether it was covered.
    #[inline]
    pub(super) fn uncover(&self, location: Location) -> (Location, bool) {
        if !location.inode.state().has_mounts() {
            return (location, false);
        }
        self.uncover_slowly(location)
    }

    fn uncover_slowly(&self, mut location: Location) -> (Location, bool) {
        let table = self.table.read();
        let mut is_covered = false;
        while let Some(mount) = table
            .points
            .get(&Point::of(&location.mount, &*location.inode))
        {
            location = mount.root_location();
            is_covered = true;
        }
        (location, is_covered)
    }

    /// The directory above `location`, for one whose root is `root`; a root is above itself.
    pub(super) fn parent_of(&self, location: &Location, root: &Location) -> Location {
        let mut below = location.clone();
        loop {
            if below.is_same(root) {
                return below;
            }
            if !below.is_mount_root() {
                break;
            }
            match below.mount.place() {
                Some(place) => below = place.location,
                None => return below,
            }
        }
        if let Some(parent) = below.inode.parent() {
            below.inode = parent;
        }
        self.uncover(below).0
    }

    /// Makes `file` what device files of that type and number open.
    pub fn add_device(&self, kind: FileType, number: DeviceNumber, file: Arc<dyn FileOps>) {
        let key = (kind.directory_type(), number);
        self.devices.write().insert(key, file);
    }

    /// What the device files of block devices open.
    pub fn block_devices(&self) -> Vec<Arc<dyn FileOps>> {
        let is_block = |kind: u8| kind == FileType::BlockDevice.directory_type();
        let devices = self.devices.read();
        let blocks = devices.iter().filter(|((kind, _), _)| is_block(*kind));
        blocks.map(|(_, file)| file.clone()).collect()
    }

    /// What a device file opens.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there is no such device.
    pub fn device(&self, kind: FileType, number: DeviceNumber) -> Result<Arc<dyn FileOps>> {
        let key = (kind.directory_type(), number);
        let devices = self.devices.read();
        devices.get(&key).cloned().ok_or(Errno::ENXIO)
    }
}

impl Table {
    fn has(&self, mount: &Arc<Mount>) -> bool {
        if Arc::ptr_eq(&self.root, mount) {
            return true;
        }
        let Some(place) = mount.place() else {
            return false;
        };
        let point = Point::of(&place.location.mount, &*place.location.inode);
        let found = self.points.get(&point);
        found.is_some_and(|found| Arc::ptr_eq(found, mount))
    }

    /// What is mounted in `parent`.
    fn children(&self, parent: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let is_child = |mount: &&Arc<Mount>| {
            let place = mount.place();
            place.is_some_and(|place| Arc::ptr_eq(&place.location.mount, parent))
        };
        self.mounts.iter().filter(is_child).cloned().collect()
    }

    fn remove(&mut self, mount: &Arc<Mount>) {
        if let Some(place) = mount.place() {
            let Location {
                mount: parent,
                inode,
            } = &place.location;
            self.points.remove(&Point::of(parent, &**inode));
            inode.state().note_mount(false);
        }
        mount.set_place(None);
        self.mounts.retain(|other| !Arc::ptr_eq(other, mount));
    }
}
