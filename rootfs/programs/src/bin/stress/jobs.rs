//! What rings are given to do: small jobs of one or two requests, whose results are known.

use crate::plan::Random;
use guest_programs::aligned::AlignedBuffer;
use guest_programs::check::{Failure, Outcome};
use guest_programs::expect_eq;
use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use libc::{EALREADY, ECANCELED, EINTR, ENOENT, ETIME};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes that a job reads or writes at a time.
pub(crate) const BLOCK: usize = 4096;

/// What a job consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Nop,
    /// A write of the own block, and of another stamp than before.
    Write,
    /// A read of the own block.
    Read,
    /// A write, linked to a read of what it has written.
    WriteRead,
    /// A read of an empty pipe, and a write that ends it.
    Pipe,
    /// A time that passes.
    Time,
    /// A read that nothing ends but its cancellation.
    CancelRead,
    /// A time that passes, and a cancellation that may come too late.
    CancelTime,
    /// A request that fails, and one linked to it that is cancelled.
    Broken,
}

const KINDS: [Kind; 9] = [
    Kind::Nop,
    Kind::Write,
    Kind::Read,
    Kind::WriteRead,
    Kind::Pipe,
    Kind::Time,
    Kind::CancelRead,
    Kind::CancelTime,
    Kind::Broken,
];

/// A place for one job at a time, with what its requests need: a block of a file, a pipe, memory.
pub(crate) struct Place {
    number: u64,
    file: i32,
    offset: u64,
    /// What was last written to the block.
    stamp: u64,
    from: AlignedBuffer,
    to: AlignedBuffer,
    pipe: (PipeReader, PipeWriter),
    byte: Box<[u8; 2]>,
    time: Box<types::Timespec>,
    kind: Kind,
    /// The results that have come, and how many have not.
    results: [Option<i32>; 2],
    left: usize,
}

impl Place {
    /// A place whose block is the `number`-th of `file`, which holds zeros there. The completions
    /// of its requests are known by `number`.
    pub(crate) fn new(number: u64, file: &OwnedFd) -> Result<Self, Failure> {
        Ok(Self {
            number,
            file: file.as_raw_fd(),
            offset: number * BLOCK as u64,
            stamp: 0,
            from: AlignedBuffer::new(BLOCK)?,
            to: AlignedBuffer::new(BLOCK)?,
            pipe: std::io::pipe()?,
            byte: Box::new([0; 2]),
            time: Box::new(types::Timespec::new()),
            kind: Kind::Nop,
            results: [None; 2],
            left: 0,
        })
    }

    /// Whether a job is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.left > 0
    }

    /// The number of the place that a completion is for.
    pub(crate) fn of(user_data: u64) -> usize {
        (user_data / 2) as usize
    }

    /// The requests of another job. They use memory of the place, which must not be dropped before
    /// they have all completed.
    pub(crate) fn start(&mut self, random: &mut Random) -> Vec<Entry> {
        self.kind = KINDS[random.below(KINDS.len() as u64) as usize];
        let entries = self.entries(random);
        self.results = [None; 2];
        self.left = entries.len();
        let numbers = 2 * self.number..;
        let numbered = entries.into_iter().zip(numbers);
        numbered
            .map(|(entry, number)| entry.user_data(number))
            .collect()
    }

    fn entries(&mut self, random: &mut Random) -> Vec<Entry> {
        let (reader, writer) = (self.pipe.0.as_raw_fd(), self.pipe.1.as_raw_fd());
        let [from_byte, to_byte] = self.byte.each_mut().map(|byte| &raw mut *byte);
        let pipe_read = opcode::Read::new(types::Fd(reader), to_byte, 1).build();
        let second = 2 * self.number;
        match self.kind {
            Kind::Nop => vec![opcode::Nop::new().build()],
            Kind::Write => vec![self.write(random)],
            Kind::Read => vec![self.read()],
            Kind::WriteRead => vec![self.write(random).flags(Flags::IO_LINK), self.read()],
            Kind::Pipe => {
                *self.byte = [random.below(256) as u8, 0];
                let write = opcode::Write::new(types::Fd(writer), from_byte, 1).build();
                vec![pipe_read, write]
            }
            Kind::Time => vec![self.timeout(random.below(2_000_000))],
            Kind::CancelRead => vec![pipe_read, opcode::AsyncCancel::new(second).build()],
            Kind::CancelTime => {
                let time = [50_000, 3_600_000_000_000][random.below(2) as usize];
                vec![self.timeout(time), opcode::AsyncCancel::new(second).build()]
            }
            Kind::Broken => vec![
                opcode::Read::new(types::Fd(-1), to_byte, 1)
                    .build()
                    .flags(Flags::IO_LINK),
                opcode::Nop::new().build(),
            ],
        }
    }

    fn write(&mut self, random: &mut Random) -> Entry {
        self.stamp = random.next();
        for word in self.from.chunks_exact_mut(8) {
            word.copy_from_slice(&self.stamp.to_ne_bytes());
        }
        let write = opcode::Write::new(types::Fd(self.file), self.from.as_ptr(), BLOCK as u32);
        write.offset(self.offset).build()
    }

    fn read(&mut self) -> Entry {
        self.to.fill(0xee);
        let at = self.to.as_mut_ptr();
        let read = opcode::Read::new(types::Fd(self.file), at, BLOCK as u32);
        read.offset(self.offset).build()
    }

    fn timeout(&mut self, nanoseconds: u64) -> Entry {
        let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
        *self.time = types::Timespec::new().sec(seconds).nsec(rest as u32);
        opcode::Timeout::new(&raw const *self.time).build()
    }

    /// Takes a completion; fails if it is none that the place waits for, or the last of its job and
    /// the job has not done what it should.
    pub(crate) fn complete(&mut self, user_data: u64, result: i32) -> Outcome {
        let slot = &mut self.results[(user_data % 2) as usize];
        if self.left == 0 || slot.is_some() {
            let kind = self.kind;
            return Err(Failure::new(format!("{kind:?} completed twice: {result}")));
        }
        *slot = Some(result);
        self.left -= 1;
        if self.left == 0 {
            self.verify()?;
        }
        Ok(())
    }

    fn verify(&self) -> Outcome {
        let results = self.results.map(|result| result.unwrap_or(0));
        let block = BLOCK as i32;
        let expected: &[[i32; 2]] = match self.kind {
            Kind::Nop => &[[0, 0]],
            Kind::Write | Kind::Read => &[[block, 0]],
            Kind::WriteRead => &[[block, block]],
            Kind::Pipe => &[[1, 1]],
            Kind::Time => &[[-ETIME, 0]],
            Kind::CancelRead => &[[-ECANCELED, 0], [-EINTR, -EALREADY]],
            Kind::CancelTime => &[[-ECANCELED, 0], [-ETIME, -ENOENT], [-ETIME, -EALREADY]],
            Kind::Broken => &[[-libc::EBADF, -ECANCELED]],
        };
        if !expected.contains(&results) {
            let kind = self.kind;
            return Err(Failure::new(format!("{kind:?} gave {results:?}")));
        }
        match self.kind {
            Kind::Read | Kind::WriteRead => {
                let stamp = self.stamp.to_ne_bytes();
                let wrong = self.to.chunks_exact(8).position(|word| word != stamp);
                expect_eq!((self.kind, wrong), (self.kind, None));
            }
            Kind::Pipe => expect_eq!(self.byte[0], self.byte[1]),
            _ => {}
        }
        Ok(())
    }
}
