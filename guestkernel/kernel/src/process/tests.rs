//! Programs are loaded and run on the hosted machine, where a closure plays the program.

mod children;
mod threads;

use super::exec::{find, load};
use super::*;
use crate::error::{Errno, Result};
use crate::executor::{self, block_on};
use crate::fs::{Answer, FdTable, FsContext, Namespace, View};
use crate::mm::{Access, AddressSpace, MapRequest, PAGE, PageSource};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use linux_raw_sys::{auxvec, general as raw};
use machine::hosted::set_program_in;
use machine::{Frame, PageFault, Trap, UserContext};

/// A name space with files in its root directory.
struct World {
    files: Arc<FdTable>,
    fs: Arc<FsContext>,
}

impl World {
    fn new(files: &[(&str, u32, &[u8])]) -> Self {
        let namespace = Namespace::in_memory().0;
        let world = Self {
            files: Arc::new(FdTable::new()),
            fs: FsContext::new(namespace),
        };
        for (name, mode, contents) in files {
            world.add(name, *mode, contents);
        }
        world
    }

    fn view(&self) -> View<'_> {
        View {
            files: &self.files,
            context: &self.fs,
        }
    }

    fn add(&self, name: &str, mode: u32, contents: &[u8]) {
        use crate::fs::OpenHow;
        use crate::io::{Direction, Io, IoFlags};
        use crate::mm::IoBuffer;
        let flags = raw::O_CREAT | raw::O_WRONLY;
        block_on(async {
            let how = OpenHow::new(flags, mode).unwrap();
            let view = self.view();
            let file = view
                .open(raw::AT_FDCWD, name.as_bytes(), how)
                .await
                .unwrap();
            let buffer = IoBuffer::Kernel(contents.to_vec());
            let mut io = Io::new(Direction::Write, None, buffer, IoFlags::empty());
            assert_eq!(file.complete(&mut io).await, Ok(contents.len()));
        });
    }

    fn load(&self, path: &str, arguments: &[&str]) -> Result<exec::Program> {
        let arguments = arguments
            .iter()
            .map(|arg| arg.as_bytes().to_vec())
            .collect();
        let environment = [b"HOME=/".to_vec()];
        let given = exec::Given {
            arguments,
            environment: &environment,
            ids: [0; 4],
            stack: STACK_LIMIT,
        };
        block_on(load(
            self.view(),
            exec::Source::path(path.as_bytes()),
            given,
        ))
    }
}

const BASE: u64 = 0x40_0000;
const CODE: &[u8] = b"\x0f\x05code";

/// An ELF program: the headers and the code in one segment, data with zeros behind it in another.
pub(crate) fn elf(kind: u16, interpreter: Option<&str>) -> Vec<u8> {
    let base = if kind == 2 { BASE } else { 0 };
    let mut image = vec![0; 3 * PAGE as usize];
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &kind.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(24, &(base + 0x800).to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &(2 + interpreter.is_some() as u16).to_le_bytes());
    let mut header = |index: usize, kind: u32, flags: u32, fields: [u64; 6]| {
        let at = 64 + index * 56;
        put(at, &kind.to_le_bytes());
        put(at + 4, &flags.to_le_bytes());
        for (index, field) in fields.iter().enumerate() {
            put(at + 8 + index * 8, &field.to_le_bytes());
        }
    };
    header(0, 1, 5, [0, base, base, 0x1000, 0x1000, 0x1000]);
    let data = base + 0x5010;
    header(1, 1, 6, [0x1010, data, data, 0x20, 0x3000, 0x1000]);
    if let Some(name) = interpreter {
        header(2, 3, 4, [0x900, 0, 0, name.len() as u64 + 1, 0, 1]);
        put(0x900, name.as_bytes());
    }
    put(0x800, CODE);
    put(0x1010, b"initialised data");
    // What follows the data in the file must not show in memory.
    put(0x1030, &[0xee; 100]);
    image
}

fn word(space: &AddressSpace, address: u64) -> u64 {
    space.read_value(address).unwrap()
}

/// The auxiliary vector of a loaded program.
fn auxiliary(program: &exec::Program) -> Vec<(u64, u64)> {
    let mut at = program.context.registers.rsp;
    let argc = word(&program.space, at);
    at += 8 * (argc + 2);
    while word(&program.space, at) != 0 {
        at += 8;
    }
    let mut entries = Vec::new();
    loop {
        at += 8;
        let tag = word(&program.space, at);
        at += 8;
        if tag == 0 {
            return entries;
        }
        entries.push((tag, word(&program.space, at)));
    }
}

