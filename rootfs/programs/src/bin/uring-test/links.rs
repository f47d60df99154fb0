//! IO_LINK, IO_DRAIN and CQE_SKIP_SUCCESS.

use guest_programs::check::{Check, Outcome, in_some_try};
use guest_programs::sys::{contents, create};
use guest_programs::{checks, expect_eq};
use linux_raw_sys::io_uring::{
    IORING_SETUP_SUBMIT_ALL, IORING_TIMEOUT_ETIME_SUCCESS, io_uring_sqe_flags_bit,
};

use guest_programs::ring::{Ring, Sqe, gives, milliseconds};

pub(crate) const CHECKS: &[Check] = checks![
    silent_time_limits,
    link_runs_in_order,
    link_failure_cancels_the_rest,
    link_failure_spares_other_chains,
    link_short_read_breaks,
    link_ends_with_submission,
    link_ends_at_the_last,
    link_with_invalid_entry,
    link_with_invalid_entry_submit_all,
    link_waits_for_a_timeout,
    link_timeout_success,
    link_write_then_read,
    link_long_chain,
    drain_waits,
    drain_holds_up_what_follows,
    drain_without_work,
    drain_of_a_chain,
    skip_success,
    skip_shows_failure,
    skip_in_a_chain,
    skip_in_a_broken_chain,
    skip_counts_for_timeouts,
    skip_and_drain_exclude_each_other,
];

pub(crate) const LINK: u8 = 1 << io_uring_sqe_flags_bit::IOSQE_IO_LINK_BIT as u8;
const DRAIN: u8 = 1 << io_uring_sqe_flags_bit::IOSQE_IO_DRAIN_BIT as u8;
const SKIP: u8 = 1 << io_uring_sqe_flags_bit::IOSQE_CQE_SKIP_SUCCESS_BIT as u8;

const CANCELLED: Option<i32> = Some(-libc::ECANCELED);
const BAD_DESCRIPTOR: Option<i32> = Some(-libc::EBADF);

fn failing() -> Sqe {
    Sqe::write(&999, b"x", 0)
}

fn link_runs_in_order() -> Outcome {
    let ring = Ring::new(8)?;
    let linked = Sqe::nop().flags(LINK);
    for _ in 0..10 {
        expect_eq!(
            ring.order(&[linked, linked, linked, Sqe::nop()])?,
            [0, 1, 2, 3]
        );
    }
    Ok(())
}

fn link_failure_cancels_the_rest() -> Outcome {
    let ring = Ring::new(8)?;
    let linked = Sqe::nop().flags(LINK);
    let sqes = [
        linked,
        failing().flags(LINK),
        linked,
        Sqe::nop(),
        Sqe::nop(),
    ];
    let results = ring.results(&sqes, 5)?;
    expect_eq!(
        results,
        [Some(0), BAD_DESCRIPTOR, CANCELLED, CANCELLED, Some(0)]
    );
    Ok(())
}

fn link_failure_spares_other_chains() -> Outcome {
    let ring = Ring::new(8)?;
    let linked = Sqe::nop().flags(LINK);
    let sqes = [failing().flags(LINK), Sqe::nop(), linked, Sqe::nop()];
    let results = ring.results(&sqes, 4)?;
    expect_eq!(results, [BAD_DESCRIPTOR, CANCELLED, Some(0), Some(0)]);
    Ok(())
}

fn link_short_read_breaks() -> Outcome {
    let ring = Ring::new(8)?;
    let fd = create(c"f", b"abc")?;
    let mut bytes = [0; 8];
    let read = Sqe::read(&fd, &mut bytes, 0).flags(LINK);
    let results = ring.results(&[read, Sqe::nop()], 2)?;
    expect_eq!(results, [Some(3), CANCELLED]);
    let results = ring.results(&[Sqe { len: 3, ..read }, Sqe::nop()], 2)?;
    expect_eq!(results, [Some(3), Some(0)]);
    Ok(())
}

fn link_ends_with_submission() -> Outcome {
    let ring = Ring::new(8)?;
    // The chain that the last entry would go on with ends with the call.
    ring.push(failing().flags(LINK).data(1));
    ring.submit()?;
    expect_eq!(ring.next()?.res, -libc::EBADF);
    gives!(ring, 0, Sqe::nop());
    Ok(())
}

fn link_ends_at_the_last() -> Outcome {
    let ring = Ring::new(8)?;
    // The first entry without the flag still belongs to the chain.
    let sqes = [failing().flags(LINK), Sqe::nop(), Sqe::nop()];
    expect_eq!(
        ring.results(&sqes, 3)?,
        [BAD_DESCRIPTOR, CANCELLED, Some(0)]
    );
    Ok(())
}

