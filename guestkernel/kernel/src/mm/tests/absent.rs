//! Pages that take time: faults wait for them, and accesses of the kernel's are made again.

use super::*;
use crate::executor::{block_on, spawn, yield_now};
use crate::fs::FileOps;
use crate::io::{Direction, Io, IoFlags};
use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll};

/// A source that has no page until it was waited for. Page 9 cannot be read.
#[derive(Default)]
pub(in crate::mm) struct Slow {
    pages: Mutex<BTreeMap<u64, Frame>>,
    reads: AtomicUsize,
}

impl Slow {
    async fn read(&self, index: u64) -> Result<Frame> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        for _ in 0..3 {
            yield_now().await;
        }
        if index == 9 {
            return Err(Errno::EIO);
        }
        let frame = Frame::zeroed()?;
        frame.fill(0..PAGE as usize, b'a' + index as u8);
        self.pages.lock().insert(index, frame.clone());
        Ok(frame)
    }
}

impl PageSource for Slow {
    fn page(&self, index: u64, for_write: bool) -> Answer<'_, Frame> {
        match self.page_now(index, for_write) {
            Some(frame) => Answer::ready(frame),
            None => Answer::later(self.read(index)),
        }
    }

    fn page_now(&self, index: u64, _for_write: bool) -> Option<Result<Frame>> {
        self.pages.lock().get(&index).cloned().map(Ok)
    }
}

fn slow(pages: u64) -> (Arc<Slow>, Arc<AddressSpace>, u64) {
    let source = Arc::new(Slow::default());
    let space = space();
    let request = MapRequest::shared(source.clone(), 0, pages * PAGE, RW);
    let start = space.map(request).unwrap();
    (source, space, start)
}

#[test]
fn a_fault_waits_for_its_page_and_maps_neighbours_that_are_there() {
    let (source, space, start) = slow(4);
    assert_eq!(space.fault(store(start)), Err(FaultError::Absent));
    assert_eq!(source.reads.load(Ordering::Relaxed), 0);
    block_on(space.fault_waiting(store(start))).unwrap();
    block_on(source.read(2)).unwrap();
    block_on(space.fault_waiting(store(start + PAGE))).unwrap();
    assert_eq!(byte(&space, start + 2 * PAGE), Ok(b'c'));
    assert_eq!(source.reads.load(Ordering::Relaxed), 3);
    assert_eq!(
        space.residency(start, 4 * PAGE).unwrap(),
        [true, true, true, false]
    );
}

#[test]
fn what_cannot_be_read_is_no_page() {
    let (_, space, start) = slow(10);
    let fault = store(start + 9 * PAGE);
    assert_eq!(space.fault(fault), Err(FaultError::Absent));
    assert_eq!(
        block_on(space.fault_waiting(fault)),
        Err(FaultError::NoPage)
    );
    let read = || byte(&space, start + 9 * PAGE);
    assert_eq!(read(), Err(Errno::ABSENT));
    assert_eq!(block_on(space.retry(read)), Err(Errno::EFAULT));
}

#[test]
fn a_page_of_mappings_that_changed_meanwhile_is_not_mapped() {
    let (_, space, start) = slow(1);
    let other = space.clone();
    spawn("test", async move {
        other.unmap(start, PAGE).unwrap();
    });
    let result = block_on(space.fault_waiting(store(start)));
    assert_eq!(result, Err(FaultError::NotMapped));
}

#[test]
fn an_access_of_the_kernel_is_made_again() {
    let (_, space, start) = slow(3);
    let mut out = [0; 4];
    let read = || space.read(start + PAGE - 2, &mut out);
    block_on(space.retry(read)).unwrap();
    assert_eq!(&out, b"aabb");
    let prepare = || space.prepare_write(start + 2 * PAGE, 8);
    assert_eq!(prepare(), Err(Errno::ABSENT));
    block_on(space.retry(prepare)).unwrap();
    assert_eq!(space.write_value(start + 2 * PAGE, &1_u64), Ok(()));
    // What is not mapped shows when it is written.
    assert_eq!(space.prepare_write(start + 3 * PAGE, 8), Ok(()));
}

#[test]
fn two_who_miss_pages_at_once_both_get_theirs() {
    let (_, space, start) = slow(8);
    let done = Arc::new(AtomicUsize::new(0));
    for page in 0..8 {
        let (space, done) = (space.clone(), done.clone());
        spawn("test", async move {
            let read = || byte(&space, start + page * PAGE);
            assert_eq!(space.retry(read).await, Ok(b'a' + page as u8));
            done.fetch_add(1, Ordering::Relaxed);
        });
    }
    block_on(async {
        while done.load(Ordering::Relaxed) < 8 {
            yield_now().await;
        }
    });
}

#[test]
fn a_transfer_waits_for_the_pages_of_its_buffer() {
    use crate::fs::{OpenFile, OpenFlags};
    /// Gives what it takes.
    struct Echo(Mutex<Vec<u8>>);
    impl FileOps for Echo {
        fn poll_io(&self, io: &mut Io, _: &mut Context<'_>) -> Poll<Result<usize>> {
            let mut bytes = self.0.lock();
            while io.done < io.buffer.len() {
                let mut chunk = [0; 1000];
                let result = match io.direction {
                    Direction::Write => io.buffer.take(io.done, &mut chunk).inspect(|taken| {
                        bytes.extend_from_slice(&chunk[..*taken]);
                    }),
                    Direction::Read => io.buffer.fill(io.done, &bytes[io.done..]),
                };
                match result {
                    Ok(count) => io.done += count,
                    Err(error) => return Poll::Ready(io.cut_short(error)),
                }
            }
            Poll::Ready(Ok(io.done))
        }
    }
    let (source, space, start) = slow(8);
    let file = OpenFile::new(Arc::new(Echo(Mutex::default())), OpenFlags::READ_WRITE);
    let transfer = |direction, address, length: u64| {
        let buffer = IoBuffer::user(space.clone(), address, length as usize);
        let mut io = Io::new(direction, None, buffer, IoFlags::empty());
        block_on(file.complete(&mut io))
    };
    let length = 3 * PAGE - 20;
    assert_eq!(
        transfer(Direction::Write, start + 10, length),
        Ok(length as usize)
    );
    let copy = start + 4 * PAGE + 100;
    assert_eq!(transfer(Direction::Read, copy, length), Ok(length as usize));
    assert_eq!(source.reads.load(Ordering::Relaxed), 7);
    assert_eq!(byte(&space, copy + PAGE - 11), Ok(b'a'));
    assert_eq!(byte(&space, copy + PAGE - 10), Ok(b'b'));
}
