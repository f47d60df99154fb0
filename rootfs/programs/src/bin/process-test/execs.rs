//! `execve(2)` and `execveat(2)`. This program is what is executed: with `--play` it tells what it finds.

use crate::child::{Child, CloneArgs, clone3, exit, fork, getpid, pipe, wait4};
use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{SysResult, create, open};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

pub(crate) const CHECKS: &[Check] = checks![
    a_program_gets_arguments_and_environment,
    a_program_keeps_its_number_and_directory,
    the_command_name_is_the_file_s,
    no_arguments_are_one_empty_one,
    descriptors_are_closed_on_exec,
    signals_are_reset_on_exec,
    other_threads_end_on_exec,
    a_thread_that_executes_becomes_the_first,
    a_vforked_child_executes,
    scripts_run_their_interpreter,
    open_files_are_executed,
    links_are_followed_unless_asked_not_to,
    what_cannot_be_executed_is_refused,
    too_much_is_refused,
    a_program_that_runs_is_not_written,
    the_auxiliary_vector_tells_who_runs,
    execution_can_be_tried,
];

const PLAY: &str = "--play";

/// Tells what it is asked for, if this program was executed by a check.
pub(crate) fn play() -> Option<ExitCode> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let place = arguments.iter().position(|argument| argument == PLAY)?;
    let what = arguments.get(place + 1)?.to_str()?;
    match what {
        "arguments" => {
            let show = |text: &std::ffi::OsStr| println!("{}", text.to_string_lossy());
            arguments.iter().for_each(|argument| show(argument));
            std::env::vars_os().for_each(|(name, value)| {
                println!("{}={}", name.to_string_lossy(), value.to_string_lossy());
            });
        }
        "self" => {
            let mut name = [0_u8; 16];
            let _ = sys!(SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr());
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(16);
            println!("pid {}", getpid());
            println!("tid {}", sys!(SYS_gettid).unwrap_or(0));
            println!("name {}", String::from_utf8_lossy(&name[..end]));
            println!("directory {:?}", std::env::current_dir().ok());
            let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
            println!("threads {:?}", threads.ok());
        }
        "descriptors" => {
            let fd = arguments.get(place + 2)?.to_str()?.parse::<i32>().ok()?;
            println!("{}", sys!(SYS_fcntl, fd, libc::F_GETFD).is_ok());
        }
        "signals" => {
            for signal in [libc::SIGUSR1, libc::SIGUSR2] {
                let mut words = [0_u64; 4];
                let _ = sys!(SYS_rt_sigaction, signal, 0, words.as_mut_ptr(), 8);
                println!("{}", words[0]);
            }
            let mut blocked = 0_u64;
            let _ = sys!(SYS_rt_sigprocmask, 0, 0, &raw mut blocked, 8);
            println!("{blocked:x}");
        }
        "ids" => {
            for tag in [libc::AT_UID, libc::AT_EUID, libc::AT_GID, libc::AT_EGID] {
                // SAFETY: it reads the process's own auxiliary vector.
                println!("{}", unsafe { libc::getauxval(tag) });
            }
        }
        _ => return Some(ExitCode::from(99)),
    }
    Some(ExitCode::SUCCESS)
}