fn link_with_invalid_entry() -> Outcome {
    let ring = Ring::new(8)?;
    for (index, sqe) in [
        Sqe::nop().flags(LINK),
        Sqe::unknown().flags(LINK),
        Sqe::nop(),
        Sqe::nop(),
    ]
    .iter()
    .enumerate()
    {
        ring.push(sqe.data(index as u64));
    }
    // Nothing of a chain runs if one of it cannot even be prepared, and submission goes on.
    expect_eq!(ring.submit(), Ok(4));
    let mut results: Vec<_> = ring
        .take(4)?
        .iter()
        .map(|cqe| (cqe.user_data, cqe.res))
        .collect();
    results.sort_unstable();
    let (cancelled, invalid) = (-libc::ECANCELED, -libc::EINVAL);
    expect_eq!(
        results,
        [(0, cancelled), (1, invalid), (2, cancelled), (3, 0)]
    );
    Ok(())
}

fn link_with_invalid_entry_submit_all() -> Outcome {
    let ring = Ring::flagged(8, IORING_SETUP_SUBMIT_ALL)?;
    let linked = Sqe::nop().flags(LINK);
    let sqes = [linked, linked, Sqe::unknown(), Sqe::nop()];
    let results = ring.results(&sqes, 4)?;
    expect_eq!(
        results,
        [CANCELLED, CANCELLED, Some(-libc::EINVAL), Some(0)]
    );
    Ok(())
}

fn link_waits_for_a_timeout() -> Outcome {
    let ring = Ring::new(8)?;
    let time = milliseconds(20);
    // A timeout that expires has failed, as its result says.
    let results = ring.results(&[Sqe::timeout(&time, 0).flags(LINK), Sqe::nop()], 2)?;
    expect_eq!(results, [Some(-libc::ETIME), CANCELLED]);
    Ok(())
}

fn link_timeout_success() -> Outcome {
    in_some_try(|| {
        let ring = Ring::new(8)?;
        let time = milliseconds(20);
        let timeout = Sqe::timeout(&time, 0).op_flags(IORING_TIMEOUT_ETIME_SUCCESS);
        let order = ring.order(&[timeout.flags(LINK), Sqe::nop(), Sqe::nop()])?;
        expect_eq!(order, [2, 0, 1]);
        Ok(())
    })
}

fn link_write_then_read() -> Outcome {
    let ring = Ring::new(8)?;
    let fd = create(c"f", b"")?;
    let mut bytes = [0; 6];
    let sqes = [
        Sqe::write(&fd, b"abc", 0).flags(LINK),
        Sqe::write(&fd, b"def", 3).flags(LINK),
        Sqe::fsync(&fd).flags(LINK),
        Sqe::read(&fd, &mut bytes, 0),
    ];
    expect_eq!(
        ring.results(&sqes, 4)?,
        [Some(3), Some(3), Some(0), Some(6)]
    );
    expect_eq!((&bytes, contents(&fd)?), (b"abcdef", b"abcdef".to_vec()));
    Ok(())
}

fn link_long_chain() -> Outcome {
    let ring = Ring::new(256)?;
    let mut sqes = vec![Sqe::nop().flags(LINK); 200];
    expect_eq!(ring.order(&sqes)?, (0..200).collect::<Vec<_>>());
    sqes[100] = failing().flags(LINK);
    let results = ring.results(&sqes, 200)?;
    let count = |wanted| results.iter().filter(|result| **result == wanted).count();
    expect_eq!(
        (count(Some(0)), count(BAD_DESCRIPTOR), count(CANCELLED)),
        (100, 1, 99)
    );
    Ok(())
}

fn drain_waits() -> Outcome {
    in_some_try(|| {
        let ring = Ring::new(8)?;
        let time = milliseconds(30);
        let sqes = [Sqe::timeout(&time, 0), Sqe::nop(), Sqe::nop().flags(DRAIN)];
        expect_eq!(ring.order(&sqes)?, [1, 0, 2]);
        Ok(())
    })
}

fn drain_holds_up_what_follows() -> Outcome {
    let ring = Ring::new(8)?;
    let time = milliseconds(30);
    let sqes = [
        Sqe::timeout(&time, 0),
        Sqe::nop().flags(DRAIN),
        Sqe::nop(),
        Sqe::nop().flags(DRAIN),
    ];
    expect_eq!(ring.order(&sqes)?, [0, 1, 2, 3]);
    Ok(())
}

fn drain_without_work() -> Outcome {
    let ring = Ring::new(8)?;
    gives!(ring, 0, Sqe::nop().flags(DRAIN));
    expect_eq!(ring.order(&[Sqe::nop().flags(DRAIN); 4])?, [0, 1, 2, 3]);
    // Once it is over it holds nothing up.
    gives!(ring, 0, Sqe::nop());
    Ok(())
}

