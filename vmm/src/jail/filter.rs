//! seccomp filters, made of the table of [calls](super::calls).

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use ringlet_devices::ThreadKind;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::calls::{self, Call, When};

/// Confines the calling thread to what its kind may do, for ever, and the threads that it starts. It
/// must have no_new_privs set.
///
/// # Errors
///
/// The host does not take a filter.
pub(super) fn install(kind: ThreadKind) -> io::Result<()> {
    for program in compile(kind).map_err(io::Error::other)? {
        seccompiler::apply_filter(&program).map_err(|error| match error {
            seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error) => error,
            error => io::Error::other(error),
        })?;
    }
    Ok(())
}

/// The programs of a kind, to be installed in this order. The kernel takes the gravest of their words.
pub(super) fn compile(kind: ThreadKind) -> Result<Vec<BpfProgram>, BackendError> {
    let missing = calls::missing(kind);
    let mut programs = Vec::new();
    if !missing.is_empty() {
        let rules = missing.iter().map(|number| (*number, Vec::new())).collect();
        let no_such_call = SeccompAction::Errno(libc::ENOSYS as u32);
        programs.push(program(rules, SeccompAction::Allow, no_such_call)?);
    }
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    let groups = calls::allowed(kind).iter().chain([&calls::ALWAYS]);
    // Where a call is allowed without conditions, those elsewhere do not matter.
    let calls: Vec<&Call> = groups.flat_map(|group| group.iter()).collect();
    for call in &calls {
        let rules = rules.entry(call.number).or_default();
        if !calls
            .iter()
            .any(|other| other.number == call.number && other.when.is_empty())
        {
            let conditions = call.when.iter().map(condition);
            rules.push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
        }
    }
    programs.push(program(rules, SeccompAction::Trap, SeccompAction::Allow)?);
    Ok(programs)
}

fn program(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    where_it_matches: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, where_it_matches, TargetArch::x86_64)?.try_into()
}

fn condition(when: &When) -> Result<SeccompCondition, BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let (argument, length, operator, value) = match *when {
        When::Is(argument, value) => (argument, Dword, Eq, value.into()),
        When::Has(argument, bits) => (argument, Qword, MaskedEq(bits), bits),
        When::Lacks(argument, bits) => (argument, Qword, MaskedEq(bits), 0),
        When::Own(argument) => (argument, Dword, Eq, std::process::id().into()),
    };
    SeccompCondition::new(argument, length, operator, value)
}
