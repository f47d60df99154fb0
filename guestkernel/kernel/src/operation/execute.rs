//! `execve(2)` and `execveat(2)`: the process goes on with another program.

use crate::error::{Errno, Result};
use crate::executor::Stint;
use crate::fs::PATH_MAX;
use crate::heap;
use crate::mm::AddressSpace;
use crate::process::{Given, Source, Thread, load};
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// Bytes that one string may have, its NUL included (`MAX_ARG_STRLEN`).
const STRING_MAX: usize = 128 << 10;
/// Bytes that all may have, whatever the limit of the stack is.
const STRINGS_MOST: u64 = 6 << 20;
/// Flags that there are.
const KNOWN: u32 = raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH | raw::AT_EXECVE_CHECK;

/// A program to be executed.
#[derive(Clone, Copy, Debug)]
pub struct Execute {
    /// Where its path starts (`AT_FDCWD`).
    pub directory: i32,
    /// The address of its path.
    pub path: u64,
    /// The address of the addresses of its arguments; a 0 ends them.
    pub arguments: u64,
    /// The same for its environment.
    pub environment: u64,
    /// `AT_*`.
    pub flags: u32,
}

impl Execute {
    /// Does it: the thread goes on with the program.
    ///
    /// # Errors
    ///
    /// Those of `execveat(2)`.
    pub async fn run(self, thread: &mut Thread) -> Result<()> {
        let process = thread.process.clone();
        let space = &process.space;
        let path = space
            .retry(|| space.read_string(self.path, PATH_MAX))
            .await?;
        let is_empty_allowed = self.flags & raw::AT_EMPTY_PATH != 0;
        if path.is_empty() && !is_empty_allowed {
            return Err(Errno::ENOENT);
        }
        if self.flags & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let source = Source {
            directory: self.directory,
            path: &path,
            is_open_file: path.is_empty(),
            is_followed: self.flags & raw::AT_SYMLINK_NOFOLLOW == 0,
        };
        let view = crate::fs::View {
            files: &process.files,
            context: &process.fs,
        };
        let stack = process.limits.lock().get(raw::RLIMIT_STACK)?.soft;
        let mut left = (stack / 4).min(STRINGS_MOST).max(STRING_MAX as u64);
        // The file comes first, so that its errors do.
        crate::process::check_executable(view, source).await?;
        let mut arguments = read_strings(space, self.arguments, &mut left).await?;
        let environment = read_strings(space, self.environment, &mut left).await?;
        if self.flags & raw::AT_EXECVE_CHECK != 0 {
            return Ok(());
        }
        if arguments.is_empty() {
            arguments.push(Vec::new());
        }
        let ids = {
            let credentials = process.credentials.lock();
            let (user, group) = (credentials.user, credentials.group);
            [user.real, user.effective, group.real, group.effective]
        };
        let given = Given {
            arguments,
            environment: &environment,
            ids,
            stack,
        };
        let program = load(view, source, given).await?;
        drop(environment);
        drop(process);
        thread.replace(program).await
    }
}

/// The strings whose addresses are at `address`, up to a 0, of which all together have `left` bytes at
/// most, with their addresses.
async fn read_strings(space: &AddressSpace, address: u64, left: &mut u64) -> Result<Vec<Vec<u8>>> {
    let mut strings = Vec::new();
    if address == 0 {
        return Ok(strings);
    }
    let mut stint = Stint::default();
    for index in 0_u64.. {
        let at = address.checked_add(index * 8).ok_or(Errno::EFAULT)?;
        let string_at: u64 = space.retry(|| space.read_value(at)).await?;
        if string_at == 0 {
            break;
        }
        let read = || space.read_string(string_at, STRING_MAX);
        let string = space.retry(read).await.map_err(|error| match error {
            Errno::ENAMETOOLONG => Errno::E2BIG,
            error => error,
        })?;
        let cost = string.len() as u64 + 1 + 8;
        *left = left.checked_sub(cost).ok_or(Errno::E2BIG)?;
        heap::check(string.len() + 4 * size_of::<Vec<u8>>())?;
        strings.push(string);
        stint.give_way().await;
    }
    Ok(strings)
}
