//! Options of sockets: those that all families have (`socket(7)`).

use super::common::{Common, SocketType};
use super::end::End;
use crate::error::{Errno, Result};
use linux_raw_sys::net;
use smallvec::SmallVec;

/// The value of an option, as its bytes.
pub type OptionValue = SmallVec<[u8; 24]>;

/// Bytes that a new socket's buffers have (`net.core.wmem_default`), and what can be asked for.
const BUFFER: u32 = 212_992;
const SEND_BUFFER_MIN: u32 = 4608;
const RECEIVE_BUFFER_MIN: u32 = 2304;
/// Highest priority that one may have who is not privileged; all are.
const INT: usize = size_of::<i32>();
const NANOSECONDS: i64 = 1_000_000_000;

/// The options that all families have.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) send_buffer: u32,
    pub(super) receive_buffer: u32,
    pub(super) receive_low_water: i32,
    /// Nanoseconds after which a receive ends; 0 for never.
    pub(super) receive_timeout: u64,
    pub(super) send_timeout: u64,
    /// Seconds that a close waits for what was sent, if it does.
    pub(super) linger: Option<i32>,
    pub(super) reuse_address: bool,
    pub(super) reuse_port: bool,
    pub(super) keep_alive: bool,
    pub(super) broadcast: bool,
    pub(super) urgent_inline: bool,
    pub(super) pass_credentials: bool,
    pub(super) dont_route: bool,
    pub(super) debug: bool,
    pub(super) no_check: bool,
    pub(super) select_error_queue: bool,
    pub(super) priority: i32,
    pub(super) mark: u32,
    pub(super) peek_offset: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            send_buffer: BUFFER,
            receive_buffer: BUFFER,
            receive_low_water: 1,
            receive_timeout: 0,
            send_timeout: 0,
            linger: None,
            reuse_address: false,
            reuse_port: false,
            keep_alive: false,
            broadcast: false,
            urgent_inline: false,
            pass_credentials: false,
            dont_route: false,
            debug: false,
            no_check: false,
            select_error_queue: false,
            priority: 0,
            mark: 0,
            peek_offset: -1,
        }
    }
}

/// A number as the value of an option.
pub(super) fn int(value: i32) -> OptionValue {
    OptionValue::from_slice(&value.to_ne_bytes())
}

/// The number that is the value of an option.
///
/// # Errors
///
/// `EINVAL` if it is cut off.
pub(super) fn read_int(value: &[u8]) -> Result<i32> {
    let bytes = value.first_chunk::<INT>().ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(*bytes))
}

fn words(first: i64, second: i64) -> OptionValue {
    let mut value = OptionValue::from_slice(&first.to_ne_bytes());
    value.extend_from_slice(&second.to_ne_bytes());
    value
}

/// A `struct timeval`.
fn timeout(nanoseconds: u64) -> OptionValue {
    let time = nanoseconds as i64;
    words(time / NANOSECONDS, time % NANOSECONDS / 1000)
}

fn read_timeout(value: &[u8]) -> Result<u64> {
    let (seconds, rest) = value.split_first_chunk::<8>().ok_or(Errno::EINVAL)?;
    let microseconds = rest.first_chunk::<8>().ok_or(Errno::EINVAL)?;
    let seconds = i64::from_ne_bytes(*seconds);
    let microseconds = i64::from_ne_bytes(*microseconds);
    if !(0..1_000_000).contains(&microseconds) {
        return Err(Errno::EDOM);
    }
    let Ok(seconds) = u64::try_from(seconds) else {
        // As on Linux, that is a time that is over already: the least there is.
        return Ok(1);
    };
    let nanoseconds = seconds.saturating_mul(NANOSECONDS as u64);
    Ok(nanoseconds.saturating_add(microseconds as u64 * 1000))
}

