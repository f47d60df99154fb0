//! Threads of a process. The closure that plays the program tells them apart by their stack
//! pointers.

use super::{World, call, run_to_end};
use crate::mm::{Access, AddressSpace, MapRequest, PAGE};
use crate::process::{ExitStatus, Process, Thread};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as raw;
use machine::hosted::set_program_in;
use machine::lock::Mutex;
use machine::{Trap, UserContext};

/// As libraries start threads.
const FLAGS: u64 = (raw::CLONE_VM
    | raw::CLONE_FS
    | raw::CLONE_FILES
    | raw::CLONE_SIGHAND
    | raw::CLONE_THREAD
    | raw::CLONE_SYSVSEM
    | raw::CLONE_SETTLS
    | raw::CLONE_PARENT_SETTID
    | raw::CLONE_CHILD_CLEARTID) as u64;
const MAIN: u64 = 0;
const WAIT: u64 = raw::FUTEX_WAIT as u64;

/// What a program does next, by how many steps the thread has done.
type Step = dyn FnMut(&mut UserContext, u64, usize) -> Trap + Send;

/// Runs a program; each thread is known by its stack pointer, 0 for the first. The program is
/// given the address of two pages that it may use.
fn run(
    step: impl Fn(u64, &Arc<AddressSpace>) -> Box<Step> + Send + 'static,
) -> (ExitStatus, Arc<Process>) {
    let world = World::new(&[]);
    let space = AddressSpace::new().unwrap();
    let access = Access::READ | Access::WRITE;
    let page = space.map(MapRequest::anonymous(2 * PAGE, access)).unwrap();
    let process = Process::new(space, world.files, world.fs);
    let thread = Thread::new(
        process.clone(),
        UserContext::new(0, MAIN),
        [0; 16],
        crate::thread_loop::run,
    );
    let mut threads: Vec<(u64, usize, Box<Step>)> = Vec::new();
    let memory = process.space.clone();
    set_program_in(
        process.space.root(),
        Box::new(move |context| {
            let id = context.registers.rsp;
            if !threads.iter().any(|thread| thread.0 == id) {
                threads.push((id, 0, step(id, &memory)));
            }
            let thread = threads.iter_mut().find(|thread| thread.0 == id).unwrap();
            thread.1 += 1;
            (thread.2)(context, page, thread.1 - 1)
        }),
    );
    (run_to_end(thread), process)
}

fn clone(context: &mut UserContext, id: u64, page: u64) -> Trap {
    let arguments = [FLAGS, id, page, page, 0x7000 + id];
    call(context, raw::__NR_clone, &arguments)
}

fn exit(context: &mut UserContext, status: u64) -> Trap {
    call(context, raw::__NR_exit, &[status])
}

fn exit_group(context: &mut UserContext, status: u64) -> Trap {
    call(context, raw::__NR_exit_group, &[status])
}

fn futex(context: &mut UserContext, word: u64, operation: u64, value: u64) -> Trap {
    call(context, raw::__NR_futex, &[word, operation, value, 0])
}

#[test]
fn a_thread_is_joined_by_the_word_that_its_end_clears() {
    static SEEN: Mutex<Vec<(u64, u64, u64)>> = Mutex::new(Vec::new());
    let (status, process) = run(|id, space| {
        let space = space.clone();
        Box::new(move |context, page, step| {
            let result = context.registers.rax;
            SEEN.lock().push((id, step as u64, result));
            match (id, step) {
                (MAIN, 0) => clone(context, 1, page),
                (MAIN, 1) => futex(context, page, WAIT, result),
                (MAIN, _) => {
                    assert_eq!(space.read_value::<u32>(page), Ok(0));
                    exit_group(context, 3)
                }
                (_, 0) => {
                    assert_eq!(context.fs_base, 0x7001);
                    call(context, raw::__NR_gettid, &[])
                }
                _ => exit(context, 9),
            }
        })
    });
    assert_eq!(status, ExitStatus::Exited(3));
    let seen = SEEN.lock();
    let result = |id, step| {
        let entry = seen.iter().find(|entry| (entry.0, entry.1) == (id, step));
        entry.map(|entry| entry.2)
    };
    // The parent gets the number, the thread 0.
    assert_eq!(result(MAIN, 1), Some(2));
    assert_eq!((result(1, 0), result(1, 1)), (Some(0), Some(2)));
    // It was woken, unless the thread ended before it could wait.
    let eagain = -11_i64 as u64;
    assert!([Some(0), Some(eagain)].contains(&result(MAIN, 2)));
    assert!(process.threads().is_empty());
}

#[test]
fn the_process_ends_with_its_last_thread_by_the_status_of_that() {
    let (status, _) = run(|id, _| {
        Box::new(move |context, page, step| match (id, step) {
            (MAIN, 0) => clone(context, 1, page),
            (MAIN, _) => exit(context, 5),
            (_, 0) => call(context, raw::__NR_sched_yield, &[]),
            _ => exit(context, 6),
        })
    });
    assert_eq!(status, ExitStatus::Exited(6));
}

