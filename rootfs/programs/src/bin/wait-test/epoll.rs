//! `epoll(7)`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Errno, Mapping, SysResult, create, open, owned};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP,
    EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLRDNORM, EPOLLWRNORM, O_NONBLOCK,
    O_RDONLY, epoll_event,
};

pub(crate) const CHECKS: &[Check] = checks![
    a_level_is_told_again_and_again,
    an_edge_is_told_once,
    an_edge_is_every_change,
    one_shot_is_told_once_until_it_is_armed_again,
    a_change_looks_again,
    what_is_removed_is_not_told,
    events_come_with_their_data,
    only_what_is_asked_for_and_errors_are_told,
    hung_up_pipes_are_told,
    as_many_as_there_is_room_for_and_all_in_turn,
    closing_the_last_descriptor_removes,
    a_copy_keeps_what_is_closed,
    the_same_file_under_two_names,
    sets_in_sets,
    sets_in_sets_have_limits,
    a_set_is_a_file,
    waiting_for_a_while,
    a_thread_waits_until_another_writes,
    several_threads_wait_at_one_set,
    a_set_with_many_files,
    a_ring_in_a_set,
    a_signal_ends_the_wait,
    signals_are_blocked_while_it_waits,
    files_that_are_always_ready_cannot_be_waited_for,
    exclusive_has_rules,
    control_has_errors,
    waiting_has_errors,
    creating_has_errors,
    added_and_removed_again_and_again,
];

fn set() -> SysResult<OwnedFd> {
    sys!(SYS_epoll_create1, libc::EPOLL_CLOEXEC).map(owned)
}

fn counter() -> SysResult<OwnedFd> {
    sys!(SYS_eventfd2, 0, O_NONBLOCK).map(owned)
}

fn pipe() -> SysResult<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    sys!(SYS_pipe2, ends.as_mut_ptr(), O_NONBLOCK)?;
    Ok((owned(ends[0] as usize), owned(ends[1] as usize)))
}

fn control(set: &OwnedFd, operation: i32, file: &OwnedFd, events: i32, data: u64) -> SysResult {
    let event = epoll_event {
        events: events as u32,
        u64: data,
    };
    sys!(SYS_epoll_ctl, set, operation, file, &raw const event)
}

fn add(set: &OwnedFd, file: &OwnedFd, events: i32, data: u64) -> SysResult {
    control(set, EPOLL_CTL_ADD, file, events, data)
}

/// The events that are there within so many milliseconds, as flags and data.
fn wait_with_room(set: &OwnedFd, room: usize, timeout: i32) -> SysResult<Vec<(i32, u64)>> {
    let mut events = vec![epoll_event { events: 0, u64: 0 }; room];
    let count = sys!(SYS_epoll_wait, set, events.as_mut_ptr(), room, timeout)?;
    let events = events[..count].iter();
    Ok(events
        .map(|event| (event.events as i32, event.u64))
        .collect())
}

fn wait(set: &OwnedFd, timeout: i32) -> SysResult<Vec<(i32, u64)>> {
    wait_with_room(set, 16, timeout)
}

fn tell(counter: &OwnedFd) -> SysResult {
    sys!(SYS_write, counter, 1_u64.to_ne_bytes().as_ptr(), 8)
}

fn take(counter: &OwnedFd) -> SysResult {
    let mut value = 0_u64;
    sys!(SYS_read, counter, &raw mut value, 8)
}

fn a_level_is_told_again_and_again() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    add(&set, &counter, EPOLLIN, 7)?;
    expect_eq!(wait(&set, 0)?, []);
    tell(&counter)?;
    for _ in 0..3 {
        expect_eq!(wait(&set, -1)?, [(EPOLLIN, 7)]);
    }
    take(&counter)?;
    expect_eq!(wait(&set, 0)?, []);
    Ok(())
}

