//! The console device (VIRTIO 1.2, section 5.3) with a port for each standard stream.
//!
//! Port 0 carries the host's standard input to the guest, ports 1 and 2 the guest's output to
//! standard output and standard error. Each stream has a thread that blocks on the host's
//! descriptor, so that a slow reader or writer holds up its own stream alone, and any kind of file
//! will do. The descriptors are never made non-blocking: others share them.
//!
//! The control queues (`control`) are served in the VMM's event loop.

mod control;
pub mod host;
mod input;
mod output;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlet_abi::console::{CONFIG_REFUSING, FEATURE_STATUS};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub use control::ControlQueues;

use crate::device::read_config_bytes;
use crate::{
    Activation, Interrupt, Service, Statistics, Stop, ThreadKind, Threads, VirtioDevice, Virtqueue,
};
use control::Control;
use input::End;

/// `VIRTIO_CONSOLE_F_SIZE` (VIRTIO 1.2, 5.3.3).
const F_SIZE: u32 = 0;
/// `VIRTIO_CONSOLE_F_MULTIPORT`.
const F_MULTIPORT: u32 = 1;

/// Ports: standard input, output and error.
const PORTS: usize = ringlet_abi::console::PORTS.len();
const STDIN: u32 = ringlet_abi::console::PORTS[0].0;
const STDOUT: u32 = ringlet_abi::console::PORTS[1].0;
const STDERR: u32 = ringlet_abi::console::PORTS[2].0;

/// Queues (VIRTIO 1.2, 5.3.2): port 0's pair, the control pair, the pairs of the other ports.
const QUEUES: usize = 2 * PORTS + 2;
const CONTROL_RX: usize = 2;
const CONTROL_TX: usize = 3;

const QUEUE_SIZE: u16 = 64;

/// The queue that the device fills with input for `port`.
const fn rx_queue(port: u32) -> usize {
    match port {
        0 => 0,
        port => 2 * port as usize + 2,
    }
}

/// The queue with the driver's output for `port`.
const fn tx_queue(port: u32) -> usize {
    rx_queue(port) + 1
}

/// The host's ends of the three streams.
pub struct Streams {
    /// What port 0 reads.
    pub input: OwnedFd,
    /// What port 1 writes to.
    pub output: OwnedFd,
    /// What port 2 writes to.
    pub error: OwnedFd,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

struct Shared {
    /// Ports whose output may be refused: see [`CONFIG_REFUSING`].
    refusing: u32,
    /// What was done, by port.
    statistics: [Arc<Statistics>; PORTS],
    /// Output was lost, and the driver could not be told.
    has_lost_output: AtomicBool,
    control: Mutex<Control>,
    size: Mutex<Size>,
    outputs: Mutex<Outputs>,
    drained: EventFd,
}

/// The interrupt and the output threads of a device that is active.
#[derive(Default)]
struct Outputs {
    interrupt: Option<Arc<Interrupt>>,
    threads: Vec<Arc<Service<Virtqueue>>>,
    running: usize,
}

/// A virtio-console device.
pub struct Console {
    shared: Arc<Shared>,
    input: Service<Virtqueue>,
    /// Of standard output and standard error.
    outputs: [Arc<Service<Virtqueue>>; 2],
}

/// The console as the VMM's event loop uses it.
#[derive(Clone)]
pub struct ConsoleHandle(Arc<Shared>);

impl Console {
    /// A device for `streams`, with a thread for each.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor or thread.
    pub fn new(streams: Streams, size: Size, threads: &Threads) -> io::Result<Self> {
        let refusing = [(STDOUT, &streams.output), (STDERR, &streams.error)]
            .into_iter()
            .filter(|(_, fd)| host::may_refuse(fd.as_fd()))
            .fold(0, |set, (port, _)| set | 1 << port);
        let shared = Arc::new(Shared {
            refusing,
            statistics: Default::default(),
            has_lost_output: AtomicBool::new(false),
            control: Mutex::default(),
            size: Mutex::new(size),
            outputs: Mutex::default(),
            drained: EventFd::new(EFD_NONBLOCK)?,
        });
        let (fd, ends) = (streams.input, Arc::clone(&shared));
        let input = Service::spawn(threads, name(STDIN), move |_| {
            let serve = move |queue, stop: &Stop| {
                let counted = &ends.statistics[STDIN as usize];
                input::serve(queue, &fd, stop, counted, |end| match end {
                    End::OfInput => ends.close_port(STDIN),
                    End::Failed(error) => ends.fail_input(STDIN, &error),
                });
            };
            Ok((ThreadKind::Input, serve))
        })?;
        let output = |port, fd: OwnedFd| {
            let ends = Arc::clone(&shared);
            let service = Service::spawn(threads, name(port), move |_| {
                let serve = move |queue, stop: &Stop| {
                    let counted = &ends.statistics[port as usize];
                    output::serve(queue, (name(port), &fd), stop, counted, |error| {
                        if error.kind() != io::ErrorKind::BrokenPipe {
                            ends.has_lost_output.store(true, Ordering::Release);
                        }
                        ends.close_port(port);
                    });
                    ends.output_ended();
                };
                Ok((ThreadKind::Output, serve))
            });
            io::Result::Ok(Arc::new(service?))
        };
        Ok(Self {
            input,
            outputs: [
                output(STDOUT, streams.output)?,
                output(STDERR, streams.error)?,
            ],
            shared,
        })
    }

