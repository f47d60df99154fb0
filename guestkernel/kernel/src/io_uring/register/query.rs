//! `IORING_REGISTER_QUERY`: what this kernel's rings can do. linux-raw-sys does not have it: numbers
//! and layouts are those of `include/uapi/linux/io_uring/query.h` of Linux 6.18.

use super::restrictions::REGISTRATIONS;
use crate::error::{Errno, Result};
use crate::io_uring::enter;
use crate::io_uring::setup::{FEATURES, KNOWN_FLAGS};
use crate::mm::AddressSpace;
use linux_raw_sys::io_uring::io_uring_op;

/// The number of the registration.
pub(super) const QUERY: u32 = 35;

/// Entries that one call follows from one to the next.
const ENTRIES_MAX: u32 = 1000;
/// Bytes of an entry (`struct io_uring_query_hdr`).
const HEAD_SIZE: usize = 40;
/// Bytes of what there is to say of opcodes and flags (`struct io_uring_query_opcode`).
const ANSWER_SIZE: usize = 48;
/// Bytes of an answer that a program may have room for.
const ANSWER_MAX: usize = 1024;
/// Queries that there are: of opcodes and flags.
const QUERIES: u32 = 1;
/// `IOSQE_*` that there are.
const SQE_FLAGS: u64 = 0x7f;

/// The answer to a query of opcodes and flags.
fn answer() -> [u8; ANSWER_SIZE] {
    let mut bytes = [0; ANSWER_SIZE];
    bytes[..4].copy_from_slice(&(io_uring_op::IORING_OP_LAST as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&REGISTRATIONS.to_le_bytes());
    let words = [
        u64::from(FEATURES),
        KNOWN_FLAGS.into(),
        enter::KNOWN_FLAGS.into(),
        SQE_FLAGS,
        QUERIES.into(),
    ];
    for (bytes, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Answers the queries of the list that begins at `argument`.
///
/// # Errors
///
/// `EINVAL` if there is a count, `EFAULT`, `ERANGE` if the list is too long.
pub(super) fn query(space: &AddressSpace, argument: u64, count: u32) -> Result<u32> {
    if count != 0 {
        return Err(Errno::EINVAL);
    }
    let mut at = argument;
    let mut done = 0;
    while at != 0 {
        at = query_one(space, at)?;
        done += 1;
        if done >= ENTRIES_MAX {
            return Err(Errno::ERANGE);
        }
    }
    Ok(0)
}

/// Answers the query at `at`; gives the address of the next one.
fn query_one(space: &AddressSpace, at: u64) -> Result<u64> {
    let mut head = [0; HEAD_SIZE];
    space.read(at, &mut head)?;
    let word = |index: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&head[index * 4..][..4]);
        u32::from_le_bytes(bytes)
    };
    let address = |index: usize| u64::from(word(index)) | u64::from(word(index + 1)) << 32;
    let (next, data, query, size) = (address(0), address(2), word(4), word(5));
    let is_bad = (6..10).any(|index| word(index) != 0) || size == 0;
    let result = match query {
        QUERIES.. => Err(Errno::EOPNOTSUPP),
        _ if is_bad => Err(Errno::EINVAL),
        _ => Ok(ANSWER_SIZE),
    };
    let answer = match result {
        Ok(_) => answer(),
        Err(_) => [0; ANSWER_SIZE],
    };
    let told = result.map_or(0, |size_of_all| size_of_all.min(size as usize));
    // What the program has room for beyond that is 0, as far as a later Linux could have more to say.
    let mut bytes = [0; ANSWER_MAX];
    bytes[..ANSWER_SIZE].copy_from_slice(&answer);
    space.write(data, &bytes[..ANSWER_MAX.min(size as usize)])?;
    head[20..24].copy_from_slice(&(told as u32).to_le_bytes());
    let result = result.map_or_else(Errno::as_result, |_| 0);
    head[24..28].copy_from_slice(&result.to_le_bytes());
    space.write(at, &head)?;
    Ok(next)
}
