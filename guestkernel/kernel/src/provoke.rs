//! `ringlet.provoke=WHAT` on the command line: the kernel goes wrong on purpose, so that tests see
//! how that is noticed. Nothing else of the kernel knows of it.

use crate::executor;
use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use machine::clock;
use machine::lock::Mutex;

/// Does what is asked for, for longer than `patience`.
pub(crate) fn provoke(what: &str, patience: Duration) {
    let span = 4 * patience.as_nanos() as u64;
    match what {
        "stall" => executor::spawn("provoked", async move { spin(span) }),
        "lock" => {
            executor::spawn("provoked", async move { hold(span) });
            executor::spawn("provoked", async move { wait_for_holder() });
        }
        "shootdown" => {
            executor::spawn(
                "provoked",
                async move { machine::provoke::ignore_flushes(span) },
            )
        }
        "overflow" => {
            recurse(1);
        }
        "panic" => panic!("provoked"),
        what => log::warn!("ringlet.provoke={what} is not known"),
    }
}

fn spin(nanoseconds: u64) {
    let end = clock::monotonic() + nanoseconds;
    while clock::monotonic() < end {
        spin_loop();
    }
}

static LOCK: Mutex<()> = Mutex::new(());
static HELD: AtomicU32 = AtomicU32::new(0);

/// Holds the lock for too long, once another CPU wants it.
fn hold(nanoseconds: u64) {
    let guard = LOCK.lock();
    HELD.store(1, Ordering::Release);
    spin(nanoseconds);
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
