//! The virtio console device (VIRTIO 1.2, 5.3): a port for each standard stream.
//!
//! Ringlet's VMM has three named ports, and so has QEMU where ringlet starts it; any other has one,
//! which then serves all three streams.

mod control;
mod input;
mod output;
mod port;
#[cfg(test)]
mod tests;

use super::interrupt::InterruptLine;
use crate::executor::WaitQueue;
use crate::executor::{Device, Listed};
use crate::file::ByteStream;
use alloc::sync::Arc;
use control::{Change, Control, PortChange};
use core::fmt;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;
use input::Input;
use machine::lock::Mutex;
use machine::{QueueBroken, VirtioError, VirtioFound, VirtioTransport};
use output::Output;
pub use port::ConsolePort;
use ringlet_abi::console::{
    CONFIG_REFUSING, FEATURE_STATUS, INPUT_FAILED, PORTS, SIZE_MESSAGE, SIZE_PORT,
};
use virtio_spec::console;

const QUEUE_SIZE: u16 = 64;
/// Queues of the control messages (VIRTIO 1.2, 5.3.2).
const CONTROL_RX: u32 = 2;
const CONTROL_TX: u32 = 3;

/// Offsets in the configuration space (VIRTIO 1.2, 5.3.4: `struct virtio_console_config`).
mod config {
    pub(super) const SIZE: u64 = 0;
    pub(super) const PORTS: u64 = 4;
}

/// The queue with input from port `id`.
fn rx_queue(id: u32) -> u32 {
    match id {
        0 => 0,
        id => 2 * id + 2,
    }
}

/// The queue with output for port `id`.
fn tx_queue(id: u32) -> u32 {
    rx_queue(id) + 1
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// Whose console it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    /// Ringlet's, with the ports of [`ringlet_abi::console`].
    Ringlet,
    /// Another's with such ports, whose numbers are counted from this one, and which is told when
    /// input is first wanted ([`ringlet_abi::console::FIRST_PORT`]).
    From(u32),
    /// Another's, of which one port is used.
    Single,
}

/// A virtio console device.
pub struct Console {
    transport: VirtioTransport,
    line: InterruptLine,
    control: Option<Mutex<Control>>,
    /// By stream.
    streams: [Arc<ConsolePort>; PORTS.len()],
    /// Where another VMM says the terminal's size.
    sizes: Option<ConsolePort>,
    /// Somebody wants to know of changes of the size, and there may have been one.
    is_size_wanted: AtomicBool,
    is_resized: AtomicBool,
    resized: WaitQueue,
}

impl Console {
    /// Takes the device `found`.
    ///
    /// # Errors
    ///
    /// [`VirtioError`].
    pub(super) fn start(
        found: VirtioFound,
        line: InterruptLine,
        kind: ConsoleKind,
    ) -> Result<Arc<Self>, VirtioError> {
        let (wanted, first) = match kind {
            ConsoleKind::Ringlet => {
                let wanted = console::F::SIZE | console::F::MULTIPORT;
                (wanted.bits().to_ne() as u64 | 1 << FEATURE_STATUS, 0)
            }
            ConsoleKind::From(first) => {
                let wanted = console::F::SIZE | console::F::MULTIPORT;
                (wanted.bits().to_ne() as u64, first)
            }
            ConsoleKind::Single => (console::F::SIZE.bits().to_ne() as u64, 0),
        };
        let mut setup = found.negotiate(wanted)?;
        let has_status = setup.features() & 1 << FEATURE_STATUS != 0;
        let refusing = match has_status {
            true => setup.config(CONFIG_REFUSING),
            false => 0,
        };
        let multiport = console::F::MULTIPORT.bits().to_ne() as u64;
        let has_streams = setup.features() & multiport != 0
            && setup
                .config(config::PORTS)
                .checked_sub(first)
                .is_some_and(|count| count as usize >= PORTS.len());
        let (streams, control);
        let mut sizes = None;
        if has_streams {
            let [stdin, stdout, stderr] = PORTS.map(|(number, name)| (first + number, name));
            let mut input = Input::new(setup.queue(rx_queue(stdin.0), QUEUE_SIZE)?);
            if matches!(kind, ConsoleKind::From(_)) {
                input.announce_demand(setup.queue(tx_queue(stdin.0), QUEUE_SIZE)?);
            }
            let stdin = ConsolePort::new(stdin.1, Some(input), None);
            let mut output = |id| {
                let queue = setup.queue(tx_queue(id), QUEUE_SIZE)?;
                Ok::<_, VirtioError>(Output::new(queue, has_status, refusing & 1 << id != 0))
            };
            let stdout = ConsolePort::new(stdout.1, None, Some(output(stdout.0)?));
            let stderr = ConsolePort::new(stderr.1, None, Some(output(stderr.0)?));
            if matches!(kind, ConsoleKind::From(_))
                && setup.config(config::PORTS) - first > SIZE_PORT.0
            {
                let queue = setup.queue(rx_queue(first + SIZE_PORT.0), QUEUE_SIZE)?;
                sizes = Some(ConsolePort::new(SIZE_PORT.1, Some(Input::new(queue)), None));
            }
            let rx = setup.queue(CONTROL_RX, QUEUE_SIZE)?;
            let tx = setup.queue(CONTROL_TX, QUEUE_SIZE)?;
            control = Some(Control::new(rx, tx, first));
            streams = [stdin, stdout, stderr].map(Arc::new);
        } else {
            let input = setup.queue(rx_queue(0), QUEUE_SIZE).map(Input::new)?;
            let output = Output::new(setup.queue(tx_queue(0), QUEUE_SIZE)?, false, false);
            let port = ConsolePort::new("console", Some(input), Some(output));
            port.set_open(true);
            let port = Arc::new(port);
            control = None;
            streams = [port.clone(), port.clone(), port];
        }
        let console = Self {
            transport: setup.start(),
            line,
            control: control.map(Mutex::new),
            streams,
            sizes,
            is_size_wanted: AtomicBool::new(false),
            // Until somebody looks.
            is_resized: AtomicBool::new(true),
            resized: WaitQueue::new(),
        };
        if let Some(control) = &console.control {
            control.lock().start()?;
        }
        Ok(Arc::new(console))
    }

