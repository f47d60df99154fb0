//! seccomp filters, made of the table of [calls](super::calls).
//!
//! A filter is a program that the kernel runs for each system call, and, when the filter is installed,
//! once for every number that there is. So it searches by halves: that takes a third of the time of the
//! list of comparisons that seccompiler makes, which is measurable at the start of a VM with seven
//! threads. In the tests seccompiler's says what the answers are to be.

use std::io;

use libc::c_long;
use ringlet_devices::ThreadKind;
use seccompiler::{BpfProgram, sock_filter};

use super::calls::{self, Call, When};

/// Confines the calling thread to what its kind may do, for ever, and the threads that it starts. It
/// must have no_new_privs set.
///
/// # Errors
///
/// The host does not take a filter.
pub(super) fn install(kind: ThreadKind) -> io::Result<()> {
    seccompiler::apply_filter(&compile(kind)?).map_err(|error| match error {
        seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error) => error,
        error => io::Error::other(error),
    })
}

/// Offsets in `struct seccomp_data` (seccomp(2)).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// `AUDIT_ARCH_X86_64`.
const X86_64: u32 = 62 | 1 << 31 | 1 << 30;

/// Instructions (include/uapi/linux/bpf_common.h): each works on the accumulator and a constant.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// What a program can say, in the order in which each rule ends with it.
const ANSWERS: [u32; 3] = [
    libc::SECCOMP_RET_ALLOW,
    libc::SECCOMP_RET_TRAP,
    libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
];

/// Where it goes on after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// Behind so many instructions.
    Skip(usize),
    /// The call is made.
    Allow,
    /// The call is not made, and the thread gets SIGSYS.
    Refuse,
    /// The call fails as one that the kernel does not have.
    Missing,
}

const NEXT: To = To::Skip(0);

#[derive(Clone, Copy, Debug)]
struct Step {
    code: u16,
    constant: u32,
    if_true: To,
    if_false: To,
}

/// An instruction that does not jump.
const fn plain(code: u16, constant: u32) -> Step {
    jump(code, constant, NEXT, NEXT)
}

const fn jump(code: u16, constant: u32, if_true: To, if_false: To) -> Step {
    Step {
        code,
        constant,
        if_true,
        if_false,
    }
}

/// The filter of a kind.
///
/// # Errors
///
/// It is longer than its jumps.
pub(super) fn compile(kind: ThreadKind) -> io::Result<BpfProgram> {
    let missing = calls::missing(kind);
    let mut allowed: Vec<&Call> = calls::allowed(kind)
        .iter()
        .chain([&calls::ALWAYS])
        .flat_map(|group| group.iter())
        .filter(|call| !missing.contains(&call.number))
        .collect();
    // Where a call is allowed without conditions, those elsewhere do not matter: they come later.
    allowed.sort_by_key(|call| (call.number, call.when.len()));
    let mut rules: Vec<(c_long, Vec<Step>)> = allowed
        .chunk_by(|one, other| one.number == other.number)
        .map(|calls| (calls[0].number, end(rule(calls))))
        .chain(missing.iter().map(|number| {
            let step = jump(JUMP_IF_EQUAL, *number as u32, To::Missing, To::Refuse);
            (*number, end(vec![step]))
        }))
        .collect();
    rules.sort_by_key(|(number, _)| *number);
    let [_, refuse, _] = ANSWERS;
    let mut steps = vec![
        plain(LOAD, ARCHITECTURE),
        jump(JUMP_IF_EQUAL, X86_64, To::Skip(1), NEXT),
        plain(RETURN, refuse),
        plain(LOAD, NUMBER),
    ];
    steps.extend(search(&rules));
    assemble(&steps)
}

/// Puts the answers that the last rules jump to behind them: jumps are short.
fn end(steps: Vec<Step>) -> Vec<Step> {
    let count = steps.len();
    let resolve = |index: usize, to| match to {
        To::Allow => To::Skip(count - 1 - index),
        To::Refuse => To::Skip(count - index),
        To::Missing => To::Skip(count + 1 - index),
        to => to,
    };
    let is_missing = |step: &Step| step.if_true == To::Missing || step.if_false == To::Missing;
    let answers = match steps.iter().any(is_missing) {
        true => &ANSWERS[..],
        false => &ANSWERS[..2],
    };
    let mut ended: Vec<_> = steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let (if_true, if_false) = (resolve(index, step.if_true), resolve(index, step.if_false));
            jump(step.code, step.constant, if_true, if_false)
        })
        .collect();
    ended.extend(answers.iter().map(|answer| plain(RETURN, *answer)));
    ended
}

