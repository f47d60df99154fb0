//! `process-test`: processes, what they share, how they end and who is told, checked against Linux: every
//! check passes on Linux 6.18.

mod child;
mod clones;
mod execs;
mod families;
mod jobs;
mod limits;
mod pidfds;
mod proc_files;
mod signals;
mod terminals;
mod waits;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(status) = execs::play() {
        return status;
    }
    guest_programs::check::main(
        "process-test",
        &[
            clones::CHECKS,
            waits::CHECKS,
            execs::CHECKS,
            families::CHECKS,
            signals::CHECKS,
            jobs::CHECKS,
            limits::CHECKS,
            pidfds::CHECKS,
            terminals::CHECKS,
            proc_files::CHECKS,
        ],
    )
}
