//! Signals.

use guest_programs::doors::calls::*;
use guest_programs::doors::*;
use libc::{
    SA_RESTART, SIG_BLOCK, SIG_IGN, SIG_SETMASK, SIG_UNBLOCK, SIGALRM, SIGKILL, SIGSTOP, SIGUSR1,
    SIGWINCH,
};

use crate::case::{Case, case};

const NULL: i64 = 0;
const NOBODY: i32 = 1 << 22;

fn set(signal: i32) -> u64 {
    1 << (signal - 1)
}

pub(crate) fn cases() -> Vec<Case> {
    [actions(), masks(), sends(), waits()]
        .into_iter()
        .flatten()
        .collect()
}

fn actions() -> Vec<Case> {
    let ignore = || words([SIG_IGN as u64, 0, 0, 0]);
    vec![
        case!(rt_sigaction(SIGWINCH, NULL, Memory::Opaque(32), 8)),
        case!(rt_sigaction(SIGWINCH, ignore(), NULL, 8)),
        case!(
            rt_sigaction(
                SIGUSR1,
                words([SIG_IGN as u64, SA_RESTART as u64, 0, u64::MAX]),
                NULL,
                8
            ),
            then[rt_sigaction(SIGUSR1, NULL, room(32), 8)]
        ),
        case!(
            rt_sigaction(SIGUSR1, words([SIG_IGN as u64, u64::MAX, 0, 0]), NULL, 8),
            then[rt_sigaction(SIGUSR1, NULL, room(32), 8)]
        ),
        case!(rt_sigaction(0, NULL, room(32), 8)),
        case!(rt_sigaction(65, NULL, room(32), 8)),
        case!(rt_sigaction(-1, NULL, room(32), 8)),
        case!(rt_sigaction(64, ignore(), NULL, 8)),
        case!(rt_sigaction(SIGKILL, ignore(), NULL, 8)),
        case!(rt_sigaction(SIGKILL, NULL, room(32), 8)),
        case!(rt_sigaction(SIGSTOP, ignore(), NULL, 8)),
        case!(rt_sigaction(SIGKILL, UNMAPPED, NULL, 8)),
        case!(rt_sigaction(SIGWINCH, UNMAPPED, NULL, 8)),
        case!(rt_sigaction(SIGWINCH, UNMAPPED, NULL, 4)),
        case!(rt_sigaction(SIGWINCH, NULL, UNMAPPED, 8)),
        case!(rt_sigaction(SIGWINCH, ignore(), UNMAPPED, 8)),
        case!(rt_sigaction(65, UNMAPPED, NULL, 8)),
    ]
}

fn masks() -> Vec<Case> {
    let told = || rt_sigprocmask(SIG_BLOCK, NULL, room(8), 8);
    vec![
        case!(
            rt_sigprocmask(SIG_SETMASK, words([set(SIGUSR1)]), room(8), 8),
            then[told()]
        ),
        case!(
            rt_sigprocmask(SIG_SETMASK, words([u64::MAX]), NULL, 8),
            then[told()]
        ),
        case!(
            rt_sigprocmask(SIG_UNBLOCK, words([set(SIGUSR1)]), NULL, 8),
            then[told()]
        ),
        case!(
            rt_sigprocmask(SIG_BLOCK, words([set(SIGALRM)]), NULL, 8),
            then[told()]
        ),
        case!(rt_sigprocmask(3, words([0]), NULL, 8)),
        case!(rt_sigprocmask(3, NULL, room(8), 8)),
        case!(rt_sigprocmask(-1, UNMAPPED, NULL, 8)),
        case!(rt_sigprocmask(SIG_BLOCK, words([0]), NULL, 4)),
        case!(rt_sigprocmask(SIG_BLOCK, UNMAPPED, NULL, 4)),
        case!(rt_sigprocmask(SIG_BLOCK, UNMAPPED, NULL, 8)),
        case!(rt_sigprocmask(SIG_BLOCK, NULL, UNMAPPED, 8)),
        case!(
            rt_sigprocmask(SIG_SETMASK, words([0]), UNMAPPED, 8),
            then[told()]
        ),
        case!(rt_sigpending(room(8), 8)),
        case!(rt_sigpending(room(8), 4)),
        case!(rt_sigpending(room(8), 0)),
        case!(rt_sigpending(room(8), 9)),
        case!(rt_sigpending(UNMAPPED, 8)),
        case!(rt_sigpending(UNMAPPED, 9)),
        case!(sigaltstack(NULL, Memory::Opaque(24)); result_only),
        case!(sigaltstack(words([0x1000_0000, 0, 1 << 20]), NULL), then [sigaltstack(NULL, room(24)), sigaltstack(words([0, 2, 0]), NULL)]),
        case!(sigaltstack(words([0x1000_0000, 0, 100]), NULL)),
        case!(sigaltstack(words([0x1000_0000, 99, 1 << 20]), NULL)),
        case!(sigaltstack(UNMAPPED, NULL)),
        case!(sigaltstack(NULL, UNMAPPED)),
        case!(sigaltstack(UNMAPPED, UNMAPPED)),
    ]
}

