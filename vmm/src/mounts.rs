//! What the guest gets of the host's files: the options that say so, and the devices and mounts that
//! follow from them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use ringlet_abi::{Mount, MountAccess, MountSource};
use ringlet_devices::block::{Access, Limits};
use ringlet_devices::fs::Cache;

use crate::builder::disk_name;
use crate::config::{DiskConfig, ShareConfig};
use crate::sizes::parse_size;

/// Where an EROFS image has its magic number, and that.
const EROFS_MAGIC: (u64, [u8; 4]) = (1024, 0xe0f5_e1e2_u32.to_le_bytes());

/// How files of the host are mounted: what follows the last colon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `rw`, `ro` or `overlay`.
    pub access: Option<MountAccess>,
    /// `cache=`.
    pub cache: Cache,
}

impl MountOptions {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut options = Self::default();
        for word in text.split(|byte| *byte == b',') {
            match word {
                b"rw" => options.access = Some(MountAccess::ReadWrite),
                b"ro" => options.access = Some(MountAccess::ReadOnly),
                b"overlay" => options.access = Some(MountAccess::Overlay),
                b"cache=auto" => options.cache = Cache::Auto,
                b"cache=none" => options.cache = Cache::None,
                b"cache=always" => options.cache = Cache::Always,
                _ => return None,
            }
        }
        Some(options)
    }
}

const OPTIONS: &str = "the options are rw, ro, overlay and cache=auto, none or always";

/// A root file system: a directory or image of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootOption {
    /// The directory or image.
    pub path: PathBuf,
    /// How it is mounted; not for an archive.
    pub options: MountOptions,
}

impl RootOption {
    /// Reads `PATH[:OPTIONS]`.
    pub fn parse(text: &OsStr) -> Self {
        let bytes = text.as_bytes();
        let split = bytes.iter().rposition(|byte| *byte == b':');
        // A path may have colons; what is no list of options belongs to it.
        let options = split.and_then(|at| Some((at, MountOptions::parse(&bytes[at + 1..])?)));
        let (path, options) = match options {
            Some((at, options)) => (&bytes[..at], options),
            None => (bytes, MountOptions::default()),
        };
        Self {
            path: OsStr::from_bytes(path).into(),
            options,
        }
    }
}

/// One `--volume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The directory, file or image of the host.
    pub host: PathBuf,
    /// Where in the guest; at its own path without.
    pub guest: Option<PathBuf>,
    /// How.
    pub options: MountOptions,
}

impl Volume {
    /// Reads `HOST[:GUEST][:OPTIONS]`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        let mut parts = text.as_bytes().split(|byte| *byte == b':');
        let host = parts.next().unwrap_or_default();
        let mut rest: Vec<_> = parts.collect();
        let guest = match rest.first() {
            Some(first) if first.starts_with(b"/") => Some(rest.remove(0)),
            _ => None,
        };
        let options = match rest[..] {
            [] => MountOptions::default(),
            [options] => MountOptions::parse(options).ok_or_else(|| {
                format!("give HOST[:GUEST][:OPTIONS] with an absolute GUEST; {OPTIONS}")
            })?,
            _ => return Err("give HOST[:GUEST][:OPTIONS]".to_owned()),
        };
        if host.is_empty() {
            return Err("name a directory or file".to_owned());
        }
        Ok(Self {
            host: OsStr::from_bytes(host).into(),
            guest: guest.map(|guest| OsStr::from_bytes(guest).into()),
            options,
        })
    }
}

/// One `--tmpfs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where in the guest.
    pub guest: PathBuf,
    /// Most bytes; 0 for the default.
    pub size: u64,
}

impl Tmpfs {
    /// Reads `PATH[:size=N]`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let split = bytes.iter().position(|byte| *byte == b':');
        let guest = &bytes[..split.unwrap_or(bytes.len())];
        let size = match split.map(|at| &bytes[at + 1..]) {
            None => 0,
            Some(option) => option
                .strip_prefix(b"size=")
                .and_then(|size| std::str::from_utf8(size).ok())
                .and_then(|size| parse_size(size).ok())
                .filter(|size| *size > 0)
                .ok_or("the option is size=N, as in size=64M")?,
        };
        match guest.starts_with(b"/") {
            true => Ok(Self {
                guest: OsStr::from_bytes(guest).into(),
                size,
            }),
            false => Err("give an absolute path".to_owned()),
        }
    }
}

