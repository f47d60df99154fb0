//! What Ringlet itself writes to standard error: its messages and log, and the guest kernel's log.
//!
//! Standard error may be a pipe that nobody reads, and a write to it then waits for ever. So while a
//! VM runs a thread of its own writes, out of a queue; the event loop never waits for it, and what
//! finds the queue full is dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ringlet_devices::{Bucket, ThreadKind, Threads};
use serde_json::json;

use crate::outcome::{Ending, Outcome};
use crate::terminal;

/// Bytes that may wait for a slow reader.
const QUEUE_MAX: usize = 256 << 10;
/// Bytes that are written at a time, so that others who write there come in between.
const CHUNK: usize = 64 << 10;
/// How often somebody who waits for room looks whether to go on waiting.
const PATIENCE: Duration = Duration::from_millis(5);

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[repr(u8)]
pub enum Format {
    /// Lines for people
    #[default]
    Text,
    /// A JSON object for each line: time, level, source and message
    Json,
}

/// Whose message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Ringlet's own.
    Ringlet,
    /// The guest kernel's, on its serial port.
    Kernel,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Ringlet => "ringlet",
            Self::Kernel => "kernel",
        }
    }
}

/// Errors and warnings a second, and at once: a guest may provoke them.
const RECORDS_PER_SECOND: u64 = 20;
const RECORDS_AT_ONCE: u64 = 200;
/// Bytes of the guest kernel's log in all: a hostile one would fill the host's file system.
const KERNEL_LOG_MAX: u64 = 256 << 20;

static FORMAT: AtomicU8 = AtomicU8::new(Format::Text as u8);
static QUEUED: AtomicBool = AtomicBool::new(false);
static QUEUE: Queue = Queue {
    state: Mutex::new(State::new()),
    changed: Condvar::new(),
};

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

/// What is to be found out, and written, on the thread that may wait.
type Question = Box<dyn FnOnce() -> String + Send>;

struct State {
    bytes: Vec<u8>,
    questions: Vec<Question>,
    /// The thread has taken something that is not all written.
    is_writing: bool,
    /// Bytes that found no room.
    lost: u64,
}

impl State {
    const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            questions: Vec::new(),
            is_writing: false,
            lost: 0,
        }
    }

    fn is_idle(&self) -> bool {
        self.bytes.is_empty() && self.questions.is_empty() && self.lost == 0
    }

    fn has_room_for(&self, count: usize) -> bool {
        // One that is longer than the queue goes into an empty one.
        self.bytes.is_empty() || self.bytes.len() + count <= QUEUE_MAX
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, `patience` at most.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, patience: Duration) -> MutexGuard<'a, State> {
        let result = self.changed.wait_timeout(state, patience);
        result.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Writes what is queued, for ever.
    fn serve(&self) -> ! {
        let mut bytes = Vec::new();
        let mut state = self.lock();
        loop {
            if state.is_idle() {
                state.is_writing = false;
                self.changed.notify_all();
                let changed = self.changed.wait(state);
                state = changed.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let lost = std::mem::take(&mut state.lost);
            let questions = std::mem::take(&mut state.questions);
            bytes.append(&mut state.bytes);
            state.is_writing = true;
            self.changed.notify_all();
            drop(state);
            for chunk in bytes.chunks(CHUNK) {
                terminal::write_stderr(chunk);
            }
            bytes.clear();
            if lost > 0 {
                let text = format!("{lost} bytes of messages are lost: standard error was full");
                terminal::write_stderr(&line(Source::Ringlet, "warning", None, &text));
            }
            for question in questions {
                terminal::write_stderr(&lines(&question()));
            }
            state = self.lock();
        }
    }
}

/// Chooses how messages are written from now on.
pub fn set_format(format: Format) {
    FORMAT.store(format as u8, Ordering::Relaxed);
}

fn is_json() -> bool {
    FORMAT.load(Ordering::Relaxed) == Format::Json as u8
}

/// The thread's work: has messages queued from now on, and writes them. It never ends.
pub fn serve_queue() {
    QUEUED.store(true, Ordering::Release);
    QUEUE.serve();
}

/// Starts the thread that writes.
///
/// # Errors
///
/// The host denies the thread.
pub fn start_writer() -> io::Result<()> {
    let thread = std::thread::Builder::new().name("messages".to_owned());
    thread.spawn(serve_queue)?;
    // From here on nothing is written past the queue, which may come to be served a moment later.
    QUEUED.store(true, Ordering::Release);
    Ok(())
}

/// Confines the thread that writes, in front of what comes from now on. If it cannot be, the VM ends.
pub fn confine_writer(threads: &Threads, ending: &Arc<Ending>) {
    let (threads, ending) = (threads.clone(), Arc::clone(ending));
    print_answer(move || {
        if let Err(error) = threads.confine(ThreadKind::Messages) {
            ending.end(Outcome::Crash(format!(
                "a thread cannot be confined: {error}"
            )));
        }
        String::new()
    });
}

/// Waits until everything is written, for `limit` at most if there is one; whether it is.
pub fn flush(limit: Option<Duration>) -> bool {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut state = QUEUE.lock();
    while state.is_writing || !state.is_idle() {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        state = QUEUE.wait(state, PATIENCE);
    }
    true
}

/// Writes bytes as they are; never waits while a VM runs, but drops them where there is no room.
fn write(bytes: &[u8]) {
    if !QUEUED.load(Ordering::Acquire) {
        return terminal::write_stderr(bytes);
    }
    let mut state = QUEUE.lock();
    if state.has_room_for(bytes.len()) {
        state.bytes.extend_from_slice(bytes);
    } else {
        state.lost += bytes.len() as u64;
    }
    drop(state);
    QUEUE.changed.notify_all();
}

