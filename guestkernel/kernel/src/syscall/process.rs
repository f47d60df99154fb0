//! System calls about the process and who it is.

use super::{Args, actor};
use crate::error::{Errno, Result};
use crate::operation::{GetFileOfPid, OpenPid, SignalPid, Wait};
use crate::process::{
    ControlBlock, Credentials, INFO_SIZE, Ids, Limit, Thread, Waited, all, members, process_of,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::{general as raw, prctl as raw_prctl};
use machine::Plain;

/// Supplementary groups that there may be.
const GROUPS_MAX: u32 = 65536;
/// Operations of `arch_prctl(2)`.
const ARCH_SET_GS: u32 = 0x1001;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;

pub(super) fn getpid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(thread.process.pid.into())
}

pub(super) fn getppid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(thread.process.parent().into())
}

pub(super) async fn wait4(thread: &mut Thread, args: Args) -> Result<u64> {
    let wait = Wait::for_process(args.int(0), args.uint(2))?;
    let space = &thread.process.space;
    for (address, size) in [(args.get(1), 4), (args.get(3), size_of::<raw::rusage>())] {
        if address != 0 {
            space.prepare_write(address, size)?;
        }
    }
    let Some(waited) = wait.run(actor(thread)).await? else {
        return Ok(0);
    };
    if args.get(1) != 0 {
        space.write_value(args.get(1), &waited.status_word())?;
    }
    write_usage(thread, args.get(3), &waited)?;
    Ok(waited.pid.into())
}

fn write_usage(thread: &Thread, address: u64, waited: &Waited) -> Result<()> {
    if address == 0 {
        return Ok(());
    }
    let mut usage = raw::rusage::zeroed();
    usage.ru_utime.tv_sec = (waited.cpu_time / 1_000_000_000) as i64;
    usage.ru_utime.tv_usec = (waited.cpu_time % 1_000_000_000 / 1000) as i64;
    thread.process.space.write_value(address, &usage)
}

pub(super) async fn waitid(thread: &mut Thread, args: Args) -> Result<u64> {
    let wait = Wait::for_id(actor(thread), args.uint(0), args.int(1), args.uint(3))?;
    let space = &thread.process.space;
    for (address, size) in [
        (args.get(2), INFO_SIZE),
        (args.get(4), size_of::<raw::rusage>()),
    ] {
        if address != 0 {
            space.prepare_write(address, size)?;
        }
    }
    let waited = wait.run(actor(thread)).await?;
    if let Some(waited) = &waited {
        write_usage(thread, args.get(4), waited)?;
    }
    if args.get(2) == 0 {
        return Ok(0);
    }
    // As Linux has it: the fields that have a meaning, and no others.
    let words = match waited {
        Some(waited) => [
            raw::SIGCHLD,
            0,
            waited.code,
            waited.pid,
            waited.user,
            waited.status.into(),
        ],
        None => [0; 6],
    };
    for (offset, word) in [0, 4, 8, 16, 20, 24].into_iter().zip(words) {
        space.write_value(args.get(2).wrapping_add(offset), &word)?;
    }
    Ok(0)
}

pub(super) fn pidfd_open(thread: &mut Thread, args: Args) -> Result<u64> {
    let open = OpenPid {
        pid: args.int(0),
        flags: args.uint(1),
    };
    Ok(open.run(actor(thread))? as u64)
}

pub(super) fn pidfd_send_signal(thread: &mut Thread, args: Args) -> Result<u64> {
    let send = SignalPid {
        fd: args.int(0),
        signal: args.int(1),
        info_at: args.get(2),
        flags: args.uint(3),
    };
    send.run(actor(thread))?;
    Ok(0)
}

pub(super) fn pidfd_getfd(thread: &mut Thread, args: Args) -> Result<u64> {
    let get = GetFileOfPid {
        fd: args.int(0),
        target: args.int(1),
        flags: args.uint(2),
    };
    Ok(get.run(actor(thread))? as u64)
}

/// GS belongs to the kernel where program and kernel share a protection domain; only FS is the
/// program's there.
pub(super) fn arch_prctl(thread: &mut Thread, args: Args) -> Result<u64> {
    match args.uint(0) {
        raw::ARCH_SET_FS => {
            if args.get(1) >= crate::mm::TASK_SIZE {
                return Err(Errno::EPERM);
            }
            thread.context.fs_base = args.get(1);
        }
        ARCH_GET_FS => {
            let base = thread.context.fs_base;
            thread.process.space.write_value(args.get(1), &base)?;
        }
        ARCH_SET_GS => {
            if args.get(1) >= crate::mm::TASK_SIZE {
                return Err(Errno::EPERM);
            }
            if !thread.context.set_gs_base(args.get(1)) {
                return Err(Errno::EINVAL);
            }
        }
        ARCH_GET_GS => {
            let base = thread.context.gs_base().ok_or(Errno::EINVAL)?;
            thread.process.space.write_value(args.get(1), &base)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn with_credentials<R>(thread: &Thread, with: impl FnOnce(&mut Credentials) -> R) -> R {
    with(&mut thread.process.credentials.lock())
}

pub(super) fn getuid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(with_credentials(thread, |who| who.user.real).into())
}

pub(super) fn geteuid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(with_credentials(thread, |who| who.user.effective).into())
}

pub(super) fn getgid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(with_credentials(thread, |who| who.group.real).into())
}

