//! Mapping a ring's memory.

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Mapping, create};
use guest_programs::{checks, expect_eq, fails, sys};
use libc::{MAP_SHARED, PROT_READ, PROT_WRITE};
use linux_raw_sys::io_uring::{
    IORING_OFF_CQ_RING, IORING_OFF_SQ_RING, IORING_OFF_SQES, IORING_SETUP_R_DISABLED,
};

use guest_programs::ring::{Ring, Sqe, gives, params, setup};

pub(crate) const CHECKS: &[Check] = checks![
    map_rings_are_one,
    map_twice,
    map_wrong_offsets,
    map_too_much,
    map_read_only,
    map_populated,
    map_outlives_the_descriptor,
    map_survives_unmapping,
    map_disabled_ring,
    map_fresh_memory_is_zero,
];

const READ_WRITE: i32 = PROT_READ | PROT_WRITE;

fn map_rings_are_one() -> Outcome {
    let ring = Ring::new(4)?;
    let completion = Mapping::shared(&ring.fd, 4096, IORING_OFF_CQ_RING.into())?;
    gives!(ring, 0, Sqe::nop());
    let tail = completion.at(ring.params.cq_off.tail as usize);
    // SAFETY: an aligned word of the mapping; nothing is in flight.
    expect_eq!(unsafe { tail.cast::<u32>().read_volatile() }, 1);
    Ok(())
}

fn map_twice() -> Outcome {
    let ring = Ring::new(4)?;
    let first = Mapping::shared(&ring.fd, 256, IORING_OFF_SQES.into())?;
    let second = Mapping::shared(&ring.fd, 256, IORING_OFF_SQES.into())?;
    // SAFETY: both are live mappings, of entries that are not submitted.
    let seen = unsafe {
        first.start.write_volatile(77);
        second.start.read_volatile()
    };
    expect_eq!(seen, 77);
    Ok(())
}

fn map_wrong_offsets() -> Outcome {
    let fd = setup(4, &mut params(0))?;
    for offset in [0x1800_0000_u64, 0x2000_0000, 0x4000_0000] {
        // The search for a free address looks at the offset first, and knows no other error.
        fails!(
            ENOMEM, SYS_mmap, 0, 4096, READ_WRITE, MAP_SHARED, &fd, offset
        );
    }
    Ok(())
}

fn map_too_much() -> Outcome {
    let fd = setup(4, &mut params(0))?;
    let file = create(c"f", b"")?;
    for offset in [IORING_OFF_SQ_RING, IORING_OFF_CQ_RING, IORING_OFF_SQES] {
        // What there is gets mapped; behind it there is no memory.
        let map = Mapping::shared(&fd, 1 << 20, offset.into())?;
        expect_eq!(sys!(SYS_pwrite64, &file, map.start, 1, 0), Ok(1));
        fails!(EFAULT, SYS_pwrite64, &file, map.at(1 << 19), 1, 0);
    }
    Ok(())
}

fn map_read_only() -> Outcome {
    let ring = Ring::new(4)?;
    let flags = MAP_SHARED;
    let start = sys!(
        SYS_mmap,
        0,
        4096,
        PROT_READ,
        flags,
        &ring.fd,
        IORING_OFF_SQ_RING
    )?;
    let word = (start + ring.params.sq_off.ring_entries as usize) as *const u32;
    // SAFETY: an aligned word of the new mapping.
    let entries = unsafe { word.read_volatile() };
    sys!(SYS_munmap, start, 4096)?;
    expect_eq!(entries, 4);
    Ok(())
}

fn map_populated() -> Outcome {
    let ring = Ring::new(4)?;
    let flags = MAP_SHARED | libc::MAP_POPULATE;
    let start = sys!(
        SYS_mmap,
        0,
        4096,
        READ_WRITE,
        flags,
        &ring.fd,
        IORING_OFF_SQES
    )?;
    expect_eq!(sys!(SYS_munmap, start, 4096), Ok(0));
    Ok(())
}

fn map_outlives_the_descriptor() -> Outcome {
    let fd = setup(4, &mut params(0))?;
    let map = Mapping::shared(&fd, 256, IORING_OFF_SQES.into())?;
    drop(fd);
    // SAFETY: the mapping keeps the memory.
    let seen = unsafe {
        map.start.write_volatile(5);
        map.start.read_volatile()
    };
    expect_eq!(seen, 5);
    Ok(())
}

fn map_survives_unmapping() -> Outcome {
    let mut params = params(0);
    let fd = setup(4, &mut params)?;
    drop(Mapping::shared(&fd, 4096, IORING_OFF_SQ_RING.into())?);
    let again = Mapping::shared(&fd, 4096, IORING_OFF_SQ_RING.into())?;
    let word = again.at(params.sq_off.ring_entries as usize).cast::<u32>();
    // SAFETY: an aligned word of the mapping.
    expect_eq!(unsafe { word.read_volatile() }, 4);
    Ok(())
}

fn map_disabled_ring() -> Outcome {
    let fd = setup(4, &mut params(IORING_SETUP_R_DISABLED))?;
    Mapping::shared(&fd, 4096, IORING_OFF_SQ_RING.into())?;
    Ok(())
}

fn map_fresh_memory_is_zero() -> Outcome {
    // Rings come and go; none shows what another held.
    for _ in 0..20 {
        let ring = Ring::new(64)?;
        let map = Mapping::shared(&ring.fd, 4096, IORING_OFF_SQES.into())?;
        // SAFETY: bytes of the mapping; nothing is in flight.
        let clean = (0..4096).all(|offset| unsafe { map.at(offset).read_volatile() } == 0);
        guest_programs::expect!(clean);
        for index in 0..64 {
            ring.push(Sqe::nop().data(u64::MAX - index));
        }
        ring.submit()?;
        ring.take(64)?;
    }
    Ok(())
}
