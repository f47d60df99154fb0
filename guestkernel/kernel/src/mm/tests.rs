//! Address spaces behave as Linux's do.

mod absent;
mod fork;
mod kernel_access;

use super::*;
use crate::error::{Errno, Result};
use crate::file::Answer;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use machine::lock::Mutex;
use machine::{DmaSegments, Frame, PageFault};

const RW: Access = Access::READ.union(Access::WRITE);

/// A file: some pages that exist from the start.
struct File(Mutex<Vec<Frame>>);

impl File {
    /// Each page starts with its number.
    fn new(pages: u8) -> Arc<Self> {
        let frames = (0..pages).map(|number| {
            let frame = Frame::zeroed().unwrap();
            frame.write(0, &[number]);
            frame
        });
        Arc::new(Self(Mutex::new(frames.collect())))
    }

    fn byte(&self, page: usize, offset: usize) -> u8 {
        self.0.lock()[page].read_array::<1>(offset)[0]
    }
}

impl PageSource for File {
    fn page(&self, index: u64, _for_write: bool) -> Answer<'_, Frame> {
        let frames = self.0.lock();
        Answer::ready(frames.get(index as usize).cloned().ok_or(Errno::EFAULT))
    }
}

fn space() -> Arc<AddressSpace> {
    AddressSpace::new().unwrap()
}

fn map(space: &AddressSpace, pages: u64) -> u64 {
    space.map(MapRequest::anonymous(pages * PAGE, RW)).unwrap()
}

fn map_at(space: &AddressSpace, address: u64, pages: u64, access: Access) -> Result<u64> {
    space.map(MapRequest {
        placement: Placement::Fixed(address),
        ..MapRequest::anonymous(pages * PAGE, access)
    })
}

fn private(file: &Arc<File>, first_page: u64, pages: u64, access: Access) -> MapRequest {
    MapRequest {
        is_shared: false,
        ..MapRequest::shared(file.clone(), first_page, pages * PAGE, access)
    }
}

fn byte(space: &AddressSpace, address: u64) -> Result<u8> {
    space.read_value(address)
}

fn store(address: u64) -> PageFault {
    PageFault {
        address,
        is_write: true,
        is_fetch: false,
        is_present: false,
    }
}

#[test]
fn anonymous_memory_is_zero_and_keeps_what_is_written() {
    let space = space();
    let start = map(&space, 3);
    space.write(start + PAGE - 2, b"abcd").unwrap();
    let mut out = [0xff; 6];
    space.read(start + PAGE - 3, &mut out).unwrap();
    assert_eq!(&out, b"\0abcd\0");
}

#[test]
fn mappings_go_from_the_top_down_and_fill_gaps() {
    let space = space();
    let first = map(&space, 4);
    let second = map(&space, 4);
    assert_eq!(second, first - 4 * PAGE);
    space.unmap(first, 2 * PAGE).unwrap();
    assert_eq!(map(&space, 2), first);
}

#[test]
fn what_cannot_be_mapped_is_refused_as_linux_does() {
    let space = space();
    let error = |request| space.map(request).unwrap_err();
    let at = |placement, length| MapRequest {
        placement,
        ..MapRequest::anonymous(length, RW)
    };
    assert_eq!(error(at(Placement::Hint(0), 0)), Errno::EINVAL);
    assert_eq!(error(at(Placement::Fixed(123), PAGE)), Errno::EINVAL);
    assert_eq!(error(at(Placement::Fixed(TASK_SIZE), PAGE)), Errno::ENOMEM);
    assert_eq!(error(at(Placement::Hint(0), TASK_SIZE)), Errno::ENOMEM);
    assert_eq!(error(at(Placement::Hint(0), u64::MAX)), Errno::ENOMEM);
    let start = map(&space, 1);
    let taken = at(Placement::FixedNoReplace(start), PAGE);
    assert_eq!(error(taken), Errno::EEXIST);
    let too_much = (64 << 30) + PAGE;
    assert_eq!(error(at(Placement::Hint(0), too_much)), Errno::ENOMEM);
    let unreserved = MapRequest {
        no_reserve: true,
        ..at(Placement::Hint(0), too_much)
    };
    space.map(unreserved).unwrap();
    let file = File::new(1);
    let far = MapRequest::shared(file, u64::MAX / PAGE, PAGE * 2, RW);
    assert_eq!(error(far), Errno::EOVERFLOW);
}

