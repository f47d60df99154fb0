//! More completions than the ring holds: none is lost.

use guest_programs::check::{Check, Outcome};
use guest_programs::{checks, expect, expect_eq};
use linux_raw_sys::io_uring::{
    IORING_ENTER_GETEVENTS, IORING_SETUP_CQSIZE, IORING_SETUP_DEFER_TASKRUN,
    IORING_SETUP_SINGLE_ISSUER, IORING_SQ_CQ_OVERFLOW,
};

use guest_programs::ring::{Ring, Sqe, gives, milliseconds, params};

pub(crate) const CHECKS: &[Check] = checks![
    overflow_loses_nothing,
    overflow_sets_the_flag,
    overflow_keeps_order,
    overflow_flushes_as_room_comes,
    overflow_is_waited_for,
    overflow_in_one_batch,
    overflow_still_submits,
    overflow_counter_stays,
    overflow_of_timeouts,
    overflow_deferred,
];

const GETEVENTS: u32 = IORING_ENTER_GETEVENTS;

/// A ring whose completion queue holds two, with `count` NOPs completed, numbered from 0.
fn overflown(count: u64) -> Result<Ring, guest_programs::check::Failure> {
    let ring = Ring::new(1)?;
    expect_eq!(ring.params.cq_entries, 2);
    for index in 0..count {
        ring.push(Sqe::nop().data(index));
        expect_eq!(ring.submit(), Ok(1));
    }
    Ok(ring)
}

fn flagged(ring: &Ring) -> bool {
    ring.sq_flags() & IORING_SQ_CQ_OVERFLOW != 0
}

fn overflow_loses_nothing() -> Outcome {
    let ring = overflown(1000)?;
    for index in 0..1000 {
        let cqe = ring.next()?;
        expect_eq!((cqe.user_data, cqe.res), (index, 0));
    }
    ring.nothing_left()
}

fn overflow_sets_the_flag() -> Outcome {
    let ring = overflown(2)?;
    expect!(!flagged(&ring));
    let ring = overflown(3)?;
    expect!(flagged(&ring));
    expect_eq!(ring.ready(), 2);
    ring.pop();
    expect_eq!(ring.enter(0, 0, GETEVENTS), Ok(0));
    expect!(!flagged(&ring));
    expect_eq!(ring.ready(), 2);
    Ok(())
}

fn overflow_keeps_order() -> Outcome {
    let ring = overflown(5)?;
    // Room comes up, but what was first must come first.
    expect_eq!(ring.pop().map(|cqe| cqe.user_data), Some(0));
    ring.push(Sqe::nop().data(5));
    ring.submit()?;
    let order: Vec<_> = ring.take(5)?.iter().map(|cqe| cqe.user_data).collect();
    expect_eq!(order, [1, 2, 3, 4, 5]);
    Ok(())
}

fn overflow_flushes_as_room_comes() -> Outcome {
    let ring = overflown(5)?;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        expect!(ring.ready() > 0);
        seen.push(ring.pop().map(|cqe| cqe.user_data));
        expect_eq!(ring.enter(0, 0, GETEVENTS), Ok(0));
    }
    expect_eq!(seen, (0..5).map(Some).collect::<Vec<_>>());
    expect!(!flagged(&ring) && ring.ready() == 0);
    Ok(())
}

fn overflow_is_waited_for() -> Outcome {
    let ring = overflown(4)?;
    ring.pop();
    ring.pop();
    expect_eq!(ring.ready(), 0);
    // The two that overflowed are enough for the wait.
    expect_eq!(ring.enter(0, 2, GETEVENTS), Ok(0));
    expect_eq!((ring.ready(), flagged(&ring)), (2, false));
    Ok(())
}

fn overflow_in_one_batch() -> Outcome {
    let mut params = params(IORING_SETUP_CQSIZE);
    params.cq_entries = 64;
    let ring = Ring::with(64, params)?;
    for round in 0..3 {
        for index in 0..64 {
            ring.push(Sqe::nop().data(round * 64 + index));
        }
        expect_eq!(ring.submit(), Ok(64));
    }
    let cqes = ring.take(192)?;
    expect!(
        cqes.iter()
            .enumerate()
            .all(|(index, cqe)| cqe.user_data == index as u64)
    );
    ring.nothing_left()
}

fn overflow_still_submits() -> Outcome {
    let ring = overflown(4)?;
    // Nothing is refused while completions wait outside the ring.
    ring.push(Sqe::nop().data(4));
    expect_eq!(ring.submit(), Ok(1));
    expect_eq!(ring.take(5)?.len(), 5);
    gives!(ring, 0, Sqe::nop());
    Ok(())
}

fn overflow_counter_stays() -> Outcome {
    // It counts what was lost for want of memory, and nothing was.
    let ring = overflown(100)?;
    expect_eq!(ring.cq_overflow(), 0);
    ring.take(100)?;
    expect_eq!(ring.cq_overflow(), 0);
    Ok(())
}

fn overflow_of_timeouts() -> Outcome {
    let ring = Ring::new(1)?;
    let times: Vec<_> = (0..6).map(|index| milliseconds(10 + 5 * index)).collect();
    for (index, time) in times.iter().enumerate() {
        ring.push(Sqe::timeout(time, 0).data(index as u64));
        ring.submit()?;
    }
    std::thread::sleep(std::time::Duration::from_millis(60));
    let order: Vec<_> = ring.take(6)?.iter().map(|cqe| cqe.user_data).collect();
    expect_eq!(order, [0, 1, 2, 3, 4, 5]);
    ring.nothing_left()
}

fn overflow_deferred() -> Outcome {
    let ring = Ring::flagged(1, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)?;
    for index in 0..20 {
        ring.push(Sqe::nop().data(index));
        ring.submit()?;
    }
    let order: Vec<_> = ring.take(20)?.iter().map(|cqe| cqe.user_data).collect();
    expect_eq!(order, (0..20).collect::<Vec<_>>());
    ring.nothing_left()
}
