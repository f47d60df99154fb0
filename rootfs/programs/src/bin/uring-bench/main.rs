//! `uring-bench`: measures named operations and prints a line of JSON for each.
//!
//! The same binary runs on the host, in the guest, and on other kernels. Benchmarks are listed in
//! [`BENCHMARKS`]: operations on nothing are in [`calls`], page faults in [`memory`], threads in
//! [`threads`], reads of a file or block device in [`reads`].

mod calls;
mod memory;
mod reads;
mod threads;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use guest_programs::source::Source;
use io_uring::IoUring;
use memory::Pages;

const USAGE: &str = "\
Usage: uring-bench [--file PATH] [--duration-ms N] [--list] [NAME]...

Measures the named benchmarks, or all of them, and prints a line of JSON for each.

  --file PATH      the file or block device that the blk_* benchmarks read
  --duration-ms N  how long to measure each (default 500), after a fifth of that to warm up
  --list           print the names, units, and CPUs that each needs
";

/// What a benchmark is given.
struct Context {
    file: Option<PathBuf>,
    duration: Duration,
}

type Outcome = Result<f64, Box<dyn Error>>;

struct Benchmark {
    name: &'static str,
    unit: &'static str,
    /// CPUs that it needs.
    cpus: usize,
    run: fn(&Context) -> Outcome,
}

impl Benchmark {
    const fn new(
        name: &'static str,
        unit: &'static str,
        cpus: usize,
        run: fn(&Context) -> Outcome,
    ) -> Self {
        Self {
            name,
            unit,
            cpus,
            run,
        }
    }
}

const BENCHMARKS: [Benchmark; 19] = [
    Benchmark::new("nop_batch1", "ns", 1, |context| calls::nops(context, 1)),
    Benchmark::new("nop_batch32", "ns", 1, |context| calls::nops(context, 32)),
    Benchmark::new("nop_batch128", "ns", 1, |context| calls::nops(context, 128)),
    Benchmark::new("null_syscall", "ns", 1, calls::null_syscall),
    Benchmark::new("page_fault", "ns", 1, |context| {
        memory::touch(context, &Pages::New)
    }),
    Benchmark::new("page_fault_small", "ns", 1, |context| {
        memory::touch(context, &Pages::NewSmall)
    }),
    Benchmark::new("page_fault_sparse", "ns", 1, |context| {
        memory::touch(context, &Pages::NewSparse)
    }),
    Benchmark::new("page_refault", "ns", 1, |context| {
        memory::touch(context, &Pages::GivenBack)
    }),
    Benchmark::new("mprotect_page", "ns", 1, |context| memory::protect(context, 1)),
    Benchmark::new("mprotect_64_pages", "ns", 1, |context| {
        memory::protect(context, 64)
    }),
    Benchmark::new("map_store_unmap", "ns", 1, memory::map_and_unmap),
    Benchmark::new("thread_create_join", "ns", 1, threads::create_and_join),
    Benchmark::new("futex_ping_pong_1cpu", "ns", 1, |context| {
        threads::ping_pong(context, 1)
    }),
    Benchmark::new("futex_ping_pong_2cpus", "ns", 2, |context| {
        threads::ping_pong(context, 2)
    }),
    Benchmark::new("nop_rings_1", "ops/s", 1, |context| {
        threads::rings(context, 1)
    }),
    Benchmark::new("nop_rings_2", "ops/s", 2, |context| {
        threads::rings(context, 2)
    }),
    Benchmark::new("blk_randread_4k_qd1", "IOPS", 1, |context| {
        reads::random(context, 4 << 10, 1)
    }),
    Benchmark::new("blk_randread_4k_qd32", "IOPS", 1, |context| {
        reads::random(context, 4 << 10, 32)
    }),
    Benchmark::new("blk_read_1m_qd8", "MiB/s", 1, |context| {
        reads::sequential(context, 1 << 20, 8)
    }),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uring-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    use lexopt::prelude::*;
    let mut context = Context {
        file: None,
        duration: Duration::from_millis(500),
    };
    let mut chosen: Vec<&Benchmark> = Vec::new();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("file") => context.file = Some(parser.value()?.into()),
            Long("duration-ms") => {
                let milliseconds = parser.value()?.parse::<u32>()?.max(1);
                context.duration = Duration::from_millis(milliseconds.into());
            }
            Long("list") => {
                for Benchmark {
                    name, unit, cpus, ..
                } in &BENCHMARKS
                {
                    println!("{name} {unit} {cpus}");
                }
                return Ok(());
            }
            Long("help") | Short('h') => {
                print!("{USAGE}");
                return Ok(());
            }
            Value(name) => {
                let known = BENCHMARKS.iter().find(|known| name == known.name);
                chosen.push(known.ok_or_else(|| format!("no benchmark is named {name:?}"))?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if chosen.is_empty() {
        chosen = BENCHMARKS.iter().collect();
    }
    let mut stdout = io::stdout().lock();
    for Benchmark {
        name, unit, run, ..
    } in chosen
    {
        let value = run(&context).map_err(|error| format!("{name}: {error}"))?;
        writeln!(
            stdout,
            r#"{{"name":"{name}","unit":"{unit}","value":{value:.2}}}"#
        )?;
    }
    Ok(())
}

impl Context {
    /// Calls `step`, which gives how many operations it did, for the duration, after a warm-up;
    /// the result is in operations a second.
    fn rate(
        &self,
        mut step: impl FnMut() -> Result<u64, Box<dyn Error>>,
    ) -> Result<f64, Box<dyn Error>> {
        run_for(self.duration / 5, &mut step, |_| ())?;
        let mut operations = 0;
        let elapsed = run_for(self.duration, &mut step, |more| operations += more)?;
        Ok(operations as f64 / elapsed.as_secs_f64())
    }

    /// The same, where `step` says how long its operations took, which is less than all of it.
    fn timed_rate(
        &self,
        mut step: impl FnMut() -> Result<(u64, Duration), Box<dyn Error>>,
    ) -> Result<f64, Box<dyn Error>> {
        run_for(self.duration / 5, &mut step, |_| ())?;
        let (mut operations, mut elapsed) = (0, Duration::ZERO);
        run_for(self.duration, &mut step, |(more, longer)| {
            operations += more;
            elapsed += longer;
        })?;
        Ok(operations as f64 / elapsed.as_secs_f64())
    }

    fn source(&self) -> Result<Source, Box<dyn Error>> {
        let path = self.file.as_ref().ok_or("needs --file")?;
        let source =
            Source::open(path, true).map_err(|error| format!("{}: {error}", path.display()))?;
        if !source.direct {
            return Err(format!("{}: no O_DIRECT here", path.display()).into());
        }
        Ok(source)
    }
}

/// Calls `step` for `duration`, and `each` with what it gives; returns how long that took.
fn run_for<T>(
    duration: Duration,
    mut step: impl FnMut() -> Result<T, Box<dyn Error>>,
    mut each: impl FnMut(T),
) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    loop {
        each(step()?);
        let elapsed = start.elapsed();
        if elapsed >= duration {
            return Ok(elapsed);
        }
    }
}

/// A ring as an application with one thread sets it up; kernels before 6.1 know fewer flags.
fn ring(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(entries)
        .or_else(|_| IoUring::new(entries))
}
