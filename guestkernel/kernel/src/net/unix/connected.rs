//! Local sockets with connections: streams, and sequences of packets.

use super::common;
use super::name::{self, Name, Named, Registration};
use crate::error::{Errno, Result};
use crate::file::{OpenFile, Readiness};
use crate::io::Io;
use crate::net::address::{Address, RawAddress};
use crate::net::backlog::Backlog;
use crate::net::channel::Channel;
use crate::net::common::{Common, Identity, SocketType};
use crate::net::end::{End, Shutdown};
use crate::net::mailbox::{self, Mailbox, Message};
use crate::net::message::{Incoming, MessageFlags, Outgoing};
use alloc::sync::{Arc, Weak};
use machine::lock::Mutex;

/// A socket of a type that has connections.
pub(super) struct ConnectedEnd {
    common: Arc<Common>,
    name: Arc<Name>,
    state: Mutex<State>,
    me: Weak<Self>,
}

struct State {
    phase: Phase,
    registration: Option<Registration>,
    /// Who is at the other end, or, of one that listens, who is at this.
    identity: Identity,
}

enum Phase {
    Idle,
    Listening(Arc<Backlog<Arc<ConnectedEnd>>>),
    Connected(Arc<Connection>),
}

/// One way of a connection.
#[derive(Clone)]
enum Way {
    Bytes(Arc<Channel>),
    Packets(Arc<Mailbox>),
}

/// A connection, as one end has it.
struct Connection {
    incoming: Way,
    outgoing: Way,
    peer: Arc<Common>,
    peer_name: Arc<Name>,
}

impl Way {
    fn new(from: &Arc<Common>, to: &Arc<Common>) -> Self {
        match from.protocol.kind {
            SocketType::Stream => Self::Bytes(Channel::new(from, to)),
            _ => Self::Packets(Mailbox::new(to)),
        }
    }

    fn end(&self) {
        match self {
            Self::Bytes(channel) => channel.end(),
            Self::Packets(mailbox) => mailbox.end(),
        }
    }

    fn is_ended(&self) -> bool {
        match self {
            Self::Bytes(channel) => channel.is_ended(),
            Self::Packets(mailbox) => mailbox.is_ended(),
        }
    }

    fn clear(&self) -> bool {
        match self {
            Self::Bytes(channel) => channel.clear(),
            Self::Packets(mailbox) => mailbox.clear(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Bytes(channel) => channel.len() == 0,
            Self::Packets(mailbox) => mailbox.is_empty(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(channel) => channel.len(),
            Self::Packets(mailbox) => mailbox.total(),
        }
    }

    fn for_each_file(&self, each: &mut dyn FnMut(&Arc<OpenFile>)) {
        match self {
            Self::Bytes(channel) => channel.for_each_file(each),
            Self::Packets(mailbox) => mailbox.for_each_file(each),
        }
    }
}

impl ConnectedEnd {
    /// A socket that is not connected.
    pub(super) fn new(common: Arc<Common>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            common,
            name: Arc::default(),
            state: Mutex::new(State {
                phase: Phase::Idle,
                registration: None,
                identity: Identity::NOBODY,
            }),
            me: me.clone(),
        })
    }

    /// Two that are connected, both of `who`.
    pub(super) fn pair(commons: [Arc<Common>; 2], who: Identity) -> [Arc<Self>; 2] {
        let [one, other] = commons.map(Self::new);
        let (here, there) = one.connection_with(&other);
        one.become_connected(here, who);
        other.become_connected(there, who);
        [one, other]
    }

    pub(super) fn kind(&self) -> SocketType {
        self.common.protocol.kind
    }

    /// A connection of the two, as each of them has it.
    fn connection_with(&self, other: &Self) -> (Connection, Connection) {
        let incoming = Way::new(&other.common, &self.common);
        let outgoing = Way::new(&self.common, &other.common);
        let here = Connection {
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            peer: other.common.clone(),
            peer_name: other.name.clone(),
        };
        let there = Connection {
            incoming: outgoing,
            outgoing: incoming,
            peer: self.common.clone(),
            peer_name: self.name.clone(),
        };
        (here, there)
    }

    fn become_connected(&self, connection: Connection, peer: Identity) {
        let mut state = self.state.lock();
        state.phase = Phase::Connected(Arc::new(connection));
        state.identity = peer;
    }