fn drain_of_a_chain() -> Outcome {
    let ring = Ring::new(8)?;
    let time = milliseconds(30);
    let sqes = [
        Sqe::timeout(&time, 0),
        Sqe::nop().flags(LINK),
        Sqe::nop().flags(DRAIN),
    ];
    // A drain inside a chain holds up the whole chain.
    expect_eq!(ring.order(&sqes)?, [0, 1, 2]);
    Ok(())
}

fn skip_success() -> Outcome {
    let ring = Ring::new(8)?;
    let results = ring.results(&[Sqe::nop().flags(SKIP), Sqe::nop()], 1)?;
    expect_eq!(results, [None, Some(0)]);
    let fd = create(c"f", b"")?;
    // It is done, though nothing says so: what follows in the chain runs after it.
    let hidden = Sqe::write(&fd, b"abc", 0).flags(SKIP | LINK);
    expect_eq!(ring.results(&[hidden, Sqe::nop()], 1)?, [None, Some(0)]);
    expect_eq!(contents(&fd)?, b"abc");
    Ok(())
}

fn skip_shows_failure() -> Outcome {
    let ring = Ring::new(8)?;
    let results = ring.results(&[failing().flags(SKIP), Sqe::nop().flags(SKIP)], 1)?;
    expect_eq!(results, [BAD_DESCRIPTOR, None]);
    Ok(())
}

fn skip_in_a_chain() -> Outcome {
    let ring = Ring::new(8)?;
    let hidden = Sqe::nop().flags(SKIP | LINK);
    let results = ring.results(&[hidden, hidden, Sqe::nop()], 1)?;
    expect_eq!(results, [None, None, Some(0)]);
    Ok(())
}

fn skip_in_a_broken_chain() -> Outcome {
    let ring = Ring::new(8)?;
    let hidden = Sqe::nop().flags(SKIP | LINK);
    // What a failure cancels is shown if the one that failed would have been.
    let sqes = [hidden, failing().flags(LINK), hidden, Sqe::nop()];
    let results = ring.results(&sqes, 3)?;
    expect_eq!(results, [None, BAD_DESCRIPTOR, CANCELLED, CANCELLED]);
    // Where the one that fails was to be silent, so are those that it cancels.
    let sqes = [failing().flags(SKIP | LINK), hidden, Sqe::nop()];
    let results = ring.results(&sqes, 1)?;
    expect_eq!(results, [BAD_DESCRIPTOR, None, None]);
    Ok(())
}

fn skip_counts_for_timeouts() -> Outcome {
    let ring = Ring::new(8)?;
    let time = milliseconds(30);
    let hidden = Sqe::nop().flags(SKIP);
    // A timeout counts completions that are posted.
    let results = ring.results(&[Sqe::timeout(&time, 1), hidden], 1)?;
    expect_eq!(results, [Some(-libc::ETIME), None]);
    Ok(())
}

fn skip_and_drain_exclude_each_other() -> Outcome {
    let ring = Ring::new(8)?;
    let results = ring.results(&[Sqe::nop().flags(SKIP | DRAIN)], 1)?;
    expect_eq!(results, [Some(-libc::EOPNOTSUPP)]);
    // A ring that has hidden a completion drains no more.
    ring.results(&[Sqe::nop().flags(SKIP)], 0)?;
    let results = ring.results(&[Sqe::nop().flags(DRAIN)], 1)?;
    expect_eq!(results, [Some(-libc::EOPNOTSUPP)]);
    Ok(())
}

/// A LINK_TIMEOUT whose CQE is to be skipped: that it fires, or is not needed, is no failure.
fn silent_time_limits() -> Outcome {
    const SKIP: u8 = 1 << 6;
    let ring = Ring::new(8)?;
    let limit = |time: &libc::timespec| Sqe {
        opcode: linux_raw_sys::io_uring::io_uring_op::IORING_OP_LINK_TIMEOUT as u8,
        ..Sqe::timeout(time, 0)
    };
    let long = guest_programs::ring::milliseconds(60_000);
    ring.push(Sqe::nop().data(1).flags(1 << 2));
    ring.push(limit(&long).data(2).flags(SKIP));
    ring.submit()?;
    expect_eq!(ring.next()?.user_data, 1);
    ring.nothing_left()?;
    let short = guest_programs::ring::milliseconds(1);
    ring.push(Sqe::timeout(&long, 0).data(1).flags(1 << 2));
    ring.push(limit(&short).data(2).flags(SKIP));
    ring.submit()?;
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res), (1, -libc::ECANCELED));
    ring.nothing_left()?;
    Ok(())
}
