//! The pages of a file by their number: a radix tree, so that a file of any size, with holes or
//! without, costs a few steps for each access.

use alloc::boxed::Box;
use machine::Frame;

/// Bits of a page number that one node decides on.
const BITS: u32 = 6;
const FANOUT: usize = 1 << BITS;

#[derive(Debug, Default)]
enum PageSlot {
    #[default]
    Empty,
    Page(Frame),
    Node(Box<Node>),
}

#[derive(Debug)]
struct Node {
    slots: [PageSlot; FANOUT],
    /// Slots that are not empty.
    used: usize,
}

impl Node {
    fn new() -> Box<Self> {
        Box::new(Self {
            slots: [const { PageSlot::Empty }; FANOUT],
            used: 0,
        })
    }
}

/// Bytes of the kernel's heap that one more page may take: a node on each level.
pub(super) const PAGE_COST: usize = size_of::<Node>() * u64::BITS.div_ceil(BITS) as usize;

/// A map of page numbers to pages.
#[derive(Debug, Default)]
pub(super) struct PageMap {
    root: PageSlot,
    /// Levels of nodes above the pages; page numbers are below `FANOUT` to the power of it.
    height: u32,
    count: u64,
}

impl PageMap {
    /// Pages in the map.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The page with number `index`.
    #[inline]
    pub(super) fn get(&self, index: u64) -> Option<&Frame> {
        if !self.covers(index) {
            return None;
        }
        let mut slot = &self.root;
        let mut level = self.height;
        loop {
            match slot {
                PageSlot::Empty => return None,
                PageSlot::Page(frame) => return Some(frame),
                PageSlot::Node(node) => {
                    level -= 1;
                    slot = &node.slots[digit(index, level)];
                }
            }
        }
    }

    /// Makes `frame` the page with number `index`, in place of the one that was.
    pub(super) fn insert(&mut self, index: u64, frame: Frame) {
        while !self.covers(index) {
            let mut node = Node::new();
            let old = core::mem::take(&mut self.root);
            if !matches!(old, PageSlot::Empty) {
                node.slots[0] = old;
                node.used = 1;
            }
            self.root = PageSlot::Node(node);
            self.height += 1;
        }
        let mut slot = &mut self.root;
        let mut level = self.height;
        while level > 0 {
            level -= 1;
            if matches!(slot, PageSlot::Empty) {
                *slot = PageSlot::Node(Node::new());
            }
            let PageSlot::Node(node) = slot else {
                unreachable!("pages are at the lowest level only");
            };
            let place = digit(index, level);
            if matches!(node.slots[place], PageSlot::Empty) {
                node.used += 1;
            }
            slot = &mut node.slots[place];
        }
        if matches!(
            core::mem::replace(slot, PageSlot::Page(frame)),
            PageSlot::Empty
        ) {
            self.count += 1;
        }
    }

    /// Removes the pages from `start` to before `end`; gives how many there were.
    pub(super) fn remove(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let removed = remove(&mut self.root, self.height, 0, start, end - 1);
        self.count -= removed;
        if matches!(self.root, PageSlot::Empty) {
            self.height = 0;
        }
        removed
    }

    /// The first page not before `start` that is there.
    pub(super) fn next_present(&self, start: u64) -> Option<u64> {
        next_present(&self.root, self.height, 0, start)
    }

    /// The last page before `end` that is there.
    pub(super) fn previous_present(&self, end: u64) -> Option<u64> {
        previous_present(&self.root, self.height, 0, end.checked_sub(1)?)
    }

    /// The number of the page that comes `count` pages after the first that is not before `start`, of
    /// those that are there.
    pub(super) fn nth_present(&self, start: u64, count: usize) -> Option<u64> {
        let mut page = self.next_present(start)?;
        for _ in 0..count {
            page = self.next_present(page + 1)?;
        }
        Some(page)
    }

    /// The number of the page that has `count` pages behind it, of those that are there.
    pub(super) fn nth_present_from_end(&self, count: usize) -> Option<u64> {
        let mut page = self.previous_present(u64::MAX)?;
        for _ in 0..count {
            page = self.previous_present(page)?;
        }
        Some(page)
    }

    /// The first page number not before `start` that is not there.
    pub(super) fn next_absent(&self, start: u64) -> u64 {
        let mut index = start;
        while self.get(index).is_some() {
            index += 1;
        }
        index
    }

    fn covers(&self, index: u64) -> bool {
        self.height * BITS >= u64::BITS || index >> (self.height * BITS) == 0
    }
}

/// The place in a node with `level` levels of nodes below it.
fn digit(index: u64, level: u32) -> usize {
    (index >> (level * BITS)) as usize % FANOUT
}

