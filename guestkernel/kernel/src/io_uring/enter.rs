//! `io_uring_enter(2)`: submitting, and waiting for completions.

use super::file::ring_of;
use super::ready::Attention;
use super::ring::{Ring, RingState};
use crate::error::{Errno, Result};
use crate::executor::Batch;
use crate::executor::{self, Deadline};
use crate::fs::OpenFile;
use crate::operation::{Actor, TemporaryMask, TimeValue};
use crate::process::Process;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll};
use linux_raw_sys::io_uring as raw;
use machine::clock;

const KNOWN_FLAGS: u32 = raw::IORING_ENTER_GETEVENTS
    | raw::IORING_ENTER_SQ_WAKEUP
    | raw::IORING_ENTER_SQ_WAIT
    | raw::IORING_ENTER_EXT_ARG
    | raw::IORING_ENTER_REGISTERED_RING
    | raw::IORING_ENTER_ABS_TIMER
    | raw::IORING_ENTER_EXT_ARG_REG
    | raw::IORING_ENTER_NO_IOWAIT;

/// Ring descriptors that a task could register, if that were implemented: none is.
const REGISTERED_RINGS: i32 = 16;

/// Looks at the devices before the task waits: a quick device is done by then, and the way through
/// the executor is saved.
const POLLS_BEFORE_WAITING: u32 = 32;

/// The arguments of `io_uring_enter`, without the ring.
#[derive(Clone, Copy, Debug)]
pub struct Enter {
    /// SQEs to submit.
    pub to_submit: u32,
    /// CQEs to wait for, with `IORING_ENTER_GETEVENTS`.
    pub min_complete: u32,
    /// `IORING_ENTER_*`.
    pub flags: u32,
    /// A signal set, or a `struct io_uring_getevents_arg`.
    pub argument: u64,
    /// Its size.
    pub size: u64,
}

/// A call that has not submitted all SQEs yet, or has not all the CQEs that it wants.
pub struct Entered {
    file: Arc<OpenFile>,
    submitted: u32,
    call: Enter,
    /// What it waits for; `None` while it lets others have their turn before it submits more.
    wait: Option<Wait>,
}

/// Submits to the ring `fd` and waits, for the task `task` of `process`; returns how many SQEs
/// were taken.
///
/// # Errors
///
/// Those of io_uring_enter(2).
pub async fn enter(process: &Arc<Process>, task: u32, fd: i32, call: Enter) -> Result<u32> {
    let thread = process.member(task);
    let actor = match &thread {
        Ok(thread) => Actor::caller(process, thread),
        Err(_) => Actor::submitter(process, task),
    };
    match enter_now(actor, fd, call)? {
        Ok(submitted) => Ok(submitted),
        Err(entered) => entered.wait(actor).await,
    }
}

/// As [`enter`], but does not wait: gives what remains of the call if it has to.
///
/// # Errors
///
/// Those of io_uring_enter(2).
#[inline]
pub fn enter_now(
    actor: Actor<'_>,
    fd: i32,
    call: Enter,
) -> Result<core::result::Result<u32, Entered>> {
    let file = ring_file(actor.process, fd, call.flags)?;
    let ring = ring_of(&file).ok_or(Errno::EOPNOTSUPP)?;
    if ring.is_disabled() {
        return Err(Errno::EBADFD);
    }
    Ok(match advance(ring, actor, &call, 0)? {
        Advance::Done(submitted) => Ok(submitted),
        Advance::GivesWay(submitted) => Err(Entered {
            file,
            submitted,
            call,
            wait: None,
        }),
        Advance::Waits(submitted, wait) => Err(Entered {
            file,
            submitted,
            call,
            wait: Some(wait),
        }),
    })
}

/// How far a call has come.
enum Advance {
    /// It is over, and so many SQEs were taken.
    Done(u32),
    /// So many were taken, and others are to have their turn before the rest is.
    GivesWay(u32),
    /// So many were taken, and it waits.
    Waits(u32, Wait),
}

