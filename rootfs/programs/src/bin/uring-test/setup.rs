//! `io_uring_setup`: sizes, flags, and what it says about the ring.

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Errno, Mapping, SysResult};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use linux_raw_sys::io_uring::{
    IORING_FEAT_CQE_SKIP, IORING_FEAT_EXT_ARG, IORING_FEAT_NODROP, IORING_FEAT_RW_CUR_POS,
    IORING_FEAT_SINGLE_MMAP, IORING_FEAT_SUBMIT_STABLE, IORING_SETUP_CLAMP,
    IORING_SETUP_COOP_TASKRUN, IORING_SETUP_CQSIZE, IORING_SETUP_DEFER_TASKRUN,
    IORING_SETUP_NO_SQARRAY, IORING_SETUP_R_DISABLED, IORING_SETUP_SINGLE_ISSUER,
    IORING_SETUP_SQ_AFF, IORING_SETUP_SQPOLL, IORING_SETUP_SUBMIT_ALL, IORING_SETUP_TASKRUN_FLAG,
    io_uring_params, io_uring_register_op::IORING_REGISTER_ENABLE_RINGS,
};

use guest_programs::ring::{Ring, Sqe, gives, params, register, setup};

pub(crate) const CHECKS: &[Check] = checks![
    setup_no_entries,
    setup_rounds_entries_up,
    setup_too_many_entries,
    setup_clamps_entries,
    setup_largest_ring,
    setup_cq_size,
    setup_cq_size_errors,
    setup_cq_size_clamps,
    setup_unknown_flags,
    setup_reserved_fields,
    setup_bad_pointer,
    setup_defer_needs_single_issuer,
    setup_taskrun_flag_needs_deferral,
    setup_sqpoll_conflicts,
    setup_features,
    setup_offsets,
    setup_flags_are_kept,
    setup_no_sqarray,
    setup_descriptor,
    setup_disabled,
    setup_every_listed_flag,
    setup_many_rings,
];

fn sizes(entries: u32, params: &mut io_uring_params) -> SysResult<(u32, u32)> {
    setup(entries, params)?;
    Ok((params.sq_entries, params.cq_entries))
}

fn refused(
    entries: u32,
    mut params: io_uring_params,
) -> Result<(), guest_programs::check::Failure> {
    let flags = params.flags;
    let got = setup(entries, &mut params).map(drop);
    guest_programs::check::equal(
        &format!("setup of {entries} with flags {flags:#x}"),
        &got,
        &Err(Errno(libc::EINVAL)),
    )
}

fn setup_no_entries() -> Outcome {
    refused(0, params(0))?;
    refused(0, params(IORING_SETUP_CLAMP))
}

fn setup_rounds_entries_up() -> Outcome {
    for (asked, given) in [
        (1, 1),
        (2, 2),
        (3, 4),
        (5, 8),
        (64, 64),
        (100, 128),
        (4096, 4096),
    ] {
        expect_eq!(sizes(asked, &mut params(0))?, (given, 2 * given));
    }
    Ok(())
}

fn setup_too_many_entries() -> Outcome {
    refused(32769, params(0))?;
    refused(u32::MAX, params(0))
}

fn setup_clamps_entries() -> Outcome {
    let clamp = || params(IORING_SETUP_CLAMP);
    expect_eq!(sizes(32769, &mut clamp())?, (32768, 65536));
    expect_eq!(sizes(u32::MAX, &mut clamp())?, (32768, 65536));
    expect_eq!(sizes(10, &mut clamp())?, (16, 32));
    Ok(())
}

fn setup_largest_ring() -> Outcome {
    let ring = Ring::new(32768)?;
    for index in 0..32768 {
        ring.push(Sqe::nop().data(index));
    }
    expect_eq!(ring.submit(), Ok(32768));
    for index in 0..32768 {
        let cqe = ring.next()?;
        expect_eq!((cqe.user_data, cqe.res), (index, 0));
    }
    Ok(())
}

fn with_cq(entries: u32, flags: u32) -> io_uring_params {
    let mut params = params(IORING_SETUP_CQSIZE | flags);
    params.cq_entries = entries;
    params
}

