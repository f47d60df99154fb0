//! Cases in which the guest's kernel is known to do something else than Linux.

use crate::program::Door;

/// Lines of a door and a case. They are to become none; what agrees must be taken out.
const KNOWN_FAULTS: &str = include_str!("known_faults.txt");

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = (Door, &'static str)> {
    KNOWN_FAULTS.lines().filter_map(|line| {
        let (door, case) = line.split_once(' ')?;
        Some((Door::named(door)?, case))
    })
}

/// Whether that case is one, through that door.
pub(crate) fn contains(door: Door, case: &str) -> bool {
    all().any(|known| known == (door, case))
}
