//! Flushing by stores to page table entries, where the host keeps a shadow of the tables.
//!
//! A KVM that translates by shadow page tables keeps the guest's upper tables write-protected: at a
//! store to one of their entries, also of what is there already, it drops what hangs below in the
//! shadow, for all CPUs, before the store is done. What was stored to the last-level tables before is
//! then seen by the next access. That takes a third of what a flush by the monitor and the accesses
//! after it take, and no other CPU is interrupted for it by us. Nothing of it is the architecture's:
//! each CPU tries it out before it runs a program, and any doubt means CR3 and INVLPG.
//!
//! It holds as long as
//!
//! - all stores to last-level entries come before the store above them, which is one aligned MOV of
//!   eight bytes;
//! - a table has one parent and the same permissions above it always;
//! - no more than two stores go to a table in a round. KVM takes the third without an access in between
//!   for a table that is none any more and drops its shadow: that is correct, but slow;
//! - CPUs have no PCIDs (CR4.PCIDE is clear).

use super::smp::current_cpu;
use super::{boot, load_space, mode, per_cpu, privileged};
use crate::flush::{Changed, Flush, FlushWay};
use crate::frame::Frame;
use crate::lock::Mutex;
use crate::page_table::{Access, PageTable, Root, Space};
use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use smallvec::SmallVec;

/// A [`FlushWay`].
static WAY: AtomicU8 = AtomicU8::new(FlushWay::Invalidate as u8);
/// Rounds of the check that `ringlet.check_flush=` asks for; 0 for none.
static CHECK_ROUNDS: AtomicU32 = AtomicU32::new(0);

/// Changes that a CPU sees before it is known to see stores.
const PROBE_ROUNDS: u32 = 4;
/// Pages that programs may do more with than before, whose faults cost less than a flush.
const GAINS_FAULTED: usize = 2;
/// Stores to a table in one round.
const STORES_PER_TABLE: usize = 2;
/// The page by which it is tried out.
const WINDOW: u64 = 0x40_0000_0000;

#[inline]
pub(super) fn way() -> FlushWay {
    match WAY.load(Ordering::Relaxed) {
        1 => FlushWay::Store,
        2 => FlushWay::Nothing,
        _ => FlushWay::Invalidate,
    }
}

fn set_way(way: FlushWay) {
    WAY.store(way as u8, Ordering::Relaxed);
}

/// Chooses how TLBs are flushed: by stores where the host's CPL 0 is emulated and this CPU sees that it
/// works, unless `wanted` says otherwise. Gives what was chosen. Called on the boot CPU before any
/// program runs and before other CPUs are started.
pub fn choose_flush(wanted: Option<FlushWay>) -> FlushWay {
    let tries = match wanted {
        Some(wanted) => wanted == FlushWay::Store,
        None => mode::is_cpl0_emulated(),
    };
    let is_shared = !mode::is_ring0();
    set_way(match is_shared && tries && sees_stores() {
        true => FlushWay::Store,
        false => FlushWay::Invalidate,
    });
    way()
}

/// Checks all ways of flushing in `rounds` rounds, on this CPU and on each other, beside this one, when
/// it is started; what was found is logged. Mode `shared` only, where the kernel accesses memory as a
/// program does.
pub fn check_flush(rounds: u32) {
    if mode::is_ring0() {
        return;
    }
    CHECK_ROUNDS.store(rounds, Ordering::Relaxed);
    if check_here(rounds).is_none() {
        log::error!("flush check: no memory");
    }
}

/// Run on CPU `number` before its first program.
pub(super) fn start_cpu(number: u32) {
    if way() == FlushWay::Store && !sees_stores() {
        set_way(FlushWay::Invalidate);
        log::warn!("CPU {number} does not see stores to page tables: TLBs are flushed by interrupts");
    }
    let rounds = CHECK_ROUNDS.load(Ordering::Relaxed);
    if rounds > 0 {
        check_here(rounds);
        read_beside();
    }
}

