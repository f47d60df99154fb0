//! One way of a connection that is a stream of bytes, with what was sent along at its place in it.

use super::common::{Common, Identity};
use super::message::{Incoming, MessageFlags, Outgoing};
use super::rights::Rights;
use crate::error::{Errno, Result};
use crate::file::{OpenFile, Readiness};
use crate::heap;
use crate::io::{Io, IoFlags};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use machine::lock::Mutex;

/// Bytes that are copied at a time.
const CHUNK: usize = 4096;
/// Bytes of a send buffer that are used, of two.
const SEND_MAX: usize = 512 << 10;
/// Most bytes that come with the files of one message.
const WITH_FILES: usize = 32 << 10;

/// A way from one end of a connection to the other.
pub(super) struct Channel {
    state: Mutex<State>,
    writer: Arc<Common>,
    reader: Arc<Common>,
    /// Whether the reader's buffer counts, too: that of a stream with a protocol.
    has_two_buffers: bool,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// What the bytes are, from the first on: together as long as those.
    pieces: VecDeque<Piece>,
    /// Nothing is written any more, and what there is may still be read.
    is_ended: bool,
    /// The writer has said so himself: the reader hears of the end before any error.
    is_finished: bool,
    /// Nobody will read what is written.
    is_abandoned: bool,
}

/// Bytes that came from the same process.
struct Piece {
    length: usize,
    identity: Option<Identity>,
    /// Files that come with the first of them.
    rights: Option<Rights>,
    /// A read ends here.
    is_whole: bool,
}

impl Channel {
    pub(super) fn new(writer: &Arc<Common>, reader: &Arc<Common>) -> Arc<Self> {
        Self::assemble(writer, reader, false)
    }

    /// One that holds what the buffers of both ends do.
    pub(super) fn with_two_buffers(writer: &Arc<Common>, reader: &Arc<Common>) -> Arc<Self> {
        Self::assemble(writer, reader, true)
    }

    fn assemble(writer: &Arc<Common>, reader: &Arc<Common>, has_two_buffers: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            writer: writer.clone(),
            reader: reader.clone(),
            has_two_buffers,
        })
    }

    /// Bytes that it holds.
    fn capacity(&self) -> usize {
        let own = self.writer.send_capacity();
        match self.has_two_buffers {
            true => own.min(SEND_MAX) + self.reader.options.lock().receive_buffer as usize,
            false => own,
        }
    }

    /// Sends what there is room for.
    pub(super) fn send(&self, io: &mut Io, message: &mut Outgoing) -> Result<usize> {
        let total = io.buffer.len();
        let capacity = self.capacity();
        let mut bytes = [0; CHUNK];
        let mut has_sent = false;
        let mut with_files = 0;
        let result = loop {
            if io.done == total {
                break Ok(total);
            }
            if has_sent && io.must_give_way() {
                break Err(Errno::GIVE_WAY);
            }
            let mut state = self.state.lock();
            if state.is_ended {
                break io.cut_short(Errno::EPIPE);
            }
            let room = capacity.saturating_sub(state.bytes.len());
            if room == 0 {
                break match io.flags.contains(IoFlags::NOWAIT) {
                    true => io.cut_short(Errno::EAGAIN),
                    false => Err(Errno::EAGAIN),
                };
            }
            let count = CHUNK.min(room).min(total - io.done);
            let taken = io.buffer.take_all(io.done, &mut bytes[..count]);
            if let Err(error) = taken.and_then(|()| make_room(&mut state.bytes, count)) {
                break io.cut_short(error);
            }
            state.bytes.extend(&bytes[..count]);
            let rights = message.rights.take();
            if rights.is_some() {
                with_files = WITH_FILES;
            }
            let is_whole = with_files > 0;
            state.add_piece(count, message, rights, is_whole);
            with_files = with_files.saturating_sub(count);
            io.done += count;
            has_sent = true;
        };
        if has_sent {
            self.reader.changes.wake(Readiness::READABLE.bits());
        }
        result
    }

    /// Receives what there is, as much as is wanted. `EAGAIN` if that is not enough.
    pub(super) fn receive(&self, io: &mut Io, message: &mut Incoming) -> Result<usize> {
        let peeks = message.flags.contains(MessageFlags::PEEK);
        if peeks {
            io.done = 0;
        }
        let wanted = io.buffer.len();
        let (least, wants_identity) = {
            let options = self.reader.options.lock();
            let least = (options.receive_low_water as usize).min(wanted).max(1);
            (least, options.pass_credentials)
        };
        let least = match message.flags.contains(MessageFlags::WAIT_ALL) {
            true => wanted.max(1),
            false => least,
        };
        let mut state = self.state.lock();
        let before = state.bytes.len();
        let copied = match peeks {
            true => state.peek(io, message, wants_identity),
            false => state.take(io, message, wants_identity),
        };
        let has_room = state.bytes.len() < before;
        let is_ended = state.is_ended;
        let is_finished = state.is_finished;
        let is_empty = state.bytes.is_empty();
        drop(state);
        if has_room {
            self.writer.changes.wake(Readiness::WRITABLE.bits());
        }
        let ends_here = copied?;
        if io.done >= least || ends_here || wanted == 0 && !is_empty {
            return Ok(io.done);
        }
        if io.done == 0 && !is_finished {
            self.reader.check_error()?;
        }
        if is_ended || io.done > 0 && io.flags.contains(IoFlags::NOWAIT) {
            return Ok(io.done);
        }
        Err(Errno::EAGAIN)
    }

    /// Nothing is written any more.
    pub(super) fn end(&self) {
        self.state.lock().is_ended = true;
        self.reader.changes.wake_all();
        self.writer.changes.wake_all();
    }

    /// Nothing is written any more: the writer says so.
    pub(super) fn finish(&self) {
        {
            let mut state = self.state.lock();
            // Who was cut off before has nothing to say.
            state.is_finished |= !state.is_ended;
        }
        self.end();
    }

    /// Nobody will read what is written from now on.
    pub(super) fn abandon(&self) {
        self.state.lock().is_abandoned = true;
        self.writer.changes.wake_all();
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.state.lock().is_abandoned
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state.lock().is_ended
    }

    /// Bytes that wait to be read.
    pub(super) fn len(&self) -> usize {
        self.state.lock().bytes.len()
    }

    /// Whether so much room is free that it pays to go on.
    pub(super) fn is_writable(&self) -> bool {
        match self.has_two_buffers {
            true => self.len() * 3 <= self.capacity() * 2,
            false => self.len() * 4 <= self.capacity(),
        }
    }

    pub(super) fn for_each_file(&self, each: &mut dyn FnMut(&Arc<OpenFile>)) {
        let state = self.state.lock();
        let rights = state
            .pieces
            .iter()
            .filter_map(|piece| piece.rights.as_ref());
        rights.flat_map(Rights::files).for_each(each);
    }

    /// Drops all that waits to be read; whether there was something.
    pub(super) fn clear(&self) -> bool {
        let (bytes, pieces) = {
            let mut state = self.state.lock();
            let bytes = core::mem::take(&mut state.bytes);
            (bytes, core::mem::take(&mut state.pieces))
        };
        self.writer.changes.wake(Readiness::WRITABLE.bits());
        drop(pieces);
        // What came along is dropped after the lock, since it may be this very channel's end.
        !bytes.is_empty()
    }
}

