//! A place where operations are performed: a tree of files, a ring, memory, and open files by name.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use libc::{O_CLOEXEC, timespec};

use super::argument::{Arg, Memory, Object};
use super::memory::{Arena, FIXED};
use super::operation::{Call, Entry, Gives, Operation};
use super::tree::Tree;
use super::{observe, signals, tree};
use crate::ring::{Cqe, Ring, Sqe};
use crate::sys;
use crate::sys::{Errno, SysResult};

/// Through which an operation is performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// A system call.
    Call,
    /// An SQE.
    Ring,
}

impl Default for Patience {
    /// Of an operation that need not wait: it has as long as a busy machine can take.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            meanwhile: Vec::new(),
            completions: None,
            in_order: false,
            unwatched: false,
        }
    }
}

/// The descriptor of the root directory, from which a case may have moved the root.
const ROOT: u32 = 1000;

/// How much later the other thread begins.
const MEANWHILE: Duration = Duration::from_millis(40);

impl Door {
    /// What it is called in what is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Ring => "ring",
        }
    }
}

/// How an operation is waited for.
#[derive(Clone, Debug)]
pub struct Patience {
    /// How long, until it counts as one that waits.
    pub time: Duration,
    /// System calls that another thread makes a while after it has begun.
    pub meanwhile: Vec<Operation>,
    /// How many completions a batch gives, if not one for each entry.
    pub completions: Option<usize>,
    /// Completions are told in the order of their entries.
    pub in_order: bool,
    /// The alarm is the operation's own: a call that waits is not interrupted.
    pub unwatched: bool,
}

/// How an operation ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The result as text.
    pub text: String,
    /// The call's result, or that of the last completion.
    pub result: Option<SysResult>,
    /// How long it took.
    pub time: Duration,
}

/// What must be undone after operations.
struct Initial {
    limits: [[u64; 2]; 16],
    affinity: [u64; 16],
}

/// A place where operations are performed.
pub struct World {
    directory: PathBuf,
    arena: Arena,
    initial: Initial,
    ring: Option<Ring>,
    objects: Vec<(Object, i32)>,
    made: Vec<i64>,
    placed: Vec<(Memory, usize)>,
    before: Tree,
    count: usize,
}

impl World {
    /// One whose trees are made in `directory`, which is made too.
    ///
    /// # Errors
    ///
    /// Those of `mkdir(2)` and `mmap(2)`.
    pub fn new(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        // Nothing that was inherited takes part.
        close_others();
        let root = sys!(SYS_open, c"/", libc::O_PATH | libc::O_CLOEXEC)
            .and_then(|fd| sys!(SYS_dup2, fd, ROOT).and_then(|_| sys!(SYS_close, fd)));
        root.map_err(|error| io::Error::from_raw_os_error(error.0))?;
        let mut limits = [[0; 2]; 16];
        for (resource, limit) in limits.iter_mut().enumerate() {
            let _ = sys!(SYS_prlimit64, 0, resource, 0, limit.as_mut_ptr());
        }
        // Nobody can raise limits again everywhere, so operations lower soft ones only; what these
        // are of has the same limit everywhere.
        limits[libc::RLIMIT_NOFILE as usize] = [1024, 1024];
        limits[libc::RLIMIT_MEMLOCK as usize] = [8 << 20, 8 << 20];
        let mut affinity = [0; 16];
        let _ = sys!(
            SYS_sched_getaffinity,
            0,
            size_of_val(&affinity),
            affinity.as_mut_ptr()
        );
        let arena = Arena::new().map_err(|error| io::Error::from_raw_os_error(error.0))?;
        Ok(Self {
            directory: directory.to_owned(),
            arena,
            initial: Initial { limits, affinity },
            ring: None,
            objects: Vec::new(),
            made: Vec::new(),
            placed: Vec::new(),
            before: Tree::new(),
            count: 0,
        })
    }

    /// Undoes whatever operations have done, and makes everything new.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being new.
    pub fn begin(&mut self) -> io::Result<()> {
        self.end();
        let name = self.directory.join(self.count.to_string());
        self.count += 1;
        std::fs::create_dir(&name)?;
        std::env::set_current_dir(&name)?;
        tree::make()?;
        let ring = Ring::new(16).map_err(|error| io::Error::from_raw_os_error(error.0))?;
        self.ring = Some(ring);
        self.before = tree::look();
        Ok(())
    }