fn value(program: &exec::Program, tag: u32) -> u64 {
    let entries = auxiliary(program);
    entries
        .iter()
        .find(|entry| entry.0 == tag.into())
        .unwrap()
        .1
}

#[test]
fn a_static_program_is_where_it_says() {
    let world = World::new(&[("prog", 0o755, &elf(2, None))]);
    let program = world.load("/prog", &["prog", "two"]).unwrap();
    let space = &program.space;
    assert_eq!(program.context.registers.rip, BASE + 0x800);
    let mut code = [0; CODE.len()];
    space.read(BASE + 0x800, &mut code).unwrap();
    assert_eq!(code, CODE);
    assert_eq!(space.write(BASE, b"x"), Err(Errno::EFAULT));
    let mut data = [0; 16];
    space.read(BASE + 0x5010, &mut data).unwrap();
    assert_eq!(&data, b"initialised data");
    for offset in [0x5030, 0x5fff, 0x6000, 0x800f] {
        assert_eq!(space.read_value::<u8>(BASE + offset), Ok(0), "{offset:#x}");
    }
    space.write(BASE + 0x8000, b"x").unwrap();
    assert_eq!(value(&program, auxvec::AT_ENTRY), BASE + 0x800);
    assert_eq!(value(&program, auxvec::AT_PHDR), BASE + 64);
    assert_eq!(value(&program, auxvec::AT_PHNUM), 2);
    assert_eq!(value(&program, auxvec::AT_BASE), 0);
    // The heap begins after the last page of data.
    let heap = space.set_break(0, u64::MAX);
    assert!(heap >= BASE + 0x9000 && heap.is_multiple_of(PAGE));
    assert_eq!(&program.name[..5], b"prog\0");
}

#[test]
fn the_stack_is_laid_out_as_the_abi_says() {
    let world = World::new(&[("prog", 0o755, &elf(2, None))]);
    let program = world.load("/prog", &["first", ""]).unwrap();
    let space = &program.space;
    let stack = program.context.registers.rsp;
    assert!(stack.is_multiple_of(16));
    assert_eq!(word(space, stack), 2);
    let string = |address| space.read_string(address, 100).unwrap();
    assert_eq!(string(word(space, stack + 8)), b"first");
    assert_eq!(string(word(space, stack + 16)), b"");
    assert_eq!(word(space, stack + 24), 0);
    assert_eq!(string(word(space, stack + 32)), b"HOME=/");
    assert_eq!(word(space, stack + 40), 0);
    assert_eq!(string(value(&program, auxvec::AT_EXECFN)), b"/prog");
    assert_eq!(string(value(&program, auxvec::AT_PLATFORM)), b"x86_64");
    assert_ne!(value(&program, auxvec::AT_RANDOM), 0);
    assert_eq!(value(&program, auxvec::AT_PAGESZ), 4096);
    // There is room to grow, but not without end.
    space.write(stack - (4 << 20), b"x").unwrap();
    assert_eq!(space.write(stack - (9 << 20), b"x"), Err(Errno::EFAULT));
}

#[test]
fn a_relocatable_program_is_moved_as_a_whole() {
    let world = World::new(&[("pie", 0o755, &elf(3, None))]);
    let program = world.load("pie", &["pie"]).unwrap();
    let base = program.context.registers.rip - 0x800;
    assert!(base >= 0x5555_5555_4000 && base.is_multiple_of(PAGE));
    assert_eq!(value(&program, auxvec::AT_PHDR), base + 64);
    let data = base + 0x5010;
    assert_eq!(program.space.read_value::<u8>(data), Ok(b'i'));
}

