//! A process as its threads have it: the memory, the files and the names that they reach, and the
//! process control block, which is what others know of it.

use super::control_block::{ControlBlock, ExitStatus};
use super::executable::Executable;
use super::limits::Limit;
use super::signal::Signal;
use super::table;
use crate::error::Result;
use crate::fs::{FdTable, FsContext};
use crate::mm::AddressSpace;
use alloc::sync::Arc;
use core::ops::Deref;
use linux_raw_sys::general as raw;

/// What threads of a process reach. It is the same for all of them, unless one was made with files or
/// directories of its own; another program has another one.
pub struct Process {
    /// Its memory.
    pub space: Arc<AddressSpace>,
    /// Its open files.
    pub files: Arc<FdTable>,
    /// Its place in the name space.
    pub fs: Arc<FsContext>,
    /// The program that it runs.
    pub executable: Arc<Executable>,
    block: Arc<ControlBlock>,
}

impl Process {
    /// The first process, as the only one that there is.
    pub fn new(space: Arc<AddressSpace>, files: Arc<FdTable>, fs: Arc<FsContext>) -> Arc<Self> {
        Self::first(space, files, fs, Executable::default())
    }

    /// As [`new`](Self::new), of which is known what it runs.
    pub(crate) fn first(
        space: Arc<AddressSpace>,
        files: Arc<FdTable>,
        fs: Arc<FsContext>,
        executable: Executable,
    ) -> Arc<Self> {
        Self::assemble(space, files, fs, Arc::new(executable), table::start())
    }

    /// What threads of `block` reach.
    pub(super) fn assemble(
        space: Arc<AddressSpace>,
        files: Arc<FdTable>,
        fs: Arc<FsContext>,
        executable: Arc<Executable>,
        block: Arc<ControlBlock>,
    ) -> Arc<Self> {
        let ends = block.weak().clone();
        space.add_on_exhaustion(move || match ends.upgrade() {
            Some(process) => {
                process.exit(ExitStatus::Signaled(Signal::SIGKILL.number()));
                true
            }
            None => false,
        });
        let process = Arc::new(Self {
            space,
            files,
            fs,
            executable,
            block,
        });
        process.block.set_view(&process);
        process
    }

    /// What a thread of `process` reaches that has files and directories of its own.
    pub(super) fn beside(process: &Self, files: Arc<FdTable>, fs: Arc<FsContext>) -> Arc<Self> {
        Arc::new(Self {
            space: process.space.clone(),
            files,
            fs,
            executable: process.executable.clone(),
            block: process.block.clone(),
        })
    }

    /// The process control block, for what outlives its program.
    pub fn block(&self) -> &Arc<ControlBlock> {
        &self.block
    }

    /// Sets a resource limit, where it counts too.
    ///
    /// # Errors
    ///
    /// Those of [`Limits::set`](super::Limits::set).
    pub fn set_limit(&self, resource: u32, limit: Limit) -> Result<()> {
        self.limits.lock().set(resource, limit)?;
        match resource {
            raw::RLIMIT_AS => self.space.set_limit(limit.soft),
            raw::RLIMIT_NOFILE => self.files.set_limit(limit.soft as u32),
            _ => {}
        }
        Ok(())
    }
}

impl Deref for Process {
    type Target = ControlBlock;

    #[inline]
    fn deref(&self) -> &ControlBlock {
        &self.block
    }
}
