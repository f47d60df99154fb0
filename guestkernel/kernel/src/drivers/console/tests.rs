use super::super::interrupt::Trigger;
use super::*;
use crate::error::{Errno, Result};
use crate::file::Readiness;
use alloc::vec;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};
use machine::MmioRegion;
use machine::hosted::device::{Sabotage, SimulatedDevice};
use machine::hosted::models::SimulatedConsole;
use std::task::Wake;

type Simulated = Arc<SimulatedDevice<SimulatedConsole>>;

const PORT_OPEN: u16 = 6;

fn start(model: SimulatedConsole, kind: ConsoleKind) -> (Simulated, Arc<Console>) {
    let (device, address) = SimulatedDevice::attach(model);
    let region = MmioRegion::claim(address, 0x1000).unwrap();
    let found = VirtioFound::probe(region).unwrap().unwrap();
    let line = InterruptLine::enable(99, Trigger::Edge);
    (device, Console::start(found, line, kind).unwrap())
}

/// A console after the handshake.
fn ready() -> (Simulated, Arc<Console>) {
    let (device, console) = start(SimulatedConsole::new(), ConsoleKind::Ringlet);
    exchange(&device, &console);
    (device, console)
}

fn exchange(device: &Simulated, console: &Console) {
    for _ in 0..4 {
        device.process();
        console.poll();
    }
}

fn read(port: &ConsolePort, most: usize) -> Poll<Result<Vec<u8>>> {
    let mut out = vec![0; most];
    port.poll_read(&mut out, &mut Context::from_waker(Waker::noop()))
        .map_ok(|count| {
            out.truncate(count);
            out
        })
}

fn write(port: &ConsolePort, bytes: &[u8]) -> Poll<Result<usize>> {
    port.poll_write(bytes, &mut Context::from_waker(Waker::noop()))
}

