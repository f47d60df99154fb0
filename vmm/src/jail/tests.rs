//! Stand-ins for threads that were taken over: in a process of its own, each is confined as its kind,
//! and then tries what none may.

use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::ptr::null;

use ringlet_devices::ThreadKind;

use super::{Needs, Policy, Share, calls};
use crate::outcome::{Ending, STATUS_ERROR};

/// Says to the process of the stand-in which kind it is, and what it tries.
const KIND: &str = "RINGLET_TEST_INTRUDER";

/// What a thread that was taken over would like to do.
type Attempt = (&'static str, fn() -> libc::c_long);

const ATTEMPTS: [Attempt; 9] = [
    ("execve", || {
        let argv = [null::<libc::c_char>()];
        // SAFETY: the path is a C string, the list of arguments ends with a null pointer.
        unsafe {
            libc::syscall(
                libc::SYS_execve,
                c"/bin/true".as_ptr(),
                argv.as_ptr(),
                null::<u8>(),
            )
        }
    }),
    ("ptrace", || {
        // SAFETY: no memory is passed with this request.
        unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, 1, 0, 0) }
    }),
    ("socket", || {
        // SAFETY: no memory is passed.
        unsafe { libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0) }
    }),
    ("open", || {
        // SAFETY: the path is a C string.
        unsafe { libc::syscall(libc::SYS_open, c"/etc/passwd".as_ptr(), libc::O_RDONLY) }
    }),
    ("io_uring_setup", || {
        let mut parameters = [0_u8; 120];
        // SAFETY: the parameters are 120 bytes (struct io_uring_params).
        unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) }
    }),
    ("clone", || {
        // SAFETY: a new process with a copy of this one's memory, which ends at once.
        match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
            // SAFETY: no memory is passed.
            0 => unsafe { libc::_exit(0) },
            child => child,
        }
    }),
    ("kill", || {
        // SAFETY: no memory is passed; signal 0 only asks.
        unsafe { libc::syscall(libc::SYS_kill, 1, 0) }
    }),
    ("setuid", || {
        // SAFETY: no memory is passed.
        unsafe { libc::syscall(libc::SYS_setuid, 0) }
    }),
    ("mount", || {
        // SAFETY: all are C strings or null.
        unsafe {
            let (none, kind) = (c"none".as_ptr(), c"tmpfs".as_ptr());
            libc::syscall(
                libc::SYS_mount,
                none,
                c"/mnt".as_ptr(),
                kind,
                0,
                null::<u8>(),
            )
        }
    }),
];

/// The stand-in: the part of the tests below that runs in a process of its own.
#[test]
fn intruder() {
    let Ok(order) = std::env::var(KIND) else {
        return;
    };
    let (kind, attempt) = order.split_once(' ').unwrap();
    let kind = *ThreadKind::ALL
        .iter()
        .find(|known| known.name() == kind)
        .unwrap();
    let shared = std::env::temp_dir();
    let needs = Needs {
        shares: vec![Share {
            path: shared,
            is_writable: true,
        }],
        sockets: Vec::new(),
    };
    let ending = Ending::new().unwrap();
    let threads = Policy::Strict.close(&needs, &ending).unwrap();
    threads.confine(kind).unwrap();
    if attempt == "outside" {
        return open_outside(kind);
    }
    let (_, attempt) = ATTEMPTS.iter().find(|(name, _)| *name == attempt).unwrap();
    let result = attempt();
    // What comes here was not refused; this ends otherwise than a refusal.
    assert!(result < 0, "it worked: {result}");
}

/// Threads that serve files may call openat, and get nothing by it that is not shared.
fn open_outside(kind: ThreadKind) {
    assert!(calls::serves_files(kind));
    let opened = std::fs::File::open("/etc/passwd");
    let error = opened.map(|file| file.as_raw_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    std::fs::read_dir(std::env::temp_dir()).unwrap();
}

fn intrude(kind: ThreadKind, attempt: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "jail::tests::intruder"])
        .env(KIND, format!("{kind} {attempt}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn whoever_takes_a_thread_over_cannot_leave() {
    let attempts = ThreadKind::ALL
        .into_iter()
        .flat_map(|kind| ATTEMPTS.map(|(name, _)| (kind, name)));
    // A thread that is not the event loop waits a second for that to end the process.
    let intruders: Vec<_> = attempts
        .map(|(kind, name)| (kind, name, intrude(kind, name)))
        .collect();
    for (kind, name, intruder) in intruders {
        let output = intruder.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let what = format!("{kind} {name}: {output:?}");
        assert_eq!(output.status.code(), Some(STATUS_ERROR.into()), "{what}");
        assert!(text.contains("the jail refused system call"), "{what}");
        assert!(text.contains(&format!("({name})")), "{what}");
        assert!(text.contains(&format!("'{kind}'")), "{what}");
    }
}

#[test]
fn threads_that_serve_files_open_those_that_are_shared_only() {
    let kinds = ThreadKind::ALL.into_iter();
    for kind in kinds.filter(|kind| calls::serves_files(*kind)) {
        let output = intrude(kind, "outside").wait_with_output().unwrap();
        assert!(output.status.success(), "{kind}: {output:?}");
    }
}
