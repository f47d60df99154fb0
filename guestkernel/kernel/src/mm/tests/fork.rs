//! Address spaces that were one.

use super::*;
use machine::memory_use;

/// Checks what counts the frames of the machine: other tests take and give back some meanwhile, but not
/// each time.
fn in_some_try(check: impl Fn() -> bool) {
    assert!((0..100).any(|_| check()));
}

fn shared(pages: u64) -> MapRequest {
    MapRequest {
        is_shared: true,
        ..MapRequest::anonymous(pages * PAGE, RW)
    }
}

#[test]
fn stores_of_one_are_not_seen_by_the_other() {
    let parent = space();
    let start = map(&parent, 3);
    parent.write(start, b"one").unwrap();
    parent.write(start + PAGE, b"two").unwrap();
    let child = parent.fork().unwrap();
    parent.write(start, b"ONE").unwrap();
    child.write(start + PAGE, b"TWO").unwrap();
    child.write(start + 2 * PAGE, b"new").unwrap();
    for (space, expected) in [
        (&parent, [*b"ONE", *b"two", *b"\0\0\0"]),
        (&child, [*b"one", *b"TWO", *b"new"]),
    ] {
        for (page, expected) in expected.into_iter().enumerate() {
            let mut bytes = [0; 3];
            space.read(start + page as u64 * PAGE, &mut bytes).unwrap();
            assert_eq!(bytes, expected, "{page}");
        }
    }
}

#[test]
fn pages_are_shared_until_they_are_written_and_copied_once() {
    let parent = space();
    let start = map(&parent, 64);
    for page in 0..64 {
        parent.write(start + page * PAGE, &[page as u8]).unwrap();
    }
    in_some_try(|| {
        let before = memory_use().free as isize;
        let taken = || before - memory_use().free as isize;
        let child = parent.fork().unwrap();
        let tables = taken();
        assert_eq!(byte(&child, start + 5 * PAGE), Ok(5));
        let reading = taken();
        child.write(start, b"c").unwrap();
        let writing = taken();
        // What is the parent's alone now is written where it is.
        parent.write(start, b"p").unwrap();
        let writing_alone = taken();
        assert_eq!(
            (byte(&parent, start), byte(&child, start)),
            (Ok(b'p'), Ok(b'c'))
        );
        drop(child);
        let at_the_end = taken();
        // Nobody is left to copy for.
        parent.write(start + PAGE, b"q").unwrap();
        tables < 8
            && [reading, writing, writing_alone] == [tables, tables + 1, tables + 1]
            && [at_the_end, taken()] == [0, 0]
    });
}

#[test]
fn generations_of_children_are_told_apart() {
    let first = space();
    let start = map(&first, 1);
    first.write(start, b"0").unwrap();
    let second = first.fork().unwrap();
    let third = second.fork().unwrap();
    drop(second);
    third.write(start, b"3").unwrap();
    let fourth = first.fork().unwrap();
    first.write(start, b"1").unwrap();
    let bytes = [&first, &third, &fourth].map(|space| byte(space, start).unwrap());
    assert_eq!(bytes, *b"130");
}

#[test]
fn shared_memory_stays_shared() {
    let parent = space();
    let anonymous = parent.map(shared(2)).unwrap();
    let file = File::new(2);
    let request = MapRequest::shared(file.clone(), 0, 2 * PAGE, RW);
    let mapped = parent.map(request).unwrap();
    parent.write(anonymous, b"a").unwrap();
    let child = parent.fork().unwrap();
    child.write(anonymous + PAGE, b"b").unwrap();
    child.write(mapped + 1, b"c").unwrap();
    assert_eq!(byte(&child, anonymous), Ok(b'a'));
    assert_eq!(byte(&parent, anonymous + PAGE), Ok(b'b'));
    assert_eq!(
        (byte(&parent, mapped + 1), file.byte(0, 1)),
        (Ok(b'c'), b'c')
    );
}

