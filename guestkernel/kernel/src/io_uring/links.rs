//! Requests that wait for others: chains (`IOSQE_IO_LINK`, `IOSQE_IO_HARDLINK`) and drains
//! (`IOSQE_IO_DRAIN`).
//!
//! Requests of a chain are in slots from the start, each knowing the next. When one completes, the
//! next gets its turn, or all that follow are cancelled. A whole chain may wait behind a drain: it
//! starts when everything accepted before it is complete, and everything after it waits for it.

use super::opcode::{Cancelling, Completion, Issue, Operation, Submitter, TimeLimit, Work};
use super::pace::Pace;
use super::request::{Accepted, Request, RequestSlot};
use super::ring::RingState;
use super::sqe::RequestFlags;
use crate::error::Errno;
use crate::operation::Actor;
use alloc::collections::VecDeque;

/// A chain that the batch is in the middle of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
}

/// Chains and single requests that wait for all before them.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// The program has used `IOSQE_CQE_SKIP_SUCCESS`, after which drains are refused.
    pub(super) is_refused: bool,
    /// Requests go through the queue.
    pub(super) is_active: bool,
    /// The request after the current chain drains too.
    pub(super) includes_next: bool,
    queue: VecDeque<Waiting>,
    /// The requests of all in the queue.
    held: usize,
}

#[derive(Debug)]
struct Waiting {
    slot: u32,
    drains: bool,
    /// Requests of the chain.
    length: usize,
}

impl Drain {
    /// Whether anything waits.
    #[inline(always)]
    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }
}

impl RingState {
    /// Adds a request to the chain of the batch, which it starts if there is none.
    pub(super) fn add_to_chain(
        &mut self,
        request: Request,
        plan: Result<Operation, Completion>,
        actor: Actor<'_>,
    ) {
        let has_failed = plan.is_err();
        let is_time_limit = matches!(plan, Ok(Operation::LinkTimeout(_)));
        let slot = self.slots.insert(RequestSlot::Accepted(Accepted {
            request,
            plan,
            submitter: Submitter::new(actor),
        }));
        let last = self.chain.map(|chain| chain.last);
        let first = self.chain.map_or(slot, |chain| chain.first);
        self.chain = Some(Chain { first, last: slot });
        if let Some(last) = last.and_then(|last| self.slots.held(last)) {
            last.request.next = Some(slot);
            last.request.flags.set(RequestFlags::TIMED, is_time_limit);
        }
        // A chain with a bad request never starts, however its requests are linked.
        if has_failed && let Some(first) = self.slots.held(first) {
            first.request.flags.remove(RequestFlags::HARD_LINK);
            if first.plan.is_ok() {
                first.plan = Err(Completion::failure(Errno::ECANCELED));
            }
        }
    }

    /// The chain's first request drains, and the next request or chain after it as well.
    pub(super) fn drain_chain(&mut self) {
        let Some(chain) = self.chain else { return };
        if let Some(first) = self.slots.held(chain.first) {
            first.request.flags |= RequestFlags::DRAIN | RequestFlags::QUEUED;
            self.drain.includes_next = true;
        }
    }

    /// The chain of the batch is complete: starts it.
    pub(super) fn end_chain(&mut self) {
        let Some(chain) = self.chain.take() else {
            return;
        };
        let Some(first) = self.slots.held(chain.first) else {
            return;
        };
        if first.plan.is_ok() && first.request.flags.contains(RequestFlags::QUEUED) {
            self.wait_for_drain(chain.first);
        } else {
            self.start_held(chain.first);
        }
    }

    /// Has a request that is held, and its chain, wait for all before it if any of them drains.
    pub(super) fn wait_for_drain(&mut self, slot: u32) {
        let Some(held) = self.slots.held(slot) else {
            return;
        };
        let drains = held.request.flags.contains(RequestFlags::DRAIN);
        let mut length = 0;
        let mut next = Some(slot);
        while let Some(slot) = next {
            length += 1;
            next = self.slots.held(slot).and_then(|held| held.request.next);
        }
        self.drain.held += length;
        self.drain.queue.push_back(Waiting {
            slot,
            drains,
            length,
        });
        self.release_drained();
        if !drains && self.drain.queue.is_empty() {
            self.drain.is_active = false;
        }
    }

    /// Gives their turn to those that waited and need not any more: the first when nothing else is
    /// under way, and those after it up to the next drain.
    #[cold]
    pub(super) fn release_drained(&mut self) {
        let mut has_drain = false;
        let mut is_first = true;
        while let Some(waiting) = self.drain.queue.front() {
            has_drain |= waiting.drains;
            if (has_drain || is_first) && self.slots.used() != self.drain.held {
                return;
            }
            is_first = false;
            self.drain.held -= waiting.length;
            self.turn.push_back(waiting.slot);
            self.drain.queue.pop_front();
        }
    }

