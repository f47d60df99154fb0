//! Streams: what a program takes for TCP.

use super::address::{Place, can_be_bound};
use super::option::NumericOptions;
use super::port::{Claim, Registration, Sharing, choose, streams};
use crate::error::{Errno, Result};
use crate::file::Readiness;
use crate::io::Io;
use crate::net::address::{Address, RawAddress};
use crate::net::backlog::Backlog;
use crate::net::channel::Channel;
use crate::net::common::{Common, Identity, Protocol};
use crate::net::end::{End, Shutdown};
use crate::net::message::{Incoming, MessageFlags, Outgoing};
use crate::net::option::OptionValue;
use alloc::sync::{Arc, Weak};
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use linux_raw_sys::net;
use machine::lock::Mutex;

/// A stream's end.
pub(super) struct StreamEnd {
    common: Arc<Common>,
    state: Mutex<State>,
    numeric: Mutex<NumericOptions>,
    me: Weak<Self>,
}

struct State {
    phase: Phase,
    local: Option<Place>,
    registration: Option<Registration<StreamEnd>>,
}

enum Phase {
    Idle,
    /// Nobody was there, which the program was told or is told next.
    Refused,
    Listening(Arc<Backlog<Arc<StreamEnd>>>),
    /// There was no room for one more.
    Connecting(Place),
    Connected(Arc<Connection>),
}

/// A connection, as one end has it.
struct Connection {
    incoming: Arc<Channel>,
    outgoing: Arc<Channel>,
    peer: Arc<Common>,
    remote: Place,
    /// Whether the program knows that it is connected.
    is_known: AtomicBool,
    /// Nothing is received any more.
    is_deaf: AtomicBool,
    /// It was the first to end its way.
    is_first: AtomicBool,
}

impl Connection {
    /// Ends the way out, as the program asked.
    fn finish(&self) {
        if !self.incoming.is_ended() {
            self.is_first.store(true, Ordering::Relaxed);
        }
        self.outgoing.finish();
    }

    fn is_deaf(&self) -> bool {
        self.is_deaf.load(Ordering::Relaxed)
    }

    /// Tells the other end that there is nobody any more.
    fn reset(&self) {
        self.incoming.clear();
        if !self.outgoing.is_abandoned() {
            self.peer.set_error(Errno::ECONNRESET);
        }
        self.incoming.end();
        self.outgoing.end();
    }
}

impl StreamEnd {
    /// A socket that is not connected.
    pub(super) fn new(common: Arc<Common>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            common,
            state: Mutex::new(State {
                phase: Phase::Idle,
                local: None,
                registration: None,
            }),
            numeric: Mutex::default(),
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

    fn connection(&self) -> Option<Arc<Connection>> {
        self.go_on();
        match &self.state.lock().phase {
            Phase::Connected(connection) => Some(connection.clone()),
            _ => None,
        }
    }

    fn backlog(&self) -> Option<Arc<Backlog<Arc<Self>>>> {
        match &self.state.lock().phase {
            Phase::Listening(backlog) => Some(backlog.clone()),
            _ => None,
        }
    }

    fn is_connecting(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Connecting(_))
    }

    /// Tries again to connect, if there was no room: whoever looks at the socket does that.
    fn go_on(&self) {
        let mut state = self.state.lock();
        let Phase::Connecting(to) = state.phase else {
            return;
        };
        match self.try_to_connect(&mut state, to, false) {
            Ok(()) | Err(Errno::EAGAIN) => {}
            Err(error) => {
                state.phase = Phase::Refused;
                drop(state);
                self.common.set_error(error);
            }
        }
    }

    /// Gives it a port of the kernel's choice, if it has none.
    fn bind_automatically(&self, state: &mut State, ip: IpAddr) -> Result<()> {
        if state.registration.is_none() {
            let (port, registration) = streams().claim(0, self.claim(ip), self.me.clone())?;
            state.registration = Some(registration);
            state.local = Some(Place { ip, port });
        }
        Ok(())
    }

