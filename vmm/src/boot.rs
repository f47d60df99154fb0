//! What the kernel finds in memory when it starts: PVH start info, memory map, command line,
//! modules.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry,
    hvm_start_info,
};
use ringlet_abi::{
    CONTROL_BASE, MODULE_INITRAMFS, MODULE_PROCESS, ProcessSpecError, VIRTIO_BASE, VIRTIO_IRQ,
    VIRTIO_SIZE,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::config::Config;
use crate::kernel_image::LoadedKernel;
use crate::memory;

const PAGE: u64 = 4096;

/// Conventional memory ends here; boot information lies below.
const CONVENTIONAL_END: u64 = 0x9f000;
/// RAM goes on after the hole that a PC has for video memory and BIOS.
const EXTENDED_START: u64 = 0x10_0000;

const START_INFO: u64 = 0x1000;
const MEMORY_MAP: u64 = 0x2000;
const MODULE_LIST: u64 = 0x3000;
const MODULE_CMDLINES: u64 = 0x4000;
const CMDLINE: u64 = 0x5000;
const CMDLINE_SIZE: usize = 0x1000;
/// A page of the boot information that holds nothing: a debugger may need one before the kernel has
/// memory of its own.
pub const SPARE: u64 = 0x6000;
/// Bytes of it.
pub const SPARE_SIZE: u64 = PAGE;

/// The first bytes of a cpio archive in the newc format, with or without checksums.
const CPIO_MAGICS: [[u8; 6]; 2] = [*b"070701", *b"070702"];

/// Why the boot information cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The root file system image cannot be read.
    #[error("{0}; build it with 'make' or name another with --rootfs")]
    Rootfs(#[from] io::Error),
    /// The root file system image is no regular file.
    #[error("it is not a regular file; name an image with --rootfs")]
    NotAFile,
    /// The root file system image is something else.
    #[error("it is no cpio archive (newc); build it with 'make' or name another with --rootfs")]
    NotCpio,
    /// Kernel, image and process description do not fit.
    #[error(
        "the kernel and this image of {} MiB do not fit into {} MiB of guest memory; raise --mem",
        .image.div_ceil(1 << 20),
        .memory >> 20
    )]
    DoesNotFit {
        /// Bytes of the image.
        image: u64,
        /// Bytes of guest memory.
        memory: u64,
    },
    /// The program, its arguments or its environment cannot be passed on.
    #[error("{0}")]
    Process(#[from] ProcessSpecError),
    /// The command line is too long or has characters that it cannot have.
    #[error("kernel command line: {0}")]
    Cmdline(linux_loader::cmdline::Error),
    /// Guest memory cannot be written.
    #[error("guest memory: {0}")]
    Memory(String),
}

impl From<vm_memory::GuestMemoryError> for BootError {
    fn from(error: vm_memory::GuestMemoryError) -> Self {
        Self::Memory(error.to_string())
    }
}

/// What the kernel finds when it starts.
pub struct Written {
    /// The address of the start info.
    pub start_info: GuestAddress,
    /// Where the root file system image is mapped.
    pub image: Range<u64>,
}

/// Writes everything that the kernel is told.
///
/// # Errors
///
/// [`BootError`]; those about the root file system image do not name it.
pub fn write(
    memory: &GuestMemoryMmap,
    config: &Config,
    kernel: &LoadedKernel,
    devices: usize,
) -> Result<Written, BootError> {
    let modules = write_modules(memory, config, kernel)?;
    let cmdline = cmdline(config, devices)?
        .as_cstring()
        .map_err(BootError::Cmdline)?;
    memory.write_slice(cmdline.as_bytes_with_nul(), GuestAddress(CMDLINE))?;

    let ranges = memory_map(config.memory);
    let start_info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        nr_modules: modules.len() as u32,
        modlist_paddr: MODULE_LIST,
        cmdline_paddr: CMDLINE,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: ranges.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&start_info, GuestAddress(START_INFO));
    params.set_sections(&ranges, GuestAddress(MEMORY_MAP));
    params.set_modules(&modules, GuestAddress(MODULE_LIST));
    PvhBootConfigurator::write_bootparams(&params, memory)
        .map_err(|error| BootError::Memory(error.to_string()))?;
    let image = modules.first().map_or(0..0, |module| {
        module.paddr..(module.paddr + module.size).next_multiple_of(PAGE)
    });
    Ok(Written {
        start_info: GuestAddress(START_INFO),
        image,
    })
}

