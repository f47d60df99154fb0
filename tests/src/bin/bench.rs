//! `bench`: runs `uring-bench` on the host and in the guest, turn and turn about, and compares.
//!
//! Prints a table of medians and writes `bench.json`. A ratio above 1 means that the guest is
//! better. What has no counterpart on the host has neither host value nor ratio.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ringlet_tests::{Comparison, Measured, Output, Ringlet, Side, container};

/// Turns that each side gets.
const ROUNDS: usize = 5;
const GUEST_MEMORY: u64 = 512 << 20;

struct Options {
    ringlet: PathBuf,
    program: PathBuf,
    image: PathBuf,
    output: PathBuf,
}

/// A benchmark that `uring-bench` knows.
struct Benchmark {
    name: String,
    /// CPUs that it needs.
    cpus: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let benchmarks = benchmarks(&options)?;
    let mut comparison = Comparison::new("host", "guest");
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        // One name at a time, so that both sides meet the same moments of a busy machine.
        for benchmark in &benchmarks {
            let on_host = on_host(&options, benchmark)?;
            if benchmark.name.starts_with("blk_") {
                let renamed = |measured: Measured| Measured {
                    name: format!("{}_without_io_uring", measured.name),
                    ..measured
                };
                let measured = in_guest(&options, benchmark, container::deny_io_uring)?;
                comparison.add(Side::Reference, renamed(on_host.clone()));
                comparison.add(Side::Ours, renamed(measured));
            }
            comparison.add(Side::Reference, on_host);
            comparison.add(Side::Ours, in_guest(&options, benchmark, |_| ())?);
        }
        comparison.add_quotient("nop_scaling_2cpus", "nop_rings_2", "nop_rings_1");
        for measured in of_the_vm(&options)? {
            comparison.add(Side::Ours, measured);
        }
    }
    comparison.print();
    comparison.write(&options.output)?;
    eprintln!("written to {}", options.output.display());
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    use lexopt::prelude::*;
    let (mut ringlet, mut program, mut image, mut output) = (None, None, None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        let place = match argument {
            Long("ringlet") => &mut ringlet,
            Long("program") => &mut program,
            Long("image") => &mut image,
            Long("output") => &mut output,
            other => return Err(other.unexpected().into()),
        };
        *place = Some(PathBuf::from(parser.value()?));
    }
    Ok(Options {
        ringlet: ringlet.ok_or("--ringlet is missing")?,
        program: program.ok_or("--program is missing")?,
        image: image.ok_or("--image is missing")?,
        output: output.ok_or("--output is missing")?,
    })
}

fn succeeded(output: Output, what: &str) -> Result<Output, Box<dyn Error>> {
    match output.code() {
        0 => Ok(output),
        code => Err(format!("{what} ended with {code}: {}", output.err()).into()),
    }
}

/// What `uring-bench` can measure.
fn benchmarks(options: &Options) -> Result<Vec<Benchmark>, Box<dyn Error>> {
    let mut command = Command::new(&options.program);
    command.arg("--list");
    let output = succeeded(Ringlet::command(command).output(), "uring-bench --list")?;
    let benchmark = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (name, _unit, cpus) = (words.next()?, words.next()?, words.next()?);
        Some(Benchmark { name, cpus })
    };
    let all: Option<Vec<_>> = output.out().lines().map(benchmark).collect();
    Ok(all.ok_or("uring-bench --list has another format")?)
}

fn parse(output: &Output) -> Result<Measured, Box<dyn Error>> {
    Ok(serde_json::from_str(&output.out())?)
}

fn on_host(options: &Options, benchmark: &Benchmark) -> Result<Measured, Box<dyn Error>> {
    let mut command = Command::new(&options.program);
    command
        .arg("--file")
        .arg(&options.image)
        .arg(&benchmark.name);
    let output = Ringlet::command(command).output();
    parse(&succeeded(output, "uring-bench on the host")?)
}

