//! Many VMs, many at a time, some of them ended by signals at any moment: what should end well does, and
//! nothing is left.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Artifacts, Disk, machine_options};

/// By which the processes of a soak are known: the number of its own process and of the soak.
const MARK: &str = "RINGLET_SOAK";
/// How long a VM may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// The latest moment of a signal.
const LATEST: u64 = 150;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// VMs in all.
    pub count: usize,
    /// VMs at a time.
    pub at_once: usize,
    /// Of the random choices.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// VMs that ended by themselves, each as it should.
    pub ended: usize,
    /// VMs that got a signal.
    pub signalled: usize,
}

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A program, and the exit status that it ends with by itself.
const PROGRAMS: [(&[&str], i32); 6] = [
    (&["/bin/true"], 0),
    (&["/bin/false"], 1),
    (&["/bin/seq", "2000"], 0),
    (&["/bin/crash", "read"], 128 + libc::SIGSEGV),
    (&["/bin/none"], 127),
    (&["/bin/dd", "if=/dev/vda", "of=/dev/null", "bs=64k"], 0),
];

/// A VM that runs.
struct Vm {
    child: Child,
    what: String,
    expected: i32,
    /// The signal it is to get, and when.
    signal: Option<(i32, Instant)>,
    /// It got one.
    is_signalled: bool,
    start: Instant,
}

/// Does it, and checks that nothing is left.
///
/// # Errors
///
/// What went wrong, for people.
pub fn soak(soak: Soak) -> Result<Tally, String> {
    let dir = tempfile::tempdir().map_err(text)?;
    let mark = format!("{}.{}", std::process::id(), soak.seed);
    let disk = Disk::patterned(1 << 20);
    let mut random = Random(soak.seed | 1);
    let mut running: Vec<Vm> = Vec::new();
    let mut tally = Tally::default();
    let mut started = 0;
    while started < soak.count || !running.is_empty() {
        while started < soak.count && running.len() < soak.at_once {
            running.push(start(&mut random, dir.path(), &mark, &disk)?);
            started += 1;
        }
        let mut index = 0;
        while index < running.len() {
            match advance(&mut running[index], &mut random)? {
                None => index += 1,
                Some(status) => {
                    let vm = running.swap_remove(index);
                    check(&vm, status)?;
                    match vm.is_signalled {
                        true => tally.signalled += 1,
                        false => tally.ended += 1,
                    }
                }
            }
        }
        sleep(Duration::from_millis(1));
    }
    await_no_process(&mark)?;
    let left: Vec<PathBuf> = fs::read_dir(dir.path())
        .map_err(text)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    expect(left.is_empty(), &format!("files are left: {left:?}"))?;
    let disk_file = File::open(disk.path()).map_err(text)?;
    // SAFETY: flock has no memory arguments.
    let lock = unsafe { libc::flock(disk_file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    expect(lock == 0, "a disk is still locked")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(text)?;
    expect(!mounts.contains(" nsfs "), "a namespace is kept")?;
    Ok(tally)
}

fn text(error: io::Error) -> String {
    error.to_string()
}

fn expect(condition: bool, what: &str) -> Result<(), String> {
    condition.then_some(()).ok_or_else(|| what.to_owned())
}

fn start(random: &mut Random, dir: &Path, mark: &str, disk: &Disk) -> Result<Vm, String> {
    let (program, expected) = PROGRAMS[random.below(PROGRAMS.len() as u64) as usize];
    let mut command = Command::new(Artifacts::get().ringlet());
    command
        .arg("run")
        .args(machine_options())
        .args(["--mem", "64M", "--disk", &disk.option(true), "--"])
        .args(program)
        .env(MARK, mark)
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    // Half of them are left alone. SIGSTOP and what else stops a process is followed by SIGCONT.
    let signal = (random.below(2) == 0).then(|| {
        let number = 1 + random.below(31) as i32;
        let delay = Duration::from_millis(random.below(LATEST));
        (number, start + delay)
    });
    Ok(Vm {
        what: format!("{program:?} with {signal:?}"),
        child: command.spawn().map_err(text)?,
        expected,
        signal,
        is_signalled: false,
        start,
    })
}

/// Sends the signal when it is time; gives the status of one that has ended.
fn advance(vm: &mut Vm, random: &mut Random) -> Result<Option<ExitStatus>, String> {
    if let Some(status) = vm.child.try_wait().map_err(text)? {
        return Ok(Some(status));
    }
    if let Some((number, at)) = vm.signal
        && Instant::now() >= at
    {
        let pid = vm.child.id() as libc::pid_t;
        // SAFETY: kill has no memory arguments; the child has not been waited for.
        unsafe { libc::kill(pid, number) };
        vm.is_signalled = true;
        let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
        vm.signal = stops.contains(&number).then(|| {
            let delay = Duration::from_millis(random.below(LATEST));
            (libc::SIGCONT, Instant::now() + delay)
        });
    }
    if vm.start.elapsed() > DEADLINE {
        let _ = vm.child.kill();
        let _ = vm.child.wait();
        return Err(format!("{} does not end", vm.what));
    }
    Ok(None)
}

/// What was left alone ends as it should; what got a signal, by that or as it should.
fn check(vm: &Vm, status: ExitStatus) -> Result<(), String> {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let is_right = code == vm.expected || vm.is_signalled && (129..=128 + 31).contains(&code);
    expect(is_right, &format!("{} ended with {code}", vm.what))
}

/// Waits until no process has the mark: one that was killed takes a moment to go, with what it started.
fn await_no_process(mark: &str) -> Result<(), String> {
    let wanted = format!("{MARK}={mark}");
    let start = Instant::now();
    loop {
        let left: Vec<_> = fs::read_dir("/proc")
            .map_err(text)?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let environment = fs::read(path.join("environ")).ok()?;
                environment
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == wanted.as_bytes())
                    .then_some(path)
            })
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        expect(
            start.elapsed() < DEADLINE,
            &format!("processes are left: {left:?}"),
        )?;
        sleep(Duration::from_millis(10));
    }
}
