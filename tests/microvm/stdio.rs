//! The program's standard streams: pipes, files and `/dev/null`, binary-clean, in any size.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use ringlet_tests::{Artifacts, DEADLINE, Disk, Output, Ringlet, machine_options};

/// Every byte value, and no regularity that a lost or doubled block could hide behind.
fn noise(size: usize) -> Vec<u8> {
    Disk::patterned(size).contents()
}

#[track_caller]
fn assert_same(left: &[u8], right: &[u8]) {
    // Not assert_eq: nobody wants to see megabytes.
    let differs = left
        .iter()
        .zip(right)
        .position(|(left, right)| left != right);
    assert!(
        left == right,
        "{} bytes and {}, first different at {differs:?}",
        left.len(),
        right.len()
    );
}

#[test]
fn large_binary_data_passes_through() {
    let input = noise(16 << 20);
    let output = Ringlet::program(["/bin/cat"]).input(input.clone()).output();
    assert_same(&output.expect_success().stdout, &input);
}

#[test]
fn the_guest_sees_the_same_bytes() {
    let input = noise((4 << 20) + 12345);
    let output = Ringlet::program(["/bin/sha256sum"])
        .input(input.clone())
        .output();
    let mut host = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    host.stdin.take().unwrap().write_all(&input).unwrap();
    let host = host.wait_with_output().unwrap();
    assert_eq!(output.expect_success().stdout, host.stdout);
}

#[test]
fn the_host_sees_the_same_bytes() {
    let output = Ringlet::program(["/bin/seq", "1", "200000"]).output();
    let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert_same(&output.expect_success().stdout, wanted.as_bytes());
}

#[test]
fn files_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let input = noise(3_000_001);
    std::fs::write(dir.path().join("in"), &input).unwrap();
    let from = File::open(dir.path().join("in")).unwrap();
    let to = File::create(dir.path().join("out")).unwrap();
    let err = File::create(dir.path().join("err")).unwrap();
    Ringlet::program(["/bin/cat"])
        .with(|command| {
            command.stdin(from).stdout(to).stderr(err);
        })
        .output()
        .expect_code(0);
    assert_same(&std::fs::read(dir.path().join("out")).unwrap(), &input);
    assert_eq!(std::fs::read(dir.path().join("err")).unwrap(), b"");
}

#[test]
fn a_file_is_read_from_its_position_and_appended_to() {
    let mut from = tempfile::tempfile().unwrap();
    from.write_all(b"skipped and read").unwrap();
    from.seek(std::io::SeekFrom::Start(8)).unwrap();
    let mut to = tempfile::tempfile().unwrap();
    to.write_all(b"before: ").unwrap();
    let handle = to.try_clone().unwrap();
    Ringlet::program(["/bin/cat"])
        .with(|command| {
            command.stdin(from).stdout(handle);
        })
        .output()
        .expect_code(0);
    let mut text = String::new();
    to.rewind().unwrap();
    to.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before: and read");
}

#[test]
fn dev_null_everywhere() {
    Ringlet::program(["/bin/cat"])
        .with(|command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        })
        .output()
        .expect_code(0);
    Ringlet::program(["/bin/seq", "100000"])
        .with(|command| {
            command.stdout(Stdio::null());
        })
        .output()
        .expect_success();
}

#[test]
fn output_and_error_stay_apart() {
    let script = "echo one; echo two >&2; echo three; echo four >&2";
    let output = Ringlet::program(["/bin/sh", "-c", script])
        .output()
        .expect_code(0);
    assert_eq!(
        (output.out(), output.err()),
        ("one\nthree\n".into(), "two\nfour\n".into())
    );
}

#[test]
fn large_data_on_both_output_streams() {
    let script = "BEGIN { for (i = 0; i < 50000; i++) { print i; print i > \"/dev/stderr\" } }";
    let output = Ringlet::program(["/bin/awk", script])
        .output()
        .expect_code(0);
    let wanted: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    assert_same(&output.stdout, wanted.as_bytes());
    assert_same(&output.stderr, wanted.as_bytes());
}

#[test]
fn empty_input_is_the_end_at_once() {
    let output = Ringlet::program(["/bin/wc", "-c"])
        .output()
        .expect_success();
    assert_eq!(output.out(), "0\n");
}

#[test]
fn input_arrives_as_it_is_written() {
    let mut running = Ringlet::program(["/bin/cat"]).start();
    for line in ["first\n", "second\n", "third\n"] {
        running.write(line.as_bytes());
        running.stdout.wait_for(line.as_bytes());
    }
    let output = running.wait().expect_success();
    assert_eq!(output.out(), "first\nsecond\nthird\n");
}

