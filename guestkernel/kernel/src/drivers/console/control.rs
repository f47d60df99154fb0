//! The control queues: the device announces, names, opens and closes ports (VIRTIO 1.2, 5.3.6).

use machine::{
    AddError, DmaSegments, Frame, PAGE_SIZE, Payload, QueueBroken, Reply, Segment, VirtQueue,
    VirtioError,
};
use ringlet_abi::console::{EVENT_INPUT_FAILED, PORTS, SIZE_PORT};
use virtio_spec::console::Device as Event;

/// Bytes of a message without the name that may follow (`struct virtio_console_control`).
const MESSAGE: usize = 8;
/// Bytes of a receive buffer; a name that does not fit is not one of ours.
const BUFFER: usize = 128;
/// Receive buffers: more than the messages that four ports bring at once.
const BUFFERS: usize = PAGE_SIZE / BUFFER;

/// The ports that there may be.
const KNOWN: [(u32, &str); PORTS.len() + 1] = [PORTS[0], PORTS[1], PORTS[2], SIZE_PORT];

/// Something has become of the host's end of a port.
pub(super) struct PortChange {
    /// The index of the port in [`PORTS`], or their number for [`SIZE_PORT`].
    pub(super) stream: usize,
    pub(super) change: Change,
}

/// What has become of a port's other end.
pub(super) enum Change {
    /// It was opened.
    Opened,
    /// It was closed.
    Closed,
    /// Its input cannot be read any further, for this errno.
    InputFailed(u16),
}

/// The control queues.
pub(super) struct Control {
    rx: VirtQueue,
    tx: VirtQueue,
    /// What the numbers of [`PORTS`] are counted from.
    first: u32,
}

impl Control {
    pub(super) fn new(rx: VirtQueue, tx: VirtQueue, first: u32) -> Self {
        Self { rx, tx, first }
    }

    /// Says that the driver is ready, upon which the device announces its ports.
    pub(super) fn start(&mut self) -> Result<(), VirtioError> {
        let frame = Frame::zeroed().map_err(|_| VirtioError::OutOfMemory)?;
        for index in 0..BUFFERS.min(self.rx.size().into()) {
            let segment = Segment::new(frame.clone(), index * BUFFER, BUFFER);
            let payload = Payload::FromDevice(DmaSegments::Own(segment.into_iter().collect()));
            self.post(payload);
        }
        self.send(0, Event::DeviceReady, 1);
        self.kick();
        Ok(())
    }

    fn post(&mut self, payload: Payload) {
        // There are never more buffers than descriptors, so it can fail only once the queue is
        // broken, which the next look at it shows.
        let _: Result<(), (AddError, Payload)> = self.rx.add(0, &[], payload, Reply::NONE);
    }

    fn send(&mut self, id: u32, event: Event, value: u16) {
        let mut message = [0; MESSAGE];
        message[..4].copy_from_slice(&id.to_le_bytes());
        message[4..6].copy_from_slice(&u16::from(event).to_le_bytes());
        message[6..].copy_from_slice(&value.to_le_bytes());
        let sent = self.tx.add(0, &message, Payload::Nothing, Reply::NONE);
        if let Err((error, _)) = sent {
            log::warn!("virtio-console: a control message is lost: {error}");
        }
    }

    /// Tells the device of new messages and buffers.
    pub(super) fn kick(&mut self) {
        self.rx.kick();
        self.tx.kick();
    }

    pub(super) fn arm(&mut self) -> bool {
        self.rx.arm()
    }

    /// Takes the next message: `None` if there is none, `Some(None)` if it was dealt with here.
    ///
    /// # Errors
    ///
    /// [`QueueBroken`].
    pub(super) fn receive(&mut self) -> Result<Option<Option<PortChange>>, QueueBroken> {
        let Some(completion) = self.rx.reap()? else {
            return Ok(None);
        };
        let (payload, written) = (completion.payload, completion.written);
        let mut message = [0; BUFFER];
        if let Payload::FromDevice(DmaSegments::Own(segments)) = &payload
            && let Some(segment) = segments.first()
        {
            segment.frame().read(segment.offset(), &mut message);
        }
        self.post(payload);
        while self.tx.reap()?.is_some() {}
        let message = &message[..written];
        Ok(Some(self.handle(message)))
    }

    fn handle(&mut self, message: &[u8]) -> Option<PortChange> {
        let (head, text) = message.split_first_chunk::<MESSAGE>()?;
        let [i0, i1, i2, i3, e0, e1, v0, v1] = *head;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let value = u16::from_le_bytes([v0, v1]);
        let event = u16::from_le_bytes([e0, e1]);
        let stream = KNOWN
            .iter()
            .position(|(number, _)| self.first + number == id);
        if event == EVENT_INPUT_FAILED {
            let change = Change::InputFailed(value);
            return stream.map(|stream| PortChange { stream, change });
        }
        let event = Event::try_from(event).ok()?;
        match (event, stream) {
            (Event::DeviceAdd, Some(_)) => {
                self.send(id, Event::PortReady, 1);
                self.send(id, Event::PortOpen, 1);
                None
            }
            (Event::DeviceAdd, None) => {
                self.send(id, Event::PortReady, 0);
                None
            }
            (Event::PortName, Some(stream)) => {
                let name = KNOWN[stream].1;
                // QEMU ends the name with a NUL.
                if text.strip_suffix(b"\0").unwrap_or(text) != name.as_bytes() {
                    log::warn!("virtio-console: port {id} has another name than {name}");
                }
                None
            }
            (Event::PortOpen, Some(stream)) => Some(PortChange {
                stream,
                change: match value {
                    0 => Change::Closed,
                    _ => Change::Opened,
                },
            }),
            (Event::DeviceRemove, Some(stream)) => Some(PortChange {
                stream,
                change: Change::Closed,
            }),
            // Which ports are consoles, and their size: neither matters here.
            _ => None,
        }
    }
}
