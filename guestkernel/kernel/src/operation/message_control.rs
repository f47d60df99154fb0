//! What is sent along with a message: `cmsg(3)`.

use super::Actor;
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::mm::AddressSpace;
use crate::net::{Identity, Incoming, MessageFlags, Outgoing, Rights, Socket};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::net;

/// Bytes of a `struct cmsghdr`.
const HEADER: usize = 16;
/// Each starts at a multiple of this.
const ALIGNMENT: usize = 8;
/// Bytes of a `struct ucred`.
const IDENTITY: usize = 12;
const DESCRIPTOR: usize = size_of::<i32>();
/// Files in one message at most (`SCM_MAX_FD`).
const FILES_MAX: usize = 253;

/// An entry: level, type and contents.
fn entries(control: &[u8]) -> impl Iterator<Item = Result<(u32, u32, &[u8])>> {
    let mut rest = control;
    core::iter::from_fn(move || {
        if rest.len() < HEADER {
            return None;
        }
        let word = |at: usize| {
            let bytes = rest
                .get(at..at + 4)
                .and_then(|bytes| bytes.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        let length = u64::from(word(0)) | u64::from(word(4)) << 32;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < HEADER || length > rest.len() {
            rest = &[];
            return Some(Err(Errno::EINVAL));
        }
        let entry = (word(8), word(12), &rest[HEADER..length]);
        let next = length.next_multiple_of(ALIGNMENT).min(rest.len());
        rest = &rest[next..];
        Some(Ok(entry))
    })
}

/// Puts what `control` says into `message`, as `scm_send` of Linux does.
///
/// # Errors
///
/// `EINVAL`, `EBADF`, `ESRCH`, `ENOMEM`.
pub(super) fn read(
    actor: Actor<'_>,
    socket: &Socket,
    control: &[u8],
    message: &mut Outgoing,
) -> Result<()> {
    let is_local = socket.protocol().domain == net::AF_UNIX;
    let mut files = Vec::new();
    for entry in entries(control) {
        let (level, kind, contents) = entry?;
        if level != net::SOL_SOCKET {
            continue;
        }
        match kind {
            net::SCM_RIGHTS if is_local => read_files(actor, contents, &mut files)?,
            net::SCM_CREDENTIALS if is_local => {
                message.identity = Some(read_identity(actor, contents)?);
            }
            _ => return Err(Errno::EINVAL),
        }
    }
    if !files.is_empty() {
        message.rights = Some(Rights::new(files)?);
    }
    Ok(())
}

fn words(contents: &[u8]) -> impl Iterator<Item = u32> {
    contents.chunks_exact(DESCRIPTOR).map(|bytes| {
        let bytes = bytes.first_chunk().copied();
        u32::from_ne_bytes(bytes.unwrap_or_default())
    })
}

fn read_files(actor: Actor<'_>, contents: &[u8], files: &mut Vec<Arc<OpenFile>>) -> Result<()> {
    if files.len() + contents.len() / DESCRIPTOR > FILES_MAX {
        return Err(Errno::EINVAL);
    }
    for fd in words(contents) {
        let file = actor.process.files.get_any(fd as i32)?;
        if !file.ops.can_be_sent() {
            return Err(Errno::EINVAL);
        }
        files.push(file);
    }
    Ok(())
}

fn read_identity(actor: Actor<'_>, contents: &[u8]) -> Result<Identity> {
    if contents.len() != IDENTITY {
        return Err(Errno::EINVAL);
    }
    let mut words = words(contents);
    let mut next = || words.next().unwrap_or_default();
    let identity = Identity {
        pid: next(),
        uid: next(),
        gid: next(),
    };
    if identity.uid == u32::MAX || identity.gid == u32::MAX {
        return Err(Errno::EINVAL);
    }
    match identity.pid == actor.process.pid {
        true => Ok(identity),
        false => Err(Errno::ESRCH),
    }
}

/// Room for entries, as it is filled.
struct ControlWriter<'a> {
    space: &'a AddressSpace,
    at: u64,
    left: usize,
    written: usize,
    is_cut: bool,
}

impl ControlWriter<'_> {
    /// Adds an entry, as much of it as there is room for.
    fn put(&mut self, level: u32, kind: u32, contents: &[u8]) -> Result<()> {
        if self.left < HEADER {
            self.is_cut = true;
            return Ok(());
        }
        let mut length = HEADER + contents.len();
        if length > self.left {
            self.is_cut = true;
            length = self.left;
        }
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&(length as u64).to_ne_bytes());
        header[8..12].copy_from_slice(&level.to_ne_bytes());
        header[12..].copy_from_slice(&kind.to_ne_bytes());
        self.space.write(self.at, &header)?;
        let contents = &contents[..length - HEADER];
        self.space
            .write(self.at.wrapping_add(HEADER as u64), contents)?;
        let step = length.next_multiple_of(ALIGNMENT).min(self.left);
        self.at = self.at.wrapping_add(step as u64);
        self.left -= step;
        self.written += step;
        Ok(())
    }
}

/// Stores what came along with `message` in the `room` bytes at `at`, gives files descriptors, and tells
/// what had no room; gives the bytes that were stored.
///
/// # Errors
///
/// `EFAULT`.
pub(super) fn write(
    actor: Actor<'_>,
    socket: &Socket,
    message: &mut Incoming,
    (at, room): (u64, usize),
) -> Result<usize> {
    let mut writer = ControlWriter {
        space: actor.space(),
        at,
        left: room,
        written: 0,
        is_cut: false,
    };
    if socket.passes_credentials() {
        let identity = message.identity.unwrap_or(Identity::NOBODY).shown();
        writer.put(net::SOL_SOCKET, net::SCM_CREDENTIALS, &identity.to_bytes())?;
    }
    let files = core::mem::take(&mut message.files);
    if !files.is_empty() {
        let close_on_exec = message.flags.contains(MessageFlags::CLOSE_ON_EXEC);
        let most = writer.left.saturating_sub(HEADER) / DESCRIPTOR;
        let mut descriptors = Vec::new();
        let all = files.len();
        for file in files.into_iter().take(most) {
            match actor.process.files.insert(file, close_on_exec, 0) {
                Ok(fd) => descriptors.extend_from_slice(&fd.to_ne_bytes()),
                Err(_) => break,
            }
        }
        if descriptors.len() < all * DESCRIPTOR {
            writer.is_cut = true;
        }
        if !descriptors.is_empty() {
            writer.put(net::SOL_SOCKET, net::SCM_RIGHTS, &descriptors)?;
        }
    }
    if writer.is_cut {
        message.told |= MessageFlags::CONTROL_CUT;
    }
    Ok(writer.written)
}
