//! `IORING_OP_RENAMEAT`, `UNLINKAT`, `MKDIRAT`, `SYMLINKAT` and `LINKAT`: names of files.

use super::{Completion, Issue, Prepared, Started, read_path};
use crate::error::{Errno, Result};
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{Actor, Link, MakeDirectory, MakeSymlink, PathAt, Rename, Unlink};
use linux_raw_sys::general as raw;
use linux_raw_sys::io_uring::io_uring_op as op;

/// A prepared change of names.
pub(in crate::io_uring) struct Names {
    change: Change,
    charge: MemoryCharge,
}

enum Change {
    Rename(Rename),
    Unlink(Unlink),
    MakeDirectory(MakeDirectory),
    MakeSymlink(MakeSymlink),
    Link(Link),
}

impl Prepared for Names {
    fn prepare(sqe: &Sqe, flags: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        const RENAME: u8 = op::IORING_OP_RENAMEAT as u8;
        const UNLINK: u8 = op::IORING_OP_UNLINKAT as u8;
        const MKDIR: u8 = op::IORING_OP_MKDIRAT as u8;
        const SYMLINK: u8 = op::IORING_OP_SYMLINKAT as u8;
        const LINK: u8 = op::IORING_OP_LINKAT as u8;
        if flags.contains(RequestFlags::FIXED_FILE) {
            return Err(Errno::EBADF);
        }
        let mut charge = MemoryCharge::NONE;
        let mut path = |address, may_be_empty| read_path(actor, address, may_be_empty, &mut charge);
        let (first, second) = (sqe.address(), sqe.offset());
        let (fd, other_fd, flags) = (sqe.fd(), sqe.length() as i32, sqe.op_flags());
        let at = |fd, path| PathAt { fd, path };
        let change = match sqe.opcode() {
            RENAME => Change::Rename(Rename {
                from: at(fd, path(first, false)?),
                to: at(other_fd, path(second, false)?),
                flags,
            }),
            UNLINK if flags & !raw::AT_REMOVEDIR != 0 => return Err(Errno::EINVAL),
            UNLINK => Change::Unlink(Unlink {
                at: at(fd, path(first, false)?),
                flags,
            }),
            MKDIR => Change::MakeDirectory(MakeDirectory {
                at: at(fd, path(first, false)?),
                mode: sqe.length(),
            }),
            SYMLINK => Change::MakeSymlink(MakeSymlink {
                target: path(first, false)?,
                at: at(fd, path(second, false)?),
            }),
            LINK => Change::Link(Link {
                from: at(fd, path(first, flags & raw::AT_EMPTY_PATH != 0)?),
                to: at(other_fd, path(second, false)?),
                flags,
            }),
            _ => return Err(Errno::EINVAL),
        };
        Ok(Self { change, charge })
    }

    fn start(self, _: &mut RingState, issue: Issue<'_>) -> Started {
        let change = self.change;
        issue.spawn(None, self.charge, |owner| async move {
            let actor = owner.actor();
            let result = match change {
                Change::Rename(rename) => rename.run(actor).await,
                Change::Unlink(unlink) => unlink.run(actor).await,
                Change::MakeDirectory(make) => make.run(actor).await,
                Change::MakeSymlink(make) => make.run(actor).await,
                Change::Link(link) => link.run(actor).await,
            };
            // As on Linux, a failure breaks no chain.
            Completion::of_harmless(result.map(|()| 0))
        })
    }
}
