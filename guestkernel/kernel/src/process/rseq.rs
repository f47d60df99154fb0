//! Restartable sequences (`rseq(2)`): the program is shown which CPU it runs on, and a sequence
//! that does not run to its end undisturbed starts again at its abort handler.

use crate::error::{Errno, Result};
use crate::mm::{AddressSpace, TASK_SIZE};
use machine::UserContext;

/// Bytes of the area as it was first, and its alignment then.
const ORIGINAL_SIZE: u32 = 32;
/// The fields that there are end here (`AT_RSEQ_FEATURE_SIZE`), and the alignment of a longer
/// area (`AT_RSEQ_ALIGN`).
pub(super) const FEATURE_SIZE: u32 = 28;
pub(super) const ALIGN: u32 = 32;
/// `RSEQ_FLAG_UNREGISTER`.
const UNREGISTER: u32 = 1;
/// `RSEQ_CPU_ID_UNINITIALIZED`.
const NO_CPU: u32 = u32::MAX;

/// Offsets of `struct rseq`.
const CPU_ID_START: u64 = 0;
const CPU_ID: u64 = 4;
const SEQUENCE: u64 = 8;
const FLAGS: u64 = 16;
const NODE_ID: u64 = 20;
const CONCURRENCY_ID: u64 = 24;

/// The area that a thread has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Area {
    address: u64,
    length: u32,
    signature: u32,
}

/// The restartable sequences of a thread.
#[derive(Debug, Default)]
pub struct RestartableSequences {
    area: Option<Area>,
    /// The CPU that the area shows.
    shown_cpu: Option<u32>,
    /// The thread was off its CPU since it last entered its program.
    was_disturbed: bool,
}

impl RestartableSequences {
    /// Registers the area at `address`, or unregisters it, as `flags` say.
    ///
    /// # Errors
    ///
    /// Those of rseq(2).
    pub fn register(
        &mut self,
        space: &AddressSpace,
        address: u64,
        length: u32,
        (flags, signature): (u32, u32),
    ) -> Result<()> {
        let area = Area {
            address,
            length,
            signature,
        };
        if flags & UNREGISTER != 0 {
            return self.unregister(space, area, flags);
        }
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        if let Some(known) = self.area {
            return Err(match known {
                known if (known.address, known.length) != (address, length) => Errno::EINVAL,
                known if known.signature != signature => Errno::EPERM,
                _ => Errno::EBUSY,
            });
        }
        if length < ORIGINAL_SIZE || !address.is_multiple_of(ALIGN.into()) {
            return Err(Errno::EINVAL);
        }
        if address > TASK_SIZE - u64::from(length) {
            return Err(Errno::EFAULT);
        }
        space.write_value(address + SEQUENCE, &0_u64)?;
        self.area = Some(area);
        self.shown_cpu = None;
        self.was_disturbed = true;
        Ok(())
    }

    fn unregister(&mut self, space: &AddressSpace, area: Area, flags: u32) -> Result<()> {
        let known = self.area.ok_or(Errno::EINVAL)?;
        if flags != UNREGISTER || (known.address, known.length) != (area.address, area.length) {
            return Err(Errno::EINVAL);
        }
        if known.signature != area.signature {
            return Err(Errno::EPERM);
        }
        show(space, known, 0, NO_CPU)?;
        self.area = None;
        Ok(())
    }

    /// Those of a thread in a copy of the memory, which begins where this one is.
    pub(super) fn inherited(&self) -> Self {
        Self {
            area: self.area,
            shown_cpu: None,
            was_disturbed: true,
        }
    }

    /// The thread has got a CPU, having been off it.
    pub(crate) fn disturb(&mut self) {
        self.was_disturbed = true;
    }

    /// Sees to it, before the program is entered, that the area is true, and that a sequence which
    /// was disturbed starts again.
    ///
    /// # Errors
    ///
    /// The program dies by SIGSEGV if its area or its description of a sequence is no good.
    #[inline]
    pub(crate) fn prepare(
        &mut self,
        space: &AddressSpace,
        context: &mut UserContext,
    ) -> Result<()> {
        match self.area {
            Some(area) if self.was_disturbed => self.resume(space, area, context),
            _ => Ok(()),
        }
    }

