//! What only rings have: batches, links, drains, timeouts, cancellation, fixed files and buffers.

use guest_programs::doors::calls::*;
use guest_programs::doors::opcodes::*;
use guest_programs::doors::*;
use libc::EBADF;
use linux_raw_sys::io_uring::*;

use crate::case::{Case, case};

const NULL: i64 = 0;
const LINK: u8 = 1 << io_uring_sqe_flags_bit::IOSQE_IO_LINK_BIT as u8;
const HARDLINK: u8 = 1 << io_uring_sqe_flags_bit::IOSQE_IO_HARDLINK_BIT as u8;
const DRAIN: u8 = 1 << io_uring_sqe_flags_bit::IOSQE_IO_DRAIN_BIT as u8;
const FIXED: u8 = 1 << io_uring_sqe_flags_bit::IOSQE_FIXED_FILE_BIT as u8;
const SKIP: u8 = 1 << io_uring_sqe_flags_bit::IOSQE_CQE_SKIP_SUCCESS_BIT as u8;
const B: io_uring_register_op = io_uring_register_op::IORING_REGISTER_BUFFERS;
const NOP_FILE: u32 = 1 << 1;
const NOP_FIXED_FILE: u32 = 1 << 2;

/// A time of so many milliseconds.
fn ms(count: i64) -> Memory {
    fixed_time(count / 1000, count % 1000 * 1_000_000)
}

/// Registers files.
fn register_files<const N: usize>(files: [u32; N]) -> Operation {
    io_uring_register(
        SELF_RING,
        io_uring_register_op::IORING_REGISTER_FILES as u32,
        halves(files),
        N,
    )
}

/// Waits for one completion of the ring itself, at least and at most so many microseconds.
fn wait(least: u32, most: i64) -> Operation {
    let argument = Memory::Struct(vec![
        0.into(),
        (i64::from(least) << 32).into(),
        fixed_time(most / 1_000_000, most % 1_000_000 * 1000).into(),
    ]);
    let flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    io_uring_enter(SELF_RING, 0, 1, flags, argument, 24)
}

