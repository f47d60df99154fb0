//! The interrupt line of a device, as its driver sees it.

use crate::globals::global;
use core::sync::atomic::{AtomicU64, Ordering};

global! {
    /// Interrupts that came and that no driver has looked at, by number.
    static PENDING: AtomicU64 = AtomicU64::new(0);
}

/// How a machine's devices interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// Each interrupt is a pulse: there is nothing to take back.
    Edge,
    /// The device holds the line until the driver acknowledges.
    Level,
}

/// The interrupt line of one device.
#[derive(Debug)]
pub(super) struct InterruptLine {
    bit: u64,
    trigger: Trigger,
}

impl InterruptLine {
    /// Lets the interrupts of `irq` through.
    pub(super) fn enable(irq: u32, trigger: Trigger) -> Self {
        machine::interrupt::enable(irq);
        Self {
            bit: 1_u64.checked_shl(irq).unwrap_or(0),
            trigger,
        }
    }

    /// Whether the device has interrupted since the last call.
    #[inline]
    pub(super) fn take(&self) -> bool {
        let new = machine::interrupt::take_pending();
        if new != 0 {
            PENDING.fetch_or(new, Ordering::AcqRel);
        }
        PENDING.load(Ordering::Relaxed) & self.bit != 0
            && PENDING.fetch_and(!self.bit, Ordering::AcqRel) & self.bit != 0
    }

    /// Whether the device must be told that its interrupt was seen.
    pub(super) fn needs_acknowledgement(&self) -> bool {
        self.trigger == Trigger::Level
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::hosted::interrupt::raise;

    #[test]
    fn an_interrupt_waits_for_its_driver() {
        let lines = [61, 62].map(|irq| InterruptLine::enable(irq, Trigger::Edge));
        raise(61);
        raise(62);
        assert!(lines[1].take());
        assert!(!lines[1].take());
        assert!(lines[0].take(), "another driver took it");
        assert!(!InterruptLine::enable(64, Trigger::Edge).take());
    }
}
