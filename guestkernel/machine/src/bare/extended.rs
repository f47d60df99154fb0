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
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// CPUID leaf that describes the area.
const LEAF_XSAVE: u32 = 0xd;
/// Bytes that FXSAVE stores, where there is no XSAVE.
const FXSAVE_SIZE: usize = 512;
const ALIGNMENT: usize = 64;
/// Where MXCSR is in the area, and its value after reset.
const MXCSR_OFFSET: usize = 24;
const MXCSR_INITIAL: u32 = 0x1f80;

/// Where the x87 control word is, MXCSR's mask, the XMM registers, and the header of XSAVE, which ends
/// the part that FXSAVE stores too.
const CONTROL_WORD_INITIAL: u16 = 0x37f;
const MXCSR_MASK_OFFSET: usize = 28;
/// The mask where the field is 0 (Intel SDM volume 1, section 11.6.6).
const MXCSR_MASK_DEFAULT: u32 = 0xffbf;
const XMM_OFFSET: usize = 160;
const HEADER_OFFSET: usize = FXSAVE_SIZE;
const HEADER_SIZE: usize = 64;
/// Component of the XMM registers in the header's first word.
const SSE: u64 = 1 << 1;

/// Bytes in an area; 0 until it is known.
static SIZE: AtomicUsize = AtomicUsize::new(0);
/// What XCR0 holds, and the bits that MXCSR may have; set before the size.
static FEATURES: AtomicU64 = AtomicU64::new(0);
static MXCSR_MASK: AtomicU32 = AtomicU32::new(MXCSR_MASK_DEFAULT);

/// The parts of the state that XSAVE stores (XCR0); 0 where there is no XSAVE.
pub(crate) fn features() -> u64 {
    size();
    FEATURES.load(Ordering::Relaxed)
}

/// Bytes of a state in memory.
pub(crate) fn size() -> usize {
    let known = SIZE.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let size = if boot::has_xsave() {
        FEATURES.store(read_xcr0(), Ordering::Relaxed);
        (__cpuid_count(LEAF_XSAVE, 0).ebx as usize).max(FXSAVE_SIZE + HEADER_SIZE)
    } else {
        FXSAVE_SIZE
    };
    MXCSR_MASK.store(read_mxcsr_mask(), Ordering::Relaxed);
    SIZE.store(size, Ordering::Relaxed);
    size
}

fn read_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: there is XSAVE, so XGETBV reads the register.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high,
             options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// The bits that MXCSR has on this processor: FXSAVE says it.
fn read_mxcsr_mask() -> u32 {
    #[repr(C, align(16))]
    struct Legacy([u8; FXSAVE_SIZE]);
    let mut legacy = Legacy([0; FXSAVE_SIZE]);
    // SAFETY: the area has the size and the alignment that the instruction wants.
    unsafe {
        asm!("fxsave64 [{}]", in(reg) legacy.0.as_mut_ptr(), options(nostack, preserves_flags));
    }
    match word(&legacy.0, MXCSR_MASK_OFFSET) {
        0 => MXCSR_MASK_DEFAULT,
        mask => mask,
    }
}

