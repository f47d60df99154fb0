//! Attributes: GETATTR, STATX, SETATTR, READLINK, STATFS.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use fuse_abi::linux::{
    FATTR_ATIME, FATTR_ATIME_NOW, FATTR_FH, FATTR_GID, FATTR_MODE, FATTR_MTIME, FATTR_MTIME_NOW,
    FATTR_SIZE, FATTR_UID, FUSE_GETATTR_FH, fuse_attr_out, fuse_getattr_in, fuse_kstatfs,
    fuse_setattr_in, fuse_statfs_out, fuse_statx, fuse_statx_in, fuse_statx_out, fuse_sx_time,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxTimestamp, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::{Server, Wait};
use crate::fs::handles::OpenFile;
use crate::fs::host;
use crate::fs::nodes::Found;
use crate::fs::protocol::{Reply, Request, Result, take};

/// The bits of a mode that chmod(2) sets.
const PERMISSIONS: u32 = 0o7777;

impl Server {
    pub(super) fn get_attributes(
        &self,
        request: &Request<'_>,
        reply: &mut Reply,
        wait: Wait,
    ) -> Result<()> {
        let (asked, _) = take::<fuse_getattr_in>(request.arguments)?;
        let fh = (asked.getattr_flags & FUSE_GETATTR_FH != 0).then_some(asked.fh);
        let status = self.status(request.header.nodeid, fh, wait)?;
        self.push_attributes(request.header.nodeid, &status, reply);
        Ok(())
    }

    fn push_attributes(&self, id: u64, status: &Statx, reply: &mut Reply) {
        let validity = self.validity();
        reply.push(&fuse_attr_out {
            attr_valid: validity.as_secs(),
            attr_valid_nsec: validity.subsec_nanos(),
            dummy: 0,
            attr: self.attributes(status, self.nodes.is_mount(id)),
        });
    }

    /// The status of node `id`, by handle `fh` if one is given that is the node's.
    fn status(&self, id: u64, fh: Option<u64>, wait: Wait) -> Result<Statx> {
        if let Some(file) = fh.and_then(|fh| self.handles.file(fh).ok())
            && file.node == id
        {
            return host::status(&file.fd);
        }
        let found = self.nodes.find(id, wait)?;
        // A mount may be of a file system that waits for a network.
        if wait == Wait::No && !found.is_on_root_device {
            return Err(Errno::AGAIN);
        }
        host::status(&found.fd)
    }

