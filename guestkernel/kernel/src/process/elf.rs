//! Reading ELF headers of x86-64 programs (System V ABI, `elf(5)`). Nothing here trusts the file.

use crate::error::{Errno, Result};
use alloc::vec::Vec;
use machine::Access;

/// Bytes of an ELF header.
pub(super) const HEADER_SIZE: usize = 64;
/// Bytes of a program header.
pub(super) const PROGRAM_HEADER_SIZE: usize = 56;
/// Bytes of program headers that Linux accepts.
const PROGRAM_HEADERS_MAX: usize = 65536;

const MAGIC: &[u8] = b"\x7fELF";
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// What an ELF header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// It runs at any address.
    pub(super) is_relocatable: bool,
    pub(super) entry: u64,
    /// Where in the file the program headers are.
    pub(super) table_offset: u64,
    pub(super) table_length: usize,
}

/// A segment to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_size: u64,
    pub(super) memory_size: u64,
    pub(super) alignment: u64,
    pub(super) access: Access,
}

/// What the program headers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Segments {
    pub(super) load: Vec<Segment>,
    /// Offset and length of the interpreter's name.
    pub(super) interpreter: Option<(u64, u64)>,
    pub(super) executable_stack: bool,
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Result<[u8; N]> {
        self.0
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .ok_or(Errno::ENOEXEC)
    }

    fn u16(&self, offset: usize) -> Result<u16> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Result<u32> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64> {
        self.bytes(offset).map(u64::from_le_bytes)
    }
}

/// Reads the ELF header that `bytes`, the start of a file, begins with.
///
/// # Errors
///
/// `ENOEXEC`.
pub(super) fn header(bytes: &[u8]) -> Result<Header> {
    let fields = Fields(bytes);
    if !bytes.starts_with(MAGIC) || fields.u16(18)? != EM_X86_64 {
        return Err(Errno::ENOEXEC);
    }
    let is_relocatable = match fields.u16(16)? {
        ET_EXEC => false,
        ET_DYN => true,
        _ => return Err(Errno::ENOEXEC),
    };
    let entry_size = usize::from(fields.u16(54)?);
    let table_length = usize::from(fields.u16(56)?) * PROGRAM_HEADER_SIZE;
    if entry_size != PROGRAM_HEADER_SIZE || table_length == 0 || table_length > PROGRAM_HEADERS_MAX
    {
        return Err(Errno::ENOEXEC);
    }
    Ok(Header {
        is_relocatable,
        entry: fields.u64(24)?,
        table_offset: fields.u64(32)?,
        table_length,
    })
}

/// Reads the program headers in `table`.
///
/// # Errors
///
/// `ENOEXEC`.
pub(super) fn segments(table: &[u8]) -> Result<Segments> {
    let mut segments = Segments::default();
    for bytes in table.chunks_exact(PROGRAM_HEADER_SIZE) {
        let fields = Fields(bytes);
        let flags = fields.u32(4)?;
        match fields.u32(0)? {
            PT_LOAD => segments.load.push(Segment {
                offset: fields.u64(8)?,
                address: fields.u64(16)?,
                file_size: fields.u64(32)?,
                memory_size: fields.u64(40)?,
                alignment: fields.u64(48)?,
                access: access(flags),
            }),
            PT_INTERP if segments.interpreter.is_none() => {
                segments.interpreter = Some((fields.u64(8)?, fields.u64(32)?));
            }
            PT_GNU_STACK => segments.executable_stack = flags & PF_X != 0,
            _ => {}
        }
    }
    Ok(segments)
}

fn access(flags: u32) -> Access {
    let mut access = Access::empty();
    access.set(Access::READ, flags & PF_R != 0);
    access.set(Access::WRITE, flags & PF_W != 0);
    access.set(Access::EXECUTE, flags & PF_X != 0);
    access
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test program is itself an ELF file.
    fn own_image() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn a_real_program_is_understood() {
        let image = own_image();
        let header = header(&image).unwrap();
        assert!(header.is_relocatable);
        let start = header.table_offset as usize;
        let segments = segments(&image[start..start + header.table_length]).unwrap();
        assert!(segments.interpreter.is_some());
        assert!(!segments.executable_stack);
        let code = segments
            .load
            .iter()
            .find(|segment| segment.access.contains(Access::EXECUTE))
            .unwrap();
        assert!((code.address..code.address + code.memory_size).contains(&header.entry));
    }

    #[test]
    fn every_cut_and_every_wrong_field_is_refused() {
        let image = &own_image()[..HEADER_SIZE];
        for length in 0..58 {
            assert_eq!(header(&image[..length]), Err(Errno::ENOEXEC), "{length}");
        }
        for (offset, value) in [(0, 0), (16, 1), (18, 3), (54, 32), (56, 0), (57, 0xff)] {
            let mut bad = image.to_vec();
            bad[offset] = value;
            if offset == 56 {
                bad[57] = 0;
            }
            assert_eq!(header(&bad), Err(Errno::ENOEXEC), "offset {offset}");
        }
    }
}
