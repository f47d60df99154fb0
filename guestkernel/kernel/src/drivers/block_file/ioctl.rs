//! `ioctl(2)` on block devices.

use super::{BlockFile, sectors};
use crate::error::{Errno, Result};
use crate::file::{FileOps, OpenFile};
use crate::mm::AddressSpace;
use core::any::Any;
use linux_raw_sys::ioctl as raw;
use machine::PAGE_SIZE;

/// Sectors that Linux reads ahead by default (128 KiB).
const READ_AHEAD: u64 = 256;

/// Whether `request` fails with `EBADF` because `file`, a block device, is not open for writing.
pub fn needs_writable(file: &OpenFile, request: u32) -> bool {
    let is_change = matches!(
        request,
        raw::BLKDISCARD | raw::BLKSECDISCARD | raw::BLKZEROOUT
    );
    let ops: &dyn Any = &*file.ops;
    is_change && !file.flags().can_write() && ops.is::<BlockFile>()
}

pub(super) async fn ioctl(
    file: &BlockFile,
    request: u32,
    argument: u64,
    space: &AddressSpace,
) -> Result<u64> {
    let device = file.device();
    let int = |value: u32| space.write_value(argument, &value);
    let short = |value: u16| space.write_value(argument, &value);
    let long = |value: u64| space.write_value(argument, &value);
    match request {
        raw::BLKGETSIZE64 => long(device.size())?,
        raw::BLKGETSIZE => long(device.sectors())?,
        raw::BLKSSZGET => int(device.block_size())?,
        raw::BLKPBSZGET => int(device.physical_block_size())?,
        raw::BLKBSZGET => int(PAGE_SIZE as u32)?,
        raw::BLKBSZSET => {
            let size: i32 = space.read_value(argument)?;
            let size = u32::try_from(size).map_err(|_| Errno::EINVAL)?;
            let sizes = device.block_size()..=PAGE_SIZE as u32;
            if !size.is_power_of_two() || !sizes.contains(&size) {
                return Err(Errno::EINVAL);
            }
            // It is the unit of a cache that there is none of.
        }
        raw::BLKROGET => int(device.is_read_only().into())?,
        raw::BLKIOMIN => int(device.physical_block_size())?,
        raw::BLKIOOPT | raw::BLKALIGNOFF | raw::BLKDISCARDZEROES => int(0)?,
        raw::BLKSECTGET => short(u16::MAX)?,
        // What Linux says of a virtio disk, whatever it is.
        raw::BLKROTATIONAL => short(1)?,
        raw::BLKRAGET | raw::BLKFRAGET => long(READ_AHEAD)?,
        raw::BLKFLSBUF => {
            file.sync(false).await?;
            file.cache.clear();
        }
        // There are no partitions to read again.
        raw::BLKRRPART => return Err(Errno::EINVAL),
        raw::BLKDISCARD => {
            if device.max_discard() == 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            if device.is_read_only() {
                return Err(Errno::EPERM);
            }
            let (offset, length) = range(file, argument, space)?;
            file.discard(sectors(offset, length)).await?;
        }
        raw::BLKZEROOUT => {
            let (offset, length) = range(file, argument, space)?;
            file.write_zeros(sectors(offset, length)).await?;
        }
        raw::BLKSECDISCARD => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

/// Reads the range, offset and length in bytes, that a request is for.
fn range(file: &BlockFile, argument: u64, space: &AddressSpace) -> Result<(u64, u64)> {
    let offset: u64 = space.read_value(argument)?;
    let length: u64 = space.read_value(argument.wrapping_add(8))?;
    let device = file.device();
    let end = offset.checked_add(length).ok_or(Errno::EINVAL)?;
    let is_whole = (offset | length) & u64::from(device.block_size() - 1) == 0;
    if !is_whole || length == 0 || end > device.size() {
        return Err(Errno::EINVAL);
    }
    Ok((offset, length))
}
