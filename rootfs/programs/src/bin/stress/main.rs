//! `stress`: what threads, memory, rings and timers do when many use them at once, on all CPUs.
//!
//! Each check goes on for a while (`--seconds`), by chance that can be repeated (`--seed`), and
//! verifies all the time what must hold. The same checks pass on Linux 6.18.

mod affinity;
mod crew;
mod detached;
mod files;
mod futexes;
mod jobs;
mod locks;
mod one_ring;
mod plan;
mod protection;
mod remapping;
mod rings;
mod slots;
mod threads;
mod timers;
mod together;
mod watchdog;

use guest_programs::check::{OwnOption, main_with};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(protection::STORE_AFTER_PROTECT) {
        return protection::store_after_protect();
    }
    watchdog::start();
    let (mut seconds, mut seed) = (plan::take_seconds, plan::take_seed);
    main_with(
        "stress",
        &mut [
            OwnOption {
                name: "seconds",
                help: "  --seconds N  how long each check goes on (default 1)",
                take: &mut seconds,
            },
            OwnOption {
                name: "seed",
                help: "  --seed S     what chance starts from (default: the time)",
                take: &mut seed,
            },
        ],
        &[
            threads::CHECKS,
            detached::CHECKS,
            futexes::CHECKS,
            locks::CHECKS,
            remapping::CHECKS,
            slots::CHECKS,
            protection::CHECKS,
            files::CHECKS,
            rings::CHECKS,
            one_ring::CHECKS,
            timers::CHECKS,
            affinity::CHECKS,
            together::CHECKS,
        ],
    )
}
