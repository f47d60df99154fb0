//! Waiting for files to become ready: `poll(2)` and `select(2)`.

use super::time_value::{
    MICROSECOND, MILLISECOND, SECOND, TimeValue, deadline_after, read_timespec,
};
use super::{Actor, TemporaryMask};
use crate::error::{Errno, Result};
use crate::executor::{Deadline, Stint};
use crate::fs::{OpenFile, Readiness};
use crate::heap;
use crate::mm::AddressSpace;
use crate::process::Restart;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll as Progress, Waker};
use linux_raw_sys::general as raw;
use machine::clock;
use machine::lock::Mutex;

/// Files that are looked at, and entries that are read or stored, without a look at the clock.
const AT_ONCE: usize = 256;

/// A file to wait for.
struct Watched {
    /// `None` for a descriptor that is not looked at.
    file: Option<Result<Arc<OpenFile>>>,
    interest: Readiness,
    ready: Readiness,
}

impl Watched {
    fn new(actor: Actor<'_>, fd: i32, interest: Readiness) -> Self {
        Self {
            file: (fd >= 0).then(|| actor.process.files.get(fd)),
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

/// What the files of a set wake that takes longer to look through than anything may keep a CPU: it
/// tells a file that became ready behind the look from the task's own going on.
struct SetWaker {
    has_woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for SetWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_woken.store(true, Ordering::Release);
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// A look at the files of a set, one after the other.
struct Look<'a> {
    watched: &'a mut [Watched],
    next: usize,
    has_ready: bool,
    /// For a set that is large.
    waker: Option<(Arc<SetWaker>, Waker)>,
    stint: Stint,
}

impl<'a> Look<'a> {
    fn new(watched: &'a mut [Watched]) -> Self {
        let waker = (watched.len() > AT_ONCE).then(|| {
            let waker = Arc::new(SetWaker {
                has_woken: AtomicBool::new(false),
                task: Mutex::new(None),
            });
            (waker.clone(), Waker::from(waker))
        });
        Self {
            watched,
            next: 0,
            has_ready: false,
            waker,
            stint: Stint::default(),
        }
    }

    /// Whether any file is ready, once all were looked at; if none is, those wake the task.
    fn poll(&mut self, context: &mut Context<'_>) -> Progress<bool> {
        let Self {
            watched,
            next,
            has_ready,
            waker,
            stint,
        } = self;
        let Some((shared, own)) = waker else {
            let mut is_ready = false;
            for watched in watched.iter_mut() {
                is_ready |= watched.poll(context);
            }
            return Progress::Ready(is_ready);
        };
        *shared.task.lock() = Some(context.waker().clone());
        let mut own = Context::from_waker(own);
        loop {
            if *next == 0 {
                *has_ready = false;
                shared.has_woken.store(false, Ordering::Release);
            }
            for chunk in watched[*next..].chunks_mut(AT_ONCE) {
                if *next > 0 && stint.is_over() {
                    context.waker().wake_by_ref();
                    return Progress::Pending;
                }
                for watched in chunk.iter_mut() {
                    *has_ready |= watched.poll(&mut own);
                }
                *next += chunk.len();
            }
            *next = 0;
            if *has_ready || !shared.has_woken.load(Ordering::Acquire) {
                return Progress::Ready(*has_ready);
            }
        }
    }
}

/// The files forget a waker of the set's own: the next wait has another, and nobody knows when they change.
impl Drop for Look<'_> {
    fn drop(&mut self) {
        let Some((_, own)) = &self.waker else {
            return;
        };
        let files = self
            .watched
            .iter()
            .filter_map(|watched| watched.file.as_ref());
        for file in files.flatten() {
            file.ops.forget_waker(own);
        }
    }
}

/// Waits until one of the files is ready, until `deadline`, or until a signal comes, which goes before
/// the deadline.
async fn wait(actor: Actor<'_>, watched: &mut [Watched], deadline: Option<u64>) -> Result<()> {
    let mut deadline = Deadline::new(deadline);
    let mut look = Look::new(watched);
    let ready = poll_fn(|context| match look.poll(context) {
        Progress::Ready(true) => Progress::Ready(true),
        Progress::Ready(false) => deadline.poll(context).map(|()| false),
        Progress::Pending => Progress::Pending,
    });
    match actor.until_signal(ready).await {
        Ok(true) => Ok(()),
        Ok(false) if !actor.has_to_attend() => Ok(()),
        _ => Err(Errno::ERESTARTNOHAND),
    }
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

/// The deadline that the `struct timespec` at `address` gives, if there is one.
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
    let parts = [left / SECOND, left % SECOND / unit];
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

/// The array of `struct pollfd` that `poll(2)` gets.
#[derive(Clone, Copy)]
pub struct PollSet {
    /// Where it is.
    pub address: u64,
    /// Its entries.
    pub count: u32,
}

impl PollSet {
    const ENTRY_SIZE: u64 = size_of::<raw::pollfd>() as u64;
    /// Where `revents` is in an entry.
    const READY_AT: u64 = 6;

    fn entry(self, index: usize) -> u64 {
        self.address.wrapping_add(index as u64 * Self::ENTRY_SIZE)
    }

    async fn wait(self, actor: Actor<'_>, deadline: Option<u64>) -> Result<u64> {
        if self.count > actor.process.files.limit() {
            return Err(Errno::EINVAL);
        }
        let space = actor.space();
        let mut stint = Stint::default();
        let mut watched = watched(self.count as usize)?;
        for index in 0..self.count as usize {
            if index.is_multiple_of(AT_ONCE) {
                stint.give_way().await;
            }
            let entry: raw::pollfd = space.read_value(self.entry(index))?;
            let interest = Readiness::from_bits_truncate(u32::from(entry.events as u16));
            watched.push(Watched::new(actor, entry.fd, interest));
        }
        wait(actor, &mut watched, deadline).await?;
        let mut ready = 0;
        for (index, watched) in watched.iter().enumerate() {
            if index.is_multiple_of(AT_ONCE) {
                stint.give_way().await;
            }
            // Only `revents` is stored.
            let revents = watched.ready.bits() as u16;
            let at = self.entry(index).wrapping_add(Self::READY_AT);
            space.write_value(at, &revents)?;
            ready += u64::from(revents != 0);
        }
        Ok(ready)
    }
}

/// `poll(2)`.
pub struct Poll {
    /// The files.
    pub set: PollSet,
    /// The monotonic time at which the wait ends.
    pub deadline: Option<u64>,
}

impl Poll {
    /// A wait of so many milliseconds, or, if they are negative, for ever.
    pub fn new(set: PollSet, milliseconds: i32) -> Self {
        let time = u64::try_from(milliseconds).ok();
        Self {
            set,
            deadline: time.map(|time| deadline_after(time * MILLISECOND)),
        }
    }

    /// Waits, and goes on where it was when a signal without a handler interrupts it; gives how
    /// many entries have something to tell.
    ///
    /// # Errors
    ///
    /// Those of `poll(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        match self.set.wait(actor, self.deadline).await {
            Err(Errno::ERESTARTNOHAND) => Err(actor.interrupted(Restart::Poll {
                files: (self.set.address, self.set.count),
                deadline: self.deadline,
            })),
            result => result,
        }
    }
}

/// `ppoll(2)`.
pub struct PollWithMask {
    /// The files.
    pub set: PollSet,
    /// Where the `struct timespec` is; 0 for none.
    pub time_at: u64,
    /// Where the signal set is, and its size; 0 for none.
    pub mask: (u64, u64),
}

impl PollWithMask {
    /// Waits; gives how many entries have something to tell.
    ///
    /// # Errors
    ///
    /// Those of `ppoll(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let space = actor.space();
        let deadline = read_deadline(space, self.time_at)?;
        let result = match TemporaryMask::read(space, self.mask.0, self.mask.1) {
            Ok(mask) => mask.during(actor, self.set.wait(actor, deadline)).await,
            Err(error) => return Err(error),
        };
        with_time_left(space, (self.time_at, 1), deadline, result).await
    }
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

/// The sets of descriptors that `select(2)` gets.
#[derive(Clone, Copy)]
pub struct SelectSets {
    /// One more than the highest descriptor.
    pub count: i32,
    /// Where those are that are to be read, written, and watched for exceptions; 0 for none.
    pub sets_at: [u64; 3],
}

impl SelectSets {
    async fn wait(self, actor: Actor<'_>, deadline: Option<u64>) -> Result<u64> {
        let count = u32::try_from(self.count).map_err(|_| Errno::EINVAL)?;
        let count = count.min(actor.process.files.limit()) as usize;
        let space = actor.space();
        let bytes = count.div_ceil(64) * 8;
        let mut sets = [const { Vec::new() }; 3];
        for (set, address) in sets.iter_mut().zip(self.sets_at) {
            set.resize(bytes, 0);
            if address != 0 {
                space.read(address, set)?;
            }
        }
        let has = |set: &[u8], fd: usize| set[fd / 8] & 1 << (fd % 8) != 0;
        let mut stint = Stint::default();
        let mut descriptors = Vec::new();
        let mut watched = watched(count)?;
        for fd in 0..count {
            if fd.is_multiple_of(AT_ONCE) {
                stint.give_way().await;
            }
            let mut interest = Readiness::empty();
            for (set, (wanted, _)) in sets.iter().zip(SETS) {
                interest.set(wanted, has(set, fd));
            }
            if interest.is_empty() {
                continue;
            }
            let new = Watched::new(actor, fd as i32, interest);
            if let Some(Err(error)) = new.file {
                return Err(error);
            }
            descriptors.push(fd);
            watched.push(new);
        }
        wait(actor, &mut watched, deadline).await?;
        let mut ready = 0;
        for ((set, (wanted, shown)), address) in sets.iter_mut().zip(SETS).zip(self.sets_at) {
            set.fill(0);
            for (index, (fd, watched)) in descriptors.iter().zip(&watched).enumerate() {
                if index.is_multiple_of(AT_ONCE) {
                    stint.give_way().await;
                }
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
}

/// `select(2)`.
pub struct Select {
    /// The files.
    pub sets: SelectSets,
    /// Where the `struct timeval` is; 0 for none.
    pub time_at: u64,
}

impl Select {
    /// Waits; gives how many descriptors are in the sets then.
    ///
    /// # Errors
    ///
    /// Those of `select(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let space = actor.space();
        let deadline = match self.time_at {
            0 => None,
            at => {
                let time = TimeValue::read_timeval(space, at)?.carried();
                Some(deadline_after(time.nanoseconds()?))
            }
        };
        let result = self.sets.wait(actor, deadline).await;
        with_time_left(space, (self.time_at, MICROSECOND), deadline, result).await
    }
}

/// `pselect(2)`.
pub struct SelectWithMask {
    /// The files.
    pub sets: SelectSets,
    /// Where the `struct timespec` is; 0 for none.
    pub time_at: u64,
    /// Where the address of a signal set is, and its size; 0 for none.
    pub mask_at: u64,
}

impl SelectWithMask {
    /// Waits; gives how many descriptors are in the sets then.
    ///
    /// # Errors
    ///
    /// Those of `pselect(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let space = actor.space();
        let (set, size) = match self.mask_at {
            0 => (0, 0),
            at => (space.read_value(at)?, space.read_value(at.wrapping_add(8))?),
        };
        let deadline = read_deadline(space, self.time_at)?;
        let mask = TemporaryMask::read(space, set, size)?;
        let waiting = self.sets.wait(actor, deadline);
        let result = mask.during(actor, waiting).await;
        with_time_left(space, (self.time_at, 1), deadline, result).await
    }
}
