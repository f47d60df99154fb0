//! Making processes and threads (`clone(2)`).

use super::account::ThreadCharge;
use super::call_sites::CallSites;
use super::control_block::ControlBlock;
use super::pid_file::PidFile;
use super::process::Process;
use super::signal::Handlers;
use super::table::{self, Entry};
use super::thread::{NewThread, Thread};
use super::thread_state::ThreadState;
use crate::error::{Errno, Result};
use crate::executor::WaitQueue;
use crate::fs::{FdTable, FsContext, OpenFlags};
use crate::heap;
use crate::mm::AddressSpace;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use bitflags::bitflags;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;

/// Bytes of the kernel's heap that a process may take, besides its areas and open files.
const PROCESS_COST: usize = 32 << 10;

bitflags! {
    /// What a process or thread has together with the one that makes it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Shared: u32 {
        /// Its memory.
        const SPACE = 1;
        /// Its open files.
        const FILES = 2;
        /// Its root and working directory and its umask.
        const FS = 4;
        /// What it does about signals.
        const HANDLERS = 8;
    }
}

/// How a new process begins.
#[derive(Clone, Copy, Debug)]
pub struct NewProcess {
    /// What it shares.
    pub shared: Shared,
    /// How its thread begins.
    pub thread: NewThread,
    /// The signal that tells the parent of its end; 0 for none.
    pub exit_signal: u8,
    /// Its parent is that of the process that makes it.
    pub is_sibling: bool,
    /// What has a handler does again what it does by default.
    pub has_no_handlers: bool,
    /// The maker waits until it has left the memory: the thread has that from
    /// [`Thread::fork`].
    pub is_waited_for: bool,
    /// The number that it must have.
    pub number: Option<i32>,
    /// Where a descriptor of it is stored, if there is to be one.
    pub descriptor_at: Option<u64>,
}

/// That a process made by `vfork(2)` has left its parent's memory.
#[derive(Debug, Default)]
pub struct Departure {
    has_left: AtomicBool,
    waiting: WaitQueue,
}

/// What a thread drops when it leaves the memory that it has from its parent.
#[derive(Debug)]
pub(crate) struct Guest(Arc<Departure>);

