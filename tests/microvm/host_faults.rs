//! Each call of the host's fails once: that ends with a clear line and the right status, or does not
//! matter; nothing hangs, nothing panics.

use std::process::Command;
use std::time::Duration;

use ringlet_tests::{Artifacts, Disk, HOST_CALLS, HostCall, Traced, has_kvm, run_with_fault};

/// Under ptrace(2), on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// How many calls of each kind are made to fail: all, if `RINGLET_TEST_FAULTS` is `all`.
const SAMPLE: usize = 6;

/// A run that uses what there is: a disk that is read and written, and standard error.
fn run(disk: &Disk, fault: Option<(HostCall, usize)>) -> Traced {
    let mut command = Command::new(Artifacts::get().ringlet());
    command
        .args(["run", "--accel", "kvm", "--timeout", "50", "--disk"])
        .arg(disk.option(false))
        .args([
            "--",
            "/bin/dd",
            "if=/dev/vda",
            "of=/dev/vda",
            "bs=64k",
            "count=4",
        ]);
    // What is told is told in a line, whoever runs the tests.
    command.env_remove("RUST_BACKTRACE");
    let traced = run_with_fault(&mut command, fault, DEADLINE);
    traced.expect("ringlet can be traced")
}

/// The calls to try of `count`: the first and last ones, and some in between.
fn sample(count: usize) -> Vec<usize> {
    let all = std::env::var_os("RINGLET_TEST_FAULTS").is_some_and(|value| value == "all");
    let step = if all {
        1
    } else {
        count.div_ceil(SAMPLE).max(1)
    };
    let mut chosen: Vec<_> = (0..count).step_by(step).collect();
    chosen.extend(count.checked_sub(1));
    chosen.dedup();
    chosen
}

#[test]
fn a_host_call_that_fails_is_told_or_does_not_matter() {
    if !has_kvm() {
        return;
    }
    let disk = Disk::patterned(1 << 20);
    let whole = run(&disk, None);
    assert_eq!(whole.code, 0, "{}", whole.stderr);
    let mut injected = 0;
    for call in HOST_CALLS {
        let count = whole.counts.get(call.name).copied().unwrap_or(0);
        for nth in sample(count) {
            let traced = run(&disk, Some((call, nth)));
            let what = format!("{} {nth} of {count}: {traced:?}", call.name);
            // Which threads make how many calls differs from run to run.
            injected += usize::from(traced.is_injected);
            assert!(!traced.hung, "{what}");
            assert!(!traced.stderr.contains("panicked"), "{what}");
            match traced.code {
                0 => (),
                // The program's disk has failed, and it says so.
                1 => assert!(traced.stderr.contains("dd: "), "{what}"),
                125 => assert!(
                    traced
                        .stderr
                        .lines()
                        .any(|line| line.starts_with("ringlet: ")),
                    "{what}"
                ),
                _ => panic!("{what}"),
            }
        }
    }
    assert!(injected > 20, "{injected} faults");
}
