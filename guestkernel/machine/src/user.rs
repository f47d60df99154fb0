//! The program side of a thread: its registers, and running it until it needs the kernel.

use crate::backend;
use crate::page_table::Space;

/// The general registers of a program. The layout is known to the entry and exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    /// Kept for the layout of the interrupt frame that returns to the program.
    pub(crate) cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub(crate) ss: u64,
}

/// Why a program faulted on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The address that it accessed.
    pub address: u64,
    /// It was a store.
    pub is_write: bool,
    /// It was an instruction fetch.
    pub is_fetch: bool,
    /// A page is mapped there that does not allow it.
    pub is_present: bool,
}

/// Why a program stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// It executed SYSCALL: the number is in `rax`, the arguments in `rdi`, `rsi`, `rdx`, `r10`,
    /// `r8`, `r9`.
    Syscall,
    /// A page is missing or protected.
    PageFault(PageFault),
    /// Any other exception.
    Exception {
        /// The vector: 0 divide error, 6 invalid opcode, 13 general protection ...
        vector: u8,
        /// The error code; 0 for those that have none.
        code: u64,
    },
    /// A device or timer interrupt wants attention; the program did nothing.
    Interrupt,
}

/// Everything of a program's CPU state that must be kept while it does not run.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct UserContext {
    /// The general registers.
    pub registers: Registers,
    /// Base of the FS segment: thread-local storage.
    pub fs_base: u64,
    pub(crate) backend: backend::ContextState,
}

impl UserContext {
    /// A program that starts at `entry` with stack pointer `stack`, all other registers zero.
    pub fn new(entry: u64, stack: u64) -> Self {
        Self {
            registers: Registers {
                rip: entry,
                rsp: stack,
                rflags: 0x202,
                cs: backend::USER_CS,
                ss: backend::USER_SS,
                ..Registers::default()
            },
            fs_base: 0,
            backend: backend::ContextState::default(),
        }
    }

    /// Runs the program in `space` until it needs the kernel.
    pub fn run(&mut self, space: &Space) -> Trap {
        backend::run(self, space)
    }

    /// The number of the system call after [`Trap::Syscall`].
    pub fn syscall_number(&self) -> u64 {
        self.registers.rax
    }

    /// The six arguments of the system call after [`Trap::Syscall`].
    pub fn syscall_arguments(&self) -> [u64; 6] {
        let r = &self.registers;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]
    }

    /// Base of the GS segment; `None` where GS belongs to the kernel.
    pub fn gs_base(&self) -> Option<u64> {
        self.backend.gs_base()
    }

    /// Sets the base of the GS segment, an address in the programs' half; false where GS belongs to
    /// the kernel.
    pub fn set_gs_base(&mut self, base: u64) -> bool {
        assert!(base >> 47 == 0, "a program's GS base");
        self.backend.set_gs_base(base)
    }

    /// Sets what the system call returns.
    pub fn set_syscall_result(&mut self, value: u64) {
        self.registers.rax = value;
    }
}

/// The address of a pointer to code that does what SYSCALL does, for programs to jump through:
/// with the address to return to in RCX. `None` where SYSCALL itself is the fastest way, or the
/// kernel is out of programs' reach.
pub fn syscall_gate() -> Option<u64> {
    backend::syscall_gate_address()
}