/// Finds the rule for a number, and goes on there. Numbers of the x32 ABI are larger than any that has
/// one.
fn search(rules: &[(c_long, Vec<Step>)]) -> Vec<Step> {
    match rules {
        [] => Vec::new(),
        [(_, steps)] => steps.clone(),
        _ => {
            let (lower, upper) = rules.split_at(rules.len() / 2);
            let (first, _) = upper[0];
            let lower = search(lower);
            let skip = To::Skip(lower.len());
            let mut steps = vec![jump(JUMP_IF_AT_LEAST, first as u32, skip, NEXT)];
            steps.extend(lower);
            steps.extend(search(upper));
            steps
        }
    }
}

/// What to do about one call, which is allowed under the conditions of any of `calls`, if the number is its
/// own.
fn rule(calls: &[&Call]) -> Vec<Step> {
    let number = calls[0].number as u32;
    if calls[0].when.is_empty() {
        return vec![jump(JUMP_IF_EQUAL, number, To::Allow, To::Refuse)];
    }
    let mut steps = vec![jump(JUMP_IF_EQUAL, number, NEXT, To::Refuse)];
    for (index, call) in calls.iter().enumerate() {
        let lengths: usize = call.when.iter().map(|when| test(when).len()).sum();
        let mut left = lengths;
        for (place, when) in call.when.iter().enumerate() {
            let test = test(when);
            left -= test.len();
            let fails = match index + 1 == calls.len() {
                true => To::Refuse,
                false => To::Skip(left),
            };
            let holds = match place + 1 == call.when.len() {
                true => To::Allow,
                false => NEXT,
            };
            let last = test.len() - 1;
            steps.extend(test.into_iter().enumerate().map(|(at, step)| {
                let resolve = |to| match to {
                    To::Allow => holds,
                    To::Refuse => fails,
                    to => to,
                };
                match at == last {
                    true => jump(
                        step.code,
                        step.constant,
                        resolve(step.if_true),
                        resolve(step.if_false),
                    ),
                    false => step,
                }
            }));
        }
    }
    steps
}

/// Looks whether a condition holds: its last step allows or refuses.
fn test(when: &When) -> Vec<Step> {
    let load = |argument: u8| plain(LOAD, ARGUMENTS + 8 * u32::from(argument));
    let equals = |value| jump(JUMP_IF_EQUAL, value, To::Allow, To::Refuse);
    match *when {
        When::Is(argument, value) => vec![load(argument), equals(value)],
        When::Own(argument) => vec![load(argument), equals(std::process::id())],
        When::Has(argument, bits) => vec![load(argument), plain(AND, bits), equals(bits)],
        When::Lacks(argument, bits) => vec![
            load(argument),
            jump(JUMP_IF_ANY_SET, bits, To::Refuse, To::Allow),
        ],
    }
}

