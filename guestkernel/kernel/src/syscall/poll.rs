//! System calls that wait for files to become ready: `poll(2)` and `select(2)`.

use super::Args;
use super::signal::{check_set_size, read_set};
use super::time::{deadline_after, read_timespec};
use crate::error::{Errno, Result};
use crate::executor::sleep_until;
use crate::fs::{OpenFile, Readiness};
use crate::heap;
use crate::mm::AddressSpace;
use crate::process::{Restart, SignalSet, Thread};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll};
use linux_raw_sys::general as raw;
use machine::clock;

/// Nanoseconds in a millisecond and a microsecond.
const MILLISECOND: u64 = 1_000_000;
const MICROSECOND: u64 = 1_000;

/// A file to wait for.
struct Watched {
    /// `None` for a descriptor that is not looked at.
    file: Option<Result<Arc<OpenFile>>>,
    interest: Readiness,
    ready: Readiness,
}

impl Watched {
    fn new(thread: &Thread, fd: i32, interest: Readiness) -> Self {
        Self {
            file: (fd >= 0).then(|| thread.process.files.get(fd)),
            interest,
            ready: Readiness::empty(),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        self.ready = match &self.file {
            None => Readiness::empty(),
            Some(Err(_)) => Readiness::INVALID,
            Some(Ok(file)) => {
                let wanted = self.interest | Readiness::ALWAYS;
                file.ops.poll_ready(self.interest, context) & wanted
            }
        };
        !self.ready.is_empty()
    }
}

/// Waits until one of the files is ready, until `deadline`, or until a signal comes, which goes before
/// the deadline.
async fn wait(thread: &Thread, watched: &mut [Watched], deadline: Option<u64>) -> Result<()> {
    let mut timeout = pin!(sleep_until(deadline.unwrap_or(u64::MAX)));
    let ready = poll_fn(|context| {
        let mut is_ready = false;
        for watched in watched.iter_mut() {
            is_ready |= watched.poll(context);
        }
        let is_over = match deadline {
            Some(_) => timeout.as_mut().poll(context).is_ready(),
            None => false,
        };
        match (is_ready, is_over) {
            (true, _) => Poll::Ready(true),
            (false, true) => Poll::Ready(false),
            (false, false) => Poll::Pending,
        }
    });
    match thread.until_signal(ready).await {
        Ok(true) => Ok(()),
        Ok(false) if thread.state.attention().is_empty() => Ok(()),
        _ => Err(Errno::ERESTARTNOHAND),
    }
}

/// Does `waiting` with the signals of the set at `address` blocked in place of the thread's own. A
/// signal that ends it is handled before those are blocked again.
async fn with_signal_set(
    thread: &Thread,
    (address, size): (u64, usize),
    waiting: impl Future<Output = Result<u64>>,
) -> Result<u64> {
    if address == 0 {
        return waiting.await;
    }
    check_set_size(size)?;
    let set: SignalSet = read_set(thread, address)?;
    let process = &thread.process;
    process.set_blocked_temporarily(thread.tid, set);
    let result = waiting.await;
    if result != Err(Errno::ERESTARTNOHAND) {
        process.restore_blocked(thread.tid);
    }
    result
}

/// Room for `count` files to wait for.
fn watched(count: usize) -> Result<Vec<Watched>> {
    let mut watched = Vec::new();
    heap::check(count * size_of::<Watched>())?;
    watched
        .try_reserve_exact(count)
        .map_err(|_| Errno::ENOMEM)?;
    Ok(watched)
}

/// Does `poll` with the array of `struct pollfd` at `address`.
async fn poll_files(
    thread: &Thread,
    address: u64,
    count: u32,
    deadline: Option<u64>,
) -> Result<u64> {
    const SIZE: u64 = size_of::<raw::pollfd>() as u64;
    if count > thread.process.files.limit() {
        return Err(Errno::EINVAL);
    }
    let space = &thread.process.space;
    let entry = |index: usize| address.wrapping_add(index as u64 * SIZE);
    let mut watched = watched(count as usize)?;
    for index in 0..count as usize {
        let entry: raw::pollfd = space.read_value(entry(index))?;
        let interest = Readiness::from_bits_truncate(u32::from(entry.events as u16));
        watched.push(Watched::new(thread, entry.fd, interest));
    }
    wait(thread, &mut watched, deadline).await?;
    let mut ready = 0;
    for (index, watched) in watched.iter().enumerate() {
        // Only `revents` is stored.
        let revents = watched.ready.bits() as u16;
        space.write_value(entry(index).wrapping_add(6), &revents)?;
        ready += u64::from(revents != 0);
    }
    Ok(ready)
}

pub(super) async fn poll(thread: &mut Thread, args: Args) -> Result<u64> {
    let deadline = match args.int(2) {
        milliseconds @ 0.. => Some(deadline_after(milliseconds as u64 * MILLISECOND)),
        _ => None,
    };
    poll_until(thread, (args.get(0), args.uint(1)), deadline).await
}

/// Does `poll`, which goes on where it was when a signal without a handler interrupts it.
pub(super) async fn poll_until(
    thread: &mut Thread,
    files: (u64, u32),
    deadline: Option<u64>,
) -> Result<u64> {
    match poll_files(thread, files.0, files.1, deadline).await {
        Err(Errno::ERESTARTNOHAND) => {
            thread.restart = Some(Restart::Poll { files, deadline });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        result => result,
    }
}

/// The deadline that the timeout at `address` gives, if there is one.
fn read_deadline(space: &AddressSpace, address: u64) -> Result<Option<u64>> {
    match address {
        0 => Ok(None),
        address => Ok(Some(deadline_after(read_timespec(space, address)?))),
    }
}

/// Stores the time that was left until `deadline` at `address`, and gives the result of the call. As on
/// Linux, a time that cannot be stored is no error, but then the call is not made again.
async fn with_time_left(
    space: &AddressSpace,
    (address, unit): (u64, u64),
    deadline: Option<u64>,
    result: Result<u64>,
) -> Result<u64> {
    let Some(deadline) = deadline else {
        return result;
    };
    let left = deadline.saturating_sub(clock::monotonic());
    let second = 1_000_000_000;
    let parts = [left / second, left % second / unit];
    let store = |part: usize| {
        let at = address.wrapping_add(part as u64 * 8);
        space.write_value(at, &parts[part])
    };
    let stored = space.retry(|| store(0).and_then(|()| store(1))).await;
    match (stored, result) {
        (Err(_), Err(Errno::ERESTARTNOHAND)) => Err(Errno::EINTR),
        (_, result) => result,
    }
}

pub(super) async fn ppoll(thread: &mut Thread, args: Args) -> Result<u64> {
    let thread = &*thread;
    let space = &thread.process.space;
    let deadline = read_deadline(space, args.get(2))?;
    let waiting = poll_files(thread, args.get(0), args.uint(1), deadline);
    let result = with_signal_set(thread, (args.get(3), args.size(4)), waiting).await;
    with_time_left(space, (args.get(2), 1), deadline, result).await
}

/// The three sets of `select`: the events that each waits for, and those that put a descriptor in
/// it afterwards.
const SETS: [(Readiness, Readiness); 3] = [
    (
        Readiness::READABLE,
        Readiness::READABLE
            .union(Readiness::HANG_UP)
            .union(Readiness::ERROR),
    ),
    (
        Readiness::WRITABLE,
        Readiness::WRITABLE.union(Readiness::ERROR),
    ),
    (Readiness::PRIORITY, Readiness::PRIORITY),
];

async fn select_files(
    thread: &Thread,
    count: i32,
    addresses: [u64; 3],
    deadline: Option<u64>,
) -> Result<u64> {
    let count = u32::try_from(count).map_err(|_| Errno::EINVAL)?;
    let count = count.min(thread.process.files.limit()) as usize;
    let space = &thread.process.space;
    let bytes = count.div_ceil(64) * 8;
    let mut sets = [const { Vec::new() }; 3];
    for (set, address) in sets.iter_mut().zip(addresses) {
        set.resize(bytes, 0);
        if address != 0 {
            space.read(address, set)?;
        }
    }
    let has = |set: &[u8], fd: usize| set[fd / 8] & 1 << (fd % 8) != 0;
    let mut descriptors = Vec::new();
    let mut watched = watched(count)?;
    for fd in 0..count {
        let mut interest = Readiness::empty();
        for (set, (wanted, _)) in sets.iter().zip(SETS) {
            interest.set(wanted, has(set, fd));
        }
        if interest.is_empty() {
            continue;
        }
        let new = Watched::new(thread, fd as i32, interest);
        if let Some(Err(error)) = new.file {
            return Err(error);
        }
        descriptors.push(fd);
        watched.push(new);
    }
    wait(thread, &mut watched, deadline).await?;
    let mut ready = 0;
    for ((set, (wanted, shown)), address) in sets.iter_mut().zip(SETS).zip(addresses) {
        set.fill(0);
        for (fd, watched) in descriptors.iter().zip(&watched) {
            if watched.interest.contains(wanted) && watched.ready.intersects(shown) {
                set[fd / 8] |= 1 << (fd % 8);
                ready += 1;
            }
        }
        if address != 0 {
            space.write(address, set)?;
        }
    }
    Ok(ready)
}

pub(super) async fn select(thread: &mut Thread, args: Args) -> Result<u64> {
    let [_, read, write, except, timeout, _] = args.0;
    let space = &thread.process.space;
    let deadline = match timeout {
        0 => None,
        address => {
            let time: raw::timeval = space.read_value(address)?;
            let (Ok(seconds), Ok(microseconds)) =
                (u64::try_from(time.tv_sec), u64::try_from(time.tv_usec))
            else {
                return Err(Errno::EINVAL);
            };
            let time = seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(microseconds.saturating_mul(MICROSECOND));
            Some(deadline_after(time))
        }
    };
    let result = select_files(thread, args.int(0), [read, write, except], deadline).await;
    with_time_left(space, (timeout, MICROSECOND), deadline, result).await
}

pub(super) async fn pselect6(thread: &mut Thread, args: Args) -> Result<u64> {
    let [_, read, write, except, timeout, mask] = args.0;
    let thread = &*thread;
    let space = &thread.process.space;
    let deadline = read_deadline(space, timeout)?;
    let mask = match mask {
        0 => (0, 0),
        address => {
            let set: u64 = space.read_value(address)?;
            let size: u64 = space.read_value(address.wrapping_add(8))?;
            (set, size as usize)
        }
    };
    let waiting = select_files(thread, args.int(0), [read, write, except], deadline);
    let result = with_signal_set(thread, mask, waiting).await;
    with_time_left(space, (timeout, 1), deadline, result).await
}
