//! `io_uring_enter`: waiting, overflow, and who may call.

use super::read_write::read;
use super::*;
use crate::process::{Action, Signal, SignalSet};
use machine::clock;

const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;
const EXT_ARG: u32 = raw::IORING_ENTER_EXT_ARG;
const MS: u64 = 1_000_000;

impl Program {
    fn enter_with(&self, min_complete: u32, flags: u32, argument: u64, size: u64) -> Result<u32> {
        executor::block_on(self.call(Enter {
            to_submit: 0,
            min_complete,
            flags,
            argument,
            size,
        }))
    }

    /// A `struct io_uring_getevents_arg`.
    fn argument(&mut self, mask: u64, mask_size: u32, patience: u32, time: u64) -> u64 {
        let sizes = u64::from(mask_size) | u64::from(patience) << 32;
        self.words(&[mask, sizes, time])
    }
}

#[test]
fn flags_and_descriptors() {
    let program = Program::new(8, 0);
    let (channel, _) = program.channel();
    let call = |fd, flags| {
        let call = Enter {
            to_submit: 0,
            min_complete: 0,
            flags,
            argument: 0,
            size: 0,
        };
        executor::block_on(enter(&program.process, TASK, fd, call))
    };
    let fd = program.fd;
    for flags in [0, GETEVENTS, 2, 4, 6, EXT_ARG, 32, 64, 64 | GETEVENTS, 128] {
        assert_eq!(call(fd, flags), Ok(0), "{flags}");
    }
    assert_eq!(call(fd, 1 << 8), Err(Errno::EINVAL));
    assert_eq!(call(99, 1 << 8), Err(Errno::EINVAL));
    assert_eq!(call(99, 0), Err(Errno::EBADF));
    assert_eq!(call(channel, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(
        call(0, raw::IORING_ENTER_REGISTERED_RING),
        Err(Errno::EBADF)
    );
    assert_eq!(
        call(16, raw::IORING_ENTER_REGISTERED_RING),
        Err(Errno::EINVAL)
    );
}

#[test]
fn extended_arguments() {
    let mut program = Program::new(8, 0);
    let short = program.words(&[0, 2 * MS]);
    let now = program.words(&[0, 0]);
    let past = program.words(&[u64::MAX, 0]);
    let plain = program.argument(0, 8, 0, 0);
    let get = GETEVENTS | EXT_ARG;
    assert_eq!(program.enter_with(0, get, plain, 24), Ok(0));
    assert_eq!(program.enter_with(0, get, 0, 0), Err(Errno::EINVAL));
    assert_eq!(program.enter_with(0, get, plain, 23), Err(Errno::EINVAL));
    assert_eq!(program.enter_with(0, get, 8, 24), Err(Errno::EFAULT));
    for (time, flags) in [
        (short, 0),
        (now, 0),
        (now, raw::IORING_ENTER_ABS_TIMER),
        (past, 0),
    ] {
        let argument = program.argument(0, 8, 0, time);
        assert_eq!(
            program.enter_with(1, get | flags, argument, 24),
            Err(Errno::ETIME)
        );
    }
    let argument = program.argument(0, 8, 0, 8);
    assert_eq!(program.enter_with(1, get, argument, 24), Err(Errno::EFAULT));
    let argument = program.argument(short, 7, 0, short);
    assert_eq!(program.enter_with(1, get, argument, 24), Err(Errno::EINVAL));
    assert_eq!(program.enter_with(0, get, argument, 24), Ok(0));
    let argument = program.argument(8, 8, 0, short);
    assert_eq!(program.enter_with(1, get, argument, 24), Err(Errno::EFAULT));
    let argument = program.argument(short, 8, 0, short);
    assert_eq!(program.enter_with(1, get, argument, 24), Err(Errno::ETIME));
    assert_eq!(
        program.enter_with(1, GETEVENTS, short, 7),
        Err(Errno::EINVAL)
    );
    assert_eq!(program.enter_with(0, GETEVENTS, short, 7), Ok(0));
    let registered = get | raw::IORING_ENTER_EXT_ARG_REG;
    assert_eq!(program.enter_with(1, registered, 0, 64), Err(Errno::EFAULT));
    assert_eq!(program.enter_with(1, registered, 0, 48), Err(Errno::EINVAL));
}

#[test]
fn a_wait_ends_with_what_there_is() {
    let mut program = Program::new(8, 0);
    let get = GETEVENTS | EXT_ARG;
    let time = program.words(&[0, 5 * MS]);
    let argument = program.argument(0, 0, 0, time);
    assert_eq!(program.run(&[]), []);
    program.push(nop());
    assert_eq!(program.enter(1, 0, 0), Ok(1));
    // Some came, if not as many as were wanted.
    assert_eq!(program.enter_with(2, get, argument, 24), Ok(0));
    assert_eq!(program.cqes(), [(0, 0)]);
    // What was submitted counts more than a wait that failed.
    program.push(nop());
    assert_eq!(program.enter(1, 0, get), Ok(1));
}

#[test]
fn patience_ends_before_the_wait_does() {
    let mut program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let reading = read(fd, program.memory, 1);
    let time = program.words(&[0, 200 * MS]);
    let argument = program.argument(0, 0, 10_000, time);
    assert_eq!(program.run(&[reading, reading]), []);
    executor::spawn("test", async move {
        executor::sleep_until(clock::monotonic() + 2 * MS).await;
        channel.feed(b"x");
    });
    let start = clock::monotonic();
    assert_eq!(
        program.enter_with(2, GETEVENTS | EXT_ARG, argument, 24),
        Ok(0)
    );
    let took = clock::monotonic() - start;
    assert!((9 * MS..150 * MS).contains(&took), "{took}");
    assert_eq!(program.cqes(), [(0, 1)]);
    // One that was there before is enough as well; without a deadline, none is.
    assert_eq!(program.run(&[]), []);
    program.push(nop());
    assert_eq!(program.enter(1, 0, 0), Ok(1));
    let start = clock::monotonic();
    assert_eq!(
        program.enter_with(2, GETEVENTS | EXT_ARG, argument, 24),
        Ok(0)
    );
    assert!(clock::monotonic() - start < 150 * MS);
    assert_eq!(program.cqes(), [(0, 0)]);
    let argument = program.argument(0, 0, 1000, 0);
    let result = program.enter_with(2, GETEVENTS | EXT_ARG, argument, 24);
    assert_eq!(result, Err(Errno::ETIME));
}

#[test]
fn a_signal_with_a_handler_interrupts_the_wait_unless_it_is_blocked() {
    let mut program = Program::new(8, 0);
    let action = Action {
        handler: 0x1000,
        ..Action::default()
    };
    let process = program.process.clone();
    process.set_action(Signal::SIGTERM, action);
    let is_taken = || process.take_wanted(TASK, SignalSet(u64::MAX)).is_some();
    let signal_soon = || {
        let process = process.clone();
        executor::spawn("test", async move { process.signal(Signal::SIGTERM) });
    };
    signal_soon();
    assert_eq!(program.enter(0, 1, GETEVENTS), Err(Errno::EINTR));
    // It came before this one begins to wait.
    assert_eq!(program.enter(0, 1, GETEVENTS), Err(Errno::EINTR));
    assert!(is_taken());
    // Some CQEs are better than none.
    program.push(nop());
    assert_eq!(program.enter(1, 0, 0), Ok(1));
    signal_soon();
    assert_eq!(program.enter(0, 2, GETEVENTS), Ok(0));
    assert!(is_taken());
    let mask = program.words(&[1 << (Signal::SIGTERM.number() - 1)]);
    let time = program.words(&[0, 5 * MS]);
    let argument = program.argument(mask, 8, 0, time);
    assert_eq!(program.cqes(), [(0, 0)]);
    signal_soon();
    let result = program.enter_with(1, GETEVENTS | EXT_ARG, argument, 24);
    assert_eq!(result, Err(Errno::ETIME));
    assert_eq!(process.blocked(TASK), SignalSet::EMPTY);
}

#[test]
fn only_some_are_submitted_only_once() {
    let program = Program::new(8, 0);
    program.push(nop());
    // No wait if not everything could be submitted.
    assert_eq!(program.enter(5, 9, GETEVENTS), Ok(1));
    assert_eq!(program.enter(5, 9, GETEVENTS), Ok(0));
    assert_eq!(program.cqes(), [(0, 0)]);
}

#[test]
fn no_cqe_is_lost_when_there_is_no_room() {
    let program = Program::with_cq(2, raw::IORING_SETUP_CQSIZE, 2);
    for user_data in 0..20 {
        program.push(nop().data(user_data));
        assert_eq!(program.enter(1, 0, 0), Ok(1));
    }
    assert_eq!(program.sq_flags(), raw::IORING_SQ_CQ_OVERFLOW);
    let mut seen = program.cqes();
    assert_eq!(seen.len(), 2);
    // Room alone brings none: new ones come after those that wait.
    program.push(nop().data(20));
    assert_eq!(program.enter(1, 0, 0), Ok(1));
    assert_eq!(program.cqes(), []);
    while program.sq_flags() != 0 {
        program.wait(1);
        seen.extend(program.cqes());
    }
    let expected: Vec<(u64, i32)> = (0..21).map(|user_data| (user_data, 0)).collect();
    assert_eq!(seen, expected);
    assert_eq!(program.word(program.params.cq_off.overflow), 0);
}

#[test]
fn a_ring_can_be_one_tasks_own() {
    for (flags, is_own) in [(0, false), (raw::IORING_SETUP_SINGLE_ISSUER, true)] {
        let program = Program::new(8, flags);
        program.push(nop());
        let call = Enter {
            to_submit: 1,
            min_complete: 0,
            flags: 0,
            argument: 0,
            size: 0,
        };
        let other = enter(&program.process, TASK + 1, program.fd, call);
        let expected = if is_own { Err(Errno::EEXIST) } else { Ok(1) };
        assert_eq!(executor::block_on(other), expected);
    }
}

#[test]
fn a_disabled_ring_is_its_enablers() {
    let flags = raw::IORING_SETUP_R_DISABLED | raw::IORING_SETUP_SINGLE_ISSUER;
    let program = Program::new(8, flags);
    assert_eq!(program.enter(0, 0, 0), Err(Errno::EBADFD));
    let call = |argument, count| Call {
        opcode: raw::io_uring_register_op::IORING_REGISTER_ENABLE_RINGS as u32,
        argument,
        count,
    };
    let enable = |call| {
        register(
            &program.process,
            TASK + 1,
            &mut Vec::new(),
            program.fd,
            call,
        )
    };
    assert_eq!(enable(call(0, 1)), Err(Errno::EINVAL));
    assert_eq!(enable(call(0, 0)), Ok(Some(0)));
    program.push(nop());
    assert_eq!(program.enter(1, 0, 0), Err(Errno::EEXIST));
}

#[test]
fn without_an_array_sqes_go_in_order() {
    let program = Program::new(4, raw::IORING_SETUP_NO_SQARRAY);
    assert_eq!(program.params.sq_off.array, 0);
    for round in 0..5 {
        let cqes = program.run(&[
            nop().data(round),
            nop().data(round + 10),
            nop().data(round + 20),
        ]);
        assert_eq!(cqes, [(round, 0), (round + 10, 0), (round + 20, 0)]);
    }
}