    /// The port of a standard stream.
    pub fn port(&self, stream: Stream) -> &Arc<ConsolePort> {
        &self.streams[stream as usize]
    }

    /// Columns and rows of the terminal at the other end, as the device says now; zeros if it
    /// does not say.
    pub fn size(&self) -> (u16, u16) {
        if self.transport.features() & console::F::SIZE.bits().to_ne() as u64 == 0 {
            return (0, 0);
        }
        let size = self.transport.config(config::SIZE);
        (size as u16, (size >> 16) as u16)
    }

    /// Whether another VMM says by messages what becomes of the terminal and of standard input.
    pub fn has_messages(&self) -> bool {
        self.sizes.is_some()
    }

    /// Waits until the terminal's size may have changed, and gives it; `None` if it never will.
    pub async fn next_size(&self) -> Option<(u16, u16)> {
        let Some(port) = &self.sizes else {
            if self.transport.features() & console::F::SIZE.bits().to_ne() as u64 == 0 {
                return None;
            }
            self.is_size_wanted.store(true, Ordering::Relaxed);
            poll_fn(|context| {
                self.resized.register(context.waker());
                match self.is_resized.swap(false, Ordering::AcqRel) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            return Some(self.size());
        };
        loop {
            let mut message = [0; SIZE_MESSAGE];
            let mut done = 0;
            while done < message.len() {
                match poll_fn(|context| port.poll_read(&mut message[done..], context)).await {
                    Ok(count @ 1..) => done += count,
                    _ => return None,
                }
            }
            let [c0, c1, r0, r1] = message;
            match (u16::from_le_bytes([c0, c1]), u16::from_le_bytes([r0, r1])) {
                (INPUT_FAILED, errno) => self.port(Stream::Input).fail_input(errno),
                size => return Some(size),
            }
        }
    }

    fn ports(&self) -> impl Iterator<Item = &ConsolePort> {
        self.streams.iter().map(Arc::as_ref).chain(&self.sizes)
    }

    /// Waits until the device has taken all output.
    pub async fn flush(&self) {
        for port in &self.streams {
            core::future::poll_fn(|context| port.poll_flush(context)).await;
        }
    }

    fn serve(&self) -> Result<bool, QueueBroken> {
        let mut progress = false;
        if let Some(control) = &self.control {
            let mut control = control.lock();
            while let Some(message) = control.receive()? {
                progress = true;
                if let Some(PortChange { stream, change }) = message
                    && let Some(port) = self.ports().nth(stream)
                {
                    // Input that came before the port was closed is in its queue by now.
                    port.serve()?;
                    match change {
                        Change::Opened => port.set_open(true),
                        Change::Closed => port.set_open(false),
                        Change::InputFailed(errno) => port.fail_input(errno),
                    }
                }
            }
            control.kick();
        }
        for port in self.ports() {
            progress |= port.serve()?;
        }
        Ok(progress)
    }

    fn fail(&self) {
        self.ports().for_each(ConsolePort::fail);
    }
}

impl Listed for Console {
    fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.in_flight() {
            true => write!(out, "virtio-console: output under way"),
            false => write!(out, "virtio-console: no output under way"),
        }
    }
}

impl Device for Console {
    fn poll(&self) -> bool {
        let has_interrupted = self.line.take();
        if has_interrupted
            && (self.line.needs_acknowledgement() || self.is_size_wanted.load(Ordering::Relaxed))
            && self.transport.acknowledge_interrupt()
        {
            self.is_resized.store(true, Ordering::Release);
            self.resized.wake_all();
        }
        let progress = match self.serve() {
            Ok(progress) => progress,
            Err(error) => {
                log::error!("virtio-console: {error}");
                self.fail();
                return true;
            }
        };
        // An interrupt that brings nothing may mean that the device has failed.
        if has_interrupted && !progress && self.transport.has_failed() {
            log::error!("virtio-console: the device has failed");
            self.fail();
            return true;
        }
        progress
    }

    fn in_flight(&self) -> bool {
        self.streams.iter().any(|port| port.has_output_in_flight())
    }

    fn arm(&self) -> bool {
        let is_control_ready = match &self.control {
            Some(control) => control.lock().arm(),
            None => false,
        };
        self.ports()
            .fold(is_control_ready, |ready, port| ready | port.arm())
    }

    fn kick(&self) {
        self.streams.iter().for_each(|port| port.kick());
    }
}
