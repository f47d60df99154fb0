//! A guest under QEMU's translator (TCG), for hosts without KVM: the same kernel, image, disks and
//! program, and seen from outside the same `ringlet run`.
//!
//! Ringlet checks everything as for KVM, starts QEMU ([`command`]), copies the standard streams
//! ([`pump`]) and listens to the serial port ([`serial`]). QEMU gets files as descriptors that are
//! open, checked and locked already. It never outlives Ringlet ([`process`]).

mod command;
mod initrd;
mod inspect;
mod monitor;
mod process;
mod pump;
mod registers;
mod serial;

use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use event_manager::EventManager;
use ringlet_abi::TerminalSize;
use ringlet_abi::block::{FEATURE_FBIG, FEATURE_NOSPC};
use ringlet_abi::console::{INPUT_FAILED, SIZE_MESSAGE};
use ringlet_devices::block::{Block, EngineKind};
use ringlet_devices::fs::{DescriptorLimits, Fs};
use ringlet_devices::{Memory, Stop, ThreadKind, Threads, VhostUser, Worker};
use rustix::process::Signal;
use vmm_sys_util::eventfd::EventFd;

use crate::boot;
use crate::builder::{self, BuildError};
use crate::config::Config;
use crate::debug::{Image, Server};
use crate::jail::ProgramJail;
use crate::kernel_image::LoadedKernel;
use crate::lifecycle::{Guest, Lifecycle, Outside, RunError, VirtualMachine};
use crate::memory;
use crate::messages;
use crate::metrics::{Metrics, server as metrics};
use crate::missing::{Missing, MissingTable};
use crate::mounts;
use crate::outcome::{Ending, Outcome};
use crate::timeline::{Stage, Timeline};
use command::Launch;
use inspect::Inspector;
use monitor::Monitor;
use process::Process;
use pump::Drained;

/// A guest that QEMU is about to run.
pub struct QemuVm {
    qemu: PathBuf,
    launch: Launch,
    jail: ProgramJail,
    ending: Arc<Ending>,
    /// Our ends of the standard streams' ports: input, output, error.
    ports: [UnixStream; 3],
    /// Where the terminal's size is told.
    sizes: UnixStream,
    serial: Option<PipeReader>,
    /// Our end of the serial port that asks for reports.
    requests: UnixStream,
    timeline: Arc<Timeline>,
    server: Option<Server>,
    /// The monitor's events.
    events: Option<Monitor>,
    inspector: Arc<Inspector>,
    missing: Arc<MissingTable>,
    metrics: Arc<Metrics>,
    /// Output was lost that the program believes written.
    has_lost_output: Arc<AtomicBool>,
    threads: Threads,
    /// What serves disks and shares.
    _devices: Vec<Worker>,
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
    let disks = builder::open_disks(config)?;
    let shares = builder::open_shares(config)?;
    let server = builder::bind_debugger(config)?;
    builder::check_cpus_of_kernel(config.cpus)?;
    let (initrd, kernel) = check_images(config)?;

