//! Submission: the queue, the index array, entries that are no good, and NOP.

use std::sync::atomic::Ordering;

use guest_programs::check::{Check, Outcome};
use guest_programs::{checks, expect, expect_eq};
use linux_raw_sys::io_uring::{IORING_NOP_INJECT_RESULT, IORING_SETUP_SUBMIT_ALL};

use guest_programs::ring::{Cqe, Ring, Sqe, gives, refuses};

pub(crate) const CHECKS: &[Check] = checks![
    nop_completes,
    nop_keeps_user_data,
    nop_ignores_descriptor_and_address,
    nop_injects_results,
    nop_unknown_flags,
    unknown_opcode,
    unknown_entry_flags,
    unknown_personality,
    completions_come_in_order,
    queues_wrap_around,
    index_array_is_followed,
    index_out_of_range_is_dropped,
    entries_are_copied,
    error_stops_submission,
    error_does_not_stop_submit_all,
    head_moves_with_submission,
    full_queue_is_submitted,
];

fn nop_completes() -> Outcome {
    gives!(Ring::new(1)?, 0, Sqe::nop());
    Ok(())
}

fn nop_keeps_user_data() -> Outcome {
    let ring = Ring::new(4)?;
    for user_data in [0, 1, u64::MAX, 1 << 63, 0x0123_4567_89ab_cdef] {
        ring.push(Sqe::nop().data(user_data));
        ring.submit()?;
        let wanted = Cqe {
            user_data,
            res: 0,
            flags: 0,
        };
        expect_eq!(ring.next()?, wanted);
    }
    Ok(())
}

fn nop_ignores_descriptor_and_address() -> Outcome {
    let nop = Sqe {
        fd: 999,
        addr: 1,
        off: u64::MAX,
        len: 77,
        ..Sqe::nop()
    };
    gives!(Ring::new(4)?, 0, nop);
    Ok(())
}

fn nop_injects_results() -> Outcome {
    let ring = Ring::new(4)?;
    let nop = |len| Sqe {
        len,
        ..Sqe::nop().op_flags(IORING_NOP_INJECT_RESULT)
    };
    gives!(ring, 42, nop(42));
    refuses!(ring, EPERM, nop(-1_i32 as u32));
    Ok(())
}

fn nop_unknown_flags() -> Outcome {
    refuses!(Ring::new(4)?, EINVAL, Sqe::nop().op_flags(1 << 31));
    Ok(())
}

fn unknown_opcode() -> Outcome {
    let ring = Ring::new(4)?;
    refuses!(ring, EINVAL, Sqe::unknown());
    refuses!(
        ring,
        EINVAL,
        Sqe {
            opcode: 255,
            ..Sqe::nop()
        }
    );
    Ok(())
}

fn unknown_entry_flags() -> Outcome {
    refuses!(Ring::new(4)?, EINVAL, Sqe::nop().flags(1 << 7));
    Ok(())
}

fn unknown_personality() -> Outcome {
    let nop = Sqe {
        personality: 7,
        ..Sqe::nop()
    };
    refuses!(Ring::new(4)?, EINVAL, nop);
    Ok(())
}

fn completions_come_in_order() -> Outcome {
    let ring = Ring::new(128)?;
    expect_eq!(
        ring.order(&[Sqe::nop(); 128])?,
        (0..128).collect::<Vec<_>>()
    );
    Ok(())
}

fn queues_wrap_around() -> Outcome {
    let ring = Ring::new(4)?;
    let mut sent = 0;
    let mut received = 0;
    for round in 0..1000 {
        for _ in 0..=round % 4 {
            ring.push(Sqe::nop().data(sent));
            sent += 1;
        }
        expect_eq!(ring.submit(), Ok(round % 4 + 1));
        while received < sent {
            expect_eq!(ring.next()?.user_data, received);
            received += 1;
        }
    }
    Ok(())
}

