//! What is told of memory, as text that is the same on every machine.

use std::fmt::Write;

use super::argument::{Memory, Record};
use super::memory::{Arena, FRESH};
use crate::sys;

/// Bytes as text, if they are few, else by their length and a hash.
pub(super) fn shown(bytes: &[u8]) -> String {
    const FEW: usize = 40;
    if bytes.len() <= FEW {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    let repeated = bytes
        .first()
        .filter(|first| bytes.iter().all(|byte| byte == *first));
    if let Some(byte) = repeated {
        return format!("{} times \"{}\"", bytes.len(), [*byte].escape_ascii());
    }
    format!("{} bytes with hash {:016x}", bytes.len(), hash(bytes))
}

/// FNV-1a.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// What has happened to memory placed at `address`, if it is told at all and something has.
pub(super) fn memory(memory: &Memory, address: usize) -> Option<String> {
    match memory {
        Memory::Room(length) | Memory::Edge(length) => {
            let bytes = Arena::get(address, *length);
            let end = bytes.iter().rposition(|byte| *byte != FRESH)? + 1;
            Some(shown(&bytes[..end]))
        }
        Memory::Opaque(length) => {
            let bytes = Arena::get(address, *length);
            let mut text = String::new();
            for (index, word) in bytes.chunks(8).enumerate() {
                if word.iter().any(|byte| *byte != FRESH) {
                    let _ = write!(text, " {index}");
                }
            }
            (!text.is_empty()).then(|| format!("words{text}"))
        }
        Memory::Record(record) => {
            let bytes = Arena::get(address, record.size());
            let untouched = bytes.iter().all(|byte| *byte == FRESH);
            (!untouched).then(|| told(*record, &bytes))
        }
        Memory::Words(words) => {
            let bytes = Arena::get(address, words.len() * 8);
            let now: Vec<_> = bytes
                .chunks_exact(8)
                .map(|word| field(word, 0, 8))
                .collect();
            (now != *words).then(|| format!("{now:x?}"))
        }
        Memory::Halves(halves) => {
            let bytes = Arena::get(address, halves.len() * 4);
            let now: Vec<_> = bytes
                .chunks_exact(4)
                .map(|half| field(half, 0, 4) as u32)
                .collect();
            (now != *halves).then(|| format!("{now:x?}"))
        }
        Memory::Word(index) => {
            let word = field(&Arena::get(address, 4), 0, 4);
            Some(format!("word {index} is {word:#x}"))
        }
        Memory::Ring(words) => {
            let bytes = Arena::get(address, words.len() * 4);
            let half = |index: usize| field(&bytes, index * 4, 4);
            (half(0) != 0).then(|| format!("{} and {} entries", half(0), half(1)))
        }
        Memory::Pollfd(..) => match field(&Arena::get(address, 8), 6, 2) {
            0 => None,
            events => Some(format!("events {events:#x}")),
        },
        Memory::Set(_) => Some(format!("set {:#x}", field(&Arena::get(address, 8), 0, 8))),
        Memory::At(_)
        | Memory::Bytes(_)
        | Memory::Descriptor(_)
        | Memory::BytesAtEdge(_)
        | Memory::Vector(_)
        | Memory::Struct(_) => None,
    }
}

/// The little-endian number of `size` bytes at `offset`; 0 behind the end.
fn field(bytes: &[u8], offset: usize, size: usize) -> u64 {
    let bytes = bytes.get(offset..offset + size).unwrap_or_default();
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn told(record: Record, bytes: &[u8]) -> String {
    let field = |offset, size| field(bytes, offset, size);
    match record {
        // The size of a directory is the file system's affair, and so are its links.
        Record::Stat => {
            let mode = field(24, 4);
            let is_directory = mode & 0o170_000 == 0o040_000;
            let told = if is_directory {
                (0, 0)
            } else {
                (field(16, 8), field(48, 8))
            };
            format!(
                "mode {mode:o} links {} owner {}:{} size {} device {:x} modified {}",
                told.0,
                field(28, 4),
                field(32, 4),
                told.1,
                field(40, 8),
                age(field(88, 8)),
            )
        }
        Record::Statx => {
            let mode = field(28, 2);
            let is_directory = mode & 0o170_000 == 0o040_000;
            let told = if is_directory {
                (0, 0)
            } else {
                (field(16, 4), field(40, 8))
            };
            format!(
                "mask {:x} mode {mode:o} links {} owner {}:{} size {} modified {}",
                field(0, 4) & 0x7ff,
                told.0,
                field(20, 4),
                field(24, 4),
                told.1,
                age(field(112, 8)),
            )
        }
        Record::Statfs => format!(
            "type {:x} block {} names {}",
            field(0, 8),
            field(8, 8),
            field(64, 8)
        ),
        Record::Entries => {
            let mut names = Vec::new();
            let mut at = 0;
            while at + 19 < bytes.len() {
                let length = field(at + 16, 2) as usize;
                let end = at + length;
                if length < 20 || end > bytes.len() || bytes[at..at + 8] == [FRESH; 8] {
                    break;
                }
                let name = &bytes[at + 19..end];
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                names.push(format!("{}:{}", name.escape_ascii(), bytes[at + 18]));
                at = end;
            }
            names.sort();
            names.join(" ")
        }
        Record::Signal => format!(
            "signal {} errno {} code {}",
            field(0, 4),
            field(4, 4),
            field(8, 4) as i32
        ),
    }
}

fn age(seconds: u64) -> &'static str {
    match seconds {
        1_000_000_000 => "then",
        0 => "never",
        seconds if seconds >= 1_600_000_000 => "now",
        _ => "otherwise",
    }
}

/// What a descriptor's object shows of itself: its position, or what it holds. Takes that out.
pub(super) fn object(fd: i32) -> Option<String> {
    let mut stat = [0_u64; 18];
    sys!(SYS_fstat, fd, stat.as_mut_ptr()).ok()?;
    let status = sys!(SYS_fcntl, fd, libc::F_GETFL).ok()? as i32;
    if status & libc::O_PATH != 0 {
        return None;
    }
    match stat[3] as u32 & libc::S_IFMT {
        libc::S_IFREG => match sys!(SYS_lseek, fd, 0, libc::SEEK_CUR) {
            Ok(0) => None,
            position => Some(format!("at {position:?}")),
        },
        libc::S_IFIFO if status & libc::O_ACCMODE == libc::O_RDONLY => held(fd, status, 1 << 20),
        // An eventfd has no type.
        0 => held(fd, status, 8),
        _ => None,
    }
}

fn held(fd: i32, status: i32, most: usize) -> Option<String> {
    sys!(SYS_fcntl, fd, libc::F_SETFL, status | libc::O_NONBLOCK).ok()?;
    let mut bytes = vec![0; most];
    let length = sys!(SYS_read, fd, bytes.as_mut_ptr(), most);
    let _ = sys!(SYS_fcntl, fd, libc::F_SETFL, status);
    match length {
        Ok(0) | Err(_) => None,
        Ok(length) => Some(format!("held {}", shown(&bytes[..length]))),
    }
}
