//! `uring-test`: io_uring, checked field by field through raw system calls.
//!
//! Every check passes on Linux 6.18 as root: Linux says what is right. Only one thread exists; what
//! takes several is in `thread-test`.

mod cancel;
mod close;
mod direct;
mod disk;
mod enter;
mod fixed;
mod fsync;
mod links;
mod map;
mod overflow;
mod register;
mod rw;
mod setup;
mod submit;
mod timeout;
mod waits;

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_programs::check::main(
        "uring-test",
        &[
            setup::CHECKS,
            map::CHECKS,
            enter::CHECKS,
            submit::CHECKS,
            rw::CHECKS,
            fixed::CHECKS,
            register::CHECKS,
            fsync::CHECKS,
            close::CHECKS,
            direct::CHECKS,
            timeout::CHECKS,
            waits::CHECKS,
            cancel::CHECKS,
            links::CHECKS,
            overflow::CHECKS,
            disk::CHECKS,
        ],
    )
}
