//! `uring-bench`: measures named operations and prints a line of JSON for each.
//!
//! The same binary runs on the host and in the guest. Benchmarks are listed in [`BENCHMARKS`]:
//! operations on nothing are in [`calls`], reads of a file or block device in [`reads`].

mod calls;
mod reads;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use guest_programs::source::Source;
use io_uring::IoUring;

const USAGE: &str = "\
Usage: uring-bench [--file PATH] [--duration-ms N] [--list] [NAME]...

Measures the named benchmarks, or all of them, and prints a line of JSON for each.

  --file PATH      the file or block device that the blk_* benchmarks read
  --duration-ms N  how long to measure each (default 500), after a fifth of that to warm up
  --list           print the names and units
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
    run: fn(&Context) -> Outcome,
}

const BENCHMARKS: [Benchmark; 7] = [
    Benchmark {
        name: "nop_batch1",
        unit: "ns",
        run: |context| calls::nops(context, 1),
    },
    Benchmark {
        name: "nop_batch32",
        unit: "ns",
        run: |context| calls::nops(context, 32),
    },
    Benchmark {
        name: "nop_batch128",
        unit: "ns",
        run: |context| calls::nops(context, 128),
    },
    Benchmark {
        name: "null_syscall",
        unit: "ns",
        run: calls::null_syscall,
    },
    Benchmark {
        name: "blk_randread_4k_qd1",
        unit: "IOPS",
        run: |context| reads::random(context, 4 << 10, 1),
    },
    Benchmark {
        name: "blk_randread_4k_qd32",
        unit: "IOPS",
        run: |context| reads::random(context, 4 << 10, 32),
    },
    Benchmark {
        name: "blk_read_1m_qd8",
        unit: "MiB/s",
        run: |context| reads::sequential(context, 1 << 20, 8),
    },
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
                for Benchmark { name, unit, .. } in &BENCHMARKS {
                    println!("{name} {unit}");
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
    for Benchmark { name, unit, run } in chosen {
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
        for (duration, measured) in [(self.duration / 5, false), (self.duration, true)] {
            let start = Instant::now();
            let mut operations = 0;
            loop {
                operations += step()?;
                let elapsed = start.elapsed();
                if elapsed < duration {
                    continue;
                }
                if measured {
                    return Ok(operations as f64 / elapsed.as_secs_f64());
                }
                break;
            }
        }
        unreachable!("the second round is measured")
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

/// A ring as an application with one thread sets it up; kernels before 6.1 know fewer flags.
fn ring(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(entries)
        .or_else(|_| IoUring::new(entries))
}
