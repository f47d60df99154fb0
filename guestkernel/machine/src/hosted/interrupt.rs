//! Interrupts: there are none; waiting sleeps.

use std::time::Duration;

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

/// The device interrupts that came since the last call, by IRQ number: bit N is IRQ N.
pub fn take_pending() -> u64 {
    0
}