/// Why files of the host cannot be mounted as asked.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// What is named cannot be looked at.
    #[error("{option} {}: {cause}; name a directory or file that is there", .path.display())]
    Host {
        /// The option that names it.
        option: &'static str,
        /// What it names.
        path: PathBuf,
        /// What the host says.
        cause: io::Error,
    },
    /// Two options want one place.
    #[error("{}: two options mount something there; give it to one", .0.display())]
    Duplicate(PathBuf),
    /// The root can be mounted by one option only.
    #[error("--volume and --tmpfs cannot replace the root; use --rootfs")]
    Root,
    /// An archive is in guest memory in any case.
    #[error("--rootfs {}: an archive has no options; it is unpacked in guest memory", .0.display())]
    ArchiveOptions(PathBuf),
    /// An image cannot be written.
    #[error("{}: an EROFS image cannot be written; use ':ro' or ':overlay'", .0.display())]
    ImageWritable(PathBuf),
}

/// What the options come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The directories and files that are shared; each is a device.
    pub shares: Vec<ShareConfig>,
    /// Images that are disks, behind those that the user names.
    pub disks: Vec<DiskConfig>,
    /// What the guest mounts, in this order.
    pub mounts: Vec<Mount>,
    /// Whether the root is an archive, which is no mount.
    pub is_root_archive: bool,
}

/// What a path of the host is to the guest.
enum Kind {
    Share,
    Erofs,
    Other,
}

/// Plans devices and mounts; `disks` is how many disks there are besides.
///
/// # Errors
///
/// [`MountError`].
pub fn plan(
    root: &RootOption,
    volumes: &[Volume],
    tmpfs: &[Tmpfs],
    disks: usize,
) -> Result<Plan, MountError> {
    let mut plan = Plan::default();
    // What a missing root is said to be is the archive's matter.
    match kind(&root.path).unwrap_or(Kind::Other) {
        Kind::Other if root.options != MountOptions::default() => {
            return Err(MountError::ArchiveOptions(root.path.clone()));
        }
        Kind::Other => plan.is_root_archive = true,
        kind => {
            let access = root.options.access.unwrap_or(MountAccess::Overlay);
            plan.add(
                &root.path,
                kind,
                Path::new("/"),
                access,
                root.options.cache,
                disks,
            )?;
        }
    }
    let mut rest = Plan {
        shares: std::mem::take(&mut plan.shares),
        disks: std::mem::take(&mut plan.disks),
        ..Plan::default()
    };
    for volume in volumes {
        let failed = |cause| MountError::Host {
            option: "--volume",
            path: volume.host.clone(),
            cause,
        };
        let kind = kind(&volume.host).map_err(failed)?;
        let guest = match &volume.guest {
            Some(guest) => guest.clone(),
            None => std::path::absolute(&volume.host).map_err(failed)?,
        };
        let access = volume.options.access.unwrap_or(match kind {
            Kind::Erofs => MountAccess::ReadOnly,
            Kind::Share | Kind::Other => MountAccess::ReadWrite,
        });
        let cache = volume.options.cache;
        rest.add(&volume.host, kind, &normal(&guest), access, cache, disks)?;
    }
    for one in tmpfs {
        rest.mounts.push(Mount {
            target: normal(&one.guest).as_os_str().as_bytes().to_vec(),
            source: MountSource::Tmpfs { size: one.size },
            access: MountAccess::ReadWrite,
        });
    }
    if rest.mounts.iter().any(|mount| mount.target == b"/") {
        return Err(MountError::Root);
    }
    // What is inside of another comes after it.
    rest.mounts
        .sort_by_key(|mount| mount.target.iter().filter(|byte| **byte == b'/').count());
    for (at, mount) in rest.mounts.iter().enumerate() {
        if rest.mounts[..at]
            .iter()
            .any(|other| other.target == mount.target)
        {
            let target = OsStr::from_bytes(&mount.target);
            return Err(MountError::Duplicate(target.into()));
        }
    }
    plan.mounts.append(&mut rest.mounts);
    plan.shares = rest.shares;
    plan.disks = rest.disks;
    Ok(plan)
}

