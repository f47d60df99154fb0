//! Extended attributes, which the server keeps.

use super::inode::FuseInode;
use super::protocol::{Arguments, opcode};
use super::session::{Call, contents, room};
use crate::error::{Errno, Result};
use crate::fs::SetMode;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

impl FuseInode {
    /// The value of the attribute `name`, or the list of all names.
    pub(super) async fn get_extended(&self, opcode: u32, name: Option<&[u8]>) -> Result<Vec<u8>> {
        let most = raw::XATTR_SIZE_MAX as usize;
        let mut arguments = Arguments::new().u32(most as u32).u32(0);
        if let Some(name) = name {
            arguments = arguments.string(name);
        }
        let mut call = Call::new(opcode, arguments, 0);
        call.from_device = Some(room(most)?);
        match self.fs.call(self.node, call).await {
            Ok(reply) => Ok(contents(&reply)),
            Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
            Err(error) => Err(error),
        }
    }

    /// Sets the attribute `name`, or removes it.
    pub(super) async fn change_extended(
        &self,
        name: &[u8],
        value: Option<(Vec<u8>, SetMode)>,
    ) -> Result<()> {
        let call = match value {
            None => Call::new(opcode::REMOVEXATTR, Arguments::new().string(name), 0),
            Some((value, mode)) => {
                let flags = match mode {
                    SetMode::Any => 0,
                    SetMode::Create => raw::XATTR_CREATE,
                    SetMode::Replace => raw::XATTR_REPLACE,
                };
                let arguments = Arguments::new()
                    .u32(value.len() as u32)
                    .u32(flags)
                    .string(name);
                Call::new(opcode::SETXATTR, arguments.bytes(&value), 0)
            }
        };
        let changed = self.fs.call(self.node, call).await;
        self.invalidate();
        match changed {
            Ok(_) => Ok(()),
            Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
            Err(error) => Err(error),
        }
    }
}
