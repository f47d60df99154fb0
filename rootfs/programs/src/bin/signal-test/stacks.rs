//! Alternate stacks (`sigaltstack(2)`).

use crate::catch::{Handled, bit, handle, kill};
use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Mapping, SysResult};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    SA_NODEFER, SA_ONSTACK, SIGUSR1, SIGUSR2, SS_DISABLE, SS_ONSTACK, c_int, c_void, siginfo_t,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const CHECKS: &[Check] = checks![
    a_handler_runs_on_the_alternate_stack,
    a_handler_that_did_not_ask_stays_on_its_own,
    a_nested_handler_goes_on_where_it_is,
    an_alternate_stack_given_once,
    the_alternate_stack_is_not_changed_while_it_is_used,
    alternate_stacks_have_errors,
    a_handler_can_change_the_alternate_stack,
    threads_have_alternate_stacks_of_their_own,
];

const SIZE: usize = 64 << 10;
const AUTODISARM: i32 = 1 << 31;

/// `stack_t` as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stack {
    base: usize,
    flags: i32,
    size: usize,
}

fn set(stack: Stack) -> SysResult {
    sys!(SYS_sigaltstack, &raw const stack, 0)
}

fn get() -> SysResult<Stack> {
    let mut stack = Stack::default();
    sys!(SYS_sigaltstack, 0, &raw mut stack)?;
    Ok(stack)
}

/// Memory for an alternate stack, which is the thread's while this exists.
struct Alternate {
    memory: Mapping,
    before: Stack,
}

impl Alternate {
    fn new(flags: i32) -> SysResult<Self> {
        let memory = Mapping::new(SIZE, libc::PROT_READ | libc::PROT_WRITE)?;
        let before = get()?;
        set(Stack {
            base: memory.start.addr(),
            flags,
            size: SIZE,
        })?;
        Ok(Self { memory, before })
    }

    fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.memory.start.addr()) < SIZE
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        // The standard library has one in each thread.
        let _ = set(self.before);
    }
}

/// What handlers have found: where they are, what sigaltstack says, and what their frame says.
static SEEN: Mutex<Vec<(usize, Stack, Stack)>> = Mutex::new(Vec::new());
/// How often a handler sends its signal again.
static NESTED: AtomicU32 = AtomicU32::new(0);

fn seen() -> Vec<(usize, Stack, Stack)> {
    let room = Vec::with_capacity(16);
    SEEN.lock()
        .map(|mut all| std::mem::replace(&mut *all, room))
        .unwrap_or_default()
}

extern "C" fn look(signal: c_int, _: *mut siginfo_t, context: *mut c_void) {
    let here = (&raw const signal).addr();
    // SAFETY: the kernel passes a `ucontext_t`, which has a `stack_t` 16 bytes from its start.
    let saved = unsafe { context.cast::<u8>().add(16).cast::<Stack>().read() };
    if let (Ok(now), Ok(mut all)) = (get(), SEEN.try_lock()) {
        all.push((here, now, saved));
    }
    if NESTED.load(Ordering::SeqCst) > 0 {
        NESTED.fetch_sub(1, Ordering::SeqCst);
        let _ = kill(signal);
    }
}

fn catch(flags: i32) -> Handled {
    seen();
    handle(SIGUSR1, look, flags, 0)
}

fn a_handler_runs_on_the_alternate_stack() -> Outcome {
    let alternate = Alternate::new(0)?;
    let _handled = catch(SA_ONSTACK);
    kill(SIGUSR1)?;
    let own = get()?;
    let (here, now, saved) = seen()[0];
    expect!(alternate.contains(here));
    expect_eq!(now.flags, SS_ONSTACK);
    expect_eq!((saved, own), (own, saved));
    expect_eq!((own.flags, own.size), (0, SIZE));
    Ok(())
}

fn a_handler_that_did_not_ask_stays_on_its_own() -> Outcome {
    let alternate = Alternate::new(0)?;
    let _handled = catch(0);
    kill(SIGUSR1)?;
    let (here, now, _) = seen()[0];
    expect!(!alternate.contains(here));
    expect_eq!(now.flags, 0);
    Ok(())
}

fn a_nested_handler_goes_on_where_it_is() -> Outcome {
    let alternate = Alternate::new(0)?;
    let _handled = catch(SA_ONSTACK | SA_NODEFER);
    NESTED.store(2, Ordering::SeqCst);
    kill(SIGUSR1)?;
    let places: Vec<_> = seen().iter().map(|(here, ..)| *here).collect();
    expect_eq!(places.len(), 3);
    expect!(places.iter().all(|place| alternate.contains(*place)));
    expect!(places[0] > places[1] && places[1] > places[2]);
    Ok(())
}

