//! Ports, and the sockets that have them.

use super::address::Place;
use super::datagram::DatagramEnd;
use super::stream::StreamEnd;
use crate::error::{Errno, Result};
use crate::globals::global;
use crate::heap;
use crate::random::fill_random;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use machine::clock;
use machine::lock::Mutex;

/// Ports that the kernel chooses from (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;
/// Nanoseconds for which a connection that was closed keeps its port (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT: u64 = 60_000_000_000;
/// Connections that were closed and keep their ports, at most.
const TIME_WAIT_MAX: usize = 4096;

/// How a socket shares its port.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sharing {
    /// `SO_REUSEADDR`.
    pub(super) address: bool,
    /// `SO_REUSEPORT`, and of which user.
    pub(super) port: Option<u32>,
}

/// What a socket has a port for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) ip: IpAddr,
    /// Whether an address of none in IPv6 stands for those of IPv4, too.
    pub(super) is_dual: bool,
    pub(super) sharing: Sharing,
}

impl Claim {
    /// Whether what is sent to `ip` may be for it: how exactly, 0 for not at all.
    fn matches(&self, ip: IpAddr) -> u8 {
        match (self.ip, ip) {
            (own, ip) if own == ip => 3,
            (IpAddr::V4(own), IpAddr::V4(_)) if own.is_unspecified() => 2,
            (IpAddr::V6(own), IpAddr::V6(_)) if own.is_unspecified() => 2,
            (IpAddr::V6(own), IpAddr::V4(_)) if own.is_unspecified() && self.is_dual => 1,
            _ => 0,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let both_none = self.ip.is_unspecified() && other.ip.is_unspecified();
        let same_family = self.ip.is_ipv4() == other.ip.is_ipv4();
        self.matches(other.ip) > 0
            || other.matches(self.ip) > 0
            || both_none && (same_family || self.is_dual || other.is_dual)
    }
}

/// A socket with a port.
struct Holder<T: ?Sized> {
    number: u64,
    claim: Claim,
    /// It listens: nobody else may then, but those who share the port.
    is_listening: Arc<AtomicBool>,
    socket: Weak<T>,
    /// Until when the port is taken, if the socket is gone.
    until: Option<u64>,
}

/// The ports of one protocol.
pub(super) struct Ports<T: 'static> {
    holders: Mutex<BTreeMap<u16, Vec<Holder<T>>>>,
    next: AtomicU64,
    rules: Rules,
}

/// When sockets may have the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// If both share addresses, and none listens.
    Stream,
    /// If both share addresses.
    Datagram,
}

global! {
    static STREAMS: Ports<StreamEnd> = Ports::new(Rules::Stream);
}
global! {
    static DATAGRAMS: Ports<DatagramEnd> = Ports::new(Rules::Datagram);
}

/// The ports of streams.
pub(super) fn streams() -> &'static Ports<StreamEnd> {
    &STREAMS
}

/// The ports of datagrams.
pub(super) fn datagrams() -> &'static Ports<DatagramEnd> {
    &DATAGRAMS
}

/// A port that a socket has, until it is dropped.
pub(super) struct Registration<T: 'static> {
    ports: &'static Ports<T>,
    port: u16,
    number: u64,
    is_listening: Arc<AtomicBool>,
}

impl<T> Ports<T> {
    const fn new(rules: Rules) -> Self {
        Self {
            holders: Mutex::new(BTreeMap::new()),
            next: AtomicU64::new(1),
            rules,
        }
    }

    /// Gives `socket` port `port`, or, for 0, one that is free.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE`, `ENOMEM`.
    pub(super) fn claim(
        &'static self,
        port: u16,
        claim: Claim,
        socket: Weak<T>,
    ) -> Result<(u16, Registration<T>)> {
        heap::check(2 * size_of::<Holder<T>>())?;
        let mut holders = self.holders.lock();
        let port = match port {
            0 => free_port(&mut holders).ok_or(Errno::EADDRINUSE)?,
            port => port,
        };
        let others = holders.entry(port).or_default();
        prune(others);
        if others.iter().any(|other| self.conflicts(&claim, other)) {
            if others.is_empty() {
                holders.remove(&port);
            }
            return Err(Errno::EADDRINUSE);
        }
        Ok((port, self.add(others, port, claim, socket)))
    }

    /// Gives `socket` the port of another, to which it belongs.
    pub(super) fn share(
        &'static self,
        port: u16,
        claim: Claim,
        socket: Weak<T>,
    ) -> Registration<T> {
        let mut holders = self.holders.lock();
        let others = holders.entry(port).or_default();
        self.add(others, port, claim, socket)
    }

