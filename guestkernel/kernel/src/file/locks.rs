//! Advisory locks: of whole files (`flock(2)`) and of ranges (`fcntl_locking(2)`). The two kinds
//! do not see each other.

use super::OpenFile;
use crate::error::{Errno, Result};
use crate::executor::WaitQueue;
use crate::globals::global;
use crate::heap;
use crate::mm::AddressSpace;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::Poll;
use linux_raw_sys::general as raw;
use machine::lock::Mutex;

/// Whether others may have a lock too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Others may have a shared lock.
    Shared,
    /// Nobody else has one.
    Exclusive,
}

/// Who has a lock on a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOwner {
    /// The process (`F_SETLK`).
    Process(u32),
    /// The open file description (`F_OFD_SETLK`).
    Description,
}

/// A lock that somebody holds. Files and descriptions are told apart by their addresses, which
/// stay theirs as long as the lock: the description that was used is open until then.
#[derive(Clone, Copy)]
struct HeldLock {
    file: usize,
    description: usize,
    owner: LockOwner,
    mode: LockMode,
    /// First and last byte.
    start: u64,
    last: u64,
}

impl HeldLock {
    fn is_owned_by(&self, other: &Self) -> bool {
        self.owner == other.owner
            && (self.owner != LockOwner::Description || self.description == other.description)
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.file == other.file
            && !self.is_owned_by(other)
            && self.start <= other.last
            && other.start <= self.last
            && (self.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive)
    }
}

#[derive(Default)]
struct Locks {
    files: Vec<HeldLock>,
    ranges: Vec<HeldLock>,
}

global! {
    static LOCKS: Mutex<Locks> = Mutex::new(Locks {
        files: Vec::new(),
        ranges: Vec::new(),
    });
}

global! {
    /// Those who wait for a lock to be released.
    static CHANGES: WaitQueue = WaitQueue::new();
}

fn held(file: &OpenFile, owner: LockOwner, mode: LockMode, start: u64, last: u64) -> HeldLock {
    let address = match file.inode() {
        Some(inode) => Arc::as_ptr(inode).cast::<()>() as usize,
        None => Arc::as_ptr(&file.ops).cast::<()>() as usize,
    };
    HeldLock {
        file: address,
        description: core::ptr::from_ref(file) as usize,
        owner,
        mode,
        start,
        last,
    }
}

/// Locks a whole file, or unlocks it (`None`).
///
/// # Errors
///
/// `EAGAIN` if somebody else's lock is in the way; the old lock is gone then, as on Linux.
pub fn lock_file(file: &OpenFile, mode: Option<LockMode>) -> Result<()> {
    let mut locks = LOCKS.lock();
    let new = held(
        file,
        LockOwner::Description,
        mode.unwrap_or(LockMode::Shared),
        0,
        u64::MAX,
    );
    locks
        .files
        .retain(|lock| lock.file != new.file || !lock.is_owned_by(&new));
    let result = match mode {
        Some(_) if locks.files.iter().any(|lock| lock.conflicts(&new)) => Err(Errno::EAGAIN),
        Some(_) => {
            file.note_lock();
            locks.files.push(new);
            Ok(())
        }
        None => Ok(()),
    };
    drop(locks);
    CHANGES.wake_all();
    result
}

/// As [`lock_file`], but waits until nobody's lock is in the way.
pub async fn lock_file_waiting(file: &OpenFile, mode: Option<LockMode>) {
    poll_fn(|context| {
        if lock_file(file, mode).is_ok() {
            return Poll::Ready(());
        }
        CHANGES.register(context.waker());
        match lock_file(file, mode) {
            Ok(()) => Poll::Ready(()),
            Err(_) => Poll::Pending,
        }
    })
    .await;
}

/// Gives up all locks that belong to the description, which is closed.
pub(super) fn release_description(file: &OpenFile) {
    let address = core::ptr::from_ref(file) as usize;
    let mut locks = LOCKS.lock();
    locks.files.retain(|lock| lock.description != address);
    locks.ranges.retain(|lock| lock.description != address);
    drop(locks);
    CHANGES.wake_all();
}

/// Gives up the locks of the process `owner` on ranges of the file, of which it closes a descriptor.
pub(crate) fn release_process(file: &OpenFile, owner: u32) {
    let mut locks = LOCKS.lock();
    if locks.ranges.is_empty() {
        return;
    }
    let any = held(file, LockOwner::Description, LockMode::Shared, 0, u64::MAX);
    locks
        .ranges
        .retain(|lock| lock.file != any.file || lock.owner != LockOwner::Process(owner));
    drop(locks);
    CHANGES.wake_all();
}

/// A `struct flock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLock {
    /// `None` unlocks.
    mode: Option<LockMode>,
    start: u64,
    last: u64,
    /// As the program gave it, or who is in the way.
    pub pid: i32,
    /// The bytes as the program gave them.
    raw: [u8; SIZE],
    is_changed: bool,
}

