//! Processes as open files (`pidfd_open(2)`): what a number means can change, what a descriptor means
//! does not.

use super::control_block::ControlBlock;
use super::table;
use crate::error::{Errno, Result};
use crate::file::{FileOps, OpenFile, OpenFlags, Readiness};
use alloc::sync::Arc;
use core::any::Any;
use core::task::Context;

/// A process as an open file.
pub struct PidFile {
    process: Arc<ControlBlock>,
}

impl PidFile {
    /// That of `process`, open.
    pub fn open(process: Arc<ControlBlock>, flags: OpenFlags) -> Arc<OpenFile> {
        OpenFile::new(Arc::new(Self { process }), OpenFlags::READ_WRITE | flags)
    }

    /// The process that an open file stands for.
    ///
    /// # Errors
    ///
    /// `EBADF` if it stands for none.
    pub fn process_of(file: &OpenFile) -> Result<&Arc<ControlBlock>> {
        let ops: &dyn Any = &*file.ops;
        let file = ops.downcast_ref::<Self>().ok_or(Errno::EBADF)?;
        Ok(&file.process)
    }
}

impl FileOps for PidFile {
    fn kind(&self) -> &'static str {
        "[pidfd]"
    }

    /// Readable when the process has ended; hung up when it was waited for.
    fn poll_ready(&self, _interest: Readiness, context: &mut Context<'_>) -> Readiness {
        self.process.ends.register(context.waker());
        match table::state_of(&self.process) {
            table::State::There => Readiness::empty(),
            table::State::Ended => Readiness::READABLE,
            table::State::Gone => Readiness::READABLE | Readiness::HANG_UP,
        }
    }
}