#[test]
fn exit_group_ends_threads_that_wait_and_threads_that_run() {
    let (status, process) = run(|id, _| {
        Box::new(move |context, page, step| match (id, step) {
            (MAIN, 0..=3) => clone(context, step as u64 + 1, page),
            (MAIN, _) => call(context, raw::__NR_pause, &[]),
            (1, _) => futex(context, page + 8, WAIT, 0),
            (2, _) => Trap::Interrupt,
            (3, 0) => call(context, raw::__NR_sched_yield, &[]),
            (3, _) => exit_group(context, 44),
            _ => call(context, raw::__NR_sched_yield, &[]),
        })
    });
    assert_eq!(status, ExitStatus::Exited(44));
    assert!(process.threads().is_empty());
}

#[test]
fn a_fault_of_one_thread_ends_them_all() {
    let (status, _) = run(|id, _| {
        Box::new(move |context, page, step| match (id, step) {
            (MAIN, 0) => clone(context, 1, page),
            (MAIN, _) => call(context, raw::__NR_pause, &[]),
            _ => Trap::Exception { vector: 6, code: 0 },
        })
    });
    assert_eq!(status, ExitStatus::Signaled(4));
}

#[test]
fn a_thread_that_spins_gives_way_when_its_time_is_over() {
    // Thread 1 spins, as the timer interrupts it, until the first thread has run again.
    static DONE: AtomicU64 = AtomicU64::new(0);
    static SPUN: AtomicU64 = AtomicU64::new(0);
    let (status, _) = run(|id, _| {
        Box::new(move |context, page, step| match (id, step) {
            (MAIN, 0) => clone(context, 1, page),
            (MAIN, 1) => call(context, raw::__NR_sched_yield, &[]),
            (MAIN, 2) => {
                assert!(SPUN.load(Ordering::Relaxed) > 0);
                DONE.store(1, Ordering::Relaxed);
                call(context, raw::__NR_pause, &[])
            }
            (MAIN, _) => unreachable!(),
            _ if DONE.load(Ordering::Relaxed) == 1 => exit_group(context, 0),
            _ => {
                SPUN.fetch_add(1, Ordering::Relaxed);
                Trap::Interrupt
            }
        })
    });
    assert_eq!(status, ExitStatus::Exited(0));
}

#[test]
fn what_is_no_thread_is_refused() {
    static RESULTS: Mutex<Vec<i64>> = Mutex::new(Vec::new());
    let thread = u64::from(raw::CLONE_THREAD);
    let calls = [
        [thread, 0],
        [thread | u64::from(raw::CLONE_SIGHAND), 0],
        [FLAGS | u64::from(raw::CLONE_NEWUTS), 0],
        [FLAGS, u64::MAX >> 1],
    ];
    let (status, process) = run(move |_, _| {
        Box::new(move |context, page, step| {
            if step > 0 {
                RESULTS.lock().push(context.registers.rax as i64);
            }
            match calls.get(step) {
                Some([flags, tls]) => {
                    call(context, raw::__NR_clone, &[*flags, 1, page, page, *tls])
                }
                None => exit_group(context, 0),
            }
        })
    });
    assert_eq!(status, ExitStatus::Exited(0));
    assert_eq!(*RESULTS.lock(), [-22, -22, -22, -1]);
    assert!(process.threads().is_empty());
}

#[test]
fn clone3_checks_its_structure_and_puts_the_stack_pointer_on_top() {
    static RESULTS: Mutex<Vec<i64>> = Mutex::new(Vec::new());
    const ARGS: u64 = 64;
    // Flags, exit signal, stack, its size, a word behind the structure; the size given.
    let good = [FLAGS, 0, 0x1000, 0x234, 0];
    let with = |index: usize, value: u64| {
        let mut fields = good;
        fields[index] = value;
        fields
    };
    let calls = [
        (good, 63),
        (good, PAGE + 1),
        (with(0, FLAGS | 17), ARGS),
        (with(0, FLAGS | u64::from(raw::CLONE_DETACHED)), ARGS),
        (with(0, FLAGS | 1 << 40), ARGS),
        (with(1, 17), ARGS),
        (with(2, 0), ARGS),
        (with(3, 0), ARGS),
        (with(2, u64::MAX), ARGS),
        (with(4, 1), ARGS + 32),
        (good, ARGS),
    ];
    let (status, _) = run(move |id, space| {
        let space = space.clone();
        Box::new(move |context, page, step| {
            if id == 0x1234 {
                return exit_group(context, 1);
            }
            if step > 0 {
                RESULTS.lock().push(context.registers.rax as i64);
            }
            let Some((fields, size)) = calls.get(step) else {
                return call(context, raw::__NR_pause, &[]);
            };
            let [flags, exit_signal, stack, stack_size, behind] = *fields;
            let area = page + PAGE - 256;
            let words = [
                flags,
                0,
                page,
                page,
                exit_signal,
                stack,
                stack_size,
                0,
                0,
                0,
                0,
                behind,
            ];
            for (at, word) in (area..).step_by(8).zip(words) {
                space.write_value(at, &word).unwrap();
            }
            call(context, raw::__NR_clone3, &[area, *size])
        })
    });
    assert_eq!(status, ExitStatus::Exited(1));
    let results = RESULTS.lock();
    assert_eq!(
        results[..10],
        [-22, -7, -22, -22, -22, -22, -22, -22, -22, -7]
    );
}
