//! Extended attributes: GETXATTR, LISTXATTR, SETXATTR, REMOVEXATTR.
//!
//! The calls that take a descriptor do not take one that only names a file. So the threads that carry
//! these requests out work in `/proc/self/fd`, where the descriptor's number is a path.

use fuse_abi::linux::{FUSE_SETXATTR_EXT, fuse_getxattr_in, fuse_getxattr_out};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use rustix::path::DecInt;

use super::Server;
use crate::fs::protocol::{Reply, Request, Result, take, take_string};

/// Bytes of a value or of a list (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX: u32 = 1 << 16;

impl Server {
    pub(super) fn get_xattr(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, rest) = take::<fuse_getxattr_in>(request.arguments)?;
        let (name, _) = take_string(rest)?;
        let found = self.node(request)?;
        if found.is_hidden {
            return Err(Errno::OPNOTSUPP);
        }
        let path = DecInt::from_fd(&*found.fd);
        if asked.size == 0 {
            push_size(rustix::fs::getxattr_query(path.as_c_str(), name)?, reply);
            return Ok(());
        }
        let buffer = reply.extend(asked.size.min(MAX) as usize);
        let count = rustix::fs::getxattr(path.as_c_str(), name, buffer)?;
        reply.truncate(count);
        Ok(())
    }

    pub(super) fn list_xattr(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, _) = take::<fuse_getxattr_in>(request.arguments)?;
        let found = self.node(request)?;
        if found.is_hidden {
            return Err(Errno::OPNOTSUPP);
        }
        let path = DecInt::from_fd(&*found.fd);
        if asked.size == 0 {
            push_size(rustix::fs::listxattr_query(path.as_c_str())?, reply);
            return Ok(());
        }
        let buffer = reply.extend(asked.size.min(MAX) as usize);
        let count = rustix::fs::listxattr(path.as_c_str(), buffer)?;
        reply.truncate(count);
        Ok(())
    }

    pub(super) fn set_xattr(&self, request: &Request<'_>) -> Result<()> {
        let (size, rest) = take::<u32>(request.arguments)?;
        let (flags, mut rest) = take::<u32>(rest)?;
        if self.session.has(FUSE_SETXATTR_EXT) {
            // Flags that are not granted, and padding.
            (_, rest) = take::<u64>(rest)?;
        }
        let (name, rest) = take_string(rest)?;
        if size > MAX {
            return Err(Errno::TOOBIG);
        }
        let value = rest.get(..size as usize).ok_or(Errno::INVAL)?;
        let found = self.node(request)?;
        self.may_change(&found)?;
        let path = DecInt::from_fd(&*found.fd);
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        rustix::fs::setxattr(path.as_c_str(), name, value, flags)
    }

    pub(super) fn remove_xattr(&self, request: &Request<'_>) -> Result<()> {
        let (name, _) = take_string(request.arguments)?;
        let found = self.node(request)?;
        self.may_change(&found)?;
        rustix::fs::removexattr(DecInt::from_fd(&*found.fd).as_c_str(), name)
    }
}

fn push_size(size: usize, reply: &mut Reply) {
    reply.push(&fuse_getxattr_out {
        size: size as u32,
        padding: 0,
    });
}
