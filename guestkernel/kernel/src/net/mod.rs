//! Sockets: what programs, and the parts of one, talk by.
//!
//! A [`Socket`] is an open file. What it is at its end depends on the family, which implements [`End`]:
//! attempts that never wait and fail with `EAGAIN` where they would have to; the socket does the waiting,
//! in one way for all. Streams are a [`Channel`](channel::Channel) each way, datagrams and packets come into
//! a [`Mailbox`](mailbox::Mailbox); nothing is ever put into frames, since nothing leaves the guest.

mod address;
mod backlog;
mod channel;
mod common;
mod end;
mod inet;
mod mailbox;
mod message;
mod option;
mod rights;
mod room;
mod socket;
mod unix;

pub use address::{Address, RawAddress};
pub use common::{Identity, Protocol, SocketType};
pub use end::Shutdown;
pub use message::{Incoming, MessageFlags, Outgoing};
pub use option::OptionValue;
pub use rights::Rights;
pub use socket::Socket;

#[cfg(test)]
mod tests;
