//! Interrupts: simulated devices raise them, nobody is interrupted; waiting passes simulated time.

use std::cell::Cell;

thread_local! {
    static PENDING: Cell<u64> = const { Cell::new(0) };
}

/// Makes interrupt `irq` (0 to 63) pending.
pub fn raise(irq: u32) {
    PENDING.set(PENDING.get() | 1 << irq);
}

/// Lets interrupts of `irq` through, as they are anyway.
pub fn enable(_irq: u32) {}

/// Waits until an interrupt comes or [`monotonic`](crate::clock::monotonic) time `deadline`
/// is reached.
///
/// # Panics
///
/// Without a deadline or a pending interrupt: nothing would ever end the wait, since simulated
/// devices work on the driver's thread.
pub fn wait(deadline: Option<u64>) {
    match deadline {
        Some(deadline) => super::clock::advance(deadline),
        None => assert!(PENDING.get() != 0, "waits for what never comes"),
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
    PENDING.take()
}
