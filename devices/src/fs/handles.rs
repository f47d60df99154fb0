//! What the guest has open: files and directories by number.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::protocol::Result;

/// Descriptors that handles and locks may have.
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    /// As many as `max`.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            max,
        })
    }

    /// Takes one, until the result is dropped.
    ///
    /// # Errors
    ///
    /// ENFILE if there is none left.
    pub(super) fn take(self: &Arc<Self>) -> Result<Charge> {
        let more = |used| (used < self.max).then_some(used + 1);
        match self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
        {
            Ok(_) => Ok(Charge(Arc::clone(self))),
            Err(_) => Err(Errno::NFILE),
        }
    }
}

/// A descriptor of the budget.
pub(super) struct Charge(Arc<Budget>);

impl Drop for Charge {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An open file.
pub(super) struct OpenFile {
    pub(super) fd: OwnedFd,
    /// Its node.
    pub(super) node: u64,
    pub(super) _charge: Charge,
}

/// An open directory. Its lock is held while entries are read.
pub(super) struct OpenDirectory {
    /// `None` for one that is empty to the guest.
    pub(super) fd: Option<OwnedFd>,
    /// Its node.
    pub(super) node: u64,
    /// Where the host goes on to read, if that is known.
    pub(super) position: Mutex<Option<u64>>,
    pub(super) _charge: Charge,
}

#[derive(Clone)]
enum Handle {
    File(Arc<OpenFile>),
    Directory(Arc<OpenDirectory>),
}

#[derive(Default)]
struct Table {
    handles: HashMap<u64, Handle>,
    last: u64,
}

/// All handles of a share. No number is ever given twice.
#[derive(Default)]
pub(super) struct Handles {
    table: Mutex<Table>,
}

impl Handles {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, handle: Handle) -> u64 {
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        table.handles.insert(number, handle);
        number
    }

    /// Gives a file a number.
    pub(super) fn insert_file(&self, file: OpenFile) -> u64 {
        self.insert(Handle::File(Arc::new(file)))
    }

    /// Gives a directory a number.
    pub(super) fn insert_directory(&self, directory: OpenDirectory) -> u64 {
        self.insert(Handle::Directory(Arc::new(directory)))
    }

    /// The open file with this number.
    ///
    /// # Errors
    ///
    /// EBADF if there is none.
    pub(super) fn file(&self, number: u64) -> Result<Arc<OpenFile>> {
        match self.lock().handles.get(&number) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
            _ => Err(Errno::BADF),
        }
    }

    /// The open directory with this number.
    ///
    /// # Errors
    ///
    /// EBADF if there is none.
    pub(super) fn directory(&self, number: u64) -> Result<Arc<OpenDirectory>> {
        match self.lock().handles.get(&number) {
            Some(Handle::Directory(directory)) => Ok(Arc::clone(directory)),
            _ => Err(Errno::BADF),
        }
    }

    /// Takes the file with this number out; it is closed when nobody uses it any more.
    ///
    /// # Errors
    ///
    /// EBADF if there is none.
    pub(super) fn remove_file(&self, number: u64) -> Result<Arc<OpenFile>> {
        let mut table = self.lock();
        let file = match table.handles.get(&number) {
            Some(Handle::File(file)) => Arc::clone(file),
            _ => return Err(Errno::BADF),
        };
        table.handles.remove(&number);
        Ok(file)
    }

    /// As [`remove_file`](Self::remove_file), for a directory.
    ///
    /// # Errors
    ///
    /// EBADF if there is none.
    pub(super) fn remove_directory(&self, number: u64) -> Result<Arc<OpenDirectory>> {
        let mut table = self.lock();
        let directory = match table.handles.get(&number) {
            Some(Handle::Directory(directory)) => Arc::clone(directory),
            _ => return Err(Errno::BADF),
        };
        table.handles.remove(&number);
        Ok(directory)
    }

    /// Takes all out.
    pub(super) fn clear(&self) {
        let old = std::mem::take(&mut self.lock().handles);
        drop(old);
    }
}
