//! A block device, if `--disk` names one; its contents are overwritten.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use guest_programs::aligned::AlignedBuffer;
use guest_programs::check::{Check, Context, Outcome};
use guest_programs::sys::{SysResult, open};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{O_DIRECT, O_RDONLY, O_RDWR, SEEK_CUR, SEEK_END, SEEK_SET};

use crate::attributes::{fstat, stat};

pub(crate) const CHECKS: &[Check] = checks![; disk:
    disk_is_a_block_device,
    disk_geometry,
    disk_size_by_seeking,
    disk_direct_transfers,
    disk_direct_alignment,
    disk_buffered_transfers,
    disk_buffered_and_direct_agree,
    disk_ends,
    disk_vectors,
    disk_flushes,
    disk_discards,
    disk_zeroes,
    disk_ioctl_errors,
    disk_bad_pointers,
];

const BLKROGET: u64 = 0x125e;
const BLKGETSIZE: u64 = 0x1260;
const BLKFLSBUF: u64 = 0x1261;
const BLKSSZGET: u64 = 0x1268;
const BLKDISCARD: u64 = 0x1277;
const BLKPBSZGET: u64 = 0x127b;
const BLKZEROOUT: u64 = 0x127f;
const BLKGETSIZE64: u64 = 0x8008_1272;

const PAGE: usize = 4096;

fn direct(path: &CStr) -> SysResult<OwnedFd> {
    open(path, O_RDWR | O_DIRECT)
}

fn size(fd: &OwnedFd) -> SysResult<u64> {
    let mut size = 0_u64;
    sys!(SYS_ioctl, fd, BLKGETSIZE64, &raw mut size)?;
    Ok(size)
}

fn filled(len: usize, seed: u8) -> std::io::Result<AlignedBuffer> {
    let mut buffer = AlignedBuffer::new(len)?;
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = (index % 251) as u8 ^ seed;
    }
    Ok(buffer)
}

fn disk_is_a_block_device(context: &Context) -> Outcome {
    let status = stat(&context.disk)?;
    expect_eq!(status.st_mode & libc::S_IFMT, libc::S_IFBLK);
    expect!(status.st_rdev != 0);
    expect_eq!(fstat(&direct(&context.disk)?)?.st_rdev, status.st_rdev);
    Ok(())
}

fn disk_geometry(context: &Context) -> Outcome {
    let fd = open(&context.disk, O_RDONLY)?;
    let bytes = size(&fd)?;
    expect!(bytes >= 1 << 20 && bytes % 512 == 0);
    let (mut sectors, mut sector, mut physical, mut read_only) = (0_u64, 0_i32, 0_i32, 7_i32);
    sys!(SYS_ioctl, &fd, BLKGETSIZE, &raw mut sectors)?;
    expect_eq!(sectors, bytes / 512);
    sys!(SYS_ioctl, &fd, BLKSSZGET, &raw mut sector)?;
    expect_eq!(sector, 512);
    sys!(SYS_ioctl, &fd, BLKPBSZGET, &raw mut physical)?;
    expect!(physical >= 512);
    sys!(SYS_ioctl, &fd, BLKROGET, &raw mut read_only)?;
    expect_eq!(read_only, 0);
    Ok(())
}

fn disk_size_by_seeking(context: &Context) -> Outcome {
    let fd = open(&context.disk, O_RDONLY)?;
    let bytes = size(&fd)?;
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_END), Ok(bytes as usize));
    fails!(EINVAL, SYS_lseek, &fd, bytes + 1, SEEK_SET);
    fails!(EINVAL, SYS_lseek, &fd, -1, SEEK_SET);
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(bytes as usize));
    Ok(())
}

fn disk_direct_transfers(context: &Context) -> Outcome {
    let fd = direct(&context.disk)?;
    let written = filled(256 << 10, 1)?;
    let mut read = AlignedBuffer::new(written.len())?;
    let len = written.len();
    expect_eq!(sys!(SYS_pwrite64, &fd, written.as_ptr(), len, 512), Ok(len));
    expect_eq!(sys!(SYS_pread64, &fd, read.as_mut_ptr(), len, 512), Ok(len));
    expect!(read[..] == written[..]);
    // The position moves as for any file.
    expect_eq!(sys!(SYS_lseek, &fd, 512, SEEK_SET), Ok(512));
    expect_eq!(sys!(SYS_read, &fd, read.as_mut_ptr(), 1024), Ok(1024));
    expect_eq!(sys!(SYS_read, &fd, read.as_mut_ptr(), 512), Ok(512));
    expect!(read[..512] == written[1024..1536]);
    expect_eq!(sys!(SYS_lseek, &fd, 0, SEEK_CUR), Ok(2048));
    Ok(())
}

