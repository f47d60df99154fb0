//! Sets of files to wait for: `epoll(7)`.

use super::time_value::{MILLISECOND, deadline_after, read_timespec};
use super::{Actor, FileRef, TemporaryMask};
use crate::error::{Errno, Result};
use crate::executor::{Deadline, Stint};
use crate::fs::{Epoll, Event, OpenFile, OpenFlags, Readiness, Watch, WatchFlags};
use crate::mm::{AddressSpace, UserRange};
use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::{Poll as Progress, Waker};
use linux_raw_sys::general as raw;

/// Bytes of a `struct epoll_event`, which is packed on x86-64.
const EVENT_SIZE: usize = 12;
/// Where the data is in it.
const DATA: usize = 4;
/// Most events that one call takes (`EP_MAX_EVENTS`).
const EVENTS_MAX: i32 = i32::MAX / EVENT_SIZE as i32;
/// What a file that is watched exclusively can be watched for.
const EXCLUSIVE_EVENTS: u32 = raw::EPOLLIN
    | raw::EPOLLOUT
    | raw::EPOLLERR
    | raw::EPOLLHUP
    | raw::EPOLLWAKEUP
    | raw::EPOLLET
    | raw::EPOLLEXCLUSIVE;

/// `epoll_create1(2)`.
pub struct MakeEpoll {
    /// `EPOLL_CLOEXEC`, or none.
    pub flags: u32,
}

impl MakeEpoll {
    /// Makes an empty set, and gives it a descriptor.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EMFILE`.
    pub fn install(self, actor: Actor<'_>) -> Result<i32> {
        if self.flags & !raw::EPOLL_CLOEXEC != 0 {
            return Err(Errno::EINVAL);
        }
        let file = OpenFile::new(Epoll::new(), OpenFlags::READ_WRITE);
        let close_on_exec = self.flags & raw::EPOLL_CLOEXEC != 0;
        actor.process.files.insert(file, close_on_exec, 0)
    }
}

/// An event as a program gives it.
#[derive(Clone, Copy, Debug, Default)]
pub struct WantedEvent {
    events: u32,
    data: u64,
}

impl WantedEvent {
    /// The `struct epoll_event` at `address`; `EPOLL_CTL_DEL` needs none.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn read(space: &AddressSpace, operation: u32, address: u64) -> Result<Self> {
        if operation == raw::EPOLL_CTL_DEL {
            return Ok(Self::default());
        }
        Ok(Self {
            events: space.read_value(address)?,
            data: space.read_value(address.wrapping_add(DATA as u64))?,
        })
    }

    fn has(self, flag: u32) -> bool {
        self.events & flag != 0
    }

    fn watch(self) -> Watch {
        let interest = Readiness::from_bits_truncate(self.events);
        Watch {
            // What is always told needs no other wish.
            interest: interest | Readiness::ERROR | Readiness::HANG_UP,
            flags: WatchFlags::from_bits_truncate(self.events),
            data: self.data,
        }
    }
}

/// `epoll_ctl(2)`.
pub struct ControlEpoll {
    /// The set.
    pub set: FileRef,
    /// `EPOLL_CTL_*`.
    pub operation: u32,
    /// The file, which is known by this descriptor.
    pub fd: i32,
    /// What to wait for.
    pub event: WantedEvent,
}