fn an_edge_is_told_once() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    tell(&counter)?;
    add(&set, &counter, EPOLLIN | EPOLLET, 7)?;
    expect_eq!(wait(&set, -1)?, [(EPOLLIN, 7)]);
    expect_eq!(wait(&set, 0)?, []);
    take(&counter)?;
    expect_eq!(wait(&set, 0)?, []);
    Ok(())
}

fn an_edge_is_every_change() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    add(&set, &counter, EPOLLIN | EPOLLET, 7)?;
    for _ in 0..3 {
        tell(&counter)?;
        expect_eq!(wait(&set, -1)?, [(EPOLLIN, 7)]);
        expect_eq!(wait(&set, 0)?, []);
    }
    // Two changes between two looks are one.
    tell(&counter)?;
    tell(&counter)?;
    expect_eq!(wait(&set, -1)?, [(EPOLLIN, 7)]);
    expect_eq!(wait(&set, 0)?, []);
    // One that is over when somebody looks is none.
    tell(&counter)?;
    take(&counter)?;
    expect_eq!(wait(&set, 0)?, []);
    Ok(())
}

fn one_shot_is_told_once_until_it_is_armed_again() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    add(&set, &counter, EPOLLIN | EPOLLONESHOT, 7)?;
    tell(&counter)?;
    expect_eq!(wait(&set, -1)?, [(EPOLLIN, 7)]);
    tell(&counter)?;
    expect_eq!(wait(&set, 0)?, []);
    control(&set, EPOLL_CTL_MOD, &counter, EPOLLIN | EPOLLONESHOT, 8)?;
    expect_eq!(wait(&set, -1)?, [(EPOLLIN, 8)]);
    expect_eq!(wait(&set, 0)?, []);
    Ok(())
}

fn a_change_looks_again() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    tell(&counter)?;
    add(&set, &counter, EPOLLIN | EPOLLET, 1)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLIN, 1)]);
    expect_eq!(wait(&set, 0)?, []);
    control(&set, EPOLL_CTL_MOD, &counter, EPOLLIN | EPOLLET, 2)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLIN, 2)]);
    control(&set, EPOLL_CTL_MOD, &counter, EPOLLOUT, 3)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLOUT, 3)]);
    // Nothing is asked for but errors.
    control(&set, EPOLL_CTL_MOD, &counter, 0, 4)?;
    expect_eq!(wait(&set, 0)?, []);
    Ok(())
}

fn what_is_removed_is_not_told() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    tell(&counter)?;
    add(&set, &counter, EPOLLIN, 1)?;
    control(&set, EPOLL_CTL_DEL, &counter, 0, 0)?;
    expect_eq!(wait(&set, 0)?, []);
    tell(&counter)?;
    expect_eq!(wait(&set, 0)?, []);
    add(&set, &counter, EPOLLIN, 2)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLIN, 2)]);
    Ok(())
}

fn events_come_with_their_data() -> Outcome {
    let (set, counters) = (set()?, [counter()?, counter()?, counter()?]);
    for (counter, data) in counters.iter().zip([u64::MAX, 0, 1 << 40]) {
        add(&set, counter, EPOLLIN, data)?;
        tell(counter)?;
    }
    let all = [(EPOLLIN, u64::MAX), (EPOLLIN, 0), (EPOLLIN, 1 << 40)];
    expect_eq!(wait(&set, 0)?, all);
    Ok(())
}

fn only_what_is_asked_for_and_errors_are_told() -> Outcome {
    let set = set()?;
    let (reader, writer) = pipe()?;
    add(&set, &writer, EPOLLPRI, 1)?;
    expect_eq!(wait(&set, 0)?, []);
    control(
        &set,
        EPOLL_CTL_MOD,
        &writer,
        EPOLLOUT | EPOLLWRNORM | EPOLLIN,
        2,
    )?;
    expect_eq!(wait(&set, 0)?, [(EPOLLOUT | EPOLLWRNORM, 2)]);
    control(&set, EPOLL_CTL_MOD, &writer, EPOLLWRNORM, 3)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLWRNORM, 3)]);
    control(&set, EPOLL_CTL_MOD, &writer, 0, 4)?;
    expect_eq!(wait(&set, 0)?, []);
    drop(reader);
    expect_eq!(wait(&set, 0)?, [(EPOLLERR, 4)]);
    Ok(())
}

