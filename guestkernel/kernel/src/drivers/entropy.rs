//! The virtio entropy device (VIRTIO 1.2, 5.4): it gives seeds for the [generator](crate::random).

use crate::random::{SEED, SeedSource};
use alloc::vec::Vec;
use machine::{
    DmaSegments, Frame, Payload, Reply, Segment, VirtQueue, VirtioError, VirtioFound,
    VirtioTransport,
};

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
}

impl SeedSource for EntropyDevice {
    fn request(&mut self) {
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

    fn take(&mut self) -> Option<Vec<u8>> {
        let completion = self.queue.reap().ok()??;
        let mut seed = alloc::vec![0; completion.written.min(SEED)];
        self.frame.read(0, &mut seed);
        self.frame.fill(0..SEED, 0);
        Some(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::MmioRegion;
    use machine::hosted::device::SimulatedDevice;
    use machine::hosted::models::SimulatedEntropy;

    #[test]
    fn each_request_is_answered_by_one_seed() {
        let (simulated, address) = SimulatedDevice::attach(SimulatedEntropy(7));
        let region = MmioRegion::claim(address, 0x1000).unwrap();
        let found = VirtioFound::probe(region).unwrap().unwrap();
        let mut device = EntropyDevice::start(found).unwrap();
        device.request();
        assert_eq!(device.take(), Some(alloc::vec![7; SEED]));
        assert_eq!(simulated.counts().answers, 1, "it was on its way already");
        assert_eq!(device.take(), None);
        device.request();
        assert!(device.take().is_some());
        assert_eq!(simulated.counts().answers, 2);
    }
}
