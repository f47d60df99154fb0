//! Chains and drains.

use super::*;

const CANCELED: i32 = -125;
const EINVAL: i32 = -22;

#[test]
fn a_chain_runs_in_order_after_what_is_not_linked() {
    let program = Program::new(8, 0);
    let cqes = program.run(&[
        nop().data(1).flags(LINK),
        nop().data(2).flags(LINK),
        nop().data(3),
        nop().data(4),
    ]);
    assert_eq!(cqes, [(1, 0), (4, 0), (2, 0), (3, 0)]);
}

#[test]
fn a_failure_breaks_a_chain_and_a_hard_link_does_not_break() {
    let program = Program::new(8, 0);
    let cqes = program.run(&[
        failing().data(1).flags(LINK),
        nop().data(2).flags(LINK),
        nop().data(3),
        nop().data(4),
    ]);
    assert_eq!(cqes, [(1, -5), (4, 0), (2, CANCELED), (3, CANCELED)]);
    let cqes = program.run(&[
        failing().data(1).flags(HARD_LINK),
        nop().data(2).flags(LINK),
        nop().data(3),
        nop().data(4),
    ]);
    assert_eq!(cqes, [(1, -5), (4, 0), (2, 0), (3, 0)]);
}

#[test]
fn a_chain_with_a_bad_sqe_never_starts() {
    let program = Program::new(8, 0);
    for flags in [LINK, HARD_LINK] {
        let cqes = program.run(&[
            nop().data(1).flags(flags),
            bad().data(2).flags(LINK),
            nop().data(3),
            nop().data(4),
        ]);
        assert_eq!(cqes, [(1, CANCELED), (4, 0), (2, EINVAL), (3, CANCELED)]);
    }
    // At the end of the chain it ends the batch too.
    program.push(nop().data(1).flags(LINK));
    program.push(bad().data(2));
    program.push(nop().data(3));
    assert_eq!(program.submit(3), Ok(2));
    assert_eq!(program.cqes(), [(1, CANCELED), (2, EINVAL)]);
}

#[test]
fn a_chain_ends_with_its_batch() {
    let program = Program::new(8, 0);
    program.push(failing().data(1).flags(LINK));
    program.push(nop().data(2));
    assert_eq!(program.submit(1), Ok(1));
    assert_eq!(program.submit(1), Ok(1));
    assert_eq!(program.cqes(), [(1, -5), (2, 0)]);
}

#[test]
fn success_can_be_silent_and_silence_spreads_from_a_failure() {
    let program = Program::new(8, 0);
    let cqes = program.run(&[
        nop().data(1).flags(SKIP),
        failing().data(2).flags(SKIP),
        nop().data(3),
    ]);
    assert_eq!(cqes, [(2, -5), (3, 0)]);
    let cqes = program.run(&[
        failing().data(1).flags(LINK | SKIP),
        nop().data(2).flags(LINK),
        nop().data(3),
        nop().data(4),
    ]);
    assert_eq!(cqes, [(1, -5), (4, 0)]);
    let cqes = program.run(&[
        failing().data(1).flags(LINK),
        nop().data(2).flags(LINK | SKIP),
        nop().data(3),
        nop().data(4),
    ]);
    assert_eq!(cqes, [(1, -5), (4, 0), (2, CANCELED), (3, CANCELED)]);
}

#[test]
fn a_short_read_breaks_a_chain() {
    let program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let read = read_write::read(fd, program.memory, 4).data(1).flags(LINK);
    assert_eq!(program.run(&[read, nop().data(2)]), []);
    channel.feed(b"ab");
    program.wait(2);
    assert_eq!(program.cqes(), [(1, 2), (2, CANCELED)]);
    assert_eq!(program.run(&[read, nop().data(2)]), []);
    channel.feed(b"abcd");
    program.wait(2);
    assert_eq!(program.cqes(), [(1, 4), (2, 0)]);
}

#[test]
fn a_linked_file_is_looked_up_in_its_turn() {
    let program = Program::new(8, 0);
    let (fd, _channel) = program.channel();
    let close = Entry {
        opcode: op::IORING_OP_CLOSE as u8,
        fd,
        ..nop()
    };
    let write = read_write::write(fd, program.memory, 1);
    let cqes = program.run(&[close.data(1).flags(LINK), write.data(2)]);
    assert_eq!(cqes, [(1, 0), (2, -9)]);
}

#[test]
fn a_drain_waits_for_all_before_it_and_holds_up_all_after_it() {
    let program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let read = read_write::read(fd, program.memory, 1);
    let cqes = program.run(&[
        read.data(1),
        nop().data(2),
        nop().data(3).flags(DRAIN),
        nop().data(4),
        read.data(5).flags(DRAIN),
        nop().data(6),
    ]);
    assert_eq!(cqes, [(2, 0)]);
    channel.feed(b"x");
    program.wait(3);
    assert_eq!(program.cqes(), [(1, 1), (3, 0), (4, 0)]);
    channel.feed(b"x");
    program.wait(2);
    assert_eq!(program.cqes(), [(5, 1), (6, 0)]);
    // The queue is empty: all is as before.
    assert_eq!(program.run(&[nop().data(7), nop().data(8)]).len(), 2);
    assert_eq!(program.run(&[nop().data(9)]), [(9, 0)]);
}

#[test]
fn a_drain_in_a_chain_drains_the_chain_and_the_next() {
    let program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let read = read_write::read(fd, program.memory, 1);
    let cqes = program.run(&[
        read.data(1),
        nop().data(2).flags(LINK),
        nop().data(3).flags(DRAIN),
        nop().data(4),
        nop().data(5),
    ]);
    assert_eq!(cqes, []);
    channel.feed(b"x");
    program.wait(5);
    assert_eq!(program.cqes(), [(1, 1), (2, 0), (3, 0), (4, 0), (5, 0)]);
}

#[test]
fn drains_are_refused_once_cqes_were_skipped() {
    let program = Program::new(8, 0);
    assert_eq!(program.run(&[nop().data(1).flags(SKIP)]), []);
    assert_eq!(program.one(nop().flags(DRAIN)), -95);
}

#[test]
fn deferred_links_wait_until_events_are_asked_for() {
    let flags = raw::IORING_SETUP_SINGLE_ISSUER
        | raw::IORING_SETUP_DEFER_TASKRUN
        | raw::IORING_SETUP_TASKRUN_FLAG;
    let program = Program::new(8, flags);
    program.push(nop().data(1).flags(LINK));
    program.push(nop().data(2));
    program.push(nop().data(3));
    assert_eq!(program.enter(3, 0, 0), Ok(3));
    assert_eq!(program.cqes(), [(1, 0), (3, 0)]);
    assert_eq!(program.sq_flags(), raw::IORING_SQ_TASKRUN);
    program.wait(1);
    assert_eq!(program.cqes(), [(2, 0)]);
    assert_eq!(program.sq_flags(), 0);
}
