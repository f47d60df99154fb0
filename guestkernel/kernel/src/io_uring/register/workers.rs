//! What is about Linux's worker threads: which CPUs they run on, and how many there may be. There are
//! none here, so both are checked and kept, and change nothing.

use super::Registration;
use crate::error::{Errno, Result};
use crate::executor;
use linux_raw_sys::general::RLIMIT_NPROC;

/// Bytes of a set of CPUs that count.
const SET_SIZE: u32 = 8;
/// Workers for each CPU that wait for files at most, unless the program says otherwise.
const WORKERS_FOR_EACH_CPU: u32 = 4;

impl Registration<'_> {
    /// `IORING_REGISTER_IOWQ_AFF`.
    pub(super) fn set_worker_cpus(&self, argument: u64, size: u32) -> Result<u32> {
        let mut set = [0; SET_SIZE as usize];
        let size = size.min(SET_SIZE) as usize;
        self.space().read(argument, &mut set[..size])?;
        // CPUs that there are not do not count, and all others are allowed.
        Ok(0)
    }

    /// `IORING_REGISTER_IOWQ_MAX_WORKERS`: tells how many there could be before, which wait for files
    /// and which for anything.
    pub(super) fn set_workers(&self, argument: u64) -> Result<u32> {
        let read = |at: u64| self.space().read_value::<u32>(argument.wrapping_add(at));
        let new = [read(0)?, read(4)?];
        if new.iter().any(|count| i32::try_from(*count).is_err()) {
            return Err(Errno::EINVAL);
        }
        let most = self.process.limits.lock().get(RLIMIT_NPROC)?.soft;
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let mut state = self.ring.lock();
        let cpus = executor::all_cpus().count_ones();
        let old = state.workers.unwrap_or([
            state.setup.sq_entries.min(WORKERS_FOR_EACH_CPU * cpus),
            most,
        ]);
        let mut kept = old;
        for (kept, new) in kept.iter_mut().zip(new) {
            if new != 0 {
                *kept = new.min(most);
            }
        }
        state.workers = Some(kept);
        drop(state);
        for (at, old) in [0, 4].into_iter().zip(old) {
            self.space().write_value(argument.wrapping_add(at), &old)?;
        }
        Ok(0)
    }
}
