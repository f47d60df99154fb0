//! The `ringlet` command.

use std::mem::ManuallyDrop;
use std::process::exit;
use std::sync::Arc;
use std::time::Instant;

use clap::{CommandFactory, Parser};
use ringlet_abi::ProcessSpec;
use ringlet_vmm::accel::{Accelerator, NoAccelerator};
use ringlet_vmm::cli::{self, Cli, Command, RunArgs};
use ringlet_vmm::images::{self, NoImage};
use ringlet_vmm::lifecycle::{RunError, VirtualMachine};
use ringlet_vmm::outcome::{STATUS_ERROR, single_line};
use ringlet_vmm::signals::Signals;
use ringlet_vmm::terminal::{self, RawMode};
use ringlet_vmm::{BuildError, Config, Timeline, logger, qemu};

/// Any error of Ringlet itself, as the user sees it.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Image(#[from] NoImage),
    #[error(transparent)]
    Accelerator(#[from] NoAccelerator),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot set up signals or the terminal: {0}")]
    Host(#[from] std::io::Error),
}

fn main() {
    let start = Instant::now();
    logger::install();
    die_with_status_on_panic();
    let cli = Cli::try_parse().unwrap_or_else(|error| report_usage(&error));
    let status = match cli.command {
        Command::Run(args) => run(&args, start).unwrap_or_else(|error| {
            say(&single_line(&error.to_string()));
            STATUS_ERROR
        }),
        Command::Completions { shell } => {
            let name = Cli::command().get_name().to_owned();
            clap_complete::generate(shell, &mut Cli::command(), name, &mut std::io::stdout());
            0
        }
    };
    // Threads may still be blocked on the standard streams; nothing waits for them.
    exit(status.into());
}

fn run(args: &RunArgs, start: Instant) -> Result<u8, Error> {
    let timeline = Arc::new(Timeline::new(start));
    let config = config(args)?;
    let signals = Signals::block()?;
    // The process ends right after the VM, and gives its parts back faster than destructors do.
    let mut vm = ManuallyDrop::new(build(args, &config, &timeline)?);
    if let Some(address) = vm.debugger_address() {
        say(&format!(
            "waiting for a debugger: gdb -ex 'target remote {address}'"
        ));
    }
    let raw = RawMode::enter()?;
    let outcome = vm.run(signals, raw);
    terminal::restore();
    if args.timeline {
        terminal::write_stderr(timeline.to_string().as_bytes());
    }
    let outcome = outcome?;
    if let Some(message) = outcome.message(&config) {
        say(&message);
    }
    Ok(outcome.status())
}

/// Makes the VM, and says so if it is not what one would expect.
fn build(
    args: &RunArgs,
    config: &Config,
    timeline: &Arc<Timeline>,
) -> Result<Box<dyn VirtualMachine>, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match Accelerator::choose(args.accel, &path)? {
        Accelerator::Kvm(kvm) => Ok(Box::new(ringlet_vmm::build(config, &kvm, timeline)?)),
        Accelerator::Tcg { qemu, instead_of } => {
            let vm = qemu::build(config, qemu, timeline)?;
            if let Some(cause) = instead_of {
                say(&format!(
                    "{cause}; QEMU emulates the processor, which is slower"
                ));
            }
            Ok(Box::new(vm))
        }
    }
}

fn config(args: &RunArgs) -> Result<Config, Error> {
    let exe = std::env::current_exe()?;
    let variable = |name: &str| std::env::var_os(name);
    let terminals = terminal::streams();
    let on_terminal = terminals.contains(0) || terminals.contains(1);
    Ok(Config {
        cpus: args.cpus,
        memory: args.mem,
        disks: args.disks.clone(),
        kernel: images::KERNEL.find(args.kernel.as_deref(), variable, &exe)?,
        rootfs: images::ROOTFS.find(args.rootfs.as_deref(), variable, &exe)?,
        mode: cli::value_name(&args.mode),
        kernel_log: cli::value_name(&args.kernel_log),
        append: args.append.clone(),
        gdb: args.gdb.clone(),
        process: ProcessSpec {
            args: args
                .command
                .iter()
                .map(|arg| std::os::unix::ffi::OsStrExt::as_bytes(arg.as_os_str()).to_vec())
                .collect(),
            env: cli::environment(&args.env, on_terminal, |name| std::env::var_os(name)),
            terminals,
            size: terminal::size(),
            ..ProcessSpec::default()
        },
    })
}

/// Help and version go to stdout; an error is one line.
fn report_usage(error: &clap::Error) -> ! {
    if error.use_stderr() {
        let subcommand = std::env::args_os().nth(1);
        say(&cli::one_line(error, subcommand.as_deref()));
        exit(STATUS_ERROR.into());
    }
    let _ = error.print();
    exit(0);
}

fn say(message: &str) {
    terminal::write_stderr(format!("ringlet: {message}\n").as_bytes());
}

/// A bug must not leave the terminal raw, nor look like the program's own end.
fn die_with_status_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        terminal::restore();
        report(info);
        // SAFETY: _exit has no memory arguments. Destructors may hold what the panic broke.
        unsafe { libc::_exit(STATUS_ERROR.into()) };
    }));
}
