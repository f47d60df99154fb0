//! What is told on the serial port when something is wrong: registers and backtraces of the CPUs.
//!
//! Nothing here allocates, takes a lock, or waits for long: those may be what is wrong.

use super::per_cpu::{self, Frame};
use super::{IMAGE_BASE, clock, interrupt, power, privileged, serial, smp, symbols};
use core::arch::asm;
use core::fmt::{self, Write};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ringlet_abi::control::Exit;
use ringlet_abi::{REPORT_CPUS, REPORT_IRQ, REPORT_PORT};

const MAX_FRAMES: usize = 48;
/// Nanoseconds in which a CPU that runs takes an NMI, generously.
const NMI_TIMEOUT: u64 = 200_000_000;

unsafe extern "C" {
    static image_end: u8;
}

/// Text that is collected, so that the serial port is asked seldom.
pub(super) struct Report {
    text: [u8; 512],
    length: usize,
}

impl Report {
    pub(super) const fn new() -> Self {
        Self {
            text: [0; 512],
            length: 0,
        }
    }

    pub(super) fn flush(&mut self) {
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

/// Prints a stall and what all CPUs do, and if `panics` ends the VM. Only one is printed at a time.
pub(crate) fn stall(what: fmt::Arguments<'_>, panics: bool) {
    static IS_REPORTING: AtomicBool = AtomicBool::new(false);
    if IS_REPORTING.swap(true, Ordering::Acquire) {
        return;
    }
    let mut report = Report::new();
    // A report never fails to take text.
    let _ = writeln!(report, "stall: {what}");
    let _ = own_backtrace(&mut report);
    let _ = others(&mut report);
    if panics {
        let _ = writeln!(report, "kernel panic: softlockup_panic is set");
    }
    report.flush();
    if panics {
        power::exit(Exit::Panic);
    }
    IS_REPORTING.store(false, Ordering::Release);
}

/// Nanoseconds in which several requests are one: each CPU hears of it.
const REQUEST_INTERVAL: u64 = 100_000_000;

/// Registers of the second serial port (16550): data, interrupt enable, modem control, line status.
const DATA: u16 = REPORT_PORT;
const INTERRUPT_ENABLE: u16 = REPORT_PORT + 1;
const MODEM_CONTROL: u16 = REPORT_PORT + 4;
const LINE_STATUS: u16 = REPORT_PORT + 5;
/// Interrupts when data arrives; interrupts go out.
const DATA_ARRIVES: u8 = 1;
const INTERRUPTS_OUT: u8 = 8;
/// Data has arrived.
const HAS_DATA: u8 = 1;
/// A port that does not exist reads as this.
const NO_PORT: u8 = 0xff;
/// Bytes that the port holds at the most.
const FIFO: usize = 64;

/// Whether the last request was for the CPUs, too.
static ARE_CPUS_WANTED: AtomicBool = AtomicBool::new(false);

/// Has bytes that arrive at the second serial port ask for reports.
pub(super) fn listen() {
    // SAFETY: the port's interrupt is only latched.
    unsafe {
        privileged::write_port(INTERRUPT_ENABLE, &[DATA_ARRIVES]);
        privileged::write_port(MODEM_CONTROL, &[INTERRUPTS_OUT]);
    }
    interrupt::enable_everywhere(REPORT_IRQ);
}

/// Whether a request is not the last one, which another CPU has answered.
pub(super) fn is_due() -> bool {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if !power::has_control_page() {
        for _ in 0..FIFO {
            // SAFETY: reading takes what has arrived, so that the next byte interrupts again.
            let status = unsafe { privileged::read_port(LINE_STATUS) };
            if status == NO_PORT || status & HAS_DATA == 0 {
                break;
            }
            // SAFETY: as above.
            if unsafe { privileged::read_port(DATA) } == REPORT_CPUS {
                ARE_CPUS_WANTED.store(true, Ordering::Relaxed);
            }
        }
    }
    let now = clock::monotonic();
    let last = LAST.load(Ordering::Relaxed);
    (last == 0 || now >= last + REQUEST_INTERVAL)
        && LAST
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
}

/// Prints what all CPUs do, if somebody has asked for that.
pub fn cpus() {
    if !ARE_CPUS_WANTED.swap(false, Ordering::Relaxed) {
        return;
    }
    let mut report = Report::new();
    // A report never fails to take text.
    let _ = own_backtrace(&mut report);
    let _ = others(&mut report);
    report.flush();
}

fn own_backtrace(report: &mut Report) -> fmt::Result {
    writeln!(report, "CPU {}, which reports:", smp::current_cpu())?;
    // SAFETY: fields that never change.
    let stacks = unsafe { (*per_cpu::current()).stacks() };
    backtrace(report, &stacks, frame_pointer(), None)
}

/// The frame pointer of the function that this is inlined in.
#[inline(always)]
pub(super) fn frame_pointer() -> u64 {
    let frame_pointer: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack, preserves_flags)) }
    frame_pointer
}