fn disk_direct_alignment(context: &Context) -> Outcome {
    let fd = direct(&context.disk)?;
    let mut buffer = filled(2 * PAGE, 2)?;
    let start = buffer.as_mut_ptr();
    for (address, len, offset) in [
        (start, 511, 0),
        (start, 513, 0),
        (start, 512, 1),
        (start, 512, 511),
    ] {
        fails!(EINVAL, SYS_pread64, &fd, address, len, offset);
        fails!(EINVAL, SYS_pwrite64, &fd, address, len, offset);
    }
    expect_eq!(
        sys!(SYS_pread64, &fd, start.wrapping_add(512), 512, 512),
        Ok(512)
    );
    expect_eq!(sys!(SYS_pread64, &fd, start, 0, 0), Ok(0));
    Ok(())
}

fn disk_buffered_transfers(context: &Context) -> Outcome {
    let fd = open(&context.disk, O_RDWR)?;
    let written = filled(10_000, 3)?;
    let mut read = vec![0_u8; 10_000];
    expect_eq!(
        sys!(SYS_pwrite64, &fd, written.as_ptr(), 10_000, 12_345),
        Ok(10_000)
    );
    expect_eq!(
        sys!(SYS_pread64, &fd, read.as_mut_ptr(), 10_000, 12_345),
        Ok(10_000)
    );
    expect!(read[..] == written[..10_000]);
    // Only those bytes changed.
    let mut byte = 0_u8;
    sys!(SYS_pwrite64, &fd, &raw const byte, 1, 20_000)?;
    sys!(SYS_pread64, &fd, &raw mut byte, 1, 20_001)?;
    expect_eq!(byte, written[20_001 - 12_345]);
    Ok(())
}

fn disk_buffered_and_direct_agree(context: &Context) -> Outcome {
    let buffered = open(&context.disk, O_RDWR)?;
    let direct = direct(&context.disk)?;
    let written = filled(2 * PAGE, 4)?;
    let mut read = AlignedBuffer::new(2 * PAGE)?;
    sys!(SYS_pwrite64, &buffered, written.as_ptr(), 5000, 0)?;
    expect_eq!(sys!(SYS_fsync, &buffered), Ok(0));
    expect_eq!(
        sys!(SYS_pread64, &direct, read.as_mut_ptr(), PAGE, 0),
        Ok(PAGE)
    );
    expect!(read[..PAGE] == written[..PAGE]);
    let other = filled(PAGE, 5)?;
    sys!(SYS_pwrite64, &direct, other.as_ptr(), PAGE, 0)?;
    sys!(SYS_pread64, &buffered, read.as_mut_ptr(), 5000, 0)?;
    expect!(read[..PAGE] == other[..] && read[PAGE..5000] == written[PAGE..5000]);
    Ok(())
}

fn disk_ends(context: &Context) -> Outcome {
    let mut buffer = filled(2 * PAGE, 6)?;
    let start = buffer.as_mut_ptr();
    for flags in [O_RDWR, O_RDWR | O_DIRECT] {
        let fd = open(&context.disk, flags)?;
        let end = size(&fd)?;
        expect_eq!(sys!(SYS_pread64, &fd, start, PAGE, end), Ok(0));
        expect_eq!(sys!(SYS_pread64, &fd, start, PAGE, end + 4096), Ok(0));
        expect_eq!(sys!(SYS_pread64, &fd, start, PAGE, end - 512), Ok(512));
        fails!(ENOSPC, SYS_pwrite64, &fd, start, PAGE, end);
        expect_eq!(sys!(SYS_pwrite64, &fd, start, PAGE, end - 512), Ok(512));
    }
    Ok(())
}

