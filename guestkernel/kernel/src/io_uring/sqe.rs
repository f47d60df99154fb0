//! The submission queue entry, `struct io_uring_sqe`: 64 bytes whose meaning depends on the
//! opcode. What an opcode does with a field is in its file; here are only places and sizes.

use bitflags::bitflags;

/// Bytes of an entry.
pub(super) const SQE_SIZE: usize = 64;

bitflags! {
    /// `IOSQE_*`, and in the upper bits what the kernel notes of a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct RequestFlags: u16 {
        /// `fd` is an index into the ring's file table.
        const FIXED_FILE = 1 << 0;
        /// Starts after all requests before it are complete, and holds up those after it.
        const DRAIN = 1 << 1;
        /// The next request starts when this one has succeeded.
        const LINK = 1 << 2;
        /// The next request starts when this one is complete, however it went.
        const HARD_LINK = 1 << 3;
        /// Do not try it inline. Nothing blocks the submitter here, so it makes no difference.
        const ASYNC = 1 << 4;
        /// The buffer is picked from a group.
        const BUFFER_SELECT = 1 << 5;
        /// No CQE if it succeeds.
        const SKIP_SUCCESS = 1 << 6;
        /// Goes through the queue of requests that wait for others to drain.
        const QUEUED = 1 << 8;
        /// It failed although its CQE was to be skipped: those linked to it stay silent.
        const SILENT_LINKS = 1 << 9;

        /// The next request of the chain is the time that this one has.
        const TIMED = 1 << 10;
        /// It uses a file or buffer that has left its table, whose tag waits for its end.
        const USES_RETIRED = 1 << 11;

        /// Another request follows in the chain.
        const ANY_LINK = Self::LINK.bits() | Self::HARD_LINK.bits();
        /// The flags that need no further look.
        const COMMON = Self::FIXED_FILE.bits() | Self::ANY_LINK.bits() | Self::ASYNC.bits();
    }
}

bitflags! {
    /// The fields that mean something to some opcodes only.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Fields: u8 {
        /// `off`, `addr2`.
        const OFFSET = 1 << 0;
        /// `addr`.
        const ADDRESS = 1 << 1;
        /// `len`.
        const LENGTH = 1 << 2;
        /// `rw_flags` and the like.
        const OP_FLAGS = 1 << 3;
        /// `buf_index`.
        const BUFFER = 1 << 4;
        /// `file_index`.
        const FILE_INDEX = 1 << 5;
        /// `addr3`.
        const ADDRESS3 = 1 << 6;
        /// `attr_type_mask` or `__pad2`, and what comes before it.
        const ATTRIBUTES = 1 << 7;
    }
}

/// A submission queue entry, copied out of the ring.
#[derive(Clone, Copy)]
pub(super) struct Sqe([u8; SQE_SIZE]);

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $offset:literal,)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name(&self) -> $type {
            let mut bytes = [0; size_of::<$type>()];
            bytes.copy_from_slice(&self.0[$offset..$offset + size_of::<$type>()]);
            <$type>::from_le_bytes(bytes)
        }
    )*};
}

impl Sqe {
    /// The entry with these bytes.
    #[inline(always)]
    pub(super) fn new(bytes: [u8; SQE_SIZE]) -> Self {
        Self(bytes)
    }

    /// Whether any of `fields` is not 0.
    #[inline(always)]
    pub(super) fn has_any(&self, fields: Fields) -> bool {
        !fields.is_empty() && self.used().intersects(fields)
    }

    /// The fields that are not 0.
    fn used(&self) -> Fields {
        let mut used = Fields::empty();
        used.set(Fields::OFFSET, self.offset() != 0);
        used.set(Fields::ADDRESS, self.address() != 0);
        used.set(Fields::LENGTH, self.length() != 0);
        used.set(Fields::OP_FLAGS, self.op_flags() != 0);
        used.set(Fields::BUFFER, self.buffer() != 0);
        used.set(Fields::FILE_INDEX, self.file_index() != 0);
        used.set(Fields::ADDRESS3, self.address3() != 0);
        used.set(Fields::ATTRIBUTES, self.attributes() != 0);
        used
    }

    fields! {
        /// `IORING_OP_*`.
        opcode: u8 = 0,
        /// `IOSQE_*`.
        flags: u8 = 1,
        /// An I/O priority, or flags of the opcode.
        priority: u16 = 2,
        /// A descriptor, or an index into the file table.
        fd: i32 = 4,
        /// `off`, `addr2`.
        offset: u64 = 8,
        /// `addr`.
        address: u64 = 16,
        /// A buffer's bytes, or a count.
        length: u32 = 24,
        /// `rw_flags`, `fsync_flags`, `timeout_flags` ...
        op_flags: u32 = 28,
        /// What the CQE repeats.
        user_data: u64 = 32,
        /// `buf_index`, `buf_group`.
        buffer: u16 = 40,
        /// Registered credentials.
        personality: u16 = 42,
        /// `file_index`, `splice_fd_in`.
        file_index: u32 = 44,
        /// `addr3`, `attr_ptr`.
        address3: u64 = 48,
        /// `__pad2`, `attr_type_mask`.
        attributes: u64 = 56,
    }
}
