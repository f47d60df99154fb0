//! Shells and what they start: busybox in the guest does what busybox on the host does.

use std::process::Command;

use ringlet_tests::{Output, Ringlet};

/// Runs a script of busybox's shell in both places, with `name` and what follows as its arguments;
/// output and status must be the same.
#[track_caller]
fn same(script: &str) -> Output {
    let mut command = Command::new("/bin/busybox");
    command
        .args(["sh", "-c", script])
        .env_clear()
        .env("PATH", "/bin:/usr/bin");
    let host = Ringlet::command(command).output();
    let guest = Ringlet::run(["--cpus", "2"], ["sh", "-c", script]).output();
    let seen = |output: &Output| (output.code(), output.out(), output.err());
    assert_eq!(seen(&guest), seen(&host), "{script}");
    guest
}

#[test]
fn pipelines_and_lists() {
    same("echo one two | tr a-z A-Z | rev");
    same("seq 1000 | sort -rn | head -n 3; seq 5000 | wc -l");
    same("for i in 1 2 3; do busybox echo $i; done | sort -r");
    same("(exit 3); echo $?; busybox false || echo no; ! busybox true; echo $?");
    same("x=$(seq 3 | wc -l); echo $((x + 1)) $(basename $(dirname /a/b/c))");
    same("yes | head -n 2; echo ${PIPESTATUS:-none}");
}

#[test]
fn background_jobs_and_signals() {
    same("sleep 0.05 & wait $!; echo $?");
    same("sleep 100 & kill $!; wait $! 2>/dev/null; echo $?");
    same("trap 'echo caught' USR1; kill -USR1 $$; echo after");
    same("(sleep 0.02; exit 4) & (exit 5) & wait %1; echo $?; wait; echo $?");
    same("sh -c 'kill -9 $$'; echo $?");
    same("trap 'echo leaving' EXIT; exit 3");
}

#[test]
fn redirections_and_descriptors() {
    same("cat <<end | wc -c\nsome text\nend\n");
    same("exec 3>/dev/null; echo x >&3; { echo out; echo err >&2; } 2>&1 | sort");
    same("echo a > /tmp/$$.x; cat < /tmp/$$.x; rm /tmp/$$.x; cat /tmp/$$.x 2>/dev/null; echo $?");
}

#[test]
fn other_programs() {
    same("busybox env -i A=b busybox env");
    same("seq 20 | xargs -n 3 echo | tail -n 2");
    same("busybox timeout 0.1 sleep 10; echo $?");
    same("find /etc/passwd -exec echo found {} +");
    same("seq 3 | while read x; do echo $x | rev; done");
}

#[test]
fn what_is_not_there_cannot_be_executed() {
    let output = same("/nothing 2>/dev/null; echo $?; /etc 2>/dev/null; echo $?");
    assert_eq!(output.out(), "127\n126\n");
}

#[test]
fn when_the_program_ends_all_ends() {
    let script = "sleep 1000 & sleep 1000 & echo started";
    let output = Ringlet::program(["sh", "-c", script]).output();
    assert_eq!((output.code(), output.out()), (0, "started\n".to_owned()));
}

#[test]
fn ps_shows_processes() {
    let script = "sleep 100 & ps -o pid,ppid,stat,comm | grep sleep; kill $!";
    let output = Ringlet::program(["sh", "-c", script]).output();
    let text = output.out();
    let fields: Vec<_> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(fields[1..], ["1", "S", "sleep"], "{text}");
}

/// As many processes as a small VM has memory for, ended by one signal.
#[test]
fn a_crowd_of_processes_ends_by_one_signal() {
    let script = "i=0; while [ $i -lt 200 ]; do sleep 99 & i=$((i+1)); done; \
                  set -- /proc/[0-9]*; echo $#; kill -9 -1; wait; set -- /proc/[0-9]*; echo $#";
    let output = Ringlet::run(["--memory", "512M"], ["sh", "-c", script]).output();
    assert_eq!(output.expect_success().out(), "201\n1\n");
}
