//! Requests that outlive their submission, in slots that are used again.

use super::opcode::{Completion, Operation, Submitter, Work};
use super::ready::{ReadyQueue, SlotWaker};
use super::sqe::RequestFlags;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::task::Waker;

/// What is known of every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// What its CQE repeats.
    pub(super) user_data: u64,
    pub(super) flags: RequestFlags,
    pub(super) opcode: u8,
    /// The slot of the request that is linked to it.
    pub(super) next: Option<u32>,
}

/// A request that was accepted and has not started: it waits for others.
pub(super) struct Accepted {
    pub(super) request: Request,
    /// What it will do, or how it ends without having started.
    pub(super) plan: Result<Operation, Completion>,
    pub(super) submitter: Submitter,
}

/// A request that has started.
pub(super) struct Running {
    pub(super) request: Request,
    pub(super) work: Work,
}

/// What a slot holds.
pub(super) enum RequestSlot {
    /// Nothing; the next free slot, if there is one.
    Free(Option<u32>),
    Accepted(Accepted),
    Running(Running),
}

struct Entry {
    slot: RequestSlot,
    wake: Arc<SlotWaker>,
    waker: Waker,
}

/// The slots of a ring.
pub(super) struct Slots {
    entries: Vec<Entry>,
    first_free: Option<u32>,
    used: usize,
    running: usize,
    queue: Arc<ReadyQueue>,
}

/// What a request outside its batch is taken to need: its slot, the waker of that, and room for its
/// CQE.
pub(super) const REQUEST_COST: usize = size_of::<Entry>() + size_of::<SlotWaker>() + 64;

impl Slots {
    pub(super) fn new(queue: Arc<ReadyQueue>) -> Self {
        Self {
            entries: Vec::new(),
            first_free: None,
            used: 0,
            running: 0,
            queue,
        }
    }

    /// Slots that hold a request.
    #[inline(always)]
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Requests that have started.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Puts a request into a slot.
    pub(super) fn insert(&mut self, slot: RequestSlot) -> u32 {
        self.used += 1;
        self.running += usize::from(matches!(slot, RequestSlot::Running(_)));
        if let Some(index) = self.first_free
            && let Some(entry) = self.entries.get_mut(index as usize)
            && let RequestSlot::Free(next) = entry.slot
        {
            self.first_free = next;
            entry.slot = slot;
            return index;
        }
        let index = self.entries.len() as u32;
        let wake = SlotWaker::new(self.queue.clone(), index);
        self.entries.push(Entry {
            slot,
            waker: Waker::from(wake.clone()),
            wake,
        });
        index
    }

    /// Takes a request that has not started.
    pub(super) fn remove_held(&mut self, index: u32) -> Option<Accepted> {
        let slot = &mut self.entries.get_mut(index as usize)?.slot;
        if !matches!(slot, RequestSlot::Accepted(_)) {
            return None;
        }
        let RequestSlot::Accepted(held) =
            core::mem::replace(slot, RequestSlot::Free(self.first_free))
        else {
            return None;
        };
        self.first_free = Some(index);
        self.used -= 1;
        Some(held)
    }

    /// A request that has not started has, and stays where it is.
    pub(super) fn start_in_place(&mut self, index: u32, work: Work) {
        if let Some(entry) = self.entries.get_mut(index as usize)
            && let RequestSlot::Accepted(held) = &entry.slot
        {
            let request = held.request;
            entry.slot = RequestSlot::Running(Running { request, work });
            self.running += 1;
        }
    }

    /// Frees the slot of a request that has started; its work is dropped in place.
    pub(super) fn remove_running(&mut self, index: u32) -> Option<Request> {
        let slot = &mut self.entries.get_mut(index as usize)?.slot;
        let RequestSlot::Running(Running { request, .. }) = slot else {
            return None;
        };
        let request = *request;
        *slot = RequestSlot::Free(self.first_free);
        self.first_free = Some(index);
        self.used -= 1;
        self.running -= 1;
        Some(request)
    }

    /// A request that has not started.
    pub(super) fn held(&mut self, index: u32) -> Option<&mut Accepted> {
        match &mut self.entries.get_mut(index as usize)?.slot {
            RequestSlot::Accepted(held) => Some(held),
            _ => None,
        }
    }

    /// A request that has started.
    pub(super) fn running_at(&self, index: u32) -> Option<&Running> {
        match &self.entries.get(index as usize)?.slot {
            RequestSlot::Running(running) => Some(running),
            _ => None,
        }
    }

    /// A request that has started, and what wakes it, ready to be polled.
    #[inline]
    pub(super) fn pollable(&mut self, index: u32) -> Option<(&mut Running, &Waker)> {
        let entry = self.entries.get_mut(index as usize)?;
        entry.wake.reset();
        match &mut entry.slot {
            RequestSlot::Running(running) => Some((running, &entry.waker)),
            _ => None,
        }
    }

    /// Whether the request in a slot was woken since it was polled, as one wakes itself that has kept
    /// its CPU for long enough.
    pub(super) fn is_woken(&self, index: u32) -> bool {
        let entry = self.entries.get(index as usize);
        entry.is_some_and(|entry| entry.wake.is_woken())
    }

    /// All requests that have started, with their slots.
    pub(super) fn all_running(&self) -> impl Iterator<Item = (u32, &Running)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| match &entry.slot {
                RequestSlot::Running(running) => Some((index as u32, running)),
                _ => None,
            })
    }

    /// All requests that have started.
    pub(super) fn all_running_mut(&mut self) -> impl Iterator<Item = &mut Running> {
        self.entries
            .iter_mut()
            .filter_map(|entry| match &mut entry.slot {
                RequestSlot::Running(running) => Some(running),
                _ => None,
            })
    }

    /// Drops all requests and slots.
    pub(super) fn clear(&mut self) {
        self.entries = Vec::new();
        self.first_free = None;
        self.used = 0;
        self.running = 0;
    }
}
