//! The io_uring engine: operations, doorbells and stop event all complete in one ring.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use vmm_sys_util::eventfd::EventFd;

use super::{Completion, Engine, Operation};
use crate::Statistics;

/// Room for what is started between two flushes.
const ENTRIES: u32 = 512;

/// User data of the polls, the doorbells' by their place; slots have theirs below.
const STOP: u64 = 1 << 16;
/// User data of an order to forget a poll.
const FORGET: u64 = STOP + 1;
const DOORBELLS: u64 = FORGET + 1;

/// The longest sleep where the ring cannot wait for a time.
const NAP: Duration = Duration::from_millis(1);

/// All that the ring can be used for.
const OPCODES: [u8; 8] = [
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
    opcode::PollAdd::CODE,
    opcode::PollRemove::CODE,
];

/// Whether the host lets this process use io_uring.
pub fn has_io_uring() -> bool {
    IoUring::new(1).is_ok()
}

/// Whether the host's rings can be restricted to some operations (Linux 5.10).
pub fn has_restrictions() -> bool {
    let ring = IoUring::builder().setup_r_disabled().build(1);
    ring.and_then(|ring| restrict(&ring)).is_ok()
}

/// Allows `ring`, which is disabled, the operations in [`OPCODES`] and nothing else, and enables it:
/// for the calling thread, where rings know whose they are.
fn restrict(ring: &IoUring) -> io::Result<()> {
    let mut restrictions = OPCODES.map(Restriction::sqe_op);
    ring.submitter().register_restrictions(&mut restrictions)?;
    ring.submitter().register_enable_rings()
}

/// One ring for one worker thread, which must be the one that made it.
pub(crate) struct Uring {
    ring: IoUring,
    statistics: Arc<Statistics>,
    /// Each with whether a poll waits for it.
    doorbells: Vec<(EventFd, bool)>,
    stop: EventFd,
    stop_armed: bool,
}

impl Uring {
    /// A ring that `stop` wakes.
    ///
    /// # Errors
    ///
    /// The host denies io_uring (ENOSYS, EPERM) or the memory for it.
    pub(crate) fn new(stop: &EventFd, statistics: Arc<Statistics>) -> io::Result<Self> {
        // Completions wait until this thread enters the kernel or looks: no interrupts to it.
        let ring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(ENTRIES)
            .or_else(|error| match error.raw_os_error() {
                // A kernel before 6.0 does not know all of the flags.
                Some(libc::EINVAL) => IoUring::builder().setup_r_disabled().build(ENTRIES),
                _ => Err(error),
            });
        let ring = match ring {
            Ok(ring) => {
                restrict(&ring)?;
                ring
            }
            // A kernel before 5.10 knows none of them.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(ENTRIES)?,
            Err(error) => return Err(error),
        };
        Ok(Self {
            ring,
            statistics,
            doorbells: Vec::new(),
            stop: stop.try_clone()?,
            stop_armed: false,
        })
    }

    /// What is in the queue is about to be given to the host.
    fn count_enter(&mut self) {
        self.statistics.ring_enters.add(1);
        let queued = self.ring.submission().len();
        self.statistics.ring_submissions.add(queued as u64);
    }

    /// # Safety
    ///
    /// As for [`Engine::start`].
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        self.flush()?;
        // SAFETY: passed on to the caller.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))
    }
}

fn poll_entry(event: &EventFd, user_data: u64) -> squeue::Entry {
    opcode::PollAdd::new(types::Fd(event.as_raw_fd()), libc::POLLIN as u32)
        .build()
        .user_data(user_data)
}

