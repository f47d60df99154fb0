//! Doorbells put off: a device is told once of all requests of a batch.

use super::kick_devices;
use crate::globals::global;
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::MAX_CPUS;

/// Batches of one CPU, which are begun and ended there: nobody waits while he holds one. In a
/// cache line of its own.
#[repr(align(64))]
struct Count(AtomicUsize);

global! {
    static BATCHES: [Count; MAX_CPUS] = [const { Count(AtomicUsize::new(0)) }; MAX_CPUS];
}

fn batches() -> &'static AtomicUsize {
    &BATCHES[machine::current_cpu() as usize % MAX_CPUS].0
}

/// Whether requests that this CPU submits now are told to the device later.
pub fn is_batching() -> bool {
    batches().load(Ordering::Relaxed) > 0
}

/// While one exists, devices are not told of this CPU's requests; when the last is dropped they are
/// told of all at once. A doorbell costs a few microseconds, so whoever submits several requests in
/// a row holds one meanwhile, but never while waiting.
#[derive(Debug)]
pub struct Batch(());

impl Batch {
    /// Starts a batch.
    #[expect(clippy::new_without_default, reason = "starting one has an effect")]
    pub fn new() -> Self {
        batches().fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if batches().fetch_sub(1, Ordering::Relaxed) == 1 {
            kick_devices();
        }
    }
}
