//! Clocks and timers, and the system's own names and numbers.

use guest_programs::doors::calls::*;
use guest_programs::doors::*;
use libc::{
    CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, CLOCK_REALTIME_ALARM,
    CLOCK_REALTIME_COARSE, CLOCK_TAI, CLOCK_THREAD_CPUTIME_ID, ITIMER_PROF, ITIMER_REAL,
    ITIMER_VIRTUAL, TIMER_ABSTIME,
};

use crate::case::{Case, case};

const NULL: i64 = 0;
/// The clock of descriptor 100, which is not open.
const DYNAMIC: i32 = !100 << 3 | 3;
/// The processor time of a process that there is not.
const OF_NOBODY: i32 = !(1 << 22) << 3 | 2;

pub(crate) fn cases() -> Vec<Case> {
    [sleeps(), clocks(), sets(), timers(), system()]
        .into_iter()
        .flatten()
        .collect()
}

fn sleeps() -> Vec<Case> {
    vec![
        case!(nanosleep(fixed_time(0, 1), NULL)),
        case!(nanosleep(fixed_time(0, 0), NULL)),
        case!(nanosleep(fixed_time(10, 0), Memory::Opaque(16)); waits),
        case!(nanosleep(fixed_time(10, 0), UNMAPPED); waits),
        case!(nanosleep(fixed_time(0, -1), NULL)),
        case!(nanosleep(fixed_time(0, 1_000_000_000), NULL)),
        case!(nanosleep(fixed_time(-1, 0), NULL)),
        case!(nanosleep(UNMAPPED, NULL)),
        case!(clock_nanosleep(CLOCK_MONOTONIC, 0, fixed_time(0, 1), NULL)),
        case!(clock_nanosleep(
            CLOCK_MONOTONIC,
            TIMER_ABSTIME,
            fixed_time(0, 1),
            NULL
        )),
        case!(clock_nanosleep(
            CLOCK_REALTIME,
            TIMER_ABSTIME,
            fixed_time(1, 0),
            NULL
        )),
        case!(clock_nanosleep(CLOCK_BOOTTIME, 0, fixed_time(0, 1), NULL)),
        case!(clock_nanosleep(CLOCK_TAI, 0, fixed_time(0, 1), NULL)),
        case!(clock_nanosleep(
            CLOCK_MONOTONIC_RAW,
            0,
            fixed_time(0, 1),
            NULL
        )),
        case!(clock_nanosleep(
            CLOCK_REALTIME_COARSE,
            0,
            fixed_time(0, 1),
            NULL
        )),
        case!(clock_nanosleep(
            CLOCK_THREAD_CPUTIME_ID,
            0,
            fixed_time(0, 1),
            NULL
        )),
        case!(clock_nanosleep(CLOCK_MONOTONIC, 2, fixed_time(0, 1), NULL)),
        case!(clock_nanosleep(99, 0, fixed_time(0, 1), NULL)),
        case!(clock_nanosleep(99, 0, UNMAPPED, NULL)),
        case!(clock_nanosleep(DYNAMIC, 0, UNMAPPED, NULL)),
        case!(clock_nanosleep(DYNAMIC, 0, fixed_time(0, 1), NULL)),
        case!(clock_nanosleep(CLOCK_MONOTONIC, 0, UNMAPPED, NULL)),
        case!(clock_nanosleep(CLOCK_MONOTONIC, 0, fixed_time(0, -1), NULL)),
        case!(clock_nanosleep(99, 0, fixed_time(0, -1), NULL)),
        case!(clock_nanosleep(
            CLOCK_MONOTONIC_RAW,
            0,
            fixed_time(0, -1),
            NULL
        )),
        case!(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, UNMAPPED, NULL)),
        case!(clock_nanosleep(CLOCK_MONOTONIC, 0, fixed_time(10, 0), Memory::Opaque(16)); waits),
        case!(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, fixed_time(1 << 40, 0), Memory::Opaque(16)); waits),
    ]
}

fn clocks() -> Vec<Case> {
    vec![
        case!(clock_gettime(CLOCK_REALTIME, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_MONOTONIC, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_THREAD_CPUTIME_ID, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_MONOTONIC_RAW, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_REALTIME_COARSE, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_MONOTONIC_COARSE, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_BOOTTIME, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_REALTIME_ALARM, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_BOOTTIME_ALARM, Memory::Opaque(16)); result_only),
        case!(clock_gettime(CLOCK_TAI, Memory::Opaque(16)); result_only),
        case!(clock_gettime(10, room(16))),
        case!(clock_gettime(12, room(16))),
        case!(clock_gettime(-1, room(16)); result_only),
        case!(clock_gettime(DYNAMIC, room(16))),
        case!(clock_gettime(OF_NOBODY, room(16))),
        case!(clock_gettime(99, UNMAPPED)),
        case!(clock_gettime(CLOCK_REALTIME, UNMAPPED)),
        case!(clock_getres(CLOCK_REALTIME, room(16))),
        case!(clock_getres(CLOCK_MONOTONIC, NULL)),
        case!(clock_getres(CLOCK_REALTIME_COARSE, Memory::Opaque(16)); result_only),
        case!(clock_getres(CLOCK_PROCESS_CPUTIME_ID, room(16))),
        case!(clock_getres(CLOCK_THREAD_CPUTIME_ID, room(16))),
        case!(clock_getres(-6, room(16))),
        case!(clock_getres(-2, room(16))),
        case!(clock_getres(-1, room(16))),
        case!(clock_getres(CLOCK_REALTIME, UNMAPPED)),
        case!(clock_getres(99, room(16))),
        case!(clock_getres(99, UNMAPPED)),
        case!(clock_getres(DYNAMIC, room(16))),
        case!(clock_getres(DYNAMIC, UNMAPPED)),
        case!(clock_getres(OF_NOBODY, room(16))),
        case!(clock_getres(OF_NOBODY, UNMAPPED)),
        case!(gettimeofday(Memory::Opaque(16), NULL); result_only),
        case!(gettimeofday(NULL, room(8))),
        case!(gettimeofday(NULL, NULL)),
        case!(gettimeofday(UNMAPPED, NULL)),
        case!(gettimeofday(NULL, UNMAPPED)),
        case!(time(Memory::Opaque(8)); result_only),
        case!(time(NULL)),
        case!(time(UNMAPPED)),
    ]
}