#[test]
fn a_hint_is_taken_where_there_is_room() {
    let space = space();
    let hint = |address| MapRequest {
        placement: Placement::Hint(address),
        ..MapRequest::anonymous(PAGE, RW)
    };
    assert_eq!(space.map(hint(0x40_0123)), Ok(0x40_0000));
    assert_ne!(space.map(hint(0x40_0000)), Ok(0x40_0000));
    assert_eq!(space.map(hint(0x1000)), Ok(MMAP_MIN));
}

#[test]
fn the_address_space_limit_counts_what_is_mapped() {
    let space = space();
    map(&space, 8);
    space.set_limit(10 * PAGE);
    let too_big = MapRequest::anonymous(3 * PAGE, RW);
    assert_eq!(space.map(too_big), Err(Errno::ENOMEM));
    let start = map(&space, 2);
    // Replacing takes no more.
    map_at(&space, start, 2, RW).unwrap();
    assert_eq!(space.size(), 10 * PAGE);
}

#[test]
fn unmapping_cuts_holes() {
    let space = space();
    let start = map(&space, 3);
    space.write(start, &[1; 3 * PAGE as usize]).unwrap();
    space.unmap(start + PAGE, 1).unwrap();
    assert_eq!(byte(&space, start + PAGE - 1), Ok(1));
    assert_eq!(byte(&space, start + PAGE), Err(Errno::EFAULT));
    assert_eq!(byte(&space, start + 2 * PAGE), Ok(1));
    assert_eq!(space.unmap(start + 1, PAGE), Err(Errno::EINVAL));
    assert_eq!(space.unmap(start, 0), Err(Errno::EINVAL));
    assert_eq!(space.unmap(TASK_SIZE, PAGE), Err(Errno::EINVAL));
    // Nothing there is no error.
    space.unmap(start + PAGE, PAGE).unwrap();
}

#[test]
fn mapping_over_something_starts_afresh() {
    let space = space();
    let start = map(&space, 2);
    space.write(start, &[7; 2 * PAGE as usize]).unwrap();
    map_at(&space, start + PAGE, 1, RW).unwrap();
    assert_eq!(byte(&space, start), Ok(7));
    assert_eq!(byte(&space, start + PAGE), Ok(0));
}

#[test]
fn protection_is_enforced_for_the_kernel_too() {
    let space = space();
    let start = map(&space, 3);
    space.write(start, &[5; 3 * PAGE as usize]).unwrap();
    space.protect(start + PAGE, PAGE, Access::READ).unwrap();
    assert_eq!(space.write(start + PAGE, b"x"), Err(Errno::EFAULT));
    assert_eq!(space.fault(store(start + PAGE)), Err(FaultError::Denied));
    space.write(start + 2 * PAGE, b"x").unwrap();
    space.protect(start + PAGE, PAGE, Access::empty()).unwrap();
    assert_eq!(byte(&space, start + PAGE), Err(Errno::EFAULT));
    space.protect(start, 3 * PAGE, RW).unwrap();
    assert_eq!(byte(&space, start + PAGE), Ok(5));
    space.write(start + PAGE, b"x").unwrap();
}

#[test]
fn protecting_a_hole_changes_what_lies_before_it() {
    let space = space();
    let start = map(&space, 3);
    space.unmap(start + PAGE, PAGE).unwrap();
    assert_eq!(
        space.protect(start, 3 * PAGE, Access::READ),
        Err(Errno::ENOMEM)
    );
    assert_eq!(space.write(start, b"x"), Err(Errno::EFAULT));
    space.write(start + 2 * PAGE, b"x").unwrap();
    assert_eq!(space.protect(start + 1, PAGE, RW), Err(Errno::EINVAL));
    space.protect(start, 0, RW).unwrap();
}

