//! When the kernel has a bug: registers and a backtrace on the serial port, then the end of the
//! VM.

use super::per_cpu::Exception;
use super::{IMAGE_BASE, power, serial, symbols};
use core::arch::asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};
use ringlet_abi::control::Exit;

const MAX_FRAMES: usize = 48;

unsafe extern "C" {
    static kernel_stack: u8;
    static panic_stack_end: u8;
    static image_end: u8;
}

/// Text that is collected, so that the serial port is asked seldom.
struct Report {
    text: [u8; 512],
    length: usize,
}

impl Report {
    const fn new() -> Self {
        Self {
            text: [0; 512],
            length: 0,
        }
    }

    fn flush(&mut self) {
        serial::write(&self.text[..self.length]);
        self.length = 0;
    }
}

impl Write for Report {
    fn write_str(&mut self, string: &str) -> fmt::Result {
        for byte in string.bytes() {
            if self.length == self.text.len() {
                self.flush();
            }
            self.text[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let frame_pointer: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack, preserves_flags)) }
    end(frame_pointer, None, |report| match info.location() {
        Some(location) => writeln!(report, "kernel panic at {location}: {}", info.message()),
        None => writeln!(report, "kernel panic: {}", info.message()),
    })
}

/// An exception in the kernel, or a double fault. `rbp` still is the kernel's: the entry code
/// has pushed it.
#[unsafe(no_mangle)]
extern "C" fn machine_fault(exception: &Exception) -> ! {
    let frame_pointer: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack, preserves_flags)) }
    let frame = exception.frame;
    end(frame_pointer, Some(frame.rip), |report| {
        writeln!(
            report,
            "kernel panic: exception {} (error code {:#x}) in the kernel\n\
             rip {:#018x}  rsp {:#018x}  rflags {:#x}\n\
             cr2 {:#018x}  rax {:#018x}  cs {:#x}",
            exception.vector,
            exception.code,
            frame.rip,
            frame.rsp,
            frame.rflags,
            exception.cr2,
            exception.rax,
            frame.cs,
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
        let _ = backtrace(&mut report, frame_pointer, rip);
        report.flush();
    }
    power::exit(Exit::Panic)
}

fn backtrace(report: &mut Report, frame_pointer: u64, rip: Option<u64>) -> fmt::Result {
    writeln!(report, "backtrace:")?;
    if let Some(rip) = rip {
        line(report, rip)?;
    }
    let stacks = (&raw const kernel_stack) as u64..(&raw const panic_stack_end) as u64;
    let mut frame = frame_pointer;
    for _ in 0..MAX_FRAMES {
        if !stacks.contains(&frame) || !frame.is_multiple_of(8) || frame + 16 > stacks.end {
            break;
        }
        // SAFETY: two aligned words of the kernel's stacks, which nobody else runs on now.
        let [next, address] = unsafe { (frame as *const [u64; 2]).read() };
        if !(IMAGE_BASE..(&raw const image_end) as u64).contains(&address) {
            if next == 0 {
                break;
            }
        } else {
            line(report, address - 1)?;
        }
        frame = next;
    }
    Ok(())
}

fn line(report: &mut Report, address: u64) -> fmt::Result {
    match symbols::lookup(address) {
        Some((name, offset)) => writeln!(report, "  {address:#018x} {name}+{offset:#x}"),
        None => writeln!(report, "  {address:#018x}"),
    }
}
