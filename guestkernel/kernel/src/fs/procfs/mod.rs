//! `/proc`, as far as C libraries and common tools look at it (`proc(5)`): there is one process.

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
use crate::process::Process;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::task::{Context, Poll};
use linux_raw_sys::general as raw;
use machine::lock::Mutex;
use text::Text;

/// What there is to tell of the process.
pub struct ProcessFacts {
    /// The process.
    pub process: Weak<Process>,
    /// The arguments it was started with.
    pub arguments: Vec<Vec<u8>>,
    /// The path of its program and the file at it.
    pub program: (Vec<u8>, Location),
}

/// The file system.
struct ProcFs {
    device: DeviceNumber,
    facts: ProcessFacts,
    mounted: Timestamp,
}

/// What a file in `/proc` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Root,
    /// The directory of the process.
    Process,
    /// The directory of its descriptors.
    Files,
    /// One of them: a link to the open file.
    File(i32),
    /// A link to its program.
    Program,
    /// A link to its working directory.
    WorkingDirectory,
    /// A link to its root directory.
    RootDirectory,
    /// A link to another file in `/proc`.
    Link(&'static str),
    /// A text that is made when it is opened.
    Text(Text),
    /// The directory of the threads.
    Threads,
    /// The directory of one of them.
    Thread(u32),
    /// A text about one of them.
    ThreadText(Text, u32),
}

/// The process's number, as a name.
const PID: &str = "1";

