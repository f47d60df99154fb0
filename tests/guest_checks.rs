//! `syscall-test`, `uring-test`, `thread-test`, `signal-test`, `process-test` and `stress` in the guest, and on
//! the host where that is a Linux 6.18: each of their named checks is a test.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};
use ringlet_tests::{
    Artifacts, Disk, LoopDevice, Output, Ringlet, host_is_the_oracle, machine_options,
};

/// The programs, and options of their own.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("syscall-test", &[]),
    ("uring-test", &[]),
    ("thread-test", &[]),
    ("signal-test", &[]),
    ("process-test", &[]),
    ("stress", &["--seconds", "0.25"]),
];
const DISK_SIZE: usize = 32 << 20;
/// A VM that dies takes the checks after it along; this many deaths are looked behind.
const RESTARTS: usize = 20;

/// What the checks said, by name: nothing, or why they failed.
type Results = HashMap<String, Result<(), String>>;

/// Runs a test program's checks of these names, with options of its own, somewhere.
type Run = fn(&str, &[&str], &[&str]) -> Output;

/// A test program in one place.
struct Suite {
    program: &'static str,
    options: &'static [&'static str],
    names: Vec<String>,
    run: Run,
    results: OnceLock<Results>,
}

fn main() {
    let arguments = Arguments::from_args();
    let mut places: Vec<(&str, Run)> = vec![("guest", in_guest)];
    // Once is enough: the host is the same, whatever machine the guest has.
    if host_is_the_oracle() && machine_options().is_empty() {
        places.push(("host", on_host));
    }
    let mut trials = Vec::new();
    for (place, run) in places {
        for (program, options) in PROGRAMS {
            let suite = Arc::new(Suite {
                program,
                options,
                names: names(program),
                run,
                results: OnceLock::new(),
            });
            trials.extend(suite.names.iter().map(|name| {
                let (suite, key) = (Arc::clone(&suite), name.clone());
                let test = move || suite.result(&key).map_err(Failed::from);
                Trial::test(format!("{place}::{program}::{name}"), test)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// The names of all checks, those of a disk included.
fn names(program: &str) -> Vec<String> {
    let mut command = Command::new(Artifacts::get().program(program));
    command.args(["--list", "--disk", "/none"]);
    let output = Ringlet::command(command).output().expect_success();
    output.out().lines().map(str::to_owned).collect()
}

fn in_guest(program: &str, options: &[&str], names: &[&str]) -> Output {
    let disk = Disk::patterned(DISK_SIZE);
    let option = disk.option(false);
    Ringlet::run(
        ["--disk", &option],
        [program, "--disk", "/dev/vda", "--exact"],
    )
    .args(options)
    .args(names)
    .output()
}

fn on_host(program: &str, options: &[&str], names: &[&str]) -> Output {
    let device = LoopDevice::new(Disk::patterned(DISK_SIZE));
    let mut command = Command::new(Artifacts::get().program(program));
    // Where a tmpfs is, as in the guest.
    command.args(["--dir", "/dev/shm", "--exact", "--disk"]);
    Ringlet::command(command)
        .args([device.path()])
        .args(options)
        .args(names)
        .output()
}

impl Suite {
    fn result(&self, name: &str) -> Result<(), String> {
        let results = self.results.get_or_init(|| self.results());
        results
            .get(name)
            .cloned()
            .unwrap_or_else(|| Err("it was not run, since too much before it died".into()))
    }

    /// Runs all checks, going on behind one that the run does not survive.
    fn results(&self) -> Results {
        let mut results = Results::new();
        for _ in 0..RESTARTS {
            let left: Vec<_> = self
                .names
                .iter()
                .map(String::as_str)
                .filter(|name| !results.contains_key(*name))
                .collect();
            let Some(first) = left.first() else {
                break;
            };
            let output = (self.run)(self.program, self.options, &left);
            results.extend(output.out().lines().filter_map(parse));
            let victim = left.iter().find(|name| !results.contains_key(**name));
            if let Some(name) = victim {
                let why = format!("it ended with {}: {}", output.code(), output.err());
                results.insert((*name).to_owned(), Err(why));
            } else if output.code() != expected_code(&left, &results) {
                let why = format!("{} ended with {}", self.program, output.code());
                results.insert((*first).to_owned(), Err(why));
            }
        }
        results
    }
}

fn expected_code(names: &[&str], results: &Results) -> i32 {
    let failed = |name: &&str| results.get(*name).is_some_and(Result::is_err);
    i32::from(names.iter().any(failed))
}

/// A line `pass NAME` or `fail NAME: why`.
fn parse(line: &str) -> Option<(String, Result<(), String>)> {
    if let Some(name) = line.strip_prefix("pass ") {
        return Some((name.to_owned(), Ok(())));
    }
    let (name, why) = line.strip_prefix("fail ")?.split_once(": ")?;
    Some((name.to_owned(), Err(why.to_owned())))
}
