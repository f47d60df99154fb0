//! `/proc`, as far as C libraries and common tools look at it (`proc(5)`).

mod mounts;
mod text;

use super::{
    Answer, DeviceNumber, DirEntry, FileOps, FileSystemInfo, FileType, FsContext, Inode, Namespace,
    NewNode, OpenFile, OpenFlags, RenameMode, Stat, Timestamp,
};
use crate::error::{Errno, Result};
use crate::file::{
    DirectorySink, FileSystem, FileSystemType, InodeState, Location, Made, Mount, MountFlags,
    Place, SuperBlock, is_same, next_device,
};
use crate::globals::global;
use crate::io::{Direction, Io};
use crate::process::{ControlBlock, Process, all, process_of, process_with};
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::task::{Context, Poll};
use linux_raw_sys::general as raw;
use machine::lock::Mutex;
use text::Text;

/// The file system.
struct ProcFs {
    device: DeviceNumber,
    mounted: Timestamp,
}

/// What a file in `/proc` is. Numbers are those of a process, and then of a thread or a descriptor of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Root,
    /// A link to the process that looks.
    Own,
    /// A link to another file in `/proc`.
    Link(&'static str),
    /// A text that is made when it is opened.
    Text(Text),
    /// The directory of a process.
    Process(u32),
    /// A text about it.
    ProcessText(Text, u32),
    /// The directory of its descriptors.
    Files(u32),
    /// One of them: a link to the open file.
    File(u32, i32),
    /// A link to its program.
    Program(u32),
    /// A link to its working directory.
    WorkingDirectory(u32),
    /// A link to its root directory.
    RootDirectory(u32),
    /// The directory of its threads.
    Threads(u32),
    /// The directory of one of them.
    Thread(u32, u32),
    /// A text about one of them.
    ThreadText(Text, u32, u32),
}

