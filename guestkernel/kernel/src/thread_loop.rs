//! Running a thread: its program, and what that asks for.
//!
//! The executor polls the future of a thread. It enters the program, comes back with a trap, and
//! does what the program wants: a system call, a page, a look at what has become ready.

use crate::error::{Errno, Result};
use crate::executor::{self, Stint};
use crate::process::{Interrupted, Process, Thread, ThreadState};
use crate::syscall::{self, Args, Dispatched};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use machine::Trap;

/// Runs the program of `thread` until the thread or its process ends: a
/// [`ThreadMain`](crate::process::ThreadMain).
pub(crate) fn run(thread: Thread) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async {
        let state = thread.state.clone();
        let mut running = pin!(run_program(thread));
        poll_fn(|context| {
            let _turn = state.begin_turn();
            running.as_mut().poll(context)
        })
        .await;
    })
}

async fn run_program(mut thread: Thread) {
    while run_until_replaced(&mut thread).await {}
    thread.leave().await;
}

/// Runs the program of `thread` until that is to end (false), or to go on with another program.
async fn run_until_replaced(thread: &mut Thread) -> bool {
    let process = thread.process.clone();
    let state = thread.state.clone();
    loop {
        give_way(thread).await;
        if !state.attention().is_empty() || thread.interrupted.is_some() {
            match thread.attend().await {
                true => continue,
                false => return false,
            }
        }
        match thread
            .sequences
            .prepare(&process.space, &mut thread.context)
        {
            Ok(()) => {}
            Err(Errno::ABSENT) => {
                // Its area, or what that points at, lies in a page that has to be read first.
                thread.sequences.disturb();
                if let Some(Err(error)) = thread.bring_in_absent().await {
                    thread.fail(false, format_args!("restartable sequence: {error:?}"));
                }
                continue;
            }
            Err(_) => {
                thread.fail(false, format_args!("bad restartable sequence"));
                continue;
            }
        }
        match thread.context.run(process.space.root()) {
            Trap::Syscall => {
                let number = thread.context.syscall_number();
                let args = Args(thread.context.syscall_arguments());
                let site = thread.context.registers.rip;
                thread.call_sites.note(&process.space, site, number);
                let result = loop {
                    let wait = Wait {
                        process: &process,
                        state: &state,
                        number,
                    };
                    let result = match syscall::dispatch_now(thread, number, args) {
                        Dispatched::Done(result) => Some(result),
                        Dispatched::Waits => {
                            let is_urgent = syscall::waits_for_others(number, args);
                            let result = {
                                // Pinned here, so that the future is not moved on its way.
                                let call = pin!(syscall::dispatch(thread, number, args));
                                wait.until_done(is_urgent, call).await
                            };
                            if !Arc::ptr_eq(&process, &thread.process) {
                                return true;
                            }
                            result
                        }
                        Dispatched::Entered(entered) => {
                            let call = pin!(syscall::finish_enter(thread, entered));
                            wait.until_done(true, call).await
                        }
                    };
                    if result != Some(Err(Errno::ABSENT)) {
                        break result;
                    }
                    // It has missed a page that has to be read first, and begins again then.
                    match thread.bring_in_absent().await {
                        Some(Ok(())) => {}
                        Some(Err(error)) => break Some(Err(error)),
                        None => break None,
                    }
                };
                match result {
                    Some(Ok(value)) => thread.context.set_syscall_result(value),
                    Some(Err(error)) => {
                        if error == Errno::EAGAIN {
                            // What it would have waited for may be there, for the next try.
                            executor::poll_devices();
                        }
                        if error.is_restart() {
                            thread.interrupted = Some(Interrupted { number, error });
                        }
                        thread.set_error(error);
                    }
                    None => {}
                }
            }
            Trap::PageFault(fault) => thread.page_fault(fault).await,
            Trap::Exception { vector, code } => thread.exception(vector, code),
            Trap::Interrupt => {
                executor::poll();
            }
        }
    }
}

/// A system call that waits.
struct Wait<'a> {
    process: &'a Process,
    state: &'a ThreadState,
    number: u64,
}

impl Wait<'_> {
    /// Its result, unless the process ends before.
    async fn until_done(
        self,
        is_urgent: bool,
        call: impl Future<Output = Result<u64>>,
    ) -> Option<Result<u64>> {
        self.state.waits_in(Some(self.number));
        let result = self.process.until_ending(self.state, is_urgent, call).await;
        self.state.waits_in(None);
        result
    }
}

/// Lets others have their turn before the program is entered: the kernel's own work now, other
/// threads when the time slice is over.
#[inline]
async fn give_way(thread: &mut Thread) {
    loop {
        let mut stint = Stint::default();
        while executor::has_work() {
            executor::run_work();
            if stint.is_over() {
                break;
            }
        }
        let (turn, slice) = thread.state.turn();
        if turn != thread.entered_in {
            thread.entered_in = turn;
            thread.sequences.disturb();
        }
        let is_waited_for = executor::has_waiting_threads();
        // Work that goes on for long waits for the end of the slice, as threads do.
        let is_shared = is_waited_for || executor::has_work();
        if is_waited_for && slice.must_yield() || !thread.state.may_stay() {
            executor::yield_now().await;
        } else if executor::prepare_program(slice, is_shared) {
            executor::poll();
        } else {
            return;
        }
    }
}
