//! A thread, as it is while it runs: its registers, and what only itself has to know.
//! What runs it is above this layer ([`ThreadMain`]).

use super::call_sites::CallSites;
use super::exceptions::LastException;
use super::fork::Guest;
use super::futex::{ALL_BITS, Futex};
use super::process::Process;
use super::robust_list;
use super::rseq::RestartableSequences;
use super::signal::{AlternateStack, Interrupted, SignalSet};
use super::thread_state::{Attention, ThreadState};
use crate::error::Result;
use crate::executor;
use crate::file::OpenFile;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::Ordering;
use machine::UserContext;

/// Runs a thread until it or its process ends.
pub type ThreadMain = fn(Thread) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Open files that a thread names by an index.
pub type RegisteredFiles = Vec<Option<Arc<OpenFile>>>;

/// A thread of a process.
pub struct Thread {
    /// The process that it belongs to.
    pub process: Arc<Process>,
    /// What others see of it.
    pub state: Arc<ThreadState>,
    /// The program's registers.
    pub context: UserContext,
    /// Its number.
    pub tid: u32,
    /// A word that is cleared, and one who waits there woken, when it ends; 0 for none
    /// (`set_tid_address(2)`).
    pub clear_at_end: u64,
    /// What `sigaltstack(2)` said.
    pub alternate_stack: AlternateStack,
    /// The system call that a signal has just interrupted.
    pub(crate) interrupted: Option<Interrupted>,
    pub(super) last_exception: LastException,
    /// What `rseq(2)` said.
    pub sequences: RestartableSequences,
    /// What it said when it ended itself.
    pub(crate) exit: Option<u8>,
    /// Where its program makes system calls: what all its threads know together.
    pub(crate) call_sites: Arc<CallSites>,
    /// The turn on a CPU in which the program was entered last.
    pub(crate) entered_in: u64,
    /// The rings that it names by an index.
    pub registered_rings: RegisteredFiles,
    /// Held until it leaves the memory that it has from its parent, which waits for that.
    pub(super) guest: Option<Guest>,
    /// Another one goes on in its place.
    pub(crate) is_replaced: bool,
    /// What runs it, and the threads that it starts.
    pub(super) main: ThreadMain,
}

/// How a new thread begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewThread {
    /// Its stack pointer; `None` for that of its parent.
    pub stack: Option<u64>,
    /// Its FS base; `None` for that of its parent.
    pub thread_pointer: Option<u64>,
    /// Where its number is stored, for the parent and for itself; 0 for nowhere.
    pub number_at: [u64; 2],
    /// [`Thread::clear_at_end`].
    pub clear_at_end: u64,
}

impl Thread {
    /// The first thread of `process`, run by `main`; `name` is padded with NULs.
    pub fn new(
        process: Arc<Process>,
        context: UserContext,
        name: [u8; 16],
        main: ThreadMain,
    ) -> Self {
        let state = process.add_first_thread(None, SignalSet::EMPTY, process.charge_thread().ok());
        *state.name.lock() = name;
        let call_sites = Arc::new(CallSites::new());
        Self::with_state(process, state, context, call_sites, main)
    }

    pub(super) fn with_state(
        process: Arc<Process>,
        state: Arc<ThreadState>,
        context: UserContext,
        call_sites: Arc<CallSites>,
        main: ThreadMain,
    ) -> Self {
        Self {
            tid: state.tid,
            process,
            state,
            context,
            clear_at_end: 0,
            alternate_stack: AlternateStack::default(),
            interrupted: None,
            last_exception: LastException::default(),
            sequences: RestartableSequences::default(),
            exit: None,
            call_sites,
            entered_in: 0,
            registered_rings: RegisteredFiles::new(),
            guest: None,
            is_replaced: false,
            main,
        }
    }

    /// Has the executor run it.
    pub fn start(self) {
        let main = self.main;
        executor::spawn_thread(self.state.clone(), main(self));
    }

    /// Ends this thread, when it returns to its program. The status is the process's if the thread
    /// is the last and nobody says otherwise.
    pub fn end(&mut self, status: u8) {
        self.exit = Some(status);
        self.state.set_attention(Attention::END, true);
    }

    /// Waits for `future`, but not longer than until a signal comes that the thread has to see to. One
    /// that has come before counts as well.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`: how the call goes on after the signal depends on its handler. What behaves
    /// otherwise on Linux makes another error of it.
    pub fn until_signal<F: Future>(&self, future: F) -> impl Future<Output = Result<F::Output>> {
        self.state.until_signal(future)
    }

    /// Gets the page that the kernel has missed; `None` if the process ends before.
    pub(crate) async fn bring_in_absent(&self) -> Option<Result<()>> {
        let bringing = self.process.space.bring_in_absent();
        self.process.until_ending(&self.state, true, bringing).await
    }

    /// Lets go of memory that the thread has used: tells those who want to know.
    pub(super) async fn leave_memory(&mut self) {
        let space = &self.process.space;
        let list = self.state.robust_list.swap(0, Ordering::Relaxed);
        robust_list::release(space, list, self.tid).await;
        let address = core::mem::take(&mut self.clear_at_end);
        let clear = || space.write_value(address, &0_u32);
        // Nobody hears of a bad address.
        if address != 0
            && space.retry(clear).await.is_ok()
            && let Ok(futex) = Futex::new(space, address, false)
        {
            let _ = futex.wake(1, ALL_BITS);
        }
        self.guest = None;
    }

    /// Tells those who want to know that the thread has ended. What it has used is given back before.
    pub(crate) async fn leave(mut self) {
        if self.is_replaced {
            return;
        }
        self.leave_memory().await;
        let status = self.exit.unwrap_or(0);
        let Self { process, state, .. } = self;
        let block = process.block().clone();
        process.files.leave().await;
        drop(process);
        block.remove_thread(&state, status);
    }
}
