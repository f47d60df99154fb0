//! Scheduling, and futexes.

use guest_programs::doors::calls::*;
use guest_programs::doors::*;
use libc::{
    FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_CMP_REQUEUE_PI, FUTEX_FD, FUTEX_LOCK_PI,
    FUTEX_LOCK_PI2, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI,
    FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_WAKE, FUTEX_WAKE_BITSET,
    FUTEX_WAKE_OP, SCHED_BATCH, SCHED_DEADLINE, SCHED_FIFO, SCHED_IDLE, SCHED_OTHER, SCHED_RR,
};

use crate::case::{Case, case};

const NULL: i64 = 0;
const NOBODY: i32 = 1 << 22;

pub(crate) fn cases() -> Vec<Case> {
    [
        processors(),
        policies(),
        waits(),
        wakes(),
        requeues(),
        owned(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn processors() -> Vec<Case> {
    vec![
        case!(sched_getaffinity(0, 128, Memory::Opaque(8)); result_only),
        case!(sched_getaffinity(0, 0, room(8))),
        case!(sched_getaffinity(0, 7, room(8))),
        case!(sched_getaffinity(0, 12, room(16))),
        case!(sched_getaffinity(NOBODY, 8, room(8))),
        case!(sched_getaffinity(NOBODY, 7, room(8))),
        case!(sched_getaffinity(-1, 8, room(8))),
        case!(sched_getaffinity(0, 8, UNMAPPED)),
        case!(
            sched_setaffinity(0, 8, words([1])),
            then[sched_getaffinity(0, 8, words([0]))]
        ),
        case!(sched_setaffinity(0, 8, words([0]))),
        case!(sched_setaffinity(0, 8, words([1 << 63]))),
        case!(sched_setaffinity(0, 0, NULL)),
        case!(sched_setaffinity(0, 8, UNMAPPED)),
        case!(sched_setaffinity(NOBODY, 8, words([1]))),
        case!(sched_setaffinity(NOBODY, 8, UNMAPPED)),
        case!(sched_setaffinity(-1, 8, words([1]))),
        case!(getcpu(room(4), room(4)); result_only),
        case!(getcpu(NULL, NULL)),
        case!(getcpu(UNMAPPED, NULL)),
        case!(getcpu(NULL, UNMAPPED)),
        case!(sched_yield()),
    ]
}

fn policies() -> Vec<Case> {
    vec![
        case!(sched_getscheduler(0)),
        case!(sched_getscheduler(NOBODY)),
        case!(sched_getscheduler(-1)),
        case!(sched_getparam(0, room(4))),
        case!(sched_getparam(0, UNMAPPED)),
        case!(sched_getparam(0, NULL)),
        case!(sched_getparam(-1, room(4))),
        case!(sched_getparam(NOBODY, room(4))),
        case!(sched_getparam(NOBODY, UNMAPPED)),
        case!(sched_setparam(0, halves([0]))),
        case!(sched_setparam(0, halves([1]))),
        case!(sched_setparam(0, UNMAPPED)),
        case!(sched_setparam(0, NULL)),
        case!(sched_setparam(-1, UNMAPPED)),
        case!(sched_setparam(NOBODY, UNMAPPED)),
        case!(sched_setparam(NOBODY, halves([0]))),
        case!(sched_setscheduler(0, SCHED_OTHER, halves([0]))),
        case!(sched_setscheduler(0, SCHED_BATCH, halves([0])), then [sched_getscheduler(0), sched_setscheduler(0, SCHED_OTHER, halves([0]))]),
        case!(sched_setscheduler(0, SCHED_OTHER, halves([1]))),
        case!(sched_setscheduler(0, -1, halves([0]))),
        case!(sched_setscheduler(0, -1, UNMAPPED)),
        case!(sched_setscheduler(0, 99, halves([0]))),
        case!(sched_setscheduler(0, SCHED_DEADLINE, halves([0]))),
        case!(sched_setscheduler(0, SCHED_OTHER, UNMAPPED)),
        case!(sched_setscheduler(NOBODY, SCHED_OTHER, halves([0]))),
        case!(sched_setscheduler(NOBODY, 99, UNMAPPED)),
        case!(sched_setscheduler(0, SCHED_FIFO, halves([0]))),
        case!(sched_setscheduler(0, SCHED_FIFO, halves([100]))),
        case!(sched_get_priority_max(SCHED_OTHER)),
        case!(sched_get_priority_max(SCHED_FIFO)),
        case!(sched_get_priority_max(SCHED_RR)),
        case!(sched_get_priority_max(SCHED_IDLE)),
        case!(sched_get_priority_max(SCHED_DEADLINE)),
        case!(sched_get_priority_max(7)),
        case!(sched_get_priority_max(99)),
        case!(sched_get_priority_min(SCHED_OTHER)),
        case!(sched_get_priority_min(SCHED_RR)),
        case!(sched_get_priority_min(-1)),
    ]
}

const PRIVATE: i32 = FUTEX_PRIVATE_FLAG;

fn waits() -> Vec<Case> {
    vec![
        case!(futex(word(0), FUTEX_WAIT, 1, NULL, NULL, 0)),
        case!(futex(
            word(0),
            FUTEX_WAIT,
            0,
            fixed_time(0, 1_000_000),
            NULL,
            0
        )),
        case!(futex(
            word(0),
            FUTEX_WAIT | PRIVATE,
            0,
            fixed_time(0, 1_000_000),
            NULL,
            0
        )),
        case!(futex(word(0), FUTEX_WAIT, 0, NULL, NULL, 0); waits),
        case!(
            futex(word(0), FUTEX_WAIT, 0, NULL, NULL, 0),
            meanwhile[futex(word(0), FUTEX_WAKE, 1, NULL, NULL, 0)]
        ),
        case!(futex(word(0), FUTEX_WAIT, 1, UNMAPPED, NULL, 0)),
        case!(futex(
            word(0),
            FUTEX_WAIT,
            1,
            fixed_time(0, 1_000_000_000),
            NULL,
            0
        )),
        case!(futex(word(0), FUTEX_WAIT, 1, fixed_time(-1, 0), NULL, 0)),
        case!(futex(UNMAPPED, FUTEX_WAIT, 1, NULL, NULL, 0)),
        case!(futex(READ_ONLY, FUTEX_WAIT, 1, NULL, NULL, 0)),
        case!(futex(READ_ONLY, FUTEX_WAIT | PRIVATE, 1, NULL, NULL, 0)),
        case!(futex(
            Memory::At(0x20_0025_0002),
            FUTEX_WAIT,
            1,
            NULL,
            NULL,
            0
        )),
        case!(futex(
            Memory::At(0x20_0025_0002),
            FUTEX_WAIT,
            1,
            UNMAPPED,
            NULL,
            0
        )),
        case!(futex(Memory::At(1 << 63), FUTEX_WAIT, 1, NULL, NULL, 0)),
        case!(futex(
            word(0),
            FUTEX_WAIT | FUTEX_CLOCK_REALTIME,
            1,
            NULL,
            NULL,
            0
        )),
        case!(futex(word(0), FUTEX_WAIT_BITSET, 1, NULL, NULL, 1)),
        case!(futex(word(0), FUTEX_WAIT_BITSET, 1, NULL, NULL, 0)),
        case!(futex(
            word(0),
            FUTEX_WAIT_BITSET,
            0,
            fixed_time(0, 1),
            NULL,
            1
        )),
        case!(futex(
            word(0),
            FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME,
            0,
            fixed_time(0, 1),
            NULL,
            1
        )),
        case!(futex(word(0), FUTEX_WAIT_BITSET, 0, NULL, NULL, 2), meanwhile [
            futex(word(0), FUTEX_WAKE_BITSET, 1, NULL, NULL, 1),
            futex(word(0), FUTEX_WAKE_BITSET, 1, NULL, NULL, 3)
        ]),
        case!(futex(word(0), 99, 1, NULL, NULL, 0)),
        case!(futex(UNMAPPED, 99, 1, UNMAPPED, NULL, 0)),
        case!(futex(word(0), FUTEX_FD, 1, NULL, NULL, 0)),
    ]
}

fn wakes() -> Vec<Case> {
    vec![
        case!(futex(word(0), FUTEX_WAKE, 1, NULL, NULL, 0)),
        case!(futex(
            word(0),
            FUTEX_WAKE | PRIVATE,
            i32::MAX,
            NULL,
            NULL,
            0
        )),
        case!(futex(word(0), FUTEX_WAKE, -1, NULL, NULL, 0)),
        case!(futex(word(0), FUTEX_WAKE, 0, NULL, NULL, 0)),
        case!(futex(UNMAPPED, FUTEX_WAKE, 1, NULL, NULL, 0)),
        case!(futex(UNMAPPED, FUTEX_WAKE | PRIVATE, 1, NULL, NULL, 0)),
        case!(futex(READ_ONLY, FUTEX_WAKE, 1, NULL, NULL, 0)),
        case!(futex(READ_ONLY, FUTEX_WAKE | PRIVATE, 1, NULL, NULL, 0)),
        case!(futex(NO_ACCESS, FUTEX_WAKE, 1, NULL, NULL, 0)),
        case!(futex(
            Memory::At(0x20_0025_0002),
            FUTEX_WAKE,
            1,
            NULL,
            NULL,
            0
        )),
        case!(futex(
            Memory::At(1 << 63),
            FUTEX_WAKE | PRIVATE,
            1,
            NULL,
            NULL,
            0
        )),
        case!(futex(NULL, FUTEX_WAKE | PRIVATE, 1, NULL, NULL, 0)),
        case!(futex(
            word(0),
            FUTEX_WAKE | FUTEX_CLOCK_REALTIME,
            1,
            NULL,
            NULL,
            0
        )),
        case!(futex(word(0), FUTEX_WAKE_BITSET, 1, NULL, NULL, 0)),
        case!(futex(word(0), FUTEX_WAKE_BITSET, 1, NULL, NULL, 1)),
    ]
}

/// Sets a shared word to 5, compares with 3, and adds, sets and so on.
fn wake_operation(operation: i64, operand: i64, comparison: i64, compared: i64) -> i64 {
    operation << 28 | comparison << 24 | operand << 12 | compared
}

fn requeues() -> Vec<Case> {
    vec![
        case!(futex(word(0), FUTEX_REQUEUE, 1, 1, word(1), 0)),
        case!(futex(word(0), FUTEX_REQUEUE, -1, 1, word(1), 0)),
        case!(futex(word(0), FUTEX_REQUEUE, 1, -1, word(1), 0)),
        case!(futex(UNMAPPED, FUTEX_REQUEUE, 1, 1, word(1), 0)),
        case!(futex(word(0), FUTEX_REQUEUE, 1, 1, UNMAPPED, 0)),
        case!(futex(word(0), FUTEX_REQUEUE, 1, 1, READ_ONLY, 0)),
        case!(futex(READ_ONLY, FUTEX_REQUEUE, 1, 1, word(1), 0)),
        case!(futex(
            word(0),
            FUTEX_REQUEUE,
            1,
            1,
            Memory::At(0x20_0025_0002),
            0
        )),
        case!(futex(word(0), FUTEX_CMP_REQUEUE, 1, 1, word(1), 0)),
        case!(futex(word(0), FUTEX_CMP_REQUEUE, 1, 1, word(1), 1)),
        case!(futex(word(0), FUTEX_CMP_REQUEUE, 1, 1, UNMAPPED, 0)),
        case!(futex(word(0), FUTEX_CMP_REQUEUE, 1, 1, UNMAPPED, 1)),
        case!(futex(
            word(0),
            FUTEX_CMP_REQUEUE | PRIVATE,
            1,
            1,
            UNMAPPED,
            0
        )),
        case!(futex(word(0), FUTEX_CMP_REQUEUE, -1, 1, word(1), 1)),
        case!(futex(UNMAPPED, FUTEX_CMP_REQUEUE, 1, 1, UNMAPPED, 1)),
        case!(futex(
            word(0),
            FUTEX_CMP_REQUEUE,
            1,
            1,
            Memory::At(0x20_0025_0002),
            1
        )),
        case!(futex(
            word(0),
            FUTEX_WAKE_OP,
            1,
            1,
            word(1),
            wake_operation(0, 5, 0, 0)
        )),
        case!(futex(
            word(0),
            FUTEX_WAKE_OP,
            1,
            1,
            word(1),
            wake_operation(1, 5, 1, 0)
        )),
        case!(futex(
            word(0),
            FUTEX_WAKE_OP,
            1,
            1,
            word(1),
            wake_operation(2, 6, 2, 1)
        )),
        case!(futex(
            word(0),
            FUTEX_WAKE_OP,
            1,
            1,
            word(1),
            wake_operation(8, 6, 5, 1)
        )),
        case!(futex(
            word(0),
            FUTEX_WAKE_OP,
            1,
            1,
            word(1),
            wake_operation(5, 6, 0, 0)
        )),
        case!(futex(
            word(0),
            FUTEX_WAKE_OP,
            1,
            1,
            word(1),
            wake_operation(0, 6, 6, 0)
        )),
        case!(futex(
            word(0),
            FUTEX_WAKE_OP,
            1,
            1,
            UNMAPPED,
            wake_operation(0, 5, 0, 0)
        )),
        case!(futex(
            word(0),
            FUTEX_WAKE_OP,
            1,
            1,
            READ_ONLY,
            wake_operation(0, 5, 0, 0)
        )),
        case!(futex(
            READ_ONLY,
            FUTEX_WAKE_OP,
            1,
            1,
            word(1),
            wake_operation(0, 5, 0, 0)
        )),
        case!(futex(
            UNMAPPED,
            FUTEX_WAKE_OP,
            1,
            1,
            word(1),
            wake_operation(5, 5, 0, 0)
        )),
    ]
}

/// Futexes with an owner.
fn owned() -> Vec<Case> {
    vec![
        case!(futex(word(0), FUTEX_LOCK_PI, 0, NULL, NULL, 0); result_only),
        case!(futex(word(0), FUTEX_LOCK_PI, 0, NULL, NULL, 0), after [futex(word(0), FUTEX_LOCK_PI, 0, NULL, NULL, 0)]; result_only),
        case!(futex(word(0), FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0); result_only),
        case!(futex(word(0), FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0), after [futex(word(0), FUTEX_LOCK_PI, 0, NULL, NULL, 0)]; result_only),
        case!(futex(word(0), FUTEX_LOCK_PI2, 0, NULL, NULL, 0); result_only),
        case!(
            futex(word(0), FUTEX_UNLOCK_PI, 0, NULL, NULL, 0),
            after[futex(word(0), FUTEX_LOCK_PI, 0, NULL, NULL, 0)]
        ),
        case!(futex(word(0), FUTEX_UNLOCK_PI, 0, NULL, NULL, 0)),
        case!(futex(EMPTY_PAGE, FUTEX_LOCK_PI, 0, NULL, NULL, 0), after [read(made(1), EMPTY_PAGE, 4), memfd_create("m", 0)]; result_only),
        case!(futex(UNMAPPED, FUTEX_LOCK_PI, 0, NULL, NULL, 0)),
        case!(futex(READ_ONLY, FUTEX_LOCK_PI, 0, NULL, NULL, 0)),
        case!(futex(
            Memory::At(0x20_0025_0002),
            FUTEX_LOCK_PI,
            0,
            NULL,
            NULL,
            0
        )),
        case!(futex(word(0), FUTEX_LOCK_PI, 0, UNMAPPED, NULL, 0)),
        case!(futex(word(0), FUTEX_LOCK_PI, 0, fixed_time(0, -1), NULL, 0)),
        case!(futex(UNMAPPED, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0)),
        case!(futex(READ_ONLY, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0)),
        case!(futex(UNMAPPED, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0)),
        case!(futex(word(0), FUTEX_WAIT_REQUEUE_PI, 1, NULL, word(1), 0)),
        case!(futex(word(0), FUTEX_WAIT_REQUEUE_PI, 1, NULL, word(0), 0)),
        case!(futex(
            word(0),
            FUTEX_WAIT_REQUEUE_PI,
            0,
            fixed_time(0, 1),
            word(1),
            0
        )),
        case!(futex(word(0), FUTEX_CMP_REQUEUE_PI, 1, 1, word(1), 0)),
        case!(futex(word(0), FUTEX_CMP_REQUEUE_PI, 1, 1, word(1), 1)),
        case!(futex(word(0), FUTEX_CMP_REQUEUE_PI, 2, 1, word(1), 0)),
        case!(futex(word(0), FUTEX_CMP_REQUEUE_PI, 1, 1, UNMAPPED, 0)),
        case!(futex(word(0), FUTEX_CMP_REQUEUE_PI, 1, 1, word(0), 0)),
    ]
}
