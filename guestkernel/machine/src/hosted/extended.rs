//! Vector and floating-point state: programs that are closures have none.

/// Stores what the registers hold, so that its program can go on on any CPU.
pub fn store_current() {}
