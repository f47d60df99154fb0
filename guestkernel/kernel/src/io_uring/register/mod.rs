//! `io_uring_register(2)`: the tables of files and buffers, what is implemented, and enabling.

mod buffer_ring;
mod buffers;
mod cancel;
mod clone;
mod event;
mod files;
mod query;
mod region;
mod resize;
mod restrictions;
mod ring_descriptors;
mod workers;

pub(super) use event::RegisteredEvent;
pub(super) use files::FilesUpdate;
pub(super) use region::{ParameterRegion, WAIT_SIZE};
pub(super) use restrictions::Restrictions;
pub(super) use ring_descriptors::registered_ring;
use ring_descriptors::{MOST as REGISTERED_RINGS, Rings};

use super::file::ring_of;
use super::opcode::{self, Message};
use super::ring::Ring;
use super::sqe::{SQE_SIZE, Sqe};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::mm::AddressSpace;
use crate::operation::Actor;
use crate::process::{Process, RegisteredFiles};
use alloc::sync::Arc;
use alloc::vec;
use buffers::BuffersUpdate;
use linux_raw_sys::general::{CLOCK_BOOTTIME, CLOCK_MONOTONIC};
use linux_raw_sys::io_uring as raw;
use query::{QUERY, query};
use raw::io_uring_register_op as op;
use restrictions::REGISTRATIONS;

/// The most registered files and buffers, and the most bytes of a buffer.
const MAX_FILES: u32 = 1 << 20;
const MAX_BUFFERS: u32 = 1 << 14;
const MAX_BUFFER_BYTES: u64 = 1 << 30;
/// The most opcodes that a program may ask about.
const MAX_PROBED: u32 = 256;
/// The ring is named by an index (`IORING_REGISTER_USE_REGISTERED_RING`).
const BY_INDEX: u32 = op::IORING_REGISTER_USE_REGISTERED_RING as u32;
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

/// Registers something with the ring `fd`, for the task `task` of `process`, which has registered
/// `rings`; `None` if that has to wait, and [`register_waiting`] is to do it.
///
/// # Errors
///
/// Those of io_uring_register(2); `EINVAL` for what is not implemented.
pub fn register(
    process: &Arc<Process>,
    task: u32,
    rings: &mut RegisteredFiles,
    fd: i32,
    call: Call,
) -> Result<Option<u32>> {
    const SYNC_CANCEL: u32 = op::IORING_REGISTER_SYNC_CANCEL as u32;
    const RING_FDS: u32 = op::IORING_REGISTER_RING_FDS as u32;
    const NO_RING_FDS: u32 = op::IORING_UNREGISTER_RING_FDS as u32;
    let (opcode, is_index) = (call.opcode & !BY_INDEX, call.opcode & BY_INDEX != 0);
    if opcode >= REGISTRATIONS {
        return Err(Errno::EINVAL);
    }
    if fd == -1 {
        return without_ring(process, task, opcode, call).map(Some);
    }
    let file = ring_file(process, rings, fd, is_index)?;
    let ring = ring_of(&file).ok_or(Errno::EOPNOTSUPP)?;
    ring.check_issuer(task)?;
    if let Some(restrictions) = &ring.lock().restrictions
        && !ring.is_disabled()
        && !restrictions.allow_registration(opcode)
    {
        return Err(Errno::EACCES);
    }
    let mut rings = Rings(rings);
    let list = (call.argument, call.count);
    match opcode {
        RING_FDS => rings.register(process, list).map(Some),
        NO_RING_FDS => rings.unregister(process, list).map(Some),
        SYNC_CANCEL if call.argument == 0 || call.count != 1 => Err(Errno::EINVAL),
        SYNC_CANCEL => Ok(None),
        opcode => {
            let registration = Registration {
                process,
                ring,
                rings: &rings,
            };
            let call = Call { opcode, ..call };
            registration.dispatch(task, call).map(Some)
        }
    }
}

/// Registers the ring `file` with a thread that has registered `rings`, at an index that is free.
///
/// # Errors
///
/// `EBUSY`.
pub fn register_at_index(rings: &mut RegisteredFiles, file: Arc<OpenFile>) -> Result<u32> {
    Rings(rings).add(file, 0..REGISTERED_RINGS)
}

/// As [`register`], for what has to wait: ending requests until there are none.
///
/// # Errors
///
/// Those of io_uring_register(2).
pub async fn register_waiting(
    process: &Arc<Process>,
    task: u32,
    rings: &mut RegisteredFiles,
    fd: i32,
    call: Call,
) -> Result<u32> {
    if let Some(result) = register(process, task, rings, fd, call)? {
        return Ok(result);
    }
    let file = ring_file(process, rings, fd, call.opcode & BY_INDEX != 0)?;
    let ring = ring_of(&file).ok_or(Errno::EOPNOTSUPP)?;
    let thread = process.member(task);
    let actor = match &thread {
        Ok(thread) => Actor::caller(process, thread),
        Err(_) => Actor::submitter(process, task),
    };
    cancel::cancel_waiting(actor, ring, call.argument).await
}