    fn resume(
        &mut self,
        space: &AddressSpace,
        area: Area,
        context: &mut UserContext,
    ) -> Result<()> {
        self.was_disturbed = false;
        let cpu = machine::current_cpu();
        if self.shown_cpu != Some(cpu) {
            show(space, area, cpu, cpu)?;
            self.shown_cpu = Some(cpu);
        }
        let address: u64 = space.read_value(area.address + SEQUENCE)?;
        if address == 0 {
            return Ok(());
        }
        let sequence = Sequence::read(space, address, area.signature)?;
        let is_inside = sequence.contains(context.registers.rip);
        if is_inside {
            // Flags said that a sequence should not be restarted; Linux has given them up.
            let flags: u32 = space.read_value(area.address + FLAGS)?;
            if sequence.flags != 0 || flags != 0 {
                return Err(Errno::EINVAL);
            }
        }
        space.write_value(area.address + SEQUENCE, &0_u64)?;
        if is_inside {
            context.registers.rip = sequence.abort;
        }
        Ok(())
    }
}

/// Fills in the fields of an area about the CPU. There is one memory node; and since a CPU runs one
/// thread at a time, its number will do for the number among threads that run at once.
fn show(space: &AddressSpace, area: Area, start: u32, cpu: u32) -> Result<()> {
    for (field, value) in [
        (CPU_ID_START, start),
        (CPU_ID, cpu),
        (NODE_ID, 0),
        (CONCURRENCY_ID, start),
    ] {
        space.write_value(area.address + field, &value)?;
    }
    Ok(())
}

/// What `struct rseq_cs` says of a sequence.
struct Sequence {
    flags: u32,
    start: u64,
    length: u64,
    abort: u64,
}

impl Sequence {
    fn read(space: &AddressSpace, address: u64, signature: u32) -> Result<Self> {
        if address >= TASK_SIZE {
            return Err(Errno::EFAULT);
        }
        let word = |index: u64| space.read_value::<u64>(address.wrapping_add(index * 8));
        let head = word(0)?;
        let (version, flags) = (head as u32, (head >> 32) as u32);
        let (start, length, abort) = (word(1)?, word(2)?, word(3)?);
        let sequence = Self {
            flags,
            start,
            length,
            abort,
        };
        let end = start.checked_add(length);
        let is_valid = version == 0
            && start < TASK_SIZE
            && end.is_some_and(|end| end < TASK_SIZE)
            && abort < TASK_SIZE
            && !sequence.contains(abort);
        if !is_valid {
            return Err(Errno::EINVAL);
        }
        let before_abort = abort.checked_sub(4).ok_or(Errno::EINVAL)?;
        match space.read_value::<u32>(before_abort)? {
            found if found == signature => Ok(sequence),
            _ => Err(Errno::EINVAL),
        }
    }

    fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{Access, MapRequest};
    use alloc::sync::Arc;

    const SIGNATURE: u32 = 0x5305_3053;
    const START: u64 = 0x40_0000;

    /// A thread that has registered an area, at the start of a page; the second half of the page
    /// is for the description of a sequence.
    struct Program {
        space: Arc<AddressSpace>,
        area: u64,
        sequences: RestartableSequences,
        context: UserContext,
    }

    impl Program {
        fn new() -> Self {
            let space = AddressSpace::new().unwrap();
            let access = Access::READ | Access::WRITE;
            let area = space.map(MapRequest::anonymous(4096, access)).unwrap();
            let mut sequences = RestartableSequences::default();
            sequences
                .register(&space, area, 32, (0, SIGNATURE))
                .unwrap();
            let mut context = UserContext::new(0, 0);
            sequences.prepare(&space, &mut context).unwrap();
            Self {
                space,
                area,
                sequences,
                context,
            }
        }