const ROOT: [(&str, Node); 9] = [
    ("self", Node::Own),
    ("mounts", Node::Link("self/mounts")),
    ("cpuinfo", Node::Text(Text::Cpus)),
    ("filesystems", Node::Text(Text::FileSystems)),
    ("loadavg", Node::Text(Text::Load)),
    ("meminfo", Node::Text(Text::Memory)),
    ("stat", Node::Text(Text::System)),
    ("uptime", Node::Text(Text::Uptime)),
    ("version", Node::Text(Text::Version)),
];
/// A name, and what it is of the process with a number.
type Named = (&'static str, fn(u32) -> Node);

/// What there is of each process.
const PROCESS: [Named; 14] = [
    ("cmdline", |pid| Node::ProcessText(Text::CommandLine, pid)),
    ("comm", |pid| Node::ProcessText(Text::Name, pid)),
    ("cwd", Node::WorkingDirectory),
    ("environ", |pid| Node::ProcessText(Text::Environment, pid)),
    ("exe", Node::Program),
    ("fd", Node::Files),
    ("maps", |pid| Node::ProcessText(Text::Maps, pid)),
    ("mountinfo", |pid| Node::ProcessText(Text::MountInfo, pid)),
    ("mounts", |pid| Node::ProcessText(Text::Mounts, pid)),
    ("root", Node::RootDirectory),
    ("stat", |pid| Node::ProcessText(Text::ProcessStat, pid)),
    ("statm", |pid| Node::ProcessText(Text::MemoryUse, pid)),
    ("status", |pid| Node::ProcessText(Text::Status, pid)),
    ("task", Node::Threads),
];
/// What there is of each thread.
const THREAD: [(&str, Text); 3] = [
    ("comm", Text::Name),
    ("stat", Text::ProcessStat),
    ("status", Text::Status),
];
/// Inode numbers: each process has so many, of which those of descriptors begin behind the others;
/// threads have theirs beyond all of them.
const PROCESS_NUMBERS: u64 = 1 << 24;
const FILE_NUMBERS: u64 = 1000;
const THREAD_NUMBERS: u64 = 1 << 60;
const THREAD_STEP: u64 = 16;

struct ProcInode {
    fs: Arc<ProcFs>,
    node: Node,
    parent: Option<Arc<ProcInode>>,
    me: Weak<Self>,
    state: InodeState,
}

/// Mounts `/proc`, and makes the directory for it if there is none.
///
/// # Errors
///
/// `ENOTDIR` if the root directory has a `proc` that is no directory; `ENOSPC`.
pub async fn mount(namespace: &Namespace) -> Result<()> {
    let fs = Arc::new(ProcFs {
        device: next_device(),
        mounted: Timestamp::now(),
    });
    *INSTANCE.lock() = Some(fs.clone());
    let (fs, root) = made(fs);
    let super_block = SuperBlock::new(&TYPE, fs, root.clone(), false);
    let flags = MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
    let mount = Mount::new(super_block, root, b"proc", flags | MountFlags::RELATIME);
    namespace.mount_at(&mount, "proc").await
}

/// Makes the type of file system known.
pub(crate) fn register_type() {
    crate::file::register(&TYPE);
}

/// The type: all mounts of it show the same processes.
static TYPE: FileSystemType = FileSystemType {
    name: "proc",
    needs_device: false,
    make: |_| {
        let fs = INSTANCE.lock().clone();
        Box::pin(core::future::ready(fs.ok_or(Errno::ENODEV).map(made)))
    },
};

global! {
    /// The file system, when it is there.
    static INSTANCE: Mutex<Option<Arc<ProcFs>>> = Mutex::new(None);
}

fn made(fs: Arc<ProcFs>) -> Made {
    let root = ProcInode::new(fs.clone(), Node::Root, None);
    (fs, root)
}

impl FileSystem for ProcFs {
    fn device(&self) -> DeviceNumber {
        self.device
    }

    fn info(&self) -> Answer<'_, FileSystemInfo> {
        Answer::ready(Ok(FileSystemInfo {
            magic: raw::PROC_SUPER_MAGIC.into(),
            block_size: 4096,
            id: self.device.encode(),
            name_length: 255,
            ..FileSystemInfo::default()
        }))
    }
}

/// The process with the number `pid`.
fn process(pid: u32) -> Result<Arc<ControlBlock>> {
    process_with(pid as i32).map_err(|_| Errno::ENOENT)
}

/// What the process with the number `pid` reaches; `ENOENT` also for one that has ended.
fn view(pid: u32) -> Result<Arc<Process>> {
    process(pid)?.view().ok_or(Errno::ENOENT)
}

