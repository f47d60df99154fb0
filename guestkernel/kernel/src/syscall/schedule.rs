//! System calls about scheduling: which CPUs a thread may use, and how it shares them.

use super::Args;
use crate::error::{Errno, Result};
use crate::executor;
use crate::executor::all_cpus;
use crate::process::{Thread, ThreadState, thread_with};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as raw;

/// Real-time priorities.
const PRIORITY_MAX: u64 = 99;
/// Bytes of a set of CPUs: there are 64 at most.
const SET_SIZE: usize = 8;

pub(super) async fn sched_yield(_: &mut Thread, _: Args) -> Result<u64> {
    executor::poll_devices();
    executor::yield_now().await;
    Ok(0)
}

pub(super) fn sched_getaffinity(thread: &mut Thread, args: Args) -> Result<u64> {
    let length = args.size(1);
    let cpus = machine::cpu_count() as usize;
    if length.saturating_mul(8) < cpus || !length.is_multiple_of(SET_SIZE) {
        return Err(Errno::EINVAL);
    }
    let target = thread_meant(thread, args.int(0))?;
    let set = target.affinity.load(Ordering::Relaxed);
    thread.process.space.write_value(args.get(2), &set)?;
    Ok(SET_SIZE as u64)
}

pub(super) fn sched_setaffinity(thread: &mut Thread, args: Args) -> Result<u64> {
    let mut set = [0; SET_SIZE];
    let length = args.size(1).min(SET_SIZE);
    thread.process.space.read(args.get(2), &mut set[..length])?;
    let target = thread_meant(thread, args.int(0))?;
    match u64::from_le_bytes(set) & all_cpus() {
        0 => Err(Errno::EINVAL),
        set => {
            target.affinity.store(set, Ordering::Relaxed);
            // This thread itself goes elsewhere, if need be, before its program goes on.
            target.interrupt();
            Ok(0)
        }
    }
}

pub(super) fn getcpu(thread: &mut Thread, args: Args) -> Result<u64> {
    // The CPU, and the memory node, of which there is one.
    for (address, value) in [(args.get(0), machine::current_cpu()), (args.get(1), 0)] {
        if address != 0 {
            thread.process.space.write_value(address, &value)?;
        }
    }
    Ok(0)
}

/// Every thread is `SCHED_OTHER`, the policy with no priorities.
pub(super) fn sched_getscheduler(thread: &mut Thread, args: Args) -> Result<u64> {
    check_scheduled(thread, args)?;
    Ok(raw::SCHED_NORMAL.into())
}

pub(super) fn sched_getparam(thread: &mut Thread, args: Args) -> Result<u64> {
    check_scheduled(thread, args)?;
    if args.get(1) == 0 {
        return Err(Errno::EINVAL);
    }
    thread.process.space.write_value(args.get(1), &0_i32)?;
    Ok(0)
}

pub(super) fn sched_setparam(thread: &mut Thread, args: Args) -> Result<u64> {
    check_scheduled(thread, args)?;
    set_policy(thread, raw::SCHED_NORMAL, args.get(1))
}

pub(super) fn sched_setscheduler(thread: &mut Thread, args: Args) -> Result<u64> {
    check_scheduled(thread, args)?;
    let policy = args.uint(1) & !raw::SCHED_RESET_ON_FORK;
    set_policy(thread, policy, args.get(2))
}

/// Real-time policies are refused: there is nothing that they could come before.
fn set_policy(thread: &Thread, policy: u32, parameter: u64) -> Result<u64> {
    if parameter == 0 {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = thread.process.space.read_value(parameter)?;
    match (policy, priority) {
        (raw::SCHED_NORMAL | raw::SCHED_BATCH | raw::SCHED_IDLE, 0) => Ok(0),
        (raw::SCHED_FIFO | raw::SCHED_RR, 1..=99) => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

fn check_scheduled(thread: &Thread, args: Args) -> Result<()> {
    if args.int(0) < 0 {
        return Err(Errno::EINVAL);
    }
    thread_meant(thread, args.int(0)).map(|_| ())
}

/// The thread that a number means: 0 is the caller.
fn thread_meant(thread: &Thread, tid: i32) -> Result<Arc<ThreadState>> {
    match tid {
        0 => Ok(thread.state.clone()),
        tid => Ok(thread_with(tid)?.1),
    }
}

pub(super) fn sched_get_priority_max(_: &mut Thread, args: Args) -> Result<u64> {
    match args.uint(0) {
        raw::SCHED_FIFO | raw::SCHED_RR => Ok(PRIORITY_MAX),
        raw::SCHED_NORMAL | raw::SCHED_BATCH | raw::SCHED_IDLE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn sched_get_priority_min(_: &mut Thread, args: Args) -> Result<u64> {
    match args.uint(0) {
        raw::SCHED_FIFO | raw::SCHED_RR => Ok(1),
        raw::SCHED_NORMAL | raw::SCHED_BATCH | raw::SCHED_IDLE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}
