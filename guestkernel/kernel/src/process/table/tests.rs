use super::*;
use crate::process::signal::Handlers;

/// Adds a child of `parent` in the process group and session `group`.
fn add_child(parent: u32, group: u32) -> Arc<ControlBlock> {
    let mut table = lock();
    let pid = table.take_number().unwrap();
    let block = table.processes[&parent]
        .block
        .child(pid, Arc::new(Handlers::default()));
    let entry = Entry {
        block: block.clone(),
        parent,
        parent_tid: parent,
        children: BTreeSet::new(),
        group,
        session: 1,
        exit_signal: Signal::SIGCHLD.number(),
        has_left_terminal: false,
        ended: None,
        change: None,
    };
    table.insert(pid, entry);
    block
}

fn parent_of(pid: u32) -> Option<u32> {
    let table = lock();
    table.processes.get(&pid).map(|entry| entry.parent)
}

#[test]
fn numbers_are_given_again_only_when_nothing_has_them() {
    start();
    let child = add_child(1, 1);
    assert_eq!(child.pid, 2);
    // What is left of a process is its process group.
    let member = add_child(1, 2);
    lock().remove(2);
    lock().last = PID_MAX - 1;
    assert_eq!(lock().take_number(), Ok(RESERVED));
    lock().last = 1;
    assert_eq!(lock().take_number(), Ok(4));
    assert_eq!(lock().take_this_number(2), Err(Errno::EEXIST));
    lock().remove(member.pid);
    assert_eq!(lock().take_this_number(2), Ok(2));
    assert_eq!(lock().take_this_number(0), Err(Errno::EINVAL));
    assert_eq!(lock().take_this_number(-1), Err(Errno::EINVAL));
}

#[test]
fn there_are_only_so_many_processes() {
    start();
    let count = threads_max() - 1;
    let all: Vec<_> = (0..count).map(|_| add_child(1, 1)).collect();
    assert_eq!(lock().take_number(), Err(Errno::EAGAIN));
    lock().remove(all[0].pid);
    assert!(lock().take_number().is_ok());
}

#[test]
fn orphans_go_to_the_nearest_that_wants_them_or_to_the_first() {
    start();
    let outer = add_child(1, 1);
    let inner = add_child(outer.pid, 1);
    let orphan = add_child(inner.pid, 1);
    outer.is_subreaper.store(true, Ordering::Relaxed);
    bury(&inner, ExitStatus::Exited(3));
    assert_eq!(parent_of(orphan.pid), Some(outer.pid));
    bury(&outer, ExitStatus::Exited(0));
    assert_eq!(parent_of(orphan.pid), Some(1));
    assert_eq!(parent_of(inner.pid), Some(1));
    // Both wait for the first process to ask.
    let table = lock();
    assert_eq!(
        table.processes[&inner.pid].ended,
        Some(ExitStatus::Exited(3))
    );
    assert_eq!(table.processes[&1].children.len(), 3);
}

#[test]
fn a_parent_that_ignores_the_signal_gets_no_zombies() {
    use crate::process::signal::Action;
    let first = start();
    first.set_action(
        Signal::SIGCHLD,
        Action {
            handler: 1,
            ..Action::default()
        },
    );
    let child = add_child(1, 1);
    bury(&child, ExitStatus::Exited(0));
    assert_eq!(parent_of(child.pid), None);
    assert!(lock().processes[&1].children.is_empty());
}