    fn connection(&self) -> Option<Arc<Connection>> {
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

    fn named(&self) -> Named {
        Named::Connected(self.me.clone())
    }

    fn bind_automatically(&self) -> Result<()> {
        let mut state = self.state.lock();
        if self.name.get().is_none() {
            state.registration = Some(name::register_automatic(&self.name, self.named())?);
        }
        Ok(())
    }

    /// Ends it; one that was `refused` was never accepted.
    fn end(&self, was_refused: bool) {
        let (phase, registration) = {
            let mut state = self.state.lock();
            let phase = core::mem::replace(&mut state.phase, Phase::Idle);
            (phase, state.registration.take())
        };
        drop(registration);
        match phase {
            Phase::Idle => {}
            Phase::Listening(backlog) => {
                backlog.end();
                // These are connected, so that this goes no deeper.
                backlog.drain().iter().for_each(|end| end.end(true));
            }
            Phase::Connected(connection) => {
                let is_unread = connection.incoming.clear();
                if is_unread || was_refused {
                    connection.peer.set_error(Errno::ECONNRESET);
                }
                connection.incoming.end();
                connection.outgoing.end();
            }
        }
    }
}

impl End for ConnectedEnd {
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

    fn listen(&self, backlog: u32, who: Identity) -> Result<()> {
        let mut state = self.state.lock();
        if self.name.get().is_none() {
            return Err(Errno::EINVAL);
        }
        match &state.phase {
            Phase::Idle => state.phase = Phase::Listening(Backlog::new(&self.common, backlog)),
            Phase::Listening(queue) => queue.resize(backlog),
            Phase::Connected(_) => return Err(Errno::EINVAL),
        }
        state.identity = who;
        Ok(())
    }

    fn accept(&self) -> Result<Arc<dyn End>> {
        let backlog = self.backlog().ok_or(Errno::EINVAL)?;
        Ok(backlog.pop()?)
    }

    fn connect(&self, to: &Address, who: Identity, _is_impatient: bool) -> Result<()> {
        name::check(&to.raw)?;
        if self.common.options.lock().pass_credentials {
            self.bind_automatically()?;
        }
        let listener = name::find_connected(to, self.kind())?;
        let (backlog, listener_identity) = {
            let state = listener.state.lock();
            match &state.phase {
                Phase::Listening(backlog) => (backlog.clone(), state.identity),
                _ => return Err(Errno::ECONNREFUSED),
            }
        };
        backlog.check(&self.common)?;
        let mut state = self.state.lock();
        match state.phase {
            Phase::Idle => {}
            Phase::Connected(_) => return Err(Errno::EISCONN),
            Phase::Listening(_) => return Err(Errno::EINVAL),
        }
        let accepted = Self::new(common(self.common.protocol, listener.common.maker));
        let passes = listener.common.options.lock().pass_credentials;
        accepted.common.options.lock().pass_credentials = passes;
        accepted.name.set(listener.name.get());
        let (here, there) = self.connection_with(&accepted);
        accepted.become_connected(there, who);
        match backlog.push(accepted, &self.common) {
            Ok(()) => {
                state.phase = Phase::Connected(Arc::new(here));
                state.identity = listener_identity;
                drop(state);
                self.common.changes.wake_all();
                Ok(())
            }
            Err((_, error)) => Err(error),
        }
    }

    fn send(&self, io: &mut Io, message: &mut Outgoing) -> Result<usize> {
        let connection = self.connection();
        let is_stream = self.kind() == SocketType::Stream;
        if message.flags.contains(MessageFlags::URGENT) {
            return Err(Errno::EOPNOTSUPP);
        }
        if is_stream && message.to.is_some() {
            return Err(match connection {
                Some(_) => Errno::EISCONN,
                None => Errno::EOPNOTSUPP,
            });
        }
        let connection = connection.ok_or(Errno::ENOTCONN)?;
        let knows = |common: &Common| common.options.lock().pass_credentials;
        if message.sender.is_some() && !knows(&connection.peer) && !knows(&self.common) {
            message.sender = None;
        }
        match &connection.outgoing {
            Way::Bytes(channel) => channel.send(io, message),
            Way::Packets(mailbox) => {
                let most = self.common.send_capacity().saturating_sub(32);
                if mailbox.is_ended() {
                    return Err(Errno::EPIPE);
                }
                mailbox::check_room(io, &self.common, most)?;
                let from = self.name.get();
                let length = io.buffer.len();
                let new = Message::new(io, message, from, Some(&self.common))?;
                mailbox.put(new, usize::MAX, &self.common, message)?;
                Ok(length)
            }
        }
    }

