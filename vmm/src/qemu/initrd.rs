//! The one boot module that QEMU can pass: root file system image and process description.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use ringlet_abi::Footer;

use crate::memory::memory_file;

/// An archive's file data is aligned to this.
const PAGE: u64 = 4096;

/// A file in memory with the first bytes of `image`, as many as are said, and from the next page on
/// `layer`, another archive; behind them, as [`Footer`] says, the encoded `process`.
///
/// # Errors
///
/// Those of memfd_create(2), read(2) and write(2).
pub(super) fn make(image: Option<(&File, u64)>, layer: &[u8], process: &[u8]) -> io::Result<File> {
    let mut file = memory_file(c"ringlet-initrd")?;
    let mut initramfs = 0;
    if let Some((image, size)) = image {
        initramfs = size;
        io::copy(&mut image.take(size), &mut file)?;
    }
    if !layer.is_empty() {
        let start = initramfs.next_multiple_of(PAGE);
        file.seek(SeekFrom::Start(start))?;
        file.write_all(layer)?;
        initramfs = start + layer.len() as u64;
    }
    let footer = Footer { initramfs };
    file.seek(SeekFrom::Start(footer.process()))?;
    file.write_all(process)?;
    file.write_all(&footer.encode())?;
    Ok(file)
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
        let mut file = make(Some((&image, 5000)), b"", b"process").unwrap();
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

    #[test]
    fn a_layer_is_between_them() {
        let mut image = TempFile::new().unwrap().into_file();
        image.write_all(&[7; 5000]).unwrap();
        image.rewind().unwrap();
        for (image, start) in [(Some((&image, 5000)), 8192), (None, 0)] {
            let mut file = make(image, b"layer", b"process").unwrap();
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(&bytes[start..start + 5], b"layer");
            assert_eq!(&bytes[start + 4096..start + 4103], b"process");
        }
    }
}
