//! A control group (version 2) that a VM runs in, and limits on what that may take of the host.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A control group that is there already, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory.
    pub directory: PathBuf,
    /// Bytes of memory: the guest's, Ringlet's, and of the host's page cache for the VM.
    pub memory: Option<u64>,
    /// Microseconds of CPU time in each [`PERIOD`].
    pub quota: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Microseconds in which a quota of CPU time can be used.
pub const PERIOD: u64 = 100_000;

/// The file that says who is in a group.
const MEMBERS: &str = "cgroup.procs";

/// Why a control group cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The directory is no group.
    #[error(
        "--cgroup {}: no control group (version 2): {cause}; name a directory below its mount, such as \
         /sys/fs/cgroup",
        .directory.display()
    )]
    NotOne {
        /// The directory.
        directory: PathBuf,
        /// What the host says.
        cause: io::Error,
    },
    /// A controller is off.
    #[error(
        "--cgroup {}: there is no {file}; turn its controller on: echo +{controller} > {}",
        .directory.display(),
        .directory.join("../cgroup.subtree_control").display()
    )]
    NoController {
        /// The directory.
        directory: PathBuf,
        /// The file with the limit.
        file: &'static str,
        /// Its controller.
        controller: &'static str,
    },
    /// A limit is refused, or membership is.
    #[error("--cgroup {}: {file}: {cause}; is it delegated to you?", .directory.display())]
    Refused {
        /// The directory.
        directory: PathBuf,
        /// The file that was written to.
        file: &'static str,
        /// What the host says.
        cause: io::Error,
    },
}

impl Cgroup {
    /// Sets the limits, and puts this process into the group, with all that it starts.
    ///
    /// # Errors
    ///
    /// [`CgroupError`].
    pub fn enter(&self) -> Result<(), CgroupError> {
        if let Err(cause) = self.directory.join(MEMBERS).metadata() {
            let directory = self.directory.clone();
            return Err(CgroupError::NotOne { directory, cause });
        }
        let number = |limit: Option<u64>| limit.map(|limit| limit.to_string());
        let quota = self.quota.map(|quota| format!("{quota} {PERIOD}"));
        for (controller, file, value) in [
            ("memory", "memory.max", number(self.memory)),
            ("cpu", "cpu.max", quota),
            ("pids", "pids.max", number(self.pids)),
        ] {
            let Some(value) = value else {
                continue;
            };
            if !self.directory.join(file).exists() {
                return Err(CgroupError::NoController {
                    directory: self.directory.clone(),
                    file,
                    controller,
                });
            }
            self.write(file, &value)?;
        }
        self.write(MEMBERS, &std::process::id().to_string())
    }

    fn write(&self, file: &'static str, value: &str) -> Result<(), CgroupError> {
        write(&self.directory.join(file), value).map_err(|cause| CgroupError::Refused {
            directory: self.directory.clone(),
            file,
            cause,
        })
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use vmm_sys_util::tempdir::TempDir;

    /// What looks like a control group with these files.
    fn tree(files: &[&str]) -> TempDir {
        let dir = TempDir::new().unwrap();
        for file in files {
            fs::write(dir.as_path().join(file), "").unwrap();
        }
        dir
    }

    #[test]
    fn limits_come_before_membership_and_need_their_controllers() {
        let dir = tree(&[MEMBERS, "memory.max", "cpu.max"]);
        let read = |file: &str| fs::read_to_string(dir.as_path().join(file)).unwrap();
        let mut group = Cgroup {
            directory: dir.as_path().to_owned(),
            memory: Some(1 << 30),
            quota: Some(150_000),
            pids: None,
        };
        group.enter().unwrap();
        assert_eq!(read("memory.max"), "1073741824");
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read(MEMBERS), std::process::id().to_string());
        fs::write(dir.as_path().join(MEMBERS), "").unwrap();
        group.pids = Some(7);
        let error = group.enter().unwrap_err().to_string();
        assert!(
            error.contains("pids.max") && error.contains("+pids"),
            "{error}"
        );
        assert_eq!(read(MEMBERS), "");
        group.directory = tree(&[]).as_path().to_owned();
        let error = group.enter().unwrap_err().to_string();
        assert!(error.contains("no control group"), "{error}");
    }
}
