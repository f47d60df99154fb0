//! The `ringlet` command.

use std::ffi::OsString;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Arc;
use std::time::Instant;

use clap::{CommandFactory, Parser};
use ringlet_abi::{MountAccess, ProcessSpec};
use ringlet_vmm::accel::{Accelerator, NoAccelerator};
use ringlet_vmm::cli::{self, Cli, Command, RunArgs};
use ringlet_vmm::doctor::{Diagnosis, DoctorArgs, JailPart};
use ringlet_vmm::environment::{self, EnvFileError};
use ringlet_vmm::host_program::{self, ProgramError};
use ringlet_vmm::images::{self, NoImage};
use ringlet_vmm::jail::{self, Policy};
use ringlet_vmm::lifecycle::{GRACE, Outside, RunError, VirtualMachine};
use ringlet_vmm::metrics::server::Place;
use ringlet_vmm::missing::{self, Missing};
use ringlet_vmm::mounts::{self, MountError, Plan, RootOption};
use ringlet_vmm::outcome::{STATUS_ERROR, STATUS_LOST_OUTPUT, single_line};
use ringlet_vmm::report::{CannotWrite, JsonFile, Report};
use ringlet_vmm::root_view::RootView;
use ringlet_vmm::signals::{self, Signals};
use ringlet_vmm::terminal::{self, RawMode};
use ringlet_vmm::{BuildError, Config, Outcome, Timeline, logger, messages, qemu};

/// Any error of Ringlet itself, as the user sees it.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Image(#[from] NoImage),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
    #[error(transparent)]
    Accelerator(#[from] NoAccelerator),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    File(#[from] CannotWrite),
    #[error("cannot set up signals or the terminal: {0}")]
    Host(#[from] std::io::Error),
}

fn main() {
    let start = Instant::now();
    logger::install();
    signals::ignore_file_size_signal();
    die_with_status_on_panic();
    let cli = Cli::try_parse().unwrap_or_else(|error| report_usage(&error));
    let status = match cli.command {
        Command::Run(args) => run(&args, start),
        Command::Doctor(args) => doctor(args),
        Command::Completions { shell } => {
            let name = Cli::command().get_name().to_owned();
            clap_complete::generate(shell, &mut Cli::command(), name, &mut std::io::stdout());
            0
        }
    };
    // Threads may still be blocked on the standard streams; nothing waits for them.
    exit(status.into());
}

/// Runs a VM, and says and writes down how it ended; gives the exit status.
fn run(args: &RunArgs, start: Instant) -> u8 {
    messages::set_format(args.log_format);
    let policy = policy(args);
    if let Err(error) = policy.begin() {
        return fail(&error.into());
    }
    let timeline = Arc::new(Timeline::new(start));
    let mut accel = None;
    let result = Files::create(args).map_err(Error::from).and_then(|files| {
        let mut config = config(args)?;
        config.jail = policy;
        config.sockets = files.metrics.iter().filter_map(Place::socket).collect();
        Ok((files, config))
    });
    let (mut files, config) = match result {
        Ok(both) => both,
        Err(error) => return fail(&error),
    };
    let ended = run_vm(args, &config, &timeline, (&mut accel, files.metrics.take()));
    let (status, error, outcome, missing) = match ended {
        Ok(ended) => {
            let Ended {
                outcome, missing, ..
            } = ended;
            let message = outcome.message(&config);
            let status = match outcome.status() {
                0 if ended.has_lost_output => STATUS_LOST_OUTPUT,
                status => status,
            };
            (status, message, Some(outcome), missing)
        }
        Err(error) => {
            let message = single_line(&error.to_string());
            (STATUS_ERROR, Some(message), None, Vec::new())
        }
    };
    if let Some(message) = &error {
        messages::say(message);
    }
    if outcome.as_ref().is_some_and(Outcome::is_failure_of_program)
        && let Some(line) = missing::describe(&missing)
    {
        messages::note(&line);
    }
    let report = || {
        let ended = (status, error.clone());
        let timeline = (&*timeline, start);
        Report::new(outcome.as_ref(), ended, timeline, accel, &missing)
    };
    let written = files.write(report, &missing);
    let status = match written {
        Ok(()) => status,
        Err(error) => fail(&error.into()),
    };
    // Nobody may read them any more, and who ends the VM does not wait for that.
    let is_forced = outcome.as_ref().is_some_and(Outcome::is_forced);
    messages::flush(is_forced.then_some(GRACE));
    status
}

/// How far this process is confined; says so if it is not.
fn policy(args: &RunArgs) -> Policy {
    match (args.no_jail, args.jail) {
        (false, cli::JailMode::Auto) => Policy::Auto,
        (false, cli::JailMode::Strict) => Policy::Strict,
        (true, _) => {
            messages::note(
                "--no-jail: a guest that takes ringlet over can do what you can: read and write your \
                 files, use the network, and start programs",
            );
            Policy::Off
        }
    }
}

/// How a VM ended.
struct Ended {
    outcome: Outcome,
    missing: Vec<Missing>,
    /// A program that was told so would have failed.
    has_lost_output: bool,
}

/// What is written down when the VM has ended.
struct Files {
    report: Option<JsonFile>,
    missing: Option<JsonFile>,
    metrics: Option<Place>,
}

impl Files {
    fn create(args: &RunArgs) -> Result<Self, CannotWrite> {
        let create = |option, path: &Option<PathBuf>| {
            let path = path.as_ref();
            path.map(|path| JsonFile::create(option, path)).transpose()
        };
        Ok(Self {
            report: create("--report", &args.report)?,
            missing: create("--missing", &args.missing)?,
            metrics: args
                .metrics
                .as_deref()
                .map(|path| {
                    Place::open(path).map_err(|cause| CannotWrite::new("--metrics", path, cause))
                })
                .transpose()?,
        })
    }

    fn write<'a>(
        self,
        report: impl FnOnce() -> Report<'a>,
        missing: &[Missing],
    ) -> Result<(), CannotWrite> {
        if let Some(file) = self.missing {
            file.write(&missing)?;
        }
        match self.report {
            Some(file) => file.write(&report()),
            None => Ok(()),
        }
    }
}