#[test]
fn a_store_to_a_private_page_does_not_reach_the_file() {
    let file = File::new(3);
    let space = space();
    let start = space.map(private(&file, 1, 2, RW)).unwrap();
    assert_eq!(byte(&space, start), Ok(1));
    space.write(start + 1, b"x").unwrap();
    assert_eq!(byte(&space, start + 1), Ok(b'x'));
    assert_eq!(file.byte(1, 1), 0);
    // Without a read before.
    space.write(start + PAGE + 1, b"y").unwrap();
    assert_eq!(byte(&space, start + PAGE), Ok(2));
    assert_eq!(file.byte(2, 1), 0);
}

#[test]
fn a_private_page_made_writable_later_is_copied_then() {
    let file = File::new(1);
    let space = space();
    let start = space.map(private(&file, 0, 1, Access::READ)).unwrap();
    assert_eq!(byte(&space, start), Ok(0));
    space.protect(start, PAGE, RW).unwrap();
    space.write(start, b"x").unwrap();
    assert_eq!(file.byte(0, 0), 0);
    assert_eq!(byte(&space, start), Ok(b'x'));
}

#[test]
fn a_store_to_a_shared_page_reaches_the_file() {
    let file = File::new(2);
    let space = space();
    let request = MapRequest::shared(file.clone(), 1, PAGE, RW);
    let start = space.map(request).unwrap();
    space.write(start + 9, b"x").unwrap();
    assert_eq!(file.byte(1, 9), b'x');
    file.0.lock()[1].write(10, b"y");
    assert_eq!(byte(&space, start + 10), Ok(b'y'));
}

#[test]
fn beyond_the_end_of_a_file_there_is_no_page() {
    let file = File::new(1);
    let space = space();
    let start = space.map(private(&file, 0, 2, RW)).unwrap();
    assert_eq!(byte(&space, start), Ok(0));
    assert_eq!(byte(&space, start + PAGE), Err(Errno::EFAULT));
    assert_eq!(space.fault(store(start + PAGE)), Err(FaultError::NoPage));
    assert_eq!(
        space.fault(store(start + 2 * PAGE)),
        Err(FaultError::NotMapped)
    );
}

#[test]
fn a_file_opened_for_reading_stays_read_only() {
    let file = File::new(1);
    let space = space();
    let request = MapRequest {
        max_access: Access::READ | Access::EXECUTE,
        ..MapRequest::shared(file, 0, PAGE, Access::READ)
    };
    let start = space.map(request).unwrap();
    assert_eq!(space.protect(start, PAGE, RW), Err(Errno::EACCES));
}

#[test]
fn offsets_survive_splitting() {
    let file = File::new(5);
    let space = space();
    let start = space.map(private(&file, 0, 5, Access::READ)).unwrap();
    space.unmap(start + PAGE, PAGE).unwrap();
    space.protect(start + 3 * PAGE, PAGE, RW).unwrap();
    for page in [0, 2, 3, 4] {
        assert_eq!(byte(&space, start + page * PAGE), Ok(page as u8));
    }
}

#[test]
fn a_fault_maps_neighbours_and_more_when_it_goes_on() {
    let space = space();
    let start = map(&space, 1024);
    let resident = || {
        let pages = space.residency(start, 1024 * PAGE).unwrap();
        pages.into_iter().filter(|resident| *resident).count()
    };
    space.fault(store(start)).unwrap();
    let first = resident();
    assert!((1..=16).contains(&first));
    space.fault(store(start + first as u64 * PAGE)).unwrap();
    assert!(resident() >= first + 16);
}

#[test]
fn few_pages_given_back_are_cleared_where_they_are_and_many_are_unmapped() {
    const MANY: u64 = 64;
    let space = space();
    let start = map(&space, MANY);
    space.write(start, &[9; (MANY * PAGE) as usize]).unwrap();
    let resident = || {
        let pages = space.residency(start, MANY * PAGE).unwrap();
        pages.into_iter().filter(|page| *page).count() as u64
    };
    space
        .advise(start, 2 * PAGE, Advice::DontNeed { locked_too: false })
        .unwrap();
    assert_eq!(resident(), MANY);
    assert_eq!(byte(&space, start), Ok(0));
    assert_eq!(byte(&space, start + 2 * PAGE - 1), Ok(0));
    assert_eq!(byte(&space, start + 2 * PAGE), Ok(9));
    space
        .advise(start, MANY * PAGE, Advice::DontNeed { locked_too: false })
        .unwrap();
    assert_eq!(resident(), 0);
    assert_eq!(byte(&space, start + (MANY - 1) * PAGE), Ok(0));
}

