//! Puts the kernel's symbol table into the section that its linker script reserves.
//!
//! `kernel-symbols ELF` changes the file in place. The format is described where it is read: in
//! `machine/src/bare/symbols.rs`.

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Where the kernel is linked; offsets in the table count from here.
const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
const SECTION: &str = ".symbols";

/// Why an image did not get its table.
#[derive(Debug, thiserror::Error)]
enum SymbolsError {
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    #[error("{0} is no kernel image: {1}")]
    Format(String, object::Error),
    #[error("{0} has no section {SECTION} with contents: was it linked with link.ld?")]
    NoSection(String),
    #[error("the table takes {needed} bytes, but link.ld reserves {reserved} for {SECTION}")]
    TooLarge { needed: usize, reserved: usize },
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(path), None) = (args.next(), args.next()) else {
        eprintln!("usage: kernel-symbols ELF");
        return ExitCode::from(2);
    };
    match embed(Path::new(&path)) {
        Ok(count) => {
            println!("{count} symbols in {}", Path::new(&path).display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("kernel-symbols: {error}");
            ExitCode::FAILURE
        }
    }
}

fn embed(path: &Path) -> Result<usize, SymbolsError> {
    let name = path.display().to_string();
    let mut image = std::fs::read(path).map_err(|error| SymbolsError::File(name.clone(), error))?;
    let (range, symbols) = {
        let elf = object::File::parse(&*image)
            .map_err(|error| SymbolsError::Format(name.clone(), error))?;
        let range = elf
            .section_by_name(SECTION)
            .and_then(|section| section.file_range())
            .ok_or_else(|| SymbolsError::NoSection(name.clone()))?;
        (range, functions(&elf))
    };
    let table = encode(&symbols);
    let (start, reserved) = (range.0 as usize, range.1 as usize);
    let place = image
        .get_mut(start..start.saturating_add(reserved))
        .ok_or_else(|| SymbolsError::NoSection(name.clone()))?;
    if table.len() > reserved {
        return Err(SymbolsError::TooLarge {
            needed: table.len(),
            reserved,
        });
    }
    place[..table.len()].copy_from_slice(&table);
    place[table.len()..].fill(0);
    std::fs::write(path, image).map_err(|error| SymbolsError::File(name, error))?;
    Ok(symbols.len())
}

/// The image's functions and labels by offset.
fn functions(elf: &object::File<'_>) -> BTreeMap<u32, String> {
    elf.symbols()
        .filter(|symbol| {
            // Labels of assembly code have no type.
            matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Label)
                || symbol.kind() == SymbolKind::Unknown && symbol.is_definition()
        })
        .filter_map(|symbol| {
            let offset = u32::try_from(symbol.address().checked_sub(IMAGE_BASE)?).ok()?;
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            // Without the hash.
            Some((offset, format!("{:#}", rustc_demangle::demangle(name))))
        })
        .collect()
}

fn encode(symbols: &BTreeMap<u32, String>) -> Vec<u8> {
    let mut table = b"RLSY".to_vec();
    table.extend((symbols.len() as u32).to_le_bytes());
    let mut names = Vec::new();
    for (offset, name) in symbols {
        table.extend(offset.to_le_bytes());
        table.extend((names.len() as u32).to_le_bytes());
        names.extend(name.bytes().filter(|byte| *byte != 0));
        names.push(0);
    }
    table.extend(names);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_follow_it() {
        let symbols = BTreeMap::from([(0x30, "b::c".to_string()), (0x10, "a".to_string())]);
        let expected: Vec<u8> = [
            b"RLSY".as_slice(),
            &2u32.to_le_bytes(),
            &0x10u32.to_le_bytes(),
            &0u32.to_le_bytes(),
            &0x30u32.to_le_bytes(),
            &2u32.to_le_bytes(),
            b"a\0b::c\0",
        ]
        .concat();
        assert_eq!(encode(&symbols), expected);
    }

    #[test]
    fn a_file_that_is_no_image_is_refused() {
        let path = std::env::temp_dir().join(format!("kernel-symbols-{}", std::process::id()));
        std::fs::write(&path, b"not an ELF file").unwrap();
        let error = embed(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(error, SymbolsError::Format(..)), "{error}");
    }
}
