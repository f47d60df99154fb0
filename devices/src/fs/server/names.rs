//! Names in directories: LOOKUP, and what makes, moves and removes them.

use std::ffi::CStr;
use std::os::fd::AsFd;

use fuse_abi::linux::{
    FUSE_DONT_MASK, fuse_create_in, fuse_entry_out, fuse_link_in, fuse_mkdir_in, fuse_mknod_in,
    fuse_rename_in, fuse_rename2_in,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Statx};
use rustix::io::Errno;
use rustix::path::DecInt;
use rustix::process::umask;
use zerocopy::FromZeros;

use super::{Server, Wait};
use crate::fs::host;
use crate::fs::nodes::Found;
use crate::fs::protocol::{Reply, Request, Result, take, take_name, take_string};
use crate::fs::share::Cache;

/// Bytes of a symbolic link's target.
const TARGET_MAX: usize = 4095;
/// The bits of a mode that chown(2) takes away from a regular file.
const SET_ID: u32 = 0o6000;
const PERMISSIONS: u32 = 0o7777;

/// To whom something new is to belong.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Server {
    pub(super) fn look_up(
        &self,
        request: &Request<'_>,
        reply: &mut Reply,
        wait: Wait,
    ) -> Result<()> {
        let (name, _) = take_name(request.arguments)?;
        let id = request.header.nodeid;
        let directory = self.nodes.find(id, wait)?;
        if directory.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        if wait == Wait::No && !directory.is_on_root_device {
            return Err(Errno::AGAIN);
        }
        match self.look_up_in(id, &directory, name, wait) {
            Ok(entry) => reply.push(&entry),
            Err(Errno::NOENT) if self.share.cache != Cache::None => {
                let mut none = fuse_entry_out::new_zeroed();
                none.entry_valid = self.validity().as_secs();
                reply.push(&none);
            }
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Finds `name` in `directory`, which is node `id`, and counts the look-up.
    fn look_up_in(
        &self,
        id: u64,
        directory: &Found,
        name: &CStr,
        wait: Wait,
    ) -> Result<fuse_entry_out> {
        if directory.is_hidden {
            return Err(Errno::NOENT);
        }
        let fd = host::open_beneath(&directory.fd, name, host::PATH, wait)?;
        let status = host::status(&fd)?;
        let node = self.nodes.enter(id, name, &status, Some(fd))?;
        Ok(self.entry(node, &status))
    }

    /// Counts a look-up of `name`, which was seen in `directory` a moment ago; its attributes, but no
    /// descriptor.
    pub(super) fn look_up_listed(
        &self,
        id: u64,
        directory: impl AsFd,
        name: &CStr,
    ) -> Result<fuse_entry_out> {
        let status = host::status_at(directory, name)?;
        let node = self.nodes.enter(id, name, &status, None)?;
        Ok(self.entry(node, &status))
    }

    /// Does `make` with the umask that the client wants.
    fn with_umask<T>(&self, mask: u32, make: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.session.has(FUSE_DONT_MASK) {
            // The client has applied it.
            return make();
        }
        umask(Mode::from_raw_mode(mask & 0o777));
        let result = make();
        umask(Mode::empty());
        result
    }

    /// Who is to own what the request makes in `directory`, unless that is the server's own user.
    fn owner(&self, request: &Request<'_>, directory: &Found) -> Result<Option<Owner>> {
        let (uid, gid) = (request.header.uid, request.header.gid);
        if !self.share.identity.is_root() || (uid, gid) == (0, 0) {
            return Ok(None);
        }
        let identity = self.share.identity;
        identity.stored_uid(uid)?;
        identity.stored_gid(gid)?;
        let status = host::status(&directory.fd)?;
        let gid = match u32::from(status.stx_mode) & Mode::SGID.as_raw_mode() {
            0 => gid,
            // The host has given it the directory's.
            _ => u32::MAX,
        };
        Ok(Some(Owner { uid, gid }))
    }

    /// Gives what `fd` names, which was just made, to `owner`.
    fn give(&self, fd: impl AsFd, status: &Statx, owner: Owner) -> Result<()> {
        let identity = self.share.identity;
        let uid = identity.stored_uid(owner.uid)?;
        let gid = match owner.gid {
            u32::MAX => None,
            gid => Some(identity.stored_gid(gid)?),
        };
        rustix::fs::chownat(&fd, c"", Some(uid), gid, AtFlags::EMPTY_PATH)?;
        let mode = u32::from(status.stx_mode);
        let kind = FileType::from_raw_mode(mode);
        if kind == FileType::RegularFile && mode & SET_ID != 0 {
            let name = DecInt::from_fd(&fd);
            let mode = Mode::from_raw_mode(mode & PERMISSIONS);
            let descriptors = &self.share.descriptors;
            rustix::fs::chmodat(descriptors, name.as_c_str(), mode, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Looks up what `make` makes as `name` in the request's directory, and gives it to whom it belongs.
    fn make(
        &self,
        request: &Request<'_>,
        reply: &mut Reply,
        name: &CStr,
        remove: AtFlags,
        make: impl FnOnce(&Found) -> Result<()>,
    ) -> Result<()> {
        let id = request.header.nodeid;
        let directory = self.changing_directory(id)?;
        let owner = self.owner(request, &directory)?;
        make(&directory)?;
        if let Some(owner) = owner {
            let given = host::open_beneath(&directory.fd, name, host::PATH, Wait::Yes)
                .and_then(|fd| self.give(&fd, &host::status(&fd)?, owner));
            if let Err(errno) = given {
                // Nobody has seen it yet.
                let _ = rustix::fs::unlinkat(&directory.fd, name, remove);
                return Err(errno);
            }
        }
        let entry = self.look_up_in(id, &directory, name, Wait::Yes)?;
        reply.push(&entry);
        Ok(())
    }

    pub(super) fn make_node(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, rest) = take::<fuse_mknod_in>(request.arguments)?;
        let (name, _) = take_name(rest)?;
        let kind = match FileType::from_raw_mode(asked.mode) {
            FileType::Unknown if asked.mode & 0o170_000 == 0 => FileType::RegularFile,
            kind @ (FileType::RegularFile | FileType::Fifo | FileType::Socket) => kind,
            FileType::CharacterDevice if asked.rdev == 0 => FileType::CharacterDevice,
            FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
            _ => return Err(Errno::INVAL),
        };
        let mode = Mode::from_raw_mode(asked.mode & PERMISSIONS);
        self.make(request, reply, name, AtFlags::empty(), |directory| {
            self.with_umask(asked.umask, || {
                rustix::fs::mknodat(&directory.fd, name, kind, mode, 0)
            })
        })
    }

    pub(super) fn make_directory(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, rest) = take::<fuse_mkdir_in>(request.arguments)?;
        let (name, _) = take_name(rest)?;
        let mode = Mode::from_raw_mode(asked.mode & PERMISSIONS);
        self.make(request, reply, name, AtFlags::REMOVEDIR, |directory| {
            self.with_umask(asked.umask, || {
                rustix::fs::mkdirat(&directory.fd, name, mode)
            })
        })
    }

    pub(super) fn symlink(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (name, rest) = take_name(request.arguments)?;
        let (target, _) = take_string(rest)?;
        if target.count_bytes() > TARGET_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.make(request, reply, name, AtFlags::empty(), |directory| {
            rustix::fs::symlinkat(target, &directory.fd, name)
        })
    }

    pub(super) fn link(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, rest) = take::<fuse_link_in>(request.arguments)?;
        let (name, _) = take_name(rest)?;
        let id = request.header.nodeid;
        let directory = self.changing_directory(id)?;
        let old = self.nodes.find(asked.oldnodeid, Wait::Yes)?;
        if old.kind == FileType::Directory {
            return Err(Errno::PERM);
        }
        let path = DecInt::from_fd(&*old.fd);
        rustix::fs::linkat(
            &self.share.descriptors,
            path.as_c_str(),
            &directory.fd,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?;
        let entry = self.look_up_in(id, &directory, name, Wait::Yes)?;
        reply.push(&entry);
        Ok(())
    }

    pub(super) fn unlink(&self, request: &Request<'_>, flags: AtFlags) -> Result<()> {
        let (name, _) = take_name(request.arguments)?;
        let directory = self.changing_directory(request.header.nodeid)?;
        rustix::fs::unlinkat(&directory.fd, name, flags)
    }

    pub(super) fn rename(&self, request: &Request<'_>, has_flags: bool) -> Result<()> {
        let (new, flags, rest) = match has_flags {
            false => {
                let (asked, rest) = take::<fuse_rename_in>(request.arguments)?;
                (asked.newdir, 0, rest)
            }
            true => {
                let (asked, rest) = take::<fuse_rename2_in>(request.arguments)?;
                (asked.newdir, asked.flags, rest)
            }
        };
        let (old_name, rest) = take_name(rest)?;
        let (new_name, _) = take_name(rest)?;
        let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE | RenameFlags::WHITEOUT;
        let flags = RenameFlags::from_bits_retain(flags);
        if !known.contains(flags) {
            return Err(Errno::INVAL);
        }
        let old = request.header.nodeid;
        let from = self.changing_directory(old)?;
        let to = self.changing_directory(new)?;
        rustix::fs::renameat_with(&from.fd, old_name, &to.fd, new_name, flags)?;
        // So that they are found again; who is faster here does not count.
        let mut moved = vec![(new, &to, new_name)];
        if flags.contains(RenameFlags::EXCHANGE) {
            moved.push((old, &from, old_name));
        }
        for (id, directory, name) in moved {
            if let Ok(status) = host::status_at(&directory.fd, name) {
                self.nodes.moved(id, name, &status);
            }
        }
        Ok(())
    }

    pub(super) fn create(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, rest) = take::<fuse_create_in>(request.arguments)?;
        let (name, _) = take_name(rest)?;
        let id = request.header.nodeid;
        let directory = self.changing_directory(id)?;
        let owner = self.owner(request, &directory)?;
        let charge = self.budget.take()?;
        let flags = self.open_flags(asked.flags);
        let mode = Mode::from_raw_mode(asked.mode & PERMISSIONS);
        let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let made = self.with_umask(asked.umask, || {
            host::create_beneath(&directory.fd, name, new, mode)
        });
        let fd = match made {
            Ok(fd) => fd,
            Err(Errno::EXIST) if asked.flags & OFlags::EXCL.bits() == 0 => {
                let old = host::open_beneath(&directory.fd, name, host::PATH, Wait::Yes)?;
                let status = host::status(&old)?;
                let node = self.nodes.enter(id, name, &status, Some(old))?;
                let opened = self.nodes.find(node, Wait::Yes).and_then(|found| {
                    let fd = self.open_node(&found, asked.flags)?;
                    Ok((fd, host::status(&found.fd)?))
                });
                let (fd, status) = opened.inspect_err(|_| self.nodes.forget(node, 1))?;
                reply.push(&self.entry(node, &status));
                return self.push_handle(node, fd, charge, reply);
            }
            Err(errno) => return Err(errno),
        };
        let status = host::status(&fd)?;
        if let Some(owner) = owner
            && let Err(errno) = self.give(&fd, &status, owner)
        {
            let _ = rustix::fs::unlinkat(&directory.fd, name, AtFlags::empty());
            return Err(errno);
        }
        let status = host::status(&fd)?;
        let path = host::reopen(&self.share.descriptors, &fd, OFlags::PATH)?;
        let node = self.nodes.enter(id, name, &status, Some(path))?;
        reply.push(&self.entry(node, &status));
        self.push_handle(node, fd, charge, reply)
    }

    pub(super) fn make_nameless(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, _) = take::<fuse_create_in>(request.arguments)?;
        let directory = self.changing_directory(request.header.nodeid)?;
        let owner = self.owner(request, &directory)?;
        let charge = self.budget.take()?;
        let flags = self.open_flags(asked.flags);
        if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
            return Err(Errno::INVAL);
        }
        let exclusive = OFlags::from_bits_retain(asked.flags) & OFlags::EXCL;
        let mode = Mode::from_raw_mode(asked.mode & PERMISSIONS);
        let fd = self.with_umask(asked.umask, || {
            let flags = flags | OFlags::TMPFILE | exclusive;
            host::create_beneath(&directory.fd, c".", flags, mode)
        })?;
        if let Some(owner) = owner {
            self.give(&fd, &host::status(&fd)?, owner)?;
        }
        let status = host::status(&fd)?;
        let path = host::reopen(&self.share.descriptors, &fd, OFlags::PATH)?;
        let node = self.nodes.enter_nameless(&status, path)?;
        reply.push(&self.entry(node, &status));
        self.push_handle(node, fd, charge, reply)
    }
}
