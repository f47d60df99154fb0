//! What a guest may ask of a disk in a second.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::request::Action;
use crate::Buffers;
use crate::bucket::Bucket;
use crate::chain::total;

/// Limits on a disk, each with bursts of what is allowed in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests a second.
    pub iops: Option<NonZeroU64>,
    /// Bytes a second that are read, written or zeroed.
    pub bps: Option<NonZeroU64>,
}

/// Says when the next request may be taken.
#[derive(Debug)]
pub(super) struct Throttle {
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Throttle {
    pub(super) fn new(limits: Limits) -> Self {
        let bucket = |rate: NonZeroU64| Bucket::new(rate.get(), rate.get());
        Self {
            requests: limits.iops.map(bucket),
            bytes: limits.bps.map(bucket),
        }
    }

    /// How long no request may be taken; zero if one may be.
    pub(super) fn wait(&self) -> Duration {
        let buckets = || self.requests.iter().chain(&self.bytes);
        if buckets().next().is_none() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let waits = buckets().map(|bucket| bucket.wait(now));
        waits.max().unwrap_or_default()
    }

    /// Counts a request that was taken, whose data is in `buffers`.
    pub(super) fn count(&mut self, action: Action, buffers: &Buffers) {
        if let Some(requests) = &mut self.requests {
            requests.take(1, Instant::now());
        }
        if let Some(bytes) = &mut self.bytes {
            let count = match action {
                Action::Read(_) => total(&buffers.writable),
                Action::Write(_) => total(&buffers.readable),
                Action::WriteZeroes { len, .. } => len,
                Action::Flush | Action::Discard { .. } | Action::GetId => 0,
            };
            bytes.take(count, Instant::now());
        }
    }
}
