//! The command line: what it accepts, and what it makes of it.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ringlet_abi::User;
use ringlet_devices::block::{Access, Limits};

use crate::config::DiskConfig;
use crate::debug::Address;
use crate::doctor::DoctorArgs;
use crate::environment::EnvArg;
use crate::messages::Format;
use crate::mounts::{Tmpfs, Volume};
use crate::sizes::parse_size;

/// Ringlet runs an unmodified Linux program in a microVM with a guest kernel of its own.
#[derive(Debug, Parser)]
#[command(name = "ringlet", version, propagate_version = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program in a new microVM
    Run(Box<RunArgs>),
    /// Say whether 'ringlet run' works on this machine, and if not, what to do
    Doctor(DoctorArgs),
    /// Print shell completions
    Completions {
        /// bash, zsh or fish
        #[arg(value_parser = parse_shell)]
        shell: Shell,
    },
}

const RUN_AFTER_HELP: &str = "\
Exit status:
  the program's own; 128+N if signal N ended it (or ringlet); 127 if PROGRAM is not in the
  root file system; 126 if it cannot be executed; 124 if the time of --timeout was over; 125 for
  any error of ringlet itself

Timeline (--timeline, to stderr, one line for each stage that was reached):
  timeline: MILLISECONDS ms STAGE
  with STAGE one of: VM created, kernel entered, kernel ready, program entered, program exited

Signals:
  SIGINT, SIGTERM and SIGHUP end the VM; SIGQUIT (Ctrl-\\) prints what each virtual CPU is
  doing, with the kernel's backtrace, and the kernel's tasks; the VM goes on

Environment:
  RINGLET_KERNEL, RINGLET_ROOTFS  the images, where --kernel and --rootfs are not given
  RINGLET_LOG                     ringlet's own log: off, error, warn (default), info, debug, trace

Examples:
  ringlet run -- /bin/echo hello
  ringlet run --disk image.raw,ro -- uring-sha256 /dev/vda
  tar c . | ringlet run --mem 1G -- sha256sum
  ringlet run ./my-program
  ringlet run --rootfs / -v \"$PWD\" -w \"$PWD\" -- make test";

/// Arguments of `ringlet run`.
#[derive(Args, Debug)]
#[command(after_help = RUN_AFTER_HELP, override_usage = "ringlet run [OPTIONS] -- PROGRAM [ARG]...")]
pub struct RunArgs {
    /// Number of virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_cpus)]
    pub cpus: u32,

    /// Guest memory: bytes, or with a suffix K, M, G or T (powers of 1024)
    #[arg(short = 'm', long, visible_alias = "memory", value_name = "SIZE", default_value = "512M", value_parser = parse_size)]
    pub mem: u64,

    /// Attach a raw disk image or block device; with ',ro' the guest cannot write it, with ',iops=N'
    /// and ',bps=SIZE' it can ask for as many requests and bytes a second, with bursts of a second's
    /// worth. May be repeated: /dev/vda, /dev/vdb ...
    #[arg(long = "disk", value_name = "FILE[,ro][,iops=N][,bps=SIZE]", value_parser = OsStringValueParser::new().try_map(parse_disk))]
    pub disks: Vec<DiskConfig>,

    /// Mount a directory, file or EROFS image of the host; at its own path without GUEST. OPTIONS are rw
    /// (the default; ro for an image), ro or overlay (changes stay in guest memory), and cache=auto, none
    /// or always (this version's kernel mounts neither overlays nor images: status 125). May be repeated
    #[arg(short = 'v', long = "volume", value_name = "HOST[:GUEST][:OPTIONS]", value_parser = OsStringValueParser::new().try_map(|text| Volume::parse(&text)))]
    pub volumes: Vec<Volume>,

    /// Mount an empty file system in guest memory. May be repeated
    #[arg(long, value_name = "PATH[:size=N]", value_parser = OsStringValueParser::new().try_map(|text| Tmpfs::parse(&text)))]
    pub tmpfs: Vec<Tmpfs>,

    /// Start in this directory of the guest; it is made where it is missing
    #[arg(short = 'w', long, value_name = "DIR", value_parser = OsStringValueParser::new().try_map(parse_directory))]
    pub workdir: Option<PathBuf>,

    /// Run the program as this user and group
    #[arg(short = 'u', long, value_name = "UID[:GID]", default_value = "0", hide_default_value = true, value_parser = parse_user)]
    pub user: User,

    /// The guest's host name
    #[arg(long, value_name = "NAME", value_parser = parse_host_name)]
    pub hostname: Option<String>,