fn setup_cq_size() -> Outcome {
    expect_eq!(sizes(4, &mut with_cq(4, 0))?, (4, 4));
    expect_eq!(sizes(4, &mut with_cq(100, 0))?, (4, 128));
    expect_eq!(sizes(1, &mut with_cq(65536, 0))?, (1, 65536));
    // Both are rounded up before they are compared.
    expect_eq!(sizes(5, &mut with_cq(7, 0))?, (8, 8));
    // Without the flag the field says nothing.
    let mut ignored = params(0);
    ignored.cq_entries = 1000;
    expect_eq!(sizes(4, &mut ignored)?, (4, 8));
    Ok(())
}

fn setup_cq_size_errors() -> Outcome {
    refused(4, with_cq(0, 0))?;
    refused(8, with_cq(4, 0))?;
    refused(4, with_cq(65537, 0))?;
    refused(4, with_cq(0, IORING_SETUP_CLAMP))
}

fn setup_cq_size_clamps() -> Outcome {
    let clamp = |entries| with_cq(entries, IORING_SETUP_CLAMP);
    expect_eq!(sizes(4, &mut clamp(65537))?, (4, 65536));
    expect_eq!(sizes(4, &mut clamp(u32::MAX))?, (4, 65536));
    Ok(())
}

fn setup_unknown_flags() -> Outcome {
    refused(4, params(1 << 31))?;
    refused(4, params(1 << 30))
}

fn setup_reserved_fields() -> Outcome {
    for index in 0..3 {
        let mut params = params(0);
        params.resv[index] = 1;
        refused(4, params)?;
    }
    Ok(())
}

fn setup_bad_pointer() -> Outcome {
    fails!(EFAULT, SYS_io_uring_setup, 4, 0);
    fails!(EFAULT, SYS_io_uring_setup, 4, Mapping::nowhere()?);
    fails!(EFAULT, SYS_io_uring_setup, 4, 0xffff_8880_0000_0000_u64);
    // It has to be written, too.
    let map = Mapping::new(4096, libc::PROT_READ)?;
    fails!(EFAULT, SYS_io_uring_setup, 4, map.start);
    Ok(())
}

fn setup_defer_needs_single_issuer() -> Outcome {
    refused(4, params(IORING_SETUP_DEFER_TASKRUN))?;
    setup(
        4,
        &mut params(IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER),
    )?;
    Ok(())
}

fn setup_taskrun_flag_needs_deferral() -> Outcome {
    let flag = IORING_SETUP_TASKRUN_FLAG;
    refused(4, params(flag))?;
    refused(4, params(flag | IORING_SETUP_SINGLE_ISSUER))?;
    setup(4, &mut params(flag | IORING_SETUP_COOP_TASKRUN))?;
    setup(
        4,
        &mut params(flag | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN),
    )?;
    Ok(())
}

fn setup_sqpoll_conflicts() -> Outcome {
    let poll = IORING_SETUP_SQPOLL;
    refused(4, params(poll | IORING_SETUP_COOP_TASKRUN))?;
    refused(
        4,
        params(poll | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER),
    )?;
    refused(4, params(IORING_SETUP_SQ_AFF))
}

fn setup_features() -> Outcome {
    let mut params = params(0);
    setup(4, &mut params)?;
    let needed = IORING_FEAT_SINGLE_MMAP
        | IORING_FEAT_NODROP
        | IORING_FEAT_SUBMIT_STABLE
        | IORING_FEAT_RW_CUR_POS
        | IORING_FEAT_EXT_ARG
        | IORING_FEAT_CQE_SKIP;
    expect_eq!(params.features & needed, needed);
    Ok(())
}

