//! Every system call and opcode of the kernel's tables has a case of its success, and one of its
//! failure.

use std::collections::HashMap;

use libtest_mimic::Failed;
use ringlet_tests::host_is_the_oracle;

use crate::program::{Case, Door, Place, Program};

/// What never fails: it has cases of its success only.
const NEVER_FAILS: &[&str] = &[
    "sync",
    "umask",
    "brk",
    "munlockall",
    "exit",
    "exit_group",
    "getpid",
    "gettid",
    "getppid",
    "getpgrp",
    "set_tid_address",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "setfsuid",
    "setfsgid",
    "personality",
    "alarm",
    "sched_yield",
    // It only ever waits.
    "pause",
];
/// What has no case of a success, and why.
const NEVER_SUCCEEDS: &[(&str, &str)] = &[
    (
        "clone",
        "a child needs code of its own: process-test has it",
    ),
    ("clone3", "as clone"),
    ("wait4", "as clone"),
    ("waitid", "as clone"),
    ("rseq", "libc has registered its area: thread-test has it"),
    ("clock_settime", "the host's clock is not the test's to set"),
];

/// What has no case here yet: programs that check it by name run on host and guest as well.
const CHECKED_ELSEWHERE: &[(&str, &[&str])] = &[
    (
        "signal-test",
        &[
            "rt_sigreturn",
            "rt_sigqueueinfo",
            "rt_tgsigqueueinfo",
            "restart_syscall",
            "timer_create",
            "timer_settime",
            "timer_gettime",
            "timer_getoverrun",
            "timer_delete",
        ],
    ),
    (
        "uring-test",
        &[
            "IORING_OP_POLL_ADD",
            "IORING_OP_POLL_REMOVE",
            "IORING_OP_LINK_TIMEOUT",
            "IORING_OP_FUTEX_WAIT",
            "IORING_OP_FUTEX_WAKE",
            "IORING_OP_FUTEX_WAITV",
        ],
    ),
    (
        "process-test",
        &[
            "fork",
            "vfork",
            "execve",
            "execveat",
            "pidfd_open",
            "pidfd_send_signal",
            "pidfd_getfd",
        ],
    ),
    ("the kernel's unit tests", &["mount", "umount2"]),
];

/// What the kernel has: system calls by the names of their numbers, opcodes by theirs.
fn implemented() -> impl Iterator<Item = String> {
    let calls = kernel::syscall::IMPLEMENTED.iter();
    let calls = calls.map(|name| name.trim_start_matches("__NR_").to_owned());
    let opcodes = kernel::io_uring::implemented();
    calls.chain(opcodes.map(|name| format!("IORING_OP_{name}")))
}

/// Whether the guest's kernel has what the case asks of that door.
pub(crate) fn has(case: &Case, door: Door) -> bool {
    // What no Linux has is refused by every kernel.
    let is_unknown = |name: &String| name == "IORING_OP_250";
    let is_opcode = |name: &&String| name.starts_with("IORING_OP_");
    let mut names = case
        .names
        .iter()
        .filter(|name| is_opcode(name) == (door == Door::Ring));
    names.all(|name| is_unknown(name) || implemented().any(|known| known == *name))
}

/// What is missing of the cases.
pub(crate) fn check(program: &Program) -> Result<(), Failed> {
    // Whether there is a case of a success, and of a failure, by name.
    let mut covered = HashMap::<&str, [bool; 2]>::new();
    let is_oracle = host_is_the_oracle();
    for case in program.cases() {
        for door in &case.doors {
            let seen = match is_oracle {
                true => program.seen(Place::Host, case, *door),
                false => "both, E".to_owned(),
            };
            // What comes first is the result, or those of a batch.
            let results = seen.split(';').next().unwrap_or_default();
            for name in &case.names {
                let is_opcode = name.starts_with("IORING_OP_");
                if is_opcode == (*door == Door::Ring) {
                    let found = covered.entry(name).or_default();
                    let mut results = results.split(", ").map(|result| {
                        let value = result.split(": ").last().unwrap_or_default();
                        value.starts_with('E')
                    });
                    for failed in results.by_ref() {
                        found[usize::from(failed)] = true;
                    }
                }
            }
        }
    }
    let mut missing = Vec::new();
    let is_elsewhere = |name: &str| {
        let mut all = CHECKED_ELSEWHERE.iter().flat_map(|(_, names)| *names);
        all.any(|known| *known == name)
    };
    for name in implemented().filter(|name| !is_elsewhere(name)) {
        let [succeeds, fails] = covered.get(name.as_str()).copied().unwrap_or_default();
        if !succeeds && !NEVER_SUCCEEDS.iter().any(|(exempt, _)| *exempt == name) {
            missing.push(format!("{name}: no case of a success"));
        }
        if !fails && !NEVER_FAILS.contains(&name.as_str()) {
            missing.push(format!("{name}: no case of a failure"));
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(missing.join("\n").into()),
    }
}
