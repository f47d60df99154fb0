//! Restartable sequences (`rseq(2)`), in the area that the C library registers for each thread.

use crate::schedule::{pin_to, spin_until};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use std::arch::asm;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

pub(crate) const CHECKS: &[Check] = checks![
    rseq_area_shows_the_cpu,
    rseq_errors,
    rseq_sequence_is_restarted_when_it_is_preempted,
    rseq_area_can_be_given_back,
];

const SIGNATURE: u32 = 0x5305_3053;
const UNREGISTER: i32 = 1;

/// `struct rseq`.
#[repr(C, align(32))]
struct Area {
    cpu_id_start: AtomicU32,
    cpu_id: AtomicU32,
    sequence: AtomicU64,
    flags: AtomicU32,
    node_id: AtomicU32,
    concurrency_id: AtomicU32,
    padding: u32,
}

unsafe extern "C" {
    /// From the thread pointer to the area.
    static __rseq_offset: isize;
    /// Bytes of the area; 0 if the kernel refused it.
    static __rseq_size: u32;
}

fn area() -> Result<&'static Area, Failure> {
    // SAFETY: the C library sets them before the program starts.
    let (offset, size) = unsafe { (__rseq_offset, __rseq_size) };
    expect!(size >= 20);
    let pointer: *const u8;
    // SAFETY: the x86-64 ABI has the thread pointer stored where it points to.
    unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly)) };
    // SAFETY: the area is there as long as the thread is, and this is used by that alone.
    Ok(unsafe { &*pointer.wrapping_offset(offset).cast() })
}

fn rseq_area_shows_the_cpu() -> Outcome {
    fn shown() -> Outcome {
        let area = area()?;
        for _ in 0..100 {
            let (mut cpu, mut node) = (9_u32, 9_u32);
            let before = area.cpu_id.load(Ordering::SeqCst);
            sys!(SYS_getcpu, &raw mut cpu, &raw mut node, 0)?;
            let after = area.cpu_id.load(Ordering::SeqCst);
            // Unless it moved meanwhile.
            if before == after {
                expect_eq!(before, cpu);
                expect_eq!(area.cpu_id_start.load(Ordering::SeqCst), cpu);
                expect_eq!(area.node_id.load(Ordering::SeqCst), node);
            }
            thread::yield_now();
        }
        Ok(())
    }
    shown()?;
    let threads: Vec<_> = (0..4).map(|_| thread::spawn(shown)).collect();
    for thread in threads {
        let lost = |_| Err(Failure::new("a thread is lost"));
        thread.join().unwrap_or_else(lost)?;
    }
    Ok(())
}

fn rseq_errors() -> Outcome {
    let area: *const Area = area()?;
    fails!(EBUSY, SYS_rseq, area, 32, 0, SIGNATURE);
    fails!(EPERM, SYS_rseq, area, 32, 0, 1);
    fails!(EINVAL, SYS_rseq, area.wrapping_add(1), 32, 0, SIGNATURE);
    fails!(EINVAL, SYS_rseq, area, 64, 0, SIGNATURE);
    fails!(EINVAL, SYS_rseq, area, 32, 2, SIGNATURE);
    fails!(EINVAL, SYS_rseq, area, 64, UNREGISTER, SIGNATURE);
    fails!(EPERM, SYS_rseq, area, 32, UNREGISTER, 1);
    fails!(EINVAL, SYS_rseq, area, 32, UNREGISTER | 2, SIGNATURE);
    Ok(())
}

/// Counts down from `count` in a restartable sequence, and again outside: what was left when the
/// sequence was aborted, or `None` if it was not.
fn count_down(area: &Area, count: u64) -> Option<u64> {
    /// `struct rseq_cs`.
    #[repr(C, align(32))]
    struct Description([u64; 4]);
    let mut description = Description([0; 4]);
    let mut left = count;
    let aborted: u64;
    // SAFETY: the description is filled in with the addresses of the code here before the area
    // names it, and the area names it no more when it goes; nothing else is touched.
    unsafe {
        asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{description} + 8], {scratch}",
            "lea {scratch}, [rip + 3f]",
            "lea {aborted}, [rip + 2f]",
            "sub {scratch}, {aborted}",
            "mov [{description} + 16], {scratch}",
            "lea {scratch}, [rip + 4f]",
            "mov [{description} + 24], {scratch}",
            "mov [{area} + 8], {description}",
            "2: dec {left}",
            "jnz 2b",
            "3: xor {aborted:e}, {aborted:e}",
            "jmp 5f",
            ".byte 0x0f, 0xb9, 0x3d",
            ".long 0x53053053",
            "4: mov {aborted:e}, 1",
            "5:",
            area = in(reg) area,
            description = in(reg) description.0.as_mut_ptr(),
            left = inout(reg) left,
            scratch = out(reg) _,
            aborted = out(reg) aborted,
        );
    }
    area.sequence.store(0, Ordering::SeqCst);
    (aborted != 0).then_some(left)
}

fn rseq_sequence_is_restarted_when_it_is_preempted() -> Outcome {
    let area = area()?;
    // A short one runs to its end, nearly always.
    expect!((0..100).any(|_| count_down(area, 10).is_none()));
    let stop = AtomicBool::new(false);
    let aborted = pin_to(0, || {
        thread::scope(|scope| {
            scope.spawn(|| spin_until(&stop));
            let left = (0..10).find_map(|_| count_down(area, 1 << 30));
            stop.store(true, Ordering::Relaxed);
            left
        })
    })?;
    expect!(aborted.is_some_and(|left| left > 0 && left <= 1 << 30));
    expect_eq!(area.sequence.load(Ordering::SeqCst), 0);
    Ok(())
}

fn rseq_area_can_be_given_back() -> Outcome {
    let thread = thread::spawn(|| {
        let own = area()?;
        let pointer: *const Area = own;
        expect_eq!(sys!(SYS_rseq, pointer, 32, UNREGISTER, SIGNATURE), Ok(0));
        expect_eq!(own.cpu_id.load(Ordering::SeqCst), u32::MAX);
        fails!(EINVAL, SYS_rseq, pointer, 32, UNREGISTER, SIGNATURE);
        fails!(EINVAL, SYS_rseq, pointer, 28, 0, SIGNATURE);
        fails!(
            EINVAL,
            SYS_rseq,
            pointer.wrapping_byte_add(4),
            32,
            0,
            SIGNATURE
        );
        fails!(EFAULT, SYS_rseq, 0x7fff_ffff_ffe0_i64, 4096, 0, SIGNATURE);
        expect_eq!(sys!(SYS_rseq, pointer, 32, 0, SIGNATURE), Ok(0));
        thread::yield_now();
        expect!(own.cpu_id.load(Ordering::SeqCst) != u32::MAX);
        Ok(())
    });
    let lost = |_| Err(Failure::new("the thread is lost"));
    thread.join().unwrap_or_else(lost)
}