#[test]
fn an_interpreter_starts_in_place_of_its_program() {
    let world = World::new(&[
        ("prog", 0o755, &elf(3, Some("/ld"))),
        ("ld", 0o755, &elf(3, None)),
        ("bad", 0o755, &elf(3, Some("/prog-text"))),
        ("prog-text", 0o755, &[b'x'; 100]),
        ("lost", 0o755, &elf(3, Some("/nothing"))),
    ]);
    let program = world.load("/prog", &["prog"]).unwrap();
    let base = value(&program, auxvec::AT_BASE);
    assert_eq!(program.context.registers.rip, base + 0x800);
    assert_ne!(value(&program, auxvec::AT_ENTRY), base + 0x800);
    assert_eq!(value(&program, auxvec::AT_PHNUM), 3);
    let error = |path| world.load(path, &["x"]).err();
    assert_eq!(error("/bad"), Some(Errno::ELIBBAD));
    assert_eq!(error("/lost"), Some(Errno::ENOENT));
}

#[test]
fn a_script_runs_its_interpreter() {
    let world = World::new(&[
        ("prog", 0o755, &elf(2, None)),
        ("script", 0o755, b"#! /prog  -x y\nrest"),
        ("outer", 0o755, b"#!/script\n"),
        ("loop", 0o755, b"#!/loop\n"),
    ]);
    let program = world.load("/script", &["ignored", "last"]).unwrap();
    let stack = program.context.registers.rsp;
    let argument = |index: u64| {
        let address = word(&program.space, stack + 8 + index * 8);
        program.space.read_string(address, 100).unwrap()
    };
    assert_eq!(word(&program.space, stack), 4);
    assert_eq!(argument(0), b"/prog");
    assert_eq!(argument(1), b"-x y");
    assert_eq!(argument(2), b"/script");
    assert_eq!(argument(3), b"last");
    assert!(world.load("/outer", &["x"]).is_ok());
    assert_eq!(world.load("/loop", &["x"]).err(), Some(Errno::ELOOP));
}

#[test]
fn what_is_no_program_is_refused() {
    let mut truncated = elf(2, None);
    truncated.truncate(100);
    let mut insane = elf(2, None);
    // The first segment's size in memory is less than that in the file.
    insane[64 + 40..64 + 48].copy_from_slice(&1_u64.to_le_bytes());
    let mut huge = elf(2, None);
    huge[64 + 40..64 + 48].copy_from_slice(&u64::MAX.to_le_bytes());
    let world = World::new(&[
        ("text", 0o755, b"echo hello\n"),
        ("empty", 0o755, b""),
        ("plain", 0o644, &elf(2, None)),
        ("truncated", 0o755, &truncated),
        ("insane", 0o755, &insane),
        ("huge", 0o755, &huge),
    ]);
    let error = |path| world.load(path, &["x"]).err();
    assert_eq!(error("/text"), Some(Errno::ENOEXEC));
    assert_eq!(error("/empty"), Some(Errno::ENOEXEC));
    assert_eq!(error("/plain"), Some(Errno::EACCES));
    assert_eq!(error("/"), Some(Errno::EACCES));
    assert_eq!(error("/truncated"), Some(Errno::ENOEXEC));
    assert_eq!(error("/insane"), Some(Errno::EINVAL));
    assert_eq!(error("/huge"), Some(Errno::EINVAL));
    assert_eq!(error("/missing"), Some(Errno::ENOENT));
}

#[test]
fn no_damaged_header_makes_the_loader_panic() {
    let image = elf(3, Some("/ld"));
    for offset in 0..64 + 3 * 56 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut image = image.clone();
            image[offset] = value;
            let world = World::new(&[("prog", 0o755, &image), ("ld", 0o755, &elf(3, None))]);
            let _ = world.load("/prog", &["prog"]);
        }
    }
}

#[test]
fn too_many_arguments_are_refused() {
    let world = World::new(&[("prog", 0o755, &elf(2, None))]);
    let long = "x".repeat(128 << 10);
    assert_eq!(world.load("/prog", &[&long]).err(), Some(Errno::E2BIG));
    let string = "x".repeat(1 << 10);
    let many = vec![string.as_str(); 2100];
    assert_eq!(world.load("/prog", &many).err(), Some(Errno::E2BIG));
    assert!(world.load("/prog", &many[..100]).is_ok());
}

