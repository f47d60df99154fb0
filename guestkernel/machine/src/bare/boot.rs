//! The kernel's first Rust code: memory, clock and interrupts, then the kernel proper.
//!
//! The boot information is PVH's `hvm_start_info` (Xen, `xen/include/public/arch-x86/hvm/start_info.h`).

use super::mode;
use super::per_cpu::{LeaveBy, Stacks};
use super::{
    IMAGE_BASE, PHYSICAL_MAP_SLOT, clock, gates, heap, interrupt, per_cpu, power, report, stacks,
};
use crate::Mode;
use crate::boot_info::{BootInfo, BootModule};
use crate::frame::{self, BLOCK, BlockState, Frame, FrameState};
use crate::physical::{PAGE_SIZE, PhysAddr, pointer};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use ringlet_abi::control::{Exit, Mark};

/// `struct hvm_start_info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ModuleEntry {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

/// `struct hvm_memmap_table_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

const START_MAGIC: u32 = 0x336e_c578;
const KIND_RAM: u32 = 1;
/// RAM below is the firmware's and the boot information's.
const LOW_MEMORY_END: u64 = 1 << 20;
/// Announces the control page on the command line.
const CONTROL_PARAMETER: &[u8] = b"ringlet.control=";
const MAX_MODULES: usize = 8;
const MAX_MEMORY_ENTRIES: usize = 32;
/// Strings and modules of the boot information end at the latest after so many bytes.
const MAX_STRING: usize = 1 << 20;

unsafe extern "C" {
    static page_map: [AtomicU64; 512];
    static boot_kvm_features: AtomicU32;
    static boot_loop_cycles: AtomicU32;
    static boot_has_fsgsbase: AtomicU32;
    static image_end: u8;
    static kernel_stack_end: u8;
    static panic_stack_end: u8;
}

unsafe extern "Rust" {
    safe fn ringlet_kernel_main(boot: BootInfo) -> !;
}

/// An entry of the page map that the CPU booted with.
pub(super) fn page_map_entry(index: usize) -> u64 {
    // SAFETY: the boot code's table, accessed atomically.
    unsafe { page_map[index].load(Ordering::Relaxed) }
}

/// Makes an entry of the kernel's half of the page map. Address spaces that exist do not see it.
pub(super) fn set_page_map_entry(index: usize, entry: u64) {
    // SAFETY: the boot code's table, accessed atomically.
    unsafe { page_map[index].store(entry, Ordering::Relaxed) };
}

/// TSC cycles of the loop by which the boot code has told whether CPL 0 is emulated.
pub(super) fn loop_cycles() -> u32 {
    // SAFETY: boot data that was written once, before any Rust code.
    unsafe { boot_loop_cycles.load(Ordering::Relaxed) }
}

/// Maps the first GiB at its physical addresses, or no longer: where CPUs turn on paging.
pub(super) fn map_low_memory(is_mapped: bool) {
    let entry = if is_mapped {
        page_map_entry(PHYSICAL_MAP_SLOT)
    } else {
        0
    };
    // SAFETY: the boot code's table, accessed atomically; no program has it loaded.
    unsafe { page_map[0].store(entry, Ordering::Relaxed) };
}

/// Whether XSAVE can be used: the host's own state where CPL 0 is emulated, else what the boot
/// code has enabled.
pub(super) fn has_xsave() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    core::arch::x86_64::__cpuid(1).ecx & OSXSAVE != 0
}

/// Whether the boot code has enabled WRFSBASE.
pub(super) fn has_fsgsbase() -> bool {
    // SAFETY: as above.
    unsafe { boot_has_fsgsbase.load(Ordering::Relaxed) != 0 }
}

/// Copies a structure that the VMM has written.
///
/// # Safety
///
/// `T` must be plain data.
unsafe fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the caller's promise; the address lies in the physical map, which the VMM, whom we
    // trust, has filled.
    unsafe { pointer(PhysAddr(address)).cast::<T>().read_unaligned() }
}

fn read_string(address: u64) -> Vec<u8> {
    if address == 0 {
        return Vec::new();
    }
    // SAFETY: bytes are plain data.
    (0..MAX_STRING)
        .map(|at| unsafe { read::<u8>(address + at as u64) })
        .take_while(|byte| *byte != 0)
        .collect()
}