    /// Starts all requests that have their turn, and those that get it by that; false if others are
    /// to have their turn before all are started.
    pub(super) fn start_all(&mut self, pace: &mut Pace) -> bool {
        while let Some(slot) = self.turn.pop_front() {
            self.start_held(slot);
            if pace.is_over() {
                return false;
            }
        }
        true
    }

    fn start_held(&mut self, slot: u32) {
        let Some(Accepted {
            request,
            plan,
            submitter,
        }) = self.slots.remove_held(slot)
        else {
            return;
        };
        let started = match plan {
            Err(completion) => completion.into(),
            Ok(operation) => submitter
                .with(|actor| {
                    let flags = request.flags;
                    self.start(operation, Issue { actor, flags })
                })
                .unwrap_or_else(|| Errno::ECANCELED.into()),
        };
        self.go_on(request, started);
    }

    /// Whether a LINK_TIMEOUT may follow: after a request that is none itself.
    pub(super) fn can_be_timed(&mut self) -> bool {
        let last = self.chain.map(|chain| chain.last);
        let last = last.and_then(|last| self.slots.held(last));
        last.is_some_and(|last| !matches!(last.plan, Ok(Operation::LinkTimeout(_))))
    }

    /// The request in slot `head` is under way: the time that it has begins.
    #[cold]
    pub(super) fn start_time_limit(&mut self, head: u32) {
        let next = self.slots.running_at(head).and_then(|it| it.request.next);
        let Some(slot) = next else { return };
        let limit = match self.slots.held(slot).map(|held| &held.plan) {
            Some(Ok(Operation::LinkTimeout(limit))) => TimeLimit::start(limit, head),
            _ => return,
        };
        self.slots.start_in_place(slot, Work::time_limit(limit));
        self.poll(slot);
    }

    /// The time in `slot` is over: ends the request that had it.
    #[cold]
    pub(super) fn end_time_limit(&mut self, slot: u32, head: u32) {
        let Some(mut limit) = self.end_work(slot) else {
            return;
        };
        let next = limit.next.take();
        let mut result = Errno::ETIME;
        if let Some((running, _)) = self.slots.pollable(head)
            && running.request.next == Some(slot)
        {
            running.request.next = next;
            running.request.flags.remove(RequestFlags::TIMED);
            match running.work.cancelling() {
                Cancelling::Ends => self.cancel_running(head),
                Cancelling::TooLate => result = Errno::EALREADY,
                Cancelling::Unseen => result = Errno::ENOENT,
            }
        }
        // That it is over is no failure: its CQE may be skipped.
        self.complete(limit, Completion::success(result.as_result()));
    }

    /// The request that a LINK_TIMEOUT was for is over: ends that, and gives what follows it.
    #[cold]
    fn drop_time_limit(&mut self, slot: u32) -> Option<u32> {
        let mut limit = match self.slots.remove_held(slot) {
            Some(held) => held.request,
            None => self.end_work(slot)?,
        };
        let next = limit.next.take();
        let slot = self.slots.insert(RequestSlot::Accepted(Accepted {
            request: limit,
            // That it is not needed any more is no failure: its CQE may be skipped.
            plan: Err(Completion::success(Errno::ECANCELED.as_result())),
            submitter: Submitter::nobody(),
        }));
        self.turn.push_back(slot);
        next
    }

    /// Ends a request that has started before it is done: its CQE comes in its turn.
    pub(super) fn cancel_running(&mut self, slot: u32) {
        let Some(request) = self.end_work(slot) else {
            return;
        };
        let slot = self.slots.insert(RequestSlot::Accepted(Accepted {
            request,
            plan: Err(Completion::failure(Errno::ECANCELED)),
            submitter: Submitter::nobody(),
        }));
        self.turn.push_back(slot);
    }

    /// Gives the next request of a chain its turn, or has all that follow end without starting.
    pub(super) fn go_on_after(&mut self, mut request: Request, has_failed: bool) {
        if request.flags.contains(RequestFlags::TIMED) {
            request.next = request.next.and_then(|slot| self.drop_time_limit(slot));
        }
        let is_hard = request.flags.contains(RequestFlags::HARD_LINK);
        if !has_failed || is_hard {
            self.turn.extend(request.next);
            return;
        }
        let are_silent = request.flags.contains(RequestFlags::SILENT_LINKS);
        let mut next = request.next;
        while let Some(slot) = next {
            let Some(held) = self.slots.held(slot) else {
                return;
            };
            next = held.request.next.take();
            held.request
                .flags
                .set(RequestFlags::SKIP_SUCCESS, are_silent);
            let result = match held.plan {
                Ok(_) => Errno::ECANCELED.as_result(),
                Err(completion) => completion.result,
            };
            // No failure any more as far as skipping its CQE goes: that is settled.
            held.plan = Err(Completion::success(result));
            self.turn.push_back(slot);
        }
    }
}
