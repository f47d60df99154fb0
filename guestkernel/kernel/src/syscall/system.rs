//! System calls about the machine and the kernel: names, memory, random numbers.

use super::Args;
use crate::error::{Errno, Result};
use crate::globals::global;
use crate::process::Thread;
use crate::random::fill_random;
use linux_raw_sys::general as raw;
use machine::PAGE_SIZE;
use machine::lock::Mutex;

/// Bytes of a name in `struct utsname`, its NUL included.
const NAME: usize = 65;
const VERSION: &str = concat!("#1 Ringlet ", env!("CARGO_PKG_VERSION"));
/// Bytes of `struct sysinfo`.
const SYSINFO: usize = 112;
/// Bytes of random numbers made at a time.
const RANDOM_CHUNK: usize = 256;

global! {
    /// The host name, padded with NULs.
    static HOST_NAME: Mutex<[u8; NAME]> = Mutex::new(padded("ringlet"));
}

global! {
    /// The NIS domain name, padded with NULs.
    static DOMAIN_NAME: Mutex<[u8; NAME]> = Mutex::new(padded("(none)"));
}

const fn padded(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    let mut index = 0;
    while index < name.len() {
        bytes[index] = name.as_bytes()[index];
        index += 1;
    }
    bytes
}

pub(super) fn uname(thread: &mut Thread, args: Args) -> Result<u64> {
    let names = [
        padded("Linux"),
        *HOST_NAME.lock(),
        padded("6.18.0-ringlet"),
        padded(VERSION),
        padded("x86_64"),
        *DOMAIN_NAME.lock(),
    ];
    thread
        .process
        .space
        .write(args.get(0), names.as_flattened())?;
    Ok(0)
}

fn set_name(thread: &Thread, args: Args, name: &Mutex<[u8; NAME]>) -> Result<u64> {
    if thread.process.credentials.lock().user.effective != 0 {
        return Err(Errno::EPERM);
    }
    let length = usize::try_from(args.int(1)).map_err(|_| Errno::EINVAL)?;
    if length >= NAME {
        return Err(Errno::EINVAL);
    }
    let mut new = [0; NAME];
    thread.process.space.read(args.get(0), &mut new[..length])?;
    *name.lock() = new;
    Ok(0)
}

/// Sets the host name; what does not fit is cut off.
pub(crate) fn set_host_name(name: &[u8]) {
    let mut padded = [0; NAME];
    let length = name.len().min(NAME - 1);
    padded[..length].copy_from_slice(&name[..length]);
    *HOST_NAME.lock() = padded;
}

pub(super) fn sethostname(thread: &mut Thread, args: Args) -> Result<u64> {
    set_name(thread, args, &HOST_NAME)
}

pub(super) fn setdomainname(thread: &mut Thread, args: Args) -> Result<u64> {
    set_name(thread, args, &DOMAIN_NAME)
}

pub(super) fn sysinfo(thread: &mut Thread, args: Args) -> Result<u64> {
    let memory = machine::memory_use();
    let uptime = machine::clock::monotonic() / 1_000_000_000;
    // The structure has padding, so it is put together from its fields' offsets.
    let mut bytes = [0; SYSINFO];
    let mut put = |offset: usize, value: u64| {
        bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    };
    put(0, uptime);
    put(32, (memory.total * PAGE_SIZE) as u64);
    put(40, (memory.free * PAGE_SIZE) as u64);
    // Processes: one.
    put(80, 1);
    // The unit of sizes: bytes.
    put(104, 1);
    thread.process.space.write(args.get(0), &bytes)?;
    Ok(0)
}

pub(super) fn getrandom(thread: &mut Thread, args: Args) -> Result<u64> {
    let both = raw::GRND_RANDOM | raw::GRND_INSECURE;
    let flags = args.uint(2);
    if flags & !(both | raw::GRND_NONBLOCK) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let length = args.size(1).min(i32::MAX as usize);
    let space = &thread.process.space;
    let mut chunk = [0; RANDOM_CHUNK];
    let mut done = 0;
    while done < length {
        let chunk = &mut chunk[..RANDOM_CHUNK.min(length - done)];
        fill_random(chunk);
        match space.write_some(args.get(0).wrapping_add(done as u64), chunk) {
            Ok(count) if count == chunk.len() => done += count,
            Ok(count) => return Ok((done + count) as u64),
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done as u64)
}