/// Success for what only says: try again.
fn unless_interrupted(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        // Completions must be taken first (EBUSY), memory is short for now (EAGAIN), or the time is
        // over (ETIME).
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EBUSY | libc::EAGAIN | libc::ETIME)
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Engine for Uring {
    fn attach(&mut self, doorbells: Vec<EventFd>) {
        self.doorbells = doorbells.into_iter().map(|event| (event, false)).collect();
    }

    fn detach(&mut self) -> io::Result<()> {
        for place in 0..self.doorbells.len() {
            if self.doorbells[place].1 {
                let forget = opcode::PollRemove::new(DOORBELLS + place as u64).build();
                // SAFETY: it has no memory arguments.
                unsafe { self.push(&forget.user_data(FORGET))? };
            }
        }
        while self.doorbells.iter().any(|(_, is_armed)| *is_armed) {
            unless_interrupted(self.ring.submit_and_wait(1))?;
            // Of operations none is in flight.
            while self.next_completion().is_some() {}
        }
        self.doorbells.clear();
        Ok(())
    }

    unsafe fn start(
        &mut self,
        slot: u16,
        operation: Operation,
        iovecs: &[libc::iovec],
    ) -> io::Result<()> {
        let (base, count) = (iovecs.as_ptr(), iovecs.len() as u32);
        let entry = match (operation, iovecs) {
            (Operation::Read { fd, offset }, [one]) if u32::try_from(one.iov_len).is_ok() => {
                opcode::Read::new(types::Fd(fd), one.iov_base.cast(), one.iov_len as u32)
                    .offset(offset)
                    .build()
            }
            (Operation::Write { fd, offset }, [one]) if u32::try_from(one.iov_len).is_ok() => {
                opcode::Write::new(types::Fd(fd), one.iov_base.cast(), one.iov_len as u32)
                    .offset(offset)
                    .build()
            }
            (Operation::Read { fd, offset }, _) => opcode::Readv::new(types::Fd(fd), base, count)
                .offset(offset)
                .build(),
            (Operation::Write { fd, offset }, _) => opcode::Writev::new(types::Fd(fd), base, count)
                .offset(offset)
                .build(),
            (Operation::Append { fd }, _) => opcode::Writev::new(types::Fd(fd), base, count)
                .rw_flags(libc::RWF_APPEND)
                .build(),
            (Operation::Sync { fd, metadata }, _) => opcode::Fsync::new(types::Fd(fd))
                .flags(match metadata {
                    true => types::FsyncFlags::empty(),
                    false => types::FsyncFlags::DATASYNC,
                })
                .build(),
            (
                Operation::Allocate {
                    fd,
                    mode,
                    offset,
                    len,
                },
                _,
            ) => opcode::Fallocate::new(types::Fd(fd), len)
                .offset(offset)
                .mode(mode)
                .build(),
        };
        // SAFETY: the caller keeps the vectors and what they point at valid.
        unsafe { self.push(&entry.user_data(slot.into())) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let submission = self.ring.submission();
        let idle = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        if idle {
            return Ok(());
        }
        self.count_enter();
        unless_interrupted(self.ring.submit())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion().next()?;
            match entry.user_data() {
                STOP => self.stop_armed = false,
                FORGET => (),
                slot @ ..STOP => {
                    self.statistics.ring_completions.add(1);
                    return Some(Completion {
                        slot: slot as u16,
                        result: entry.result(),
                    });
                }
                doorbell => {
                    let place = (doorbell - DOORBELLS) as usize;
                    if let Some((doorbell, is_armed)) = self.doorbells.get_mut(place) {
                        *is_armed = false;
                        // EAGAIN says that it was read already.
                        let _ = doorbell.read();
                    }
                }
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.stop_armed {
            let poll = poll_entry(&self.stop, STOP);
            // SAFETY: a poll has no memory arguments; the event lives as long as the ring.
            unsafe { self.push(&poll)? };
            self.stop_armed = true;
        }
        for place in 0..self.doorbells.len() {
            let (doorbell, is_armed) = &self.doorbells[place];
            if *is_armed {
                continue;
            }
            let poll = poll_entry(doorbell, DOORBELLS + place as u64);
            // SAFETY: a poll has no memory arguments; the poll is forgotten before the doorbell is.
            unsafe { self.push(&poll)? };
            self.doorbells[place].1 = true;
        }
        self.count_enter();
        let Some(timeout) = timeout else {
            return unless_interrupted(self.ring.submit_and_wait(1));
        };
        if !self.ring.params().is_feature_ext_arg() {
            // A kernel before 5.11 waits without an end only.
            thread::sleep(timeout.min(NAP));
            return self.flush();
        }
        let timeout = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&timeout);
        unless_interrupted(self.ring.submitter().submit_with_args(1, &arguments))
    }
}
