//! Names of local sockets: paths, and abstract ones.

use super::connected::ConnectedEnd;
use super::datagram::DatagramEnd;
use crate::error::{Errno, Result};
use crate::file::{FileType, Inode};
use crate::globals::global;
use crate::heap;
use crate::net::address::{Address, RawAddress};
use crate::net::common::SocketType;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::net;
use machine::lock::Mutex;

/// Names that a socket can get by itself.
const AUTOMATIC: u32 = 1 << 20;

/// The name that a socket has or gets: the bytes of its `struct sockaddr_un`.
#[derive(Default)]
pub(super) struct Name(Mutex<Option<Arc<[u8]>>>);

impl Name {
    pub(super) fn get(&self) -> Option<Arc<[u8]>> {
        self.0.lock().clone()
    }

    pub(super) fn set(&self, name: Option<Arc<[u8]>>) {
        *self.0.lock() = name;
    }

    /// As an address; that of a socket without a name is its family alone.
    pub(super) fn address(&self) -> RawAddress {
        let name = self.get();
        let address = name.and_then(|name| RawAddress::new(&name).ok());
        address.unwrap_or(RawAddress::of_family(net::AF_UNIX, &[]))
    }
}

/// A socket that others can find.
#[derive(Clone)]
pub(super) enum Named {
    Connected(Weak<ConnectedEnd>),
    Datagram(Weak<DatagramEnd>),
}

impl Named {
    /// Its type; `None` for what is gone.
    fn kind(&self) -> Option<SocketType> {
        match self {
            Self::Connected(end) => Some(end.upgrade()?.kind()),
            Self::Datagram(_) => Some(SocketType::Datagram),
        }
    }
}

/// An abstract name. As on Linux, sockets of different types do not share their names.
type AbstractName = (SocketType, Arc<[u8]>);

global! {
    static ABSTRACT: Mutex<BTreeMap<AbstractName, Named>> = Mutex::new(BTreeMap::new());
}
global! {
    /// By the address of the inode, which the name keeps.
    static NODES: Mutex<BTreeMap<usize, Named>> = Mutex::new(BTreeMap::new());
}
global! {
    static NEXT: AtomicU32 = AtomicU32::new(0);
}

/// A name that a socket has, until this is dropped.
pub(super) enum Registration {
    Abstract(AbstractName),
    Node(Arc<dyn Inode>),
}

fn key(node: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(node).cast::<()>() as usize
}

impl Drop for Registration {
    fn drop(&mut self) {
        let named = match self {
            Self::Abstract(name) => ABSTRACT.lock().remove(name),
            Self::Node(node) => NODES.lock().remove(&key(node)),
        };
        drop(named);
    }
}

/// Checks that `address` is one of a local socket.
///
/// # Errors
///
/// `EINVAL`.
pub(super) fn check(address: &RawAddress) -> Result<()> {
    let length = address.as_bytes().len();
    let is_right = (RawAddress::FAMILY + 1..=size_of::<net::sockaddr_un>()).contains(&length);
    match is_right && address.family() == Some(net::AF_UNIX) {
        true => Ok(()),
        false => Err(Errno::EINVAL),
    }
}

/// Whether `address` asks for a name of the kernel's choice.
pub(super) fn is_automatic(address: &RawAddress) -> bool {
    let is_family_alone = address.as_bytes().len() == RawAddress::FAMILY;
    is_family_alone && address.family() == Some(net::AF_UNIX)
}

/// Gives a socket the name `address`, which is stored in `name`.
///
/// # Errors
///
/// `EINVAL` if it has one, `EADDRINUSE` if another has that.
pub(super) fn register(address: &Address, name: &Name, socket: Named) -> Result<Registration> {
    if name.get().is_some() {
        return Err(Errno::EINVAL);
    }
    heap::check(size_of::<Registration>() + RawAddress::MAX)?;
    if let (Some(path), Some(node)) = (address.raw.unix_path(), &address.node) {
        let mut bytes = Vec::from((net::AF_UNIX as u16).to_ne_bytes());
        bytes.extend_from_slice(path);
        bytes.push(0);
        NODES.lock().insert(key(node), socket);
        name.set(Some(bytes.into()));
        return Ok(Registration::Node(node.clone()));
    }
    let bytes: Arc<[u8]> = address.raw.as_bytes().into();
    let kind = socket.kind().ok_or(Errno::EINVAL)?;
    let key = (kind, bytes.clone());
    let mut all = ABSTRACT.lock();
    if all.contains_key(&key) {
        return Err(Errno::EADDRINUSE);
    }
    all.insert(key.clone(), socket);
    name.set(Some(bytes));
    Ok(Registration::Abstract(key))
}

/// Gives a socket a name of the kernel's choice: five hexadecimal digits.
///
/// # Errors
///
/// `ENOSPC` if all are taken.
pub(super) fn register_automatic(name: &Name, socket: Named) -> Result<Registration> {
    for _ in 0..AUTOMATIC {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % AUTOMATIC;
        let rest = alloc::format!("\0{number:05x}");
        let address = RawAddress::of_family(net::AF_UNIX, rest.as_bytes());
        match register(&address.into(), name, socket.clone()) {
            Err(Errno::EADDRINUSE) => {}
            result => return result,
        }
    }
    Err(Errno::ENOSPC)
}

/// The socket at `address`, which was [checked](check); of the type `kind`, if its name is abstract.
///
/// # Errors
///
/// `ECONNREFUSED` if there is none.
fn find(address: &Address, kind: SocketType) -> Result<Named> {
    let found = match address.raw.unix_path() {
        Some(_) => {
            let node = address.node.as_ref().ok_or(Errno::ENOENT)?;
            if node.file_type() != FileType::Socket {
                return Err(Errno::ECONNREFUSED);
            }
            NODES.lock().get(&key(node)).cloned()
        }
        None => {
            let name = (kind, address.raw.as_bytes().into());
            ABSTRACT.lock().get(&name).cloned()
        }
    };
    found.ok_or(Errno::ECONNREFUSED)
}

/// The socket of that type with connections, likewise.
///
/// # Errors
///
/// `ECONNREFUSED`; `EPROTOTYPE` if it is of another type.
pub(super) fn find_connected(address: &Address, kind: SocketType) -> Result<Arc<ConnectedEnd>> {
    match find(address, kind)? {
        Named::Datagram(_) => Err(Errno::EPROTOTYPE),
        Named::Connected(end) => {
            let end = end.upgrade().ok_or(Errno::ECONNREFUSED)?;
            match end.kind() == kind {
                true => Ok(end),
                false => Err(Errno::EPROTOTYPE),
            }
        }
    }
}

/// The socket of datagrams, likewise.
///
/// # Errors
///
/// `ECONNREFUSED`; `EPROTOTYPE` if it is of another type.
pub(super) fn find_datagram(address: &Address) -> Result<Arc<DatagramEnd>> {
    match find(address, SocketType::Datagram)? {
        Named::Connected(_) => Err(Errno::EPROTOTYPE),
        Named::Datagram(end) => end.upgrade().ok_or(Errno::ECONNREFUSED),
    }
}
