//! The hosted backend: memory on the heap, programs that are closures, the host's clock.
//!
//! For tests, fuzzing and Miri. Install a program with [`set_program`]; every
//! [`UserContext::run`] of that thread then calls it.

pub mod clock;
pub mod device;
pub mod heap;
pub mod interrupt;
pub mod mmio;
pub mod mode;
pub mod models;
pub mod power;
pub mod serial;

pub(crate) use mmio::{read_register, write_register};

use crate::frame::{self, Frame, FrameState};
use crate::page_table::Space;
use crate::user::{Trap, UserContext};
use std::alloc::{Layout, alloc_zeroed};
use std::cell::RefCell;
use std::sync::OnceLock;

/// Page frames of simulated RAM.
const FRAMES: u32 = if cfg!(miri) { 2048 } else { 65536 };

pub(crate) const USER_CS: u64 = 0x33;
pub(crate) const USER_SS: u64 = 0x2b;

/// Nothing beyond the general registers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContextState {}

/// A simulated program.
pub type Program = Box<dyn FnMut(&mut UserContext) -> Trap>;

thread_local! {
    static PROGRAM: RefCell<Option<Program>> = const { RefCell::new(None) };
}

/// Makes `program` what [`UserContext::run`] runs on this thread.
pub fn set_program(program: Program) {
    PROGRAM.with(|slot| *slot.borrow_mut() = Some(program));
}

pub(crate) fn run(context: &mut UserContext, space: &Space) -> Trap {
    debug_assert!(space.0.address().0 != 0, "every space has a page map");
    PROGRAM.with(|slot| match slot.borrow_mut().as_mut() {
        Some(program) => program(context),
        None => Trap::Interrupt,
    })
}

pub(crate) fn syscall_gate_address() -> Option<u64> {
    None
}

struct Memory(*mut u8);
// SAFETY: only a pointer to memory that is never freed; who may access what is `Frame`'s affair.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

static MEMORY: OnceLock<Memory> = OnceLock::new();

pub(crate) fn physical_map() -> *mut u8 {
    MEMORY
        .get_or_init(|| {
            let layout = Layout::from_size_align(FRAMES as usize * 4096, 4096)
                .expect("the layout is constant");
            // SAFETY: the layout has a size.
            let memory = unsafe { alloc_zeroed(layout) };
            assert!(!memory.is_null(), "no memory for the simulated machine");
            Memory(memory)
        })
        .0
}

pub(crate) fn initialise() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let states: Vec<_> = (0..FRAMES).map(|_| FrameState::default()).collect();
        frame::initialise(states.leak(), core::iter::once(1..FRAMES));
    });
}

/// Copies `count` bytes.
///
/// # Safety
///
/// Both ranges must be valid.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller's promise. Tests do not change memory behind the kernel's back while it
    // copies, so a plain copy will do.
    unsafe { core::ptr::copy(from, to, count) }
}

/// Sets `count` bytes.
///
/// # Safety
///
/// The range must be valid.
pub(crate) unsafe fn fill(to: *mut u8, value: u8, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { to.write_bytes(value, count) }
}

pub(crate) fn map_kernel(_root: &Frame) {}

pub(crate) fn flush_tlb() {}
