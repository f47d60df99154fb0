//! What the kernel does with the memory of programs: copying, and pinning for devices.

use super::*;

#[test]
fn pinned_memory_outlives_its_mapping() {
    let space = space();
    let start = map(&space, 2);
    let segments = space.pin(start + 10, PAGE as usize, RW).unwrap();
    assert_eq!(segments.len(), 2);
    space.write(start + 10, b"x").unwrap();
    space.unmap(start, 2 * PAGE).unwrap();
    assert_eq!(segments[0].frame().read_array::<1>(10), *b"x");
    assert!(segments[0].frame().is_unique());
    assert_eq!(
        space.pin(start, 1, Access::READ).unwrap_err(),
        Errno::EFAULT
    );
    assert_eq!(
        space.pin(u64::MAX, 2, Access::READ).unwrap_err(),
        Errno::EFAULT
    );
}

#[test]
fn pinning_for_a_device_that_writes_makes_the_copy_first() {
    let file = File::new(1);
    let space = space();
    let start = space.map(private(&file, 0, 1, RW)).unwrap();
    byte(&space, start).unwrap();
    let segments = space.pin(start, PAGE as usize, RW).unwrap();
    segments[0].frame().write(1, b"d");
    assert_eq!(byte(&space, start + 1), Ok(b'd'));
    assert_eq!(file.byte(0, 1), 0);
}

#[test]
fn strings_end_at_their_nul_and_need_no_page_after_it() {
    let space = space();
    let start = map(&space, 1);
    let end = start + PAGE;
    space.write(end - 4, b"abc\0").unwrap();
    assert_eq!(space.read_string(end - 4, 4096), Ok(b"abc".to_vec()));
    assert_eq!(space.read_string(end - 4, 3), Err(Errno::ENAMETOOLONG));
    space.write(end - 1, b"d").unwrap();
    assert_eq!(space.read_string(end - 4, 4096), Err(Errno::EFAULT));
}

#[test]
fn a_buffer_of_several_ranges_is_one_run_of_bytes() {
    let space = space();
    let start = map(&space, 2);
    let ranges = [(start, 3), (start + 100, 0), (start + PAGE - 2, 4)];
    let ranges = ranges.map(|(address, length)| UserRange { address, length });
    let mut buffer = IoBuffer::vectored(space.clone(), ranges.into_iter().collect());
    assert_eq!(buffer.len(), 7);
    assert_eq!(buffer.fill(1, b"abcdefgh"), Ok(6));
    let mut out = [0; 7];
    assert_eq!(buffer.take(0, &mut out), Ok(7));
    assert_eq!(&out, b"\0abcdef");
    assert_eq!(byte(&space, start + PAGE), Ok(b'e'));
    let frame = Frame::zeroed().unwrap();
    assert_eq!(buffer.take_to_frame(2, &frame, 7, 4), Ok(4));
    assert_eq!(frame.read_array::<4>(7), *b"bcde");
    assert_eq!(buffer.fill_from_frame(3, &frame, 7, 2), Ok(2));
    assert_eq!(buffer.fill_zeros(5, 9), Ok(2));
    buffer.take(0, &mut out).unwrap();
    assert_eq!(&out, b"\0abbc\0\0");
}

#[test]
fn a_copy_ends_before_a_bad_page() {
    let space = space();
    let start = map(&space, 1);
    let mut buffer = IoBuffer::user(space.clone(), start + PAGE - 3, 8);
    assert_eq!(buffer.fill(0, b"abcdefgh"), Ok(3));
    assert_eq!(buffer.fill(3, b"d"), Err(Errno::EFAULT));
    let frame = Frame::zeroed().unwrap();
    assert_eq!(buffer.take_to_frame(0, &frame, 0, 8), Ok(3));
    assert_eq!(buffer.take_to_frame(3, &frame, 0, 8), Err(Errno::EFAULT));
    assert!(buffer.segments(0, 8, true).is_err());
    assert_eq!(buffer.segments(0, 3, true).unwrap().total(), 3);
}

#[test]
fn a_registered_buffer_is_found_by_offset() {
    let space = space();
    let start = map(&space, 3);
    let region: Arc<[Segment]> = space
        .pin(start + 4000, 5000, RW)
        .unwrap()
        .into_iter()
        .collect();
    space.unmap(start, 3 * PAGE).unwrap();
    let mut buffer = IoBuffer::registered(region, 90, 4200);
    assert_eq!(buffer.fill(0, &[b'a'; 4200]), Ok(4200));
    assert_eq!(buffer.fill(4199, b"bc"), Ok(1));
    let mut out = [0; 3];
    assert_eq!(buffer.take(4198, &mut out), Ok(2));
    assert_eq!(&out, b"ab\0");
    let segments = buffer.segments(4, 4196, true).unwrap();
    assert!(matches!(segments, DmaSegments::Shared { offset: 94, .. }));
    assert_eq!(segments.total(), 4196);
    assert!(buffer.segments(4, 4197, true).is_err());
}
