//! What a process is: numbers, credentials, limits, groups, children, ends.

use guest_programs::doors::calls::*;
use guest_programs::doors::*;
use libc::{
    CLONE_FS, CLONE_NEWNS, CLONE_PARENT_SETTID, CLONE_PIDFD, CLONE_SIGHAND, CLONE_THREAD, P_ALL,
    P_PGID, P_PID, P_PIDFD, PR_CAPBSET_READ, PR_GET_CHILD_SUBREAPER, PR_GET_DUMPABLE,
    PR_GET_KEEPCAPS, PR_GET_NAME, PR_GET_NO_NEW_PRIVS, PR_GET_PDEATHSIG, PR_GET_SECCOMP,
    PR_GET_TIMERSLACK, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME, PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG, PRIO_PGRP, PRIO_PROCESS, PRIO_USER, RLIMIT_CORE, RLIMIT_NOFILE,
    RUSAGE_CHILDREN, RUSAGE_SELF, RUSAGE_THREAD, WEXITED, WNOHANG,
};

use crate::case::{Case, case};

const NULL: i64 = 0;
/// No process has that number.
const NOBODY: i32 = 1 << 22;
const VERSION_3: u32 = 0x2008_0522;

fn somebody() -> Operation {
    setresuid(1000, 1000, 0)
}

