//! What goes with the bytes of a message: flags, addresses, what else is sent along.

use super::address::{Address, RawAddress};
use super::common::Identity;
use super::rights::Rights;
use crate::file::OpenFile;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitflags::bitflags;
use linux_raw_sys::net;

bitflags! {
    /// How a message is sent or received, and what is told of it (`MSG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MessageFlags: u32 {
        /// Urgent data.
        const URGENT = net::MSG_OOB;
        /// What is received stays to be received again.
        const PEEK = net::MSG_PEEK;
        /// Not by way of a gateway, of which there are none.
        const DONT_ROUTE = net::MSG_DONTROUTE;
        /// What was sent along had no room.
        const CONTROL_CUT = net::MSG_CTRUNC;
        /// The message had no room, or its whole length is wanted.
        const CUT = net::MSG_TRUNC;
        /// Nothing waits.
        const DONT_WAIT = net::MSG_DONTWAIT;
        /// A record ends here.
        const END_OF_RECORD = net::MSG_EOR;
        /// All of what was asked for is waited for.
        const WAIT_ALL = net::MSG_WAITALL;
        /// The neighbour is known to be there.
        const CONFIRM = net::MSG_CONFIRM;
        /// From the queue of errors.
        const ERROR_QUEUE = net::MSG_ERRQUEUE;
        /// No SIGPIPE.
        const NO_SIGNAL = net::MSG_NOSIGNAL;
        /// More comes soon.
        const MORE = net::MSG_MORE;
        /// Descriptors that come are closed by `execve(2)`.
        const CLOSE_ON_EXEC = net::MSG_CMSG_CLOEXEC;
        /// All others, which mean nothing here.
        const _ = !0;
    }
}

/// A message on its way out, besides its bytes.
#[derive(Default)]
pub struct Outgoing {
    /// How it is sent.
    pub flags: MessageFlags,
    /// To whom, if it says.
    pub to: Option<Box<Address>>,
    /// Who says to send it, if that is said (`SCM_CREDENTIALS`).
    pub identity: Option<Identity>,
    /// Who sends it, for those who want to know of every message.
    pub sender: Option<Identity>,
    /// Files that go along.
    pub rights: Option<Rights>,
}

/// A message that comes in, besides its bytes.
#[derive(Default)]
pub struct Incoming {
    /// How it is received.
    pub flags: MessageFlags,
    /// What is told of it.
    pub told: MessageFlags,
    /// Whether it is to be told from whom.
    pub wants_from: bool,
    /// From whom, if that is known.
    pub from: Option<Box<RawAddress>>,
    /// Who has sent it.
    pub identity: Option<Identity>,
    /// Files that came along.
    pub files: Vec<Arc<OpenFile>>,
    /// Whether parts of it came.
    pub has_started: bool,
}

impl Incoming {
    /// Tells from whom it is, if that is wanted.
    pub(super) fn tell_from(&mut self, address: Option<&[u8]>) {
        if self.wants_from {
            let address = address.and_then(|bytes| RawAddress::new(bytes).ok());
            self.from = address.map(Box::new);
        }
    }
}
