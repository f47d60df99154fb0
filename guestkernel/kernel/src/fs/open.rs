//! Opening a file: `open(2)`, `openat2(2)`.

use super::context::View;
use super::path::{Restrictions, Walk};
use super::{FileOps, FileType, OpenFile, OpenFlags};
use crate::error::{Errno, Result};
use crate::file::{Entry, Inode, Location, MountFlags, Place, WriteAccess, locks};
use alloc::sync::Arc;
use linux_raw_sys::general as raw;

/// All flags of `open(2)` that there are.
const KNOWN_FLAGS: u32 = raw::O_ACCMODE
    | raw::O_CREAT
    | raw::O_EXCL
    | raw::O_NOCTTY
    | raw::O_TRUNC
    | raw::O_APPEND
    | raw::O_NONBLOCK
    | raw::O_SYNC
    | raw::O_DSYNC
    | raw::FASYNC
    | raw::O_DIRECT
    | raw::O_LARGEFILE
    | raw::O_DIRECTORY
    | raw::O_NOFOLLOW
    | raw::O_NOATIME
    | raw::O_CLOEXEC
    | raw::O_PATH
    | raw::O_TMPFILE;
/// Those that mean something together with `O_PATH`.
const PATH_FLAGS: u32 = raw::O_PATH | raw::O_DIRECTORY | raw::O_NOFOLLOW | raw::O_CLOEXEC;
/// Permission bits, set-user-ID, set-group-ID and sticky bits.
const MODE_BITS: u32 = 0o7777;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenHow {
    /// `O_*`, a valid combination.
    flags: u32,
    /// Permission bits of a new file.
    mode: u32,
    restrictions: Restrictions,
    /// Nothing is waited for, as with `O_NONBLOCK`, though the open file is not so.
    at_once: bool,
}

impl OpenHow {
    /// As `open(2)` takes it, which ignores what it does not know.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a combination that makes no sense.
    pub fn new(flags: u32, mode: u32) -> Result<Self> {
        let mut flags = flags & KNOWN_FLAGS;
        if flags & raw::O_PATH != 0 {
            flags &= PATH_FLAGS;
        }
        let makes_file = flags & (raw::O_CREAT | raw::__O_TMPFILE) != 0;
        let mode = if makes_file { mode & MODE_BITS } else { 0 };
        Self::checked(flags, mode, Restrictions::empty())
    }

    /// As `openat2(2)` takes it, which refuses what it does not know.
    ///
    /// # Errors
    ///
    /// `EINVAL`; `EAGAIN` for a new file with `RESOLVE_CACHED`.
    pub fn strict(flags: u64, mode: u64, resolve: u64) -> Result<Self> {
        let restrictions = Restrictions::from_bits(resolve).ok_or(Errno::EINVAL)?;
        let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
        let is_known = flags & !KNOWN_FLAGS == 0
            && (flags & raw::O_PATH == 0 || flags & !PATH_FLAGS == 0)
            && !restrictions.contains(Restrictions::BENEATH | Restrictions::IN_ROOT);
        let makes_file = flags & (raw::O_CREAT | raw::__O_TMPFILE) != 0;
        let limit = if makes_file { u64::from(MODE_BITS) } else { 0 };
        if !is_known || mode & !limit != 0 {
            return Err(Errno::EINVAL);
        }
        let changes = raw::O_CREAT | raw::O_TRUNC | raw::__O_TMPFILE;
        if restrictions.contains(Restrictions::CACHED) && flags & changes != 0 {
            return Err(Errno::EAGAIN);
        }
        Self::checked(flags, mode as u32, restrictions)
    }

