//! Addresses, as programs give and get them: `struct sockaddr` and its like.

use crate::error::{Errno, Result};
use crate::file::Inode;
use alloc::sync::Arc;
use linux_raw_sys::net;

/// The bytes of a `struct sockaddr`.
#[derive(Clone, Copy)]
pub struct RawAddress {
    bytes: [u8; Self::MAX],
    length: u8,
}

impl RawAddress {
    /// Bytes of the longest address (`struct sockaddr_storage`).
    pub const MAX: usize = 128;
    /// Bytes of the family, which comes first.
    pub const FAMILY: usize = 2;

    /// The address of those bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are too many.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut address = Self {
            bytes: [0; Self::MAX],
            length: bytes.len() as u8,
        };
        let room = address.bytes.get_mut(..bytes.len());
        room.ok_or(Errno::EINVAL)?.copy_from_slice(bytes);
        Ok(address)
    }

    /// The address of a family whose rest is `bytes`; what is too much is cut off.
    pub fn of_family(family: u32, rest: &[u8]) -> Self {
        let mut address = Self {
            bytes: [0; Self::MAX],
            length: Self::FAMILY as u8,
        };
        let count = rest.len().min(Self::MAX - Self::FAMILY);
        address.bytes[..Self::FAMILY].copy_from_slice(&(family as u16).to_ne_bytes());
        address.bytes[Self::FAMILY..][..count].copy_from_slice(&rest[..count]);
        address.length += count as u8;
        address
    }

    /// All of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length.into()]
    }

    /// What follows the family.
    pub fn rest(&self) -> &[u8] {
        self.as_bytes().get(Self::FAMILY..).unwrap_or_default()
    }

    /// The family; `None` if that is cut off.
    pub fn family(&self) -> Option<u32> {
        let family = self.as_bytes().get(..Self::FAMILY)?;
        let family = <[u8; Self::FAMILY]>::try_from(family).ok()?;
        Some(u16::from_ne_bytes(family).into())
    }

    /// The path of a local socket that has one.
    pub fn unix_path(&self) -> Option<&[u8]> {
        let rest = self.rest();
        let is_too_long = self.as_bytes().len() > size_of::<net::sockaddr_un>();
        if self.family() != Some(net::AF_UNIX)
            || is_too_long
            || rest.first().is_none_or(|first| *first == 0)
        {
            return None;
        }
        rest.split(|byte| *byte == 0).next()
    }
}

/// An address, and the file that a path in it leads to.
#[derive(Clone)]
pub struct Address {
    /// As the program gave it.
    pub raw: RawAddress,
    /// The file, for the [path](RawAddress::unix_path) of a local socket.
    pub node: Option<Arc<dyn Inode>>,
}

impl From<RawAddress> for Address {
    fn from(raw: RawAddress) -> Self {
        Self { raw, node: None }
    }
}