pub(super) fn getegid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(with_credentials(thread, |who| who.group.effective).into())
}

/// Changes user or group ids; the change is told whether the process is root.
fn change_ids(
    thread: &Thread,
    change: impl FnOnce(&mut Credentials, bool) -> Result<()>,
) -> Result<u64> {
    let (before, after) = with_credentials(thread, |who| {
        let is_root = who.user.effective == 0;
        let before = who.user.real;
        change(who, is_root).map(|()| (before, who.user.real))
    })?;
    if before != after {
        thread.process.change_account();
    }
    Ok(0)
}

pub(super) fn setuid(thread: &mut Thread, args: Args) -> Result<u64> {
    change_ids(thread, |who, is_root| who.user.set(args.uint(0), is_root))
}

pub(super) fn setgid(thread: &mut Thread, args: Args) -> Result<u64> {
    change_ids(thread, |who, is_root| who.group.set(args.uint(0), is_root))
}

pub(super) fn setreuid(thread: &mut Thread, args: Args) -> Result<u64> {
    change_ids(thread, |who, is_root| {
        who.user
            .set_real_effective(args.uint(0), args.uint(1), is_root)
    })
}

pub(super) fn setregid(thread: &mut Thread, args: Args) -> Result<u64> {
    change_ids(thread, |who, is_root| {
        who.group
            .set_real_effective(args.uint(0), args.uint(1), is_root)
    })
}

fn three_ids(args: Args) -> Ids {
    Ids {
        real: args.uint(0),
        effective: args.uint(1),
        saved: args.uint(2),
    }
}

pub(super) fn setresuid(thread: &mut Thread, args: Args) -> Result<u64> {
    change_ids(thread, |who, is_root| {
        who.user.set_all(three_ids(args), is_root)
    })
}

pub(super) fn setresgid(thread: &mut Thread, args: Args) -> Result<u64> {
    change_ids(thread, |who, is_root| {
        who.group.set_all(three_ids(args), is_root)
    })
}

fn write_ids(thread: &Thread, args: Args, ids: Ids) -> Result<u64> {
    let space = &thread.process.space;
    for (index, id) in [ids.real, ids.effective, ids.saved].iter().enumerate() {
        space.write_value(args.get(index), id)?;
    }
    Ok(0)
}

pub(super) fn getresuid(thread: &mut Thread, args: Args) -> Result<u64> {
    let ids = with_credentials(thread, |who| who.user);
    write_ids(thread, args, ids)
}

pub(super) fn getresgid(thread: &mut Thread, args: Args) -> Result<u64> {
    let ids = with_credentials(thread, |who| who.group);
    write_ids(thread, args, ids)
}

/// Files are always accessed with root's rights; the id given back is the one that would count.
pub(super) fn setfsuid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(with_credentials(thread, |who| who.user.effective).into())
}

pub(super) fn setfsgid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(with_credentials(thread, |who| who.group.effective).into())
}

pub(super) fn getgroups(thread: &mut Thread, args: Args) -> Result<u64> {
    let groups = with_credentials(thread, |who| who.groups.clone());
    if args.int(0) < 0 || args.int(0) > 0 && args.size(0) < groups.len() {
        return Err(Errno::EINVAL);
    }
    if args.int(0) > 0 {
        let bytes: Vec<u8> = groups.iter().flat_map(|id| id.to_le_bytes()).collect();
        thread.process.space.write(args.get(1), &bytes)?;
    }
    Ok(groups.len() as u64)
}

pub(super) fn setgroups(thread: &mut Thread, args: Args) -> Result<u64> {
    let count = args.uint(0);
    if with_credentials(thread, |who| who.user.effective) != 0 {
        return Err(Errno::EPERM);
    }
    if count > GROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut bytes = alloc::vec![0; count as usize * 4];
    thread.process.space.read(args.get(1), &mut bytes)?;
    let groups = bytes
        .chunks_exact(4)
        .map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
        .collect();
    with_credentials(thread, |who| who.groups = groups);
    Ok(0)
}