impl Departure {
    /// Waits for it.
    pub async fn wait(&self) {
        poll_fn(|context| {
            self.waiting.register(context.waker());
            match self.has_left.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.has_left.store(true, Ordering::Release);
        self.0.waiting.wake_all();
    }
}

impl Thread {
    /// Starts another thread of the process, which begins where this one is, and returns its
    /// number. It sees 0 as the result of the system call.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are too many threads, `ERESTARTNOINTR` if there is a signal for this one, and
    /// `ENOMEM`.
    pub fn start_another(&self, new: NewThread, shared: Shared) -> Result<u32> {
        prepare(&self.process.space, &new)?;
        let process = self.process_with(shared)?;
        let state = match self.process.add_thread(&self.state) {
            Ok(state) => state,
            Err(error) => {
                // Nobody else has it, and nothing in it has been used.
                process.files.leave_unused();
                return Err(error);
            }
        };
        let tid = state.tid;
        for address in new.number_at.into_iter().filter(|address| *address != 0) {
            // As on Linux, a bad address is not told of.
            let _ = self.process.space.write_value(address, &tid);
        }
        self.child_thread(process, state, self.call_sites.clone(), &new)
            .start();
        Ok(tid)
    }

    /// What another thread reaches that shares these things with this one.
    fn process_with(&self, shared: Shared) -> Result<Arc<Process>> {
        if shared.contains(Shared::FILES | Shared::FS) {
            self.process.files.enter();
            return Ok(self.process.clone());
        }
        let process = &self.process;
        let (files, fs) = self.files_and_fs(shared, process.pid)?;
        let other = Process::beside(process, files, fs);
        Ok(other)
    }

    fn files_and_fs(&self, shared: Shared, owner: u32) -> Result<(Arc<FdTable>, Arc<FsContext>)> {
        let fs = match shared.contains(Shared::FS) {
            true => self.process.fs.clone(),
            false => self.process.fs.copy(),
        };
        let files = match shared.contains(Shared::FILES) {
            true => {
                self.process.files.enter();
                self.process.files.clone()
            }
            false => Arc::new(self.process.files.copy(owner)?),
        };
        Ok((files, fs))
    }

    /// A thread that begins where this one is.
    fn child_thread(
        &self,
        process: Arc<Process>,
        state: Arc<ThreadState>,
        call_sites: Arc<CallSites>,
        new: &NewThread,
    ) -> Self {
        let mut context = self.context.clone();
        context.set_syscall_result(0);
        if let Some(stack) = new.stack {
            context.registers.rsp = stack;
        }
        if let Some(base) = new.thread_pointer {
            context.fs_base = base;
        }
        Self {
            clear_at_end: new.clear_at_end,
            ..Self::with_state(process, state, context, call_sites, self.main)
        }
    }

    /// Starts another process, whose thread begins where this one is, and returns its number, and what
    /// to wait for before the program goes on. It sees 0 as the result of the system call.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are too many processes, `ENOMEM`, `ERESTARTNOINTR` if there is a signal for
    /// this thread; of [`NewProcess::number`], `EINVAL` and `EEXIST`.
    pub fn fork(&self, new: &NewProcess) -> Result<(u32, Option<Arc<Departure>>)> {
        let parent = &self.process;
        let is_shared = new.shared.contains(Shared::SPACE);
        prepare(&parent.space, &new.thread)?;
        if !self.state.attention().is_empty() {
            return Err(Errno::ERESTARTNOINTR);
        }
        heap::check(PROCESS_COST)?;
        let charge = parent.charge_thread()?;
        table::lock().check_room()?;
        let handlers = self.handlers_for(new);
        let space = match is_shared {
            true => parent.space.clone(),
            false => parent.space.fork()?,
        };
        if let Some(address) = new.descriptor_at {
            parent.space.prepare_write(address, size_of::<i32>())?;
        }
        let (files, fs) = self.files_and_fs(new.shared, 0)?;
        let (block, state) = match self.add_process(new, handlers, charge) {
            Ok(added) => added,
            Err(error) => {
                files.leave_unused();
                return Err(error);
            }
        };
        if let Some(address) = new.descriptor_at
            && let Err(error) = self.give_descriptor(&block, address)
        {
            files.leave_unused();
            let entry = table::lock().remove(block.pid);
            drop(entry);
            return Err(error);
        }
        if !new.shared.contains(Shared::FILES) {
            files.set_owner(block.pid);
        }
        if !new.shared.contains(Shared::FS) {
            fs.set_owner(block.pid);
        }
        let child = Process::assemble(space, files, fs, parent.executable.clone(), block.clone());
        let [parent_at, child_at] = new.thread.number_at;
        for (address, space) in [(parent_at, &parent.space), (child_at, &child.space)] {
            if address != 0 {
                let _ = space.write_value(address, &block.pid);
            }
        }
        let call_sites = match is_shared {
            true => self.call_sites.clone(),
            false => Arc::new(self.call_sites.copy()),
        };
        let mut thread = self.child_thread(child, state, call_sites, &new.thread);
        if !is_shared {
            thread.sequences = self.sequences.inherited();
        }
        if !is_shared || new.is_waited_for {
            thread.alternate_stack = self.alternate_stack;
        }
        let departure = new.is_waited_for.then(Arc::<Departure>::default);
        thread.guest = departure.clone().map(Guest);
        thread.start();
        Ok((block.pid, departure))
    }

    /// Opens a descriptor of a new process and stores it at `address`.
    fn give_descriptor(&self, process: &Arc<ControlBlock>, address: u64) -> Result<()> {
        let files = &self.process.files;
        let file = PidFile::open(process.clone(), OpenFlags::empty());
        let fd = files.insert(file, true, 0)?;
        let stored = self.process.space.write_value(address, &fd);
        if stored.is_err() {
            // It need not be flushed.
            let _ = files.close(fd);
        }
        stored
    }

    fn handlers_for(&self, new: &NewProcess) -> Arc<Handlers> {
        let own = self.process.group.lock().handlers.clone();
        match new.shared.contains(Shared::HANDLERS) {
            true => own,
            false if new.has_no_handlers => Arc::new(own.without_handlers()),
            false => Arc::new(own.copy()),
        }
    }

    /// Puts a new process into the table.
    fn add_process(
        &self,
        new: &NewProcess,
        handlers: Arc<Handlers>,
        charge: ThreadCharge,
    ) -> Result<(Arc<ControlBlock>, Arc<ThreadState>)> {
        let mut table = table::lock();
        // A signal for the process group that has come before has its effect before.
        if !self.state.attention().is_empty() {
            return Err(Errno::ERESTARTNOINTR);
        }
        let pid = match new.number {
            Some(number) => table.take_this_number(number)?,
            None => table.take_number()?,
        };
        let own = table
            .processes
            .get(&self.process.pid)
            .ok_or(Errno::EAGAIN)?;
        let (parent, parent_tid, exit_signal) = match new.is_sibling {
            true => (own.parent, own.parent_tid, own.exit_signal),
            false => (self.process.pid, self.tid, new.exit_signal),
        };
        let block = self.process.child(pid, handlers);
        let entry = Entry {
            block: block.clone(),
            parent,
            parent_tid,
            children: BTreeSet::new(),
            group: own.group,
            session: own.session,
            exit_signal,
            has_left_terminal: own.has_left_terminal,
            ended: None,
            change: None,
        };
        let blocked = self.process.blocked(self.tid);
        let state = block.add_first_thread(Some(&self.state), blocked, Some(charge));
        table.insert(pid, entry);
        Ok((block, state))
    }
}

/// Sees to it that a number can be stored wherever one is to be.
fn prepare(space: &AddressSpace, new: &NewThread) -> Result<()> {
    for address in new.number_at.into_iter().filter(|address| *address != 0) {
        // A bad address is not told of, but a page that has to be read first is waited for.
        space.prepare_write(address, size_of::<u32>())?;
    }
    Ok(())
}
