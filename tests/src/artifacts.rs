//! Where the things under test are.

use std::path::{Path, PathBuf};

/// The build's results.
#[derive(Clone, Debug)]
pub struct Artifacts {
    dir: PathBuf,
    programs: PathBuf,
}

impl Artifacts {
    /// Those below `target/`.
    ///
    /// # Panics
    ///
    /// If one is missing: the tests run what `make build` made.
    pub fn get() -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let target = target.canonicalize().unwrap_or(target);
        let artifacts = Self {
            dir: target.join("release"),
            programs: target.join("programs/x86_64-unknown-linux-gnu/program"),
        };
        for path in [
            artifacts.ringlet(),
            artifacts.kernel(),
            artifacts.rootfs(),
            artifacts.program("syscall-test"),
        ] {
            assert!(
                path.exists(),
                "{} is missing: run 'make build'",
                path.display()
            );
        }
        artifacts
    }

    /// The command.
    pub fn ringlet(&self) -> PathBuf {
        self.dir.join("ringlet")
    }

    /// The guest kernel, an ELF file.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("ringlet-kernel")
    }

    /// A guest kernel that knows `ringlet.provoke`.
    ///
    /// # Panics
    ///
    /// If it is missing.
    pub fn provoking_kernel(&self) -> PathBuf {
        let path = self.dir.join("ringlet-kernel-provoke");
        assert!(
            path.exists(),
            "{} is missing: run 'make provoke'",
            path.display()
        );
        path
    }

    /// The root file system image.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("ringlet-rootfs.cpio")
    }

    /// A guest program, as a file to run on the host.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }
}