    pub(super) fn statx(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, _) = take::<fuse_statx_in>(request.arguments)?;
        let fh = (asked.getattr_flags & FUSE_GETATTR_FH != 0).then_some(asked.fh);
        let status = self.status(request.header.nodeid, fh, Wait::Yes)?;
        let identity = self.share.identity;
        let validity = self.validity();
        reply.push(&fuse_statx_out {
            attr_valid: validity.as_secs(),
            attr_valid_nsec: validity.subsec_nanos(),
            flags: 0,
            spare: [0; 2],
            stat: fuse_statx {
                mask: status.stx_mask
                    & (rustix::fs::StatxFlags::BASIC_STATS.bits()
                        | rustix::fs::StatxFlags::BTIME.bits()),
                blksize: status.stx_blksize,
                attributes: status.stx_attributes.bits(),
                nlink: status.stx_nlink,
                uid: identity.shown_uid(status.stx_uid),
                gid: identity.shown_gid(status.stx_gid),
                mode: status.stx_mode,
                __spare0: [0],
                ino: status.stx_ino,
                size: status.stx_size,
                blocks: status.stx_blocks,
                attributes_mask: status.stx_attributes_mask.bits(),
                atime: time(&status.stx_atime),
                btime: time(&status.stx_btime),
                ctime: time(&status.stx_ctime),
                mtime: time(&status.stx_mtime),
                rdev_major: status.stx_rdev_major,
                rdev_minor: status.stx_rdev_minor,
                dev_major: status.stx_dev_major,
                dev_minor: status.stx_dev_minor,
                __spare2: [0; 14],
            },
        });
        Ok(())
    }

    pub(super) fn set_attributes(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, _) = take::<fuse_setattr_in>(request.arguments)?;
        let id = request.header.nodeid;
        let found = self.nodes.find(id, Wait::Yes)?;
        self.may_change(&found)?;
        let file = match asked.valid & FATTR_FH {
            0 => None,
            _ => Some(self.handles.file(asked.fh)?),
        };
        let file = file.filter(|file| file.node == id);
        if asked.valid & FATTR_MODE != 0 {
            self.change_mode(&found, asked.mode & PERMISSIONS)?;
        }
        if asked.valid & (FATTR_UID | FATTR_GID) != 0 {
            let identity = self.share.identity;
            let uid = (asked.valid & FATTR_UID != 0).then(|| identity.stored_uid(asked.uid));
            let gid = (asked.valid & FATTR_GID != 0).then(|| identity.stored_gid(asked.gid));
            let (uid, gid) = (uid.transpose()?, gid.transpose()?);
            rustix::fs::chownat(&found.fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if asked.valid & FATTR_SIZE != 0 {
            self.truncate(&found, file.as_deref(), asked.size)?;
        }
        if asked.valid & (FATTR_ATIME | FATTR_MTIME) != 0 {
            let time = |set, now, seconds: u64, nanoseconds: u32| Timespec {
                tv_sec: seconds as i64,
                tv_nsec: match asked.valid {
                    valid if valid & now != 0 => rustix::fs::UTIME_NOW,
                    valid if valid & set != 0 => nanoseconds.into(),
                    _ => rustix::fs::UTIME_OMIT,
                },
            };
            let times = Timestamps {
                last_access: time(FATTR_ATIME, FATTR_ATIME_NOW, asked.atime, asked.atimensec),
                last_modification: time(FATTR_MTIME, FATTR_MTIME_NOW, asked.mtime, asked.mtimensec),
            };
            rustix::fs::utimensat(&found.fd, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        let status = match &file {
            Some(file) => host::status(&file.fd)?,
            None => host::status(&found.fd)?,
        };
        self.push_attributes(id, &status, reply);
        Ok(())
    }

    /// Sets the permissions; not of a symbolic link, which has none.
    pub(super) fn change_mode(&self, found: &Found, mode: u32) -> Result<()> {
        if found.kind == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        let name = DecInt::from_fd(&*found.fd);
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::chmodat(
            &self.share.descriptors,
            name.as_c_str(),
            mode,
            AtFlags::empty(),
        )
    }

    fn truncate(&self, found: &Found, file: Option<&OpenFile>, size: u64) -> Result<()> {
        let cut = |fd: BorrowedFd<'_>| rustix::fs::ftruncate(fd, size);
        // EINVAL says that this handle is not open for writing.
        match file.map(|file| cut(file.fd.as_fd())) {
            None | Some(Err(Errno::INVAL)) => (),
            Some(result) => return result,
        }
        match found.kind {
            FileType::RegularFile => cut(self.reopen(found, OFlags::WRONLY)?.as_fd()),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn read_link(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let found = self.node(request)?;
        if found.kind != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let target = rustix::fs::readlinkat(&found.fd, c"", Vec::new())?;
        reply.push_bytes(target.as_bytes());
        Ok(())
    }

    pub(super) fn stat_fs(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let found = self.node(request)?;
        let status = rustix::fs::fstatvfs(&found.fd)?;
        reply.push(&fuse_statfs_out {
            st: fuse_kstatfs {
                blocks: status.f_blocks,
                bfree: status.f_bfree,
                bavail: status.f_bavail,
                files: status.f_files,
                ffree: status.f_ffree,
                bsize: status.f_bsize as u32,
                namelen: status.f_namemax as u32,
                frsize: status.f_frsize as u32,
                padding: 0,
                spare: [0; 6],
            },
        });
        Ok(())
    }
}

fn time(time: &StatxTimestamp) -> fuse_sx_time {
    fuse_sx_time {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec,
        __reserved: 0,
    }
}