        /// Has the thread be in a sequence of 16 bytes, at `offset` from its start, whose abort
        /// handler is at the end of the page.
        fn enter(&mut self, offset: u64) {
            let description = self.area + 2048;
            let words = [0, START, 16, self.area + 4096 - 8];
            for (at, word) in (description..).step_by(8).zip(words) {
                self.space.write_value(at, &word).unwrap();
            }
            let before_abort = self.area + 4096 - 12;
            self.space.write_value(before_abort, &SIGNATURE).unwrap();
            self.space.write_value(self.area + 8, &description).unwrap();
            self.context.registers.rip = START + offset;
        }

        fn prepare(&mut self) -> Result<u64> {
            self.sequences.prepare(&self.space, &mut self.context)?;
            Ok(self.context.registers.rip)
        }

        fn current(&self) -> u64 {
            self.space.read_value(self.area + 8).unwrap()
        }
    }

    #[test]
    fn the_area_shows_the_cpu_until_it_is_unregistered() {
        let mut program = Program::new();
        let field = |program: &Program, at| program.space.read_value::<u32>(program.area + at);
        assert_eq!(field(&program, CPU_ID), Ok(0));
        assert_eq!(field(&program, CPU_ID_START), Ok(0));
        let Program {
            space,
            area,
            sequences,
            ..
        } = &mut program;
        let mut call = |address: u64, length, flags, signature| {
            sequences.register(space, address, length, (flags, signature))
        };
        assert_eq!(call(*area, 32, 0, SIGNATURE), Err(Errno::EBUSY));
        assert_eq!(call(*area, 32, 0, 1), Err(Errno::EPERM));
        assert_eq!(call(*area + 32, 32, 0, SIGNATURE), Err(Errno::EINVAL));
        assert_eq!(call(*area, 32, 2, SIGNATURE), Err(Errno::EINVAL));
        assert_eq!(call(*area, 64, 1, SIGNATURE), Err(Errno::EINVAL));
        assert_eq!(call(*area, 32, 1, 1), Err(Errno::EPERM));
        assert_eq!(call(*area, 32, 1, SIGNATURE), Ok(()));
        assert_eq!(call(*area, 32, 1, SIGNATURE), Err(Errno::EINVAL));
        assert_eq!(call(*area + 4, 32, 0, SIGNATURE), Err(Errno::EINVAL));
        assert_eq!(call(*area, 28, 0, SIGNATURE), Err(Errno::EINVAL));
        assert_eq!(call(TASK_SIZE & !31, 32, 0, SIGNATURE), Err(Errno::EFAULT));
        assert_eq!(field(&program, CPU_ID), Ok(NO_CPU));
    }

    #[test]
    fn a_disturbed_sequence_goes_to_its_abort_handler() {
        let mut program = Program::new();
        program.enter(15);
        assert_eq!(program.prepare(), Ok(START + 15), "nothing has happened");
        program.sequences.disturb();
        assert_eq!(program.prepare(), Ok(program.area + 4096 - 8));
        assert_eq!(program.current(), 0);
    }

    #[test]
    fn a_sequence_that_was_left_is_forgotten() {
        let mut program = Program::new();
        program.enter(16);
        program.sequences.disturb();
        assert_eq!(program.prepare(), Ok(START + 16));
        assert_eq!(program.current(), 0);
    }

    #[test]
    fn a_bad_description_is_an_error() {
        for (offset, value) in [
            // Version, length, abort inside the sequence, abort at no address.
            (2048, 1),
            (2048 + 16, u64::MAX),
            (2048 + 24, START + 4),
            (2048 + 24, u64::MAX),
            // The signature, flags of the sequence, flags of the area.
            (4096 - 16, 0),
            (2048, 1 << 32),
            (16, 1),
        ] {
            let mut program = Program::new();
            program.enter(0);
            program
                .space
                .write_value(program.area + offset, &value)
                .unwrap();
            program.sequences.disturb();
            assert!(program.prepare().is_err(), "{offset}: {value:#x}");
        }
    }
}