impl Plan {
    fn add(
        &mut self,
        host: &Path,
        kind: Kind,
        guest: &Path,
        access: MountAccess,
        cache: Cache,
        disks: usize,
    ) -> Result<(), MountError> {
        let source = match kind {
            Kind::Erofs if access == MountAccess::ReadWrite => {
                return Err(MountError::ImageWritable(host.to_owned()));
            }
            Kind::Erofs => {
                let name = disk_name(disks + self.disks.len()).into_bytes();
                self.disks.push(DiskConfig {
                    path: host.to_owned(),
                    access: Access::ReadOnly,
                    limits: Limits::default(),
                });
                MountSource::Image { name }
            }
            Kind::Share | Kind::Other => {
                let tag = share_tag(self.shares.len()).into_bytes();
                self.shares.push(ShareConfig {
                    path: host.to_owned(),
                    is_writable: access == MountAccess::ReadWrite,
                    cache,
                });
                MountSource::Share { tag }
            }
        };
        self.mounts.push(Mount {
            target: guest.as_os_str().as_bytes().to_vec(),
            source,
            access,
        });
        Ok(())
    }

    /// How the root is mounted; `None` for an archive.
    pub fn root_access(&self) -> Option<MountAccess> {
        let root = self.mounts.first().filter(|mount| mount.target == b"/");
        root.map(|root| root.access)
    }

    /// Where the host's directory `host` is in the guest, if it is mounted.
    pub fn guest_path(&self, host: &Path) -> Option<PathBuf> {
        let of_share = |mount: &Mount| match &mount.source {
            MountSource::Share { tag } => {
                let index = (0..self.shares.len())
                    .find(|index| share_tag(*index).as_bytes() == &tag[..])?;
                let shared = std::path::absolute(&self.shares[index].path).ok()?;
                let inside = host.strip_prefix(&shared).ok()?;
                let target = Path::new(OsStr::from_bytes(&mount.target));
                let depth = shared.components().count();
                Some((depth, normal(&target.join(inside))))
            }
            _ => None,
        };
        let places = self.mounts.iter().filter_map(of_share);
        // The nearest mount is the one that the user means.
        places.max_by_key(|(depth, _)| *depth).map(|(_, path)| path)
    }
}

/// The tag of a share's device.
pub fn share_tag(index: usize) -> String {
    format!("share{index}")
}

/// What `path` is; links are followed.
fn kind(path: &Path) -> io::Result<Kind> {
    let metadata = path.metadata()?;
    if metadata.is_dir() {
        return Ok(Kind::Share);
    }
    // A FIFO or device is not opened; the share says what it is.
    if metadata.is_file() {
        let mut magic = [0; 4];
        let read = File::open(path)?.read_exact_at(&mut magic, EROFS_MAGIC.0);
        if read.is_ok() && magic == EROFS_MAGIC.1 {
            return Ok(Kind::Erofs);
        }
    }
    Ok(Kind::Other)
}

