//! The entropy device driven as a guest would, with an event loop in a thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use event_manager::{EventManager, SubscriberOps};

use super::*;
use crate::testing::{BUFFERS, Buffer, Driver, hostile_chains};

/// Runs `test` while an event loop serves the device.
fn with_device(test: impl FnOnce(&mut Driver<Entropy>)) {
    with(Entropy::default(), test);
}

fn with(entropy: Entropy, test: impl FnOnce(&mut Driver<Entropy>)) {
    let mut driver = Driver::new(entropy);
    let doorbell = driver.transport.doorbells()[0].try_clone().unwrap();
    let subscriber = driver.transport.device().subscriber(&doorbell).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut events = EventManager::new().unwrap();
            events.add_subscriber(subscriber);
            while !done.load(Ordering::Acquire) {
                events.run_with_timeout(10).unwrap();
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            driver.start(0);
            test(&mut driver);
        }));
        done.store(true, Ordering::Release);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn buffers_are_filled_with_random_bytes() {
    with_device(|driver| {
        for _ in 0..200 {
            let halves = [
                Buffer::Writable(BUFFERS, 32),
                Buffer::Writable(BUFFERS + 64, 32),
            ];
            driver.write(BUFFERS, &[0; 128]);
            driver.send(0, &halves);
            assert_eq!(driver.await_used(0).1, 64);
            let (first, second) = (driver.bytes(BUFFERS, 32), driver.bytes(BUFFERS + 64, 32));
            assert!(first != [0; 32] && second != [0; 32] && first != second);
            assert_eq!(driver.bytes(BUFFERS + 32, 32), [0; 32]);
        }
    });
}

#[test]
fn a_huge_request_gets_a_part() {
    with_device(|driver| {
        driver.send(0, &[Buffer::Writable(BUFFERS, 8 << 20)]);
        assert_eq!(driver.await_used(0).1, REQUEST_MAX as u32);
        driver.send(0, &[Buffer::Readable(BUFFERS, 64)]);
        assert_eq!(driver.await_used(0).1, 0);
    });
}

#[test]
fn hostile_chains_stop_the_device_and_a_reset_starts_it() {
    with_device(|driver| {
        for (name, send) in hostile_chains() {
            driver.start(0);
            send(driver, 0);
            driver.await_failure();
            driver.start(0);
            driver.send(0, &[Buffer::Writable(BUFFERS, 16)]);
            assert_eq!(driver.await_used(0).1, 16, "{name}");
        }
    });
}

#[test]
fn entropy_is_limited_across_resets() {
    let limited = Entropy::with_bucket(Bucket::new(1000, 100));
    with(limited, |driver| {
        let start = Instant::now();
        // The burst and 400 bytes more, of which the last hundred are a debt.
        for count in 0..5 {
            driver.send(0, &[Buffer::Writable(BUFFERS, 100)]);
            assert_eq!(driver.await_used(0).1, 100);
            if count % 2 == 0 {
                driver.start(0);
            }
        }
        assert!(start.elapsed() >= Duration::from_millis(300));
    });
}
