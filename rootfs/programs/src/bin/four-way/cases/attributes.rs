//! Attributes of files: `stat(2)` and its like, permissions, owners, times, extended attributes.

use guest_programs::doors::calls::*;
use guest_programs::doors::*;
use libc::{
    AT_EACCESS, AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_STATX_DONT_SYNC, AT_STATX_FORCE_SYNC,
    AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, F_OK, R_OK, STATX_BASIC_STATS, UTIME_NOW, UTIME_OMIT,
    W_OK, X_OK, XATTR_CREATE, XATTR_REPLACE,
};

use crate::case::{Case, case};

const NULL: i64 = 0;
const PATHS_FIRST: &str = "a ring reads the path before anything else";

/// What `stat(2)` tells.
fn stat_buffer() -> Memory {
    record(Record::Stat)
}

/// What `statx(2)` tells.
fn statx_buffer() -> Memory {
    record(Record::Statx)
}

fn somebody() -> Operation {
    setresuid(-1, 1000, -1)
}

pub(crate) fn cases() -> Vec<Case> {
    [
        looks(),
        looks_x(),
        access_rights(),
        modes(),
        owners(),
        time_stamps(),
        systems(),
        extended(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn looks() -> Vec<Case> {
    vec![
        case!(stat("f", stat_buffer())),
        case!(stat("d", stat_buffer())),
        case!(stat("l", stat_buffer())),
        case!(stat("/dev/null", stat_buffer())),
        case!(stat("missing", stat_buffer())),
        case!(stat("missing", UNMAPPED)),
        case!(stat("f/x", stat_buffer())),
        case!(stat("f/", stat_buffer())),
        case!(stat("loop", stat_buffer())),
        case!(stat("", stat_buffer())),
        case!(stat(UNMAPPED, stat_buffer())),
        case!(stat("f", UNMAPPED)),
        case!(stat("f", READ_ONLY)),
        case!(stat("locked/x", stat_buffer()), after [mkdir("locked", 0), somebody()]),
        case!(lstat("l", stat_buffer())),
        case!(lstat("loop", stat_buffer())),
        case!(lstat("l/", stat_buffer())),
        case!(lstat("missing", stat_buffer())),
        case!(lstat("l", UNMAPPED)),
        case!(fstat(FILE, stat_buffer())),
        case!(fstat(PATH_ONLY, stat_buffer())),
        case!(fstat(PIPE_R, stat_buffer())),
        case!(fstat(event(0), stat_buffer())),
        case!(fstat(NULL_DEVICE, stat_buffer())),
        case!(fstat(BAD, stat_buffer())),
        case!(fstat(BAD, UNMAPPED)),
        case!(fstat(FILE, UNMAPPED)),
        case!(newfstatat(HERE, "l", stat_buffer(), 0)),
        case!(newfstatat(HERE, "l", stat_buffer(), AT_SYMLINK_NOFOLLOW)),
        case!(newfstatat(HERE, "l", stat_buffer(), AT_SYMLINK_FOLLOW)),
        case!(newfstatat(FILE, "", stat_buffer(), AT_EMPTY_PATH)),
        case!(newfstatat(FILE, NULL, stat_buffer(), AT_EMPTY_PATH)),
        case!(newfstatat(FILE, NULL, stat_buffer(), 0)),
        case!(newfstatat(FILE, "", stat_buffer(), 0)),
        case!(newfstatat(HERE, "", stat_buffer(), AT_EMPTY_PATH)),
        case!(newfstatat(BAD, "", stat_buffer(), AT_EMPTY_PATH)),
        case!(newfstatat(BAD, "f", stat_buffer(), 0)),
        case!(newfstatat(BAD, "f", stat_buffer(), 1)),
        case!(newfstatat(BAD, UNMAPPED, UNMAPPED, 0)),
        case!(newfstatat(FILE, "g", stat_buffer(), 0)),
        case!(newfstatat(directory("d"), "g", stat_buffer(), 0)),
        case!(newfstatat(HERE, "f", stat_buffer(), AT_NO_AUTOMOUNT)),
    ]
}

fn looks_x() -> Vec<Case> {
    vec![
        case!(statx(HERE, "f", 0, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(HERE, "d", 0, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(
            HERE,
            "l",
            AT_SYMLINK_NOFOLLOW,
            STATX_BASIC_STATS,
            statx_buffer()
        )),
        case!(statx(HERE, "f", 0, 0, statx_buffer())),
        case!(statx(
            HERE,
            "f",
            AT_STATX_FORCE_SYNC,
            STATX_BASIC_STATS,
            statx_buffer()
        )),
        case!(statx(
            HERE,
            "f",
            AT_STATX_DONT_SYNC,
            STATX_BASIC_STATS,
            statx_buffer()
        )),
        case!(statx(
            HERE,
            "f",
            AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC,
            STATX_BASIC_STATS,
            statx_buffer()
        )),
        case!(statx(HERE, "f", 0, 0x8000_0000_u32, statx_buffer())),
        case!(statx(HERE, "f", 1, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(BAD, UNMAPPED, 1, 0x8000_0000_u32, UNMAPPED); differs(PATHS_FIRST)),
        case!(statx(
            FILE,
            "",
            AT_EMPTY_PATH,
            STATX_BASIC_STATS,
            statx_buffer()
        )),
        case!(statx(
            FILE,
            NULL,
            AT_EMPTY_PATH,
            STATX_BASIC_STATS,
            statx_buffer()
        ); differs(PATHS_FIRST)),
        case!(statx(FILE, "", 0, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(FILE, NULL, 0, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(
            BAD,
            "",
            AT_EMPTY_PATH,
            STATX_BASIC_STATS,
            statx_buffer()
        )),
        case!(statx(BAD, "f", 0, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(FILE, "g", 0, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(HERE, "missing", 0, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(HERE, "missing", 0, STATX_BASIC_STATS, UNMAPPED)),
        case!(statx(HERE, "f", 0, STATX_BASIC_STATS, UNMAPPED)),
        case!(statx(HERE, UNMAPPED, 0, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(HERE, "loop", 0, STATX_BASIC_STATS, statx_buffer())),
        case!(statx(
            PIPE_R,
            "",
            AT_EMPTY_PATH,
            STATX_BASIC_STATS,
            statx_buffer()
        )),
    ]
}

fn access_rights() -> Vec<Case> {
    vec![
        case!(access("f", F_OK)),
        case!(access("f", R_OK | W_OK)),
        case!(access("f", X_OK)),
        case!(access("d/g", X_OK)),
        case!(access("d", X_OK)),
        case!(access("missing", F_OK)),
        case!(access("missing", 8)),
        case!(access("f", 8)),
        case!(access("f", -1)),
        case!(access("f/x", F_OK)),
        case!(access("loop", F_OK)),
        case!(access("", F_OK)),
        case!(access(UNMAPPED, F_OK)),
        case!(access("n", R_OK), after[somebody()]),
        case!(
            access("n", R_OK),
            after[setresuid(1000, 0, 0)],
            then[setresuid(0, 0, 0)]
        ),
        case!(faccessat(HERE, "f", R_OK)),
        case!(faccessat(BAD, "f", R_OK)),
        case!(faccessat(BAD, "f", 8)),
        case!(faccessat(FILE, "g", R_OK)),
        case!(faccessat2(HERE, "f", R_OK, 0)),
        case!(faccessat2(HERE, "loop", F_OK, AT_SYMLINK_NOFOLLOW)),
        case!(faccessat2(HERE, "n", R_OK, AT_EACCESS), after[somebody()]),
        case!(faccessat2(HERE, "n", R_OK, 0), after[somebody()]),
        case!(faccessat2(FILE, "", W_OK, AT_EMPTY_PATH)),
        case!(faccessat2(BAD, "", W_OK, AT_EMPTY_PATH)),
        case!(faccessat2(HERE, "f", R_OK, 1)),
        case!(faccessat2(BAD, UNMAPPED, 8, 1)),
    ]
}

fn modes() -> Vec<Case> {
    vec![
        case!(chmod("f", 0o4711)),
        case!(chmod("f", 0o177_777)),
        case!(chmod("l", 0o600)),
        case!(chmod("d", 0o1777)),
        case!(chmod("missing", 0o600)),
        case!(chmod("f/x", 0o600)),
        case!(chmod("loop", 0o600)),
        case!(chmod("", 0o600)),
        case!(chmod(UNMAPPED, 0o600)),
        case!(chmod("f", 0o600), after[somebody()]),
        case!(chmod("f", 0o2755), after [chown("f", 1000, 50), somebody()]),
        case!(fchmod(FILE, 0o600)),
        case!(fchmod(PIPE_R, 0o600)),
        case!(fchmod(BAD, 0o600)),
        case!(fchmod(PATH_ONLY, 0o600)),
        case!(fchmodat(HERE, "f", 0o600)),
        case!(fchmodat(directory("d"), "g", 0o600)),
        case!(fchmodat(BAD, "f", 0o600)),
        case!(fchmodat(FILE, "f", 0o600)),
        case!(fchmodat2(HERE, "f", 0o600, 0)),
        case!(fchmodat2(HERE, "l", 0o600, AT_SYMLINK_NOFOLLOW)),
        case!(fchmodat2(FILE, "", 0o600, AT_EMPTY_PATH)),
        case!(fchmodat2(HERE, "f", 0o600, 1)),
        case!(fchmodat2(BAD, UNMAPPED, 0o600, 1)),
    ]
}

fn owners() -> Vec<Case> {
    vec![
        case!(chown("f", 1, 2)),
        case!(chown("f", -1, 2)),
        case!(chown("f", -1, -1)),
        case!(chown("l", 1, 2)),
        case!(chown("f", 1, 2), after[chmod("f", 0o6755)]),
        case!(chown("d", 1, 2), after[chmod("d", 0o6755)]),
        case!(chown("missing", 1, 2)),
        case!(chown("f/x", 1, 2)),
        case!(chown("loop", 1, 2)),
        case!(chown("", 1, 2)),
        case!(chown(UNMAPPED, 1, 2)),
        case!(chown("f", 1000, -1), after[somebody()]),
        case!(lchown("l", 1, 2)),
        case!(lchown("missing", 1, 2)),
        case!(lchown(UNMAPPED, 1, 2)),
        case!(fchown(FILE, 1, 2)),
        case!(fchown(PIPE_R, 1, 2)),
        case!(fchown(BAD, 1, 2)),
        case!(fchown(PATH_ONLY, 1, 2)),
        case!(fchownat(HERE, "l", 1, 2, AT_SYMLINK_NOFOLLOW)),
        case!(fchownat(FILE, "", 1, 2, AT_EMPTY_PATH)),
        case!(fchownat(HERE, "f", 1, 2, 1)),
        case!(fchownat(BAD, UNMAPPED, 1, 2, 1)),
        case!(fchownat(BAD, "f", 1, 2, 0)),
    ]
}

fn time_stamps() -> Vec<Case> {
    const NOW: (i64, i64) = (0, UTIME_NOW);
    const OMIT: (i64, i64) = (0, UTIME_OMIT);
    vec![
        case!(utimensat(HERE, "f", NULL, 0)),
        case!(
            utimensat(HERE, "f", two_times((1, 2), (3, 4)), 0),
            then[stat("f", stat_buffer())]
        ),
        case!(utimensat(
            HERE,
            "l",
            two_times((1, 2), (3, 4)),
            AT_SYMLINK_NOFOLLOW
        )),
        case!(utimensat(HERE, "f", two_times(NOW, NOW), 0)),
        case!(utimensat(HERE, "f", two_times(NOW, OMIT), 0)),
        case!(utimensat(HERE, "f", two_times(OMIT, OMIT), 0)),
        case!(utimensat(HERE, "missing", two_times(OMIT, OMIT), 0)),
        case!(utimensat(HERE, "f", two_times((0, 1_000_000_000), OMIT), 0)),
        case!(utimensat(HERE, "f", two_times((0, -1), OMIT), 0)),
        case!(utimensat(HERE, "f", UNMAPPED, 0)),
        case!(utimensat(HERE, "missing", NULL, 0)),
        case!(utimensat(HERE, UNMAPPED, NULL, 0)),
        case!(utimensat(HERE, NULL, NULL, 0)),
        case!(utimensat(FILE, NULL, NULL, 0)),
        case!(utimensat(FILE, NULL, NULL, AT_SYMLINK_NOFOLLOW)),
        case!(utimensat(FILE, "", NULL, AT_EMPTY_PATH)),
        case!(utimensat(PATH_ONLY, NULL, NULL, 0)),
        case!(utimensat(BAD, NULL, NULL, 0)),
        case!(utimensat(BAD, NULL, UNMAPPED, 0)),
        case!(utimensat(BAD, "f", NULL, 0)),
        case!(utimensat(HERE, "f", NULL, 1)),
        case!(utimensat(HERE, "f", UNMAPPED, 1)),
        case!(utimensat(HERE, "f", NULL, 0), after[somebody()]),
        case!(
            utimensat(HERE, "f", two_times((1, 2), (3, 4)), 0),
            after[somebody()]
        ),
        case!(utimensat(HERE, "f", two_times((1, 2), (3, 4)), 0), after [chmod("f", 0o666), somebody()]),
        case!(utimes("f", NULL)),
        case!(utimes("f", two_times((1, 2), (3, 4)))),
        case!(utimes("f", two_times((1, 1_000_000), (3, 4)))),
        case!(utimes("f", two_times((1, -1), (3, 4)))),
        case!(utimes("f", UNMAPPED)),
        case!(utimes("missing", UNMAPPED)),
        case!(utimes(UNMAPPED, NULL)),
        case!(futimesat(HERE, "f", two_times((1, 2), (3, 4)))),
        case!(futimesat(BAD, "f", NULL)),
        case!(futimesat(FILE, NULL, NULL)),
        case!(futimesat(HERE, "f", UNMAPPED)),
        case!(utime("f", NULL)),
        case!(utime("f", words([1, 2]))),
        case!(utime("f", UNMAPPED)),
        case!(utime("missing", NULL)),
    ]
}

fn systems() -> Vec<Case> {
    vec![
        case!(statfs(".", record(Record::Statfs))),
        case!(statfs("/proc", record(Record::Statfs))),
        case!(statfs("missing", record(Record::Statfs))),
        case!(statfs("f/x", record(Record::Statfs))),
        case!(statfs("loop", record(Record::Statfs))),
        case!(statfs(UNMAPPED, record(Record::Statfs))),
        case!(statfs(".", UNMAPPED)),
        case!(fstatfs(FILE, record(Record::Statfs))),
        case!(fstatfs(PATH_ONLY, record(Record::Statfs))),
        case!(fstatfs(PIPE_R, record(Record::Statfs))),
        case!(fstatfs(BAD, record(Record::Statfs))),
        case!(fstatfs(BAD, UNMAPPED)),
        case!(fstatfs(FILE, UNMAPPED)),
    ]
}

fn extended() -> Vec<Case> {
    vec![
        case!(
            setxattr("f", "user.a", "value", 5, 0),
            then[getxattr("f", "user.a", room(8), 8)]
        ),
        case!(setxattr("f", "user.a", "value", 5, XATTR_REPLACE)),
        case!(setxattr("f", "user.a", "value", 5, XATTR_CREATE)),
        case!(
            setxattr("f", "user.a", "value", 5, XATTR_CREATE),
            after[setxattr("f", "user.a", "x", 1, 0)]
        ),
        case!(setxattr("f", "user.a", "value", 5, 4)),
        case!(setxattr("f", "user.a", UNMAPPED, 5, 0)),
        case!(setxattr("f", "user.a", UNMAPPED, 0, 0)),
        case!(setxattr("f", "user.a", "value", 65537, 0)),
        case!(setxattr("f", "user.", "value", 5, 0)),
        case!(setxattr("f", "", "value", 5, 0)),
        case!(setxattr("f", "strange.a", "value", 5, 0)),
        case!(setxattr("f", UNMAPPED, "value", 5, 0)),
        case!(setxattr("missing", "user.a", "value", 5, 0)),
        case!(setxattr("missing", UNMAPPED, UNMAPPED, 5, 4)),
        case!(setxattr(UNMAPPED, "user.a", "value", 5, 0)),
        case!(lsetxattr("l", "user.a", "value", 5, 0)),
        case!(lsetxattr("f", "user.a", "value", 5, 0)),
        case!(lsetxattr("missing", "user.a", "value", 5, 0)),
        case!(
            fsetxattr(FILE, "user.a", "value", 5, 0),
            then[fgetxattr(FILE, "user.a", room(8), 8)]
        ),
        case!(fsetxattr(BAD, "user.a", "value", 5, 0)),
        case!(fsetxattr(BAD, "user.a", UNMAPPED, 5, 4)),
        case!(fsetxattr(PATH_ONLY, "user.a", "value", 5, 0)),
        case!(getxattr("f", "user.a", room(8), 8)),
        case!(
            getxattr("f", "user.a", room(8), 0),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(
            getxattr("f", "user.a", room(8), 3),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(
            getxattr("f", "user.a", UNMAPPED, 8),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(getxattr("f", UNMAPPED, room(8), 8)),
        case!(getxattr("f", "", room(8), 8)),
        case!(getxattr("missing", "user.a", room(8), 8)),
        case!(getxattr("missing", UNMAPPED, room(8), 8)),
        case!(lgetxattr("l", "user.a", room(8), 8)),
        case!(
            lgetxattr("f", "user.a", room(8), 8),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(lgetxattr("missing", "user.a", room(8), 8)),
        case!(
            fgetxattr(FILE, "user.a", room(8), 8),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(fgetxattr(FILE, "user.a", room(8), 8)),
        case!(fgetxattr(BAD, "user.a", room(8), 8)),
        case!(fgetxattr(BAD, UNMAPPED, room(8), 8)),
        case!(fgetxattr(PATH_ONLY, "user.a", room(8), 8)),
        case!(
            removexattr("f", "user.a"),
            after[setxattr("f", "user.a", "value", 5, 0)],
            then[getxattr("f", "user.a", room(8), 8)]
        ),
        case!(removexattr("f", "user.a")),
        case!(removexattr("f", UNMAPPED)),
        case!(removexattr("missing", "user.a")),
        case!(removexattr("missing", UNMAPPED)),
        case!(
            lremovexattr("f", "user.a"),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(lremovexattr("l", "user.a")),
        case!(
            fremovexattr(FILE, "user.a"),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(fremovexattr(FILE, "user.a")),
        case!(fremovexattr(BAD, "user.a")),
        case!(listxattr("f", room(32), 32)),
        case!(
            listxattr("f", room(32), 32),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(
            listxattr("f", room(32), 3),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(
            listxattr("f", UNMAPPED, 32),
            after[setxattr("f", "user.a", "value", 5, 0)]
        ),
        case!(listxattr("missing", room(32), 32)),
        case!(listxattr(UNMAPPED, room(32), 32)),
        case!(llistxattr("l", room(32), 32)),
        case!(llistxattr("missing", room(32), 32)),
        case!(flistxattr(FILE, room(32), 32)),
        case!(flistxattr(BAD, room(32), 32)),
        case!(flistxattr(PATH_ONLY, room(32), 32)),
    ]
}
