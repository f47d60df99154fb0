//! The jail around ringlet itself. That everything works in it is what all other tests show.

use std::fs;

use ringlet_tests::{Disk, Ringlet, has_kvm};

/// Runs VMs that use what there is, with these options; gives standard error of the last.
fn run(options: &[&str]) -> String {
    let mut text = String::new();
    let disk = Disk::patterned(1 << 20);
    let dir = tempfile::tempdir().unwrap();
    let metrics = dir.path().join("metrics.sock");
    for accelerator in ["kvm", "tcg"] {
        if accelerator == "kvm" && !has_kvm() {
            continue;
        }
        let vm = |program: &[&str]| {
            Ringlet::new(["run", "--cpus", "2", "--accel", accelerator])
                .args(options)
                .args(["--disk", &disk.option(false), "--metrics"])
                .args([&metrics])
                .args(["--"])
                .args(program)
        };
        let copy = ["/bin/dd", "if=/dev/vda", "of=/dev/vda", "bs=64k", "count=8"];
        vm(&copy).output().expect_code(0);
        let cat = vm(&["/bin/cat"]).input("through the jail\n").output();
        let cat = cat.expect_code(0);
        assert_eq!(cat.out(), "through the jail\n");
        text = cat.err();
        // The socket is gone, though nobody may open anything.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    text
}

#[test]
fn all_of_it_can_be_had_and_everything_works() {
    assert_eq!(run(&["--jail", "strict"]), "");
}

#[test]
fn without_it_that_is_said() {
    let text = run(&["--no-jail"]);
    assert!(text.contains("--no-jail: a guest that takes"), "{text}");
}

#[test]
fn threads_of_a_vm_are_confined() {
    if !has_kvm() {
        return;
    }
    let mut running = Ringlet::new(["run", "--accel", "kvm", "--", "/bin/sh"])
        .args(["-c", "echo ready; read x"])
        .start();
    running.stdout.wait_for(b"ready\n");
    let stdin = running.stdin.take();
    let threads = fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap();
    let mut count = 0;
    for thread in threads {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for wanted in [
            "NoNewPrivs:\t1\n",
            "Seccomp:\t2\n",
            "CapEff:\t0000000000000000\n",
            "CapPrm:\t0000000000000000\n",
        ] {
            assert!(status.contains(wanted), "{wanted}{status}");
        }
        count += 1;
    }
    // The event loop, messages, three streams and a vCPU.
    assert!(count >= 6, "{count}");
    drop(stdin);
    running.wait().expect_code(1);
}