    /// Set an environment variable of the program, or without '=V' pass the host's on; 'K*' passes all on
    /// whose names start with K. PATH, HOME and, on a terminal, TERM have defaults
    #[arg(short = 'e', long = "env", value_name = "K=V", value_parser = OsStringValueParser::new().try_map(|text| EnvArg::parse(&text)))]
    pub env: Vec<EnvArg>,

    /// Set variables from the lines of a file, as --env takes them; before --env
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,

    /// Root file system: a directory, an EROFS image or an uncompressed cpio archive (newc). Changes
    /// stay in guest memory, unless OPTIONS say rw (a directory is changed) or ro; cache=auto, none or
    /// always for a directory. This version's kernel takes archives only: status 125 for others
    #[arg(long, value_name = "DIR|IMAGE[:OPTIONS]")]
    pub rootfs: Option<OsString>,

    /// Nothing in the root file system can be changed; /tmp, /var/tmp and /run are in guest memory
    #[arg(long)]
    pub read_only: bool,

    /// Guest kernel: an x86-64 ELF file with a PVH note
    #[arg(long, value_name = "ELF")]
    pub kernel: Option<PathBuf>,

    /// What the virtual CPUs run on
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub accel: Accel,

    /// How kernel and program share the processor
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,

    /// What the guest kernel logs to stderr
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = KernelLog::Error)]
    pub kernel_log: KernelLog,

    /// Add to the guest kernel's command line, such as 'watchdog_thresh=60'
    #[arg(long, value_name = "PARAMETERS", default_value = "", hide_default_value = true, value_parser = parse_append)]
    pub append: String,

    /// Print to stderr when each stage was reached, in milliseconds since ringlet was started
    #[arg(long)]
    pub timeline: bool,

    /// Wait for GDB before the first instruction: at a TCP port (of 127.0.0.1 without HOST) or a Unix
    /// socket. Where KVM emulates ring 0, without hardware breakpoints and watchpoints
    #[arg(long, value_name = "[HOST:]PORT|PATH", value_parser = Address::parse)]
    pub gdb: Option<Address>,

    /// Let GDB connect from other machines, too, where --gdb names a host that is not loopback: anyone
    /// who can connect can do anything with the VM
    #[arg(long, requires = "gdb")]
    pub gdb_insecure: bool,

    /// Confine ringlet itself to what the VM needs: as far as the host allows it, or entirely or not at
    /// all
    #[arg(long, value_enum, value_name = "MODE", default_value_t = JailMode::Auto)]
    pub jail: JailMode,

    /// Do not confine ringlet: a guest that takes it over can do what you can
    #[arg(long, conflicts_with = "jail")]
    pub no_jail: bool,

    /// End the VM after so long, with status 124: seconds, or with a suffix ms, s, m, h or d; 0 is
    /// never
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,

    /// Write a report on the run to this file, as one object of JSON: status, timeline, mode, times,
    /// memory, and what the program asked for in vain
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Write to this file, as JSON, which system calls, ioctls and io_uring opcodes the program asked
    /// for that the guest kernel does not have
    #[arg(long, value_name = "FILE")]
    pub missing: Option<PathBuf>,

    /// Count exits, requests, latencies and memory, in Prometheus' text format: in a file, written every
    /// second, or for who connects to a Unix socket ('unix:PATH' or 'PATH.sock')
    #[arg(long, value_name = "FILE|SOCKET")]
    pub metrics: Option<PathBuf>,

    /// How ringlet's own messages and the guest kernel's log are written to stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: Format,

    /// The program, looked up in the root file system, and its arguments. One with a slash that is not
    /// there is the host's: it is laid over the root file system in guest memory, with the libraries
    /// that it needs
    #[arg(
        required = true,
        value_names = ["PROGRAM", "ARG"],
        num_args = 1..,
        trailing_var_arg = true,
        value_parser = OsStringValueParser::new()
    )]
    pub command: Vec<OsString>,
}

/// `--accel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM, or QEMU's translator where there is none
    Auto,
    /// KVM
    Kvm,
    /// QEMU's translator (TCG): slower, needs no KVM
    Tcg,
}

/// `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// What suits the host
    Auto,
    /// The kernel at CPL 0: for hosts that do not emulate it
    Ring0,
    /// Both at CPL 3 in one protection domain
    Shared,
}

/// `--jail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum JailMode {
    /// What the host allows ('ringlet doctor' says what that is)
    Auto,
    /// Everything, or an error
    Strict,
}

