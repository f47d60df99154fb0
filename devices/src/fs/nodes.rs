//! The files that the guest has looked up: by number, with a bounded count of descriptors.
//!
//! A node has a descriptor (O_PATH) while there are few of them; the one that was used least lately is
//! closed for a new one. Then the node is opened again when it is needed, by the directory and name
//! where it was seen last, and must be the same file.

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_abi::linux::FUSE_ROOT_ID;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::host::{self, Wait};
use super::protocol::Result;
use super::share;

/// Most nodes of a share.
const MAX_NODES: usize = 1 << 20;
/// Names that are followed to open a node again.
const MAX_DEPTH: usize = 4096;
/// Nodes that are looked at to find one whose descriptor can be closed.
const EVICTION_TRIES: usize = 64;

/// What makes a file of the host the same as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    device: (u32, u32),
    mount: u64,
    inode: u64,
}

/// When the file was made: tells files apart that have had one inode number after the other.
type Birth = (i64, u32);

/// Where a node was seen last.
struct Place {
    directory: u64,
    name: Box<CStr>,
}

struct Node {
    key: Key,
    birth: Birth,
    kind: FileType,
    fd: Option<Arc<OwnedFd>>,
    /// Whether the descriptor was used since it was last looked at for eviction.
    is_used: bool,
    /// Whether `open_order` has it.
    is_listed: bool,
    /// It is in a file system of the kernel's own: an empty directory to the guest.
    is_hidden: bool,
    lookups: u64,
    /// Nodes that have their place in this one.
    children: u64,
    /// Open handles, which keep the descriptor.
    pins: u32,
    place: Option<Place>,
}

impl Node {
    fn can_be_closed(&self) -> bool {
        self.fd.is_some() && self.pins == 0 && self.place.is_some()
    }
}

/// A node as a request needs it.
#[derive(Clone)]
pub(super) struct Found {
    /// What names it, until dropped.
    pub(super) fd: Arc<OwnedFd>,
    /// What it is.
    pub(super) kind: FileType,
    /// Whether it is an empty directory to the guest, whatever the host has there.
    pub(super) is_hidden: bool,
    /// Whether it is on the device of the share's root.
    pub(super) is_on_root_device: bool,
}

struct Table {
    nodes: HashMap<u64, Node>,
    by_key: HashMap<Key, u64>,
    next: u64,
    /// Nodes that have or had a descriptor, in the order in which they are looked at for eviction.
    open_order: VecDeque<u64>,
    /// Descriptors that can be closed, and others.
    open: usize,
}

/// All nodes of a share.
pub(super) struct Nodes {
    table: Mutex<Table>,
    root_device: (u32, u32),
    /// Descriptors above which some are closed.
    max_open: usize,
}

fn key(status: &Statx) -> Key {
    Key {
        device: (status.stx_dev_major, status.stx_dev_minor),
        mount: status.stx_mnt_id,
        inode: status.stx_ino,
    }
}

fn birth(status: &Statx) -> Birth {
    match status.stx_mask & rustix::fs::StatxFlags::BTIME.bits() {
        0 => (0, 0),
        _ => (status.stx_btime.tv_sec, status.stx_btime.tv_nsec),
    }
}

fn kind(status: &Statx) -> FileType {
    FileType::from_raw_mode(status.stx_mode.into())
}

