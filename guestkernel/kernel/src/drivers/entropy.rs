//! The virtio entropy device (VIRTIO 1.2, 5.4): it gives seeds for the [generator](super::random).

use alloc::vec::Vec;
use machine::{
    DmaSegments, Frame, Payload, Reply, Segment, VirtQueue, VirtioError, VirtioFound,
    VirtioTransport,
};

/// Bytes of a seed.
pub(super) const SEED: usize = 32;

/// A virtio entropy device, asked for one seed at a time.
pub(super) struct EntropyDevice {
    queue: VirtQueue,
    frame: Frame,
    _transport: VirtioTransport,
}

impl EntropyDevice {
    /// Takes the device `found`, and asks it for a seed.
    ///
    /// # Errors
    ///
    /// [`VirtioError`].
    pub(super) fn start(found: VirtioFound) -> Result<Self, VirtioError> {
        let mut setup = found.negotiate(0)?;
        let queue = setup.queue(0, 2)?;
        let mut device = Self {
            queue,
            frame: Frame::zeroed().map_err(|_| VirtioError::OutOfMemory)?,
            _transport: setup.start(),
        };
        device.request();
        Ok(device)
    }

    /// Asks for a seed, unless one is on its way.
    pub(super) fn request(&mut self) {
        if self.queue.in_flight() > 0 {
            return;
        }
        let segments = Segment::new(self.frame.clone(), 0, SEED)
            .into_iter()
            .collect();
        let payload = Payload::FromDevice(DmaSegments::Own(segments));
        if self.queue.add(0, &[], payload, Reply::NONE).is_ok() {
            self.queue.kick();
        }
    }

    /// The bytes that have come, up to [`SEED`] of them; `None` if none have.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let completion = self.queue.reap().ok()??;
        let mut seed = alloc::vec![0; completion.written.min(SEED)];
        self.frame.read(0, &mut seed);
        self.frame.fill(0..SEED, 0);
        Some(seed)
    }
}
