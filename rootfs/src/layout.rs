//! What a guest finds in its root file system: directories, `/etc`, busybox and its applets.

use crate::{Image, ImageError};

/// Directories and their modes; device nodes, `/proc` and `/sys` are the kernel's to fill.
const DIRECTORIES: [(&str, u32); 14] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// Every program is in `/bin`, under all the names by which others look for it.
const LINKS: [(&str, &str); 4] = [
    ("sbin", "bin"),
    ("usr/bin", "../bin"),
    ("usr/sbin", "../bin"),
    ("var/run", "../run"),
];

const FILES: [(&str, &str); 5] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hostname", "ringlet\n"),
    ("etc/hosts", "127.0.0.1 localhost ringlet\n"),
    ("etc/os-release", "NAME=Ringlet\nID=ringlet\n"),
];

/// Adds the directories, links and files that every image has.
///
/// # Errors
///
/// [`ImageError`] if the image has one of them already.
pub fn skeleton(image: &mut Image) -> Result<(), ImageError> {
    for (path, mode) in DIRECTORIES {
        image.directory(path, mode)?;
    }
    for (path, target) in LINKS {
        image.symlink(path, target)?;
    }
    for (path, contents) in FILES {
        image.file(path, 0o644, contents.into())?;
    }
    Ok(())
}

/// Adds an executable to `/bin`.
///
/// # Errors
///
/// [`ImageError`] if the image has that program already.
pub fn program(image: &mut Image, name: &str, binary: Vec<u8>) -> Result<(), ImageError> {
    image.file(&format!("bin/{name}"), 0o755, binary)
}

/// Adds busybox, and a link to it for each of its `applets`.
///
/// # Errors
///
/// [`ImageError`] if the image has a program of one of these names already.
pub fn busybox<'a>(
    image: &mut Image,
    binary: Vec<u8>,
    applets: impl IntoIterator<Item = &'a str>,
) -> Result<(), ImageError> {
    program(image, "busybox", binary)?;
    applets
        .into_iter()
        .filter(|applet| *applet != "busybox")
        .try_for_each(|applet| image.symlink(&format!("bin/{applet}"), "busybox"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_applets_share_bin() {
        let mut image = Image::default();
        skeleton(&mut image).unwrap();
        busybox(&mut image, vec![1], ["[", "busybox", "cat"]).unwrap();
        program(&mut image, "tool", vec![2]).unwrap();
        let error = program(&mut image, "cat", vec![3]).unwrap_err();
        assert_eq!(error.to_string(), "/bin/cat is given twice");
    }
}
