//! `soak`: starts and ends many VMs, many at a time, with signals at random moments, and checks that nothing
//! is left.

use std::process::ExitCode;
use std::time::Instant;

use ringlet_tests::{Soak, soak};

fn main() -> ExitCode {
    let plan = match options() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("soak: {error}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("{plan:?}");
    let start = Instant::now();
    match soak(plan) {
        Ok(tally) => {
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "{} ended by themselves, {} got a signal, in {seconds:.0} s; nothing is left",
                tally.ended, tally.signalled
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Soak, lexopt::Error> {
    use lexopt::prelude::*;
    let mut plan = Soak {
        count: 10_000,
        at_once: 50,
        seed: u64::from(std::process::id()),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("count") => plan.count = parser.value()?.parse()?,
            Long("at-once") => plan.at_once = parser.value()?.parse()?,
            Long("seed") => plan.seed = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(plan)
}
