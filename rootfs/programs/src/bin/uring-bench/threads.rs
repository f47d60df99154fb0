//! Threads: making and ending them, waking each other, and having a ring each.
//!
//! Each benchmark says how many CPUs it takes, and its threads are bound to that many of those that
//! the program may use, so that the same is measured on machines of different sizes.

use std::error::Error;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use guest_programs::sys;

use crate::{Context, Outcome, calls, ring};

/// Threads that are made and joined in a step.
const THREADS: u64 = 16;
/// Round trips in a step.
const ROUND_TRIPS: u64 = 100;

/// Nanoseconds to make a thread that does nothing, and to wait for its end.
pub(crate) fn create_and_join(context: &Context) -> Outcome {
    let _bound = Bound::to(first_cpus(1)?[0])?;
    let rate = context.rate(|| {
        for _ in 0..THREADS {
            let thread = thread::Builder::new().stack_size(64 << 10).spawn(|| ())?;
            thread.join().map_err(|_| "the thread panicked")?;
        }
        Ok(THREADS)
    })?;
    Ok(1e9 / rate)
}

/// A word that two threads hand to each other, waiting in the kernel while the other has it.
struct Ball(AtomicU32);

impl Ball {
    const OURS: u32 = 0;
    const THEIRS: u32 = 1;
    const GONE: u32 = 2;

    fn give(&self, to: u32) -> io::Result<()> {
        self.0.store(to, Ordering::SeqCst);
        self.futex(libc::FUTEX_WAKE, 1).map_err(io_error)?;
        Ok(())
    }

    /// Waits as long as it is in the state `other`; returns the new one.
    fn wait_while(&self, other: u32) -> io::Result<u32> {
        loop {
            let state = self.0.load(Ordering::SeqCst);
            if state != other {
                return Ok(state);
            }
            match self.futex(libc::FUTEX_WAIT, other) {
                Ok(_) | Err(sys::Errno(libc::EAGAIN | libc::EINTR)) => {}
                Err(error) => return Err(io_error(error)),
            }
        }
    }

    fn futex(&self, operation: i32, value: u32) -> sys::SysResult {
        let operation = operation | libc::FUTEX_PRIVATE_FLAG;
        sys!(SYS_futex, self.0.as_ptr(), operation, value, 0)
    }
}

/// Nanoseconds for a wake-up of another thread and its answer, both on one CPU or on two.
pub(crate) fn ping_pong(context: &Context, cpu_count: usize) -> Outcome {
    let cpus = first_cpus(cpu_count)?;
    let (mine, other) = (cpus[0], cpus[cpu_count - 1]);
    let ball = Ball(AtomicU32::new(Ball::OURS));
    thread::scope(|scope| {
        let partner = scope.spawn(|| -> io::Result<()> {
            let _bound = Bound::to(other)?;
            while ball.wait_while(Ball::OURS)? != Ball::GONE {
                ball.give(Ball::OURS)?;
            }
            Ok(())
        });
        let _bound = Bound::to(mine)?;
        let rate = context.rate(|| {
            for _ in 0..ROUND_TRIPS {
                ball.give(Ball::THEIRS)?;
                // A partner that has failed would never answer.
                while ball.wait_while(Ball::THEIRS)? != Ball::OURS {}
            }
            Ok(ROUND_TRIPS)
        });
        ball.give(Ball::GONE)?;
        partner.join().map_err(|_| "the partner panicked")??;
        Ok(1e9 / rate?)
    })
}

/// NOPs a second of all threads together: one on each of `cpu_count` CPUs, with a ring of its own.
pub(crate) fn rings(context: &Context, cpu_count: usize) -> Outcome {
    const BATCH: u32 = 32;
    let start = Barrier::new(cpu_count);
    let is_over = AtomicBool::new(false);
    let run = |cpu: usize| -> Result<f64, String> {
        let measure = || -> Result<f64, Box<dyn Error>> {
            let _bound = Bound::to(cpu)?;
            let mut ring = ring(BATCH)?;
            let mut run_for = |duration: Duration| -> Result<f64, Box<dyn Error>> {
                let start = Instant::now();
                let mut operations = 0;
                while start.elapsed() < duration && !is_over.load(Ordering::Relaxed) {
                    operations += calls::submit_nops(&mut ring, BATCH, 64)?;
                }
                Ok(operations as f64 / start.elapsed().as_secs_f64())
            };
            run_for(context.duration / 5)?;
            run_for(context.duration)
        };
        start.wait();
        let result = measure();
        if result.is_err() {
            is_over.store(true, Ordering::Relaxed);
        }
        result.map_err(|error| error.to_string())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = first_cpus(cpu_count)?
            .into_iter()
            .map(|cpu| scope.spawn(move || run(cpu)))
            .collect();
        let mut total = 0.0;
        for thread in threads {
            total += thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(total)
    })
}

/// A set of CPUs, CPU N as bit N.
type CpuSet = [u64; 16];
const BITS: usize = u64::BITS as usize;

/// The calling thread, and those that it makes, run on one CPU alone until this is dropped.
struct Bound {
    before: CpuSet,
}

impl Bound {
    fn to(cpu: usize) -> io::Result<Self> {
        let before = allowed()?;
        let mut set = [0; _];
        set[cpu / BITS] = 1 << (cpu % BITS);
        allow(&set)?;
        Ok(Self { before })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // These were allowed before, so it does not fail.
        let _ = allow(&self.before);
    }
}

/// The first `count` CPUs that the program may use.
fn first_cpus(count: usize) -> Result<Vec<usize>, Box<dyn Error>> {
    let set = allowed()?;
    let is_set = |cpu: &usize| set[cpu / BITS] >> (cpu % BITS) & 1 != 0;
    let cpus: Vec<_> = (0..set.len() * BITS).filter(is_set).take(count).collect();
    if cpus.len() < count {
        return Err(format!("needs {count} CPUs").into());
    }
    Ok(cpus)
}

fn allowed() -> io::Result<CpuSet> {
    let mut set: CpuSet = [0; _];
    sys!(
        SYS_sched_getaffinity,
        0,
        size_of_val(&set),
        set.as_mut_ptr()
    )
    .map_err(io_error)?;
    Ok(set)
}

fn allow(set: &CpuSet) -> io::Result<()> {
    sys!(SYS_sched_setaffinity, 0, size_of_val(set), set.as_ptr()).map_err(io_error)?;
    Ok(())
}

fn io_error(error: sys::Errno) -> io::Error {
    io::Error::from_raw_os_error(error.0)
}
