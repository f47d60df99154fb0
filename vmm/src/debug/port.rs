//! How another thread reaches a vCPU: it visits the vCPU between two runs of the guest, and may
//! hold it there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use vmm_sys_util::signal::SIGRTMIN;

/// Between two interruptions of a vCPU that is to answer: one may come just before KVM_RUN, and is
/// lost then.
const KICK_INTERVAL: Duration = Duration::from_millis(1);
/// How often a held vCPU looks whether the VM has ended.
const HOLD_INTERVAL: Duration = Duration::from_millis(20);
/// How long an answer may take. A vCPU leaves the guest at once, but a device may block it, such as
/// a serial port whose output nobody reads.
const PATIENCE: Duration = Duration::from_secs(2);

type Visit<C> = Box<dyn FnOnce(&mut C) + Send>;

/// The vCPU does not answer: it has ended, or the host blocks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the vCPU does not answer: it has ended or is blocked in a device")]
pub struct NoAnswer;

#[derive(Debug, Default)]
struct State {
    held: AtomicBool,
    /// The vCPU's thread, or 0 while it has none.
    thread: AtomicI32,
}

/// The other threads' side of a vCPU; `C` is what visitors see of it.
pub struct Port<C> {
    visits: Sender<Visit<C>>,
    state: Arc<State>,
}

/// The vCPU's own side.
pub struct Dock<C> {
    visits: Receiver<Visit<C>>,
    state: Arc<State>,
}

/// Both sides. The vCPU is held from the start if `held` says so.
pub fn pair<C>(held: bool) -> (Port<C>, Dock<C>) {
    let (sender, receiver) = mpsc::channel();
    let state = Arc::new(State {
        held: held.into(),
        ..State::default()
    });
    let port = Port {
        visits: sender,
        state: Arc::clone(&state),
    };
    let dock = Dock {
        visits: receiver,
        state,
    };
    (port, dock)
}

impl<C> Port<C> {
    /// Has the vCPU's thread answer a question between two runs of the guest.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`].
    pub fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut C) -> R + Send + 'static,
    ) -> Result<R, NoAnswer> {
        let (sender, answer) = mpsc::channel();
        let visit = Box::new(move |cpu: &mut C| {
            // The asker may have lost its patience.
            let _ = sender.send(question(cpu));
        });
        self.visits.send(visit).map_err(|_| NoAnswer)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.kick();
            match answer.recv_timeout(KICK_INTERVAL) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(NoAnswer)
    }

    /// Keeps the vCPU out of the guest, once this returns, until [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// [`NoAnswer`]; it is held as soon as it could answer.
    pub fn hold(&self) -> Result<(), NoAnswer> {
        self.state.held.store(true, Ordering::Release);
        self.ask(|_| ())
    }

    /// Lets a held vCPU go on.
    pub fn release(&self) {
        self.state.held.store(false, Ordering::Release);
        // A visit without a purpose wakes it; one that has ended needs no waking.
        let _ = self.visits.send(Box::new(|_| ()));
    }

    /// Makes the vCPU leave the guest.
    fn kick(&self) {
        let thread = self.state.thread.load(Ordering::Acquire);
        if thread != 0 {
            // SAFETY: neither has memory arguments. The signal has a handler that does nothing, so
            // it does no harm if the number is another thread's of this process by now.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGRTMIN()) };
        }
    }
}

impl<C> Dock<C> {
    /// Tells the port whose thread to interrupt: the one that calls this.
    pub fn moor(&self) {
        // SAFETY: gettid has no arguments.
        let thread = unsafe { libc::gettid() };
        self.state.thread.store(thread, Ordering::Release);
    }

    /// Whether the vCPU is to stay out of the guest.
    pub fn is_held(&self) -> bool {
        self.state.held.load(Ordering::Acquire)
    }

    /// Holds the vCPU at the next [`attend`](Self::attend).
    pub fn hold(&self) {
        self.state.held.store(true, Ordering::Release);
    }

    /// Receives visitors, and keeps the vCPU here while it is held and not `over`.
    pub fn attend(&self, cpu: &mut C, over: impl Fn() -> bool) {
        while let Ok(visit) = self.visits.try_recv() {
            visit(cpu);
        }
        while self.is_held() && !over() {
            if let Ok(visit) = self.visits.recv_timeout(HOLD_INTERVAL) {
                visit(cpu);
            }
        }
    }
}

impl<C> Drop for Dock<C> {
    fn drop(&mut self) {
        self.state.thread.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    /// A vCPU that counts its runs until it is told to end.
    fn counting(held: bool) -> (Port<u32>, Arc<AtomicBool>, Arc<AtomicU32>) {
        let (port, dock) = pair(held);
        let over = Arc::new(AtomicBool::new(false));
        let runs = Arc::new(AtomicU32::new(0));
        let (seen_over, seen_runs) = (Arc::clone(&over), Arc::clone(&runs));
        thread::spawn(move || {
            let mut cpu = 7;
            while !seen_over.load(Ordering::Acquire) {
                dock.attend(&mut cpu, || seen_over.load(Ordering::Acquire));
                seen_runs.fetch_add(1, Ordering::AcqRel);
                thread::yield_now();
            }
        });
        (port, over, runs)
    }

    fn await_run(runs: &AtomicU32, more_than: u32) {
        let start = Instant::now();
        while runs.load(Ordering::Acquire) <= more_than {
            assert!(start.elapsed() < Duration::from_secs(10));
            thread::yield_now();
        }
    }

    #[test]
    fn a_held_vcpu_answers_and_does_not_run() {
        let (port, over, runs) = counting(true);
        assert_eq!(port.ask(|cpu| std::mem::replace(cpu, 8)), Ok(7));
        assert_eq!(port.ask(|cpu| *cpu), Ok(8));
        assert_eq!(runs.load(Ordering::Acquire), 0);
        port.release();
        await_run(&runs, 0);
        port.hold().unwrap();
        let before = runs.load(Ordering::Acquire);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(runs.load(Ordering::Acquire), before);
        port.release();
        await_run(&runs, before);
        over.store(true, Ordering::Release);
    }

    #[test]
    fn the_end_of_the_vm_frees_a_held_vcpu_and_nobody_answers_then() {
        let (port, over, _) = counting(true);
        assert_eq!(port.ask(|cpu| *cpu), Ok(7));
        over.store(true, Ordering::Release);
        let start = Instant::now();
        while port.ask(|cpu| *cpu) != Err(NoAnswer) {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }
}
