//! The block of memory that belongs to one CPU, reached through the GS base: the task state
//! segment, the stacks on which the CPU pushes its frames, and where the kernel left off.
//!
//! The monitor, the entry and the exit code know its layout by `offset_of!`. All of it is plain
//! memory to the monitor at CPL 0 and to the kernel at CPL 3 alike.

use super::extended::Loaded;
use super::{PANIC_STACK_SIZE, STACK_SIZE};
use crate::heap_cache::HeapCache;
use crate::page_table::Space;
use alloc::boxed::Box;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Task state segment (Intel SDM volume 3, figure 9-11).
#[repr(C, packed(4))]
pub(super) struct TaskState {
    reserved0: u32,
    /// Stack for exceptions that arrive at CPL 3.
    rsp0: u64,
    rsp1: u64,
    rsp2: u64,
    reserved1: u64,
    /// 1: interrupts; 2: double faults and machine checks; 3: NMIs.
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map_base: u16,
}

/// What IRETQ pops.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
}

/// A stack that holds one exception: the CPU pushes `frame` and perhaps `code`, the monitor the
/// rest; then it pops `upcall`, which is never changed. Who has taken an exception makes it a page fault
/// again.
#[repr(C, align(16))]
pub(super) struct ExceptionStack {
    unused: [u64; 23],
    pub(super) exception: Exception,
    upcall: Frame,
    unused_end: u64,
}

/// The vector of page faults.
pub(super) const PAGE_FAULT: u64 = 14;

/// An exception: what the gate and the CPU have pushed. The monitor does not push the vector of a page
/// fault, the most frequent of all: it is there before.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Exception {
    pub(super) vector: u64,
    pub(super) cr2: u64,
    pub(super) rax: u64,
    pub(super) code: u64,
    pub(super) frame: Frame,
}

/// A stack that holds one interrupt.
#[repr(C, align(16))]
pub(super) struct InterruptStack {
    unused: [u64; 27],
    pub(super) frame: Frame,
    upcall: Frame,
    unused_end: [u64; 3],
}

/// A stack for the last NMI. It comes at any instruction, with whatever in GS: the handler finds
/// everything by its stack pointer, stores where the CPU was, and returns.
#[repr(C, align(16))]
pub(super) struct NmiStack {
    unused: [u64; 26],
    /// The frame pointer at that time.
    pub(super) rbp: u64,
    pub(super) frame: Frame,
    /// How many have come.
    pub(super) count: AtomicU64,
    unused_end: u64,
}

#[repr(C, align(4096))]
pub(super) struct PerCpu {
    pub(super) task: TaskState,
    /// Interrupts that have arrived and that the kernel has not taken yet: bit N is vector
    /// `FIRST_VECTOR + N`.
    pub(super) latched: AtomicU64,
    /// The kernel's stack pointer while the program runs.
    kernel_rsp: u64,
    /// The [`UserContext`](crate::UserContext) that runs.
    context: u64,
    /// The program's stack pointer while the entry code stores its registers.
    user_rsp: u64,
    /// The FS base that the CPU has now.
    pub(super) fs_base: u64,
    /// The block's own address.
    own: u64,
    /// How the kernel returns from a system call when nothing needs IRETQ: see `LeaveBy`.
    fast_return: u32,
    /// Whether the CPU is between the exit code's look at the latch and its next entry. Not kept
    /// while there is one CPU.
    pub(super) in_program: AtomicU32,
    /// Whether this is the only CPU.
    pub(super) is_alone: AtomicU32,
    /// CPUs are numbered from 0, the boot CPU.
    pub(super) number: u32,
    /// The CPU's number where [`lock`](crate::lock) mixes it into addresses.
    lock_mark: u64,
    /// Counts what shows that the kernel gets on: program entries, tasks that were run.
    pub(super) beats: AtomicU64,
    /// Whether the CPU waits for an interrupt.
    pub(super) is_waiting: AtomicU32,
    /// The end of the kernel's stack.
    stack: u64,
    /// The end of the stack on which a panic is reported.
    panic_rsp: u64,
    /// Physical address of the page map that CR3 holds; 0 before the first program. Only its own CPU
    /// changes it.
    pub(super) root: AtomicU64,
    /// The address space that CR3 refers to, kept alive.
    pub(super) space: Option<Space>,
    /// The deadline that the timer is set to; `u64::MAX` for none.
    pub(super) timer: u64,
    /// Free pieces of the heap.
    pub(super) heap: HeapCache,
    /// The program whose vector and floating-point state is in the registers.
    pub(super) loaded: Loaded,
    pub(super) exception: ExceptionStack,
    pub(super) interrupt: InterruptStack,
    /// Where an interrupt goes that arrives before the kernel has read `interrupt`: it finds
    /// the kernel running, is latched, and returns at once.
    interrupt_nested: InterruptStack,
    pub(super) double_fault: ExceptionStack,
    pub(super) nmi: NmiStack,
}

