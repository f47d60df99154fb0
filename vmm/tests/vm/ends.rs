//! How a VM can end: the guest's word, its crash, a signal.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::guest::{Code, DEADLINE, Dir, EXIT, MARK, await_end, finish, start, stderr};
use ringlet_abi::control::Exit;

/// Bytes that wait in a pipe.
fn waiting(pipe: &impl AsRawFd) -> libc::c_int {
    let mut count = 0;
    // SAFETY: FIONREAD writes an int.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    assert_eq!(result, 0);
    count
}

fn exiting(exit: Exit) -> Code {
    Code::default().store(EXIT, exit.encode()).hang()
}

#[test]
fn the_guest_says_how_it_ended() {
    let dir = Dir::new();
    for (exit, status, says) in [
        (Exit::Exited(0), 0, ""),
        (Exit::Exited(7), 7, ""),
        (Exit::Exited(255), 255, ""),
        (Exit::Signaled(11), 139, ""),
        (
            Exit::NotFound,
            127,
            "/bin/program: not found in the root file system",
        ),
        (
            Exit::NotExecutable(8),
            126,
            "/bin/program: cannot be executed: Exec format error",
        ),
        (Exit::Panic, 125, "panicked"),
        (Exit::BadRootfs, 125, "--rootfs"),
        (Exit::OutOfMemory, 125, "--mem"),
        (Exit::BadMode, 125, "--mode"),
        (Exit::BadBoot, 125, "make"),
    ] {
        let output = finish(&mut dir.ringlet(&exiting(exit).elf(true)));
        let text = stderr(&output, status);
        assert!(text.contains(says), "{exit:?}: {text}");
        let lines = if says.is_empty() { 0 } else { 1 };
        assert_eq!(text.lines().count(), lines, "{text}");
    }
}

#[test]
fn a_value_that_means_nothing_is_an_error() {
    let dir = Dir::new();
    let code = Code::default().store(EXIT, 0x7fff_0000).hang();
    let output = finish(&mut dir.ringlet(&code.elf(true)));
    assert!(stderr(&output, 125).contains("0x7fff0000"));
}

#[test]
fn the_serial_port_goes_to_stderr() {
    let dir = Dir::new();
    let code = Code::default()
        .print("first\nsecond\n")
        .print("no newline")
        .store(EXIT, Exit::Exited(3).encode())
        .hang();
    let output = finish(&mut dir.ringlet(&code.elf(true)));
    assert_eq!(stderr(&output, 3), "first\nsecond\nno newline");
}

#[test]
fn a_triple_fault_is_reported_with_registers() {
    let dir = Dir::new();
    // No IDT: lidt [zeros above the code]; ud2
    let code = Code::default()
        .bytes(&[0x0f, 0x01, 0x1d])
        .bytes(&0x30_0000_u32.to_le_bytes())
        .bytes(&[0x0f, 0x0b])
        .hang();
    let output = finish(&mut dir.ringlet(&code.elf(true)));
    let text = stderr(&output, 125);
    assert!(text.contains("triple-faulted"), "{text}");
    assert!(
        text.contains("rip=0x200007") && text.contains("cr3="),
        "{text}"
    );
    assert!(text.contains("code at rip: 0f 0b eb fe"), "{text}");
    assert!(text.contains("\n  0x0000000000200007\n"), "{text}");
}

#[test]
fn an_sse_instruction_without_an_idt_ends_the_vm_with_a_report() {
    let dir = Dir::new();
    // addps xmm0, xmm0: an internal error where KVM emulates CPL 0; else #UD (CR4.OSFXSR is clear)
    // and with no IDT a triple fault.
    let code = Code::default()
        .bytes(&[0x0f, 0x01, 0x1d])
        .bytes(&0x30_0000_u32.to_le_bytes())
        .bytes(&[0x0f, 0x58, 0xc0])
        .hang();
    let output = finish(&mut dir.ringlet(&code.elf(true)));
    let text = stderr(&output, 125);
    assert!(
        text.contains("emulate") || text.contains("triple-faulted"),
        "{text}"
    );
    assert!(
        text.contains("rip=0x200007") && text.contains("0f 58 c0"),
        "{text}"
    );
}

#[test]
fn the_timeline_has_the_stages_that_were_reached() {
    let dir = Dir::new();
    let code = Code::default()
        .store(MARK, 1)
        .store(MARK, 3)
        .store(MARK, 99)
        .store(EXIT, 0)
        .hang();
    let output = finish(dir.ringlet(&code.elf(true)).arg("--timeline"));
    let text = stderr(&output, 0);
    let mut last = 0.0;
    let mut stages = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [tag, time, unit, stage @ ..] = &words[..] else {
            panic!("{line}");
        };
        let time: f64 = time.parse().unwrap();
        assert!(
            (*tag, *unit) == ("timeline:", "ms") && time >= last,
            "{text}"
        );
        last = time;
        stages.push(stage.join(" "));
    }
    assert_eq!(stages, ["VM created", "kernel entered", "program entered"]);
}

