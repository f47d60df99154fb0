//! What a virtio device is to its transport.

use std::io;
use std::sync::Arc;

use crate::{Interrupt, Virtqueue};

/// What a device gets when the driver sets DRIVER_OK.
pub struct Activation {
    /// The features the driver accepted.
    pub features: u64,
    /// The queues by index; `None` for one that the driver did not set up.
    pub queues: Vec<Option<Virtqueue>>,
    /// The device's interrupt, failure state and configuration generation.
    pub interrupt: Arc<Interrupt>,
}

impl Activation {
    /// Whether the driver accepted feature bit `bit`.
    pub fn has_feature(&self, bit: u32) -> bool {
        self.features & 1 << bit != 0
    }
}

/// A virtio device without its transport (VIRTIO 1.2, chapter 5).
///
/// The transport calls it with its own lock held: from the vCPU threads, one call at a time.
pub trait VirtioDevice: Send {
    /// The device ID (VIRTIO 1.2, chapter 5).
    fn device_type(&self) -> u32;

    /// A short name for messages.
    fn name(&self) -> &str;

    /// The device-specific features offered; the transport adds its own.
    fn features(&self) -> u64;

    /// The largest size of each queue; their number is the number of queues.
    fn queue_sizes(&self) -> &[u16];

    /// Reads configuration space at `offset`; bytes past its end stay zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes configuration space. No device here has a writable field.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Starts to serve the queues.
    ///
    /// # Errors
    ///
    /// A thread or descriptor that the host denies; the device is then marked failed.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;

    /// Stops to serve the queues: when this returns, the device no longer touches guest memory, and
    /// has given back every chain that it took from a block device's queue.
    fn reset(&mut self);
}

/// Copies what `config` holds at `offset` into `data`; what lies past its end stays as it is.
pub(crate) fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let Some(rest) = usize::try_from(offset).ok().and_then(|at| config.get(at..)) else {
        return;
    };
    let count = rest.len().min(data.len());
    data[..count].copy_from_slice(&rest[..count]);
}
