//! Operations under way, and how they go on and end.

use super::poll::Wait;
use super::selected::Selecting;
use super::timeout::{TimeLimit, Timeout};
use crate::error::{Errno, Result};
use crate::fs::{BoxFuture, OpenFile, Readiness};
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::buffer_group::BufferGroups;
use crate::operation::{Actor, FutexWaits, Transfer};
use crate::process::Process;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::future::Future;
use core::task::{Context, Poll};
use machine::Segment;

/// How a request ended, or one of its CQEs if it has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io_uring) struct Completion {
    /// `res` of the CQE.
    pub(in crate::io_uring) result: i32,
    /// `flags` of the CQE.
    pub(in crate::io_uring) flags: u32,
    /// It breaks its chain, and its CQE is not skipped.
    pub(in crate::io_uring) is_failure: bool,
}

impl Completion {
    /// It went well, with that `res`.
    #[inline]
    pub(in crate::io_uring) fn success(result: i32) -> Self {
        Self {
            result,
            flags: 0,
            is_failure: false,
        }
    }

    /// It failed. Nothing waits for a page that is not there while an SQE is taken or its operation begins:
    /// such a page is as one that cannot be had.
    #[inline]
    pub(in crate::io_uring) fn failure(error: Errno) -> Self {
        let error = match error {
            Errno::ABSENT => Errno::EFAULT,
            error => error,
        };
        Self {
            result: error.as_result(),
            flags: 0,
            is_failure: true,
        }
    }

    /// As success if `result` is not an error.
    #[inline]
    pub(in crate::io_uring) fn of(result: Result<i32>) -> Self {
        result.map_or_else(Self::failure, Self::success)
    }

    /// As success whatever `result` is: opcodes whose failure does not break a chain.
    pub(in crate::io_uring) fn of_harmless(result: Result<i32>) -> Self {
        Self::success(result.unwrap_or_else(Errno::as_result))
    }
}

/// What starting an operation gave.
pub(in crate::io_uring) enum Started {
    Done(Completion),
    Pending(Work),
}

impl From<Completion> for Started {
    fn from(completion: Completion) -> Self {
        Self::Done(completion)
    }
}

impl From<Errno> for Started {
    fn from(error: Errno) -> Self {
        Self::Done(Completion::failure(error))
    }
}

impl From<Result<Work>> for Started {
    #[inline]
    fn from(work: Result<Work>) -> Self {
        work.map_or_else(Self::from, Self::Pending)
    }
}

/// A CQE of an operation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io_uring) struct Step {
    pub(in crate::io_uring) completion: Completion,
    /// It is not the last one: post it, and poll again.
    pub(in crate::io_uring) has_more: bool,
}

impl From<Completion> for Step {
    #[inline]
    fn from(completion: Completion) -> Self {
        Self {
            completion,
            has_more: false,
        }
    }
}

/// What polling gave.
pub(in crate::io_uring) type Progress = Poll<Step>;

/// What `ASYNC_CANCEL` can do about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io_uring) enum Cancelling {
    /// End it.
    Ends,
    /// Nothing: it is not seen, as Linux does not see what a device works on.
    Unseen,
    /// Nothing, and says so: it has gone too far.
    TooLate,
}

/// An operation under way.
pub(in crate::io_uring) struct Work {
    /// The file that it works on.
    file: Option<Arc<OpenFile>>,
    kind: Kind,
}

enum Kind {
    Transfer {
        transfer: Transfer,
        /// Bytes; fewer break a chain.
        expected: usize,
        /// The file cannot say in advance whether it will wait: whether it is ready is asked first.
        asks_first: bool,
        /// What the CQE's flags say of a buffer that was picked.
        cqe_flags: u32,
        /// Who hears of a broken pipe; nobody if it is no write to a stream.
        writer: Option<Submitter>,
        #[expect(dead_code, reason = "it is given back when the transfer is over")]
        charge: MemoryCharge,
    },
    /// A read whose buffer is picked when there is something to be read.
    Selecting(Selecting),
    /// A wait until the file is ready.
    Readiness(Wait),
    Time(Timeout),
    /// The time that another request has.
    TimeLimit(TimeLimit),
    Futex(FutexWaits),
    /// What is rare.
    Future(BoxFuture<'static, Completion>),
    /// Opening a file for a place in the file table.
    Opening(Box<Opening>),
}

struct Opening {
    future: BoxFuture<'static, Result<Arc<OpenFile>>>,
    /// As the SQE names it.
    place: u32,
    opened: Option<Arc<OpenFile>>,
    #[expect(dead_code, reason = "it is given back when the file is open")]
    charge: MemoryCharge,
}

/// Who has submitted a request. The process is held weakly, since it has the ring among its files.
#[derive(Clone)]
pub(in crate::io_uring) struct Submitter {
    process: Weak<Process>,
    tid: u32,
}

impl Submitter {
    pub(in crate::io_uring) fn new(actor: Actor<'_>) -> Self {
        Self {
            process: Arc::downgrade(actor.process),
            tid: actor.tid,
        }
    }

