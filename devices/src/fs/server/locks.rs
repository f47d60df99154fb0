//! Locks: GETLK, SETLK, SETLKW.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_abi::linux::{FUSE_LK_FLOCK, fuse_file_lock, fuse_lk_in, fuse_lk_out};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::{Server, Wait};
use crate::fs::handles::Charge;
use crate::fs::host::{self, Range};
use crate::fs::protocol::{Reply, Request, Result, take};

/// The end of a lock that has none (`OFFSET_MAX`).
const END: u64 = i64::MAX as u64;

/// The open file that holds what one owner has locked of a node.
struct Holder {
    fd: OwnedFd,
    _charge: Charge,
}

impl Drop for Holder {
    fn drop(&mut self) {
        // A process that is just being started may have the descriptor for a moment, and so the locks.
        let all = Range { start: 0, len: 0 };
        let _ = host::set_lock(&self.fd, libc::F_UNLCK as u32, all);
    }
}

/// The holders by node and owner.
#[derive(Default)]
pub(super) struct Locks {
    holders: Mutex<HashMap<(u64, u64), Arc<Holder>>>,
    released: AtomicBool,
}

impl Locks {
    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, u64), Arc<Holder>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up what `owner` has locked of node `id`.
    pub(super) fn release(&self, id: u64, owner: u64) {
        let holder = self.lock().remove(&(id, owner));
        if holder.is_some() {
            drop(holder);
            self.set_released();
        }
    }

    /// Gives up all locks of node `id`.
    pub(super) fn release_all(&self, id: u64) {
        let mut holders = self.lock();
        let before = holders.len();
        holders.retain(|(node, _), _| *node != id);
        let is_less = holders.len() < before;
        drop(holders);
        if is_less {
            self.set_released();
        }
    }

    /// Gives up all locks.
    pub(super) fn clear(&self) {
        let old = std::mem::take(&mut *self.lock());
        drop(old);
        self.set_released();
    }

    /// Notes that somebody who waits may have luck now.
    pub(super) fn set_released(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// Whether that was noted since the last call.
    pub(super) fn has_released(&self) -> bool {
        self.released.swap(false, Ordering::AcqRel)
    }
}

impl Server {
    /// Tries SETLK or SETLKW.
    ///
    /// # Errors
    ///
    /// EAGAIN or EACCES if another lock is in the way.
    pub(super) fn set_lock(&self, request: &Request<'_>) -> Result<()> {
        let (asked, _) = take::<fuse_lk_in>(request.arguments)?;
        let id = request.header.nodeid;
        let file = self.handles.file(asked.fh)?;
        if file.node != id {
            return Err(Errno::BADF);
        }
        let is_unlock = asked.lk.type_ as i32 == libc::F_UNLCK;
        if asked.lk_flags & FUSE_LK_FLOCK != 0 {
            host::flock(&file.fd, asked.lk.type_)?;
        } else {
            let range = range(&asked.lk)?;
            if is_unlock && range == (Range { start: 0, len: 0 }) {
                self.locks.release(id, asked.owner);
                return Ok(());
            }
            let known = self.locks.lock().get(&(id, asked.owner)).cloned();
            let holder = match known {
                Some(holder) => holder,
                None if is_unlock => return Ok(()),
                None => self.make_holder(id, asked.owner)?,
            };
            host::set_lock(&holder.fd, asked.lk.type_, range)?;
        }
        // A lock for reading may have been one for writing before.
        if asked.lk.type_ as i32 != libc::F_WRLCK {
            self.locks.set_released();
        }
        Ok(())
    }

    pub(super) fn get_lock(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, _) = take::<fuse_lk_in>(request.arguments)?;
        let id = request.header.nodeid;
        if self.handles.file(asked.fh)?.node != id {
            return Err(Errno::BADF);
        }
        let range = range(&asked.lk)?;
        let known = self.locks.lock().get(&(id, asked.owner)).cloned();
        let found = match known {
            Some(holder) => host::find_lock(&holder.fd, asked.lk.type_, range)?,
            None => {
                let _charge = self.budget.take()?;
                host::find_lock(self.lock_file(id)?, asked.lk.type_, range)?
            }
        };
        let lock = match found {
            None => fuse_file_lock {
                type_: libc::F_UNLCK as u32,
                ..asked.lk
            },
            Some((kind, range, _)) => fuse_file_lock {
                start: range.start as u64,
                end: match range.len {
                    0 => END,
                    len => (range.start as u64).saturating_add(len as u64 - 1),
                },
                type_: kind,
                // Processes of the host, and open file descriptions, have no number in the guest.
                pid: u32::MAX,
            },
        };
        reply.push(&fuse_lk_out { lk: lock });
        Ok(())
    }

    /// An open file of its own for what `owner` locks of node `id`.
    fn make_holder(&self, id: u64, owner: u64) -> Result<Arc<Holder>> {
        let holder = Arc::new(Holder {
            _charge: self.budget.take().map_err(|_| Errno::NOLCK)?,
            fd: self.lock_file(id)?,
        });
        let mut holders = self.locks.lock();
        // Another request of the same owner may have been faster.
        Ok(Arc::clone(holders.entry((id, owner)).or_insert(holder)))
    }

    fn lock_file(&self, id: u64) -> Result<OwnedFd> {
        let found = self.nodes.find(id, Wait::Yes)?;
        if found.kind != FileType::RegularFile {
            return Err(Errno::BADF);
        }
        let open = |flags| self.reopen(&found, flags);
        open(OFlags::RDWR)
            .or_else(|_| open(OFlags::RDONLY))
            .or_else(|_| open(OFlags::WRONLY))
    }
}

fn range(lock: &fuse_file_lock) -> Result<Range> {
    if lock.start > lock.end || lock.end > END {
        return Err(Errno::INVAL);
    }
    Ok(Range {
        start: lock.start as i64,
        len: match lock.end {
            END => 0,
            end => (end - lock.start + 1) as i64,
        },
    })
}
