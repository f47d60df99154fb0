//! The hosted backend: memory on the heap, programs that are closures, simulated time.
//!
//! For tests, fuzzing and Miri. Install a program with [`set_program_in`], and every
//! [`UserContext::run`] in that address space calls it; or with [`set_program`], for all others.
//!
//! Tests run beside each other, so each thread of the host has a machine of its own, but for memory
//! and device registers, in which nobody is in another's way.

pub mod clock;
pub mod device;
pub mod extended;
pub mod heap;
pub mod interrupt;
pub mod mmio;
pub mod mode;
pub mod models;
pub mod power;
#[cfg(feature = "provoke")]
pub mod provoke;
pub(crate) mod report;
pub mod serial;
pub mod smp;
pub(crate) mod watch;

pub(crate) use mmio::{read_register, write_register};

use crate::frame::{self, BLOCK, BlockState, Frame, FrameState};
use crate::page_table::Space;
use crate::user::{Trap, UserContext};
use std::alloc::{Layout, alloc_zeroed};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::OnceLock;

/// Page frames of simulated RAM.
const FRAMES: u32 = if cfg!(miri) { 2048 } else { 65536 };

pub(crate) const USER_CS: u64 = 0x33;
pub(crate) const USER_SS: u64 = 0x2b;

/// What FXSAVE would store: nothing changes it but who sets it.
#[derive(Clone, Debug)]
pub(crate) struct ContextState {
    extended: [u8; extended_size()],
}

impl Default for ContextState {
    fn default() -> Self {
        Self {
            extended: [0; extended_size()],
        }
    }
}

pub(crate) const fn extended_size() -> usize {
    512
}

pub(crate) fn extended_features() -> u64 {
    0
}

impl ContextState {
    pub(crate) fn extended(&mut self) -> &[u8] {
        &self.extended
    }

    pub(crate) fn set_extended(&mut self, fill: impl FnOnce(&mut [u8]) -> bool) -> bool {
        let is_filled = fill(&mut self.extended);
        if !is_filled {
            self.reset_extended();
        }
        is_filled
    }

    pub(crate) fn reset_extended(&mut self) {
        self.extended.fill(0);
    }

    pub(crate) fn leave_with_all_registers(&mut self) {}

    pub(crate) fn gs_base(&self) -> Option<u64> {
        None
    }

    pub(crate) fn set_gs_base(&mut self, _base: u64) -> bool {
        false
    }
}

/// A simulated program.
pub type Program = Box<dyn FnMut(&mut UserContext) -> Trap>;

struct Programs {
    /// By the address of the page map, which each entry keeps from being used again.
    by_space: BTreeMap<u64, (Space, Rc<RefCell<Program>>)>,
    otherwise: Option<Rc<RefCell<Program>>>,
}

thread_local! {
    static PROGRAMS: RefCell<Programs> = const {
        RefCell::new(Programs {
            by_space: BTreeMap::new(),
            otherwise: None,
        })
    };
}

/// Makes `program` what [`UserContext::run`] runs in `space`, for all threads of the program.
pub fn set_program_in(space: &Space, program: Program) {
    let entry = (space.clone(), Rc::new(RefCell::new(program)));
    PROGRAMS.with_borrow_mut(|programs| {
        programs.by_space.insert(space.0.address().0, entry);
    });
}

/// Makes `program` what [`UserContext::run`] runs in address spaces that have no program.
pub fn set_program(program: Program) {
    PROGRAMS.with_borrow_mut(|programs| {
        programs.otherwise = Some(Rc::new(RefCell::new(program)));
    });
}

pub(crate) fn run(context: &mut UserContext, space: &Space) -> Trap {
    let program = PROGRAMS.with_borrow(|programs| {
        let own = programs.by_space.get(&space.0.address().0);
        own.map(|(_, program)| program.clone())
            .or_else(|| programs.otherwise.clone())
    });
    match program {
        Some(program) => program.borrow_mut()(context),
        None => Trap::Interrupt,
    }
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
        let blocks: Vec<_> = (0..FRAMES.div_ceil(BLOCK))
            .map(|_| BlockState::default())
            .collect();
        frame::initialise(states.leak(), blocks.leak(), core::iter::once(1..FRAMES));
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

pub(crate) fn flush_tlb(_root: u64, _pages: Option<&[u64]>) {}