/// The value of an option of `SOL_SOCKET`.
///
/// # Errors
///
/// `ENOPROTOOPT` for one that there is not.
pub(super) fn get(end: &dyn End, name: u32) -> Result<OptionValue> {
    let common: &Common = end.common();
    let protocol = common.protocol;
    let is_unix = protocol.domain == net::AF_UNIX;
    let options = common.options.lock().clone();
    Ok(match name {
        net::SO_DEBUG => int(options.debug.into()),
        net::SO_DONTROUTE => int(options.dont_route.into()),
        net::SO_BROADCAST => int(options.broadcast.into()),
        net::SO_SNDBUF => int(options.send_buffer as i32),
        net::SO_RCVBUF => int(options.receive_buffer as i32),
        net::SO_REUSEADDR => int(options.reuse_address.into()),
        net::SO_REUSEPORT => int(options.reuse_port.into()),
        net::SO_KEEPALIVE => int(options.keep_alive.into()),
        net::SO_TYPE => int(protocol.kind as i32),
        net::SO_PROTOCOL => int(protocol.number as i32),
        net::SO_DOMAIN => int(protocol.domain as i32),
        net::SO_ERROR => int(common.take_error().map_or(0, |error| error.number().into())),
        net::SO_OOBINLINE => int(options.urgent_inline.into()),
        net::SO_NO_CHECK => int(options.no_check.into()),
        net::SO_PRIORITY => int(options.priority),
        net::SO_LINGER => {
            let seconds = options.linger.unwrap_or(0);
            let mut value = int(options.linger.is_some().into());
            value.extend_from_slice(&seconds.to_ne_bytes());
            value
        }
        net::SO_BSDCOMPAT => int(0),
        net::SO_RCVTIMEO_OLD | net::SO_RCVTIMEO_NEW => timeout(options.receive_timeout),
        net::SO_SNDTIMEO_OLD | net::SO_SNDTIMEO_NEW => timeout(options.send_timeout),
        net::SO_RCVLOWAT => int(options.receive_low_water),
        net::SO_SNDLOWAT => int(1),
        net::SO_PASSCRED if is_unix => int(options.pass_credentials.into()),
        net::SO_PASSCRED => return Err(Errno::EOPNOTSUPP),
        net::SO_PEERCRED => OptionValue::from_slice(&end.peer_identity().to_bytes()),
        net::SO_PEERNAME => OptionValue::from_slice(end.peer()?.as_bytes()),
        net::SO_ACCEPTCONN => int(end.is_listening().into()),
        net::SO_MARK => int(options.mark as i32),
        net::SO_RXQ_OVFL | net::SO_WIFI_STATUS | net::SO_NOFCS => int(0),
        net::SO_PEEK_OFF if is_unix => int(options.peek_offset),
        net::SO_SELECT_ERR_QUEUE => int(options.select_error_queue.into()),
        net::SO_BUSY_POLL => int(0),
        net::SO_INCOMING_CPU => int(-1),
        net::SO_BINDTODEVICE => OptionValue::new(),
        net::SO_BINDTOIFINDEX => int(0),
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

/// Sets an option of `SOL_SOCKET`.
///
/// # Errors
///
/// `ENOPROTOOPT` for one that there is not or that cannot be set, `EINVAL`, `EDOM`.
pub(super) fn set(end: &dyn End, name: u32, value: &[u8]) -> Result<()> {
    let common = end.common();
    let number = read_int(value)?;
    let is_on = number != 0;
    let protocol = common.protocol;
    let is_unix = protocol.domain == net::AF_UNIX;
    let mut options = common.options.lock();
    match name {
        net::SO_DEBUG => options.debug = is_on,
        net::SO_REUSEADDR => options.reuse_address = is_on,
        net::SO_REUSEPORT if is_on && is_unix => return Err(Errno::EOPNOTSUPP),
        net::SO_REUSEPORT => options.reuse_port = is_on,
        net::SO_TYPE | net::SO_PROTOCOL | net::SO_DOMAIN | net::SO_ERROR => {
            return Err(Errno::ENOPROTOOPT);
        }
        net::SO_DONTROUTE => options.dont_route = is_on,
        net::SO_BROADCAST => options.broadcast = is_on,
        net::SO_SNDBUF | net::SO_SNDBUFFORCE => {
            let most = if name == net::SO_SNDBUF {
                BUFFER
            } else {
                BUFFER * 4
            };
            options.send_buffer = buffer_size(number, most, SEND_BUFFER_MIN);
            drop(options);
            common.changes.wake_all();
        }
        net::SO_RCVBUF | net::SO_RCVBUFFORCE => {
            let most = if name == net::SO_RCVBUF {
                BUFFER
            } else {
                BUFFER * 4
            };
            options.receive_buffer = buffer_size(number, most, RECEIVE_BUFFER_MIN);
        }
        net::SO_KEEPALIVE => options.keep_alive = is_on,
        net::SO_OOBINLINE => options.urgent_inline = is_on,
        net::SO_NO_CHECK => options.no_check = is_on,
        net::SO_PRIORITY => options.priority = number,
        net::SO_LINGER => {
            let seconds = value.get(INT..).and_then(|rest| rest.first_chunk::<INT>());
            let seconds = i32::from_ne_bytes(*seconds.ok_or(Errno::EINVAL)?);
            options.linger = is_on.then_some(seconds);
        }
        net::SO_BSDCOMPAT => {}
        net::SO_PASSCRED if is_unix => options.pass_credentials = is_on,
        net::SO_PASSCRED => return Err(Errno::EOPNOTSUPP),
        net::SO_RCVTIMEO_OLD | net::SO_RCVTIMEO_NEW => {
            options.receive_timeout = read_timeout(value)?;
        }
        net::SO_SNDTIMEO_OLD | net::SO_SNDTIMEO_NEW => options.send_timeout = read_timeout(value)?,
        net::SO_RCVLOWAT => {
            options.receive_low_water = match number {
                0 => 1,
                ..0 => i32::MAX,
                number => number,
            };
            drop(options);
            common.changes.wake_all();
        }
        net::SO_SNDLOWAT => return Err(Errno::ENOPROTOOPT),
        net::SO_MARK => options.mark = number as u32,
        net::SO_RXQ_OVFL | net::SO_BUSY_POLL | net::SO_INCOMING_CPU => {}
        net::SO_PEEK_OFF if is_unix && protocol.kind != SocketType::Stream && is_on => {
            return Err(Errno::EOPNOTSUPP);
        }
        net::SO_SELECT_ERR_QUEUE => options.select_error_queue = is_on,
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// As Linux does it: twice what was asked for, since it counts what it takes to keep the bytes, too.
fn buffer_size(asked: i32, most: u32, least: u32) -> u32 {
    let asked = (asked as u32).min(most);
    (asked * 2).max(least)
}
