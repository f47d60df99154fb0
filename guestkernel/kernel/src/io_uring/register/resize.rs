//! `IORING_REGISTER_RESIZE_RINGS`: other sizes for a ring that is in use.

use super::Registration;
use crate::error::{Errno, Result};
use crate::io_uring::memory::RingMemory;
use alloc::sync::Arc;
use linux_raw_sys::io_uring as raw;

impl Registration<'_> {
    /// Moves what is in the rings into new ones, which the program has yet to map.
    pub(super) fn resize(&self, argument: u64) -> Result<u32> {
        let own = *self.ring.setup();
        if !own.defers_work() {
            return Err(Errno::EINVAL);
        }
        let mut params: raw::io_uring_params = self.space().read_value(argument)?;
        let setup = own.resized(&mut params)?;
        let memory = Arc::new(RingMemory::new(&setup, &params, self.space())?);
        memory.describe(&mut params);
        params.sq_entries = setup.sq_entries;
        params.cq_entries = setup.cq_entries;
        self.space().write_value(argument, &params)?;
        let mut state = self.ring.lock();
        if !memory.take_over(&state.memory) {
            return Err(Errno::EOVERFLOW);
        }
        state.completions.resize(setup.cq_entries);
        state.memory = memory.clone();
        state.setup = setup;
        drop(state);
        self.ring.set_memory(&memory);
        Ok(0)
    }
}
