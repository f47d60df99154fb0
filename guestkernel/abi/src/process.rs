//! The process that the kernel starts: a boot module, little-endian.
//!
//! Eleven `u32`: magic, version, streams that are terminals, columns, rows, flags, user ID, group ID,
//! and the counts of arguments, environment and mounts. Then NUL-terminated strings: the arguments,
//! the environment, the working directory, the host name. Then the mounts: a byte for the kind of
//! source and one for the access, the size as a `u64`, and as strings the target and the source's
//! name.
//!
//! A VMM that can pass one boot module only (QEMU) passes the initramfs and, from the next page
//! boundary on, the description behind it; the module ends with a [`Footer`].

use crate::{Mount, MountAccess, MountSource};
use alloc::vec::Vec;

const MAGIC: u32 = u32::from_le_bytes(*b"RLPS");
const VERSION: u32 = 2;
const WORDS: usize = 11;
/// A flag: [`ProcessSpec::read_only_root`].
const READ_ONLY_ROOT: u32 = 1;
/// Where a description behind an initramfs starts is a multiple of this.
const PAGE: u64 = 4096;

/// A set of standard streams: bit N is file descriptor N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSet(pub u32);

impl StreamSet {
    /// Whether file descriptor `fd` (0, 1 or 2) is in the set.
    pub fn contains(self, fd: u32) -> bool {
        fd < 3 && self.0 & 1 << fd != 0
    }

    /// The set with `fd` in it.
    #[must_use]
    pub fn with(self, fd: u32) -> Self {
        Self(self.0 | 1 << fd)
    }
}

/// The size of the terminal in characters; zeros where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What the kernel starts as process 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSpec {
    /// The program and its arguments; never empty.
    pub args: Vec<Vec<u8>>,
    /// The environment as `NAME=VALUE`.
    pub env: Vec<Vec<u8>>,
    /// The standard streams that are terminals on the host.
    pub terminals: StreamSet,
    /// The size of that terminal.
    pub size: TerminalSize,
    /// The directory to start in, an absolute path; made where it is missing. Empty for `/`.
    pub working_directory: Vec<u8>,
    /// As whom to start.
    pub user: User,
    /// The name that uname(2) gives; empty for the default.
    pub host_name: Vec<u8>,
    /// Whether the root file system is mounted without write access once all else is set up.
    pub read_only_root: bool,
    /// What to mount, in this order, after the kernel's own file systems (`/proc`, `/sys`, `/dev`,
    /// `/run`, `/tmp`); only one at `/` comes before these.
    pub mounts: Vec<Mount>,
}

/// As whom a process runs: real, effective and saved IDs; there are no supplementary groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

/// Why bytes are no [`ProcessSpec`], or why one cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessSpecError {
    /// The magic number or the version is another.
    NotASpec,
    /// The bytes end before the strings do.
    Truncated,
    /// There is no argument, not even the program.
    NoProgram,
    /// A string holds a NUL byte.
    EmbeddedNul,
    /// A mount's source or access is of no kind that there is.
    BadMount,
}

impl core::fmt::Display for ProcessSpecError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotASpec => "not a process description of this version",
            Self::Truncated => "the process description is cut short",
            Self::NoProgram => "no program is named",
            Self::EmbeddedNul => "an argument, environment string or path holds a NUL byte",
            Self::BadMount => "a mount is of a kind that this kernel does not know",
        })
    }
}

impl core::error::Error for ProcessSpecError {}

