//! The console's control queues (VIRTIO 1.2, 5.3.6.2): ports are announced, named, opened, closed.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use event_manager::{EventOps, Events, MutEventSubscriber};
use ringlet_abi::console::{EVENT_INPUT_FAILED, PORTS as PORT_NAMES};
use vm_memory::Bytes;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::{CONTROL_RX, CONTROL_TX, PORTS, STDIN, Shared, lock, tx_queue};
use crate::{Buffers, QueueError, Virtqueue};

/// Messages that may wait for a buffer of the driver's: two whole handshakes.
const PENDING_MAX: usize = 64;

/// Bytes of a message without a name: port, event, value.
const MESSAGE: usize = 8;

/// `VIRTIO_CONSOLE_*` events.
mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const PORT_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// Of one port.
#[derive(Clone, Copy)]
struct Port {
    /// The driver said that it is ready for messages about it.
    ready: bool,
    /// The host's end is there.
    open: bool,
    /// Why its input ended, if by an error.
    failed: Option<u16>,
}

/// The state of the control queues.
pub(super) struct Control {
    rx: Option<Virtqueue>,
    tx: Option<Virtqueue>,
    /// What the driver writes to standard input, which goes nowhere.
    unwanted: Option<Virtqueue>,
    ports: [Port; PORTS],
    pending: VecDeque<Vec<u8>>,
    buffers: Buffers,
    /// The driver understands [`EVENT_INPUT_FAILED`].
    has_status: bool,
}

impl Default for Control {
    fn default() -> Self {
        let port = Port {
            ready: false,
            open: true,
            failed: None,
        };
        Self {
            rx: None,
            tx: None,
            unwanted: None,
            ports: [port; PORTS],
            pending: VecDeque::new(),
            buffers: Buffers::default(),
            has_status: false,
        }
    }
}

impl Control {
    /// Takes the queues of a device that became active. The threads of the streams may have closed
    /// ports already.
    pub(super) fn activate(
        &mut self,
        has_status: bool,
        rx: Option<Virtqueue>,
        tx: Option<Virtqueue>,
        unwanted: Option<Virtqueue>,
    ) {
        self.has_status = has_status;
        self.rx = rx;
        self.tx = tx;
        self.unwanted = unwanted;
        // Notifications that came before are in the queues now.
        self.serve();
    }

    /// The host's end of `port` is gone.
    pub(super) fn close_port(&mut self, port: u32) {
        if let Some(state) = self.ports.get_mut(port as usize) {
            state.open = false;
            if state.ready {
                self.queue_message(port, event::PORT_OPEN, 0, b"");
                self.serve();
            }
        }
    }

    /// The input of `port` cannot be read any further, for this errno. To a driver that does not know
    /// such a thing it is the end.
    pub(super) fn fail_input(&mut self, port: u32, errno: u16) {
        if !self.has_status {
            return self.close_port(port);
        }
        if let Some(state) = self.ports.get_mut(port as usize) {
            state.failed = Some(errno);
            if state.ready {
                self.queue_message(port, EVENT_INPUT_FAILED, errno, b"");
                self.serve();
            }
        }
    }

    /// Serves what is in the queues.
    fn serve(&mut self) {
        if let Err(error) = self.try_serve()
            && let Some(queue) = self.rx.as_ref().or(self.tx.as_ref())
        {
            queue.interrupt().fail(&error);
            // A failed device does nothing until it is reset.
            *self = Self::default();
        }
    }

    fn try_serve(&mut self) -> Result<(), QueueError> {
        self.receive()?;
        self.discard_unwanted()?;
        self.send()
    }

    /// Reads the driver's messages; no more in one go than the queue holds.
    fn receive(&mut self) -> Result<(), QueueError> {
        let Some(mut tx) = self.tx.take() else {
            return Ok(());
        };
        let result = self.receive_from(&mut tx);
        self.tx = Some(tx);
        result
    }

    fn receive_from(&mut self, tx: &mut Virtqueue) -> Result<(), QueueError> {
        let memory = Arc::clone(tx.memory());
        for _ in 0..tx.size() {
            if !tx.pop_or_arm(&mut self.buffers)? {
                return tx.announce();
            }
            let mut message = [0; MESSAGE];
            if self.buffers.take_front(&memory, &mut message) {
                self.handle(message)?;
            }
            tx.push_used(self.buffers.head, 0)?;
        }
        // Others in the event loop come first; then this goes on.
        tx.doorbell().write(1)?;
        tx.announce()
    }

