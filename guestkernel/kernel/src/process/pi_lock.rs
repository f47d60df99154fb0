//! Locks that a thread owns (`FUTEX_LOCK_PI` and its relatives): the word holds the number of the
//! thread that owns the lock, and whether others wait for it. The kernel hands the lock to the one
//! that has waited longest. Priorities are inherited by nobody, since no thread goes before another.
//!
//! While somebody waits for a lock, its bucket of the table knows who owns it; the first who waits has
//! looked that up in the word.

use super::wait_table::{Bucket, Entry, Key, Purpose, Ticket, WaitTable, Wakers};
use crate::error::{Errno, Result};
use crate::mm::AddressSpace;
use crate::sync::Mutex;
use alloc::collections::BTreeMap;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::task::Waker;
use linux_raw_sys::general as raw;

const TID: u32 = raw::FUTEX_TID_MASK;
const WAITERS: u32 = raw::FUTEX_WAITERS;
const OWNER_DIED: u32 = raw::FUTEX_OWNER_DIED;
/// Threads that wait for each other's locks, one after the other, that are looked at.
const CHAIN: usize = 1024;

/// Who owns a lock that others wait for.
pub(super) struct Owner {
    key: Key,
    tid: u32,
    /// Where the word is, for when the owner ends.
    word: (Weak<AddressSpace>, u64),
}

/// The word of a lock, as the thread sees it that is about to change it.
pub(super) trait Word {
    /// What it holds.
    fn load(&self) -> Result<u32>;
    /// Has it hold `new` if it holds `old`: whether it did.
    fn exchange(&self, old: u32, new: u32) -> Result<bool>;
    /// Where it is.
    fn place(&self) -> (Weak<AddressSpace>, u64);
}

/// What asking for a lock gave.
pub(super) enum Asked<'a> {
    /// It is the caller's.
    Owned,
    /// It is another's, and the caller waits.
    Waits(Ticket<'a>),
}

/// Whose locks the threads wait for that wait for one. Its lock is taken last.
pub(super) struct Chains(Mutex<BTreeMap<u32, u32>>);

impl Chains {
    pub(super) fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Notes that `tid` waits for a lock of `owner`.
    ///
    /// # Errors
    ///
    /// `EDEADLK` if that waits for one of `tid`.
    fn add(&self, tid: u32, owner: u32) -> Result<()> {
        let mut chains = self.0.lock();
        let mut next = owner;
        for _ in 0..CHAIN {
            match chains.get(&next) {
                Some(owner) if *owner == tid => return Err(Errno::EDEADLK),
                Some(owner) => next = *owner,
                None => break,
            }
        }
        chains.insert(tid, owner);
        Ok(())
    }

    fn remove(&self, tid: u32) {
        self.0.lock().remove(&tid);
    }
}

impl Bucket {
    fn first_at(&self, key: Key) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn owner_of(&self, key: Key) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.key == key)
    }

    /// Nobody waits at `key` perhaps any more: then who owns the lock is not known any more.
    pub(super) fn forget_owner_of(&mut self, key: Key) {
        if !self.owners.is_empty() && self.first_at(key).is_none() {
            self.owners.retain(|owner| owner.key != key);
        }
    }

    /// Takes out the one who has waited longest for the lock with that key.
    fn take_heir(&mut self, key: Key) -> Option<(Entry, u32)> {
        let position = self.entries.iter().position(|entry| entry.key == key)?;
        let Purpose::Own(tid) = self.entries.get(position)?.purpose else {
            return None;
        };
        Some((self.entries.remove(position), tid))
    }
}

/// What the word and the table say about a lock that `tid` asks for.
enum Finding {
    /// The caller owns it now.
    Taken,
    /// That thread owns it.
    Owned(u32),
}

