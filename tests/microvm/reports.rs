//! What is known of a run when it has ended: `--report`, `--missing`, `--log-format`; and `--timeout`.

use std::time::Duration;

use ringlet_tests::{Disk, Output, Ringlet};
use serde_json::Value;

/// Runs a program with `--report` and `--missing`; gives both files too.
fn reported(options: &[&str], program: &[&str]) -> (Output, Value, Value) {
    let dir = tempfile::tempdir().unwrap();
    let [report, missing] = ["report", "missing"].map(|name| dir.path().join(name));
    let mut all = vec!["--report".as_ref(), report.as_os_str()];
    all.extend(["--missing".as_ref(), missing.as_os_str()]);
    all.extend(options.iter().map(std::ffi::OsStr::new));
    let output = Ringlet::run(all, program).output();
    let read = |path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    (output, read(report), read(missing))
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_program_that_ends_well() {
    let (output, report, missing) = reported(&[], &["/bin/echo", "hello"]);
    assert_eq!(output.expect_success().out(), "hello\n");
    let keys: Vec<_> = report.as_object().unwrap().keys().collect();
    let wanted = [
        "accel",
        "cpu_ms",
        "error",
        "faults",
        "max_rss_kib",
        "missing",
        "mode",
        "signal",
        "status",
        "timeline",
        "wall_ms",
    ];
    assert_eq!(keys, wanted);
    assert_eq!(report["status"], 0);
    assert_eq!(
        (&report["signal"], &report["error"]),
        (&Value::Null, &Value::Null)
    );
    let stages = report["timeline"].as_object().unwrap();
    for stage in [
        "VM created",
        "kernel entered",
        "kernel ready",
        "program entered",
    ] {
        assert!(
            number(&stages[stage]) < number(&stages["program exited"]),
            "{report}"
        );
    }
    assert!(number(&stages["program exited"]) <= number(&report["wall_ms"]));
    assert!(number(&report["cpu_ms"]) > 0.0);
    assert!(number(&report["max_rss_kib"]) > 1000.0);
    assert_eq!(
        (&report["missing"], &report["faults"]),
        (&missing, &missing)
    );
    assert_eq!(missing, Value::Array(Vec::new()));
}

#[test]
fn failures_have_their_status_signal_and_error() {
    let (_, report, _) = reported(&[], &["/bin/sh", "-c", "exit 7"]);
    assert_eq!(
        (&report["status"], &report["signal"]),
        (&7.into(), &Value::Null)
    );
    let (_, report, _) = reported(&[], &["/bin/crash", "read"]);
    assert_eq!(report["status"], 128 + libc::SIGSEGV);
    assert_eq!(report["signal"], libc::SIGSEGV);
    let (output, report, _) = reported(&[], &["/bin/none"]);
    let error = report["error"].as_str().unwrap();
    assert!(output.err().contains(error), "{error}");
    assert_eq!(report["status"], 127);
    let (_, report, _) = reported(&["--kernel", "/none"], &["/bin/true"]);
    assert_eq!(report["status"], 125);
    assert!(report["error"].as_str().unwrap().contains("/none"));
    assert_eq!(report["timeline"], Value::Object(serde_json::Map::new()));
}

#[test]
fn what_is_not_there_is_counted_and_named() {
    // There are no modules.
    let (output, report, missing) = reported(&[], &["/bin/rmmod", "nothing"]);
    let line = output.err();
    assert_ne!(output.code(), 0);
    let ours: Vec<_> = line
        .lines()
        .filter(|line| line.starts_with("ringlet: "))
        .collect();
    assert_eq!(ours.len(), 1, "{line}");
    assert!(ours[0].contains("system calls delete_module"), "{line}");
    assert_eq!(report["missing"], missing);
    let entry = &missing.as_array().unwrap()[0];
    assert_eq!(entry["kind"], "syscall");
    assert_eq!(entry["name"], "delete_module");
    assert_eq!(entry["number"], 176);
    assert!(number(&entry["count"]) >= 1.0);
}

#[test]
fn an_end_by_a_signal_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let options = ["--report", report.to_str().unwrap()];
    let mut running = Ringlet::run(options, ["/bin/sh", "-c", "echo ready; read x"]).start();
    running.stdout.wait_for(b"ready\n");
    running.signal(libc::SIGTERM);
    let stdin = running.stdin.take();
    running.wait().expect_code(128 + libc::SIGTERM);
    drop(stdin);
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["status"], 128 + libc::SIGTERM);
    assert_eq!(report["signal"], libc::SIGTERM);
}

