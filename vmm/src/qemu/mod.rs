//! A guest under QEMU's translator (TCG), for hosts without KVM: the same kernel, image, disks and
//! program, and seen from outside the same `ringlet run`.
//!
//! Ringlet checks everything as for KVM, starts QEMU ([`command`]), copies the standard streams
//! ([`pump`]) and listens to the serial port ([`serial`]). QEMU gets files as descriptors that are
//! open, checked and locked already. It never outlives Ringlet ([`process`]).

mod command;
mod initrd;
mod process;
mod pump;
mod serial;

use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use event_manager::EventManager;
use ringlet_abi::TerminalSize;
use ringlet_devices::Worker;
use ringlet_devices::block::Disk;
use vmm_sys_util::eventfd::EventFd;

use crate::boot;
use crate::builder::{self, BuildError};
use crate::config::Config;
use crate::debug::Server;
use crate::lifecycle::{Guest, Lifecycle, RunError, VirtualMachine};
use crate::memory;
use crate::outcome::{Ending, Outcome};
use crate::signals::Signals;
use crate::terminal::RawMode;
use crate::timeline::{Stage, Timeline};
use command::Launch;
use process::Process;
use pump::Drained;

/// Virtual CPUs that the machine type has at most.
const MAX_CPUS: usize = 288;
/// Its virtio-mmio devices on the one I/O APIC, less console and entropy.
const MAX_DISKS: usize = 6;

/// A guest that QEMU is about to run.
pub struct QemuVm {
    qemu: PathBuf,
    launch: Launch,
    /// Our ends of the standard streams' ports: input, output, error.
    ports: [UnixStream; 3],
    serial: Option<PipeReader>,
    /// Our end of the serial port that asks for reports.
    requests: UnixStream,
    timeline: Arc<Timeline>,
    server: Option<Server>,
    /// The locks.
    _disks: Vec<Disk>,
}

/// Prepares the guest that `config` describes for QEMU, whose command is `qemu`.
///
/// # Errors
///
/// [`BuildError`], as for KVM.
pub fn build(
    config: &Config,
    qemu: PathBuf,
    timeline: &Arc<Timeline>,
) -> Result<QemuVm, BuildError> {
    let disks = builder::open_disks(config, MAX_DISKS)?;
    let server = config.gdb.as_ref().map(Server::bind).transpose()?;
    if config.cpus as usize > MAX_CPUS {
        return Err(BuildError::TooManyCpus {
            wanted: config.cpus,
            max: MAX_CPUS,
            vmm: "QEMU's microvm",
        });
    }
    let initrd = check_images(config)?;

    let mut launch = Launch::new(config, initrd);
    let serial = launch.add_serial_port()?;
    let requests = launch.add_request_port()?;
    let ports = launch.add_console()?;
    launch.add_entropy();
    for disk in &disks {
        launch.add_disk(disk)?;
    }
    if let Some(server) = &server {
        launch.add_debugger(server.as_fd())?;
    }
    Ok(QemuVm {
        qemu,
        launch,
        ports,
        serial: Some(serial),
        requests,
        timeline: Arc::clone(timeline),
        server,
        _disks: disks,
    })
}

/// Checks size of memory, kernel and root file system image, by loading them as for KVM: QEMU's own
/// messages do not say what to do. Gives what QEMU is to load beside the kernel.
fn check_images(config: &Config) -> Result<File, BuildError> {
    let memory = memory::map(config.memory)?;
    let kernel = builder::load_kernel(config, &memory)?;
    let process = config
        .process
        .encode()
        .map_err(|error| BuildError::Boot(error.into()))?;
    let named = |cause| builder::name_rootfs(config, cause);
    let (image, size) = boot::open_image(&config.rootfs).map_err(named)?;
    boot::place_modules(config, &kernel, size, process.len() as u64).map_err(named)?;
    Ok(initrd::make(&image, size, &process)?)
}

impl VirtualMachine for QemuVm {
    fn debugger_address(&self) -> Option<String> {
        self.server.as_ref().map(Server::address)
    }

    fn run(&mut self, signals: Signals, raw: Option<RawMode>) -> Result<Outcome, RunError> {
        let ending = Arc::new(Ending::new()?);
        let mut events = EventManager::new()?;
        let process = Arc::new(self.launch.start(&self.qemu)?);
        self.timeline.reach(Stage::VmCreated);

        let drained = Arc::new(Drained::new()?);
        let guest = Running {
            requests: self.requests.try_clone()?,
            process: Arc::clone(&process),
            drained: Arc::clone(&drained),
        };
        let mut life = Lifecycle::start(&mut events, guest, &ending, signals, raw);
        if let Some(port) = self.serial.take() {
            let mut listener = serial::Listener::new(&ending, &self.timeline);
            let process = Arc::clone(&process);
            let ending = Arc::clone(&ending);
            // No worker: a write to standard error that blocks is not waited for.
            let stream = drained.stream();
            std::thread::Builder::new()
                .name("serial".to_owned())
                .spawn(move || {
                    listener.listen(port);
                    ending.end(Outcome::Crash(process.describe_end()));
                    drop(stream);
                })?;
        }
        let workers = self.pump(&drained)?;
        drained.seal();

        let outcome = life.await_end()?;
        // All that the program wrote has left QEMU by then, which would take a while to end.
        process.kill();
        // With that the socket's file goes.
        self.server = None;
        if !matches!(outcome, Outcome::Signal(_)) {
            life.await_drained()?;
        }
        drop(workers);
        Ok(life.finish(outcome))
    }
}

impl QemuVm {
    /// Starts to copy the standard streams.
    fn pump(&self, drained: &Arc<Drained>) -> io::Result<Vec<Worker>> {
        let [input, output, error] = &self.ports;
        let port = input.try_clone()?;
        let stdin = own(io::stdin())?;
        let mut workers = vec![Worker::spawn("stdin", move |stop| {
            pump::feed(&stdin, &port, &stop);
        })?];
        for (name, port, stream) in [
            ("stdout", output, own(io::stdout())?),
            ("stderr", error, own(io::stderr())?),
        ] {
            let port = port.try_clone()?;
            let guard = drained.stream();
            workers.push(Worker::spawn(name, move |stop| {
                pump::drain(&port, &stream, &stop);
                drop(guard);
            })?);
        }
        Ok(workers)
    }
}

fn own(stream: impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

/// A running guest as signals reach it.
struct Running {
    requests: UnixStream,
    process: Arc<Process>,
    drained: Arc<Drained>,
}

impl Guest for Running {
    fn drained(&self) -> &EventFd {
        self.drained.event()
    }

    /// The ports of QEMU have no size: the program keeps the one that it started with.
    fn resize(&self, _size: TerminalSize) {}

    /// The CPUs are QEMU's: the kernel tells what they do, with its tasks.
    fn report(&self) -> String {
        "ringlet: the guest's kernel is asked what its CPUs do; if it does not answer, use --gdb\n"
            .to_owned()
    }

    fn request_tasks(&self) {
        // Requests that were not taken are enough.
        let _ = (&self.requests).write(b"t");
    }

    fn pause(&self) {
        self.process.signal(libc::SIGSTOP);
    }

    fn resume(&self) {
        self.process.signal(libc::SIGCONT);
    }
}