#[test]
fn a_program_is_looked_for_in_path() {
    let world = World::new(&[("plain", 0o644, b"x"), ("prog", 0o755, &elf(2, None))]);
    let find = |name: &str, path: &str| {
        let environment = [[b"PATH=", path.as_bytes()].concat()];
        block_on(find(world.view(), name.as_bytes(), &environment))
    };
    assert_eq!(find("prog", "/nothing:/"), Ok(b"//prog".to_vec()));
    assert_eq!(find("prog", "/nothing:"), Ok(b"prog".to_vec()));
    assert_eq!(find("/prog", "/x"), Ok(b"/prog".to_vec()));
    assert_eq!(find("prog", "/prog:/nothing"), Err(Errno::ENOENT));
    assert_eq!(find("plain", "/"), Err(Errno::EACCES));
    assert_eq!(find("", "/"), Err(Errno::ENOENT));
}

/// Runs a first thread until its process has ended.
fn run_to_end(thread: Thread) -> ExitStatus {
    let process = thread.process.clone();
    thread.start();
    block_on(process.ended())
}

/// A process whose program is `program`, which is given the address of a page that it may use.
fn run(
    mut program: impl FnMut(&mut UserContext, u64) -> Trap + Send + 'static,
) -> (ExitStatus, u64) {
    let world = World::new(&[]);
    let space = AddressSpace::new().unwrap();
    let access = Access::READ | Access::WRITE;
    let page = space.map(MapRequest::anonymous(PAGE, access)).unwrap();
    let process = Process::new(space, world.files, world.fs);
    let thread = Thread::new(
        process.clone(),
        UserContext::new(0, 0),
        [0; 16],
        crate::thread_loop::run,
    );
    let started = machine::clock::monotonic();
    let root = process.space.root();
    set_program_in(root, Box::new(move |context| program(context, page)));
    let status = run_to_end(thread);
    (status, machine::clock::monotonic() - started)
}

fn call(context: &mut UserContext, number: u32, arguments: &[u64]) -> Trap {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let registers = &mut context.registers;
    registers.rax = number.into();
    [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
        registers.r9,
    ] = all;
    Trap::Syscall
}

/// Runs system calls one after the other and returns their results.
fn results(calls: &'static [(u32, &'static [u64])]) -> (ExitStatus, Vec<i64>) {
    use machine::lock::Mutex;
    let results = Arc::new(Mutex::new(Vec::new()));
    let seen = results.clone();
    let mut next = 0;
    let (status, _) = run(move |context, _| {
        if next > 0 {
            seen.lock().push(context.registers.rax as i64);
        }
        next += 1;
        match calls.get(next - 1) {
            Some((number, arguments)) => call(context, *number, arguments),
            None => call(context, raw::__NR_exit_group, &[0]),
        }
    });
    let results = results.lock().clone();
    (status, results)
}

#[test]
fn a_program_ends_as_it_says() {
    let (status, _) = run(|context, _| call(context, raw::__NR_exit_group, &[0x1_2345]));
    assert_eq!(status, ExitStatus::Exited(0x45));
}

#[test]
fn system_calls_return_values_and_negated_errors() {
    let (status, results) = results(&[
        (raw::__NR_getpid, &[]),
        (raw::__NR_getppid, &[]),
        (raw::__NR_ptrace, &[]),
        (9999, &[]),
        (raw::__NR_kill, &[77, 0]),
        (raw::__NR_munmap, &[1, 2]),
    ]);
    assert_eq!(status, ExitStatus::Exited(0));
    assert_eq!(results, [1, 0, -38, -38, -3, -22]);
}

#[test]
fn faults_are_resolved_or_end_the_program() {
    let fault = |address, is_write| {
        Trap::PageFault(PageFault {
            address,
            is_write,
            is_fetch: false,
            is_present: false,
        })
    };
    let mut steps = 0;
    let (status, _) = run(move |_, page| {
        steps += 1;
        match steps {
            1 => fault(page, true),
            _ => fault(8, false),
        }
    });
    assert_eq!(status, ExitStatus::Signaled(11));
}

#[test]
fn running_out_of_memory_ends_the_program() {
    struct Exhausted;
    impl PageSource for Exhausted {
        fn page(&self, _: u64, _: bool) -> Answer<'_, machine::Frame> {
            Errno::ENOMEM.into()
        }
    }
    let world = World::new(&[]);
    let space = AddressSpace::new().unwrap();
    let access = Access::READ | Access::WRITE;
    let mapping = MapRequest::shared(Arc::new(Exhausted), 0, PAGE, access);
    let page = space.map(mapping).unwrap();
    let process = Process::new(space, world.files, world.fs);
    let thread = Thread::new(
        process,
        UserContext::new(0, 0),
        [0; 16],
        crate::thread_loop::run,
    );
    // The kernel needs the page, in place of the program.
    let program = Box::new(move |context: &mut _| call(context, raw::__NR_time, &[page]));
    set_program_in(thread.process.space.root(), program);
    assert_eq!(run_to_end(thread), ExitStatus::Signaled(9));
}

