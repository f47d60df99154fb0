//! Requests of the block device (VIRTIO 1.2, 5.2.6): from buffers to what to do.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::{Access, Disk, MAX_DISCARD_SECTORS, MAX_WRITE_ZEROES_SECTORS, SECTOR};
use crate::chain::total;
use crate::{Buffers, QueueError};

/// Bytes of a request's header: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes of `struct virtio_blk_discard_write_zeroes`.
const RANGE: usize = 16;

/// A status byte other than `VIRTIO_BLK_S_OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) u8);

const IO_ERROR: Refusal = Refusal(VIRTIO_BLK_S_IOERR as u8);
const UNSUPPORTED: Refusal = Refusal(VIRTIO_BLK_S_UNSUPP as u8);

/// What a request asks for; byte offsets and lengths lie within the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Read at this offset into the writable buffers.
    Read(u64),
    /// Write the readable buffers at this offset.
    Write(u64),
    /// Make what was written durable.
    Flush,
    /// The content of the range no longer matters.
    Discard { offset: u64, len: u64 },
    /// The range reads as zeros from now on; with `unmap` its space may be given back.
    WriteZeroes { offset: u64, len: u64, unmap: bool },
    /// Put the serial into the writable buffers.
    GetId,
}

/// A request taken apart. What is left in the buffers is its data.
#[derive(Debug)]
pub(crate) struct Request {
    /// Where the status byte goes.
    pub(crate) status: GuestAddress,
    /// What to do, or the status to refuse it with.
    pub(crate) action: Result<Action, Refusal>,
}

/// Takes the header and the status byte off `buffers` and checks the request against `disk`.
///
/// # Errors
///
/// There is no header or no place for a status: the request cannot even be refused.
pub(crate) fn parse(
    memory: &GuestMemoryMmap,
    buffers: &mut Buffers,
    disk: &Disk,
) -> Result<Request, QueueError> {
    let mut header = [0; HEADER];
    if !buffers.take_front(memory, &mut header) {
        return Err(QueueError::Request("a block request has no whole header"));
    }
    let status = buffers
        .take_last_byte()
        .ok_or(QueueError::Request("a block request has no status byte"))?;
    let kind = le_u32(&header, 0);
    let sector = le_u64(&header, 8);
    Ok(Request {
        status,
        action: action(kind, sector, memory, buffers, disk),
    })
}

fn action(
    kind: u32,
    sector: u64,
    memory: &GuestMemoryMmap,
    buffers: &mut Buffers,
    disk: &Disk,
) -> Result<Action, Refusal> {
    match kind {
        VIRTIO_BLK_T_IN => {
            let len = total(&buffers.writable);
            byte_range(sector, len, disk).map(Action::Read)
        }
        VIRTIO_BLK_T_OUT => {
            writable(disk)?;
            let len = total(&buffers.readable);
            byte_range(sector, len, disk).map(Action::Write)
        }
        VIRTIO_BLK_T_FLUSH => Ok(Action::Flush),
        VIRTIO_BLK_T_GET_ID => Ok(Action::GetId),
        VIRTIO_BLK_T_DISCARD => {
            let (offset, len, flags) = range(MAX_DISCARD_SECTORS, memory, buffers, disk)?;
            match flags {
                0 => Ok(Action::Discard { offset, len }),
                _ => Err(UNSUPPORTED),
            }
        }
        VIRTIO_BLK_T_WRITE_ZEROES => {
            let (offset, len, flags) = range(MAX_WRITE_ZEROES_SECTORS, memory, buffers, disk)?;
            if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
                return Err(UNSUPPORTED);
            }
            let unmap = flags != 0;
            Ok(Action::WriteZeroes { offset, len, unmap })
        }
        _ => Err(UNSUPPORTED),
    }
}

fn writable(disk: &Disk) -> Result<(), Refusal> {
    match disk.access() {
        Access::ReadWrite => Ok(()),
        Access::ReadOnly => Err(IO_ERROR),
    }
}

/// The byte offset of `len` bytes from `sector` on, if they are whole sectors of the disk.
fn byte_range(sector: u64, len: u64, disk: &Disk) -> Result<u64, Refusal> {
    let whole = len.is_multiple_of(SECTOR);
    let end = sector.checked_add(len / SECTOR);
    match end {
        Some(end) if whole && end <= disk.sectors() => Ok(sector * SECTOR),
        _ => Err(IO_ERROR),
    }
}

/// The one range of a discard or write-zeroes request: offset, bytes, flags.
fn range(
    max_sectors: u32,
    memory: &GuestMemoryMmap,
    buffers: &mut Buffers,
    disk: &Disk,
) -> Result<(u64, u64, u32), Refusal> {
    writable(disk)?;
    let mut range = [0; RANGE];
    if total(&buffers.readable) != RANGE as u64 || !buffers.take_front(memory, &mut range) {
        return Err(IO_ERROR);
    }
    let sectors = le_u32(&range, 8);
    if sectors > max_sectors {
        return Err(IO_ERROR);
    }
    let len = u64::from(sectors) * SECTOR;
    let offset = byte_range(le_u64(&range, 0), len, disk)?;
    Ok((offset, len, le_u32(&range, 12)))
}

fn le_u32(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn le_u64(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from(le_u32(bytes, at)) | u64::from(le_u32(bytes, at + 4)) << 32
}
