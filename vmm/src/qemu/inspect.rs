//! A look into the guest from outside: what its CPUs do, through QEMU's monitor and guest memory.

use std::sync::{Mutex, PoisonError};

use ringlet_devices::Memory;
use serde_json::json;

use super::monitor::{Monitor, MonitorError};
use super::registers;
use crate::crash;
use crate::debug::Image;
use crate::debug::report::{self, State};

/// Looks into a guest.
pub(super) struct Inspector {
    monitor: Mutex<Monitor>,
    memory: Memory,
    image: Image,
}

impl Inspector {
    /// For a guest with that memory, which runs the kernel `image`.
    pub(super) fn new(monitor: Monitor, memory: Memory, image: Image) -> Self {
        Self {
            monitor: Mutex::new(monitor),
            memory,
            image,
        }
    }

    /// Guest memory.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What the CPUs do, for the user. They stop meanwhile, but not for long: QEMU answers in seconds
    /// or is given up.
    pub(super) fn report(&self) -> String {
        match self.with_stopped(states) {
            Ok(states) => {
                let states: Vec<_> = states.into_iter().map(Ok).collect();
                report::all(&states, &self.memory, &self.image)
            }
            Err(error) => format!("ringlet: {error}\n"),
        }
    }

    /// The report on a guest whose processors QEMU has stopped, since one has triple-faulted.
    ///
    /// # Errors
    ///
    /// [`MonitorError`].
    pub(super) fn triple_fault(&self) -> Result<String, MonitorError> {
        let states = states(&mut self.lock())?;
        Ok(crash::triple_fault(&states, &self.memory, &self.image))
    }

    /// Has `look` done while the guest stands still: registers of one that runs are not up to date.
    fn with_stopped<T>(
        &self,
        look: impl FnOnce(&mut Monitor) -> Result<T, MonitorError>,
    ) -> Result<T, MonitorError> {
        let mut monitor = self.lock();
        let status = monitor.execute("query-status", &json!({}))?;
        let is_running = status["running"].as_bool().unwrap_or(false);
        if is_running {
            monitor.execute("stop", &json!({}))?;
        }
        let result = look(&mut monitor);
        if is_running {
            monitor.execute("cont", &json!({}))?;
        }
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Monitor> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn states(monitor: &mut Monitor) -> Result<Vec<State>, MonitorError> {
    Ok(registers::parse(&monitor.print("info registers -a")?))
}
