//! `struct msghdr`: how a program names a message.

use super::socket::read_address;
use crate::error::{Errno, Result};
use crate::mm::{AddressSpace, UserRanges, read_iovecs};
use crate::net::{MessageFlags, RawAddress};
use alloc::vec::Vec;
use linux_raw_sys::general as raw;
use machine::Plain;

/// Bytes of a `struct msghdr`.
pub(super) const SIZE: u64 = 56;
/// Where `msg_namelen`, `msg_controllen` and `msg_flags` are in it.
const NAME_LENGTH: u64 = 8;
const CONTROL_LENGTH: u64 = 40;
const FLAGS: u64 = 48;
/// Bytes that may be sent along with a message (`net.core.optmem_max`).
const CONTROL_MAX: u64 = 131_072;

/// A `struct msghdr` as it was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageHeader {
    /// Where it is.
    at: u64,
    name_at: u64,
    name_length: i32,
    pieces_at: u64,
    pieces: u64,
    control_at: u64,
    control_length: u64,
}

impl MessageHeader {
    /// The header at `at`.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EINVAL`, `EMSGSIZE`.
    pub fn read(space: &AddressSpace, at: u64) -> Result<Self> {
        let mut words = [0_u64; 7];
        for (index, word) in words.iter_mut().enumerate() {
            space.read(at.wrapping_add(index as u64 * 8), word.as_bytes_mut())?;
        }
        let [
            name_at,
            name_length,
            pieces_at,
            pieces,
            control_at,
            control_length,
            _,
        ] = words;
        let name_length = match name_at {
            0 => 0,
            _ => name_length as i32,
        };
        if name_length < 0 {
            return Err(Errno::EINVAL);
        }
        if pieces > u64::from(raw::UIO_MAXIOV) {
            return Err(Errno::EMSGSIZE);
        }
        Ok(Self {
            at,
            name_at,
            // As on Linux, what is too long is cut off.
            name_length: name_length.min(RawAddress::MAX as i32),
            pieces_at,
            pieces,
            control_at,
            control_length,
        })
    }

    /// The address in it.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(super) fn address(&self, space: &AddressSpace) -> Result<Option<RawAddress>> {
        match self.name_length {
            0 => Ok(None),
            length => read_address(space, self.name_at, length).map(Some),
        }
    }

    /// The memory of the message's bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EINVAL`.
    pub(super) fn ranges(&self, space: &AddressSpace) -> Result<UserRanges> {
        read_iovecs(space, self.pieces_at, self.pieces)
    }

    /// What is to be sent along.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if it is too much, `EFAULT`.
    pub(super) fn control(&self, space: &AddressSpace) -> Result<Vec<u8>> {
        if self.control_length > CONTROL_MAX {
            return Err(Errno::ENOBUFS);
        }
        let mut control = alloc::vec![0; self.control_length as usize];
        space.read(self.control_at, &mut control)?;
        Ok(control)
    }

    /// Whether the address of the sender is wanted.
    pub(super) fn wants_name(&self) -> bool {
        self.name_at != 0
    }

    /// Where what came along goes, and how much of it.
    pub(super) fn control_room(&self) -> (u64, usize) {
        let room = match self.control_at {
            0 => 0,
            _ => self.control_length as usize,
        };
        (self.control_at, room)
    }

    /// Sees to it that the results can be stored without waiting.
    ///
    /// # Errors
    ///
    /// [`Errno::ABSENT`].
    pub(super) fn prepare(&self, space: &AddressSpace) -> Result<()> {
        space.prepare_write(self.at, SIZE as usize)?;
        if self.wants_name() {
            space.prepare_write(self.name_at, self.name_length as usize)?;
        }
        let (at, room) = self.control_room();
        space.prepare_write(at, room.min(CONTROL_MAX as usize))
    }

    /// Stores the sender's address.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(super) fn write_name(&self, space: &AddressSpace, name: &[u8]) -> Result<()> {
        let room = self.name_length as usize;
        space.write(self.name_at, &name[..name.len().min(room)])?;
        let length_at = self.at.wrapping_add(NAME_LENGTH);
        space.write_value(length_at, &(name.len() as u32))
    }

    /// Stores what is told of the message, and the bytes of what came along.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(super) fn write_result(
        &self,
        space: &AddressSpace,
        told: MessageFlags,
        control: usize,
    ) -> Result<()> {
        space.write_value(self.at.wrapping_add(FLAGS), &told.bits())?;
        let control_at = self.at.wrapping_add(CONTROL_LENGTH);
        space.write_value(control_at, &(control as u64))
    }
}