    /// A request that nobody is behind any more.
    pub(in crate::io_uring) fn nobody() -> Self {
        Self {
            process: Weak::new(),
            tid: 0,
        }
    }

    /// Calls `use_actor` with it, if the process is still there.
    pub(in crate::io_uring) fn with<T>(&self, use_actor: impl FnOnce(Actor<'_>) -> T) -> Option<T> {
        let process = self.process.upgrade()?;
        Some(use_actor(Actor::submitter(&process, self.tid)))
    }
}

impl Work {
    /// A read or write of `file`.
    #[inline]
    pub(super) fn transfer(
        file: Arc<OpenFile>,
        transfer: Transfer,
        writer: Option<Submitter>,
        charge: MemoryCharge,
    ) -> Self {
        Self {
            kind: Kind::Transfer {
                asks_first: !file.ops.supports_nowait(),
                expected: transfer.len(),
                transfer,
                cqe_flags: 0,
                writer,
                charge,
            },
            file: Some(file),
        }
    }

    /// A read of `file` into a buffer that was picked, of which the CQE's flags tell.
    pub(super) fn selected(file: Arc<OpenFile>, transfer: Transfer, flags: u32) -> Self {
        let mut work = Self::transfer(file, transfer, None, MemoryCharge::NONE);
        if let Kind::Transfer { cqe_flags, .. } = &mut work.kind {
            *cqe_flags = flags;
        }
        work
    }

    /// A read of `file` whose buffer is picked when there is something to be read.
    pub(super) fn selecting(file: Arc<OpenFile>, selecting: Selecting) -> Self {
        Self {
            file: Some(file),
            kind: Kind::Selecting(selecting),
        }
    }

    /// Whether it reads nothing of a directory, or writes nothing to what takes one piece after the
    /// other: both succeed here, as Linux has it; a system call fails.
    pub(super) fn is_nothing(&self) -> bool {
        let (is_empty, is_write) = match &self.kind {
            Kind::Transfer { transfer, .. } => (transfer.is_empty(), transfer.is_write()),
            _ => (false, false),
        };
        let succeeds = |file: &Arc<OpenFile>| match is_write {
            true => file.ops.writes_by_piece(),
            false => file.is_directory(),
        };
        is_empty && self.file().is_some_and(succeeds)
    }

    /// A wait for a time.
    pub(super) fn time(timeout: Timeout) -> Self {
        Self {
            file: None,
            kind: Kind::Time(timeout),
        }
    }

    /// A wait until `file` is ready.
    pub(super) fn readiness(file: Arc<OpenFile>, wait: Wait) -> Self {
        Self {
            file: Some(file),
            kind: Kind::Readiness(wait),
        }
    }

    /// The time that another request has.
    pub(in crate::io_uring) fn time_limit(limit: TimeLimit) -> Self {
        Self {
            file: None,
            kind: Kind::TimeLimit(limit),
        }
    }

    /// A wait for words of memory.
    pub(super) fn futex(words: FutexWaits) -> Self {
        Self {
            file: None,
            kind: Kind::Futex(words),
        }
    }

    /// An operation that has no place of its own, on `file` if on any.
    pub(super) fn future(
        file: Option<Arc<OpenFile>>,
        future: impl Future<Output = Completion> + Send + 'static,
    ) -> Self {
        Self {
            file,
            kind: Kind::Future(Box::pin(future)),
        }
    }

    /// Opening a file for the place in the file table that the SQE names so.
    pub(super) fn opening(
        future: impl Future<Output = Result<Arc<OpenFile>>> + Send + 'static,
        place: u32,
        charge: MemoryCharge,
    ) -> Self {
        Self {
            file: None,
            kind: Kind::Opening(Box::new(Opening {
                future: Box::pin(future),
                place,
                opened: None,
                charge,
            })),
        }
    }

    /// The file that it has opened, and the place that it is for.
    #[inline]
    pub(in crate::io_uring) fn take_opened(&mut self) -> Option<(Arc<OpenFile>, u32)> {
        match &mut self.kind {
            Kind::Opening(opening) => Some((opening.opened.take()?, opening.place)),
            _ => None,
        }
    }

