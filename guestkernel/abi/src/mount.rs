//! What the kernel mounts before it starts the program.

use alloc::vec::Vec;

/// Whether and where a mounted file system can be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountAccess {
    /// Changes go to the source.
    #[default]
    ReadWrite,
    /// There are no changes: they fail with EROFS.
    ReadOnly,
    /// Changes stay in guest memory, in an overlay over the source, which never changes.
    Overlay,
}

/// Where the files of a mount are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// Guest memory: an empty tmpfs.
    Tmpfs {
        /// Most bytes that it may hold; 0 for the default, half of RAM.
        size: u64,
    },
    /// A directory or file of the host: the virtio-fs device with this tag. Where it is a file, the
    /// root node of the file system is one.
    Share {
        /// At most 36 bytes.
        tag: Vec<u8>,
    },
    /// An EROFS image: the boot module whose command line is [`MODULE_IMAGE`](crate::MODULE_IMAGE)
    /// and this name, else the disk that has this serial number.
    Image {
        /// At most 20 bytes.
        name: Vec<u8>,
    },
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where: an absolute path in the guest. `/` replaces the root file system, and then the archives
    /// of the boot modules are unpacked over it. Other targets are made where they are missing.
    pub target: Vec<u8>,
    /// From where.
    pub source: MountSource,
    /// How.
    pub access: MountAccess,
}

impl MountAccess {
    pub(crate) fn encode(self) -> u8 {
        self as u8
    }

    pub(crate) fn decode(byte: u8) -> Option<Self> {
        [Self::ReadWrite, Self::ReadOnly, Self::Overlay]
            .into_iter()
            .find(|access| *access as u8 == byte)
    }
}

impl MountSource {
    /// A number for the kind, the size, and the name.
    pub(crate) fn encode(&self) -> (u8, u64, &[u8]) {
        match self {
            Self::Tmpfs { size } => (0, *size, b""),
            Self::Share { tag } => (1, 0, tag),
            Self::Image { name } => (2, 0, name),
        }
    }

    pub(crate) fn decode(kind: u8, size: u64, name: Vec<u8>) -> Option<Self> {
        match kind {
            0 => Some(Self::Tmpfs { size }),
            1 => Some(Self::Share { tag: name }),
            2 => Some(Self::Image { name }),
            _ => None,
        }
    }
}