impl Nodes {
    /// The root alone, which `root` names; at most about `max_open` descriptors are held.
    ///
    /// # Errors
    ///
    /// Those of statx(2).
    pub(super) fn new(root: OwnedFd, max_open: usize) -> Result<Self> {
        let status = host::status(&root)?;
        let node = Node {
            key: key(&status),
            birth: birth(&status),
            kind: kind(&status),
            fd: Some(Arc::new(root)),
            is_used: true,
            is_listed: false,
            is_hidden: false,
            lookups: 1,
            children: 0,
            pins: 0,
            place: None,
        };
        let root_device = node.key.device;
        let mut table = Table {
            nodes: HashMap::new(),
            by_key: HashMap::from([(node.key, FUSE_ROOT_ID)]),
            next: FUSE_ROOT_ID + 1,
            open_order: VecDeque::new(),
            open: 1,
        };
        table.nodes.insert(FUSE_ROOT_ID, node);
        Ok(Self {
            table: Mutex::new(table),
            root_device,
            max_open,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all but the root.
    pub(super) fn clear(&self) {
        let mut table = self.lock();
        let root = table.nodes.remove(&FUSE_ROOT_ID);
        let old = std::mem::take(&mut table.nodes);
        table.by_key.clear();
        table.open_order.clear();
        table.open = 1;
        if let Some(mut root) = root {
            (root.children, root.pins) = (0, 0);
            table.by_key.insert(root.key, FUSE_ROOT_ID);
            table.nodes.insert(FUSE_ROOT_ID, root);
        }
        drop(table);
        // Many files are closed, and nobody waits for that with the lock.
        drop(old);
    }

    /// The node with number `id`, which the guest was given.
    ///
    /// # Errors
    ///
    /// ESTALE if there is none or another file has taken its place; EAGAIN if it must be opened again and
    /// that is to wait; else those of openat2(2) and statx(2).
    pub(super) fn find(&self, id: u64, wait: Wait) -> Result<Found> {
        let chain = {
            let mut table = self.lock();
            let node = table.nodes.get_mut(&id).ok_or(Errno::STALE)?;
            if node.lookups == 0 {
                return Err(Errno::STALE);
            }
            if let Some(found) = self.found(node) {
                return Ok(found);
            }
            if wait == Wait::No {
                return Err(Errno::AGAIN);
            }
            table.chain(id)?
        };
        self.open_again(chain)
    }

    fn found(&self, node: &mut Node) -> Option<Found> {
        let fd = node.fd.as_ref()?;
        node.is_used = true;
        Some(Found {
            fd: Arc::clone(fd),
            kind: node.kind,
            is_hidden: node.is_hidden,
            is_on_root_device: node.key.device == self.root_device,
        })
    }

    /// Opens the nodes of `chain`, each in the one before; gives the last.
    fn open_again(&self, chain: Vec<(u64, Option<Box<CStr>>)>) -> Result<Found> {
        let mut at: Option<Found> = None;
        for (id, name) in chain {
            let Some(name) = name else {
                let mut table = self.lock();
                let node = table.nodes.get_mut(&id).ok_or(Errno::STALE)?;
                at = Some(self.found(node).ok_or(Errno::STALE)?);
                continue;
            };
            let directory = at.take().ok_or(Errno::STALE)?;
            if directory.is_hidden {
                return Err(Errno::STALE);
            }
            let gone = |errno| match errno {
                Errno::NOENT | Errno::NOTDIR => Errno::STALE,
                errno => errno,
            };
            let fd = host::open_beneath(&directory.fd, &name, host::PATH, Wait::Yes);
            let fd = fd.map_err(gone)?;
            let status = host::status(&fd)?;
            let is_hidden = self.is_hidden(&fd, &status)?;
            let mut table = self.lock();
            let node = table.nodes.get_mut(&id).ok_or(Errno::STALE)?;
            if node.key != key(&status) || node.birth != birth(&status) {
                return Err(Errno::STALE);
            }
            node.is_hidden = is_hidden;
            let unneeded = table.adopt(id, fd);
            let node = table.nodes.get_mut(&id).ok_or(Errno::STALE)?;
            at = Some(self.found(node).ok_or(Errno::STALE)?);
            let evicted = table.evict(self.max_open);
            drop(table);
            drop((unneeded, evicted));
        }
        at.ok_or(Errno::STALE)
    }

    /// Whether the guest must not see what is in a directory.
    fn is_hidden(&self, fd: &OwnedFd, status: &Statx) -> Result<bool> {
        if (status.stx_dev_major, status.stx_dev_minor) == self.root_device {
            return Ok(false);
        }
        Ok(share::is_of_the_kernel(rustix::fs::fstatfs(fd)?.f_type))
    }

    /// Counts a look-up of the file with `status` as `name` in `directory`; `fd` names it, if somebody has
    /// opened it. Gives its number.
    ///
    /// # Errors
    ///
    /// ENFILE if there are too many nodes, ESTALE if the directory was forgotten meanwhile.
    pub(super) fn enter(
        &self,
        directory: u64,
        name: &CStr,
        status: &Statx,
        fd: Option<OwnedFd>,
    ) -> Result<u64> {
        let is_hidden = match &fd {
            Some(fd) => self.is_hidden(fd, status)?,
            None => false,
        };
        let (key, birth) = (key(status), birth(status));
        let mut table = self.lock();
        if !table.nodes.contains_key(&directory) {
            return Err(Errno::STALE);
        }
        let id = match table.same(key, birth) {
            Some(id) => id,
            None => table.insert(key, birth, kind(status))?,
        };
        let place = Place {
            directory,
            name: name.into(),
        };
        table.set_place(id, Some(place));
        let mut unneeded = None;
        if let Some(fd) = fd {
            unneeded = table.adopt(id, fd);
            if let Some(node) = table.nodes.get_mut(&id) {
                node.is_hidden = is_hidden;
            }
        }
        if let Some(node) = table.nodes.get_mut(&id) {
            node.lookups = node.lookups.saturating_add(1);
        }
        let evicted = table.evict(self.max_open);
        drop(table);
        drop((unneeded, evicted));
        Ok(id)
    }

    /// As [`enter`](Self::enter), for a file that has no name; its descriptor is kept.
    ///
    /// # Errors
    ///
    /// ENFILE.
    pub(super) fn enter_nameless(&self, status: &Statx, fd: OwnedFd) -> Result<u64> {
        let mut table = self.lock();
        let id = table.insert(key(status), birth(status), kind(status))?;
        let unneeded = table.adopt(id, fd);
        if let Some(node) = table.nodes.get_mut(&id) {
            node.lookups = 1;
        }
        drop(table);
        drop(unneeded);
        Ok(id)
    }

    /// Notes that the file with `status` is `name` in `directory` now, if it is a node.
    pub(super) fn moved(&self, directory: u64, name: &CStr, status: &Statx) {
        let mut table = self.lock();
        if !table.nodes.contains_key(&directory) {
            return;
        }
        if let Some(id) = table.same(key(status), birth(status)) {
            let place = Place {
                directory,
                name: name.into(),
            };
            table.set_place(id, Some(place));
        }
    }

    /// Takes `count` look-ups of node `id` back. The root stays.
    pub(super) fn forget(&self, id: u64, count: u64) {
        let mut table = self.lock();
        if id == FUSE_ROOT_ID {
            return;
        }
        if let Some(node) = table.nodes.get_mut(&id) {
            node.lookups = node.lookups.saturating_sub(count);
        }
        let removed = table.remove_unused(id);
        drop(table);
        drop(removed);
    }

    /// Keeps the descriptor of node `id` until [`unpin`](Self::unpin).
    ///
    /// # Errors
    ///
    /// ESTALE if there is no such node.
    pub(super) fn pin(&self, id: u64) -> Result<()> {
        let mut table = self.lock();
        let node = table.nodes.get_mut(&id).ok_or(Errno::STALE)?;
        node.pins = node.pins.saturating_add(1);
        Ok(())
    }

    /// Undoes one [`pin`](Self::pin); whether it was the last.
    pub(super) fn unpin(&self, id: u64) -> bool {
        let mut table = self.lock();
        let Some(node) = table.nodes.get_mut(&id) else {
            return true;
        };
        node.pins = node.pins.saturating_sub(1);
        let is_last = node.pins == 0;
        if node.can_be_closed() && !node.is_listed {
            node.is_listed = true;
            table.open_order.push_back(id);
        }
        let removed = table.remove_unused(id);
        let evicted = table.evict(self.max_open);
        drop(table);
        drop((removed, evicted));
        is_last
    }

    /// Whether node `id` is mounted on the host: it has another device than its directory.
    pub(super) fn is_mount(&self, id: u64) -> bool {
        let table = self.lock();
        let Some(node) = table.nodes.get(&id) else {
            return false;
        };
        let directory = node.place.as_ref().map(|place| place.directory);
        let directory = directory.and_then(|directory| table.nodes.get(&directory));
        directory.is_some_and(|directory| directory.key.device != node.key.device)
    }

    /// Nodes, and descriptors that they hold.
    #[cfg(any(test, fuzzing))]
    pub(super) fn counts(&self) -> (usize, usize) {
        let table = self.lock();
        (table.nodes.len(), table.open)
    }
}

impl Table {
    /// The node of the same file.
    fn same(&self, key: Key, birth: Birth) -> Option<u64> {
        let id = *self.by_key.get(&key)?;
        let node = self.nodes.get(&id)?;
        // While it is open, its inode number is nobody else's.
        (node.fd.is_some() || node.birth == birth).then_some(id)
    }

    fn insert(&mut self, key: Key, birth: Birth, kind: FileType) -> Result<u64> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Errno::NFILE);
        }
        let id = self.next;
        self.next += 1;
        let node = Node {
            key,
            birth,
            kind,
            fd: None,
            is_used: false,
            is_listed: false,
            is_hidden: false,
            lookups: 0,
            children: 0,
            pins: 0,
            place: None,
        };
        self.nodes.insert(id, node);
        self.by_key.insert(key, id);
        Ok(id)
    }

