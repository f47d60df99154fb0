//! `struct sockaddr_in` and `struct sockaddr_in6`.

use crate::error::{Errno, Result};
use crate::net::address::RawAddress;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use linux_raw_sys::net;

/// Bytes of a `struct sockaddr_in`.
const LENGTH_4: usize = 16;
/// Those of a `struct sockaddr_in6`, and how many there must be (`SIN6_LEN_RFC2133`).
const LENGTH_6: usize = 28;
const LENGTH_6_MIN: usize = 24;

/// A place that sockets can be at. An IPv4 address in the form of IPv6 is kept as what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

impl Place {
    /// No address and no port, in that family.
    pub(super) fn nowhere(domain: u32) -> Self {
        Self {
            ip: match domain {
                net::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
                _ => Ipv6Addr::UNSPECIFIED.into(),
            },
            port: 0,
        }
    }

    /// What `address` says to a socket of family `domain`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is cut off, `EAFNOSUPPORT` for another family.
    pub(super) fn decode(address: &RawAddress, domain: u32) -> Result<Self> {
        let bytes = address.as_bytes();
        let least = match domain {
            net::AF_INET => LENGTH_4,
            _ => LENGTH_6_MIN,
        };
        if bytes.len() < least {
            return Err(Errno::EINVAL);
        }
        if address.family() != Some(domain) {
            return Err(Errno::EAFNOSUPPORT);
        }
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        let ip = match domain {
            net::AF_INET => {
                let octets = bytes[4..].first_chunk::<4>().copied();
                Ipv4Addr::from(octets.unwrap_or_default()).into()
            }
            _ => {
                let octets = bytes[8..].first_chunk::<16>().copied();
                Ipv6Addr::from(octets.unwrap_or_default()).to_canonical()
            }
        };
        Ok(Self { ip, port })
    }

    /// The bytes by which a socket of family `domain` shows it.
    pub(super) fn encode(self, domain: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH_6);
        bytes.extend_from_slice(&(domain as u16).to_ne_bytes());
        bytes.extend_from_slice(&self.port.to_be_bytes());
        match (domain, self.ip) {
            (net::AF_INET, IpAddr::V4(ip)) => {
                bytes.extend_from_slice(&ip.octets());
                bytes.resize(LENGTH_4, 0);
            }
            (_, ip) => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                bytes.extend_from_slice(&[0; 4]);
                bytes.extend_from_slice(&ip.octets());
                bytes.resize(LENGTH_6, 0);
            }
        }
        bytes
    }

    /// The same as an address.
    pub(super) fn to_raw(self, domain: u32) -> RawAddress {
        let bytes = self.encode(domain);
        RawAddress::of_family(domain, bytes.get(RawAddress::FAMILY..).unwrap_or_default())
    }

    /// Where what is sent to it goes: what is sent to no address goes to this machine.
    pub(super) fn as_destination(self) -> Self {
        let ip = match self.ip {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { ip, ..self }
    }

    /// The address of this machine from which it is reached.
    ///
    /// # Errors
    ///
    /// `ENETUNREACH` if it is not this machine.
    pub(super) fn source(self) -> Result<IpAddr> {
        match self.ip {
            IpAddr::V4(ip) if ip.is_loopback() => Ok(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_loopback() => Ok(Ipv6Addr::LOCALHOST.into()),
            _ => Err(Errno::ENETUNREACH),
        }
    }
}

/// Whether `ip` is an address that a socket can have.
pub(super) fn can_be_bound(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast()
        }
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_loopback() || ip.is_multicast(),
    }
}
