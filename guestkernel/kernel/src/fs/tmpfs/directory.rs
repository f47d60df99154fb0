//! The names in a directory.

use super::TmpfsInode;
use crate::error::{Errno, Result};
use crate::file::{DirEntry, DirectorySink};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashMap;
use machine::lock::Mutex;

/// The place of the first entry after `.` and `..`.
const FIRST_PLACE: u64 = 2;

/// A directory. Its names change only under the file system's `tree` lock.
#[derive(Default)]
pub(super) struct Directory {
    names: Mutex<Names>,
    /// The directory it is or was in; `None` for the root of the file system.
    parent: Mutex<Option<Arc<TmpfsInode>>>,
}

struct Entry {
    name: Arc<[u8]>,
    inode: Arc<TmpfsInode>,
}

#[derive(Default)]
struct Names {
    /// The place of each name.
    places: HashMap<Arc<[u8]>, u64>,
    /// Entries in the order in which they were made. A place is never used again, so that a
    /// listing that is under way misses nothing and repeats nothing.
    entries: BTreeMap<u64, Entry>,
    next_place: u64,
    is_removed: bool,
}

impl Directory {
    pub(super) fn new(parent: Option<Arc<TmpfsInode>>) -> Self {
        Self {
            parent: Mutex::new(parent),
            ..Self::default()
        }
    }

    pub(super) fn parent(&self) -> Option<Arc<TmpfsInode>> {
        self.parent.lock().clone()
    }

    /// Forgets which directory it is in, as it is dropped.
    pub(super) fn take_parent(&self) -> Option<Arc<TmpfsInode>> {
        self.parent.lock().take()
    }

    pub(super) fn set_parent(&self, parent: Arc<TmpfsInode>) {
        *self.parent.lock() = Some(parent);
    }

    pub(super) fn len(&self) -> usize {
        self.names.lock().entries.len()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<Arc<TmpfsInode>> {
        let names = self.names.lock();
        let place = names.places.get(name)?;
        names.entries.get(place).map(|entry| entry.inode.clone())
    }

    /// Fails with `ENOENT` if the directory was removed: nothing can be made in it.
    pub(super) fn check_alive(&self) -> Result<()> {
        match self.names.lock().is_removed {
            true => Err(Errno::ENOENT),
            false => Ok(()),
        }
    }

    /// Marks it as removed, unless there are names in it: `ENOTEMPTY`.
    pub(super) fn remove(&self) -> Result<()> {
        let mut names = self.names.lock();
        if !names.entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        names.is_removed = true;
        Ok(())
    }

    /// Adds an entry, or makes an existing one refer to `inode`.
    pub(super) fn set(&self, name: &[u8], inode: Arc<TmpfsInode>) {
        let mut names = self.names.lock();
        let names = &mut *names;
        if let Some(place) = names.places.get(name)
            && let Some(entry) = names.entries.get_mut(place)
        {
            entry.inode = inode;
            return;
        }
        let place = names.next_place.max(FIRST_PLACE);
        names.next_place = place + 1;
        let name: Arc<[u8]> = name.into();
        names.places.insert(name.clone(), place);
        names.entries.insert(place, Entry { name, inode });
    }

    pub(super) fn take(&self, name: &[u8]) -> Option<Arc<TmpfsInode>> {
        let mut names = self.names.lock();
        let place = names.places.remove(name)?;
        names.entries.remove(&place).map(|entry| entry.inode)
    }

    /// All entries.
    pub(super) fn all(&self) -> Vec<(Vec<u8>, Arc<TmpfsInode>)> {
        let names = self.names.lock();
        let entries = names.entries.values();
        entries
            .map(|entry| (entry.name.to_vec(), entry.inode.clone()))
            .collect()
    }

    /// Takes all entries out.
    pub(super) fn take_all(&self) -> Vec<Arc<TmpfsInode>> {
        let mut names = self.names.lock();
        names.places.clear();
        let entries = core::mem::take(&mut names.entries);
        entries.into_values().map(|entry| entry.inode).collect()
    }

    pub(super) fn name_of(&self, child: &TmpfsInode) -> Option<Vec<u8>> {
        let names = self.names.lock();
        let mut entries = names.entries.values();
        let entry = entries.find(|entry| core::ptr::eq(&*entry.inode, child))?;
        Some(entry.name.to_vec())
    }

    /// Lists from `position` on: 0 is `.`, 1 is `..`, others are places.
    pub(super) fn list(&self, me: &TmpfsInode, position: u64, sink: &mut DirectorySink<'_>) -> u64 {
        const DIRECTORY: u8 = linux_raw_sys::general::DT_DIR as u8;
        let mut position = position;
        if position == 0 {
            let entry = DirEntry {
                name: b".",
                inode: me.number(),
                kind: DIRECTORY,
                next: 1,
            };
            if !sink(&entry) {
                return position;
            }
            position = 1;
        }
        if position == 1 {
            let parent = self.parent();
            let entry = DirEntry {
                name: b"..",
                inode: parent.as_deref().unwrap_or(me).number(),
                kind: DIRECTORY,
                next: FIRST_PLACE,
            };
            if !sink(&entry) {
                return position;
            }
            position = FIRST_PLACE;
        }
        for (place, entry) in self.names.lock().entries.range(position..) {
            let next = place + 1;
            let listed = DirEntry {
                name: &entry.name,
                inode: entry.inode.number(),
                kind: entry.inode.kind().directory_type(),
                next,
            };
            if !sink(&listed) {
                break;
            }
            position = next;
        }
        position
    }
}
