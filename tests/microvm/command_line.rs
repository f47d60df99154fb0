//! Options that are not errors.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use ringlet_tests::{Artifacts, Ringlet};

#[test]
fn version() {
    let output = Ringlet::new(["--version"]).output().expect_success();
    assert_eq!(
        output.out(),
        concat!("ringlet ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn help_names_every_option() {
    let output = Ringlet::new(["run", "--help"]).output().expect_success();
    for option in [
        "--cpus",
        "--mem",
        "--disk",
        "--env",
        "--rootfs",
        "--kernel",
        "--accel",
        "--mode",
        "--kernel-log",
        "--timeline",
        "PROGRAM",
    ] {
        assert!(output.out().contains(option), "{option}");
    }
}

#[test]
fn completions() {
    for (shell, sign) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef ringlet"),
        ("fish", "complete -c ringlet"),
    ] {
        let output = Ringlet::new(["completions", shell])
            .output()
            .expect_success();
        assert!(output.out().contains(sign), "{shell}");
        assert!(output.out().contains("timeline"), "{shell}");
    }
}

#[test]
fn timeline() {
    let output = Ringlet::run(["--timeline"], ["/bin/echo", "hello"])
        .output()
        .expect_code(0);
    assert_eq!(output.out(), "hello\n");
    let text = output.err();
    let mut stages = Vec::new();
    let mut times = Vec::new();
    // The last line is the mode that the kernel runs in, and why.
    let (lines, mode) = text.trim_end().rsplit_once('\n').unwrap();
    assert!(mode.starts_with("mode: "), "{mode}");
    for line in lines.lines() {
        let rest = line.strip_prefix("timeline: ").expect(line);
        let (time, stage) = rest.split_once(" ms ").expect(line);
        times.push(time.trim().parse::<f64>().expect(line));
        stages.push(stage);
    }
    let wanted = [
        "VM created",
        "kernel entered",
        "kernel ready",
        "program entered",
        "program exited",
    ];
    assert_eq!(stages, wanted);
    assert!(times.is_sorted() && times[0] > 0.0, "{times:?}");
    assert!(
        times[4] <= output.elapsed.as_secs_f64() * 1000.0,
        "{times:?}"
    );
}

#[test]
fn environment() {
    let output = Ringlet::run(
        [
            "--env",
            "ONE=1",
            "--env",
            "TWO=a b=c",
            "--env",
            "EMPTY=",
            "--env",
            "HOST",
        ],
        ["/bin/env"],
    )
    .with(|command| {
        command
            .env("HOST", "from outside")
            .env("SECRET", "stays outside");
    })
    .output()
    .expect_success();
    let text = output.out();
    for line in ["ONE=1", "TWO=a b=c", "EMPTY=", "HOST=from outside"] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
    assert!(text.lines().any(|line| line.starts_with("PATH=")));
    assert!(!text.contains("SECRET"));
}

#[test]
fn arguments_arrive_as_they_are() {
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let output = Ringlet::program([
        OsStr::new("/bin/printf"),
        OsStr::new("[%s]\n"),
        OsStr::new("a b"),
        OsStr::new(""),
        OsStr::new("--mem"),
        OsStr::new("--"),
        OsStr::new("$HOME *"),
        odd,
    ])
    .output()
    .expect_success();
    assert_eq!(
        output.stdout,
        b"[a b]\n[]\n[--mem]\n[--]\n[$HOME *]\n[\xff\xfe]\n"
    );
}

#[test]
fn many_and_long_arguments() {
    let long = "x".repeat(100_000);
    let output = Ringlet::program(["/bin/echo", &long])
        .output()
        .expect_success();
    assert_eq!(output.out(), format!("{long}\n"));
    let mut program = vec!["/bin/echo".to_owned()];
    program.extend((0..2000).map(|number| number.to_string()));
    let output = Ringlet::program(&program).output().expect_success();
    assert_eq!(output.out(), program[1..].join(" ") + "\n");
}

#[test]
fn a_bare_name_is_looked_up() {
    let output = Ringlet::program(["echo", "found"])
        .output()
        .expect_success();
    assert_eq!(output.out(), "found\n");
    let output = Ringlet::program(["/usr/bin/echo", "through a link"]).output();
    assert_eq!(output.expect_success().out(), "through a link\n");
}

#[test]
fn memory_sizes() {
    for size in ["64M", "128m", "1G", "134217728"] {
        Ringlet::run(["--mem", size], ["/bin/true"])
            .output()
            .expect_success();
    }
    // Files in memory need what a small guest does not have.
    let program = ["dd", "if=/dev/zero", "of=/tmp/f", "bs=1M", "count=200"];
    Ringlet::run(["--mem", "1G"], program)
        .output()
        .expect_code(0);
    let output = Ringlet::run(["--mem", "128M"], program).output();
    let message = output.expect_code(1).err();
    assert!(message.contains("dd: "), "{message}");
}

#[test]
fn modes() {
    for mode in ["auto", "shared"] {
        Ringlet::run(["--mode", mode], ["/bin/true"])
            .output()
            .expect_success();
    }
}

#[test]
fn ring0_runs_where_auto_chooses_it_and_is_refused_elsewhere() {
    let auto = Ringlet::run(["--timeline"], ["/bin/true"])
        .output()
        .expect_code(0);
    let output = Ringlet::run(["--mode", "ring0"], ["/bin/true"]).output();
    if auto.err().contains("mode: ring0") {
        output.expect_success();
    } else {
        output.expect_refusal(125, "--mode");
    }
}

#[test]
fn two_processors() {
    Ringlet::run(["--cpus", "2"], ["/bin/true"])
        .output()
        .expect_success();
}

#[test]
fn images_named_by_option_and_environment() {
    let artifacts = Artifacts::get();
    let (kernel, rootfs) = (artifacts.kernel(), artifacts.rootfs());
    let options = [
        OsStr::new("--kernel"),
        kernel.as_os_str(),
        OsStr::new("--rootfs"),
        rootfs.as_os_str(),
    ];
    Ringlet::run(options, ["/bin/true"])
        .with(|command| {
            command
                .env("RINGLET_KERNEL", "/none")
                .env("RINGLET_ROOTFS", "/none");
        })
        .output()
        .expect_success();
    Ringlet::program(["/bin/true"])
        .with(|command| {
            command
                .env("RINGLET_KERNEL", &kernel)
                .env("RINGLET_ROOTFS", &rootfs);
        })
        .output()
        .expect_success();
}

#[test]
fn the_kernel_logs_on_request() {
    let quiet = Ringlet::run(["--kernel-log", "off"], ["/bin/true"]).output();
    quiet.expect_success();
    let output = Ringlet::run(["--kernel-log", "debug"], ["/bin/true"]).output();
    assert!(!output.expect_code(0).err().is_empty());
}
