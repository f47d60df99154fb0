//! System calls about time: clocks, sleeping, accounting.

use super::path::Done;
use super::{Args, actor};
use crate::error::Result;
use crate::operation::{
    GetResolution, GetSeconds, GetTime, GetTimeOfDay, GetTimes, GetUsage, SetTime, SetTimeOfDay,
    Sleep, SleepOnClock,
};
use crate::process::Thread;

pub(super) fn clock_gettime(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetTime {
        clock: args.int(0),
        time_at: args.get(1),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn clock_getres(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetResolution {
        clock: args.int(0),
        resolution_at: args.get(1),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn clock_settime(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SetTime {
        clock: args.int(0),
        time_at: args.get(1),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn settimeofday(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SetTimeOfDay {
        time_at: args.get(0),
        zone_at: args.get(1),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn gettimeofday(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetTimeOfDay {
        time_at: args.get(0),
        zone_at: args.get(1),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn time(thread: &mut Thread, args: Args) -> Result<u64> {
    let time_at = args.get(0);
    GetSeconds { time_at }.run(actor(thread))
}

pub(super) async fn nanosleep(thread: &mut Thread, args: Args) -> Result<u64> {
    let actor = actor(thread);
    let sleep = Sleep::read(actor, args.get(0), args.get(1))?;
    sleep.run(actor).await.done()
}

pub(super) async fn clock_nanosleep(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SleepOnClock {
        clock: args.int(0),
        flags: args.uint(1),
        time_at: args.get(2),
        remaining_at: args.get(3),
    };
    operation.run(actor(thread)).await.done()
}

pub(super) fn times(thread: &mut Thread, args: Args) -> Result<u64> {
    let times_at = args.get(0);
    GetTimes { times_at }.run(actor(thread))
}

pub(super) fn getrusage(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetUsage {
        who: args.int(0),
        usage_at: args.get(1),
    };
    operation.run(actor(thread)).done()
}
