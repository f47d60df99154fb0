//! Doorbells put off: a device is told once of all requests of a batch.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::lock::RwLock;

/// A device that is told of new requests.
pub(super) trait Doorbell: Send + Sync {
    /// Tells the device of requests that it does not know of, if there are any.
    fn kick(&self);
}

static DOORBELLS: RwLock<Vec<Arc<dyn Doorbell>>> = RwLock::new(Vec::new());
static BATCHES: AtomicUsize = AtomicUsize::new(0);

/// Has the end of a batch ring `doorbell`.
pub(super) fn register(doorbell: Arc<dyn Doorbell>) {
    DOORBELLS.write().push(doorbell);
}

/// Whether requests that are submitted now are told to the device later.
pub(super) fn is_batching() -> bool {
    BATCHES.load(Ordering::Relaxed) > 0
}

/// While one exists, devices are not told of requests; when the last is dropped they are told of
/// all at once. A doorbell costs a few microseconds, so whoever submits several requests in a row
/// holds one meanwhile, but never while waiting.
#[derive(Debug)]
pub struct Batch(());

impl Batch {
    /// Starts a batch.
    #[expect(clippy::new_without_default, reason = "starting one has an effect")]
    pub fn new() -> Self {
        BATCHES.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if BATCHES.fetch_sub(1, Ordering::Relaxed) == 1 {
            DOORBELLS.read().iter().for_each(|doorbell| doorbell.kick());
        }
    }
}
