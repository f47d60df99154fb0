//! What a family of sockets does.

use super::address::{Address, RawAddress};
use super::common::{Common, Identity};
use super::message::{Incoming, Outgoing};
use super::option::OptionValue;
use crate::error::{Errno, Result};
use crate::file::{OpenFile, Readiness};
use crate::io::Io;
use alloc::sync::Arc;
use bitflags::bitflags;

bitflags! {
    /// Which ways of a socket end (`shutdown(2)`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Shutdown: u8 {
        /// Nothing is received any more.
        const RECEIVE = 1;
        /// Nothing is sent any more.
        const SEND = 2;
    }
}

/// A socket of one family. What would have to wait fails with `EAGAIN`, and is tried again when `changes`
/// of its [`Common`] was woken.
pub(super) trait End: Send + Sync {
    /// What it has in common with all others.
    fn common(&self) -> &Arc<Common>;

    /// Gives it an address of its own.
    fn bind(&self, address: &Address) -> Result<()>;

    /// Waits for others to connect, `backlog` of them at a time.
    fn listen(&self, _backlog: u32, _who: Identity) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// One that has connected.
    fn accept(&self) -> Result<Arc<dyn End>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Connects it. One that `is_impatient` may be told that it goes on (`EINPROGRESS`).
    fn connect(&self, to: &Address, who: Identity, is_impatient: bool) -> Result<()>;

    /// Sends; what was sent of a stream is counted in `io.done`, and kept when it has to wait.
    fn send(&self, io: &mut Io, message: &mut Outgoing) -> Result<usize>;

    /// Receives; likewise.
    fn receive(&self, io: &mut Io, message: &mut Incoming) -> Result<usize>;

    /// Ends one way or both.
    fn shutdown(&self, ways: Shutdown) -> Result<()>;

    /// Its own address.
    fn name(&self) -> RawAddress;

    /// The address of whom it is connected to.
    fn peer(&self) -> Result<RawAddress>;

    /// What it is ready for now.
    fn ready(&self) -> Readiness;

    /// Bytes that can be received at once (`FIONREAD`).
    fn available(&self) -> Result<usize>;

    /// Bytes that were sent and not received yet (`SIOCOUTQ`).
    fn unsent(&self) -> Result<usize>;

    /// Whether it waits for others to connect.
    fn is_listening(&self) -> bool {
        false
    }

    /// Nobody has it any more.
    fn close(&self);

    /// The files in messages that wait here.
    fn for_each_waiting(&self, _each: &mut dyn FnMut(&Arc<OpenFile>)) {}

    /// Drops all messages that wait here.
    fn forget_waiting(&self) {}

    /// Who is at the other end.
    fn peer_identity(&self) -> Identity {
        Identity::NOBODY
    }

    /// The value of an option of the family's own.
    fn option(&self, _level: u32, _name: u32) -> Result<OptionValue> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets an option of the family's own.
    fn set_option(&self, _level: u32, _name: u32, _value: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
}
