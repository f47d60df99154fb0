//! System calls about sets of files to wait for, and timers that are files.

use super::{Args, actor};
use crate::error::{Errno, Result};
use crate::operation::{
    ControlEpoll, EpollTimeout, FileRef, GetTimerFd, MakeEpoll, MakeTimerFd, SetTimerFd,
    TemporaryMask, WaitEpoll, WantedEvent,
};
use crate::process::Thread;

pub(super) fn epoll_create(thread: &mut Thread, args: Args) -> Result<u64> {
    // The size was a hint once.
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    let operation = MakeEpoll { flags: 0 };
    operation.install(actor(thread)).map(|fd| fd as u64)
}

pub(super) fn epoll_create1(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = MakeEpoll {
        flags: args.uint(0),
    };
    operation.install(actor(thread)).map(|fd| fd as u64)
}

pub(super) fn epoll_ctl(thread: &mut Thread, args: Args) -> Result<u64> {
    let actor = actor(thread);
    let operation = ControlEpoll {
        set: FileRef::Descriptor(args.int(0)),
        operation: args.uint(1),
        fd: args.int(2),
        event: WantedEvent::read(actor.space(), args.uint(1), args.get(3))?,
    };
    operation.run(actor).map(|()| 0)
}

fn wait(args: Args, timeout: EpollTimeout) -> WaitEpoll {
    WaitEpoll {
        set: FileRef::Descriptor(args.int(0)),
        events_at: args.get(1),
        most: args.int(2),
        timeout,
    }
}

pub(super) async fn epoll_wait(thread: &mut Thread, args: Args) -> Result<u64> {
    let timeout = EpollTimeout::milliseconds(args.int(3));
    wait(args, timeout).run(actor(thread)).await
}

pub(super) async fn epoll_pwait(thread: &mut Thread, args: Args) -> Result<u64> {
    let actor = actor(thread);
    let timeout = EpollTimeout::milliseconds(args.int(3));
    let mask = TemporaryMask::read(actor.space(), args.get(4), args.get(5))?;
    wait(args, timeout).run_masked(actor, mask).await
}

pub(super) async fn epoll_pwait2(thread: &mut Thread, args: Args) -> Result<u64> {
    let actor = actor(thread);
    let timeout = EpollTimeout::read(actor.space(), args.get(3))?;
    let mask = TemporaryMask::read(actor.space(), args.get(4), args.get(5))?;
    wait(args, timeout).run_masked(actor, mask).await
}

pub(super) fn timerfd_create(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = MakeTimerFd {
        clock: args.uint(0),
        flags: args.uint(1),
    };
    operation.install(actor(thread)).map(|fd| fd as u64)
}

pub(super) fn timerfd_settime(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SetTimerFd {
        file: FileRef::Descriptor(args.int(0)),
        flags: args.uint(1),
        setting_at: args.get(2),
        before_at: args.get(3),
    };
    operation.run(actor(thread)).map(|()| 0)
}

pub(super) fn timerfd_gettime(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetTimerFd {
        file: FileRef::Descriptor(args.int(0)),
        setting_at: args.get(1),
    };
    operation.run(actor(thread)).map(|()| 0)
}
