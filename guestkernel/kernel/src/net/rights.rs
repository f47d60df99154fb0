//! Files in messages (`SCM_RIGHTS`): those in flight, and those that nobody can get at any more.
//!
//! A file in a message is kept by the socket that the message waits at. That may be a file in a message
//! itself; where they keep each other in turn, and nobody else does, they are found by counting: such a
//! socket has no more references than messages have, and no message of it waits at a socket that somebody
//! can still reach.

use super::socket::Socket;
use crate::error::{Errno, Result};
use crate::executor::{sleep_until, spawn, yield_now};
use crate::file::OpenFile;
use crate::globals::global;
use crate::heap;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use machine::clock;
use machine::lock::Mutex;

/// Most files that one message takes along (`SCM_MAX_FD`).
pub(crate) const FILES_MAX: usize = 253;
/// Files that are closed in one go.
const AT_ONCE: usize = 64;
/// Sockets in flight at which it is worth while to look for those that nobody can reach.
const MANY: usize = 64;

/// Nanoseconds from when it seems to be worth while until it is done.
const PAUSE: u64 = 1_000_000;

/// Files that go along with a message.
pub struct Rights(Vec<Arc<OpenFile>>);

/// A socket in messages.
struct InFlight {
    file: Weak<OpenFile>,
    /// How many messages have it.
    count: usize,
}

global! {
    /// The sockets in messages, by the address of their open file.
    static IN_FLIGHT: Mutex<BTreeMap<usize, InFlight>> = Mutex::new(BTreeMap::new());
}
global! {
    /// Files that are to be closed: not where they are found, since one may lead to another without end.
    static LEFT: Mutex<Vec<Arc<OpenFile>>> = Mutex::new(Vec::new());
}
global! {
    static IS_CLOSING: AtomicBool = AtomicBool::new(false);
}
global! {
    static IS_COLLECTING: AtomicBool = AtomicBool::new(false);
}

fn key(file: &Arc<OpenFile>) -> usize {
    Arc::as_ptr(file) as usize
}

impl Rights {
    /// Puts `files` into a message. Only memory bounds how many are in flight, as for root on Linux.
    ///
    /// # Errors
    ///
    /// `EINVAL` for too many in one message, `ENOMEM`.
    pub fn new(files: Vec<Arc<OpenFile>>) -> Result<Self> {
        if files.len() > FILES_MAX {
            return Err(Errno::EINVAL);
        }
        collect_soon(false);
        heap::check(files.len() * (size_of::<(usize, InFlight)>() + size_of::<usize>()))?;
        let mut sockets = IN_FLIGHT.lock();
        for file in files.iter().filter(|file| Socket::of(file).is_some()) {
            let new = || InFlight {
                file: Arc::downgrade(file),
                count: 0,
            };
            sockets.entry(key(file)).or_insert_with(new).count += 1;
        }
        Ok(Self(files))
    }

    /// The files, for somebody who only looks at the message.
    pub(super) fn peek(&self) -> Vec<Arc<OpenFile>> {
        self.0.clone()
    }

    /// The files, which are in flight no more.
    pub(super) fn take(mut self) -> Vec<Arc<OpenFile>> {
        self.land();
        core::mem::take(&mut self.0)
    }

    pub(super) fn files(&self) -> &[Arc<OpenFile>] {
        &self.0
    }

    fn land(&self) {
        let mut sockets = IN_FLIGHT.lock();
        for file in &self.0 {
            if let Some(socket) = sockets.get_mut(&key(file)) {
                socket.count -= 1;
                if socket.count == 0 {
                    sockets.remove(&key(file));
                }
            }
        }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        self.land();
        LEFT.lock().append(&mut self.0);
        close_left();
    }
}

/// Closes some files of those that are left, and has a task see to the rest.
fn close_left() {
    if IS_CLOSING.swap(true, Ordering::Acquire) {
        return;
    }
    let is_done = close_some();
    IS_CLOSING.store(false, Ordering::Release);
    if !is_done {
        spawn("closing", async {
            loop {
                yield_now().await;
                if IS_CLOSING.swap(true, Ordering::Acquire) {
                    break;
                }
                let is_done = close_some();
                IS_CLOSING.store(false, Ordering::Release);
                if is_done {
                    break;
                }
            }
        });
    }
}

/// Whether none is left.
fn close_some() -> bool {
    for _ in 0..AT_ONCE {
        let file = LEFT.lock().pop();
        match file {
            Some(file) => drop(file),
            None => return true,
        }
    }
    LEFT.lock().is_empty()
}

/// Whether sockets are in messages.
pub(super) fn has_sockets_in_flight() -> bool {
    !IN_FLIGHT.lock().is_empty()
}

/// Looks, before long, for sockets in flight that nobody can reach, and empties them: a socket was closed,
/// or there are many.
pub(super) fn collect_soon(is_closing: bool) {
    let count = IN_FLIGHT.lock().len();
    if count == 0 || !is_closing && count < MANY {
        return;
    }
    if !IS_COLLECTING.swap(true, Ordering::AcqRel) {
        spawn("collecting", async {
            // Who closes one often closes others, too.
            sleep_until(clock::monotonic() + PAUSE).await;
            IS_COLLECTING.store(false, Ordering::Release);
            collect();
        });
    }
}

/// Empties the sockets in flight that nobody can reach.
fn collect() {
    // Each has a reference here, which counts below.
    let sockets: Vec<(Arc<OpenFile>, usize)> = {
        let sockets = IN_FLIGHT.lock();
        let kept = sockets.values();
        kept.filter_map(|socket| Some((socket.file.upgrade()?, socket.count)))
            .collect()
    };
    let numbered = sockets.iter().enumerate();
    let numbers: BTreeMap<usize, usize> = numbered
        .map(|(number, (file, _))| (key(file), number))
        .collect();
    // Read once, so that what moves meanwhile is where it was or nowhere.
    let waiting: Vec<Vec<usize>> = sockets
        .iter()
        .map(|(file, _)| {
            let mut found = Vec::new();
            if let Some(socket) = Socket::of(file) {
                socket.for_each_waiting(&mut |file| found.extend(numbers.get(&key(file))));
            }
            found
        })
        .collect();
    let mut within = alloc::vec![0; sockets.len()];
    for number in waiting.iter().flatten() {
        within[*number] += 1;
    }
    let is_held = |file: &Arc<OpenFile>, count| Arc::strong_count(file) > count + 1;
    // Who is held by more than messages can be reached; so can one in a message that waits at a socket
    // which is in none.
    let mut is_reached: Vec<bool> = sockets
        .iter()
        .zip(&within)
        .map(|((file, count), within)| is_held(file, *count) || within < count)
        .collect();
    let mut to_follow: Vec<usize> = (0..sockets.len())
        .filter(|number| is_reached[*number])
        .collect();
    while let Some(number) = to_follow.pop() {
        for next in &waiting[number] {
            if !is_reached[*next] {
                is_reached[*next] = true;
                to_follow.push(*next);
            }
        }
    }
    for ((file, count), is_reached) in sockets.iter().zip(is_reached) {
        if !is_reached
            && !is_held(file, *count)
            && let Some(socket) = Socket::of(file)
        {
            socket.forget_waiting();
        }
    }
}
