//! What the guest's CPUs run on: KVM, or QEMU's translator (TCG) where there is no KVM.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Kvm;

use crate::cli::Accel;

const KVM_PATH: &str = "/dev/kvm";
/// QEMU's command, and the package that has it.
const QEMU: &str = "qemu-system-x86_64";
pub(crate) const QEMU_PACKAGE: &str = "qemu-system-x86";

/// What a guest is run with.
pub enum Accelerator {
    /// KVM, opened.
    Kvm(Kvm),
    /// QEMU's command.
    Tcg {
        /// Its file.
        qemu: PathBuf,
        /// Why it is not KVM, if that is what was wanted.
        instead_of: Option<NoKvm>,
    },
}

/// There is no KVM for this user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{KVM_PATH}: {why}")]
pub struct NoKvm {
    why: String,
    /// What to do, after a semicolon; empty if nothing is known to help.
    hint: &'static str,
    errno: i32,
}

impl NoKvm {
    /// What to do; empty if nothing is known to help.
    pub fn hint(&self) -> &'static str {
        self.hint.trim_start_matches("; ")
    }

    /// Whether there is no such device at all.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno, libc::ENOENT | libc::ENODEV | libc::ENXIO)
    }
}

/// Why there is nothing to run a guest with. Each message says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAccelerator {
    /// KVM was asked for.
    #[error("{cause}{}", .cause.hint)]
    Kvm {
        /// What is wrong with it.
        cause: NoKvm,
    },
    /// QEMU was asked for.
    #[error("{QEMU} is not in the PATH; install it: apt-get install {QEMU_PACKAGE}")]
    Qemu,
    /// There is neither.
    #[error(
        "{cause}{}; or install QEMU, which is slower: apt-get install {QEMU_PACKAGE}", .cause.hint
    )]
    Neither {
        /// What is wrong with KVM.
        cause: NoKvm,
    },
}

impl Accelerator {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kvm(_) => "kvm",
            Self::Tcg { .. } => "tcg",
        }
    }

    /// The one that was asked for; `path` is the environment's `PATH`.
    ///
    /// # Errors
    ///
    /// [`NoAccelerator`].
    pub fn choose(wanted: Accel, path: &OsStr) -> Result<Self, NoAccelerator> {
        let tcg = |instead_of| find_qemu(path).map(|qemu| Self::Tcg { qemu, instead_of });
        match wanted {
            Accel::Kvm => open_kvm()
                .map(Self::Kvm)
                .map_err(|cause| NoAccelerator::Kvm { cause }),
            Accel::Tcg => tcg(None).ok_or(NoAccelerator::Qemu),
            Accel::Auto => match open_kvm() {
                Ok(kvm) => Ok(Self::Kvm(kvm)),
                Err(cause) => tcg(Some(cause.clone())).ok_or(NoAccelerator::Neither { cause }),
            },
        }
    }
}

/// Opens KVM.
///
/// # Errors
///
/// [`NoKvm`].
pub fn open_kvm() -> Result<Kvm, NoKvm> {
    let kvm = Kvm::new().map_err(|error| NoKvm {
        errno: error.errno(),
        why: io::Error::from_raw_os_error(error.errno()).to_string(),
        hint: match error.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => {
                "; load the module kvm_intel or kvm_amd, and enable virtualization in the firmware \
                 (in a VM: nested virtualization)"
            }
            libc::EACCES | libc::EPERM => "; run as root or as a member of the group 'kvm'",
            _ => "",
        },
    })?;
    match kvm.get_api_version() {
        version if version == KVM_API_VERSION as i32 => Ok(kvm),
        version => Err(NoKvm {
            why: format!("it has API version {version}; ringlet needs {KVM_API_VERSION}"),
            hint: "",
            // It is something else.
            errno: libc::ENODEV,
        }),
    }
}

/// QEMU's command in the directories of `path`.
pub fn find_qemu(path: &OsStr) -> Option<PathBuf> {
    find(QEMU, path)
}

/// The executable file `name` in the directories of `path`.
fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn qemu_is_looked_for_in_the_path() {
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let [first, second] = ["a", "b"].map(|name| dir.as_path().join(name));
        for place in [&first, &second] {
            fs::create_dir(place).unwrap();
            fs::write(place.join(QEMU), "").unwrap();
        }
        let path = std::env::join_paths([&first, &second]).unwrap();
        let none = Accelerator::choose(Accel::Tcg, &path).err().unwrap();
        assert_eq!(none, NoAccelerator::Qemu);
        assert!(none.to_string().contains("apt-get install"));
        fs::set_permissions(second.join(QEMU), PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find(QEMU, &path), Some(second.join(QEMU)));
    }
}
