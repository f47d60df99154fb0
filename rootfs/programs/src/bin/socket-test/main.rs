//! `socket-test`: sockets, checked against Linux: every check passes on Linux 6.18.

mod kit;
mod pairs;
mod rights;
mod unix;

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_programs::check::main(
        "socket-test",
        &[pairs::CHECKS, rights::CHECKS, unix::CHECKS],
    )
}