    let (memory, ram) = memory::map_shared(config.memory)?;
    let mut launch = Launch::new(config, initrd, ram);
    let serial = launch.add_serial_port()?;
    let requests = launch.add_request_port()?;
    let [input, output, error, sizes] = launch.add_console()?;
    // What the guest does not take is not waited for.
    sizes.set_nonblocking(true)?;
    launch.add_entropy();
    let ending = Arc::new(Ending::new()?);
    let threads = config.jail.close(&config.needs(), &ending)?;
    let metrics = Arc::<Metrics>::default();
    metrics.set_guest_memory(config.memory);
    let mut workers = Vec::new();
    for (index, (disk, disk_config)) in disks.into_iter().zip(&config.disks).enumerate() {
        let (ours, theirs) = UnixStream::pair()?;
        launch.add_disk(theirs);
        let name = builder::disk_name(index);
        let engine = (EngineKind::Auto, disk_config.limits);
        let block = Block::new(&name, disk, engine, &threads)?;
        metrics.add_device(&name, block.statistics());
        // QEMU passes on the features that it knows, and not these.
        let implied = 1 << FEATURE_NOSPC | 1 << FEATURE_FBIG;
        let served = VhostUser::serve(block, implied, ours, &threads);
        workers.push(served?);
    }
    let limits = DescriptorLimits::of_process(shares.len());
    for (index, share) in shares.into_iter().enumerate() {
        let (ours, theirs) = UnixStream::pair()?;
        let tag = mounts::share_tag(index);
        let kind = EngineKind::Auto;
        let fs = Fs::new(&tag, share, config.cpus, limits, kind, &threads)?;
        launch.add_share(theirs, &tag, fs.request_queues());
        workers.push(VhostUser::serve(fs, 0, ours, &threads)?);
    }
    if let Some(server) = &server {
        launch.add_debugger(server.as_fd())?;
    }
    let events = Monitor::new(launch.add_monitor("events")?);
    let commands = Monitor::new(launch.add_monitor("commands")?);
    let inspector = Inspector::new(commands, Memory::new(memory), Image::new(kernel));
    // A link to it may be where the jail has nothing.
    let qemu = qemu.canonicalize()?;
    let jail = config
        .jail
        .for_program(&qemu, std::slice::from_ref(&config.kernel))?;
    Ok(QemuVm {
        qemu,
        launch,
        jail,
        ending,
        ports: [input, output, error],
        sizes,
        serial: Some(serial),
        requests,
        timeline: Arc::clone(timeline),
        server,
        events: Some(events),
        inspector: Arc::new(inspector),
        missing: Arc::default(),
        metrics,
        has_lost_output: Arc::default(),
        threads,
        _devices: workers,
    })
}

/// Checks size of memory, kernel and root file system image, by loading them as for KVM: QEMU's own
/// messages do not say what to do. Gives what QEMU is to load beside the kernel, and that.
fn check_images(config: &Config) -> Result<(File, LoadedKernel), BuildError> {
    let memory = memory::map(config.memory)?;
    let kernel = builder::load_kernel(config, &memory)?;
    let process = config
        .process
        .encode()
        .map_err(|error| BuildError::Boot(error.into()))?;
    let named = |cause| builder::name_rootfs(config, cause);
    let image = boot::open_rootfs(config).map_err(named)?;
    let size = image.as_ref().map_or(0, |(_, size)| *size);
    let sizes = [size, config.layer.len() as u64, process.len() as u64];
    boot::place_modules(config, &kernel, sizes.into_iter()).map_err(named)?;
    let image = image.as_ref().map(|(file, size)| (file, *size));
    Ok((initrd::make(image, &config.layer, &process)?, kernel))
}

impl VirtualMachine for QemuVm {
    fn debugger_address(&self) -> Option<String> {
        self.server.as_ref().map(Server::address)
    }

    fn missing(&self) -> Vec<Missing> {
        self.missing.read(self.inspector.memory())
    }

    fn has_lost_output(&self) -> bool {
        self.has_lost_output.load(Ordering::Acquire)
    }

