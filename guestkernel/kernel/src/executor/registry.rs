//! What exists in the executor, for reports: tasks, rings, devices. Nothing that runs depends on it.
//!
//! Entries are weak references in one list for each CPU that made some, so that threads that start
//! and end on different CPUs do not meet here.

use super::MAX_CPUS;
use crate::globals::global;
use alloc::string::String;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::fmt::{self, Display, Write};
use machine::lock::Mutex;

/// Something that a report has a line for.
pub trait Listed: Send + Sync {
    /// Says what it is, what it does or waits for, and where. A report may be asked for at any
    /// moment, by a kernel that has stopped making progress too: this takes no lock that may be
    /// held for long, and waits for none (`try_lock`).
    fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Tries to take a list's lock. It is held for a moment only, unless its CPU is stuck.
const TRIES: usize = 10_000;

global! {
    static LISTS: [Mutex<List>; MAX_CPUS] = [const { Mutex::new(List::new()) }; MAX_CPUS];
}

/// Entries, in slots that are used again.
struct List {
    slots: Vec<ListEntry>,
    first_free: Option<usize>,
}

enum ListEntry {
    /// Nothing; the next free slot, if there is one.
    Free(Option<usize>),
    Used(Weak<dyn Listed>),
}

/// The place of an entry, which is gone when this is dropped.
pub struct Listing {
    list: usize,
    slot: usize,
}

/// Has reports list `entry` while the result exists, which is best a part of it.
pub fn list(entry: Weak<dyn Listed>) -> Listing {
    let list = machine::current_cpu() as usize % MAX_CPUS;
    let slot = LISTS[list].lock().add(entry);
    Listing { list, slot }
}

impl Drop for Listing {
    fn drop(&mut self) {
        LISTS[self.list].lock().remove(self.slot);
    }
}

impl List {
    const fn new() -> Self {
        Self {
            slots: Vec::new(),
            first_free: None,
        }
    }

    fn add(&mut self, entry: Weak<dyn Listed>) -> usize {
        if let Some(index) = self.first_free
            && let Some(slot) = self.slots.get_mut(index)
            && let ListEntry::Free(next) = *slot
        {
            self.first_free = next;
            *slot = ListEntry::Used(entry);
            return index;
        }
        self.slots.push(ListEntry::Used(entry));
        self.slots.len() - 1
    }

    fn remove(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = ListEntry::Free(self.first_free);
            self.first_free = Some(index);
        }
    }
}

/// Calls `each` with all that is listed now. What comes or goes meanwhile may be missed.
pub fn for_each_listed(mut each: impl FnMut(&dyn Listed)) {
    for list in LISTS.iter() {
        for index in 0.. {
            let Some(lock) = (0..TRIES).find_map(|_| {
                core::hint::spin_loop();
                list.try_lock()
            }) else {
                break;
            };
            let entry = match lock.slots.get(index) {
                None => break,
                Some(ListEntry::Free(_)) => continue,
                Some(ListEntry::Used(entry)) => entry.upgrade(),
            };
            // Its last owner may be this one, and then removes it from the list.
            drop(lock);
            if let Some(entry) = entry {
                each(&*entry);
            }
        }
    }
}

/// Writes a line for everything that is listed.
///
/// # Errors
///
/// Those of `out`.
pub fn report(out: &mut dyn Write) -> fmt::Result {
    let mut result = Ok(());
    for_each_listed(|entry| {
        if result.is_ok() {
            result = writeln!(out, "{}", Shown(entry));
        }
    });
    result
}

/// Prints a line for everything that is listed on the serial port, and what all CPUs do.
#[cold]
pub(super) fn print() {
    machine::report_cpus();
    let mut text = String::from("tasks:\n");
    // A string takes all text.
    let _ = report(&mut text);
    machine::serial::write(text.as_bytes());
}

struct Shown<'a>(&'a dyn Listed);

impl Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::sync::Arc;

    struct Named(&'static str);

    impl Listed for Named {
        fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "named {}", self.0)
        }
    }

    fn list_arc(value: &Arc<Named>) -> Listing {
        let weak: Weak<Named> = Arc::downgrade(value);
        list(weak)
    }

    fn is_listed(name: &str) -> bool {
        let mut text = String::new();
        report(&mut text).unwrap();
        text.lines().any(|line| line == name)
    }

    #[test]
    fn what_exists_is_listed_and_nothing_else() {
        let (first, second) = (Arc::new(Named("first")), Arc::new(Named("second")));
        let (place, other) = (list_arc(&first), list_arc(&second));
        assert!(is_listed("named first") && is_listed("named second"));
        drop(place);
        assert!(!is_listed("named first") && is_listed("named second"));
        let again = list_arc(&first);
        assert!(is_listed("named first"));
        drop(first);
        assert!(!is_listed("named first"), "it is gone, its place is not");
        drop((again, other));
        assert!(!is_listed("named second"));
    }
}
