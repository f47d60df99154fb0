//! The console driven as a guest would, with pipes and files for streams.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberOps};

use super::*;
use crate::testing::{BUFFERS, Buffer, DEADLINE, Driver, Random, hostile_chains};

const MULTIPORT: u64 = 1 << F_MULTIPORT;

const RX: usize = rx_queue(STDIN);
const OUT: usize = tx_queue(STDOUT);
const ERR: usize = tx_queue(STDERR);

/// A started console, its event loop, and the other ends of its streams.
struct Bench {
    driver: Driver<Console>,
    input: Option<PipeWriter>,
    output: Option<PipeReader>,
    error: Option<PipeReader>,
    done: Arc<AtomicBool>,
    events: Option<JoinHandle<()>>,
}

impl Bench {
    fn new() -> Self {
        let ((in_r, in_w), (out_r, out_w), (err_r, err_w)) = (
            io::pipe().unwrap(),
            io::pipe().unwrap(),
            io::pipe().unwrap(),
        );
        let mut bench = Self::with(Streams {
            input: in_r.into(),
            output: out_w.into(),
            error: err_w.into(),
        });
        bench.input = Some(in_w);
        bench.output = Some(out_r);
        bench.error = Some(err_r);
        bench
    }

    fn with(streams: Streams) -> Self {
        let size = Size {
            columns: 80,
            rows: 25,
        };
        let mut driver = Driver::new(Console::new(streams, size, &Threads::unconfined()).unwrap());
        let handle = driver.transport.device().handle();
        let queues = handle.control_queues(driver.transport.doorbells()).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let events = thread::spawn(move || {
            let mut events = EventManager::new().unwrap();
            events.add_subscriber(queues);
            while !seen.load(Ordering::Acquire) {
                events.run_with_timeout(10).unwrap();
            }
        });
        driver.start(MULTIPORT);
        Self {
            driver,
            input: None,
            output: None,
            error: None,
            done,
            events: Some(events),
        }
    }

    /// Sends a control message.
    fn tell(&mut self, port: u32, event: u16, value: u16) {
        let mut message = port.to_le_bytes().to_vec();
        message.extend_from_slice(&event.to_le_bytes());
        message.extend_from_slice(&value.to_le_bytes());
        self.driver.write(BUFFERS, &message);
        self.driver
            .send(CONTROL_TX, &[Buffer::Readable(BUFFERS, 8)]);
        self.driver.await_used(CONTROL_TX);
    }

    /// Receives a control message: port, event, value, text.
    fn hear(&mut self) -> (u32, u16, u16, String) {
        let at = BUFFERS + 0x1000;
        self.driver.send(CONTROL_RX, &[Buffer::Writable(at, 64)]);
        let (_, len) = self.driver.await_used(CONTROL_RX);
        let bytes = self.driver.bytes(at, len as usize);
        (
            u32::from_le_bytes(bytes[..4].try_into().unwrap()),
            u16::from_le_bytes(bytes[4..6].try_into().unwrap()),
            u16::from_le_bytes(bytes[6..8].try_into().unwrap()),
            String::from_utf8(bytes[8..].to_vec()).unwrap(),
        )
    }

    /// The handshake up to open ports.
    fn open_ports(&mut self) {
        self.tell(0, 0, 1);
        for port in 0..3 {
            assert_eq!(self.hear(), (port, 1, 1, String::new()));
        }
        for (port, name) in ringlet_abi::console::PORTS {
            self.tell(port, 3, 1);
            assert_eq!(self.hear(), (port, 7, 1, name.to_owned()));
            assert_eq!(self.hear(), (port, 6, 1, String::new()));
        }
    }

    fn print(&mut self, queue: usize, text: &[u8]) {
        self.driver.write(BUFFERS + 0x8000, text);
        self.driver.send(
            queue,
            &[Buffer::Readable(BUFFERS + 0x8000, text.len() as u32)],
        );
        self.driver.await_used(queue);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(events) = self.events.take() {
            let _ = events.join();
        }
    }
}

#[test]
fn ports_are_announced_named_and_opened() {
    let mut bench = Bench::new();
    bench.open_ports();
    assert_eq!(bench.driver.reg(0x100), 80 | 25 << 16);
    assert_eq!(bench.driver.reg(0x104), 3);
}

#[test]
fn output_goes_to_its_own_stream_unchanged() {
    let mut bench = Bench::new();
    let bytes: Vec<u8> = (0..=255).collect();
    bench.print(OUT, &bytes);
    bench.print(ERR, b"error");
    let mut out = vec![0; 256];
    bench.output.as_mut().unwrap().read_exact(&mut out).unwrap();
    assert_eq!(out, bytes);
    let mut err = [0; 5];
    bench.error.as_mut().unwrap().read_exact(&mut err).unwrap();
    assert_eq!(err, *b"error");
}

