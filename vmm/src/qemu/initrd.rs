//! The one boot module that QEMU can pass: root file system image and process description.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use ringlet_abi::Footer;

use crate::memory::memory_file;

/// A file in memory with the first `size` bytes of `image` and, behind it as [`Footer`] says, the
/// encoded `process`.
///
/// # Errors
///
/// Those of memfd_create(2), read(2) and write(2).
pub(super) fn make(image: &File, size: u64, process: &[u8]) -> io::Result<File> {
    let mut file = memory_file(c"ringlet-initrd")?;
    io::copy(&mut image.take(size), &mut file)?;
    let footer = Footer { initramfs: size };
    file.seek(SeekFrom::Start(footer.process()))?;
    file.write_all(process)?;
    file.write_all(&footer.encode())?;
    Ok(file)
}

/// A file in memory with what `file` holds: one that QEMU can open whoever it is.
///
/// # Errors
///
/// Those of memfd_create(2), read(2) and write(2).
pub(super) fn copy(file: &File) -> io::Result<File> {
    let mut copy = memory_file(c"ringlet-kernel")?;
    let mut file = file;
    file.rewind()?;
    io::copy(&mut file, &mut copy)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempfile::TempFile;

    #[test]
    fn the_process_is_behind_the_image() {
        let mut image = TempFile::new().unwrap().into_file();
        image.write_all(&[7; 5000]).unwrap();
        image.rewind().unwrap();
        let mut file = make(&image, 5000, b"process").unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes[..5000].iter().all(|byte| *byte == 7));
        assert!(bytes[5000..8192].iter().all(|byte| *byte == 0));
        assert_eq!(&bytes[8192..8199], b"process");
        let footer = bytes[8199..].try_into().unwrap();
        let footer = Footer::decode(footer, bytes.len() as u64).unwrap();
        assert_eq!(footer.initramfs, 5000);
    }
}
