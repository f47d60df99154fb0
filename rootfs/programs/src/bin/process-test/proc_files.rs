//! What `/proc` tells of processes.

use crate::child::{SharedWord, fork, getpid, getppid};
use guest_programs::check::{Check, Failure, Outcome, comes_true};
use guest_programs::{checks, expect, expect_eq, sys};
use std::fs;

pub(crate) const CHECKS: &[Check] = checks![
    processes_are_listed,
    self_is_who_looks,
    stat_tells_of_relatives_and_state,
    status_tells_the_same,
    command_lines_are_those_of_programs,
    descriptors_and_directories_are_each_process_s,
    what_is_gone_is_not_there,
];

fn stat_fields(pid: i32) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text
        .rsplit_once(')')
        .ok_or_else(|| Failure::new("no name"))?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn processes_are_listed() -> Outcome {
    let child = fork(|| {
        loop {
            let _ = sys!(SYS_pause);
        }
    })?;
    let listed = |pid: i32| -> std::io::Result<bool> {
        let names = fs::read_dir("/proc")?.flatten();
        let mut names = names.map(|entry| entry.file_name());
        Ok(names.any(|name| name.to_str() == Some(&pid.to_string())))
    };
    expect!(listed(child.pid)?);
    expect!(listed(getpid())?);
    let pid = child.pid;
    drop(child);
    expect!(!listed(pid)?);
    Ok(())
}

fn self_is_who_looks() -> Outcome {
    let own = || -> i32 {
        let link = fs::read_link("/proc/self").ok();
        let number = link.and_then(|link| link.to_str()?.parse::<i32>().ok());
        i32::from(number != Some(getpid()))
    };
    expect_eq!(own(), 0);
    expect_eq!(fork(own)?.wait()?, 0);
    Ok(())
}

fn stat_tells_of_relatives_and_state() -> Outcome {
    let child = fork(|| {
        loop {
            let _ = sys!(SYS_pause);
        }
    })?;
    let state = |wanted: &str| comes_true(|| stat_fields(child.pid).is_ok_and(|f| f[0] == wanted));
    expect!(state("S"));
    let fields = stat_fields(child.pid)?;
    expect_eq!(fields[1], getpid().to_string());
    expect_eq!(fields[2], sys!(SYS_getpgid, 0)?.to_string());
    expect_eq!(fields[3], sys!(SYS_getsid, 0)?.to_string());
    child.kill(libc::SIGSTOP)?;
    expect!(state("T"));
    child.kill(libc::SIGKILL)?;
    expect!(state("Z"));
    let own = stat_fields(getpid())?;
    expect_eq!(
        (own[0].as_str(), own[1].clone()),
        ("R", getppid().to_string())
    );
    Ok(())
}

fn status_tells_the_same() -> Outcome {
    let child = fork(|| {
        let _ = sys!(SYS_prctl, libc::PR_SET_NAME, c"another name".as_ptr());
        loop {
            let _ = sys!(SYS_pause);
        }
    })?;
    let path = format!("/proc/{}/status", child.pid);
    expect!(comes_true(
        || fs::read_to_string(&path).is_ok_and(|text| text.starts_with("Name:\tanother name\n"))
    ));
    let text = fs::read_to_string(&path)?;
    expect!(text.contains(&format!("\nPPid:\t{}\n", getpid())));
    expect!(text.contains(&format!("\nTgid:\t{0}\n", child.pid)));
    expect!(text.contains("\nThreads:\t1\n"));
    child.kill(libc::SIGKILL)?;
    expect!(comes_true(
        || fs::read_to_string(&path).is_ok_and(|text| text.contains("\nState:\tZ (zombie)\n"))
    ));
    expect!(fs::read_to_string(&path)?.starts_with("Name:\tanother name\n"));
    Ok(())
}

fn command_lines_are_those_of_programs() -> Outcome {
    let mut child = std::process::Command::new("/bin/sleep")
        .arg("100")
        .env_clear()
        .env("ONE", "two")
        .spawn()?;
    let read = |what: &str| fs::read(format!("/proc/{}/{what}", child.id()));
    // The parent goes on before the child has its new stack.
    expect!(comes_true(
        || read("environ").is_ok_and(|text| !text.is_empty())
    ));
    let (line, environment) = (read("cmdline")?, read("environ")?);
    let name = read("comm")?;
    child.kill()?;
    child.wait()?;
    expect_eq!(line, b"/bin/sleep\x00100\0");
    expect_eq!(environment, b"ONE=two\0");
    expect_eq!(name, b"sleep\n");
    Ok(())
}

fn descriptors_and_directories_are_each_process_s() -> Outcome {
    let word = SharedWord::new()?;
    fs::create_dir("below")?;
    let here = std::env::current_dir()?;
    let child = fork(|| {
        let _ = sys!(SYS_chdir, c"below");
        let fd = sys!(SYS_openat, libc::AT_FDCWD, c".", libc::O_RDONLY, 0);
        let fd = fd.and_then(|fd| sys!(SYS_dup2, fd, 77));
        word.set(1 + u32::from(fd.is_err()));
        loop {
            let _ = sys!(SYS_pause);
        }
    })?;
    expect!(comes_true(|| word.get() == 1));
    let link = |what: &str| fs::read_link(format!("/proc/{}/{what}", child.pid));
    expect_eq!(link("cwd")?, here.join("below"));
    expect_eq!(link("fd/77")?, here.join("below"));
    expect_eq!(link("exe")?, std::env::current_exe()?);
    expect!(fs::read_link("/proc/self/fd/77").is_err());
    Ok(())
}

fn what_is_gone_is_not_there() -> Outcome {
    let child = fork(|| 0)?;
    let path = format!("/proc/{}", child.pid);
    let directory = fs::File::open(&path)?;
    expect_eq!(child.wait()?, 0);
    expect!(!fs::exists(&path)?);
    drop(directory);
    Ok(())
}
