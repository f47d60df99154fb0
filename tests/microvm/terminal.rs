//! `ringlet` on a terminal.

use std::process::Command;

use ringlet_tests::{Ringlet, Running, Terminal};
use rootfs::Image;

/// Starts a program whose three streams are the terminal.
fn start(terminal: &Terminal, program: &[&str]) -> Running {
    Ringlet::program(program)
        .with(|command| on(terminal, command))
        .start()
}

fn on(terminal: &Terminal, command: &mut Command) {
    command
        .stdin(terminal.stdio())
        .stdout(terminal.stdio())
        .stderr(terminal.stdio());
    terminal.control(command);
}

#[test]
fn the_program_sees_a_terminal_of_that_size() {
    let mut terminal = Terminal::new(33, 101);
    let script = "test -t 0 && test -t 1 && test -t 2 && echo yes";
    let running = start(&terminal, &["/bin/sh", "-c", script]);
    terminal.screen_with("yes\r\n");
    running.wait().expect_code(0);
    let running = start(&terminal, &["/bin/stty", "size"]);
    terminal.screen_with("33 101\r\n");
    running.wait().expect_code(0);
}

#[test]
fn pipes_are_no_terminals() {
    let script = "test -t 0 || test -t 1 || test -t 2 || echo none";
    let output = Ringlet::program(["/bin/sh", "-c", script]).output();
    assert_eq!(output.expect_success().out(), "none\n");
}

#[test]
fn raw_while_it_runs_and_restored_after() {
    let mut terminal = Terminal::new(24, 80);
    let before = terminal.settings();
    assert!(!terminal.is_raw());
    let running = start(&terminal, &["/bin/cat"]);
    terminal.type_in(b"hello\r");
    // Once by the echo, once by cat.
    terminal.screen_with("hello\r\nhello\r\n");
    assert!(terminal.is_raw());
    // Ctrl-D at the start of a line is the end of the input.
    terminal.type_in(b"\x04");
    running.wait().expect_code(0);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn lines_can_be_edited() {
    let mut terminal = Terminal::new(24, 80);
    let running = start(&terminal, &["/bin/cat"]);
    terminal.type_in(b"wrong\x15righz\x7ft\r");
    terminal.screen_with("\r\nright\r\n");
    terminal.type_in(b"\x04");
    running.wait().expect_code(0);
}

#[test]
fn restored_after_an_error() {
    let terminal = Terminal::new(24, 80);
    let before = terminal.settings();
    start(&terminal, &["/bin/none"]).wait().expect_code(127);
    assert_eq!(terminal.settings(), before);
    start(&terminal, &["/bin/crash", "read"])
        .wait()
        .expect_code(139);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_new_size_reaches_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("winsize");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/microvm/winsize.c");
    let gcc = Command::new("gcc")
        .args(["-O2", "-Wall", "-Werror", "-static", source, "-o"])
        .arg(&program)
        .status();
    assert!(gcc.unwrap().success());
    let mut image = Image::default();
    let contents = std::fs::read(&program).unwrap();
    image.file("winsize", 0o755, contents).unwrap();
    let rootfs = dir.path().join("rootfs");
    std::fs::write(&rootfs, image.archive().unwrap()).unwrap();

    let mut terminal = Terminal::new(24, 80);
    let running = Ringlet::run(["--rootfs", rootfs.to_str().unwrap()], ["/winsize"])
        .with(|command| on(&terminal, command))
        .start();
    terminal.screen_with("first 24 80\r\n");
    terminal.resize(50, 132);
    terminal.screen_with("now 50 132\r\n");
    running.wait().expect_code(0);
}

fn ends(key: Option<&[u8]>, signal: i32) {
    let mut terminal = Terminal::new(24, 80);
    let before = terminal.settings();
    let running = start(
        &terminal,
        &["/bin/sh", "-c", "echo ready; while :; do :; done"],
    );
    terminal.screen_with("ready");
    assert!(terminal.is_raw());
    match key {
        Some(key) => terminal.type_in(key),
        None => running.signal(signal),
    }
    running.wait().expect_code(128 + signal);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn ctrl_c_ends_the_vm() {
    ends(Some(b"\x03"), libc::SIGINT);
}

#[test]
fn sigterm_ends_the_vm() {
    ends(None, libc::SIGTERM);
}

#[test]
fn sighup_ends_the_vm() {
    ends(None, libc::SIGHUP);
}

#[test]
fn a_piped_output_beside_a_terminal_is_untouched() {
    let terminal = Terminal::new(24, 80);
    let output = Ringlet::program(["/bin/printf", "a\\nb\\0c\\n"])
        .with(|command| {
            command.stdin(terminal.stdio()).stderr(terminal.stdio());
            terminal.control(command);
        })
        .start()
        .wait()
        .expect_code(0);
    assert_eq!(output.stdout, b"a\nb\0c\n");
}
