//! Those who have connected to a socket and were not accepted yet.

use super::common::Common;
use super::room::AwaitingRoom;
use crate::error::{Errno, Result};
use crate::file::Readiness;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use machine::lock::Mutex;

/// The queue of a socket that listens: of its ends of connections.
pub(super) struct Backlog<T> {
    state: Mutex<State<T>>,
    listener: Arc<Common>,
}

struct State<T> {
    ends: VecDeque<T>,
    most: usize,
    is_ended: bool,
    connecting: AwaitingRoom,
}

impl<T> Backlog<T> {
    /// A queue of `backlog` ends and one more, as on Linux.
    pub(super) fn new(listener: &Arc<Common>, backlog: u32) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                ends: VecDeque::new(),
                most: backlog as usize + 1,
                is_ended: false,
                connecting: AwaitingRoom::default(),
            }),
            listener: listener.clone(),
        })
    }

    /// Changes how many there may be.
    pub(super) fn resize(&self, backlog: u32) {
        let connecting = {
            let mut state = self.state.lock();
            state.most = backlog as usize + 1;
            state.connecting.take()
        };
        connecting.wake();
    }

    /// Whether one more may connect now. `EAGAIN` if there are too many, of which `who` hears when it is
    /// over; `ECONNREFUSED` if nobody accepts any more.
    pub(super) fn check(&self, who: &Arc<Common>) -> Result<()> {
        self.state.lock().check(who)
    }

    /// Adds an end for `who`, or gives it back; likewise.
    pub(super) fn push(&self, end: T, who: &Arc<Common>) -> Result<(), (T, Errno)> {
        {
            let mut state = self.state.lock();
            if let Err(error) = state.check(who) {
                return Err((end, error));
            }
            state.ends.push_back(end);
        }
        self.listener.changes.wake(Readiness::READABLE.bits());
        Ok(())
    }

    /// The first end. `EAGAIN` if there is none, `EINVAL` if none will come.
    pub(super) fn pop(&self) -> Result<T> {
        let mut state = self.state.lock();
        let Some(end) = state.ends.pop_front() else {
            return Err(match state.is_ended {
                true => Errno::EINVAL,
                false => Errno::EAGAIN,
            });
        };
        let connecting = state.connecting.take();
        drop(state);
        connecting.wake();
        Ok(end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().ends.is_empty()
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state.lock().is_ended
    }

    /// Nobody may connect any more.
    pub(super) fn end(&self) {
        let connecting = {
            let mut state = self.state.lock();
            state.is_ended = true;
            state.connecting.take()
        };
        connecting.wake();
        self.listener.changes.wake_all();
    }

    /// All that were not accepted.
    pub(super) fn drain(&self) -> VecDeque<T> {
        core::mem::take(&mut self.state.lock().ends)
    }

    /// Calls `each` with each.
    pub(super) fn for_each(&self, each: impl FnMut(&T)) {
        self.state.lock().ends.iter().for_each(each);
    }
}

impl<T> State<T> {
    fn check(&mut self, who: &Arc<Common>) -> Result<()> {
        if self.is_ended {
            return Err(Errno::ECONNREFUSED);
        }
        if self.ends.len() >= self.most {
            self.connecting.add(who);
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }
}
