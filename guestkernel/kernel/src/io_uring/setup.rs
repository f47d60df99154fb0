//! `io_uring_setup(2)`: what a ring can be, and making one.

use super::file::RingFile;
use super::ring::Ring;
use crate::error::{Errno, Result};
use crate::fs::{OpenFile, OpenFlags};
use crate::process::Process;
use alloc::sync::Arc;
use linux_raw_sys::io_uring as raw;

/// The most SQEs and CQEs of a ring.
const MAX_ENTRIES: u32 = 32768;
const MAX_CQ_ENTRIES: u32 = 2 * MAX_ENTRIES;

/// The flags that are implemented. Any other gets `EINVAL`.
const KNOWN_FLAGS: u32 = raw::IORING_SETUP_CQSIZE
    | raw::IORING_SETUP_CLAMP
    | raw::IORING_SETUP_R_DISABLED
    | raw::IORING_SETUP_SUBMIT_ALL
    | raw::IORING_SETUP_COOP_TASKRUN
    | raw::IORING_SETUP_TASKRUN_FLAG
    | raw::IORING_SETUP_SINGLE_ISSUER
    | raw::IORING_SETUP_DEFER_TASKRUN
    | raw::IORING_SETUP_NO_SQARRAY;

/// What is true of these rings.
///
/// - `FAST_POLL`, `NATIVE_WORKERS`: what must wait does so as itself, with the submitter's identity;
///   there are no worker threads.
/// - Missing are `SQPOLL_NONFIXED` (no SQPOLL), `REG_REG_RING`, `RECVSEND_BUNDLE` and `RW_ATTR`.
const FEATURES: u32 = raw::IORING_FEAT_SINGLE_MMAP
    | raw::IORING_FEAT_NODROP
    | raw::IORING_FEAT_SUBMIT_STABLE
    | raw::IORING_FEAT_RW_CUR_POS
    | raw::IORING_FEAT_CUR_PERSONALITY
    | raw::IORING_FEAT_FAST_POLL
    | raw::IORING_FEAT_POLL_32BITS
    | raw::IORING_FEAT_EXT_ARG
    | raw::IORING_FEAT_NATIVE_WORKERS
    | raw::IORING_FEAT_RSRC_TAGS
    | raw::IORING_FEAT_CQE_SKIP
    | raw::IORING_FEAT_LINKED_FILE
    | raw::IORING_FEAT_MIN_TIMEOUT
    | raw::IORING_FEAT_NO_IOWAIT;

/// A ring's size and manner, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) sq_entries: u32,
    pub(super) cq_entries: u32,
    flags: u32,
}

impl Setup {
    /// Checks what `io_uring_setup` was asked for.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub(super) fn new(entries: u32, params: &raw::io_uring_params) -> Result<Self> {
        let has = |flag| params.flags & flag != 0;
        if params.resv != [0; 3] || has(!KNOWN_FLAGS) {
            return Err(Errno::EINVAL);
        }
        let needs_task_work = raw::IORING_SETUP_COOP_TASKRUN | raw::IORING_SETUP_DEFER_TASKRUN;
        if has(raw::IORING_SETUP_TASKRUN_FLAG) && !has(needs_task_work) {
            return Err(Errno::EINVAL);
        }
        if has(raw::IORING_SETUP_DEFER_TASKRUN) && !has(raw::IORING_SETUP_SINGLE_ISSUER) {
            return Err(Errno::EINVAL);
        }
        let clamp = has(raw::IORING_SETUP_CLAMP);
        let sq_entries = size(entries, MAX_ENTRIES, clamp)?;
        let cq_entries = if has(raw::IORING_SETUP_CQSIZE) {
            size(params.cq_entries, MAX_CQ_ENTRIES, clamp)?
        } else {
            2 * sq_entries
        };
        if cq_entries < sq_entries {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            sq_entries,
            cq_entries,
            flags: params.flags,
        })
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The program may order SQEs by an array of indexes.
    pub(super) fn has_sq_array(&self) -> bool {
        !self.has(raw::IORING_SETUP_NO_SQARRAY)
    }

    /// It accepts nothing until it is enabled.
    pub(super) fn starts_disabled(&self) -> bool {
        self.has(raw::IORING_SETUP_R_DISABLED)
    }

    /// A bad SQE does not end the batch.
    #[inline]
    pub(super) fn submits_all(&self) -> bool {
        self.has(raw::IORING_SETUP_SUBMIT_ALL)
    }

    /// Only one task may use it.
    #[inline]
    pub(super) fn has_single_issuer(&self) -> bool {
        self.has(raw::IORING_SETUP_SINGLE_ISSUER)
    }

    /// What has become ready is looked at only when the issuer asks for events.
    #[inline]
    pub(super) fn defers_work(&self) -> bool {
        self.has(raw::IORING_SETUP_DEFER_TASKRUN)
    }

    /// The program is shown that there is such work.
    #[inline]
    pub(super) fn flags_work(&self) -> bool {
        self.has(raw::IORING_SETUP_TASKRUN_FLAG)
    }
}