#[test]
fn dropped_pages_are_zero_again_and_their_frames_free() {
    let space = space();
    let start = map(&space, 2);
    space.write(start, &[9; 2 * PAGE as usize]).unwrap();
    let pinned = space.pin(start, 1, Access::READ).unwrap();
    space
        .advise(start, PAGE, Advice::DontNeed { locked_too: false })
        .unwrap();
    assert!(pinned[0].frame().is_unique());
    assert_eq!(byte(&space, start), Ok(0));
    assert_eq!(byte(&space, start + PAGE), Ok(9));
    assert_eq!(
        space.advise(start + PAGE, 2 * PAGE, Advice::Nothing),
        Err(Errno::ENOMEM)
    );
    let file = File::new(1);
    let mapped = space.map(private(&file, 0, 1, RW)).unwrap();
    assert_eq!(space.advise(mapped, PAGE, Advice::Free), Err(Errno::EINVAL));
}

#[test]
fn populating_fills_all_pages_in() {
    let space = space();
    let request = MapRequest {
        populate: true,
        ..MapRequest::anonymous(40 * PAGE, RW)
    };
    let start = space.map(request).unwrap();
    assert_eq!(space.residency(start, 40 * PAGE), Ok(vec![true; 40]));
}

#[test]
fn the_break_moves_until_something_is_in_the_way() {
    let space = space();
    let none = u64::MAX;
    space.set_heap(0x100_0000);
    assert_eq!(space.set_break(0, none), 0x100_0000);
    assert_eq!(space.set_break(0x100_1001, none), 0x100_1001);
    space.write(0x100_1fff, b"x").unwrap();
    assert_eq!(byte(&space, 0x100_2000), Err(Errno::EFAULT));
    map_at(&space, 0x100_4000, 1, RW).unwrap();
    assert_eq!(space.set_break(0x100_4001, none), 0x100_1001);
    assert_eq!(space.set_break(0x100_3000, 0x1000), 0x100_1001);
    assert_eq!(space.set_break(0x100_4000, none), 0x100_4000);
    assert_eq!(space.set_break(0x100_1000, none), 0x100_1000);
    assert_eq!(byte(&space, 0x100_1fff), Err(Errno::EFAULT));
}

fn remap(space: &AddressSpace, address: u64, old: u64, new: u64, may_move: bool) -> Result<u64> {
    space.remap(Remap {
        address,
        old_length: old * PAGE,
        new_length: new * PAGE,
        may_move,
        fixed: None,
        keep_old: false,
    })
}

#[test]
fn remapping_shrinks_grows_and_moves() {
    let space = space();
    map(&space, 1);
    let start = map(&space, 4);
    space.write(start, &[3; 4 * PAGE as usize]).unwrap();
    assert_eq!(remap(&space, start, 4, 2, false), Ok(start));
    assert_eq!(byte(&space, start + 2 * PAGE), Err(Errno::EFAULT));
    assert_eq!(remap(&space, start, 2, 4, false), Ok(start));
    assert_eq!(byte(&space, start + 2 * PAGE), Ok(0));
    // The first mapping is in the way of more. It has become one with this one, as on Linux.
    assert_eq!(remap(&space, start, 4, 6, false), Err(Errno::ENOMEM));
    let moved = remap(&space, start, 4, 6, true).unwrap();
    assert_ne!(moved, start);
    assert_eq!(byte(&space, moved), Ok(3));
    assert_eq!(byte(&space, moved + 5 * PAGE), Ok(0));
    assert_eq!(byte(&space, start), Err(Errno::EFAULT));
}

