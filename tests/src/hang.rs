//! What a process that should have ended is doing: for the message of the test that waited for it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A line for each thread of `process` and of its descendants: where the host's kernel has it, and in
/// which system call (proc_pid_wchan(5), proc_pid_syscall(5)).
pub(crate) fn describe(process: u32) -> String {
    let mut text = String::new();
    let mut family = vec![process];
    while let Some(process) = family.pop() {
        describe_threads(process, &mut text);
        family.extend(children(process));
    }
    text
}

fn describe_threads(process: u32, text: &mut String) {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return;
    };
    for thread in threads.flatten() {
        let path = thread.path();
        let [name, state, place, call] = [
            first_line(&path, "comm"),
            state(&path),
            first_line(&path, "wchan"),
            first_line(&path, "syscall"),
        ];
        let number = thread.file_name();
        let number = number.to_string_lossy();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{process}/{number} {name} {state} in {place}: {call}");
    }
}

fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .map(|thread| first_line(&thread.path(), "children"));
    let lists: Vec<_> = lists.collect();
    let numbers = lists.iter().flat_map(|list| list.split_whitespace());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// The letter that `stat` has for the state of the thread.
fn state(thread: &Path) -> String {
    let stat = first_line(thread, "stat");
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.chars().take(1).collect()
}

/// Nothing, where the file or its process is gone.
fn first_line(directory: &Path, file: &str) -> String {
    let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_that_waits_is_described_with_its_own() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let start = std::time::Instant::now();
        let text = loop {
            let text = describe(shell.id());
            if text.contains("sleep S") || start.elapsed() > crate::run::DEADLINE {
                break text;
            }
            std::thread::yield_now();
        };
        for child in children(shell.id()) {
            // SAFETY: it is a child of ours that nobody else waits for but the shell, which waits.
            unsafe { libc::kill(child as i32, libc::SIGKILL) };
        }
        let _ = shell.kill();
        let _ = shell.wait();
        assert!(
            text.contains(" sh S in ") && text.contains(" sleep S in "),
            "{text}"
        );
    }
}