#[test]
fn private_pages_of_files_are_copied_by_whoever_writes_them() {
    let parent = space();
    let file = File::new(3);
    let start = parent.map(private(&file, 0, 3, RW)).unwrap();
    parent.write(start, b"p").unwrap();
    assert_eq!(byte(&parent, start + PAGE), Ok(1));
    let child = parent.fork().unwrap();
    child.write(start + PAGE, b"c").unwrap();
    child.write(start, b"C").unwrap();
    assert_eq!(
        (byte(&parent, start), byte(&parent, start + PAGE)),
        (Ok(b'p'), Ok(1))
    );
    assert_eq!(
        (byte(&child, start), byte(&child, start + PAGE)),
        (Ok(b'C'), Ok(b'c'))
    );
    assert_eq!(
        (
            byte(&child, start + 2 * PAGE),
            file.byte(0, 0),
            file.byte(1, 0)
        ),
        (Ok(2), 0, 1)
    );
}

#[test]
fn protection_does_not_make_shared_pages_writable() {
    let parent = space();
    let start = map(&parent, 2);
    parent.write(start, b"x").unwrap();
    let child = parent.fork().unwrap();
    for space in [&parent, &child] {
        space.protect(start, 2 * PAGE, Access::READ).unwrap();
        assert_eq!(space.write(start, b"y"), Err(Errno::EFAULT));
        space.protect(start, 2 * PAGE, RW).unwrap();
    }
    child.write(start, b"c").unwrap();
    assert_eq!(byte(&parent, start), Ok(b'x'));
    parent.write(start, b"p").unwrap();
    assert_eq!(byte(&child, start), Ok(b'c'));
}

#[test]
fn hidden_pages_are_inherited() {
    let parent = space();
    let start = map(&parent, 1);
    parent.write(start, b"x").unwrap();
    parent.protect(start, PAGE, Access::empty()).unwrap();
    let child = parent.fork().unwrap();
    assert_eq!(byte(&child, start), Err(Errno::EFAULT));
    child.protect(start, PAGE, RW).unwrap();
    child.write(start + 1, b"y").unwrap();
    parent.protect(start, PAGE, Access::READ).unwrap();
    assert_eq!(
        (byte(&parent, start), byte(&parent, start + 1)),
        (Ok(b'x'), Ok(0))
    );
    assert_eq!(
        (byte(&child, start), byte(&child, start + 1)),
        (Ok(b'x'), Ok(b'y'))
    );
}

#[test]
fn what_a_device_works_on_stays_the_parents() {
    let parent = space();
    let start = map(&parent, 2);
    parent.write(start, b"old").unwrap();
    let pinned = parent.pin(start, 2 * PAGE as usize, RW).unwrap();
    let child = parent.fork().unwrap();
    let seen = |space: &AddressSpace| {
        let mut bytes = [0; 3];
        space.read(start, &mut bytes).unwrap();
        bytes
    };
    pinned[0].frame().write(0, b"new");
    assert_eq!((seen(&parent), seen(&child)), (*b"new", *b"old"));
    // Nor does a store of the parent's take it away from the device.
    parent.write(start + 1, b"E").unwrap();
    child.write(start + 1, b"L").unwrap();
    assert_eq!(pinned[0].frame().read_array(0), *b"nEw");
    // What the child pins is the child's.
    let own = child.pin(start, 1, RW).unwrap();
    own[0].frame().write(0, b"O");
    assert_eq!((seen(&parent), seen(&child)), (*b"nEw", *b"OLd"));
    // Protected meanwhile, too.
    parent.protect(start, PAGE, Access::READ).unwrap();
    let grandchild = parent.fork().unwrap();
    parent.protect(start, PAGE, RW).unwrap();
    parent.write(start, b"N").unwrap();
    assert_eq!(pinned[0].frame().read_array(0), *b"NEw");
    assert_eq!(seen(&grandchild), *b"nEw");
}

