//! `thread-test`: threads, and what they meet each other with, checked against Linux: every check
//! passes on Linux 6.18.

mod clone;
mod futex;
mod restart;
mod ring;
mod robust;
mod schedule;
mod threads;

use std::process::ExitCode;
use std::time::Duration;

/// The option that has another thread than the first end the program, and its status.
const EXIT_OPTION: &str = "--exit-from-thread";
const EXIT_STATUS: i32 = 42;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(EXIT_OPTION) {
        exit_from_thread();
    }
    guest_programs::check::main(
        "thread-test",
        &[
            threads::CHECKS,
            clone::CHECKS,
            futex::CHECKS,
            robust::CHECKS,
            restart::CHECKS,
            schedule::CHECKS,
            ring::CHECKS,
        ],
    )
}

/// Ends the program from one of several threads: others sleep, spin, and wait for each other.
fn exit_from_thread() -> ! {
    let lock = std::sync::Mutex::new(());
    let guard = lock.lock();
    std::thread::scope(|scope| -> ! {
        scope.spawn(|| drop(lock.lock()));
        scope.spawn(|| std::thread::sleep(Duration::from_secs(3600)));
        scope.spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            std::process::exit(EXIT_STATUS);
        });
        std::thread::sleep(Duration::from_secs(3600));
        drop(guard);
        std::process::exit(1)
    })
}
