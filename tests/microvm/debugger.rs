//! `ringlet run --gdb`, driven by GDB itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ringlet_tests::{Artifacts, DEADLINE, Output, Ringlet, Running};
use tempfile::TempDir;

/// A VM that waits for a debugger at a socket of its own.
struct Debuggee {
    directory: TempDir,
    vm: Running,
}

impl Debuggee {
    fn start(options: &[&str], program: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("gdb");
        let mut vm = Ringlet::new(["run", "--gdb"])
            .args([&socket])
            .args(options)
            .args(["--"])
            .args(program)
            .start();
        vm.stderr.wait_for(b"waiting for a debugger");
        Self { directory, vm }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("gdb")
    }
}

/// GDB with the kernel's symbols, connected to `address`, and these commands.
fn gdb(address: &Path, commands: &[&str]) -> Ringlet {
    let mut gdb = Command::new("gdb");
    gdb.args(["--batch", "-nx", "-iex", "set debuginfod enabled off"])
        .arg("-ex")
        .arg(format!("target remote {}", address.display()));
    for command in commands {
        gdb.args(["-ex", command]);
    }
    gdb.arg(Artifacts::get().kernel());
    Ringlet::command(gdb)
}

/// Runs GDB to its end; it must have printed each of `says`, in that order.
#[track_caller]
fn debug(debuggee: &Debuggee, commands: &[&str], says: &[&str]) {
    check(&gdb(&debuggee.socket(), commands).output(), says);
}

#[track_caller]
fn check(output: &Output, says: &[&str]) {
    let (text, errors) = (output.out(), output.err());
    let mut rest = text.as_str();
    for say in says {
        let Some((_, after)) = rest.split_once(say) else {
            panic!("no {say:?} where it should be in:\n{text}\n{errors}");
        };
        rest = after;
    }
}

const SHELL: &[&str] = &["/bin/sh", "-c", "echo from the program; exit 7"];

#[test]
fn from_the_first_instruction_to_the_programs_end() {
    let debuggee = Debuggee::start(&[], SHELL);
    debug(
        &debuggee,
        &[
            "info registers cr0",
            "set breakpoint always-inserted on",
            "break ringlet_kernel_main",
            "continue",
            "backtrace",
            "x/i $rip",
            "stepi",
            "stepi",
            "set $r15 = 0x1234",
            "print/x $r15",
            "delete",
            "continue",
        ],
        &[
            // Paging is off.
            "cr0            0x11",
            "Breakpoint 1, ",
            "#0  ringlet_kernel_main",
            "#1  ",
            "machine_start",
            "=> ",
            // The guest's own instruction, not the breakpoint that is there.
            "call ",
            "$1 = 0x1234",
            "exited with code 07",
        ],
    );
    let output = debuggee.vm.wait().expect_code(7);
    assert_eq!(output.out(), "from the program\n");
    assert!(!debuggee.directory.path().join("gdb").exists());
}

#[test]
fn boot_and_system_calls_are_stepped_through() {
    let debuggee = Debuggee::start(&[], SHELL);
    debug(
        &debuggee,
        &[
            // From CPL 0 without paging into the kernel's first Rust code.
            "stepi 300",
            "info symbol $rip",
            "tbreak ringlet_kernel_main",
            "continue",
            // Through everything there is: exceptions, the monitor, system calls.
            "stepi 30000",
            "continue",
        ],
        &["in section", "ringlet_kernel_main", "exited with code 07"],
    );
    debuggee.vm.wait().expect_code(7);
}

