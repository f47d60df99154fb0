//! Programs of the host in the guest: the same output and status as on the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringlet_tests::{Output, Ringlet};

const SOURCE: &str = r#"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **words) {
    volatile double number = count;
    char *set = getenv("RINGLET_TEST_SET");
    printf("%s %f %s\n", words[1], sin(number), set ? set : "nothing");
    return 40 + count;
}
"#;

/// A program that needs a dynamic linker and two libraries.
fn compiled(dir: &Path) -> PathBuf {
    let (source, program) = (dir.join("program.c"), dir.join("program"));
    fs::write(&source, SOURCE).unwrap();
    let mut compiler = Command::new("cc");
    compiler.arg("-o").arg(&program).arg(&source).arg("-lm");
    assert!(compiler.status().unwrap().success());
    program
}

fn run(options: &[&str], dir: &Path, words: &[&str]) -> Output {
    Ringlet::run(options, words)
        .with(|command| {
            command.current_dir(dir).env("RINGLET_TEST_SET", "set");
        })
        .output()
}

#[test]
fn a_dynamic_program_runs_as_on_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let program = compiled(dir.path());
    let host = Command::new(&program)
        .arg("word")
        .env("RINGLET_TEST_SET", "set")
        .output()
        .unwrap();
    let options = ["-e", "RINGLET_TEST_*"];
    for name in ["./program", program.to_str().unwrap()] {
        let output = run(&options, dir.path(), &[name, "word"]);
        assert_eq!(output.stdout, host.stdout);
        output.expect_code(host.status.code().unwrap());
    }
    let output = run(&[], dir.path(), &["./program", "word"]);
    assert!(output.out().ends_with("nothing\n"), "{}", output.out());
}

#[test]
fn a_script_runs_by_the_roots_shell() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    fs::write(&script, "#!/bin/sh\necho $1; exit 5\n").unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let output = run(&[], dir.path(), &["./script", "word"]);
    assert_eq!(output.out(), "word\n");
    output.expect_code(5);
    // The host's permissions count.
    fs::set_permissions(&script, PermissionsExt::from_mode(0o644)).unwrap();
    let output = run(&[], dir.path(), &["./script"]);
    output.expect_refusal(126, "script");
}

#[test]
fn a_program_starts_where_and_as_whom_it_is_told() {
    let options = ["-w", "/made/for/this", "-u", "7:8", "--hostname", "name"];
    for (program, expected) in [
        (&["/bin/pwd"][..], "/made/for/this\n"),
        (&["/bin/id", "-u"], "7\n"),
        (&["/bin/id", "-g"], "8\n"),
        (&["/bin/uname", "-n"], "name\n"),
    ] {
        let output = Ringlet::run(options, program).output();
        assert_eq!(output.out(), expected);
        output.expect_code(0);
    }
    Ringlet::run(["-w", "/bin/busybox/x"], ["/bin/true"])
        .output()
        .expect_code(125);
}
