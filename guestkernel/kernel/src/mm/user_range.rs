//! Ranges of program memory as a program names them for a read or write: one, or an array of
//! `struct iovec` (`readv(2)`).

use super::address_space::{AddressSpace, TASK_SIZE};
use crate::error::{Errno, Result};
use linux_raw_sys::general as raw;
use smallvec::SmallVec;

/// The most bytes that one call moves; more are cut off (`MAX_RW_COUNT`).
pub const MAX_COUNT: usize = 0x7fff_f000;
/// The most pieces of a vector.
const MAX_PIECES: u64 = raw::UIO_MAXIOV as u64;

/// Bytes in a program's address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserRange {
    /// Address of the first byte.
    pub address: u64,
    /// Bytes.
    pub length: usize,
}

impl UserRange {
    /// `length` bytes at `address`, of which at most `most` are used. Whether anything is there
    /// is not looked at.
    ///
    /// # Errors
    ///
    /// `EFAULT` for memory that is not the program's by its address alone.
    #[inline]
    pub fn new(address: u64, length: u64, most: usize) -> Result<Self> {
        match address.checked_add(length) {
            Some(end) if end <= TASK_SIZE => Ok(Self {
                address,
                length: (length as usize).min(most),
            }),
            _ => Err(Errno::EFAULT),
        }
    }
}

/// The pieces, one where there is no array.
pub type UserRanges = SmallVec<[UserRange; 1]>;

/// Reads the `count` iovecs at `address`, of which at most [`MAX_COUNT`] bytes are used.
///
/// # Errors
///
/// `EINVAL` if there are too many or a length is negative, `EFAULT`.
pub fn read_iovecs(space: &AddressSpace, address: u64, count: u64) -> Result<UserRanges> {
    if count > MAX_PIECES {
        return Err(Errno::EINVAL);
    }
    let mut named: SmallVec<[(u64, u64); 8]> = SmallVec::with_capacity(count as usize);
    for index in 0..count {
        let at = address.wrapping_add(index * size_of::<raw::iovec>() as u64);
        let base = space.read_value(at)?;
        let length: u64 = space.read_value(at.wrapping_add(8))?;
        if i64::try_from(length).is_err() {
            return Err(Errno::EINVAL);
        }
        named.push((base, length));
    }
    // As on Linux, all are read before the first is looked at.
    let mut room = MAX_COUNT;
    let mut range = |(base, length): (u64, u64)| {
        // One alone is cut off first, and of several each must be the program's as it is.
        let length = if count == 1 {
            length.min(MAX_COUNT as u64)
        } else {
            length
        };
        let range = UserRange::new(base, length, room)?;
        room -= range.length;
        Ok(range)
    };
    named.into_iter().map(&mut range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::MapRequest;
    use alloc::vec::Vec;
    use machine::Access;

    #[test]
    fn iovecs_are_read_checked_and_cut_off() {
        let space = AddressSpace::new().unwrap();
        let request = MapRequest::anonymous(0x8000, Access::READ | Access::WRITE);
        let array = space.map(request).unwrap();
        let read = |vectors: &[(u64, u64)]| {
            let words = vectors.iter().flat_map(|(base, length)| [*base, *length]);
            let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
            space.write(array, &bytes).unwrap();
            let ranges = read_iovecs(&space, array, vectors.len() as u64)?;
            Ok(ranges.iter().map(|range| range.length).collect::<Vec<_>>())
        };
        assert_eq!(read(&[]), Ok(alloc::vec![]));
        assert_eq!(read(&[(8, 1), (0, 0), (9, 2)]), Ok(alloc::vec![1, 0, 2]));
        let half = 0x4000_0000;
        let cut = [half as usize, MAX_COUNT - half as usize, 0];
        assert_eq!(read(&[(0, half), (0, half), (0, half)]), Ok(cut.to_vec()));
        assert_eq!(read(&[(TASK_SIZE, 0)]), Ok(alloc::vec![0]));
        assert_eq!(read(&[(TASK_SIZE, 1)]), Err(Errno::EFAULT));
        assert_eq!(read(&[(TASK_SIZE, 1), (0, 1 << 63)]), Err(Errno::EINVAL));
        assert!(read(&[(0, 1); 1024]).is_ok());
        assert_eq!(read(&[(0, 1); 1025]), Err(Errno::EINVAL));
        let beyond = read_iovecs(&space, array + 0x8000 - 8, 1);
        assert_eq!(beyond.unwrap_err(), Errno::EFAULT);
    }
}
