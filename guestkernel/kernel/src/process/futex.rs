//! Waiting on a word of memory (`futex(2)`).

use super::wait_table::{Counts, Key, Ticket, WaitTable};
use crate::error::{Errno, Result};
use crate::globals::global;
use crate::mm::{Access, AddressSpace, TASK_SIZE};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::{Context, Poll};
use spin::Lazy;

/// Buckets of the table, as Linux has them for one CPU.
const BUCKETS: usize = 256;

global! {
    static WAITERS: Lazy<WaitTable> = Lazy::new(|| WaitTable::new(BUCKETS));
}

/// All bits: every waiter and every wake-up.
pub const ALL_BITS: u32 = u32::MAX;

/// A word of memory that is waited on.
#[derive(Clone, Copy)]
pub struct Futex<'a> {
    space: &'a Arc<AddressSpace>,
    address: u64,
    key: Key,
}

/// One who waits, until it is woken; dropping it gives up.
pub struct Waiting(Ticket<'static>);

impl Waiting {
    /// Ready when it has been woken.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.0.poll(context)
    }

    /// Waits no longer, as time is over or a signal has come; true if it has been woken before
    /// that.
    pub fn give_up(&self) -> bool {
        self.0.give_up()
    }
}

impl<'a> Futex<'a> {
    /// The word at `address`; `is_private` if only threads of one address space use it.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an address that is not aligned, `EFAULT`.
    pub fn new(space: &'a Arc<AddressSpace>, address: u64, is_private: bool) -> Result<Self> {
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if address >= TASK_SIZE {
            return Err(Errno::EFAULT);
        }
        let number = Arc::as_ptr(space) as usize;
        let key = if is_private {
            Key::Private(number, address)
        } else {
            // A private page can be replaced by a copy, so its frame does not identify it.
            match space.shared_frame(address)? {
                Some(frame) => Key::Shared(machine::PhysAddr(
                    frame.address().0 + address % crate::mm::PAGE,
                )),
                None => {
                    // The program's own page is told from others by being its alone, so it must
                    // be one that can be written to.
                    space.with_u32(address, Access::WRITE, |_| ())?;
                    Key::Own(number, address)
                }
            }
        };
        Ok(Self {
            space,
            address,
            key,
        })
    }

    /// Has the caller wait, if the word holds `expected`.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it holds something else, `EINVAL` for no `bits`, `EFAULT`.
    pub fn wait(self, expected: u32, bits: u32) -> Result<Waiting> {
        if bits == 0 {
            return Err(Errno::EINVAL);
        }
        WAITERS
            .wait_if(self.key, bits, || self.check(expected))
            .map(Waiting)
    }

    fn check(&self, expected: u32) -> Result<()> {
        let load = |word: &AtomicU32| word.load(Ordering::SeqCst);
        match self.space.with_u32(self.address, Access::READ, load)? {
            value if value == expected => Ok(()),
            _ => Err(Errno::EAGAIN),
        }
    }

    /// Wakes up to `count` of those who wait and have one of `bits`; returns how many.
    ///
    /// # Errors
    ///
    /// `EINVAL` for no `bits`.
    pub fn wake(self, count: u32, bits: u32) -> Result<u32> {
        match bits {
            0 => Err(Errno::EINVAL),
            _ => Ok(WAITERS.wake(self.key, count, bits)),
        }
    }

    /// Wakes up to `wake` of those who wait and has up to `requeue` of the others wait on the
    /// word `to` instead, if this one holds `expected`, where that is given. Returns how many were
    /// woken or moved.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it holds something else, `EFAULT`.
    pub fn requeue(
        self,
        to: Futex<'_>,
        (wake, requeue): (u32, u32),
        expected: Option<u32>,
    ) -> Result<u32> {
        let check = || expected.map_or(Ok(()), |expected| self.check(expected));
        WAITERS.requeue([self.key, to.key], Counts { wake, requeue }, check)
    }

    /// Changes the word `other` as `modification` says; then wakes up to the first count of those who
    /// wait here, and, if that finds what `other` held to its liking, up to the second of
    /// those who wait there. Returns how many were woken.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOSYS`.
    pub fn wake_both(
        self,
        other: Futex<'_>,
        counts: [u32; 2],
        modification: Modification,
    ) -> Result<u32> {
        WAITERS.wake_two([self.key, other.key], counts, || {
            let change = |word: &AtomicU32| modification.apply(word);
            let before = other.space.with_u32(other.address, Access::WRITE, change)?;
            modification.is_satisfied_by(before)
        })
    }
}

/// What `FUTEX_WAKE_OP` does with the second word.
#[derive(Clone, Copy, Debug)]
pub struct Modification {
    change: fn(u32, u32) -> u32,
    operand: u32,
    /// `None` if there is no such comparison, which shows when the word has been changed.
    compare: Option<fn(&i32, &i32) -> bool>,
    compared: i32,
}