pub(crate) fn cases() -> Vec<Case> {
    [
        nops(),
        links(),
        fields(),
        timeouts(),
        waiting(),
        fixed(),
        setups(),
        registrations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn nops() -> Vec<Case> {
    vec![
        case!(nop()),
        case!(unknown()),
        case!(nop().op_flags(1_u32).len(7)),
        case!(nop().op_flags(NOP_FILE).fd(FILE)),
        case!(nop().op_flags(NOP_FILE).fd(BAD)),
        case!(nop().op_flags(NOP_FILE | NOP_FIXED_FILE).fd(0)),
        case!(
            nop().op_flags(NOP_FILE | NOP_FIXED_FILE).fd(0),
            after[register_files([u32::MAX])]
        ),
        case!(nop().op_flags(0x8000_0000_u32)),
        case!(nop().ioprio(1_u16)),
        case!(nop().flags(0x80)),
        case!(nop().personality(1_u16)),
        case!(batch([nop(), nop(), nop()])),
    ]
}

fn links() -> Vec<Case> {
    vec![
        case!(batch([fsync(PIPE_R).flags(LINK), nop()])),
        case!(batch([fsync(PIPE_R).flags(LINK | SKIP), nop()]); completions(1)),
        case!(batch([fsync(BAD).flags(LINK), nop()])),
        case!(batch([read(BAD, NULL, 0).flags(LINK), nop()])),
        case!(batch([read(BAD, NULL, 0).flags(HARDLINK), nop()])),
        case!(batch([read(FILE, room(64), 64).flags(LINK), nop()])),
        case!(batch([close(BAD).flags(LINK), nop()])),
        case!(batch([nop().flags(LINK | SKIP), nop()]); completions(1)),
    ]
}

/// Fields that mean nothing, and what breaks a chain.
fn fields() -> Vec<Case> {
    vec![
        case!(mkdirat(HERE, "new", 0o700).by_ring().flags(FIXED)),
        case!(mkdirat(HERE, "new", 0o700).by_ring().ioprio(1_u16)),
        case!(mkdirat(HERE, "new", 0o700).by_ring().off(1)),
        case!(mkdirat(HERE, "new", 0o700).by_ring().op_flags(1_u32)),
        case!(mkdirat(HERE, "new", 0o700).by_ring().buf_index(1_u16)),
        case!(mkdirat(HERE, "new", 0o700).by_ring().file(1)),
        case!(mkdirat(HERE, "new", 0o700).by_ring().len(1)),
        case!(mkdirat(HERE, "new", 0o700).by_ring().addr3(1)),
        case!(unlinkat(HERE, "f", 0).by_ring().flags(FIXED)),
        case!(unlinkat(HERE, "f", 0).by_ring().ioprio(1_u16)),
        case!(unlinkat(HERE, "f", 0).by_ring().off(1)),
        case!(unlinkat(HERE, "f", 0).by_ring().len(1)),
        case!(unlinkat(HERE, "f", 0).by_ring().buf_index(1_u16)),
        case!(unlinkat(HERE, "f", 0).by_ring().file(1)),
        case!(unlinkat(HERE, "f", 0).by_ring().op_flags(1_u32)),
        case!(unlinkat(HERE, "f", 0).by_ring().addr3(1)),
        case!(renameat(HERE, "f", HERE, "new").by_ring().flags(FIXED)),
        case!(renameat(HERE, "f", HERE, "new").by_ring().ioprio(1_u16)),
        case!(renameat(HERE, "f", HERE, "new").by_ring().buf_index(1_u16)),
        case!(renameat(HERE, "f", HERE, "new").by_ring().file(1)),
        case!(renameat(HERE, "f", HERE, "new").by_ring().addr3(1)),
        case!(symlinkat("f", HERE, "new").by_ring().flags(FIXED)),
        case!(symlinkat("f", HERE, "new").by_ring().ioprio(1_u16)),
        case!(symlinkat("f", HERE, "new").by_ring().len(1)),
        case!(symlinkat("f", HERE, "new").by_ring().op_flags(1_u32)),
        case!(symlinkat("f", HERE, "new").by_ring().buf_index(1_u16)),
        case!(symlinkat("f", HERE, "new").by_ring().file(1)),
        case!(linkat(HERE, "f", HERE, "new", 0).by_ring().flags(FIXED)),
        case!(linkat(HERE, "f", HERE, "new", 0).by_ring().ioprio(1_u16)),
        case!(linkat(HERE, "f", HERE, "new", 0).by_ring().buf_index(1_u16)),
        case!(linkat(HERE, "f", HERE, "new", 0).by_ring().file(1)),
        case!(
            statx(HERE, "f", 0, 0x7ff, record(Record::Statx))
                .by_ring()
                .flags(FIXED)
        ),
        case!(
            statx(HERE, "f", 0, 0x7ff, record(Record::Statx))
                .by_ring()
                .ioprio(1_u16)
        ),
        case!(
            statx(HERE, "f", 0, 0x7ff, record(Record::Statx))
                .by_ring()
                .buf_index(1_u16)
        ),
        case!(
            statx(HERE, "f", 0, 0x7ff, record(Record::Statx))
                .by_ring()
                .file(1)
        ),
        case!(
            statx(HERE, "f", 0, 0x7ff, record(Record::Statx))
                .by_ring()
                .addr3(1)
        ),
        case!(openat(HERE, "f", libc::O_RDONLY, 0).by_ring().flags(FIXED)),
        case!(openat(HERE, "f", libc::O_RDONLY, 0).by_ring().ioprio(1_u16)),
        case!(openat(HERE, "f", libc::O_RDONLY, 0).by_ring().off(1)),
        case!(
            openat(HERE, "f", libc::O_RDONLY, 0)
                .by_ring()
                .buf_index(1_u16)
        ),
        case!(openat(HERE, "f", libc::O_RDONLY, 0).by_ring().addr3(1)),
        case!(madvise(EMPTY_PAGE, 4096, 0).by_ring().flags(FIXED)),
        case!(madvise(EMPTY_PAGE, 4096, 0).by_ring().ioprio(1_u16)),
        case!(madvise(EMPTY_PAGE, 4096, 0).by_ring().fd(1)),
        case!(madvise(EMPTY_PAGE, 4096, 0).by_ring().buf_index(1_u16)),
        case!(madvise(EMPTY_PAGE, 4096, 0).by_ring().file(1)),
        case!(madvise(EMPTY_PAGE, 4096, 0).by_ring().off(1)),
        case!(madvise(EMPTY_PAGE, 4096, 0).by_ring().addr3(1)),
        case!(
            splice(NBPIPE_R, NULL, FILE, NULL, 8, 0)
                .by_ring()
                .flags(FIXED)
        ),
        case!(
            splice(NBPIPE_R, NULL, FILE, NULL, 8, 0)
                .by_ring()
                .ioprio(1_u16)
        ),
        case!(
            splice(NBPIPE_R, NULL, FILE, NULL, 8, 0)
                .by_ring()
                .buf_index(1_u16)
        ),
        case!(splice(NBPIPE_R, NULL, FILE, NULL, 8, 0).by_ring().addr3(1)),
        case!(tee(NBPIPE_R, PIPE_W, 8, 0).by_ring().flags(FIXED)),
        case!(tee(NBPIPE_R, PIPE_W, 8, 0).by_ring().ioprio(1_u16)),
        case!(tee(NBPIPE_R, PIPE_W, 8, 0).by_ring().off(1)),
        case!(tee(NBPIPE_R, PIPE_W, 8, 0).by_ring().addr(1)),
        case!(tee(NBPIPE_R, PIPE_W, 8, 0).by_ring().buf_index(1_u16)),
        case!(tee(NBPIPE_R, PIPE_W, 8, 0).by_ring().addr3(1)),
        case!(pipe2(room(8), 0).by_ring().flags(FIXED)),
        case!(pipe2(room(8), 0).by_ring().ioprio(1_u16)),
        case!(pipe2(room(8), 0).by_ring().fd(1)),
        case!(pipe2(room(8), 0).by_ring().off(1)),
        case!(pipe2(room(8), 0).by_ring().len(1)),
        case!(pipe2(room(8), 0).by_ring().buf_index(1_u16)),
        case!(pipe2(room(8), 0).by_ring().addr3(1)),
        case!(batch([mkdirat(HERE, "", 0o700), nop()]); any_order),
        case!(batch([unlinkat(HERE, "", 0), nop()]); any_order),
        case!(batch([
            statx(HERE, "", 0x1000, 0x7ff, record(Record::Statx)),
            nop()
        ]); any_order),
        case!(batch([linkat(FILE, "", HERE, "new", 0x1000), nop()]); any_order),
        case!(batch([symlinkat("", HERE, "new"), nop()]); any_order),
        case!(batch([renameat(HERE, "", HERE, "new"), nop()]); any_order),
        case!(batch([mkdirat(HERE, "d", 0o700).flags(LINK), nop()])),
        case!(batch([unlinkat(HERE, "missing", 0).flags(LINK), nop()])),
        case!(batch([
            renameat(HERE, "missing", HERE, "new").flags(LINK),
            nop()
        ])),
        case!(batch([
            openat(HERE, "missing", libc::O_RDONLY, 0).flags(LINK),
            nop()
        ])),
        case!(batch([
            openat(HERE, "f", libc::O_DIRECTORY | libc::O_CREAT, 0).flags(LINK),
            nop()
        ])),
        case!(batch([
            statx(HERE, "missing", 0, 0x7ff, record(Record::Statx)).flags(LINK),
            nop()
        ])),
        case!(batch([madvise(UNMAPPED, 4096, 4).flags(LINK), nop()])),
        case!(batch([
            splice(FILE, NULL, FILE, NULL, 8, 0).flags(LINK),
            nop()
        ])),
    ]
}

fn timeouts() -> Vec<Case> {
    vec![
        case!(timeout(ms(1))),
        case!(timeout(UNMAPPED)),
        case!(timeout(fixed_time(-1, 0))),
        case!(timeout(fixed_time(0, -1))),
        case!(timeout(fixed_time(0, 1_000_000_000))),
        case!(timeout(ms(1)).len(0)),
        case!(timeout(ms(1)).op_flags(0x100_u32)),
        case!(timeout(ms(1)).ioprio(1_u16)),
        case!(timeout(ms(10_000)); waits),
        case!(batch([timeout_after(ms(10_000), 1).len(1), nop()])),
        case!(batch([nop().flags(LINK), timeout_after(ms(20), 1).len(1)])),
        case!(batch([nop(), timeout_after(ms(20), 1).len(1).flags(DRAIN)])),
        case!(batch([nop(), timeout_after(ms(20), 1).len(1)])),
        case!(batch([timeout(ms(10_000)), cancel(0)]); any_order),
        case!(batch([timeout(ms(10_000)), timeout_remove(0)]); any_order),
        case!(cancel(5)),
    ]
}

fn waiting() -> Vec<Case> {
    vec![
        case!(wait(400_000, 20_000); slow(200)),
        case!(wait(0, 20_000); slow(200)),
        case!(wait(20_000, 400_000); slow(200)),
    ]
}

fn fixed() -> Vec<Case> {
    vec![
        case!(read(0, room(8), 8).by_ring().flags(FIXED)),
        case!(
            read_fixed(FILE, EMPTY_PAGE, 0).len(8),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)],
            then[write(PIPE_W, EMPTY_PAGE, 8)]
        ),
        case!(read_fixed(FILE, EMPTY_PAGE, 0).len(8)),
        case!(
            read_fixed(FILE, EMPTY_PAGE, 0).len(8).buf_index(1_u16),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)]
        ),
        case!(
            read_fixed(FILE, EMPTY_PAGE, 0).len(5000),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)]
        ),
        case!(
            read_fixed(FILE, UNMAPPED, 0).len(8),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)]
        ),
        case!(
            read_fixed(BAD, EMPTY_PAGE, 0).len(8),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)]
        ),
        case!(
            read_fixed(WRITER, EMPTY_PAGE, 0).len(8),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)]
        ),
        case!(
            read_fixed(FILE, EMPTY_PAGE, -2).len(8),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)]
        ),
        case!(
            write_fixed(FILE, EMPTY_PAGE, 4).len(8),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)]
        ),
        case!(write_fixed(FILE, EMPTY_PAGE, 4).len(8)),
        case!(
            write_fixed(READER, EMPTY_PAGE, 4).len(8),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)]
        ),
        case!(
            write_fixed(FILE, EMPTY_PAGE, 4).len(5000),
            after[register(B, vector([(EMPTY_PAGE, 4096)]), 1)]
        ),
        case!(
            files_update(halves([999]), 0).len(1),
            after[register_files([0, u32::MAX])]
        ),
        case!(
            files_update(halves([0, u32::MAX, -2_i32 as u32]), 0).len(3),
            after[register_files([u32::MAX, 0, 0])]
        ),
        case!(files_update(halves([0]), 0).len(1)),
        case!(
            files_update(halves([0]), 0).len(0),
            after[register_files([u32::MAX])]
        ),
        case!(
            files_update(halves([0, 0]), 1).len(2),
            after[register_files([u32::MAX, u32::MAX])]
        ),
        case!(
            files_update(halves([0, 0, 0]), -1).len(3),
            after[register_files([u32::MAX, 0, u32::MAX])]
        ),
        case!(
            files_update(halves([0]), -1).len(1),
            after[register_files([0])]
        ),
        case!(
            files_update(halves([999]), -1).len(1),
            after[register_files([u32::MAX])]
        ),
        case!(
            files_update(UNMAPPED, 0).len(1),
            after[register_files([u32::MAX])]
        ),
        case!(files_update(halves([0]), 0).len(1).op_flags(1_u32)),
        case!(files_update(halves([0]), 0).len(1).flags(FIXED)),
        case!(
            gives_descriptor(fixed_fd_install(0).flags(FIXED)),
            after[register_files([0])],
            then[fcntl(made(1), libc::F_GETFD, 0)]
        ),
        case!(
            gives_descriptor(fixed_fd_install(0).flags(FIXED).op_flags(1_u32)),
            after[register_files([0])],
            then[fcntl(made(1), libc::F_GETFD, 0)]
        ),
        case!(fixed_fd_install(0), after[register_files([0])]),
        case!(fixed_fd_install(1).flags(FIXED), after[register_files([0])]),
        case!(
            fixed_fd_install(0).flags(FIXED).op_flags(2_u32),
            after[register_files([0])]
        ),
        case!(
            fixed_fd_install(0).flags(FIXED).off(1),
            after[register_files([0])]
        ),
        case!(fsync(FILE).by_ring().off(-1)),
        case!(fsync(BAD).by_ring().off(-1)),
        case!(fsync(FILE).by_ring().op_flags(2_u32)),
        case!(close(-EBADF)),
    ]
}

