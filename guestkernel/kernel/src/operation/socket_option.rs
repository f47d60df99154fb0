//! Options of sockets: `setsockopt(2)`, `getsockopt(2)`.

use super::socket::socket;
use super::{Actor, FileRef};
use crate::error::{Errno, Result};

/// Bytes of a value that are read, at most.
const VALUE_MAX: usize = 256;

/// `setsockopt(2)`.
pub struct SetOption {
    /// The socket.
    pub file: FileRef,
    /// `SOL_*`.
    pub level: u32,
    /// Which option of that level.
    pub name: u32,
    /// Where the value is.
    pub value_at: u64,
    /// Its bytes.
    pub length: i32,
}

impl SetOption {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let length = usize::try_from(self.length).map_err(|_| Errno::EINVAL)?;
        let file = actor.file(self.file)?;
        let socket = socket(&file)?;
        let mut value = [0; VALUE_MAX];
        let value = &mut value[..length.min(VALUE_MAX)];
        if value.len() >= size_of::<i32>() {
            actor.space().read(self.value_at, value)?;
        }
        socket.set_option(self.level, self.name, value)
    }
}

/// `getsockopt(2)`.
pub struct GetOption {
    /// The socket.
    pub file: FileRef,
    /// `SOL_*`.
    pub level: u32,
    /// Which option of that level.
    pub name: u32,
    /// Where the value goes.
    pub value_at: u64,
    /// Where the room for it is, and its length goes.
    pub length_at: u64,
}

impl GetOption {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let socket = socket(&file)?;
        let space = actor.space();
        let room: i32 = space.read_value(self.length_at)?;
        let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
        let value = socket.option(self.level, self.name)?;
        let value = &value[..value.len().min(room)];
        space.write(self.value_at, value)?;
        space.write_value(self.length_at, &(value.len() as u32))
    }
}
