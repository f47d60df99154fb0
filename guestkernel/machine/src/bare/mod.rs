//! The machine itself: x86-64, in mode `shared` (program and kernel both at CPL 3, the monitor at
//! CPL 0) or `ring0` (the kernel at CPL 0).

mod boot;
pub mod clock;
pub(crate) mod extended;
mod gates;
pub(crate) mod heap;
pub mod interrupt;
mod machine_check;
mod memory_functions;
pub(crate) mod mode;
mod panic;
mod per_cpu;
pub mod power;
mod privileged;
pub mod provoke;
pub(crate) mod report;
mod rtc;
pub mod serial;
pub mod shadow;
pub(crate) mod smp;
mod stacks;
mod symbols;
mod tsc;
pub(crate) mod watch;

use crate::Mode;
use crate::frame::Frame;
use crate::page_table::Space;
use crate::physical;
use crate::user::{PageFault, Trap, UserContext};
use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};
use per_cpu::{LeaveBy, offset};

/// Where the physical map starts, as on Linux. The upper half's first slot of the page map (256)
/// would be nearer at hand, but a KVM that emulates CPL 0 reserves it for itself: accesses at
/// CPL 3 fault there.
pub(crate) const PHYSICAL_MAP: u64 = 0xffff_8880_0000_0000;
/// The page map's entry for it.
const PHYSICAL_MAP_SLOT: usize = (PHYSICAL_MAP >> 39) as usize % 512;
/// The kernel image is linked at this plus its physical address.
pub(crate) const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
pub(crate) const USER_CS: u64 = 0x33;
pub(crate) const USER_SS: u64 = 0x2b;
/// Bytes of the kernel's stack. Futures live on the heap; the deepest call chains are polls.
const STACK_SIZE: usize = 256 << 10;
/// Bytes of the stack on which the boot CPU starts.
const BOOT_STACK_SIZE: usize = 64 << 10;
/// Bytes of the stack on which a panic is reported.
const PANIC_STACK_SIZE: usize = 32 << 10;

/// CR0: PG, AM, WP, NE, ET, MP, PE.
const CONTROL0: u32 = 0x8005_0033;
/// Programs' addresses are below this: the canonical lower half.
const PROGRAMS_END: u64 = 1 << 47;
/// Bytes that are moved at a time. String instructions are as fast with one byte at a time on a
/// processor, and several times slower where they are emulated.
const UNIT: usize = 8;
/// String instructions take longer to start than fewer bytes than this take to move.
const STRING_THRESHOLD: usize = 128;
/// The flags that programs may change: CF PF AF ZF SF TF DF OF NT AC ID.
const PROGRAM_FLAGS: u64 = 0x0024_4dd5;
/// Flags that SYSCALL clears: TF, DF, NT, AC; in mode `ring0` also IF.
const SHARED_SYSCALL_MASK: u32 = 0x0004_4500;
/// What XSAVE may store: x87, SSE, AVX, AVX-512. Not AMX, whose size every thread would pay.
const EXTENDED_STATES: u32 = 0xe7;
const MSR_FS_BASE: u32 = 0xc000_0100;
const GENERAL_PROTECTION: Trap = Trap::Exception {
    vector: 13,
    code: 0,
};

/// What the entry code stores besides the general registers.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub(crate) struct ContextState {
    /// The low halves of the vector registers, which is what kernel code changes.
    xmm: [u128; 16],
    /// The rest of the vector and floating-point state.
    extended: extended::ExtendedState,
    /// How to enter the program, as the entry code left it: a [`LeaveBy`](per_cpu::LeaveBy).
    leave_by: u32,
}

impl ContextState {
    pub(crate) fn gs_base(&self) -> Option<u64> {
        self.extended.gs_base()
    }

    pub(crate) fn set_gs_base(&mut self, base: u64) -> bool {
        self.extended.set_gs_base(base)
    }
}

global_asm!(
    include_str!("boot.S"),
    control = const ringlet_abi::CONTROL_BASE,
    control_mark = const ringlet_abi::control::MARK,
    physical_map_slot = const PHYSICAL_MAP_SLOT,
    boot_stack_size = const BOOT_STACK_SIZE,
    control0 = const CONTROL0,
    panic_stack_size = const PANIC_STACK_SIZE,
    emulated_cycles = const mode::EMULATED_CYCLES,
    max_cpus = const smp::MAX_CPUS,
    start_page = const smp::START_PAGE,
    number = const offset::NUMBER,
    stack = const offset::STACK,
    shared_mask = const SHARED_SYSCALL_MASK,
    ring0_mask = const SHARED_SYSCALL_MASK | 1 << 9,
    extended_states = const EXTENDED_STATES,
    later_control4 = const 3 << 20,
);

global_asm!(
    include_str!("ring0.S"),
    latched = const offset::LATCHED,
    panic_rsp = const offset::PANIC_RSP,
    nmi_count = const offset::NMI_COUNT,
    ist1 = const offset::IST1,
    nested = const offset::NESTED,
);