/// The host's clocks are left alone.
fn sets() -> Vec<Case> {
    vec![
        case!(clock_settime(CLOCK_MONOTONIC, fixed_time(1, 0))),
        case!(clock_settime(99, fixed_time(1, 0))),
        case!(clock_settime(99, UNMAPPED)),
        case!(clock_settime(CLOCK_REALTIME, UNMAPPED)),
        case!(clock_settime(CLOCK_REALTIME, fixed_time(0, -1))),
        case!(clock_settime(CLOCK_REALTIME, fixed_time(-1, 0))),
        case!(
            clock_settime(CLOCK_REALTIME, fixed_time(1, 0)),
            after[setresuid(-1, 1000, -1)]
        ),
        case!(settimeofday(NULL, NULL)),
        case!(settimeofday(UNMAPPED, NULL)),
        case!(settimeofday(NULL, UNMAPPED)),
        case!(settimeofday(words([0, 1_000_001]), NULL)),
        case!(
            settimeofday(words([1, 0]), NULL),
            after[setresuid(-1, 1000, -1)]
        ),
    ]
}

fn timers() -> Vec<Case> {
    vec![
        case!(getitimer(ITIMER_VIRTUAL, room(32))),
        case!(getitimer(3, room(32))),
        case!(getitimer(3, UNMAPPED)),
        case!(getitimer(ITIMER_VIRTUAL, UNMAPPED)),
        case!(
            setitimer(ITIMER_VIRTUAL, words([0, 0, 1000, 0]), room(32)),
            then[getitimer(ITIMER_PROF, room(32))]
        ),
        case!(setitimer(ITIMER_REAL, words([0, 0, 1000, 0]), room(32)), then [setitimer(ITIMER_REAL, words([0, 0, 0, 0]), NULL)]; unwatched),
        case!(setitimer(ITIMER_REAL, NULL, room(32)); unwatched),
        case!(setitimer(ITIMER_VIRTUAL, words([0, 0, 0, 1_000_000]), NULL)),
        case!(setitimer(ITIMER_VIRTUAL, words([0, 0, u64::MAX, 0]), NULL)),
        case!(setitimer(3, words([0, 0, 0, 0]), NULL)),
        case!(setitimer(3, UNMAPPED, NULL)),
        case!(setitimer(ITIMER_VIRTUAL, UNMAPPED, NULL)),
        case!(setitimer(ITIMER_VIRTUAL, words([0, 0, 0, 0]), UNMAPPED)),
        case!(alarm(100), then [alarm(0)]; unwatched),
        case!(alarm(0), after [alarm(100)]; unwatched),
    ]
}

fn system() -> Vec<Case> {
    vec![
        case!(uname(Memory::Opaque(390)); result_only),
        case!(uname(UNMAPPED)),
        case!(uname(READ_ONLY)),
        case!(sethostname("name", 4), then[sethostname("", 0)]),
        case!(sethostname("name", -1)),
        case!(sethostname("name", 65)),
        case!(sethostname(UNMAPPED, 65)),
        case!(sethostname(UNMAPPED, 4)),
        case!(sethostname(UNMAPPED, 65), after[setresuid(-1, 1000, -1)]),
        case!(setdomainname("name", 4)),
        case!(setdomainname("name", 65)),
        case!(setdomainname(UNMAPPED, 4)),
        case!(setdomainname("name", 4), after[setresuid(-1, 1000, -1)]),
        case!(sysinfo(Memory::Opaque(112)); result_only),
        case!(sysinfo(UNMAPPED)),
        case!(getrandom(room(8), 8, 0); result_only),
        case!(getrandom(room(8), 8, 7)),
        case!(getrandom(room(8), 8, 6)),
        case!(getrandom(room(8), 8, 8)),
        case!(getrandom(UNMAPPED, 8, 8)),
        case!(getrandom(UNMAPPED, 8, 0)),
        case!(getrandom(UNMAPPED, 0, 0)),
        case!(getrandom(edge(4), 8, 0); result_only),
    ]
}