    #[inline]
    pub(in crate::io_uring) fn poll(
        &mut self,
        groups: &mut BufferGroups,
        context: &mut Context<'_>,
    ) -> Progress {
        match &mut self.kind {
            Kind::Transfer {
                transfer,
                expected,
                asks_first,
                cqe_flags,
                writer,
                ..
            } => {
                let Some(file) = &self.file else {
                    return Poll::Ready(Completion::failure(Errno::EBADF).into());
                };
                if *asks_first {
                    let wanted = transfer.awaits();
                    if !file
                        .ops
                        .poll_ready(wanted, context)
                        .intersects(wanted | Readiness::ALWAYS)
                    {
                        return Poll::Pending;
                    }
                    *asks_first = false;
                }
                transfer.poll(file, context).map(|result| match result {
                    Ok(count) => Completion {
                        result: count as i32,
                        flags: *cqe_flags,
                        is_failure: count != *expected,
                    }
                    .into(),
                    Err(error) => {
                        if let Some(writer) = writer {
                            writer.with(|actor| transfer.signal_failure(error, actor));
                        }
                        Completion {
                            flags: *cqe_flags,
                            ..Completion::failure(error)
                        }
                        .into()
                    }
                })
            }
            Kind::Selecting(selecting) => match &self.file {
                Some(file) => selecting.poll(file, groups, context),
                None => Poll::Ready(Completion::failure(Errno::EBADF).into()),
            },
            Kind::Readiness(wait) => match &self.file {
                Some(file) => wait.poll(file, context),
                None => Poll::Ready(Completion::failure(Errno::EBADF).into()),
            },
            Kind::Time(timeout) => timeout.poll(context),
            Kind::TimeLimit(limit) => limit.poll(context),
            Kind::Futex(words) => words
                .poll(context)
                .map(|index| Completion::success(index as i32).into()),
            Kind::Future(future) => future.as_mut().poll(context).map(Step::from),
            Kind::Opening(opening) => opening.future.as_mut().poll(context).map(|opened| {
                let completion = match opened {
                    Ok(file) => {
                        opening.opened = Some(file);
                        Completion::success(0)
                    }
                    Err(error) => Completion::failure(error),
                };
                completion.into()
            }),
        }
    }

    /// What `ASYNC_CANCEL` can do about it. What waits for somebody else's bytes is ended, what a
    /// device works on is not seen.
    pub(in crate::io_uring) fn cancelling(&self) -> Cancelling {
        match &self.kind {
            Kind::Transfer { transfer, .. } if transfer.is_with_device() => Cancelling::Unseen,
            Kind::TimeLimit(_) => Cancelling::Unseen,
            Kind::Transfer { .. }
            | Kind::Selecting(_)
            | Kind::Readiness(_)
            | Kind::Time(_)
            | Kind::Futex(_) => Cancelling::Ends,
            Kind::Future(_) | Kind::Opening(_) => Cancelling::TooLate,
        }
    }

    /// Whether it is a transfer from or to memory of that registered buffer.
    pub(in crate::io_uring) fn uses(&self, region: &Arc<[Segment]>) -> bool {
        match &self.kind {
            Kind::Transfer { transfer, .. } => transfer.uses(region),
            _ => false,
        }
    }

    /// The file that it works on.
    pub(in crate::io_uring) fn file(&self) -> Option<&Arc<OpenFile>> {
        self.file.as_ref()
    }

    /// The wait for a time that it is, if it is one.
    pub(in crate::io_uring) fn as_timeout(&self) -> Option<&Timeout> {
        match &self.kind {
            Kind::Time(timeout) => Some(timeout),
            _ => None,
        }
    }

    pub(super) fn as_timeout_mut(&mut self) -> Option<&mut Timeout> {
        match &mut self.kind {
            Kind::Time(timeout) => Some(timeout),
            _ => None,
        }
    }

    /// The time of another request that it is, if it is that.
    pub(in crate::io_uring) fn as_time_limit(&self) -> Option<&TimeLimit> {
        match &self.kind {
            Kind::TimeLimit(limit) => Some(limit),
            _ => None,
        }
    }

    pub(super) fn as_time_limit_mut(&mut self) -> Option<&mut TimeLimit> {
        match &mut self.kind {
            Kind::TimeLimit(limit) => Some(limit),
            _ => None,
        }
    }

    /// Whether it waits for words of memory.
    pub(super) fn is_futex(&self) -> bool {
        matches!(self.kind, Kind::Futex(_))
    }

    /// Whether it waits for a file to be ready.
    pub(super) fn is_readiness(&self) -> bool {
        matches!(self.kind, Kind::Readiness(_))
    }

    pub(super) fn as_readiness_mut(&mut self) -> Option<&mut Wait> {
        match &mut self.kind {
            Kind::Readiness(wait) => Some(wait),
            _ => None,
        }
    }
}