fn an_alternate_stack_given_once() -> Outcome {
    let alternate = Alternate::new(AUTODISARM)?;
    expect_eq!(get()?.flags, AUTODISARM);
    let _handled = catch(SA_ONSTACK | SA_NODEFER);
    NESTED.store(1, Ordering::SeqCst);
    kill(SIGUSR1)?;
    let all = seen();
    let (here, now, saved) = all[0];
    expect!(alternate.contains(here));
    expect_eq!(
        now,
        Stack {
            flags: SS_DISABLE,
            ..Stack::default()
        }
    );
    expect_eq!(saved.flags, AUTODISARM);
    // The second one finds none, and stays where the first one was.
    expect!(alternate.contains(all[1].0) && all[1].0 < here);
    expect_eq!(
        all[1].2,
        Stack {
            flags: SS_DISABLE,
            ..Stack::default()
        }
    );
    // After the handler it is there again.
    expect_eq!((get()?.flags, get()?.size), (AUTODISARM, SIZE));
    Ok(())
}

static RESULTS: Mutex<Vec<SysResult>> = Mutex::new(Vec::new());

extern "C" fn try_to_change(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let results = [
        set(Stack {
            flags: SS_DISABLE,
            ..Stack::default()
        }),
        get().map(|_| 0),
    ];
    if let Ok(mut all) = RESULTS.try_lock() {
        all.extend(results);
    }
}

fn the_alternate_stack_is_not_changed_while_it_is_used() -> Outcome {
    let _alternate = Alternate::new(0)?;
    let room = Vec::with_capacity(4);
    *RESULTS
        .lock()
        .map_err(|_| guest_programs::check::Failure::new("poisoned"))? = room;
    let _handled = handle(SIGUSR1, try_to_change, SA_ONSTACK, 0);
    kill(SIGUSR1)?;
    let results = RESULTS.lock().map(|all| all.clone()).unwrap_or_default();
    expect_eq!(
        results,
        [Err(guest_programs::sys::Errno(libc::EPERM)), Ok(0)]
    );
    Ok(())
}

fn alternate_stacks_have_errors() -> Outcome {
    let alternate = Alternate::new(0)?;
    let with = |flags, size| {
        set(Stack {
            base: alternate.memory.start.addr(),
            flags,
            size,
        })
    };
    expect_eq!(with(0, 2047), Err(guest_programs::sys::Errno(libc::ENOMEM)));
    expect_eq!(with(4, SIZE), Err(guest_programs::sys::Errno(libc::EINVAL)));
    expect_eq!(with(3, SIZE), Err(guest_programs::sys::Errno(libc::EINVAL)));
    expect_eq!(with(SS_ONSTACK, 2048), Ok(0));
    expect_eq!((get()?.flags, get()?.size), (0, 2048));
    expect_eq!(with(SS_DISABLE, 1), Ok(0));
    expect_eq!(
        get()?,
        Stack {
            flags: SS_DISABLE,
            ..Stack::default()
        }
    );
    expect_eq!(with(SS_DISABLE | AUTODISARM, 1), Ok(0));
    expect_eq!(get()?.flags, SS_DISABLE | AUTODISARM);
    fails!(EFAULT, SYS_sigaltstack, 8, 0);
    fails!(EFAULT, SYS_sigaltstack, 0, 8);
    expect_eq!(sys!(SYS_sigaltstack, 0, 0), Ok(0));
    Ok(())
}

extern "C" fn change_saved(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: as in `look`.
    unsafe {
        let saved = context.cast::<u8>().add(16).cast::<Stack>();
        (*saved).size = SIZE / 2;
    }
}

fn a_handler_can_change_the_alternate_stack() -> Outcome {
    // But not while it uses it.
    for (flags, size) in [(SA_ONSTACK, SIZE), (0, SIZE / 2)] {
        let _alternate = Alternate::new(0)?;
        let _handled = handle(SIGUSR2, change_saved, flags, bit(SIGUSR1));
        kill(SIGUSR2)?;
        expect_eq!(get()?.size, size);
    }
    Ok(())
}

fn threads_have_alternate_stacks_of_their_own() -> Outcome {
    let alternate = Alternate::new(0)?;
    let other = std::thread::spawn(|| get().map(|stack| stack.base)).join();
    let other = other.map_err(|_| guest_programs::check::Failure::new("a thread is lost"))??;
    expect!(other != alternate.memory.start.addr());
    Ok(())
}
