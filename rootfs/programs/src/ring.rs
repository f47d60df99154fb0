//! A ring by hand: set-up, the shared memory, entries, and the calls.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::check::Failure;
use crate::sys;
use crate::sys::{Errno, Mapping, SysResult, owned};
use libc::{iovec, timespec};
use linux_raw_sys::io_uring::{
    IORING_ENTER_EXT_ARG, IORING_ENTER_GETEVENTS, IORING_OFF_SQ_RING, IORING_OFF_SQES,
    IORING_SETUP_CQE32, IORING_SETUP_NO_SQARRAY, IORING_SETUP_SQE128, io_uring_getevents_arg,
    io_uring_op, io_uring_params,
};

/// An operation that no Linux has.
pub const UNKNOWN_OPCODE: u8 = 250;
/// How long a check waits for a completion before it fails.
const PATIENCE: timespec = timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A submission queue entry (`struct io_uring_sqe`), with the names of `io_uring_enter(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sqe {
    /// `IORING_OP_*`.
    pub opcode: u8,
    /// `IOSQE_*`.
    pub flags: u8,
    /// Priority, or flags of some operations.
    pub ioprio: u16,
    /// Descriptor, or index of a fixed file.
    pub fd: i32,
    /// Position, or what the operation says.
    pub off: u64,
    /// Address of a buffer, path or iovecs.
    pub addr: u64,
    /// Length or count.
    pub len: u32,
    /// `rw_flags`, `fsync_flags`, `timeout_flags`, `cancel_flags`, `nop_flags`.
    pub op_flags: u32,
    /// What the program knows the request by.
    pub user_data: u64,
    /// Fixed buffer, or group of buffers.
    pub buf_index: u16,
    /// Whose credentials.
    pub personality: u16,
    /// Fixed slot plus one, or the other descriptor of a splice.
    pub file_index: u32,
    /// A third address.
    pub addr3: u64,
    /// Nothing, or attributes.
    pub pad: u64,
}

const _: () = assert!(size_of::<Sqe>() == 64);

impl Sqe {
    /// An entry of nothing but its operation.
    pub fn new(opcode: io_uring_op) -> Self {
        Self {
            opcode: opcode as u8,
            ..Self::default()
        }
    }

    /// `NOP`.
    pub fn nop() -> Self {
        Self::new(io_uring_op::IORING_OP_NOP)
    }

    /// An operation that no Linux has.
    pub fn unknown() -> Self {
        Self {
            opcode: UNKNOWN_OPCODE,
            ..Self::default()
        }
    }

    fn transfer(opcode: io_uring_op, fd: i32, addr: u64, len: usize, off: u64) -> Self {
        Self {
            fd,
            off,
            addr,
            len: len as u32,
            ..Self::new(opcode)
        }
    }

    /// `READ`.
    pub fn read(fd: &impl AsRawFd, buffer: &mut [u8], off: u64) -> Self {
        let addr = buffer.as_mut_ptr().addr() as u64;
        let opcode = io_uring_op::IORING_OP_READ;
        Self::transfer(opcode, fd.as_raw_fd(), addr, buffer.len(), off)
    }

    /// `WRITE`.
    pub fn write(fd: &impl AsRawFd, buffer: &[u8], off: u64) -> Self {
        let addr = buffer.as_ptr().addr() as u64;
        let opcode = io_uring_op::IORING_OP_WRITE;
        Self::transfer(opcode, fd.as_raw_fd(), addr, buffer.len(), off)
    }

    /// `READV`.
    pub fn readv(fd: &impl AsRawFd, vectors: &[iovec], off: u64) -> Self {
        let addr = vectors.as_ptr().addr() as u64;
        let opcode = io_uring_op::IORING_OP_READV;
        Self::transfer(opcode, fd.as_raw_fd(), addr, vectors.len(), off)
    }

    /// `WRITEV`.
    pub fn writev(fd: &impl AsRawFd, vectors: &[iovec], off: u64) -> Self {
        Self {
            opcode: io_uring_op::IORING_OP_WRITEV as u8,
            ..Self::readv(fd, vectors, off)
        }
    }

    /// A `READ_FIXED` or, by [`into_write`](Self::into_write), `WRITE_FIXED`.
    pub fn read_fixed(fd: &impl AsRawFd, buffer: &mut [u8], off: u64, index: u16) -> Self {
        Self {
            opcode: io_uring_op::IORING_OP_READ_FIXED as u8,
            buf_index: index,
            ..Self::read(fd, buffer, off)
        }
    }

    /// A `READ_FIXED` as `WRITE_FIXED`.
    pub fn into_write(self) -> Self {
        Self {
            opcode: io_uring_op::IORING_OP_WRITE_FIXED as u8,
            ..self
        }
    }

    /// `FSYNC`.
    pub fn fsync(fd: &impl AsRawFd) -> Self {
        Self {
            fd: fd.as_raw_fd(),
            ..Self::new(io_uring_op::IORING_OP_FSYNC)
        }
    }

    /// `CLOSE`.
    pub fn close(fd: i32) -> Self {
        Self {
            fd,
            ..Self::new(io_uring_op::IORING_OP_CLOSE)
        }
    }

    /// `TIMEOUT`.
    pub fn timeout(time: &timespec, count: u64) -> Self {
        Self {
            fd: -1,
            off: count,
            addr: std::ptr::from_ref(time).addr() as u64,
            len: 1,
            ..Self::new(io_uring_op::IORING_OP_TIMEOUT)
        }
    }

    /// `ASYNC_CANCEL` by `user_data`.
    pub fn cancel(user_data: u64, flags: u32) -> Self {
        Self {
            fd: -1,
            addr: user_data,
            op_flags: flags,
            ..Self::new(io_uring_op::IORING_OP_ASYNC_CANCEL)
        }
    }

    /// With that `user_data`.
    pub fn data(self, user_data: u64) -> Self {
        Self { user_data, ..self }
    }

    /// With these `IOSQE_*`.
    pub fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    /// With these flags of the operation.
    pub fn op_flags(self, op_flags: u32) -> Self {
        Self { op_flags, ..self }
    }

    /// With that descriptor.
    pub fn fd(self, fd: i32) -> Self {
        Self { fd, ..self }
    }
}

/// A completion queue entry (`struct io_uring_cqe`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cqe {
    /// What the program knows the request by.
    pub user_data: u64,
    /// The operation's result, an error negated.
    pub res: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

/// Parameters of a set-up with these `IORING_SETUP_*`.
pub fn params(flags: u32) -> io_uring_params {
    // SAFETY: a structure of integers, for which zeros are valid.
    let mut params: io_uring_params = unsafe { std::mem::zeroed() };
    params.flags = flags;
    params
}

/// `io_uring_setup(2)`.
pub fn setup(entries: u32, params: &mut io_uring_params) -> SysResult<OwnedFd> {
    sys!(SYS_io_uring_setup, entries, &raw mut *params).map(owned)
}

/// `io_uring_register(2)`.
pub fn register<T>(fd: &OwnedFd, opcode: u32, argument: *const T, count: u32) -> SysResult {
    sys!(SYS_io_uring_register, fd, opcode, argument, count)
}

/// A ring and its mappings.
pub struct Ring {
    /// Its descriptor.
    pub fd: OwnedFd,
    /// What the kernel said of it.
    pub params: io_uring_params,
    rings: Mapping,
    sqes: Mapping,
}

impl Ring {
    /// A ring without flags.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_setup(2)` and `mmap(2)`.
    pub fn new(entries: u32) -> SysResult<Self> {
        Self::with(entries, params(0))
    }

    /// A ring with these `IORING_SETUP_*`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn flagged(entries: u32, flags: u32) -> SysResult<Self> {
        Self::with(entries, params(flags))
    }

    /// A ring with these parameters.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with(entries: u32, mut params: io_uring_params) -> SysResult<Self> {
        let fd = setup(entries, &mut params)?;
        let rings = Mapping::shared(&fd, rings_size(&params), IORING_OFF_SQ_RING.into())?;
        let is_wide = params.flags & IORING_SETUP_SQE128 != 0;
        let sqe_size = size_of::<Sqe>() << u32::from(is_wide);
        let sqes = params.sq_entries as usize * sqe_size;
        let sqes = Mapping::shared(&fd, sqes, IORING_OFF_SQES.into())?;
        Ok(Self {
            fd,
            params,
            rings,
            sqes,
        })
    }

    /// A ring with these parameters, in memory of the program: of the rings, and of the entries.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_setup(2)`.
    pub fn in_memory(
        entries: u32,
        mut params: io_uring_params,
        rings: Mapping,
        sqes: Mapping,
    ) -> SysResult<Self> {
        let fd = setup(entries, &mut params)?;
        Ok(Self {
            fd,
            params,
            rings,
            sqes,
        })
    }

    /// Maps the rings as they are since the kernel has said `params` of them.
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)`.
    pub fn map_again(&mut self, params: io_uring_params) -> SysResult<()> {
        self.params = io_uring_params {
            flags: self.params.flags,
            ..params
        };
        let size = rings_size(&self.params);
        self.rings = Mapping::shared(&self.fd, size, IORING_OFF_SQ_RING.into())?;
        let sqes = self.params.sq_entries as usize * self.sqe_size();
        self.sqes = Mapping::shared(&self.fd, sqes, IORING_OFF_SQES.into())?;
        Ok(())
    }

    /// `IORING_CQ_*`, which the program sets.
    pub fn cq_flags(&self) -> &AtomicU32 {
        self.word(self.params.cq_off.flags)
    }

    /// Bytes of a submission queue entry.
    fn sqe_size(&self) -> usize {
        match self.params.flags & IORING_SETUP_SQE128 {
            0 => size_of::<Sqe>(),
            _ => 2 * size_of::<Sqe>(),
        }
    }

    /// Bytes of a completion queue entry.
    fn cqe_size(&self) -> usize {
        match self.params.flags & IORING_SETUP_CQE32 {
            0 => size_of::<Cqe>(),
            _ => 2 * size_of::<Cqe>(),
        }
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the offsets are the kernel's, of words inside the mapping, which lives as long
        // as `self`; kernel and program access them atomically.
        unsafe { AtomicU32::from_ptr(self.rings.at(offset as usize).cast()) }
    }

    /// The entry that the kernel takes next.
    pub fn sq_head(&self) -> u32 {
        self.word(self.params.sq_off.head).load(Ordering::Acquire)
    }

    /// The entry that the program writes next.
    pub fn sq_tail(&self) -> &AtomicU32 {
        self.word(self.params.sq_off.tail)
    }

    /// `IORING_SQ_*`.
    pub fn sq_flags(&self) -> u32 {
        self.word(self.params.sq_off.flags).load(Ordering::Acquire)
    }

    /// Entries that the index array got wrong.
    pub fn sq_dropped(&self) -> u32 {
        self.word(self.params.sq_off.dropped)
            .load(Ordering::Acquire)
    }

    /// Completions that were lost.
    pub fn cq_overflow(&self) -> u32 {
        self.word(self.params.cq_off.overflow)
            .load(Ordering::Acquire)
    }

    /// Completions that wait in the ring.
    pub fn ready(&self) -> u32 {
        let tail = self.word(self.params.cq_off.tail).load(Ordering::Acquire);
        tail.wrapping_sub(self.word(self.params.cq_off.head).load(Ordering::Relaxed))
    }

    /// Writes entry `index` of the array of entries, without submitting it.
    pub fn place(&self, index: u32, sqe: Sqe) {
        let index = index & (self.params.sq_entries - 1);
        let slot = self.sqes.at(index as usize * self.sqe_size());
        // SAFETY: the slot is inside the mapping, and the kernel reads it only in `enter`.
        unsafe { slot.cast::<Sqe>().write_volatile(sqe) };
    }

    /// Writes the next word of the index array.
    pub fn point(&self, position: u32, index: u32) {
        let position = position & (self.params.sq_entries - 1);
        self.word(self.params.sq_off.array + 4 * position)
            .store(index, Ordering::Relaxed);
    }

    /// Queues an entry; there must be room.
    pub fn push(&self, sqe: Sqe) {
        let tail = self.sq_tail().load(Ordering::Relaxed);
        let index = tail & (self.params.sq_entries - 1);
        self.place(index, sqe);
        if self.params.flags & IORING_SETUP_NO_SQARRAY == 0 {
            self.point(tail, index);
        }
        self.sq_tail()
            .store(tail.wrapping_add(1), Ordering::Release);
    }

    /// Queued entries that the kernel has not taken.
    pub fn queued(&self) -> u32 {
        let tail = self.sq_tail().load(Ordering::Relaxed);
        tail.wrapping_sub(self.sq_head())
    }

    /// `io_uring_enter(2)` without the last two arguments.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)`.
    pub fn enter(&self, submit: u32, wait: u32, flags: u32) -> SysResult {
        sys!(SYS_io_uring_enter, &self.fd, submit, wait, flags, 0, 0)
    }

    /// Submits everything that is queued.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)`.
    pub fn submit(&self) -> SysResult {
        self.enter(self.queued(), 0, 0)
    }

    /// The next completion, if there is one.
    pub fn pop(&self) -> Option<Cqe> {
        if self.ready() == 0 {
            return None;
        }
        let head = self.word(self.params.cq_off.head);
        let at = head.load(Ordering::Relaxed);
        let index = at & (self.params.cq_entries - 1);
        let offset = self.params.cq_off.cqes as usize + index as usize * self.cqe_size();
        // SAFETY: the entry is inside the mapping, and the kernel is done with it.
        let cqe = unsafe { self.rings.at(offset).cast::<Cqe>().read_volatile() };
        head.store(at.wrapping_add(1), Ordering::Release);
        Some(cqe)
    }

    /// The next completion, or what takes a place in the ring, as it lies there: its second half is
    /// what comes behind.
    pub fn pop_wide(&self) -> Option<(Cqe, [u64; 2])> {
        let head = self.word(self.params.cq_off.head).load(Ordering::Relaxed);
        let cqe = self.pop()?;
        let index = head & (self.params.cq_entries - 1);
        let offset = self.params.cq_off.cqes as usize + index as usize * self.cqe_size();
        let behind = self.rings.at(offset + size_of::<Cqe>());
        // SAFETY: the rings are mapped to the end of a page, and behind the last entry, which is at a
        // multiple of its size, there is more of that.
        let extra = unsafe { behind.cast::<[u64; 2]>().read_volatile() };
        Some((cqe, extra))
    }

    /// Waits for one completion; a kernel that gives none fails the check with `ETIME`.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)`.
    pub fn next(&self) -> SysResult<Cqe> {
        loop {
            if let Some(cqe) = self.pop() {
                return Ok(cqe);
            }
            self.wait_at_most(1, &PATIENCE)?;
        }
    }

    /// Waits for `count` completions, in their order.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)`.
    pub fn take(&self, count: usize) -> SysResult<Vec<Cqe>> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Waits until `count` completions are there or the time is over.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)`.
    pub fn wait_at_most(&self, count: u32, time: &timespec) -> SysResult {
        let argument = io_uring_getevents_arg {
            sigmask: 0,
            sigmask_sz: 0,
            min_wait_usec: 0,
            ts: std::ptr::from_ref(time).addr() as u64,
        };
        self.wait_with(count, &argument)
    }

    /// Waits as an extended argument says.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)`.
    pub fn wait_with(&self, count: u32, argument: &io_uring_getevents_arg) -> SysResult {
        sys!(
            SYS_io_uring_enter,
            &self.fd,
            0,
            count,
            IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
            std::ptr::from_ref(argument),
            size_of::<io_uring_getevents_arg>()
        )
    }

    /// Queues and submits the entries, numbered from 0, and gives a result for each number.
    ///
    /// Those that no completion came for have none; nothing may come for others.
    ///
    /// # Errors
    ///
    /// [`Failure`] if something else completes.
    pub fn results(&self, sqes: &[Sqe], wanted: usize) -> Result<Vec<Option<i32>>, Failure> {
        for (index, sqe) in sqes.iter().enumerate() {
            self.push(sqe.data(index as u64));
        }
        let submitted = self.submit()?;
        if submitted != sqes.len() {
            let why = format!("{submitted} of {} entries submitted", sqes.len());
            return Err(Failure::new(why));
        }
        let mut results = vec![None; sqes.len()];
        for cqe in self.take(wanted)? {
            match results.get_mut(cqe.user_data as usize) {
                Some(result @ None) => *result = Some(cqe.res),
                _ => return Err(Failure::new(format!("unexpected {cqe:?}"))),
            }
        }
        self.nothing_left()?;
        Ok(results)
    }

    /// The numbers of the entries in the order in which they complete.
    ///
    /// # Errors
    ///
    /// [`Failure`] if something else completes.
    pub fn order(&self, sqes: &[Sqe]) -> Result<Vec<u64>, Failure> {
        for (index, sqe) in sqes.iter().enumerate() {
            self.push(sqe.data(index as u64));
        }
        self.submit()?;
        let order = self.take(sqes.len())?;
        self.nothing_left()?;
        Ok(order.iter().map(|cqe| cqe.user_data).collect())
    }

    /// The result of one entry.
    ///
    /// # Errors
    ///
    /// [`Failure`] if something else completes.
    #[track_caller]
    pub fn result(&self, sqe: Sqe) -> Result<SysResult, Failure> {
        let sqe = sqe.data(0xfeed_0000_beef_0000);
        self.push(sqe);
        let submitted = self.submit()?;
        let cqe = self.next()?;
        if submitted != 1 || cqe.user_data != sqe.user_data || cqe.flags != 0 {
            return Err(Failure::new(format!("submitted {submitted}, got {cqe:?}")));
        }
        self.nothing_left()?;
        Ok(Errno::from_result(cqe.res))
    }

    /// Fails if a completion is there that nobody waits for.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)`.
    pub fn nothing_left(&self) -> Result<(), Failure> {
        self.enter(0, 0, IORING_ENTER_GETEVENTS)?;
        match self.pop() {
            None => Ok(()),
            Some(cqe) => Err(Failure::new(format!("unexpected {cqe:?}"))),
        }
    }
}