/// `--kernel-log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum KernelLog {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The name of an option's value.
pub fn value_name(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// A time as in `10`, `0.5s`, `1.5m`, `2h`, `1d` or `250ms`.
fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const EXAMPLE: &str = "give a time as in 10, 0.5s, 250ms, 2m, 1h or 1d";
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let unit = match suffix {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(EXAMPLE),
    };
    let seconds = number.parse::<f64>().map_err(|_| EXAMPLE)? * unit;
    Duration::try_from_secs_f64(seconds).map_err(|_| EXAMPLE)
}

fn parse_cpus(text: &str) -> Result<u32, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a number from 1 on"),
        Ok(count) => Ok(count),
    }
}

/// Parameters of the kernel: words of printable ASCII characters, none of them `--`.
fn parse_append(text: &str) -> Result<String, &'static str> {
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let is_word = |word: &&str| *word != "--" && word.bytes().all(|byte| byte.is_ascii_graphic());
    match words.iter().all(is_word) {
        true => Ok(words.join(" ")),
        false => Err("give words as in 'watchdog_thresh=60', no '--'"),
    }
}

/// A file, and behind it options in any order. A comma that starts none is the file's.
fn parse_disk(text: OsString) -> Result<DiskConfig, String> {
    let mut path = text.as_bytes();
    let mut access = Access::ReadWrite;
    let mut limits = Limits::default();
    while let Some((rest, option)) = last_option(path) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "ro" if value.is_empty() => access = Access::ReadOnly,
            "iops" => limits.iops = Some(at_least_one(name, value.parse().ok())?),
            "bps" => limits.bps = Some(at_least_one(name, parse_size(value).ok())?),
            _ => break,
        }
        path = rest;
    }
    match path {
        [] => Err("name a file".to_owned()),
        path => Ok(DiskConfig {
            path: PathBuf::from(OsStr::from_bytes(path)),
            access,
            limits,
        }),
    }
}

/// `UID[:GID]`.
fn parse_user(text: &str) -> Result<User, &'static str> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    // The last number is no ID (chown(2)).
    let id = |text: &str| text.parse().ok().filter(|id| *id != u32::MAX);
    match (id(uid), id(gid)) {
        (Some(uid), Some(gid)) => Ok(User { uid, gid }),
        _ => Err("give numbers, as in 1000 or 1000:1000"),
    }
}

/// A name as sethostname(2) takes it, of the characters that names of hosts have.
fn parse_host_name(text: &str) -> Result<String, &'static str> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match text.len() {
        1..=64 if text.bytes().all(is_name) => Ok(text.to_owned()),
        _ => Err("give up to 64 letters, digits, '-', '.' and '_'"),
    }
}

fn parse_directory(text: OsString) -> Result<PathBuf, &'static str> {
    match text.as_bytes().starts_with(b"/") {
        true => Ok(text.into()),
        false => Err("give an absolute path"),
    }
}

/// What is before the last comma of `text` and what behind it, if that is text.
fn last_option(text: &[u8]) -> Option<(&[u8], &str)> {
    let comma = text.iter().rposition(|byte| *byte == b',')?;
    let option = str::from_utf8(&text[comma + 1..]).ok()?;
    Some((&text[..comma], option))
}

fn at_least_one(name: &str, number: Option<u64>) -> Result<NonZeroU64, String> {
    number
        .and_then(NonZeroU64::new)
        .ok_or_else(|| format!("{name}= takes a number from 1 on"))
}

fn parse_shell(name: &str) -> Result<Shell, &'static str> {
    match name {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("there are completions for bash, zsh and fish"),
    }
}

