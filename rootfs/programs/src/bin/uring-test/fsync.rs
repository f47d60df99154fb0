//! FSYNC.

use guest_programs::check::{Check, Outcome};
use guest_programs::checks;
use guest_programs::sys::{create, open};
use linux_raw_sys::io_uring::IORING_FSYNC_DATASYNC;

use guest_programs::ring::{Ring, Sqe, gives, refuses};

pub(crate) const CHECKS: &[Check] = checks![
    fsync_of_a_file,
    fsync_of_a_range,
    fsync_of_a_directory,
    fsync_flags,
    fsync_errors,
];

fn fsync_of_a_file() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    gives!(ring, 0, Sqe::fsync(&fd));
    gives!(ring, 0, Sqe::fsync(&fd).op_flags(IORING_FSYNC_DATASYNC));
    Ok(())
}

fn fsync_of_a_range() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let range = Sqe {
        off: 1,
        len: 1,
        ..Sqe::fsync(&fd)
    };
    gives!(Ring::new(4)?, 0, range);
    Ok(())
}

fn fsync_of_a_directory() -> Outcome {
    gives!(Ring::new(4)?, 0, Sqe::fsync(&open(c".", libc::O_RDONLY)?));
    Ok(())
}

fn fsync_flags() -> Outcome {
    let ring = Ring::new(4)?;
    let fd = create(c"f", b"abc")?;
    refuses!(ring, EINVAL, Sqe::fsync(&fd).op_flags(2));
    refuses!(ring, EINVAL, Sqe::fsync(&fd).op_flags(1 << 31));
    Ok(())
}

fn fsync_errors() -> Outcome {
    let ring = Ring::new(4)?;
    refuses!(ring, EBADF, Sqe::fsync(&999));
    refuses!(ring, EINVAL, Sqe::fsync(&open(c"/dev/null", libc::O_RDWR)?));
    let fd = create(c"f", b"abc")?;
    let fsync = Sqe::fsync(&fd);
    refuses!(ring, EINVAL, Sqe { addr: 1, ..fsync });
    refuses!(
        ring,
        EINVAL,
        Sqe {
            buf_index: 1,
            ..fsync
        }
    );
    refuses!(
        ring,
        EINVAL,
        Sqe {
            file_index: 1,
            ..fsync
        }
    );
    Ok(())
}
