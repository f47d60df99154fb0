//! Provided buffers: groups of them, of which a request takes one when it has something to put there
//! (`IOSQE_BUFFER_SELECT`).
//!
//! A group is a list that requests fill (`IORING_OP_PROVIDE_BUFFERS`), or a ring in memory that the
//! program writes and the kernel reads (`IORING_REGISTER_PBUF_RING`). As everything that is shared,
//! what the ring says is read once and not trusted.

use super::budget::MemoryCharge;
use super::region::Region;
use crate::error::{Errno, Result};
use crate::mm::MAX_COUNT;
use alloc::collections::{BTreeMap, VecDeque};
use core::sync::atomic::Ordering;
use linux_raw_sys::io_uring as raw;
use machine::Frame;

/// The most buffers of a list: as many as there are numbers.
pub(super) const BUFFERS_MAX: u32 = 1 << 16;
/// Bytes of an entry of a ring (`struct io_uring_buf`).
pub(super) const ENTRY_SIZE: usize = size_of::<raw::io_uring_buf>();
/// Where in the first entry the ring's tail is.
const TAIL: usize = 14;

/// A buffer of a list.
#[derive(Clone, Copy)]
struct Listed {
    address: u64,
    length: u32,
    number: u16,
}

/// A ring of buffers.
pub(super) struct BufferRing {
    pages: Region,
    /// Entries, less 1.
    mask: u16,
    /// The entry that is taken next.
    head: u16,
    /// A buffer stays until all of it was used.
    is_incremental: bool,
    #[expect(dead_code, reason = "it is given back with the ring")]
    charge: MemoryCharge,
}

impl BufferRing {
    /// A ring of `entries`, a power of two below 65536.
    pub(super) fn new(
        pages: Region,
        entries: u16,
        is_incremental: bool,
        charge: MemoryCharge,
    ) -> Self {
        Self {
            pages,
            mask: entries - 1,
            head: 0,
            is_incremental,
            charge,
        }
    }

    /// The entry that is taken next.
    pub(super) fn head(&self) -> u16 {
        self.head
    }

    fn is_empty(&self) -> bool {
        let tail = self
            .pages
            .page(TAIL)
            .map(|(frame, at)| frame.atomic_u16(at).load(Ordering::Acquire));
        tail.is_none_or(|tail| tail == self.head)
    }

    /// The page with the entry at the head, and its offset.
    fn entry(&self) -> Option<(&Frame, usize)> {
        self.pages
            .page(usize::from(self.head & self.mask) * ENTRY_SIZE)
    }

    fn first(&self) -> Option<Listed> {
        if self.is_empty() {
            return None;
        }
        let (frame, at) = self.entry()?;
        Some(Listed {
            address: frame.atomic_u64(at).load(Ordering::Relaxed),
            length: frame.atomic_u32(at + 8).load(Ordering::Relaxed),
            number: frame.atomic_u16(at + 12).load(Ordering::Relaxed),
        })
    }

    /// So many bytes of the first buffer were used: whether it is used up.
    fn consume(&mut self, count: u32) -> bool {
        if self.is_incremental {
            let Some((frame, at)) = self.entry() else {
                return true;
            };
            if count == 0 {
                return true;
            }
            let length = frame.atomic_u32(at + 8);
            let left = length.load(Ordering::Relaxed).saturating_sub(count);
            length.store(left, Ordering::Relaxed);
            if left > 0 {
                let address = frame.atomic_u64(at);
                let start = address.load(Ordering::Relaxed);
                address.store(start.wrapping_add(count.into()), Ordering::Relaxed);
                return false;
            }
        }
        self.head = self.head.wrapping_add(1);
        true
    }
}

/// A group of buffers.
enum Group {
    List {
        buffers: VecDeque<Listed>,
        charge: MemoryCharge,
    },
    Ring(BufferRing),
}

/// A buffer that a request has taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selected {
    /// Where it is.
    pub(super) address: u64,
    /// Bytes of it that are to be used.
    pub(super) length: u32,
    group: u16,
    number: u16,
    /// The whole, if it has left its list.
    taken: Option<u32>,
}

impl Selected {
    /// Whether it has left a list.
    pub(super) fn is_listed(&self) -> bool {
        self.taken.is_some()
    }
}

/// The groups of a ring.
#[derive(Default)]
pub(super) struct BufferGroups(BTreeMap<u16, Group>);