impl Modification {
    /// What the program's number says: four bits of operation, four of comparison, twelve of each
    /// operand, which are signed.
    ///
    /// # Errors
    ///
    /// `ENOSYS` for an operation that there is not.
    pub fn decode(code: u32) -> Result<Self> {
        const OPERAND_IS_SHIFT: u32 = 8;
        let signed = |shift: u32| ((code << shift) as i32) >> 20;
        let (operation, mut operand) = (code >> 28, signed(8) as u32);
        if operation & OPERAND_IS_SHIFT != 0 {
            operand = 1 << (operand & 31);
        }
        let change: fn(u32, u32) -> u32 = match operation & !OPERAND_IS_SHIFT {
            0 => |_, operand| operand,
            1 => u32::wrapping_add,
            2 => |value, operand| value | operand,
            3 => |value, operand| value & !operand,
            4 => |value, operand| value ^ operand,
            _ => return Err(Errno::ENOSYS),
        };
        let compare: Option<fn(&i32, &i32) -> bool> = match code >> 24 & 15 {
            0 => Some(i32::eq),
            1 => Some(i32::ne),
            2 => Some(i32::lt),
            3 => Some(i32::le),
            4 => Some(i32::gt),
            5 => Some(i32::ge),
            _ => None,
        };
        Ok(Self {
            change,
            operand,
            compare,
            compared: signed(20),
        })
    }

    /// Changes the word and returns what it held.
    fn apply(&self, word: &AtomicU32) -> u32 {
        let change = |value| Some((self.change)(value, self.operand));
        let (Ok(before) | Err(before)) =
            word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
        before
    }

