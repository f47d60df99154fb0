//! Local sockets: `unix(7)`.

mod connected;
mod datagram;
mod name;

use self::connected::ConnectedEnd;
use self::datagram::DatagramEnd;
use super::common::{Common, Identity, Protocol, SocketType};
use super::end::End;
use super::option::Options;
use crate::error::{Errno, Result};
use alloc::sync::Arc;
use linux_raw_sys::net;

fn protocol(kind: u32, number: u32) -> Result<Protocol> {
    // The only one has the number of none, or of the family.
    if number != 0 && number != net::AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let kind = match kind {
        net::SOCK_STREAM => SocketType::Stream,
        // As on Linux, a raw one is one of datagrams.
        net::SOCK_DGRAM | net::SOCK_RAW => SocketType::Datagram,
        net::SOCK_SEQPACKET => SocketType::SeqPacket,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    Ok(Protocol {
        domain: net::AF_UNIX,
        kind,
        number: 0,
    })
}

fn common(protocol: Protocol, who: Identity) -> Arc<Common> {
    Common::new(protocol, who, Options::default())
}

/// A socket without a name.
pub(super) fn make(kind: u32, number: u32, who: Identity) -> Result<Arc<dyn End>> {
    let protocol = protocol(kind, number)?;
    let common = common(protocol, who);
    Ok(match protocol.kind.has_connections() {
        true => ConnectedEnd::new(common),
        false => DatagramEnd::new(common),
    })
}

/// Two that are connected.
pub(super) fn make_pair(kind: u32, number: u32, who: Identity) -> Result<[Arc<dyn End>; 2]> {
    let protocol = protocol(kind, number)?;
    let commons = [common(protocol, who), common(protocol, who)];
    Ok(match protocol.kind.has_connections() {
        true => ConnectedEnd::pair(commons, who).map(|end| end as Arc<dyn End>),
        false => DatagramEnd::pair(commons, who).map(|end| end as Arc<dyn End>),
    })
}

/// Whether so much is free that it pays to send more.
fn is_writable(common: &Common) -> bool {
    common.in_transit() * 4 <= common.send_capacity()
}