impl ProcInode {
    fn new(fs: Arc<ProcFs>, node: Node, parent: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            fs,
            node,
            parent,
            me: me.clone(),
            state: InodeState::default(),
        })
    }

    fn number(node: Node) -> u64 {
        let in_process = |pid: u32| {
            let index = PROCESS.iter().position(|(_, make)| make(pid) == node);
            PROCESS_NUMBERS * u64::from(pid) + index.map_or(0, |index| index as u64 + 1)
        };
        match node {
            Node::Root => 1,
            Node::Own | Node::Link(_) | Node::Text(_) => {
                let index = ROOT.iter().position(|(_, other)| *other == node);
                2 + index.unwrap_or(ROOT.len()) as u64
            }
            Node::File(pid, fd) => {
                PROCESS_NUMBERS * u64::from(pid) + FILE_NUMBERS + u64::from(fd.unsigned_abs())
            }
            Node::Thread(_, tid) => THREAD_NUMBERS + u64::from(tid) * THREAD_STEP,
            Node::ThreadText(text, pid, tid) => {
                let index = THREAD.iter().position(|(_, other)| *other == text);
                let index = index.map_or(0, |index| index as u64 + 1);
                Self::number(Node::Thread(pid, tid)) + index
            }
            Node::Process(pid)
            | Node::ProcessText(_, pid)
            | Node::Files(pid)
            | Node::Program(pid)
            | Node::WorkingDirectory(pid)
            | Node::RootDirectory(pid)
            | Node::Threads(pid) => in_process(pid),
        }
    }

    fn kind(node: Node) -> FileType {
        match node {
            Node::Root
            | Node::Process(_)
            | Node::Files(_)
            | Node::Threads(_)
            | Node::Thread(..) => FileType::Directory,
            Node::Text(_) | Node::ProcessText(..) | Node::ThreadText(..) => FileType::Regular,
            _ => FileType::Symlink,
        }
    }

    /// The process that the file is about.
    fn subject(node: Node) -> Option<u32> {
        match node {
            Node::Root | Node::Own | Node::Link(_) | Node::Text(_) => None,
            Node::Process(pid)
            | Node::ProcessText(_, pid)
            | Node::Files(pid)
            | Node::File(pid, _)
            | Node::Program(pid)
            | Node::WorkingDirectory(pid)
            | Node::RootDirectory(pid)
            | Node::Threads(pid)
            | Node::Thread(pid, _)
            | Node::ThreadText(_, pid, _) => Some(pid),
        }
    }

    fn stat_now(&self) -> Result<Stat> {
        let subject = Self::subject(self.node).map(process).transpose()?;
        let links = match self.node {
            Node::Root => 2 + all().len() as u32,
            Node::Process(_) => 4,
            Node::Threads(pid) => 2 + process(pid)?.threads().len() as u32,
            Node::Files(_) | Node::Thread(..) => 2,
            _ => 1,
        };
        let permissions = match self.node {
            Node::Root | Node::Process(_) | Node::Threads(_) | Node::Thread(..) => 0o555,
            Node::Files(_) => 0o500,
            Node::ProcessText(Text::Environment, _) => 0o400,
            Node::Text(_) | Node::ProcessText(..) | Node::ThreadText(..) => 0o444,
            Node::File(pid, fd) => match view(pid)?.files.get_any(fd)?.flags() {
                flags if flags.can_read() && flags.can_write() => 0o700,
                flags if flags.can_write() => 0o300,
                _ => 0o500,
            },
            _ => 0o777,
        };
        let (uid, gid) = subject.map_or((0, 0), |process| {
            let credentials = process.credentials.lock();
            (credentials.user.effective, credentials.group.effective)
        });
        Ok(Stat {
            device: self.fs.device,
            inode: Self::number(self.node),
            mode: Self::kind(self.node) as u32 | permissions,
            links,
            uid,
            gid,
            block_size: 1024,
            accessed: self.fs.mounted,
            modified: self.fs.mounted,
            changed: self.fs.mounted,
            ..Stat::default()
        })
    }

    fn child(&self, name: &[u8]) -> Result<Node> {
        match self.node {
            Node::Root => {
                if let Some((_, node)) = ROOT.iter().find(|(known, _)| known.as_bytes() == name) {
                    return Ok(*node);
                }
                // The directories of threads are there, though they are not listed.
                let found = process_of(number_in(name)?).map_err(|_| Errno::ENOENT)?;
                Ok(Node::Process(found.pid))
            }
            Node::Process(pid) => {
                process(pid)?;
                let entry = PROCESS.iter().find(|(known, _)| known.as_bytes() == name);
                entry.map(|(_, make)| make(pid)).ok_or(Errno::ENOENT)
            }
            Node::Threads(pid) => {
                let tid = number_in(name)?;
                let threads = process(pid)?.threads();
                match threads.iter().find(|thread| thread.tid as i32 == tid) {
                    Some(thread) => Ok(Node::Thread(pid, thread.tid)),
                    None => Err(Errno::ENOENT),
                }
            }
            Node::Thread(pid, tid) => {
                let entry = THREAD.iter().find(|(known, _)| known.as_bytes() == name);
                let node = entry.map(|(_, text)| Node::ThreadText(*text, pid, tid));
                node.ok_or(Errno::ENOENT)
            }
            Node::Files(pid) => {
                let fd = number_in(name)?;
                let found = view(pid)?.files.get_any(fd);
                found.map_err(|_| Errno::ENOENT)?;
                Ok(Node::File(pid, fd))
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    async fn link_text(&self) -> Result<Vec<u8>> {
        let pid = match self.node {
            Node::Link(target) => return Ok(target.as_bytes().to_vec()),
            node => Self::subject(node).ok_or(Errno::EINVAL)?,
        };
        let process = view(pid)?;
        let context = &process.fs;
        match self.node {
            Node::Program(_) => {
                let place = process.executable.place.as_ref().ok_or(Errno::ENOENT)?;
                shown_place(context, place).await
            }
            Node::WorkingDirectory(_) => shown_path(context, context.working_directory().into()),
            Node::RootDirectory(_) => Ok(b"/".to_vec()),
            Node::File(_, fd) => {
                let file = process.files.get_any(fd).map_err(|_| Errno::ENOENT)?;
                shown(context, &file).await
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn list(&self, position: u64, sink: &mut DirectorySink<'_>) -> Result<u64> {
        let mut entries: Vec<(Vec<u8>, Node)> = Vec::from([
            (b".".to_vec(), self.node),
            (
                b"..".to_vec(),
                self.parent.as_ref().map_or(self.node, |parent| parent.node),
            ),
        ]);
        let mut add_named = |name: &str, node| entries.push((name.as_bytes().to_vec(), node));
        match self.node {
            Node::Root => ROOT.iter().for_each(|(name, node)| add_named(name, *node)),
            Node::Process(pid) => {
                process(pid)?;
                PROCESS
                    .iter()
                    .for_each(|(name, make)| add_named(name, make(pid)));
            }
            Node::Thread(pid, tid) => {
                let texts = THREAD.iter();
                texts.for_each(|(name, text)| add_named(name, Node::ThreadText(*text, pid, tid)));
            }
            Node::Files(_) | Node::Threads(_) => {}
            _ => return Err(Errno::ENOTDIR),
        }
        // The position of a descriptor, thread or process is its number, after the others.
        let named = entries.len() as u64;
        let mut places: Vec<u64> = (0..named).collect();
        let mut add = |number: u64, node| {
            entries.push((format!("{number}").into_bytes(), node));
            places.push(number + named);
        };
        match self.node {
            Node::Root => {
                for process in all() {
                    add(process.pid.into(), Node::Process(process.pid));
                }
            }
            Node::Files(pid) => {
                // One that has ended has no files any more.
                let files = view(pid).map(|process| process.files.open_in(0..=u32::MAX));
                for fd in files.unwrap_or_default() {
                    add(fd as u64, Node::File(pid, fd));
                }
            }
            Node::Threads(pid) => {
                for thread in process(pid)?.threads() {
                    add(thread.tid.into(), Node::Thread(pid, thread.tid));
                }
            }
            _ => {}
        }
        let mut position = position;
        for (place, (name, node)) in places.into_iter().zip(&entries) {
            if place < position {
                continue;
            }
            let entry = DirEntry {
                name,
                inode: Self::number(*node),
                kind: Self::kind(*node).directory_type(),
                next: place + 1,
            };
            if !sink(&entry) {
                break;
            }
            position = place + 1;
        }
        Ok(position)
    }
}

/// The number that is a name, written as it is listed.
fn number_in(name: &[u8]) -> Result<i32> {
    let text = core::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
    let number: i32 = text.parse().map_err(|_| Errno::ENOENT)?;
    match format!("{number}") == text {
        true => Ok(number),
        false => Err(Errno::ENOENT),
    }
}

/// The path of a file, as links in `/proc` show it.
fn shown_path(context: &FsContext, place: Place) -> Result<Vec<u8>> {
    match context.path_of(place) {
        Err(Errno::ENOENT) => Ok(b"/ (deleted)".to_vec()),
        result => Ok(result?.0),
    }
}

/// What the link to a file that was reached by a name shows.
async fn shown_place(context: &FsContext, place: &Place) -> Result<Vec<u8>> {
    let mut path = shown_path(context, place.clone())?;
    let is_there = match &place.entry {
        Some(entry) => match entry.directory.lookup(&entry.name).await {
            Ok(found) => is_same(&*found, &*place.location.inode),
            Err(_) => false,
        },
        None => true,
    };
    if !is_there {
        path.extend_from_slice(b" (deleted)");
    }
    Ok(path)
}

/// What the link to an open file shows.
async fn shown(context: &FsContext, file: &OpenFile) -> Result<Vec<u8>> {
    let stat = file.stat().await?;
    let kind = FileType::of_mode(stat.mode);
    let place = file.place();
    match (place, place.and_then(|place| place.entry.as_ref())) {
        (Some(place), _) if kind == Some(FileType::Directory) => {
            shown_path(context, place.location.clone().into())
        }
        (Some(place), Some(_)) => shown_place(context, place).await,
        _ => Ok(match kind {
            Some(FileType::Fifo) => format!("pipe:[{}]", stat.inode),
            Some(FileType::CharDevice) => format!("/dev/{}", file.ops.kind()),
            Some(_) => format!("/{} (deleted)", file.ops.kind()),
            None => format!("anon_inode:[{}]", file.ops.kind()),
        }
        .into_bytes()),
    }
}

impl Inode for ProcInode {
    fn file_type(&self) -> FileType {
        Self::kind(self.node)
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(self.stat_now())
    }

    fn open(self: Arc<Self>, _flags: OpenFlags) -> Answer<'static, Arc<dyn FileOps>> {
        let text = match self.node {
            Node::Text(text) => text.make(),
            Node::ProcessText(text, pid) => text.make_about(pid, None),
            Node::ThreadText(text, pid, tid) => text.make_about(pid, Some(tid)),
            _ => return Answer::ready(Ok(self)),
        };
        Answer::ready(text.map(|bytes| {
            let file: Arc<dyn FileOps> = Arc::new(TextFile(bytes));
            file
        }))
    }

    fn read_link(&self) -> Answer<'_, Vec<u8>> {
        Answer::later(self.link_text())
    }

    fn link_for(&self, process: u32) -> Answer<'_, Vec<u8>> {
        match self.node {
            Node::Own => Answer::ready(Ok(format!("{process}").into_bytes())),
            _ => self.read_link(),
        }
    }

    fn magic_link(&self) -> Option<Result<Location>> {
        let target = |process: Arc<Process>| -> Result<Location> {
            match self.node {
                Node::WorkingDirectory(_) => Ok(process.fs.working_directory()),
                Node::RootDirectory(_) => Ok(process.fs.root()),
                Node::File(_, fd) => {
                    let file = process.files.get_any(fd).map_err(|_| Errno::ENOENT)?;
                    Ok(match file.location() {
                        Some(location) => location.clone(),
                        None => {
                            let object = Arc::new(Object::new(file.ops.clone()));
                            process.fs.namespace.unnamed_location(object)
                        }
                    })
                }
                _ => {
                    let place = process.executable.place.as_ref();
                    place
                        .map(|place| place.location.clone())
                        .ok_or(Errno::ENOENT)
                }
            }
        };
        match self.node {
            Node::Program(pid)
            | Node::WorkingDirectory(pid)
            | Node::RootDirectory(pid)
            | Node::File(pid, _) => Some(view(pid).and_then(target)),
            _ => None,
        }
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Answer<'a, Arc<dyn Inode>> {
        Answer::ready(self.child(name).map(|node| {
            let inode: Arc<dyn Inode> = Self::new(self.fs.clone(), node, self.me.upgrade());
            inode
        }))
    }

    fn create<'a>(&'a self, _: &'a [u8], _: NewNode, _: u32) -> Answer<'a, Arc<dyn Inode>> {
        Errno::EPERM.into()
    }

    fn link<'a>(&'a self, _: &'a [u8], _: Arc<dyn Inode>) -> Answer<'a, ()> {
        Errno::EPERM.into()
    }

    fn unlink<'a>(&'a self, _: &'a [u8]) -> Answer<'a, ()> {
        Errno::EPERM.into()
    }

    fn remove_directory<'a>(&'a self, _: &'a [u8]) -> Answer<'a, ()> {
        Errno::EPERM.into()
    }

    fn rename<'a>(
        &'a self,
        _: &'a [u8],
        _: Arc<dyn Inode>,
        _: &'a [u8],
        _: RenameMode,
    ) -> Answer<'a, ()> {
        Errno::EPERM.into()
    }

    fn parent(&self) -> Option<Arc<dyn Inode>> {
        let parent = self.parent.clone()?;
        Some(parent)
    }

    fn name_of(&self, child: &dyn Inode) -> Result<Vec<u8>> {
        let child = (child as &dyn Any).downcast_ref::<Self>();
        match child.map(|child| child.node) {
            Some(Node::Process(pid)) => Ok(format!("{pid}").into_bytes()),
            Some(Node::Files(_)) => Ok(b"fd".to_vec()),
            Some(Node::Threads(_)) => Ok(b"task".to_vec()),
            Some(Node::Thread(_, tid)) => Ok(format!("{tid}").into_bytes()),
            _ => Err(Errno::ENOENT),
        }
    }
}

