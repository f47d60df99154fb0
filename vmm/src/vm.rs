//! A VM's life: its vCPUs run, its event loop turns, and one of them says how it ends.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use kvm_ioctls::VmFd;
use ringlet_devices::Worker;
use ringlet_devices::console::{ConsoleHandle, Size};
use vmm_sys_util::epoll::EventSet;

use crate::debug::port::Port;
use crate::debug::session::{Event, Session};
use crate::debug::trap::Cpu;
use crate::debug::{Server, report};
use crate::outcome::Outcome;
use crate::signals::{Request, Signals};
use crate::terminal::{self, RawMode};
use crate::vcpu::{Machine, Vcpu};

/// Timeouts of the event loop in milliseconds: none, and what passes between two requests to stop.
const FOREVER: i32 = -1;
const KICK_INTERVAL: i32 = 1;

/// The event loop of a VM.
pub type EventLoop = EventManager<Box<dyn MutEventSubscriber>>;

/// A VM that is complete and has not run yet.
pub struct Vm {
    vcpus: Vec<Vcpu>,
    ports: Arc<[Port<Cpu>]>,
    events: EventLoop,
    console: ConsoleHandle,
    machine: Machine,
    debugger: Option<Debugger>,
    /// Closed last: vCPUs and devices use it.
    _fd: VmFd,
}

/// The GDB stub before the VM runs. The vCPUs are held until a debugger has come.
pub(crate) struct Debugger {
    pub(crate) server: Server,
    pub(crate) session: Arc<Session>,
    pub(crate) events: Receiver<Event>,
}

/// Why a VM cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The host denies a thread or descriptor.
    #[error("cannot run the VM: {0}")]
    Host(#[from] io::Error),
    /// The event loop fails.
    #[error("cannot run the VM: {0}")]
    Events(event_manager::Error),
}

impl Vm {
    /// Puts the parts together.
    pub(crate) fn new(
        fd: VmFd,
        (vcpus, ports): (Vec<Vcpu>, Arc<[Port<Cpu>]>),
        events: EventLoop,
        console: ConsoleHandle,
        machine: Machine,
        debugger: Option<Debugger>,
    ) -> Self {
        Self {
            vcpus,
            ports,
            events,
            console,
            machine,
            debugger,
            _fd: fd,
        }
    }

    /// Where a debugger can connect, if one may and the VM has not run yet.
    pub fn debugger_address(&self) -> Option<String> {
        let debugger = self.debugger.as_ref()?;
        Some(debugger.server.address())
    }

    /// Runs the VM to its end. What the guest wrote before it ended is written out by then, unless
    /// a signal cut that short.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn run(&mut self, signals: Signals, raw: Option<RawMode>) -> Result<Outcome, RunError> {
        let flags = Rc::new(Flags::default());
        let lifecycle = self.events.add_subscriber(Box::new(Lifecycle {
            machine: self.machine.clone(),
            ports: Arc::clone(&self.ports),
            console: self.console.clone(),
            signals,
            raw,
            flags: Rc::clone(&flags),
        }));
        let mut workers = Vec::new();
        for (index, vcpu) in self.vcpus.drain(..).enumerate() {
            workers.push(Worker::spawn(&format!("vcpu{index}"), move |stop| {
                vcpu.run(&stop)
            })?);
        }
        let stub = match self.debugger.take() {
            Some(debugger) => Some(debugger.server.start(
                debugger.session,
                debugger.events,
                Arc::clone(&self.ports),
                Arc::clone(&self.machine.ending),
            )?),
            None => None,
        };
        let outcome = loop {
            match self.machine.ending.outcome() {
                Some(outcome) => break outcome,
                None => turn(&mut self.events, FOREVER)?,
            }
        };
        if let Some(stub) = stub {
            stub.finish(&outcome);
        }
        self.stop_vcpus(workers, &flags)?;
        if !matches!(outcome, Outcome::Signal(_)) {
            self.console.drain();
            while !flags.drained.get() && flags.signal.get().is_none() {
                turn(&mut self.events, FOREVER)?;
            }
        }
        // Gives the terminal and the signals back.
        drop(self.events.remove_subscriber(lifecycle));
        Ok(match flags.signal.get() {
            Some(signal) => Outcome::Signal(signal),
            None => outcome,
        })
    }

    /// Waits until the vCPUs have ended. One may be held up by a full pipe at standard error, so a
    /// signal ends the wait.
    fn stop_vcpus(&mut self, vcpus: Vec<Worker>, flags: &Flags) -> Result<(), RunError> {
        loop {
            vcpus.iter().for_each(Worker::request_stop);
            if vcpus.iter().all(Worker::has_ended) {
                self.machine.flush_serial();
                return Ok(());
            }
            if flags.signal.get().is_some() {
                // The process is about to end, and they with it.
                vcpus.into_iter().for_each(std::mem::forget);
                return Ok(());
            }
            turn(&mut self.events, KICK_INTERVAL)?;
        }
    }
}

/// Waits for events, for so many milliseconds at most, and serves them.
fn turn(events: &mut EventLoop, timeout: i32) -> Result<(), RunError> {
    match events.run_with_timeout(timeout) {
        Ok(_) => Ok(()),
        Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => Ok(()),
        Err(error) => Err(RunError::Events(error)),
    }
}

/// What the event loop has seen.
#[derive(Default)]
struct Flags {
    drained: Cell<bool>,
    signal: Cell<Option<u8>>,
}

/// Serves the events that are about the VM itself.
struct Lifecycle {
    machine: Machine,
    ports: Arc<[Port<Cpu>]>,
    console: ConsoleHandle,
    signals: Signals,
    raw: Option<RawMode>,
    flags: Rc<Flags>,
}

impl Lifecycle {
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
                self.machine.ending.end(Outcome::Signal(signal));
            }
            Request::Report => {
                let (memory, image) = (&self.machine.memory, &self.machine.image);
                let text = report::all(&self.ports, memory, image);
                terminal::write_stderr(text.as_bytes());
            }
            Request::Suspend => self.suspend(),
            Request::Resume => self.resume(),
            Request::Resize => {
                let size = terminal::size();
                self.console.resize(Size {
                    columns: size.columns,
                    rows: size.rows,
                });
            }
        }
    }

    /// Stops the process as SIGTSTP does where nobody handles it.
    fn suspend(&self) {
        if let Some(raw) = &self.raw {
            raw.suspend();
        }
        // SAFETY: raise has no memory arguments. It returns when the process is continued.
        unsafe { libc::raise(libc::SIGSTOP) };
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

impl MutEventSubscriber for Lifecycle {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        // EAGAIN says that an event has not come.
        let _ = self.machine.ending.event().read();
        if self.console.drained().read().is_ok() {
            self.flags.drained.set(true);
        }
        self.handle_signals();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for events in [
            Events::new(self.machine.ending.event(), EventSet::IN),
            Events::new(self.console.drained(), EventSet::IN),
            Events::new(&self.signals, EventSet::IN),
        ] {
            if let Err(error) = ops.add(events) {
                log::error!("event loop: {error}");
            }
        }
    }
}