/// The CPU time that a process has used, in hundredths of a second (proc_pid_stat(5)).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let times = fields.split(' ').skip(11).take(2);
    times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_spinning_program_is_interrupted_and_has_breakpoints() {
    let script = "echo spinning; while :; do :; done";
    let mut debuggee = Debuggee::start(&[], &["/bin/sh", "-c", script]);
    let gdb = gdb(
        &debuggee.socket(),
        &[
            "continue",
            "print $cs & 3",
            "stepi",
            "stepi",
            "set $here = $rip",
            "break *$here",
            "continue",
            "print/d $rip == $here",
            "kill",
        ],
    )
    .start();
    debuggee.vm.stdout.wait_for(b"spinning\n");
    // By then it is the program that spins, not the kernel that writes what it said.
    let (start, before) = (Instant::now(), cpu_ticks(debuggee.vm.pid()));
    while cpu_ticks(debuggee.vm.pid()) < before + 20 {
        assert!(start.elapsed() < DEADLINE, "the program does not spin");
        std::thread::sleep(Duration::from_millis(5));
    }
    gdb.signal(libc::SIGINT);
    check(
        &gdb.wait(),
        &["SIGINT", "$1 = 3", "Breakpoint 1, ", "$2 = 1"],
    );
    let output = debuggee.vm.wait().expect_code(125);
    assert!(
        output
            .err()
            .ends_with("ringlet: the debugger ended the VM\n")
    );
}

#[test]
fn a_detached_vm_goes_on_and_may_be_attached_again() {
    let debuggee = Debuggee::start(&[], SHELL);
    let socket = debuggee.socket();
    let first = gdb(
        &socket,
        &["break ringlet_kernel_main", "continue", "detach"],
    );
    check(&first.output(), &["Breakpoint 1, ", "detached"]);
    let output = debuggee.vm.wait().expect_code(7);
    assert_eq!(output.out(), "from the program\n");

    let mut debuggee = Debuggee::start(&[], &["/bin/sh", "-c", "echo up; read x; exit $x"]);
    let socket = debuggee.socket();
    gdb(&socket, &["detach"]).output();
    debuggee.vm.stdout.wait_for(b"up\n");
    let again = gdb(&socket, &["info threads", "disconnect"]).output();
    check(&again, &["vCPU 0"]);
    debuggee.vm.write(b"9\n");
    debuggee.vm.wait().expect_code(9);
}

#[test]
fn the_programs_own_breakpoint_reaches_it() {
    let debuggee = Debuggee::start(&[], &["/bin/crash", "breakpoint"]);
    debug(
        &debuggee,
        &["break machine_fault", "continue"],
        &["terminated with signal SIGTRAP"],
    );
    debuggee.vm.wait().expect_code(128 + libc::SIGTRAP);
}

#[test]
fn every_vcpu_is_a_thread() {
    let debuggee = Debuggee::start(&["--cpus", "2"], SHELL);
    debug(
        &debuggee,
        &[
            "info threads",
            "break ringlet_kernel_main",
            "continue",
            "thread 2",
            "thread 1",
            "stepi",
            "delete",
            "continue",
        ],
        &["vCPU 0", "vCPU 1", "Breakpoint 1, ", "exited with code 07"],
    );
    debuggee.vm.wait().expect_code(7);
}

#[test]
fn a_cpu_that_is_held_while_it_starts_is_waited_for() {
    let debuggee = Debuggee::start(&["--cpus", "2"], &["/bin/nproc"]);
    debug(
        &debuggee,
        &[
            "break machine_start_cpu",
            "continue",
            "shell sleep 0.5",
            "delete",
            "continue",
        ],
        &["machine_start_cpu", "exited normally"],
    );
    let output = debuggee.vm.wait().expect_code(0);
    assert_eq!(output.out(), "2\n");
}

#[test]
fn over_tcp_too() {
    let mut vm = Ringlet::run(["--gdb", "0"], SHELL).start();
    let text = vm.stderr.wait_for(b"'\n");
    let text = String::from_utf8_lossy(text).into_owned();
    let address = text.split("target remote ").nth(1).unwrap().trim_end();
    let address = address.trim_end_matches('\'');
    assert!(address.starts_with("127.0.0.1:"), "{text}");
    check(
        &gdb(Path::new(address), &["continue"]).output(),
        &["exited with code 07"],
    );
    vm.wait().expect_code(7);
}

#[test]
fn a_signal_ends_a_vm_that_waits_for_its_debugger() {
    let debuggee = Debuggee::start(&[], SHELL);
    debuggee.vm.signal(libc::SIGTERM);
    let output = debuggee.vm.wait().expect_code(128 + libc::SIGTERM);
    assert_eq!(output.out(), "");
    assert!(!debuggee.directory.path().join("gdb").exists());
}