impl ProcessSpec {
    /// The bytes of the boot module.
    ///
    /// # Errors
    ///
    /// [`ProcessSpecError::NoProgram`] and [`ProcessSpecError::EmbeddedNul`].
    pub fn encode(&self) -> Result<Vec<u8>, ProcessSpecError> {
        if self.args.is_empty() {
            return Err(ProcessSpecError::NoProgram);
        }
        let words: [u32; WORDS] = [
            MAGIC,
            VERSION,
            self.terminals.0,
            self.size.columns.into(),
            self.size.rows.into(),
            if self.read_only_root {
                READ_ONLY_ROOT
            } else {
                0
            },
            self.user.uid,
            self.user.gid,
            self.args.len() as u32,
            self.env.len() as u32,
            self.mounts.len() as u32,
        ];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let place = [&self.working_directory, &self.host_name];
        for string in self.args.iter().chain(&self.env).chain(place) {
            push_string(&mut bytes, string)?;
        }
        for mount in &self.mounts {
            let (kind, size, name) = mount.source.encode();
            bytes.push(kind);
            bytes.push(mount.access.encode());
            bytes.extend_from_slice(&size.to_le_bytes());
            push_string(&mut bytes, &mount.target)?;
            push_string(&mut bytes, name)?;
        }
        Ok(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote; bytes after the last mount are ignored.
    ///
    /// # Errors
    ///
    /// [`ProcessSpecError`]; no input makes it panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProcessSpecError> {
        let mut reader = Reader(bytes);
        if reader.word()? != MAGIC || reader.word()? != VERSION {
            return Err(ProcessSpecError::NotASpec);
        }
        let terminals = StreamSet(reader.word()?);
        let size = TerminalSize {
            columns: reader.word()? as u16,
            rows: reader.word()? as u16,
        };
        let flags = reader.word()?;
        let user = User {
            uid: reader.word()?,
            gid: reader.word()?,
        };
        let (argc, envc, mounts) = (reader.word()?, reader.word()?, reader.word()?);
        let args = (0..argc)
            .map(|_| reader.string())
            .collect::<Result<Vec<_>, _>>()?;
        if args.is_empty() {
            return Err(ProcessSpecError::NoProgram);
        }
        Ok(Self {
            args,
            env: (0..envc)
                .map(|_| reader.string())
                .collect::<Result<Vec<_>, _>>()?,
            terminals,
            size,
            working_directory: reader.string()?,
            host_name: reader.string()?,
            user,
            read_only_root: flags & READ_ONLY_ROOT != 0,
            mounts: (0..mounts)
                .map(|_| reader.mount())
                .collect::<Result<Vec<_>, _>>()?,
        })
    }
}

fn push_string(bytes: &mut Vec<u8>, string: &[u8]) -> Result<(), ProcessSpecError> {
    if string.contains(&0) {
        return Err(ProcessSpecError::EmbeddedNul);
    }
    bytes.extend_from_slice(string);
    bytes.push(0);
    Ok(())
}

/// What is left of an encoded description.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ProcessSpecError> {
        let (bytes, rest) = self
            .0
            .split_first_chunk()
            .ok_or(ProcessSpecError::Truncated)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn word(&mut self) -> Result<u32, ProcessSpecError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn string(&mut self) -> Result<Vec<u8>, ProcessSpecError> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let end = end.ok_or(ProcessSpecError::Truncated)?;
        let string = self.0[..end].to_vec();
        self.0 = &self.0[end + 1..];
        Ok(string)
    }

    fn mount(&mut self) -> Result<Mount, ProcessSpecError> {
        let [kind, access] = self.bytes()?;
        let size = u64::from_le_bytes(self.bytes()?);
        let (target, name) = (self.string()?, self.string()?);
        Ok(Mount {
            target,
            source: MountSource::decode(kind, size, name).ok_or(ProcessSpecError::BadMount)?,
            access: MountAccess::decode(access).ok_or(ProcessSpecError::BadMount)?,
        })
    }
}

/// The end of a boot module that holds an initramfs and, behind it, a [`ProcessSpec`]: the
/// initramfs's length as a `u64` and eight bytes by which the footer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Bytes of the initramfs.
    pub initramfs: u64,
}

impl Footer {
    /// Bytes of a footer.
    pub const SIZE: usize = 16;
    const MAGIC: [u8; 8] = *b"\0RLPSEND";

