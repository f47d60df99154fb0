//! Timers by their deadline: a heap in which each can be found again by its number. It keeps its
//! storage, so that setting a timer allocates nothing once there were as many at a time.

use alloc::vec::Vec;

/// The number of a timer: its place among the entries and, above that, how often that was used.
pub(super) type TimerId = u64;

#[derive(Debug)]
struct Entry<W> {
    deadline: u64,
    /// Of timers with the same deadline the one that was added first goes first.
    order: u64,
    /// How often the entry was used.
    uses: u32,
    /// Where it is in the heap.
    position: usize,
    /// `None` while it is not used.
    what: Option<W>,
}

/// The heap.
#[derive(Debug)]
pub(super) struct TimerHeap<W> {
    entries: Vec<Entry<W>>,
    /// Entries that are not used.
    free: Vec<u32>,
    /// Those that are: none goes before the one that is half as far.
    heap: Vec<u32>,
    next_order: u64,
}

impl<W> TimerHeap<W> {
    /// No timer.
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            heap: Vec::new(),
            next_order: 0,
        }
    }

    /// The earliest deadline.
    pub(super) fn earliest(&self) -> Option<u64> {
        let first = self.heap.first()?;
        Some(self.entries[*first as usize].deadline)
    }

    /// Adds a timer.
    pub(super) fn add(&mut self, deadline: u64, what: W) -> TimerId {
        let order = self.next_order;
        self.next_order += 1;
        let position = self.heap.len();
        let index = match self.free.pop() {
            Some(index) => {
                let entry = &mut self.entries[index as usize];
                entry.deadline = deadline;
                entry.order = order;
                entry.uses = entry.uses.wrapping_add(1);
                entry.position = position;
                entry.what = Some(what);
                index
            }
            None => {
                self.entries.push(Entry {
                    deadline,
                    order,
                    uses: 0,
                    position,
                    what: Some(what),
                });
                // So that freeing them all takes no memory.
                self.free.reserve(self.entries.len());
                (self.entries.len() - 1) as u32
            }
        };
        self.heap.push(index);
        self.rise(position);
        u64::from(self.entries[index as usize].uses) << 32 | u64::from(index)
    }

    /// What the timer with that number is for, unless it was taken or removed.
    pub(super) fn get_mut(&mut self, id: TimerId) -> Option<&mut W> {
        let entry = self.entries.get_mut(id as u32 as usize)?;
        match u64::from(entry.uses) == id >> 32 {
            true => entry.what.as_mut(),
            false => None,
        }
    }

    /// Removes a timer, unless it was taken or removed.
    pub(super) fn remove(&mut self, id: TimerId) -> Option<W> {
        self.get_mut(id)?;
        let position = self.entries[id as u32 as usize].position;
        self.remove_at(position)
    }

    /// Takes the earliest timer, if its deadline has come by `now`.
    pub(super) fn take_due(&mut self, now: u64) -> Option<W> {
        match self.earliest()? <= now {
            true => self.remove_at(0),
            false => None,
        }
    }

    fn remove_at(&mut self, position: usize) -> Option<W> {
        let last = self.heap.len().checked_sub(1)?;
        self.swap(position, last);
        let index = self.heap.pop()?;
        if position < last {
            self.rise(position);
            self.sink(position);
        }
        self.free.push(index);
        self.entries[index as usize].what.take()
    }

    fn goes_before(&self, one: usize, other: usize) -> bool {
        let key = |position: usize| {
            let entry = &self.entries[self.heap[position] as usize];
            (entry.deadline, entry.order)
        };
        key(one) < key(other)
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for position in [one, other] {
            let index = self.heap[position] as usize;
            self.entries[index].position = position;
        }
    }

    fn rise(&mut self, mut position: usize) {
        while position > 0 {
            let above = (position - 1) / 2;
            if !self.goes_before(position, above) {
                return;
            }
            self.swap(position, above);
            position = above;
        }
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let children = [2 * position + 1, 2 * position + 2];
            let mut first = position;
            for child in children {
                if child < self.heap.len() && self.goes_before(child, first) {
                    first = child;
                }
            }
            if first == position {
                return;
            }
            self.swap(position, first);
            position = first;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn timers_are_taken_in_order_whatever_is_removed() {
        let mut heap = TimerHeap::new();
        // Deadlines that come and go as a generator of random numbers has it.
        let mut state = 1_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        };
        let mut known = vec![];
        for round in 0..2000 {
            let deadline = random() % 64;
            known.push((deadline, round, heap.add(deadline, round)));
            if round % 3 == 0 {
                let (_, what, id) = known.swap_remove(random() as usize % known.len());
                assert_eq!(heap.get_mut(id).copied(), Some(what));
                assert_eq!(heap.remove(id), Some(what));
                assert_eq!(heap.remove(id), None);
            }
            if round % 7 == 0 && !known.is_empty() {
                known.sort_unstable();
                let (deadline, what, id) = known.remove(0);
                assert_eq!(heap.earliest(), Some(deadline));
                if let Some(before) = deadline.checked_sub(1) {
                    assert_eq!(heap.take_due(before), None);
                }
                assert_eq!(heap.take_due(deadline), Some(what));
                assert_eq!(heap.get_mut(id), None);
            }
        }
        known.sort_unstable();
        for (_, what, _) in known {
            assert_eq!(heap.take_due(u64::MAX), Some(what));
        }
        assert_eq!(heap.earliest(), None);
    }
}