    /// Connects to `to`, which is of this machine. `EAGAIN` if there is no room.
    fn try_to_connect(&self, state: &mut State, to: Place, is_known: bool) -> Result<()> {
        let listener = choose(streams().find(to, true, |_| 1)).ok_or(Errno::ECONNREFUSED)?;
        let backlog = listener.backlog().ok_or(Errno::ECONNREFUSED)?;
        backlog.check(&self.common)?;
        let local = state.local.unwrap_or(Place::nowhere(self.domain()));
        let options = listener.common.options.lock().clone();
        let common = Common::new(listener.protocol(), listener.common.maker, options);
        let accepted = Self::new(common);
        *accepted.numeric.lock() = listener.numeric.lock().clone();
        let there = Channel::with_two_buffers(&self.common, &accepted.common);
        let back = Channel::with_two_buffers(&accepted.common, &self.common);
        let connection =
            |incoming: &Arc<Channel>, outgoing: &Arc<Channel>, peer, remote, is_known| {
                Phase::Connected(Arc::new(Connection {
                    incoming: incoming.clone(),
                    outgoing: outgoing.clone(),
                    peer,
                    remote,
                    is_known: AtomicBool::new(is_known),
                    is_deaf: AtomicBool::new(false),
                    is_first: AtomicBool::new(false),
                }))
            };
        {
            let mut theirs = accepted.state.lock();
            theirs.phase = connection(&there, &back, self.common.clone(), local, true);
            theirs.local = Some(to);
            let claim = accepted.claim(to.ip);
            theirs.registration = Some(streams().share(to.port, claim, accepted.me.clone()));
        }
        let peer = accepted.common.clone();
        match backlog.push(accepted, &self.common) {
            Ok(()) => {
                state.phase = connection(&back, &there, peer, to, is_known);
                Ok(())
            }
            Err((refused, error)) => {
                refused.state.lock().phase = Phase::Idle;
                Err(error)
            }
        }
    }

    /// Ends it, whatever it is.
    fn end(&self, is_cut_off: bool) {
        let (phase, registration) = {
            let mut state = self.state.lock();
            let phase = core::mem::replace(&mut state.phase, Phase::Idle);
            state.local = None;
            (phase, state.registration.take())
        };
        match phase {
            Phase::Listening(backlog) => {
                // Before those that wait are cut off, so that nobody comes after them.
                drop(registration);
                backlog.end();
                backlog.drain().iter().for_each(|end| end.end(true));
            }
            Phase::Connected(connection) => {
                let is_unread = connection.incoming.len() > 0;
                let is_dead = connection.outgoing.is_ended() && connection.incoming.is_ended();
                if is_unread || is_cut_off {
                    connection.reset();
                    return;
                }
                connection.finish();
                connection.incoming.abandon();
                let waits = connection.is_first.load(Ordering::Relaxed) || !is_dead;
                if waits
                    && connection.is_first.load(Ordering::Relaxed)
                    && let Some(registration) = registration
                {
                    registration.wait_a_while();
                }
            }
            Phase::Idle | Phase::Refused | Phase::Connecting(_) => {}
        }
    }
}

/// What a socket claims when it gets a port at `ip`.
pub(super) fn claim(common: &Common, numeric: &NumericOptions, ip: IpAddr) -> Claim {
    let options = common.options.lock();
    let sharing = Sharing {
        address: options.reuse_address,
        port: options.reuse_port.then_some(common.maker.uid),
    };
    Claim {
        ip,
        is_dual: !numeric.is_ipv6_only(common.protocol),
        sharing,
    }
}

/// The place that `address` asks for, checked as `bind(2)` does.
pub(super) fn place_to_bind(
    address: &RawAddress,
    protocol: Protocol,
    numeric: &NumericOptions,
) -> Result<Place> {
    let place = Place::decode(address, protocol.domain);
    let place = match place {
        // As on Linux, a family of none is taken if the address is of none.
        Err(Errno::EAFNOSUPPORT) if address.family() == Some(net::AF_UNSPEC) => {
            let is_none = address.as_bytes().get(4..8) == Some(&[0; 4]);
            if protocol.domain != net::AF_INET || !is_none {
                return Err(Errno::EAFNOSUPPORT);
            }
            let bytes = address.as_bytes();
            Place {
                port: u16::from_be_bytes([bytes[2], bytes[3]]),
                ..Place::nowhere(protocol.domain)
            }
        }
        place => place?,
    };
    if protocol.domain == net::AF_INET6 && place.ip.is_ipv4() && numeric.is_ipv6_only(protocol) {
        return Err(Errno::EINVAL);
    }
    match can_be_bound(place.ip) {
        true => Ok(place),
        false => Err(Errno::EADDRNOTAVAIL),
    }
}

impl End for StreamEnd {
    fn common(&self) -> &Arc<Common> {
        &self.common
    }

    fn bind(&self, address: &Address) -> Result<()> {
        let place = place_to_bind(&address.raw, self.protocol(), &self.numeric.lock())?;
        let mut state = self.state.lock();
        if state.registration.is_some() || !matches!(state.phase, Phase::Idle | Phase::Refused) {
            return Err(Errno::EINVAL);
        }
        let claim = self.claim(place.ip);
        let (port, registration) = streams().claim(place.port, claim, self.me.clone())?;
        state.registration = Some(registration);
        state.local = Some(Place { port, ..place });
        Ok(())
    }

