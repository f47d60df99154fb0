//! Rights of pages that change while other threads use them.

use crate::crew::{self, Worker};
use crate::remapping::PAGE;
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{Errno, Mapping, SysResult};
use guest_programs::{checks, expect_eq, sys};
use libc::{EFAULT, PROT_NONE, PROT_READ, PROT_WRITE};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

pub(crate) const CHECKS: &[Check] = checks![system_calls_see_what_is_allowed];

/// The option by which the program does [`store_after_protect`].
pub(crate) const STORE_AFTER_PROTECT: &str = "--store-after-protect";

/// What a page allows, in the order of its numbers.
const RIGHTS: [i32; 3] = [PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE];

/// A page whose rights change.
struct Page {
    mapping: Mapping,
    /// Twice the number of changes, plus one during a change; and the index of the rights.
    state: AtomicU64,
}

// SAFETY: only system calls access the page.
unsafe impl Sync for Page {}

impl Page {
    fn change(&self, right: u64) -> Outcome {
        let turn = self.state.load(Ordering::SeqCst) >> 2;
        self.state.store((turn + 1) << 2, Ordering::SeqCst);
        let rights = RIGHTS[right as usize];
        sys!(SYS_mprotect, self.mapping.start, PAGE, rights)?;
        self.state.store((turn + 2) << 2 | right, Ordering::SeqCst);
        Ok(())
    }

    /// Fails if `call`, made while the rights did not change, does not do as they say.
    fn verify(&self, needed: i32, call: impl FnOnce(*mut u8) -> SysResult) -> Outcome {
        let before = self.state.load(Ordering::SeqCst);
        let result = call(self.mapping.start);
        let after = self.state.load(Ordering::SeqCst);
        let is_steady = before == after && before >> 2 & 1 == 0;
        let allowed = RIGHTS[(before & 3) as usize] & needed == needed;
        match result {
            Ok(8) if allowed || !is_steady => Ok(()),
            Err(Errno(EFAULT)) if !allowed || !is_steady => Ok(()),
            other => Err(Failure::new(format!(
                "{other:?} where {needed} is needed and {before:#x}, then {after:#x}, is there"
            ))),
        }
    }
}

fn system_calls_see_what_is_allowed() -> Outcome {
    let page = Page {
        mapping: Mapping::new(PAGE, PROT_READ | PROT_WRITE)?,
        state: AtomicU64::new(0),
    };
    crew::run(
        "system_calls_see_what_is_allowed",
        &[
            ("changer", 1, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    page.change(worker.random.below(RIGHTS.len() as u64))?;
                    if worker.random.once_in(2) {
                        worker.random.pause();
                    }
                }
                Ok(())
            }),
            ("caller", 3, &|worker: &mut Worker<'_>| {
                let zeros = std::fs::File::open("/dev/zero")?;
                let (reader, writer) = std::io::pipe()?;
                while worker.goes_on() {
                    let mut has_written = false;
                    page.verify(PROT_READ, |at| {
                        let result = sys!(SYS_write, writer.as_raw_fd(), at, 8);
                        has_written = result.is_ok();
                        result
                    })?;
                    if has_written {
                        let mut bytes = [0_u8; 8];
                        let read = sys!(SYS_read, reader.as_raw_fd(), bytes.as_mut_ptr(), 8);
                        expect_eq!((read, bytes), (Ok(8), [0; 8]));
                    }
                    page.verify(PROT_WRITE, |at| sys!(SYS_read, zeros.as_raw_fd(), at, 8))?;
                }
                Ok(())
            }),
        ],
    )
}

/// Stores to a page from one thread while another makes it read-only: the first store after that
/// ends the program by SIGSEGV. If it does not, a CPU has kept what it knew of the page.
pub(crate) fn store_after_protect() -> ExitCode {
    let Ok(mapping) = Mapping::new(PAGE, PROT_READ | PROT_WRITE) else {
        return ExitCode::from(2);
    };
    // SAFETY: inside the mapping, which outlives the threads; all accesses are atomic.
    let word = unsafe { AtomicU64::from_ptr(mapping.start.cast()) };
    let is_protected = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                let must_fault = is_protected.load(Ordering::SeqCst);
                word.fetch_add(1, Ordering::SeqCst);
                if must_fault {
                    eprintln!("a store to a page that is read-only");
                    std::process::exit(1);
                }
            }
        });
        while word.load(Ordering::SeqCst) < 10_000 {
            thread::yield_now();
        }
        let result = sys!(SYS_mprotect, mapping.start, PAGE, PROT_READ);
        is_protected.store(result.is_ok(), Ordering::SeqCst);
    });
    ExitCode::SUCCESS
}