/// A command-line error, of the subcommand if there is one, as one line that says what to do.
pub fn one_line(error: &clap::Error, subcommand: Option<&OsStr>) -> String {
    let help = match subcommand {
        Some(name) if name == "completions" => "ringlet completions --help",
        _ => "ringlet run --help",
    };
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command is given; see 'ringlet --help'".to_owned();
    }
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let line: Vec<_> = first.split_whitespace().collect();
    let line = line.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line}; see '{help}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<RunArgs, String> {
        let line = ["ringlet", "run"].iter().chain(args);
        match Cli::try_parse_from(line) {
            Ok(Cli {
                command: Command::Run(args),
            }) => Ok(*args),
            Ok(_) => Err("another command".to_owned()),
            Err(error) => Err(one_line(&error, Some(OsStr::new("run")))),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_program_keeps_its_arguments() {
        let args = run(&["--cpus", "2", "--", "ls", "--mem", "x", "--", "-l"]).unwrap();
        assert_eq!(args.cpus, 2);
        assert_eq!(args.command, ["ls", "--mem", "x", "--", "-l"]);
        assert_eq!(run(&["ls", "-l"]).unwrap().command, ["ls", "-l"]);
    }

    #[test]
    fn errors_are_one_line() {
        for (args, says) in [
            (&["--cpus", "0", "--", "x"][..], "--cpus"),
            (&["--mem", "5x", "--", "x"], "512M"),
            (&["--bogus", "--", "x"], "--bogus"),
            (&["--disk", ",ro", "--", "x"], "--disk"),
            (&["--env", "=v", "--", "x"], "K=V"),
            (&["-v", "a:b", "--", "x"], "HOST"),
            (&["--tmpfs", "t", "--", "x"], "absolute"),
            (&["-w", "w", "--", "x"], "absolute"),
            (&["-u", "root", "--", "x"], "numbers"),
            (&["--hostname", "a b", "--", "x"], "letters"),
            (&["--append", "a -- b", "--", "x"], "--append"),
            (&["--append", "é", "--", "x"], "--append"),
            (&["--gdb", "70000", "--", "x"], "HOST:PORT"),
            (&[], "PROGRAM"),
        ] {
            let error = run(args).unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn parameters_of_the_kernel_are_words() {
        assert_eq!(
            run(&["--append", " a=1\tb\n", "x"]).unwrap().append,
            "a=1 b"
        );
        assert_eq!(run(&["x"]).unwrap().append, "");
    }

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in [
            ("10", 10_000),
            ("0.5s", 500),
            ("250ms", 250),
            ("1.5m", 90_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds))
            );
        }
        for text in [
            "",
            "s",
            "-1",
            "1x",
            "1e3",
            "1.2.3",
            "inf",
            "99999999999999999999d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn disks_may_have_any_name() {
        use std::os::unix::ffi::OsStringExt;
        let disk = |text: &[u8]| parse_disk(OsString::from_vec(text.to_vec())).unwrap();
        assert_eq!(disk(b"a,b").access, Access::ReadWrite);
        assert_eq!(disk(b"a,b,ro").access, Access::ReadOnly);
        assert_eq!(disk(b"\xff,ro").path.as_os_str().as_bytes(), b"\xff");
        assert_eq!(disk(b"a,ro,b").path.as_os_str(), "a,ro,b");
        assert_eq!(disk(b"a,ro=1").path.as_os_str(), "a,ro=1");
    }

    #[test]
    fn disks_can_be_limited() {
        let disk = |text: &str| parse_disk(text.into());
        let all = disk("a,bps=2M,ro,iops=100").unwrap();
        assert_eq!(
            (all.path.as_os_str(), all.access),
            (OsStr::new("a"), Access::ReadOnly)
        );
        assert_eq!(all.limits.iops.map(NonZeroU64::get), Some(100));
        assert_eq!(all.limits.bps.map(NonZeroU64::get), Some(2 << 20));
        assert_eq!(disk("a").unwrap().limits, Limits::default());
        for text in [
            "a,iops=0", "a,iops=", "a,iops=x", "a,bps=0", "a,bps=1Q", ",iops=1",
        ] {
            assert!(disk(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users_are_numbers() {
        assert_eq!(parse_user("7"), Ok(User { uid: 7, gid: 0 }));
        assert_eq!(parse_user("7:8"), Ok(User { uid: 7, gid: 8 }));
        for bad in ["", "root", "7:", ":8", "-1", "4294967295", "1:2:3"] {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_are_names() {
        assert!(parse_host_name("a-b.c").is_ok());
        for bad in ["", "a b", &"x".repeat(65), "\u{e9}"] {
            assert!(parse_host_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_are_those_of_podman() {
        let args = run(&[
            "-v",
            "/a:/b:ro",
            "--volume",
            "/c",
            "--tmpfs",
            "/t:size=1M",
            "-w",
            "/w",
            "-u",
            "1:2",
            "--hostname",
            "h",
            "-e",
            "A=1",
            "--env",
            "B",
            "-m",
            "1G",
            "--read-only",
            "x",
        ])
        .unwrap();
        assert_eq!(args.volumes.len(), 2);
        assert_eq!(args.tmpfs.len(), 1);
        assert_eq!(args.workdir, Some("/w".into()));
        assert_eq!(args.user, User { uid: 1, gid: 2 });
        assert_eq!(args.env.len(), 2);
        assert_eq!(args.mem, 1 << 30);
        assert!(args.read_only);
        assert_eq!(run(&["--memory", "2G", "x"]).unwrap().mem, 2 << 30);
    }
}