    /// Where the description starts in the module.
    pub fn process(self) -> u64 {
        self.initramfs.next_multiple_of(PAGE)
    }

    /// The bytes of the footer.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let (length, magic) = bytes.split_at_mut(8);
        length.copy_from_slice(&self.initramfs.to_le_bytes());
        magic.copy_from_slice(&Self::MAGIC);
        bytes
    }

    /// The footer of a module of `length` bytes that ends with `bytes`, if it is one.
    pub fn decode(bytes: [u8; Self::SIZE], length: u64) -> Option<Self> {
        let ([initramfs, magic], []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let footer = Self {
            initramfs: u64::from_le_bytes(*initramfs),
        };
        let room = length.checked_sub(Self::SIZE as u64)?;
        let fits = footer.initramfs.checked_next_multiple_of(PAGE)? <= room;
        (*magic == Self::MAGIC && fits).then_some(footer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mount, MountAccess, MountSource};
    use alloc::vec;

    #[test]
    fn a_footer_names_what_is_before_it() {
        let footer = Footer { initramfs: 5000 };
        assert_eq!(footer.process(), 8192);
        let bytes = footer.encode();
        assert_eq!(Footer::decode(bytes, 8192 + 16), Some(footer));
        assert_eq!(Footer::decode(bytes, 8192 + 15), None);
        assert_eq!(Footer::decode(bytes, 3), None);
        let far = Footer {
            initramfs: u64::MAX,
        };
        assert_eq!(Footer::decode(far.encode(), u64::MAX), None);
        assert_eq!(Footer::decode([0; Footer::SIZE], 1 << 20), None);
    }

    fn spec() -> ProcessSpec {
        ProcessSpec {
            args: vec![b"/bin/echo".to_vec(), b"".to_vec(), b"a b\xff".to_vec()],
            env: vec![b"A=1".to_vec()],
            terminals: StreamSet::default().with(0).with(2),
            size: TerminalSize {
                columns: 80,
                rows: 25,
            },
            working_directory: b"/work".to_vec(),
            user: User { uid: 1000, gid: 7 },
            host_name: b"host".to_vec(),
            read_only_root: true,
            mounts: vec![
                Mount {
                    target: b"/".to_vec(),
                    source: MountSource::Share {
                        tag: b"share0".to_vec(),
                    },
                    access: MountAccess::Overlay,
                },
                Mount {
                    target: b"/data".to_vec(),
                    source: MountSource::Image {
                        name: b"image0".to_vec(),
                    },
                    access: MountAccess::ReadOnly,
                },
                Mount {
                    target: b"/scratch".to_vec(),
                    source: MountSource::Tmpfs { size: 1 << 40 },
                    access: MountAccess::ReadWrite,
                },
            ],
        }
    }

    #[test]
    fn a_spec_survives_encoding() {
        assert_eq!(ProcessSpec::decode(&spec().encode().unwrap()), Ok(spec()));
    }

    #[test]
    fn every_prefix_is_refused() {
        let bytes = spec().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(ProcessSpec::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn bad_strings_are_refused() {
        assert_eq!(
            ProcessSpec::default().encode(),
            Err(ProcessSpecError::NoProgram)
        );
        let mut bad = spec();
        bad.env.push(b"A=\0".to_vec());
        assert_eq!(bad.encode(), Err(ProcessSpecError::EmbeddedNul));
        let mut bad = spec();
        bad.mounts[0].target.push(0);
        assert_eq!(bad.encode(), Err(ProcessSpecError::EmbeddedNul));
    }

    #[test]
    fn mounts_of_unknown_kinds_are_refused() {
        let mut one = spec();
        one.mounts.truncate(1);
        let bytes = one.encode().unwrap();
        let mount = bytes.len() - (2 + 8 + b"/\0share0\0".len());
        for (at, byte) in [(mount, 3), (mount + 1, 3)] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert_eq!(ProcessSpec::decode(&bytes), Err(ProcessSpecError::BadMount));
        }
    }
}
