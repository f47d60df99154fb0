//! `IORING_OP_ASYNC_CANCEL`: ending requests that wait.
//!
//! What can be found is what Linux finds: requests that wait for readiness and timeouts. A device's
//! request, and one that waits for its turn in a chain or behind a drain, is not seen.

use super::{Cancelling, Completion, Issue, Prepared, Started};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::io_uring::request::Running;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::Actor;
use alloc::sync::Arc;
use linux_raw_sys::io_uring as raw;

const KNOWN: u32 = raw::IORING_ASYNC_CANCEL_ALL
    | raw::IORING_ASYNC_CANCEL_FD
    | raw::IORING_ASYNC_CANCEL_ANY
    | raw::IORING_ASYNC_CANCEL_FD_FIXED
    | raw::IORING_ASYNC_CANCEL_USERDATA
    | raw::IORING_ASYNC_CANCEL_OP;

/// A prepared ASYNC_CANCEL.
pub(in crate::io_uring) struct Cancel {
    flags: u32,
    user_data: u64,
    fd: i32,
    opcode: u32,
}

/// Which requests to end.
struct Criteria {
    user_data: Option<u64>,
    file: Option<Arc<OpenFile>>,
    opcode: Option<u32>,
    /// All of them, not only the first.
    all: bool,
}

impl Prepared for Cancel {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        let flags = sqe.op_flags();
        let by_what = raw::IORING_ASYNC_CANCEL_FD | raw::IORING_ASYNC_CANCEL_OP;
        let is_contradictory = flags & raw::IORING_ASYNC_CANCEL_ANY != 0 && flags & by_what != 0;
        if flags & !KNOWN != 0 || is_contradictory {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            flags,
            user_data: sqe.address(),
            fd: sqe.fd(),
            opcode: sqe.length(),
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let result = state
            .criteria(&self, issue)
            .and_then(|criteria| state.cancel(&criteria));
        Completion::of(result).into()
    }
}

impl Criteria {
    fn match_request(&self, running: &Running) -> bool {
        let is_file = |wanted: &Arc<OpenFile>| {
            let file = running.work.file();
            file.is_some_and(|file| Arc::ptr_eq(file, wanted))
        };
        self.user_data
            .is_none_or(|it| it == running.request.user_data)
            && self
                .opcode
                .is_none_or(|it| it == running.request.opcode.into())
            && self.file.as_ref().is_none_or(is_file)
    }
}

impl RingState {
    fn criteria(&self, cancel: &Cancel, mut issue: Issue<'_>) -> Result<Criteria> {
        let has = |flag| cancel.flags & flag != 0;
        let any = has(raw::IORING_ASYNC_CANCEL_ANY);
        let by_file = has(raw::IORING_ASYNC_CANCEL_FD);
        let by_opcode = has(raw::IORING_ASYNC_CANCEL_OP);
        let by_user_data = has(raw::IORING_ASYNC_CANCEL_USERDATA) || !(by_file || by_opcode);
        if has(raw::IORING_ASYNC_CANCEL_FD_FIXED) {
            issue.flags.insert(RequestFlags::FIXED_FILE);
        }
        let file = match by_file {
            true => Some(self.file(cancel.fd, issue)?),
            false => None,
        };
        Ok(Criteria {
            user_data: (by_user_data && !any).then_some(cancel.user_data),
            file,
            opcode: by_opcode.then_some(cancel.opcode),
            all: any || has(raw::IORING_ASYNC_CANCEL_ALL),
        })
    }

    /// Ends requests, and returns how many if it could be several.
    fn cancel(&mut self, criteria: &Criteria) -> Result<i32> {
        let mut refusal = Errno::ENOENT;
        let mut found = alloc::vec::Vec::new();
        for (slot, running) in self.slots.all_running() {
            if !criteria.match_request(running) {
                continue;
            }
            match running.work.cancelling() {
                Cancelling::Ends => found.push(slot),
                Cancelling::TooLate => refusal = Errno::EALREADY,
                Cancelling::Unseen => {}
            }
            if !criteria.all && (!found.is_empty() || refusal != Errno::ENOENT) {
                break;
            }
        }
        let count = found.len() as i32;
        for slot in found {
            self.cancel_running(slot);
        }
        match criteria.all {
            true => Ok(count),
            false if count > 0 => Ok(0),
            false => Err(refusal),
        }
    }
}
