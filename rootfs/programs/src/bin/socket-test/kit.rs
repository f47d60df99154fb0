//! Sockets and messages, as the checks make them.

use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use guest_programs::sys;
use guest_programs::sys::{SysResult, owned};
use libc::{AF_UNIX, c_int, cmsghdr, iovec, msghdr, pollfd};

/// A socket.
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> SysResult<OwnedFd> {
    sys!(SYS_socket, domain, kind, protocol).map(owned)
}

/// Two sockets that are connected.
pub(crate) fn pair(kind: c_int) -> SysResult<(OwnedFd, OwnedFd)> {
    let mut pair = [-1_i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, pair.as_mut_ptr())?;
    Ok((owned(pair[0] as usize), owned(pair[1] as usize)))
}

pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], flags: c_int) -> SysResult {
    sys!(SYS_sendto, socket, bytes.as_ptr(), bytes.len(), flags, 0, 0)
}

/// At most `room` bytes.
pub(crate) fn receive(socket: &OwnedFd, room: usize, flags: c_int) -> SysResult<Vec<u8>> {
    let mut bytes = vec![0_u8; room];
    let count = sys!(SYS_recvfrom, socket, bytes.as_mut_ptr(), room, flags, 0, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

pub(crate) fn write(socket: &OwnedFd, bytes: &[u8]) -> SysResult {
    sys!(SYS_write, socket, bytes.as_ptr(), bytes.len())
}

pub(crate) fn read(socket: &OwnedFd, room: usize) -> SysResult<Vec<u8>> {
    let mut bytes = vec![0_u8; room];
    let count = sys!(SYS_read, socket, bytes.as_mut_ptr(), room)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// What it is ready for, of everything.
pub(crate) fn ready(socket: &OwnedFd) -> SysResult<i16> {
    let events = libc::POLLIN | libc::POLLPRI | libc::POLLOUT | libc::POLLRDHUP;
    let mut set = pollfd {
        fd: socket.as_raw_fd(),
        events,
        revents: 0,
    };
    sys!(SYS_poll, &raw mut set, 1, 0)?;
    Ok(set.revents)
}

/// The value of an option that is an `int`.
pub(crate) fn option(socket: &OwnedFd, level: c_int, name: c_int) -> SysResult<c_int> {
    let mut value: c_int = -99;
    let mut length = size_of::<c_int>() as u32;
    sys!(
        SYS_getsockopt,
        socket,
        level,
        name,
        &raw mut value,
        &raw mut length
    )?;
    Ok(value)
}

pub(crate) fn set_option(socket: &OwnedFd, level: c_int, name: c_int, value: c_int) -> SysResult {
    sys!(
        SYS_setsockopt,
        socket,
        level,
        name,
        &raw const value,
        size_of::<c_int>()
    )
}

/// The bytes of an address that the call `get` stores.
pub(crate) fn address_by(get: impl FnOnce(*mut u8, *mut u32) -> SysResult) -> SysResult<Vec<u8>> {
    let mut bytes = vec![0_u8; 128];
    let mut length = bytes.len() as u32;
    get(bytes.as_mut_ptr(), &raw mut length)?;
    bytes.truncate(length as usize);
    Ok(bytes)
}

pub(crate) fn name(socket: &OwnedFd) -> SysResult<Vec<u8>> {
    address_by(|at, length| sys!(SYS_getsockname, socket, at, length))
}

pub(crate) fn peer(socket: &OwnedFd) -> SysResult<Vec<u8>> {
    address_by(|at, length| sys!(SYS_getpeername, socket, at, length))
}

pub(crate) fn bind(socket: &OwnedFd, address: &[u8]) -> SysResult {
    sys!(SYS_bind, socket, address.as_ptr(), address.len())
}

pub(crate) fn connect(socket: &OwnedFd, address: &[u8]) -> SysResult {
    sys!(SYS_connect, socket, address.as_ptr(), address.len())
}

pub(crate) fn listen(socket: &OwnedFd, backlog: c_int) -> SysResult {
    sys!(SYS_listen, socket, backlog)
}

pub(crate) fn accept(socket: &OwnedFd, flags: c_int) -> SysResult<OwnedFd> {
    sys!(SYS_accept4, socket, 0, 0, flags).map(owned)
}

pub(crate) fn shut_down(socket: &OwnedFd, how: c_int) -> SysResult {
    sys!(SYS_shutdown, socket, how)
}

pub(crate) fn send_to(socket: &OwnedFd, bytes: &[u8], flags: c_int, address: &[u8]) -> SysResult {
    sys!(
        SYS_sendto,
        socket,
        bytes.as_ptr(),
        bytes.len(),
        flags,
        address.as_ptr(),
        address.len()
    )
}

/// A message and the address it came from.
pub(crate) fn receive_from(
    socket: &OwnedFd,
    room: usize,
    flags: c_int,
) -> SysResult<(Vec<u8>, Vec<u8>)> {
    let mut bytes = vec![0_u8; room];
    let mut count = 0;
    let address = address_by(|at, length| {
        count = sys!(
            SYS_recvfrom,
            socket,
            bytes.as_mut_ptr(),
            room,
            flags,
            at,
            length
        )?;
        Ok(0)
    })?;
    bytes.truncate(count);
    Ok((bytes, address))
}

/// The address of a local socket with that name, which begins with a NUL if it is abstract.
pub(crate) fn local(name: &[u8]) -> Vec<u8> {
    let mut address = (AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(name);
    address
}

/// An entry of what is sent along: level, type, contents.
pub(crate) type Entry = (c_int, c_int, Vec<u8>);

/// Entries as they are in memory.
pub(crate) fn control(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (level, kind, contents) in entries {
        let length = size_of::<cmsghdr>() + contents.len();
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// The entry that sends descriptors.
pub(crate) fn descriptors(all: &[&OwnedFd]) -> Entry {
    let bytes = all.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes());
    (libc::SOL_SOCKET, libc::SCM_RIGHTS, bytes.collect())
}

/// Sends a message, with something along.
pub(crate) fn send_with(socket: &OwnedFd, bytes: &[u8], control: &[u8], flags: c_int) -> SysResult {
    let mut piece = iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let header = header(&mut piece, control.as_ptr().cast_mut(), control.len());
    sys!(SYS_sendmsg, socket, &raw const header, flags)
}

fn header(piece: &mut iovec, control: *mut u8, length: usize) -> msghdr {
    msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: piece,
        msg_iovlen: 1,
        msg_control: control.cast(),
        msg_controllen: length,
        msg_flags: 0,
    }
}

/// What came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) flags: c_int,
    pub(crate) entries: Vec<Entry>,
}

impl Received {
    /// The descriptors that came along, which are closed with the result.
    pub(crate) fn files(&self) -> Vec<OwnedFd> {
        let entries = self.entries.iter();
        let rights = entries.filter(|(_, kind, _)| *kind == libc::SCM_RIGHTS);
        let numbers = rights.flat_map(|(_, _, contents)| contents.chunks_exact(4));
        numbers
            .map(|bytes| {
                owned(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
            })
            .collect()
    }
}

/// Receives a message with room for so many bytes, and so many along.
pub(crate) fn receive_with(
    socket: &OwnedFd,
    room: usize,
    control_room: usize,
    flags: c_int,
) -> SysResult<Received> {
    let mut bytes = vec![0_u8; room];
    let mut control = vec![0_u8; control_room];
    let mut piece = iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: room,
    };
    let mut header = header(&mut piece, control.as_mut_ptr(), control_room);
    let count = sys!(SYS_recvmsg, socket, &raw mut header, flags)?;
    bytes.truncate(count);
    control.truncate(header.msg_controllen);
    let mut entries = Vec::new();
    let mut rest = &control[..];
    while rest.len() >= size_of::<cmsghdr>() {
        let int =
            |at: usize| c_int::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let length = (int(0) as usize).clamp(size_of::<cmsghdr>(), rest.len());
        entries.push((int(8), int(12), rest[size_of::<cmsghdr>()..length].to_vec()));
        rest = &rest[length.next_multiple_of(8).min(rest.len())..];
    }
    Ok(Received {
        bytes,
        flags: header.msg_flags,
        entries,
    })
}