#[test]
fn input_fills_buffers_and_its_end_comes_after_it() {
    let mut bench = Bench::new();
    bench.open_ports();
    let mut input = bench.input.take().unwrap();
    input.write_all(b"hello, world").unwrap();
    let at = BUFFERS + 0x8000;
    let two = [Buffer::Writable(at, 5), Buffer::Writable(at + 100, 4)];
    bench.driver.send(RX, &two);
    assert_eq!(bench.driver.await_used(RX).1, 9);
    assert_eq!(bench.driver.bytes(at, 5), b"hello");
    assert_eq!(bench.driver.bytes(at + 100, 4), b", wo");
    drop(input);
    bench.driver.send(RX, &[Buffer::Writable(at, 64)]);
    assert_eq!(bench.driver.await_used(RX).1, 3);
    assert_eq!(bench.driver.bytes(at, 3), b"rld");
    bench.driver.send(RX, &[Buffer::Writable(at, 64)]);
    assert_eq!(bench.hear(), (STDIN, 6, 0, String::new()));
    assert!(bench.driver.used(RX).is_none());
}

#[test]
fn input_is_left_alone_until_the_driver_has_room() {
    let mut bench = Bench::new();
    bench.input.as_mut().unwrap().write_all(b"x").unwrap();
    thread::sleep(Duration::from_millis(20));
    let fd = bench.input.as_ref().unwrap().as_raw_fd();
    let mut waiting: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int.
    let result = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut waiting) };
    assert_eq!(result, 0);
    assert_eq!(waiting, 1);
}

#[test]
fn a_slow_reader_holds_up_its_own_stream_only() {
    let mut bench = Bench::new();
    let at = BUFFERS + 0x1_0000;
    // More than a pipe holds.
    bench.driver.send(OUT, &[Buffer::Readable(at, 0x4_0000)]);
    thread::sleep(Duration::from_millis(20));
    assert!(bench.driver.used(OUT).is_none());
    bench.print(ERR, b"still here");
    let mut all = vec![0; 0x4_0000];
    bench.output.as_mut().unwrap().read_exact(&mut all).unwrap();
    bench.driver.await_used(OUT);
}

#[test]
fn a_reader_that_is_gone_closes_the_port() {
    let mut bench = Bench::new();
    bench.open_ports();
    bench.output = None;
    bench.print(OUT, b"lost");
    assert_eq!(bench.hear(), (STDOUT, 6, 0, String::new()));
    bench.print(OUT, b"lost too");
    bench.print(ERR, b"not lost");
}

#[test]
fn a_full_device_closes_the_port() {
    let null = || File::open("/dev/null").unwrap().into();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut bench = Bench::with(Streams {
        input: null(),
        output: full.into(),
        error: null(),
    });
    bench.open_ports();
    bench.print(OUT, b"lost");
    assert_eq!(bench.hear(), (STDOUT, 6, 0, String::new()));
}

#[test]
fn draining_ends_when_everything_is_written() {
    let mut bench = Bench::new();
    let handle = bench.driver.transport.device().handle();
    let at = BUFFERS + 0x1_0000;
    let text: Vec<u8> = (0..0x4_0000_u32).map(|at| (at / 7) as u8).collect();
    bench.driver.write(at, &text);
    for _ in 0..8 {
        bench
            .driver
            .send(OUT, &[Buffer::Readable(at, text.len() as u32)]);
    }
    handle.drain();
    thread::sleep(Duration::from_millis(20));
    assert!(handle.drained().read().is_err(), "the pipe is full");
    let mut all = vec![0; 8 * text.len()];
    bench.output.as_mut().unwrap().read_exact(&mut all).unwrap();
    assert!(all.chunks(text.len()).all(|chunk| chunk == text));
    let start = Instant::now();
    while handle.drained().read().is_err() {
        assert!(start.elapsed() < DEADLINE);
        thread::yield_now();
    }
}

#[test]
fn draining_a_device_that_never_started_ends_at_once() {
    let null = || File::open("/dev/null").unwrap().into();
    let streams = Streams {
        input: null(),
        output: null(),
        error: null(),
    };
    let handle = Console::new(streams, Size::default(), &Threads::unconfined())
        .unwrap()
        .handle();
    handle.drain();
    assert!(handle.drained().read().is_ok());
}

#[test]
fn a_reset_ends_blocked_streams() {
    let mut bench = Bench::new();
    // Input that does not come, output that nobody reads.
    bench.driver.send(RX, &[Buffer::Writable(BUFFERS, 64)]);
    let at = BUFFERS + 0x1_0000;
    bench.driver.send(OUT, &[Buffer::Readable(at, 0x4_0000)]);
    thread::sleep(Duration::from_millis(20));
    bench.driver.start(MULTIPORT);
    bench.open_ports();
}

