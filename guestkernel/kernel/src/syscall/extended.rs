//! Extended attributes: `setxattr(2)`, `getxattr(2)`, `listxattr(2)`, `removexattr(2)`.

use super::path::Done;
use super::{Args, actor};
use crate::error::{Errno, Result};
use crate::operation::{
    Attributed, EXTENDED_NAME_MAX, EXTENDED_VALUE_MAX, GetExtended, ListExtended, PathAt,
    RemoveExtended, SetExtended,
};
use crate::process::Thread;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// The name at `address`.
fn name(thread: &Thread, address: u64) -> Result<Vec<u8>> {
    let space = &thread.process.space;
    match space.read_string(address, EXTENDED_NAME_MAX + 1) {
        Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
        Ok(name) if name.is_empty() => Err(Errno::ERANGE),
        name => name,
    }
}

/// How the file is named: by a path, which is followed or not, or a descriptor.
#[derive(Clone, Copy)]
enum By {
    Path(bool),
    Descriptor,
}

fn file(thread: &Thread, args: Args, by: By) -> Result<Attributed> {
    Ok(match by {
        By::Path(follows) => {
            let path = actor(thread).read_path(args.get(0))?;
            Attributed::Path(PathAt::here(path), follows)
        }
        By::Descriptor => Attributed::Descriptor(args.int(0)),
    })
}

/// Stores what was asked for where there is room for it, unless only its length was asked for.
fn give(thread: &Thread, bytes: &[u8], address: u64, size: u64) -> Result<u64> {
    if size > 0 {
        if bytes.len() as u64 > size {
            return Err(Errno::ERANGE);
        }
        thread.process.space.write(address, bytes)?;
    }
    Ok(bytes.len() as u64)
}

async fn set(thread: &mut Thread, args: Args, by: By) -> Result<u64> {
    let flags = args.uint(4);
    if flags & !(raw::XATTR_CREATE | raw::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = name(thread, args.get(1))?;
    let size = usize::try_from(args.get(3)).unwrap_or(usize::MAX);
    if size > EXTENDED_VALUE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut value = Vec::new();
    value.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
    value.resize(size, 0);
    thread.process.space.read(args.get(2), &mut value)?;
    let operation = SetExtended {
        file: file(thread, args, by)?,
        name,
        value,
        flags,
    };
    operation.run(actor(thread)).await.done()
}

async fn get(thread: &mut Thread, args: Args, by: By) -> Result<u64> {
    let operation = GetExtended {
        name: name(thread, args.get(1))?,
        file: file(thread, args, by)?,
    };
    let value = operation.run(actor(thread)).await?;
    give(thread, &value, args.get(2), args.get(3))
}

async fn remove(thread: &mut Thread, args: Args, by: By) -> Result<u64> {
    let operation = RemoveExtended {
        name: name(thread, args.get(1))?,
        file: file(thread, args, by)?,
    };
    operation.run(actor(thread)).await.done()
}

async fn list(thread: &mut Thread, args: Args, by: By) -> Result<u64> {
    let file = file(thread, args, by)?;
    let names = ListExtended { file }.run(actor(thread)).await?;
    give(thread, &names, args.get(1), args.get(2))
}

macro_rules! handlers {
    ($($name:ident => $does:ident, $by:expr;)*) => {$(
        pub(super) async fn $name(thread: &mut Thread, args: Args) -> Result<u64> {
            $does(thread, args, $by).await
        }
    )*};
}

handlers! {
    setxattr => set, By::Path(true);
    lsetxattr => set, By::Path(false);
    fsetxattr => set, By::Descriptor;
    getxattr => get, By::Path(true);
    lgetxattr => get, By::Path(false);
    fgetxattr => get, By::Descriptor;
    removexattr => remove, By::Path(true);
    lremovexattr => remove, By::Path(false);
    fremovexattr => remove, By::Descriptor;
    listxattr => list, By::Path(true);
    llistxattr => list, By::Path(false);
    flistxattr => list, By::Descriptor;
}