    fn handle(&mut self, message: [u8; MESSAGE]) -> Result<(), QueueError> {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = message;
        let id = u32::from_le_bytes([p0, p1, p2, p3]);
        let value = u16::from_le_bytes([v0, v1]);
        match u16::from_le_bytes([e0, e1]) {
            event::DEVICE_READY if value == 1 => {
                for (port, _) in PORT_NAMES {
                    self.queue_message(port, event::PORT_ADD, 1, b"");
                }
            }
            event::PORT_READY if value == 1 => {
                let Some((port, (_, name))) = self
                    .ports
                    .get_mut(id as usize)
                    .zip(PORT_NAMES.get(id as usize))
                else {
                    return Err(QueueError::Request("a control message names no port"));
                };
                port.ready = true;
                let (open, failed) = (u16::from(port.open), port.failed);
                self.queue_message(id, event::PORT_NAME, 1, name.as_bytes());
                // A port is closed until the device says that it is open.
                self.queue_message(id, event::PORT_OPEN, 1, b"");
                if open == 0 {
                    self.queue_message(id, event::PORT_OPEN, 0, b"");
                }
                if let Some(errno) = failed {
                    self.queue_message(id, EVENT_INPUT_FAILED, errno, b"");
                }
            }
            // PORT_OPEN tells that the guest's end is in use; the queues say so too.
            _ => (),
        }
        match self.pending.len() {
            0..=PENDING_MAX => Ok(()),
            _ => Err(QueueError::Request(
                "the driver asks for control messages and gives no buffers for them",
            )),
        }
    }

    fn queue_message(&mut self, port: u32, event: u16, value: u16, text: &[u8]) {
        let mut message = Vec::with_capacity(MESSAGE + text.len());
        message.extend_from_slice(&port.to_le_bytes());
        message.extend_from_slice(&event.to_le_bytes());
        message.extend_from_slice(&value.to_le_bytes());
        message.extend_from_slice(text);
        self.pending.push_back(message);
    }

    /// Writes pending messages into the buffers there are.
    fn send(&mut self) -> Result<(), QueueError> {
        let Some(rx) = &mut self.rx else {
            return Ok(());
        };
        while let Some(message) = self.pending.front() {
            if !rx.pop_or_arm(&mut self.buffers)? {
                break;
            }
            let mut rest = &message[..];
            for segment in &self.buffers.writable {
                let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
                rx.memory()
                    .write_slice(now, segment.addr)
                    .map_err(|_| QueueError::Request("a buffer left guest memory"))?;
                rest = later;
            }
            if !rest.is_empty() {
                return Err(QueueError::Request("a control buffer is too small"));
            }
            rx.push_used(self.buffers.head, message.len() as u32)?;
            self.pending.pop_front();
        }
        rx.announce()
    }

    fn discard_unwanted(&mut self) -> Result<(), QueueError> {
        let Some(queue) = &mut self.unwanted else {
            return Ok(());
        };
        for _ in 0..queue.size() {
            if !queue.pop_or_arm(&mut self.buffers)? {
                return queue.announce();
            }
            queue.push_used(self.buffers.head, 0)?;
        }
        queue.doorbell().write(1)?;
        queue.announce()
    }
}

/// Serves the control queues from an event loop.
pub struct ControlQueues {
    shared: Arc<Shared>,
    doorbells: Vec<EventFd>,
}

impl ControlQueues {
    /// A subscriber to the doorbells that matter here, of all the device's `doorbells`.
    pub(super) fn new(shared: Arc<Shared>, doorbells: &[EventFd]) -> io::Result<Self> {
        let doorbells = [CONTROL_RX, CONTROL_TX, tx_queue(STDIN)]
            .into_iter()
            .filter_map(|index| doorbells.get(index))
            .map(EventFd::try_clone)
            .collect::<io::Result<_>>()?;
        Ok(Self { shared, doorbells })
    }
}

impl MutEventSubscriber for ControlQueues {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        lock(&self.shared.control).serve();
    }

    /// Each ring of a doorbell is an event, though none is read here: without MULTIPORT that of port
    /// 0's output belongs to the output thread, which would sleep on if a ring were taken from it.
    fn init(&mut self, ops: &mut EventOps<'_>) {
        for doorbell in &self.doorbells {
            let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
            if let Err(error) = ops.add(Events::new(doorbell, events)) {
                log::error!("console: {error}");
            }
        }
    }
}
