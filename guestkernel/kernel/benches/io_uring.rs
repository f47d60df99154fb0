//! What a request costs inside the kernel, in nanoseconds, without the system call around it:
//! `cargo bench -p kernel`. Numbers on the command line select batch sizes.

use kernel::error::Result;
use kernel::fs::{FdTable, FileOps, FsContext, Namespace, OpenFile, OpenFlags, WaitQueue};
use kernel::io::Io;
use kernel::io_uring::{Enter, create, enter};
use kernel::mm::{Access, AddressSpace, MapRequest};
use kernel::process::Process;
use linux_raw_sys::io_uring as raw;
use machine::{Frame, Plain};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

const ENTRIES: u32 = 256;
const TASK: u32 = 1;
const OPERATIONS: u32 = 2_000_000;

/// Reads that are done at once.
struct Instantly;

impl FileOps for Instantly {
    fn poll_io(&self, io: &mut Io, _: &mut Context<'_>) -> Poll<Result<usize>> {
        Poll::Ready(Ok(io.buffer.len()))
    }
}

/// Reads that wait until somebody lets them go on.
#[derive(Default)]
struct Later {
    waiting: WaitQueue,
    is_open: AtomicBool,
}

impl FileOps for Later {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        if self.is_open.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(io.buffer.len()));
        }
        self.waiting.register(context.waker());
        Poll::Pending
    }
}

/// A program with a ring full of the same SQE.
struct Program {
    process: Arc<Process>,
    fd: i32,
    params: raw::io_uring_params,
    control: Frame,
    later: Arc<Later>,
}

impl Program {
    fn new(opcode: raw::io_uring_op, fd: i32) -> Self {
        let space = AddressSpace::new().expect("memory");
        let files = Arc::new(FdTable::new());
        let later = Arc::new(Later::default());
        for ops in [Arc::new(Instantly) as Arc<dyn FileOps>, later.clone()] {
            let file = OpenFile::new(ops, OpenFlags::READ_WRITE);
            files.insert(file, false, 0).expect("descriptor");
        }
        let context = FsContext::new(Namespace::new());
        let process = Process::new(space.clone(), files.clone(), context);
        let mut params = raw::io_uring_params::zeroed();
        params.flags = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
        let file = create(&process, ENTRIES, &mut params, TASK).expect("ring");
        let source = file.ops.clone().page_source().expect("pages");
        let memory = MapRequest::anonymous(4096, Access::READ | Access::WRITE);
        let memory = space.map(memory).expect("memory");
        for index in 0..ENTRIES {
            let at = params.sq_off.array + 4 * index;
            let frame = source
                .page_now(u64::from(at / 4096), true)
                .expect("at once")
                .expect("page");
            frame
                .atomic_u32(at as usize % 4096)
                .store(index, Ordering::Relaxed);
            let at = raw::IORING_OFF_SQES + 64 * index;
            let frame = source
                .page_now(u64::from(at / 4096), true)
                .expect("at once")
                .expect("page");
            let at = at as usize % 4096;
            frame.write(at, &[opcode as u8]);
            frame.write(at + 4, &fd.to_le_bytes());
            frame.write(at + 16, &memory.to_le_bytes());
            frame.write(at + 24, &512_u32.to_le_bytes());
        }
        Self {
            control: source.page_now(0, true).expect("at once").expect("page"),
            fd: files.insert(file, true, 0).expect("descriptor"),
            process,
            params,
            later,
        }
    }

    fn add(&self, offset: u32, count: u32) {
        let word = self.control.atomic_u32(offset as usize);
        word.fetch_add(count, Ordering::Release);
    }

    fn enter(&self, to_submit: u32) {
        let call = enter(
            &self.process,
            TASK,
            self.fd,
            Enter {
                to_submit,
                min_complete: 0,
                flags: raw::IORING_ENTER_GETEVENTS,
                argument: 0,
                size: 0,
            },
        );
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(pin!(call).poll(&mut context), Poll::Ready(Ok(to_submit)));
    }

    /// Submits a batch and takes its CQEs.
    fn batch(&self, count: u32) {
        self.add(self.params.sq_off.tail, count);
        self.later.is_open.store(false, Ordering::Relaxed);
        self.enter(count);
        self.later.is_open.store(true, Ordering::Relaxed);
        self.later.waiting.wake_all();
        self.enter(0);
        self.add(self.params.cq_off.head, count);
    }
}

fn main() {
    let sizes: Vec<u32> = std::env::args().filter_map(|it| it.parse().ok()).collect();
    let sizes = if sizes.is_empty() {
        vec![1, 32, 128]
    } else {
        sizes
    };
    let kinds = [
        ("nop", raw::io_uring_op::IORING_OP_NOP, 0),
        ("read, done at once", raw::io_uring_op::IORING_OP_READ, 0),
        ("read, done later", raw::io_uring_op::IORING_OP_READ, 1),
    ];
    for (name, opcode, fd) in kinds {
        let program = Program::new(opcode, fd);
        for size in &sizes {
            let rounds = OPERATIONS / size / 10;
            let best = (0..10)
                .map(|_| {
                    let start = Instant::now();
                    (0..rounds).for_each(|_| program.batch(*size));
                    start.elapsed().as_nanos() as f64 / f64::from(rounds * size)
                })
                .fold(f64::INFINITY, f64::min);
            println!("{name}, batches of {size}: {best:.1} ns");
        }
    }
}