    fn is_satisfied_by(&self, before: u32) -> Result<bool> {
        let compare = self.compare.ok_or(Errno::ENOSYS)?;
        Ok(compare(&(before as i32), &self.compared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{MapRequest, PageSource};
    use core::task::Waker;

    struct Word {
        space: Arc<AddressSpace>,
        address: u64,
    }

    impl Word {
        fn new() -> Self {
            let space = AddressSpace::new().unwrap();
            let access = Access::READ | Access::WRITE;
            let address = space.map(MapRequest::anonymous(8192, access)).unwrap();
            Self { space, address }
        }

        fn at(&self, offset: u64, is_private: bool) -> Futex<'_> {
            Futex::new(&self.space, self.address + offset, is_private).unwrap()
        }

        fn set(&self, offset: u64, value: u32) {
            let address = self.address + offset;
            self.space.write_value(address, &value).unwrap();
        }

        fn get(&self, offset: u64) -> u32 {
            self.space.read_value(self.address + offset).unwrap()
        }
    }

    fn is_woken(waiting: &Waiting) -> bool {
        let context = Context::from_waker(Waker::noop());
        waiting.poll(&context).is_ready()
    }

    #[test]
    fn a_wake_up_ends_one_wait_and_reaches_only_its_word() {
        for is_private in [false, true] {
            let word = Word::new();
            let futex = word.at(0, is_private);
            let first = futex.wait(0, ALL_BITS).unwrap();
            let second = futex.wait(0, ALL_BITS).unwrap();
            assert_eq!(word.at(4, is_private).wake(9, ALL_BITS), Ok(0));
            assert_eq!(word.at(0, !is_private).wake(9, ALL_BITS), Ok(0));
            assert!(!is_woken(&first) && !is_woken(&second));
            assert_eq!(futex.wake(1, ALL_BITS), Ok(1));
            assert!(is_woken(&first) && !is_woken(&second));
        }
    }

    #[test]
    fn the_first_write_to_a_private_page_does_not_hide_those_who_wait() {
        let word = Word::new();
        let waiting = word.at(0, false).wait(0, ALL_BITS).unwrap();
        word.set(0, 1);
        assert_eq!(word.at(0, false).wake(1, ALL_BITS), Ok(1));
        assert!(is_woken(&waiting));
    }

    #[test]
    fn shared_memory_is_the_same_word_at_every_address() {
        struct OnePage(machine::Frame);
        impl PageSource for OnePage {
            fn page(&self, _: u64, _: bool) -> crate::fs::Answer<'_, machine::Frame> {
                crate::fs::Answer::ready(Ok(self.0.clone()))
            }
        }
        let source = Arc::new(OnePage(machine::Frame::zeroed().unwrap()));
        let spaces = [(); 2].map(|()| AddressSpace::new().unwrap());
        let [first, second] = spaces.each_ref().map(|space| {
            let access = Access::READ | Access::WRITE;
            let page = space
                .map(MapRequest::shared(source.clone(), 0, 4096, access))
                .unwrap();
            Futex::new(space, page + 8, false).unwrap()
        });
        let waiting = first.wait(0, ALL_BITS).unwrap();
        assert_eq!(second.wake(1, ALL_BITS), Ok(1));
        assert!(is_woken(&waiting));
    }

    #[test]
    fn one_who_gave_up_is_not_counted_and_one_who_was_woken_knows() {
        let word = Word::new();
        let futex = word.at(0, true);
        drop(futex.wait(0, ALL_BITS).unwrap());
        let waiting = futex.wait(0, ALL_BITS).unwrap();
        assert!(!waiting.give_up());
        assert_eq!(futex.wake(1, ALL_BITS), Ok(0));
        let waiting = futex.wait(0, ALL_BITS).unwrap();
        assert_eq!(futex.wake(1, ALL_BITS), Ok(1));
        assert!(waiting.give_up());
    }

    #[test]
    fn errors_are_those_of_linux() {
        let word = Word::new();
        let futex = word.at(0, true);
        assert_eq!(futex.wait(1, ALL_BITS).err(), Some(Errno::EAGAIN));
        assert_eq!(futex.wait(0, 0).err(), Some(Errno::EINVAL));
        assert_eq!(futex.wake(1, 0).err(), Some(Errno::EINVAL));
        let error = |address, is_private| Futex::new(&word.space, address, is_private).err();
        assert_eq!(error(word.address + 2, true), Some(Errno::EINVAL));
        assert_eq!(error(TASK_SIZE, true), Some(Errno::EFAULT));
        assert_eq!(error(8, false), Some(Errno::EFAULT));
        let nowhere = Futex::new(&word.space, 8, true).unwrap();
        assert_eq!(nowhere.wait(0, ALL_BITS).err(), Some(Errno::EFAULT));
    }

    #[test]
    fn bits_select_who_is_woken() {
        let word = Word::new();
        let futex = word.at(0, true);
        let low = futex.wait(0, 1).unwrap();
        let high = futex.wait(0, 6).unwrap();
        assert_eq!(futex.wake(9, 8), Ok(0));
        assert_eq!(futex.wake(9, 4), Ok(1));
        assert!(!is_woken(&low) && is_woken(&high));
    }

    #[test]
    fn a_moved_waiter_is_woken_at_its_new_word_only() {
        let word = Word::new();
        // Words in the same and in other buckets.
        for distance in (4..4096).step_by(4) {
            let (from, to) = (word.at(0, true), word.at(distance, true));
            let waiting: [_; 3] = core::array::from_fn(|_| from.wait(0, ALL_BITS).unwrap());
            assert_eq!(from.requeue(to, (1, 1), Some(1)).err(), Some(Errno::EAGAIN));
            assert_eq!(from.requeue(to, (1, 1), Some(0)), Ok(2));
            assert_eq!(waiting.each_ref().map(is_woken), [true, false, false]);
            assert_eq!(to.wake(9, ALL_BITS), Ok(1));
            assert_eq!(waiting.each_ref().map(is_woken), [true, true, false]);
            assert_eq!(from.wake(9, ALL_BITS), Ok(1));
        }
    }

    #[test]
    fn waking_at_two_words_changes_the_second_and_asks_what_it_held() {
        let word = Word::new();
        let (first, second) = (word.at(0, true), word.at(4, true));
        // Operation, its operand, comparison, its operand; what there was, what there is, whether
        // the comparison holds.
        for (operation, operand, comparison, compared, before, after, holds) in [
            (0, 7, 0, 5, 5, 7, true),
            (1, 0xfff, 1, 5, 5, 4, false),
            (2, 0x10, 2, 0, -1_i32 as u32, -1_i32 as u32, true),
            (3, 1, 3, 5, 5, 4, true),
            (4, 3, 4, 5, 5, 6, false),
            (8, 31, 5, 0xfff, 0, 1 << 31, true),
        ] {
            word.set(4, before);
            word.set(0, 0);
            let here = first.wait(0, ALL_BITS).unwrap();
            let there = second.wait(before, ALL_BITS).unwrap();
            let code = operation << 28 | comparison << 24 | operand << 12 | compared;
            let operation = Modification::decode(code).unwrap();
            let woken = first.wake_both(second, [1, 1], operation);
            assert_eq!(woken, Ok(1 + u32::from(holds)), "{code:#x}");
            assert_eq!(word.get(4), after, "{code:#x}");
            assert!(is_woken(&here));
            assert_eq!(is_woken(&there), holds, "{code:#x}");
        }
        assert_eq!(Modification::decode(5 << 28).err(), Some(Errno::ENOSYS));
        word.set(4, 0);
        let compares_badly = Modification::decode(6 << 24 | 7 << 12).unwrap();
        let woken = first.wake_both(second, [1, 1], compares_badly);
        assert_eq!(woken, Err(Errno::ENOSYS));
        assert_eq!(word.get(4), 7, "the word is changed all the same");
    }
}