    fn checked(mut flags: u32, mode: u32, restrictions: Restrictions) -> Result<Self> {
        if flags & raw::O_SYNC == raw::O_SYNC & !raw::O_DSYNC {
            flags |= raw::O_DSYNC;
        }
        let has = |bits: u32| flags & bits == bits;
        let is_writing = matches!(flags & raw::O_ACCMODE, raw::O_WRONLY | raw::O_RDWR);
        if has(raw::O_CREAT | raw::O_DIRECTORY)
            || has(raw::__O_TMPFILE) && !(has(raw::O_DIRECTORY) && is_writing)
        {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            flags,
            mode,
            restrictions,
            at_once: false,
        })
    }

    /// As a ring opens a file that is there: a named pipe does not wait for its other end. One that
    /// may be made is another matter, since Linux has a worker do that.
    pub fn by_ring(mut self) -> Self {
        self.at_once = self.flags & (raw::O_TRUNC | raw::O_CREAT | raw::__O_TMPFILE) == 0;
        self
    }

    /// What a named pipe is opened with.
    fn of_pipe(&self) -> OpenFlags {
        let mut flags = self.kept();
        flags.set(
            OpenFlags::NONBLOCK,
            self.at_once || flags.contains(OpenFlags::NONBLOCK),
        );
        flags
    }

    /// Whether the descriptor is closed by `execve(2)`.
    pub fn close_on_exec(&self) -> bool {
        self.has(raw::O_CLOEXEC)
    }

    /// Whether a terminal that it opens stays nobody's (`O_NOCTTY`).
    pub fn leaves_terminal(&self) -> bool {
        self.has(raw::O_NOCTTY)
    }

    fn has(&self, bits: u32) -> bool {
        self.flags & bits == bits
    }

    /// Whether it asks to write or to cut off.
    fn is_writing(&self) -> bool {
        self.flags & raw::O_ACCMODE != raw::O_RDONLY || self.has(raw::O_TRUNC)
    }

    fn kept(&self) -> OpenFlags {
        let gone = raw::O_CREAT | raw::O_EXCL | raw::O_NOCTTY | raw::O_TRUNC | raw::O_CLOEXEC;
        let flags = OpenFlags::from_bits_retain(self.flags & !gone);
        match flags.contains(OpenFlags::PATH) {
            true => flags,
            false => flags | OpenFlags::LARGE_FILE,
        }
    }
}

/// A file that was found or made.
struct Found {
    place: Place,
    /// What opens it, if it was made.
    made: Option<Arc<dyn FileOps>>,
}

/// A file that is only named.
struct PathOnly;

impl FileOps for PathOnly {}