fn setup_offsets() -> Outcome {
    let ring = Ring::with(4, with_cq(16, 0))?;
    let (sq, cq) = (&ring.params.sq_off, &ring.params.cq_off);
    let map = Mapping::shared(&ring.fd, 4096, 0)?;
    let word = |offset: u32| {
        // SAFETY: an aligned word of the ring's memory; nothing is in flight.
        unsafe { map.at(offset as usize).cast::<u32>().read_volatile() }
    };
    let mut words = [
        sq.head,
        sq.tail,
        sq.ring_mask,
        sq.ring_entries,
        sq.flags,
        sq.dropped,
        cq.head,
        cq.tail,
        cq.ring_mask,
        cq.ring_entries,
        cq.overflow,
        cq.flags,
    ];
    expect!(words.iter().all(|offset| offset % 4 == 0 && *offset < 4096));
    expect_eq!((word(sq.ring_mask), word(sq.ring_entries)), (3, 4));
    expect_eq!((word(cq.ring_mask), word(cq.ring_entries)), (15, 16));
    expect_eq!((word(sq.head), word(sq.tail), word(sq.flags)), (0, 0, 0));
    expect_eq!(
        (word(sq.dropped), word(cq.overflow), word(cq.flags)),
        (0, 0, 0)
    );
    expect_eq!((word(cq.head), word(cq.tail)), (0, 0));
    words.sort_unstable();
    expect!(words.windows(2).all(|pair| pair[0] < pair[1]));
    // The arrays are apart from the words and from each other.
    let (cqes, array) = (cq.cqes..cq.cqes + 16 * 16, sq.array..sq.array + 4 * 4);
    expect!(cqes.start % 16 == 0);
    expect!(
        words
            .iter()
            .all(|word| !cqes.contains(word) && !array.contains(word))
    );
    expect!(cqes.end <= array.start || array.end <= cqes.start);
    Ok(())
}

fn setup_flags_are_kept() -> Outcome {
    let flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP;
    let mut params = params(flags);
    setup(4, &mut params)?;
    expect_eq!(params.flags, flags);
    Ok(())
}

fn setup_no_sqarray() -> Outcome {
    let ring = Ring::flagged(4, IORING_SETUP_NO_SQARRAY)?;
    expect_eq!(ring.params.sq_off.array, 0);
    for round in 0..10 {
        ring.push(Sqe::nop().data(round));
        ring.push(Sqe::nop().data(round + 100));
        expect_eq!(ring.submit(), Ok(2));
        let cqes = ring.take(2)?;
        expect_eq!((cqes[0].user_data, cqes[1].user_data), (round, round + 100));
    }
    Ok(())
}

fn setup_descriptor() -> Outcome {
    let fd = setup(4, &mut params(0))?;
    expect_eq!(
        sys!(SYS_fcntl, &fd, libc::F_GETFD),
        Ok(libc::FD_CLOEXEC as usize)
    );
    let flags = sys!(SYS_fcntl, &fd, libc::F_GETFL)? as i32;
    expect_eq!(flags & libc::O_ACCMODE, libc::O_RDWR);
    let mut byte = 0_u8;
    fails!(EINVAL, SYS_read, &fd, &raw mut byte, 1);
    fails!(EINVAL, SYS_write, &fd, &raw const byte, 1);
    Ok(())
}

fn setup_disabled() -> Outcome {
    let ring = Ring::flagged(4, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER)?;
    ring.push(Sqe::nop());
    expect_eq!(ring.submit(), Err(Errno(libc::EBADFD)));
    expect_eq!(ring.enter(0, 0, 0), Err(Errno(libc::EBADFD)));
    let enable = || {
        register(
            &ring.fd,
            IORING_REGISTER_ENABLE_RINGS as u32,
            std::ptr::null::<u8>(),
            0,
        )
    };
    expect_eq!(enable(), Ok(0));
    expect_eq!(ring.submit(), Ok(1));
    expect_eq!(ring.next()?.res, 0);
    expect_eq!(enable(), Err(Errno(libc::EBADFD)));
    Ok(())
}

fn setup_every_listed_flag() -> Outcome {
    let defer = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    for flags in [
        0,
        IORING_SETUP_CLAMP,
        IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_SINGLE_ISSUER,
        IORING_SETUP_COOP_TASKRUN,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        defer,
        defer | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_COOP_TASKRUN,
        defer | IORING_SETUP_NO_SQARRAY | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP,
    ] {
        let ring = Ring::flagged(4, flags)?;
        gives!(ring, 0, Sqe::nop());
    }
    Ok(())
}

fn setup_many_rings() -> Outcome {
    let rings: Vec<_> = (0..32).map(|_| Ring::new(8)).collect::<Result<_, _>>()?;
    for ring in &rings {
        ring.push(Sqe::nop());
    }
    for ring in &rings {
        expect_eq!(ring.submit(), Ok(1));
        expect_eq!(ring.next()?.res, 0);
    }
    Ok(())
}
