//! Programs that do not keep to the rules.

use super::read_write::read;
use super::timeout::timeout;
use super::*;
use crate::io_uring::budget;
use machine::Plain;

const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;

#[test]
fn a_bad_index_is_dropped_and_ends_the_batch() {
    let program = Program::new(8, 0);
    for user_data in 0..3 {
        program.push(nop().data(user_data));
    }
    program.set_word(program.params.sq_off.array + 4, 8);
    assert_eq!(program.submit(3), Ok(1));
    assert_eq!(program.cqes(), [(0, 0)]);
    assert_eq!(program.word(program.params.sq_off.dropped), 1);
    assert_eq!(program.submit(3), Ok(1));
    assert_eq!(program.cqes(), [(2, 0)]);
}

#[test]
fn heads_and_tails_can_be_anything() {
    let program = Program::with_cq(8, raw::IORING_SETUP_CQSIZE, 8);
    let at = &program.params;
    for value in [1 << 31, u32::MAX, 12345, 0] {
        program.set_word(at.sq_off.tail, value);
        let taken = program.submit(u32::MAX).unwrap();
        assert!(taken <= 8);
        program.set_word(at.cq_off.head, value);
        for offset in [
            at.sq_off.head,
            at.cq_off.tail,
            at.sq_off.ring_mask,
            at.cq_off.ring_mask,
        ] {
            program.set_word(offset, value);
        }
        program.submit(0).unwrap();
    }
}

#[test]
fn closing_a_ring_ends_its_requests() {
    let mut program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let reading = read(fd, program.memory, 1);
    let long = timeout(&mut program, 300_000_000);
    let start = [reading.flags(LINK), nop(), nop().flags(DRAIN), long, nop()];
    assert_eq!(program.run(&start), []);
    let files = program.place(&fd.to_le_bytes());
    let register_files = raw::io_uring_register_op::IORING_REGISTER_FILES;
    assert_eq!(program.register(register_files, files, 1), 0);
    drop(program.process.files.close(program.fd).unwrap());
    channel.feed(b"x");
    executor::block_on(executor::yield_now());
    // Nobody has read it, nobody holds the file but its descriptor.
    assert_eq!(channel.bytes.lock().len(), 1);
    assert_eq!(Arc::strong_count(&channel), 2);
    // The rings can still be seen.
    assert_eq!(program.word(program.params.sq_off.ring_mask), 7);
}

#[test]
fn a_wait_can_be_abandoned() {
    let flags = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
    for flags in [0, flags] {
        let program = Program::new(8, flags);
        let (fd, channel) = program.channel();
        assert_eq!(program.run(&[read(fd, program.memory, 1)]), []);
        assert_waits(program.call(Enter {
            to_submit: 0,
            min_complete: 1,
            flags: GETEVENTS,
            argument: 0,
            size: 0,
        }));
        channel.feed(b"x");
        program.wait(1);
        assert_eq!(program.cqes(), [(0, 1)]);
    }
}

#[test]
fn unmapped_rings_still_work() {
    let program = Program::new(8, 0);
    program.push(nop().data(1));
    let space = &program.process.space;
    space.unmap(program.rings, 4096).unwrap();
    space.unmap(program.sqes, 4096).unwrap();
    assert_eq!(program.submit(1), Ok(1));
}

#[test]
fn more_than_memory_allows_is_not_accepted() {
    let program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    let ring = program.process.files.get(program.fd).unwrap();
    let ring = crate::io_uring::file::ring_of(&ring).unwrap();
    assert_eq!(program.run(&[nop()]), [(0, 0)]);
    let allowed = ring.lock().allowance.requests();
    // As if other rings had the rest.
    ring.lock().allowance.freeze();
    let mut accepted = 0;
    loop {
        program.push(read(fd, program.memory, 1).data(accepted));
        match program.submit(1) {
            Ok(1) => accepted += 1,
            result => {
                assert_eq!(result, Err(Errno::EAGAIN));
                break;
            }
        }
    }
    assert_eq!(accepted as usize, allowed);
    // CQEs that wait for room count as well.
    channel.feed(&[0; 1000]);
    program.wait(1);
    let mut seen = program.cqes().len();
    while seen < allowed {
        program.wait(1);
        seen += program.cqes().len();
    }
    assert_eq!(program.submit(1), Ok(1));
    assert_eq!(program.cqes().len(), 1);
}

#[test]
fn what_is_large_is_charged() {
    let program = Program::new(8, 0);
    let (fd, channel) = program.channel();
    // Reads that wait, of more memory than there is; each is charged 4 MiB for its pages.
    let huge = Entry {
        address: 0x1000,
        ..read(fd, 0, 0x7fff_f000)
    };
    let _rest = budget::MemoryCharge::new(budget::limit() - (6 << 20)).unwrap();
    assert_eq!(program.run(&[huge]), []);
    assert_eq!(program.one(huge), -12);
    channel.feed(b"x");
    program.wait(1);
    assert_eq!(program.cqes(), [(0, -14)]);
    assert_eq!(program.run(&[huge]), []);
}

#[test]
fn the_ring_shows_only_itself() {
    let mut params = raw::io_uring_params::zeroed();
    let file = create(&Program::new(1, 0).process, 1, &mut params, TASK).unwrap();
    let source = file.ops.clone().page_source().unwrap();
    let page = |offset: u64| source.page_now(offset / 4096, true).unwrap();
    assert!(page(0).is_ok() && page(raw::IORING_OFF_CQ_RING.into()).is_ok());
    assert!(page(raw::IORING_OFF_SQES.into()).is_ok());
    assert!(page(4096).is_err());
    assert!(page(u64::from(raw::IORING_OFF_SQES) + 4096).is_err());
    assert!(page(raw::IORING_OFF_PBUF_RING.into()).is_err());
    let start = |offset: u64| source.check_start(offset / 4096);
    assert_eq!(start(raw::IORING_OFF_SQES.into()), Ok(()));
    assert_eq!(start(0x1800_0000), Err(Errno::ENOMEM));
    assert!(page(1 << 32).is_err() && page(u64::MAX).is_err());
}