#[test]
fn a_driver_without_multiport_has_one_port() {
    let mut bench = Bench::new();
    bench.driver.start(0);
    // Often enough that the output thread sleeps before some of them: each ring must wake it.
    for _ in 0..500 {
        bench.print(tx_queue(STDIN), b"plain");
        let mut text = [0; 5];
        bench
            .output
            .as_mut()
            .unwrap()
            .read_exact(&mut text)
            .unwrap();
        assert_eq!(text, *b"plain");
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn a_new_size_is_told() {
    let mut bench = Bench::new();
    let generation = bench.driver.reg(0xfc);
    let size = Size {
        columns: 132,
        rows: 50,
    };
    bench.driver.transport.device().handle().resize(size);
    assert_eq!(bench.driver.reg(0x60) & 2, 2);
    assert_ne!(bench.driver.reg(0xfc), generation);
    assert_eq!(bench.driver.reg(0x100), 132 | 50 << 16);
}

#[test]
fn hostile_chains_stop_the_device_and_a_reset_starts_it() {
    for (name, send) in hostile_chains() {
        for queue in [RX, tx_queue(STDIN), CONTROL_TX, OUT, ERR] {
            let mut bench = Bench::new();
            send(&mut bench.driver, queue);
            bench.driver.await_failure();
            bench.driver.start(MULTIPORT);
            assert!(!bench.driver.needs_reset(), "{name}");
            bench.open_ports();
        }
        // The device looks at this queue when it has something to say.
        let mut bench = Bench::new();
        send(&mut bench.driver, CONTROL_RX);
        bench
            .driver
            .send(CONTROL_TX, &[Buffer::Readable(BUFFERS + 0x8000, 8)]);
        bench
            .driver
            .write(BUFFERS + 0x8000, &[0, 0, 0, 0, 0, 0, 1, 0]);
        bench
            .driver
            .send(CONTROL_TX, &[Buffer::Readable(BUFFERS + 0x8000, 8)]);
        bench.driver.await_failure();
    }
}

#[test]
fn control_messages_that_make_no_sense() {
    // A port that does not exist.
    let mut bench = Bench::new();
    bench.driver.write(BUFFERS, &[9, 0, 0, 0, 3, 0, 1, 0]);
    bench
        .driver
        .send(CONTROL_TX, &[Buffer::Readable(BUFFERS, 8)]);
    bench.driver.await_failure();

    // Answers are asked for without end, and there is no room for one.
    let mut bench = Bench::new();
    bench.driver.write(BUFFERS, &[0, 0, 0, 0, 0, 0, 1, 0]);
    for _ in 0..60 {
        bench
            .driver
            .send(CONTROL_TX, &[Buffer::Readable(BUFFERS, 8)]);
    }
    bench.driver.await_failure();

    // A buffer too small for a message, and one that is not writable.
    for buffer in [
        Buffer::Writable(BUFFERS + 64, 7),
        Buffer::Readable(BUFFERS + 64, 64),
    ] {
        let mut bench = Bench::new();
        bench.driver.write(BUFFERS, &[0, 0, 0, 0, 0, 0, 1, 0]);
        bench.driver.send(CONTROL_RX, &[buffer]);
        bench
            .driver
            .send(CONTROL_TX, &[Buffer::Readable(BUFFERS, 8)]);
        bench.driver.await_failure();
    }

    // Short and unknown messages are ignored.
    let mut bench = Bench::new();
    bench.driver.write(BUFFERS, &[0xff; 8]);
    bench
        .driver
        .send(CONTROL_TX, &[Buffer::Readable(BUFFERS, 8)]);
    bench.driver.await_used(CONTROL_TX);
    bench
        .driver
        .send(CONTROL_TX, &[Buffer::Readable(BUFFERS, 7)]);
    bench.driver.await_used(CONTROL_TX);
    bench.open_ports();
}

#[test]
fn random_queues_do_no_harm() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let null = || File::options().write(true).open("/dev/null").unwrap();
    let mut bench = Bench::with(Streams {
        input: File::open("/dev/zero").unwrap().into(),
        output: null().into(),
        error: null().into(),
    });
    for _ in 0..300 {
        for queue in 0..QUEUES {
            if random.below(3) == 0 {
                bench.driver.scramble(queue, &mut random);
            }
        }
        thread::sleep(Duration::from_micros(random.below(500)));
        bench.driver.start(MULTIPORT);
    }
    bench.open_ports();
}

#[test]
fn input_buffers_must_be_writable() {
    let mut bench = Bench::new();
    bench.driver.send(RX, &[Buffer::Readable(BUFFERS, 64)]);
    bench.driver.await_failure();
}
