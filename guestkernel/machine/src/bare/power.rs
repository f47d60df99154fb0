//! Ending the VM, and telling the VMM how far the guest has come: by the control page, or, under
//! a VMM that has none, by lines on the serial port.

use super::{privileged, serial, write_register};
use crate::{Frame, PAGE_SIZE, PhysAddr};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use ringlet_abi::CONTROL_BASE;
use ringlet_abi::control::{
    EXIT, Exit, MARK, MISSING, MODE, Mark, ModeChoice, RELEASE, SERIAL_EXIT, SERIAL_MARK,
    SERIAL_MISSING, SERIAL_MODE,
};

static HAS_CONTROL_PAGE: AtomicBool = AtomicBool::new(true);

/// Says that there is no control page.
pub(super) fn use_serial_port() {
    HAS_CONTROL_PAGE.store(false, Ordering::Relaxed);
}

/// Whether there is one.
pub(super) fn has_control_page() -> bool {
    HAS_CONTROL_PAGE.load(Ordering::Relaxed)
}

/// Ends the VM.
pub fn exit(exit: Exit) -> ! {
    tell(EXIT, SERIAL_EXIT, exit.encode());
    if !HAS_CONTROL_PAGE.load(Ordering::Relaxed) {
        // The VM ends when its CPU triple-faults; if that is the VMM's way.
        privileged::reset();
    }
    loop {
        privileged::wait();
    }
}

/// Reports a stage of the timeline.
pub fn mark(mark: Mark) {
    tell(MARK, SERIAL_MARK, mark as u32);
}

/// Reports the kernel's mode.
pub fn report_mode(choice: ModeChoice) {
    tell(MODE, SERIAL_MODE, choice.encode());
}

/// Gives a block of free memory, of the size of a huge page, back to the host; it holds zeros then. False
/// if the VMM takes none.
pub(crate) fn release(block: u32) -> bool {
    if !has_control_page() {
        return false;
    }
    // SAFETY: a register of the control page: the VMM changes the block, whose frames are the caller's.
    unsafe { write_register(PhysAddr(CONTROL_BASE + RELEASE), block) }
    true
}

/// Whether the VMM takes memory back.
pub fn can_release() -> bool {
    has_control_page()
}

/// Says in which page the table of what the program asked for in vain is.
pub fn report_missing(page: &Frame) {
    let number = page.address().0 / PAGE_SIZE as u64;
    tell(MISSING, SERIAL_MISSING, number as u32);
}

fn tell(register: u64, keyword: &str, value: u32) {
    if HAS_CONTROL_PAGE.load(Ordering::Relaxed) {
        // SAFETY: a register of the control page: the VMM stops all CPUs or takes note.
        unsafe { write_register(PhysAddr(CONTROL_BASE + register), value) }
        return;
    }
    let mut line = Line {
        text: [0; 64],
        length: 0,
    };
    // The line is long enough for every keyword and number.
    let _ = writeln!(line, "{keyword}{value:#x}");
    serial::write(&line.text[..line.length]);
}

/// A line of text without an allocation, since the heap may be what failed.
struct Line {
    text: [u8; 64],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, string: &str) -> fmt::Result {
        let place = self.text.get_mut(self.length..self.length + string.len());
        place.ok_or(fmt::Error)?.copy_from_slice(string.as_bytes());
        self.length += string.len();
        Ok(())
    }
}
