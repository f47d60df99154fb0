//! Guest memory that is gone: the file behind it was truncated while the VM ran.
//!
//! Where the guest touches it, KVM says so and the VM ends as after a crash. Where the VMM does, on any
//! thread, it gets SIGBUS: the handler here ends the process with a line and the status of an error.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};
use vmm_sys_util::signal::register_signal_handler;

use crate::outcome::STATUS_ERROR;
use crate::terminal;

/// Regions of guest memory that there can be: below and above the 32-bit hole.
const REGIONS: usize = 2;
const LINE: &[u8] =
    b"ringlet: guest memory is gone; the root file system image was truncated while \
    the VM ran: do not change an image that is in use\n";

/// First and last byte of each region in this process, for the handler.
static RANGES: [[AtomicUsize; 2]; REGIONS] =
    [const { [const { AtomicUsize::new(0) }; 2] }; REGIONS];

/// Has accesses to what is gone of `memory` end the process with a line.
///
/// # Errors
///
/// Those of sigaction(2).
pub fn watch(memory: &GuestMemoryMmap) -> io::Result<()> {
    for (range, region) in RANGES.iter().zip(memory.iter()) {
        let [start, last] = range;
        let address = host_address(region);
        start.store(address, Ordering::Relaxed);
        last.store(address + (region.len() as usize - 1), Ordering::Relaxed);
    }
    register_signal_handler(libc::SIGBUS, on_bus_error)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

fn host_address(region: &GuestRegionMmap) -> usize {
    region.as_ptr() as usize
}

fn is_guest_memory(address: usize) -> bool {
    RANGES.iter().any(|[start, last]| {
        let last = last.load(Ordering::Relaxed);
        last != 0 && (start.load(Ordering::Relaxed)..=last).contains(&address)
    })
}

/// Async-signal-safe.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    terminal::restore();
    // SAFETY: the kernel passes the information on the signal to the handler, and for SIGBUS that
    // has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    if is_guest_memory(address) {
        terminal::write_if_ready(LINE);
        // SAFETY: _exit is async-signal-safe and has no memory arguments.
        unsafe { libc::_exit(STATUS_ERROR.into()) };
    }
    // SAFETY: both are async-signal-safe. The default action ends the process once the handler
    // returns and the signal is no longer blocked.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
