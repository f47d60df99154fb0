//! Resource limits (setrlimit(2)) that are too low for a VM.

use super::Problem;

/// Descriptors that a VM with some disks needs.
const DESCRIPTORS: u64 = 128;
/// Address space that a VM with the default memory needs.
const ADDRESS_SPACE: u64 = 2 << 30;

/// Examines the limits of this process; whether a VM can run with them.
pub(super) fn examine(problems: &mut Vec<Problem>) -> bool {
    let mut ok = true;
    let descriptors = soft_limit(libc::RLIMIT_NOFILE);
    if descriptors < DESCRIPTORS {
        ok = false;
        problems.push(Problem::new(
            format!("this process may open {descriptors} files; a VM needs up to {DESCRIPTORS}"),
            "raise the limit: ulimit -n 1024",
        ));
    }
    let space = soft_limit(libc::RLIMIT_AS);
    if space < ADDRESS_SPACE {
        ok = false;
        problems.push(Problem::new(
            format!("the address space is limited to {} MiB", space >> 20),
            "raise the limit (ulimit -v unlimited): guest memory counts, whether or not it is used",
        ));
    }
    let size = soft_limit(libc::RLIMIT_FSIZE);
    if size != libc::RLIM_INFINITY {
        problems.push(Problem::new(
            format!(
                "files may grow to {} KiB only: what a program writes beyond is refused (EFBIG)",
                size >> 10
            ),
            "raise the limit: ulimit -f unlimited",
        ));
    }
    ok
}

/// The limit in force; without limit where it cannot be had.
fn soft_limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: getrlimit writes a rlimit.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit.rlim_cur
}
