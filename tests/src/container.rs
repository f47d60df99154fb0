//! Environments like those of containers, in which less is allowed.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Has the host's kernel deny these system calls to the command with EPERM, as the seccomp profiles of
/// container engines do.
///
/// # Panics
///
/// If the filter cannot be made.
pub fn deny(command: &mut Command, calls: &[libc::c_long]) {
    let filter = SeccompFilter::new(
        calls
            .iter()
            .map(|call| (*call, Vec::new()))
            .collect::<BTreeMap<_, _>>(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::x86_64,
    );
    let program: BpfProgram = filter
        .and_then(BpfProgram::try_from)
        .expect("a filter with a few calls");
    let install = move || seccompiler::apply_filter(&program).map_err(io::Error::other);
    // SAFETY: the closure makes system calls only, and allocates nothing unless one fails.
    unsafe { command.pre_exec(install) };
}

/// As [`deny`], of io_uring.
///
/// # Panics
///
/// If the filter cannot be made.
pub fn deny_io_uring(command: &mut Command) {
    deny(
        command,
        &[
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
        ],
    );
}