#[test]
fn remapping_checks_what_it_is_given() {
    let space = space();
    let start = map(&space, 2);
    assert_eq!(remap(&space, start + 1, 1, 2, true), Err(Errno::EINVAL));
    assert_eq!(remap(&space, start, 1, 0, true), Err(Errno::EINVAL));
    assert_eq!(remap(&space, start, 0, 1, true), Err(Errno::EINVAL));
    assert_eq!(remap(&space, start, 3, 4, true), Err(Errno::EFAULT));
    assert_eq!(remap(&space, 0x10_0000, 1, 2, true), Err(Errno::EFAULT));
    let fixed = |to| {
        space.remap(Remap {
            address: start,
            old_length: 2 * PAGE,
            new_length: 2 * PAGE,
            may_move: true,
            fixed: Some(to),
            keep_old: false,
        })
    };
    assert_eq!(fixed(start + PAGE), Err(Errno::EINVAL));
    assert_eq!(fixed(TASK_SIZE - PAGE), Err(Errno::EINVAL));
    space.write(start, b"there").unwrap();
    assert_eq!(fixed(0x50_0000), Ok(0x50_0000));
    assert_eq!(byte(&space, 0x50_0000), Ok(b't'));
}

#[test]
fn a_shared_mapping_can_be_seen_twice() {
    let space = space();
    let request = MapRequest {
        is_shared: true,
        ..MapRequest::anonymous(2 * PAGE, RW)
    };
    let start = space.map(request).unwrap();
    space.write(start + PAGE, b"x").unwrap();
    let second = remap(&space, start + PAGE, 0, 1, true).unwrap();
    assert_eq!(byte(&space, second), Ok(b'x'));
    space.write(second, b"y").unwrap();
    assert_eq!(byte(&space, start + PAGE), Ok(b'y'));
}

#[test]
fn moving_can_leave_an_empty_mapping_behind() {
    let space = space();
    let start = map(&space, 1);
    space.write(start, b"x").unwrap();
    let moved = space
        .remap(Remap {
            address: start,
            old_length: PAGE,
            new_length: PAGE,
            may_move: true,
            fixed: None,
            keep_old: true,
        })
        .unwrap();
    assert_eq!(byte(&space, moved), Ok(b'x'));
    assert_eq!(byte(&space, start), Ok(0));
}

#[test]
fn everything_is_freed_with_the_address_space() {
    let space = space();
    let start = map(&space, 8);
    space.write(start, &[1; 8 * PAGE as usize]).unwrap();
    let pinned = space.pin(start, 8 * PAGE as usize, RW).unwrap();
    drop(space);
    assert!(pinned.iter().all(|segment| segment.frame().is_unique()));
}

#[test]
fn areas_and_lists_of_pages_leave_a_part_of_the_heap() {
    use crate::heap::exhausted;
    let space = space();
    let start = map(&space, 8);
    space.write(start, &[1; 8 * PAGE as usize]).unwrap();
    exhausted(|| {
        let more = space.map(MapRequest::anonymous(PAGE, RW));
        assert_eq!(more, Err(Errno::ENOMEM));
        // What cuts an area in two needs memory, what only ends one does not.
        assert_eq!(space.unmap(start + PAGE, PAGE), Err(Errno::ENOMEM));
        let protected = space.protect(start + PAGE, PAGE, Access::READ);
        assert_eq!(protected, Err(Errno::ENOMEM));
        let pinned = space.pin(start, 8 * PAGE as usize, RW).map(|all| all.len());
        assert_eq!(pinned, Err(Errno::ENOMEM));
        assert!(space.pin(start + 1, PAGE as usize, RW).is_ok());
        assert_eq!(space.unmap(start, 8 * PAGE), Ok(()));
    });
}

#[test]
fn areas_are_counted_however_they_are_made() {
    let space = space();
    let pages = 2 * 65530 + 10;
    let request = MapRequest {
        no_reserve: true,
        ..MapRequest::anonymous(pages * PAGE, RW)
    };
    let start = space.map(request).unwrap();
    let unmapped = (1..pages)
        .step_by(2)
        .take_while(|page| space.unmap(start + page * PAGE, PAGE).is_ok())
        .count();
    assert_eq!(unmapped, 65529);
    let protected = space.protect(start + (pages - 5) * PAGE, PAGE, Access::READ);
    assert_eq!(protected, Err(Errno::ENOMEM));
    assert_eq!(space.unmap(start, pages * PAGE), Ok(()));
}
