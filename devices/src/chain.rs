//! Descriptor chains, checked: what a request's buffers are and that they lie in guest memory.
//!
//! virtio-queue's iterator just ends where a chain is malformed; here that is an error.

use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use virtio_queue::DescriptorChain;

/// A contiguous buffer in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub addr: GuestAddress,
    /// Bytes; never zero.
    pub len: u32,
}

/// How a descriptor chain can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// An index is out of bounds, a chain is cyclic, or an indirect table is where none may be.
    #[error("descriptor chain {0} is cyclic, cut short or refers to a bad table")]
    Broken(u16),
    /// More descriptors than the queue has entries (VIRTIO 1.2, 2.7.5.3.1).
    #[error("descriptor chain {0} is longer than the queue")]
    TooLong(u16),
    /// A device-readable descriptor after a device-writable one (VIRTIO 1.2, 2.7.4.2).
    #[error("descriptor chain {0} has a readable buffer after a writable one")]
    BadOrder(u16),
    /// A buffer is not all in guest memory.
    #[error("buffer of {len} bytes at {addr:#x} is not in guest memory")]
    OutsideMemory {
        /// Guest-physical address.
        addr: u64,
        /// Bytes.
        len: u32,
    },
}

/// The buffers of one descriptor chain. Reused from request to request to save allocations.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    /// The chain's head: what goes into the used ring.
    pub head: u16,
    /// What the device may read, in order.
    pub readable: Vec<Segment>,
    /// What the device may write, in order.
    pub writable: Vec<Segment>,
}

impl Buffers {
    /// Reads `chain`, of a queue of `queue_size` entries in `memory`, into `self`; empty buffers are
    /// left out.
    ///
    /// # Errors
    ///
    /// [`ChainError`]; `self` then holds nothing of use.
    pub(crate) fn collect(
        &mut self,
        chain: DescriptorChain<&GuestMemoryMmap>,
        memory: &GuestMemoryMmap,
        queue_size: u16,
    ) -> Result<(), ChainError> {
        self.head = chain.head_index();
        self.readable.clear();
        self.writable.clear();
        let mut complete = false;
        for (count, descriptor) in chain.enumerate() {
            if count >= usize::from(queue_size) {
                return Err(ChainError::TooLong(self.head));
            }
            complete = !descriptor.has_next();
            let segment = Segment {
                addr: descriptor.addr(),
                len: descriptor.len(),
            };
            if !descriptor.is_write_only() && !self.writable.is_empty() {
                return Err(ChainError::BadOrder(self.head));
            }
            if segment.len == 0 {
                continue;
            }
            if memory
                .get_slice(segment.addr, segment.len as usize)
                .is_err()
            {
                return Err(ChainError::OutsideMemory {
                    addr: segment.addr.raw_value(),
                    len: segment.len,
                });
            }
            match descriptor.is_write_only() {
                true => self.writable.push(segment),
                false => self.readable.push(segment),
            }
        }
        complete.then_some(()).ok_or(ChainError::Broken(self.head))
    }

    /// Takes `into.len()` bytes off the front of the readable buffers; `false` if they are fewer.
    pub(crate) fn take_front(&mut self, memory: &GuestMemoryMmap, into: &mut [u8]) -> bool {
        let mut done = 0;
        while done < into.len() {
            let Some(first) = self.readable.first_mut() else {
                return false;
            };
            let count = (first.len as usize).min(into.len() - done);
            if memory
                .read_slice(&mut into[done..done + count], first.addr)
                .is_err()
            {
                return false;
            }
            done += count;
            if count == first.len as usize {
                self.readable.remove(0);
            } else {
                first.addr = first.addr.unchecked_add(count as u64);
                first.len -= count as u32;
            }
        }
        true
    }

    /// Takes the last byte off the writable buffers and gives its address.
    pub(crate) fn take_last_byte(&mut self) -> Option<GuestAddress> {
        let last = self.writable.last_mut()?;
        last.len -= 1;
        let addr = last.addr.unchecked_add(last.len.into());
        if last.len == 0 {
            self.writable.pop();
        }
        Some(addr)
    }
}

/// Bytes in `segments`.
pub(crate) fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// Appends `segments` to `into` as host I/O vectors; neighbours in memory become one.
///
/// The pointers are good while the guest memory is mapped. `None` if a segment is not in it.
pub(crate) fn to_iovecs(
    memory: &GuestMemoryMmap,
    segments: &[Segment],
    into: &mut Vec<libc::iovec>,
) -> Option<()> {
    for segment in segments {
        let slice = memory.get_slice(segment.addr, segment.len as usize).ok()?;
        let base = slice.ptr_guard_mut().as_ptr();
        match into.last_mut() {
            Some(last) if last.iov_base.wrapping_byte_add(last.iov_len) == base.cast() => {
                last.iov_len += slice.len();
            }
            _ => into.push(libc::iovec {
                iov_base: base.cast(),
                iov_len: slice.len(),
            }),
        }
    }
    Some(())
}

/// Drops the first `count` bytes from `iovecs`.
pub(crate) fn advance(iovecs: &mut Vec<libc::iovec>, mut count: usize) {
    let mut whole = 0;
    for iovec in iovecs.iter_mut() {
        if count < iovec.iov_len {
            iovec.iov_base = iovec.iov_base.wrapping_byte_add(count);
            iovec.iov_len -= count;
            break;
        }
        count -= iovec.iov_len;
        whole += 1;
    }
    iovecs.drain(..whole);
}