/// The kernel's command line: see [`ringlet_abi`].
fn cmdline(config: &Config, devices: usize) -> Result<Cmdline, BootError> {
    let control = format!("{CONTROL_BASE:#x}");
    let cpus = config.cpus.to_string();
    let mut cmdline = Cmdline::new(CMDLINE_SIZE).map_err(BootError::Cmdline)?;
    for (key, value) in [
        ("ringlet.control", &control),
        ("ringlet.cpus", &cpus),
        ("loglevel", &config.kernel_log),
        ("mode", &config.mode),
    ] {
        cmdline.insert(key, value).map_err(BootError::Cmdline)?;
    }
    for index in 0..devices {
        let base = GuestAddress(VIRTIO_BASE + index as u64 * VIRTIO_SIZE);
        cmdline
            .add_virtio_mmio_device(VIRTIO_SIZE, base, VIRTIO_IRQ + index as u32, None)
            .map_err(BootError::Cmdline)?;
    }
    if !config.append.is_empty() {
        cmdline
            .insert_str(&config.append)
            .map_err(BootError::Cmdline)?;
    }
    Ok(cmdline)
}

/// The RAM that the guest may use.
fn memory_map(size: u64) -> Vec<hvm_memmap_table_entry> {
    let mut ranges = vec![(0, CONVENTIONAL_END)];
    for (base, len) in memory::layout(size) {
        let start = base.max(EXTENDED_START);
        ranges.push((start, base + len - start));
    }
    ranges
        .into_iter()
        .map(|(addr, size)| hvm_memmap_table_entry {
            addr,
            size,
            type_: XEN_HVM_MEMMAP_TYPE_RAM,
            reserved: 0,
        })
        .collect()
}

/// What is in a module.
enum Contents<'a> {
    File(&'a File),
    Bytes(&'a [u8]),
}

/// Puts the modules at the top of low RAM, each at the start of a page.
fn write_modules(
    memory: &GuestMemoryMmap,
    config: &Config,
    kernel: &LoadedKernel,
) -> Result<Vec<hvm_modlist_entry>, BootError> {
    let process = config.process.encode()?;
    let image = open_rootfs(config)?;
    let mut modules = Vec::new();
    if let Some((file, size)) = &image {
        modules.push((MODULE_INITRAMFS, *size, Contents::File(file)));
    }
    if !config.layer.is_empty() {
        let contents = Contents::Bytes(&config.layer);
        modules.push((MODULE_INITRAMFS, config.layer.len() as u64, contents));
    }
    let contents = Contents::Bytes(&process);
    modules.push((MODULE_PROCESS, process.len() as u64, contents));
    let places = place_modules(config, kernel, modules.iter().map(|(_, size, _)| *size))?;

    let mut at = MODULE_CMDLINES;
    let mut entries = Vec::new();
    for ((name, size, contents), paddr) in modules.into_iter().zip(places) {
        match contents {
            Contents::File(file) => {
                memory::map_file(memory, GuestAddress(paddr), file, size as usize)?;
            }
            Contents::Bytes(bytes) => memory.write_slice(bytes, GuestAddress(paddr))?,
        }
        memory.write_slice(name.as_bytes(), GuestAddress(at))?;
        memory.write_obj(0_u8, GuestAddress(at + name.len() as u64))?;
        entries.push(hvm_modlist_entry {
            paddr,
            size,
            cmdline_paddr: at,
            reserved: 0,
        });
        at += name.len() as u64 + 1;
    }
    Ok(entries)
}

/// Where modules of these sizes go, the archives first.
///
/// # Errors
///
/// [`BootError::DoesNotFit`].
pub(crate) fn place_modules(
    config: &Config,
    kernel: &LoadedKernel,
    sizes: impl Iterator<Item = u64>,
) -> Result<Vec<u64>, BootError> {
    let mut end = config.memory.min(ringlet_abi::LOW_RAM_END);
    let mut image = 0;
    let mut places = Vec::new();
    for size in sizes {
        image += size;
        let start = end.checked_sub(size).map(|start| start / PAGE * PAGE);
        end = start
            .filter(|start| *start >= kernel.end)
            .ok_or(BootError::DoesNotFit {
                image,
                memory: config.memory,
            })?;
        places.push(end);
    }
    Ok(places)
}

/// Opens the root file system, if it is an archive; gives its size too.
///
/// # Errors
///
/// As for [`open_image`].
pub(crate) fn open_rootfs(config: &Config) -> Result<Option<(File, u64)>, BootError> {
    match config.is_rootfs_archive {
        true => open_image(&config.rootfs).map(Some),
        false => Ok(None),
    }
}

/// Opens the root file system image and looks at its first bytes; gives its size too.
fn open_image(path: &Path) -> Result<(File, u64), BootError> {
    let file = crate::kernel_image::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(BootError::NotAFile);
    }
    let mut magic = [0; CPIO_MAGICS[0].len()];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) if CPIO_MAGICS.contains(&magic) => Ok((file, metadata.len())),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Err(BootError::NotCpio),
    }
}
