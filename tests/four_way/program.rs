//! The program `four-way` in both places: its cases, and what it has seen of them.

use std::collections::HashMap;
use std::process::Command;
use std::sync::OnceLock;

use ringlet_tests::{Artifacts, Output, Ringlet};

/// A program that dies takes the cases after it along; this many deaths are looked behind.
const RESTARTS: usize = 40;
/// Runs four-way with namespaces of its own, in a tmpfs as in the guest.
const SANDBOX: &str = "mount -t tmpfs tmpfs /dev/shm && \"$0\" --dir /dev/shm \"$@\"";

/// A way into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Door {
    Call,
    Ring,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Host,
    Guest,
}

/// A case of the program.
#[derive(Clone)]
pub(crate) struct Case {
    number: usize,
    /// The system call and the opcodes that it is about.
    pub(crate) names: Vec<String>,
    /// Those that it goes through.
    pub(crate) doors: Vec<Door>,
    /// The doors differ on Linux.
    pub(crate) differs: bool,
    /// It is about time.
    pub(crate) timed: bool,
    /// It runs in a process of its own, which it may end.
    alone: bool,
    /// What it says in its source.
    pub(crate) name: String,
}

type Lines = HashMap<(usize, Door), String>;

/// The program.
pub(crate) struct Program {
    cases: Vec<Case>,
    lines: [OnceLock<Lines>; 2],
}

impl Door {
    /// What the program calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Ring => "ring",
        }
    }

    /// The one that the program calls so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Call, Self::Ring]
            .into_iter()
            .find(|door| door.name() == name)
    }
}

impl Case {
    /// The first of its names.
    pub(crate) fn operation(&self) -> &str {
        self.names.first().map_or("none", String::as_str)
    }
}

impl Program {
    /// The one that was built.
    pub(crate) fn new() -> Self {
        let mut command = Command::new(Artifacts::get().program("four-way"));
        command.arg("--list");
        let output = Ringlet::command(command).output().expect_success();
        let cases = output.out().lines().map(listed).collect();
        Self {
            cases,
            lines: [OnceLock::new(), OnceLock::new()],
        }
    }

    /// All cases.
    pub(crate) fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// What was seen of a case.
    pub(crate) fn seen(&self, place: Place, case: &Case, door: Door) -> String {
        let lines = self.lines[place as usize].get_or_init(|| self.all(place));
        let line = lines.get(&(case.number, door)).cloned();
        line.unwrap_or_else(|| "it was not run, since too much before it died".into())
    }

    /// What is seen of a case that is run once more.
    pub(crate) fn seen_again(&self, place: Place, case: &Case, door: Door) -> String {
        let mut lines = alone(place, case.number);
        lines.remove(&(case.number, door)).unwrap_or_default()
    }

    /// Runs all cases, going on behind one that the program does not survive.
    fn all(&self, place: Place) -> Lines {
        let mut lines = Lines::new();
        let mut first = 0;
        for _ in 0..RESTARTS {
            let output = run(place, &["--from", &first.to_string()]);
            lines.extend(output.out().lines().filter_map(parse));
            let mut missing = self
                .cases
                .iter()
                .filter(|case| !case.alone)
                .flat_map(|case| case.doors.iter().map(|door| (case.number, *door)));
            let Some(victim) = missing.find(|key| !lines.contains_key(key)) else {
                break;
            };
            lines.insert(victim, ended(&output));
            first = victim.0 + 1;
        }
        for case in self.cases.iter().filter(|case| case.alone) {
            lines.extend(alone(place, case.number));
        }
        lines
    }
}

/// Runs one case, which may end the program.
fn alone(place: Place, number: usize) -> Lines {
    let output = run(place, &["--only", &number.to_string()]);
    let mut lines: Lines = output.out().lines().filter_map(parse).collect();
    if lines.is_empty() {
        lines.insert((number, Door::Call), ended(&output));
    }
    lines
}

fn ended(output: &Output) -> String {
    format!("ended with {} {}", output.code(), output.err().trim_end())
}

fn run(place: Place, arguments: &[&str]) -> Output {
    match place {
        Place::Guest => Ringlet::program(["four-way"]).args(arguments).output(),
        Place::Host => {
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--fork"])
                .args(["--kill-child", "--mount-proc", "sh", "-c", SANDBOX])
                .arg(Artifacts::get().program("four-way"));
            Ringlet::command(command).args(arguments).output()
        }
    }
}

/// A line `NUMBER<TAB>NAMES<TAB>FLAGS<TAB>CASE`.
fn listed(line: &str) -> Case {
    let mut columns = line.splitn(4, '\t');
    let mut column = || columns.next().unwrap_or_default();
    let number = column().parse().expect("a number");
    let names = column().split(' ').map(str::to_owned).collect();
    let flags: Vec<_> = column().split(' ').collect();
    Case {
        number,
        names,
        doors: flags.iter().filter_map(|flag| Door::named(flag)).collect(),
        differs: flags.contains(&"differs"),
        timed: flags.contains(&"timed"),
        alone: flags.contains(&"alone"),
        name: column().to_owned(),
    }
}

/// A line `NUMBER<TAB>DOOR<TAB>WHAT-WAS-SEEN`.
fn parse(line: &str) -> Option<((usize, Door), String)> {
    let mut columns = line.splitn(3, '\t');
    let number = columns.next()?.parse().ok()?;
    let door = Door::named(columns.next()?)?;
    Some(((number, door), columns.next()?.to_owned()))
}
