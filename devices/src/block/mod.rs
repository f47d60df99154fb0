//! The block device (VIRTIO 1.2, section 5.2): a disk image served with the host's io_uring.
//!
//! One queue, one worker thread. Requests go to the host as they stand in guest memory: the host's
//! I/O vectors point at the guest's buffers.

mod disk;
mod request;
mod throttle;
mod worker;

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

pub use crate::engine::{EngineKind, has_io_uring, has_restrictions};
pub use disk::{Access, Disk, DiskError};
pub use throttle::Limits;

use crate::device::read_config_bytes;
use crate::{Activation, Service, Statistics, Stop, Threads, VirtioDevice};
use worker::Job;

/// Bytes of a sector, the unit of every address and length in the protocol.
pub const SECTOR: u64 = 512;

/// Most entries of the queue.
pub const QUEUE_SIZE: u16 = 256;
/// A request's data segments: what a chain of the queue's size holds beside header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Sectors of one discard: 1 GiB.
const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// Sectors that one request may zero: 64 MiB, what one vectored write of zeros can do where the
/// host's file system cannot zero a range itself.
const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 17;
/// In sectors; most host file systems have blocks of 4 KiB.
const DISCARD_ALIGNMENT: u32 = 8;

/// A virtio-blk device.
pub struct Block {
    name: String,
    access: Access,
    config: Vec<u8>,
    statistics: Arc<Statistics>,
    worker: Service<Job>,
}

impl Block {
    /// The device `name` (also its serial, of which the driver sees 20 bytes) for `disk`, with the
    /// thread that serves it and what the guest may ask of it.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor or thread. That it denies the engine is told by
    /// [`Threads::await_confined`].
    pub fn new(
        name: &str,
        disk: Disk,
        (engine, limits): (EngineKind, Limits),
        threads: &Threads,
    ) -> io::Result<Self> {
        let config = config(&disk);
        let access = disk.access();
        let (disk, serial) = (Arc::new(disk), name.to_owned());
        let statistics = Arc::<Statistics>::default();
        let counted = Arc::clone(&statistics);
        let prepare =
            move |stop: &Stop| worker::prepare((disk, counted), (engine, limits), serial, stop);
        Ok(Self {
            statistics,
            name: name.to_owned(),
            access,
            config,
            worker: Service::spawn(threads, name, prepare)?,
        })
    }

    /// What the device has done.
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }
}

/// `struct virtio_blk_config` (VIRTIO 1.2, 5.2.4).
fn config(disk: &Disk) -> Vec<u8> {
    let mut config = Vec::with_capacity(60);
    config.extend_from_slice(&disk.sectors().to_le_bytes());
    config.extend_from_slice(&0_u32.to_le_bytes()); // size_max, not offered
    config.extend_from_slice(&SEG_MAX.to_le_bytes());
    config.extend_from_slice(&[0; 4]); // geometry, not offered
    config.extend_from_slice(&(SECTOR as u32).to_le_bytes()); // blk_size
    config.extend_from_slice(&[0; 8]); // topology, not offered
    config.extend_from_slice(&[0; 4]); // writeback, num_queues, not offered
    for word in [
        MAX_DISCARD_SECTORS,
        1, // max_discard_seg
        DISCARD_ALIGNMENT,
        MAX_WRITE_ZEROES_SECTORS,
        1, // max_write_zeroes_seg
    ] {
        config.extend_from_slice(&word.to_le_bytes());
    }
    config.extend_from_slice(&[1, 0, 0, 0]); // write_zeroes_may_unmap
    config
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn features(&self) -> u64 {
        let always = 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH
            | 1 << ringlet_abi::block::FEATURE_NOSPC
            | 1 << ringlet_abi::block::FEATURE_FBIG;
        match self.access {
            Access::ReadOnly => always | 1 << VIRTIO_BLK_F_RO,
            Access::ReadWrite => {
                always | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
            }
        }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let features = worker::Features {
            flush: activation.has_feature(VIRTIO_BLK_F_FLUSH),
            no_space: activation.has_feature(ringlet_abi::block::FEATURE_NOSPC as u32),
            too_big: activation.has_feature(ringlet_abi::block::FEATURE_FBIG as u32),
        };
        let Some(queue) = activation.queues.into_iter().flatten().next() else {
            return Ok(());
        };
        self.worker.assign(Job { queue, features });
        Ok(())
    }

    fn reset(&mut self) {
        self.worker.recall();
    }
}

#[cfg(test)]
mod tests;