/// A page that is there only when it was waited for.
struct SlowPage(Frame, AtomicBool);

impl SlowPage {
    fn map() -> (Arc<AddressSpace>, u64) {
        let source = Self(Frame::zeroed().unwrap(), AtomicBool::new(false));
        let space = AddressSpace::new().unwrap();
        let access = Access::READ | Access::WRITE;
        let mapping = MapRequest::shared(Arc::new(source), 0, PAGE, access);
        let page = space.map(mapping).unwrap();
        (space, page)
    }
}

impl PageSource for SlowPage {
    fn page(&self, _: u64, _: bool) -> Answer<'_, Frame> {
        Answer::later(async {
            executor::yield_now().await;
            self.1.store(true, Ordering::Relaxed);
            Ok(self.0.clone())
        })
    }

    fn page_now(&self, _: u64, _: bool) -> Option<Result<Frame>> {
        let is_there = self.1.load(Ordering::Relaxed);
        is_there.then(|| Ok(self.0.clone()))
    }
}

#[test]
fn a_program_waits_for_pages_and_system_calls_do() {
    for calls_first in [false, true] {
        let world = World::new(&[]);
        let (space, page) = SlowPage::map();
        let process = Process::new(space, world.files, world.fs);
        let thread = Thread::new(
            process,
            UserContext::new(0, 0),
            [0; 16],
            crate::thread_loop::run,
        );
        let space = thread.process.space.clone();
        let mut step = 0;
        let program = Box::new(move |context: &mut _| {
            step += 1;
            match step {
                1 if calls_first => call(context, raw::__NR_time, &[page]),
                1 => Trap::PageFault(PageFault {
                    address: page,
                    is_write: true,
                    is_fetch: false,
                    is_present: false,
                }),
                _ => {
                    let time: u64 = space.read_value(page).unwrap();
                    assert_eq!(time > 0, calls_first);
                    call(context, raw::__NR_exit_group, &[0])
                }
            }
        });
        set_program_in(thread.process.space.root(), program);
        assert_eq!(run_to_end(thread), ExitStatus::Exited(0));
    }
}

#[test]
fn exceptions_end_the_program_by_their_signals() {
    for (vector, signal) in [(0, 8), (6, 4), (3, 5), (13, 11), (17, 7)] {
        let (status, _) = run(move |_, _| Trap::Exception { vector, code: 0 });
        assert_eq!(status, ExitStatus::Signaled(signal), "vector {vector}");
    }
}

#[test]
fn signals_to_itself_do_what_they_do_by_default() {
    let (status, results) = results(&[
        (raw::__NR_kill, &[1, 17]),
        (raw::__NR_tgkill, &[1, 1, 6]),
        (raw::__NR_getpid, &[]),
    ]);
    assert_eq!(status, ExitStatus::Signaled(6));
    assert_eq!(results, [0]);
}

#[test]
fn an_alarm_ends_a_program_that_waits_for_ever() {
    let mut steps = 0;
    let (status, took) = run(move |context, page| {
        steps += 1;
        match steps {
            // The page holds zeros: no alarm.
            1 => call(context, raw::__NR_setitimer, &[0, page, 0]),
            2 => {
                assert_eq!(context.registers.rax, 0);
                call(context, raw::__NR_alarm, &[1])
            }
            _ => call(context, raw::__NR_pause, &[]),
        }
    });
    assert_eq!(status, ExitStatus::Signaled(14));
    assert!(took >= 1_000_000_000);
}

#[test]
fn the_state_of_a_system_call_is_small() {
    use crate::syscall::{Args, dispatch};
    let world = World::new(&[]);
    let process = Process::new(AddressSpace::new().unwrap(), world.files, world.fs);
    let mut thread = Thread::new(
        process,
        UserContext::new(0, 0),
        [0; 16],
        crate::thread_loop::run,
    );
    let size = size_of_val(&dispatch(&mut thread, 0, Args::default()));
    assert!(size <= 2048, "{size} bytes");
}
