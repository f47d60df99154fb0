//! What the program asked for and this kernel does not have, counted for the VMM
//! ([`ringlet_abi::missing`]).

use crate::file::{FileType, OpenFile};
use crate::globals::global;
use core::sync::atomic::Ordering;
use linux_raw_sys::ioctl::TCGETS;
use machine::lock::Mutex;
use machine::{Frame, power};
use ringlet_abi::missing::{ENTRIES, Entry};

pub(crate) use ringlet_abi::missing::Kind;

global! {
    /// The table, once there is something in it.
    static TABLE: Mutex<Option<Frame>> = Mutex::new(None);
}

/// Counts that `number` was asked for. What does not fit into the table any more is left out.
#[cold]
pub(crate) fn note(kind: Kind, number: u32) {
    let mut table = TABLE.lock();
    if table.is_none()
        && let Ok(page) = Frame::zeroed()
    {
        power::report_missing(&page);
        *table = Some(page);
    }
    let Some(page) = &*table else {
        return;
    };
    for offset in (0..ENTRIES).map(|index| index * Entry::SIZE) {
        match Entry::decode(page.read_array(offset)) {
            Some(entry) if (entry.kind, entry.number) == (kind, number) => {
                let count = page.atomic_u64(offset + Entry::COUNT);
                count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Some(_) => {}
            None => {
                let entry = Entry {
                    kind,
                    number,
                    count: 1,
                };
                page.write(offset, &entry.encode());
                return;
            }
        }
    }
}

/// Counts an ioctl that `file` refused, if it is one that another kernel might have: of a device, and
/// not the question whether that is a terminal.
#[cold]
pub(crate) fn note_ioctl(file: &OpenFile, request: u32) {
    let kind = file.file_type();
    let is_device = matches!(kind, Some(FileType::CharDevice | FileType::BlockDevice));
    if is_device && request != TCGETS {
        note(Kind::Ioctl, request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn table() -> Vec<Entry> {
        let table = TABLE.lock();
        let page = table.as_ref().unwrap();
        (0..ENTRIES)
            .map_while(|index| Entry::decode(page.read_array(index * Entry::SIZE)))
            .collect()
    }

    #[test]
    fn each_is_counted_for_itself_until_the_table_is_full() {
        for _ in 0..3 {
            note(Kind::SystemCall, 7);
        }
        note(Kind::Opcode, 7);
        let counts: Vec<_> = table().iter().map(|entry| entry.count).collect();
        assert_eq!(counts, [3, 1]);
        for number in 0..2 * ENTRIES as u32 {
            note(Kind::Ioctl, number);
        }
        assert_eq!(table().len(), ENTRIES);
        note(Kind::SystemCall, 7);
        assert_eq!(table()[0].count, 4);
    }
}
