//! What sockets of all families have.

use super::option::Options;
use crate::error::{Errno, Result};
use crate::executor::WaitQueue;
use crate::file::Readiness;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use linux_raw_sys::net;
use machine::lock::Mutex;

/// How a socket's bytes belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum SocketType {
    /// They are one stream.
    Stream = net::SOCK_STREAM,
    /// Each message is by itself.
    Datagram = net::SOCK_DGRAM,
    /// Messages, in order, between two.
    SeqPacket = net::SOCK_SEQPACKET,
}

impl SocketType {
    /// Whether there are two ends that belong together.
    pub fn has_connections(self) -> bool {
        self != Self::Datagram
    }
}

/// What a socket was made as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// `AF_*`.
    pub domain: u32,
    /// `SOCK_*`.
    pub kind: SocketType,
    /// `IPPROTO_*`.
    pub number: u32,
}

/// Who is at a socket (`struct ucred`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Identity {
    /// Nobody that is known.
    pub const NOBODY: Self = Self {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    /// The user and group that are shown for those without a number (`overflowuid`).
    const OVERFLOW: u32 = 65534;

    /// The bytes of a `struct ucred`.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        for (bytes, word) in bytes
            .chunks_exact_mut(4)
            .zip([self.pid, self.uid, self.gid])
        {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// As it is shown in a message: with user and group of nobody if they are not known.
    pub fn shown(self) -> Self {
        match self == Self::NOBODY {
            true => Self {
                pid: 0,
                uid: Self::OVERFLOW,
                gid: Self::OVERFLOW,
            },
            false => self,
        }
    }
}

/// What sockets of all families have, and what others of a socket's may use when it is gone.
pub(super) struct Common {
    pub(super) protocol: Protocol,
    /// Who has made it: the sender of what a ring writes.
    pub(super) maker: Identity,
    /// Woken at every change, with the events that it brings.
    pub(super) changes: WaitQueue,
    pub(super) options: Mutex<Options>,
    /// What went wrong since somebody asked (`SO_ERROR`).
    error: Mutex<Option<Errno>>,
    /// Bytes of packets that were sent and not received yet, with what it takes to keep them.
    in_transit: AtomicUsize,
}

impl Common {
    /// Bytes that count for a packet besides its own.
    const PACKET: usize = 256;

    pub(super) fn new(protocol: Protocol, maker: Identity, options: Options) -> Arc<Self> {
        Arc::new(Self {
            protocol,
            maker,
            changes: WaitQueue::new(),
            options: Mutex::new(options),
            error: Mutex::new(None),
            in_transit: AtomicUsize::new(0),
        })
    }

    /// Bytes that may be under way.
    pub(super) fn send_capacity(&self) -> usize {
        self.options.lock().send_buffer as usize
    }

    pub(super) fn set_error(&self, error: Errno) {
        *self.error.lock() = Some(error);
        self.changes.wake_all();
    }

    pub(super) fn has_error(&self) -> bool {
        self.error.lock().is_some()
    }

    /// The error, which is forgotten.
    pub(super) fn take_error(&self) -> Option<Errno> {
        self.error.lock().take()
    }

    /// Fails with the error that there is.
    pub(super) fn check_error(&self) -> Result<()> {
        self.take_error().map_or(Ok(()), Err)
    }

    /// Whether there is room for one more packet.
    pub(super) fn may_send(&self) -> bool {
        self.in_transit.load(Ordering::Relaxed) < self.send_capacity()
    }

    /// Bytes that were sent and not received yet.
    pub(super) fn in_transit(&self) -> usize {
        self.in_transit.load(Ordering::Relaxed)
    }

    /// Counts a packet of `bytes` until the charge is dropped.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let bytes = bytes + Self::PACKET;
        self.in_transit.fetch_add(bytes, Ordering::Relaxed);
        Charge {
            sender: self.clone(),
            bytes,
        }
    }
}

/// What a packet takes of its sender's buffer.
pub(super) struct Charge {
    sender: Arc<Common>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let sender = &self.sender;
        sender.in_transit.fetch_sub(self.bytes, Ordering::Relaxed);
        sender.changes.wake(Readiness::WRITABLE.bits());
    }
}