/// The path of this program.
fn own_path() -> std::io::Result<CString> {
    let path = std::env::current_exe()?;
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Strings and their addresses, as `execve(2)` wants them.
struct Strings {
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl Strings {
    fn new(strings: &[&str]) -> Self {
        let strings: Vec<_> = strings
            .iter()
            .filter_map(|string| CString::new(*string).ok())
            .collect();
        let addresses = strings.iter().map(|string| string.as_ptr());
        Self {
            pointers: addresses.chain([std::ptr::null()]).collect(),
            _strings: strings,
        }
    }

    fn address(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

fn execve(path: &CStr, arguments: &Strings, environment: &Strings) -> SysResult {
    sys!(SYS_execve, path, arguments.address(), environment.address())
}

/// What a child writes to its standard output, and its status.
fn output_of(run: impl FnOnce()) -> Result<(String, i32), guest_programs::check::Failure> {
    let [from_child, to_parent] = pipe()?;
    let child = fork(|| {
        let _ = sys!(SYS_dup2, &to_parent, 1);
        let _ = sys!(SYS_close, &to_parent);
        let _ = sys!(SYS_close, &from_child);
        run();
        98
    })?;
    drop(to_parent);
    let mut text = String::new();
    std::fs::File::from(from_child).read_to_string(&mut text)?;
    Ok((text, child.wait()?))
}

/// What this program tells when it is executed with these arguments.
fn played(arguments: &[&str]) -> Result<String, guest_programs::check::Failure> {
    let path = own_path()?;
    let all: Vec<_> = ["program", PLAY].iter().chain(arguments).copied().collect();
    let (arguments, environment) = (Strings::new(&all), Strings::new(&["A=b"]));
    let (text, status) = output_of(|| {
        let _ = execve(&path, &arguments, &environment);
    })?;
    expect_eq!(status, 0);
    Ok(text)
}

fn a_program_gets_arguments_and_environment() -> Outcome {
    let text = played(&["arguments", "", "two words"])?;
    expect_eq!(text, "program\n--play\narguments\n\ntwo words\nA=b\n");
    Ok(())
}

fn a_program_keeps_its_number_and_directory() -> Outcome {
    let path = own_path()?;
    let (arguments, environment) = (Strings::new(&["x", PLAY, "self"]), Strings::new(&[]));
    let [from_child, to_parent] = pipe()?;
    let child = fork(|| {
        let _ = sys!(SYS_dup2, &to_parent, 1);
        let _ = execve(&path, &arguments, &environment);
        98
    })?;
    drop(to_parent);
    let mut text = String::new();
    std::fs::File::from(from_child).read_to_string(&mut text)?;
    let pid = child.pid;
    expect_eq!(child.wait()?, 0);
    let directory = std::env::current_dir()?;
    let expected = format!(
        "pid {pid}\ntid {pid}\nname process-test\ndirectory Some({directory:?})\nthreads Some(1)\n"
    );
    expect_eq!(text, expected);
    Ok(())
}

fn the_command_name_is_the_file_s() -> Outcome {
    std::os::unix::fs::symlink(std::env::current_exe()?, "a-name-that-is-too-long")?;
    let (arguments, environment) = (Strings::new(&["x", PLAY, "self"]), Strings::new(&[]));
    let (text, status) = output_of(|| {
        let _ = execve(c"./a-name-that-is-too-long", &arguments, &environment);
    })?;
    expect_eq!(status, 0);
    expect!(text.contains("name a-name-that-is-\n") || text.contains("name a-name-that-is\n"));
    Ok(())
}

fn no_arguments_are_one_empty_one() -> Outcome {
    std::fs::write("script", "#!/bin/sh\nexit $#\n")?;
    std::fs::set_permissions("script", std::fs::Permissions::from_mode(0o755))?;
    let child = fork(|| {
        let _ = sys!(SYS_execve, c"script", 0, 0);
        98
    })?;
    expect_eq!(child.wait()?, 0);
    Ok(())
}

fn descriptors_are_closed_on_exec() -> Outcome {
    let file = create(c"file", b"x")?;
    let kept = file.as_raw_fd().to_string();
    expect_eq!(played(&["descriptors", &kept])?, "true\n");
    sys!(SYS_fcntl, &file, libc::F_SETFD, libc::FD_CLOEXEC)?;
    expect_eq!(played(&["descriptors", &kept])?, "false\n");
    // It is still open here.
    expect!(sys!(SYS_fcntl, &file, libc::F_GETFD).is_ok());
    Ok(())
}

extern "C" fn ignore(_: i32) {}

fn signals_are_reset_on_exec() -> Outcome {
    let path = own_path()?;
    let (arguments, environment) = (Strings::new(&["x", PLAY, "signals"]), Strings::new(&[]));
    let (text, status) = output_of(|| {
        // SAFETY: the handler does nothing.
        unsafe {
            libc::signal(libc::SIGUSR1, ignore as *const () as libc::sighandler_t);
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
        }
        let blocked = 1_u64 << (libc::SIGTERM - 1);
        let _ = sys!(
            SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const blocked,
            0,
            8
        );
        let _ = execve(&path, &arguments, &environment);
    })?;
    expect_eq!(status, 0);
    expect_eq!(text, "0\n1\n4000\n");
    Ok(())
}

fn other_threads_end_on_exec() -> Outcome {
    let path = own_path()?;
    let (arguments, environment) = (Strings::new(&["x", PLAY, "self"]), Strings::new(&[]));
    let (text, status) = output_of(|| {
        for _ in 0..3 {
            std::thread::spawn(|| {
                loop {
                    std::thread::sleep(std::time::Duration::from_secs(100));
                }
            });
        }
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        let _ = execve(&path, &arguments, &environment);
    })?;
    expect_eq!(status, 0);
    expect!(text.contains("threads Some(1)\n"));
    Ok(())
}

fn a_thread_that_executes_becomes_the_first() -> Outcome {
    let path = own_path()?;
    let (arguments, environment) = (Strings::new(&["x", PLAY, "self"]), Strings::new(&[]));
    let [from_child, to_parent] = pipe()?;
    let child = fork(|| {
        let _ = sys!(SYS_dup2, &to_parent, 1);
        let addresses = [arguments.address().addr(), environment.address().addr()];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = sys!(SYS_execve, path.as_c_str(), addresses[0], addresses[1]);
            });
        });
        98
    })?;
    drop(to_parent);
    let mut text = String::new();
    std::fs::File::from(from_child).read_to_string(&mut text)?;
    let pid = child.pid;
    expect_eq!(child.wait()?, 0);
    expect!(text.starts_with(&format!("pid {pid}\ntid {pid}\n")));
    expect!(text.contains("threads Some(1)\n"));
    Ok(())
}

