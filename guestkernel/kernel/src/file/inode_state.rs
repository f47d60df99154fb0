//! What the kernel keeps of each file in a file system, whatever its type.

use super::Inode;
use crate::error::{Errno, Result};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// What each [`Inode`](super::Inode) has for the parts of the kernel above file systems.
#[derive(Debug, Default)]
pub struct InodeState {
    /// Mounts that cover it.
    mounts: AtomicU32,
    /// Open files that may write it; or, as a negative number, those who do not let it be written
    /// (`i_writecount` of Linux).
    writers: AtomicI32,
}

impl InodeState {
    /// A mount covers it, or one less does.
    pub(crate) fn note_mount(&self, is_new: bool) {
        match is_new {
            true => self.mounts.fetch_add(1, Ordering::Relaxed),
            false => self.mounts.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether a mount covers it, in some name space.
    #[inline]
    pub(crate) fn has_mounts(&self) -> bool {
        self.mounts.load(Ordering::Relaxed) > 0
    }

    /// Counts one more who may write it.
    ///
    /// # Errors
    ///
    /// `ETXTBSY` if it is a program that runs.
    fn begin_writing(&self) -> Result<()> {
        let more = |count: i32| (count >= 0).then(|| count + 1);
        match self
            .writers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::ETXTBSY),
        }
    }

    /// Undoes a [`begin_writing`](Self::begin_writing).
    fn end_writing(&self) {
        self.writers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts one more who does not let it be written: a program that runs.
    ///
    /// # Errors
    ///
    /// `ETXTBSY` if somebody may write it.
    fn deny_writing(&self) -> Result<()> {
        let more = |count: i32| (count <= 0).then(|| count - 1);
        match self
            .writers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::ETXTBSY),
        }
    }

    /// Undoes a [`deny_writing`](Self::deny_writing).
    fn allow_writing(&self) {
        self.writers.fetch_add(1, Ordering::Relaxed);
    }
}

/// That somebody may write a file: nobody begins to execute it meanwhile.
pub struct WriteAccess(Arc<dyn Inode>);

impl WriteAccess {
    /// The right to write `inode`.
    ///
    /// # Errors
    ///
    /// `ETXTBSY` if it is a program that runs.
    pub fn new(inode: Arc<dyn Inode>) -> Result<Self> {
        inode.state().begin_writing()?;
        Ok(Self(inode))
    }
}

impl Drop for WriteAccess {
    fn drop(&mut self) {
        self.0.state().end_writing();
    }
}

/// That a file is a program which runs: nobody writes it meanwhile.
pub struct Executed(Arc<dyn Inode>);

impl Executed {
    /// Keeps others from writing `inode`.
    ///
    /// # Errors
    ///
    /// `ETXTBSY` if somebody may write it.
    pub fn new(inode: Arc<dyn Inode>) -> Result<Self> {
        inode.state().deny_writing()?;
        Ok(Self(inode))
    }
}

impl Drop for Executed {
    fn drop(&mut self) {
        self.0.state().allow_writing();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_or_executed() {
        let state = InodeState::default();
        state.begin_writing().unwrap();
        state.begin_writing().unwrap();
        assert_eq!(state.deny_writing(), Err(Errno::ETXTBSY));
        state.end_writing();
        assert_eq!(state.deny_writing(), Err(Errno::ETXTBSY));
        state.end_writing();
        state.deny_writing().unwrap();
        state.deny_writing().unwrap();
        assert_eq!(state.begin_writing(), Err(Errno::ETXTBSY));
        state.allow_writing();
        state.allow_writing();
        state.begin_writing().unwrap();
    }
}
