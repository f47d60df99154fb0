//! Mapping a program's segments into an address space, as `load_elf_binary` of Linux does.

use super::elf::{Header, Segment, Segments};
use crate::error::{Errno, Result};
use crate::mm::{
    Access, AddressSpace, Backing, MMAP_MIN, MapRequest, PAGE, PageSource, Placement, TASK_SIZE,
};
use alloc::sync::Arc;

/// What of a segment is filled in before the program runs: each page spares it a fault, as long as
/// it is used at all.
const FILL_CODE: u64 = 4 << 20;
/// The same for data, which is copied.
const FILL_DATA: u64 = 256 << 10;

/// Where a program was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// What was added to the addresses in the file.
    pub(super) bias: u64,
    pub(super) entry: u64,
    /// Where its program headers are in memory; 0 if they are not.
    pub(super) headers: u64,
    /// The first page after its last segment.
    pub(super) end: u64,
}

/// Maps the segments of a program. One that runs at any address goes to `base` if there is one,
/// else to where mappings go.
///
/// # Errors
///
/// `EINVAL` for segments that make no sense, `ENOMEM`, `EFAULT` for a file that ends before its
/// segments do.
pub(super) async fn map(
    space: &AddressSpace,
    source: &Arc<dyn PageSource>,
    header: &Header,
    segments: &Segments,
    base: Option<u64>,
) -> Result<Placed> {
    let extent = extent(segments)?;
    let bias = if header.is_relocatable {
        let alignment = segments
            .load
            .iter()
            .map(|segment| segment.alignment)
            .filter(|alignment| alignment.is_power_of_two() && *alignment < TASK_SIZE / 2)
            .fold(PAGE, u64::max);
        let start = match base {
            Some(base) => base & !(alignment - 1),
            None => find_room(space, extent.1 - extent.0, alignment)?,
        };
        start.wrapping_sub(extent.0 & !(alignment - 1))
    } else {
        0
    };
    for segment in &segments.load {
        map_segment(space, source, segment, bias).await?;
    }
    let entry = header.entry.wrapping_add(bias);
    if entry >= TASK_SIZE {
        return Err(Errno::EINVAL);
    }
    let headers = segments
        .load
        .iter()
        .find_map(|segment| {
            let into = header.table_offset.checked_sub(segment.offset)?;
            (into < segment.file_size).then(|| segment.address.wrapping_add(into + bias))
        })
        .unwrap_or(0);
    Ok(Placed {
        bias,
        entry,
        headers,
        end: extent.1.wrapping_add(bias),
    })
}

/// The pages from the first segment to the last.
fn extent(segments: &Segments) -> Result<(u64, u64)> {
    let mut extent: Option<(u64, u64)> = None;
    for segment in &segments.load {
        let is_sane = segment.file_size <= segment.memory_size
            && segment.memory_size <= TASK_SIZE
            && segment.address <= TASK_SIZE - segment.memory_size;
        if !is_sane {
            return Err(Errno::EINVAL);
        }
        let start = segment.address & !(PAGE - 1);
        let end = (segment.address + segment.memory_size).next_multiple_of(PAGE);
        extent = Some(extent.map_or((start, end), |(low, high)| (low.min(start), high.max(end))));
    }
    extent
        .filter(|(start, end)| start < end)
        .ok_or(Errno::EINVAL)
}

fn find_room(space: &AddressSpace, length: u64, alignment: u64) -> Result<u64> {
    let padded = length.checked_add(alignment - PAGE).ok_or(Errno::ENOMEM)?;
    let room = space.map(MapRequest {
        no_reserve: true,
        ..MapRequest::anonymous(padded, Access::empty())
    })?;
    space.unmap(room, padded)?;
    Ok(room.next_multiple_of(alignment))
}

async fn map_segment(
    space: &AddressSpace,
    source: &Arc<dyn PageSource>,
    segment: &Segment,
    bias: u64,
) -> Result<()> {
    let address = segment.address.wrapping_add(bias);
    let start = address & !(PAGE - 1);
    let file_end = address + segment.file_size;
    let end = (address + segment.memory_size).next_multiple_of(PAGE);
    if end > TASK_SIZE || (end > start && start < MMAP_MIN) {
        return Err(Errno::EINVAL);
    }
    let file_pages_end = if segment.file_size == 0 {
        start
    } else {
        file_end.next_multiple_of(PAGE)
    };
    if file_pages_end > start {
        let offset = segment
            .offset
            .checked_sub(address - start)
            .filter(|offset| offset.is_multiple_of(PAGE))
            .ok_or(Errno::EINVAL)?;
        space.map(MapRequest {
            placement: Placement::Fixed(start),
            backing: Backing::Source {
                source: source.clone(),
                first_page: offset / PAGE,
            },
            no_reserve: true,
            ..MapRequest::anonymous(file_pages_end - start, segment.access)
        })?;
        let is_data = segment.access.contains(Access::WRITE);
        let fill = if is_data { FILL_DATA } else { FILL_CODE };
        space.populate(start..file_pages_end.min(start + fill));
        if is_data && segment.memory_size > segment.file_size && file_end < file_pages_end {
            // The rest of the page holds whatever follows in the file.
            let zeros = [0; PAGE as usize];
            let rest = &zeros[..(file_pages_end - file_end) as usize];
            space.retry(|| space.write(file_end, rest)).await?;
        }
    }
    if end > file_pages_end {
        space.map(MapRequest {
            placement: Placement::Fixed(file_pages_end),
            ..MapRequest::anonymous(end - file_pages_end, segment.access)
        })?;
    }
    Ok(())
}