impl View<'_> {
    /// Opens a file, or makes it.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`.
    pub async fn open(&self, fd: i32, path: &[u8], how: OpenHow) -> Result<Arc<OpenFile>> {
        let base = match how.restrictions.contains(Restrictions::IN_ROOT) && !path.is_empty() {
            true => self.base(fd)?,
            false => self.start(fd, path)?,
        };
        let mut walk = Walk::new(self.context, base, path, how.restrictions)?;
        if how.has(raw::O_TMPFILE) {
            let directory = walk.file(!how.has(raw::O_NOFOLLOW)).await?;
            return self.open_unnamed(&directory, how).await;
        }
        walk.parent().await?;
        let found = self.find(walk, how).await?;
        self.open_found(found, how).await
    }

    /// Opens a file that was looked up before.
    ///
    /// # Errors
    ///
    /// Those of `open(2)` but for the path.
    pub async fn open_place(&self, place: Place, how: OpenHow) -> Result<Arc<OpenFile>> {
        self.open_found(Found { place, made: None }, how).await
    }

    async fn open_unnamed(&self, directory: &Location, how: OpenHow) -> Result<Arc<OpenFile>> {
        directory.check_directory()?;
        directory.mount.check_writable()?;
        let mode = how.mode & !self.context.umask();
        let can_be_linked = !how.has(raw::O_EXCL);
        let inode = directory.inode.create_unnamed(mode, can_be_linked).await?;
        let ops = inode.clone().open(how.kept()).await?;
        let location = Location {
            mount: directory.mount.clone(),
            inode,
        };
        OpenFile::with_place(ops, how.kept(), location.into())
    }

    /// Makes a file that never has a name: `memfd_create(2)`. `name` is only shown.
    ///
    /// # Errors
    ///
    /// `ENOSPC`.
    pub async fn memory_file(&self, name: &[u8], mode: u32) -> Result<Arc<OpenFile>> {
        let namespace = &self.context.namespace;
        let directory: Arc<dyn Inode> = namespace.unnamed().clone();
        let inode = directory.create_unnamed(mode, false).await?;
        let flags = OpenFlags::READ_WRITE | OpenFlags::LARGE_FILE;
        let ops = inode.clone().open(flags).await?;
        let place = Place {
            location: namespace.unnamed_location(inode),
            entry: Some(Entry {
                directory,
                name: [b"memfd:", name].concat(),
            }),
        };
        OpenFile::with_place(ops, flags, place)
    }

    /// Closes a descriptor: `close(2)`.
    ///
    /// # Errors
    ///
    /// `EBADF`, and those of writes that were put off; it is closed all the same.
    pub async fn close(&self, fd: i32) -> Result<()> {
        let file = self.files.close(fd)?;
        self.finish_close(&file).await
    }

    /// As [`close`](Self::close), if that takes no time: `None` if it may.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    #[inline]
    pub fn close_now(&self, fd: i32) -> Result<Option<()>> {
        let closed = self.files.close_if(fd, |file| !file.ops.flushes())?;
        Ok(closed.map(|file| locks::release_process(&file, self.files.owner())))
    }

    /// What follows when a descriptor of `file` was taken out of the table.
    ///
    /// # Errors
    ///
    /// Those of writes that were put off.
    pub async fn finish_close(&self, file: &OpenFile) -> Result<()> {
        locks::release_process(file, self.files.owner());
        file.ops.flush().await
    }

    async fn find(&self, mut walk: Walk<'_>, how: OpenHow) -> Result<Found> {
        loop {
            let has_slash = walk.has_slash();
            let Some(name) = walk.name() else {
                return Ok(Found {
                    place: walk.last().await?.into(),
                    made: None,
                });
            };
            if how.has(raw::O_CREAT) && has_slash {
                return Err(Errno::EISDIR);
            }
            let location = match walk.last().await {
                Err(Errno::ENOENT) if how.has(raw::O_CREAT) => {
                    let directory = walk.directory();
                    directory.mount.check_writable()?;
                    let mode = how.mode & !self.context.umask();
                    let made = directory.inode.create_and_open(name, mode, how.kept());
                    match made.await {
                        // Somebody else was faster; it is looked at again.
                        Err(Errno::EEXIST) if !how.has(raw::O_EXCL) => continue,
                        Err(error) => return Err(error),
                        Ok((inode, ops)) => {
                            let location = Location {
                                mount: directory.mount.clone(),
                                inode,
                            };
                            return Ok(Found {
                                place: Place {
                                    location,
                                    entry: walk.entry(),
                                },
                                made: Some(ops),
                            });
                        }
                    }
                }
                result => result?,
            };
            if how.has(raw::O_CREAT | raw::O_EXCL) {
                return Err(Errno::EEXIST);
            }
            let follows = has_slash || !how.has(raw::O_NOFOLLOW);
            let is_link = location.inode.file_type() == FileType::Symlink;
            let place = if is_link && follows {
                match walk.through(&location.inode).await? {
                    None => continue,
                    Some(location) => location.into(),
                }
            } else {
                Place {
                    location,
                    entry: walk.entry(),
                }
            };
            if has_slash {
                place.location.check_directory()?;
            }
            return Ok(Found { place, made: None });
        }
    }

    async fn open_found(&self, found: Found, how: OpenHow) -> Result<Arc<OpenFile>> {
        let Found { place, made } = found;
        let Location { mount, inode } = &place.location;
        let kind = inode.file_type();
        if made.is_none() && how.has(raw::O_CREAT) {
            if how.has(raw::O_EXCL) {
                return Err(Errno::EEXIST);
            }
            if kind == FileType::Directory {
                return Err(Errno::EISDIR);
            }
        }
        if how.has(raw::O_DIRECTORY) && kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if how.has(raw::O_PATH) {
            return OpenFile::with_place(Arc::new(PathOnly), how.kept(), place);
        }
        let ops = match kind {
            FileType::Symlink => return Err(Errno::ELOOP),
            FileType::Directory if how.is_writing() => return Err(Errno::EISDIR),
            FileType::Socket => return Err(Errno::ENXIO),
            FileType::CharDevice | FileType::BlockDevice => {
                if mount.flags().contains(MountFlags::NO_DEV) {
                    return Err(Errno::EACCES);
                }
                match self.context.namespace.device(kind, inode.special()) {
                    Ok(device) => match device.opened() {
                        Some(opened) => opened?,
                        None => device,
                    },
                    // Nobody has said what opens it: perhaps its file system knows.
                    Err(_) => inode.clone().open(how.kept()).await?,
                }
            }
            FileType::Fifo => match inode.open_fifo(how.of_pipe()) {
                Some(opened) => opened.await?,
                // A stream to the outside, reached by the link to its descriptor.
                None => inode.clone().open(how.kept()).await?,
            },
            FileType::Regular if how.is_writing() => {
                mount.check_writable()?;
                return self.open_to_write(place, made, how).await;
            }
            FileType::Regular | FileType::Directory => match made {
                Some(ops) => ops,
                None => inode.clone().open(how.kept()).await?,
            },
        };
        if how.has(raw::O_DIRECT) && !matches!(kind, FileType::Regular | FileType::BlockDevice) {
            return Err(Errno::EINVAL);
        }
        OpenFile::with_place(ops, how.kept(), place)
    }

    /// Opens a regular file that may be written or is to be cut off.
    async fn open_to_write(
        &self,
        place: Place,
        made: Option<Arc<dyn FileOps>>,
        how: OpenHow,
    ) -> Result<Arc<OpenFile>> {
        let inode = &place.location.inode;
        let is_new = made.is_some();
        // Also while a file that is opened to be read is cut off.
        let _writing = WriteAccess::new(inode.clone())?;
        let ops = match made {
            Some(ops) => ops,
            None => inode.clone().open(how.kept()).await?,
        };
        if how.has(raw::O_TRUNC) && !is_new {
            ops.truncate(0).await?;
        }
        OpenFile::with_place(ops, how.kept(), place)
    }
}
