//! Rings: whatever a program writes into the memory of a ring and submits, the kernel does not panic, and
//! no page frame is lost when the process is gone.
#![no_main]

use kernel::executor;
use kernel::file::{MountFlags, OpenFile, OpenFlags};
use kernel::fs::{EventFd, FdTable, FsContext, Namespace, View, tmpfs};
use kernel::io_uring::{Enter, create, enter};
use kernel::mm::{Access, AddressSpace, MapRequest};
use kernel::process::Process;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use linux_raw_sys::io_uring as raw;
use machine::{Frame, PAGE_SIZE, Plain};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

const ENTRIES: u32 = 8;
const TASK: u32 = 1;
/// Bytes of memory that the program has.
const MEMORY: u64 = 4 * PAGE_SIZE as u64;
/// Requests with a time may ask for years, in which no clock stands still.
const OPCODES: u8 = 64;

#[derive(Arbitrary, Debug)]
struct Input {
    setup: u32,
    steps: Vec<Step>,
}

/// What a program does.
#[derive(Arbitrary, Debug)]
enum Step {
    /// Queues an entry; its address is in the program's memory, unless it is wild.
    Submit {
        opcode: u8,
        flags: u8,
        fd: u8,
        rest: [u64; 6],
        is_wild: bool,
    },
    /// Writes a word of the ring's memory, which is the program's, too.
    Ring(u16, u32),
    /// Writes to its own memory: iovecs, times.
    Memory(u16, [u64; 2]),
    /// Calls `io_uring_enter(2)`.
    Enter {
        count: u8,
        flags: u32,
        argument: u16,
    },
    /// Lets the kernel work.
    Wait,
}

struct Program {
    process: Arc<Process>,
    space: Arc<AddressSpace>,
    fd: i32,
    memory: u64,
    params: raw::io_uring_params,
    pages: Vec<Frame>,
    entries: Vec<Frame>,
    tail: u32,
}

impl Program {
    fn new(setup: u32) -> Option<Self> {
        let space = AddressSpace::new().ok()?;
        let files = Arc::new(FdTable::new());
        let root = tmpfs::in_memory(0o755);
        let mount = tmpfs::mount(&tmpfs::TYPE, &root, b"none", MountFlags::empty());
        let context = FsContext::new(Namespace::new(mount));
        let view = View {
            files: &files,
            context: &context,
        };
        let (reader, writer) = view.pipe(OpenFlags::empty()).ok()?;
        let event = OpenFile::new(Arc::new(EventFd::new(1, false)), OpenFlags::READ_WRITE);
        for file in [reader, writer, event] {
            files.insert(file, false, 0).ok()?;
        }
        let process = Process::new(space.clone(), files.clone(), context);
        let mut params = raw::io_uring_params::zeroed();
        params.flags = setup;
        params.cq_entries = 2 * ENTRIES;
        let file = create(&process, ENTRIES, &mut params, TASK).ok()?;
        let source = file.ops.clone().page_source().ok()?;
        let page = |index| source.page_now(index, true)?.ok();
        let entries = u64::from(raw::IORING_OFF_SQES) / PAGE_SIZE as u64;
        let request = MapRequest::anonymous(MEMORY, Access::READ | Access::WRITE);
        Some(Self {
            fd: files.insert(file.clone(), false, 0).ok()?,
            memory: space.map(request).ok()?,
            pages: (0..).map_while(page).collect(),
            entries: (entries..).map_while(page).collect(),
            tail: 0,
            process,
            space,
            params,
        })
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Submit {
                opcode,
                flags,
                fd,
                rest,
                is_wild,
            } => {
                let mut entry = [0; 64];
                entry[..2].copy_from_slice(&[opcode % OPCODES, flags]);
                entry[4] = fd % 8;
                for (bytes, word) in entry[8..].chunks_exact_mut(8).zip(rest) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                if !is_wild {
                    let address = self.memory + rest[1] % MEMORY;
                    entry[16..24].copy_from_slice(&address.to_le_bytes());
                    let length = (rest[2] % MEMORY) as u32;
                    entry[24..28].copy_from_slice(&length.to_le_bytes());
                }
                let at = (self.tail % ENTRIES) as usize * 64;
                if let Some(frame) = self.entries.get(at / PAGE_SIZE) {
                    frame.write(at % PAGE_SIZE, &entry);
                }
                let array = self.params.sq_off.array + 4 * (self.tail % ENTRIES);
                self.set_word(array, self.tail % ENTRIES);
                self.tail = self.tail.wrapping_add(1);
                self.set_word(self.params.sq_off.tail, self.tail);
            }
            Step::Ring(at, value) => self.set_word(u32::from(at), value),
            Step::Memory(at, words) => {
                let at = self.memory + u64::from(at) % MEMORY;
                // The last words may not fit.
                let _ = self.space.write_value(at, &words[0]);
                let _ = self.space.write_value(at + 8, &words[1]);
            }
            Step::Enter {
                count,
                flags,
                argument,
            } => {
                let call = enter(
                    &self.process,
                    TASK,
                    self.fd,
                    Enter {
                        to_submit: count.into(),
                        min_complete: 0,
                        flags,
                        argument: self.memory + u64::from(argument) % MEMORY,
                        size: 24,
                    },
                );
                // One that waits is given up, as at a signal.
                let _ = pin!(call).poll(&mut Context::from_waker(Waker::noop()));
            }
            Step::Wait => _ = executor::poll(),
        }
    }

    fn set_word(&self, at: u32, value: u32) {
        let at = at as usize & !3;
        if let Some(frame) = self.pages.get(at / PAGE_SIZE) {
            frame.write(at % PAGE_SIZE, &value.to_le_bytes());
        }
    }
}

fuzz_target!(|input: Input| {
    let Some(mut program) = Program::new(input.setup) else {
        return;
    };
    for step in input.steps {
        program.take(step);
    }
    drop(program);
    while executor::poll() {}
});
