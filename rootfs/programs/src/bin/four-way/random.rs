//! Cases that are made up: calls with arguments of their kinds, valid or not, as a generator of random
//! numbers has it. The same seed makes the same cases everywhere.

use guest_programs::doors::calls::CALLS;
use guest_programs::doors::{
    APPENDER, Arg, BAD, DIRECTORY, EMPTY_PAGE, FILE, FIXED, FULL, HERE, Kind, Memory, NBPIPE_R,
    NBPIPE_W, NO_ACCESS, NULL_DEVICE, Operation, PATH_ONLY, READ_ONLY, READER, Signature, UNMAPPED,
    WRITER, ZERO, bytes, edge, event, fixed_time, room, vector, words,
};

use crate::case::Case;

/// The calls that are made: none of which changes the machine that it is made on, waits for ever, or
/// gives what is not the same everywhere.
const NAMES: &[&str] = &[
    "read",
    "write",
    "pread64",
    "pwrite64",
    "readv",
    "writev",
    "preadv",
    "pwritev",
    "preadv2",
    "pwritev2",
    "lseek",
    "sendfile",
    "copy_file_range",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync_file_range",
    "ftruncate",
    "fallocate",
    "fadvise64",
    "openat",
    "creat",
    "close",
    "dup",
    "eventfd2",
    "pipe2",
    "getcwd",
    "chdir",
    "fchdir",
    "umask",
    "mkdirat",
    "rmdir",
    "unlinkat",
    "renameat",
    "renameat2",
    "linkat",
    "symlinkat",
    "access",
    "faccessat2",
    "readlinkat",
    "chmod",
    "fchmod",
    "fchmodat2",
    "truncate",
    "munmap",
    "mprotect",
    "madvise",
    "mincore",
    "msync",
    "mlock",
    "munlock",
    "nanosleep",
    "sched_get_priority_max",
    "sched_get_priority_min",
];

/// A generator of numbers that look random (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    fn one_of<T: Clone>(&mut self, things: &[T]) -> T {
        things[self.below(things.len())].clone()
    }
}

/// `count` cases of that seed.
pub(crate) fn cases(seed: u64, count: usize) -> Vec<Case> {
    let calls: Vec<_> = CALLS
        .iter()
        .filter(|call| NAMES.contains(&call.name))
        .collect();
    (0..count)
        .map(|number| {
            // Each has numbers of its own, so that one can be looked at alone.
            let mut numbers = Numbers(seed.wrapping_mul(1 << 32).wrapping_add(number as u64));
            case(&mut numbers, &calls)
        })
        .collect()
}

fn case(numbers: &mut Numbers, calls: &[&'static Signature]) -> Case {
    let signature = numbers.one_of(calls);
    let kinds = signature.kinds.iter();
    let args: Vec<_> = kinds.map(|kind| argument(numbers, *kind)).collect();
    let shown: Vec<_> = args.iter().map(|(name, _)| name.as_str()).collect();
    let name = format!("{}({})", signature.name, shown.join(", "));
    let args = args.into_iter().map(|(_, arg)| arg).collect();
    // A case has its name for as long as the program runs.
    Case::new(name.leak(), Operation::call(signature, args))
}

/// An argument of that kind, and what it is called.
fn argument(numbers: &mut Numbers, kind: Kind) -> (String, Arg) {
    macro_rules! one_of {
        ($($thing:expr),* $(,)?) => {{
            let things: Vec<(&str, Arg)> = vec![$((stringify!($thing), $thing.into())),*];
            numbers.one_of(&things)
        }};
    }
    let (name, arg) = match kind {
        Kind::Fd => one_of![
            FILE,
            FILE,
            FILE,
            READER,
            WRITER,
            APPENDER,
            PATH_ONLY,
            DIRECTORY,
            NBPIPE_R,
            NBPIPE_W,
            ZERO,
            NULL_DEVICE,
            FULL,
            event(0),
            event(3),
            BAD,
            -1,
        ],
        Kind::DirFd => one_of![HERE, HERE, DIRECTORY, FILE, BAD],
        Kind::Path => one_of![
            "f",
            "f",
            "missing",
            "missing",
            "d",
            "d/g",
            "l",
            "e",
            ".",
            "..",
            "",
            "f/x",
            "missing/x",
            UNMAPPED,
            0,
        ],
        Kind::Out => one_of![room(8), room(64), edge(4), UNMAPPED, READ_ONLY, 0],
        Kind::In => one_of![words([0]), bytes(b"abcdefgh"), UNMAPPED, NO_ACCESS, 0],
        Kind::Size => one_of![0, 1, 4, 8, 16, 4096, -1, 1_i64 << 40],
        Kind::Offset => one_of![
            0,
            1,
            4,
            16,
            17,
            4096,
            -1,
            -2,
            1_i64 << 40,
            i64::MAX,
            i64::MIN,
        ],
        Kind::VectorOut => one_of![
            vector([(room(4), 4)]),
            vector([(room(4), 4), (room(8), 8)]),
            vector([(room(4), 4), (UNMAPPED, 8)]),
            vector([(UNMAPPED, 4)]),
            vector([]),
            UNMAPPED,
        ],
        Kind::VectorIn => one_of![
            vector([(bytes(b"wxyz"), 4)]),
            vector([(bytes(b"uv"), 2), (bytes(b"wxyz"), 4)]),
            vector([(bytes(b"uv"), 2), (UNMAPPED, 8)]),
            vector([(UNMAPPED, 4)]),
            vector([]),
            UNMAPPED,
        ],
        Kind::Count => one_of![0, 1, 2, 1025, -1],
        Kind::Time => one_of![
            fixed_time(0, 1),
            fixed_time(0, 0),
            fixed_time(0, -1),
            fixed_time(-1, 0),
            fixed_time(0, 1_000_000_000),
            UNMAPPED,
        ],
        Kind::Address => one_of![
            FIXED,
            FIXED,
            EMPTY_PAGE,
            UNMAPPED,
            Memory::At(0x20_1000_0001),
            0
        ],
        Kind::Mode => one_of![0o644, 0o600, 0, 0o777, 0o7777, -1],
        Kind::Flags(flags) => {
            let mut all = 0;
            for _ in 0..numbers.below(3) {
                all |= numbers.one_of(flags);
            }
            return (format!("{all:#x}"), all.into());
        }
        Kind::One(numbers_there_are) | Kind::Only(numbers_there_are) => {
            let number = match numbers_there_are {
                [] => 0,
                some => numbers.one_of(some),
            };
            return (number.to_string(), number.into());
        }
    };
    (name.to_owned(), arg)
}
