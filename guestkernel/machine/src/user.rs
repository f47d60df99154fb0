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

    /// The selectors of the code and of the stack segment.
    pub fn segments(&self) -> [u16; 2] {
        [self.registers.cs as u16, self.registers.ss as u16]
    }

    /// Sets the selectors of the code segment, of 64-bit or of 32-bit code, and of the stack segment;
    /// false, and nothing is changed, for others than those of programs.
    #[must_use]
    pub fn set_segments(&mut self, [code, stack]: [u16; 2]) -> bool {
        let is_known = matches!(u64::from(code), backend::USER_CS | USER_CS_32)
            && u64::from(stack) == backend::USER_SS;
        if is_known {
            self.registers.cs = code.into();
            self.registers.ss = stack.into();
            self.backend.leave_with_all_registers();
        }
        is_known
    }

    /// Makes the segments those of a new program.
    pub fn set_program_segments(&mut self) {
        let is_known = self.set_segments([backend::USER_CS as u16, backend::USER_SS as u16]);
        debug_assert!(is_known);
    }

    /// Bytes of the floating-point and vector state: those of an area of XSAVE in its standard form
    /// or, where there is no XSAVE, of FXSAVE.
    pub fn extended_size() -> usize {
        backend::extended_size()
    }

    /// The parts of the floating-point and vector state that there are (XCR0); 0 where there is no XSAVE.
    pub fn extended_features() -> u64 {
        backend::extended_features()
    }

    /// The floating-point and vector state, as XSAVE stores it: [`extended_size`](Self::extended_size)
    /// bytes.
    pub fn extended(&mut self) -> &[u8] {
        self.backend.extended()
    }

    /// Has `fill` write a floating-point and vector state as [`extended`](Self::extended) gives it, over
    /// the one that there was. It need not make sense: if `fill` says false, or no processor has such a
    /// state, it is the one of a new program from now on, and the result is false.
    #[must_use]
    pub fn set_extended(&mut self, fill: impl FnOnce(&mut [u8]) -> bool) -> bool {
        self.backend.set_extended(fill)
    }

    /// Gives the program the floating-point and vector state of a new one.
    pub fn reset_extended(&mut self) {
        self.backend.reset_extended();
    }
}

/// The selector of 32-bit code of programs.
const USER_CS_32: u64 = 0x23;

/// The address of a pointer to code that does what SYSCALL does, for programs to jump through:
/// with the address to return to in RCX. `None` where SYSCALL itself is the fastest way, or the
/// kernel is out of programs' reach.
pub fn syscall_gate() -> Option<u64> {
    backend::syscall_gate_address()
}