/// The size of a queue: a power of two.
fn size(asked: u32, limit: u32, clamp: bool) -> Result<u32> {
    match asked {
        0 => Err(Errno::EINVAL),
        _ if asked <= limit => Ok(asked.next_power_of_two()),
        _ if clamp => Ok(limit),
        _ => Err(Errno::EINVAL),
    }
}

/// Makes a ring for the task `issuer` of `owner`, fills in `params` for the program, and returns the open file
/// that stands for it.
///
/// # Errors
///
/// `EINVAL`, `ENOMEM`.
pub fn create(
    owner: &Arc<Process>,
    entries: u32,
    params: &mut raw::io_uring_params,
    issuer: u32,
) -> Result<Arc<OpenFile>> {
    let setup = Setup::new(entries, params)?;
    let ring = Ring::new(setup, owner, issuer)?;
    params.sq_entries = setup.sq_entries;
    params.cq_entries = setup.cq_entries;
    params.features = FEATURES;
    ring.memory().describe(params);
    Ok(OpenFile::new(
        Arc::new(RingFile::new(ring)),
        OpenFlags::READ_WRITE,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::Plain;

    fn setup(entries: u32, flags: u32, cq_entries: u32) -> Result<(u32, u32)> {
        let mut params = raw::io_uring_params::zeroed();
        params.flags = flags;
        params.cq_entries = cq_entries;
        Setup::new(entries, &params).map(|setup| (setup.sq_entries, setup.cq_entries))
    }

    #[test]
    fn sizes_are_powers_of_two_within_limits() {
        let (cq, clamp) = (raw::IORING_SETUP_CQSIZE, raw::IORING_SETUP_CLAMP);
        assert_eq!(setup(5, 0, 0), Ok((8, 16)));
        assert_eq!(setup(5, 0, 99), Ok((8, 16)));
        assert_eq!(setup(5, cq, 9), Ok((8, 16)));
        assert_eq!(setup(8, cq, 8), Ok((8, 8)));
        assert_eq!(setup(8, cq, 7), Ok((8, 8)));
        assert_eq!(setup(8, cq, 4), Err(Errno::EINVAL));
        assert_eq!(setup(8, cq, 0), Err(Errno::EINVAL));
        assert_eq!(setup(0, clamp, 0), Err(Errno::EINVAL));
        assert_eq!(setup(32769, 0, 0), Err(Errno::EINVAL));
        assert_eq!(setup(u32::MAX, clamp, 0), Ok((32768, 65536)));
        assert_eq!(setup(1, cq, 65537), Err(Errno::EINVAL));
        assert_eq!(setup(1, cq | clamp, u32::MAX), Ok((1, 65536)));
    }

    #[test]
    fn flags_go_together_as_on_linux() {
        let defer = raw::IORING_SETUP_DEFER_TASKRUN;
        let single = raw::IORING_SETUP_SINGLE_ISSUER;
        let shown = raw::IORING_SETUP_TASKRUN_FLAG;
        assert_eq!(setup(1, defer, 0), Err(Errno::EINVAL));
        assert_eq!(setup(1, shown, 0), Err(Errno::EINVAL));
        assert_eq!(setup(1, defer | single | shown, 0), Ok((1, 2)));
        assert_eq!(
            setup(1, raw::IORING_SETUP_COOP_TASKRUN | shown, 0),
            Ok((1, 2))
        );
        assert_eq!(setup(1, 1 << 31, 0), Err(Errno::EINVAL));
        let mut params = raw::io_uring_params::zeroed();
        params.resv[2] = 1;
        assert_eq!(Setup::new(1, &params), Err(Errno::EINVAL));
    }
}
