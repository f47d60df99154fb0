//! What is about the bytes of a file or of memory: `IORING_OP_SYNC_FILE_RANGE`, `FALLOCATE`,
//! `FTRUNCATE`, `FADVISE`.

use super::{Completion, Issue, Prepared, Started, Work};
use crate::error::Result;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{Actor, Advise, Allocate, FileRef, SyncRange, Truncate};

/// A prepared SYNC_FILE_RANGE.
pub(in crate::io_uring) struct SyncFileRange {
    fd: i32,
    offset: i64,
    length: i64,
    flags: u32,
}

impl Prepared for SyncFileRange {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        Ok(Self {
            fd: sqe.fd(),
            offset: sqe.offset() as i64,
            length: sqe.length().into(),
            flags: sqe.op_flags(),
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let work = state.file(self.fd, issue).map(|file| {
            let operation = SyncRange {
                file: FileRef::File(file.clone()),
                offset: self.offset,
                length: self.length,
                flags: self.flags,
            };
            let (process, tid) = issue.owned();
            Work::future(Some(file), async move {
                let result = operation.run(Actor::submitter(&process, tid)).await;
                Completion::of_harmless(result.map(|()| 0))
            })
        });
        work.into()
    }
}

/// A prepared FALLOCATE.
pub(in crate::io_uring) struct Fallocate {
    fd: i32,
    mode: u32,
    offset: i64,
    length: i64,
}

impl Prepared for Fallocate {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        Ok(Self {
            fd: sqe.fd(),
            mode: sqe.length(),
            offset: sqe.offset() as i64,
            length: sqe.address() as i64,
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let work = state.file(self.fd, issue).map(|file| {
            let operation = Allocate {
                file: FileRef::File(file.clone()),
                mode: self.mode,
                offset: self.offset,
                length: self.length,
            };
            let (process, tid) = issue.owned();
            Work::future(Some(file), async move {
                let result = operation.run(Actor::submitter(&process, tid)).await;
                Completion::of_harmless(result.map(|()| 0))
            })
        });
        work.into()
    }
}

/// A prepared FTRUNCATE.
pub(in crate::io_uring) struct Ftruncate {
    fd: i32,
    size: i64,
}

impl Prepared for Ftruncate {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        Ok(Self {
            fd: sqe.fd(),
            size: sqe.offset() as i64,
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let work = state.file(self.fd, issue).map(|file| {
            let operation = Truncate {
                file: FileRef::File(file.clone()),
                size: self.size,
            };
            let (process, tid) = issue.owned();
            Work::future(Some(file), async move {
                let result = operation.run(Actor::submitter(&process, tid)).await;
                Completion::of_harmless(result.map(|()| 0))
            })
        });
        work.into()
    }
}

/// A prepared FADVISE.
pub(in crate::io_uring) struct Fadvise {
    fd: i32,
    length: i64,
    advice: u32,
}

impl Prepared for Fadvise {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        Ok(Self {
            fd: sqe.fd(),
            length: match sqe.address() as i64 {
                0 => sqe.length().into(),
                length => length,
            },
            advice: sqe.op_flags(),
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let result = state.file(self.fd, issue).and_then(|file| {
            let operation = Advise {
                file: FileRef::File(file),
                length: self.length,
                advice: self.advice,
            };
            operation.run(issue.actor)
        });
        Completion::of(result.map(|()| 0)).into()
    }
}