    fn run(&mut self, mut outside: Outside) -> Result<Outcome, RunError> {
        let place = outside.metrics.take();
        let ending = Arc::clone(&self.ending);
        let mut events = EventManager::new()?;
        let process = Arc::new(self.launch.start(&self.qemu, &self.jail)?);
        self.timeline.reach(Stage::VmCreated);

        let drained = Arc::new(Drained::new()?);
        let guest = Running {
            requests: Arc::new(self.requests.try_clone()?),
            process: Arc::clone(&process),
            drained: Arc::clone(&drained),
            inspector: Arc::clone(&self.inspector),
            sizes: self.sizes.try_clone()?,
        };
        let crash = Arc::new(OnceLock::new());
        if let Some(events) = self.events.take() {
            let (process, inspector) = (Arc::clone(&process), Arc::clone(&self.inspector));
            let crash = Arc::clone(&crash);
            // No worker: it ends with QEMU, and is not waited for.
            self.threads.spawn(ThreadKind::Qemu, "events", move || {
                watch(events, &process, &inspector, &crash);
            })?;
        }
        let mut life = Lifecycle::start(&mut events, guest, &ending, outside)?;
        messages::confine_writer(&self.threads, &ending);
        let server = place
            .map(|place| metrics::Server::start(&self.metrics, place, &self.threads))
            .transpose()?;
        if let Some(port) = self.serial.take() {
            let mut listener = serial::Listener::new(&ending, &self.timeline, &self.missing);
            let process = Arc::clone(&process);
            let ending = Arc::clone(&ending);
            // No worker: a write to standard error that blocks is not waited for.
            let stream = drained.stream();
            self.threads.spawn(ThreadKind::Qemu, "serial", move || {
                listener.listen(port);
                let crash = crash.get().cloned();
                let crash = crash.unwrap_or_else(|| process.describe_end());
                ending.end(Outcome::Crash(crash));
                drop(stream);
            })?;
        }
        let workers = self.pump(&drained)?;
        drained.seal();
        self.threads.await_confined()?;
        self.threads.confine(ThreadKind::Main)?;

        let outcome = life.await_end()?;
        // All that the program wrote has left QEMU by then, which would take a while to end.
        process.kill();
        // With that the socket's file goes.
        self.server = None;
        life.await_drained()?;
        server.iter().for_each(metrics::Server::finish);
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
        let errors = self.sizes.try_clone()?;
        let feed = move |stop: Arc<Stop>| {
            pump::feed(&stdin, &port, &stop, |error| {
                tell_input_error(&errors, error)
            });
        };
        let input = Worker::spawn(&self.threads, ThreadKind::Input, "stdin", feed)?;
        let mut workers = vec![input];
        for (name, port, stream) in [
            ("stdout", output, own(io::stdout())?),
            ("stderr", error, own(io::stderr())?),
        ] {
            let port = port.try_clone()?;
            let lost = Arc::clone(&self.has_lost_output);
            let guard = drained.stream();
            let drain = move |stop: Arc<Stop>| {
                pump::drain(&port, (name, &stream), &stop, || {
                    lost.store(true, Ordering::Release);
                });
                drop(guard);
            };
            let output = Worker::spawn(&self.threads, ThreadKind::Output, name, drain)?;
            workers.push(output);
        }
        Ok(workers)
    }
}

/// Tells the guest that standard input cannot be read any further.
fn tell_input_error(sizes: &UnixStream, error: &io::Error) {
    let errno = error.raw_os_error().unwrap_or(libc::EIO) as u16;
    tell(sizes, INPUT_FAILED, errno);
}

/// Sends a message about the terminal, or about standard input.
fn tell(mut sizes: &UnixStream, columns: u16, rows: u16) {
    let mut message = [0; SIZE_MESSAGE];
    message[..2].copy_from_slice(&columns.to_le_bytes());
    message[2..].copy_from_slice(&rows.to_le_bytes());
    // A socket takes small messages whole or not at all.
    if let Err(error) = sizes.write_all(&message) {
        log::debug!("a message to the guest: {error}");
    }
}

fn own(stream: impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

/// Ends QEMU when the guest has reset itself, and first looks why. The kernel does that, too, when it
/// has said how it ended: that counts more.
fn watch(mut events: Monitor, process: &Process, inspector: &Inspector, crash: &OnceLock<String>) {
    let mut is_shut_down = events.is_shut_down();
    while let Ok(false) = is_shut_down {
        is_shut_down = events.next_event().map(|(name, _)| name == "SHUTDOWN");
    }
    // An error says that QEMU has ended.
    if is_shut_down.is_ok() {
        let report = inspector.triple_fault();
        // It is set once.
        let _ = crash.set(report.unwrap_or_else(|error| error.to_string()));
        process.signal(Signal::KILL);
    }
}

/// A running guest as signals reach it.
struct Running {
    requests: Arc<UnixStream>,
    process: Arc<Process>,
    drained: Arc<Drained>,
    inspector: Arc<Inspector>,
    sizes: UnixStream,
}

impl Guest for Running {
    fn drained(&self) -> &EventFd {
        self.drained.event()
    }

    fn resize(&self, size: TerminalSize) {
        tell(&self.sizes, size.columns, size.rows);
    }

    fn report(&self) -> Box<dyn FnOnce() -> String + Send> {
        let (inspector, requests) = (Arc::clone(&self.inspector), Arc::clone(&self.requests));
        Box::new(move || {
            let report = inspector.report();
            // Requests that were not taken are enough.
            let _ = (&*requests).write(b"t");
            report
        })
    }

    fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    fn resume(&self) {
        self.process.signal(Signal::CONT);
    }
}
