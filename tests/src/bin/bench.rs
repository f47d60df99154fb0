//! `bench`: runs `uring-bench` on the host and in the guest, turn and turn about, and compares.
//!
//! Prints a table of medians and writes `bench.json`. A ratio above 1 means that the guest is
//! better. What has no counterpart on the host has neither host value nor ratio.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ringlet_tests::{Output, Ringlet};
use serde::{Deserialize, Serialize};

/// Turns that each side gets.
const ROUNDS: usize = 5;
const GUEST_MEMORY: u64 = 512 << 20;

struct Options {
    ringlet: PathBuf,
    program: PathBuf,
    image: PathBuf,
    output: PathBuf,
}

/// A line of `uring-bench`.
#[derive(Deserialize)]
struct Measured {
    name: String,
    unit: String,
    value: f64,
}

/// The values of one name on both sides.
struct Series {
    name: String,
    unit: String,
    host: Vec<f64>,
    guest: Vec<f64>,
}

/// An entry of `bench.json`.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    unit: &'a str,
    host: Option<f64>,
    guest: f64,
    ratio: Option<f64>,
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
    let names = names(&options)?;
    let mut all: Vec<Series> = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        // One name at a time, so that both sides meet the same moments of a busy machine.
        for name in &names {
            let (host, guest) = (on_host(&options, name)?, in_guest(&options, name)?);
            let series = series(&mut all, &host);
            series.host.push(host.value);
            series.guest.push(guest.value);
        }
        for measured in of_the_vm(&options)? {
            series(&mut all, &measured).guest.push(measured.value);
        }
    }
    print(&all);
    let entries: Vec<_> = all.iter().map(Series::entry).collect();
    fs::write(
        &options.output,
        serde_json::to_string_pretty(&entries)? + "\n",
    )?;
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

/// The series that `measured` belongs to.
fn series<'a>(all: &'a mut Vec<Series>, measured: &Measured) -> &'a mut Series {
    let index = all
        .iter()
        .position(|series| series.name == measured.name)
        .unwrap_or_else(|| {
            all.push(Series {
                name: measured.name.clone(),
                unit: measured.unit.clone(),
                host: Vec::new(),
                guest: Vec::new(),
            });
            all.len() - 1
        });
    &mut all[index]
}

fn succeeded(output: Output, what: &str) -> Result<Output, Box<dyn Error>> {
    match output.code() {
        0 => Ok(output),
        code => Err(format!("{what} ended with {code}: {}", output.err()).into()),
    }
}

/// The names that `uring-bench` knows.
fn names(options: &Options) -> Result<Vec<String>, Box<dyn Error>> {
    let mut command = Command::new(&options.program);
    command.arg("--list");
    let output = succeeded(Ringlet::command(command).output(), "uring-bench --list")?;
    let text = output.out();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    Ok(names.map(str::to_owned).collect())
}

fn parse(output: &Output) -> Result<Measured, Box<dyn Error>> {
    Ok(serde_json::from_str(&output.out())?)
}

fn on_host(options: &Options, name: &str) -> Result<Measured, Box<dyn Error>> {
    let mut command = Command::new(&options.program);
    command.arg("--file").arg(&options.image).arg(name);
    let output = Ringlet::command(command).output();
    parse(&succeeded(output, "uring-bench on the host")?)
}

/// `ringlet run` with the image as a disk.
fn with_disk(options: &Options, program: &[&str]) -> Ringlet {
    let mut disk = options.image.clone().into_os_string();
    disk.push(",ro");
    Ringlet::command(Command::new(&options.ringlet))
        .args(["run", "--disk"])
        .args([disk])
        .args(["--"])
        .args(program)
}

fn in_guest(options: &Options, name: &str) -> Result<Measured, Box<dyn Error>> {
    let program = ["/bin/uring-bench", "--file", "/dev/vda", name];
    let output = with_disk(options, &program).output();
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

impl Series {
    fn entry(&self) -> Entry<'_> {
        let (host, guest) = (median(&self.host), median(&self.guest).unwrap_or(f64::NAN));
        let more_is_better = matches!(self.unit.as_str(), "IOPS" | "MiB/s");
        let ratio = host.map(|host| {
            if more_is_better {
                guest / host
            } else {
                host / guest
            }
        });
        Entry {
            name: &self.name,
            unit: &self.unit,
            host,
            guest,
            ratio,
        }
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The distance between the extremes, in percent of the median.
fn spread(values: &[f64]) -> Option<f64> {
    let low = values.iter().copied().min_by(f64::total_cmp)?;
    let high = values.iter().copied().max_by(f64::total_cmp)?;
    Some((high - low) / median(values)? * 100.0)
}

fn print(all: &[Series]) {
    println!(
        "{:<22} {:>6} {:>12} {:>12} {:>7} {:>8} {:>8}",
        "benchmark", "unit", "host", "guest", "ratio", "spread h", "spread g"
    );
    let show = |value: Option<f64>, digits: usize, unit: &str| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}{unit}"))
    };
    for series in all {
        let entry = series.entry();
        println!(
            "{:<22} {:>6} {:>12} {:>12} {:>7} {:>8} {:>8}",
            entry.name,
            entry.unit,
            show(entry.host, 1, ""),
            show(Some(entry.guest), 1, ""),
            show(entry.ratio, 2, ""),
            show(spread(&series.host), 0, "%"),
            show(spread(&series.guest), 0, "%"),
        );
    }
}
