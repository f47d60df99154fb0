//! Who waits for room in something that is another's.

use super::common::Common;
use crate::file::Readiness;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// Sockets that wait, each once.
#[derive(Default)]
pub(super) struct AwaitingRoom(Vec<Weak<Common>>);

impl AwaitingRoom {
    /// `socket` is woken when there is room.
    pub(super) fn add(&mut self, socket: &Arc<Common>) {
        let is_known = |other: &Weak<Common>| core::ptr::eq(other.as_ptr(), Arc::as_ptr(socket));
        if !self.0.iter().any(is_known) {
            self.0.retain(|other| other.strong_count() > 0);
            self.0.push(Arc::downgrade(socket));
        }
    }

    /// All of them, to be [woken](Self::wake) when no lock is held.
    pub(super) fn take(&mut self) -> Self {
        core::mem::take(self)
    }

    /// There is room.
    pub(super) fn wake(self) {
        for socket in self.0.iter().filter_map(Weak::upgrade) {
            socket.changes.wake(Readiness::WRITABLE.bits());
        }
    }
}