/// Takes the lock for `tid`, if nobody has it; `with_waiters` if others will wait for it.
fn take_or_find(
    bucket: &Bucket,
    key: Key,
    tid: u32,
    word: &dyn Word,
    with_waiters: bool,
    exists: &dyn Fn(u32) -> bool,
) -> Result<Finding> {
    loop {
        let value = word.load()?;
        let owner = value & TID;
        if owner == tid {
            return Err(Errno::EDEADLK);
        }
        if let Some(first) = bucket.first_at(key) {
            let known = bucket.owner_of(key).ok_or(Errno::EINVAL)?;
            let has_died = value & OWNER_DIED != 0 && owner == 0;
            return match first.purpose {
                Purpose::Own(_) if owner == known.tid || has_died => Ok(Finding::Owned(known.tid)),
                // The word is not what it should be, or is used as another kind of futex.
                _ => Err(Errno::EINVAL),
            };
        }
        if owner == 0 {
            let waiters = if with_waiters { WAITERS } else { 0 };
            if word.exchange(value, value & OWNER_DIED | tid | waiters)? {
                return Ok(Finding::Taken);
            }
        } else if word.exchange(value, value | WAITERS)? {
            return match exists(owner) {
                true => Ok(Finding::Owned(owner)),
                false => Err(Errno::ESRCH),
            };
        }
    }
}