impl BufferGroups {
    /// Takes a buffer of a group, for up to `wanted` bytes; for all that it has if that is 0. It stays
    /// where it is until [`commit`](Self::commit), unless it is of a list.
    ///
    /// # Errors
    ///
    /// `ENOBUFS`.
    pub(super) fn select(&mut self, group: u16, wanted: u32) -> Result<Selected> {
        let (first, is_listed) = match self.0.get_mut(&group).ok_or(Errno::ENOBUFS)? {
            Group::List { buffers, .. } => (buffers.pop_front(), true),
            Group::Ring(ring) => (ring.first(), false),
        };
        let first = first.ok_or(Errno::ENOBUFS)?;
        let all = first.length.min(MAX_COUNT as u32);
        Ok(Selected {
            address: first.address,
            length: match wanted {
                0 => all,
                wanted => wanted.min(all),
            },
            group,
            number: first.number,
            taken: is_listed.then_some(first.length),
        })
    }

    /// So many bytes of a buffer were used: gives what the CQE's flags say of it.
    pub(super) fn commit(&mut self, selected: &Selected, count: u32) -> u32 {
        let flags =
            raw::IORING_CQE_F_BUFFER | u32::from(selected.number) << raw::IORING_CQE_BUFFER_SHIFT;
        match self.0.get_mut(&selected.group) {
            Some(Group::Ring(ring)) if selected.taken.is_none() => match ring.consume(count) {
                true => flags,
                false => flags | raw::IORING_CQE_F_BUF_MORE,
            },
            _ => flags,
        }
    }

    /// A buffer was not used: it comes first again.
    pub(super) fn give_back(&mut self, selected: &Selected) {
        if let Some(length) = selected.taken
            && let Some(Group::List { buffers, .. }) = self.0.get_mut(&selected.group)
        {
            buffers.push_front(Listed {
                address: selected.address,
                length,
                number: selected.number,
            });
        }
    }

    /// Adds `count` buffers of `length` bytes each, one after the other from `address` on, with
    /// numbers from `first` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the group is a ring, `EOVERFLOW` if it is full, `ENOMEM`.
    pub(super) fn provide(
        &mut self,
        group: u16,
        (address, length): (u64, u32),
        first: u16,
        count: u32,
    ) -> Result<()> {
        let group = self.0.entry(group).or_insert_with(|| Group::List {
            buffers: VecDeque::new(),
            charge: MemoryCharge::NONE,
        });
        let Group::List { buffers, charge } = group else {
            return Err(Errno::EINVAL);
        };
        let room = (BUFFERS_MAX - 1).saturating_sub(buffers.len() as u32);
        if room == 0 {
            return Err(Errno::EOVERFLOW);
        }
        let count = count.min(room);
        let needed = buffers.len() + count as usize;
        if needed > buffers.capacity() {
            charge.add((needed - buffers.capacity()) * size_of::<Listed>())?;
            buffers
                .try_reserve_exact(count as usize)
                .map_err(|_| Errno::ENOMEM)?;
        }
        buffers.extend((0..count).map(|index| Listed {
            address: address.wrapping_add(u64::from(index) * u64::from(length)),
            length,
            number: first.wrapping_add(index as u16),
        }));
        Ok(())
    }

    /// Takes up to `count` buffers out of a list; gives how many.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such group, `EINVAL` if it is a ring.
    pub(super) fn remove(&mut self, group: u16, count: u32) -> Result<u32> {
        match self.0.get_mut(&group) {
            None => Err(Errno::ENOENT),
            Some(Group::Ring(_)) => Err(Errno::EINVAL),
            Some(Group::List { buffers, .. }) => {
                let count = (count as usize).min(buffers.len());
                buffers.drain(..count);
                Ok(count as u32)
            }
        }
    }

    /// Whether a ring can become that group.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the group is a ring, or has buffers.
    pub(super) fn check_free(&self, group: u16) -> Result<()> {
        match self.0.get(&group) {
            Some(Group::Ring(_)) => Err(Errno::EEXIST),
            Some(Group::List { buffers, .. }) if !buffers.is_empty() => Err(Errno::EEXIST),
            _ => Ok(()),
        }
    }

    /// Makes a ring that group.
    ///
    /// # Errors
    ///
    /// Those of [`check_free`](Self::check_free).
    pub(super) fn add_ring(&mut self, group: u16, ring: BufferRing) -> Result<()> {
        self.check_free(group)?;
        self.0.insert(group, Group::Ring(ring));
        Ok(())
    }

    /// The ring that is that group.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such group, `EINVAL` if it is none.
    pub(super) fn ring(&self, group: u32) -> Result<&BufferRing> {
        let group = u16::try_from(group).map_err(|_| Errno::ENOENT)?;
        match self.0.get(&group) {
            None => Err(Errno::ENOENT),
            Some(Group::List { .. }) => Err(Errno::EINVAL),
            Some(Group::Ring(ring)) => Ok(ring),
        }
    }

    /// Forgets a ring.
    pub(super) fn remove_ring(&mut self, group: u16) {
        self.0.remove(&group);
    }
}
