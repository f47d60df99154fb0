//! Local sockets of datagrams.

use super::name::{self, Name, Named, Registration};
use crate::error::{Errno, Result};
use crate::file::{OpenFile, Readiness};
use crate::io::Io;
use crate::net::address::{Address, RawAddress};
use crate::net::common::{Common, Identity};
use crate::net::end::{End, Shutdown};
use crate::net::mailbox::{self, Mailbox, Message};
use crate::net::message::{Incoming, MessageFlags, Outgoing};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};
use linux_raw_sys::net;
use machine::lock::Mutex;

/// Datagrams that wait, at most, at a socket that does not send to their sender
/// (`net.unix.max_dgram_qlen`, and one more).
const WAITING_MAX: usize = 11;

/// A socket of datagrams.
pub(super) struct DatagramEnd {
    common: Arc<Common>,
    name: Arc<Name>,
    mailbox: Arc<Mailbox>,
    state: Mutex<State>,
    is_closed: AtomicBool,
    /// Nothing is sent any more.
    is_mute: AtomicBool,
    me: Weak<Self>,
}

struct State {
    registration: Option<Registration>,
    peer: Option<(Weak<DatagramEnd>, Arc<Name>)>,
    identity: Identity,
}

impl DatagramEnd {
    /// A socket that is not connected.
    pub(super) fn new(common: Arc<Common>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            mailbox: Mailbox::new(&common),
            common,
            name: Arc::default(),
            state: Mutex::new(State {
                registration: None,
                peer: None,
                identity: Identity::NOBODY,
            }),
            is_closed: AtomicBool::new(false),
            is_mute: AtomicBool::new(false),
            me: me.clone(),
        })
    }

    /// Two that are connected, both of `who`.
    pub(super) fn pair(commons: [Arc<Common>; 2], who: Identity) -> [Arc<Self>; 2] {
        let ends = commons.map(Self::new);
        for (one, other) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
            let mut state = one.state.lock();
            state.peer = Some(other.as_peer());
            state.identity = who;
        }
        ends
    }

    fn as_peer(&self) -> (Weak<Self>, Arc<Name>) {
        (self.me.clone(), self.name.clone())
    }

    fn named(&self) -> Named {
        Named::Datagram(self.me.clone())
    }

    fn peer_end(&self) -> Option<Weak<Self>> {
        let state = self.state.lock();
        state.peer.as_ref().map(|(peer, _)| peer.clone())
    }

    /// Whether it sends to `other`.
    fn is_connected_to(&self, other: &Self) -> bool {
        self.peer_end()
            .is_some_and(|peer| core::ptr::eq(peer.as_ptr(), other))
    }

    /// Whether `sender` may send to it: nobody else than whom it sends to itself.
    fn accepts(&self, sender: &Self) -> bool {
        self.peer_end().is_none() || self.is_connected_to(sender)
    }

    /// Datagrams of `sender` that may wait here.
    fn room_for(&self, sender: &Self) -> usize {
        match core::ptr::eq(self, sender) || self.is_connected_to(sender) {
            true => usize::MAX,
            false => WAITING_MAX,
        }
    }

    fn bind_automatically(&self) -> Result<()> {
        let mut state = self.state.lock();
        if self.name.get().is_none() {
            state.registration = Some(name::register_automatic(&self.name, self.named())?);
        }
        Ok(())
    }

    fn disconnect(&self) {
        let peer = self.state.lock().peer.take();
        drop(peer);
        self.common.changes.wake_all();
    }
}

impl End for DatagramEnd {
    fn common(&self) -> &Arc<Common> {
        &self.common
    }

    fn bind(&self, address: &Address) -> Result<()> {
        if name::is_automatic(&address.raw) {
            return self.bind_automatically();
        }
        name::check(&address.raw)?;
        let mut state = self.state.lock();
        state.registration = Some(name::register(address, &self.name, self.named())?);
        Ok(())
    }

    fn connect(&self, to: &Address, _who: Identity, _is_impatient: bool) -> Result<()> {
        if to.raw.family() == Some(net::AF_UNSPEC) {
            self.disconnect();
            return Ok(());
        }
        name::check(&to.raw)?;
        if self.common.options.lock().pass_credentials {
            self.bind_automatically()?;
        }
        let peer = name::find_datagram(to)?;
        if !peer.accepts(self) {
            return Err(Errno::EPERM);
        }
        self.state.lock().peer = Some(peer.as_peer());
        self.common.changes.wake_all();
        Ok(())
    }

