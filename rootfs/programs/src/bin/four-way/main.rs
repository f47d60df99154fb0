//! `four-way`: operations, each performed by the system call and by the SQE of the same meaning.
//!
//! It prints a line for each case and door: the case's number, the door, and everything that can be
//! seen afterwards, nothing of which depends on the machine. It judges nothing: what Linux says is
//! right, and what the guest kernel says should be the same. For root.

mod case;
mod cases;
mod random;

use std::collections::HashSet;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use guest_programs::doors::World;

use crate::case::Case;

const USAGE: &str = "\
Usage: four-way [OPTION]...

Performs each case through each of its doors, and prints a line NUMBER<TAB>DOOR<TAB>WHAT-WAS-SEEN.

  --list       print NUMBER<TAB>NAMES<TAB>FLAGS<TAB>CASE instead
  --from N     begin with that case; those that run alone are left out
  --only N     perform that case alone
  --like TEXT  perform the cases that contain TEXT, and print them too
  --random SEED
               perform cases that are made up instead
  --count N    so many of them (default 1000)
  --dir DIR    where to make a directory for files, a tmpfs (default /tmp)
";

struct Options {
    list: bool,
    range: Range<usize>,
    only: bool,
    like: Option<String>,
    random: Option<u64>,
    count: usize,
    dir: PathBuf,
}

fn options() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        list: false,
        range: 0..usize::MAX,
        only: false,
        like: None,
        random: None,
        count: 1000,
        dir: "/tmp".into(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("list") => options.list = true,
            Long("from") => options.range.start = parser.value()?.parse()?,
            Long("only") => {
                let number: usize = parser.value()?.parse()?;
                options.range = number..number.saturating_add(1);
                options.only = true;
            }
            Long("like") => options.like = Some(parser.value()?.string()?),
            Long("random") => options.random = Some(parser.value()?.parse()?),
            Long("count") => options.count = parser.value()?.parse()?,
            Long("dir") => options.dir = parser.value()?.into(),
            Long("help") | Short('h') => {
                print!("{USAGE}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("four-way: {error}");
            return ExitCode::from(2);
        }
    };
    let cases = match options.random {
        Some(seed) => random::cases(seed, options.count),
        None => cases::all(),
    };
    let mut names = HashSet::new();
    let is_twice = |case: &&Case| !names.insert(case.name) && options.random.is_none();
    let twice = cases.iter().filter(is_twice);
    let twice: Vec<_> = twice.map(|case| case.name).collect();
    if !twice.is_empty() {
        eprintln!("four-way: cases that are there twice: {}", twice.join(", "));
        return ExitCode::from(2);
    }
    if options.list {
        list(&cases);
        return ExitCode::SUCCESS;
    }
    let dir = options.dir.join(format!("four-way.{}", std::process::id()));
    match World::new(&dir) {
        Ok(mut world) => run(&cases, &options, &mut world),
        Err(error) => {
            eprintln!("four-way: {}: {error}", dir.display());
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn list(cases: &[Case]) {
    for (number, case) in cases.iter().enumerate() {
        let names = case.names().join(" ");
        let doors: Vec<_> = case.doors().map(|door| door.name()).collect();
        let mut flags = doors.join(" ");
        if case.difference.is_some() {
            flags.push_str(" differs");
        }
        if case.is_timed() {
            flags.push_str(" timed");
        }
        if case.alone {
            flags.push_str(" alone");
        }
        let name: Vec<_> = case.name.split_whitespace().collect();
        println!("{number}\t{names}\t{flags}\t{}", name.join(" "));
    }
}

fn run(cases: &[Case], options: &Options, world: &mut World) {
    for (number, case) in cases.iter().enumerate() {
        let wanted = |like: &String| case.name.contains(like.as_str());
        if !options.range.contains(&number)
            || case.alone && !options.only
            || !options.like.as_ref().is_none_or(wanted)
        {
            continue;
        }
        if options.like.is_some() {
            println!("{}", case.name);
        }
        for door in case.doors() {
            let seen = case.run(world, door);
            world.end();
            println!("{number}\t{}\t{seen}", door.name());
            // A case that ends the program must not take the lines before along.
            let _ = std::io::stdout().flush();
        }
    }
}