    /// Undoes whatever operations have done.
    pub fn end(&mut self) {
        let _ = sys!(SYS_setresuid, -1, 0, 0);
        let _ = sys!(SYS_setresgid, 0, 0, 0);
        self.ring = None;
        close_others();
        let none = [0_u64; 4];
        for timer in 0..3 {
            let _ = sys!(SYS_setitimer, timer, none.as_ptr(), 0);
        }
        signals::reset();
        self.lift_limits();
        let affinity = &self.initial.affinity;
        let _ = sys!(
            SYS_sched_setaffinity,
            0,
            size_of_val(affinity),
            affinity.as_ptr()
        );
        let _ = sys!(SYS_umask, 0o022);
        let _ = sys!(SYS_munlockall);
        if let Memory::At(address) = FIXED {
            let _ = sys!(SYS_munmap, address, 1 << 20);
        }
        let _ = sys!(SYS_fchdir, ROOT);
        let _ = sys!(SYS_chroot, c".");
        if self.count > 0 {
            let last = self.directory.join((self.count - 1).to_string());
            let _ = std::fs::remove_dir_all(last);
        }
        self.arena.reset();
        self.objects.clear();
        self.made.clear();
        self.placed.clear();
    }

    fn lift_limits(&self) {
        for (resource, limit) in self.initial.limits.iter().enumerate() {
            let _ = sys!(SYS_prlimit64, 0, resource, limit.as_ptr(), 0);
        }
    }

    /// Performs an operation that others can name the result of, by a system call if there is one.
    pub fn prepare(&mut self, operation: &Operation, patience: &Patience) -> Outcome {
        let door = match operation.call {
            Some(_) => Door::Call,
            None => Door::Ring,
        };
        let outcome = self.perform(operation, door, patience);
        let made = match outcome.result {
            Some(Ok(value)) => value as i64,
            _ => -1,
        };
        self.made.push(made);
        outcome
    }

    /// Performs an operation through a door that it has.
    pub fn perform(&mut self, operation: &Operation, door: Door, patience: &Patience) -> Outcome {
        let calls = patience.meanwhile.iter();
        let calls = calls.filter_map(|operation| operation.call.as_ref());
        let calls = calls.map(|call| (call.signature.number, self.words(&call.args)));
        let calls: Vec<_> = calls.collect();
        // Descriptors are given in the same order whatever the door, and before anything waits.
        for arg in operation.call.iter().flat_map(|call| &call.args) {
            match arg {
                Arg::Object(object) => drop(self.descriptor(*object)),
                Arg::Memory(
                    Memory::Pollfd(arg, _) | Memory::Set(arg) | Memory::Descriptor(arg),
                ) => drop(self.word(arg)),
                Arg::Word(_) | Arg::Memory(_) => {}
            }
        }
        let act: Box<dyn FnOnce(&mut Self) -> Outcome> =
            match (door, &operation.call, &operation.batch) {
                (Door::Call, Some(call), _) => {
                    let words = self.words(&call.args);
                    Box::new(move |this| this.call(call, &words, patience))
                }
                (Door::Ring, _, Some(batch)) => {
                    let sqes: Vec<_> = batch.iter().map(|entry| self.sqe(entry)).collect();
                    Box::new(move |this| this.submit(batch, &sqes, patience))
                }
                _ => {
                    return Outcome {
                        text: "no such door".to_owned(),
                        ..Outcome::default()
                    };
                }
            };
        if calls.is_empty() {
            return act(self);
        }
        thread::scope(|scope| {
            scope.spawn(move || {
                signals::block();
                thread::sleep(MEANWHILE);
                for (number, words) in &calls {
                    // SAFETY: as in `call`.
                    let _ = unsafe { sys::call(*number, words) };
                }
            });
            act(self)
        })
    }

    fn words(&mut self, args: &[Arg]) -> Vec<i64> {
        args.iter().map(|arg| self.word(arg)).collect()
    }

    fn call(&mut self, call: &Call, words: &[i64], patience: &Patience) -> Outcome {
        if !patience.unwatched {
            watch(patience.time);
        }
        let start = Instant::now();
        // SAFETY: the arguments name memory of the arena, which nothing of Rust's is in, or are
        // meant to be refused; what else a call may change, a case undoes or chooses not to.
        let result = unsafe { sys::call(call.signature.number, words) };
        let time = start.elapsed();
        if !patience.unwatched {
            watch(Duration::ZERO);
        }
        let waited = result == Err(Errno(libc::EINTR))
            && !patience.unwatched
            && time >= patience.time.mul_f32(0.9);
        let text = match waited {
            true => "waits".to_owned(),
            false => told(result, call.signature.gives),
        };
        Outcome {
            text,
            result: Some(result),
            time,
        }
    }