/// Parameters of a ring: flags, and sizes and processor of a kernel thread.
fn parameters(flags: u32) -> Memory {
    let mut words = vec![0; 30];
    words[2] = flags;
    Memory::Ring(words)
}

fn setups() -> Vec<Case> {
    vec![
        case!(io_uring_setup(4, parameters(0))),
        case!(io_uring_setup(5, parameters(0))),
        case!(io_uring_setup(1, parameters(IORING_SETUP_CQSIZE))),
        case!(io_uring_setup(0, parameters(0))),
        case!(io_uring_setup(32769, parameters(0))),
        case!(io_uring_setup(32769, parameters(IORING_SETUP_CLAMP)); result_only),
        case!(io_uring_setup(0, parameters(0x8000_0000))),
        case!(io_uring_setup(4, parameters(0x8000_0000))),
        case!(io_uring_setup(4, parameters(IORING_SETUP_DEFER_TASKRUN))),
        case!(io_uring_setup(
            4,
            parameters(IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER)
        )),
        case!(
            io_uring_setup(4, parameters(IORING_SETUP_R_DISABLED)),
            then[io_uring_enter(made(0), 0, 0, 0, NULL, 0)]
        ),
        case!(io_uring_setup(4, parameters(IORING_SETUP_ATTACH_WQ))),
        case!(io_uring_setup(
            4,
            parameters(IORING_SETUP_SQE128 | IORING_SETUP_CQE32)
        )),
        case!(io_uring_setup(
            4,
            parameters(IORING_SETUP_REGISTERED_FD_ONLY)
        )),
        case!(io_uring_setup(4, UNMAPPED)),
        case!(io_uring_setup(0, UNMAPPED)),
        case!(io_uring_setup(4, READ_ONLY)),
        case!(
            io_uring_setup(4, parameters(0)),
            after[setrlimit(libc::RLIMIT_NOFILE, words([4, 1024]))]
        ),
        case!(io_uring_enter(SELF_RING, 0, 0, 0, NULL, 0)),
        case!(io_uring_enter(SELF_RING, 4, 0, 0, NULL, 0)),
        case!(io_uring_enter(SELF_RING, 0, 0, 0x8000_0000_u32, NULL, 0)),
        case!(io_uring_enter(BAD, 0, 0, 0x8000_0000_u32, NULL, 0)),
        case!(io_uring_enter(BAD, 0, 0, 0, NULL, 0)),
        case!(io_uring_enter(FILE, 0, 0, 0, NULL, 0)),
        case!(io_uring_enter(PATH_ONLY, 0, 0, 0, NULL, 0)),
        case!(io_uring_enter(
            SELF_RING,
            0,
            0,
            IORING_ENTER_GETEVENTS,
            NULL,
            0
        )),
        case!(io_uring_enter(SELF_RING, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0); waits),
        case!(io_uring_enter(
            SELF_RING,
            0,
            1,
            IORING_ENTER_GETEVENTS,
            UNMAPPED,
            8
        )),
        case!(io_uring_enter(
            SELF_RING,
            0,
            1,
            IORING_ENTER_GETEVENTS,
            words([0]),
            4
        )),
        case!(io_uring_enter(
            SELF_RING,
            0,
            1,
            IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
            UNMAPPED,
            24
        )),
        case!(io_uring_enter(
            SELF_RING,
            0,
            1,
            IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
            words([0, 0, 0]),
            16
        )),
        case!(io_uring_enter(
            0,
            0,
            0,
            IORING_ENTER_REGISTERED_RING,
            NULL,
            0
        )),
    ]
}

