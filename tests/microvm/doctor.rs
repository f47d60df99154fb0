//! `ringlet doctor`: what it finds must be what `ringlet run` meets.

use std::process::Command;

use ringlet_tests::{Artifacts, Output, Ringlet, has_kvm};
use serde_json::Value;

/// `ringlet doctor --json`, run by a shell script that does something to its environment first.
fn doctor_after(script: &str) -> (Output, Value) {
    let script = format!(r#"{script} exec "$@""#);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(Artifacts::get().ringlet());
    let output = Ringlet::command(command)
        .args(["doctor", "--json"])
        .output();
    let value = serde_json::from_slice(&output.stdout).expect("an object of JSON");
    (output, value)
}

#[track_caller]
fn assert_problem(found: &Value, what: &str, remedy: &str) {
    let problems = found["problems"].as_array().unwrap();
    let is_told = problems.iter().any(|problem| {
        problem["what"].as_str().unwrap().contains(what)
            && problem["do"].as_str().unwrap().contains(remedy)
    });
    assert!(is_told, "{what:?} with {remedy:?} is not in {problems:#?}");
}

#[test]
fn what_runs_is_what_was_said() {
    let (output, found) = doctor_after("");
    assert_eq!(output.err(), "");
    assert_eq!(output.code(), 0, "{found}");
    assert_eq!(found["ok"], true);
    assert_eq!(found["version"], env!("CARGO_PKG_VERSION"));
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let run = Ringlet::new(["run", "--report"])
        .args([&report])
        .args(["--", "/bin/true"])
        .output();
    assert_eq!(run.code(), 0);
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["accel"], found["accel"]);
    assert_eq!(report["mode"], found["mode"]);
    assert_eq!(found["accel"] == "kvm", has_kvm());
}

#[test]
fn without_kvm_it_is_qemu_or_nothing() {
    let (_, found) = doctor_after("mount -t tmpfs none /dev &&");
    assert_eq!(found["kvm"]["usable"], false);
    assert_eq!(found["kvm"]["kind"], "none");
    let reason = found["kvm"]["reason"].as_str().unwrap();
    assert!(reason.contains("/dev/kvm"), "{reason}");
    assert_eq!(
        (&found["ok"], &found["accel"]),
        (&true.into(), &"tcg".into())
    );
    assert_problem(&found, "/dev/kvm", "virtualization");

    let (output, found) = doctor_after("mount -t tmpfs none /dev && PATH=/none");
    assert_eq!(output.code(), 1);
    assert_eq!(found["ok"], false);
    assert_eq!(
        (&found["accel"], &found["mode"]),
        (&Value::Null, &Value::Null)
    );
    assert_problem(&found, "/dev/kvm", "apt-get install qemu-system-x86");
}

#[test]
fn another_device_at_dev_kvm_is_no_kvm() {
    let (_, found) = doctor_after("mount -t tmpfs none /dev && mknod /dev/kvm c 1 3 &&");
    assert_eq!(found["kvm"]["usable"], false);
    assert_eq!(
        (&found["kvm"]["kind"], &found["accel"]),
        (&"none".into(), &"tcg".into())
    );
}

#[test]
fn missing_images_and_low_limits_are_told() {
    let (output, found) =
        doctor_after("ulimit -n 40; RINGLET_KERNEL=/none; export RINGLET_KERNEL;");
    assert_eq!(output.code(), 1);
    assert_problem(&found, "/none", "make");
    assert_problem(&found, "40 files", "ulimit -n");
}

#[test]
fn people_are_told_the_same() {
    let output = Ringlet::new(["doctor"]).output();
    assert_eq!(output.code(), 0);
    assert!(
        output.out().ends_with("'ringlet run' will work\n"),
        "{}",
        output.out()
    );
}