fn hung_up_pipes_are_told() -> Outcome {
    let set = set()?;
    let (reader, writer) = pipe()?;
    add(
        &set,
        &reader,
        EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLET,
        1,
    )?;
    expect_eq!(wait(&set, 0)?, []);
    sys!(SYS_write, &writer, b"ab".as_ptr(), 2)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLIN | EPOLLRDNORM, 1)]);
    drop(writer);
    expect_eq!(wait(&set, 0)?, [(EPOLLIN | EPOLLRDNORM | EPOLLHUP, 1)]);
    expect_eq!(wait(&set, 0)?, []);
    Ok(())
}

fn as_many_as_there_is_room_for_and_all_in_turn() -> Outcome {
    let set = set()?;
    let mut counters = Vec::new();
    for data in 0..5 {
        let counter = counter()?;
        add(&set, &counter, EPOLLIN, data)?;
        tell(&counter)?;
        counters.push(counter);
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        let events = wait_with_room(&set, 2, 0)?;
        expect_eq!(events.len(), 2);
        seen.extend(events.iter().map(|(_, data)| *data));
    }
    expect_eq!(seen, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    Ok(())
}

fn closing_the_last_descriptor_removes() -> Outcome {
    let set = set()?;
    let (reader, writer) = pipe()?;
    sys!(SYS_write, &writer, b"a".as_ptr(), 1)?;
    add(&set, &reader, EPOLLIN, 1)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLIN, 1)]);
    let (number, counter) = (reader.as_raw_fd(), counter()?);
    drop(reader);
    expect_eq!(wait(&set, 0)?, []);
    // The name is free again.
    let again = owned(sys!(SYS_dup2, &counter, number)?);
    add(&set, &again, EPOLLOUT, 2)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLOUT, 2)]);
    Ok(())
}

fn a_copy_keeps_what_is_closed() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    let copy = owned(sys!(SYS_dup, &counter)?);
    add(&set, &counter, EPOLLIN, 1)?;
    let number = counter.as_raw_fd();
    drop(counter);
    tell(&copy)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLIN, 1)]);
    // It cannot be named any more.
    fails!(EBADF, SYS_epoll_ctl, &set, EPOLL_CTL_DEL, number, 0);
    fails!(ENOENT, SYS_epoll_ctl, &set, EPOLL_CTL_DEL, &copy, 0);
    drop(copy);
    expect_eq!(wait(&set, 0)?, []);
    Ok(())
}

fn the_same_file_under_two_names() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    let copy = owned(sys!(SYS_dup, &counter)?);
    add(&set, &counter, EPOLLIN, 1)?;
    add(&set, &copy, EPOLLIN | EPOLLET, 2)?;
    expect_eq!(add(&set, &copy, EPOLLIN, 3), Err(Errno(libc::EEXIST)));
    tell(&counter)?;
    let mut events = wait(&set, 0)?;
    events.sort_unstable();
    expect_eq!(events, [(EPOLLIN, 1), (EPOLLIN, 2)]);
    expect_eq!(wait(&set, 0)?, [(EPOLLIN, 1)]);
    Ok(())
}

