//! A device's way to the driver: interrupt, configuration generation, and the failed state.

use std::fmt::Display;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{Stop, poll};

/// Bit of `InterruptStatus`: the device used a buffer (VIRTIO 1.2, 4.2.2).
pub(crate) const USED_BUFFER: u32 = 1;
/// Bit of `InterruptStatus`: the configuration or the device status changed.
pub(crate) const CONFIG_CHANGE: u32 = 2;

/// How long after a failure the driver is told again; the first and the longest of the times between.
const REMINDERS: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(256)];

/// The interrupt of one device, shared by its transport and its workers.
pub struct Interrupt {
    name: String,
    line: RwLock<EventFd>,
    status: AtomicU32,
    generation: AtomicU32,
    failed: AtomicBool,
    /// A failure was logged: a guest that resets the device may not have it logged again and again.
    is_told: AtomicBool,
}

impl Interrupt {
    /// An interrupt for the device `name`.
    ///
    /// # Errors
    ///
    /// Those of eventfd(2).
    pub fn new(name: &str) -> io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            line: RwLock::new(EventFd::new(EFD_NONBLOCK)?),
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
        })
    }

    /// The event to register as an irqfd: each write is one edge.
    pub fn line(&self) -> RwLockReadGuard<'_, EventFd> {
        self.line.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `line` written to in place of the event so far. What that was told last may be lost, so
    /// the driver hears of it again.
    pub(crate) fn replace_line(&self, line: EventFd) {
        *self.line.write().unwrap_or_else(PoisonError::into_inner) = line;
        self.raise(USED_BUFFER);
    }

    /// Tells the driver that a buffer was used.
    pub fn used_buffer(&self) {
        self.raise(USED_BUFFER);
    }

    /// Tells the driver that the configuration space changed.
    pub fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.raise(CONFIG_CHANGE);
    }

    /// Marks the device failed (DEVICE_NEEDS_RESET). The first `why` of the device's life is a warning,
    /// later ones are for who looks for them.
    pub fn fail(&self, why: &dyn Display) {
        if self.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        let level = match self.is_told.swap(true, Ordering::AcqRel) {
            false => log::Level::Warn,
            true => log::Level::Debug,
        };
        log::log!(
            level,
            "{}: device stopped, it needs a reset: {why}",
            self.name
        );
        self.raise(CONFIG_CHANGE);
    }

    /// As [`fail`](Self::fail), and tells the driver again and again, until `stop` is requested. Interrupts
    /// that come together are one to the driver: it may have taken this one for that of a request that
    /// was done before, and whatever it asks for next would not be answered.
    pub(crate) fn fail_until(&self, stop: &Stop, why: &dyn Display) {
        self.fail(why);
        let [mut interval, longest] = REMINDERS;
        while !stop.requested() {
            // An error comes only from a descriptor that is none.
            if poll::readable_within([poll::borrow(stop.event())], interval).is_err() {
                return;
            }
            interval = longest.min(2 * interval);
            self.raise(CONFIG_CHANGE);
        }
    }

    /// Whether the device was marked failed since the last reset.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The `InterruptStatus` register.
    pub(crate) fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    /// The driver's write to `InterruptACK`.
    pub(crate) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::AcqRel);
    }

    /// The `ConfigGeneration` register.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Back to the state of a device that was reset.
    pub(crate) fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.failed.store(false, Ordering::Release);
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::AcqRel);
        // It fails only when 2^64 - 2 edges wait, and then one edge more or less is the same.
        let _ = self.line().write(1);
    }
}
