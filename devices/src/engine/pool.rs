//! The engine for hosts that deny io_uring: preadv(2), pwritev(2), fdatasync(2) and fallocate(2), on as
//! many threads as there are operations in flight, up to a limit.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Completion, Engine, Operation};
use crate::poll;

/// Most threads: as many operations as the host can have at a time. They are started when they are
/// first needed.
const THREADS_MAX: usize = 64;
/// Bytes of a thread's stack, which holds a system call and little else.
const STACK: usize = 128 << 10;

/// An operation that was started, with its I/O vectors.
struct Work {
    slot: u16,
    operation: Operation,
    iovecs: *const libc::iovec,
    count: libc::c_int,
}

// SAFETY: whoever starts an operation keeps the vectors and what they point at valid until its
// completion is reported (`Engine::start`), on whatever thread it runs.
unsafe impl Send for Work {}

impl Work {
    /// Carries the operation out.
    fn run(&self) -> Completion {
        let (base, count) = (self.iovecs, self.count);
        // SAFETY: the vectors and what they point at are valid until the completion is reported; the
        // numbers are plain values that the kernel checks.
        let result = unsafe {
            match self.operation {
                Operation::Read { fd, offset } => libc::preadv(fd, base, count, offset as i64),
                Operation::Write { fd, offset } => libc::pwritev(fd, base, count, offset as i64),
                Operation::Append { fd } => libc::pwritev2(fd, base, count, 0, libc::RWF_APPEND),
                Operation::Sync { fd, metadata } => match metadata {
                    true => libc::fsync(fd) as isize,
                    false => libc::fdatasync(fd) as isize,
                },
                Operation::Allocate {
                    fd,
                    mode,
                    offset,
                    len,
                } => libc::fallocate(fd, mode, offset as i64, len as i64) as isize,
            }
        };
        let result = match result {
            -1 => -io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
            // No call moves more than 0x7ffff000 bytes.
            count => count as i32,
        };
        Completion {
            slot: self.slot,
            result,
        }
    }
}

/// What the worker and the pool's threads share.
struct Shared {
    state: Mutex<State>,
    /// There is work, or the end.
    work: Condvar,
    /// Completions that were not taken yet; looked at without the lock.
    finished: AtomicUsize,
    /// The worker is about to sleep, and wants `done` written to.
    is_waiting: AtomicBool,
    done: EventFd,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    finished: VecDeque<Completion>,
    is_closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.is_closed {
            let Some(work) = state.queue.pop_front() else {
                let woken = self.work.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let completion = work.run();
            state = self.lock();
            state.finished.push_back(completion);
            self.finished.fetch_add(1, Ordering::SeqCst);
            if self.is_waiting.swap(false, Ordering::SeqCst) {
                // It fails only when the counter is full, and then it is readable.
                let _ = self.done.write(1);
            }
        }
    }
}

/// Runs operations on threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    doorbells: Vec<EventFd>,
    stop: EventFd,
    /// What was started since the last flush.
    started: VecDeque<Work>,
    /// What the worker has run itself.
    finished: VecDeque<Completion>,
    /// Operations that threads were given and that are not reported yet.
    in_flight: usize,
    threads: usize,
}