/// The ring `fd`, which is an index into `rings` if `is_index`.
fn ring_file(
    process: &Process,
    rings: &RegisteredFiles,
    fd: i32,
    is_index: bool,
) -> Result<Arc<OpenFile>> {
    match is_index {
        true => registered_ring(rings, fd as u32).cloned(),
        false => process.files.get(fd),
    }
}

/// What needs no ring.
fn without_ring(process: &Arc<Process>, task: u32, opcode: u32, call: Call) -> Result<u32> {
    const SEND_MESSAGE: u32 = op::IORING_REGISTER_SEND_MSG_RING as u32;
    match opcode {
        SEND_MESSAGE if call.argument == 0 || call.count != 1 => Err(Errno::EINVAL),
        SEND_MESSAGE => {
            let mut bytes = [0; SQE_SIZE];
            process.space.read(call.argument, &mut bytes)?;
            Message::send(&Sqe::new(bytes), Actor::submitter(process, task)).map(|()| 0)
        }
        QUERY => query(&process.space, call.argument, call.count),
        _ => Err(Errno::EINVAL),
    }
}

struct Registration<'a> {
    process: &'a Process,
    ring: &'a Ring,
    rings: &'a Rings<'a>,
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
        const EVENT: u32 = op::IORING_REGISTER_EVENTFD as u32;
        const EVENT_ASYNC: u32 = op::IORING_REGISTER_EVENTFD_ASYNC as u32;
        const NO_EVENT: u32 = op::IORING_UNREGISTER_EVENTFD as u32;
        const RESTRICTIONS: u32 = op::IORING_REGISTER_RESTRICTIONS as u32;
        const WORKER_CPUS: u32 = op::IORING_REGISTER_IOWQ_AFF as u32;
        const NO_WORKER_CPUS: u32 = op::IORING_UNREGISTER_IOWQ_AFF as u32;
        const WORKERS: u32 = op::IORING_REGISTER_IOWQ_MAX_WORKERS as u32;
        const BUFFER_RING: u32 = op::IORING_REGISTER_PBUF_RING as u32;
        const NO_BUFFER_RING: u32 = op::IORING_UNREGISTER_PBUF_RING as u32;
        const BUFFER_RING_STATUS: u32 = op::IORING_REGISTER_PBUF_STATUS as u32;
        const CLOCK: u32 = op::IORING_REGISTER_CLOCK as u32;
        const CLONE_BUFFERS: u32 = op::IORING_REGISTER_CLONE_BUFFERS as u32;
        const RESIZE: u32 = op::IORING_REGISTER_RESIZE_RINGS as u32;
        const REGION: u32 = op::IORING_REGISTER_MEM_REGION as u32;
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
            EVENT | EVENT_ASYNC if count != 1 => Err(Errno::EINVAL),
            EVENT | EVENT_ASYNC => self.register_event(argument, opcode == EVENT_ASYNC),
            RESTRICTIONS => self.register_restrictions(argument, count),
            WORKER_CPUS if argument == 0 || count == 0 => Err(Errno::EINVAL),
            WORKER_CPUS => self.set_worker_cpus(argument, count),
            WORKERS if argument == 0 || count != 2 => Err(Errno::EINVAL),
            WORKERS => self.set_workers(argument),
            BUFFER_RING | NO_BUFFER_RING | BUFFER_RING_STATUS | CLONE_BUFFERS | RESIZE | REGION
                if argument == 0 || count != 1 =>
            {
                Err(Errno::EINVAL)
            }
            BUFFER_RING => self.register_buffer_ring(argument),
            NO_BUFFER_RING => self.unregister_buffer_ring(argument),
            BUFFER_RING_STATUS => self.buffer_ring_status(argument),
            CLONE_BUFFERS => self.clone_buffers(argument),
            RESIZE => self.resize(argument),
            REGION => self.register_region(argument),
            CLOCK if argument == 0 || count != 0 => Err(Errno::EINVAL),
            CLOCK => self.set_clock(argument),
            QUERY => query(self.space(), argument, count),
            FILE_RANGE if argument == 0 || count != 0 => Err(Errno::EINVAL),
            FILE_RANGE => self.set_file_range(argument),
            NO_BUFFERS | NO_FILES | NO_EVENT | NO_WORKER_CPUS | ENABLE | PERSONALITY
                if argument != 0 || count != 0 =>
            {
                Err(Errno::EINVAL)
            }
            NO_EVENT => self.unregister_event(),
            NO_WORKER_CPUS => Ok(0),
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

    /// `IORING_REGISTER_CLOCK`: which clock waits go by. Those that there are agree here.
    fn set_clock(&self, argument: u64) -> Result<u32> {
        let clock: raw::io_uring_clock_register = self.space().read_value(argument)?;
        match (clock.__resv, clock.clockid) {
            ([0, 0, 0], CLOCK_MONOTONIC | CLOCK_BOOTTIME) => Ok(0),
            _ => Err(Errno::EINVAL),
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
