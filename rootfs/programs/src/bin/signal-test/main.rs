//! `signal-test`: signals and the timers that send them, checked against Linux: every check passes on
//! Linux 6.18.

mod catch;
mod exceptions;
mod frames;
mod masks;
mod queues;
mod restarts;
mod stacks;
mod timers;

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_programs::check::main(
        "signal-test",
        &[
            masks::CHECKS,
            frames::CHECKS,
            stacks::CHECKS,
            exceptions::CHECKS,
            queues::CHECKS,
            restarts::CHECKS,
            timers::CHECKS,
        ],
    )
}
