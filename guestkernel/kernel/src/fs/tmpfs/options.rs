//! The options of a mount (`tmpfs(5)`).

use crate::error::{Errno, Result};
use crate::file::MountOption;
use crate::mm::PAGE;
use alloc::format;
use alloc::string::String;
use core::fmt::Write;

/// How a file system was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// The most pages that files have; 0 for no limit. `None` for half of memory.
    pages: Option<u64>,
    /// The most files; 0 for no limit. `None` for as many as memory has half its pages.
    files: Option<u64>,
    /// Permission bits of the root directory.
    pub(super) mode: u32,
    /// User and group of the root directory.
    pub(super) owner: (u32, u32),
}

/// Permission bits of a root directory, unless the mount says otherwise.
const ROOT_MODE: u32 = 0o1777;

fn half_of_memory() -> u64 {
    machine::memory_use().total as u64 / 2
}

impl Options {
    /// The defaults, but for the mode of the root directory.
    pub(super) fn with_mode(mode: u32) -> Self {
        Self {
            pages: None,
            files: None,
            mode,
            owner: (0, 0),
        }
    }

    /// What `options` say of a file system that `owner` mounts.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub(super) fn parse(options: &[MountOption], owner: (u32, u32)) -> Result<Self> {
        Self {
            owner,
            ..Self::with_mode(ROOT_MODE)
        }
        .changed(options)
    }

    /// These, changed by `options`.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub(super) fn changed(mut self, options: &[MountOption]) -> Result<Self> {
        for option in options {
            match option.name.as_slice() {
                b"size" => self.pages = Some(size(option)?.div_ceil(PAGE)),
                b"nr_blocks" => self.pages = Some(suffixed(option)?),
                b"nr_inodes" => self.files = Some(suffixed(option)?),
                b"mode" => self.mode = option.number(8)? as u32 & 0o7777,
                b"uid" => self.owner.0 = id(option)?,
                b"gid" => self.owner.1 = id(option)?,
                // Numbers of files have 64 bits, and pages are small ones.
                b"inode64" | b"inode32" | b"noswap" => {}
                b"huge" if option.value.as_deref() == Some(b"never") => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(self)
    }

    /// The most pages that files have; 0 for no limit.
    pub(super) fn pages(&self) -> u64 {
        self.pages.unwrap_or_else(half_of_memory)
    }

    /// The most files; 0 for no limit.
    pub(super) fn files(&self) -> u64 {
        self.files.unwrap_or_else(half_of_memory)
    }

    /// Those that are not the defaults, as `/proc/mounts` shows them.
    pub(super) fn shown(&self) -> String {
        let mut text = String::new();
        if let Some(pages) = self.pages {
            text += &format!(",size={}k", pages * PAGE / 1024);
        }
        if let Some(files) = self.files {
            text += &format!(",nr_inodes={files}");
        }
        if self.mode != ROOT_MODE {
            // A string takes it all.
            let _ = write!(text, ",mode={:03o}", self.mode);
        }
        for (name, id) in [("uid", self.owner.0), ("gid", self.owner.1)] {
            if id != 0 {
                let _ = write!(text, ",{name}={id}");
            }
        }
        text
    }
}

fn id(option: &MountOption) -> Result<u32> {
    u32::try_from(option.number(10)?).map_err(|_| Errno::EINVAL)
}

/// A number with a suffix for powers of 1024 (`memparse` of Linux).
fn suffixed(option: &MountOption) -> Result<u64> {
    let text = option.value.as_deref().ok_or(Errno::EINVAL)?;
    let (text, shift) = match text.split_last() {
        Some((b'k' | b'K', digits)) => (digits, 10),
        Some((b'm' | b'M', digits)) => (digits, 20),
        Some((b'g' | b'G', digits)) => (digits, 30),
        Some((b't' | b'T', digits)) => (digits, 40),
        _ => (text, 0),
    };
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let number = u64::from_str_radix(digits, radix).map_err(|_| Errno::EINVAL)?;
    number
        .checked_shl(shift)
        .filter(|shifted| shifted >> shift == number)
        .ok_or(Errno::EINVAL)
}

/// Bytes, or a share of memory in percent.
fn size(option: &MountOption) -> Result<u64> {
    let text = option.value.as_deref().ok_or(Errno::EINVAL)?;
    let Some(percent) = text.strip_suffix(b"%") else {
        return suffixed(option);
    };
    let percent = core::str::from_utf8(percent).map_err(|_| Errno::EINVAL)?;
    let percent: u64 = percent.parse().map_err(|_| Errno::EINVAL)?;
    let all = machine::memory_use().total as u64;
    all.checked_mul(percent)
        .map(|share| share / 100 * PAGE)
        .ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(&MountOption::parse(text.as_bytes()), (0, 0))
    }

    #[test]
    fn options_are_read_and_shown_as_linux_does() {
        let options = parse("size=10m,nr_inodes=100,mode=700,uid=5,gid=6").unwrap();
        assert_eq!((options.pages(), options.files()), (2560, 100));
        let shown = ",size=10240k,nr_inodes=100,mode=700,uid=5,gid=6";
        assert_eq!(options.shown(), shown);
        assert_eq!(parse("").unwrap().shown(), "");
        assert_eq!(parse("size=5000").unwrap().pages(), 2);
        assert_eq!(parse("size=0").unwrap().pages(), 0);
        let half = parse("size=50%").unwrap().pages();
        assert_eq!(half, half_of_memory());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "foo",
            "size",
            "size=x",
            "size=-1",
            "mode=9",
            "uid=-1",
            "huge=always",
        ] {
            assert_eq!(parse(text), Err(Errno::EINVAL), "{text}");
        }
    }
}