/// A directory that is listed.
impl FileOps for ProcInode {
    fn poll_io(&self, _io: &mut Io, _context: &mut Context<'_>) -> Poll<Result<usize>> {
        Poll::Ready(Err(Errno::EISDIR))
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn read_dir<'a>(&'a self, position: u64, sink: &'a mut DirectorySink<'_>) -> Answer<'a, u64> {
        Answer::ready(self.list(position, sink))
    }
}

/// A text that was made when it was opened.
struct TextFile(Vec<u8>);

impl FileOps for TextFile {
    fn poll_io(&self, io: &mut Io, _context: &mut Context<'_>) -> Poll<Result<usize>> {
        if io.direction == Direction::Write {
            return Poll::Ready(Err(Errno::EIO));
        }
        let start = usize::try_from(io.position.unwrap_or(0)).unwrap_or(usize::MAX);
        let rest = self.0.get(start..).unwrap_or_default();
        let rest = &rest[..rest.len().min(io.buffer.len())];
        while io.done < rest.len() {
            match io.buffer.fill(io.done, &rest[io.done..]) {
                Ok(copied) => io.done += copied,
                Err(error) => return Poll::Ready(io.cut_short(error)),
            }
        }
        Poll::Ready(Ok(io.done))
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Answer<'_, u64> {
        Answer::ready(Ok(self.0.len() as u64))
    }

    fn has_size(&self) -> bool {
        true
    }
}

/// An open object that is in no file system, reached by the link to its descriptor.
struct Object(Arc<dyn FileOps>, InodeState);

impl Object {
    fn new(ops: Arc<dyn FileOps>) -> Self {
        Self(ops, InodeState::default())
    }

    /// Its attributes: what is in no file system has them at hand.
    fn attributes(&self) -> Stat {
        let stat = self.0.stat().now().and_then(Result::ok);
        stat.unwrap_or_else(Stat::anonymous)
    }
}

impl Inode for Object {
    fn file_type(&self) -> FileType {
        FileType::of_mode(self.attributes().mode).unwrap_or(FileType::Regular)
    }

    fn state(&self) -> &InodeState {
        &self.1
    }

    fn special(&self) -> DeviceNumber {
        self.attributes().special
    }

    fn stat(&self) -> Answer<'_, Stat> {
        self.0.stat()
    }

    fn open(self: Arc<Self>, _flags: OpenFlags) -> Answer<'static, Arc<dyn FileOps>> {
        Answer::ready(Ok(self.0.clone()))
    }
}

#[cfg(test)]
mod tests;