/// `io_uring_register(2)` of the ring itself.
fn register(operation: io_uring_register_op, argument: impl Into<Arg>, count: u32) -> Operation {
    io_uring_register(SELF_RING, operation as u32, argument, count)
}

fn registrations() -> Vec<Case> {
    use io_uring_register_op::*;
    vec![
        case!(register(IORING_REGISTER_FILES, halves([0, u32::MAX]), 2)),
        case!(
            register(IORING_REGISTER_FILES, halves([0]), 1),
            after[register_files([0])]
        ),
        case!(register(IORING_REGISTER_FILES, halves([999]), 1)),
        case!(register(IORING_REGISTER_FILES, UNMAPPED, 1)),
        case!(register(IORING_REGISTER_FILES, UNMAPPED, 0)),
        case!(register(IORING_UNREGISTER_FILES, NULL, 0)),
        case!(
            register(IORING_UNREGISTER_FILES, NULL, 0),
            after[register_files([0])]
        ),
        case!(
            register(IORING_UNREGISTER_FILES, NULL, 1),
            after[register_files([0])]
        ),
        case!(register(
            IORING_REGISTER_BUFFERS,
            vector([(EMPTY_PAGE, 4096)]),
            1
        )),
        case!(register(
            IORING_REGISTER_BUFFERS,
            vector([(UNMAPPED, 4096)]),
            1
        )),
        case!(register(
            IORING_REGISTER_BUFFERS,
            vector([(READ_ONLY, 4096)]),
            1
        )),
        case!(register(IORING_REGISTER_BUFFERS, UNMAPPED, 1)),
        case!(register(IORING_REGISTER_BUFFERS, NULL, 0)),
        case!(register(IORING_UNREGISTER_BUFFERS, NULL, 0)),
        case!(register(
            IORING_REGISTER_EVENTFD,
            Memory::Descriptor(Box::new(event(0).into())),
            1
        )),
        case!(register(
            IORING_REGISTER_EVENTFD,
            Memory::Descriptor(Box::new(FILE.into())),
            1
        )),
        case!(register(IORING_REGISTER_EVENTFD, UNMAPPED, 1)),
        case!(register(IORING_UNREGISTER_EVENTFD, NULL, 0)),
        case!(io_uring_register(SELF_RING, 250, NULL, 0)),
        case!(io_uring_register(BAD, 250, NULL, 0)),
        case!(io_uring_register(BAD, 0, NULL, 0)),
        case!(io_uring_register(FILE, 0, NULL, 0)),
    ]
}
