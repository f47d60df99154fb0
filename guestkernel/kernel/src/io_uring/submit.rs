//! Taking SQEs out of the ring: one batch, under one lock.

use super::opcode::{self, Completion, Issue, Opcode, Operation, Submitter};
use super::pace::Pace;
use super::request::{Accepted, Request, RequestSlot};
use super::ring::RingState;
use super::sqe::{RequestFlags, Sqe};
use crate::error::{Errno, Result};
use crate::missing;
use crate::operation::Actor;

impl RingState {
    /// Submits up to `count` SQEs; returns how many were taken, and whether others are to have their
    /// turn before it goes on with the rest. A bad one is the last, unless the ring is set up
    /// otherwise; its CQE says what is wrong.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are some and too much is under way to accept any.
    pub(super) fn submit(&mut self, count: u32, actor: Actor<'_>) -> Result<(u32, bool)> {
        let pending = self.memory.sq_pending(self.sq_head).min(count);
        let mut taken = 0;
        let mut is_full = false;
        let mut gives_way = false;
        let mut pace = Pace::default();
        while taken < pending {
            let in_use = self.slots.used() + self.completions.overflowed();
            if !self.allowance.covers_more_than(in_use) {
                is_full = true;
                break;
            }
            let head = self.sq_head;
            self.sq_head = head.wrapping_add(1);
            let Some(sqe) = self.memory.sqe(head) else {
                self.memory.count_dropped();
                break;
            };
            taken += 1;
            if self.submit_one(&sqe, actor).is_err() && !self.setup.submits_all() {
                break;
            }
            // What is in the middle of a chain has not started, and takes no time; nor does a NOP.
            if !opcode::is_nop(sqe.opcode()) && pace.is_over() && self.chain.is_none() {
                gives_way = taken < pending;
                break;
            }
        }
        self.end_chain();
        self.memory.publish_sq_head(self.sq_head);
        if !self.setup.defers_work() {
            self.settle();
        } else {
            self.publish();
            self.ready.defer_turn(!self.turn.is_empty());
            if self.setup.flags_work() && self.has_work() {
                self.show_work();
            }
        }
        match taken {
            0 if is_full => Err(Errno::EAGAIN),
            _ => Ok((taken, gives_way)),
        }
    }

    /// Accepts one SQE; an error is one of the SQE itself, for which the CQE is seen to.
    #[inline(always)]
    fn submit_one(&mut self, sqe: &Sqe, actor: Actor<'_>) -> Result<()> {
        match opcode::is_nop(sqe.opcode()) {
            // It takes less time than a call through a pointer, so there is none on its way.
            true => self.submit_as(sqe, actor, opcode::prepare_nop),
            false => self.submit_as(sqe, actor, opcode::prepare),
        }
    }

    /// The same for an SQE that `prepare` checks.
    #[inline(always)]
    fn submit_as(
        &mut self,
        sqe: &Sqe,
        actor: Actor<'_>,
        prepare: impl FnOnce(&Opcode, &Sqe, RequestFlags, Actor<'_>) -> Result<Operation>,
    ) -> Result<()> {
        let mut request = Request {
            user_data: sqe.user_data(),
            flags: RequestFlags::from_bits_retain(sqe.flags().into()),
            opcode: sqe.opcode(),
            next: None,
        };
        let prepared = self.prepare(sqe, &mut request, actor, prepare);
        let is_simple = !request
            .flags
            .intersects(RequestFlags::ANY_LINK | RequestFlags::QUEUED)
            && self.chain.is_none();
        match prepared {
            Ok(operation) if is_simple => {
                let flags = request.flags;
                let started = self.start(operation, Issue { actor, flags });
                self.go_on(request, started);
                Ok(())
            }
            prepared => self.submit_slowly(request, prepared, actor),
        }
    }

    /// Accepts a request that failed, waits for others, or has others wait for it.
    fn submit_slowly(
        &mut self,
        request: Request,
        prepared: Result<Operation>,
        actor: Actor<'_>,
    ) -> Result<()> {
        let error = prepared.as_ref().err().copied();
        if let Some(error) = error {
            log_refusal(&request, error);
        }
        let plan = prepared.map_err(Completion::failure);
        let continues = request.flags.intersects(RequestFlags::ANY_LINK);
        if continues || self.chain.is_some() {
            self.add_to_chain(request, plan, actor);
            if continues {
                return Ok(());
            }
            self.end_chain();
        } else {
            match plan {
                Err(completion) => self.complete(request, completion),
                plan => {
                    let slot = self.slots.insert(RequestSlot::Accepted(Accepted {
                        request,
                        plan,
                        submitter: Submitter::new(actor),
                    }));
                    self.wait_for_drain(slot);
                }
            }
        }
        error.map_or(Ok(()), Err)
    }

    /// Checks an SQE, in Linux's order; what its opcode has to say comes last, by `prepare`.
    #[inline(always)]
    fn prepare(
        &mut self,
        sqe: &Sqe,
        request: &mut Request,
        actor: Actor<'_>,
        prepare: impl FnOnce(&Opcode, &Sqe, RequestFlags, Actor<'_>) -> Result<Operation>,
    ) -> Result<Operation> {
        let opcode = opcode::opcode(request.opcode).ok_or(Errno::EINVAL)?;
        if !RequestFlags::COMMON.contains(request.flags) {
            self.check_flags(request, opcode.selects_buffer)?;
        }
        if self.drain.is_active || self.drain.includes_next {
            self.queue_behind_drain(request);
        }
        if sqe.priority() != 0 && !opcode.takes_priority {
            return Err(Errno::EINVAL);
        }
        if sqe.personality() != 0 && !self.personalities.contains(sqe.personality()) {
            return Err(Errno::EINVAL);
        }
        let prepared = prepare(opcode, sqe, request.flags, actor)?;
        match prepared {
            Operation::LinkTimeout(_) if !self.can_be_timed() => Err(Errno::EINVAL),
            prepared => Ok(prepared),
        }
    }

    #[cold]
    fn check_flags(&mut self, request: &mut Request, selects_buffer: bool) -> Result<()> {
        let flags = request.flags;
        let known = RequestFlags::COMMON
            | RequestFlags::DRAIN
            | RequestFlags::BUFFER_SELECT
            | RequestFlags::SKIP_SUCCESS;
        if !known.contains(flags) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(RequestFlags::BUFFER_SELECT) && !selects_buffer {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags.contains(RequestFlags::SKIP_SUCCESS) {
            self.drain.is_refused = true;
        }
        if flags.contains(RequestFlags::DRAIN) {
            if self.drain.is_refused {
                return Err(Errno::EOPNOTSUPP);
            }
            self.drain.is_active = true;
            self.drain_chain();
        }
        Ok(())
    }

    #[cold]
    fn queue_behind_drain(&mut self, request: &mut Request) {
        if self.drain.is_active {
            request.flags |= RequestFlags::QUEUED;
        }
        if self.drain.includes_next && self.chain.is_none() {
            self.drain.includes_next = false;
            self.drain.is_active = true;
            request.flags |= RequestFlags::DRAIN | RequestFlags::QUEUED;
        }
    }
}

#[cold]
fn log_refusal(request: &Request, error: Errno) {
    match opcode::opcode(request.opcode) {
        Some(opcode) => log::debug!("io_uring: {} is refused: {error:?}", opcode.name),
        None => {
            missing::note(missing::Kind::Opcode, request.opcode.into());
            log::debug!("io_uring: opcode {} is not implemented", request.opcode);
        }
    }
}
