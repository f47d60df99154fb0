//! What is the same for every guest, whoever runs it: signals to Ringlet, the terminal, and the wait
//! for the guest's end.

use std::cell::Cell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use ringlet_abi::TerminalSize;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use crate::jail::violation;
use crate::messages;
use crate::metrics::server::Place;
use crate::missing::Missing;
use crate::outcome::{Ending, Outcome};
use crate::signals::{Request, Signals};
use crate::terminal::{self, RawMode};

/// A timeout of the event loop: none.
const FOREVER: i32 = -1;

/// How long what a guest wrote may still take to leave, once a signal or the time ends the VM.
pub const GRACE: Duration = Duration::from_millis(40);

/// The event loop of a VM.
pub type EventLoop = EventManager<Box<dyn MutEventSubscriber>>;

/// Why a VM cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The host denies a thread, descriptor or process.
    #[error("cannot run the VM: {0}")]
    Host(#[from] io::Error),
    /// The event loop fails.
    #[error("cannot run the VM: {0}")]
    Events(#[from] event_manager::Error),
}

/// A VM that is complete and has not run yet.
pub trait VirtualMachine {
    /// Where a debugger can connect, if one may: the guest waits for it.
    fn debugger_address(&self) -> Option<String>;

    /// Runs the guest to its end. What it wrote before it ended is written out by then, unless a
    /// signal or the time cut that short.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    fn run(&mut self, outside: Outside) -> Result<Outcome, RunError>;

    /// Whether output was lost that the program believes written.
    fn has_lost_output(&self) -> bool;

    /// What the program asked for and the guest kernel does not have.
    fn missing(&self) -> Vec<Missing>;
}

/// What a VM has to do with outside of it, other than by its devices.
pub struct Outside {
    /// Signals to Ringlet.
    pub signals: Signals,
    /// The terminal, if there is one.
    pub raw: Option<RawMode>,
    /// Where metrics go, if anybody wants them.
    pub metrics: Option<Place>,
    /// When the VM is ended, if it has not ended by itself.
    pub deadline: Option<Instant>,
}

/// A guest that runs, as signals reach it.
pub trait Guest {
    /// Its output is written out when this is readable.
    fn drained(&self) -> &EventFd;

    /// The terminal has another size.
    fn resize(&self, size: TerminalSize);

    /// Finds out what its CPUs are doing, for the user, and has the guest's kernel list its tasks,
    /// which it does by itself or not at all. The answer may take a while.
    fn report(&self) -> Box<dyn FnOnce() -> String + Send>;

    /// This process is about to be stopped: what runs outside of it must stop too.
    fn pause(&self) {}

    /// This process goes on.
    fn resume(&self) {}
}

/// What the event loop has seen.
#[derive(Default)]
struct Flags {
    drained: Cell<bool>,
    signal: Cell<Option<u8>>,
    is_late: Cell<bool>,
    is_violated: Cell<bool>,
}

/// The life of a guest, in an event loop.
pub struct Lifecycle<'a> {
    events: &'a mut EventLoop,
    ending: Arc<Ending>,
    flags: Rc<Flags>,
    subscriber: SubscriberId,
}

impl<'a> Lifecycle<'a> {
    /// Serves signals, and looks at the time, from now on.
    ///
    /// # Errors
    ///
    /// The host denies a timer.
    pub fn start(
        events: &'a mut EventLoop,
        guest: impl Guest + 'static,
        ending: &Arc<Ending>,
        outside: Outside,
    ) -> Result<Self, RunError> {
        let flags = Rc::new(Flags::default());
        let subscriber = events.add_subscriber(Box::new(Subscriber {
            guest,
            ending: Arc::clone(ending),
            signals: outside.signals,
            raw: outside.raw,
            timer: outside.deadline.map(timer_until).transpose()?,
            flags: Rc::clone(&flags),
        }));
        Ok(Self {
            events,
            ending: Arc::clone(ending),
            flags,
            subscriber,
        })
    }

