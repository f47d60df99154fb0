//! `epoll(7)`: a set of files, and which of them are ready.
//!
//! What waits for a file is an [`Interest`], which the file wakes like any task: it then queues itself
//! with its set and wakes who waits there. Whether a queued file is ready is looked at when somebody
//! asks, as on Linux; that look registers the interest with the file again, so that an edge is what
//! comes after it. A set is a file itself, and can be in others.

use super::{FileOps, OpenFile, Readiness, WaitQueue};
use crate::error::{Errno, Result};
use crate::globals::global;
use crate::heap;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use alloc::vec::Vec;
use bitflags::bitflags;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use linux_raw_sys::general as raw;
use machine::lock::Mutex;

/// Files that are looked at, at most, before others have their turn.
const AT_ONCE: usize = 1024;

/// Sets in sets in sets, at most.
const NESTING_MAX: usize = 5;

bitflags! {
    /// How a set watches a file (`epoll_ctl(2)`), besides for which events.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct WatchFlags: u32 {
        /// Each change is told once.
        const EDGE = raw::EPOLLET;
        /// After one event the file is not watched until it is changed.
        const ONCE = raw::EPOLLONESHOT;
        /// The machine must not sleep, which it never does.
        const WAKE_UP = raw::EPOLLWAKEUP;
        /// One waiter of many need be woken; all are.
        const EXCLUSIVE = raw::EPOLLEXCLUSIVE;
    }
}

/// What a program wants to know of a file, and what it calls that (`struct epoll_event`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// The events.
    pub interest: Readiness,
    /// How.
    pub flags: WatchFlags,
    /// Comes with each event.
    pub data: u64,
}

/// An event of a file in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the file is ready for, of what was asked.
    pub ready: Readiness,
    /// What was given with it.
    pub data: u64,
}

/// A file in a set is known by its descriptor and its description.
type Key = (i32, usize);

fn key(fd: i32, file: &Arc<OpenFile>) -> Key {
    (fd, Arc::as_ptr(file) as usize)
}

/// A set of files to wait for.
pub struct Epoll {
    interests: Mutex<BTreeMap<Key, Arc<Interest>>>,
    /// Those that were woken since somebody looked at them last, or are ready still. It has room for
    /// all there are: a wake allocates nothing.
    queued: Mutex<VecDeque<Arc<Interest>>>,
    /// Threads in `epoll_wait(2)`.
    waiting: WaitQueue,
    /// Whoever waits for the set as a file.
    changes: WaitQueue,
    /// The sets that this one is in. It changes under [`NESTING`] only.
    outer: Mutex<Vec<Weak<Epoll>>>,
}

/// A file in a set. The file wakes it.
struct Interest {
    set: Weak<Epoll>,
    fd: i32,
    file: Weak<OpenFile>,
    watch: Mutex<Watch>,
    is_queued: AtomicBool,
}

impl Wake for Interest {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(set) = self.set.upgrade() {
            set.queue(self);
            set.waiting.wake_all();
            set.changes.wake_all();
        }
    }
}

impl Interest {
    /// Always made here, so that two for the same interest are known to be the same.
    fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }

    /// What the file is ready for, of what is wanted. It wakes the interest at the next change.
    fn poll(self: &Arc<Self>) -> Option<Event> {
        let watch = *self.watch.lock();
        if watch.interest.is_empty() {
            return None;
        }
        let file = self.file.upgrade()?;
        let waker = self.waker();
        let mut context = Context::from_waker(&waker);
        let ready = file.ops.poll_ready(watch.interest, &mut context);
        let ready = ready & (watch.interest | Readiness::ALWAYS);
        (!ready.is_empty()).then_some(Event {
            ready,
            data: watch.data,
        })
    }

    /// The file need not wake it any more.
    fn leave(self: &Arc<Self>) {
        if let Some(file) = self.file.upgrade() {
            file.ops.forget_waker(&self.waker());
        }
    }
}

global! {
    /// Held while sets come into sets: no two may make a loop together.
    static NESTING: Mutex<()> = Mutex::new(());
}