fn word(image: &[u8], offset: usize) -> u32 {
    let bytes = image
        .get(offset..offset + 4)
        .and_then(|bytes| bytes.try_into().ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

fn long(image: &[u8], offset: usize) -> u64 {
    u64::from(word(image, offset + 4)) << 32 | u64::from(word(image, offset))
}

/// Whether XRSTOR or FXRSTOR takes this state: they fault on others (Intel SDM volume 1, section 13.8.1).
fn is_valid(image: &[u8]) -> bool {
    let has_good_mxcsr = word(image, MXCSR_OFFSET) & !MXCSR_MASK.load(Ordering::Relaxed) == 0;
    let has_good_header = || {
        // XSTATE_BV is followed by XCOMP_BV, which is 0 in the standard form, and reserved bytes.
        let rest = &image[HEADER_OFFSET + 8..HEADER_OFFSET + HEADER_SIZE];
        long(image, HEADER_OFFSET) & !features() == 0 && rest.iter().all(|byte| *byte == 0)
    };
    has_good_mxcsr && (!has_xsave() || has_good_header())
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
    /// The CPU whose registers hold the state, or [`NOWHERE`]: only that one changes it, and uses the
    /// memory meanwhile.
    cpu: AtomicU32,
}

/// No CPU has that number.
const NOWHERE: u32 = u32::MAX;

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
        let area = Self {
            memory: area,
            gs_base: AtomicU64::new(0),
            selectors: [const { AtomicU16::new(0) }; 2],
            cpu: AtomicU32::new(NOWHERE),
        };
        area.initialise();
        area
    }

    /// Makes a state of zeros the one after reset.
    fn initialise(&self) {
        // SAFETY: MXCSR lies in the area, aligned, which is new or its context's owner's.
        unsafe {
            self.memory
                .add(MXCSR_OFFSET)
                .cast::<u32>()
                .write(MXCSR_INITIAL)
        };
        if !has_xsave() {
            // SAFETY: the x87 control word lies in the area; FXRSTOR takes it as it is.
            unsafe { self.memory.cast::<u16>().write(CONTROL_WORD_INITIAL) };
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
        // SAFETY: both areas have the size; only this CPU may store to the first, and does not now.
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

    /// Sees to it that no CPU has the state in its registers, and gives the memory that holds it. It is
    /// stored there before if `keeps`; else what the registers held is gone.
    ///
    fn unload(&mut self, keeps: bool) -> &mut [u8] {
        if is_loaded(&self.area) {
            // SAFETY: a field that only this CPU's kernel uses.
            let loaded = unsafe { &mut (*per_cpu::current()).loaded };
            loaded.0 = None;
            if keeps {
                // SAFETY: loaded here, so that nobody else uses it.
                unsafe { store(&self.area) };
            } else {
                // SAFETY: as above.
                unsafe { store_segments(&self.area) };
            }
            self.area.cpu.store(NOWHERE, Ordering::Release);
        }
        // SAFETY: the area has that size and was zeroed when it was made. It is in no CPU's registers
        // now (`is_loaded` has seen to that), so only functions that are given the state use the
        // memory, and it is borrowed as long as the slice is.
        unsafe { core::slice::from_raw_parts_mut(self.area.memory.as_ptr(), size()) }
    }

    /// The state as XSAVE stores it, with these XMM registers.
    pub(crate) fn image(&mut self, xmm: &[u128; 16]) -> &[u8] {
        let image = self.unload(true);
        for (place, value) in image[XMM_OFFSET..].chunks_exact_mut(16).zip(xmm) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        if has_xsave() {
            let components = long(image, HEADER_OFFSET) | SSE;
            image[HEADER_OFFSET..HEADER_OFFSET + 8].copy_from_slice(&components.to_le_bytes());
        }
        image
    }

    /// Has `fill` write the state; it is that after reset, and the result false, if `fill` says so or
    /// writes what is none.
    pub(crate) fn set_image(&mut self, fill: impl FnOnce(&mut [u8]) -> bool) -> bool {
        let image = self.unload(false);
        let is_good = fill(image) && is_valid(image);
        if !is_good {
            self.reset();
        }
        is_good
    }

    /// Makes it the state after reset.
    pub(crate) fn reset(&mut self) {
        let image = self.unload(false);
        if has_xsave() {
            // Nothing else is looked at where the header says that all is as after reset.
            image[HEADER_OFFSET..HEADER_OFFSET + HEADER_SIZE].fill(0);
        } else {
            image.fill(0);
        }
        self.area.initialise();
    }

    /// The XMM registers of a state that is not loaded.
    pub(crate) fn xmm(&mut self) -> [u128; 16] {
        let image = self.unload(true);
        let mut xmm = [0; 16];
        if !has_xsave() || long(image, HEADER_OFFSET) & SSE != 0 {
            for (value, place) in xmm.iter_mut().zip(image[XMM_OFFSET..].chunks_exact(16)) {
                *value = u128::from_le_bytes(place.try_into().unwrap_or_default());
            }
        }
        xmm
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

/// Whether this CPU's registers hold the state.
///
/// # Panics
///
/// If another one's do: the executor has a CPU store what goes on elsewhere ([`store_current`]).
fn is_loaded(area: &Area) -> bool {
    let cpu = area.cpu.load(Ordering::Acquire);
    let is_here = cpu == super::smp::current_cpu();
    assert!(
        is_here || cpu == NOWHERE,
        "the state is in the registers of another CPU"
    );
    is_here
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
    let cpu = super::smp::current_cpu();
    state.area.cpu.store(cpu, Ordering::Relaxed);
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
        area.cpu.store(NOWHERE, Ordering::Release);
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

/// Stores what is no part of XSAVE's state to `area`.
///
/// # Safety
///
/// Nobody else may use the area now.
unsafe fn store_segments(area: &Area) {
    if is_ring0() {
        let base = privileged::program_gs_base();
        area.gs_base.store(base, Ordering::Relaxed);
    }
    for (selector, place) in selectors().into_iter().zip(&area.selectors) {
        place.store(selector, Ordering::Relaxed);
    }
}

/// Stores the registers to `area`.
///
/// # Safety
///
/// Nobody else may use the area now.
unsafe fn store(area: &Area) {
    // SAFETY: as the caller promises.
    unsafe { store_segments(area) };
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