fn sends() -> Vec<Case> {
    vec![
        case!(kill(NOBODY, 0)),
        case!(kill(NOBODY, SIGUSR1)),
        case!(kill(NOBODY, 65)),
        case!(kill(NOBODY, -1)),
        case!(kill(i32::MIN, 0)),
        case!(kill(-NOBODY, 0)),
        case!(kill(made(0), 0), after[getpid()]),
        case!(kill(made(0), SIGUSR1), after[getpid()]),
        case!(kill(made(0), SIGWINCH), after[getpid()]),
        case!(kill(made(0), 64), after[getpid()], then[kill(made(0), 64)]),
        case!(kill(made(0), 65), after[getpid()]),
        case!(tkill(made(0), SIGUSR1), after[gettid()]),
        case!(tkill(made(0), 0), after[gettid()]),
        case!(tkill(made(0), 65), after[gettid()]),
        case!(tkill(NOBODY, 0)),
        case!(tkill(0, 0)),
        case!(tkill(-1, 65)),
        case!(tgkill(made(0), made(1), SIGUSR1), after [getpid(), gettid()]),
        case!(tgkill(made(0), NOBODY, 0), after[getpid()]),
        case!(tgkill(NOBODY, made(0), 0), after[gettid()]),
        case!(tgkill(0, made(0), 0), after[gettid()]),
        case!(tgkill(made(0), -1, 0), after[getpid()]),
        case!(tgkill(made(0), made(1), 65), after [getpid(), gettid()]),
    ]
}

fn waits() -> Vec<Case> {
    vec![
        case!(pause(); waits),
        case!(rt_sigsuspend(words([0]), 8); waits),
        case!(rt_sigsuspend(words([0]), 4)),
        case!(rt_sigsuspend(UNMAPPED, 4)),
        case!(rt_sigsuspend(UNMAPPED, 8)),
        case!(rt_sigtimedwait(
            words([set(SIGUSR1)]),
            record(Record::Signal),
            fixed_time(0, 0),
            8
        )),
        case!(rt_sigtimedwait(
            words([set(SIGUSR1)]),
            record(Record::Signal),
            fixed_time(0, 1_000_000),
            8
        )),
        case!(rt_sigtimedwait(words([set(SIGUSR1)]), record(Record::Signal), fixed_time(0, 0), 8), after [getpid(), kill(made(0), SIGUSR1)]),
        case!(rt_sigtimedwait(words([set(SIGUSR1)]), record(Record::Signal), NULL, 8), after [gettid(), tkill(made(0), SIGUSR1)]),
        case!(rt_sigtimedwait(words([set(SIGUSR1)]), NULL, fixed_time(0, 0), 8), after [getpid(), kill(made(0), SIGUSR1)]),
        case!(rt_sigtimedwait(words([set(SIGUSR1)]), UNMAPPED, fixed_time(0, 0), 8), after [getpid(), kill(made(0), SIGUSR1)]),
        case!(
            rt_sigtimedwait(
                words([set(SIGUSR1)]),
                record(Record::Signal),
                fixed_time(10, 0),
                8
            ),
            after[getpid()],
            meanwhile[kill(made(0), SIGUSR1)]
        ),
        case!(rt_sigtimedwait(
            words([set(SIGUSR1)]),
            NULL,
            fixed_time(0, -1),
            8
        )),
        case!(rt_sigtimedwait(words([set(SIGUSR1)]), NULL, UNMAPPED, 8)),
        case!(rt_sigtimedwait(UNMAPPED, NULL, UNMAPPED, 8)),
        case!(rt_sigtimedwait(UNMAPPED, NULL, UNMAPPED, 4)),
    ]
}
