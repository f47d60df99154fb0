//! The file system device (VIRTIO 1.2, section 5.11): a directory of the host, served by FUSE.
//!
//! `docs/virtio-fs.md` says what the server answers. Each request queue has a thread ([`worker`]), which
//! moves data by the host's io_uring straight between files and guest memory; what may wait for the
//! host otherwise is done by a bounded pool of threads ([`pool`]).
//!
//! The guest may send anything. It names files by numbers that it was given and by names of one entry;
//! [`host`] resolves these so that nothing outside of what is shared is reached, and [`nodes`] and
//! [`handles`] bound what it can make the host keep.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handles;
mod host;
mod identity;
mod nodes;
mod pool;
mod protocol;
mod ring;
mod server;
mod share;
mod worker;

use std::io;
use std::sync::Arc;

use ringlet_abi::fs::{MAX_REQUEST_QUEUES, QUEUE_SIZE};
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

pub use crate::engine::EngineKind;
pub use server::DescriptorLimits;
pub use share::{Cache, Share, ShareError};

use crate::device::read_config_bytes;
use crate::{Activation, Service, Stop, Threads, VirtioDevice};
use pool::{Pool, PoolHandle};
use ring::SharedQueue;
use server::Server;
use worker::Work;

/// Bytes of a tag.
pub const TAG_SIZE: usize = 36;

/// A virtio-fs device.
pub struct Fs {
    tag: String,
    share: Arc<Share>,
    limits: DescriptorLimits,
    queue_sizes: Vec<u16>,
    config: Vec<u8>,
    /// A thread for each request queue.
    workers: Vec<Service<Work>>,
    pool: Pool,
    active: Option<PoolHandle>,
}

impl Fs {
    /// The device for `share`, by the name `tag` (36 bytes at most count), with a request queue for
    /// each of `cpus`, with the threads that serve it.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor or thread. What the threads cannot have is told by
    /// [`Threads::await_confined`].
    pub fn new(
        tag: &str,
        share: Share,
        cpus: u32,
        limits: DescriptorLimits,
        engine: EngineKind,
        threads: &Threads,
    ) -> io::Result<Self> {
        let request_queues = cpus.clamp(1, MAX_REQUEST_QUEUES);
        // `struct virtio_fs_config` (VIRTIO 1.2, 5.11.4).
        let mut config = vec![0; TAG_SIZE];
        for (to, from) in config.iter_mut().zip(tag.bytes()) {
            *to = from;
        }
        config.extend_from_slice(&request_queues.to_le_bytes());
        let share = Arc::new(share);
        let start = |index| {
            let name = tag.to_owned();
            let prepare = move |stop: &Stop| worker::prepare(&name, engine, stop);
            Service::spawn(threads, &format!("{tag}-{index}"), prepare)
        };
        Ok(Self {
            tag: tag.to_owned(),
            limits,
            queue_sizes: vec![QUEUE_SIZE; 1 + request_queues as usize],
            config,
            workers: (0..request_queues).map(start).collect::<io::Result<_>>()?,
            pool: Pool::new(tag, &share, threads)?,
            share,
            active: None,
        })
    }

    /// The number of request queues.
    pub fn request_queues(&self) -> u32 {
        self.queue_sizes.len() as u32 - 1
    }
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn name(&self) -> &str {
        &self.tag
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let server = Arc::new(Server::new(Arc::clone(&self.share), self.limits)?);
        let pool = self.pool.start(&server, &activation.interrupt);
        let mut queues = activation.queues.into_iter();
        // The urgent queue is served with the first of the others.
        let mut urgent = queues.next().flatten();
        for (worker, queue) in self.workers.iter().zip(queues) {
            let queues: Vec<_> = urgent.take().into_iter().chain(queue).collect();
            if queues.is_empty() {
                continue;
            }
            worker.assign(Work {
                queues: queues.into_iter().map(SharedQueue::new).collect(),
                server: Arc::clone(&server),
                pool: pool.clone(),
            });
        }
        self.active = Some(pool);
        Ok(())
    }

    fn reset(&mut self) {
        // First those who give the pool work.
        for worker in &self.workers {
            worker.recall();
        }
        if let Some(pool) = self.active.take() {
            self.pool.stop(&pool);
        }
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
mod tests;