global_asm!(
    include_str!("monitor.S"),
    latched = const offset::LATCHED,
    ist1 = const offset::IST1,
    nested = const offset::NESTED,
    to_upcall = const offset::TO_UPCALL,
    nmi_count = const offset::NMI_COUNT,
    // Bits 16..32 of the address at which the linker script places the monitor.
    monitor_middle = const 0x8020,
);

macro_rules! register {
    ($name:ident) => {
        offset_of!(UserContext, registers) + offset_of!(crate::user::Registers, $name)
    };
}

global_asm!(
    include_str!("entry.S"),
    rax = const register!(rax),
    rbx = const register!(rbx),
    rcx = const register!(rcx),
    rdx = const register!(rdx),
    rsi = const register!(rsi),
    rdi = const register!(rdi),
    rbp = const register!(rbp),
    r8 = const register!(r8),
    r9 = const register!(r9),
    r10 = const register!(r10),
    r11 = const register!(r11),
    r12 = const register!(r12),
    r13 = const register!(r13),
    r14 = const register!(r14),
    r15 = const register!(r15),
    rip = const register!(rip),
    cs = const register!(cs),
    ss = const register!(ss),
    rflags = const register!(rflags),
    rsp = const register!(rsp),
    xmm = const offset_of!(UserContext, backend) + offset_of!(ContextState, xmm),
    leave_by = const offset_of!(UserContext, backend) + offset_of!(ContextState, leave_by),
    image_base = const IMAGE_BASE as i64,
    own = const offset::OWN,
    in_program = const offset::IN_PROGRAM,
    is_alone = const offset::IS_ALONE,
    panic_rsp = const offset::PANIC_RSP,
    fast_return = const offset::FAST_RETURN,
    user_cs = const USER_CS,
    user_ss = const USER_SS,
    latched = const offset::LATCHED,
    ist1 = const offset::IST1,
    nested = const offset::NESTED,
    kernel_rsp = const offset::KERNEL_RSP,
    context = const offset::CONTEXT,
    user_rsp = const offset::USER_RSP,
    exception = const offset::EXCEPTION,
    exception_rax = const offset::EXCEPTION_RAX,
    exception_frame = const offset::EXCEPTION_FRAME,
    interrupt_frame = const offset::INTERRUPT_FRAME,
    double_fault = const offset::DOUBLE_FAULT,
);

unsafe extern "C" {
    static syscall_gate: u64;
    /// `context` points to a [`UserContext`].
    fn enter_program(context: *mut core::ffi::c_void) -> u32;
}

pub(crate) fn run(context: &mut UserContext, space: &Space) -> Trap {
    watch::progress();
    watch::keep_timer();
    load_space(space);
    extended::load(&context.backend.extended);
    let registers = &mut context.registers;
    if registers.rip >= PROGRAMS_END {
        // IRETQ would fault in the kernel.
        return GENERAL_PROTECTION;
    }
    // What the program must not choose for itself: interrupts stay enabled, no I/O privilege.
    registers.rflags = registers.rflags & PROGRAM_FLAGS | 0x202;
    // The kernel may have changed registers that only IRETQ restores.
    let is_as_left = registers.rip == registers.rcx && registers.rflags == registers.r11;
    if !is_as_left || context.backend.leave_by == LeaveBy::Return as u32 {
        context.backend.leave_by = match mode::mode() {
            Mode::Shared => LeaveBy::Return,
            Mode::Ring0 => LeaveBy::ReturnToProgram,
        } as u32;
    }
    load_fs_base(context.fs_base);
    // SAFETY: the context is exclusively ours; the program runs in its own half of the address
    // space (in mode `shared` nothing protects the kernel from it, as docs/design.md says), and
    // the entry code returns here with all callee-saved registers restored.
    let reason = unsafe { enter_program((&raw mut *context).cast()) };
    context.fs_base = read_fs_base(context.fs_base);
    match reason {
        0 => Trap::Syscall,
        1 => {
            // SAFETY: the block's exception was written before we were resumed, and is written
            // again only at the next exception, which the kernel does not raise.
            let exception = unsafe { &mut (*per_cpu::current()).exception.exception };
            let trap = trap_of(exception);
            exception.vector = per_cpu::PAGE_FAULT;
            trap
        }
        _ => {
            interrupt::acknowledge();
            Trap::Interrupt
        }
    }
}