impl Entered {
    /// Waits for the CQEs; returns how many SQEs were taken.
    ///
    /// # Errors
    ///
    /// Those of io_uring_enter(2).
    pub async fn wait(self, actor: Actor<'_>) -> Result<u32> {
        let Self {
            file,
            mut submitted,
            call,
            wait,
        } = self;
        let ring = ring_of(&file).ok_or(Errno::EOPNOTSUPP)?;
        let mut wait = match wait {
            Some(wait) => wait,
            None => loop {
                executor::yield_now().await;
                match advance(ring, actor, &call, submitted)? {
                    Advance::Done(submitted) => return Ok(submitted),
                    Advance::GivesWay(more) => submitted = more,
                    Advance::Waits(all, wait) => {
                        submitted = all;
                        break wait;
                    }
                }
            },
        };
        let mask = wait.mask;
        let waiting = async {
            let waiting = poll_fn(|context| wait.poll(ring, context));
            match actor.until_signal(waiting).await {
                Err(_) if ring.lock().reap() > 0 => Ok(()),
                Err(_) => Err(Errno::EINTR),
                Ok(result) => result,
            }
        };
        let result = mask.during(actor, waiting).await;
        finish(submitted, result)
    }
}

/// What was submitted counts more than how the waiting went.
fn finish(submitted: u32, waited: Result<()>) -> Result<u32> {
    match waited {
        Err(error) if submitted == 0 => Err(error),
        _ => Ok(submitted),
    }
}

fn ring_file(process: &Process, fd: i32, flags: u32) -> Result<Arc<OpenFile>> {
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & raw::IORING_ENTER_REGISTERED_RING != 0 {
        return Err(match fd {
            0..REGISTERED_RINGS => Errno::EBADF,
            _ => Errno::EINVAL,
        });
    }
    process.files.get(fd)
}

/// All that is done without waiting, under one lock, when `submitted` SQEs were taken before.
#[inline(always)]
fn advance(ring: &Ring, actor: Actor<'_>, call: &Enter, mut submitted: u32) -> Result<Advance> {
    let (process, task) = (actor.process, actor.tid);
    let _attention = Attention::new(ring.ready());
    let mut state = None;
    let left = call.to_submit - submitted;
    if left > 0 {
        ring.check_issuer(task)?;
        // One request rings its own doorbell.
        let batch = (left > 1).then(Batch::new);
        let state = state.insert(ring.lock());
        let (taken, gives_way) = match state.submit(left, Actor::submitter(process, task)) {
            Err(_) if submitted > 0 => (0, false),
            result => result?,
        };
        drop(batch);
        submitted += taken;
        if gives_way {
            return Ok(Advance::GivesWay(submitted));
        }
    }
    if call.flags & raw::IORING_ENTER_GETEVENTS == 0 || submitted != call.to_submit {
        return Ok(Advance::Done(submitted));
    }
    let wait = Extra::read(call, process).and_then(|extra| {
        if ring.setup().defers_work() {
            ring.check_issuer(task)?;
        }
        let mut state = state.unwrap_or_else(|| ring.lock());
        let wanted = call.min_complete.min(ring.setup().cq_entries);
        if state.slots.running() > 0 {
            executor::poll_devices();
        }
        if state.reap() >= wanted {
            return Ok(None);
        }
        let mask = TemporaryMask::read(&process.space, extra.signal_mask, extra.signal_mask_size)?;
        Ok(Some(Wait::new(&state, wanted, &extra, mask)))
    });
    match wait {
        Ok(Some(wait)) => Ok(Advance::Waits(submitted, wait)),
        Ok(None) => Ok(Advance::Done(submitted)),
        Err(error) => finish(submitted, Err(error)).map(Advance::Done),
    }
}

/// What `argument` says.
#[derive(Default)]
struct Extra {
    /// On the monotonic clock.
    deadline: Option<u64>,
    /// Until then the wait is for as many as were asked for, after that for one.
    patient_until: Option<u64>,
    signal_mask: u64,
    signal_mask_size: u64,
}

