//! Processes and their children. Each program here is a state machine whose state is in a register,
//! since a child begins with the registers of its parent.

use super::*;
use machine::hosted::set_program;

/// Where the path of a program is in the page; a byte further on is one of nothing.
const PATH: u64 = 1024;

/// Runs `program`, which is given its state and a page, in the first process and all its children.
fn run(
    mut program: impl FnMut(&mut UserContext, u64) -> Trap + 'static,
) -> (ExitStatus, Arc<Process>, u64) {
    let world = World::new(&[("prog", 0o755, &elf(2, None))]);
    let space = AddressSpace::new().unwrap();
    let access = Access::READ | Access::WRITE;
    let page = space.map(MapRequest::anonymous(PAGE, access)).unwrap();
    space.write(page + PATH, b"/prog\0").unwrap();
    let process = Process::new(space, world.files, world.fs);
    let thread = Thread::new(
        process.clone(),
        UserContext::new(0, 0),
        [0; 16],
        crate::thread_loop::run,
    );
    set_program(Box::new(move |context| program(context, page)));
    let status = run_to_end(thread);
    (status, process, page)
}

/// Goes to the state `next` and makes a system call.
fn go(context: &mut UserContext, next: u64, number: u32, arguments: &[u64]) -> Trap {
    context.registers.r12 = next;
    call(context, number, arguments)
}

#[test]
fn a_child_has_a_copy_and_its_parent_waits_for_it() {
    let (status, process, page) = run(|context, page| {
        let result = context.registers.rax;
        match (context.registers.r12, result) {
            (0, _) => go(context, 1, raw::__NR_fork, &[]),
            // The child: it writes its number into its own copy of the page.
            (1, 0) => go(context, 10, raw::__NR_time, &[page]),
            (10, _) => go(context, 11, raw::__NR_exit_group, &[7]),
            (1, child) => {
                context.registers.rbx = child;
                go(context, 2, raw::__NR_wait4, &[u64::MAX, page + 8, 0, 0])
            }
            (2, child) => {
                assert_eq!(child, context.registers.rbx);
                go(context, 3, raw::__NR_wait4, &[u64::MAX, 0, 0, 0])
            }
            (3, error) => {
                assert_eq!(error as i64, Errno::ECHILD.as_result().into());
                go(context, 4, raw::__NR_exit_group, &[3])
            }
            state => panic!("{state:?}"),
        }
    });
    assert_eq!(status, ExitStatus::Exited(3));
    assert_eq!(process.space.read_value::<u64>(page), Ok(0));
    assert_eq!(process.space.read_value::<u32>(page + 8), Ok(7 << 8));
}

#[test]
fn vfork_waits_until_the_memory_is_free() {
    let (status, ..) = run(|context, page| {
        let result = context.registers.rax;
        match (context.registers.r12, result) {
            (0, _) => go(context, 1, raw::__NR_vfork, &[]),
            (1, 0) => go(context, 10, raw::__NR_sched_yield, &[]),
            (10, _) => go(context, 11, raw::__NR_time, &[page]),
            (11, time) => {
                assert_ne!(time, 0);
                go(context, 12, raw::__NR_exit_group, &[0])
            }
            // The memory is the same, and the child has used it.
            (1, _) => go(context, 2, raw::__NR_write, &[9, page, 8]),
            (2, _) => go(context, 3, raw::__NR_exit_group, &[5]),
            state => panic!("{state:?}"),
        }
    });
    assert_eq!(status, ExitStatus::Exited(5));
}

#[test]
fn when_the_first_ends_all_end() {
    let (status, ..) = run(|context, _| {
        let result = context.registers.rax;
        match (context.registers.r12, result) {
            (0, _) => go(context, 1, raw::__NR_fork, &[]),
            (1, 0) => go(context, 10, raw::__NR_pause, &[]),
            (1, _) => go(context, 2, raw::__NR_exit_group, &[4]),
            state => panic!("{state:?}"),
        }
    });
    assert_eq!(status, ExitStatus::Exited(4));
    assert_eq!(all().len(), 1);
}

#[test]
fn a_process_goes_on_with_another_program() {
    let (status, process, _) = run(|context, page| {
        if context.registers.rip == BASE + 0x800 {
            assert_eq!(context.registers.r12, 0);
            return go(context, 0, raw::__NR_exit_group, &[6]);
        }
        match context.registers.r12 {
            0 => go(context, 1, raw::__NR_execve, &[page + PATH + 1, 0, 0]),
            1 => {
                assert_eq!(
                    context.registers.rax as i64,
                    Errno::ENOENT.as_result().into()
                );
                go(context, 2, raw::__NR_execve, &[page + PATH, 0, 0])
            }
            state => panic!("{state:?}"),
        }
    });
    assert_eq!(status, ExitStatus::Exited(6));
    assert!(process.block().view().is_none(), "its memory is gone");
}