/// The handlers of double faults and machine checks find the block by their stack pointer.
const _: () = assert!(size_of::<PerCpu>() == 4096);

/// Offsets for the assembly code.
pub(super) mod offset {
    use super::*;

    pub(crate) const IST1: usize = offset_of!(PerCpu, task) + offset_of!(TaskState, ist);
    pub(crate) const LATCHED: usize = offset_of!(PerCpu, latched);
    pub(crate) const KERNEL_RSP: usize = offset_of!(PerCpu, kernel_rsp);
    pub(crate) const CONTEXT: usize = offset_of!(PerCpu, context);
    pub(crate) const USER_RSP: usize = offset_of!(PerCpu, user_rsp);
    /// Distance from the stack pointer at which an NMI arrives to the count of NMIs.
    pub(crate) const NMI_COUNT: usize = offset_of!(NmiStack, count) - offset_of!(NmiStack, frame);
    /// Distance from the interrupt stack to the nested one.
    pub(crate) const NESTED: usize = size_of::<InterruptStack>();
    pub(crate) const IN_PROGRAM: usize = offset_of!(PerCpu, in_program);
    pub(crate) const IS_ALONE: usize = offset_of!(PerCpu, is_alone);
    pub(crate) const NUMBER: usize = offset_of!(PerCpu, number);
    pub(crate) const STACK: usize = offset_of!(PerCpu, stack);
    pub(crate) const PANIC_RSP: usize = offset_of!(PerCpu, panic_rsp);
    pub(crate) const OWN: usize = offset_of!(PerCpu, own);
    pub(crate) const LOCK_MARK: usize = offset_of!(PerCpu, lock_mark);
    pub(crate) const BEATS: usize = offset_of!(PerCpu, beats);
    pub(crate) const FAST_RETURN: usize = offset_of!(PerCpu, fast_return);
    pub(crate) const EXCEPTION: usize =
        offset_of!(PerCpu, exception) + offset_of!(ExceptionStack, exception);
    pub(crate) const EXCEPTION_RAX: usize = EXCEPTION + offset_of!(Exception, rax);
    pub(crate) const EXCEPTION_FRAME: usize = EXCEPTION + offset_of!(Exception, frame);
    pub(crate) const INTERRUPT_FRAME: usize =
        offset_of!(PerCpu, interrupt) + offset_of!(InterruptStack, frame);
    pub(crate) const DOUBLE_FAULT: usize =
        offset_of!(PerCpu, double_fault) + offset_of!(ExceptionStack, exception);
    /// Bytes from the lowest word that the monitor pushes to the upcall frame.
    pub(crate) const TO_UPCALL: usize =
        offset_of!(ExceptionStack, upcall) - offset_of!(ExceptionStack, exception);
}

/// How the exit code enters the program; the numbers are known to it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum LeaveBy {
    /// IRETQ from CPL 3.
    Return = 0,
    /// A jump to the address in RCX, at CPL 3.
    Jump = 1,
    /// SYSRET.
    SysRet = 2,
    /// IRETQ from CPL 0.
    ReturnToProgram = 3,
}

/// The block of the boot CPU.
#[repr(transparent)]
struct Boot(UnsafeCell<PerCpu>);
// SAFETY: written by its own CPU only, and by the CPU's own pushes; the fields that others use
// are atomic.
unsafe impl Sync for Boot {}

const fn upcall_frame() -> Frame {
    Frame {
        // The boot code stores the entry point: its address is not known to the compiler.
        rip: 0,
        cs: super::USER_CS,
        rflags: 0x202,
        rsp: 0,
        ss: super::USER_SS,
    }
}

const fn exception_stack() -> ExceptionStack {
    ExceptionStack {
        unused: [0; 23],
        exception: Exception {
            vector: PAGE_FAULT,
            cr2: 0,
            rax: 0,
            code: 0,
            frame: upcall_frame(),
        },
        upcall: upcall_frame(),
        unused_end: 0,
    }
}

const fn interrupt_stack() -> InterruptStack {
    InterruptStack {
        unused: [0; 27],
        frame: upcall_frame(),
        upcall: upcall_frame(),
        unused_end: [0; 3],
    }
}

