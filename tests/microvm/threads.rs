//! Programs with threads that libraries start, and how such programs end.

use std::path::Path;
use std::process::Command;

use ringlet_tests::{Output, Ringlet};
use rootfs::Image;

/// What `pthreads.c` prints.
const EXPECTED: &str = "\
counter 16000, sum 204, destroyed 36, initialised 1
turns 8
timed out 1, 1
named 0, alive 0
spun 1
owner died 1
the last thread ends the program
";
/// What a dynamic program needs; the last is for `pthread_exit`.
const LIBRARIES: [&str; 3] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/x86_64-linux-gnu/libgcc_s.so.1",
];

/// Compiles `pthreads.c` to a file in `dir`.
fn compile(dir: &Path, options: &[&str]) -> std::path::PathBuf {
    let program = dir.join("pthreads");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/microvm/pthreads.c");
    let status = Command::new("gcc")
        .args(["-O2", "-Wall", "-Werror", "-pthread", source, "-o"])
        .arg(&program)
        .args(options)
        .status();
    assert!(status.unwrap().success(), "gcc {options:?}");
    program
}

/// Runs the program in a VM whose root file system holds it and `libraries`.
fn run(program: &Path, libraries: &[&str]) -> Output {
    let mut image = Image::default();
    let mut add = |name: &str, file: &Path| {
        image
            .file(name, 0o755, std::fs::read(file).unwrap())
            .unwrap();
    };
    add("pthreads", program);
    for library in libraries {
        add(library.trim_start_matches('/'), Path::new(library));
    }
    let path = program.with_extension("cpio");
    std::fs::write(&path, image.archive().unwrap()).unwrap();
    Ringlet::run(["--rootfs", path.to_str().unwrap()], ["/pthreads"]).output()
}

#[test]
fn pthreads_of_a_static_program() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), &["-static"]);
    let host = Ringlet::command(Command::new(&program)).output();
    assert_eq!((host.code(), host.out()), (0, EXPECTED.into()));
    let guest = run(&program, &[]);
    assert_eq!((guest.code(), guest.out()), (0, EXPECTED.into()));
}

#[test]
fn pthreads_of_a_dynamic_program() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), &[]);
    let guest = run(&program, &LIBRARIES);
    assert_eq!((guest.code(), guest.out()), (0, EXPECTED.into()));
}

#[test]
fn any_thread_can_end_the_program() {
    for cpus in ["1", "2"] {
        for how in ["--exit-among-waiting", "--exit-beside-spinning"] {
            let output = Ringlet::run(["--cpus", cpus], ["thread-test", how]).output();
            assert_eq!(output.code(), 42, "{how} on {cpus}: {}", output.err());
        }
    }
}
