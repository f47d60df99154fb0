//! The hosted backend: memory on the heap, programs that are closures, the host's clock.
//!
//! For tests, fuzzing and Miri. Install a program with [`set_program_in`], and every
//! [`UserContext::run`] in that address space calls it; or with [`set_program`], for all others.

pub mod clock;
pub mod device;
pub mod extended;
pub mod heap;
pub mod interrupt;
pub mod mmio;
pub mod mode;
pub mod models;
pub mod power;
pub mod provoke;
pub(crate) mod report;
pub mod serial;
pub mod smp;
pub(crate) mod watch;

pub(crate) use mmio::{read_register, write_register};

use crate::frame::{self, Frame, FrameState};
use crate::page_table::Space;
use crate::user::{Trap, UserContext};
use std::alloc::{Layout, alloc_zeroed};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Page frames of simulated RAM.
const FRAMES: u32 = if cfg!(miri) { 2048 } else { 65536 };

pub(crate) const USER_CS: u64 = 0x33;
pub(crate) const USER_SS: u64 = 0x2b;

/// Nothing beyond the general registers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContextState {}

impl ContextState {
    pub(crate) fn gs_base(&self) -> Option<u64> {
        None
    }

    pub(crate) fn set_gs_base(&mut self, _base: u64) -> bool {
        false
    }
}

/// A simulated program: whichever thread of the host happens to run the executor runs it.
pub type Program = Box<dyn FnMut(&mut UserContext) -> Trap + Send>;

struct Programs {
    /// By the address of the page map, which each entry keeps from being used again.
    by_space: BTreeMap<u64, (Space, Arc<Mutex<Program>>)>,
    otherwise: Option<Arc<Mutex<Program>>>,
}

static PROGRAMS: Mutex<Programs> = Mutex::new(Programs {
    by_space: BTreeMap::new(),
    otherwise: None,
});

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes `program` what [`UserContext::run`] runs in `space`, for all threads of the program.
pub fn set_program_in(space: &Space, program: Program) {
    let program = Arc::new(Mutex::new(program));
    let entry = (space.clone(), program);
    lock(&PROGRAMS).by_space.insert(space.0.address().0, entry);
}

/// Makes `program` what [`UserContext::run`] runs in address spaces that have no program.
pub fn set_program(program: Program) {
    lock(&PROGRAMS).otherwise = Some(Arc::new(Mutex::new(program)));
}

pub(crate) fn run(context: &mut UserContext, space: &Space) -> Trap {
    let program = {
        let programs = lock(&PROGRAMS);
        let own = programs.by_space.get(&space.0.address().0);
        own.map(|(_, program)| program.clone())
            .or_else(|| programs.otherwise.clone())
    };
    match program {
        Some(program) => lock(&program)(context),
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

pub(crate) fn flush_tlb(_root: u64, _pages: Option<&[u64]>) {}
