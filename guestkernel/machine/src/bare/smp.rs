//! The other CPUs: starting them, interrupting them, flushing their TLBs.
//!
//! Started by INIT and start-up interrupts (Intel SDM volume 3, section 10.4), one after the
//! other. APIC identifiers are taken to be the CPUs' numbers, as VMMs give them.

use super::interrupt::FLUSH;
use super::mode::is_ring0;
use super::per_cpu::{LeaveBy, PerCpu, Stacks};
use super::shadow;
use super::{PANIC_STACK_SIZE, boot, clock, gates, interrupt, per_cpu, privileged, stacks};
use crate::PhysAddr;
use crate::flush::{Changed, FlushWay};
use crate::page_table::Root;
use crate::physical::pointer;
use crate::stall::{self, Patience};
use crate::tsc_sync::WarpCheck;
use alloc::vec;
use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use spin::Once;

/// CPUs that the kernel can use.
pub(super) const MAX_CPUS: usize = ringlet_abi::MAX_CPUS;
/// The page at which another CPU starts: below 1 MiB, where nothing is kept after boot.
pub(super) const START_PAGE: u64 = 0x8000;
/// Nanoseconds after which a CPU that has not started is given up. The host may be busy, or a
/// debugger hold the CPU: only where there is no such CPU at all is this waited for.
const START_TIMEOUT: u64 = 10_000_000_000;
/// In place of the block of a CPU that was given up.
const GIVEN_UP: *mut PerCpu = ptr::without_provenance_mut(1);

/// The blocks of the CPUs that run, by number.
static CPUS: [AtomicPtr<PerCpu>; MAX_CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];
static COUNT: AtomicU32 = AtomicU32::new(1);
/// The comparison of each CPU's TSC with that of the first.
static WARP_CHECKS: [WarpCheck; MAX_CPUS] = [const { WarpCheck::new() }; MAX_CPUS];
/// Whether they are compared: not where the host says that they agree.
static COMPARES_TSCS: AtomicBool = AtomicBool::new(false);
/// What each CPU but the first runs for ever.
static MAIN: Once<fn() -> !> = Once::new();

unsafe extern "C" {
    static cpu_start: u8;
    static cpu_start_end: u8;
    safe static starting_cpu: AtomicU64;
    safe static starting_gates: AtomicU64;
    safe static gdt: [AtomicU64; 8 + 2 * MAX_CPUS];
}

/// CPUs that run; they are numbered from 0.
#[inline]
pub fn cpu_count() -> u32 {
    COUNT.load(Ordering::Relaxed)
}

/// The number of the CPU that executes this.
#[inline]
pub fn current_cpu() -> u32 {
    // SAFETY: a field that never changes.
    unsafe { (*per_cpu::current()).number }
}

/// Starts CPUs until there are `wanted`, all of which run `main`; gives how many there are then:
/// less than `wanted` if the machine has fewer.
pub fn start_cpus(wanted: u32, main: fn() -> !) -> u32 {
    CPUS[0].store(per_cpu::boot_cpu(), Ordering::Release);
    let wanted = wanted.min(MAX_CPUS as u32);
    if wanted <= 1 {
        return cpu_count();
    }
    MAIN.call_once(|| main);
    COMPARES_TSCS.store(!clock::is_the_same_everywhere(), Ordering::Relaxed);
    // SAFETY: other CPUs only use atomic fields.
    unsafe { &*per_cpu::boot_cpu() }
        .is_alone
        .store(0, Ordering::SeqCst);
    let (code, end) = (&raw const cpu_start, &raw const cpu_start_end);
    // SAFETY: the page lies below 1 MiB, which no frame does, and the boot information that may
    // have been there was copied.
    unsafe {
        ptr::copy_nonoverlapping(
            code,
            pointer(PhysAddr(START_PAGE)),
            end as usize - code as usize,
        );
    }
    boot::map_low_memory(true);
    starting_gates.store(
        if is_ring0() { gates::pointer() } else { 0 },
        Ordering::Relaxed,
    );
    if (1..wanted).all(start) {
        // One that is late would still need it.
        boot::map_low_memory(false);
    }
    cpu_count()
}

/// Starts one CPU and waits until it runs; false if it does not, and then it never will.
fn start(number: u32) -> bool {
    let stacks = Stacks {
        kernel: stacks::map(number),
        panic: vec![0u128; PANIC_STACK_SIZE / 16].leak().as_ptr_range().end as u64,
    };
    let fast_return = if is_ring0() {
        LeaveBy::SysRet
    } else {
        LeaveBy::Jump
    };
    let cpu = per_cpu::add(number, fast_return, stacks);
    let address = (&raw const *cpu) as u64;
    let [low, high] = task_descriptor(address);
    gdt[8 + 2 * number as usize].store(low, Ordering::Relaxed);
    gdt[9 + 2 * number as usize].store(high, Ordering::Relaxed);
    starting_cpu.store(address, Ordering::SeqCst);
    interrupt::send_start(number, (START_PAGE >> 12) as u8);
    let end = clock::monotonic() + START_TIMEOUT;
    while CPUS[number as usize].load(Ordering::Acquire).is_null() {
        if clock::monotonic() >= end && take_part(number, GIVEN_UP) {
            return false;
        }
        core::hint::spin_loop();
    }
    compare_tsc(number);
    if COMPARES_TSCS.load(Ordering::Relaxed) {
        let warp = WARP_CHECKS[number as usize].warp();
        if warp > 0 {
            log::warn!("the TSC of CPU {number} is {warp} cycles off; times are made to agree");
            clock::never_go_back();
        }
    }
    COUNT.store(number + 1, Ordering::Release);
    shadow::check_with(number);
    true
}

