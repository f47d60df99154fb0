//! Memory that a device reads or writes: it stays allocated as long as the device may touch it.

use crate::frame::Frame;
use crate::physical::{PAGE_SIZE, PhysAddr};
use alloc::sync::Arc;
use smallvec::SmallVec;

/// Some bytes of one page frame, kept alive.
#[derive(Clone, Debug)]
pub struct Segment {
    frame: Frame,
    offset: u16,
    length: u16,
}

impl Segment {
    /// `length` bytes at `offset` of `frame`; `None` if they are not all in the page or none.
    pub fn new(frame: Frame, offset: usize, length: usize) -> Option<Self> {
        if length == 0 || offset >= PAGE_SIZE || length > PAGE_SIZE - offset {
            return None;
        }
        Some(Self {
            frame,
            offset: offset as u16,
            length: length as u16,
        })
    }

    /// The page frame.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Where in the page the bytes start.
    pub fn offset(&self) -> usize {
        self.offset.into()
    }

    /// How many bytes there are; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        self.length.into()
    }

    /// The physical address of the first byte.
    pub fn address(&self) -> PhysAddr {
        PhysAddr(self.frame.address().0 + u64::from(self.offset))
    }
}

/// The segments of one device request, in order.
#[derive(Clone, Debug)]
pub enum DmaSegments {
    /// Pinned for this request.
    Own(SmallVec<[Segment; 2]>),
    /// A part of memory that was pinned before (a registered buffer): `length` bytes from byte
    /// `offset` of the segments' concatenation.
    Shared {
        /// All segments of the region. All but the first start at a page's first byte, and all
        /// but the last end with a page's last.
        region: Arc<[Segment]>,
        /// Bytes to skip.
        offset: usize,
        /// Bytes to use.
        length: usize,
    },
}

impl DmaSegments {
    /// Calls `each` with the address and length of every run of physically adjacent bytes.
    pub fn for_each_run(&self, mut each: impl FnMut(PhysAddr, u32)) {
        let mut run: Option<(u64, u64)> = None;
        self.for_each_piece(|address, length| match &mut run {
            Some((start, so_far)) if *start + *so_far == address && *so_far + length <= 1 << 30 => {
                *so_far += length;
            }
            _ => {
                if let Some((start, so_far)) = run.replace((address, length)) {
                    each(PhysAddr(start), so_far as u32);
                }
            }
        });
        if let Some((start, so_far)) = run {
            each(PhysAddr(start), so_far as u32);
        }
    }

    fn for_each_piece(&self, mut each: impl FnMut(u64, u64)) {
        match self {
            Self::Own(segments) => {
                for segment in segments {
                    each(segment.address().0, segment.len() as u64);
                }
            }
            Self::Shared {
                region,
                offset,
                length,
            } => {
                let Some(first) = region.first() else { return };
                // Segments after the first are whole pages, so the one to start at is computed.
                let (mut index, mut skip) = match offset.checked_sub(first.len()) {
                    None => (0, *offset),
                    Some(beyond) => (1 + beyond / PAGE_SIZE, beyond % PAGE_SIZE),
                };
                let mut left = *length;
                while left > 0 {
                    let Some(segment) = region.get(index) else {
                        return;
                    };
                    let here = segment.len().saturating_sub(skip).min(left);
                    each(segment.address().0 + skip as u64, here as u64);
                    left -= here;
                    skip = 0;
                    index += 1;
                }
            }
        }
    }

    /// A number of runs that [`for_each_run`](Self::for_each_run) does not exceed, found without
    /// looking at each.
    pub(crate) fn most_runs(&self) -> usize {
        match self {
            Self::Own(segments) => segments.len(),
            Self::Shared { length: 0, .. } => 0,
            Self::Shared { length, .. } => length / PAGE_SIZE + 2,
        }
    }

