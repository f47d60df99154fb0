//! FUSE's requests and replies as bytes (Linux's `include/uapi/linux/fuse.h`).

use std::ffi::CStr;

use fuse_abi::linux::{fuse_in_header, fuse_out_header};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes of a request's header.
pub(super) const IN_HEADER: usize = size_of::<fuse_in_header>();
/// Bytes of a reply's header.
pub(super) const OUT_HEADER: usize = size_of::<fuse_out_header>();

/// Bytes of arguments that are looked at; only the data of WRITE may be more.
pub(super) const MAX_ARGUMENTS: usize = 128 << 10;
/// Bytes of a reply; only the data of READ may be more.
pub(super) const MAX_REPLY: usize = 128 << 10;

/// Bytes of a name (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// What a request ends with.
pub(super) type Result<T> = std::result::Result<T, Errno>;

/// A request without its data.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    /// The header.
    pub(super) header: fuse_in_header,
    /// What follows the header.
    pub(super) arguments: &'a [u8],
    /// Bytes that there is room for behind the reply's header.
    pub(super) room: usize,
}

/// Takes the structure `T` off the front of `arguments`.
///
/// # Errors
///
/// EINVAL if they are too short.
pub(super) fn take<T: FromBytes>(arguments: &[u8]) -> Result<(T, &[u8])> {
    T::read_from_prefix(arguments).map_err(|_| Errno::INVAL)
}

/// Takes a NUL-terminated string off the front of `arguments`.
///
/// # Errors
///
/// EINVAL if no NUL ends it.
pub(super) fn take_string(arguments: &[u8]) -> Result<(&CStr, &[u8])> {
    let string = CStr::from_bytes_until_nul(arguments).map_err(|_| Errno::INVAL)?;
    Ok((string, &arguments[string.count_bytes() + 1..]))
}

/// Takes the name of a directory's entry off the front of `arguments`.
///
/// # Errors
///
/// EINVAL for what is no name of an entry: nothing, `.`, `..` or what holds a slash; ENAMETOOLONG.
pub(super) fn take_name(arguments: &[u8]) -> Result<(&CStr, &[u8])> {
    let (name, rest) = take_string(arguments)?;
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
        bytes if bytes.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
        _ => Ok((name, rest)),
    }
}

/// A reply as it is made: room for the header, then what follows.
pub(super) struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    /// An empty reply.
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; OUT_HEADER],
        }
    }

    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.bytes.truncate(OUT_HEADER);
    }

    /// Adds a structure.
    pub(super) fn push<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.bytes.extend_from_slice(value.as_bytes());
    }

    /// Adds bytes.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds zeros until what follows the header is a multiple of eight bytes.
    pub(super) fn pad(&mut self) {
        let bytes = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(bytes, 0);
    }

    /// Bytes behind the header.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - OUT_HEADER
    }

    /// Makes room for `len` bytes behind the header and gives them, zeroed.
    pub(super) fn extend(&mut self, len: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        &mut self.bytes[start..]
    }

    /// Drops what is more than `len` bytes behind the header.
    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(OUT_HEADER + len);
    }

    /// The whole reply to request `unique`, as `result` says: what was pushed, or an error.
    pub(super) fn finish(&mut self, unique: u64, result: Result<()>) -> &[u8] {
        if result.is_err() {
            self.clear();
        }
        let header = header(unique, self.len(), result);
        self.bytes[..OUT_HEADER].copy_from_slice(header.as_bytes());
        &self.bytes
    }
}

/// The header of a reply with `len` bytes behind it.
pub(super) fn header(unique: u64, len: usize, result: Result<()>) -> fuse_out_header {
    fuse_out_header {
        len: (OUT_HEADER + len) as u32,
        error: result.map_or_else(|errno| -errno.raw_os_error(), |()| 0),
        unique,
    }
}

/// The header and the rest of `bytes`, of which there must be as many as the header says.
#[cfg(any(test, fuzzing))]
pub(super) fn parse(bytes: &[u8], room: usize) -> Option<Request<'_>> {
    let (header, arguments) = fuse_in_header::read_from_prefix(bytes).ok()?;
    (header.len as usize == bytes.len()).then_some(Request {
        header,
        arguments,
        room,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_entry() {
        for bad in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"/\0", b"abc", b""] {
            assert_eq!(take_name(bad), Err(Errno::INVAL), "{bad:?}");
        }
        let mut long = vec![b'x'; NAME_MAX];
        long.push(0);
        assert!(take_name(&long).is_ok());
        long.insert(0, b'x');
        assert_eq!(take_name(&long), Err(Errno::NAMETOOLONG));
        assert_eq!(take_name(b"...\0rest"), Ok((c"...", &b"rest"[..])));
    }

    #[test]
    fn an_error_takes_the_place_of_the_reply() {
        let mut reply = Reply::new();
        reply.push(&7_u64);
        assert_eq!(reply.finish(3, Ok(()))[..8], [24, 0, 0, 0, 0, 0, 0, 0]);
        let bytes = reply.finish(3, Err(Errno::NOENT));
        let (header, rest) = fuse_out_header::read_from_prefix(bytes).unwrap();
        assert_eq!((header.len, header.error, header.unique), (16, -2, 3));
        assert!(rest.is_empty());
    }
}