    fn receive(&self, io: &mut Io, message: &mut Incoming) -> Result<usize> {
        let is_stream = self.kind() == SocketType::Stream;
        let connection = self.connection().ok_or(match is_stream {
            true => Errno::EINVAL,
            false => Errno::ENOTCONN,
        })?;
        if message.flags.contains(MessageFlags::URGENT) {
            return Err(match is_stream {
                true => Errno::EINVAL,
                false => Errno::EOPNOTSUPP,
            });
        }
        match &connection.incoming {
            Way::Bytes(channel) => {
                let count = channel.receive(io, message)?;
                if message.has_started {
                    message.tell_from(connection.peer_name.get().as_deref());
                }
                Ok(count)
            }
            Way::Packets(mailbox) => {
                self.common.check_error()?;
                Ok(mailbox.receive(io, message)?.unwrap_or(0))
            }
        }
    }

    fn shutdown(&self, ways: Shutdown) -> Result<()> {
        if let Some(connection) = self.connection() {
            if ways.contains(Shutdown::RECEIVE) {
                connection.incoming.end();
            }
            if ways.contains(Shutdown::SEND) {
                connection.outgoing.end();
            }
            connection.peer.changes.wake_all();
        } else if let Some(backlog) = self.backlog()
            && ways.contains(Shutdown::RECEIVE)
        {
            backlog.end();
        }
        self.common.changes.wake_all();
        Ok(())
    }

    fn name(&self) -> RawAddress {
        self.name.address()
    }

    fn peer(&self) -> Result<RawAddress> {
        let connection = self.connection().ok_or(Errno::ENOTCONN)?;
        Ok(connection.peer_name.address())
    }

    fn ready(&self) -> Readiness {
        let mut ready = Readiness::empty();
        if self.common.has_error() {
            ready |= Readiness::ERROR;
        }
        if let Some(backlog) = self.backlog() {
            if !backlog.is_empty() {
                ready |= Readiness::READABLE;
            }
            if backlog.is_ended() {
                ready |= Readiness::READABLE | Readiness::READ_HANG_UP;
            }
            return ready;
        }
        let Some(connection) = self.connection() else {
            return ready | Readiness::WRITABLE | Readiness::HANG_UP;
        };
        if connection.incoming.is_ended() {
            ready |= Readiness::READABLE | Readiness::READ_HANG_UP;
            if connection.outgoing.is_ended() {
                ready |= Readiness::HANG_UP;
            }
        }
        if !connection.incoming.is_empty() {
            ready |= Readiness::READABLE;
        }
        let is_writable = match &connection.outgoing {
            Way::Bytes(channel) => channel.is_writable(),
            Way::Packets(_) => super::is_writable(&self.common),
        };
        if is_writable {
            ready |= Readiness::WRITABLE;
        }
        ready
    }

    fn available(&self) -> Result<usize> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(self
            .connection()
            .map_or(0, |connection| connection.incoming.len()))
    }

    fn unsent(&self) -> Result<usize> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(self
            .connection()
            .map_or(0, |connection| connection.outgoing.len()))
    }

    fn is_listening(&self) -> bool {
        self.backlog().is_some()
    }

    fn close(&self) {
        self.end(false);
    }

    fn for_each_waiting(&self, each: &mut dyn FnMut(&Arc<OpenFile>)) {
        if let Some(backlog) = self.backlog() {
            backlog.for_each(|end| {
                if let Some(connection) = end.connection() {
                    connection.incoming.for_each_file(each);
                }
            });
        }
        if let Some(connection) = self.connection() {
            connection.incoming.for_each_file(each);
        }
    }

    fn forget_waiting(&self) {
        if let Some(backlog) = self.backlog() {
            backlog.for_each(|end| {
                if let Some(connection) = end.connection() {
                    connection.incoming.clear();
                }
            });
        }
        if let Some(connection) = self.connection() {
            connection.incoming.clear();
        }
    }

    fn peer_identity(&self) -> Identity {
        self.state.lock().identity
    }
}
