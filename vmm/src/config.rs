//! What a VM is made from, once the command line is understood and defaults are filled in.

use std::path::PathBuf;

use ringlet_abi::ProcessSpec;
use ringlet_devices::block::{Access, Limits};
use ringlet_devices::fs::Cache;

use crate::debug::Address;
use crate::jail::{Needs, Policy, Share};

/// A disk image and how the guest may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Its file.
    pub path: PathBuf,
    /// Whether the guest may write.
    pub access: Access,
    /// What it may ask for in a second.
    pub limits: Limits,
}

/// A directory or file of the host that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareConfig {
    /// The directory or file.
    pub path: PathBuf,
    /// Whether the guest may change it.
    pub is_writable: bool,
    /// How long the guest may rely on what it has read.
    pub cache: Cache,
}

/// Everything that makes one VM differ from another.
#[derive(Clone, Debug)]
pub struct Config {
    /// Virtual CPUs; at least one.
    pub cpus: u32,
    /// Guest RAM in bytes.
    pub memory: u64,
    /// Disks in the order in which the guest sees them.
    pub disks: Vec<DiskConfig>,
    /// The guest kernel.
    pub kernel: PathBuf,
    /// Directories and files that are shared, in the order of their tags.
    pub shares: Vec<ShareConfig>,
    /// The root file system: an archive, an image or a directory.
    pub rootfs: PathBuf,
    /// Whether that is an archive, which is unpacked in guest memory.
    pub is_rootfs_archive: bool,
    /// An archive that is unpacked over the root file system; empty if there is none.
    pub layer: Vec<u8>,
    /// The kernel's `mode=` parameter.
    pub mode: String,
    /// The kernel's `loglevel=` parameter.
    pub kernel_log: String,
    /// Words that are added to the kernel's command line.
    pub append: String,
    /// Where a debugger can connect, if one may: the VM waits for it.
    pub gdb: Option<Address>,
    /// It may be an address that other machines reach.
    pub gdb_insecure: bool,
    /// How far Ringlet itself is confined.
    pub jail: Policy,
    /// Sockets beside the debugger's that are removed at the end.
    pub sockets: Vec<PathBuf>,
    /// The program to start.
    pub process: ProcessSpec,
}

impl Config {
    /// What the VM needs of the host's files once it runs.
    pub fn needs(&self) -> Needs {
        let share = |share: &ShareConfig| Share {
            path: share.path.clone(),
            is_writable: share.is_writable,
        };
        let debugger = match &self.gdb {
            Some(Address::Unix(path)) => Some(path),
            _ => None,
        };
        Needs {
            shares: self.shares.iter().map(share).collect(),
            sockets: self.sockets.iter().chain(debugger).cloned().collect(),
        }
    }
}
