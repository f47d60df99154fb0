//! An eventfd that counts completions.

use super::Registration;
use crate::error::{Errno, Result};
use crate::fs::{EventFd, OpenFile};
use alloc::sync::Arc;
use core::any::Any;

/// An eventfd that is registered.
pub(in crate::io_uring) struct RegisteredEvent {
    file: Arc<OpenFile>,
    /// It counts only what did not complete while it was submitted.
    pub(in crate::io_uring) is_async: bool,
}

fn event_of(file: &OpenFile) -> Option<&EventFd> {
    (&*file.ops as &dyn Any).downcast_ref()
}

impl RegisteredEvent {
    /// Counts one completion, or several that are shown together.
    pub(in crate::io_uring) fn signal(&self) {
        if let Some(event) = event_of(&self.file) {
            event.signal();
        }
    }
}

impl Registration<'_> {
    /// `IORING_REGISTER_EVENTFD` and `EVENTFD_ASYNC`: the descriptor is at `argument`.
    pub(super) fn register_event(&self, argument: u64, is_async: bool) -> Result<u32> {
        if self.ring.lock().event.is_some() {
            return Err(Errno::EBUSY);
        }
        let fd: i32 = self.space().read_value(argument)?;
        let file = self.process.files.get(fd)?;
        event_of(&file).ok_or(Errno::EINVAL)?;
        let mut state = self.ring.lock();
        if state.event.is_some() {
            return Err(Errno::EBUSY);
        }
        state.set_event(Some(Arc::new(RegisteredEvent { file, is_async })));
        Ok(0)
    }

    pub(super) fn unregister_event(&self) -> Result<u32> {
        let mut state = self.ring.lock();
        if state.event.is_none() {
            return Err(Errno::ENXIO);
        }
        state.set_event(None);
        Ok(0)
    }
}