    fn listen(&self, backlog: u32, _who: Identity) -> Result<()> {
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Listening(queue) => {
                queue.resize(backlog);
                return Ok(());
            }
            Phase::Idle | Phase::Refused => {}
            _ => return Err(Errno::EINVAL),
        }
        let nowhere = Place::nowhere(self.domain());
        self.bind_automatically(&mut state, nowhere.ip)?;
        // What listens is found when it is ready to.
        state.phase = Phase::Listening(Backlog::new(&self.common, backlog));
        let registration = state.registration.as_ref();
        let listening = registration.map_or(Err(Errno::EINVAL), Registration::listen);
        listening.inspect_err(|_| state.phase = Phase::Idle)
    }

    fn accept(&self) -> Result<Arc<dyn End>> {
        let backlog = self.backlog().ok_or(Errno::EINVAL)?;
        Ok(backlog.pop()?)
    }

    fn connect(&self, to: &Address, _who: Identity, is_impatient: bool) -> Result<()> {
        if to.raw.as_bytes().len() < RawAddress::FAMILY {
            return Err(Errno::EINVAL);
        }
        if to.raw.family() == Some(net::AF_UNSPEC) {
            self.end(true);
            self.common.changes.wake_all();
            return Ok(());
        }
        self.go_on();
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Connected(connection) => {
                let was_known = connection.is_known.swap(true, Ordering::Relaxed);
                return match was_known {
                    true => Err(Errno::EISCONN),
                    false => Ok(()),
                };
            }
            Phase::Listening(_) => return Err(Errno::EISCONN),
            Phase::Connecting(_) if is_impatient => return Err(Errno::EALREADY),
            Phase::Connecting(_) => return Err(Errno::EAGAIN),
            Phase::Refused => {
                if let Some(error) = self.common.take_error() {
                    return Err(error);
                }
            }
            Phase::Idle => {}
        }
        let to = Place::decode(&to.raw, self.domain())?.as_destination();
        let is_mapped = self.domain() == net::AF_INET6 && to.ip.is_ipv4();
        if is_mapped && self.numeric.lock().is_ipv6_only(self.protocol()) {
            return Err(Errno::ENETUNREACH);
        }
        let source = to.source()?;
        let own = state.local.map(|local| local.ip);
        if own.is_some_and(|own| !own.is_unspecified() && own.is_ipv4() != source.is_ipv4()) {
            return Err(Errno::EINVAL);
        }
        let taken = self.bind_automatically(&mut state, source);
        taken.map_err(|error| match error {
            Errno::EADDRINUSE => Errno::EADDRNOTAVAIL,
            error => error,
        })?;
        if let Some(local) = &mut state.local
            && local.ip.is_unspecified()
        {
            local.ip = source;
        }
        match self.try_to_connect(&mut state, to, !is_impatient) {
            Ok(()) if is_impatient => Err(Errno::EINPROGRESS),
            Ok(()) => {
                drop(state);
                self.common.changes.wake_all();
                Ok(())
            }
            Err(Errno::EAGAIN) => {
                state.phase = Phase::Connecting(to);
                Err(match is_impatient {
                    true => Errno::EINPROGRESS,
                    false => Errno::EAGAIN,
                })
            }
            Err(error) => {
                state.phase = Phase::Refused;
                drop(state);
                if is_impatient {
                    self.common.set_error(error);
                    return Err(Errno::EINPROGRESS);
                }
                Err(error)
            }
        }
    }

    fn send(&self, io: &mut Io, message: &mut Outgoing) -> Result<usize> {
        message.sender = None;
        let connection = self.connection();
        if io.done == 0 {
            self.common.check_error()?;
        }
        let Some(connection) = connection else {
            return Err(match self.is_connecting() {
                true => Errno::EAGAIN,
                false => Errno::EPIPE,
            });
        };
        if message.flags.contains(MessageFlags::URGENT) {
            return Err(Errno::EOPNOTSUPP);
        }
        if connection.outgoing.is_abandoned() && !connection.outgoing.is_ended() {
            // It is sent, and what comes back says that nobody wants it.
            connection.outgoing.end();
            self.common.set_error(Errno::EPIPE);
            return Ok(io.buffer.len());
        }
        match connection.outgoing.send(io, message) {
            Err(Errno::EPIPE) => Err(self.common.take_error().unwrap_or(Errno::EPIPE)),
            result => result,
        }
    }

    fn receive(&self, io: &mut Io, message: &mut Incoming) -> Result<usize> {
        if message.flags.contains(MessageFlags::URGENT) {
            return Err(Errno::EINVAL);
        }
        let Some(connection) = self.connection() else {
            self.common.check_error()?;
            let state = self.state.lock();
            return match state.phase {
                Phase::Connecting(_) => Err(Errno::EAGAIN),
                Phase::Refused => Ok(0),
                _ => Err(Errno::ENOTCONN),
            };
        };
        match connection.incoming.receive(io, message) {
            Err(Errno::EAGAIN) if connection.is_deaf() => Ok(io.done),
            result => result,
        }
    }

    fn shutdown(&self, ways: Shutdown) -> Result<()> {
        if let Some(connection) = self.connection() {
            if connection.incoming.is_ended() && connection.outgoing.is_ended() && self.is_dead() {
                return Err(Errno::ENOTCONN);
            }
            if ways.contains(Shutdown::RECEIVE) {
                connection.is_deaf.store(true, Ordering::Relaxed);
            }
            if ways.contains(Shutdown::SEND) {
                connection.finish();
            }
            self.common.changes.wake_all();
            return Ok(());
        }
        if self.backlog().is_some() {
            if ways.contains(Shutdown::RECEIVE) {
                // It stays bound, but listens no more.
                let local = self.state.lock().local;
                self.end(true);
                if let Some(local) = local {
                    let claim = self.claim(local.ip);
                    let claimed = streams().claim(local.port, claim, self.me.clone());
                    let mut state = self.state.lock();
                    if let Ok((_, registration)) = claimed {
                        state.local = Some(local);
                        state.registration = Some(registration);
                    }
                }
                self.common.changes.wake_all();
            }
            return Ok(());
        }
        Err(Errno::ENOTCONN)
    }

    fn name(&self) -> RawAddress {
        let local = self.state.lock().local;
        let local = local.unwrap_or(Place::nowhere(self.domain()));
        local_form(local, self.domain())
    }

    fn peer(&self) -> Result<RawAddress> {
        let connection = self.connection().ok_or(Errno::ENOTCONN)?;
        if self.is_dead() {
            return Err(Errno::ENOTCONN);
        }
        Ok(connection.remote.to_raw(self.domain()))
    }

    fn ready(&self) -> Readiness {
        let connection = self.connection();
        let mut ready = Readiness::empty();
        if self.common.has_error() {
            ready |= Readiness::ERROR;
        }
        let Some(connection) = connection else {
            let state = self.state.lock();
            return match &state.phase {
                Phase::Listening(backlog) if backlog.is_empty() => ready,
                Phase::Listening(_) => ready | Readiness::READABLE,
                Phase::Connecting(_) => ready,
                Phase::Refused => {
                    let ended = Readiness::READABLE | Readiness::READ_HANG_UP;
                    ready | ended | Readiness::WRITABLE | Readiness::HANG_UP
                }
                _ => ready | Readiness::WRITABLE | Readiness::HANG_UP,
            };
        };
        let is_over = connection.incoming.is_ended() || connection.is_deaf();
        let is_mute = connection.outgoing.is_ended();
        if is_over {
            ready |= Readiness::READABLE | Readiness::READ_HANG_UP;
            if is_mute {
                ready |= Readiness::HANG_UP;
            }
        }
        let least = self.common.options.lock().receive_low_water.max(1) as usize;
        if connection.incoming.len() >= least {
            ready |= Readiness::READABLE;
        }
        if is_mute || connection.outgoing.is_writable() {
            ready |= Readiness::WRITABLE;
        }
        ready
    }

    fn available(&self) -> Result<usize> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        let connection = self.connection();
        Ok(connection.map_or(0, |connection| connection.incoming.len()))
    }

    fn unsent(&self) -> Result<usize> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        // What is sent has arrived.
        Ok(0)
    }

    fn is_listening(&self) -> bool {
        self.backlog().is_some()
    }

    fn close(&self) {
        let is_hasty = self.common.options.lock().linger == Some(0);
        self.end(is_hasty);
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

impl StreamEnd {
    /// Whether it was connected, and is over on both sides.
    fn is_dead(&self) -> bool {
        match &self.state.lock().phase {
            Phase::Connected(connection) => {
                connection.incoming.is_ended()
                    && connection.outgoing.is_ended()
                    && !connection.is_first.load(Ordering::Relaxed)
            }
            _ => false,
        }
    }
}

/// A socket's own address: that of none is shown in the family's form.
pub(super) fn local_form(local: Place, domain: u32) -> RawAddress {
    local.to_raw(domain)
}
