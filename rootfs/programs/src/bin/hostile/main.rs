//! `hostile CASE`: does something that a program must not do, or may do and hardly any does. It ends
//! by a signal, or with status 0 if there was nothing wrong with it; `--list` shows the cases.
//!
//! Another thread computes meanwhile, so that a machine with one CPU switches and one with several
//! has to stop them all.

mod code;
mod flags;
mod gs;
mod instructions;
mod memory;
mod segments;
mod stack;

use std::process::ExitCode;

/// A case. It returns if the program may go on; the value says whether all was as it should be.
type Case = (&'static str, fn() -> bool);

const CASES: &[&[Case]] = &[
    flags::CASES,
    gs::CASES,
    memory::CASES,
    segments::CASES,
    stack::CASES,
];

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name == "--list" {
        let cases = CASES.iter().copied().flatten().map(|(name, _)| *name);
        let names = instructions::NAMES.iter().map(|(name, _)| *name);
        cases.chain(names).for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    std::thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    let case = CASES
        .iter()
        .copied()
        .flatten()
        .find(|(known, _)| *known == name);
    let is_right = match case {
        Some((_, case)) => case(),
        None => match instructions::NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, bytes)) => instructions::execute(bytes),
            None => {
                eprintln!("Usage: hostile CASE|--list");
                return ExitCode::from(2);
            }
        },
    };
    ExitCode::from(u8::from(!is_right))
}