impl WaitTable {
    /// Takes the lock for the thread `tid`, or has it wait, unless it `only_tries`.
    ///
    /// # Errors
    ///
    /// Those of `FUTEX_LOCK_PI`; `EAGAIN` if it only tries and another has it.
    pub(super) fn lock_pi(
        &self,
        key: Key,
        tid: u32,
        word: &dyn Word,
        only_tries: bool,
        exists: &dyn Fn(u32) -> bool,
    ) -> Result<Asked<'_>> {
        let index = self.index(key);
        let mut bucket = self.buckets[index].lock();
        let owner = match take_or_find(&bucket, key, tid, word, false, exists)? {
            Finding::Taken => return Ok(Asked::Owned),
            Finding::Owned(_) if only_tries => return Err(Errno::EAGAIN),
            Finding::Owned(owner) => owner,
        };
        self.chains.add(tid, owner)?;
        self.note_owner(&mut bucket, key, owner, word);
        Ok(Asked::Waits(self.add(
            &mut bucket,
            index,
            (key, u32::MAX),
            Purpose::Own(tid),
        )))
    }

    fn note_owner(&self, bucket: &mut Bucket, key: Key, tid: u32, word: &dyn Word) {
        if bucket.owner_of(key).is_none() {
            bucket.owners.push(Owner {
                key,
                tid,
                word: word.place(),
            });
            self.owned.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives up the lock of the thread `tid`: to the one who has waited longest, if there is any.
    ///
    /// # Errors
    ///
    /// Those of `FUTEX_UNLOCK_PI`.
    pub(super) fn unlock_pi(&self, key: Key, tid: u32, word: &dyn Word) -> Result<()> {
        let mut wakers = Wakers::new();
        let result = {
            let mut bucket = self.buckets[self.index(key)].lock();
            self.unlock_in(&mut bucket, key, tid, word, &mut wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    fn unlock_in(
        &self,
        bucket: &mut Bucket,
        key: Key,
        tid: u32,
        word: &dyn Word,
        wakers: &mut Wakers,
    ) -> Result<()> {
        loop {
            let value = word.load()?;
            if value & TID != tid {
                return Err(Errno::EPERM);
            }
            let heir = match bucket.first_at(key).map(|entry| entry.purpose) {
                None => None,
                Some(Purpose::Own(heir)) => match bucket.owner_of(key) {
                    Some(owner) if owner.tid == tid => Some(heir),
                    _ => return Err(Errno::EINVAL),
                },
                Some(_) => return Err(Errno::EINVAL),
            };
            let new = heir.map_or(0, |heir| heir | WAITERS);
            if word.exchange(value, new)? {
                self.hand_over(bucket, key, wakers);
                return Ok(());
            }
        }
    }

    /// Makes the one who has waited longest the owner of a lock, as its word says already.
    fn hand_over(&self, bucket: &mut Bucket, key: Key, wakers: &mut Wakers) {
        let Some((entry, heir)) = bucket.take_heir(key) else {
            return;
        };
        self.chains.remove(heir);
        entry.wake(wakers);
        for entry in bucket.entries.iter().filter(|entry| entry.key == key) {
            if let Purpose::Own(tid) = entry.purpose {
                // They wait for somebody else now, who waits for nobody.
                let _ = self.chains.add(tid, heir);
            }
        }
        if let Some(owner) = bucket.owners.iter_mut().find(|owner| owner.key == key) {
            owner.tid = heir;
        }
        bucket.forget_owner_of(key);
    }

    /// Somebody waits no longer for what `purpose` says.
    pub(super) fn has_left(&self, purpose: Purpose) {
        if let Purpose::Own(tid) = purpose {
            self.chains.remove(tid);
        }
    }

    /// The thread `tid` has ended: its locks that others wait for go to them.
    pub(super) fn release_all_pi(&self, tid: u32) {
        if self.owned.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut wakers = Wakers::new();
        for bucket in &self.buckets {
            let mut bucket = bucket.lock();
            while let Some(owner) = bucket.owners.iter().find(|owner| owner.tid == tid) {
                let (key, (space, address)) = (owner.key, owner.word.clone());
                if let (Some(space), Some(Purpose::Own(heir))) = (
                    space.upgrade(),
                    bucket.first_at(key).map(|entry| entry.purpose),
                ) {
                    // A word that is gone concerns those who wait: they own it all the same.
                    let _ = space.with_u32(address, crate::mm::Access::WRITE, |word| {
                        word.store(heir | WAITERS | OWNER_DIED, Ordering::SeqCst);
                    });
                }
                self.hand_over(&mut bucket, key, &mut wakers);
                if let Some(owner) = bucket.owners.iter().find(|owner| owner.tid == tid)
                    && owner.key == key
                {
                    // Nobody could have it: it is nobody's.
                    bucket.owners.retain(|owner| owner.key != key);
                }
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Moves those who wait at the first key to be moved to the lock with the second: the first of them
    /// gets it if nobody has it; up to `most` others wait for it then. `check` looks at the first
    /// word. Returns how many got the lock or were moved.
    ///
    /// # Errors
    ///
    /// Those of `FUTEX_CMP_REQUEUE_PI`.
    pub(super) fn requeue_pi(
        &self,
        [from, to]: [Key; 2],
        most: u32,
        word: &dyn Word,
        exists: &dyn Fn(u32) -> bool,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<u32> {
        let target = self.index(to);
        let mut wakers = Wakers::new();
        let result = self.with_two([from, to], |first, second| -> Result<u32> {
            check()?;
            let fits = |entry: &Entry| match entry.purpose {
                Purpose::Move(key, tid) if key == to => Ok(tid),
                _ => Err(Errno::EINVAL),
            };
            let Some(top) = first.first_at(from) else {
                return Ok(0);
            };
            let tid = fits(top)?;
            let lock: &Bucket = match &second {
                Some(second) => second,
                None => &*first,
            };
            let mut done = 0;
            let owner = match take_or_find(lock, to, tid, word, most > 0, exists)? {
                Finding::Owned(owner) => owner,
                Finding::Taken => {
                    let position = first.entries.iter().position(|entry| entry.key == from);
                    if let Some(position) = position {
                        first.entries.remove(position).wake(&mut wakers);
                    }
                    done += 1;
                    tid
                }
            };
            let mut result = Ok(());
            let mut moving = Vec::new();
            // One more than were asked for if nobody got the lock, as on Linux.
            while done < most.saturating_add(1) {
                let Some(position) = first.entries.iter().position(|entry| entry.key == from)
                else {
                    break;
                };
                let next = fits(&first.entries[position])
                    .and_then(|tid| self.chains.add(tid, owner).map(|()| tid));
                match next {
                    Ok(tid) => {
                        let mut entry = first.entries.remove(position);
                        entry.set_place(target, to, Purpose::Own(tid));
                        moving.push(entry);
                        done += 1;
                    }
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
            if !moving.is_empty() {
                let lock = second.unwrap_or(first);
                self.note_owner(lock, to, owner, word);
                lock.entries.append(&mut moving);
            }
            result.map(|()| done)
        });
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}