impl PerCpu {
    const fn new(number: u32) -> Self {
        Self {
            task: TaskState {
                reserved0: 0,
                rsp0: 0,
                rsp1: 0,
                rsp2: 0,
                reserved1: 0,
                ist: [0; 7],
                reserved2: 0,
                reserved3: 0,
                io_map_base: size_of::<TaskState>() as u16,
            },
            latched: AtomicU64::new(0),
            kernel_rsp: 0,
            context: 0,
            user_rsp: 0,
            fs_base: 0,
            own: 0,
            fast_return: 0,
            in_program: AtomicU32::new(0),
            is_alone: AtomicU32::new(1),
            number,
            lock_mark: (number as u64) << 48,
            beats: AtomicU64::new(0),
            is_waiting: AtomicU32::new(0),
            stack: 0,
            panic_rsp: 0,
            root: AtomicU64::new(0),
            space: None,
            timer: u64::MAX,
            heap: HeapCache::new(),
            loaded: Loaded::NOTHING,
            exception: exception_stack(),
            interrupt: interrupt_stack(),
            interrupt_nested: interrupt_stack(),
            double_fault: exception_stack(),
            nmi: NmiStack {
                unused: [0; 26],
                rbp: 0,
                frame: upcall_frame(),
                count: AtomicU64::new(0),
                unused_end: 0,
            },
        }
    }

    /// The addresses of the kernel's stack and of the one for panics.
    pub(super) fn stacks(&self) -> [Range<u64>; 2] {
        let ending = |end: u64, size: usize| end - size as u64..end;
        [
            ending(self.stack, STACK_SIZE),
            ending(self.panic_rsp, PANIC_STACK_SIZE),
        ]
    }

    /// Says that the kernel's stack is another one.
    pub(super) fn move_stack(&mut self, end: u64) {
        self.stack = end;
    }

    /// Fills in the addresses that only the linker or the allocator knows.
    fn complete(&mut self, fast_return: LeaveBy, stacks: Stacks) {
        self.own = (&raw const *self) as u64;
        self.fast_return = fast_return as u32;
        self.stack = stacks.kernel;
        self.panic_rsp = stacks.panic;
        self.exception.upcall.rip = upcall_exception as *const () as u64;
        self.interrupt.upcall.rip = upcall_interrupt as *const () as u64;
        self.double_fault.upcall.rip = upcall_double_fault as *const () as u64;
        self.task.rsp0 = (&raw const self.exception.upcall) as u64;
        self.task.ist[0] = (&raw const self.interrupt.upcall) as u64;
        self.task.ist[1] = (&raw const self.double_fault.upcall) as u64;
        self.task.ist[2] = (&raw const self.nmi.count) as u64;
    }
}

/// The ends of a CPU's stacks.
#[derive(Clone, Copy)]
pub(super) struct Stacks {
    /// The one that the kernel runs on.
    pub(super) kernel: u64,
    /// The one on which a panic is reported.
    pub(super) panic: u64,
}

#[unsafe(no_mangle)]
static BOOT_CPU: Boot = Boot(UnsafeCell::new(PerCpu::new(0)));

unsafe extern "C" {
    safe fn upcall_exception();
    safe fn upcall_interrupt();
    safe fn upcall_double_fault();
}

/// Completes the block of the boot CPU, whose GS base already points to it.
///
/// # Safety
///
/// Called once, on the boot CPU, before anything can trap.
pub(super) unsafe fn initialise(fast_return: LeaveBy, stacks: Stacks) {
    // SAFETY: nothing else uses the block yet.
    unsafe { &mut *BOOT_CPU.0.get() }.complete(fast_return, stacks);
}

/// Makes the block of another CPU.
pub(super) fn add(number: u32, fast_return: LeaveBy, stacks: Stacks) -> &'static PerCpu {
    let cpu = Box::leak(Box::new(PerCpu::new(number)));
    cpu.is_alone.store(0, Ordering::Relaxed);
    cpu.complete(fast_return, stacks);
    cpu
}

/// The block of the boot CPU, of which others use the atomic fields only.
pub(super) fn boot_cpu() -> *mut PerCpu {
    BOOT_CPU.0.get()
}

/// The block of the CPU that executes this.
#[inline]
pub(super) fn current() -> *mut PerCpu {
    let block: u64;
    // SAFETY: GS belongs to the kernel, and the field is set before any other use.
    unsafe {
        asm!("mov {}, gs:[{own}]", out(reg) block, own = const offset::OWN,
             options(nostack, preserves_flags, readonly, pure));
    }
    core::ptr::with_exposed_provenance_mut(block as usize)
}