/// The program of these steps, whose jumps all skip.
fn assemble(steps: &[Step]) -> io::Result<BpfProgram> {
    let offset = |to| match to {
        To::Skip(count) => {
            u8::try_from(count).map_err(|_| io::Error::other("a filter is too long"))
        }
        _ => Err(io::Error::other("a filter has no end")),
    };
    let step = |step: &Step| {
        Ok(sock_filter {
            code: step.code,
            jt: offset(step.if_true)?,
            jf: offset(step.if_false)?,
            k: step.constant,
        })
    };
    steps.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };
    use std::collections::BTreeMap;

    /// What `program` says of a call.
    fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let step = &program[at];
            at += 1;
            let condition = match step.code {
                LOAD => {
                    accumulator = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        offset => arguments[(offset - ARGUMENTS) as usize / 8],
                    };
                    continue;
                }
                AND => {
                    accumulator &= step.k;
                    continue;
                }
                RETURN => return step.k,
                // An unconditional jump, which only seccompiler's programs have.
                0x05 => {
                    at += step.k as usize;
                    continue;
                }
                JUMP_IF_EQUAL => accumulator == step.k,
                JUMP_IF_AT_LEAST => accumulator >= step.k,
                JUMP_IF_ANY_SET => accumulator & step.k != 0,
                code => panic!("instruction {code:#x}"),
            };
            at += usize::from(if condition { step.jt } else { step.jf });
        }
    }

    /// The same filter by seccompiler, but for what is missing.
    fn oracle(kind: ThreadKind) -> BpfProgram {
        let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
        let groups = calls::allowed(kind).iter().chain([&calls::ALWAYS]);
        let calls: Vec<&Call> = groups.flat_map(|group| group.iter()).collect();
        for call in &calls {
            let rules = rules.entry(call.number).or_default();
            let is_free = |other: &&Call| other.number == call.number && other.when.is_empty();
            if !calls.iter().any(is_free) {
                let conditions = call.when.iter().map(|when| {
                    use SeccompCmpOp::{Eq, MaskedEq};
                    let (argument, operator, value) = match *when {
                        When::Is(argument, value) => (argument, Eq, value),
                        When::Has(argument, bits) => (argument, MaskedEq(bits.into()), bits),
                        When::Lacks(argument, bits) => (argument, MaskedEq(bits.into()), 0),
                        When::Own(argument) => (argument, Eq, std::process::id()),
                    };
                    let length = SeccompCmpArgLen::Dword;
                    SeccompCondition::new(argument, length, operator, value.into()).unwrap()
                });
                rules.push(SeccompRule::new(conditions.collect()).unwrap());
            }
        }
        let (trap, allow) = (SeccompAction::Trap, SeccompAction::Allow);
        let filter = SeccompFilter::new(rules, trap, allow, TargetArch::x86_64).unwrap();
        filter.try_into().unwrap()
    }

    /// Arguments that conditions of the table tell apart: each alone, and others beside it.
    fn interesting() -> Vec<u32> {
        let mut values = vec![0, 1, 2, 3, u32::MAX, std::process::id()];
        for kind in ThreadKind::ALL {
            for call in calls::allowed(kind)
                .iter()
                .chain([&calls::ALWAYS])
                .copied()
                .flatten()
            {
                for when in call.when {
                    let (When::Is(_, value) | When::Has(_, value) | When::Lacks(_, value)) = when
                    else {
                        continue;
                    };
                    values.extend([*value, value ^ 1, value | 0x10, !value]);
                }
            }
        }
        values.sort_unstable();
        values.dedup();
        values
    }

    #[test]
    fn all_kinds_answer_as_seccompiler_does() {
        let values = interesting();
        for kind in ThreadKind::ALL {
            let (program, oracle) = (compile(kind).unwrap(), oracle(kind));
            for number in 0..600 {
                let is_missing = calls::missing(kind).contains(&c_long::from(number));
                let mut groups = calls::allowed(kind).iter().chain([&calls::ALWAYS]);
                let has_conditions =
                    |call: &Call| call.number == c_long::from(number) && !call.when.is_empty();
                // Where the arguments do not matter, one is enough.
                let values = match groups.any(|group| group.iter().any(has_conditions)) {
                    true => &values[..],
                    false => &values[..1],
                };
                for value in values {
                    for place in 0..4 {
                        // The other arguments as most calls that are allowed have them.
                        for others in [0, libc::MAP_ANONYMOUS as u32, std::process::id()] {
                            let mut arguments = [others; 6];
                            arguments[place] = *value;
                            let answer = run(&program, X86_64, number, arguments);
                            match is_missing {
                                true => assert_eq!(answer, ANSWERS[2], "{kind} {number}"),
                                false => assert_eq!(
                                    answer,
                                    run(&oracle, X86_64, number, arguments),
                                    "{kind} {number} {arguments:x?}"
                                ),
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn other_architectures_and_the_x32_abi_are_refused() {
        for kind in ThreadKind::ALL {
            let program = compile(kind).unwrap();
            for number in [0, 1, libc::SYS_futex as u32, libc::SYS_exit_group as u32] {
                const I386: u32 = 3 | 1 << 30;
                let [_, refuse, _] = ANSWERS;
                assert_eq!(run(&program, I386, number, [0; 6]), refuse);
                assert_eq!(run(&program, X86_64, number | 1 << 30, [0; 6]), refuse);
            }
        }
    }

    /// What nobody in the jail may do, whatever else changes in the table.
    #[test]
    fn no_kind_can_start_programs_open_files_or_reach_others() {
        let calls = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_creat,
            libc::SYS_open_by_handle_at,
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_memfd_create,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_register,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_mount,
            libc::SYS_move_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_chroot,
            libc::SYS_pivot_root,
            libc::SYS_setuid,
            libc::SYS_setresuid,
            libc::SYS_capset,
            libc::SYS_seccomp,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_modify_ldt,
            libc::SYS_arch_prctl,
            libc::SYS_personality,
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_iopl,
            libc::SYS_ioperm,
        ];
        for kind in ThreadKind::ALL {
            let program = compile(kind).unwrap();
            for number in calls {
                let opens = [libc::SYS_openat, libc::SYS_openat2].contains(&number);
                if opens && calls::serves_files(kind) {
                    continue;
                }
                for argument in interesting() {
                    let answer = run(&program, X86_64, number as u32, [argument; 6]);
                    assert_ne!(answer, ANSWERS[0], "{kind} {number}");
                }
            }
            let executable = [
                0,
                0,
                libc::PROT_EXEC as u32,
                libc::MAP_ANONYMOUS as u32,
                0,
                0,
            ];
            for number in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
                let answer = run(&program, X86_64, number as u32, executable);
                assert_ne!(answer, ANSWERS[0], "{kind} {number}");
            }
        }
    }
}