/// Run on CPU 0 when CPU `number` runs, with which it then checks the ways that concern two.
pub(super) fn check_with(number: u32) {
    let rounds = CHECK_ROUNDS.load(Ordering::Relaxed);
    if rounds > 0 && change_beside(number, rounds).is_none() {
        log::error!("flush check: no memory");
    }
}

/// Whether a flush costs less than the faults that it saves, where programs may do more than before with
/// the pages that changed: KVM makes the shadow of all entries of a table anew at the next access, but of
/// one entry at a fault.
pub(super) fn is_worth_while(changed: &Changed) -> bool {
    way() == FlushWay::Store && changed.pages.all().is_none_or(|pages| pages.len() > GAINS_FAULTED)
}

/// Stores the entries above what has changed once more, as they are; false if there are too many.
pub(super) fn store_above(root: &Root, changed: &Changed) -> bool {
    let Some(directories) = changed.directories.all() else {
        return false;
    };
    let mut stores: SmallVec<[&AtomicU64; 8]> = SmallVec::new();
    for directory in directories {
        let tables = || changed.tables.all().into_iter().flatten();
        let in_directory = || tables().filter(|table| *table >> 30 == *directory >> 30);
        let is_few = (1..=STORES_PER_TABLE).contains(&in_directory().count());
        if is_few {
            stores.extend(in_directory().filter_map(|table| root.entry(*table, 1)));
            continue;
        }
        // Once for the whole directory, in the table above.
        let in_slot = directories.iter().filter(|it| *it >> 39 == *directory >> 39);
        if in_slot.count() > STORES_PER_TABLE {
            return false;
        }
        stores.extend(root.entry(*directory, 2));
    }
    for entry in stores {
        let value = entry.load(Ordering::Relaxed);
        // SAFETY: the entry is in a table that the caller holds, whose owner alone stores to it and
        // waits for this; its value stays. The compiler must not leave the store out.
        unsafe {
            asm!("mov [{entry}], {value}", entry = in(reg) entry.as_ptr(), value = in(reg) value,
                 options(nostack, preserves_flags));
        }
    }
    true
}

/// A program's memory of one page, which this CPU looks at as a program would.
struct Window {
    table: PageTable,
    frames: [Frame; 2],
}

impl Window {
    fn new() -> Option<Self> {
        let mut table = PageTable::new().ok()?;
        let frames = [Frame::zeroed().ok()?, Frame::zeroed().ok()?];
        frames[1].write(0, &1_u64.to_ne_bytes());
        table.map(WINDOW, frames[0].clone(), Access::READ).ok()?;
        Some(Self { table, frames })
    }

    fn load(&self) {
        load_space(&self.table.space());
    }

    /// Has the page show what round `round` shows, and flushes.
    fn change(&mut self, round: u32) {
        let frame = self.frames[round as usize % 2].clone();
        let mut flush = Flush::new();
        // Its tables are there, so it cannot fail.
        let _: Result<(), _> = self.table.replace(WINDOW, frame, Access::READ, &mut flush);
    }
}

/// The address space that was booted with, in place of the one that is loaded.
fn unload() {
    // SAFETY: fields that only this CPU's kernel uses.
    let cpu = unsafe { &mut *per_cpu::current() };
    // SAFETY: the page map of the boot code, which is never changed below the kernel's half.
    unsafe { privileged::load_cr3(boot::page_map_address()) };
    cpu.root.store(0, Ordering::Relaxed);
    cpu.space = None;
}

/// What this CPU sees at the window of the space that it has loaded: the parity of a round.
fn look() -> u32 {
    let value: u64;
    // SAFETY: mapped in the space that is loaded, of which this is an access like a program's.
    unsafe {
        asm!("mov {value}, [{window}]", value = out(reg) value, window = in(reg) WINDOW,
             options(nostack, preserves_flags, readonly));
    }
    value as u32
}