/// Versions of the capability structures, and how many of them there are in an array.
fn capability_sets(version: u32) -> Option<u64> {
    match version {
        raw::_LINUX_CAPABILITY_VERSION_1 => Some(1),
        raw::_LINUX_CAPABILITY_VERSION_2 | raw::_LINUX_CAPABILITY_VERSION_3 => Some(2),
        _ => None,
    }
}

/// Reads the header of `capget(2)` and `capset(2)` and gives the number of sets, and the process.
fn capability_header(thread: &Thread, header: u64) -> Result<Option<(u64, Arc<ControlBlock>)>> {
    let space = &thread.process.space;
    let version: u32 = space.read_value(header)?;
    let Some(sets) = capability_sets(version) else {
        space.write_value(header, &raw::_LINUX_CAPABILITY_VERSION_3)?;
        return Ok(None);
    };
    let pid: i32 = space.read_value(header.wrapping_add(4))?;
    if pid < 0 {
        return Err(Errno::EINVAL);
    }
    let process = process_meant(thread, pid)?;
    Ok(Some((sets, process)))
}

pub(super) fn capget(thread: &mut Thread, args: Args) -> Result<u64> {
    let (header, data) = (args.get(0), args.get(1));
    let Some((sets, process)) = capability_header(thread, header)? else {
        return if data == 0 { Ok(0) } else { Err(Errno::EINVAL) };
    };
    if data == 0 {
        return Ok(0);
    }
    let is_root = process.credentials.lock().user.effective == 0;
    let all = (1_u64 << (raw::CAP_LAST_CAP + 1)) - 1;
    for set in 0..sets {
        let bits = if is_root {
            (all >> (32 * set)) as u32
        } else {
            0
        };
        // Effective, permitted, inheritable.
        for (field, bits) in [bits, bits, 0].iter().enumerate() {
            let at = data.wrapping_add(set * 12 + field as u64 * 4);
            thread.process.space.write_value(at, bits)?;
        }
    }
    Ok(0)
}

/// Checked, and without effect: there is nothing here that a capability guards.
pub(super) fn capset(thread: &mut Thread, args: Args) -> Result<u64> {
    let (sets, process) = capability_header(thread, args.get(0))?.ok_or(Errno::EINVAL)?;
    if process.pid != thread.process.pid {
        return Err(Errno::EPERM);
    }
    let mut bytes = [0; 24];
    let length = sets as usize * 12;
    thread
        .process
        .space
        .read(args.get(1), &mut bytes[..length])?;
    Ok(0)
}

/// The process that a number means: 0 is the caller.
fn process_meant(thread: &Thread, pid: i32) -> Result<Arc<ControlBlock>> {
    match pid {
        0 => Ok(thread.process.block().clone()),
        pid => process_of(pid),
    }
}

pub(super) fn getpgid(thread: &mut Thread, args: Args) -> Result<u64> {
    Ok(process_meant(thread, args.int(0))?.process_group().into())
}

pub(super) fn getpgrp(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(thread.process.process_group().into())
}

pub(super) fn getsid(thread: &mut Thread, args: Args) -> Result<u64> {
    Ok(process_meant(thread, args.int(0))?.session().into())
}

pub(super) fn setpgid(thread: &mut Thread, args: Args) -> Result<u64> {
    let process = &thread.process;
    process.set_process_group(args.int(0), args.int(1))?;
    Ok(0)
}

pub(super) fn setsid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(thread.process.begin_session()?.into())
}

