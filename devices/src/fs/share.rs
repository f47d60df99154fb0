//! What is shared: a directory or file of the host, and how the guest may use it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, FsWord, Mode, OFlags, StatxFlags};

use super::host;
use super::identity::Identity;

/// How long the guest may rely on what it has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// For a second.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// Always: nobody else changes what is shared.
    Always,
}

impl Cache {
    /// How long names and attributes are valid.
    pub(super) fn validity(self) -> Duration {
        match self {
            Self::Auto => Duration::from_secs(1),
            Self::None => Duration::ZERO,
            Self::Always => Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Why something cannot be shared. The messages do not name it: the caller knows it.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// It cannot be opened.
    #[error("{0}; name a directory or file that can be read")]
    Open(io::Error),
    /// A FIFO, socket or device.
    #[error("it is a {0}; name a directory or regular file")]
    WrongKind(&'static str),
    /// It is one of the kernel's own file systems.
    #[error("it is in a file system of the host's kernel, such as /proc, which cannot be shared")]
    OfTheKernel,
    /// The host's `/proc` cannot be used.
    #[error("/proc/self/fd: {0}; mount /proc")]
    Proc(io::Error),
    /// The host's kernel is too old, or a filter forbids the call.
    #[error("openat2: {0}; sharing files needs Linux 5.6 and a host that allows this call")]
    NoOpenat2(io::Error),
    /// Something else fails.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Something that is shared.
pub struct Share {
    pub(super) root: OwnedFd,
    /// `/proc/self/fd`, by which descriptors are opened again.
    pub(super) descriptors: File,
    pub(super) identity: Identity,
    pub(super) cache: Cache,
    pub(super) is_writable: bool,
    /// Whether look-ups and attributes of the file system do not wait for a network or server.
    pub(super) is_local: bool,
}

impl Share {
    /// Opens what is at `path`, following links.
    ///
    /// # Errors
    ///
    /// [`ShareError`].
    pub fn open(path: &Path, is_writable: bool, cache: Cache) -> Result<Self, ShareError> {
        let open = |error: rustix::io::Errno| ShareError::Open(error.into());
        let root = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(open)?;
        let status = host::status(&root).map_err(open)?;
        let kind = FileType::from_raw_mode(status.stx_mode.into());
        let file_system = rustix::fs::fstatfs(&root).map_err(open)?.f_type;
        // Files of /proc are regular by their mode, so what they are of comes first.
        if is_of_the_kernel(file_system) {
            return Err(ShareError::OfTheKernel);
        }
        match kind {
            FileType::Directory | FileType::RegularFile => (),
            FileType::Fifo => return Err(ShareError::WrongKind("FIFO")),
            FileType::Socket => return Err(ShareError::WrongKind("socket")),
            _ => return Err(ShareError::WrongKind("device")),
        }
        let descriptors = File::open("/proc/self/fd").map_err(ShareError::Proc)?;
        // What a directory or file without permission says, it should say now.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        host::reopen(&descriptors, &root, flags).map_err(open)?;
        if kind == FileType::Directory
            && let Err(error) = host::open_beneath(&root, c".", host::PATH, host::Wait::Yes)
        {
            return Err(ShareError::NoOpenat2(error.into()));
        }
        Ok(Self {
            root,
            descriptors,
            identity: Identity::of_process(),
            cache,
            is_writable,
            is_local: is_local(file_system),
        })
    }

    /// Whether it is a directory, not a file.
    pub fn is_directory(&self) -> bool {
        let status = rustix::fs::statx(
            self.root.as_fd(),
            c"",
            AtFlags::EMPTY_PATH,
            StatxFlags::TYPE,
        );
        status.is_ok_and(|status| {
            FileType::from_raw_mode(status.stx_mode.into()) == FileType::Directory
        })
    }
}

/// Whether `magic` (statfs(2)) is of a file system whose files are the kernel's own.
pub(super) fn is_of_the_kernel(magic: FsWord) -> bool {
    /// By linux/magic.h: proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, selinuxfs, smackfs,
    /// AppArmor's, bpf, pstore, efivarfs, configfs, binfmt_misc, devpts, mqueue, nsfs, fusectl,
    /// resctrl, xenfs, rpc_pipefs, nfsd, pipefs, sockfs, anonymous inodes, dma-buf, secretmem.
    const MAGICS: [u32; 28] = [
        0x9fa0,
        0x6265_6572,
        0x0027_e0eb,
        0x6367_7270,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xf97c_ff8c,
        0x4341_5d53,
        0x5a3c_69f0,
        0xcafe_4a11,
        0x6165_676c,
        0xde5e_81e4,
        0x6265_6570,
        0x4249_4e4d,
        0x1cd1,
        0x1980_0202,
        0x6e73_6673,
        0x6573_5543,
        0x0765_5821,
        0xabba_1974,
        0x6759_6969,
        0x6e66_7364,
        0x5049_5045,
        0x534f_434b,
        0x0904_1934,
        0x444d_4142,
        0x5345_434d,
    ];
    MAGICS.contains(&(magic as u32))
}

/// Whether the file system with `magic` is on this host.
fn is_local(magic: FsWord) -> bool {
    /// ext2 to ext4, XFS, Btrfs, tmpfs, ramfs, overlay, F2FS, ZFS, EROFS, SquashFS, bcachefs.
    const MAGICS: [u32; 11] = [
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0x0102_1994,
        0x8584_58f6,
        0x794c_7630,
        0xf2f5_2010,
        0x2fc1_2fc1,
        0xe0f5_e1e2,
        0x7371_7368,
        0xca45_1a4e,
    ];
    MAGICS.contains(&(magic as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempdir::TempDir;

    fn refused(path: &str) -> String {
        match Share::open(Path::new(path), true, Cache::Auto) {
            Ok(_) => panic!("{path} is shared"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_shared_is_refused_with_a_reason() {
        assert!(refused("/nonexistent").contains("No such file"));
        for kernels in ["/proc", "/proc/self", "/proc/version", "/sys"] {
            assert!(refused(kernels).contains("kernel"), "{kernels}");
        }
        assert!(refused("/dev/null").contains("device"));
        let dir = TempDir::new().unwrap();
        let fifo = dir.as_path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(refused(fifo.to_str().unwrap()).contains("FIFO"));
    }

    #[test]
    fn directories_and_files_can_be_shared() {
        let dir = TempDir::new().unwrap();
        let share = Share::open(dir.as_path(), true, Cache::Auto).unwrap();
        assert!(share.is_directory());
        let file = dir.as_path().join("file");
        std::fs::write(&file, "").unwrap();
        let share = Share::open(&file, true, Cache::Auto).unwrap();
        assert!(!share.is_directory());
    }
}
