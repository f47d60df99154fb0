//! Devices as the executor sees them: something to poll, and to arm before the CPU does
//! something else.

use super::registry::{Listed, Listing, list};
use super::{MAX_CPUS, this_cpu};
use crate::globals::global;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::iter::successors;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

    /// Asks for an interrupt at the next completion, if requests are under way; true if something
    /// has completed already, which the caller then polls instead of waiting. Polling takes the wish
    /// back.
    fn arm(&self) -> bool;

    /// Tells the device of requests that it does not know of, if there are any.
    fn kick(&self);
}

/// A device, and those that were added after it.
struct Node {
    device: Arc<dyn Device>,
    _listing: Listing,
    next: Next,
}

type Next = Once<Box<Node>>;

global! {
    /// The first device. They are only ever added, so that CPUs that poll go through the list
    /// without writing to it: a lock, even one for readers, would move from CPU to CPU with each poll.
    static FIRST: Next = Once::new();
}
/// Held while one is added.
static ADDING: Mutex<()> = Mutex::new(());

global! {
    /// How many [`Urgent`] there are.
    static URGENT: AtomicUsize = AtomicUsize::new(0);
}

/// Has the executor poll `device` from now on.
pub fn add_device(device: Arc<dyn Device>) {
    let _adding = ADDING.lock();
    let listed: Weak<dyn Device> = Arc::downgrade(&device);
    let end = nodes().last().map_or(first(), |last| &last.next);
    end.call_once(|| {
        Box::new(Node {
            device,
            _listing: list(listed),
            next: Once::new(),
        })
    });
}

fn first() -> &'static Next {
    &FIRST
}

fn nodes() -> impl Iterator<Item = &'static Node> {
    let get = |next: &'static Next| next.get().map(|node| &**node);
    successors(get(first()), move |node| get(&node.next))
}

fn devices() -> impl Iterator<Item = &'static dyn Device> {
    nodes().map(|node| &*node.device)
}

/// Takes what devices have completed; false if nothing was.
pub fn poll_devices() -> bool {
    note_request();
    devices().fold(false, |progress, device| progress | device.poll())
}

/// Tells all devices of requests that they do not know of.
pub fn kick_devices() {
    devices().for_each(Device::kick);
}

pub(super) fn in_flight() -> bool {
    devices().any(Device::in_flight)
}

/// Asks all devices for interrupts; true if one has completed something already.
pub(super) fn arm() -> bool {
    let is_pending = devices().fold(false, |pending, device| pending | device.arm());
    is_armed().store(!is_pending, Ordering::Relaxed);
    is_pending
}

/// Notes that this CPU has given a device a request, so that it asks for an interrupt.
#[inline]
pub fn note_request() {
    let is_armed = is_armed();
    if is_armed.load(Ordering::Relaxed) {
        is_armed.store(false, Ordering::Relaxed);
    }
}

/// As [`arm`], before this CPU runs a program; nothing if it has neither polled nor changed anything
/// since it asked last. Another CPU that has is in the kernel still, and asks before it leaves.
#[inline]
pub(super) fn arm_for_program() -> bool {
    !is_armed().load(Ordering::Relaxed) && arm()
}

/// Whether this CPU has asked for interrupts and neither polled nor changed anything since. Only the
/// CPU itself looks at it, so it is in a cache line of its own and orders nothing.
fn is_armed() -> &'static AtomicBool {
    #[repr(align(64))]
    struct Line(AtomicBool);
    global! {
        static ARMED: [Line; MAX_CPUS] = [const { Line(AtomicBool::new(false)) }; MAX_CPUS];
    }
    &ARMED[this_cpu() as usize % MAX_CPUS].0
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
