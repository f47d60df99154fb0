//! `IORING_REGISTER_RESTRICTIONS`: what requests and registrations are left when the ring is enabled.

use super::{Registration, element};
use crate::error::{Errno, Result};
use crate::io_uring::opcode::OPCODES;
use crate::io_uring::sqe::RequestFlags;
use alloc::vec;
use linux_raw_sys::io_uring as raw;
use raw::io_uring_register_restriction_op as kind;

/// Registrations that there are (`IORING_REGISTER_LAST` of Linux 6.18).
pub(super) const REGISTRATIONS: u32 = 36;
/// The most restrictions: one for each thing that can be allowed.
const MOST: u32 =
    kind::IORING_RESTRICTION_LAST as u32 + REGISTRATIONS + raw::io_uring_op::IORING_OP_LAST as u32;
/// Bytes of each (`struct io_uring_restriction`).
const SIZE: usize = size_of::<raw::io_uring_restriction>();

/// What a ring is left.
#[derive(Clone, Debug, Default)]
pub(in crate::io_uring) struct Restrictions {
    registrations: u64,
    opcodes: u64,
    flags_allowed: u8,
    flags_required: u8,
}

impl Restrictions {
    /// Whether a request may be made.
    pub(in crate::io_uring) fn allow(&self, opcode: u8, flags: RequestFlags) -> bool {
        // Only what an SQE can say counts, which is in the lower half.
        let flags = flags.bits() as u8;
        usize::from(opcode) < OPCODES
            && self.opcodes & 1 << opcode != 0
            && flags & self.flags_required == self.flags_required
            && flags & !(self.flags_allowed | self.flags_required) == 0
    }

    /// Whether something may be registered.
    pub(super) fn allow_registration(&self, opcode: u32) -> bool {
        opcode < u64::BITS && self.registrations & 1 << opcode != 0
    }
}

impl Registration<'_> {
    pub(super) fn register_restrictions(&self, argument: u64, count: u32) -> Result<u32> {
        if !self.ring.is_disabled() {
            return Err(Errno::EBADFD);
        }
        if self.ring.lock().restrictions.is_some() {
            return Err(Errno::EBUSY);
        }
        if argument == 0 || count > MOST {
            return Err(Errno::EINVAL);
        }
        let mut bytes = vec![0; count as usize * SIZE];
        self.space().read(
            element::<raw::io_uring_restriction>(argument, 0),
            &mut bytes,
        )?;
        let mut restrictions = Restrictions::default();
        for entry in bytes.chunks_exact(SIZE) {
            let (opcode, value) = (u16::from_le_bytes([entry[0], entry[1]]), entry[2]);
            const REGISTRATION: u16 = kind::IORING_RESTRICTION_REGISTER_OP as u16;
            const OPCODE: u16 = kind::IORING_RESTRICTION_SQE_OP as u16;
            const ALLOWED: u16 = kind::IORING_RESTRICTION_SQE_FLAGS_ALLOWED as u16;
            const REQUIRED: u16 = kind::IORING_RESTRICTION_SQE_FLAGS_REQUIRED as u16;
            match opcode {
                REGISTRATION if u32::from(value) < REGISTRATIONS => {
                    restrictions.registrations |= 1 << value;
                }
                OPCODE if u32::from(value) < raw::io_uring_op::IORING_OP_LAST as u32 => {
                    restrictions.opcodes |= 1 << value;
                }
                ALLOWED => restrictions.flags_allowed = value,
                REQUIRED => restrictions.flags_required = value,
                _ => return Err(Errno::EINVAL),
            }
        }
        self.ring.lock().restrictions = Some(restrictions);
        Ok(0)
    }
}
