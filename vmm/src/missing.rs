//! What the program asked for and the guest kernel does not have, as the kernel counts it.
//!
//! The kernel keeps a table in its memory and says where ([`ringlet_abi::missing`]); it is read when the
//! VM has ended, however that was.

use std::fmt::Write;
use std::sync::OnceLock;

use ringlet_abi::missing::{ENTRIES, Entry, Kind, PAGE_SIZE};
use ringlet_devices::Memory;
use serde::Serialize;
use vm_memory::{Bytes, GuestAddress};

/// Names that a message has at most of each kind.
const NAMES_MAX: usize = 12;

/// Something that was asked for in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// `syscall`, `ioctl` or `opcode`.
    pub kind: &'static str,
    /// Its name on Linux, if it has one.
    pub name: Option<&'static str>,
    /// Its number.
    pub number: u32,
    /// How often it was asked for.
    pub count: u64,
}

impl Missing {
    fn of(entry: Entry) -> Self {
        Self {
            kind: entry.kind.name(),
            name: entry.kind.name_of(entry.number),
            number: entry.number,
            count: entry.count,
        }
    }

    fn label(&self) -> String {
        match (self.name, self.kind) {
            (Some(name), _) => name.to_owned(),
            (None, "ioctl") => format!("{:#x}", self.number),
            (None, _) => self.number.to_string(),
        }
    }
}

/// Where the table is, once the kernel has said so; the first word counts.
#[derive(Debug, Default)]
pub struct MissingTable(OnceLock<u32>);

impl MissingTable {
    /// The table is in this page of guest memory.
    pub fn announce(&self, page: u32) {
        self.0.get_or_init(|| page);
    }

    /// What is in the table. A table that makes no sense is read as far as it does.
    pub fn read(&self, memory: &Memory) -> Vec<Missing> {
        let Some(page) = self.0.get() else {
            return Vec::new();
        };
        let base = u64::from(*page) * PAGE_SIZE;
        (0..ENTRIES)
            .map_while(|index| {
                let mut bytes = [0; Entry::SIZE];
                let at = GuestAddress(base + (index * Entry::SIZE) as u64);
                memory.read_slice(&mut bytes, at).ok()?;
                Entry::decode(bytes).map(Missing::of)
            })
            .collect()
    }
}

/// A line for the user of a program that failed; `None` if nothing is missing.
pub fn describe(missing: &[Missing]) -> Option<String> {
    let mut text = String::new();
    for kind in [Kind::SystemCall, Kind::Ioctl, Kind::Opcode] {
        let labels: Vec<_> = missing
            .iter()
            .filter(|missing| missing.kind == kind.name())
            .map(Missing::label)
            .collect();
        if labels.is_empty() {
            continue;
        }
        let separator = if text.is_empty() { "" } else { "; " };
        let shown = labels.len().min(NAMES_MAX);
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "{separator}{} {}",
            kind.plural(),
            labels[..shown].join(", ")
        );
        if shown < labels.len() {
            let _ = write!(text, " and {} more", labels.len() - shown);
        }
    }
    (!text.is_empty())
        .then(|| format!("the program asked for what the guest kernel does not have: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::map;

    fn entry(kind: Kind, number: u32, count: u64) -> Entry {
        Entry {
            kind,
            number,
            count,
        }
    }

    #[test]
    fn the_table_is_read_to_its_first_hole() {
        let memory = Memory::new(map(32 << 20).unwrap());
        let table = MissingTable::default();
        assert_eq!(table.read(&memory), []);
        let entries = [
            entry(Kind::SystemCall, 321, 2),
            entry(Kind::Ioctl, 0x1234, 1),
            entry(Kind::Opcode, 200, 3),
        ];
        for (index, entry) in (0..).zip(entries) {
            let at = GuestAddress(5 * PAGE_SIZE + index * Entry::SIZE as u64);
            memory.write_slice(&entry.encode(), at).unwrap();
        }
        table.announce(5);
        table.announce(6);
        let missing = table.read(&memory);
        assert_eq!(missing.len(), 3);
        assert_eq!(missing[0].name, Some("bpf"));
        assert_eq!(
            describe(&missing).unwrap(),
            "the program asked for what the guest kernel does not have: system calls bpf; \
             ioctls 0x1234; io_uring opcodes 200"
        );
        assert_eq!(describe(&[]), None);
    }

    #[test]
    fn a_table_anywhere_does_no_harm() {
        let memory = Memory::new(map(32 << 20).unwrap());
        memory
            .write_slice(&[0xff; 4096], GuestAddress(0x10_0000))
            .unwrap();
        for page in [0x100, (32 << 20) / 4096 - 1, (32 << 20) / 4096, u32::MAX] {
            let table = MissingTable::default();
            table.announce(page);
            assert_eq!(table.read(&memory), [], "{page:#x}");
        }
    }
}