    fn add(
        &'static self,
        others: &mut Vec<Holder<T>>,
        port: u16,
        claim: Claim,
        socket: Weak<T>,
    ) -> Registration<T> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let is_listening = Arc::new(AtomicBool::new(false));
        others.push(Holder {
            number,
            claim,
            is_listening: is_listening.clone(),
            socket,
            until: None,
        });
        Registration {
            ports: self,
            port,
            number,
            is_listening,
        }
    }

    fn conflicts(&self, claim: &Claim, other: &Holder<T>) -> bool {
        if !claim.overlaps(&other.claim) {
            return false;
        }
        let (own, theirs) = (claim.sharing, other.claim.sharing);
        let share_port = own.port.is_some() && own.port == theirs.port && other.until.is_none();
        let may_share =
            self.rules == Rules::Datagram || !other.is_listening.load(Ordering::Relaxed);
        let share_address = own.address && theirs.address && may_share;
        !share_port && !share_address
    }

    /// The sockets for what is sent to `to`: those that suit best, by their addresses and by `suits`, which
    /// gives 0 for one that does not. If they are to listen, others are left out.
    pub(super) fn find(
        &self,
        to: Place,
        is_listening: bool,
        suits: impl Fn(&T) -> u8,
    ) -> Vec<Arc<T>> {
        // What is dropped of these may give back a port, so that is done without the lock.
        let candidates: Vec<(Arc<T>, u8, bool)> = {
            let holders = self.holders.lock();
            let all = holders.get(&to.port).into_iter().flatten();
            all.filter(|holder| !is_listening || holder.is_listening.load(Ordering::Relaxed))
                .filter_map(|holder| {
                    let exact = holder.claim.matches(to.ip);
                    let shares = holder.claim.sharing.port.is_some();
                    let socket = (exact > 0).then(|| holder.socket.upgrade()).flatten()?;
                    Some((socket, exact, shares))
                })
                .collect()
        };
        let mut best = 0;
        let mut found = Vec::new();
        for (socket, exact, shares) in candidates {
            let suit = suits(&socket);
            if suit == 0 {
                continue;
            }
            let score = suit.saturating_mul(4) + exact;
            // Of several that do not share, the last one gets all.
            if score > best || score == best && !shares {
                found.clear();
            }
            if score >= best {
                best = score;
                found.push(socket);
            }
        }
        found
    }
}

/// One of several that share a port.
pub(super) fn choose<T>(mut all: Vec<Arc<T>>) -> Option<Arc<T>> {
    match all.len() {
        0 | 1 => all.pop(),
        count => {
            let mut bytes = [0; 4];
            fill_random(&mut bytes);
            Some(all.swap_remove(u32::from_ne_bytes(bytes) as usize % count))
        }
    }
}

/// Forgets those whose time is over.
fn prune<T>(holders: &mut Vec<Holder<T>>) {
    let now = clock::monotonic();
    holders.retain(|holder| holder.until.is_none_or(|until| until > now));
}

fn free_port<T>(holders: &mut BTreeMap<u16, Vec<Holder<T>>>) -> Option<u16> {
    let count = u32::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    let start = u32::from_ne_bytes(bytes) % count;
    (0..count)
        .map(|step| EPHEMERAL.start() + ((start + step) % count) as u16)
        .find(|port| match holders.get_mut(port) {
            None => true,
            Some(others) => {
                prune(others);
                others.is_empty()
            }
        })
}

impl<T> Registration<T> {
    /// It listens from now on.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE` if another does that does not share the port.
    pub(super) fn listen(&self) -> Result<()> {
        let holders = self.ports.holders.lock();
        let all = holders.get(&self.port).map_or(&[][..], Vec::as_slice);
        let own = all.iter().find(|holder| holder.number == self.number);
        let Some(own) = own else {
            return Err(Errno::EADDRINUSE);
        };
        let is_taken = all.iter().any(|other| {
            other.number != own.number
                && other.is_listening.load(Ordering::Relaxed)
                && self.ports.conflicts(&own.claim, other)
        });
        if is_taken {
            return Err(Errno::EADDRINUSE);
        }
        self.is_listening.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The port stays taken for a while.
    pub(super) fn wait_a_while(self) {
        let mut holders = self.ports.holders.lock();
        let waiting = holders.values().flatten();
        if waiting.filter(|holder| holder.until.is_some()).count() >= TIME_WAIT_MAX {
            holders.values_mut().for_each(prune);
            return;
        }
        let all = holders.get_mut(&self.port);
        let own = all.and_then(|all| all.iter_mut().find(|other| other.number == self.number));
        if let Some(own) = own {
            own.until = Some(clock::monotonic() + TIME_WAIT);
            own.socket = Weak::new();
        }
    }
}

impl<T> Drop for Registration<T> {
    fn drop(&mut self) {
        let mut holders = self.ports.holders.lock();
        if let Some(all) = holders.get_mut(&self.port) {
            all.retain(|other| other.number != self.number || other.until.is_some());
            if all.is_empty() {
                holders.remove(&self.port);
            }
        }
    }
}
