//! System calls about timers that send signals.

use super::path::Done;
use super::{Args, actor};
use crate::error::Result;
use crate::operation::{
    DeleteTimer, GetIntervalTimer, GetTimer, GetTimerOverrun, MakeTimer, SetAlarm,
    SetIntervalTimer, SetTimer,
};
use crate::process::Thread;

pub(super) fn getitimer(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetIntervalTimer {
        which: args.uint(0),
        setting_at: args.get(1),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn setitimer(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SetIntervalTimer {
        which: args.uint(0),
        setting_at: args.get(1),
        before_at: args.get(2),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn alarm(thread: &mut Thread, args: Args) -> Result<u64> {
    let seconds = args.uint(0);
    Ok(SetAlarm { seconds }.run(actor(thread)))
}

pub(super) fn timer_create(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = MakeTimer {
        clock: args.int(0),
        event_at: args.get(1),
        id_at: args.get(2),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn timer_settime(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SetTimer {
        id: args.int(0),
        flags: args.uint(1),
        setting_at: args.get(2),
        before_at: args.get(3),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn timer_gettime(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetTimer {
        id: args.int(0),
        setting_at: args.get(1),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn timer_getoverrun(thread: &mut Thread, args: Args) -> Result<u64> {
    let id = args.int(0);
    let overrun = GetTimerOverrun { id }.run(actor(thread))?;
    Ok(overrun as u64)
}

pub(super) fn timer_delete(thread: &mut Thread, args: Args) -> Result<u64> {
    let id = args.int(0);
    DeleteTimer { id }.run(actor(thread)).done()
}