fn sets_in_sets() -> Outcome {
    let (outer, inner, counter) = (set()?, set()?, counter()?);
    add(&outer, &inner, EPOLLIN, 1)?;
    expect_eq!(wait(&outer, 0)?, []);
    add(&inner, &counter, EPOLLIN, 2)?;
    expect_eq!(wait(&outer, 0)?, []);
    tell(&counter)?;
    expect_eq!(wait(&outer, 0)?, [(EPOLLIN, 1)]);
    expect_eq!(wait(&outer, 0)?, [(EPOLLIN, 1)]);
    expect_eq!(wait(&inner, 0)?, [(EPOLLIN, 2)]);
    take(&counter)?;
    expect_eq!(wait(&outer, 0)?, []);
    tell(&counter)?;
    expect_eq!(wait(&outer, -1)?, [(EPOLLIN, 1)]);
    control(&inner, EPOLL_CTL_DEL, &counter, 0, 0)?;
    expect_eq!(wait(&outer, 0)?, []);
    Ok(())
}

fn sets_in_sets_have_limits() -> Outcome {
    let chain = |down: bool| -> SysResult<Vec<bool>> {
        let mut sets = Vec::new();
        for _ in 0..12 {
            sets.push(set()?);
        }
        let mut pairs: Vec<_> = sets.windows(2).collect();
        if !down {
            pairs.reverse();
        }
        pairs
            .iter()
            .map(|pair| match add(&pair[0], &pair[1], EPOLLIN, 0) {
                Ok(_) => Ok(true),
                Err(Errno(libc::ELOOP)) => Ok(false),
                Err(error) => Err(error),
            })
            .collect()
    };
    // Five in each other, and then the next cannot be joined.
    let wanted: Vec<_> = (1..=11).map(|place| place % 5 != 0).collect();
    expect_eq!(chain(true)?, wanted);
    expect_eq!(chain(false)?, wanted);
    let (a, b, c) = (set()?, set()?, set()?);
    add(&a, &b, EPOLLIN, 0)?;
    add(&b, &c, EPOLLIN, 0)?;
    expect_eq!(add(&c, &a, EPOLLIN, 0), Err(Errno(libc::ELOOP)));
    expect_eq!(add(&b, &a, EPOLLIN, 0), Err(Errno(libc::ELOOP)));
    expect_eq!(add(&a, &a, EPOLLIN, 0), Err(Errno(libc::EINVAL)));
    add(&a, &c, EPOLLIN, 0)?;
    control(&a, EPOLL_CTL_DEL, &b, 0, 0)?;
    control(&a, EPOLL_CTL_DEL, &c, 0, 0)?;
    add(&c, &a, EPOLLIN, 0)?;
    Ok(())
}

fn a_set_is_a_file() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    add(&set, &counter, EPOLLIN, 1)?;
    let poll = || -> SysResult<(usize, i16)> {
        let mut file = libc::pollfd {
            fd: set.as_raw_fd(),
            events: libc::POLLIN | libc::POLLOUT,
            revents: 0,
        };
        let count = sys!(SYS_poll, &raw mut file, 1, 0)?;
        Ok((count, file.revents))
    };
    expect_eq!(poll()?, (0, 0));
    tell(&counter)?;
    expect_eq!(poll()?, (1, libc::POLLIN));
    let mut byte = 0_u8;
    fails!(EINVAL, SYS_read, &set, &raw mut byte, 1);
    fails!(EINVAL, SYS_write, &set, &raw const byte, 1);
    expect_eq!(sys!(SYS_lseek, &set, 5, libc::SEEK_SET), Ok(0));
    let link = std::fs::read_link(format!("/proc/self/fd/{}", set.as_raw_fd()))?;
    expect_eq!(link.to_str(), Some("anon_inode:[eventpoll]"));
    Ok(())
}

fn waiting_for_a_while() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    add(&set, &counter, EPOLLIN, 1)?;
    let start = Instant::now();
    expect_eq!(wait(&set, 20)?, []);
    expect!(start.elapsed() >= Duration::from_millis(20));
    let start = Instant::now();
    let time = [0_i64, 20_000_000];
    let mut event = epoll_event { events: 0, u64: 0 };
    let wait = || {
        sys!(
            SYS_epoll_pwait2,
            &set,
            &raw mut event,
            1,
            time.as_ptr(),
            0,
            8
        )
    };
    let mut wait = wait;
    expect_eq!(wait(), Ok(0));
    expect!(start.elapsed() >= Duration::from_millis(20));
    tell(&counter)?;
    expect_eq!(wait(), Ok(1));
    Ok(())
}

