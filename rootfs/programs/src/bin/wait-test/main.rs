//! `wait-test`: files to wait for others by, checked against Linux: every check passes on Linux 6.18.

mod epoll;
mod timerfd;

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_programs::check::main("wait-test", &[epoll::CHECKS, timerfd::CHECKS])
}
