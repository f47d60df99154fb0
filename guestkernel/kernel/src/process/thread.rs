//! A thread: running the program and seeing to what it wants.

use super::call_sites::CallSites;
use super::process::{ExitStatus, Process};
use super::signals::Signal;
use crate::error::Errno;
use crate::executor;
use crate::mm::FaultError;
use crate::syscall::{self, Args};
use alloc::sync::Arc;
use core::pin::pin;
use linux_raw_sys::general as raw;
use machine::{PageFault, Trap, UserContext};

/// A thread of a process.
pub struct Thread {
    /// The process that it belongs to.
    pub process: Arc<Process>,
    /// The program's registers.
    pub context: UserContext,
    /// Its number.
    pub tid: u32,
    /// What `set_robust_list(2)` said: the list's head.
    pub robust_list: u64,
    /// What `sigaltstack(2)` said: address, flags, size.
    pub alternate_stack: (u64, u32, u64),
    /// Its name (`PR_SET_NAME`), padded with NULs.
    pub name: [u8; 16],
    /// Where its program makes system calls.
    call_sites: CallSites,
}

impl Thread {
    /// The first thread of `process`; `name` is padded with NULs.
    pub fn new(process: Arc<Process>, context: UserContext, name: [u8; 16]) -> Self {
        Self {
            tid: process.pid,
            process,
            context,
            robust_list: 0,
            alternate_stack: (0, raw::SS_DISABLE, 0),
            name,
            call_sites: CallSites::new(),
        }
    }

    /// Runs the program until the process ends.
    pub async fn run(mut self) -> ExitStatus {
        let process = self.process.clone();
        loop {
            if executor::has_ready() || executor::prepare_program() {
                executor::yield_now().await;
            }
            if process.is_ending() {
                return process.ended().await;
            }
            match self.context.run(process.space.root()) {
                Trap::Syscall => {
                    let number = self.context.syscall_number();
                    let args = Args(self.context.syscall_arguments());
                    let site = self.context.registers.rip;
                    self.call_sites.note(&process.space, site, number);
                    let result = match syscall::dispatch_now(&mut self, number, args) {
                        Some(result) => Some(result),
                        None => {
                            // Pinned here, so that the future is not moved on its way.
                            let call = pin!(syscall::dispatch(&mut self, number, args));
                            process.until_ending(call).await
                        }
                    };
                    match result {
                        Some(Ok(value)) => self.context.set_syscall_result(value),
                        Some(Err(error)) => {
                            if error == Errno::EAGAIN {
                                // What it would have waited for may be there, for the next try.
                                executor::poll_devices();
                            }
                            let value = i64::from(error.as_result()) as u64;
                            self.context.set_syscall_result(value);
                        }
                        None => {}
                    }
                }
                Trap::PageFault(fault) => self.page_fault(fault),
                Trap::Exception { vector, code } => self.exception(vector, code),
                Trap::Interrupt => {
                    executor::poll_devices();
                    executor::yield_now().await;
                }
            }
        }
    }

    fn page_fault(&self, fault: PageFault) {
        let signal = match self.process.space.fault(fault) {
            Ok(()) => return,
            Err(FaultError::NotMapped | FaultError::Denied) => Signal::SIGSEGV,
            Err(FaultError::NoPage) => Signal::SIGBUS,
            // That has ended the process.
            Err(FaultError::OutOfMemory) => return,
        };
        log::info!(
            "process {}: signal {} at {:#x}: {} of address {:#x}",
            self.process.pid,
            signal.number(),
            self.context.registers.rip,
            match (fault.is_write, fault.is_fetch) {
                (true, _) => "store",
                (_, true) => "fetch",
                _ => "load",
            },
            fault.address
        );
        self.process.force(signal);
    }

    fn exception(&self, vector: u8, code: u64) {
        let signal = match vector {
            0 | 16 | 19 => Signal::SIGFPE,
            1 | 3 => Signal::SIGTRAP,
            6 => Signal::SIGILL,
            17 => Signal::SIGBUS,
            _ => Signal::SIGSEGV,
        };
        log::info!(
            "process {}: signal {} at {:#x}: exception {vector} ({code:#x})",
            self.process.pid,
            signal.number(),
            self.context.registers.rip
        );
        self.process.force(signal);
    }
}
