//! `ringlet.provoke=WHAT` on the command line: the kernel goes wrong on purpose, so that tests see
//! how that is noticed. Only with the feature `provoke`, which the kernel that is installed lacks.

use crate::executor;
use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicU32, Ordering};
use machine::lock::Mutex;
use machine::{clock, watchdog};

/// Nanoseconds after which what is not noticed ends.
const LONGEST: u64 = 60_000_000_000;

/// Does what is asked for.
pub(crate) fn provoke(what: &str) {
    match what {
        "stall" => executor::spawn("stall", async { spin() }),
        "lock" => {
            executor::spawn("lock", async { hold() });
            executor::spawn("wait", async { wait_for_holder() });
        }
        "shootdown" => executor::spawn("shootdown", async {
            machine::provoke::ignore_flushes(report_ends());
        }),
        "nmis" => executor::spawn("NMIs", send_nmis()),
        "overflow" => {
            recurse(1);
        }
        "panic" => panic!("provoked"),
        what => log::warn!("ringlet.provoke={what} is not known"),
    }
}

/// Nanoseconds from one NMI to the next: programs need time in between to get on.
const NMI_INTERVAL: u64 = 200_000;

/// Interrupts all other CPUs wherever they are, again and again.
async fn send_nmis() {
    loop {
        machine::provoke::send_nmis();
        executor::sleep_until(clock::monotonic() + NMI_INTERVAL).await;
    }
}

/// Keeps the CPU busy until something is reported.
fn spin() {
    let is_over = report_ends();
    while !is_over() {
        spin_loop();
    }
}

/// Tells whether something was reported since this was called, or that took too long.
fn report_ends() -> impl Fn() -> bool {
    let (reports, end) = (watchdog::reports(), clock::monotonic() + LONGEST);
    move || watchdog::reports() != reports || clock::monotonic() >= end
}

static LOCK: Mutex<()> = Mutex::new(());
static HELD: AtomicU32 = AtomicU32::new(0);

/// Holds the lock for too long, once another CPU wants it.
fn hold() {
    let guard = LOCK.lock();
    HELD.store(1, Ordering::Release);
    spin();
    drop(guard);
}

/// Waits for the lock when it is held.
fn wait_for_holder() {
    while HELD.load(Ordering::Acquire) == 0 {
        spin_loop();
    }
    drop(LOCK.lock());
}

/// The stack ends before this does.
fn recurse(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 0;
    }
    let frame = black_box([depth; 64]);
    recurse(depth + 1).wrapping_add(frame[depth as usize % frame.len()])
}
