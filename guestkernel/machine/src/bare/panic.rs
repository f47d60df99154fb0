//! When the kernel has a bug: registers and a backtrace on the serial port, then the end of the
//! VM.

use super::per_cpu::{self, Exception};
use super::report::{self, Report, frame_pointer};
use super::{machine_check, power, stacks};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};
use ringlet_abi::control::Exit;

const DOUBLE_FAULT: u64 = 8;
const MACHINE_CHECK: u64 = 18;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    end(frame_pointer(), None, |report| match info.location() {
        Some(location) => writeln!(report, "kernel panic at {location}: {}", info.message()),
        None => writeln!(report, "kernel panic: {}", info.message()),
    })
}

/// An exception in the kernel, a double fault, or a machine check. `rbp` still is the kernel's: the entry code
/// has pushed it.
#[unsafe(no_mangle)]
extern "C" fn machine_fault(exception: &Exception) -> ! {
    let frame = exception.frame;
    end(frame_pointer(), Some(frame.rip), |report| {
        match exception.vector {
            DOUBLE_FAULT => writeln!(report, "kernel panic: double fault")?,
            MACHINE_CHECK => machine_check::describe(report)?,
            vector => writeln!(
                report,
                "kernel panic: exception {vector} (error code {:#x}) in the kernel",
                exception.code
            )?,
        }
        if stacks::is_guard(exception.cr2) || stacks::is_guard(frame.rsp) {
            writeln!(report, "the kernel's stack has overflowed")?;
        }
        writeln!(
            report,
            "rip {:#018x}  rsp {:#018x}  rflags {:#x}\n\
             cr2 {:#018x}  rax {:#018x}  cs {:#x}",
            frame.rip, frame.rsp, frame.rflags, exception.cr2, exception.rax, frame.cs,
        )
    })
}

/// Precompiled library code refers to the unwinder, which is never entered: panics abort.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    power::exit(Exit::Panic)
}

/// As above, in builds without link-time optimisation.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

fn end(
    frame_pointer: u64,
    rip: Option<u64>,
    message: impl FnOnce(&mut Report) -> fmt::Result,
) -> ! {
    static IS_PANICKING: AtomicBool = AtomicBool::new(false);
    if !IS_PANICKING.swap(true, Ordering::Relaxed) {
        let mut report = Report::new();
        // A report never fails to take text.
        let _ = message(&mut report);
        // SAFETY: fields that never change.
        let stacks = unsafe { (*per_cpu::current()).stacks() };
        let _ = report::backtrace(&mut report, &stacks, frame_pointer, rip);
        let _ = report::others(&mut report);
        report.flush();
    }
    power::exit(Exit::Panic)
}