fn flush(port: &ConsolePort) -> Poll<()> {
    port.poll_flush(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn the_handshake_announces_each_port() {
    let (device, console) = start(SimulatedConsole::new(), ConsoleKind::Ringlet);
    let stdout = console.port(Stream::Output);
    assert!(write(stdout, b"early").is_pending());
    exchange(&device, &console);
    let messages = device.with_model(|model| model.messages.clone());
    assert_eq!(messages[0], (0, 0, 1), "DEVICE_READY");
    for port in 0..3 {
        assert!(messages.contains(&(port, 3, 1)), "PORT_READY {port}");
        assert!(messages.contains(&(port, PORT_OPEN, 1)));
    }
    assert_eq!(write(stdout, b"late"), Poll::Ready(Ok(4)));
    assert_eq!(console.size(), (80, 25));
}

#[test]
fn streams_stay_apart() {
    let (device, console) = ready();
    assert_eq!(
        write(console.port(Stream::Output), b"out"),
        Poll::Ready(Ok(3))
    );
    assert_eq!(
        write(console.port(Stream::Error), b"err"),
        Poll::Ready(Ok(3))
    );
    exchange(&device, &console);
    device.with_model(|model| {
        assert_eq!(model.output, [vec![], b"out".to_vec(), b"err".to_vec()]);
    });
    let stdin = console.port(Stream::Input);
    assert_eq!(write(stdin, b"x"), Poll::Ready(Err(Errno::EBADF)));
    let stdout = console.port(Stream::Output);
    assert_eq!(read(stdout, 1), Poll::Ready(Err(Errno::EBADF)));
}

#[test]
fn input_is_not_taken_before_it_is_asked_for() {
    let (device, console) = ready();
    let stdin = console.port(Stream::Input);
    device.with_model(|model| model.input.push_back(b"for another".to_vec()));
    exchange(&device, &console);
    assert_eq!(device.with_model(|model| model.input.len()), 1);
    assert!(read(stdin, 0).is_ready());
    assert!(read(stdin, 100).is_pending());
    exchange(&device, &console);
    assert_eq!(stdin.available(), 11);
    assert_eq!(read(stdin, 3), Poll::Ready(Ok(b"for".to_vec())));
    assert_eq!(read(stdin, 100), Poll::Ready(Ok(b" another".to_vec())));
    assert!(read(stdin, 100).is_pending());
}

#[test]
fn input_of_any_size_comes_in_order() {
    let (device, console) = ready();
    let stdin = console.port(Stream::Input);
    let sent: Vec<u8> = (0..700_000_u32).map(|byte| (byte % 251) as u8).collect();
    device.with_model(|model| model.input.extend(sent.chunks(100_000).map(<[u8]>::to_vec)));
    let mut received = Vec::new();
    let mut sizes = [1, 4095, 5000, 70_000].into_iter().cycle();
    for _ in 0..2000 {
        if let Poll::Ready(bytes) = read(stdin, sizes.next().unwrap()) {
            received.extend(bytes.unwrap());
        }
        console.poll();
    }
    assert!(received == sent, "{} bytes came", received.len());
}

/// Reads at once when it is woken.
struct EagerReader {
    port: Arc<ConsolePort>,
    seen: Mutex<Vec<Vec<u8>>>,
}

impl Wake for EagerReader {
    fn wake(self: Arc<Self>) {
        if let Poll::Ready(Ok(bytes)) = read(&self.port, 10) {
            self.seen.lock().push(bytes);
        }
    }
}

#[test]
fn the_end_comes_after_the_input_before_it() {
    let (device, console) = ready();
    let stdin = console.port(Stream::Input).clone();
    let reader = Arc::new(EagerReader {
        port: stdin.clone(),
        seen: Mutex::default(),
    });
    let waker = Waker::from(reader.clone());
    let mut context = Context::from_waker(&waker);
    assert!(stdin.poll_read(&mut [0], &mut context).is_pending());
    device.with_model(|model| {
        model.input.push_back(b"last".to_vec());
        model.say(0, PORT_OPEN, 0, b"");
    });
    // The driver sees both at once.
    device.process();
    console.poll();
    assert_eq!(reader.seen.lock()[..], [b"last"]);
    assert!(stdin.is_closed());
    assert_eq!(read(&stdin, 10), Poll::Ready(Ok(vec![])));
    let readiness = stdin.poll_ready(Readiness::READABLE, &mut context);
    assert!(readiness.contains(Readiness::IN | Readiness::HANG_UP));
}

#[test]
fn writers_wait_for_a_slow_reader() {
    let (device, console) = ready();
    let stdout = console.port(Stream::Output);
    device.with_model(|model| model.is_stuck = true);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|byte| (byte % 241) as u8).collect();
    let mut done = 0;
    while let Poll::Ready(Ok(count)) = write(stdout, &sent[done..]) {
        done += count;
    }
    assert!((4096..=1 << 18).contains(&done), "{done} bytes in between");
    assert!(flush(stdout).is_pending() && console.in_flight());
    let mut context = Context::from_waker(Waker::noop());
    assert!(
        stdout
            .poll_ready(Readiness::WRITABLE, &mut context)
            .is_empty()
    );
    device.with_model(|model| model.is_stuck = false);
    while done < sent.len() {
        exchange(&device, &console);
        if let Poll::Ready(count) = write(stdout, &sent[done..]) {
            done += count.unwrap();
        }
    }
    exchange(&device, &console);
    assert!(flush(stdout).is_ready() && !console.in_flight());
    device.with_model(|model| assert!(model.output[1] == sent));
}

#[test]
fn nobody_reads_output_any_longer() {
    let (device, console) = ready();
    let stdout = console.port(Stream::Output);
    device.with_model(|model| model.say(1, PORT_OPEN, 0, b""));
    exchange(&device, &console);
    assert_eq!(write(stdout, b"x"), Poll::Ready(Err(Errno::EPIPE)));
    assert_eq!(write(console.port(Stream::Error), b"x"), Poll::Ready(Ok(1)));
    assert!(flush(stdout).is_ready());
}

#[test]
fn output_that_nobody_takes_is_not_waited_for() {
    let (device, console) = ready();
    let stdout = console.port(Stream::Output);
    device.with_model(|model| model.is_stuck = true);
    assert_eq!(write(stdout, b"x"), Poll::Ready(Ok(1)));
    assert!(flush(stdout).is_pending());
    device.with_model(|model| model.say(1, PORT_OPEN, 0, b""));
    exchange(&device, &console);
    assert!(flush(stdout).is_ready());
}

#[test]
fn control_messages_that_make_no_sense_are_ignored() {
    let (device, console) = ready();
    device.with_model(|model| {
        model.control.push_back(vec![]);
        model.control.push_back(b"short".to_vec());
        model.say(7, 1, 1, b"");
        model.say(u32::MAX, PORT_OPEN, 0, b"");
        model.say(1, 7, 1, &[0xff; 100]);
        model.say(1, 999, 1, b"");
    });
    exchange(&device, &console);
    assert_eq!(
        write(console.port(Stream::Output), b"x"),
        Poll::Ready(Ok(1))
    );
    let messages = device.with_model(|model| model.messages.clone());
    assert!(
        messages.contains(&(7, 3, 0)),
        "an unknown port is not ready"
    );
}

#[test]
fn a_console_with_one_port_serves_all_streams() {
    for kind in [ConsoleKind::Single, ConsoleKind::Ringlet] {
        let (device, console) = start(SimulatedConsole::single(), kind);
        for stream in [Stream::Output, Stream::Error] {
            assert_eq!(write(console.port(stream), b"hi"), Poll::Ready(Ok(2)));
        }
        exchange(&device, &console);
        device.with_model(|model| {
            assert_eq!(model.output[0], b"hihi");
            model.input.push_back(b"in".to_vec());
        });
        let stdin = console.port(Stream::Input);
        assert!(read(stdin, 9).is_pending());
        exchange(&device, &console);
        assert_eq!(read(stdin, 9), Poll::Ready(Ok(b"in".to_vec())));
    }
}

#[test]
fn ports_may_be_counted_from_another_number_and_hear_of_demand() {
    let (device, console) = start(SimulatedConsole::starting_at(1), ConsoleKind::From(1));
    exchange(&device, &console);
    assert_eq!(
        write(console.port(Stream::Error), b"err"),
        Poll::Ready(Ok(3))
    );
    exchange(&device, &console);
    device.with_model(|model| {
        assert!(model.messages.contains(&(3, PORT_OPEN, 1)));
        assert_eq!(model.output, [vec![], vec![], b"err".to_vec()]);
        model.input.push_back(b"in".to_vec());
    });
    let stdin = console.port(Stream::Input);
    assert!(read(stdin, 9).is_pending() && read(stdin, 9).is_pending());
    exchange(&device, &console);
    device.with_model(|model| assert_eq!(model.output[0].len(), 1, "asked for once"));
    assert_eq!(read(stdin, 9), Poll::Ready(Ok(b"in".to_vec())));
    assert_eq!(write(stdin, b"x"), Poll::Ready(Err(Errno::EBADF)));
    // A device without such a port is one with one port.
    let (_, console) = start(SimulatedConsole::new(), ConsoleKind::From(1));
    assert_eq!(console.port(Stream::Output).name(), "console");
}

#[test]
fn a_broken_device_ends_all_streams() {
    let (device, console) = ready();
    let stdout = console.port(Stream::Output);
    device.sabotage(Sabotage::UnknownId);
    assert_eq!(write(stdout, b"x"), Poll::Ready(Ok(1)));
    assert!(console.poll());
    assert_eq!(write(stdout, b"x"), Poll::Ready(Err(Errno::EIO)));
    assert!(flush(stdout).is_ready() && !console.in_flight() && !console.poll());
    let stdin = console.port(Stream::Input);
    assert_eq!(read(stdin, 1), Poll::Ready(Err(Errno::EIO)));
}
