//! The program that a process runs.

use crate::file::{Executed, Place};
use core::ops::Range;

/// The program that a process runs, as it was loaded.
#[derive(Default)]
pub struct Executable {
    /// The file and how it was reached, if that is known.
    pub place: Option<Place>,
    /// Where its arguments are in memory, and its environment: strings that end with NULs.
    pub arguments: Range<u64>,
    /// As above.
    pub environment: Range<u64>,
    /// Keeps the file from being written.
    pub executed: Option<Executed>,
}