/// Whether a string of the boot information contains `part`. Needs no heap.
fn string_contains(address: u64, part: &[u8]) -> bool {
    // SAFETY: bytes are plain data, and each match but the last byte was no NUL.
    let byte = |at: usize| unsafe { read::<u8>(address + at as u64) };
    (0..MAX_STRING).take_while(|at| byte(*at) != 0).any(|at| {
        part.iter()
            .enumerate()
            .all(|(index, want)| byte(at + index) == *want)
    })
}

/// Entered by the boot code on the kernel's stack: at CPL 0 in mode `ring0`, at CPL 3 in mode
/// `shared`.
#[unsafe(no_mangle)]
extern "C" fn machine_start(start_info: u64) -> ! {
    let mode = mode::initialise();
    let fast_return = match mode {
        Mode::Shared => LeaveBy::Jump,
        Mode::Ring0 => LeaveBy::SysRet,
    };
    // SAFETY: the first thing that happens, on the boot CPU.
    unsafe {
        let stacks = Stacks {
            kernel: (&raw const kernel_stack_end) as u64,
            panic: (&raw const panic_stack_end) as u64,
        };
        per_cpu::initialise(fast_return, stacks);
    }
    if mode == Mode::Ring0 {
        // SAFETY: as above, and the mode says that this is CPL 0.
        unsafe { gates::initialise() };
    }
    // SAFETY: plain data; the address is the boot protocol's.
    let info: StartInfo = unsafe { read(start_info) };
    if !string_contains(info.command_line, CONTROL_PARAMETER) {
        power::use_serial_port();
        power::mark(Mark::KernelEntered);
    }
    if info.magic != START_MAGIC || info.version < 1 {
        power::exit(Exit::BadBoot);
    }
    let mut modules = [ModuleEntry {
        address: 0,
        size: 0,
        command_line: 0,
        reserved: 0,
    }; MAX_MODULES];
    let module_count = (info.module_count as usize).min(MAX_MODULES);
    for (index, module) in modules[..module_count].iter_mut().enumerate() {
        // SAFETY: plain data.
        *module = unsafe { read(info.modules + (index * size_of::<ModuleEntry>()) as u64) };
    }
    let modules = &modules[..module_count];
    initialise_memory(&info, modules);
    // SAFETY: boot data that was written once, before this.
    clock::initialise(unsafe { boot_kvm_features.load(Ordering::Relaxed) });
    interrupt::initialise_local();
    if !power::has_control_page() {
        report::listen();
    }
    let boot = BootInfo {
        command_line: String::from_utf8_lossy(&read_string(info.command_line)).into_owned(),
        modules: modules.iter().map(take_module).collect(),
        boot_loop_cycles: loop_cycles(),
    };
    let boot = Box::new(boot);
    let stack = stacks::map(0);
    // SAFETY: a field that only this CPU's kernel uses.
    unsafe { (*per_cpu::current()).move_stack(stack) };
    // SAFETY: the stack is mapped and nobody else's. Nothing on the one that is left is used any more.
    unsafe {
        asm!("mov rsp, {stack}", "xor ebp, ebp", "call {start}", "ud2", stack = in(reg) stack,
             start = sym start_kernel, in("rdi") Box::into_raw(boot), options(noreturn));
    }
}

/// On the boot CPU's final stack.
///
/// # Safety
///
/// `boot` must come from a box.
unsafe extern "C" fn start_kernel(boot: *mut BootInfo) -> ! {
    // SAFETY: the caller's promise.
    ringlet_kernel_main(*unsafe { Box::from_raw(boot) })
}

fn take_module(module: &ModuleEntry) -> BootModule {
    let first = module.address / PAGE_SIZE as u64;
    let end = (module.address + module.size).div_ceil(PAGE_SIZE as u64);
    // SAFETY: `initialise_memory` left the module's pages out of the free memory, and each module
    // is taken once.
    let frames =
        (first..end).map(|number| unsafe { Frame::adopt(PhysAddr(number * PAGE_SIZE as u64)) });
    BootModule {
        name: read_string(module.command_line),
        frames: frames.collect(),
        length: module.size as usize,
    }
}

