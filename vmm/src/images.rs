//! Where the guest kernel and the root file system image are, unless the user says.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A file that `make` builds beside the `ringlet` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    what: &'static str,
    option: &'static str,
    variable: &'static str,
    file: &'static str,
}

/// The guest kernel.
pub const KERNEL: Image = Image {
    what: "guest kernel",
    option: "--kernel",
    variable: "RINGLET_KERNEL",
    file: "ringlet-kernel",
};

/// The root file system.
pub const ROOTFS: Image = Image {
    what: "root file system image",
    option: "--rootfs",
    variable: "RINGLET_ROOTFS",
    file: "ringlet-rootfs.cpio",
};

/// There is no such image in any of the places.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no {what}: {file} is not beside {exe}; build it with 'make', or name one with {option} or \
     ${variable}"
)]
pub struct NoImage {
    what: &'static str,
    file: &'static str,
    option: &'static str,
    variable: &'static str,
    exe: String,
}

impl Image {
    /// The image: the one the user names (`chosen`), else the environment's, else one beside the
    /// executable or in `../lib/ringlet` from there.
    ///
    /// # Errors
    ///
    /// [`NoImage`]. Whether a named image exists is not looked at.
    pub fn find(
        &self,
        chosen: Option<&Path>,
        environment: impl Fn(&str) -> Option<std::ffi::OsString>,
        exe: &Path,
    ) -> Result<PathBuf, NoImage> {
        if let Some(path) = chosen {
            return Ok(path.to_owned());
        }
        if let Some(path) = environment(self.variable).filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        let dir = exe.parent().unwrap_or(Path::new("."));
        let beside = dir.join(self.file);
        let library = dir
            .parent()
            .map(|dir| dir.join("lib/ringlet").join(self.file));
        [Some(beside), library]
            .into_iter()
            .flatten()
            .find(|path| path.exists())
            .ok_or_else(|| NoImage {
                what: self.what,
                file: self.file,
                option: self.option,
                variable: self.variable,
                exe: exe
                    .file_name()
                    .unwrap_or(OsStr::new("ringlet"))
                    .to_string_lossy()
                    .into(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_nearest_choice_counts() {
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let bin = dir.as_path().join("bin");
        let lib = dir.as_path().join("lib/ringlet");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&lib).unwrap();
        let exe = bin.join("ringlet");
        let nothing = |_: &str| None;

        let missing = KERNEL.find(None, nothing, &exe).unwrap_err().to_string();
        assert!(
            missing.contains("make") && missing.contains("--kernel"),
            "{missing}"
        );

        fs::write(lib.join(KERNEL.file), "").unwrap();
        let found = KERNEL.find(None, nothing, &exe).unwrap();
        assert_eq!(found, lib.join(KERNEL.file));

        fs::write(bin.join(KERNEL.file), "").unwrap();
        let found = KERNEL.find(None, nothing, &exe).unwrap();
        assert_eq!(found, bin.join(KERNEL.file));

        let environment = |name: &str| (name == "RINGLET_KERNEL").then(|| "/k".into());
        assert_eq!(
            KERNEL.find(None, environment, &exe),
            Ok(PathBuf::from("/k"))
        );
        let chosen = Some(Path::new("/c"));
        assert_eq!(
            KERNEL.find(chosen, environment, &exe),
            Ok(PathBuf::from("/c"))
        );
    }
}