#[test]
fn output_without_a_newline_is_not_held_back() {
    let mut running = Ringlet::program(["/bin/sh", "-c", "printf prompt; read x; echo $x"]).start();
    running.stdout.wait_for(b"prompt");
    running.write(b"answer\n");
    assert_eq!(running.wait().expect_success().out(), "promptanswer\n");
}

#[test]
fn input_that_nobody_reads_does_not_matter() {
    Ringlet::program(["/bin/true"])
        .input(noise(4 << 20))
        .output()
        .expect_success();
    let output = Ringlet::program(["/bin/head", "-c", "5"])
        .input(noise(4 << 20))
        .output()
        .expect_success();
    assert_eq!(output.stdout, noise(5));
}

#[test]
fn a_reader_that_leaves_ends_the_writer() {
    let mut child = Command::new(Artifacts::get().ringlet())
        .arg("run")
        .args(machine_options())
        .args(["--", "/bin/yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut start = [0; 10];
    stdout.read_exact(&mut start).unwrap();
    drop(stdout);
    let deadline = std::time::Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if std::time::Instant::now() > deadline {
            child.kill().unwrap();
            panic!("yes writes on, though nobody reads");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(&start, b"y\ny\ny\ny\ny\n");
    // SIGPIPE ends it, or the error of the write.
    let code = status.code().unwrap();
    assert!(code == 128 + libc::SIGPIPE || code == 1, "{code}");
}

#[test]
fn lost_output_is_told() {
    let zeros = ["/bin/dd", "if=/dev/zero", "bs=1000", "count=100"];
    for program in [&["/bin/echo", "lost"][..], &zeros] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = Ringlet::program(program)
            .with(|command| {
                command.stdout(full);
            })
            .output();
        let told = output.err();
        assert!(told.contains("No space left on device"), "{told}");
        assert_ne!(output.code(), 0);
    }
}

/// `ringlet run` with these options and program, whose files may grow to so many bytes; standard output
/// is a file, which comes back too.
fn with_file_limit(limit: u64, options: &[&str], program: &[&str]) -> (Output, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let mut command = Command::new("prlimit");
    command.arg(format!("--fsize={limit}"));
    let output = Ringlet::run_by(command, options, program)
        .with(|command| {
            command.stdout(File::create(&path).unwrap());
        })
        .output();
    (output, std::fs::read(path).unwrap())
}

#[test]
fn a_limit_of_the_files_size_is_an_error_and_no_signal() {
    let program = ["/bin/dd", "if=/dev/zero", "bs=4096", "count=10"];
    let (output, written) = with_file_limit(10_000, &[], &program);
    let told = output.err();
    assert!(told.contains("File too large"), "{told}");
    assert_ne!(output.code(), 0);
    assert_same(&written, &[0; 10_000]);

    let disk = Disk::patterned(1 << 20);
    let program = [
        "/bin/dd",
        "if=/dev/zero",
        "of=/dev/vda",
        "bs=4096",
        "count=100",
    ];
    let options = ["--disk", &disk.option(false)];
    let (output, _) = with_file_limit(40_960, &options, &program);
    assert!(output.err().contains("File too large"), "{}", output.err());
    output.expect_code(1);
}

#[test]
fn input_that_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let write_only = File::create(&file).unwrap();
    let inputs = [
        (File::open(dir.path()).unwrap(), "Is a directory"),
        (write_only, "Bad file descriptor"),
    ];
    for (input, error) in inputs {
        let output = Ringlet::program(["/bin/cat"])
            .with(|command| {
                command.stdin(input);
            })
            .output();
        assert!(output.err().contains(error), "{}", output.err());
        assert_eq!(output.expect_code(1).out(), "");
    }
}

#[test]
fn a_closed_error_stream_does_not_stop_the_program() {
    let script = "echo lost >&2; echo kept";
    let ringlet = Artifacts::get().ringlet();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"exec "$@" 2>&-"#, "sh"]).arg(ringlet);
    let output = Ringlet::command(command)
        .args(["run"])
        .args(machine_options())
        .args(["--", "/bin/sh", "-c", script])
        .output();
    assert_eq!(output.expect_code(0).out(), "kept\n");
}

#[test]
fn closed_input_is_empty() {
    let ringlet = Artifacts::get().ringlet();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"exec "$@" <&-"#, "sh"]).arg(ringlet);
    let output = Ringlet::command(command)
        .args(["run"])
        .args(machine_options())
        .args(["--", "/bin/cat"])
        .output();
    assert_eq!(output.expect_success().out(), "");
}