impl ControlEpoll {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `epoll_ctl(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let set = actor.file(self.set)?;
        let file = actor.process.files.get(self.fd)?;
        if !file.ops.is_pollable() {
            return Err(Errno::EPERM);
        }
        if Arc::ptr_eq(&set, &file) {
            return Err(Errno::EINVAL);
        }
        let set = Epoll::of(&set).ok_or(Errno::EINVAL)?;
        let event = self.event;
        if self.operation != raw::EPOLL_CTL_DEL && event.has(raw::EPOLLEXCLUSIVE) {
            let is_right = self.operation == raw::EPOLL_CTL_ADD
                && Epoll::of(&file).is_none()
                && !event.has(!EXCLUSIVE_EVENTS);
            if !is_right {
                return Err(Errno::EINVAL);
            }
        }
        match self.operation {
            raw::EPOLL_CTL_ADD => set.add(self.fd, &file, event.watch()),
            raw::EPOLL_CTL_MOD => set.change(self.fd, &file, event.watch()),
            raw::EPOLL_CTL_DEL => set.remove(self.fd, &file),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// For how long `epoll_wait(2)` waits.
#[derive(Clone, Copy, Debug)]
pub struct EpollTimeout(Option<u64>);

impl EpollTimeout {
    /// So many milliseconds, or, if they are negative, for ever.
    pub fn milliseconds(milliseconds: i32) -> Self {
        let time = u64::try_from(milliseconds).ok();
        Self(time.map(|time| deadline_after(time * MILLISECOND)))
    }

    /// As the `struct timespec` at `address` says; 0 for ever.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EINVAL`.
    pub fn read(space: &AddressSpace, address: u64) -> Result<Self> {
        match address {
            0 => Ok(Self(None)),
            at => Ok(Self(Some(deadline_after(read_timespec(space, at)?)))),
        }
    }
}

/// Forgets the waiter of a set when the wait is over.
struct Waiting<'a> {
    set: &'a Epoll,
    waker: Option<Waker>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(waker) = &self.waker {
            self.set.forget_waiter(waker);
        }
    }
}

/// `epoll_wait(2)` and `epoll_pwait2(2)`.
pub struct WaitEpoll {
    /// The set.
    pub set: FileRef,
    /// Where the events go.
    pub events_at: u64,
    /// Room for so many.
    pub most: i32,
    /// For how long.
    pub timeout: EpollTimeout,
}

impl WaitEpoll {
    /// Waits until one of the files is ready; gives how many events were stored.
    ///
    /// # Errors
    ///
    /// Those of `epoll_wait(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let file = actor.file(self.set.clone())?;
        if self.most <= 0 || self.most > EVENTS_MAX {
            return Err(Errno::EINVAL);
        }
        let most = self.most as usize;
        UserRange::new(self.events_at, (most * EVENT_SIZE) as u64, usize::MAX)?;
        let set = Epoll::of(&file).ok_or(Errno::EINVAL)?;
        let space = actor.space();
        let mut deadline = Deadline::new(self.timeout.0);
        let mut stint = Stint::default();
        loop {
            stint.give_way().await;
            let taken = space.retry(|| self.take(&set, space, most)).await?;
            if taken > 0 {
                return Ok(taken as u64);
            }
            let mut waiting = Waiting {
                set: &set,
                waker: None,
            };
            let more = poll_fn(|context| {
                waiting.waker = Some(context.waker().clone());
                match set.poll_queued(context) {
                    Progress::Ready(()) => Progress::Ready(true),
                    Progress::Pending => deadline.poll(context).map(|()| false),
                }
            });
            match actor.until_signal(more).await {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(_) => return Err(Errno::EINTR),
            }
        }
    }

    /// As [`run`](Self::run), with the signals of `mask` blocked.
    ///
    /// # Errors
    ///
    /// Those of `epoll_pwait(2)`.
    pub async fn run_masked(self, actor: Actor<'_>, mask: TemporaryMask) -> Result<u64> {
        mask.during(actor, self.run(actor)).await
    }

    /// Stores what is ready.
    fn take(&self, set: &Epoll, space: &AddressSpace, most: usize) -> Result<usize> {
        let mut at = self.events_at;
        set.take(most, &mut |event: Event| {
            let mut bytes = [0; EVENT_SIZE];
            bytes[..DATA].copy_from_slice(&event.ready.bits().to_ne_bytes());
            bytes[DATA..].copy_from_slice(&event.data.to_ne_bytes());
            space.write(at, &bytes)?;
            at += EVENT_SIZE as u64;
            Ok(())
        })
    }
}