#[test]
fn a_page_that_is_only_read_for_a_device_may_be_shared() {
    in_some_try(|| {
        let file = File::new(1);
        let parent = space();
        let start = parent.map(private(&file, 0, 1, RW)).unwrap();
        let pinned = parent.pin(start, 8, Access::READ).unwrap();
        let free = memory_use().free;
        let child = parent.fork().unwrap();
        child.write(start, b"c").unwrap();
        parent.write(start, b"p").unwrap();
        assert_eq!(pinned[0].frame().read_array(0), [0]);
        assert_eq!(
            (byte(&parent, start), byte(&child, start)),
            (Ok(b'p'), Ok(b'c'))
        );
        drop((child, pinned));
        free.saturating_sub(memory_use().free) <= 1
    });
}

#[test]
fn advice_keeps_things_from_children() {
    let parent = space();
    let start = map(&parent, 4);
    for page in 0..4 {
        parent.write(start + page * PAGE, b"x").unwrap();
    }
    let fork = |what, is_set| Advice::Fork { what, is_set };
    let advise =
        |page: u64, pages: u64, advice| parent.advise(start + page * PAGE, pages * PAGE, advice);
    advise(0, 2, fork(NotForked::AREA, true)).unwrap();
    advise(1, 2, fork(NotForked::CONTENTS, true)).unwrap();
    let seen = |space: &AddressSpace| [0, 1, 2, 3].map(|page| byte(space, start + page * PAGE));
    let child = parent.fork().unwrap();
    let gone = Err(Errno::EFAULT);
    assert_eq!(seen(&child), [gone, gone, Ok(0), Ok(b'x')]);
    assert_eq!(child.size(), 2 * PAGE);
    advise(0, 2, fork(NotForked::AREA, false)).unwrap();
    assert_eq!(
        seen(&parent.fork().unwrap()),
        [Ok(b'x'), Ok(0), Ok(0), Ok(b'x')]
    );
    // The child keeps the advice.
    child.write(start + 2 * PAGE, b"y").unwrap();
    assert_eq!(seen(&child.fork().unwrap()), [gone, gone, Ok(0), Ok(b'x')]);
    advise(0, 4, fork(NotForked::CONTENTS, false)).unwrap();
    assert_eq!(seen(&parent.fork().unwrap()), [Ok(b'x'); 4]);
    assert_eq!(parent.mappings.lock().areas.len(), 1, "all are alike again");
    assert_eq!(
        advise(0, 5, fork(NotForked::AREA, true)),
        Err(Errno::ENOMEM)
    );
    let file = parent.map(private(&File::new(1), 0, 1, RW)).unwrap();
    for address in [file, parent.map(shared(1)).unwrap()] {
        let wiped = parent.advise(address, PAGE, fork(NotForked::CONTENTS, true));
        assert_eq!(wiped, Err(Errno::EINVAL));
    }
}

#[test]
fn layout_and_limits_are_inherited() {
    let parent = space();
    parent.set_heap(0x10_0000);
    assert_eq!(parent.set_break(0x10_2800, u64::MAX), 0x10_2800);
    parent.set_limit(0x10_000);
    let child = parent.fork().unwrap();
    assert_eq!(child.set_break(0, u64::MAX), 0x10_2800);
    assert_eq!(child.set_break(0x10_4000, u64::MAX), 0x10_4000);
    assert_eq!(parent.set_break(0, u64::MAX), 0x10_2800);
    assert_eq!((child.size(), parent.size()), (0x4000, 0x3000));
    let most = MapRequest::anonymous(0x10_000, RW);
    assert_eq!(child.map(most), Err(Errno::ENOMEM));
}

#[test]
fn nothing_is_left_of_a_child() {
    let parent = space();
    let start = map(&parent, 600);
    for page in 0..600 {
        parent.write(start + page * PAGE, b"x").unwrap();
    }
    let is_nothing_left = || {
        let free = memory_use().free;
        for _ in 0..20 {
            let child = parent.fork().unwrap();
            child.write(start, b"y").unwrap();
            let grandchild = child.fork().unwrap();
            grandchild.unmap(start, 300 * PAGE).unwrap();
            parent.write(start + 7 * PAGE, b"z").unwrap();
        }
        memory_use().free == free
    };
    in_some_try(is_nothing_left);
}
