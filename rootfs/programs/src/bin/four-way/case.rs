//! A case: an operation, what is done before and after it, and how it is waited for.

use std::thread;
use std::time::Duration;

use guest_programs::doors::{Door, Operation, Outcome, Patience, World};

/// An operation that is performed through each of its doors, and everything seen afterwards.
pub(crate) struct Case {
    /// What it says in the source.
    pub(crate) name: &'static str,
    /// What is performed.
    pub(crate) operation: Operation,
    before: Vec<Operation>,
    then: Vec<Operation>,
    patience: Patience,
    slow: Option<Duration>,
    shown: bool,
    /// Why the doors differ on Linux, where they do.
    pub(crate) difference: Option<&'static str>,
    /// It runs in a process of its own, which it may end: the status is the result then.
    pub(crate) alone: bool,
}

/// What counts as waiting where a case waits.
const WAITS: Duration = Duration::from_millis(60);
/// How long the traces of the case before are waited for.
const SETTLED: Duration = Duration::from_millis(20);

impl Case {
    pub(crate) fn new(name: &'static str, operation: Operation) -> Self {
        Self {
            name,
            operation,
            before: Vec::new(),
            then: Vec::new(),
            patience: Patience::default(),
            slow: None,
            shown: true,
            difference: None,
            alone: false,
        }
    }

    /// What is performed before, by system calls where there is one.
    pub(crate) fn after(mut self, operations: Vec<Operation>) -> Self {
        self.before = operations;
        self
    }

    /// What is performed afterwards in the same way, with results that are told.
    pub(crate) fn then(mut self, operations: Vec<Operation>) -> Self {
        self.then = operations;
        self
    }

    /// What another thread calls while it waits.
    pub(crate) fn meanwhile(mut self, operations: Vec<Operation>) -> Self {
        self.patience.meanwhile = operations;
        self
    }

    /// It does not end by itself, through one of the doors at least.
    pub(crate) fn waits(mut self) -> Self {
        self.patience.time = WAITS;
        self
    }

    /// Whether it takes as long as that, in milliseconds, is told.
    pub(crate) fn slow(mut self, milliseconds: u64) -> Self {
        self.slow = Some(Duration::from_millis(milliseconds));
        self
    }

    /// A batch gives so many completions, not one for each entry.
    pub(crate) fn completions(mut self, count: usize) -> Self {
        self.patience.completions = Some(count);
        self
    }

    /// Completions come in no certain order.
    pub(crate) fn any_order(mut self) -> Self {
        self.patience.in_order = true;
        self
    }

    /// The alarm is the case's own.
    pub(crate) fn unwatched(mut self) -> Self {
        self.patience.unwatched = true;
        self
    }

    /// Nothing but results is told.
    pub(crate) fn result_only(mut self) -> Self {
        self.shown = false;
        self
    }

    /// The doors differ on Linux.
    pub(crate) fn differs(mut self, why: &'static str) -> Self {
        self.difference = Some(why);
        self
    }

    /// It ends the program, or changes it for good.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Whether it is about time: a machine with much else to do can change what is seen.
    pub(crate) fn is_timed(&self) -> bool {
        self.slow.is_some()
            || self.patience.time == WAITS
            || !self.patience.meanwhile.is_empty()
            || self.patience.unwatched
    }

    /// The doors that it has.
    pub(crate) fn doors(&self) -> impl Iterator<Item = Door> {
        let call = self.operation.call.is_some().then_some(Door::Call);
        let ring = self.operation.batch.is_some().then_some(Door::Ring);
        call.into_iter().chain(ring)
    }

    /// The system call and the opcodes that it is about.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let call = self.operation.call.iter();
        let mut names: Vec<_> = call.map(|call| call.signature.name).collect();
        let entries = self.operation.batch.iter().flatten();
        for entry in entries {
            if !names.contains(&entry.name) {
                names.push(entry.name);
            }
        }
        names
    }

    /// Performs it through a door, in a world made new, and tells what is seen.
    pub(crate) fn run(&self, world: &mut World, door: Door) -> String {
        if let Err(error) = world.begin() {
            return format!("no world: {error}");
        }
        if self.is_timed() {
            // Linux takes a ring apart later, and interrupts whoever waits then.
            thread::sleep(SETTLED);
        }
        let mut told = Vec::new();
        let quick = Patience::default();
        for (index, operation) in self.before.iter().enumerate() {
            let Outcome { text, result, .. } = world.prepare(operation, &quick);
            if !matches!(result, Some(Ok(_))) {
                told.push(format!("before, {index} gives {text}"));
            }
        }
        let outcome = world.perform(&self.operation, door, &self.patience);
        told.push(outcome.text);
        if let Some(limit) = self.slow {
            told.push(if outcome.time < limit { "fast" } else { "slow" }.to_owned());
        }
        for operation in &self.then {
            told.push(format!("then {}", world.prepare(operation, &quick).text));
        }
        if self.shown {
            told.extend(world.observe());
        }
        told.extend(world.signals(self.patience.unwatched));
        told.join("; ")
    }
}

/// A case: an operation, `after [...]` others, `then [...]` others, and, behind a semicolon, methods
/// of [`Case`].
macro_rules! case {
    (
        $operation:expr
        $(, after [$($before:expr),* $(,)?])?
        $(, then [$($then:expr),* $(,)?])?
        $(, meanwhile [$($meanwhile:expr),* $(,)?])?
        $(; $($method:ident $(($argument:expr))?),*)?
    ) => {
        $crate::case::Case::new(
            concat!(
                $($(stringify!($before), "; ",)*)?
                stringify!($operation)
                $($(, "; then ", stringify!($then))*)?
                $($(, " while ", stringify!($meanwhile))*)?
            ),
            $operation,
        )
        $(.after(vec![$($before),*]))?
        $(.then(vec![$($then),*]))?
        $(.meanwhile(vec![$($meanwhile),*]))?
        $($(.$method($($argument)?))*)?
    };
}

pub(crate) use case;