#[test]
fn signals_end_a_guest_that_does_not() {
    let dir = Dir::new();
    for (signal, status) in [
        (libc::SIGINT, 130),
        (libc::SIGTERM, 143),
        (libc::SIGHUP, 129),
    ] {
        for cpus in ["1", "3"] {
            let code = Code::default().print("up\n").hang();
            let mut command = dir.ringlet(&code.elf(true));
            let running = start(command.args(["--cpus", cpus]));
            running.stderr.wait_for("up\n", 1);
            running.signal(signal);
            assert_eq!(stderr(&running.end(), status), "up\n");
        }
    }
}

#[test]
fn sigquit_reports_on_every_vcpu_and_the_guest_goes_on() {
    let dir = Dir::new();
    let code = Code::default().print("up\n").hang();
    let mut command = dir.ringlet(&code.elf(true));
    let running = start(command.args(["--cpus", "3"]));
    running.stderr.wait_for("up\n", 1);
    for report in [1, 2] {
        running.signal(libc::SIGQUIT);
        running.stderr.wait_for("vCPU 2: ", report);
    }
    running.signal(libc::SIGTERM);
    let text = stderr(&running.end(), 143);
    let report = "vCPU 0: running in the kernel, CPL 0, protected mode\nrip=0x20";
    assert_eq!(text.matches(report).count(), 2, "{text}");
    for index in ["1", "2"] {
        let line = format!("vCPU {index}: not started by the guest\n");
        assert_eq!(text.matches(&line).count(), 2, "{text}");
    }
}

#[test]
fn a_signal_ends_a_vm_whose_stderr_nobody_reads() {
    let dir = Dir::new();
    let (reader, writer) = std::io::pipe().unwrap();
    // SAFETY: F_SETPIPE_SZ has no memory arguments.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert_eq!(size, 4096);
    let line = Code::default().print(&"x".repeat(119).replacen('x', "\n", 1));
    let lines = (0..100).fold(Code::default(), |code, _| code.then(&line));
    let mut command = dir.ringlet(&lines.hang().elf(true));
    let child = command.args(["--", "x"]).stderr(writer).spawn().unwrap();
    drop(command);
    let before = Instant::now();
    // No room for one more line.
    while waiting(&reader) <= size - 120 {
        assert!(before.elapsed() < DEADLINE, "the pipe is not full");
        std::thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: kill has no memory arguments, and the child is not waited for yet.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    assert_eq!(await_end(child).status.code(), Some(130));
    drop(reader);
}

#[test]
fn an_ignored_signal_stays_ignored() {
    use std::os::unix::process::CommandExt;
    let dir = Dir::new();
    let mut command = dir.ringlet(&Code::default().print("up\n").hang().elf(true));
    // SAFETY: signal is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        })
    };
    let running = start(&mut command);
    running.stderr.wait_for("up\n", 1);
    running.signal(libc::SIGHUP);
    // Signals that wait are served in the order of their numbers: this comes later.
    running.signal(libc::SIGQUIT);
    running.stderr.wait_for("vCPU 0: ", 1);
    running.signal(libc::SIGTERM);
    stderr(&running.end(), 143);
}

#[test]
fn memory_above_the_hole_is_there() {
    let dir = Dir::new();
    // 4 GiB: the guest reads low memory only; that it starts says that KVM took both regions.
    let mut command = dir.ringlet(&exiting(Exit::Exited(5)).elf(true));
    stderr(&finish(command.args(["--mem", "4G"])), 5);
}

#[test]
fn a_root_file_system_that_is_truncated_under_the_vm_ends_it() {
    let dir = Dir::new();
    // The last page of 64 MiB, where the image is: mov eax, [0x3fff000]; jmp back
    let code = Code::default().print("up\n");
    let code = code.bytes(&[0xa1, 0x00, 0xf0, 0xff, 0x03, 0xeb, 0xf9]);
    let mut image = b"070701".to_vec();
    image.resize(3 * 4096, 0);
    let image = dir.file("image", &image);
    let mut command = dir.ringlet(&code.elf(true));
    let running = start(command.args(["--mem", "64M", "--rootfs"]).arg(&image));
    running.stderr.wait_for("up\n", 1);
    std::fs::write(&image, b"").unwrap();
    let text = stderr(&running.end(), 125);
    assert!(
        text.contains("root file system image was truncated"),
        "{text}"
    );
}
