//! Where threads go.

use super::*;

type Cpus = Scheduler<u32, 4>;

const ANYWHERE: u64 = u64::MAX;

fn cpus() -> Cpus {
    let cpus = Cpus::new();
    cpus.set_count(4);
    cpus
}

fn place(allowed: u64, last: u32) -> CpuChoice {
    CpuChoice {
        allowed,
        last,
        goes_on: false,
    }
}

/// The CPUs that have a thread waiting.
fn waiting(cpus: &Cpus) -> CpuSet {
    (0..4)
        .filter(|number| cpus.has_threads(*number))
        .map(bit)
        .sum()
}

#[test]
fn an_idle_cpu_is_preferred_that_has_the_memory_and_is_awake() {
    // Those that poll, those that halt, the last one, and which is chosen.
    for (polling, halted, last, chosen) in [
        (0b1110, 0, 2, 2),
        (0b0010, 0b1100, 2, 1),
        (0, 0b1100, 3, 3),
        (0, 0b1100, 1, 2),
        (0, 0, 3, 0),
    ] {
        let cpus = cpus();
        cpus.runs_unlimited(3);
        members(polling).for_each(|number| cpus.polls(number));
        members(halted).for_each(|number| cpus.halts(number));
        let interrupted = cpus.add_thread(0, 7, place(ANYWHERE, last));
        assert_eq!(waiting(&cpus), bit(chosen), "{polling:b} {halted:b} {last}");
        assert_eq!(interrupted, bit(chosen) & halted);
    }
}

#[test]
fn who_is_idle_itself_keeps_what_it_wakes_unless_another_is_better() {
    let cpus = cpus();
    cpus.polls(0);
    cpus.halts(1);
    assert_eq!(cpus.add_thread(0, 7, place(ANYWHERE, 1)), 0);
    assert_eq!(waiting(&cpus), 0b0001);
    // It is taken now, so the next one needs another.
    assert_eq!(cpus.add_thread(0, 8, place(ANYWHERE, 1)), 0b0010);
    assert_eq!(waiting(&cpus), 0b0011);
}

#[test]
fn among_busy_cpus_the_least_loaded_one_is_chosen() {
    let cpus = cpus();
    for expected in [0b0001, 0b0011, 0b0111, 0b1111] {
        assert_eq!(cpus.add_thread(0, 7, place(ANYWHERE, 0)), 0);
        assert_eq!(waiting(&cpus), expected);
    }
    assert_eq!(cpus.add_thread(0, 7, place(ANYWHERE, 3)), 0);
    assert_eq!(cpus.cpu(3).threads.0.len(), 2, "its last one looks soon");
}

#[test]
fn affinity_is_kept_by_placing_and_by_stealing() {
    let cpus = cpus();
    cpus.polls(3);
    assert_eq!(cpus.add_thread(0, 7, place(0b0010, 0)), 0);
    assert_eq!(waiting(&cpus), 0b0010);
    assert!(!cpus.has_others(3));
    assert_eq!(cpus.take_thread(3), None);
    assert_eq!(cpus.take_thread(1), Some(7));
    // A set that no CPU is in means nothing.
    assert_eq!(cpus.add_thread(0, 8, place(1 << 60, 0)), 0);
    assert_eq!(waiting(&cpus), 0b1000);
}

#[test]
fn a_thread_that_goes_on_stays_where_it_is() {
    let cpus = cpus();
    cpus.halts(1);
    let goes_on = CpuChoice {
        goes_on: true,
        ..place(ANYWHERE, 0)
    };
    assert_eq!(cpus.add_thread(0, 7, goes_on), 0);
    assert_eq!(cpus.take_thread(0), Some(7));
    // Unless another one comes first: then the idle CPU is told.
    assert_eq!(cpus.add_thread(0, 8, place(0b0001, 0)), 0);
    assert_eq!(cpus.add_thread(0, 7, goes_on), 0b0010);
    assert_eq!(cpus.take_thread(1), Some(7));
}

/// Three threads that compute on two CPUs: each gets two thirds of one.
#[test]
fn threads_that_compute_share_the_cpus_evenly() {
    const THREADS: usize = 3;
    const SLICES: u32 = 300;
    let cpus = cpus();
    cpus.set_count(2);
    let mut running = [0, 1];
    assert_eq!(cpus.add_thread(0, 2, place(ANYWHERE, 0)), 0);
    let mut turns = [0_u32; THREADS];
    for _ in 0..SLICES {
        for (number, thread) in running.iter_mut().enumerate() {
            turns[*thread as usize] += 1;
            let this = number as u32;
            if cpus.balance(this).0 {
                let goes_on = CpuChoice {
                    goes_on: true,
                    ..place(ANYWHERE, this)
                };
                let _ = cpus.add_thread(this, *thread, goes_on);
                *thread = cpus.take_thread(this).unwrap();
            }
        }
    }
    let fair = 2 * SLICES / THREADS as u32;
    assert!(
        turns.iter().all(|count| count.abs_diff(fair) <= 2),
        "{turns:?}"
    );
}

#[test]
fn the_end_of_a_slice_spreads_what_waits() {
    // What is here has to stay on two CPUs, one of which became idle.
    let cpus = cpus();
    assert_eq!(cpus.add_thread(0, 7, place(0b0011, 0)), 0);
    cpus.halts(1);
    assert!(!cpus.has_others(1));
    assert_eq!(cpus.balance(0), (false, 0b0010));
    assert_eq!(cpus.take_thread(1), Some(7));
    // One that runs alone on its CPU is made to share it.
    cpus.note_busy(1);
    cpus.runs_unlimited(2);
    for _ in 0..2 {
        assert_eq!(cpus.add_thread(0, 7, place(ANYWHERE, 0)) & !0b0100, 0);
    }
    assert_eq!(cpus.add_thread(0, 7, place(0b0001, 0)), 0);
    cpus.runs_unlimited(2);
    let (waits, interrupted) = cpus.balance(0);
    assert!(waits);
    assert_eq!(interrupted, 0b0100);
}

#[test]
fn work_stays_here_unless_its_place_is_on_the_watch() {
    let cpus = cpus();
    assert_eq!(cpus.add_work(0, 1, 7), 0);
    assert_eq!(cpus.take_work(0), Some(7));
    cpus.halts(1);
    assert_eq!(cpus.add_work(0, 1, 7), 0);
    assert_eq!(cpus.steal_work(2), Some(7));
    cpus.polls(1);
    assert_eq!(cpus.add_work(0, 1, 7), 0);
    assert_eq!((cpus.work(0), cpus.work(1)), (0, 1));
}
