//! `syscall-test`: what a program sees of files, memory, time and itself, checked call by call.
//!
//! Every check passes on Linux 6.18 as root, with `--dir` on a tmpfs: Linux says what is right.

mod attributes;
mod descriptors;
mod devices;
mod directories;
mod disk;
mod extended;
mod memory;
mod names;
mod open;
mod pointers;
mod process;
mod time;
mod transfer;

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_programs::check::main(
        "syscall-test",
        &[
            open::CHECKS,
            transfer::CHECKS,
            names::CHECKS,
            directories::CHECKS,
            attributes::CHECKS,
            extended::CHECKS,
            descriptors::CHECKS,
            devices::CHECKS,
            memory::CHECKS,
            pointers::CHECKS,
            time::CHECKS,
            process::CHECKS,
            disk::CHECKS,
        ],
    )
}