/// Where every other CPU is: an NMI makes it tell.
pub(super) fn others(report: &mut Report) -> fmt::Result {
    for (number, cpu) in smp::others() {
        write!(report, "CPU {number}: ")?;
        let is_waiting = cpu.is_waiting.load(Ordering::Relaxed) != 0;
        let before = cpu.nmi.count.load(Ordering::Acquire);
        interrupt::send_nmi(number);
        let end = clock::monotonic() + NMI_TIMEOUT;
        while cpu.nmi.count.load(Ordering::Acquire) == before && clock::monotonic() < end {
            core::hint::spin_loop();
        }
        if cpu.nmi.count.load(Ordering::Acquire) == before {
            writeln!(
                report,
                "does not answer: the host does not run it, or it is dead"
            )?;
            continue;
        }
        // SAFETY: the other CPU's NMI handler writes the fields, and only when it is sent one.
        let (frame, rbp) = unsafe {
            (
                (&raw const cpu.nmi.frame).read_volatile(),
                (&raw const cpu.nmi.rbp).read_volatile(),
            )
        };
        let Frame {
            rip, rsp, rflags, ..
        } = frame;
        let place = match is_kernel(rip) {
            true if is_waiting => "waits for an interrupt",
            true => "in the kernel",
            false => "in the program",
        };
        writeln!(
            report,
            "{place}\n  rip {rip:#018x}  rsp {rsp:#018x}  rflags {rflags:#x}"
        )?;
        if is_kernel(rip) {
            backtrace(report, &cpu.stacks(), rbp, Some(rip))?;
        }
    }
    Ok(())
}

fn is_kernel(address: u64) -> bool {
    (IMAGE_BASE..(&raw const image_end) as u64).contains(&address)
}

/// The calls that led to `rip`, whose frame pointer is `frame_pointer`. The frames are on `stacks`;
/// those of another CPU may change meanwhile, which makes nonsense of the rest, nothing worse.
pub(super) fn backtrace(
    report: &mut Report,
    stacks: &[Range<u64>],
    frame_pointer: u64,
    rip: Option<u64>,
) -> fmt::Result {
    writeln!(report, "backtrace:")?;
    if let Some(rip) = rip {
        line(report, rip)?;
    }
    let mut frame = frame_pointer;
    for _ in 0..MAX_FRAMES {
        let is_on_a_stack = stacks
            .iter()
            .any(|stack| stack.contains(&frame) && stack.end - frame >= 16);
        if !is_on_a_stack || !frame.is_multiple_of(8) {
            break;
        }
        // SAFETY: two aligned words of a kernel's stack, which is never freed.
        let [next, address] = unsafe { (frame as *const [u64; 2]).read_volatile() };
        if is_kernel(address) {
            line(report, address - 1)?;
        } else if next == 0 {
            break;
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