fn disk_vectors(context: &Context) -> Outcome {
    let fd = direct(&context.disk)?;
    let mut written = filled(3 * PAGE, 7)?;
    let mut read = AlignedBuffer::new(3 * PAGE)?;
    let vectors = |buffer: &mut AlignedBuffer| {
        let (first, second) = buffer.split_at_mut(PAGE);
        [first, second].map(|part| libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        })
    };
    let (from, to) = (vectors(&mut written), vectors(&mut read));
    expect_eq!(
        sys!(SYS_pwritev, &fd, from.as_ptr(), 2, 8192, 0),
        Ok(3 * PAGE)
    );
    expect_eq!(sys!(SYS_preadv, &fd, to.as_ptr(), 2, 8192, 0), Ok(3 * PAGE));
    expect!(read[..] == written[..]);
    Ok(())
}

fn disk_flushes(context: &Context) -> Outcome {
    let fd = direct(&context.disk)?;
    expect_eq!(sys!(SYS_fsync, &fd), Ok(0));
    expect_eq!(sys!(SYS_fdatasync, &fd), Ok(0));
    expect_eq!(sys!(SYS_ioctl, &fd, BLKFLSBUF, 0), Ok(0));
    Ok(())
}

fn cleared(context: &Context, request: u64) -> Result<bool, guest_programs::check::Failure> {
    let fd = direct(&context.disk)?;
    let mut buffer = filled(8 * PAGE, 8)?;
    sys!(SYS_pwrite64, &fd, buffer.as_ptr(), 8 * PAGE, 0)?;
    let range = [PAGE as u64, 4 * PAGE as u64];
    expect_eq!(sys!(SYS_ioctl, &fd, request, range.as_ptr()), Ok(0));
    sys!(SYS_pread64, &fd, buffer.as_mut_ptr(), 8 * PAGE, 0)?;
    let wanted = filled(8 * PAGE, 8)?;
    expect!(buffer[..PAGE] == wanted[..PAGE] && buffer[5 * PAGE..] == wanted[5 * PAGE..]);
    Ok(buffer[PAGE..5 * PAGE].iter().all(|byte| *byte == 0))
}

fn disk_discards(context: &Context) -> Outcome {
    // What is discarded may read as anything; what is not must stay.
    cleared(context, BLKDISCARD)?;
    let fd = direct(&context.disk)?;
    fails!(EINVAL, SYS_ioctl, &fd, BLKDISCARD, [1_u64, 512].as_ptr());
    let beyond = [size(&fd)?, 4096];
    fails!(EINVAL, SYS_ioctl, &fd, BLKDISCARD, beyond.as_ptr());
    Ok(())
}

fn disk_zeroes(context: &Context) -> Outcome {
    expect!(cleared(context, BLKZEROOUT)?);
    let fd = direct(&context.disk)?;
    fails!(EINVAL, SYS_ioctl, &fd, BLKZEROOUT, [0_u64, 100].as_ptr());
    Ok(())
}

fn disk_ioctl_errors(context: &Context) -> Outcome {
    let fd = open(&context.disk, O_RDONLY)?;
    // Some of Linux's drivers say EINVAL where most say ENOTTY.
    for request in [0xdead, libc::TCGETS] {
        let refused = sys!(SYS_ioctl, &fd, request, 8).map_err(|errno| errno.0);
        expect!(refused == Err(libc::ENOTTY) || refused == Err(libc::EINVAL));
    }
    fails!(EFAULT, SYS_ioctl, &fd, BLKGETSIZE64, 8);
    fails!(EFAULT, SYS_ioctl, &fd, BLKSSZGET, 8);
    fails!(EBADF, SYS_ioctl, &fd, BLKZEROOUT, [0_u64, 4096].as_ptr());
    Ok(())
}

fn disk_bad_pointers(context: &Context) -> Outcome {
    let fd = direct(&context.disk)?;
    for address in [4096_u64, 0xffff_8880_0000_1000] {
        fails!(EFAULT, SYS_pread64, &fd, address, PAGE, 0);
        fails!(EFAULT, SYS_pwrite64, &fd, address, PAGE, 0);
    }
    let buffered = open(&context.disk, O_RDWR)?;
    fails!(EFAULT, SYS_pread64, &buffered, 8, PAGE, 0);
    Ok(())
}
