//! A process goes on with another program (`execve(2)`): what of it stays, and what does not.

use super::call_sites::CallSites;
use super::control_block::ControlBlock;
use super::exceptions::LastException;
use super::exec::Program;
use super::process::Process;
use super::rseq::RestartableSequences;
use super::signal::{AlternateStack, Signal};
use super::table;
use super::thread::Thread;
use super::thread_state::ThreadState;
use crate::error::{Errno, Result};
use crate::fs::FdTable;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::sync::atomic::Ordering;
use core::task::Poll;

/// While it exists, a process has one thread only.
struct Sole<'a>(&'a ControlBlock);

impl<'a> Sole<'a> {
    /// Ends all threads but `tid`, and waits until they are gone.
    async fn begin(process: &'a ControlBlock, tid: u32) -> Result<Self> {
        if !process.group.lock().begin_sole(tid) {
            return Err(Errno::EAGAIN);
        }
        let sole = Self(process);
        poll_fn(|context| {
            process.changes.register(context.waker());
            match process.group.lock().len() {
                1 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
        Ok(sole)
    }
}

impl Drop for Sole<'_> {
    fn drop(&mut self) {
        self.0.group.lock().end_sole();
    }
}

impl Thread {
    /// Goes on with `program`, as the only thread of its process and as the first one. If it was not that,
    /// another takes its place, and this one ends when it would return to its program.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if another thread does the same; `ENOMEM`.
    pub(crate) async fn replace(&mut self, program: Program) -> Result<()> {
        let before = self.process.clone();
        let block = before.block().clone();
        let sole = Sole::begin(&block, self.tid).await?;
        let files = own_files(&before).await?;
        // There is no way back from here.
        block.has_executed.store(true, Ordering::Relaxed);
        self.leave_memory().await;
        files.close_for_exec().await;
        block.delete_timers();
        {
            let mut group = block.group.lock();
            group.handlers = Arc::new(group.handlers.without_handlers());
        }
        if let Some(entry) = table::lock().processes.get_mut(&block.pid) {
            entry.exit_signal = Signal::SIGCHLD.number();
        }
        let limit = block.limits.lock().soft(linux_raw_sys::general::RLIMIT_AS);
        program.space.set_limit(limit);
        let process = Process::assemble(
            program.space,
            files,
            before.fs.clone(),
            Arc::new(program.executable),
            block.clone(),
        );
        drop(sole);
        let call_sites = Arc::new(CallSites::new());
        if self.tid == block.pid {
            *self.state.name.lock() = program.name;
            self.process = process;
            self.context = program.context;
            self.call_sites = call_sites;
            self.alternate_stack = AlternateStack::default();
            self.sequences = RestartableSequences::default();
            self.last_exception = LastException::default();
            *self.state.restart.lock() = None;
            return Ok(());
        }
        let state = Arc::new(ThreadState::new(block.pid, Some(&self.state)));
        *state.name.lock() = program.name;
        block.group.lock().rename(self.tid, &state);
        table::remove_thread(self.tid);
        Self::with_state(process, state, program.context, call_sites, self.main).start();
        self.is_replaced = true;
        self.end(0);
        Ok(())
    }
}

/// The open files that the program has: its own, if others use those that it had.
async fn own_files(process: &Process) -> Result<Arc<FdTable>> {
    let files = &process.files;
    if !files.is_shared() {
        return Ok(files.clone());
    }
    let own = Arc::new(files.copy(process.pid)?);
    files.leave().await;
    Ok(own)
}
