//! Datagrams: what a program takes for UDP.

use super::address::Place;
use super::option::NumericOptions;
use super::port::{Claim, Registration, choose, datagrams};
use super::stream::{claim, place_to_bind};
use crate::error::{Errno, Result};
use crate::file::Readiness;
use crate::io::{Io, IoFlags};
use crate::net::address::{Address, RawAddress};
use crate::net::common::{Common, Identity, Protocol};
use crate::net::end::{End, Shutdown};
use crate::net::mailbox::{self, Mailbox, Message};
use crate::net::message::{Incoming, MessageFlags, Outgoing};
use crate::net::option::OptionValue;
use alloc::sync::{Arc, Weak};
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use linux_raw_sys::net;
use machine::lock::Mutex;

/// Bytes of the longest datagram, with IPv4 and IPv6.
const LONGEST_4: usize = 65_507;
const LONGEST_6: usize = 65_527;
/// Bytes that a datagram takes of its receiver's buffer besides its own.
const OVERHEAD: usize = 768;

/// A socket of datagrams.
pub(super) struct DatagramEnd {
    common: Arc<Common>,
    mailbox: Arc<Mailbox>,
    state: Mutex<State>,
    numeric: Mutex<NumericOptions>,
    /// Nothing is sent any more.
    is_mute: AtomicBool,
    me: Weak<Self>,
}

#[derive(Default)]
struct State {
    local: Option<Place>,
    /// Whether the program has chosen the address, which then stays.
    is_address_bound: bool,
    peer: Option<Place>,
    registration: Option<Registration<DatagramEnd>>,
}

impl DatagramEnd {
    /// A socket that is not connected.
    pub(super) fn new(common: Arc<Common>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            mailbox: Mailbox::new(&common),
            common,
            state: Mutex::default(),
            numeric: Mutex::default(),
            is_mute: AtomicBool::new(false),
            me: me.clone(),
        })
    }

    fn protocol(&self) -> Protocol {
        self.common.protocol
    }

    fn domain(&self) -> u32 {
        self.protocol().domain
    }

    fn claim(&self, ip: IpAddr) -> Claim {
        claim(&self.common, &self.numeric.lock(), ip)
    }

    /// Gives it a port of the kernel's choice, if it has none, and tells where it is.
    fn bind_automatically(&self, state: &mut State) -> Result<Place> {
        if let Some(local) = state.local {
            return Ok(local);
        }
        let nowhere = Place::nowhere(self.domain());
        let (port, registration) = datagrams().claim(0, self.claim(nowhere.ip), self.me.clone())?;
        let local = Place { port, ..nowhere };
        state.registration = Some(registration);
        state.local = Some(local);
        Ok(local)
    }

    /// The place that `address` names.
    fn destination(&self, address: &RawAddress) -> Result<Place> {
        // A socket of IPv6 takes an address of IPv4, too.
        let place = match address.family() {
            Some(net::AF_INET) if self.domain() == net::AF_INET6 => {
                Place::decode(address, net::AF_INET)?
            }
            Some(net::AF_UNSPEC) if self.domain() == net::AF_INET => {
                let mut bytes = [0; RawAddress::MAX];
                let all = address.as_bytes();
                bytes[..all.len()].copy_from_slice(all);
                bytes[..2].copy_from_slice(&(net::AF_INET as u16).to_ne_bytes());
                Place::decode(&RawAddress::new(&bytes[..all.len()])?, net::AF_INET)?
            }
            _ => Place::decode(address, self.domain())?,
        };
        let is_mapped = self.domain() == net::AF_INET6 && place.ip.is_ipv4();
        if is_mapped && self.numeric.lock().is_ipv6_only(self.protocol()) {
            return Err(Errno::ENETUNREACH);
        }
        Ok(place.as_destination())
    }

    /// How well a datagram from `from` suits it: one that is connected takes those of its peer only.
    fn suits(&self, from: Place) -> u8 {
        match self.state.lock().peer {
            None => 1,
            Some(peer) if peer == from => 2,
            Some(_) => 0,
        }
    }

    /// Takes in a datagram, if there is room; otherwise it is lost.
    fn deliver(&self, message: Message, length: usize, outgoing: &mut Outgoing) {
        let room = self.common.options.lock().receive_buffer as usize;
        let count = self.mailbox.count();
        let used = self.mailbox.total() + count * OVERHEAD;
        if used + length <= room || count == 0 {
            // What comes when nothing is wanted any more is lost, too.
            let _ = self
                .mailbox
                .put(message, usize::MAX, &self.common, outgoing);
        }
    }
}

impl End for DatagramEnd {
    fn common(&self) -> &Arc<Common> {
        &self.common
    }