    fn submit(&mut self, batch: &[Entry], sqes: &[Sqe], patience: &Patience) -> Outcome {
        let Some(ring) = &self.ring else {
            return Outcome::default();
        };
        for (index, sqe) in sqes.iter().enumerate() {
            ring.push(sqe.data(index as u64));
        }
        let start = Instant::now();
        let submitted = ring.submit();
        let mut text = String::new();
        let expected = match submitted {
            Ok(count) if count == batch.len() => count,
            other => {
                let _ = write!(text, "submitted {other:?} ");
                other.unwrap_or(0)
            }
        };
        let expected = patience.completions.unwrap_or(expected);
        let mut completions = Vec::new();
        let mut waits = false;
        while completions.len() < expected {
            if let Some(cqe) = ring.pop() {
                completions.push(cqe);
                continue;
            }
            let left = patience.time.saturating_sub(start.elapsed());
            let time = timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            match ring.wait_at_most(1, &time) {
                Ok(_) | Err(Errno(libc::EINTR)) => {}
                Err(_) if ring.ready() > 0 => {}
                Err(_) => {
                    waits = true;
                    break;
                }
            }
        }
        let time = start.elapsed();
        let _ = ring.enter(0, 0, linux_raw_sys::io_uring::IORING_ENTER_GETEVENTS);
        while let Some(cqe) = ring.pop() {
            completions.push(cqe);
        }
        if patience.in_order {
            completions.sort_by_key(|cqe| cqe.user_data);
        }
        let told: Vec<_> = completions
            .iter()
            .map(|cqe| completed(cqe, batch))
            .collect();
        text.push_str(&told.join(", "));
        if waits {
            text.push_str(if text.is_empty() { "waits" } else { ", waits" });
        }
        Outcome {
            text,
            result: completions.last().map(|cqe| Errno::from_result(cqe.res)),
            time,
        }
    }

    /// What can be seen of what operations have done, nothing of which depends on the machine.
    pub fn observe(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        let changed = self.placed.iter();
        seen.extend(changed.filter_map(|(memory, address)| observe::memory(memory, *address)));
        for (object, fd) in &self.objects {
            if let Some(text) = observe::object(*fd) {
                seen.push(format!("{} {text}", label(*object)));
            }
        }
        // Limits and rights of a case do not keep its traces from being read.
        let _ = sys!(SYS_setresuid, -1, 0, -1);
        self.lift_limits();
        let name = self.directory.join((self.count.max(1) - 1).to_string());
        let _ = std::env::set_current_dir(name);
        seen.extend(tree::changes(&self.before, &tree::look()));
        seen
    }

    /// The signals that have come; alarms only if they are wanted.
    pub fn signals(&self, with_alarms: bool) -> Vec<String> {
        signals::caught(with_alarms)
    }

    fn sqe(&mut self, entry: &Entry) -> Sqe {
        let fd = self.word(&entry.fd) as i32;
        let len = self.word(&entry.len) as u32;
        let file_index = self.word(&entry.file) as u32;
        let addr = self.word(&entry.addr) as u64;
        let off = self.word(&entry.off) as u64;
        let addr3 = self.word(&entry.addr3) as u64;
        Sqe {
            fd,
            addr,
            off,
            len,
            file_index,
            addr3,
            ..entry.sqe
        }
    }

    /// The register value of an argument.
    fn word(&mut self, arg: &Arg) -> i64 {
        match arg {
            Arg::Word(word) => *word,
            Arg::Object(object) => self.descriptor(*object).into(),
            Arg::Memory(memory) => self.address(memory),
        }
    }

    fn address(&mut self, memory: &Memory) -> i64 {
        let place = |this: &mut Self, bytes: &[u8]| {
            let address = this.arena.place(bytes.len());
            Arena::put(address, bytes);
            address
        };
        let address = match memory {
            Memory::At(address) => return *address,
            Memory::Room(length) | Memory::Opaque(length) => self.arena.place(*length),
            Memory::Record(record) => self.arena.place(record.size()),
            Memory::Bytes(bytes) => place(self, bytes),
            Memory::Words(words) => {
                let bytes: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                place(self, &bytes)
            }
            Memory::Descriptor(fd) => {
                let fd = self.word(fd) as i32;
                place(self, &fd.to_le_bytes())
            }
            Memory::Halves(halves) | Memory::Ring(halves) => {
                let bytes: Vec<_> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
                place(self, &bytes)
            }
            Memory::Edge(length) => Arena::edge(*length),
            Memory::BytesAtEdge(bytes) => {
                let address = Arena::edge(bytes.len());
                Arena::put(address, bytes);
                address
            }
            Memory::Word(index) => Arena::shared(*index),
            Memory::Vector(parts) => {
                let mut vectors = Vec::new();
                for (memory, length) in parts {
                    vectors.extend(self.address(memory).to_le_bytes());
                    vectors.extend(length.to_le_bytes());
                }
                place(self, &vectors)
            }
            Memory::Pollfd(fd, events) => {
                let mut bytes = (self.word(fd) as i32).to_le_bytes().to_vec();
                bytes.extend(events.to_le_bytes());
                bytes.extend([0; 2]);
                place(self, &bytes)
            }
            Memory::Set(fd) => {
                let bit = self.word(fd) as u32;
                place(self, &1_u64.checked_shl(bit).unwrap_or(0).to_le_bytes())
            }
            Memory::Struct(words) => {
                let mut bytes = Vec::new();
                for word in words {
                    bytes.extend(self.word(word).to_le_bytes());
                }
                place(self, &bytes)
            }
        };
        let is_known = |(_, known): &(Memory, usize)| *known == address;
        if !(matches!(memory, Memory::Word(_)) && self.placed.iter().any(is_known)) {
            self.placed.push((memory.clone(), address));
        }
        address as i64
    }

