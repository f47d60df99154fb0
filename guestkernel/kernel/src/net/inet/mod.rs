//! Sockets of the Internet families on loopback: `ip(7)`, `ipv6(7)`, `tcp(7)`, `udp(7)`.
//!
//! Nothing leaves the guest, so there is no TCP here: a stream is a channel each way, and what programs can
//! see of the protocol (resets, half-closed connections, ports that stay taken for a while) is kept as state.

mod address;
mod datagram;
mod option;
mod port;
mod stream;

use self::datagram::DatagramEnd;
use self::stream::StreamEnd;
use super::common::{Common, Identity, Protocol, SocketType};
use super::end::End;
use super::option::Options;
use crate::error::{Errno, Result};
use alloc::sync::Arc;
use linux_raw_sys::net;

/// `IPPROTO_*`: linux-raw-sys has them as an enumeration only.
const TCP: u32 = 6;
const UDP: u32 = 17;
/// Numbers of protocols are below this.
const PROTOCOLS: u32 = 263;

/// Bytes that a new stream's buffers have (`net.ipv4.tcp_wmem`, `tcp_rmem`).
const STREAM_SEND_BUFFER: u32 = 16_384;
const STREAM_RECEIVE_BUFFER: u32 = 131_072;

/// A socket of family `domain` (`AF_INET`, `AF_INET6`).
pub(super) fn make(domain: u32, kind: u32, number: u32, who: Identity) -> Result<Arc<dyn End>> {
    if number >= PROTOCOLS {
        return Err(Errno::EINVAL);
    }
    let (kind, own) = match kind {
        net::SOCK_STREAM => (SocketType::Stream, TCP),
        net::SOCK_DGRAM => (SocketType::Datagram, UDP),
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    if number != 0 && number != own {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let protocol = Protocol {
        domain,
        kind,
        number: own,
    };
    let mut options = Options::default();
    if kind == SocketType::Stream {
        options.send_buffer = STREAM_SEND_BUFFER;
        options.receive_buffer = STREAM_RECEIVE_BUFFER;
    }
    let common = Common::new(protocol, who, options);
    Ok(match kind {
        SocketType::Stream => StreamEnd::new(common),
        _ => DatagramEnd::new(common),
    })
}