impl Epoll {
    /// An empty set.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            interests: Mutex::new(BTreeMap::new()),
            queued: Mutex::new(VecDeque::new()),
            waiting: WaitQueue::new(),
            changes: WaitQueue::new(),
            outer: Mutex::new(Vec::new()),
        })
    }

    /// The set that `file` stands for, if it is one.
    pub fn of(file: &OpenFile) -> Option<Arc<Self>> {
        let ops: Arc<dyn Any + Send + Sync> = file.ops.clone();
        ops.downcast::<Self>().ok()
    }

    /// Watches `file`, which is called `fd`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it is watched under that name, `ELOOP` for sets in each other or too deep in each
    /// other, `ENOMEM`.
    pub fn add(self: &Arc<Self>, fd: i32, file: &Arc<OpenFile>, watch: Watch) -> Result<()> {
        let inner = Self::of(file);
        let _nesting = inner.as_ref().map(|_| NESTING.lock());
        if let Some(inner) = &inner {
            self.check_nesting(inner)?;
        }
        let interest = {
            let mut interests = self.interests.lock();
            if interests.contains_key(&key(fd, file)) {
                return Err(Errno::EEXIST);
            }
            heap::check(size_of::<Interest>() + size_of::<(Key, Arc<Interest>)>())?;
            let count = interests.len() + 1;
            let mut queued = self.queued.lock();
            let room = count.saturating_sub(queued.len());
            queued.try_reserve(room).map_err(|_| Errno::ENOMEM)?;
            drop(queued);
            let interest = Arc::new(Interest {
                set: Arc::downgrade(self),
                fd,
                file: Arc::downgrade(file),
                watch: Mutex::new(watch),
                is_queued: AtomicBool::new(false),
            });
            interests.insert(key(fd, file), interest.clone());
            interest
        };
        if let Some(inner) = &inner {
            inner.outer.lock().push(Arc::downgrade(self));
        }
        self.look_at(&interest);
        Ok(())
    }

    /// Watches a file for something else.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is not watched, `EINVAL` if it is watched exclusively.
    pub fn change(&self, fd: i32, file: &Arc<OpenFile>, watch: Watch) -> Result<()> {
        let interest = {
            let interests = self.interests.lock();
            let interest = interests.get(&key(fd, file)).ok_or(Errno::ENOENT)?;
            let mut current = interest.watch.lock();
            if current.flags.contains(WatchFlags::EXCLUSIVE) {
                return Err(Errno::EINVAL);
            }
            *current = watch;
            drop(current);
            interest.clone()
        };
        // The file knows it with what was wanted before.
        interest.leave();
        self.look_at(&interest);
        Ok(())
    }

    /// Watches a file no more.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is not watched.
    pub fn remove(&self, fd: i32, file: &Arc<OpenFile>) -> Result<()> {
        let removed = self.interests.lock().remove(&key(fd, file));
        let interest = removed.ok_or(Errno::ENOENT)?;
        if let Some(inner) = Self::of(file) {
            let _nesting = NESTING.lock();
            inner.leave(self);
        }
        *interest.watch.lock() = Watch::default();
        interest.leave();
        if interest.is_queued.load(Ordering::Acquire) {
            let mut queued = self.queued.lock();
            queued.retain(|other| !Arc::ptr_eq(other, &interest));
        }
        Ok(())
    }

    /// Takes at most `most` events, each by `sink`; gives how many. Files that are ready still stay
    /// queued, unless only edges are asked for. None need not mean that there are none: where many
    /// files are queued, some are looked at in one go.
    ///
    /// # Errors
    ///
    /// That of `sink` for the first event; after that it is not looked at, and the event stays.
    pub fn take(&self, most: usize, sink: &mut dyn FnMut(Event) -> Result<()>) -> Result<usize> {
        let mut taken = 0;
        let mut left = self.queued.lock().len().min(AT_ONCE);
        while taken < most && left > 0 {
            left -= 1;
            let Some(interest) = self.unqueue() else {
                break;
            };
            let Some(event) = interest.poll() else {
                self.bury(&interest);
                continue;
            };
            if let Err(error) = sink(event) {
                self.queue_first(interest);
                return match taken {
                    0 => Err(error),
                    _ => Ok(taken),
                };
            }
            taken += 1;
            let flags = {
                let mut watch = interest.watch.lock();
                if watch.flags.contains(WatchFlags::ONCE) {
                    watch.interest = Readiness::empty();
                }
                watch.flags
            };
            if !flags.intersects(WatchFlags::EDGE | WatchFlags::ONCE) {
                self.queue(&interest);
            }
        }
        // Who came while the queue was empty here must look again.
        if !self.queued.lock().is_empty() {
            self.waiting.wake_all();
        }
        Ok(taken)
    }

    /// Whether files are queued: one may be ready. If none is, the task of `context` is woken when some
    /// are.
    pub fn poll_queued(&self, context: &mut Context<'_>) -> Poll<()> {
        self.waiting.register(context.waker());
        match self.queued.lock().is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    /// The task that `waker` wakes waits no more.
    pub fn forget_waiter(&self, waker: &Waker) {
        self.waiting.forget(waker);
    }

    fn queue(&self, interest: &Arc<Interest>) {
        if !interest.is_queued.swap(true, Ordering::AcqRel) {
            self.queued.lock().push_back(interest.clone());
        }
    }

    fn queue_first(&self, interest: Arc<Interest>) {
        if !interest.is_queued.swap(true, Ordering::AcqRel) {
            self.queued.lock().push_front(interest);
        }
    }

    fn unqueue(&self) -> Option<Arc<Interest>> {
        let interest = self.queued.lock().pop_front()?;
        // Before it is looked at: a change from now on queues it again.
        interest.is_queued.store(false, Ordering::Release);
        Some(interest)
    }

    /// Queues `interest` if its file is ready, and tells who waits.
    fn look_at(&self, interest: &Arc<Interest>) {
        if interest.poll().is_some() {
            self.queue(interest);
            self.waiting.wake_all();
            self.changes.wake_all();
        }
    }

    /// Forgets `interest` if its file is closed.
    fn bury(&self, interest: &Arc<Interest>) {
        if interest.file.strong_count() == 0 {
            let key = (interest.fd, interest.file.as_ptr() as usize);
            self.interests.lock().remove(&key);
        }
    }

    /// The sets that are watched here.
    fn inner(&self) -> Vec<Arc<Self>> {
        let interests = self.interests.lock();
        let interests = interests.values();
        let files = interests.filter_map(|interest| interest.file.upgrade());
        files.filter_map(|file| Self::of(&file)).collect()
    }

    /// The sets that this one is in, each once.
    fn outer(&self) -> Vec<Arc<Self>> {
        let mut outer = self.outer.lock();
        outer.retain(|set| set.strong_count() > 0);
        outer.iter().filter_map(Weak::upgrade).collect()
    }

    /// It is no more in `outer`, once.
    fn leave(&self, outer: &Self) {
        let mut all = self.outer.lock();
        let place = all
            .iter()
            .position(|set| core::ptr::eq(set.as_ptr(), outer));
        place.map(|place| all.swap_remove(place));
    }

    /// Whether `inner` may come into this set.
    fn check_nesting(self: &Arc<Self>, inner: &Arc<Self>) -> Result<()> {
        let below = inner.levels(Self::inner, self, NESTING_MAX);
        let above = self.levels(Self::outer, inner, NESTING_MAX);
        match (above, below) {
            (Some(above), Some(below)) if above + below <= NESTING_MAX => Ok(()),
            _ => Err(Errno::ELOOP),
        }
    }

    /// How many levels of sets there are from this one on, itself included; `None` for more than
    /// `most`, or if `other` is among them.
    fn levels(
        self: &Arc<Self>,
        next: fn(&Self) -> Vec<Arc<Self>>,
        other: &Arc<Self>,
        most: usize,
    ) -> Option<usize> {
        let left = most.checked_sub(1)?;
        if Arc::ptr_eq(self, other) {
            return None;
        }
        let mut levels = 0;
        for set in next(self) {
            levels = levels.max(set.levels(next, other, left)?);
        }
        Some(levels + 1)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for interest in self.interests.get_mut().values() {
            interest.leave();
        }
    }
}

impl FileOps for Epoll {
    fn kind(&self) -> &'static str {
        "eventpoll"
    }

    fn stays_at_start(&self) -> bool {
        true
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness {
        let heard = Readiness::heard(interest);
        self.changes.register_for(context.waker(), heard);
        let mut left = AT_ONCE;
        while let Some(interest) = self.unqueue() {
            if interest.poll().is_some() {
                self.queue_first(interest);
                return Readiness::READABLE;
            }
            self.bury(&interest);
            left -= 1;
            if left == 0 {
                context.waker().wake_by_ref();
                break;
            }
        }
        Readiness::empty()
    }

    fn forget_waker(&self, waker: &Waker) {
        self.changes.forget(waker);
    }
}
