//! A device whose registers another process has: the back-end of vhost-user.
//!
//! The front-end, QEMU, shows the driver a virtio device and passes on what the driver says, with
//! guest memory, doorbells and interrupts as descriptors. The queues are served here, by the same
//! device models as behind [`MmioTransport`](crate::MmioTransport). The front-end is trusted as far
//! as the files of guest memory go; what lies in guest memory is not.

mod requests;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vhost::vhost_user::{BackendReqHandler, Error};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{Address, Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::queue::QueueSetup;
use crate::{
    Activation, Interrupt, Memory, Stop, ThreadKind, Threads, VirtioDevice, Virtqueue, Worker, poll,
};

const RING_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// A queue, and the front-end's ends of it.
struct Ring {
    setup: QueueSetup,
    doorbell: Option<EventFd>,
}

/// A piece of guest memory where the front-end has it mapped.
struct Region {
    guest: u64,
    frontend: u64,
    size: u64,
}

/// A device behind a vhost-user socket.
pub struct VhostUser<D> {
    device: D,
    /// Features that count as accepted, though the front-end does not pass them on.
    implied: u64,
    features: u64,
    memory: Option<Memory>,
    regions: Vec<Region>,
    rings: Vec<Ring>,
    interrupt: Arc<Interrupt>,
    is_active: bool,
}

impl<D: VirtioDevice + 'static> VhostUser<D> {
    /// Serves `device` on `socket` until that is closed or the worker is dropped. The driver is known
    /// to understand the features in `implied`, which a front-end that does not know them would
    /// not pass on.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor or thread.
    pub fn serve(
        device: D,
        implied: u64,
        socket: UnixStream,
        threads: &Threads,
    ) -> io::Result<Worker> {
        let name = device.name().to_owned();
        let rings = device.queue_sizes().iter().map(|size| Ring {
            setup: QueueSetup::new(*size),
            doorbell: None,
        });
        let backend = Self {
            rings: rings.collect(),
            interrupt: Arc::new(Interrupt::new(&name)?),
            device,
            implied,
            features: 0,
            memory: None,
            regions: Vec::new(),
            is_active: false,
        };
        Worker::spawn(threads, ThreadKind::VhostUser, &name.clone(), move |stop| {
            listen(backend, socket, &stop, &name)
        })
    }
}

/// Carries out the front-end's requests.
fn listen<D: VirtioDevice + 'static>(
    backend: VhostUser<D>,
    socket: UnixStream,
    stop: &Stop,
    name: &str,
) {
    let wake = match socket.try_clone() {
        Ok(wake) => wake,
        Err(error) => return log::error!("{name}: {error}"),
    };
    let backend = Arc::new(Mutex::new(backend));
    let mut handler = BackendReqHandler::from_stream(socket, Arc::clone(&backend));
    while !stop.requested() {
        match poll::readable([wake.as_fd(), poll::borrow(stop.event())]) {
            Ok([true, _]) => (),
            Ok([false, _]) => continue,
            Err(error) => return log::error!("{name}: {error}"),
        }
        match handler.handle_request() {
            Ok(()) | Err(Error::SocketRetry(_)) => (),
            Err(Error::Disconnected | Error::PartialMessage) => break,
            Err(Error::SocketBroken(error)) => {
                log::debug!("{name}: {error}");
                break;
            }
            // The front-end hears of a failed request where it asked to.
            Err(error) => log::warn!("{name}: vhost-user: {error}"),
        }
    }
}

impl<D: VirtioDevice> VhostUser<D> {
    fn offered(&self) -> u64 {
        self.device.features() | RING_FEATURES
    }

    /// The guest-physical address of what the front-end has at `address`.
    fn translate(&self, address: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = address.checked_sub(region.frontend)?;
            (offset < region.size).then(|| region.guest + offset)
        })
    }

    /// Starts the device, once everything is there that it needs.
    ///
    /// # Errors
    ///
    /// A queue that makes no sense, or the host denies a thread or descriptor.
    fn start(&mut self) -> Result<(), Error> {
        let Some(memory) = &self.memory else {
            return Err(Error::InvalidOperation("there is no memory"));
        };
        if self.is_active {
            return Ok(());
        }
        let event_idx = self.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.rings.len());
        for ring in &self.rings {
            let Some(doorbell) = ring.doorbell.as_ref().filter(|_| ring.setup.ready) else {
                // It starts with the last of its queues.
                return Ok(());
            };
            let queue = ring.setup.build(memory, event_idx);
            let queue = queue.map_err(Error::InvalidOperation)?;
            let doorbell = doorbell.try_clone().map_err(Error::ReqHandlerError)?;
            queues.push(Some(Virtqueue::new(
                queue,
                Arc::clone(memory),
                doorbell,
                Arc::clone(&self.interrupt),
            )));
        }
        let activation = Activation {
            features: self.features | self.implied,
            queues,
            interrupt: Arc::clone(&self.interrupt),
        };
        self.device
            .activate(activation)
            .map_err(Error::ReqHandlerError)?;
        self.is_active = true;
        Ok(())
    }

    /// Stops the device, and notes how far it has come.
    fn stop(&mut self) {
        if !self.is_active {
            return;
        }
        self.is_active = false;
        self.device.reset();
        self.interrupt.reset();
        for ring in &mut self.rings {
            ring.setup.ready = false;
            // Every chain that was taken has been given back.
            let index = GuestAddress(ring.setup.device).checked_add(2);
            if let Some(memory) = &self.memory
                && let Some(index) = index
                && let Ok(index) = memory.load(index, std::sync::atomic::Ordering::Acquire)
            {
                ring.setup.position = index;
            }
        }
    }

    fn ring(&mut self, index: impl TryInto<usize>) -> Result<&mut Ring, Error> {
        let index = index.try_into().map_err(|_| Error::InvalidParam)?;
        self.rings.get_mut(index).ok_or(Error::InvalidParam)
    }
}

#[cfg(test)]
mod tests;