    fn send(&self, io: &mut Io, message: &mut Outgoing) -> Result<usize> {
        if message.flags.contains(MessageFlags::URGENT) {
            return Err(Errno::EOPNOTSUPP);
        }
        let peer = match &message.to {
            Some(to) => {
                name::check(&to.raw)?;
                None
            }
            None => Some(self.peer_end().ok_or(Errno::ENOTCONN)?),
        };
        let most = self.common.send_capacity().saturating_sub(32);
        if io.buffer.len() > most {
            return Err(Errno::EMSGSIZE);
        }
        self.common.check_error()?;
        if self.is_mute.load(Ordering::Relaxed) {
            return Err(Errno::EPIPE);
        }
        if self.common.options.lock().pass_credentials {
            self.bind_automatically()?;
        }
        let knows = |common: &Common| common.options.lock().pass_credentials;
        let receiver = match (&message.to, peer) {
            (Some(to), _) => name::find_datagram(to)?,
            (None, peer) => match peer.and_then(|peer| peer.upgrade()) {
                Some(receiver) if !receiver.is_closed.load(Ordering::Relaxed) => receiver,
                _ => {
                    self.disconnect();
                    return Err(Errno::ECONNREFUSED);
                }
            },
        };
        if !receiver.accepts(self) {
            return Err(Errno::EPERM);
        }
        if receiver.mailbox.is_ended() {
            return Err(match receiver.is_closed.load(Ordering::Relaxed) {
                true => Errno::ECONNREFUSED,
                false => Errno::EPIPE,
            });
        }
        if !knows(&receiver.common) && !knows(&self.common) {
            message.sender = None;
        }
        mailbox::check_room(io, &self.common, most)?;
        let room = receiver.room_for(self);
        if receiver.mailbox.is_full(room, &self.common) {
            return Err(Errno::EAGAIN);
        }
        let length = io.buffer.len();
        let new = Message::new(io, message, self.name.get(), Some(&self.common))?;
        receiver.mailbox.put(new, room, &self.common, message)?;
        Ok(length)
    }

    fn receive(&self, io: &mut Io, message: &mut Incoming) -> Result<usize> {
        if message.flags.contains(MessageFlags::URGENT) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.common.check_error()?;
        match self.mailbox.receive(io, message)? {
            Some(count) => Ok(count),
            // As on Linux, who does not wait does not hear of the end.
            None if mailbox::is_impatient(io) => Err(Errno::EAGAIN),
            None => Ok(0),
        }
    }

    fn shutdown(&self, ways: Shutdown) -> Result<()> {
        if ways.contains(Shutdown::RECEIVE) {
            self.mailbox.end();
        }
        if ways.contains(Shutdown::SEND) {
            self.is_mute.store(true, Ordering::Relaxed);
        }
        self.common.changes.wake_all();
        Ok(())
    }

    fn name(&self) -> RawAddress {
        self.name.address()
    }

    fn peer(&self) -> Result<RawAddress> {
        let state = self.state.lock();
        let (_, name) = state.peer.as_ref().ok_or(Errno::ENOTCONN)?;
        Ok(name.address())
    }

    fn ready(&self) -> Readiness {
        let mut ready = Readiness::empty();
        if self.common.has_error() {
            ready |= Readiness::ERROR;
        }
        if self.mailbox.is_ended() {
            ready |= Readiness::READABLE | Readiness::READ_HANG_UP;
            if self.is_mute.load(Ordering::Relaxed) {
                ready |= Readiness::HANG_UP;
            }
        }
        if !self.mailbox.is_empty() {
            ready |= Readiness::READABLE;
        }
        let peer = self.peer_end().and_then(|peer| peer.upgrade());
        let is_full = peer.is_some_and(|peer| {
            let room = peer.room_for(self);
            peer.mailbox.is_full(room, &self.common)
        });
        if super::is_writable(&self.common) && !is_full {
            ready |= Readiness::WRITABLE;
        }
        ready
    }

    fn available(&self) -> Result<usize> {
        Ok(self.mailbox.first_length())
    }

    fn unsent(&self) -> Result<usize> {
        Ok(self.common.in_transit())
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        let (registration, peer) = {
            let mut state = self.state.lock();
            (state.registration.take(), state.peer.take())
        };
        drop((registration, peer));
        self.mailbox.end();
        self.mailbox.clear();
    }

    fn for_each_waiting(&self, each: &mut dyn FnMut(&Arc<OpenFile>)) {
        self.mailbox.for_each_file(each);
    }

    fn forget_waiting(&self) {
        self.mailbox.clear();
    }

    fn peer_identity(&self) -> Identity {
        self.state.lock().identity
    }
}
