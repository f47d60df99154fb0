//! What the vCPUs and the thread that talks to a debugger share: breakpoints, and the news of stops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlet_devices::Memory;
use vmm_sys_util::eventfd::EventFd;

use super::Image;
use super::breakpoints::{Breakpoints, Watch};
use crate::outcome::Outcome;

/// What a debugger asks of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run to the next breakpoint.
    Continue,
    /// Execute one instruction.
    Step,
}

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One instruction was executed.
    Step,
    /// An INT3 of the debugger.
    Patch,
    /// A debug register.
    Watch(Watch),
    /// The vCPU cannot go on; if it is made to, the VM ends.
    Crash,
}

/// What the thread that talks to the debugger hears.
#[derive(Debug)]
pub enum Event {
    /// This vCPU stopped, and is held.
    Stopped(usize, Reason),
    /// The VM has ended.
    Over(Outcome),
}

/// What all vCPUs and the stub's thread share.
pub struct Session {
    /// Guest RAM.
    pub memory: Memory,
    /// The kernel.
    pub image: Arc<Image>,
    /// Whether the host's KVM has VMX or SVM.
    pub native: bool,
    /// Readable when there is an event.
    pub wake: EventFd,
    events: Sender<Event>,
    breakpoints: Mutex<Breakpoints>,
    attached: AtomicBool,
}

impl Session {
    /// A session whose events go to `events`, announced by `wake`.
    pub fn new(
        memory: Memory,
        image: Arc<Image>,
        native: bool,
        wake: EventFd,
        events: Sender<Event>,
    ) -> Self {
        Self {
            memory,
            image,
            native,
            wake,
            events,
            breakpoints: Mutex::default(),
            attached: AtomicBool::new(false),
        }
    }

    /// The breakpoints.
    pub fn breakpoints(&self) -> MutexGuard<'_, Breakpoints> {
        self.breakpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a debugger is there.
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// Says whether a debugger is there.
    pub fn set_attached(&self, attached: bool) {
        self.attached.store(attached, Ordering::Release);
    }

    /// Tells the stub's thread.
    pub fn tell(&self, event: Event) {
        // Without a receiver the stub has ended.
        let _ = self.events.send(event);
        // It fails only when the counter is full, and then it is readable.
        let _ = self.wake.write(1);
    }
}

/// Whether the host's processor has VMX or SVM, without which KVM emulates CPL 0.
pub fn has_hardware_virtualization() -> bool {
    use std::arch::x86_64::__cpuid;
    const EXTENDED: u32 = 0x8000_0001;
    let vmx = __cpuid(1).ecx >> 5 & 1 == 1;
    let svm =
        __cpuid(EXTENDED & 0xffff_0000).eax >= EXTENDED && __cpuid(EXTENDED).ecx >> 2 & 1 == 1;
    vmx || svm
}