#[test]
fn the_time_ends_a_vm() {
    let (output, report, _) = reported(
        &["--timeout", "1s"],
        &["/bin/sh", "-c", "echo before; while :; do :; done"],
    );
    // What it had written is not lost.
    assert_eq!(output.out(), "before\n");
    assert_eq!(output.err(), "");
    assert!(
        output.elapsed >= Duration::from_secs(1),
        "{:?}",
        output.elapsed
    );
    output.expect_code(124);
    assert_eq!(
        (&report["status"], &report["signal"]),
        (&124.into(), &Value::Null)
    );
    for never in ["0", "1000d"] {
        Ringlet::run(["--timeout", never], ["/bin/true"])
            .output()
            .expect_success();
    }
    let output = Ringlet::run(["--timeout", "soon"], ["/bin/true"]).output();
    output.expect_refusal(125, "soon");
}

#[test]
fn files_that_cannot_be_written_are_refused_before_anything_runs() {
    for option in ["--report", "--missing", "--metrics"] {
        let output = Ringlet::run([option, "/none/file"], ["/bin/echo", "no"]).output();
        output.expect_refusal(125, "/none/file");
    }
}

/// The value of a metric in Prometheus' text format.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn metrics_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrics");
    let disk = Disk::patterned(1 << 20);
    let options = [
        "--metrics",
        file.to_str().unwrap(),
        "--disk",
        &disk.option(true),
    ];
    let program = ["/bin/dd", "if=/dev/vda", "of=/dev/null", "bs=4096"];
    Ringlet::run(options, program).output().expect_code(0);
    let text = std::fs::read_to_string(file).unwrap();
    let of_disk = |name: &str| {
        metric(
            &text,
            &format!("{name}{{device=\"ringlet-disk0\",kind=\"read\"}}"),
        )
    };
    let requests = of_disk("ringlet_device_requests_total");
    assert!(requests >= 1.0);
    assert_eq!(of_disk("ringlet_device_bytes_total"), 1_048_576.0);
    let latencies = "ringlet_device_latency_seconds_count{device=\"ringlet-disk0\"}";
    assert!(metric(&text, latencies) >= requests);
    assert_eq!(
        metric(&text, "ringlet_guest_memory_bytes"),
        f64::from(512 << 20)
    );
    assert!(metric(&text, "ringlet_resident_memory_bytes") > 1e6);
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn metrics_by_a_socket() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("metrics.sock");
    let options = ["--metrics", socket.to_str().unwrap()];
    let mut running = Ringlet::run(options, ["/bin/sh", "-c", "echo ready; read x"]).start();
    running.stdout.wait_for(b"ready\n");
    let ask = |request: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    for request in [&b""[..], b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let text = ask(request);
        assert_eq!(text.starts_with("HTTP/1.0 200 OK\r\n"), !request.is_empty());
        let out = "ringlet_device_bytes_total{device=\"stdout\",kind=\"write\"}";
        if text.contains("device=\"stdout\"") {
            assert_eq!(metric(&text, out), 6.0);
        }
        assert!(text.ends_with("# EOF\n"));
    }
    running.write(b"\n");
    running.wait().expect_success();
    assert!(!socket.exists());
}

#[test]
fn messages_as_json() {
    let output = Ringlet::run(
        [
            "--log-format",
            "json",
            "--kernel-log",
            "debug",
            "--timeline",
        ],
        ["/bin/none"],
    )
    .output()
    .expect_code(127);
    let lines: Vec<Value> = output
        .err()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let of = |source: &'static str| lines.iter().filter(move |line| line["source"] == source);
    assert!(of("kernel").count() > 0);
    assert!(of("ringlet").any(|line| {
        line["level"] == "error"
            && line["message"]
                .as_str()
                .unwrap()
                .contains("/bin/none: not found")
    }));
    assert!(
        lines
            .iter()
            .all(|line| line["time"].as_str().unwrap().ends_with('Z'))
    );
    // The program's own words are its own.
    let output = Ringlet::run(
        ["--log-format", "json"],
        ["/bin/sh", "-c", "echo words >&2"],
    )
    .output();
    assert_eq!(output.expect_code(0).err(), "words\n");
}