const ROOT: [(&str, Node); 10] = [
    (PID, Node::Process),
    ("self", Node::Link(PID)),
    ("mounts", Node::Link("self/mounts")),
    ("cpuinfo", Node::Text(Text::Cpus)),
    ("filesystems", Node::Text(Text::FileSystems)),
    ("loadavg", Node::Text(Text::Load)),
    ("meminfo", Node::Text(Text::Memory)),
    ("stat", Node::Text(Text::System)),
    ("uptime", Node::Text(Text::Uptime)),
    ("version", Node::Text(Text::Version)),
];
const PROCESS: [(&str, Node); 12] = [
    ("cmdline", Node::Text(Text::CommandLine)),
    ("comm", Node::Text(Text::Name)),
    ("cwd", Node::WorkingDirectory),
    ("exe", Node::Program),
    ("fd", Node::Files),
    ("maps", Node::Text(Text::Maps)),
    ("mountinfo", Node::Text(Text::MountInfo)),
    ("mounts", Node::Text(Text::Mounts)),
    ("root", Node::RootDirectory),
    ("stat", Node::Text(Text::ProcessStat)),
    ("status", Node::Text(Text::Status)),
    ("task", Node::Threads),
];
/// What there is of each thread.
const THREAD: [(&str, Text); 3] = [
    ("comm", Text::Name),
    ("stat", Text::ProcessStat),
    ("status", Text::Status),
];
/// Inode numbers: those of the files in `PROCESS` start here, then those of descriptors.
const PROCESS_NUMBERS: u64 = 100;
const FILE_NUMBERS: u64 = 1000;
/// Inode numbers of threads, and of the texts about each, so far apart, behind it.
const THREAD_NUMBERS: u64 = 1 << 32;
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
pub async fn mount(namespace: &Namespace, facts: ProcessFacts) -> Result<()> {
    let fs = Arc::new(ProcFs {
        device: next_device(),
        facts,
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

impl ProcFs {
    fn process(&self) -> Result<Arc<Process>> {
        self.facts.process.upgrade().ok_or(Errno::ENOENT)
    }
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
        let place = |table: &[(&str, Node)], first: u64| {
            let index = table.iter().position(|(_, other)| *other == node);
            index.map(|index| first + index as u64)
        };
        match node {
            Node::Root => 1,
            Node::File(fd) => FILE_NUMBERS + fd as u64,
            Node::Thread(tid) => THREAD_NUMBERS + u64::from(tid) * THREAD_STEP,
            Node::ThreadText(text, tid) => {
                let index = THREAD.iter().position(|(_, other)| *other == text);
                let index = index.map_or(0, |index| index as u64 + 1);
                Self::number(Node::Thread(tid)) + index
            }
            _ => place(&ROOT, 2)
                .or_else(|| place(&PROCESS, PROCESS_NUMBERS))
                .unwrap_or(0),
        }
    }

    fn kind(node: Node) -> FileType {
        match node {
            Node::Root | Node::Process | Node::Files | Node::Threads | Node::Thread(_) => {
                FileType::Directory
            }
            Node::Text(_) | Node::ThreadText(..) => FileType::Regular,
            _ => FileType::Symlink,
        }
    }

    fn stat_now(&self) -> Result<Stat> {
        let process = self.fs.process()?;
        let links = match self.node {
            Node::Root => 3,
            Node::Process => 4,
            Node::Threads => 2 + process.threads().len() as u32,
            Node::Files | Node::Thread(_) => 2,
            _ => 1,
        };
        let permissions = match self.node {
            Node::Root | Node::Process | Node::Threads | Node::Thread(_) => 0o555,
            Node::Files => 0o500,
            Node::Text(_) | Node::ThreadText(..) => 0o444,
            Node::File(fd) => match process.files.get_any(fd)?.flags() {
                flags if flags.can_read() && flags.can_write() => 0o700,
                flags if flags.can_write() => 0o300,
                _ => 0o500,
            },
            _ => 0o777,
        };
        Ok(Stat {
            device: self.fs.device,
            inode: Self::number(self.node),
            mode: Self::kind(self.node) as u32 | permissions,
            links,
            block_size: 1024,
            accessed: self.fs.mounted,
            modified: self.fs.mounted,
            changed: self.fs.mounted,
            ..Stat::default()
        })
    }

    fn child(&self, name: &[u8]) -> Result<Node> {
        let table: &[(&str, Node)] = match self.node {
            Node::Root => &ROOT,
            Node::Process => &PROCESS,
            Node::Threads => {
                let tid = number_in(name)?;
                let threads = self.fs.process()?.threads();
                return match threads.iter().find(|thread| thread.tid as i32 == tid) {
                    Some(thread) => Ok(Node::Thread(thread.tid)),
                    None => Err(Errno::ENOENT),
                };
            }
            Node::Thread(tid) => {
                let entry = THREAD.iter().find(|(known, _)| known.as_bytes() == name);
                let node = entry.map(|(_, text)| Node::ThreadText(*text, tid));
                return node.ok_or(Errno::ENOENT);
            }
            Node::Files => {
                let fd = number_in(name)?;
                self.fs
                    .process()?
                    .files
                    .get_any(fd)
                    .map_err(|_| Errno::ENOENT)?;
                return Ok(Node::File(fd));
            }
            _ => return Err(Errno::ENOTDIR),
        };
        let entry = table.iter().find(|(known, _)| known.as_bytes() == name);
        entry.map(|(_, node)| *node).ok_or(Errno::ENOENT)
    }

    async fn link_text(&self) -> Result<Vec<u8>> {
        let process = self.fs.process()?;
        let context = &process.fs;
        match self.node {
            Node::Link(target) => Ok(target.as_bytes().to_vec()),
            Node::Program => Ok(self.fs.facts.program.0.clone()),
            Node::WorkingDirectory => shown_path(context, context.working_directory().into()),
            Node::RootDirectory => Ok(b"/".to_vec()),
            Node::File(fd) => {
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
        let table: &[(&str, Node)] = match self.node {
            Node::Root => &ROOT,
            Node::Process => &PROCESS,
            Node::Files | Node::Threads | Node::Thread(_) => &[],
            _ => return Err(Errno::ENOTDIR),
        };
        let named = |(name, node): &(&str, Node)| (name.as_bytes().to_vec(), *node);
        entries.extend(table.iter().map(named));
        if let Node::Thread(tid) = self.node {
            let texts = THREAD.iter();
            entries.extend(
                texts.map(|(name, text)| (name.as_bytes().to_vec(), Node::ThreadText(*text, tid))),
            );
        }
        // The position of a descriptor or thread is its number, after `.` and `..`.
        let mut places: Vec<u64> = (0..entries.len() as u64).collect();
        let mut add = |number: u64, node| {
            entries.push((format!("{number}").into_bytes(), node));
            places.push(number + 2);
        };
        match self.node {
            Node::Files => {
                for fd in self.fs.process()?.files.open_in(0..=u32::MAX) {
                    add(fd as u64, Node::File(fd));
                }
            }
            Node::Threads => {
                for thread in self.fs.process()?.threads() {
                    add(thread.tid.into(), Node::Thread(thread.tid));
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

/// What the link to an open file shows.
async fn shown(context: &FsContext, file: &OpenFile) -> Result<Vec<u8>> {
    let stat = file.stat().await?;
    let kind = FileType::of_mode(stat.mode);
    let place = file.place();
    match (place, place.and_then(|place| place.entry.as_ref())) {
        (Some(place), _) if kind == Some(FileType::Directory) => {
            shown_path(context, place.location.clone().into())
        }
        (Some(place), Some(entry)) => {
            let mut path = shown_path(context, place.clone())?;
            let is_there = match entry.directory.lookup(&entry.name).await {
                Ok(found) => is_same(&*found, &*place.location.inode),
                Err(_) => false,
            };
            if !is_there {
                path.extend_from_slice(b" (deleted)");
            }
            Ok(path)
        }
        _ => Ok(match kind {
            Some(FileType::Fifo) => format!("pipe:[{}]", stat.inode),
            Some(FileType::Socket) => format!("socket:[{}]", stat.inode),
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
            Node::Text(text) => text.make(&self.fs, None),
            Node::ThreadText(text, tid) => text.make(&self.fs, Some(tid)),
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

    fn magic_link(&self) -> Option<Result<Location>> {
        let target = |process: Arc<Process>| -> Result<Location> {
            match self.node {
                Node::WorkingDirectory => Ok(process.fs.working_directory()),
                Node::RootDirectory => Ok(process.fs.root()),
                Node::File(fd) => {
                    let file = process.files.get_any(fd).map_err(|_| Errno::ENOENT)?;
                    Ok(match file.location() {
                        Some(location) => location.clone(),
                        None => {
                            let object = Arc::new(Object::new(file.ops.clone()));
                            process.fs.namespace.unnamed_location(object)
                        }
                    })
                }
                _ => Ok(self.fs.facts.program.1.clone()),
            }
        };
        match self.node {
            Node::Program | Node::WorkingDirectory | Node::RootDirectory | Node::File(_) => {
                Some(self.fs.process().and_then(target))
            }
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
            Some(Node::Process) => Ok(PID.as_bytes().to_vec()),
            Some(Node::Files) => Ok(b"fd".to_vec()),
            Some(Node::Threads) => Ok(b"task".to_vec()),
            Some(Node::Thread(tid)) => Ok(format!("{tid}").into_bytes()),
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
