//! Four results for each case of `four-way`: by the system call and by the SQE, on the host, where
//! that is a Linux 6.18, and in the guest. What the host says is right; where its own doors differ, the
//! case says so. The cases of an operation are a test.

mod coverage;
mod known_faults;
mod program;

use std::collections::BTreeMap;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use ringlet_tests::host_is_the_oracle;

use crate::program::{Case, Door, Place, Program};

/// How often what is about time is tried.
const TRIES: usize = 4;

fn main() {
    let arguments = Arguments::from_args();
    let program = Arc::new(Program::new());
    let mut trials = Vec::new();
    if host_is_the_oracle() {
        let mut operations = BTreeMap::<String, Vec<Case>>::new();
        for case in program.cases() {
            let cases = operations.entry(case.operation().to_owned()).or_default();
            cases.push(case.clone());
        }
        for (name, cases) in operations {
            let program = Arc::clone(&program);
            trials.push(Trial::test(name, move || agree(&program, &cases)));
        }
    }
    let all = Arc::clone(&program);
    trials.push(Trial::test("everything_has_cases", move || {
        coverage::check(&all)
    }));
    let faults = Trial::test("known_faults_are_of_cases", move || {
        known_faults_are_of_cases(&program)
    });
    trials.push(faults);
    libtest_mimic::run(&arguments, trials).exit();
}

/// Whether the results of these cases agree, known faults excepted.
fn agree(program: &Program, cases: &[Case]) -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for case in cases {
        let mut host = Vec::new();
        for door in &case.doors {
            let is_known = known_faults::contains(*door, &case.name);
            let seen = program.seen(Place::Host, case, *door);
            host.push(seen.clone());
            if !coverage::has(case, *door) {
                continue;
            }
            let difference = differs(program, case, *door);
            match difference {
                Some(_) if is_known => {}
                Some(difference) => wrong.push(difference),
                None if is_known => wrong.push(format!(
                    "{} {}: agrees; it is no known fault any more",
                    door.name(),
                    case.name
                )),
                None => {}
            }
        }
        // What a case says of Linux's doors holds of Linux.
        if let [call, ring] = &host[..]
            && (call != ring) != case.differs
            && !(case.timed && doors_agree_in_some_try(program, case))
        {
            let said = if case.differs { "do not" } else { "do" };
            wrong.push(format!(
                "{}: the host's doors {said} differ\n    call: {call}\n    ring: {ring}",
                case.name
            ));
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n").into()),
    }
}

/// How guest and host differ, if they do.
fn differs(program: &Program, case: &Case, door: Door) -> Option<String> {
    let host = program.seen(Place::Host, case, door);
    let guest = program.seen(Place::Guest, case, door);
    if host == guest {
        return None;
    }
    let tries = if case.timed { TRIES } else { 0 };
    for _ in 0..tries {
        let again = |place| program.seen_again(place, case, door);
        if again(Place::Host) == again(Place::Guest) {
            return None;
        }
    }
    Some(format!(
        "{} {}\n    host:  {host}\n    guest: {guest}",
        door.name(),
        case.name
    ))
}

/// Whether the host's doors agree, or differ, as the case says in some try.
fn doors_agree_in_some_try(program: &Program, case: &Case) -> bool {
    (0..TRIES).any(|_| {
        let again = |door| program.seen_again(Place::Host, case, door);
        (again(Door::Call) != again(Door::Ring)) == case.differs
    })
}

fn known_faults_are_of_cases(program: &Program) -> Result<(), Failed> {
    let is_case = |door: Door, name: &str| {
        let mut cases = program.cases().iter();
        cases.any(|case| case.name == name && case.doors.contains(&door))
    };
    let strange: Vec<_> = known_faults::all()
        .filter(|(door, name)| !is_case(*door, name))
        .map(|(door, name)| format!("{} {name}", door.name()))
        .collect();
    match strange.is_empty() {
        true => Ok(()),
        false => Err(format!("no such case: {}", strange.join("\n")).into()),
    }
}
