//! `eventfd(2)`: a counter to wait for.

use super::{FileOps, Readiness, WaitQueue};
use crate::error::{Errno, Result};
use crate::io::{Direction, Io, IoFlags};
use core::task::{Context, Poll};
use machine::lock::Mutex;

/// The largest count.
const COUNT_MAX: u64 = u64::MAX - 1;
/// Bytes of every read and write.
const SIZE: usize = 8;

/// The counter of an eventfd.
pub struct EventFd {
    count: Mutex<u64>,
    is_semaphore: bool,
    changes: WaitQueue,
}

impl EventFd {
    /// A counter that starts at `count`. A read takes one from a semaphore, all from others.
    pub fn new(count: u64, is_semaphore: bool) -> Self {
        Self {
            count: Mutex::new(count),
            is_semaphore,
            changes: WaitQueue::new(),
        }
    }

    /// Adds one, as a completion that is announced does; at the largest count it stays.
    pub fn signal(&self) {
        let mut count = self.count.lock();
        *count = (*count + 1).min(COUNT_MAX);
        drop(count);
        self.changes.wake(Readiness::IN.bits());
    }

    /// Takes the count, unless it is 0.
    fn take(&self) -> Option<u64> {
        let mut count = self.count.lock();
        let taken = match self.is_semaphore {
            true => 1.min(*count),
            false => *count,
        };
        *count -= taken;
        (taken > 0).then_some(taken)
    }

    /// Adds `value`, if there is room for it.
    fn add(&self, value: u64) -> Option<()> {
        let mut count = self.count.lock();
        *count = count.checked_add(value).filter(|sum| *sum <= COUNT_MAX)?;
        Some(())
    }

    fn has_room(&self) -> bool {
        *self.count.lock() < COUNT_MAX
    }

    /// Reads, if there is something.
    fn try_read(&self, io: &mut Io) -> Result<Option<()>> {
        if io.buffer.len() < SIZE {
            return Err(Errno::EINVAL);
        }
        io.buffer.prepare_fill(0, SIZE)?;
        let Some(value) = self.take() else {
            return Ok(None);
        };
        match io.buffer.fill(0, &value.to_ne_bytes())? {
            SIZE => Ok(Some(())),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Writes the next piece, if there is room.
    fn try_write(&self, io: &Io) -> Result<Option<()>> {
        let mut value = [0; SIZE];
        if io.buffer.left_of_piece(io.done) != SIZE {
            return Err(Errno::EINVAL);
        }
        io.buffer.take_all(io.done, &mut value)?;
        match u64::from_ne_bytes(value) {
            u64::MAX => Err(Errno::EINVAL),
            value => Ok(self.add(value)),
        }
    }

    fn try_io(&self, io: &mut Io) -> Result<Option<()>> {
        match io.direction {
            Direction::Read => {
                let read = self.try_read(io)?;
                io.done += read.map_or(0, |()| SIZE);
                Ok(read)
            }
            Direction::Write => loop {
                match self.try_write(io) {
                    Ok(Some(())) => {
                        io.done += SIZE;
                        self.changes.wake(Readiness::IN.bits());
                    }
                    Ok(None) if io.done > 0 && io.flags.contains(IoFlags::NOWAIT) => {
                        return Ok(Some(()));
                    }
                    // It is ready for less, and has no room for this.
                    Ok(None)
                        if io.flags.contains(IoFlags::ONLY_FOR_READINESS) && self.has_room() =>
                    {
                        return Err(Errno::EAGAIN);
                    }
                    Ok(None) => return Ok(None),
                    Err(error) => return io.cut_short(error).map(|_| Some(())),
                }
                if io.done == io.buffer.len() {
                    return Ok(Some(()));
                }
            },
        }
    }
}

impl FileOps for EventFd {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let waited = match io.direction {
            Direction::Read => Readiness::IN,
            Direction::Write => Readiness::OUT,
        };
        let heard = Readiness::heard(waited);
        self.changes.register_for(context.waker(), heard);
        match self.try_io(io) {
            Ok(Some(())) => {
                if io.direction == Direction::Read {
                    self.changes.wake(Readiness::OUT.bits());
                }
                Poll::Ready(Ok(io.done))
            }
            Ok(None) if io.flags.contains(IoFlags::NOWAIT) => Poll::Ready(Err(Errno::EAGAIN)),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn kind(&self) -> &'static str {
        "eventfd"
    }

    fn stays_at_start(&self) -> bool {
        true
    }

    fn writes_by_piece(&self) -> bool {
        true
    }

    fn can_splice(&self, _direction: Direction) -> bool {
        false
    }

    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness {
        let heard = Readiness::heard(interest);
        self.changes.register_for(context.waker(), heard);
        let count = *self.count.lock();
        let mut ready = Readiness::empty();
        if count > 0 {
            ready |= Readiness::IN;
        }
        if count < COUNT_MAX {
            ready |= Readiness::OUT;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::IoBuffer;

    fn io(file: &EventFd, direction: Direction, value: u64) -> (Poll<Result<usize>>, u64) {
        let buffer = IoBuffer::Kernel(value.to_ne_bytes().to_vec());
        let mut io = Io::new(direction, None, buffer, IoFlags::empty());
        let mut context = Context::from_waker(core::task::Waker::noop());
        let result = file.poll_io(&mut io, &mut context);
        let mut value = [0; SIZE];
        io.buffer.take(0, &mut value).unwrap();
        (result, u64::from_ne_bytes(value))
    }

    #[test]
    fn a_read_takes_the_sum_of_what_was_written() {
        let file = EventFd::new(1, false);
        assert_eq!(io(&file, Direction::Write, 4).0, Poll::Ready(Ok(8)));
        file.signal();
        assert_eq!(io(&file, Direction::Read, 0), (Poll::Ready(Ok(8)), 6));
        assert_eq!(io(&file, Direction::Read, 0).0, Poll::Pending);
    }

    #[test]
    fn a_semaphore_gives_one_at_a_time() {
        let file = EventFd::new(2, true);
        assert_eq!(io(&file, Direction::Read, 0).1, 1);
        assert_eq!(io(&file, Direction::Read, 0).1, 1);
        assert_eq!(io(&file, Direction::Read, 0).0, Poll::Pending);
    }

    #[test]
    fn the_count_does_not_overflow() {
        let file = EventFd::new(0, false);
        assert_eq!(
            io(&file, Direction::Write, u64::MAX).0,
            Poll::Ready(Err(Errno::EINVAL))
        );
        assert_eq!(io(&file, Direction::Write, COUNT_MAX).0, Poll::Ready(Ok(8)));
        assert_eq!(io(&file, Direction::Write, 1).0, Poll::Pending);
        file.signal();
        assert_eq!(io(&file, Direction::Read, 0).1, COUNT_MAX);
    }
}
