//! The process that the kernel starts: a boot module, little-endian.
//!
//! Seven `u32`: magic, version, streams that are terminals, columns, rows, argument count,
//! environment count; then the arguments and the environment as NUL-terminated strings.

use alloc::vec::Vec;

const MAGIC: u32 = u32::from_le_bytes(*b"RLPS");
const VERSION: u32 = 1;
const WORDS: usize = 7;

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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

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
