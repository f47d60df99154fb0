//! The program that a process runs.

use crate::file::{Executed, Location};
use alloc::vec::Vec;
use core::ops::Range;

/// The program that a process runs, as it was loaded.
#[derive(Default)]
pub struct Executable {
    /// The path that it was found at.
    pub path: Vec<u8>,
    /// The file, if it is known.
    pub location: Option<Location>,
    /// Where its arguments are in memory, and its environment: strings that end with NULs.
    pub arguments: Range<u64>,
    /// As above.
    pub environment: Range<u64>,
    /// Keeps the file from being written.
    pub(super) _executed: Option<Executed>,
}