/// Sees to it that `count` more bytes can be put into `bytes`.
fn make_room(bytes: &mut VecDeque<u8>, count: usize) -> Result<()> {
    if bytes.capacity() - bytes.len() < count {
        // Growing copies what there is.
        heap::check(2 * (bytes.len() + count))?;
        bytes.try_reserve(count).map_err(|_| Errno::ENOMEM)?;
    }
    Ok(())
}

impl State {
    fn add_piece(
        &mut self,
        length: usize,
        message: &Outgoing,
        rights: Option<Rights>,
        is_whole: bool,
    ) {
        let identity = message.identity.or(message.sender);
        let is_same = |last: &&mut Piece| {
            last.identity == identity && rights.is_none() && last.is_whole == is_whole
        };
        match self.pieces.back_mut().filter(is_same) {
            Some(last) => last.length += length,
            None => self.pieces.push_back(Piece {
                length,
                identity,
                rights,
                is_whole,
            }),
        }
    }

    /// Moves bytes into the buffer; whether a read ends there though more may follow.
    fn take(&mut self, io: &mut Io, message: &mut Incoming, wants_identity: bool) -> Result<bool> {
        let wanted = io.buffer.len();
        let mut left = wanted - io.done;
        io.buffer
            .prepare_fill(io.done, left.min(self.bytes.len()))?;
        while left > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            if message.has_started && wants_identity && message.identity != piece.identity {
                return Ok(true);
            }
            let count = piece.length.min(left).min(CHUNK);
            let filled = fill(&self.bytes, 0, count, io);
            match filled {
                Ok(filled) if filled == count => {}
                Ok(_) if io.done == 0 => return Err(Errno::EFAULT),
                Err(error) if io.done == 0 => return Err(error),
                _ => return Ok(true),
            }
            self.bytes.drain(..count);
            io.done += count;
            left -= count;
            message.has_started = true;
            message.identity = piece.identity;
            if let Some(rights) = piece.rights.take() {
                message.files = rights.take();
            }
            piece.length -= count;
            let is_whole = piece.is_whole;
            if piece.length == 0 {
                self.pieces.pop_front();
                if is_whole {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Copies bytes into the buffer; likewise.
    fn peek(&self, io: &mut Io, message: &mut Incoming, wants_identity: bool) -> Result<bool> {
        let wanted = io.buffer.len();
        io.buffer.prepare_fill(0, wanted.min(self.bytes.len()))?;
        message.has_started = false;
        for piece in &self.pieces {
            if io.done == wanted {
                break;
            }
            if message.has_started && wants_identity && message.identity != piece.identity {
                return Ok(true);
            }
            let count = piece.length.min(wanted - io.done);
            match fill(&self.bytes, io.done, count, io) {
                Ok(filled) if filled == count => {}
                Ok(_) if io.done == 0 => return Err(Errno::EFAULT),
                Err(error) if io.done == 0 => return Err(error),
                _ => return Ok(true),
            }
            io.done += count;
            message.has_started = true;
            message.identity = piece.identity;
            if let Some(rights) = &piece.rights {
                message.files = rights.peek();
            }
            if piece.is_whole && count == piece.length {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Copies `count` of `bytes`, from byte `from` on, to where the transfer is; how many could be copied.
fn fill(bytes: &VecDeque<u8>, from: usize, count: usize, io: &mut Io) -> Result<usize> {
    let (first, second) = bytes.as_slices();
    let head = first.get(from..).unwrap_or_default();
    let head = &head[..head.len().min(count)];
    let mut filled = 0;
    if !head.is_empty() {
        filled = io.buffer.fill(io.done, head)?;
        if filled < head.len() {
            return Ok(filled);
        }
    }
    let start = (from + filled).saturating_sub(first.len());
    let tail = second
        .get(start..start + count - filled)
        .unwrap_or_default();
    if !tail.is_empty() {
        filled += match io.buffer.fill(io.done + filled, tail) {
            Ok(more) => more,
            Err(_) if filled > 0 => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(filled)
}