    /// The descriptor of an object, which is made if need be; -1 if it cannot be.
    fn descriptor(&mut self, object: Object) -> i32 {
        if let Some((_, fd)) = self.objects.iter().find(|(known, _)| *known == object) {
            return *fd;
        }
        let fd = match object {
            Object::Opened(path, flags) => {
                let mut path = path.as_bytes().to_vec();
                path.push(0);
                let opened = sys!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o644);
                opened.map_or(-1, |fd| fd as i32)
            }
            Object::PipeReader(flags) | Object::PipeWriter(flags) => {
                let mut ends = [-1_i32; 2];
                let _ = sys!(SYS_pipe2, ends.as_mut_ptr(), flags);
                self.objects.push((Object::PipeReader(flags), ends[0]));
                self.objects.push((Object::PipeWriter(flags), ends[1]));
                return ends[usize::from(object == Object::PipeWriter(flags))];
            }
            Object::Event(count, flags) => {
                sys!(SYS_eventfd2, count, flags).map_or(-1, |fd| fd as i32)
            }
            Object::Ring => {
                let mut parameters = crate::ring::params(0);
                let made = sys!(SYS_io_uring_setup, 4, &raw mut parameters);
                made.map_or(-1, |fd| fd as i32)
            }
            Object::SelfRing => {
                use std::os::fd::AsRawFd;
                return self.ring.as_ref().map_or(-1, |ring| ring.fd.as_raw_fd());
            }
            Object::Made(index) => return self.made.get(index).map_or(-1, |made| *made as i32),
        };
        self.objects.push((object, fd));
        fd
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Closes everything but the standard streams and the root.
fn close_others() {
    let _ = sys!(SYS_close_range, 3, ROOT - 1, 0);
    let _ = sys!(SYS_close_range, ROOT + 1, u32::MAX, 0);
}

/// Has the alarm come again and again after so much time; never, if that is none.
fn watch(time: Duration) {
    let micros = time.subsec_micros().into();
    let timer = [time.as_secs(), micros, time.as_secs(), micros];
    let _ = sys!(SYS_setitimer, libc::ITIMER_REAL, timer.as_ptr(), 0);
}

fn completed(cqe: &Cqe, batch: &[Entry]) -> String {
    let entry = batch.get(cqe.user_data as usize);
    let gives = entry.map_or(Gives::Number, |entry| entry.gives);
    let mut text = told(Errno::from_result(cqe.res), gives);
    if cqe.flags != 0 {
        let _ = write!(text, " flags {:#x}", cqe.flags);
    }
    match batch {
        [_] if cqe.user_data == 0 => text,
        _ => format!("{}: {text}", cqe.user_data),
    }
}

fn told(result: SysResult, gives: Gives) -> String {
    let value = match result {
        Err(error) => return error.to_string(),
        Ok(value) => value,
    };
    match gives {
        Gives::Number => value.to_string(),
        Gives::Opaque => "some number".to_owned(),
        Gives::Address => "an address".to_owned(),
        Gives::Fd => {
            let mut text = format!("descriptor {value}");
            if let Ok(libc::FD_CLOEXEC) = sys!(SYS_fcntl, value, libc::F_GETFD).map(|fd| fd as i32)
            {
                text.push_str(" cloexec");
            }
            if let Ok(flags) = sys!(SYS_fcntl, value, libc::F_GETFL) {
                let _ = write!(text, " flags {:#o}", flags as i32 & !O_CLOEXEC);
            }
            text
        }
    }
}

fn label(object: Object) -> String {
    match object {
        Object::Opened(path, _) => path.to_owned(),
        Object::PipeReader(_) | Object::PipeWriter(_) => "pipe".to_owned(),
        Object::Event(..) => "eventfd".to_owned(),
        Object::Ring | Object::SelfRing => "ring".to_owned(),
        Object::Made(index) => format!("made {index}"),
    }
}
