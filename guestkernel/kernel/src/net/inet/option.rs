//! Options of the levels of IP, IPv6, TCP and UDP that are numbers which are kept and given back.

use super::{TCP, UDP};
use crate::error::{Errno, Result};
use crate::net::common::{Protocol, SocketType};
use crate::net::option::{OptionValue, int, read_int};
use alloc::collections::BTreeMap;
use linux_raw_sys::net;

const IP: u32 = 0;
const IPV6: u32 = 41;

/// An option that is a number.
struct Numeric {
    level: u32,
    name: u32,
    default: i32,
    least: i32,
    most: i32,
}

impl Numeric {
    const fn new(level: u32, name: u32, default: i32, least: i32, most: i32) -> Self {
        Self {
            level,
            name,
            default,
            least,
            most,
        }
    }

    /// One that is on or off.
    const fn switch(level: u32, name: u32, default: i32) -> Self {
        Self::new(level, name, default, i32::MIN, i32::MAX)
    }

    fn is_switch(&self) -> bool {
        self.least == i32::MIN
    }
}

const KEEP_ALIVE_MAX: i32 = 32_767;

const NUMERIC: &[Numeric] = &[
    Numeric::switch(TCP, net::TCP_NODELAY, 0),
    Numeric::switch(TCP, net::TCP_CORK, 0),
    Numeric::switch(TCP, net::TCP_QUICKACK, 1),
    Numeric::new(TCP, net::TCP_KEEPIDLE, 7200, 1, KEEP_ALIVE_MAX),
    Numeric::new(TCP, net::TCP_KEEPINTVL, 75, 1, KEEP_ALIVE_MAX),
    Numeric::new(TCP, net::TCP_KEEPCNT, 9, 1, 127),
    Numeric::new(TCP, net::TCP_SYNCNT, 6, 1, 127),
    Numeric::new(TCP, net::TCP_USER_TIMEOUT, 0, 0, i32::MAX),
    Numeric::new(TCP, net::TCP_LINGER2, 60, -1, i32::MAX),
    Numeric::new(TCP, net::TCP_DEFER_ACCEPT, 0, 0, i32::MAX),
    Numeric::new(TCP, net::TCP_NOTSENT_LOWAT, -1, -1, i32::MAX),
    Numeric::new(TCP, net::TCP_FASTOPEN, 0, 0, i32::MAX),
    Numeric::new(TCP, net::TCP_WINDOW_CLAMP, 0, 0, i32::MAX),
    Numeric::new(IP, net::IP_TOS, 0, 0, 255),
    Numeric::new(IP, net::IP_TTL, 64, 1, 255),
    Numeric::new(IP, net::IP_MTU_DISCOVER, 1, 0, 5),
    Numeric::switch(IP, net::IP_FREEBIND, 0),
    Numeric::new(IP, net::IP_MULTICAST_TTL, 1, 0, 255),
    Numeric::switch(IP, net::IP_MULTICAST_LOOP, 1),
    Numeric::switch(IP, net::IP_BIND_ADDRESS_NO_PORT, 0),
    Numeric::switch(IPV6, net::IPV6_V6ONLY, 0),
    Numeric::new(IPV6, net::IPV6_UNICAST_HOPS, 64, 0, 255),
    Numeric::new(IPV6, net::IPV6_MULTICAST_HOPS, 1, 0, 255),
    Numeric::switch(IPV6, net::IPV6_MULTICAST_LOOP, 1),
    Numeric::new(IPV6, net::IPV6_TCLASS, 0, 0, 255),
    Numeric::new(IPV6, net::IPV6_MTU_DISCOVER, 1, 0, 5),
];

/// Name of the congestion control, which all have.
const CONGESTION: &[u8] = b"cubic";
/// Bytes of a segment on loopback, which a program may ask for (`TCP_MAXSEG`).
const SEGMENT: i32 = 536;

/// What was set of them.
#[derive(Clone, Debug, Default)]
pub(super) struct NumericOptions(BTreeMap<(u32, u32), i32>);

impl NumericOptions {
    fn describe(protocol: Protocol, level: u32, name: u32) -> Result<&'static Numeric> {
        let is_stream = protocol.kind == SocketType::Stream;
        let is_level = match level {
            TCP => is_stream,
            UDP => !is_stream,
            IP => true,
            IPV6 => protocol.domain == net::AF_INET6,
            _ => false,
        };
        if !is_level {
            return Err(match level {
                // A stream of IPv4 passes on what it does not know to IP, which does not know it either.
                _ if is_stream || level == TCP || level == UDP || level == IPV6 => {
                    Errno::ENOPROTOOPT
                }
                _ => Errno::ENOPROTOOPT,
            });
        }
        let mut all = NUMERIC.iter();
        all.find(|option| option.level == level && option.name == name)
            .ok_or(Errno::ENOPROTOOPT)
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, protocol: Protocol, level: u32, name: u32) -> bool {
        Self::describe(protocol, level, name).is_ok_and(|option| self.value(option) != 0)
    }

    /// Whether a socket of IPv6 leaves IPv4 alone.
    pub(super) fn is_ipv6_only(&self, protocol: Protocol) -> bool {
        self.is_on(protocol, IPV6, net::IPV6_V6ONLY)
    }

    fn value(&self, option: &Numeric) -> i32 {
        let set = self.0.get(&(option.level, option.name));
        set.copied().unwrap_or(option.default)
    }

    pub(super) fn get(&self, protocol: Protocol, level: u32, name: u32) -> Result<OptionValue> {
        if level == TCP && protocol.kind == SocketType::Stream {
            match name {
                net::TCP_CONGESTION => {
                    let mut value = OptionValue::from_slice(CONGESTION);
                    value.resize(16, 0);
                    return Ok(value);
                }
                net::TCP_MAXSEG => return Ok(int(SEGMENT)),
                _ => {}
            }
        }
        Self::describe(protocol, level, name).map(|option| int(self.value(option)))
    }

    pub(super) fn set(
        &mut self,
        protocol: Protocol,
        is_bound: bool,
        (level, name): (u32, u32),
        value: &[u8],
    ) -> Result<()> {
        let option = Self::describe(protocol, level, name)?;
        let number = match (value.len(), level) {
            // IP takes a byte, too.
            (1..4, IP) => value[0].into(),
            _ => read_int(value)?,
        };
        let number = match option.is_switch() {
            true => i32::from(number != 0),
            false => number,
        };
        // Asking for the default again.
        let is_default = number == -1 && matches!(level, IP | IPV6) && !option.is_switch();
        if !is_default && !option.is_switch() && !(option.least..=option.most).contains(&number) {
            return Err(Errno::EINVAL);
        }
        if (level, name) == (IPV6, net::IPV6_V6ONLY) && is_bound {
            return Err(Errno::EINVAL);
        }
        match is_default {
            true => self.0.remove(&(level, name)),
            false => self.0.insert((level, name), number),
        };
        Ok(())
    }
}
