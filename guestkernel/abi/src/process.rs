//! The process that the kernel starts: a boot module, little-endian.
//!
//! Seven `u32`: magic, version, streams that are terminals, columns, rows, argument count,
//! environment count; then the arguments and the environment as NUL-terminated strings.
//!
//! A VMM that can pass one boot module only (QEMU) passes the initramfs and, from the next page
//! boundary on, the description behind it; the module ends with a [`Footer`].

use alloc::vec::Vec;

const MAGIC: u32 = u32::from_le_bytes(*b"RLPS");
const VERSION: u32 = 1;
const WORDS: usize = 7;
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
}

impl core::fmt::Display for ProcessSpecError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotASpec => "not a process description of this version",
            Self::Truncated => "the process description is cut short",
            Self::NoProgram => "no program is named",
            Self::EmbeddedNul => "an argument or environment string holds a NUL byte",
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
            self.args.len() as u32,
            self.env.len() as u32,
        ];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for string in self.args.iter().chain(&self.env) {
            if string.contains(&0) {
                return Err(ProcessSpecError::EmbeddedNul);
            }
            bytes.extend_from_slice(string);
            bytes.push(0);
        }
        Ok(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote; bytes after the last string are ignored.
    ///
    /// # Errors
    ///
    /// [`ProcessSpecError`]; no input makes it panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProcessSpecError> {
        let (head, mut rest) = bytes
            .split_at_checked(WORDS * 4)
            .ok_or(ProcessSpecError::Truncated)?;
        let mut words = head
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let mut next = || words.next().ok_or(ProcessSpecError::Truncated);
        if next()? != MAGIC || next()? != VERSION {
            return Err(ProcessSpecError::NotASpec);
        }
        let terminals = StreamSet(next()?);
        let size = TerminalSize {
            columns: next()? as u16,
            rows: next()? as u16,
        };
        let (argc, envc) = (next()?, next()?);
        let mut strings = |count: u32| {
            (0..count)
                .map(|_| {
                    let end = rest
                        .iter()
                        .position(|byte| *byte == 0)
                        .ok_or(ProcessSpecError::Truncated)?;
                    let string = rest[..end].to_vec();
                    rest = &rest[end + 1..];
                    Ok(string)
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let (args, env) = (strings(argc)?, strings(envc)?);
        if args.is_empty() {
            return Err(ProcessSpecError::NoProgram);
        }
        Ok(Self {
            args,
            env,
            terminals,
            size,
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
    }
}