impl Extra {
    fn read(call: &Enter, process: &Process) -> Result<Self> {
        if call.flags & raw::IORING_ENTER_EXT_ARG == 0 {
            return Ok(Self {
                signal_mask: call.argument,
                signal_mask_size: call.size,
                ..Self::default()
            });
        }
        if call.flags & raw::IORING_ENTER_EXT_ARG_REG != 0 {
            // Its place is in registered memory, of which there is none.
            return Err(
                match call.size == size_of::<raw::io_uring_reg_wait>() as u64 {
                    true => Errno::EFAULT,
                    false => Errno::EINVAL,
                },
            );
        }
        if call.size != size_of::<raw::io_uring_getevents_arg>() as u64 {
            return Err(Errno::EINVAL);
        }
        let argument: raw::io_uring_getevents_arg = process.space.read_value(call.argument)?;
        let mut extra = Self {
            deadline: None,
            patient_until: None,
            signal_mask: argument.sigmask,
            signal_mask_size: argument.sigmask_sz.into(),
        };
        let now = clock::monotonic();
        if argument.min_wait_usec > 0 {
            extra.patient_until = Some(now + u64::from(argument.min_wait_usec) * 1000);
        }
        if argument.ts != 0 {
            let time = TimeValue::read_timespec(&process.space, argument.ts)?;
            let is_absolute = call.flags & raw::IORING_ENTER_ABS_TIMER != 0;
            let start = if is_absolute { 0 } else { now };
            // A time that makes no sense is taken all the same.
            extra.deadline = Some(start.saturating_add(time.nanoseconds_at_least_0()));
        }
        Ok(extra)
    }
}

/// A task that waits for CQEs.
struct Wait {
    wanted: u32,
    /// Timeouts fired at the start: one more ends the wait, whatever was asked for.
    fired_before: u64,
    /// When one CQE becomes enough.
    patient_until: Option<u64>,
    deadline: Option<u64>,
    /// For the earlier of the two.
    alarm: Deadline,
    mask: TemporaryMask,
}

impl Wait {
    fn new(state: &RingState, wanted: u32, extra: &Extra, mask: TemporaryMask) -> Self {
        // Patience comes first, also where it outlasts the deadline.
        let alarm = extra.patient_until.or(extra.deadline);
        Self {
            wanted,
            fired_before: state.timeouts_fired.load(Ordering::Relaxed),
            patient_until: extra.patient_until,
            deadline: extra.deadline,
            alarm: Deadline::new(alarm),
            mask,
        }
    }

    fn poll(&mut self, ring: &Ring, context: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            {
                let _attention = Attention::new(ring.ready());
                if self.is_over(ring) || self.poll_devices(ring) {
                    return Poll::Ready(Ok(()));
                }
                ring.ready().add_waiter(context.waker());
                if self.is_over(ring) {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.alarm.poll(context).is_pending() {
                return Poll::Pending;
            }
            match (self.patient_until.take(), self.deadline) {
                (Some(patient_until), Some(deadline)) if patient_until < deadline => {
                    self.wanted = self.wanted.min(1);
                    self.alarm = Deadline::new(Some(deadline));
                }
                // Without a later deadline the end of patience is the end.
                _ => {
                    return Poll::Ready(match ring.lock().reap() {
                        0 => Err(Errno::ETIME),
                        _ => Ok(()),
                    });
                }
            }
        }
    }

    /// Whether there is what it waits for.
    fn is_over(&self, ring: &Ring) -> bool {
        let mut state = ring.lock();
        state.reap() >= self.wanted
            || state.timeouts_fired.load(Ordering::Relaxed) != self.fired_before
    }

    /// Looks at the devices for a moment; true if the wait is over.
    fn poll_devices(&self, ring: &Ring) -> bool {
        for _ in 0..POLLS_BEFORE_WAITING {
            if executor::poll_devices() && self.is_over(ring) {
                return true;
            }
            if executor::has_ready() {
                break;
            }
        }
        false
    }
}