/// As [`write`], but waits for room until `give_up`.
fn write_patiently(bytes: &[u8], give_up: impl Fn() -> bool) {
    if QUEUED.load(Ordering::Acquire) {
        let mut state = QUEUE.lock();
        while !state.has_room_for(bytes.len()) && !give_up() {
            state = QUEUE.wait(state, PATIENCE);
        }
    }
    write(bytes);
}

/// A message for the user, of one or more lines, after `ringlet: `.
pub fn say(message: &str) {
    match is_json() {
        true => write(&line(Source::Ringlet, "error", None, message)),
        false => write(format!("ringlet: {message}\n").as_bytes()),
    }
}

/// A note for the user that is no error.
pub fn note(message: &str) {
    match is_json() {
        true => write(&line(Source::Ringlet, "info", None, message)),
        false => say(message),
    }
}

/// What is left out of the log, so that a guest cannot fill it.
struct Limiter {
    records: Option<Bucket>,
    left_out: u64,
}

static LIMITER: Mutex<Limiter> = Mutex::new(Limiter {
    records: None,
    left_out: 0,
});

impl Limiter {
    /// Whether another record may be written now; with how many were left out before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let records = self
            .records
            .get_or_insert_with(|| Bucket::new(RECORDS_PER_SECOND, RECORDS_AT_ONCE));
        match records.try_take(1, now) {
            true => Some(std::mem::take(&mut self.left_out)),
            false => {
                self.left_out += 1;
                None
            }
        }
    }
}

/// A record of Ringlet's own log. Of errors and warnings there are so many a second at most; what is
/// finer was asked for.
pub fn log(level: &str, target: &str, message: &str) {
    if matches!(level, "error" | "warning") {
        let mut limiter = LIMITER.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = limiter.admit(Instant::now());
        drop(limiter);
        match admitted {
            None => return,
            Some(0) => (),
            Some(count) => {
                let text = format!("{count} errors and warnings were left out: too many at a time");
                write(&line(Source::Ringlet, "warning", None, &text));
            }
        }
    }
    write(&line(Source::Ringlet, level, Some(target), message));
}

/// Text that the user asked for, lines with a newline at the end of each.
pub fn print(text: &str) {
    write(&lines(text));
}

/// As [`print`], of what `question` gives, which may take a while: nobody waits for it.
pub fn print_answer(question: impl FnOnce() -> String + Send + 'static) {
    if !QUEUED.load(Ordering::Acquire) {
        return print(&question());
    }
    QUEUE.lock().questions.push(Box::new(question));
    QUEUE.changed.notify_all();
}

fn lines(text: &str) -> Vec<u8> {
    match is_json() {
        true => text
            .lines()
            .flat_map(|text| line(Source::Ringlet, "info", None, text))
            .collect(),
        false => text.as_bytes().to_vec(),
    }
}

/// A line of the guest kernel's log, or a part of one. Waits for a slow reader until `give_up`.
/// What is more than the longest log is left out.
pub fn write_kernel_log(bytes: &[u8], give_up: impl Fn() -> bool) {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let count = bytes.len() as u64;
    let before = WRITTEN.fetch_add(count, Ordering::Relaxed);
    if before + count > KERNEL_LOG_MAX {
        if before <= KERNEL_LOG_MAX {
            say(&format!(
                "the guest kernel's log ends here: it is longer than {} MiB",
                KERNEL_LOG_MAX >> 20
            ));
        }
        return;
    }
    match is_json() {
        true => {
            let text = String::from_utf8_lossy(bytes);
            let text = text.trim_end_matches(['\n', '\r']);
            write_patiently(&line(Source::Kernel, "info", None, text), give_up);
        }
        false => write_patiently(bytes, give_up),
    }
}

/// One message as it is written, in the format that was chosen.
fn line(source: Source, level: &str, target: Option<&str>, message: &str) -> Vec<u8> {
    if !is_json() {
        return format!("ringlet: {level}: {message}\n").into_bytes();
    }
    let mut object = json!({
        "time": humantime::format_rfc3339_micros(SystemTime::now()).to_string(),
        "level": level,
        "source": source.name(),
        "message": message,
    });
    if let Some(target) = target {
        object["target"] = target.into();
    }
    // Bytes are appended to a Vec, which does not fail.
    let mut bytes = object.to_string().into_bytes();
    let _ = bytes.write_all(b"\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_no_more_but_an_empty_one_anything() {
        let mut state = State::new();
        assert!(state.has_room_for(2 * QUEUE_MAX));
        state.bytes.resize(QUEUE_MAX - 1, 0);
        assert!(state.has_room_for(1));
        assert!(!state.has_room_for(2));
    }

    #[test]
    fn of_many_records_some_are_left_out_and_counted() {
        let mut limiter = Limiter {
            records: None,
            left_out: 0,
        };
        let start = Instant::now();
        let admitted = (0..1000).filter(|_| limiter.admit(start).is_some()).count();
        assert_eq!(admitted as u64, RECORDS_AT_ONCE);
        let later = start + Duration::from_secs(1);
        assert_eq!(limiter.admit(later), Some(1000 - RECORDS_AT_ONCE));
        assert_eq!(limiter.admit(later), Some(0));
    }

    #[test]
    fn text_lines_name_ringlet_and_the_level() {
        let bytes = line(Source::Ringlet, "warning", Some("ringlet_vmm"), "a");
        assert_eq!(bytes, b"ringlet: warning: a\n");
    }
}