    /// A handle for the event loop.
    pub fn handle(&self) -> ConsoleHandle {
        ConsoleHandle(Arc::clone(&self.shared))
    }
}

impl ConsoleHandle {
    /// Starts to end the output streams: each when what the driver queued is written out.
    pub fn drain(&self) {
        let outputs = lock(&self.0.outputs);
        outputs.threads.iter().for_each(|thread| thread.drain());
        if outputs.running == 0 {
            self.0.signal_drained();
        }
    }

    /// Readable once every output stream has ended.
    pub fn drained(&self) -> &EventFd {
        &self.0.drained
    }

    /// What was done, by stream and its name.
    pub fn statistics(&self) -> [(&'static str, Arc<Statistics>); PORTS] {
        let ports = ringlet_abi::console::PORTS;
        ports.map(|(port, name)| (name, Arc::clone(&self.0.statistics[port as usize])))
    }

    /// Whether output was lost that a program believes written.
    pub fn has_lost_output(&self) -> bool {
        self.0.has_lost_output.load(Ordering::Acquire)
    }

    /// Tells the driver of a new terminal size.
    pub fn resize(&self, size: Size) {
        *lock(&self.0.size) = size;
        if let Some(interrupt) = &lock(&self.0.outputs).interrupt {
            interrupt.config_changed();
        }
    }

    /// The subscriber that serves the control queues, whose doorbells are `doorbells[2]` and
    /// `doorbells[3]` of the device; port 0's output, which goes nowhere, included.
    ///
    /// # Errors
    ///
    /// Those of dup(2).
    pub fn control_queues(&self, doorbells: &[EventFd]) -> io::Result<ControlQueues> {
        ControlQueues::new(Arc::clone(&self.0), doorbells)
    }
}

impl Shared {
    /// The host's end of `port` is gone: no more input comes, or output goes nowhere.
    fn close_port(&self, port: u32) {
        lock(&self.control).close_port(port);
    }

    /// The input of `port` cannot be read any further.
    fn fail_input(&self, port: u32, error: &io::Error) {
        log::debug!("{}: {error}", name(port));
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        lock(&self.control).fail_input(port, errno as u16);
    }

    fn output_ended(&self) {
        let mut outputs = lock(&self.outputs);
        outputs.running = outputs.running.saturating_sub(1);
        if outputs.running == 0 {
            self.signal_drained();
        }
    }

    fn signal_drained(&self) {
        // It fails only when the counter is full, and then it is readable.
        let _ = self.drained.write(1);
    }
}

/// The name of a port.
fn name(port: u32) -> &'static str {
    ringlet_abi::console::PORTS[port as usize].1
}

/// Locks `mutex`; what a panicked thread left is still a state that the device can go on from.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VirtioDevice for Console {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn name(&self) -> &str {
        "console"
    }

    fn features(&self) -> u64 {
        1 << F_SIZE | 1 << F_MULTIPORT | 1 << FEATURE_STATUS
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; QUEUES]
    }

    /// `struct virtio_console_config` (VIRTIO 1.2, 5.3.4), and [`CONFIG_REFUSING`].
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let size = *lock(&self.shared.size);
        let mut config = [0; 16];
        config[0..2].copy_from_slice(&size.columns.to_le_bytes());
        config[2..4].copy_from_slice(&size.rows.to_le_bytes());
        config[4..8].copy_from_slice(&(PORTS as u32).to_le_bytes());
        config[CONFIG_REFUSING as usize..].copy_from_slice(&self.shared.refusing.to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let multiport = activation.has_feature(F_MULTIPORT);
        let has_status = activation.has_feature(FEATURE_STATUS as u32);
        let mut queues = activation.queues;
        let mut take = |index: usize| queues.get_mut(index).and_then(Option::take);

        // A driver without MULTIPORT has one port for both directions.
        let queues_out: &[usize] = match multiport {
            true => &[tx_queue(STDOUT), tx_queue(STDERR)],
            false => &[tx_queue(STDIN)],
        };
        let mut started = lock(&self.shared.outputs);
        started.interrupt = Some(activation.interrupt);
        for (thread, queue) in self.outputs.iter().zip(queues_out) {
            let Some(queue) = take(*queue) else { continue };
            started.running += 1;
            thread.assign(queue);
            started.threads.push(Arc::clone(thread));
        }
        drop(started);

        if let Some(queue) = take(rx_queue(STDIN)) {
            self.input.assign(queue);
        }
        lock(&self.shared.control).activate(
            has_status,
            take(CONTROL_RX),
            take(CONTROL_TX),
            multiport.then(|| take(tx_queue(STDIN))).flatten(),
        );
        Ok(())
    }

    fn reset(&mut self) {
        self.input.recall();
        {
            let mut outputs = lock(&self.shared.outputs);
            outputs.interrupt = None;
            outputs.threads.clear();
        }
        // The threads take the locks as they end, so none is held here.
        self.outputs.iter().for_each(|thread| thread.recall());
        lock(&self.shared.outputs).running = 0;
        *lock(&self.shared.control) = Control::default();
    }
}

#[cfg(test)]
mod tests;