impl Pool {
    /// An engine that `stop` wakes.
    ///
    /// # Errors
    ///
    /// Those of eventfd(2) and dup(2).
    pub(crate) fn new(stop: &EventFd) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                work: Condvar::new(),
                finished: AtomicUsize::new(0),
                is_waiting: AtomicBool::new(false),
                done: EventFd::new(EFD_NONBLOCK)?,
            }),
            doorbells: Vec::new(),
            stop: stop.try_clone()?,
            started: VecDeque::new(),
            finished: VecDeque::new(),
            in_flight: 0,
            threads: 0,
        })
    }

    /// Starts threads until there is one for each operation, or as many as there may be.
    ///
    /// # Errors
    ///
    /// The host denies the first one; with one the rest can wait.
    fn start_threads(&mut self) -> io::Result<()> {
        while self.threads < self.in_flight.min(THREADS_MAX) {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().stack_size(STACK);
            match thread.spawn(move || shared.serve()) {
                Ok(_) => self.threads += 1,
                Err(error) if self.threads == 0 => return Err(error),
                Err(error) => {
                    log::debug!("no thread for disk I/O beyond {}: {error}", self.threads);
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Engine for Pool {
    fn attach(&mut self, doorbells: Vec<EventFd>) {
        self.doorbells = doorbells;
    }

    fn detach(&mut self) -> io::Result<()> {
        self.doorbells.clear();
        Ok(())
    }

    unsafe fn start(
        &mut self,
        slot: u16,
        operation: Operation,
        iovecs: &[libc::iovec],
    ) -> io::Result<()> {
        self.started.push_back(Work {
            slot,
            operation,
            iovecs: iovecs.as_ptr(),
            count: iovecs.len() as libc::c_int,
        });
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.started.len() {
            0 => return Ok(()),
            // One that is alone is done sooner than a thread is woken.
            1 if self.in_flight == 0 => {
                let completions = self.started.drain(..).map(|work| work.run());
                self.finished.extend(completions);
                return Ok(());
            }
            count => self.in_flight += count,
        }
        self.start_threads()?;
        let count = self.started.len();
        self.shared.lock().queue.append(&mut self.started);
        match count {
            1 => self.shared.work.notify_one(),
            _ => self.shared.work.notify_all(),
        }
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        if let Some(completion) = self.finished.pop_front() {
            return Some(completion);
        }
        if self.shared.finished.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let finished = std::mem::take(&mut self.shared.lock().finished);
        self.shared
            .finished
            .fetch_sub(finished.len(), Ordering::SeqCst);
        self.in_flight -= finished.len();
        self.finished = finished;
        self.finished.pop_front()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.doorbells.is_empty() {
            return Ok(());
        }
        self.shared.is_waiting.store(true, Ordering::SeqCst);
        // Whoever finishes after this look sees the flag.
        if self.finished.is_empty() && self.shared.finished.load(Ordering::SeqCst) == 0 {
            let others = [&self.stop, &self.shared.done];
            poll::any_readable(self.doorbells.iter().chain(others), timeout)?;
            for doorbell in &self.doorbells {
                // EAGAIN says that another one woke us.
                let _ = doorbell.read();
            }
        }
        self.shared.is_waiting.store(false, Ordering::SeqCst);
        let _ = self.shared.done.read();
        Ok(())
    }
}

impl Drop for Pool {
    /// The threads end by themselves: nobody waits for one whose file hangs.
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.work.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::time::Instant;

    const PAGE: usize = 4096;
    const DEPTH: usize = 32;

    /// Memory whose pages are not there before the test provides them (userfaultfd(2)): who writes
    /// there waits until then.
    struct SlowMemory {
        start: usize,
        faults: File,
    }

    impl SlowMemory {
        fn new() -> Self {
            const API: [u64; 3] = [0xaa, 0, 0];
            let length = DEPTH * PAGE;
            // SAFETY: a new mapping, and a new descriptor that is nobody else's.
            let (start, faults) = unsafe {
                let start = libc::mmap(
                    std::ptr::null_mut(),
                    length,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
                assert_ne!(start, libc::MAP_FAILED);
                let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
                assert!(fd >= 0, "{}", io::Error::last_os_error());
                (start as usize, File::from_raw_fd(fd as i32))
            };
            let memory = Self { start, faults };
            memory.order(0xc018_aa3f, &mut API.clone());
            const MISSING: u64 = 1;
            memory.order(0xc020_aa00, &mut [start as u64, length as u64, MISSING, 0]);
            memory
        }

        fn order(&self, request: libc::c_ulong, argument: &mut [u64]) {
            // SAFETY: the argument has the size that the request says.
            let result =
                unsafe { libc::ioctl(self.faults.as_raw_fd(), request, argument.as_mut_ptr()) };
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
        }

        /// Waits until somebody waits for each of the pages.
        fn await_all_faults(&mut self) {
            let mut pages = HashSet::new();
            while pages.len() < DEPTH {
                let mut message = [0; 32];
                self.faults.read_exact(&mut message).unwrap();
                let address: [u8; 8] = message[16..24].try_into().unwrap();
                pages.insert(u64::from_ne_bytes(address) as usize / PAGE);
            }
        }

        fn provide(&self) {
            let length = (DEPTH * PAGE) as u64;
            self.order(0xc020_aa04, &mut [self.start as u64, length, 0, 0]);
        }
    }

    #[test]
    fn all_operations_are_in_flight_at_once() {
        let mut memory = SlowMemory::new();
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.set_len((DEPTH * PAGE) as u64).unwrap();
        let stop = EventFd::new(EFD_NONBLOCK).unwrap();
        let mut pool = Pool::new(&stop).unwrap();
        pool.attach(vec![EventFd::new(EFD_NONBLOCK).unwrap()]);
        let iovecs: Vec<_> = (0..DEPTH)
            .map(|index| {
                [libc::iovec {
                    iov_base: (memory.start + index * PAGE) as *mut libc::c_void,
                    iov_len: PAGE,
                }]
            })
            .collect();
        for (slot, iovecs) in (0..).zip(&iovecs) {
            let operation = Operation::Read {
                fd: file.as_raw_fd(),
                offset: u64::from(slot) * PAGE as u64,
            };
            // SAFETY: vectors and memory live until all completions are taken below.
            unsafe { pool.start(slot, operation, iovecs).unwrap() };
        }
        pool.flush().unwrap();
        memory.await_all_faults();
        assert!(pool.next_completion().is_none());
        memory.provide();
        let start = Instant::now();
        let mut slots = HashSet::new();
        while slots.len() < DEPTH {
            while let Some(completion) = pool.next_completion() {
                assert_eq!(completion.result, PAGE as i32);
                assert!(slots.insert(completion.slot));
            }
            pool.wait(Some(Duration::from_millis(100))).unwrap();
            assert!(start.elapsed() < crate::testing::DEADLINE);
        }
        assert_eq!(pool.in_flight, 0);
    }
}