pub(crate) fn cases() -> Vec<Case> {
    [
        numbers(),
        users(),
        groups(),
        capabilities(),
        jobs(),
        limits(),
        children(),
        options(),
        ends(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn numbers() -> Vec<Case> {
    vec![
        case!(getpid()),
        case!(gettid()),
        case!(getppid()),
        case!(getuid()),
        case!(geteuid()),
        case!(getgid()),
        case!(getegid()),
        case!(set_robust_list(EMPTY_PAGE, 24)),
        case!(set_robust_list(NULL, 24)),
        case!(set_robust_list(EMPTY_PAGE, 16)),
        case!(get_robust_list(0, Memory::Opaque(8), room(8))),
        case!(get_robust_list(NOBODY, Memory::Opaque(8), room(8))),
        case!(get_robust_list(-1, UNMAPPED, room(8))),
        case!(get_robust_list(0, UNMAPPED, room(8))),
        case!(get_robust_list(0, room(8), UNMAPPED); result_only),
        case!(arch_prctl(0x1003, Memory::Opaque(8))),
        case!(arch_prctl(0x1003, UNMAPPED)),
        case!(arch_prctl(0x1004, UNMAPPED)),
        case!(arch_prctl(0x1001, Memory::At(1 << 63))),
        case!(arch_prctl(0x1002, Memory::At(1 << 63))),
        case!(arch_prctl(99, NULL)),
    ]
}

fn users() -> Vec<Case> {
    let told = || getresuid(room(4), room(4), room(4));
    vec![
        case!(getresuid(room(4), room(4), room(4))),
        case!(getresuid(UNMAPPED, room(4), room(4))),
        case!(getresuid(room(4), UNMAPPED, room(4))),
        case!(getresuid(room(4), room(4), UNMAPPED)),
        case!(setresuid(1000, 1001, 0), then [told(), geteuid(), getuid()]),
        case!(setresuid(-1, -1, -1), then[told()]),
        case!(setresuid(5, 5, 5), after[somebody()], then[told()]),
        case!(setresuid(0, 1000, 0), after[somebody()], then[told()]),
        case!(setreuid(1000, 0), then[told()]),
        case!(setreuid(0, 5), after[somebody()]),
        case!(setreuid(-1, 1000), after[somebody()], then[told()]),
        case!(setuid(1000), after[setresuid(0, 1000, 0)], then[told()]),
        case!(setuid(5), after[somebody()]),
        case!(setuid(0), after[setresuid(0, 1000, 0)], then[told()]),
        case!(setuid(-1)),
        case!(setresgid(1000, 1001, 0), then [getresgid(room(4), room(4), room(4)), getegid(), getgid()]),
        case!(setresgid(5, 5, 5), after[somebody()]),
        case!(
            setregid(1000, 0),
            then[getresgid(room(4), room(4), room(4))]
        ),
        case!(setregid(5, 5), after[somebody()]),
        case!(setgid(0), then[getresgid(room(4), room(4), room(4))]),
        case!(setgid(5), after[somebody()]),
        case!(setgid(-1)),
        case!(getresgid(room(4), room(4), room(4))),
        case!(getresgid(UNMAPPED, room(4), room(4))),
        case!(getresgid(room(4), room(4), UNMAPPED)),
        case!(setfsuid(1000), then [setfsuid(0), setfsuid(-1)]),
        case!(setfsuid(5), after[somebody()], then[setfsuid(-1)]),
        case!(setfsgid(1000), then [setfsgid(0), setfsgid(-1)]),
        case!(setfsgid(5), after[somebody()], then[setfsgid(-1)]),
    ]
}

fn groups() -> Vec<Case> {
    vec![
        case!(getgroups(0, NULL), after[setgroups(2, halves([5, 6]))]),
        case!(getgroups(4, room(16)), after[setgroups(2, halves([6, 5]))]),
        case!(getgroups(1, room(16)), after[setgroups(2, halves([5, 6]))]),
        case!(getgroups(-1, room(16))),
        case!(getgroups(4, UNMAPPED), after[setgroups(2, halves([5, 6]))]),
        case!(setgroups(0, NULL), then[getgroups(0, NULL)]),
        case!(setgroups(2, UNMAPPED)),
        case!(setgroups(65537, UNMAPPED)),
        case!(setgroups(-1, UNMAPPED)),
        case!(setgroups(1, halves([u32::MAX]))),
        case!(setgroups(65537, UNMAPPED), after[somebody()]),
    ]
}

fn capabilities() -> Vec<Case> {
    vec![
        case!(capget(halves([VERSION_3, 0]), Memory::Opaque(24))),
        case!(capget(halves([VERSION_3, 0]), NULL)),
        case!(capget(halves([0, 0]), NULL)),
        case!(capget(halves([0, 0]), room(24))),
        case!(capget(halves([VERSION_3, u32::MAX]), room(24))),
        case!(capget(halves([VERSION_3, NOBODY as u32]), room(24))),
        case!(capget(UNMAPPED, room(24))),
        case!(capget(halves([VERSION_3, 0]), UNMAPPED)),
        case!(capget(READ_ONLY, room(24))),
        case!(capset(halves([0, 0]), room(24))),
        case!(capset(UNMAPPED, room(24))),
        case!(capset(halves([VERSION_3, 0]), UNMAPPED)),
        case!(capset(
            halves([VERSION_3, NOBODY as u32]),
            halves([0, 0, 0, 0, 0, 0])
        )),
        case!(
            capset(halves([VERSION_3, 0]), halves([0, 0, u32::MAX, 0, 0, 0])),
            after[somebody()]
        ),
        case!(capset(halves([VERSION_3, 0]), halves([0, 1, 0, 0, 0, 0])), after [somebody()], then [capget(halves([VERSION_3, 0]), room(24))]; alone),
        case!(
            capset(halves([VERSION_3, 0]), halves([u32::MAX, 1, 0, 0, 0, 0])),
            after[somebody()]
        ),
    ]
}

fn jobs() -> Vec<Case> {
    vec![
        case!(getpgid(0)),
        case!(getpgid(NOBODY)),
        case!(getpgid(-1)),
        case!(getpgrp()),
        case!(getsid(0)),
        case!(getsid(NOBODY)),
        case!(getsid(-1)),
        case!(setpgid(-1, 0)),
        case!(setpgid(-1, -1)),
        case!(setpgid(0, -1)),
        case!(setpgid(NOBODY, 0)),
        case!(setpgid(NOBODY, -1)),
        case!(setpgid(0, NOBODY)),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        case!(prlimit64(0, RLIMIT_NOFILE, NULL, room(16))),
        case!(
            prlimit64(0, RLIMIT_CORE, words([1, u64::MAX]), NULL),
            then[prlimit64(0, RLIMIT_CORE, NULL, room(16))]
        ),
        case!(prlimit64(0, RLIMIT_CORE, words([3, 2]), NULL)),
        case!(prlimit64(0, 16, NULL, room(16))),
        case!(prlimit64(0, 16, UNMAPPED, room(16))),
        case!(prlimit64(0, -1, NULL, room(16))),
        case!(prlimit64(0, RLIMIT_CORE, UNMAPPED, room(16))),
        case!(prlimit64(0, RLIMIT_CORE, NULL, UNMAPPED)),
        case!(prlimit64(NOBODY, RLIMIT_CORE, NULL, room(16))),
        case!(prlimit64(NOBODY, RLIMIT_CORE, UNMAPPED, room(16))),
        case!(prlimit64(NOBODY, 16, NULL, room(16))),
        case!(prlimit64(-1, RLIMIT_CORE, NULL, room(16))),
        case!(prlimit64(0, RLIMIT_NOFILE, words([1025, 1 << 40]), NULL)),
        case!(prlimit64(0, RLIMIT_NOFILE, words([1, 2000]), NULL), after [setrlimit(RLIMIT_NOFILE, words([1000, 1024])), somebody()]),
        case!(getrlimit(RLIMIT_NOFILE, room(16))),
        case!(getrlimit(16, room(16))),
        case!(getrlimit(16, UNMAPPED)),
        case!(getrlimit(RLIMIT_NOFILE, UNMAPPED)),
        case!(
            setrlimit(RLIMIT_CORE, words([0, u64::MAX])),
            then[getrlimit(RLIMIT_CORE, room(16))]
        ),
        case!(setrlimit(RLIMIT_CORE, words([1, 0]))),
        case!(setrlimit(16, words([0, 0]))),
        case!(setrlimit(16, UNMAPPED)),
        case!(setrlimit(RLIMIT_CORE, UNMAPPED)),
        case!(getpriority(PRIO_PROCESS, 0)),
        case!(getpriority(PRIO_PGRP, 0)),
        case!(getpriority(PRIO_USER, 0)),
        case!(getpriority(3, 0)),
        case!(getpriority(-1, NOBODY)),
        case!(getpriority(PRIO_PROCESS, NOBODY)),
        case!(getpriority(PRIO_PROCESS, -1)),
        case!(getpriority(PRIO_USER, 4242)),
        case!(setpriority(PRIO_PROCESS, 0, 5), then [getpriority(PRIO_PROCESS, 0), setpriority(PRIO_PROCESS, 0, 0)]),
        case!(setpriority(PRIO_PROCESS, 0, 100), then [getpriority(PRIO_PROCESS, 0), setpriority(PRIO_PROCESS, 0, 0)]),
        case!(setpriority(PRIO_PROCESS, 0, -5), after [somebody(), getpid()]),
        case!(setpriority(3, 0, 0)),
        case!(setpriority(PRIO_PROCESS, NOBODY, 0)),
        case!(getrusage(RUSAGE_SELF, Memory::Opaque(144)); result_only),
        case!(getrusage(RUSAGE_CHILDREN, Memory::Opaque(144)); result_only),
        case!(getrusage(RUSAGE_THREAD, Memory::Opaque(144)); result_only),
        case!(getrusage(2, room(144))),
        case!(getrusage(2, UNMAPPED)),
        case!(getrusage(RUSAGE_SELF, UNMAPPED)),
        case!(times(NULL)),
        case!(times(Memory::Opaque(32)); result_only),
        case!(times(UNMAPPED)),
    ]
}

fn children() -> Vec<Case> {
    vec![
        case!(wait4(-1, room(4), 0, NULL)),
        case!(wait4(-1, room(4), WNOHANG, NULL)),
        case!(wait4(NOBODY, room(4), 0, NULL)),
        case!(wait4(i32::MIN, room(4), 0, NULL)),
        case!(wait4(-1, UNMAPPED, 0, UNMAPPED)),
        case!(wait4(-1, room(4), 16, NULL)),
        case!(wait4(i32::MIN, room(4), 16, NULL)),
        case!(waitid(P_ALL, 0, record(Record::Signal), WEXITED, NULL)),
        case!(waitid(P_PID, NOBODY, record(Record::Signal), WEXITED, NULL)),
        case!(waitid(P_PID, 0, record(Record::Signal), WEXITED, NULL)),
        case!(waitid(P_PID, -1, record(Record::Signal), WEXITED, NULL)),
        case!(waitid(P_PGID, -1, record(Record::Signal), WEXITED, NULL)),
        case!(waitid(P_ALL, 0, record(Record::Signal), 0, NULL)),
        case!(waitid(P_ALL, 0, record(Record::Signal), 16, NULL)),
        case!(waitid(99, 0, record(Record::Signal), WEXITED, NULL)),
        case!(waitid(99, 0, record(Record::Signal), 0, NULL)),
        case!(waitid(P_PIDFD, -1, record(Record::Signal), WEXITED, NULL)),
        case!(waitid(P_PIDFD, FILE, record(Record::Signal), WEXITED, NULL)),
        case!(waitid(P_ALL, 0, UNMAPPED, WEXITED, NULL)),
        case!(clone(CLONE_SIGHAND, NULL, NULL, NULL, NULL)),
        case!(clone(CLONE_THREAD, NULL, NULL, NULL, NULL)),
        case!(clone(CLONE_THREAD | CLONE_SIGHAND, NULL, NULL, NULL, NULL)),
        case!(clone(CLONE_NEWNS | CLONE_FS, NULL, NULL, NULL, NULL)),
        case!(clone(
            CLONE_PIDFD | CLONE_PARENT_SETTID,
            NULL,
            NULL,
            NULL,
            NULL
        )),
        case!(clone3(UNMAPPED, 64)),
        case!(clone3(words([0, 0, 0, 0, 0, 0, 0, 0]), 8)),
        case!(clone3(words([0, 0, 0, 0, 0, 0, 0, 0]), 5000)),
        case!(clone3(words([0, 0, 0, 0, 65, 0, 0, 0]), 64)),
        case!(clone3(words([0, 0, 0, 0, 0, 1, 0, 0]), 64)),
        case!(clone3(words([0, 0, 0, 0, 0, 0, 1, 0]), 64)),
        case!(clone3(
            words([CLONE_SIGHAND as u64, 0, 0, 0, 0, 0, 0, 0]),
            64
        )),
    ]
}

fn options() -> Vec<Case> {
    vec![
        case!(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)),
        case!(prctl(PR_SET_DUMPABLE, 2, 0, 0, 0)),
        case!(
            prctl(PR_SET_NAME, "a-name", 0, 0, 0),
            then[prctl(PR_GET_NAME, room(16), 0, 0, 0)]
        ),
        case!(
            prctl(PR_SET_NAME, "a name of more than fifteen", 0, 0, 0),
            then[prctl(PR_GET_NAME, room(16), 0, 0, 0)]
        ),
        case!(prctl(PR_SET_NAME, UNMAPPED, 0, 0, 0)),
        case!(prctl(PR_GET_NAME, UNMAPPED, 0, 0, 0)),
        case!(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)),
        case!(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)),
        case!(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0)),
        case!(prctl(PR_SET_PDEATHSIG, 65, 0, 0, 0)),
        case!(prctl(PR_GET_PDEATHSIG, room(4), 0, 0, 0)),
        case!(prctl(PR_GET_PDEATHSIG, UNMAPPED, 0, 0, 0)),
        case!(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0)),
        case!(prctl(PR_SET_KEEPCAPS, 2, 0, 0, 0)),
        case!(prctl(PR_CAPBSET_READ, 0, 0, 0, 0)),
        case!(prctl(PR_CAPBSET_READ, 99, 0, 0, 0)),
        case!(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)),
        case!(prctl(PR_GET_SECCOMP, 0, 0, 0, 0)),
        case!(prctl(PR_GET_CHILD_SUBREAPER, room(4), 0, 0, 0)),
        case!(prctl(99_999, 0, 0, 0, 0)),
        case!(prctl(-1, 0, 0, 0, 0)),
        case!(personality(-1)),
    ]
}

fn ends() -> Vec<Case> {
    vec![
        case!(exit(3); alone),
        case!(exit_group(3); alone),
        case!(exit_group(0x1ff); alone),
        case!(setsid(), then [setsid()]; alone),
        case!(setpgid(0, 0); alone),
        case!(setsid(), after [setsid()]; alone),
        case!(set_tid_address(NULL); alone),
        case!(rseq(EMPTY_PAGE, 16, 0, 0)),
        case!(rseq(EMPTY_PAGE, 32, 2, 0)),
        case!(rseq(EMPTY_PAGE, 32, 1, 0)),
        case!(rseq(Memory::At(1 << 63), 32, 0, 0)),
    ]
}
