//! Devices as the executor sees them: something to poll, and to arm before the CPU does
//! something else.

use super::registry::{Listed, Listing, list};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::iter::successors;
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::lock::Mutex;
use spin::Once;

/// A device that completes requests.
pub trait Device: Listed {
    /// Takes what the device has completed and wakes those who wait for it; true if there was
    /// anything.
    fn poll(&self) -> bool;

    /// Whether requests are under way of which somebody expects completion soon, so that it is
    /// worth while to spin: not so for input that may never come.
    fn in_flight(&self) -> bool;

    /// Asks for an interrupt at the next completion; true if something has completed already,
    /// which the caller then polls instead of waiting.
    fn arm(&self) -> bool;
}

/// A device, and those that were added after it.
struct Node {
    device: Arc<dyn Device>,
    _listing: Listing,
    next: Next,
}

type Next = Once<Box<Node>>;

/// The first device. They are only ever added, so that CPUs that poll go through the list without
/// writing to it: a lock, even one for readers, would move from CPU to CPU with each poll.
static FIRST: Next = Once::new();
/// Held while one is added.
static ADDING: Mutex<()> = Mutex::new(());
static URGENT: AtomicUsize = AtomicUsize::new(0);

/// Has the executor poll `device` from now on.
pub fn add_device(device: Arc<dyn Device>) {
    let _adding = ADDING.lock();
    let listed: Weak<dyn Device> = Arc::downgrade(&device);
    let end = nodes().last().map_or(&FIRST, |last| &last.next);
    end.call_once(|| {
        Box::new(Node {
            device,
            _listing: list(listed),
            next: Once::new(),
        })
    });
}

fn nodes() -> impl Iterator<Item = &'static Node> {
    let get = |next: &'static Next| next.get().map(|node| &**node);
    successors(get(&FIRST), move |node| get(&node.next))
}

fn devices() -> impl Iterator<Item = &'static dyn Device> {
    nodes().map(|node| &*node.device)
}

/// Takes what devices have completed; false if nothing was.
pub fn poll_devices() -> bool {
    devices().fold(false, |progress, device| progress | device.poll())
}

pub(super) fn in_flight() -> bool {
    devices().any(Device::in_flight)
}

/// Asks all devices for interrupts; true if one has completed something already.
pub(super) fn arm() -> bool {
    devices().fold(false, |pending, device| pending | device.arm())
}

/// Held while something must make progress even if the program never enters the kernel: a CQE
/// that it polls for, a signal. While nobody holds one, completions and timers are not looked at
/// until the program makes a system call, which saves the interrupts.
#[derive(Debug)]
pub struct Urgent(());

impl Urgent {
    /// Takes one more.
    #[expect(clippy::new_without_default, reason = "taking one has an effect")]
    pub fn new() -> Self {
        URGENT.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        URGENT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether anybody holds an [`Urgent`].
#[inline]
pub(super) fn is_urgent() -> bool {
    URGENT.load(Ordering::Relaxed) > 0
}