fn run_vm(
    args: &RunArgs,
    config: &Config,
    timeline: &Arc<Timeline>,
    (accel, metrics): (&mut Option<&'static str>, Option<Place>),
) -> Result<Ended, Error> {
    let signals = Signals::block()?;
    messages::start_writer()?;
    // The process ends right after the VM, and gives its parts back faster than destructors do.
    let mut vm = ManuallyDrop::new(build(args, config, timeline, accel)?);
    if let Some(address) = vm.debugger_address() {
        messages::note(&format!(
            "waiting for a debugger: gdb -ex 'target remote {address}'"
        ));
    }
    let raw = RawMode::enter()?;
    let timeout = args.timeout.filter(|timeout| !timeout.is_zero());
    let outcome = vm.run(Outside {
        signals,
        raw,
        metrics,
        // One that is too far away to be told never comes.
        deadline: timeout.and_then(|timeout| timeline.start().checked_add(timeout)),
    });
    terminal::restore();
    if args.timeline {
        messages::print(&timeline.to_string());
    }
    Ok(Ended {
        outcome: outcome?,
        missing: vm.missing(),
        has_lost_output: vm.has_lost_output(),
    })
}

/// Makes the VM, and says so if it is not what one would expect.
fn build(
    args: &RunArgs,
    config: &Config,
    timeline: &Arc<Timeline>,
    accel: &mut Option<&'static str>,
) -> Result<Box<dyn VirtualMachine>, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let accelerator = Accelerator::choose(args.accel, &path)?;
    *accel = Some(accelerator.name());
    match accelerator {
        Accelerator::Kvm(kvm) => Ok(Box::new(ringlet_vmm::build(config, &kvm, timeline)?)),
        Accelerator::Tcg { qemu, instead_of } => {
            let vm = qemu::build(config, qemu, timeline)?;
            if let Some(cause) = instead_of {
                messages::note(&format!(
                    "{cause}; QEMU emulates the processor, which is slower"
                ));
            }
            Ok(Box::new(vm))
        }
    }
}

/// Says whether `ringlet run` works here; gives the exit status.
fn doctor(args: DoctorArgs) -> u8 {
    let parts = jail::survey().into_iter().map(|finding| {
        let (works, reason) = (finding.works, finding.reason);
        (finding.part.name(), JailPart { works, reason })
    });
    let diagnosis = Diagnosis::make(parts.collect());
    let text = match args.json {
        true => serde_json::to_string(&diagnosis).map(|line| line + "\n"),
        false => Ok(diagnosis.to_string()),
    };
    let printed = text
        .map_err(io::Error::from)
        .and_then(|text| io::stdout().write_all(text.as_bytes()));
    match printed {
        Ok(()) if diagnosis.ok => 0,
        Ok(()) => 1,
        Err(error) => {
            messages::say(&format!("standard output: {error}"));
            1
        }
    }
}

/// Says what is wrong; gives the exit status.
fn fail(error: &Error) -> u8 {
    messages::say(&single_line(&error.to_string()));
    STATUS_ERROR
}

