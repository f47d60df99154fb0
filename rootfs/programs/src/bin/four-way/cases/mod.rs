//! All cases, by family.

mod attributes;
mod descriptors;
mod files;
mod memory;
mod paths;
mod processes;
mod rings;
mod schedule;
mod signals;
mod time;
mod transfers;

use crate::case::Case;

/// All of them, in an order that does not change while the program runs.
pub(crate) fn all() -> Vec<Case> {
    let families = [
        transfers::cases(),
        files::cases(),
        descriptors::cases(),
        paths::cases(),
        attributes::cases(),
        memory::cases(),
        processes::cases(),
        schedule::cases(),
        signals::cases(),
        time::cases(),
        rings::cases(),
    ];
    families.into_iter().flatten().collect()
}