/// An absolute path without `.`, `..` and needless slashes.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            _ => (),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempdir::TempDir;

    fn volume(text: &str) -> Result<Volume, String> {
        Volume::parse(OsStr::new(text))
    }

    #[test]
    fn volumes_have_up_to_three_parts() {
        let parts = |text: &str| {
            let volume = volume(text).unwrap();
            (volume.host, volume.guest, volume.options.access)
        };
        assert_eq!(parts("a"), ("a".into(), None, None));
        assert_eq!(parts("a:/b"), ("a".into(), Some("/b".into()), None));
        let read_only = Some(MountAccess::ReadOnly);
        assert_eq!(parts("a:ro"), ("a".into(), None, read_only));
        assert_eq!(
            parts("/a:/b:ro"),
            ("/a".into(), Some("/b".into()), read_only)
        );
        let options = volume("a:/b:overlay,cache=none").unwrap().options;
        assert_eq!(options.access, Some(MountAccess::Overlay));
        assert_eq!(options.cache, Cache::None);
        for bad in [
            "",
            ":/b",
            "a:b",
            "a:/b:/c",
            "a:/b:bogus",
            "a:/b:ro:rw",
            "a:/b:",
        ] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_root_may_have_colons() {
        let root = |text: &str| RootOption::parse(OsStr::new(text));
        assert_eq!(root("/a:b").path, Path::new("/a:b"));
        let writable = root("/a:b:rw");
        assert_eq!(writable.path, Path::new("/a:b"));
        assert_eq!(writable.options.access, Some(MountAccess::ReadWrite));
        assert_eq!(root("/").options, MountOptions::default());
    }

    #[test]
    fn sizes_of_tmpfs() {
        let parse = |text: &str| Tmpfs::parse(OsStr::new(text));
        assert_eq!(parse("/t").unwrap().size, 0);
        assert_eq!(parse("/t:size=1M").unwrap().size, 1 << 20);
        for bad in ["t", "/t:", "/t:size=", "/t:size=0", "/t:mode=1", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_and_mounts_follow_from_options() {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path();
        let root = RootOption {
            path: path.to_owned(),
            options: MountOptions::default(),
        };
        let inner = Volume {
            host: path.to_owned(),
            guest: Some("/a//b/../c/".into()),
            options: MountOptions::default(),
        };
        let tmpfs = Tmpfs {
            guest: "/a".into(),
            size: 5,
        };
        let plan = super::plan(&root, std::slice::from_ref(&inner), &[tmpfs], 0).unwrap();
        let targets: Vec<_> = plan.mounts.iter().map(|mount| &mount.target[..]).collect();
        assert_eq!(targets, [&b"/"[..], b"/a", b"/a/c"]);
        assert_eq!(plan.mounts[0].access, MountAccess::Overlay);
        assert!(!plan.shares[0].is_writable);
        assert_eq!(plan.mounts[2].access, MountAccess::ReadWrite);
        assert!(plan.shares[1].is_writable);
        assert!(!plan.is_root_archive);

        let twice = [inner.clone(), inner.clone()];
        let error = super::plan(&root, &twice, &[], 0).unwrap_err();
        assert!(matches!(error, MountError::Duplicate(_)));
        let over = Volume {
            guest: Some("/x/..".into()),
            ..inner
        };
        let error = super::plan(&root, &[over], &[], 0).unwrap_err();
        assert!(matches!(error, MountError::Root));
    }

    #[test]
    fn an_erofs_image_is_known_by_its_magic() {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("image");
        let mut bytes = vec![0; 4096];
        bytes[1024..1028].copy_from_slice(&EROFS_MAGIC.1);
        std::fs::write(&path, bytes).unwrap();
        let root = RootOption {
            path: path.clone(),
            options: MountOptions::default(),
        };
        let plan = super::plan(&root, &[], &[], 2).unwrap();
        let name = b"ringlet-disk2".to_vec();
        assert_eq!(plan.mounts[0].source, MountSource::Image { name });
        assert_eq!(plan.disks.len(), 1);
        let writable = RootOption::parse(OsStr::new(&format!("{}:rw", path.display())));
        let error = super::plan(&writable, &[], &[], 0).unwrap_err();
        assert!(matches!(error, MountError::ImageWritable(_)));
    }

    #[test]
    fn a_directory_of_the_host_is_found_in_the_guest() {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir_all(dir.as_path().join("sub/deep")).unwrap();
        let volume = |path: &Path, guest: &str| Volume {
            host: path.to_owned(),
            guest: Some(guest.into()),
            options: MountOptions::default(),
        };
        let volumes = [
            volume(dir.as_path(), "/one"),
            volume(&dir.as_path().join("sub"), "/two"),
        ];
        let root = RootOption::parse(OsStr::new("/nonexistent"));
        let plan = super::plan(&root, &volumes, &[], 0).unwrap();
        let guest = |inside: &str| plan.guest_path(&dir.as_path().join(inside));
        assert_eq!(guest("x"), Some("/one/x".into()));
        assert_eq!(guest("sub/deep"), Some("/two/deep".into()));
        assert_eq!(plan.guest_path(Path::new("/etc")), None);
    }
}