fn a_thread_waits_until_another_writes() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    add(&set, &counter, EPOLLIN | EPOLLET, 9)?;
    thread::scope(|scope| -> Outcome {
        let waiter = scope.spawn(|| (0..20).map(|_| wait(&set, 10_000)).collect::<Vec<_>>());
        let mut told = 0;
        while !waiter.is_finished() && told < 100_000 {
            tell(&counter)?;
            told += 1;
            thread::sleep(Duration::from_micros(300));
        }
        for events in waiter.join().unwrap_or_default() {
            expect_eq!(events?, [(EPOLLIN, 9)]);
        }
        expect!(told >= 20);
        Ok(())
    })
}

fn several_threads_wait_at_one_set() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    add(&set, &counter, EPOLLIN | EPOLLONESHOT, 9)?;
    thread::scope(|scope| -> Outcome {
        // Whoever is told arms it again, until all have been told often enough.
        let work = || -> SysResult<usize> {
            let mut told = 0;
            loop {
                let events = wait(&set, 1000)?;
                if events.is_empty() {
                    return Ok(told);
                }
                told += events.len();
                if take(&counter).is_err() {
                    return Ok(told);
                }
                control(&set, EPOLL_CTL_MOD, &counter, EPOLLIN | EPOLLONESHOT, 9)?;
            }
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        for _ in 0..200 {
            tell(&counter)?;
            thread::sleep(Duration::from_micros(100));
        }
        let mut all = 0;
        for worker in workers {
            all += worker.join().unwrap_or(Ok(0))?;
        }
        expect!(all > 0);
        let mut value = 0_u64;
        fails!(EAGAIN, SYS_read, &counter, &raw mut value, 8);
        Ok(())
    })
}

fn a_set_with_many_files() -> Outcome {
    let set = set()?;
    let mut counters = Vec::new();
    for data in 0..500 {
        let counter = counter()?;
        add(&set, &counter, EPOLLIN, data)?;
        counters.push(counter);
    }
    for place in (0..500).step_by(7) {
        tell(&counters[place])?;
    }
    let mut seen: Vec<_> = wait_with_room(&set, 1000, 0)?;
    seen.sort_unstable();
    let wanted: Vec<_> = (0..500).step_by(7).map(|data| (EPOLLIN, data)).collect();
    expect_eq!(seen, wanted);
    counters.truncate(8);
    expect_eq!(wait(&set, 0)?.len(), 2);
    Ok(())
}

fn a_ring_in_a_set() -> Outcome {
    let set = set()?;
    let mut ring = io_uring::IoUring::new(4)?;
    let file = owned(sys!(SYS_dup, ring.as_raw_fd())?);
    add(&set, &file, EPOLLIN, 3)?;
    expect_eq!(wait(&set, 0)?, []);
    let entry = io_uring::opcode::Nop::new().build();
    // SAFETY: a NOP has no memory.
    unsafe { ring.submission().push(&entry)? };
    ring.submit()?;
    expect_eq!(wait(&set, -1)?, [(EPOLLIN, 3)]);
    expect_eq!(ring.completion().count(), 1);
    expect_eq!(wait(&set, 0)?, []);
    Ok(())
}

extern "C" fn ignore(_: i32) {}

/// Handles SIGALRM by doing nothing, and has it sent after some milliseconds.
fn alarm_after(milliseconds: i64) -> SysResult {
    // SAFETY: the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
    }
    let setting = [0, 0, 0, milliseconds * 1000];
    sys!(SYS_setitimer, libc::ITIMER_REAL, setting.as_ptr(), 0)
}

