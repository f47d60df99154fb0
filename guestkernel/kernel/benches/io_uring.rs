//! What a request costs inside the kernel, in nanoseconds, without the system call around it:
//! `cargo bench -p kernel --bench io_uring`. Numbers on the command line select batch sizes,
//! `only=TEXT` the kinds whose name has the text in it; `count=NUMBER` says how many requests are made
//! of each. Callgrind, which counts what a time hides, wants few:
//! `valgrind --tool=callgrind --toggle-collect='*Program*batch*'`.

use kernel::drivers::{block_file::BlockFile, probe};
use kernel::error::Result;
use kernel::executor::poll_devices;
use kernel::fs::{
    DeviceNumber, FdTable, FileOps, FsContext, Namespace, OpenFile, OpenFlags, WaitQueue,
};
use kernel::io::Io;
use kernel::io_uring::{Enter, create, enter};
use kernel::mm::{Access, AddressSpace, MapRequest};
use kernel::process::Process;
use linux_raw_sys::io_uring as raw;
use machine::hosted::{device::SimulatedDevice, models::SimulatedDisk};
use machine::{Frame, Plain};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

const ENTRIES: u32 = 256;
const TASK: u32 = 1;
const OPERATIONS: u32 = 2_000_000;
/// Times that they are measured, of which the best counts.
const TRIES: u32 = 10;

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

/// The descriptor of the disk, and the bytes of a read of it.
const DISK: i32 = 2;
const BLOCK: u32 = 4096;

type Disk = SimulatedDevice<SimulatedDisk>;

/// A program with a ring full of the same SQE.
struct Program {
    disk: Arc<Disk>,
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
        let (disk, address) = SimulatedDevice::attach(SimulatedDisk::numbered(8));
        disk.pause(true);
        let found = probe(&format!("virtio_mmio.device=4K@{address:#x}:9"));
        let block = found.blocks.first().expect("disk").clone();
        let block = Arc::new(BlockFile::new(block, DeviceNumber::new(254, 0)));
        let file = OpenFile::new(block, OpenFlags::READ_WRITE | OpenFlags::DIRECT);
        files.insert(file, false, 0).expect("descriptor");
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
            let length = if fd == DISK { BLOCK } else { 512 };
            frame.write(at + 24, &length.to_le_bytes());
        }
        Self {
            disk,
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
    #[inline(never)]
    fn batch(&self, count: u32) {
        self.add(self.params.sq_off.tail, count);
        self.later.is_open.store(false, Ordering::Relaxed);
        self.enter(count);
        self.later.is_open.store(true, Ordering::Relaxed);
        self.later.waiting.wake_all();
        self.disk.process();
        poll_devices();
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
    let argument = |name| std::env::args().find_map(|it| Some(it.strip_prefix(name)?.to_owned()));
    let operations = argument("count=").and_then(|count| count.parse().ok());
    let operations: u32 = operations.unwrap_or(OPERATIONS);
    let only = argument("only=").unwrap_or_default();
    let kinds = [
        ("nop", raw::io_uring_op::IORING_OP_NOP, 0),
        ("read, done at once", raw::io_uring_op::IORING_OP_READ, 0),
        ("read, done later", raw::io_uring_op::IORING_OP_READ, 1),
        ("read of a disk", raw::io_uring_op::IORING_OP_READ, DISK),
    ];
    for (name, opcode, fd) in kinds.into_iter().filter(|kind| kind.0.contains(&only)) {
        let program = Program::new(opcode, fd);
        for size in &sizes {
            let rounds = (operations / size / TRIES).max(1);
            let best = (0..TRIES)
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
