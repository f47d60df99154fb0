//! Reports of stalls: kept for tests, and printed.

use core::fmt;
use std::sync::{Mutex, PoisonError};

static REPORTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Prints a stall.
pub(crate) fn stall(what: fmt::Arguments<'_>, panics: bool) {
    eprintln!("stall: {what}");
    let mut reports = REPORTS.lock().unwrap_or_else(PoisonError::into_inner);
    reports.push(what.to_string());
    assert!(!panics, "stall");
}

/// What was reported so far.
#[cfg(test)]
pub(crate) fn reports() -> Vec<String> {
    REPORTS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Prints what all CPUs do: nobody asks.
pub fn cpus() {}
