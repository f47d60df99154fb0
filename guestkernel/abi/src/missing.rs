//! The table of what the program asked for and the kernel does not have: one page in the kernel's memory,
//! which the VMM reads when the VM has ended.
//!
//! The kernel makes it when there is something to note, and says where it is
//! ([`control::MISSING`](super::control::MISSING)). It has [`ENTRIES`] entries; the first that is all zeros
//! ends it.

use crate::names;

/// Bytes of the page.
pub const PAGE_SIZE: u64 = 4096;
/// Entries of the table.
pub const ENTRIES: usize = PAGE_SIZE as usize / Entry::SIZE;

/// What kind of thing was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A system call.
    SystemCall = 1,
    /// A request of ioctl(2), to a device.
    Ioctl = 2,
    /// An opcode of io_uring.
    Opcode = 3,
}

impl Kind {
    const ALL: [Self; 3] = [Self::SystemCall, Self::Ioctl, Self::Opcode];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::SystemCall => "syscall",
            Self::Ioctl => "ioctl",
            Self::Opcode => "opcode",
        }
    }

    /// Several of the kind, in a message.
    pub fn plural(self) -> &'static str {
        match self {
            Self::SystemCall => "system calls",
            Self::Ioctl => "ioctls",
            Self::Opcode => "io_uring opcodes",
        }
    }

    /// What Linux calls the one with that number, if it is known.
    pub fn name_of(self, number: u32) -> Option<&'static str> {
        match self {
            Self::SystemCall => names::system_call(number.into()),
            Self::Ioctl => names::ioctl(number),
            Self::Opcode => names::opcode(number),
        }
    }
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its number.
    pub number: u32,
    /// How often it was asked for.
    pub count: u64,
}

impl Entry {
    /// Bytes of an entry: kind and number as `u32`, count as `u64`, little-endian.
    pub const SIZE: usize = 16;
    /// Where the count is.
    pub const COUNT: usize = 8;

    /// Its bytes.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    /// The entry with these bytes; `None` for the table's end and for what no kernel writes.
    pub fn decode(bytes: [u8; Self::SIZE]) -> Option<Self> {
        let [k0, k1, k2, k3, n0, n1, n2, n3, count @ ..] = bytes;
        let kind = u32::from_le_bytes([k0, k1, k2, k3]);
        Some(Self {
            kind: Kind::ALL.into_iter().find(|known| *known as u32 == kind)?,
            number: u32::from_le_bytes([n0, n1, n2, n3]),
            count: u64::from_le_bytes(count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive() {
        for kind in Kind::ALL {
            let entry = Entry {
                kind,
                number: 0x5401,
                count: u64::MAX,
            };
            assert_eq!(Entry::decode(entry.encode()), Some(entry));
        }
        assert_eq!(Entry::decode([0; Entry::SIZE]), None);
        assert_eq!(Entry::decode([0xff; Entry::SIZE]), None);
    }
}
