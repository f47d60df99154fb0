//! `thread-test`: threads, and what they meet each other with, checked against Linux: every check
//! passes on Linux 6.18.

mod clone;
mod futex;
mod memory_neighbours;
mod neighbours;
mod restart;
mod ring;
mod robust;
mod schedule;
mod threads;

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Options that have another thread than the first end the program: one among many that wait, or
/// one beside a first thread that computes; and the status.
const EXIT_AMONG_WAITING: &str = "--exit-among-waiting";
const EXIT_BESIDE_SPINNING: &str = "--exit-beside-spinning";
const EXIT_STATUS: i32 = 42;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(EXIT_AMONG_WAITING) => exit_among_waiting(),
        Some(EXIT_BESIDE_SPINNING) => exit_beside_spinning(),
        _ => {}
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
            neighbours::CHECKS,
            memory_neighbours::CHECKS,
            ring::CHECKS,
        ],
    )
}

/// Ends the program from a thread that has computed for a while, as the first does without end.
fn exit_beside_spinning() -> ! {
    std::thread::spawn(|| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(50) {}
        std::process::exit(EXIT_STATUS);
    });
    loop {
        std::hint::spin_loop();
    }
}

/// Ends the program from one of several threads: others sleep, spin, and wait for each other.
fn exit_among_waiting() -> ! {
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