    /// Gives node `id` the descriptor, unless it has one; gives back what is not needed.
    fn adopt(&mut self, id: u64, fd: OwnedFd) -> Option<OwnedFd> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Some(fd);
        };
        if node.fd.is_some() {
            node.is_used = true;
            return Some(fd);
        }
        node.fd = Some(Arc::new(fd));
        node.is_used = false;
        self.open += 1;
        if !node.is_listed {
            node.is_listed = true;
            self.open_order.push_back(id);
        }
        None
    }

    /// Closes descriptors until there are `max` at most, if some can be closed; gives them.
    fn evict(&mut self, max: usize) -> Vec<Arc<OwnedFd>> {
        let mut evicted = Vec::new();
        for _ in 0..EVICTION_TRIES {
            if self.open <= max {
                break;
            }
            let Some(id) = self.open_order.pop_front() else {
                break;
            };
            let Some(node) = self.nodes.get_mut(&id) else {
                continue;
            };
            if !node.can_be_closed() {
                // What keeps it puts it back.
                node.is_listed = false;
            } else if std::mem::take(&mut node.is_used) {
                self.open_order.push_back(id);
            } else {
                node.is_listed = false;
                evicted.extend(node.fd.take());
                self.open -= 1;
            }
        }
        evicted
    }

    fn set_place(&mut self, id: u64, place: Option<Place>) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        // The root has none: it can be seen below itself where the host has it mounted.
        if id == FUSE_ROOT_ID {
            return;
        }
        let new = place.as_ref().map(|place| place.directory);
        let old = std::mem::replace(&mut node.place, place).map(|place| place.directory);
        // One that had no name can be closed from now on.
        if node.can_be_closed() && !node.is_listed {
            node.is_listed = true;
            self.open_order.push_back(id);
        }
        if new == old {
            return;
        }
        if let Some(directory) = new.and_then(|id| self.nodes.get_mut(&id)) {
            directory.children += 1;
        }
        if let Some(old) = old {
            if let Some(directory) = self.nodes.get_mut(&old) {
                directory.children -= 1;
            }
            drop(self.remove_unused(old));
        }
    }

    /// Removes node `id` if nothing needs it, and then its directory if that was the last to need it,
    /// and so on; gives the descriptors.
    fn remove_unused(&mut self, id: u64) -> Vec<Arc<OwnedFd>> {
        let mut removed = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next.take() {
            let is_unused = |node: &Node| node.lookups == 0 && node.children == 0 && node.pins == 0;
            if id == FUSE_ROOT_ID || !self.nodes.get(&id).is_some_and(is_unused) {
                break;
            }
            let Some(node) = self.nodes.remove(&id) else {
                break;
            };
            // Another may have its key since, if the inode number has a new file.
            if self.by_key.get(&node.key) == Some(&id) {
                self.by_key.remove(&node.key);
            }
            if let Some(fd) = node.fd {
                self.open -= 1;
                removed.push(fd);
            }
            let directory = node.place.map(|place| place.directory);
            if let Some(parent) = directory.and_then(|id| self.nodes.get_mut(&id)) {
                parent.children -= 1;
            }
            next = directory;
        }
        self.shrink_order();
        removed
    }

    /// Drops what is left of removed nodes from the order, when it is more than the nodes.
    fn shrink_order(&mut self) {
        if self.open_order.len() > 2 * self.nodes.len() + EVICTION_TRIES {
            let nodes = &self.nodes;
            self.open_order.retain(|id| nodes.contains_key(id));
        }
    }

    /// From the first ancestor of `id` that is open, without a name, down to `id`, with names.
    fn chain(&self, id: u64) -> Result<Vec<(u64, Option<Box<CStr>>)>> {
        let mut chain = Vec::new();
        let mut at = id;
        loop {
            let node = self.nodes.get(&at).ok_or(Errno::STALE)?;
            if node.fd.is_some() {
                chain.push((at, None));
                chain.reverse();
                return Ok(chain);
            }
            let place = node.place.as_ref().ok_or(Errno::STALE)?;
            if chain.len() >= MAX_DEPTH {
                return Err(Errno::STALE);
            }
            chain.push((at, Some(place.name.clone())));
            at = place.directory;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use vmm_sys_util::tempdir::TempDir;

    fn nodes(dir: &TempDir, max_open: usize) -> Nodes {
        let root = rustix::fs::openat(
            rustix::fs::CWD,
            dir.as_path(),
            rustix::fs::OFlags::PATH,
            rustix::fs::Mode::empty(),
        );
        Nodes::new(root.unwrap(), max_open).unwrap()
    }

    fn look_up(nodes: &Nodes, directory: u64, name: &CStr) -> Result<u64> {
        let parent = nodes.find(directory, Wait::Yes)?;
        let fd = host::open_beneath(&parent.fd, name, host::PATH, Wait::Yes)?;
        let status = host::status(&fd)?;
        nodes.enter(directory, name, &status, Some(fd))
    }

    fn name(number: usize) -> std::ffi::CString {
        std::ffi::CString::new(number.to_string()).unwrap()
    }

    #[test]
    fn descriptors_are_bounded_and_nodes_stay() {
        let dir = TempDir::new().unwrap();
        let nodes = nodes(&dir, 10);
        let ids: Vec<_> = (0..100)
            .map(|number| {
                fs::write(dir.as_path().join(number.to_string()), "").unwrap();
                look_up(&nodes, 1, &name(number)).unwrap()
            })
            .collect();
        assert_eq!(nodes.counts().0, 101);
        assert!(nodes.counts().1 <= 11, "{:?}", nodes.counts());
        for id in &ids {
            assert!(nodes.find(*id, Wait::Yes).is_ok());
        }
        for id in ids {
            nodes.forget(id, 1);
            assert_eq!(nodes.find(id, Wait::Yes).err(), Some(Errno::STALE));
        }
        assert_eq!(nodes.counts(), (1, 1));
    }

    #[test]
    fn a_closed_node_must_be_the_same_file_again() {
        let dir = TempDir::new().unwrap();
        let nodes = nodes(&dir, 1);
        fs::create_dir(dir.as_path().join("a")).unwrap();
        fs::write(dir.as_path().join("a/b"), "").unwrap();
        fs::write(dir.as_path().join("c"), "").unwrap();
        let a = look_up(&nodes, 1, c"a").unwrap();
        let b = look_up(&nodes, a, c"b").unwrap();
        for _ in 0..4 {
            look_up(&nodes, 1, c"c").unwrap();
        }
        assert!(nodes.find(b, Wait::Yes).is_ok());
        for _ in 0..4 {
            look_up(&nodes, 1, c"c").unwrap();
        }
        assert_eq!(nodes.find(b, Wait::No).err(), Some(Errno::AGAIN));
        // Another file, and a link, in its place.
        fs::remove_file(dir.as_path().join("a/b")).unwrap();
        assert_eq!(nodes.find(b, Wait::Yes).err(), Some(Errno::STALE));
        fs::write(dir.as_path().join("a/new"), "").unwrap();
        fs::rename(dir.as_path().join("a/new"), dir.as_path().join("a/b")).unwrap();
        assert_eq!(nodes.find(b, Wait::Yes).err(), Some(Errno::STALE));
        fs::remove_file(dir.as_path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.as_path().join("a/b")).unwrap();
        assert_eq!(nodes.find(b, Wait::Yes).err(), Some(Errno::STALE));
    }

    #[test]
    fn directories_stay_while_their_nodes_do() {
        let dir = TempDir::new().unwrap();
        let nodes = nodes(&dir, 100);
        fs::create_dir_all(dir.as_path().join("a/b")).unwrap();
        let a = look_up(&nodes, 1, c"a").unwrap();
        let b = look_up(&nodes, a, c"b").unwrap();
        nodes.forget(a, u64::MAX);
        assert_eq!(nodes.find(a, Wait::Yes).err(), Some(Errno::STALE));
        assert_eq!(nodes.counts().0, 3);
        nodes.forget(b, 1);
        assert_eq!(nodes.counts(), (1, 1));
        nodes.forget(1, u64::MAX);
        assert!(nodes.find(1, Wait::Yes).is_ok());
    }

    #[test]
    fn a_chain_that_the_host_has_closed_ends() {
        let dir = TempDir::new().unwrap();
        let nodes = nodes(&dir, 3);
        fs::create_dir_all(dir.as_path().join("a/b")).unwrap();
        let a = look_up(&nodes, 1, c"a").unwrap();
        let b = look_up(&nodes, a, c"b").unwrap();
        fs::rename(dir.as_path().join("a/b"), dir.as_path().join("b")).unwrap();
        fs::rename(dir.as_path().join("a"), dir.as_path().join("b/a")).unwrap();
        assert_eq!(look_up(&nodes, b, c"a"), Ok(a));
        for number in 0..10 {
            fs::write(dir.as_path().join(number.to_string()), "").unwrap();
            look_up(&nodes, 1, &name(number)).unwrap();
        }
        assert_eq!(nodes.find(a, Wait::Yes).err(), Some(Errno::STALE));
    }
}
