//! What a program is told of exceptions that it causes (Linux `arch/x86/kernel/traps.c`).

use super::emulated_fault;
use super::signal::{Signal, SignalInfo};
use super::thread::Thread;
use crate::mm::{FaultError, TASK_SIZE};
use linux_raw_sys::general as raw;
use machine::{PageFault, UserContext};

/// The exception that a thread has caused last, as frames of signals show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LastException {
    /// Its vector.
    pub(super) vector: u64,
    /// Its error code.
    pub(super) code: u64,
    /// The address of the last page fault.
    pub(super) address: u64,
}

const INVALID_OPCODE: u8 = 6;
const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u64 = 14;
/// Bits of a page fault's code: a page is there, a store, by a program, a fetch.
const CODE_PRESENT: u64 = 1;
const CODE_WRITE: u64 = 2;
const CODE_USER: u64 = 4;
const CODE_FETCH: u64 = 16;

/// The flag that has the processor stop after each instruction.
const FLAG_TRAP: u64 = 1 << 8;

/// Where FXSAVE has the control and status words of x87, and MXCSR.
const X87_CONTROL: usize = 0;
const X87_STATUS: usize = 2;
const MXCSR: usize = 24;
/// From the flags of exceptions in MXCSR to their masks.
const MXCSR_MASKS: u32 = 7;

impl Thread {
    /// Makes the page usable that the program has faulted on, or tells it that this cannot be.
    pub(crate) async fn page_fault(&mut self, fault: PageFault) {
        let space = &self.process.space;
        let mut result = space.fault(fault);
        if result == Err(FaultError::Absent) {
            let waiting = space.fault_waiting(fault);
            match self.process.until_ending(&self.state, true, waiting).await {
                Some(brought) => result = brought,
                None => return,
            }
        }
        let (signal, code) = match result {
            Ok(()) => return,
            Err(FaultError::NotMapped) => (Signal::SIGSEGV, raw::SEGV_MAPERR),
            Err(FaultError::Denied) => (Signal::SIGSEGV, raw::SEGV_ACCERR),
            Err(FaultError::NoPage | FaultError::Absent) => (Signal::SIGBUS, raw::BUS_ADRERR),
            // That has ended the process.
            Err(FaultError::OutOfMemory) => return,
        };
        let address = fault.address;
        // What is the kernel's is not told of.
        let is_present = fault.is_present || address >= TASK_SIZE;
        let bits = [
            (is_present, CODE_PRESENT),
            (fault.is_write, CODE_WRITE),
            (true, CODE_USER),
            (fault.is_fetch, CODE_FETCH),
        ];
        let set = bits.iter().filter(|(is_set, _)| *is_set);
        self.last_exception = LastException {
            vector: PAGE_FAULT,
            code: set.fold(0, |code, (_, bit)| code | bit),
            address,
        };
        let access = match (fault.is_write, fault.is_fetch) {
            (true, _) => "store",
            (_, true) => "fetch",
            _ => "load",
        };
        let info = SignalInfo::fault(signal, code as i32, address);
        self.force(
            info,
            false,
            format_args!("{access} of address {address:#x}"),
        );
    }

    /// The error code of a general protection fault that was reported as an invalid opcode: see
    /// [`emulated_fault`].
    fn misreported(&self) -> Option<u64> {
        let mut code = [0; emulated_fault::PREFIX];
        let rip = self.context.registers.rip;
        if !machine::is_cpl0_emulated() || self.process.space.read(rip, &mut code).is_err() {
            return None;
        }
        emulated_fault::error_code(&code)
    }

    /// Tells the program of an exception that is no page fault.
    pub(crate) fn exception(&mut self, vector: u8, code: u64) {
        let misreported = (vector == INVALID_OPCODE).then(|| self.misreported());
        let (vector, code) = match misreported.flatten() {
            Some(code) => (GENERAL_PROTECTION, code),
            None => (vector, code),
        };
        self.last_exception.vector = vector.into();
        self.last_exception.code = code;
        let rip = self.context.registers.rip;
        let fault = |signal, code: u32| Some(SignalInfo::fault(signal, code as i32, rip));
        let info = match vector {
            0 => fault(Signal::SIGFPE, raw::FPE_INTDIV),
            1 => fault(Signal::SIGTRAP, self.trap_code()),
            3 => Some(SignalInfo::kernel(Signal::SIGTRAP)),
            INVALID_OPCODE => fault(Signal::SIGILL, raw::ILL_ILLOPN),
            // A segment is not present, the stack segment.
            11 | 12 => Some(SignalInfo::kernel(Signal::SIGBUS)),
            16 | 19 => match arithmetic_code(&mut self.context, vector == 16) {
                Some(code) => fault(Signal::SIGFPE, code),
                // As on Linux: it is over already.
                None => return,
            },
            17 => Some(SignalInfo::fault(Signal::SIGBUS, raw::BUS_ADRALN as i32, 0)),
            _ => None,
        };
        let info = info.unwrap_or_else(|| SignalInfo::kernel(Signal::SIGSEGV));
        self.force(info, false, format_args!("exception {vector} ({code:#x})"));
    }

    /// Without the flag for single steps it is an instruction that causes the exception (ICEBP).
    fn trap_code(&self) -> u32 {
        match self.context.registers.rflags & FLAG_TRAP {
            0 => raw::TRAP_BRKPT,
            _ => raw::TRAP_TRACE,
        }
    }
}

/// What was wrong with a floating-point or vector instruction, by the flags that it has left.
fn arithmetic_code(context: &mut UserContext, is_x87: bool) -> Option<u32> {
    let state = context.extended();
    let half = |at: usize| {
        let bytes = [state.get(at), state.get(at + 1)];
        let [low, high] = bytes.map(|byte| u32::from(byte.copied().unwrap_or(0)));
        low | high << 8
    };
    let flags = match is_x87 {
        true => half(X87_STATUS) & !half(X87_CONTROL),
        false => {
            let mxcsr = half(MXCSR);
            mxcsr & !(mxcsr >> MXCSR_MASKS)
        }
    };
    // Invalid, denormal, divided by zero, overflow, underflow, inexact.
    Some(match flags {
        _ if flags & 0x01 != 0 => raw::FPE_FLTINV,
        _ if flags & 0x04 != 0 => raw::FPE_FLTDIV,
        _ if flags & 0x08 != 0 => raw::FPE_FLTOVF,
        _ if flags & 0x12 != 0 => raw::FPE_FLTUND,
        _ if flags & 0x20 != 0 => raw::FPE_FLTRES,
        _ => return None,
    })
}
