//! The guest kernel's file: an x86-64 ELF with a PVH note, checked and loaded.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use linux_loader::elf;
use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{ByteValued, GuestAddress, GuestMemoryMmap};

/// Nothing may be loaded below: the boot information and, on a PC, the BIOS are there.
const LOWEST: u64 = 1 << 20;

/// Why a file cannot be the kernel. The messages do not name the file: the caller knows it.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It cannot be opened or read.
    #[error("{0}; build it with 'make' or name another with --kernel")]
    Io(#[from] io::Error),
    /// Not a regular file.
    #[error("it is not a regular file; name a guest kernel with --kernel")]
    NotAFile,
    /// Not an ELF file.
    #[error("it is no ELF file; name a guest kernel with --kernel")]
    NotElf,
    /// Not 64-bit little-endian.
    #[error("it is no 64-bit little-endian ELF file; name a guest kernel with --kernel")]
    WrongClass,
    /// For another processor.
    #[error("it is for {0}, not for x86-64; name a guest kernel with --kernel")]
    WrongMachine(String),
    /// The file ends before what its headers promise.
    #[error("it is truncated: {has} bytes, its headers ask for {needs}; build it again")]
    Truncated {
        /// Bytes of the file.
        has: u64,
        /// Bytes that the headers ask for.
        needs: u64,
    },
    /// The headers contradict each other.
    #[error("its ELF headers make no sense ({0}); build it again with 'make'")]
    BadHeaders(String),
    /// There is no PVH entry point.
    #[error(
        "it has no PVH note (XEN_ELFNOTE_PHYS32_ENTRY), so it cannot be booted directly; name a \
         guest kernel with --kernel"
    )]
    NoPvhNote,
    /// It is linked where the boot information goes.
    #[error(
        "it is no kernel: it is linked for physical address {0:#x}, below 1 MiB; name a guest \
         kernel with --kernel"
    )]
    TooLow(u64),
    /// It is linked where there is no RAM for it.
    #[error("it needs guest memory from {start:#x} to {end:#x}; raise --mem")]
    DoesNotFit {
        /// The first byte.
        start: u64,
        /// After the last byte.
        end: u64,
    },
}

/// A part of the kernel as the linker saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The virtual address that its code expects.
    pub linked: u64,
    /// Where it is in guest memory.
    pub physical: u64,
    /// Bytes, `.bss` included.
    pub size: u64,
}

/// A kernel in guest memory.
#[derive(Debug)]
pub struct LoadedKernel {
    /// The 32-bit entry point of the PVH note.
    pub entry: u64,
    /// After its last byte, `.bss` included.
    pub end: u64,
    /// Its file, which has its symbols.
    pub file: File,
    /// Its parts.
    pub segments: Vec<Segment>,
}

/// Loads the kernel in `file`, all of it below `ram_end`.
///
/// # Errors
///
/// [`KernelError`].
pub fn load(
    mut file: File,
    memory: &GuestMemoryMmap,
    ram_end: u64,
) -> Result<LoadedKernel, KernelError> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(KernelError::NotAFile);
    }
    let segments = check(&mut file, metadata.len(), ram_end)?;
    let ends = segments
        .iter()
        .map(|segment| segment.physical + segment.size);
    let end = ends.max().unwrap_or(0);
    let loaded = Elf::load(memory, None, &mut file, None)
        .map_err(|error| KernelError::BadHeaders(error.to_string()))?;
    match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(GuestAddress(entry)) if entry < end => {
            Ok(LoadedKernel {
                entry,
                end,
                file,
                segments,
            })
        }
        PvhBootCapability::PvhEntryPresent(_) => Err(KernelError::BadHeaders(
            "the PVH entry point is outside the kernel".to_owned(),
        )),
        _ => Err(KernelError::NoPvhNote),
    }
}

/// Opens a file to read it. A FIFO is opened too, without waiting for its other end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// Checks the headers; gives the parts of the kernel, of which there is at least one.
fn check(file: &mut File, size: u64, ram_end: u64) -> Result<Vec<Segment>, KernelError> {
    let header: elf::Elf64_Ehdr = read(file, 0).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => KernelError::NotElf,
        _ => KernelError::Io(error),
    })?;
    let ident = header.e_ident;
    if ident[..4] != *b"\x7fELF" {
        return Err(KernelError::NotElf);
    }
    if u32::from(ident[4]) != ELFCLASS64 || u32::from(ident[5]) != elf::ELFDATA2LSB as u32 {
        return Err(KernelError::WrongClass);
    }
    if header.e_machine != elf::EM_X86_64 {
        return Err(KernelError::WrongMachine(machine_name(header.e_machine)));
    }
    let needs = |end: Option<u64>| match end {
        Some(end) if end <= size => Ok(()),
        Some(needs) => Err(KernelError::Truncated { has: size, needs }),
        None => Err(KernelError::BadHeaders("an offset overflows".to_owned())),
    };
    // Section headers are not used, but they come last: without them the file is not whole.
    needs(
        u64::from(header.e_shnum)
            .checked_mul(header.e_shentsize.into())
            .and_then(|len| len.checked_add(header.e_shoff)),
    )?;
    let entry_size = size_of::<elf::Elf64_Phdr>() as u64;
    needs(
        u64::from(header.e_phnum)
            .checked_mul(entry_size)
            .and_then(|len| len.checked_add(header.e_phoff)),
    )?;
    let mut segments = Vec::new();
    for index in 0..u64::from(header.e_phnum) {
        let segment: elf::Elf64_Phdr = read(file, header.e_phoff + index * entry_size)?;
        if segment.p_type != elf::PT_LOAD && segment.p_type != elf::PT_NOTE {
            continue;
        }
        needs(segment.p_offset.checked_add(segment.p_filesz))?;
        if segment.p_type != elf::PT_LOAD || segment.p_memsz == 0 {
            continue;
        }
        let start = segment.p_paddr;
        let end = start.saturating_add(segment.p_memsz.max(segment.p_filesz));
        if start < LOWEST {
            return Err(KernelError::TooLow(start));
        }
        if end > ram_end {
            return Err(KernelError::DoesNotFit { start, end });
        }
        segments.push(Segment {
            linked: segment.p_vaddr,
            physical: start,
            size: end - start,
        });
    }
    match segments.is_empty() {
        true => Err(KernelError::BadHeaders(
            "nothing is to be loaded".to_owned(),
        )),
        false => Ok(segments),
    }
}

const ELFCLASS64: u32 = 2;

/// Reads a header at byte `offset`.
fn read<T: ByteValued + Default>(file: &mut File, offset: u64) -> io::Result<T> {
    let mut value = T::default();
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(value.as_mut_slice())?;
    Ok(value)
}

/// What people call the machine of an ELF file.
fn machine_name(machine: u16) -> String {
    let name = match machine {
        3 => "32-bit x86",
        8 => "MIPS",
        20 | 21 => "PowerPC",
        22 => "S/390",
        40 => "32-bit ARM",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        other => return format!("ELF machine {other}"),
    };
    name.to_owned()
}