fn in_guest(
    options: &Options,
    benchmark: &Benchmark,
    change: impl FnOnce(&mut Command),
) -> Result<Measured, Box<dyn Error>> {
    let mut disk = options.image.clone().into_os_string();
    disk.push(",ro");
    let output = Ringlet::command(Command::new(&options.ringlet))
        .args(["run", "--cpus", &benchmark.cpus, "--disk"])
        .args([disk])
        .args([
            "--",
            "/bin/uring-bench",
            "--file",
            "/dev/vda",
            &benchmark.name,
        ])
        .with(change)
        .output();
    parse(&succeeded(output, "uring-bench in the guest")?)
}

/// What a VM costs by itself.
fn of_the_vm(options: &Options) -> Result<Vec<Measured>, Box<dyn Error>> {
    let measured = |name: &str, unit: &str, value| Measured {
        name: name.to_owned(),
        unit: unit.to_owned(),
        value,
    };
    Ok(vec![
        measured("boot_to_program", "ms", boot_to_program(options)?),
        measured("run_true_wall", "ms", run_true_wall(options)?),
        measured("vmm_overhead", "MiB", vmm_overhead(options)?),
    ])
}

fn boot_to_program(options: &Options) -> Result<f64, Box<dyn Error>> {
    let output = Ringlet::command(Command::new(&options.ringlet))
        .args(["run", "--timeline", "--", "/bin/true"])
        .output();
    let output = succeeded(output, "ringlet run --timeline")?;
    let text = output.err();
    let time = text
        .lines()
        .filter_map(|line| line.strip_prefix("timeline: "))
        .find_map(|line| line.strip_suffix(" ms program entered"))
        .ok_or_else(|| format!("no stage 'program entered' in {text}"))?;
    Ok(time.trim().parse()?)
}

fn run_true_wall(options: &Options) -> Result<f64, Box<dyn Error>> {
    let output = Ringlet::command(Command::new(&options.ringlet))
        .args(["run", "--", "/bin/true"])
        .output();
    Ok(succeeded(output, "ringlet run")?.elapsed.as_secs_f64() * 1000.0)
}

/// Resident memory of `ringlet` beyond the guest's RAM, in MiB, while a program waits for input.
fn vmm_overhead(options: &Options) -> Result<f64, Box<dyn Error>> {
    let mut running = Ringlet::command(Command::new(&options.ringlet))
        .args(["run", "--mem", &GUEST_MEMORY.to_string(), "--", "/bin/cat"])
        .start();
    running.write(b"ready\n");
    running.stdout.wait_for(b"ready\n");
    std::thread::sleep(Duration::from_millis(50));
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", running.pid()))?;
    succeeded(running.wait(), "ringlet run")?;
    let kibibytes = overhead(&smaps)?;
    Ok(kibibytes as f64 / 1024.0)
}

/// Sums `Rss` over all mappings but the anonymous ones that are large enough to be guest RAM.
///
/// Nothing else in the process is near that large; RAM may be split by madvise(2).
fn overhead(smaps: &str) -> Result<u64, Box<dyn Error>> {
    let (mut size, mut anonymous) = (0, false);
    let (mut total, mut ram) = (0, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let mut number = || -> Result<u64, Box<dyn Error>> {
            Ok(words.next().ok_or("a line without a value")?.parse()?)
        };
        match first {
            "Size:" => size = number()? << 10,
            "Rss:" => {
                let resident = number()?;
                let is_ram = anonymous && size >= GUEST_MEMORY / 8;
                *if is_ram { &mut ram } else { &mut total } += resident;
            }
            // A header: address range, rights, offset, device, inode and, unless anonymous, a name.
            range if range.contains('-') && !range.ends_with(':') => {
                anonymous = words.count() == 4;
            }
            _ => {}
        }
    }
    if ram == 0 {
        return Err("guest RAM is not among the mappings".into());
    }
    Ok(total)
}