fn index_array_is_followed() -> Outcome {
    let ring = Ring::new(4)?;
    for index in 0..4 {
        ring.place(index, Sqe::nop().data(index.into()));
    }
    for (position, index) in [2, 0, 3, 3].into_iter().enumerate() {
        ring.point(position as u32, index);
    }
    ring.sq_tail().store(4, Ordering::Release);
    expect_eq!(ring.submit(), Ok(4));
    let order: Vec<_> = ring.take(4)?.iter().map(|cqe| cqe.user_data).collect();
    expect_eq!(order, [2, 0, 3, 3]);
    Ok(())
}

fn index_out_of_range_is_dropped() -> Outcome {
    let ring = Ring::new(4)?;
    for index in 0..3 {
        ring.place(index, Sqe::nop().data(index.into()));
    }
    for (position, index) in [0, 99, 2].into_iter().enumerate() {
        ring.point(position as u32, index);
    }
    ring.sq_tail().store(3, Ordering::Release);
    expect_eq!(ring.enter(3, 0, 0), Ok(1));
    expect_eq!((ring.sq_dropped(), ring.next()?.user_data), (1, 0));
    // The entry after it is submitted by the next call.
    expect_eq!((ring.sq_head(), ring.enter(3, 0, 0)), (2, Ok(1)));
    expect_eq!((ring.sq_dropped(), ring.next()?.user_data), (1, 2));
    Ok(())
}

fn entries_are_copied() -> Outcome {
    let ring = Ring::new(1)?;
    let time = guest_programs::ring::milliseconds(20);
    ring.push(Sqe::timeout(&time, 0).data(1));
    ring.submit()?;
    ring.place(0, Sqe::unknown().data(2));
    let cqe = ring.next()?;
    expect_eq!((cqe.user_data, cqe.res), (1, -libc::ETIME));
    Ok(())
}

fn error_stops_submission() -> Outcome {
    let ring = Ring::new(8)?;
    for (index, sqe) in [Sqe::nop(), Sqe::unknown(), Sqe::nop()].iter().enumerate() {
        ring.push(sqe.data(index as u64));
    }
    // The entry at fault counts as submitted; what follows stays in the queue.
    expect_eq!(ring.enter(3, 0, 0), Ok(2));
    let results: Vec<_> = ring
        .take(2)?
        .iter()
        .map(|cqe| (cqe.user_data, cqe.res))
        .collect();
    expect_eq!(results, [(0, 0), (1, -libc::EINVAL)]);
    expect_eq!(ring.queued(), 1);
    expect_eq!((ring.submit(), ring.next()?.user_data), (Ok(1), 2));
    Ok(())
}

fn error_does_not_stop_submit_all() -> Outcome {
    let ring = Ring::flagged(8, IORING_SETUP_SUBMIT_ALL)?;
    let results = ring.results(&[Sqe::nop(), Sqe::unknown(), Sqe::nop()], 3)?;
    expect_eq!(results, [Some(0), Some(-libc::EINVAL), Some(0)]);
    Ok(())
}

fn head_moves_with_submission() -> Outcome {
    let ring = Ring::new(4)?;
    ring.push(Sqe::nop());
    ring.push(Sqe::nop());
    expect_eq!(ring.sq_head(), 0);
    ring.enter(1, 0, 0)?;
    expect_eq!(ring.sq_head(), 1);
    ring.enter(1, 0, 0)?;
    expect_eq!(ring.sq_head(), 2);
    Ok(())
}

fn full_queue_is_submitted() -> Outcome {
    let ring = Ring::new(1024)?;
    for round in 0..3 {
        for index in 0..1024 {
            ring.push(Sqe::nop().data(round * 1024 + index));
        }
        expect_eq!(ring.submit(), Ok(1024));
        let cqes = ring.take(1024)?;
        expect!((0..1024).all(|index| cqes[index].user_data == round * 1024 + index as u64));
    }
    Ok(())
}
