//! What happens when a thread makes a system call that its filter does not allow: the call is not made,
//! the thread does nothing more, and the VM ends with a line that names the call.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use ringlet_devices::ThreadKind;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::register_signal_handler;

use crate::outcome::STATUS_ERROR;
use crate::terminal;

/// How long the event loop may take to end the process before the thread itself does.
const PATIENCE_MILLISECONDS: libc::c_int = 1000;

thread_local! {
    static KIND: Cell<Option<ThreadKind>> = const { Cell::new(None) };
}

/// The first violation: kind and number of the call in one word, so that it is set at once; 0 for none.
static FIRST: AtomicU64 = AtomicU64::new(0);
/// What wakes the event loop, or -1.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// A system call that a thread was not allowed to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    kind: u32,
    call: u32,
}

impl Violation {
    fn encode(self) -> u64 {
        u64::from(self.kind + 1) << 32 | u64::from(self.call)
    }

    fn decode(word: u64) -> Option<Self> {
        let kind = ((word >> 32) as u32).checked_sub(1)?;
        Some(Self {
            kind,
            call: word as u32,
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thread = ThreadKind::ALL
            .iter()
            .find(|kind| **kind as u32 == self.kind)
            .map_or("some", |kind| kind.name());
        let name = ringlet_abi::names::system_call(self.call.into()).unwrap_or("unknown");
        write!(
            f,
            "the jail refused system call {} ({name}) of a thread of kind '{thread}', and the VM was \
             ended; if the guest is not hostile this is a bug, please report it ('--no-jail' runs \
             without)",
            self.call
        )
    }
}

/// The violation that has been seen, if there is one.
pub fn seen() -> Option<Violation> {
    Violation::decode(FIRST.load(Ordering::Acquire))
}

/// Notes what kind of thread the calling one is.
pub(super) fn note_kind(kind: ThreadKind) {
    KIND.set(Some(kind));
}

/// Has violations of all threads end the process: `wake` becomes readable, and whoever waits for it has
/// a second to end the process, which then ends all the same.
///
/// # Errors
///
/// Those of sigaction(2).
pub(super) fn watch(wake: &EventFd) -> io::Result<()> {
    WAKE.store(wake.as_raw_fd(), Ordering::Release);
    register_signal_handler(libc::SIGSYS, on_violation)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// `si_code` of a SIGSYS that a filter has caused (`include/uapi/asm-generic/siginfo.h`).
const SYS_SECCOMP: libc::c_int = 1;

/// Async-signal-safe.
extern "C" fn on_violation(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes the information on the signal to the handler.
    if unsafe { (*info).si_code } != SYS_SECCOMP {
        return end_by_signal();
    }
    // Those that were started when their starter was confined already are that one's kind.
    let kind = KIND.get().unwrap_or(ThreadKind::DiskPool);
    let violation = Violation {
        kind: kind as u32,
        call: call_of(info),
    };
    let first = FIRST.compare_exchange(0, violation.encode(), Ordering::AcqRel, Ordering::Acquire);
    let one = 1_u64;
    // SAFETY: the pointer is to eight bytes. All filters allow a write to an event or have none to make.
    unsafe { libc::write(WAKE.load(Ordering::Acquire), (&raw const one).cast(), 8) };
    if kind != ThreadKind::Main || first.is_err() {
        // SAFETY: no descriptors are passed.
        unsafe { libc::poll(std::ptr::null_mut(), 0, PATIENCE_MILLISECONDS) };
    }
    let mut line = Line::default();
    let _ = fmt::write(&mut line, format_args!("ringlet: {violation}\n"));
    terminal::restore();
    terminal::write_if_ready(line.bytes());
    // SAFETY: _exit is async-signal-safe and has no memory arguments.
    unsafe { libc::_exit(STATUS_ERROR.into()) };
}

/// Somebody has sent the signal: the process ends by it, as it would without this handler. Where the filter
/// refuses a call of these, that ends the process by the same signal, as it is blocked here.
fn end_by_signal() {
    terminal::restore();
    // SAFETY: both are async-signal-safe and have no memory arguments; the default action needs no handler.
    unsafe {
        libc::signal(libc::SIGSYS, libc::SIG_DFL);
        libc::raise(libc::SIGSYS);
    }
}

/// The number of the system call that was not made (sigaction(2), `si_syscall`).
fn call_of(info: *mut libc::siginfo_t) -> u32 {
    /// `struct _sigsys` behind signal, error and code, and what aligns it.
    #[repr(C)]
    struct SigSys {
        signal: [libc::c_int; 4],
        address: *const libc::c_void,
        call: libc::c_int,
        architecture: libc::c_uint,
    }
    // SAFETY: the kernel passes the information on the signal to the handler; for SIGSYS it has this
    // layout, and it is integers and a pointer only.
    unsafe { (*info.cast::<SigSys>()).call as u32 }
}

/// Text without an allocation; what does not fit is left out.
struct Line {
    text: [u8; 512],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            text: [0; 512],
            length: 0,
        }
    }
}

impl Line {
    fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.text[self.length..];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_call_and_thread() {
        let violation = Violation {
            kind: ThreadKind::Disk as u32,
            call: libc::SYS_execve as u32,
        };
        assert_eq!(Violation::decode(violation.encode()), Some(violation));
        assert_eq!(Violation::decode(0), None);
        let text = violation.to_string();
        assert!(
            text.contains("(execve)") && text.contains("'disk'"),
            "{text}"
        );
    }
}
