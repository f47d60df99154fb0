//! There is no TLB to flush.

use crate::flush::FlushWay;

/// Chooses nothing.
pub fn choose_flush(_wanted: Option<FlushWay>) -> FlushWay {
    FlushWay::Invalidate
}

/// Checks nothing.
pub fn check_flush(_rounds: u32) {}
