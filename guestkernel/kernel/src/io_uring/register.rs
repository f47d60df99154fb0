//! `io_uring_register(2)`: the tables of files and buffers, what is implemented, and enabling.

use super::budget::MemoryCharge;
use super::file::{is_ring, ring_of};
use super::opcode;
use super::resources::RegisteredBuffer;
use super::ring::{Ring, RingState};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::mm::{Access, AddressSpace};
use crate::process::Process;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::general::iovec;
use linux_raw_sys::io_uring as raw;
use machine::{PAGE_SIZE, Segment};
use raw::io_uring_register_op as op;

/// The most registered files and buffers, and the most bytes of a buffer.
const MAX_FILES: u32 = 1 << 20;
const MAX_BUFFERS: u32 = 1 << 14;
const MAX_BUFFER_BYTES: u64 = 1 << 30;
/// The most opcodes that a program may ask about.
const MAX_PROBED: u32 = 256;
/// In an update: leave the place as it is.
const SKIP: i32 = raw::IORING_REGISTER_FILES_SKIP;
/// An empty place.
const NONE: i32 = -1;

/// The arguments of `io_uring_register`, without the ring.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// `IORING_REGISTER_*`.
    pub opcode: u32,
    /// An address; what is there depends on the opcode.
    pub argument: u64,
    /// A count or size.
    pub count: u32,
}

/// Registers something with the ring `fd`, for the task `task` of `process`.
///
/// # Errors
///
/// Those of io_uring_register(2); `EINVAL` for what is not implemented.
pub fn register(process: &Process, task: u32, fd: i32, call: Call) -> Result<u32> {
    // Neither rings without a descriptor nor requests without a ring are implemented.
    if call.opcode >= op::IORING_REGISTER_LAST as u32 || fd == -1 {
        return Err(Errno::EINVAL);
    }
    let file = process.files.get(fd)?;
    let ring = ring_of(&file).ok_or(Errno::EOPNOTSUPP)?;
    ring.check_issuer(task)?;
    let registration = Registration { process, ring };
    registration.dispatch(task, call)
}

struct Registration<'a> {
    process: &'a Process,
    ring: &'a Ring,
}