/// Finds the RAM, sets aside the heap and the frames' states, and makes the rest available.
fn initialise_memory(info: &StartInfo, modules: &[ModuleEntry]) {
    let mut ram: [Range<u64>; MAX_MEMORY_ENTRIES] = [const { 0..0 }; MAX_MEMORY_ENTRIES];
    let mut count = 0;
    for index in 0..(info.memory_map_entries as usize).min(MAX_MEMORY_ENTRIES) {
        // SAFETY: plain data.
        let entry: MemoryEntry =
            unsafe { read(info.memory_map + (index * size_of::<MemoryEntry>()) as u64) };
        if entry.kind == KIND_RAM && entry.address + entry.size > LOW_MEMORY_END {
            ram[count] = entry.address.max(LOW_MEMORY_END)..entry.address + entry.size;
            count += 1;
        }
    }
    let ram = &ram[..count];
    let total: u64 = ram.iter().map(|range| range.end - range.start).sum();
    let top = ram.iter().map(|range| range.end).max().unwrap_or(0);
    let page = PAGE_SIZE as u64;
    let kernel_end = ((&raw const image_end) as u64 - IMAGE_BASE).next_multiple_of(page);

    // Behind the kernel come the page directories for RAM above 4 GiB, the states of frames and
    // blocks, and the heap, all in memory that is zero and not touched before it is used.
    let states_start = map_above_4g(kernel_end, top);
    let frames = top / page;
    let blocks_start = states_start + frames * size_of::<FrameState>() as u64;
    let blocks = frames.div_ceil(BLOCK.into());
    let heap_start =
        (blocks_start + blocks * size_of::<BlockState>() as u64).next_multiple_of(page);
    let heap_size = (total / 8).clamp(4 << 20, 1 << 30) / page * page;
    let heap_end = heap_start + heap_size;
    let mut taken = [const { 0..0 }; MAX_MODULES + 1];
    taken[0] = 0..heap_end;
    for (place, module) in taken[1..].iter_mut().zip(modules) {
        *place =
            module.address / page * page..(module.address + module.size).next_multiple_of(page);
    }
    let holds_heap = ram
        .iter()
        .any(|range| range.contains(&kernel_end) && range.end >= heap_end);
    let is_clear = taken[1..]
        .iter()
        .all(|range| range.is_empty() || range.start >= heap_end);
    if !holds_heap || !is_clear {
        power::exit(Exit::OutOfMemory);
    }
    // SAFETY: RAM that belongs to nobody, zeroed by the VMM, which is a valid state for all; the
    // heap is given to the allocator alone.
    unsafe {
        let states = core::slice::from_raw_parts(
            pointer(PhysAddr(states_start)).cast::<FrameState>(),
            frames as usize,
        );
        let blocks = core::slice::from_raw_parts(
            pointer(PhysAddr(blocks_start)).cast::<BlockState>(),
            blocks as usize,
        );
        heap::initialise(pointer(PhysAddr(heap_start)), heap_size as usize);
        frame::initialise(states, blocks, free_ranges(ram, &taken));
    }
}

/// The frame numbers of `ram` less `taken`.
fn free_ranges(ram: &[Range<u64>], taken: &[Range<u64>]) -> impl Iterator<Item = Range<u32>> {
    let mut ranges: Vec<Range<u64>> = ram.to_vec();
    for hole in taken.iter().filter(|hole| !hole.is_empty()) {
        ranges = ranges
            .into_iter()
            .flat_map(|range| {
                [
                    range.start..range.end.min(hole.start).max(range.start),
                    range.start.max(hole.end).min(range.end)..range.end,
                ]
            })
            .filter(|range| !range.is_empty())
            .collect();
    }
    let page = PAGE_SIZE as u64;
    // The largest first: there is room for a few only.
    ranges.sort_unstable_by_key(|range| core::cmp::Reverse(range.end - range.start));
    ranges
        .into_iter()
        .map(move |range| (range.start.div_ceil(page) as u32)..(range.end / page) as u32)
}

/// Extends the physical map to `top`, with page directories at `at`; returns what follows them.
fn map_above_4g(mut at: u64, top: u64) -> u64 {
    const GIB: u64 = 1 << 30;
    const TABLE: u64 = 0x7;
    const LARGE_PAGE: u64 = 0x87;
    let directory_pointers = page_map_entry(PHYSICAL_MAP_SLOT) & !0xfff;
    for gib in 4..top.div_ceil(GIB).min(512) {
        for large in 0..512 {
            let entry = (gib * GIB + large * (2 << 20)) | LARGE_PAGE;
            // SAFETY: a free page of RAM in the part that is mapped, soon to be a page directory.
            unsafe { pointer(PhysAddr(at + large * 8)).cast::<u64>().write(entry) };
        }
        let entry = pointer(PhysAddr(directory_pointers + gib * 8)).cast::<u64>();
        // SAFETY: an entry of the boot code's table that was not present.
        unsafe { entry.write_volatile(at | TABLE) };
        at += PAGE_SIZE as u64;
    }
    // The kernel does not need the map at 0 any more: programs live there.
    map_low_memory(false);
    at
}