    /// Waits until it is said how the guest ends.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn await_end(&mut self) -> Result<Outcome, RunError> {
        loop {
            match self.ending.outcome() {
                Some(outcome) => return Ok(outcome),
                None => self.turn(FOREVER)?,
            }
        }
    }

    /// Waits until the guest's output is written out; for [`GRACE`] at most once a signal has come or
    /// the time is over.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn await_drained(&mut self) -> Result<(), RunError> {
        let mut last = None;
        while !self.flags.drained.get() {
            let patience = match self.is_interrupted() {
                false => FOREVER,
                true => {
                    let last = *last.get_or_insert_with(|| Instant::now() + GRACE);
                    let left = last.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    left.as_millis() as i32 + 1
                }
            };
            self.turn(patience)?;
        }
        Ok(())
    }

    /// Whether a signal has come that ends Ringlet, the time is over, or a thread has violated its
    /// limits: nobody waits for it then.
    pub fn is_interrupted(&self) -> bool {
        self.flags.signal.get().is_some()
            || self.flags.is_late.get()
            || self.flags.is_violated.get()
    }

    /// Waits for events, for so many milliseconds at most, and serves them.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn turn(&mut self, timeout: i32) -> Result<(), RunError> {
        match self.events.run_with_timeout(timeout) {
            Ok(_) => Ok(()),
            Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => Ok(()),
            Err(error) => Err(RunError::Events(error)),
        }
    }

    /// Gives the terminal and the signals back. A signal that came counts more than `outcome`.
    pub fn finish(self, outcome: Outcome) -> Outcome {
        drop(self.events.remove_subscriber(self.subscriber));
        match self.flags.signal.get() {
            Some(signal) => Outcome::Signal(signal),
            None => outcome,
        }
    }
}

/// Serves the events that are about the VM itself.
struct Subscriber<G> {
    guest: G,
    ending: Arc<Ending>,
    signals: Signals,
    raw: Option<RawMode>,
    timer: Option<TimerFd>,
    flags: Rc<Flags>,
}

/// A timer that expires at `deadline`, once.
fn timer_until(deadline: Instant) -> io::Result<TimerFd> {
    let errno = |error: vmm_sys_util::errno::Error| io::Error::from_raw_os_error(error.errno());
    let mut timer = TimerFd::new().map_err(errno)?;
    // Zero would mean never.
    let left = deadline.saturating_duration_since(Instant::now());
    timer
        .reset(left.max(Duration::from_nanos(1)), None)
        .map_err(errno)?;
    Ok(timer)
}

impl<G: Guest> Subscriber<G> {
    fn handle_signals(&self) {
        loop {
            match self.signals.next() {
                Ok(Some(request)) => self.handle_signal(request),
                Ok(None) => return,
                Err(error) => return log::error!("signals: {error}"),
            }
        }
    }

    fn handle_signal(&self, request: Request) {
        match request {
            Request::End(signal) => {
                self.flags.signal.set(Some(signal));
                self.ending.end(Outcome::Signal(signal));
            }
            Request::Report => {
                messages::print_answer(self.guest.report());
            }
            Request::Suspend => self.suspend(),
            Request::Resume => self.resume(),
            Request::Resize => self.guest.resize(terminal::size()),
        }
    }

    /// Stops the process as SIGTSTP does where nobody handles it.
    fn suspend(&self) {
        self.guest.pause();
        if let Some(raw) = &self.raw {
            raw.suspend();
        }
        // SAFETY: raise has no memory arguments. It returns when the process is continued.
        unsafe { libc::raise(libc::SIGSTOP) };
        self.guest.resume();
    }

    /// Takes the terminal, perhaps as a job that came to the foreground.
    fn resume(&self) {
        if let Some(raw) = &self.raw
            && let Err(error) = raw.resume()
        {
            log::warn!("terminal: {error}");
        }
    }
}

impl<G: Guest> MutEventSubscriber for Subscriber<G> {
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        // EAGAIN says that an event has not come.
        let _ = self.ending.event().read();
        if let Some(violation) = violation::seen() {
            self.flags.is_violated.set(true);
            self.ending.end(Outcome::Crash(violation.to_string()));
        }
        if self.guest.drained().read().is_ok() {
            self.flags.drained.set(true);
        }
        if self
            .timer
            .as_ref()
            .is_some_and(|timer| timer.as_raw_fd() == events.fd())
        {
            self.flags.is_late.set(true);
            self.ending.end(Outcome::Timeout);
        }
        self.handle_signals();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for events in [
            Events::new(self.ending.event(), EventSet::IN),
            Events::new(self.guest.drained(), EventSet::IN),
            Events::new(&self.signals, EventSet::IN),
        ]
        .into_iter()
        .chain(
            // It stays expired, and nobody reads it.
            self.timer
                .iter()
                .map(|timer| Events::new(timer, EventSet::IN | EventSet::ONE_SHOT)),
        ) {
            if let Err(error) = ops.add(events) {
                log::error!("event loop: {error}");
            }
        }
    }
}