fn a_vforked_child_executes() -> Outcome {
    // The standard library uses `posix_spawn(3)`, which does that.
    let output = std::process::Command::new(std::env::current_exe()?)
        .args([PLAY, "arguments"])
        .env_clear()
        .output()?;
    expect!(output.status.success());
    expect!(output.stdout.ends_with(b"--play\narguments\n"));
    let missing = std::process::Command::new("/nowhere/nothing").spawn();
    expect_eq!(
        missing.err().map(|error| error.kind()),
        Some(std::io::ErrorKind::NotFound)
    );
    // The memory that it had from its parent is the parent's again.
    let args = CloneArgs {
        flags: libc::CLONE_VFORK as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let path = own_path()?;
    let (arguments, environment) = (Strings::new(&["x", PLAY, "none"]), Strings::new(&[]));
    let child = clone3(&args, || {
        let _ = execve(&path, &arguments, &environment);
        98
    })?;
    expect_eq!(child.wait()?, 99 << 8);
    Ok(())
}

fn scripts_run_their_interpreter() -> Outcome {
    let own = std::env::current_exe()?;
    std::fs::write("script", format!("#! {}  {PLAY}  \nrest", own.display()))?;
    std::fs::set_permissions("script", std::fs::Permissions::from_mode(0o755))?;
    let (text, status) = output_of(|| {
        let arguments = Strings::new(&["ignored", "arguments"]);
        let _ = execve(c"./script", &arguments, &Strings::new(&[]));
    })?;
    // The script's path comes between, so that nothing is to be told.
    expect_eq!((text.as_str(), status), ("", 99 << 8));
    std::fs::write("outer", "#!script\n")?;
    std::fs::set_permissions("outer", std::fs::Permissions::from_mode(0o755))?;
    let (_, status) = output_of(|| {
        let _ = execve(c"outer", &Strings::new(&["x"]), &Strings::new(&[]));
    })?;
    expect_eq!(status, 99 << 8);
    std::fs::write("loop", "#!./loop\n")?;
    std::fs::set_permissions("loop", std::fs::Permissions::from_mode(0o755))?;
    fails!(ELOOP, SYS_execve, c"./loop", 0, 0);
    Ok(())
}

fn open_files_are_executed() -> Outcome {
    let file = open(&own_path()?, libc::O_PATH | libc::O_CLOEXEC)?;
    let (arguments, environment) = (
        Strings::new(&["x", PLAY, "arguments"]),
        Strings::new(&["A=b"]),
    );
    let (text, status) = output_of(|| {
        let _ = sys!(
            SYS_execveat,
            &file,
            c"",
            arguments.address(),
            environment.address(),
            libc::AT_EMPTY_PATH
        );
    })?;
    expect_eq!(status, 0);
    expect_eq!(text, "x\n--play\narguments\nA=b\n");
    fails!(ENOENT, SYS_execveat, &file, c"", 0, 0, 0);
    fails!(EINVAL, SYS_execveat, &file, c"x", 0, 0, 0x4000_0000);
    fails!(EBADF, SYS_execveat, 999, c"", 0, 0, libc::AT_EMPTY_PATH);
    // A script is opened by its interpreter, which cannot be if the descriptor is closed.
    std::fs::write("script", "#!/bin/sh\nexit 5\n")?;
    std::fs::set_permissions("script", std::fs::Permissions::from_mode(0o755))?;
    let script = open(c"script", libc::O_RDONLY | libc::O_CLOEXEC)?;
    fails!(
        ENOENT,
        SYS_execveat,
        &script,
        c"",
        0,
        0,
        libc::AT_EMPTY_PATH
    );
    Ok(())
}

fn links_are_followed_unless_asked_not_to() -> Outcome {
    std::os::unix::fs::symlink(std::env::current_exe()?, "link")?;
    let at = libc::AT_FDCWD;
    let nofollow = libc::AT_SYMLINK_NOFOLLOW;
    fails!(ELOOP, SYS_execveat, at, c"link", 0, 0, nofollow);
    let arguments = Strings::new(&["x", PLAY, "none"]);
    let child = fork(|| {
        let _ = sys!(SYS_execveat, at, c"link", arguments.address(), 0, 0);
        98
    })?;
    expect_eq!(child.wait()?, 99 << 8);
    Ok(())
}

fn what_cannot_be_executed_is_refused() -> Outcome {
    fails!(ENOENT, SYS_execve, c"missing", 0, 0);
    fails!(ENOENT, SYS_execve, c"", 0, 0);
    fails!(EACCES, SYS_execve, c"/", 0, 0);
    fails!(EFAULT, SYS_execve, 8, 0, 0);
    std::fs::write("plain", "x")?;
    fails!(EACCES, SYS_execve, c"plain", 0, 0);
    fails!(ENOTDIR, SYS_execve, c"plain/x", 0, 0);
    std::fs::set_permissions("plain", std::fs::Permissions::from_mode(0o755))?;
    fails!(ENOEXEC, SYS_execve, c"plain", 0, 0);
    std::fs::write("script", "#!/nowhere\n")?;
    std::fs::set_permissions("script", std::fs::Permissions::from_mode(0o755))?;
    fails!(ENOENT, SYS_execve, c"script", 0, 0);
    let path = own_path()?;
    fails!(EFAULT, SYS_execve, path.as_c_str(), 8, 0);
    fails!(EFAULT, SYS_execve, path.as_c_str(), 0, 8);
    let bad = [8_u64, 0];
    fails!(EFAULT, SYS_execve, path.as_c_str(), bad.as_ptr(), 0);
    Ok(())
}

fn too_much_is_refused() -> Outcome {
    let path = own_path()?;
    let long = "x".repeat(128 << 10);
    let arguments = Strings::new(&["x", &long]);
    fails!(E2BIG, SYS_execve, path.as_c_str(), arguments.address(), 0);
    let just = "x".repeat((128 << 10) - 1);
    let arguments = Strings::new(&["x", PLAY, "none", &just]);
    let child = fork(|| {
        let _ = sys!(SYS_execve, path.as_c_str(), arguments.address(), 0);
        98
    })?;
    expect_eq!(child.wait()?, 99 << 8);
    let many = Strings::new(&vec![just.as_str(); 40]);
    fails!(E2BIG, SYS_execve, path.as_c_str(), many.address(), 0);
    fails!(E2BIG, SYS_execve, path.as_c_str(), 0, many.address());
    Ok(())
}

fn a_program_that_runs_is_not_written() -> Outcome {
    std::fs::copy(std::env::current_exe()?, "copy")?;
    let arguments = Strings::new(&["x", "--list"]);
    let writer = open(c"copy", libc::O_WRONLY)?;
    fails!(ETXTBSY, SYS_execve, c"copy", arguments.address(), 0);
    drop(writer);
    let [from_child, to_parent] = pipe()?;
    // It lists its checks into a pipe that nobody reads, so it runs for as long as that is wanted.
    let child = fork(|| {
        let _ = sys!(SYS_dup2, &to_parent, 1);
        let _ = sys!(SYS_fcntl, 1, libc::F_SETPIPE_SZ, 4096);
        let mut left = [0_u8; 4090];
        let _ = sys!(SYS_write, 1, left.as_mut_ptr(), left.len());
        let _ = sys!(SYS_execve, c"copy", arguments.address(), 0);
        98
    })?;
    let is_busy = || {
        sys!(SYS_openat, libc::AT_FDCWD, c"copy", libc::O_WRONLY).map(|fd| {
            // SAFETY: the descriptor is new.
            drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        })
    };
    let busy = Some(libc::ETXTBSY);
    expect!(guest_programs::check::comes_true(|| is_busy()
        .err()
        .map(|errno| errno.0)
        == busy));
    child.kill(libc::SIGKILL)?;
    let pid = child.pid;
    expect_eq!(wait4(pid, 0)?.0, pid);
    Child::forget(child);
    expect!(is_busy().is_ok());
    drop(from_child);
    Ok(())
}

fn the_auxiliary_vector_tells_who_runs() -> Outcome {
    if sys!(SYS_geteuid)? != 0 {
        return Ok(());
    }
    let path = own_path()?;
    let (arguments, environment) = (Strings::new(&["x", PLAY, "ids"]), Strings::new(&[]));
    let (text, status) = output_of(|| {
        let _ = sys!(SYS_setgid, 12);
        let _ = sys!(SYS_setuid, 11);
        let _ = execve(&path, &arguments, &environment);
        exit(97);
    })?;
    expect_eq!((text.as_str(), status), ("11\n11\n12\n12\n", 0));
    Ok(())
}

fn execution_can_be_tried() -> Outcome {
    const AT_EXECVE_CHECK: i32 = 0x1_0000;
    let path = own_path()?;
    let at = libc::AT_FDCWD;
    let tried = sys!(SYS_execveat, at, path.as_c_str(), 0, 0, AT_EXECVE_CHECK);
    expect_eq!(tried, Ok(0));
    std::fs::write("plain", "x")?;
    fails!(EACCES, SYS_execveat, at, c"plain", 0, 0, AT_EXECVE_CHECK);
    std::fs::set_permissions("plain", std::fs::Permissions::from_mode(0o755))?;
    // What is in the file does not matter.
    let tried = sys!(SYS_execveat, at, c"plain", 0, 0, AT_EXECVE_CHECK);
    expect_eq!(tried, Ok(0));
    Ok(())
}
