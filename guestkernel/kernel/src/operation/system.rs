//! The machine and the kernel: `uname(2)`, `sethostname(2)`, `sysinfo(2)`, `getrandom(2)`.

use super::Actor;
use crate::error::{Errno, Result};
use crate::executor::Stint;
use crate::globals::global;
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
const RANDOM_CHUNK: usize = 1024;
/// Bytes of random numbers made without a look at the clock.
const RANDOM_AT_ONCE: usize = 1 << 16;

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

/// Sets the host name; what does not fit is cut off.
pub fn set_host_name(name: &[u8]) {
    let mut padded = [0; NAME];
    let length = name.len().min(NAME - 1);
    padded[..length].copy_from_slice(&name[..length]);
    *HOST_NAME.lock() = padded;
}

/// `uname(2)`.
pub struct GetNames {
    /// Where they go.
    pub names_at: u64,
}

impl GetNames {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let names = [
            padded("Linux"),
            *HOST_NAME.lock(),
            padded("6.18.0-ringlet"),
            padded(VERSION),
            padded("x86_64"),
            *DOMAIN_NAME.lock(),
        ];
        actor.space().write(self.names_at, names.as_flattened())
    }
}

/// A name of the machine that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineName {
    /// `sethostname(2)`.
    Host,
    /// `setdomainname(2)`.
    Domain,
}

/// Setting a name of the machine.
pub struct SetName {
    /// Which one.
    pub which: MachineName,
    /// Where it is.
    pub name_at: u64,
    /// Its bytes.
    pub length: i32,
}

impl SetName {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EPERM`, `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        if actor.process.credentials.lock().user.effective != 0 {
            return Err(Errno::EPERM);
        }
        let length = usize::try_from(self.length).map_err(|_| Errno::EINVAL)?;
        if length >= NAME {
            return Err(Errno::EINVAL);
        }
        let mut new = [0; NAME];
        actor.space().read(self.name_at, &mut new[..length])?;
        match self.which {
            MachineName::Host => *HOST_NAME.lock() = new,
            MachineName::Domain => *DOMAIN_NAME.lock() = new,
        }
        Ok(())
    }
}

/// `sysinfo(2)`.
pub struct GetSystemInformation {
    /// Where it goes.
    pub information_at: u64,
}

impl GetSystemInformation {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
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
        actor.space().write(self.information_at, &bytes)
    }
}

/// `getrandom(2)`.
pub struct GetRandom {
    /// Where the bytes go.
    pub address: u64,
    /// How many.
    pub count: usize,
    /// `GRND_*`.
    pub flags: u32,
}

impl GetRandom {
    /// Does it if that takes no time to speak of: `None`, and nothing done, if it may.
    #[inline]
    pub fn run_now(&self, actor: Actor<'_>) -> Option<Result<u64>> {
        if self.count > RANDOM_AT_ONCE {
            return None;
        }
        let mut done = 0;
        let filled = self
            .check()
            .and_then(|()| self.fill(actor, &mut done, self.count));
        Some(filled.map(|()| done as u64))
    }

    /// Does it; gives the number of bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        self.check()?;
        let length = self.count.min(i32::MAX as usize);
        let mut stint = Stint::default();
        let mut done = 0;
        while done < length {
            let end = length.min(done + RANDOM_AT_ONCE);
            match self.fill(actor, &mut done, end) {
                Err(error) if done == 0 => return Err(error),
                Ok(()) if done == end => stint.give_way().await,
                _ => break,
            }
        }
        Ok(done as u64)
    }

    fn check(&self) -> Result<()> {
        let both = raw::GRND_RANDOM | raw::GRND_INSECURE;
        if self.flags & !(both | raw::GRND_NONBLOCK) != 0 || self.flags & both == both {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Fills the bytes from `done` to before `end`, as far as they can be written.
    fn fill(&self, actor: Actor<'_>, done: &mut usize, end: usize) -> Result<()> {
        let mut chunk = [0; RANDOM_CHUNK];
        while *done < end {
            let chunk = &mut chunk[..RANDOM_CHUNK.min(end - *done)];
            fill_random(chunk);
            let at = self.address.wrapping_add(*done as u64);
            match actor.space().write_some(at, chunk) {
                Ok(count) => {
                    *done += count;
                    if count < chunk.len() {
                        break;
                    }
                }
                Err(_) if *done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