/// Takes part in the comparison of CPU `number`'s TSC, if there is one.
fn compare_tsc(number: u32) {
    if COMPARES_TSCS.load(Ordering::Relaxed) {
        WARP_CHECKS[number as usize].take_part(clock::ordered_cycles);
    }
}

/// Has CPU `number` take part as `block`, or as [`GIVEN_UP`] not at all; false if the other was
/// decided before.
fn take_part(number: u32, block: *mut PerCpu) -> bool {
    CPUS[number as usize]
        .compare_exchange(ptr::null_mut(), block, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
}

/// The descriptor of the task state segment at `base` (Intel SDM volume 3, figure 9-4).
fn task_descriptor(base: u64) -> [u64; 2] {
    let limit = 0x67;
    let available_task = 0x89 << 40;
    [
        limit | (base & 0xff_ffff) << 16 | available_task | (base >> 24 & 0xff) << 56,
        base >> 32,
    ]
}

/// Another CPU's first Rust code, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn machine_start_cpu() -> ! {
    interrupt::initialise_local();
    let cpu = per_cpu::current();
    // SAFETY: a field that never changes.
    let number = unsafe { (*cpu).number };
    if !take_part(number, cpu) {
        // The others do without this CPU, and the program's memory must do without it too.
        loop {
            privileged::wait();
        }
    }
    compare_tsc(number);
    shadow::start_cpu(number);
    match MAIN.get() {
        Some(main) => main(),
        None => unreachable!("main is set before any CPU is started"),
    }
}

/// Mixes the number of this CPU into bits 48 to 63 of an address.
#[inline]
pub(crate) fn mix_cpu_into(address: u64) -> u64 {
    let mut mixed = address;
    // SAFETY: GS belongs to the kernel, and the field never changes.
    unsafe {
        asm!("xor {}, gs:[{mark}]", inout(reg) mixed, mark = const per_cpu::offset::LOCK_MARK,
             options(nostack, readonly, pure));
    }
    mixed
}

/// Lets others run while this CPU waits: it need not, they have CPUs of their own.
pub(crate) fn relax() {}

/// The blocks of all CPUs but this one.
pub(super) fn others() -> impl Iterator<Item = (u32, &'static PerCpu)> {
    let own = current_cpu();
    (0..cpu_count())
        .filter(move |number| *number != own)
        .filter_map(|number| {
            let cpu = CPUS[number as usize].load(Ordering::Acquire);
            // SAFETY: blocks live for ever; of others' only atomic fields are used.
            Some((number, unsafe { cpu.as_ref() }?))
        })
}

/// Interrupts CPU `number`, whether it runs a program or waits.
pub fn kick(number: u32) {
    if number < cpu_count() {
        interrupt::send_kick(number);
    }
}

/// Takes what has changed in the tables of `root` out of the TLBs of all CPUs; when it returns, no
/// program sees it.
///
/// The tables were changed before. A CPU that loads them says so before it does ([`load_space`]), and
/// this looks afterwards, with a fence between the two steps of each: one that is not seen to have
/// them loaded finds them changed.
///
/// [`load_space`]: super::load_space
pub(crate) fn flush_tlb(root: &Root, changed: &Changed) {
    if !changed.has_lost && !shadow::is_worth_while(changed) {
        return;
    }
    fence(Ordering::SeqCst);
    let address = root.address().0;
    let has_loaded = |cpu: &PerCpu| cpu.root.load(Ordering::Relaxed) == address;
    // SAFETY: of this CPU's block only atomic fields are used.
    let is_loaded_here = has_loaded(unsafe { &*per_cpu::current() });
    let is_alone = cpu_count() == 1;
    if !is_loaded_here && (is_alone || !others().any(|(_, cpu)| has_loaded(cpu))) {
        return;
    }
    match shadow::way() {
        FlushWay::Store if shadow::store_above(root, changed) || !changed.has_lost => return,
        FlushWay::Nothing => return,
        FlushWay::Store | FlushWay::Invalidate => {}
    }
    if is_loaded_here {
        match changed.pages.all() {
            Some(pages) => pages.iter().copied().for_each(privileged::invalidate_page),
            // SAFETY: it is the page map that is loaded.
            None => unsafe { privileged::load_cr3(address) },
        }
    }
    if is_alone {
        return;
    }
    let concerned = || others().filter(|(_, cpu)| has_loaded(cpu));
    // A CPU in the kernel flushes before it enters a program again: it looks at the latch after it
    // has said that it is in the program. Only one that is there now has to be waited for.
    for (number, cpu) in concerned() {
        cpu.latched.fetch_or(FLUSH, Ordering::SeqCst);
        if cpu.in_program.load(Ordering::SeqCst) != 0 {
            interrupt::send_kick(number);
        }
    }
    for (number, cpu) in concerned() {
        let mut patience = Patience::new();
        while cpu.in_program.load(Ordering::Acquire) != 0
            && cpu.latched.load(Ordering::Acquire) & FLUSH != 0
        {
            if patience.spin() {
                stall::report(format_args!(
                    "CPU {} has waited {} s for CPU {number} to flush its TLB",
                    current_cpu(),
                    patience.seconds()
                ));
            }
        }
    }
}