    fn bind(&self, address: &Address) -> Result<()> {
        let place = place_to_bind(&address.raw, self.protocol(), &self.numeric.lock())?;
        let mut state = self.state.lock();
        if state.registration.is_some() {
            return Err(Errno::EINVAL);
        }
        let claim = self.claim(place.ip);
        let (port, registration) = datagrams().claim(place.port, claim, self.me.clone())?;
        state.registration = Some(registration);
        state.local = Some(Place { port, ..place });
        state.is_address_bound = !place.ip.is_unspecified();
        Ok(())
    }

    fn connect(&self, to: &Address, _who: Identity, _is_impatient: bool) -> Result<()> {
        if to.raw.as_bytes().len() < RawAddress::FAMILY {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.lock();
        if to.raw.family() == Some(net::AF_UNSPEC) {
            state.peer = None;
            if let Some(local) = &mut state.local {
                let nowhere = Place::nowhere(self.domain());
                if !state.is_address_bound {
                    state.local = Some(Place {
                        port: local.port,
                        ..nowhere
                    });
                }
            }
            return Ok(());
        }
        let peer = self.destination(&to.raw)?;
        let source = peer.source()?;
        let local = self.bind_automatically(&mut state)?;
        if local.ip.is_unspecified() {
            state.local = Some(Place {
                ip: source,
                port: local.port,
            });
        }
        state.peer = Some(peer);
        drop(state);
        self.common.changes.wake_all();
        Ok(())
    }

    fn send(&self, io: &mut Io, message: &mut Outgoing) -> Result<usize> {
        message.sender = None;
        let length = io.buffer.len();
        if length > usize::from(u16::MAX) {
            return Err(Errno::EMSGSIZE);
        }
        if message.flags.contains(MessageFlags::URGENT) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (from, to, is_connected) = {
            let mut state = self.state.lock();
            let (to, is_connected) = match &message.to {
                Some(to) => {
                    let to = self.destination(&to.raw)?;
                    if to.port == 0 {
                        return Err(Errno::EINVAL);
                    }
                    (to, false)
                }
                None => (state.peer.ok_or(Errno::EDESTADDRREQ)?, true),
            };
            let source = to.source()?;
            let mut from = self.bind_automatically(&mut state)?;
            if from.ip.is_unspecified() {
                from.ip = source;
            }
            (from, to, is_connected)
        };
        let longest = match to.ip {
            IpAddr::V4(_) => LONGEST_4,
            IpAddr::V6(_) => LONGEST_6,
        };
        if length > longest {
            return Err(Errno::EMSGSIZE);
        }
        self.common.check_error()?;
        if self.is_mute.load(Ordering::Relaxed) {
            return Err(Errno::EPIPE);
        }
        let found = datagrams().find(to, false, |end| end.suits(from));
        match choose(found) {
            Some(receiver) => {
                let shown = from.encode(receiver.domain());
                let new = Message::new(io, message, Some(shown.into()), None)?;
                receiver.deliver(new, length, message);
            }
            // Who is connected to nobody hears of it the next time.
            None if is_connected => self.common.set_error(Errno::ECONNREFUSED),
            None => {}
        }
        Ok(length)
    }

    fn receive(&self, io: &mut Io, message: &mut Incoming) -> Result<usize> {
        if message.flags.contains(MessageFlags::ERROR_QUEUE) {
            // Nothing is ever put there.
            io.flags |= IoFlags::NOWAIT;
            return Err(Errno::EAGAIN);
        }
        if message.flags.contains(MessageFlags::URGENT) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.common.check_error()?;
        match self.mailbox.receive(io, message)? {
            Some(count) => Ok(count),
            None if mailbox::is_impatient(io) => Err(Errno::EAGAIN),
            None => Ok(0),
        }
    }

    fn shutdown(&self, ways: Shutdown) -> Result<()> {
        if self.state.lock().peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
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
        let local = self.state.lock().local;
        let local = local.unwrap_or(Place::nowhere(self.domain()));
        local.to_raw(self.domain())
    }

    fn peer(&self) -> Result<RawAddress> {
        let peer = self.state.lock().peer.ok_or(Errno::ENOTCONN)?;
        Ok(peer.to_raw(self.domain()))
    }

    fn ready(&self) -> Readiness {
        let mut ready = Readiness::WRITABLE;
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
        ready
    }

    fn available(&self) -> Result<usize> {
        Ok(self.mailbox.first_length())
    }

    fn unsent(&self) -> Result<usize> {
        // What is sent has arrived, or is lost.
        Ok(0)
    }

    fn close(&self) {
        let state = core::mem::take(&mut *self.state.lock());
        drop(state);
        self.mailbox.end();
        self.mailbox.clear();
    }

    fn option(&self, level: u32, name: u32) -> Result<OptionValue> {
        self.numeric.lock().get(self.protocol(), level, name)
    }

    fn set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        let is_bound = self.state.lock().registration.is_some();
        let mut numeric = self.numeric.lock();
        numeric.set(self.protocol(), is_bound, (level, name), value)
    }
}
