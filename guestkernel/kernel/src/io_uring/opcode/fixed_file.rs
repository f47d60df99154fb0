//! `IORING_OP_FILES_UPDATE` and `FIXED_FD_INSTALL`: between descriptors and the ring's file table.

use super::{Completion, Issue, Prepared, Started};
use crate::error::{Errno, Result};
use crate::io_uring::register::FilesUpdate as Update;
use crate::io_uring::resources::ALLOCATE;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::Actor;
use linux_raw_sys::io_uring as raw;

/// A prepared FILES_UPDATE.
pub(in crate::io_uring) struct FilesUpdate {
    offset: u32,
    count: u32,
    address: u64,
}

impl Prepared for FilesUpdate {
    fn prepare(sqe: &Sqe, flags: RequestFlags, _: Actor<'_>) -> Result<Self> {
        if flags.contains(RequestFlags::FIXED_FILE) || sqe.length() == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            offset: sqe.offset() as u32,
            count: sqe.length(),
            address: sqe.address(),
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let result = match self.offset {
            ALLOCATE => state.allocate_files(&self, issue.actor),
            offset => {
                let update = Update {
                    offset,
                    count: self.count,
                    descriptors: self.address,
                    tags: 0,
                };
                state.update_files(&update, issue.actor.process)
            }
        };
        Completion::of(result.map(|count| count as i32)).into()
    }
}

impl RingState {
    /// Gives each file a free place, whose number takes that of the descriptor in memory.
    fn allocate_files(&mut self, update: &FilesUpdate, actor: Actor<'_>) -> Result<u32> {
        if self.resources.files.is_empty() {
            return Err(Errno::ENXIO);
        }
        let mut done = 0;
        while done < update.count {
            match self.allocate_file(update.address.wrapping_add(u64::from(done) * 4), actor) {
                Ok(()) => done += 1,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn allocate_file(&mut self, address: u64, actor: Actor<'_>) -> Result<()> {
        let fd: i32 = actor.space().read_value(address)?;
        let place = self.install_file(actor.process.files.get(fd)?, ALLOCATE)?;
        let written = actor.space().write_value(address, &place);
        written.inspect_err(|_| self.give_up_file(place))
    }
}

/// A prepared FIXED_FD_INSTALL.
pub(in crate::io_uring) struct FixedFdInstall {
    index: i32,
    close_on_exec: bool,
}

impl Prepared for FixedFdInstall {
    fn prepare(sqe: &Sqe, flags: RequestFlags, _: Actor<'_>) -> Result<Self> {
        if !flags.contains(RequestFlags::FIXED_FILE) {
            return Err(Errno::EBADF);
        }
        let flags = sqe.op_flags();
        if flags & !raw::IORING_FIXED_FD_NO_CLOEXEC != 0 {
            return Err(Errno::EINVAL);
        }
        // With other credentials than the process has, a descriptor could give it more than these.
        if sqe.personality() != 0 {
            return Err(Errno::EPERM);
        }
        Ok(Self {
            index: sqe.fd(),
            close_on_exec: flags & raw::IORING_FIXED_FD_NO_CLOEXEC == 0,
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let file = state.resources.file(self.index);
        let files = &issue.actor.process.files;
        let installed = file.and_then(|file| files.insert(file, self.close_on_exec, 0));
        Completion::of(installed).into()
    }
}