fn config(args: &RunArgs) -> Result<Config, Error> {
    let exe = std::env::current_exe()?;
    let variable = |name: &str| std::env::var_os(name);
    let terminals = terminal::streams();
    let on_terminal = terminals.contains(0) || terminals.contains(1);
    let root = match &args.rootfs {
        Some(rootfs) => RootOption::parse(rootfs),
        None => RootOption::parse(images::ROOTFS.find(None, variable, &exe)?.as_os_str()),
    };
    let plan = mounts::plan(&root, &args.volumes, &args.tmpfs, args.disks.len())?;
    let host = host_program(args, &root, &plan)?;
    let mut env = Vec::new();
    for file in &args.env_file {
        env.append(&mut environment::read_file(file)?);
    }
    env.extend_from_slice(&args.env);
    let variables: Vec<_> = std::env::vars_os().collect();
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let mut command = args.command.clone();
    let mut directory = args.workdir.clone();
    if let Some(host) = &host {
        command[0] = host.path.clone().into();
        directory = directory.or_else(|| host.directory.clone());
    }
    Ok(Config {
        cpus: args.cpus,
        memory: args.mem,
        disks: args.disks.iter().cloned().chain(plan.disks).collect(),
        shares: plan.shares,
        kernel: images::KERNEL.find(args.kernel.as_deref(), variable, &exe)?,
        rootfs: root.path,
        is_rootfs_archive: plan.is_root_archive,
        layer: host
            .as_ref()
            .map(|host| host.layer.clone())
            .unwrap_or_default(),
        mode: cli::value_name(&args.mode),
        kernel_log: cli::value_name(&args.kernel_log),
        append: args.append.clone(),
        gdb: args.gdb.clone(),
        gdb_insecure: args.gdb_insecure,
        jail: Policy::Auto,
        sockets: Vec::new(),
        process: ProcessSpec {
            args: command.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
            env: environment::environment(&env, on_terminal, &variables),
            terminals,
            size: terminal::size(),
            working_directory: directory.as_deref().map(bytes).unwrap_or_default(),
            user: args.user,
            host_name: args.hostname.clone().unwrap_or_default().into_bytes(),
            read_only_root: args.read_only,
            mounts: plan.mounts,
        },
    })
}

/// A program of the host that is to run in the guest.
struct HostProgram {
    path: PathBuf,
    layer: Vec<u8>,
    /// Where the guest has the working directory.
    directory: Option<PathBuf>,
}

/// The program, if it is one of the host, with what it needs.
fn host_program(
    args: &RunArgs,
    root: &RootOption,
    plan: &Plan,
) -> Result<Option<HostProgram>, Error> {
    let view = || match plan.is_root_archive {
        true => RootView::open_archive(&root.path),
        false => Ok(RootView::directory(&root.path)),
    };
    // What is in an image is not looked at: there a program is the image's.
    if !plan.is_root_archive && !root.path.is_dir() {
        return Ok(None);
    }
    let found = args.command.first().map(OsString::as_os_str);
    let Some(path) = found.and_then(|program| host_program::find(program, view)) else {
        return Ok(None);
    };
    let here = std::env::current_dir()?;
    let is_mounted = |path: &Path| plan.guest_path(path).is_some_and(|guest| guest == path);
    let layer = host_program::layer(&path, &view()?, &is_mounted)?;
    // An archive's root is in guest memory, too.
    let can_be_laid_over = plan
        .root_access()
        .is_none_or(|access| access == MountAccess::Overlay);
    if !can_be_laid_over {
        let (program, root) = (path, root.path.clone());
        return Err(ProgramError::FixedRoot { program, root }.into());
    }
    Ok(Some(HostProgram {
        path,
        layer,
        directory: plan.guest_path(&here),
    }))
}

/// Help and version go to stdout; an error is one line.
fn report_usage(error: &clap::Error) -> ! {
    if error.use_stderr() {
        let subcommand = std::env::args_os().nth(1);
        messages::say(&cli::one_line(error, subcommand.as_deref()));
        exit(STATUS_ERROR.into());
    }
    let _ = error.print();
    exit(0);
}

/// A bug must not leave the terminal raw, nor look like the program's own end; and Rust's library panics
/// where a thread cannot get what it needs.
fn die_with_status_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        terminal::restore();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed").to_owned();
        let what = info.payload_as_str().unwrap_or("no reason given");
        let place = info
            .location()
            .map_or(String::new(), |at| format!(", at {at}"));
        let line = format!("ringlet: cannot go on: {what} (thread '{thread}'{place})");
        // Not through the queue of messages, which may be what broke.
        terminal::write_if_ready(format!("{}\n", single_line(&line)).as_bytes());
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            report(info);
        }
        // SAFETY: _exit has no memory arguments. Destructors may hold what the panic broke.
        unsafe { libc::_exit(STATUS_ERROR.into()) };
    }));
}
