//! The kernel's ELF file as a debugger sees it: where its addresses lie in guest memory, and what
//! its functions are called.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use object::{Object, ObjectSymbol, SymbolKind};

use crate::kernel_image::{LoadedKernel, Segment};

/// A kernel that was loaded. Its symbols are read when they are first asked for.
#[derive(Debug)]
pub struct Image {
    file: File,
    segments: Vec<Segment>,
    symbols: OnceLock<Symbols>,
}

impl Image {
    /// The image of `kernel`.
    pub fn new(kernel: LoadedKernel) -> Self {
        Self {
            file: kernel.file,
            segments: kernel.segments,
            symbols: OnceLock::new(),
        }
    }

    /// The guest-physical address at which the linker put `address`, and how many bytes of the
    /// segment follow. It holds from the first instruction on, before there are page tables.
    pub fn physical(&self, address: u64) -> Option<(u64, u64)> {
        self.segments.iter().find_map(|segment| {
            let offset = address.checked_sub(segment.linked)?;
            let left = segment.size.checked_sub(offset).filter(|left| *left > 0)?;
            Some((segment.physical + offset, left))
        })
    }

    /// Whether `address` is the kernel's.
    pub fn contains(&self, address: u64) -> bool {
        self.physical(address).is_some()
    }

    /// The function that holds `address`, and the offset in it. Nothing where the file has no
    /// symbols.
    pub fn function(&self, address: u64) -> Option<(&str, u64)> {
        self.contains(address).then_some(())?;
        self.symbols
            .get_or_init(|| Symbols::read(&self.file))
            .function(address)
    }
}

/// Functions by address, demangled.
#[derive(Debug, Default)]
struct Symbols(Vec<(Range<u64>, String)>);

impl Symbols {
    /// The functions of an ELF file; none if it cannot be read.
    fn read(file: &File) -> Self {
        Self::try_read(file).unwrap_or_else(|error| {
            log::warn!("no symbols of the kernel: {error}");
            Self::default()
        })
    }

    fn try_read(file: &File) -> io::Result<Self> {
        let mut bytes = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let elf = object::File::parse(&*bytes).map_err(io::Error::other)?;
        let mut starts: Vec<_> = elf
            .symbols()
            .filter(|symbol| {
                // Labels of assembly code have no type.
                matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Label)
                    || symbol.kind() == SymbolKind::Unknown && symbol.is_definition()
            })
            .filter_map(|symbol| {
                let name = symbol.name().ok().filter(|name| !name.is_empty())?;
                // Without the hash.
                let name = format!("{:#}", rustc_demangle::demangle(name));
                Some((symbol.address(), symbol.size(), name))
            })
            .collect();
        starts.sort();
        let ends: Vec<_> = starts.iter().skip(1).map(|(start, ..)| *start).collect();
        let functions = starts.into_iter().zip(ends.into_iter().chain([u64::MAX]));
        Ok(Self(
            functions
                .map(|((start, size, name), next)| {
                    // A label ends where the next one starts.
                    let end = if size > 0 { start + size } else { next };
                    (start..end, name)
                })
                .collect(),
        ))
    }

    fn function(&self, address: u64) -> Option<(&str, u64)> {
        let after = self.0.partition_point(|(range, _)| range.start <= address);
        let (range, name) = self.0[..after]
            .iter()
            .rev()
            .find(|(range, _)| range.contains(&address))?;
        Some((name, address - range.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(file: File) -> Image {
        Image::new(LoadedKernel {
            entry: 0,
            end: 0,
            file,
            segments: vec![Segment {
                linked: 0x8000_0000,
                physical: 0x10_0000,
                size: 0x1000,
            }],
        })
    }

    #[test]
    fn linked_addresses_have_physical_ones() {
        let image = image(File::open("/dev/null").unwrap());
        assert_eq!(image.physical(0x8000_0ff0), Some((0x10_0ff0, 0x10)));
        assert_eq!(image.physical(0x8000_1000), None);
        assert_eq!(image.physical(0x10_0000), None);
        assert!(image.contains(0x8000_0000) && !image.contains(0x7fff_ffff));
    }

    #[test]
    fn a_file_without_symbols_gives_none() {
        let image = image(File::open("/dev/null").unwrap());
        assert_eq!(image.function(0x8000_0000), None);
    }

    #[test]
    fn functions_are_found_by_the_addresses_in_them() {
        let symbols = Symbols(vec![
            (10..20, "a".to_owned()),
            (12..14, "inner".to_owned()),
            (30..u64::MAX, "b".to_owned()),
        ]);
        for (address, function) in [
            (9, None),
            (10, Some(("a", 0))),
            (13, Some(("inner", 1))),
            (15, Some(("a", 5))),
            (25, None),
            (40, Some(("b", 10))),
        ] {
            assert_eq!(symbols.function(address), function, "{address}");
        }
    }

    #[test]
    fn symbols_of_an_executable_are_read_and_demangled() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let symbols = Symbols::read(&file);
        let this = "ringlet_vmm::debug::image::tests::image";
        assert!(symbols.0.iter().any(|(_, name)| name == this));
    }
}
