//! `io_uring_register(2)`: the tables of files and buffers, what is implemented, and enabling.

mod buffers;
mod files;

pub(super) use files::FilesUpdate;

use super::file::ring_of;
use super::opcode;
use super::ring::Ring;
use crate::error::{Errno, Result};
use crate::mm::AddressSpace;
use crate::process::Process;
use alloc::vec;
use buffers::BuffersUpdate;
use linux_raw_sys::io_uring as raw;
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
        const PERSONALITY: u32 = op::IORING_REGISTER_PERSONALITY as u32;
        const NO_PERSONALITY: u32 = op::IORING_UNREGISTER_PERSONALITY as u32;
        const ENABLE: u32 = op::IORING_REGISTER_ENABLE_RINGS as u32;
        const FILES2: u32 = op::IORING_REGISTER_FILES2 as u32;
        const FILES_UPDATE2: u32 = op::IORING_REGISTER_FILES_UPDATE2 as u32;
        const BUFFERS2: u32 = op::IORING_REGISTER_BUFFERS2 as u32;
        const BUFFERS_UPDATE: u32 = op::IORING_REGISTER_BUFFERS_UPDATE as u32;
        const FILE_RANGE: u32 = op::IORING_REGISTER_FILE_ALLOC_RANGE as u32;
        match opcode {
            BUFFERS | FILES if argument == 0 => Err(Errno::EFAULT),
            BUFFERS => self.register_buffers(argument, 0, count),
            FILES => self.register_files(argument, 0, count),
            FILES_UPDATE => self.update_files(&self.plain_update(argument, count)?),
            PROBE => self.probe(argument, count),
            FILES2 => {
                let (list, tags, count) = self.resource_list(argument, count)?;
                self.register_files(list, tags, count)
            }
            BUFFERS2 => {
                let (list, tags, count) = self.resource_list(argument, count)?;
                self.register_buffers(list, tags, count)
            }
            FILES_UPDATE2 => {
                let update = self.tagged_update(argument, count)?;
                self.update_files(&FilesUpdate {
                    offset: update.offset,
                    count: update.nr,
                    descriptors: update.data,
                    tags: update.tags,
                })
            }
            BUFFERS_UPDATE => {
                let update = self.tagged_update(argument, count)?;
                self.update_buffers(&BuffersUpdate {
                    offset: update.offset,
                    count: update.nr,
                    vectors: update.data,
                    tags: update.tags,
                })
            }
            FILE_RANGE if argument == 0 || count != 0 => Err(Errno::EINVAL),
            FILE_RANGE => self.set_file_range(argument),
            NO_BUFFERS | NO_FILES | ENABLE | PERSONALITY if argument != 0 || count != 0 => {
                Err(Errno::EINVAL)
            }
            NO_BUFFERS => self.unregister_buffers(),
            NO_FILES => self.unregister_files(),
            ENABLE => self.ring.enable(task).map(|()| 0),
            PERSONALITY => {
                let credentials = self.process.credentials.lock().clone();
                self.ring
                    .lock()
                    .personalities
                    .add(credentials)
                    .map(u32::from)
            }
            NO_PERSONALITY if argument != 0 => Err(Errno::EINVAL),
            NO_PERSONALITY => self.ring.lock().personalities.remove(count).map(|()| 0),
            _ => Err(Errno::EINVAL),
        }
    }

    fn space(&self) -> &AddressSpace {
        &self.process.space
    }

    /// What `IORING_REGISTER_FILES2` and `BUFFERS2` say: the list, unless all places are to be
    /// empty, the tags, and their number.
    fn resource_list(&self, argument: u64, size: u32) -> Result<(u64, u64, u32)> {
        if size as usize != size_of::<raw::io_uring_rsrc_register>() {
            return Err(Errno::EINVAL);
        }
        let list: raw::io_uring_rsrc_register = self.space().read_value(argument)?;
        let is_sparse = list.flags & raw::IORING_RSRC_REGISTER_SPARSE != 0;
        let is_bad = list.nr == 0
            || list.resv2 != 0
            || list.flags & !raw::IORING_RSRC_REGISTER_SPARSE != 0
            || is_sparse && list.data != 0;
        if is_bad {
            return Err(Errno::EINVAL);
        }
        Ok((list.data, list.tags, list.nr))
    }

    /// What `IORING_REGISTER_FILES_UPDATE` says, without tags.
    fn plain_update(&self, argument: u64, count: u32) -> Result<FilesUpdate> {
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        let update: raw::io_uring_rsrc_update = self.space().read_value(argument)?;
        if update.resv != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(FilesUpdate {
            offset: update.offset,
            count,
            descriptors: update.data,
            tags: 0,
        })
    }

    /// What `IORING_REGISTER_FILES_UPDATE2` and `BUFFERS_UPDATE` say.
    fn tagged_update(&self, argument: u64, size: u32) -> Result<raw::io_uring_rsrc_update2> {
        if size as usize != size_of::<raw::io_uring_rsrc_update2>() {
            return Err(Errno::EINVAL);
        }
        let update: raw::io_uring_rsrc_update2 = self.space().read_value(argument)?;
        match update.nr == 0 || update.resv != 0 || update.resv2 != 0 {
            true => Err(Errno::EINVAL),
            false => Ok(update),
        }
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
