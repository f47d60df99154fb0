//! Interrupts: simulated devices raise them, nobody is interrupted; waiting sleeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static PENDING: AtomicU64 = AtomicU64::new(0);

/// Makes interrupt `irq` (0 to 63) pending.
pub fn raise(irq: u32) {
    PENDING.fetch_or(1 << irq, Ordering::AcqRel);
}

/// Lets interrupts of `irq` through, as they are anyway.
pub fn enable(_irq: u32) {}

/// Waits until an interrupt comes or [`monotonic`](crate::clock::monotonic) time `deadline`
/// is reached. A hosted machine without a deadline would wait for ever: it returns at once.
pub fn wait(deadline: Option<u64>) {
    if let Some(deadline) = deadline {
        let left = deadline.saturating_sub(crate::clock::monotonic());
        std::thread::sleep(Duration::from_nanos(left));
    }
}

/// Makes an interrupt come at [`monotonic`](crate::clock::monotonic) time `deadline`, in place of
/// the one asked for before; `None` for none.
pub fn set_timer(_deadline: Option<u64>) {}

/// Whether somebody has asked for a report: nobody does.
pub fn take_report_request() -> bool {
    false
}

/// The device interrupts that came since the last call, by IRQ number: bit N is IRQ N.
pub fn take_pending() -> u64 {
    PENDING.swap(0, Ordering::AcqRel)
}
