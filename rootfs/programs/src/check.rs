//! Named checks, and the program that runs them and says `pass NAME` or `fail NAME: why`.
//!
//! A check is a function that returns early with a [`Failure`]. Each runs in a directory of its
//! own, which is the working directory; all run in one process, one after the other.

use std::ffi::{CString, OsString};
use std::fmt::Debug;
use std::panic::Location;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::Errno;

/// What a check may use.
pub struct Context {
    /// A block device, or a file in its place, that may be overwritten.
    pub disk: CString,
}

/// Why a check failed.
#[derive(Clone, Debug)]
pub struct Failure(String);

/// How a check ended.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// A failure at the place that calls this.
    #[track_caller]
    pub fn new(why: impl Into<String>) -> Self {
        let line = Location::caller().line();
        Self(format!("{} (line {line})", why.into()))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// A named check.
#[derive(Clone, Copy)]
pub struct Check {
    /// The name, unique in its program.
    pub name: &'static str,
    /// Whether it runs only where a disk is given.
    pub needs_disk: bool,
    /// The check.
    pub run: fn(&Context) -> Outcome,
}

/// How long [`comes_true`] waits, and [`in_some_try`] goes on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for `condition`, which another thread or the kernel brings about: whether it came true in
/// time that is enough on a machine that is busy otherwise, too.
pub fn comes_true(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// Repeats a check of how long something takes until it passes: others who use the machine may make
/// it take longer, but not each time.
///
/// # Errors
///
/// The last [`Failure`], if it never passes.
pub fn in_some_try(mut check: impl FnMut() -> Outcome) -> Outcome {
    let start = Instant::now();
    loop {
        match check() {
            Err(_) if start.elapsed() < PATIENCE => {}
            outcome => return outcome,
        }
    }
}

/// A table of checks, named as their functions are; those after `disk:` need a disk.
#[macro_export]
macro_rules! checks {
    ($($function:ident),* $(,)? $(; disk: $($on_disk:ident),* $(,)?)?) => {
        &[
            $($crate::check::Check {
                name: stringify!($function),
                needs_disk: false,
                run: |_| $function(),
            },)*
            $($($crate::check::Check {
                name: stringify!($on_disk),
                needs_disk: true,
                run: $on_disk,
            },)*)?
        ]
    };
}

/// Fails the check unless the condition holds.
#[macro_export]
macro_rules! expect {
    ($condition:expr) => {
        if !$condition {
            return Err($crate::check::Failure::new(concat!(
                "not ",
                stringify!($condition)
            )));
        }
    };
}

/// Fails the check unless the first value, which is shown with its text, equals the second.
#[macro_export]
macro_rules! expect_eq {
    ($got:expr, $want:expr $(,)?) => {
        $crate::check::equal(stringify!($got), &$got, &$want)?
    };
}

/// Fails the check unless the system call fails with that error: `fails!(EBADF, SYS_close, 99)`.
#[macro_export]
macro_rules! fails {
    ($errno:ident, $number:ident $($argument:tt)*) => {
        $crate::check::refused(
            stringify!($number),
            &$crate::sys!($number $($argument)*),
            $crate::sys::Errno(libc::$errno),
        )?
    };
}

/// Compares for [`expect_eq!`](crate::expect_eq!).
///
/// # Errors
///
/// [`Failure`] if the values differ.
#[track_caller]
pub fn equal<A: Debug + PartialEq<B>, B: Debug>(what: &str, got: &A, want: &B) -> Outcome {
    if got == want {
        return Ok(());
    }
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(Failure::new(format!("{what} is {got:?}, not {want:?}")))
}

/// Compares for [`fails!`](crate::fails!).
///
/// # Errors
///
/// [`Failure`] if the call did not fail, or otherwise.
#[track_caller]
pub fn refused<T: Debug>(call: &str, got: &Result<T, Errno>, want: Errno) -> Outcome {
    match got {
        Err(errno) if *errno == want => Ok(()),
        other => Err(Failure::new(format!("{call} gave {other:?}, not {want}"))),
    }
}

const OPTIONS: &str = "\
Runs the checks whose names contain a FILTER, or all of them; prints a line for each and a total.

  --disk PATH  run the checks of block devices too; OVERWRITES the device
  --dir DIR    where to make a directory for files (default /tmp)
  --exact      take each FILTER as a whole name
  --list       print the names instead of running
";

struct Options {
    filters: Vec<String>,
    exact: bool,
    list: bool,
    disk: Option<OsString>,
    dir: PathBuf,
}

/// An option of a program's own, which takes a value.
pub struct OwnOption<'a> {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// Its line of the help.
    pub help: &'static str,
    /// Takes the value.
    pub take: &'a mut dyn FnMut(OsString) -> Result<(), lexopt::Error>,
}

fn options(program: &str, own: &mut [OwnOption<'_>]) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        filters: Vec::new(),
        exact: false,
        list: false,
        disk: None,
        dir: "/tmp".into(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("disk") => options.disk = Some(parser.value()?),
            Long("dir") => options.dir = parser.value()?.into(),
            Long("exact") => options.exact = true,
            Long("list") => options.list = true,
            Long("help") | Short('h') => {
                print!("Usage: {program} [OPTION]... [FILTER]...\n\n{OPTIONS}");
                own.iter().for_each(|option| println!("{}", option.help));
                return Ok(None);
            }
            Long(name) if own.iter().any(|option| option.name == name) => {
                let name = name.to_owned();
                let value = parser.value()?;
                if let Some(option) = own.iter_mut().find(|option| option.name == name) {
                    (option.take)(value)?;
                }
            }
            Value(filter) => options.filters.push(filter.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// The `main` of a test program: parses the command line and runs the checks.
pub fn main(program: &str, groups: &[&[Check]]) -> ExitCode {
    main_with(program, &mut [], groups)
}

/// As [`main`], for a program that has options of its own.
pub fn main_with(program: &str, own: &mut [OwnOption<'_>], groups: &[&[Check]]) -> ExitCode {
    let options = match options(program, own) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            return ExitCode::from(2);
        }
    };
    let wanted = |check: &&Check| {
        let named = |filter: &String| {
            if options.exact {
                check.name == filter
            } else {
                check.name.contains(filter.as_str())
            }
        };
        (options.disk.is_some() || !check.needs_disk)
            && (options.filters.is_empty() || options.filters.iter().any(named))
    };
    let checks: Vec<_> = groups
        .iter()
        .flat_map(|group| group.iter())
        .filter(wanted)
        .collect();
    if options.list {
        checks.iter().for_each(|check| println!("{}", check.name));
        return ExitCode::SUCCESS;
    }
    let disk = options.disk.unwrap_or_default().into_encoded_bytes();
    let context = match CString::new(disk) {
        Ok(disk) => Context { disk },
        Err(error) => {
            eprintln!("{program}: --disk: {error}");
            return ExitCode::from(2);
        }
    };
    let dir = options
        .dir
        .join(format!("{program}.{}", std::process::id()));
    let failed = checks
        .iter()
        .filter(|check| {
            let outcome = enter(&dir.join(check.name)).and_then(|()| (check.run)(&context));
            match &outcome {
                Ok(()) => println!("pass {}", check.name),
                Err(Failure(why)) => println!("fail {}: {why}", check.name),
            }
            outcome.is_err()
        })
        .count();
    // Nothing depends on it: a kernel that cannot remove a tree fails in other ways.
    let _ = std::env::set_current_dir("/").and_then(|()| std::fs::remove_dir_all(&dir));
    println!("{} passed, {failed} failed", checks.len() - failed);
    ExitCode::from(u8::from(failed > 0 || checks.is_empty()))
}

fn enter(dir: &std::path::Path) -> Outcome {
    std::fs::create_dir_all(dir)?;
    Ok(std::env::set_current_dir(dir)?)
}
