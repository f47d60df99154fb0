//! `fork(2)`, `vfork(2)`, `clone(2)` and `clone3(2)`: another thread, or another process.

use crate::error::{Errno, Result};
use crate::mm::TASK_SIZE;
use crate::process::{NewProcess, NewThread, Shared, Thread};
use linux_raw_sys::general as raw;

/// Flags that change nothing: there are no semaphores of System V and no I/O priorities to share,
/// and nobody who traces.
const HARMLESS: u64 = (raw::CLONE_SYSVSEM
    | raw::CLONE_IO
    | raw::CLONE_UNTRACED
    | raw::CLONE_PTRACE
    | raw::CLONE_DETACHED) as u64;
/// Flags that say what is shared, and how the new thread begins.
const KNOWN: u64 = HARMLESS
    | raw::CLONE_CLEAR_SIGHAND
    | (raw::CLONE_VM
        | raw::CLONE_FS
        | raw::CLONE_FILES
        | raw::CLONE_SIGHAND
        | raw::CLONE_THREAD
        | raw::CLONE_VFORK
        | raw::CLONE_PARENT
        | raw::CLONE_PIDFD
        | raw::CLONE_SETTLS
        | raw::CLONE_PARENT_SETTID
        | raw::CLONE_CHILD_SETTID
        | raw::CLONE_CHILD_CLEARTID) as u64;

/// What `clone(2)` is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clone {
    /// `CLONE_*`, without the signal.
    pub flags: u64,
    /// The signal that tells the parent of its end; 0 for none.
    pub exit_signal: u8,
    /// The stack pointer; 0 for that of the parent.
    pub stack: u64,
    /// Where its number is stored, for the parent and for itself.
    pub parent_tid: u64,
    /// As above.
    pub child_tid: u64,
    /// Its FS base.
    pub thread_pointer: u64,
    /// The number that it must have.
    pub number: Option<i32>,
    /// Where a descriptor of it is stored.
    pub descriptor_at: u64,
}

impl Clone {
    /// A process by `fork(2)`.
    pub fn fork() -> Self {
        Self {
            exit_signal: raw::SIGCHLD as u8,
            ..Self::default()
        }
    }

    /// One by `vfork(2)`.
    pub fn vfork() -> Self {
        Self {
            flags: (raw::CLONE_VM | raw::CLONE_VFORK).into(),
            ..Self::fork()
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }

    fn given(&self, flag: u32, value: u64) -> u64 {
        if self.has(flag) { value } else { 0 }
    }

    /// Does it, and gives the number of the thread or process.
    ///
    /// # Errors
    ///
    /// Those of `clone(2)`.
    pub async fn run(self, thread: &Thread) -> Result<u32> {
        self.check(thread)?;
        let mut shared = Shared::empty();
        shared.set(Shared::SPACE, self.has(raw::CLONE_VM));
        shared.set(Shared::FILES, self.has(raw::CLONE_FILES));
        shared.set(Shared::FS, self.has(raw::CLONE_FS));
        shared.set(Shared::HANDLERS, self.has(raw::CLONE_SIGHAND));
        let new = NewThread {
            stack: (self.stack != 0).then_some(self.stack),
            thread_pointer: self.has(raw::CLONE_SETTLS).then_some(self.thread_pointer),
            number_at: [
                self.given(raw::CLONE_PARENT_SETTID, self.parent_tid),
                self.given(raw::CLONE_CHILD_SETTID, self.child_tid),
            ],
            clear_at_end: self.given(raw::CLONE_CHILD_CLEARTID, self.child_tid),
        };
        let (number, departure) = match self.has(raw::CLONE_THREAD) {
            true => (thread.start_another(new, shared)?, None),
            false => thread.fork(&NewProcess {
                shared,
                thread: new,
                exit_signal: self.exit_signal,
                is_sibling: self.has(raw::CLONE_PARENT),
                has_no_handlers: self.flags & raw::CLONE_CLEAR_SIGHAND != 0,
                is_waited_for: self.has(raw::CLONE_VFORK),
                number: self.number,
                descriptor_at: self.has(raw::CLONE_PIDFD).then_some(self.descriptor_at),
            })?,
        };
        if let Some(departure) = departure {
            // Signals wait meanwhile, but for those that end the process.
            departure.wait().await;
        }
        Ok(number)
    }

    fn check(&self, thread: &Thread) -> Result<()> {
        let needs = |flag, other| !self.has(flag) || self.has(other);
        let has_both = |one, other| self.has(one) && self.has(other);
        let is_one_place = self.descriptor_at == self.parent_tid;
        if has_both(raw::CLONE_PIDFD, raw::CLONE_PARENT_SETTID) && is_one_place
            || has_both(raw::CLONE_NEWNS, raw::CLONE_FS)
            || !needs(raw::CLONE_THREAD, raw::CLONE_SIGHAND)
            || !needs(raw::CLONE_SIGHAND, raw::CLONE_VM)
            || self.has(raw::CLONE_PARENT) && thread.process.pid == 1
            || has_both(raw::CLONE_PIDFD, raw::CLONE_DETACHED)
        {
            return Err(Errno::EINVAL);
        }
        // A descriptor of a thread is not offered, nor are name spaces.
        if has_both(raw::CLONE_PIDFD, raw::CLONE_THREAD) || self.flags & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        match self.has(raw::CLONE_SETTLS) && self.thread_pointer >= TASK_SIZE {
            true => Err(Errno::EPERM),
            false => Ok(()),
        }
    }
}