fn a_signal_ends_the_wait() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    add(&set, &counter, EPOLLIN, 1)?;
    alarm_after(20)?;
    expect_eq!(wait(&set, 10_000), Err(Errno(libc::EINTR)));
    Ok(())
}

fn signals_are_blocked_while_it_waits() -> Outcome {
    let set = set()?;
    let alarm = 1_u64 << (libc::SIGALRM - 1);
    let mut event = epoll_event { events: 0, u64: 0 };
    alarm_after(10)?;
    let mut wait = |timeout: i32, mask: u64, size: usize| {
        sys!(
            SYS_epoll_pwait,
            &set,
            &raw mut event,
            1,
            timeout,
            &raw const mask,
            size
        )
    };
    expect_eq!(wait(100, alarm, 8), Ok(0));
    // It came when it was not blocked any more, after the wait.
    let blocked = alarm;
    sys!(
        SYS_rt_sigprocmask,
        libc::SIG_BLOCK,
        &raw const blocked,
        0,
        8
    )?;
    alarm_after(10)?;
    let result = wait(10_000, 0, 8);
    sys!(
        SYS_rt_sigprocmask,
        libc::SIG_UNBLOCK,
        &raw const blocked,
        0,
        8
    )?;
    expect_eq!(result, Err(Errno(libc::EINTR)));
    expect_eq!(wait(0, 0, 7), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn files_that_are_always_ready_cannot_be_waited_for() -> Outcome {
    let set = set()?;
    let file = create(c"f", b"abc")?;
    let event = epoll_event {
        events: EPOLLIN as u32,
        u64: 0,
    };
    for path in [
        c"/dev/null",
        c"/dev/zero",
        c"/dev/full",
        c"/dev/urandom",
        c".",
        c"/proc/self/stat",
    ] {
        let file = open(path, O_RDONLY)?;
        fails!(
            EPERM,
            SYS_epoll_ctl,
            &set,
            EPOLL_CTL_ADD,
            &file,
            &raw const event
        );
    }
    fails!(
        EPERM,
        SYS_epoll_ctl,
        &set,
        EPOLL_CTL_ADD,
        &file,
        &raw const event
    );
    // Before anything is known of the set.
    fails!(
        EPERM,
        SYS_epoll_ctl,
        &file,
        EPOLL_CTL_ADD,
        &file,
        &raw const event
    );
    Ok(())
}

fn exclusive_has_rules() -> Outcome {
    let (set, inner, counter) = (set()?, self::set()?, counter()?);
    let invalid = Err(Errno(libc::EINVAL));
    expect_eq!(
        add(&set, &counter, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 0),
        invalid
    );
    expect_eq!(add(&set, &counter, EPOLLPRI | EPOLLEXCLUSIVE, 0), invalid);
    expect_eq!(add(&set, &inner, EPOLLIN | EPOLLEXCLUSIVE, 0), invalid);
    let right = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLEXCLUSIVE;
    expect_eq!(control(&set, EPOLL_CTL_MOD, &counter, right, 0), invalid);
    expect_eq!(add(&set, &counter, right, 5), Ok(0));
    expect_eq!(control(&set, EPOLL_CTL_MOD, &counter, EPOLLIN, 0), invalid);
    tell(&counter)?;
    expect_eq!(wait(&set, 0)?, [(EPOLLIN | EPOLLOUT, 5)]);
    expect_eq!(control(&set, EPOLL_CTL_DEL, &counter, 0, 0), Ok(0));
    Ok(())
}

fn control_has_errors() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    let nowhere = Mapping::nowhere()?;
    fails!(EFAULT, SYS_epoll_ctl, -1, 9, -1, nowhere);
    fails!(EFAULT, SYS_epoll_ctl, &set, EPOLL_CTL_ADD, &counter, 0);
    fails!(EBADF, SYS_epoll_ctl, &set, EPOLL_CTL_DEL, -1, 0);
    fails!(EBADF, SYS_epoll_ctl, -1, EPOLL_CTL_DEL, &counter, 0);
    fails!(ENOENT, SYS_epoll_ctl, &set, EPOLL_CTL_DEL, &counter, 0);
    fails!(EINVAL, SYS_epoll_ctl, &counter, EPOLL_CTL_DEL, &set, 0);
    fails!(EINVAL, SYS_epoll_ctl, &counter, EPOLL_CTL_DEL, &counter, 0);
    expect_eq!(
        control(&set, 9, &counter, EPOLLIN, 0),
        Err(Errno(libc::EINVAL))
    );
    let missing = Err(Errno(libc::ENOENT));
    expect_eq!(control(&set, EPOLL_CTL_MOD, &counter, EPOLLIN, 0), missing);
    Ok(())
}

fn waiting_has_errors() -> Outcome {
    let (set, counter) = (set()?, counter()?);
    let mut event = epoll_event { events: 0, u64: 0 };
    let event = &raw mut event;
    fails!(EBADF, SYS_epoll_wait, -1, event, 0, 0);
    fails!(EINVAL, SYS_epoll_wait, &set, event, 0, 0);
    fails!(EINVAL, SYS_epoll_wait, &set, event, -1, 0);
    fails!(EINVAL, SYS_epoll_wait, &set, event, i32::MAX / 12 + 1, 0);
    fails!(EFAULT, SYS_epoll_wait, &set, u64::MAX << 47, 1, 0);
    fails!(EFAULT, SYS_epoll_wait, &counter, u64::MAX << 47, 1, 0);
    fails!(EINVAL, SYS_epoll_wait, &counter, event, 1, 0);
    let time = [0_i64, 1_000_000_000];
    fails!(
        EINVAL,
        SYS_epoll_pwait2,
        &set,
        event,
        1,
        time.as_ptr(),
        0,
        8
    );
    let nowhere = Mapping::nowhere()?;
    fails!(EFAULT, SYS_epoll_pwait2, &set, event, 1, nowhere, 0, 8);
    // An event that cannot be stored stays.
    tell(&counter)?;
    add(&set, &counter, EPOLLIN | EPOLLET, 1)?;
    fails!(EFAULT, SYS_epoll_wait, &set, nowhere, 1, 0);
    expect_eq!(wait(&set, 0)?, [(EPOLLIN, 1)]);
    Ok(())
}

fn creating_has_errors() -> Outcome {
    fails!(EINVAL, SYS_epoll_create1, 1);
    fails!(EINVAL, SYS_epoll_create, 0);
    fails!(EINVAL, SYS_epoll_create, -1);
    let set = owned(sys!(SYS_epoll_create, 1)?);
    expect_eq!(sys!(SYS_fcntl, &set, libc::F_GETFD), Ok(0));
    expect_eq!(
        sys!(SYS_fcntl, &set, libc::F_GETFL),
        Ok(libc::O_RDWR as usize)
    );
    let set = self::set()?;
    expect_eq!(
        sys!(SYS_fcntl, &set, libc::F_GETFD),
        Ok(libc::FD_CLOEXEC as usize)
    );
    Ok(())
}

fn added_and_removed_again_and_again() -> Outcome {
    // What is forgotten must be so on both sides: here with a file that never changes.
    let (first, second, counter) = (set()?, set()?, counter()?);
    for _ in 0..20_000 {
        add(&first, &counter, EPOLLIN, 1)?;
        control(&first, EPOLL_CTL_DEL, &counter, 0, 0)?;
        let set = set()?;
        add(&set, &counter, EPOLLIN, 1)?;
        drop(set);
    }
    add(&second, &counter, EPOLLIN, 2)?;
    for _ in 0..10_000 {
        control(&second, EPOLL_CTL_MOD, &counter, EPOLLIN, 3)?;
    }
    tell(&counter)?;
    expect_eq!(wait(&first, 0)?, []);
    expect_eq!(wait(&second, 0)?, [(EPOLLIN, 3)]);
    Ok(())
}