/// Makes `space` the one that the CPU translates addresses by.
fn load_space(space: &Space) {
    let root = space.0.address().0;
    // SAFETY: fields that only this CPU's kernel uses.
    let cpu = unsafe { &mut *per_cpu::current() };
    if cpu.root.load(Ordering::Relaxed) == root {
        return;
    }
    // Before the tables are used: see `smp::flush_tlb`.
    cpu.root.store(root, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    // SAFETY: the root maps the kernel as every page map does; it is kept alive until another
    // one has been loaded.
    unsafe { privileged::load_cr3(root) };
    cpu.space = Some(space.clone());
}

/// Gives the CPU the program's FS base.
fn load_fs_base(base: u64) {
    let cpu = per_cpu::current();
    // SAFETY: a field that only this CPU's kernel uses.
    let loaded = unsafe { &mut (*cpu).fs_base };
    if *loaded == base {
        return;
    }
    *loaded = base;
    if boot::has_fsgsbase() {
        // SAFETY: the kernel does not use FS, and WRFSBASE takes any canonical address.
        unsafe { asm!("wrfsbase {}", in(reg) base, options(nomem, nostack, preserves_flags)) }
    } else {
        // SAFETY: as above.
        unsafe { privileged::write_msr(MSR_FS_BASE, base) }
    }
}

/// The program's FS base, which it can change without the kernel where WRFSBASE is enabled; it was
/// `loaded` when the program was entered.
#[inline]
fn read_fs_base(loaded: u64) -> u64 {
    if !boot::has_fsgsbase() {
        return loaded;
    }
    let base: u64;
    // SAFETY: reads a register.
    unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    // SAFETY: a field that only this CPU's kernel uses.
    unsafe { (*per_cpu::current()).fs_base = base };
    base
}

fn trap_of(exception: &per_cpu::Exception) -> Trap {
    match exception.vector {
        per_cpu::PAGE_FAULT => Trap::PageFault(PageFault {
            address: exception.cr2,
            is_present: exception.code & 1 != 0,
            is_write: exception.code & 2 != 0,
            is_fetch: exception.code & 16 != 0,
        }),
        vector => Trap::Exception {
            vector: vector as u8,
            code: exception.code,
        },
    }
}

pub(crate) use smp::flush_tlb;

pub(crate) fn syscall_gate_address() -> Option<u64> {
    (mode::mode() == Mode::Shared).then_some((&raw const syscall_gate) as u64)
}

pub(crate) fn physical_map() -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(PHYSICAL_MAP as usize)
}

/// Copies `count` bytes of memory that others may change meanwhile.
///
/// # Safety
///
/// Both ranges must be valid; an overlap gives a mixture of old and new bytes.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    let mut done = 0;
    // SAFETY: the caller's promise; each access lies in the ranges. The copy is opaque to the
    // compiler, which therefore assumes nothing about bytes that change during it.
    unsafe {
        if count >= STRING_THRESHOLD {
            asm!("rep movsq", inout("rcx") count / UNIT => _, inout("rsi") from => _,
                 inout("rdi") to => _, options(nostack, preserves_flags));
            done = count / UNIT * UNIT;
        }
        while count - done >= UNIT {
            asm!("mov {unit}, [{from}]", "mov [{to}], {unit}", unit = out(reg) _,
                 from = in(reg) from.add(done), to = in(reg) to.add(done),
                 options(nostack, preserves_flags));
            done += UNIT;
        }
        while done < count {
            asm!("mov {byte}, [{from}]", "mov [{to}], {byte}", byte = out(reg_byte) _,
                 from = in(reg) from.add(done), to = in(reg) to.add(done),
                 options(nostack, preserves_flags));
            done += 1;
        }
    }
}

/// Sets `count` bytes of memory that others may change meanwhile.
///
/// # Safety
///
/// The range must be valid.
pub(crate) unsafe fn fill(to: *mut u8, value: u8, count: usize) {
    let unit = u64::from_ne_bytes([value; UNIT]);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rep stosq", "mov ecx, {rest:e}", "rep stosb", rest = in(reg) count % UNIT,
             inout("rcx") count / UNIT => _, in("rax") unit, inout("rdi") to => _,
             options(nostack, preserves_flags));
    }
}

/// Makes the kernel's half of the address space part of a new page map.
pub(crate) fn map_kernel(root: &Frame) {
    for index in 256..512 {
        let entry = boot::page_map_entry(index);
        root.atomic_u64(index * 8).store(entry, Ordering::Relaxed);
    }
}

/// Reads a 32-bit device register.
///
/// # Safety
///
/// `address` must be that of a device register whose read does no harm.
pub(crate) unsafe fn read_register(address: crate::PhysAddr) -> u32 {
    let value: u32;
    // SAFETY: the caller's promise. A fixed encoding, since the host decodes the instruction.
    unsafe {
        asm!("mov {:e}, dword ptr [{}]", out(reg) value, in(reg) physical::pointer(address),
             options(nostack, preserves_flags));
    }
    value
}

/// Writes a 32-bit device register.
///
/// # Safety
///
/// `address` must be that of a device register, and what the device then does must be sound.
pub(crate) unsafe fn write_register(address: crate::PhysAddr, value: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("mov dword ptr [{}], {:e}", in(reg) physical::pointer(address), in(reg) value,
             options(nostack, preserves_flags));
    }
}

/// Makes `$main`, a `fn(machine::BootInfo) -> !`, what the machine starts after boot.
#[macro_export]
macro_rules! entry_point {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn ringlet_kernel_main(boot: $crate::BootInfo) -> ! {
            $main(boot)
        }
    };
}