/// How many of `rounds` changes this CPU does not see at once, flushed in the way that is set.
fn stale_rounds(window: &mut Window, rounds: u32) -> u32 {
    window.load();
    look();
    let mut stale = 0;
    for round in 1..=rounds {
        window.change(round);
        stale += u32::from(look() != round % 2);
    }
    stale
}

/// As [`stale_rounds`], with changes made while another space is loaded.
fn stale_rounds_unloaded(window: &mut Window, other: &Window, rounds: u32) -> u32 {
    let mut stale = 0;
    for round in 1..=rounds {
        window.load();
        look();
        other.load();
        look();
        window.change(round);
        window.load();
        stale += u32::from(look() != round % 2);
    }
    stale
}

/// Whether stores flush this CPU.
fn sees_stores() -> bool {
    let Some(mut window) = Window::new() else {
        return false;
    };
    let before = way();
    set_way(FlushWay::Store);
    let stale = stale_rounds(&mut window, PROBE_ROUNDS);
    set_way(before);
    unload();
    stale == 0
}

fn check_here(rounds: u32) -> Option<()> {
    let (mut window, other) = (Window::new()?, Window::new()?);
    let before = way();
    let [store, invalidate, nothing] = [FlushWay::Store, FlushWay::Invalidate, FlushWay::Nothing].map(|way| {
        set_way(way);
        stale_rounds(&mut window, rounds)
    });
    let not_loaded = stale_rounds_unloaded(&mut window, &other, rounds);
    set_way(before);
    unload();
    log::info!(
        "flush check of CPU {}, stale of {rounds}: store {store}, invalidate {invalidate}, \
         nothing {nothing}, not loaded {not_loaded}",
        current_cpu()
    );
    Some(())
}

/// What CPU 0 and one beside it check together. CPU 0 changes the window and then says so; the other
/// looks at it all the time, and once more when it is told.
struct Beside {
    /// The space of the window, while there is one.
    space: Mutex<Option<Space>>,
    /// The round that CPU 0 has done, [`OVER`] at the end, and the round that the other has looked at.
    told: AtomicU32,
    seen: AtomicU32,
    /// Rounds in which the other saw the page as it was before.
    stale: AtomicU32,
}

static BESIDE: Beside = Beside {
    space: Mutex::new(None),
    told: AtomicU32::new(0),
    seen: AtomicU32::new(0),
    stale: AtomicU32::new(0),
};
const OVER: u32 = u32::MAX;

fn change_beside(number: u32, rounds: u32) -> Option<()> {
    let mut window = Window::new()?;
    BESIDE.told.store(0, Ordering::Relaxed);
    *BESIDE.space.lock() = Some(window.table.space());
    let before = way();
    let mut round = 0;
    let mut stale = |way| {
        set_way(way);
        for _ in 0..rounds {
            round += 1;
            window.change(round);
            BESIDE.told.store(round, Ordering::Release);
            while BESIDE.seen.load(Ordering::Acquire) != round {
                core::hint::spin_loop();
            }
        }
        BESIDE.stale.swap(0, Ordering::Relaxed)
    };
    let (store, nothing) = (stale(FlushWay::Store), stale(FlushWay::Nothing));
    set_way(before);
    BESIDE.told.store(OVER, Ordering::Release);
    while BESIDE.space.lock().is_some() {
        core::hint::spin_loop();
    }
    log::info!(
        "flush check of CPU {number} beside CPU 0, stale of {rounds}: store {store}, nothing {nothing}"
    );
    Some(())
}

fn read_beside() {
    let space = loop {
        if let Some(space) = BESIDE.space.lock().clone() {
            break space;
        }
        core::hint::spin_loop();
    };
    load_space(&space);
    let mut last = 0;
    loop {
        look();
        let told = BESIDE.told.load(Ordering::Acquire);
        if told == OVER {
            break;
        }
        if told != last {
            last = told;
            if look() != told % 2 {
                BESIDE.stale.fetch_add(1, Ordering::Relaxed);
            }
            BESIDE.seen.store(told, Ordering::Release);
        }
    }
    unload();
    *BESIDE.space.lock() = None;
}

