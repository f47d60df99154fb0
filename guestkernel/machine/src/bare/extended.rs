//! A program's state beyond what the entry code stores: x87, the upper halves of the vector
//! registers, masks, MXCSR; the segment registers DS and ES, which 32-bit code uses; and in mode `ring0`
//! the GS base.
//!
//! It stays in the CPU's registers while the kernel runs, which uses only the lower halves. It is
//! stored when another program's is to be loaded ([`load`]) or when the program may go on
//! elsewhere ([`store_current`]). XSAVE: Intel SDM volume 1, chapter 13.

use super::mode::is_ring0;
use super::{boot, per_cpu, privileged};
use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use alloc::sync::Arc;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};

/// CPUID leaf that describes the area.
const LEAF_XSAVE: u32 = 0xd;
/// Bytes that FXSAVE stores, where there is no XSAVE.
const FXSAVE_SIZE: usize = 512;
const ALIGNMENT: usize = 64;
/// Where MXCSR is in the area, and its value after reset.
const MXCSR_OFFSET: usize = 24;
const MXCSR_INITIAL: u32 = 0x1f80;

/// Bytes in an area; 0 until it is known.
static SIZE: AtomicUsize = AtomicUsize::new(0);

fn size() -> usize {
    let known = SIZE.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let size = if boot::has_xsave() {
        (__cpuid_count(LEAF_XSAVE, 0).ebx as usize).max(FXSAVE_SIZE + ALIGNMENT)
    } else {
        FXSAVE_SIZE
    };
    SIZE.store(size, Ordering::Relaxed);
    size
}

/// Whether areas are XSAVE's, not FXSAVE's. CPUID may trap, so it is asked once.
fn has_xsave() -> bool {
    size() > FXSAVE_SIZE
}

/// An area in memory. Only the CPU that has it loaded, or the owner of its context, uses it.
#[derive(Debug)]
struct Area {
    memory: NonNull<u8>,
    /// The program's GS base. Always 0 in mode `shared`, where GS is the kernel's.
    gs_base: AtomicU64,
    /// DS and ES.
    selectors: [AtomicU16; 2],
}

// SAFETY: plain memory; `ExtendedState` says who may use it when.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    fn layout() -> Layout {
        // SAFETY: the alignment is a power of two, and sizes that CPUs report are small.
        unsafe { Layout::from_size_align_unchecked(size(), ALIGNMENT) }
    }

    /// The state after reset.
    fn new() -> Self {
        let layout = Self::layout();
        // SAFETY: the layout has a size.
        let Some(area) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: MXCSR lies in the area, aligned.
        unsafe { area.add(MXCSR_OFFSET).cast::<u32>().write(MXCSR_INITIAL) };
        if !has_xsave() {
            // SAFETY: the x87 control word lies in the area; FXRSTOR takes it as it is.
            unsafe { area.cast::<u16>().write(0x37f) };
        }
        Self {
            memory: area,
            gs_base: AtomicU64::new(0),
            selectors: [const { AtomicU16::new(0) }; 2],
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout()) }
    }
}

/// The state of one program.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct ExtendedState {
    area: Arc<Area>,
}

impl Default for ExtendedState {
    fn default() -> Self {
        Self {
            area: Arc::new(Area::new()),
        }
    }
}

impl Clone for ExtendedState {
    /// A copy: a new thread starts with the state of the one that made it.
    fn clone(&self) -> Self {
        let copy = Self::default();
        if is_loaded(&self.area) {
            // SAFETY: loaded here, so that nobody else stores it meanwhile.
            unsafe { store(&self.area) };
        }
        // SAFETY: both areas have the size; nobody else uses either now.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.area.memory.as_ptr(),
                copy.area.memory.as_ptr(),
                size(),
            );
        }
        let gs_base = self.area.gs_base.load(Ordering::Relaxed);
        copy.area.gs_base.store(gs_base, Ordering::Relaxed);
        for (from, to) in self.area.selectors.iter().zip(&copy.area.selectors) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        copy
    }
}