/// Bytes of a `struct flock`.
const SIZE: usize = size_of::<raw::flock>();

impl RangeLock {
    /// Reads the one at `address`; positions may be relative to those of `file`.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EINVAL`, `EOVERFLOW`.
    pub async fn read(space: &AddressSpace, address: u64, file: &OpenFile) -> Result<Self> {
        let mut raw = [0; SIZE];
        space.read(address, &mut raw)?;
        let short = |at: usize| u32::from(u16::from_ne_bytes([raw[at], raw[at + 1]]));
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&raw[at..at + 8]);
            i64::from_ne_bytes(bytes)
        };
        let mode = match short(0) {
            raw::F_RDLCK => Some(LockMode::Shared),
            raw::F_WRLCK => Some(LockMode::Exclusive),
            raw::F_UNLCK => None,
            _ => return Err(Errno::EINVAL),
        };
        let base = match short(2) {
            raw::SEEK_SET => 0,
            raw::SEEK_CUR => file.position() as i64,
            raw::SEEK_END => file.ops.size().await? as i64,
            _ => return Err(Errno::EINVAL),
        };
        let start = base.checked_add(long(8)).ok_or(Errno::EOVERFLOW)?;
        // A negative length means the bytes before the start.
        let (start, last) = match long(16) {
            0 => (start, i64::MAX),
            length @ 1.. => (
                start,
                start.checked_add(length - 1).ok_or(Errno::EOVERFLOW)?,
            ),
            length => (start.checked_add(length).ok_or(Errno::EINVAL)?, start - 1),
        };
        let pid = long(24) as i32;
        Ok(Self {
            mode,
            start: u64::try_from(start).map_err(|_| Errno::EINVAL)?,
            last: if last == i64::MAX {
                u64::MAX
            } else {
                last as u64
            },
            pid,
            raw,
            is_changed: false,
        })
    }

    /// Stores it at `address`, after [`test`](Self::test).
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn write(&self, space: &AddressSpace, address: u64) -> Result<()> {
        let mut raw = self.raw;
        let kind = match self.mode {
            Some(LockMode::Shared) => raw::F_RDLCK,
            Some(LockMode::Exclusive) => raw::F_WRLCK,
            None => raw::F_UNLCK,
        };
        raw[..2].copy_from_slice(&(kind as u16).to_ne_bytes());
        if self.is_changed {
            let length = match self.last {
                u64::MAX => 0,
                last => last - self.start + 1,
            };
            raw[2..4].copy_from_slice(&(raw::SEEK_SET as u16).to_ne_bytes());
            raw[8..16].copy_from_slice(&self.start.to_ne_bytes());
            raw[16..24].copy_from_slice(&length.to_ne_bytes());
            raw[24..28].copy_from_slice(&self.pid.to_ne_bytes());
        }
        space.write(address, &raw)
    }

    fn held(&self, file: &OpenFile, owner: LockOwner) -> HeldLock {
        let mode = self.mode.unwrap_or(LockMode::Exclusive);
        held(file, owner, mode, self.start, self.last)
    }

    /// Becomes the first lock that is in its way, or unlocked if there is none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is to unlock.
    pub fn test(&mut self, file: &OpenFile, owner: LockOwner) -> Result<()> {
        if self.mode.is_none() {
            return Err(Errno::EINVAL);
        }
        let new = self.held(file, owner);
        let locks = LOCKS.lock();
        match locks.ranges.iter().find(|lock| lock.conflicts(&new)) {
            None => self.mode = None,
            Some(lock) => {
                self.mode = Some(lock.mode);
                (self.start, self.last) = (lock.start, lock.last);
                self.pid = match lock.owner {
                    LockOwner::Process(pid) => pid as i32,
                    LockOwner::Description => -1,
                };
                self.is_changed = true;
            }
        }
        Ok(())
    }

    /// Locks or unlocks the range.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if somebody else's lock is in the way; `EBADF` if the file was not opened for
    /// what the lock is for; `ENOLCK` if there are too many.
    pub fn set(&self, file: &OpenFile, owner: LockOwner) -> Result<()> {
        let is_allowed = match self.mode {
            Some(LockMode::Shared) => file.flags().can_read(),
            Some(LockMode::Exclusive) => file.flags().can_write(),
            None => true,
        };
        if !is_allowed {
            return Err(Errno::EBADF);
        }
        let new = self.held(file, owner);
        let mut locks = LOCKS.lock();
        if self.mode.is_some() && locks.ranges.iter().any(|lock| lock.conflicts(&new)) {
            return Err(Errno::EAGAIN);
        }
        // One lock may be cut in two by the new one, and the list is copied where it grows.
        let bytes = 2 * size_of_val(locks.ranges.as_slice());
        heap::check(bytes).map_err(|_| Errno::ENOLCK)?;
        locks.ranges.try_reserve(2).map_err(|_| Errno::ENOLCK)?;
        let mut rest = Vec::new();
        locks.ranges.retain(|lock| {
            let is_replaced = lock.file == new.file
                && lock.is_owned_by(&new)
                && lock.start <= new.last
                && new.start <= lock.last;
            if is_replaced {
                // What lies outside the new range stays as it is.
                if lock.start < new.start {
                    rest.push(HeldLock {
                        last: new.start - 1,
                        ..*lock
                    });
                }
                if lock.last > new.last {
                    rest.push(HeldLock {
                        start: new.last + 1,
                        ..*lock
                    });
                }
            }
            !is_replaced
        });
        locks.ranges.append(&mut rest);
        if self.mode.is_some() {
            file.note_lock();
            locks.ranges.push(new);
        }
        drop(locks);
        CHANGES.wake_all();
        Ok(())
    }

    /// As [`set`](Self::set), but waits until nobody's lock is in the way.
    ///
    /// # Errors
    ///
    /// `EBADF`, `ENOLCK`.
    pub async fn set_waiting(&self, file: &OpenFile, owner: LockOwner) -> Result<()> {
        poll_fn(|context| {
            CHANGES.register(context.waker());
            match self.set(file, owner) {
                Err(Errno::EAGAIN) => Poll::Pending,
                result => Poll::Ready(result),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{FileOps, OpenFlags};

    struct Nothing(#[expect(dead_code, reason = "so that each has an address of its own")] u8);
    impl FileOps for Nothing {}

    fn two_descriptions() -> (Arc<OpenFile>, Arc<OpenFile>) {
        let file: Arc<dyn FileOps> = Arc::new(Nothing(0));
        let open = || OpenFile::new(file.clone(), OpenFlags::READ_WRITE);
        (open(), open())
    }

    fn range(mode: Option<LockMode>, start: u64, last: u64) -> RangeLock {
        RangeLock {
            mode,
            start,
            last,
            pid: 0,
            raw: [0; SIZE],
            is_changed: false,
        }
    }

    #[test]
    fn a_whole_file_is_locked_by_one_or_shared_by_many() {
        let (one, other) = two_descriptions();
        lock_file(&one, Some(LockMode::Shared)).unwrap();
        lock_file(&other, Some(LockMode::Shared)).unwrap();
        assert_eq!(
            lock_file(&one, Some(LockMode::Exclusive)),
            Err(Errno::EAGAIN)
        );
        drop(other);
        lock_file(&one, Some(LockMode::Exclusive)).unwrap();
        lock_file(&one, None).unwrap();
    }

    #[test]
    fn ranges_conflict_only_where_they_overlap() {
        let (one, other) = two_descriptions();
        let owner = LockOwner::Description;
        range(Some(LockMode::Exclusive), 0, 99)
            .set(&one, owner)
            .unwrap();
        assert_eq!(
            range(Some(LockMode::Shared), 99, 99).set(&other, owner),
            Err(Errno::EAGAIN)
        );
        range(Some(LockMode::Exclusive), 100, u64::MAX)
            .set(&other, owner)
            .unwrap();
        // A hole is cut into the first one.
        range(None, 10, 19).set(&one, owner).unwrap();
        range(Some(LockMode::Exclusive), 10, 19)
            .set(&other, owner)
            .unwrap();
        let mut asked = range(Some(LockMode::Shared), 0, 15);
        asked.test(&other, owner).unwrap();
        assert_eq!(
            (asked.mode, asked.start, asked.last, asked.pid),
            (Some(LockMode::Exclusive), 0, 9, -1)
        );
        drop(one);
        asked = range(Some(LockMode::Shared), 0, 15);
        asked.test(&other, owner).unwrap();
        assert_eq!(asked.mode, None);
    }

    #[test]
    fn locks_leave_a_part_of_the_heap() {
        let (one, other) = two_descriptions();
        let owner = LockOwner::Description;
        let lock = range(Some(LockMode::Exclusive), 0, 9);
        lock.set(&one, owner).unwrap();
        let next = range(Some(LockMode::Exclusive), 20, 29);
        let result = crate::heap::exhausted(|| next.set(&other, owner));
        assert_eq!(result, Err(Errno::ENOLCK));
        next.set(&other, owner).unwrap();
    }

    #[test]
    fn a_process_is_never_in_its_own_way() {
        let (one, other) = two_descriptions();
        let owner = LockOwner::Process(1);
        range(Some(LockMode::Exclusive), 0, 9)
            .set(&one, owner)
            .unwrap();
        range(Some(LockMode::Exclusive), 0, 9)
            .set(&other, owner)
            .unwrap();
        assert_eq!(
            range(Some(LockMode::Shared), 5, 5).set(&one, LockOwner::Description),
            Err(Errno::EAGAIN)
        );
        release_process(&other, 1);
        range(Some(LockMode::Shared), 5, 5)
            .set(&one, LockOwner::Description)
            .unwrap();
    }
}
