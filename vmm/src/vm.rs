//! A KVM VM's life: its vCPUs run, its event loop turns, and one of them says how it ends.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;
use ringlet_abi::{REPORT_VECTOR, TerminalSize};
use ringlet_devices::console::{ConsoleHandle, Size};
use ringlet_devices::{Stop, ThreadKind, Threads, Worker};
use vmm_sys_util::eventfd::EventFd;

use crate::debug::port::Port;
use crate::debug::session::{Event, Session};
use crate::debug::trap::Cpu;
use crate::debug::{Server, report};
use crate::lifecycle::{EventLoop, GRACE, Guest, Lifecycle, Outside, RunError, VirtualMachine};
use crate::messages;
use crate::metrics::server as metrics;
use crate::missing::Missing;
use crate::outcome::Outcome;
use crate::vcpu::{Machine, Vcpu};

/// The address of a message that interrupts all CPUs (Intel SDM volume 3, 12.11.1).
const MSI_TO_ALL: u32 = 0xfeef_f000;

/// Milliseconds between two requests to a vCPU to stop.
const KICK_INTERVAL: i32 = 1;

/// A VM that is complete and has not run yet.
pub struct Vm {
    vcpus: Vec<Vcpu>,
    ports: Arc<[Port<Cpu>]>,
    events: EventLoop,
    devices: Devices,
    machine: Machine,
    debugger: Option<Debugger>,
    /// Closed last: vCPUs and devices use it.
    fd: Arc<VmFd>,
}

/// What is left to do about the devices while the VM runs.
pub(crate) struct Devices {
    pub(crate) console: ConsoleHandle,
    /// Some of theirs may not be confined yet.
    pub(crate) threads: Threads,
}

/// The GDB stub before the VM runs. The vCPUs are held until a debugger has come.
pub(crate) struct Debugger {
    pub(crate) server: Server,
    pub(crate) session: Arc<Session>,
    pub(crate) events: Receiver<Event>,
}

impl Vm {
    /// Puts the parts together.
    pub(crate) fn new(
        fd: VmFd,
        (vcpus, ports): (Vec<Vcpu>, Arc<[Port<Cpu>]>),
        events: EventLoop,
        devices: Devices,
        machine: Machine,
        debugger: Option<Debugger>,
    ) -> Self {
        Self {
            vcpus,
            ports,
            events,
            devices,
            machine,
            debugger,
            fd: Arc::new(fd),
        }
    }
}

impl VirtualMachine for Vm {
    fn debugger_address(&self) -> Option<String> {
        let debugger = self.debugger.as_ref()?;
        Some(debugger.server.address())
    }

    fn run(&mut self, mut outside: Outside) -> Result<Outcome, RunError> {
        let place = outside.metrics.take();
        let running = Running {
            fd: Arc::clone(&self.fd),
            machine: self.machine.clone(),
            ports: Arc::clone(&self.ports),
            console: self.devices.console.clone(),
        };
        let ending = &self.machine.ending;
        let mut life = Lifecycle::start(&mut self.events, running, ending, outside)?;
        let threads = &self.devices.threads;
        messages::confine_writer(threads, ending);
        let server = place
            .map(|place| metrics::Server::start(&self.machine.metrics, place, threads))
            .transpose()?;
        let mut workers = Vec::new();
        // The guest starts when every thread is confined, this one last: it starts the others.
        let gate = Arc::new(RwLock::new(()));
        let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
        for (index, vcpu) in self.vcpus.drain(..).enumerate() {
            let gate = Arc::clone(&gate);
            let run = move |stop: Arc<Stop>| {
                drop(gate.read());
                vcpu.run(&stop);
            };
            let name = format!("vcpu{index}");
            workers.push(Worker::spawn(threads, ThreadKind::Vcpu, &name, run)?);
        }
        let stub = match self.debugger.take() {
            Some(debugger) => Some(debugger.server.start(
                debugger.session,
                debugger.events,
                Arc::clone(&self.ports),
                Arc::clone(ending),
                threads,
            )?),
            None => None,
        };
        threads.await_confined()?;
        threads.confine(ThreadKind::Main)?;
        drop(closed);
        let outcome = life.await_end()?;
        if let Some(stub) = stub {
            stub.finish(&outcome);
        }
        if stop_vcpus(workers, &mut life)? {
            self.machine.flush_serial();
        }
        self.devices.console.drain();
        life.await_drained()?;
        server.iter().for_each(metrics::Server::finish);
        Ok(life.finish(outcome))
    }

    fn has_lost_output(&self) -> bool {
        self.devices.console.has_lost_output()
    }

    fn missing(&self) -> Vec<Missing> {
        self.machine.missing.read(&self.machine.memory)
    }
}

/// Waits until the vCPUs have ended. One may be held up by a device whose host file hangs, so the wait
/// is over after [`GRACE`], and then this is false.
fn stop_vcpus(vcpus: Vec<Worker>, life: &mut Lifecycle<'_>) -> Result<bool, RunError> {
    let start = Instant::now();
    loop {
        vcpus.iter().for_each(Worker::request_stop);
        if vcpus.iter().all(Worker::has_ended) {
            return Ok(true);
        }
        if start.elapsed() > GRACE {
            // The process is about to end, and they with it.
            vcpus.into_iter().for_each(std::mem::forget);
            return Ok(false);
        }
        life.turn(KICK_INTERVAL)?;
    }
}

/// A running guest as signals reach it.
struct Running {
    fd: Arc<VmFd>,
    machine: Machine,
    ports: Arc<[Port<Cpu>]>,
    console: ConsoleHandle,
}

impl Guest for Running {
    fn drained(&self) -> &EventFd {
        self.console.drained()
    }

    fn resize(&self, size: TerminalSize) {
        self.console.resize(Size {
            columns: size.columns,
            rows: size.rows,
        });
    }

    fn report(&self) -> Box<dyn FnOnce() -> String + Send> {
        let (machine, ports) = (self.machine.clone(), Arc::clone(&self.ports));
        let fd = Arc::clone(&self.fd);
        Box::new(move || {
            let states = report::states(&ports);
            let report = report::all(&states, &machine.memory, &machine.image);
            request_tasks(&fd);
            report
        })
    }
}

/// Has the guest's kernel list its tasks.
fn request_tasks(vm: &VmFd) {
    let message = kvm_msi {
        address_lo: MSI_TO_ALL,
        data: REPORT_VECTOR,
        ..Default::default()
    };
    // A guest whose APICs are not set up yet has no tasks either.
    if let Err(error) = vm.signal_msi(message) {
        log::debug!("request for tasks: {error}");
    }
}