pub(super) fn prctl(thread: &mut Thread, args: Args) -> Result<u64> {
    let space = &thread.process.space;
    match args.uint(0) {
        raw_prctl::PR_SET_NAME => {
            let mut name = [0; 16];
            for (index, byte) in name.iter_mut().take(15).enumerate() {
                *byte = space.read_value(args.get(1).wrapping_add(index as u64))?;
                if *byte == 0 {
                    break;
                }
            }
            *thread.state.name.lock() = name;
            Ok(0)
        }
        raw_prctl::PR_GET_NAME => {
            let name = *thread.state.name.lock();
            space.write(args.get(1), &name)?;
            Ok(0)
        }
        raw_prctl::PR_GET_DUMPABLE => Ok(1),
        raw_prctl::PR_SET_DUMPABLE if args.get(1) <= 1 => Ok(0),
        raw_prctl::PR_SET_PDEATHSIG if args.get(1) <= 64 => {
            let signal = args.uint(1);
            thread.process.death_signal.store(signal, Ordering::Relaxed);
            Ok(0)
        }
        raw_prctl::PR_GET_PDEATHSIG => {
            let signal = thread.process.death_signal.load(Ordering::Relaxed);
            space.write_value(args.get(1), &signal)?;
            Ok(0)
        }
        raw_prctl::PR_SET_CHILD_SUBREAPER => {
            let is_one = args.get(1) != 0;
            thread.process.is_subreaper.store(is_one, Ordering::Relaxed);
            Ok(0)
        }
        raw_prctl::PR_GET_CHILD_SUBREAPER => {
            let is_one = thread.process.is_subreaper.load(Ordering::Relaxed);
            space.write_value(args.get(1), &u32::from(is_one))?;
            Ok(0)
        }
        raw_prctl::PR_GET_NO_NEW_PRIVS | raw_prctl::PR_GET_KEEPCAPS => Ok(0),
        raw_prctl::PR_GET_SECCOMP | raw_prctl::PR_GET_TIMERSLACK => match args.uint(0) {
            raw_prctl::PR_GET_SECCOMP => Ok(0),
            _ => Ok(50_000),
        },
        raw_prctl::PR_SET_TIMERSLACK => Ok(0),
        raw_prctl::PR_CAPBSET_READ if args.get(1) <= raw::CAP_LAST_CAP.into() => Ok(1),
        _ => Err(Errno::EINVAL),
    }
}

/// What `personality(2)` can be: `PER_LINUX`, with no flags.
pub(super) fn personality(_: &mut Thread, args: Args) -> Result<u64> {
    match args.uint(0) {
        0 | u32::MAX => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn prlimit64(thread: &mut Thread, args: Args) -> Result<u64> {
    let process = process_meant(thread, args.int(0))?;
    let (resource, new, old) = (args.uint(1), args.get(2), args.get(3));
    let space = &thread.process.space;
    let new: Option<raw::rlimit64> = match new {
        0 => None,
        address => Some(space.read_value(address)?),
    };
    if !thread.process.may_trace(&process) {
        return Err(Errno::EPERM);
    }
    let before = process.limits.lock().get(resource)?;
    if let Some(new) = new {
        let limit = Limit {
            soft: new.rlim_cur,
            hard: new.rlim_max,
        };
        // Of one that has ended it makes no difference.
        match process.view() {
            Some(view) => view.set_limit(resource, limit)?,
            None => process.limits.lock().set(resource, limit)?,
        }
    }
    if old != 0 {
        let before = raw::rlimit64 {
            rlim_cur: before.soft,
            rlim_max: before.hard,
        };
        space.write_value(old, &before)?;
    }
    Ok(0)
}

pub(super) fn getrlimit(thread: &mut Thread, args: Args) -> Result<u64> {
    let limit = thread.process.limits.lock().get(args.uint(0))?;
    let value = raw::rlimit64 {
        rlim_cur: limit.soft,
        rlim_max: limit.hard,
    };
    thread.process.space.write_value(args.get(1), &value)?;
    Ok(0)
}

pub(super) fn setrlimit(thread: &mut Thread, args: Args) -> Result<u64> {
    let new: raw::rlimit64 = thread.process.space.read_value(args.get(1))?;
    let limit = Limit {
        soft: new.rlim_cur,
        hard: new.rlim_max,
    };
    thread.process.set_limit(args.uint(0), limit)?;
    Ok(0)
}

pub(super) fn getpriority(thread: &mut Thread, args: Args) -> Result<u64> {
    let processes = priority_targets(thread, args)?;
    let nice = processes.iter().map(|process| *process.nice.lock()).min();
    // 20 - nice, so that it is never negative.
    Ok((20 - nice.ok_or(Errno::ESRCH)?) as u64)
}

pub(super) fn setpriority(thread: &mut Thread, args: Args) -> Result<u64> {
    let processes = priority_targets(thread, args)?;
    if processes.is_empty() {
        return Err(Errno::ESRCH);
    }
    for process in processes {
        *process.nice.lock() = args.int(2).clamp(-20, 19);
    }
    Ok(0)
}

fn priority_targets(thread: &Thread, args: Args) -> Result<Vec<Arc<ControlBlock>>> {
    let who = args.int(1);
    match args.uint(0) {
        raw::PRIO_PROCESS => Ok(Vec::from([process_meant(thread, who)?])),
        raw::PRIO_PGRP => Ok(members(match who {
            0 => thread.process.process_group(),
            group => group as u32,
        })),
        raw::PRIO_USER => {
            let user = match who {
                0 => with_credentials(thread, |who| who.user.real),
                user => user as u32,
            };
            let is_its = |process: &Arc<ControlBlock>| process.credentials.lock().user.real == user;
            Ok(all().into_iter().filter(is_its).collect())
        }
        _ => Err(Errno::EINVAL),
    }
}