fn rings_size(params: &io_uring_params) -> usize {
    let is_wide = params.flags & IORING_SETUP_CQE32 != 0;
    let cqe_size = (size_of::<Cqe>() as u32) << u32::from(is_wide);
    let cqes = params.cq_off.cqes + params.cq_entries * cqe_size;
    let array = if params.flags & IORING_SETUP_NO_SQARRAY == 0 {
        params.sq_off.array + params.sq_entries * 4
    } else {
        0
    };
    cqes.max(array) as usize
}

/// A time span for timeouts.
pub fn milliseconds(count: i64) -> timespec {
    timespec {
        tv_sec: count / 1000,
        tv_nsec: count % 1000 * 1_000_000,
    }
}

/// An iovec of these bytes.
pub fn vector(bytes: &mut [u8]) -> iovec {
    iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// Fails the check unless the entry completes with that count: `gives!(ring, 3, sqe)`.
#[macro_export]
macro_rules! gives {
    ($ring:expr, $count:expr, $sqe:expr) => {
        $crate::expect_eq!($ring.result($sqe)?, Ok($count))
    };
}

/// Fails the check unless the entry completes with that error: `refuses!(ring, EBADF, sqe)`.
#[macro_export]
macro_rules! refuses {
    ($ring:expr, $errno:ident, $sqe:expr) => {
        $crate::expect_eq!($ring.result($sqe)?, Err($crate::sys::Errno(libc::$errno)))
    };
}

pub use crate::{gives, refuses};