    /// `length` bytes from byte `offset` on, or as many of them as there are. It allocates if
    /// that is more than two segments of its own.
    pub fn part(&self, offset: usize, length: usize) -> Self {
        match self {
            Self::Own(segments) => {
                let (mut skip, mut left) = (offset, length);
                let mut part = SmallVec::new();
                for segment in segments {
                    let here = segment.len().saturating_sub(skip).min(left);
                    let start = segment.offset() + skip.min(segment.len());
                    part.extend(Segment::new(segment.frame.clone(), start, here));
                    skip = skip.saturating_sub(segment.len());
                    left -= here;
                }
                Self::Own(part)
            }
            Self::Shared {
                region,
                offset: start,
                length: all,
            } => Self::Shared {
                region: region.clone(),
                offset: start + offset.min(*all),
                length: length.min(all.saturating_sub(offset)),
            },
        }
    }

    /// The bytes in all segments together.
    pub fn total(&self) -> usize {
        match self {
            Self::Own(segments) => segments.iter().map(Segment::len).sum(),
            Self::Shared { length, .. } => *length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn runs(segments: &DmaSegments) -> Vec<(u64, u32)> {
        let mut runs = Vec::new();
        segments.for_each_run(|address, length| runs.push((address.0, length)));
        runs
    }

    #[test]
    fn a_segment_lies_in_its_page() {
        let frame = Frame::zeroed().unwrap();
        assert!(Segment::new(frame.clone(), 4095, 2).is_none());
        assert!(Segment::new(frame.clone(), 0, 0).is_none());
        assert!(Segment::new(frame, 0, 4096).is_some());
    }

    #[test]
    fn adjacent_segments_become_one_run() {
        let frame = Frame::zeroed().unwrap();
        let base = frame.address().0;
        let segment = |offset, length| Segment::new(frame.clone(), offset, length).unwrap();
        let own = DmaSegments::Own(
            [segment(0, 16), segment(16, 16), segment(64, 8)]
                .into_iter()
                .collect(),
        );
        assert_eq!(runs(&own), [(base, 32), (base + 64, 8)]);
        assert_eq!(own.total(), 40);
    }

    #[test]
    fn a_part_of_a_region_is_found() {
        let frames: Vec<_> = (0..3).map(|_| Frame::zeroed().unwrap()).collect();
        let region: Arc<[Segment]> = [
            Segment::new(frames[0].clone(), 4000, 96).unwrap(),
            Segment::new(frames[2].clone(), 0, 4096).unwrap(),
            Segment::new(frames[1].clone(), 0, 10).unwrap(),
        ]
        .into();
        let part = |offset, length| {
            runs(&DmaSegments::Shared {
                region: region.clone(),
                offset,
                length,
            })
            .iter()
            .map(|run| run.1)
            .sum::<u32>()
        };
        assert_eq!(part(0, 96 + 4096 + 10), 4202);
        assert_eq!(part(95, 2), 2);
        let tail = DmaSegments::Shared {
            region: region.clone(),
            offset: 96 + 4096,
            length: 10,
        };
        assert_eq!(runs(&tail), [(frames[1].address().0, 10)]);
    }

    #[test]
    fn parts_put_together_are_the_whole() {
        let frames: Vec<_> = (0..3).map(|_| Frame::zeroed().unwrap()).collect();
        let segments = [
            Segment::new(frames[1].clone(), 4000, 96).unwrap(),
            Segment::new(frames[2].clone(), 0, 4096).unwrap(),
            Segment::new(frames[0].clone(), 0, 10).unwrap(),
        ];
        let bytes = |whole: &DmaSegments| {
            let mut bytes = Vec::new();
            whole.for_each_run(|start, length| {
                bytes.extend((0..u64::from(length)).map(|byte| start.0 + byte));
            });
            bytes
        };
        let total = 96 + 4096 + 10;
        for whole in [
            DmaSegments::Own(segments.iter().cloned().collect()),
            DmaSegments::Shared {
                region: segments.clone().into(),
                offset: 0,
                length: total,
            },
        ] {
            for cut in [0, 1, 95, 96, 97, 4192, 4193, total - 1, total] {
                let (first, second) = (whole.part(0, cut), whole.part(cut, usize::MAX));
                assert_eq!(first.total(), cut);
                assert_eq!([bytes(&first), bytes(&second)].concat(), bytes(&whole));
            }
        }
    }
}
