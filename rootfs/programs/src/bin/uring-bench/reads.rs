//! Direct reads of a file or block device with a fixed number in flight.
//!
//! File and buffers are registered, and completions are answered with new reads at once.

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;

use guest_programs::aligned::AlignedBuffer;
use io_uring::{IoUring, opcode, types};

use crate::{Context, Outcome, ring};

/// Reads of `block` bytes at random offsets, `depth` in flight, in operations a second.
pub(crate) fn random(context: &Context, block: usize, depth: usize) -> Outcome {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    run(context, block, depth, |blocks| {
        // xorshift64: cheap, and the same offsets on host and guest.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % blocks
    })
}

/// Reads of `block` bytes one after the other, `depth` in flight, in MiB a second.
pub(crate) fn sequential(context: &Context, block: usize, depth: usize) -> Outcome {
    let mut next = 0;
    let rate = run(context, block, depth, |blocks| {
        next = (next + 1) % blocks;
        next
    })?;
    Ok(rate * block as f64 / f64::from(1 << 20))
}

fn run(
    context: &Context,
    block: usize,
    depth: usize,
    mut next_block: impl FnMut(u64) -> u64,
) -> Outcome {
    let source = context.source()?;
    let blocks = source.size / block as u64;
    if blocks == 0 {
        return Err(format!("the file is smaller than {block} bytes").into());
    }
    let mut reads = Reads::new(source.file.as_raw_fd(), block, depth)?;
    for slot in 0..depth {
        reads.push(slot, next_block(blocks))?;
    }
    let mut finished = Vec::with_capacity(depth);
    let rate = context.rate(|| {
        reads.wait(&mut finished)?;
        for slot in finished.iter().copied() {
            reads.push(slot, next_block(blocks))?;
        }
        Ok(finished.len() as u64)
    })?;
    reads.drain()?;
    Ok(rate)
}

struct Reads {
    ring: IoUring,
    buffer: AlignedBuffer,
    block: usize,
    depth: usize,
}

impl Reads {
    fn new(file: i32, block: usize, depth: usize) -> io::Result<Self> {
        let mut buffer = AlignedBuffer::new(block * depth)?;
        let ring = ring(depth as u32)?;
        ring.submitter().register_files(&[file])?;
        let vectors: Vec<libc::iovec> = buffer
            .chunks_exact_mut(block)
            .map(|chunk| libc::iovec {
                iov_base: chunk.as_mut_ptr().cast(),
                iov_len: chunk.len(),
            })
            .collect();
        // SAFETY: the buffers are in `buffer`, which is dropped after the ring.
        unsafe { ring.submitter().register_buffers(&vectors) }?;
        Ok(Self {
            ring,
            buffer,
            block,
            depth,
        })
    }

    fn push(&mut self, slot: usize, block: u64) -> Result<(), Box<dyn Error>> {
        let address = self.buffer[slot * self.block..].as_mut_ptr();
        let entry =
            opcode::ReadFixed::new(types::Fixed(0), address, self.block as u32, slot as u16)
                .offset(block * self.block as u64)
                .build()
                .user_data(slot as u64);
        // SAFETY: the memory is in `self.buffer`, which nobody reads and which outlives the ring.
        unsafe { self.ring.submission().push(&entry) }?;
        Ok(())
    }

    /// Submits what was pushed and waits for at least one completion; gives the slots.
    fn wait(&mut self, finished: &mut Vec<usize>) -> Result<(), Box<dyn Error>> {
        finished.clear();
        self.ring.submit_and_wait(1)?;
        for entry in self.ring.completion() {
            if entry.result() != self.block as i32 {
                return Err(format!("a read completed with {}", entry.result()).into());
            }
            finished.push(entry.user_data() as usize);
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Box<dyn Error>> {
        let mut finished = Vec::new();
        let mut left = self.depth;
        while left > 0 {
            self.wait(&mut finished)?;
            left -= finished.len();
        }
        Ok(())
    }
}