impl ExtendedState {
    /// The program's GS base; `None` in mode `shared`, where GS is the kernel's.
    pub(crate) fn gs_base(&self) -> Option<u64> {
        is_ring0().then(|| match is_loaded(&self.area) {
            true => privileged::program_gs_base(),
            false => self.area.gs_base.load(Ordering::Relaxed),
        })
    }

    /// Sets the program's GS base, a canonical address; false in mode `shared`.
    pub(crate) fn set_gs_base(&mut self, base: u64) -> bool {
        if !is_ring0() {
            return false;
        }
        self.area.gs_base.store(base, Ordering::Relaxed);
        if is_loaded(&self.area) {
            privileged::set_program_gs_base(base);
        }
        true
    }
}

/// The state that a CPU's registers hold.
pub(super) struct Loaded(Option<Arc<Area>>);

impl Loaded {
    /// No program's.
    pub(super) const NOTHING: Self = Self(None);
}

fn is_loaded(area: &Arc<Area>) -> bool {
    // SAFETY: a field that only this CPU's kernel uses.
    let loaded = unsafe { &(*per_cpu::current()).loaded };
    loaded
        .0
        .as_ref()
        .is_some_and(|loaded| Arc::ptr_eq(loaded, area))
}

/// Makes the registers hold `state`.
#[inline]
pub(super) fn load(state: &ExtendedState) {
    if is_loaded(&state.area) {
        return;
    }
    store_current();
    // SAFETY: the area holds a state that `store` or `Area::new` wrote.
    unsafe { restore(&state.area) };
    // SAFETY: a field that only this CPU's kernel uses.
    let loaded = unsafe { &mut (*per_cpu::current()).loaded };
    loaded.0 = Some(state.area.clone());
}

/// Stores what the registers hold, so that its program can go on on any CPU.
pub fn store_current() {
    // SAFETY: a field that only this CPU's kernel uses.
    let loaded = unsafe { &mut (*per_cpu::current()).loaded };
    if let Some(area) = loaded.0.take() {
        // SAFETY: the CPU had the area loaded.
        unsafe { store(&area) };
    }
}

/// DS and ES. The kernel has no use for what they hold.
fn selectors() -> [u16; 2] {
    let (ds, es): (u32, u32);
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {:e}, ds", "mov {:e}, es", out(reg) ds, out(reg) es,
             options(nomem, nostack, preserves_flags));
    }
    [ds as u16, es as u16]
}

/// Stores the registers to `area`.
///
/// # Safety
///
/// Nobody else may use the area now.
unsafe fn store(area: &Area) {
    if is_ring0() {
        let base = privileged::program_gs_base();
        area.gs_base.store(base, Ordering::Relaxed);
    }
    for (selector, place) in selectors().into_iter().zip(&area.selectors) {
        place.store(selector, Ordering::Relaxed);
    }
    let area = area.memory.as_ptr();
    // SAFETY: the area has the size that CPUID says, the alignment, and is ours.
    unsafe {
        if has_xsave() {
            asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
                 options(nostack, preserves_flags));
        } else {
            asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags));
        }
    }
}

/// Loads the registers from `area`. The vector registers' lower halves, which the compiler uses,
/// are part of it.
///
/// # Safety
///
/// The area must hold a state, and nobody else may use it now.
unsafe fn restore(area: &Area) {
    if is_ring0() {
        privileged::set_program_gs_base(area.gs_base.load(Ordering::Relaxed));
    }
    let wanted = [0, 1].map(|index: usize| area.selectors[index].load(Ordering::Relaxed));
    if selectors() != wanted {
        let [ds, es] = wanted;
        // SAFETY: null, or what a program could load. 64-bit code does not use these segments.
        unsafe {
            asm!("mov ds, {:e}", "mov es, {:e}", in(reg) u32::from(ds), in(reg) u32::from(es),
                 options(nomem, nostack, preserves_flags));
        }
    }
    let area = area.memory.as_ptr();
    // SAFETY: as the caller promises; all vector registers are declared overwritten.
    unsafe {
        if has_xsave() {
            asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
                 out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                 out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                 out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                 out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                 options(nostack));
        } else {
            asm!("fxrstor64 [{}]", in(reg) area,
                 out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                 out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                 out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                 out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                 options(nostack));
        }
    }
}
