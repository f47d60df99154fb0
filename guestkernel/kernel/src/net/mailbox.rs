//! Messages that wait to be received.

use super::common::{Charge, Common, Identity};
use super::message::{Incoming, MessageFlags, Outgoing};
use super::rights::Rights;
use super::room::AwaitingRoom;
use crate::error::{Errno, Result};
use crate::file::{OpenFile, Readiness};
use crate::heap;
use crate::io::{Io, IoFlags};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::lock::Mutex;

/// Where the messages for a socket wait.
pub(super) struct Mailbox {
    state: Mutex<State>,
    reader: Arc<Common>,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    /// Bytes of all.
    bytes: usize,
    /// No more come.
    is_ended: bool,
    /// Who waits for room.
    senders: AwaitingRoom,
}

/// A message as it waits.
pub(super) struct Message {
    bytes: Vec<u8>,
    from: Option<Arc<[u8]>>,
    identity: Option<Identity>,
    rights: Option<Rights>,
    _charge: Option<Charge>,
}

impl Message {
    /// All that `io` has to send, from `from`; `sender`, if any, is charged for it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EFAULT`.
    pub(super) fn new(
        io: &Io,
        message: &mut Outgoing,
        from: Option<Arc<[u8]>>,
        sender: Option<&Arc<Common>>,
    ) -> Result<Self> {
        let length = io.buffer.len();
        heap::check(length)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| Errno::ENOMEM)?;
        bytes.resize(length, 0);
        io.buffer.take_all(0, &mut bytes)?;
        Ok(Self {
            bytes,
            from,
            identity: message.identity.or(message.sender),
            rights: message.rights.take(),
            _charge: sender.map(|sender| sender.charge(length)),
        })
    }

    /// The files, for a sender who has to try again.
    fn give_back(self, message: &mut Outgoing) {
        message.rights = self.rights;
    }
}

impl Mailbox {
    pub(super) fn new(reader: &Arc<Common>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            reader: reader.clone(),
        })
    }

    /// Whether there are `most` messages or more; `sender` hears when there are fewer.
    pub(super) fn is_full(&self, most: usize, sender: &Arc<Common>) -> bool {
        let mut state = self.state.lock();
        let is_full = state.messages.len() >= most && !state.is_ended;
        if is_full {
            state.senders.add(sender);
        }
        is_full
    }

    /// Puts a message in.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are `most` already, and `outgoing` has its files again; `EPIPE` if no more may
    /// come.
    pub(super) fn put(
        &self,
        message: Message,
        most: usize,
        sender: &Arc<Common>,
        outgoing: &mut Outgoing,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_ended {
            drop(state);
            message.give_back(outgoing);
            return Err(Errno::EPIPE);
        }
        if state.messages.len() >= most {
            state.senders.add(sender);
            drop(state);
            message.give_back(outgoing);
            return Err(Errno::EAGAIN);
        }
        state.bytes += message.bytes.len();
        state.messages.push_back(message);
        drop(state);
        self.reader.changes.wake(Readiness::READABLE.bits());
        Ok(())
    }

    /// Takes the first message, or looks at it. `EAGAIN` if there is none; a `None` if none will come.
    pub(super) fn receive(&self, io: &mut Io, incoming: &mut Incoming) -> Result<Option<usize>> {
        let mut state = self.state.lock();
        let Some(message) = state.messages.front_mut() else {
            return match state.is_ended {
                true => Ok(None),
                false => Err(Errno::EAGAIN),
            };
        };
        let length = message.bytes.len();
        let count = length.min(io.buffer.len());
        io.buffer.prepare_fill(0, count)?;
        let mut filled = 0;
        let mut is_bad = false;
        while filled < count && !is_bad {
            match io.buffer.fill(filled, &message.bytes[filled..count]) {
                Ok(0) | Err(_) => is_bad = true,
                Ok(more) => filled += more,
            }
        }
        let peeks = incoming.flags.contains(MessageFlags::PEEK);
        incoming.tell_from(message.from.as_deref());
        incoming.identity = message.identity;
        incoming.told.set(MessageFlags::CUT, count < length);
        if peeks {
            if let Some(rights) = &message.rights {
                incoming.files = rights.peek();
            }
        } else {
            // As on Linux, one that could not be copied is gone.
            let message = state.messages.pop_front();
            state.bytes -= length;
            let senders = state.senders.take();
            drop(state);
            if let Some(rights) = message.and_then(|message| message.rights) {
                match is_bad {
                    false => incoming.files = rights.take(),
                    true => drop(rights),
                }
            }
            senders.wake();
        }
        if is_bad {
            return Err(Errno::EFAULT);
        }
        io.done = count;
        let whole = incoming.flags.contains(MessageFlags::CUT);
        Ok(Some(if whole { length } else { count }))
    }

    /// No more messages come; those that are here may still be received.
    pub(super) fn end(&self) {
        let senders = {
            let mut state = self.state.lock();
            state.is_ended = true;
            state.senders.take()
        };
        senders.wake();
        self.reader.changes.wake_all();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state.lock().is_ended
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().messages.is_empty()
    }

    /// Bytes of the first message.
    pub(super) fn first_length(&self) -> usize {
        let state = self.state.lock();
        state.messages.front().map_or(0, |first| first.bytes.len())
    }

    /// How many messages there are.
    pub(super) fn count(&self) -> usize {
        self.state.lock().messages.len()
    }

    /// Bytes of all messages.
    pub(super) fn total(&self) -> usize {
        self.state.lock().bytes
    }

    pub(super) fn for_each_file(&self, each: &mut dyn FnMut(&Arc<OpenFile>)) {
        let state = self.state.lock();
        let rights = state
            .messages
            .iter()
            .filter_map(|message| message.rights.as_ref());
        rights.flat_map(Rights::files).for_each(each);
    }

    /// Drops all messages; whether there were some.
    pub(super) fn clear(&self) -> bool {
        let (messages, senders) = {
            let mut state = self.state.lock();
            state.bytes = 0;
            let messages = core::mem::take(&mut state.messages);
            (messages, state.senders.take())
        };
        senders.wake();
        // What came along is dropped after the lock, since it may be this very mailbox's socket.
        !messages.is_empty()
    }
}

/// What a sender hears who has no room in its own buffer: `EMSGSIZE` for what never fits.
pub(super) fn check_room(io: &Io, sender: &Arc<Common>, most: usize) -> Result<()> {
    if io.buffer.len() > most {
        return Err(Errno::EMSGSIZE);
    }
    match sender.may_send() {
        true => Ok(()),
        false => Err(Errno::EAGAIN),
    }
}

/// Whether the transfer must not wait.
pub(super) fn is_impatient(io: &Io) -> bool {
    io.flags.contains(IoFlags::NOWAIT)
}