impl Registration<'_> {
    fn dispatch(&self, task: u32, call: Call) -> Result<u32> {
        let Call {
            opcode,
            argument,
            count,
        } = call;
        const BUFFERS: u32 = op::IORING_REGISTER_BUFFERS as u32;
        const NO_BUFFERS: u32 = op::IORING_UNREGISTER_BUFFERS as u32;
        const FILES: u32 = op::IORING_REGISTER_FILES as u32;
        const NO_FILES: u32 = op::IORING_UNREGISTER_FILES as u32;
        const FILES_UPDATE: u32 = op::IORING_REGISTER_FILES_UPDATE as u32;
        const PROBE: u32 = op::IORING_REGISTER_PROBE as u32;
        const ENABLE: u32 = op::IORING_REGISTER_ENABLE_RINGS as u32;
        const FILES2: u32 = op::IORING_REGISTER_FILES2 as u32;
        const BUFFERS2: u32 = op::IORING_REGISTER_BUFFERS2 as u32;
        match opcode {
            BUFFERS | FILES if argument == 0 => Err(Errno::EFAULT),
            BUFFERS => self.register_buffers(Some(argument), count),
            FILES => self.register_files(Some(argument), count),
            FILES_UPDATE => self.update_files(argument, count),
            PROBE => self.probe(argument, count),
            FILES2 => {
                let (list, count) = self.resource_list(argument, count)?;
                self.register_files(list, count)
            }
            BUFFERS2 => {
                let (list, count) = self.resource_list(argument, count)?;
                self.register_buffers(list, count)
            }
            NO_BUFFERS | NO_FILES | ENABLE if argument != 0 || count != 0 => Err(Errno::EINVAL),
            NO_BUFFERS => self.unregister(|state| core::mem::take(&mut state.resources.buffers)),
            NO_FILES => self.unregister(|state| core::mem::take(&mut state.resources.files)),
            ENABLE => self.ring.enable(task).map(|()| 0),
            _ => Err(Errno::EINVAL),
        }
    }

    fn space(&self) -> &AddressSpace {
        &self.process.space
    }

    /// Empties a table; its contents are dropped without the ring's lock.
    fn unregister<T>(&self, take: impl FnOnce(&mut RingState) -> Vec<T>) -> Result<u32> {
        let old = take(&mut self.ring.lock());
        match old.is_empty() {
            true => Err(Errno::ENXIO),
            false => Ok(0),
        }
    }

    /// What `IORING_REGISTER_FILES2` and `BUFFERS2` say: the list, unless all places are to be
    /// empty, and their number. Tags are not implemented (`IORING_FEAT_RSRC_TAGS`).
    fn resource_list(&self, argument: u64, size: u32) -> Result<(Option<u64>, u32)> {
        if size as usize != size_of::<raw::io_uring_rsrc_register>() {
            return Err(Errno::EINVAL);
        }
        let list: raw::io_uring_rsrc_register = self.space().read_value(argument)?;
        let is_sparse = list.flags & raw::IORING_RSRC_REGISTER_SPARSE != 0;
        let is_bad = list.nr == 0
            || list.resv2 != 0
            || list.tags != 0
            || list.flags & !raw::IORING_RSRC_REGISTER_SPARSE != 0
            || is_sparse && list.data != 0;
        if is_bad {
            return Err(Errno::EINVAL);
        }
        Ok(((list.data != 0).then_some(list.data), list.nr))
    }

    fn register_files(&self, list: Option<u64>, count: u32) -> Result<u32> {
        if !self.ring.lock().resources.files.is_empty() {
            return Err(Errno::EBUSY);
        }
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        if count > MAX_FILES.min(self.process.files.limit()) {
            return Err(Errno::EMFILE);
        }
        let mut files = empty(count)?;
        if let Some(list) = list {
            for (index, place) in files.iter_mut().enumerate() {
                *place = match self.space().read_value(element::<i32>(list, index))? {
                    NONE => None,
                    fd => Some(self.file_to_register(fd)?),
                };
            }
        }
        self.fill(files, |state| &mut state.resources.files)
    }

    /// Rings are refused: one that holds itself would never go.
    fn file_to_register(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let file = self.process.files.get(fd)?;
        match is_ring(&file) {
            true => Err(Errno::EBADF),
            false => Ok(file),
        }
    }

    fn update_files(&self, argument: u64, count: u32) -> Result<u32> {
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        let update: raw::io_uring_rsrc_update = self.space().read_value(argument)?;
        if update.resv != 0 {
            return Err(Errno::EINVAL);
        }
        let end = update.offset.checked_add(count).ok_or(Errno::EOVERFLOW)?;
        let length = self.ring.lock().resources.files.len();
        if length == 0 {
            return Err(Errno::ENXIO);
        }
        if end as usize > length {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        while done < count {
            match self.update_file(&update, done) {
                Ok(()) => done += 1,
                // Those before it stay changed.
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn update_file(&self, update: &raw::io_uring_rsrc_update, index: u32) -> Result<()> {
        let fd: i32 = self
            .space()
            .read_value(element::<i32>(update.data, index as usize))?;
        let new = match fd {
            SKIP => return Ok(()),
            NONE => None,
            fd => Some(self.file_to_register(fd)?),
        };
        let old = {
            let mut state = self.ring.lock();
            let place = (update.offset + index) as usize;
            let place = state.resources.files.get_mut(place).ok_or(Errno::EINVAL)?;
            core::mem::replace(place, new)
        };
        drop(old);
        Ok(())
    }

    fn register_buffers(&self, list: Option<u64>, count: u32) -> Result<u32> {
        if !self.ring.lock().resources.buffers.is_empty() {
            return Err(Errno::EBUSY);
        }
        if count == 0 || count > MAX_BUFFERS {
            return Err(Errno::EINVAL);
        }
        let mut buffers = empty(count)?;
        if let Some(list) = list {
            for (index, place) in buffers.iter_mut().enumerate() {
                *place = self.pin(&self.space().read_value(element::<iovec>(list, index))?)?;
            }
        }
        self.fill(buffers, |state| &mut state.resources.buffers)
    }

    /// The buffer that an iovec describes; none for an empty one at 0.
    fn pin(&self, range: &iovec) -> Result<Option<RegisteredBuffer>> {
        let (address, length) = (range.iov_base as u64, range.iov_len);
        if i64::try_from(length).is_err() {
            return Err(Errno::EINVAL);
        }
        if address == 0 && length == 0 {
            return Ok(None);
        }
        if address == 0 || length == 0 || length > MAX_BUFFER_BYTES {
            return Err(Errno::EFAULT);
        }
        address.checked_add(length).ok_or(Errno::EOVERFLOW)?;
        let pages = length as usize / PAGE_SIZE + 2;
        let charge = MemoryCharge::new(pages * size_of::<Segment>())?;
        let needed = Access::READ | Access::WRITE;
        let segments = self.space().pin(address, length as usize, needed)?;
        Ok(Some(RegisteredBuffer {
            address,
            length,
            region: segments.into_iter().collect(),
            charge,
        }))
    }

    /// Makes `new` the table, unless another task was faster.
    fn fill<T>(
        &self,
        new: Vec<T>,
        table: impl FnOnce(&mut RingState) -> &mut Vec<T>,
    ) -> Result<u32> {
        let mut state = self.ring.lock();
        let table = table(&mut state);
        if !table.is_empty() {
            return Err(Errno::EBUSY);
        }
        *table = new;
        Ok(0)
    }

    /// Says which opcodes there are.
    fn probe(&self, argument: u64, count: u32) -> Result<u32> {
        if argument == 0 || count > MAX_PROBED {
            return Err(Errno::EINVAL);
        }
        let head = size_of::<raw::io_uring_probe>();
        let count = (count as usize).min(opcode::OPCODES);
        let mut probe = vec![0; head + count * size_of::<raw::io_uring_probe_op>()];
        self.space().read(argument, &mut probe)?;
        if probe.iter().any(|byte| *byte != 0) {
            return Err(Errno::EINVAL);
        }
        // `last_op` and `ops_len`, then for each its number, a reserved byte, and flags.
        probe[0] = (opcode::OPCODES - 1) as u8;
        probe[1] = count as u8;
        for (number, entry) in probe[head..].chunks_exact_mut(8).enumerate() {
            let flags = match opcode::opcode(number as u8) {
                Some(_) => raw::IO_URING_OP_SUPPORTED as u16,
                None => 0,
            };
            entry[0] = number as u8;
            entry[2..4].copy_from_slice(&flags.to_le_bytes());
        }
        self.space().write(argument, &probe)?;
        Ok(0)
    }
}

/// The address of element `index` of a program's array.
fn element<T>(array: u64, index: usize) -> u64 {
    array.wrapping_add((index * size_of::<T>()) as u64)
}

/// A table of empty places.
fn empty<T>(count: u32) -> Result<Vec<Option<T>>> {
    let mut table = Vec::new();
    table
        .try_reserve_exact(count as usize)
        .map_err(|_| Errno::ENOMEM)?;
    table.resize_with(count as usize, || None);
    Ok(table)
}