/// The last page number that a slot whose first is `base` can hold.
fn last_of(base: u64, height: u32) -> u64 {
    match 1_u64.checked_shl(height * BITS) {
        Some(span) => base.saturating_add(span - 1),
        None => u64::MAX,
    }
}

fn remove(slot: &mut PageSlot, height: u32, base: u64, first: u64, last: u64) -> u64 {
    if last < base || first > last_of(base, height) {
        return 0;
    }
    match slot {
        PageSlot::Empty => 0,
        PageSlot::Page(_) => {
            *slot = PageSlot::Empty;
            1
        }
        PageSlot::Node(node) => {
            let mut removed = 0;
            for (place, below) in node.slots.iter_mut().enumerate() {
                if matches!(below, PageSlot::Empty) {
                    continue;
                }
                let base = base | (place as u64) << ((height - 1) * BITS);
                removed += remove(below, height - 1, base, first, last);
                if matches!(below, PageSlot::Empty) {
                    node.used -= 1;
                }
            }
            if node.used == 0 {
                *slot = PageSlot::Empty;
            }
            removed
        }
    }
}

fn next_present(slot: &PageSlot, height: u32, base: u64, start: u64) -> Option<u64> {
    if start > last_of(base, height) {
        return None;
    }
    match slot {
        PageSlot::Empty => None,
        PageSlot::Page(_) => Some(base),
        PageSlot::Node(node) => node.slots.iter().enumerate().find_map(|(place, below)| {
            let base = base | (place as u64) << ((height - 1) * BITS);
            next_present(below, height - 1, base, start)
        }),
    }
}

fn previous_present(slot: &PageSlot, height: u32, base: u64, last: u64) -> Option<u64> {
    if last < base {
        return None;
    }
    match slot {
        PageSlot::Empty => None,
        PageSlot::Page(_) => Some(base),
        PageSlot::Node(node) => node
            .slots
            .iter()
            .enumerate()
            .rev()
            .find_map(|(place, below)| {
                let base = base | (place as u64) << ((height - 1) * BITS);
                previous_present(below, height - 1, base, last)
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(mark: u8) -> Frame {
        let frame = Frame::zeroed().unwrap();
        frame.write(0, &[mark]);
        frame
    }

    fn mark(map: &PageMap, index: u64) -> Option<u8> {
        map.get(index).map(|frame| frame.read_array::<1>(0)[0])
    }

    #[test]
    fn pages_are_found_where_they_were_put() {
        let mut map = PageMap::default();
        let places = [0, 1, 63, 64, 4095, 4096, 1 << 20, (1 << 51) - 1];
        for (value, index) in places.into_iter().enumerate() {
            map.insert(index, page(value as u8));
        }
        for (value, index) in places.into_iter().enumerate() {
            assert_eq!(mark(&map, index), Some(value as u8));
        }
        assert_eq!(mark(&map, 2), None);
        assert_eq!(mark(&map, u64::MAX), None);
        assert_eq!(map.count(), places.len() as u64);
        map.insert(64, page(99));
        assert_eq!(
            (mark(&map, 64), map.count()),
            (Some(99), places.len() as u64)
        );
    }

    #[test]
    fn the_next_page_and_the_next_hole_are_found() {
        let mut map = PageMap::default();
        assert_eq!(map.next_present(0), None);
        for index in [5, 6, 7, 70_000] {
            map.insert(index, page(1));
        }
        assert_eq!(map.next_present(0), Some(5));
        assert_eq!(map.next_present(6), Some(6));
        assert_eq!(map.next_present(8), Some(70_000));
        assert_eq!(map.next_present(70_001), None);
        assert_eq!(map.next_absent(0), 0);
        assert_eq!(map.next_absent(5), 8);
        assert_eq!(map.previous_present(u64::MAX), Some(70_000));
        assert_eq!(map.previous_present(70_000), Some(7));
        assert_eq!(map.previous_present(5), None);
        assert_eq!(map.nth_present(0, 2), Some(7));
        assert_eq!(map.nth_present(0, 4), None);
        assert_eq!(map.nth_present_from_end(1), Some(7));
        assert_eq!(map.nth_present_from_end(3), Some(5));
    }

    #[test]
    fn a_removed_range_is_gone_and_the_rest_stays() {
        let mut map = PageMap::default();
        for index in 0..200 {
            map.insert(index, page(index as u8));
        }
        assert_eq!(map.remove(10, 130), 120);
        assert_eq!(map.count(), 80);
        assert_eq!((mark(&map, 9), mark(&map, 10)), (Some(9), None));
        assert_eq!((mark(&map, 129), mark(&map, 130)), (None, Some(130)));
        assert_eq!(map.remove(0, u64::MAX), 80);
        assert_eq!(map.next_present(0), None);
        map.insert(0, page(3));
        assert_eq!(mark(&map, 0), Some(3));
    }
}
