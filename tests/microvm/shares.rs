//! Shares: directories and files of the host in the guest, and file systems in memory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use ringlet_tests::{Artifacts, Output, Ringlet, host_is_the_oracle};
use tempfile::{TempDir, tempdir};

/// Runs a program where `dir` is /mnt, with these options of the mount.
fn run(dir: &Path, options: &str, program: &[&str]) -> Output {
    let option = format!("{}:/mnt{options}", dir.display());
    Ringlet::run(["-v", &option], program).output()
}

fn on_host(program: &[&str]) -> Output {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]);
    Ringlet::command(command).output()
}

/// A directory with something of each kind.
fn tree() -> TempDir {
    let dir = tempdir().unwrap();
    let path = dir.path();
    fs::write(path.join("small"), "hello\n").unwrap();
    let pattern: Vec<u8> = (0..300_001_u32).map(|at| (at * 7 / 5) as u8).collect();
    fs::write(path.join("large"), pattern).unwrap();
    fs::create_dir(path.join("sub")).unwrap();
    for number in 0..500 {
        fs::write(path.join(format!("sub/{number}")), number.to_string()).unwrap();
    }
    symlink("sub/7", path.join("link")).unwrap();
    symlink("/etc/passwd", path.join("outside")).unwrap();
    fs::set_permissions(path.join("small"), fs::Permissions::from_mode(0o4751)).unwrap();
    dir
}

#[test]
fn the_guest_sees_what_the_host_has() {
    let dir = tree();
    for options in ["", ":ro", ":cache=none", ":cache=always"] {
        let sum = |root: &str| vec!["/bin/sha256sum".to_owned(), format!("{root}/large")];
        let host = on_host(&["sha256sum", &format!("{}/large", dir.path().display())]).out();
        let guest = sum("/mnt");
        let guest: Vec<_> = guest.iter().map(String::as_str).collect();
        let output = run(dir.path(), options, &guest).expect_success().out();
        assert_eq!(output.split(' ').next(), host.split(' ').next());
        let output = run(dir.path(), options, &["/bin/cat", "/mnt/link"]);
        assert_eq!(output.expect_success().out(), "7");
        let listed = run(dir.path(), options, &["/bin/ls", "/mnt/sub"]).expect_success();
        assert_eq!(listed.out().lines().count(), 500);
        let about = run(
            dir.path(),
            options,
            &["/bin/stat", "-c", "%a %s %h %Y %F", "/mnt/small"],
        );
        let modified = fs::metadata(dir.path().join("small")).unwrap().mtime();
        assert_eq!(
            about.expect_success().out(),
            format!("4751 6 1 {modified} regular file\n")
        );
        // A link leads to the guest's own files, wherever it is.
        let outside = run(dir.path(), options, &["/bin/readlink", "/mnt/outside"]);
        assert_eq!(outside.expect_success().out(), "/etc/passwd\n");
    }
}

#[test]
fn the_host_sees_what_the_guest_does() {
    let dir = tree();
    let path = dir.path();
    let done = |program: &[&str]| run(path, "", program).expect_success();
    let output = Ringlet::run(
        ["-v", &format!("{}:/mnt", path.display())],
        ["/bin/dd", "of=/mnt/new", "bs=4K", "status=none"],
    )
    .input(vec![5; 1_000_000])
    .output();
    output.expect_success();
    assert_eq!(fs::read(path.join("new")).unwrap(), vec![5; 1_000_000]);
    done(&["/bin/mkdir", "-p", "/mnt/one/two"]);
    done(&["/bin/mv", "/mnt/new", "/mnt/one/two/three"]);
    assert_eq!(
        fs::metadata(path.join("one/two/three")).unwrap().size(),
        1_000_000
    );
    done(&["/bin/ln", "-s", "target", "/mnt/soft"]);
    assert_eq!(
        fs::read_link(path.join("soft")).unwrap(),
        Path::new("target")
    );
    done(&["/bin/ln", "/mnt/small", "/mnt/hard"]);
    assert_eq!(fs::metadata(path.join("hard")).unwrap().nlink(), 2);
    done(&["/bin/chmod", "640", "/mnt/hard"]);
    assert_eq!(
        fs::metadata(path.join("small")).unwrap().mode() & 0o7777,
        0o640
    );
    done(&["/bin/truncate", "-s", "3", "/mnt/large"]);
    assert_eq!(fs::metadata(path.join("large")).unwrap().size(), 3);
    done(&["/bin/rm", "-r", "/mnt/sub"]);
    assert!(!path.join("sub").exists());
}

#[test]
fn a_read_only_share_stays_as_it_is() {
    let dir = tree();
    for program in [
        &["/bin/touch", "/mnt/new"][..],
        &["/bin/rm", "/mnt/small"],
        &["/bin/mkdir", "/mnt/d"],
        &["/bin/chmod", "600", "/mnt/small"],
        &["/bin/mv", "/mnt/small", "/mnt/other"],
        &["/bin/truncate", "-s", "0", "/mnt/small"],
    ] {
        let output = run(dir.path(), ":ro", program);
        assert!(
            output.err().contains("Read-only file system"),
            "{}",
            output.err()
        );
    }
    assert_eq!(fs::read(dir.path().join("small")).unwrap(), b"hello\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
}

#[test]
fn files_are_mounted_too_and_targets_are_made() {
    let dir = tree();
    let host = dir.path().join("small");
    let option = format!("{}:/deep/down/file:ro", host.display());
    let output = Ringlet::run(["-v", &option], ["/bin/cat", "/deep/down/file"]).output();
    assert_eq!(output.expect_success().out(), "hello\n");
    // Without a place in the guest it is at its own.
    let sub = dir.path().join("sub");
    let output = Ringlet::run(
        ["-v", sub.to_str().unwrap()],
        ["/bin/cat", sub.join("42").to_str().unwrap()],
    )
    .output();
    assert_eq!(output.expect_success().out(), "42");
}

#[test]
fn changes_of_the_host_are_seen() {
    let dir = tree();
    for (options, pause) in [(":cache=none", 0), ("", 1100)] {
        let option = format!("{}:/mnt{options}", dir.path().display());
        let script = "read x < /mnt/f; echo $x; read y; read x < /mnt/f; echo $x";
        fs::write(dir.path().join("f"), "before\n").unwrap();
        let mut running = Ringlet::run(["-v", &option], ["/bin/sh", "-c", script]).start();
        running.stdout.wait_for(b"before\n");
        fs::write(dir.path().join("f"), "afterwards\n").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        running.write(b"\n");
        running.stdout.wait_for(b"afterwards\n");
        running.wait().expect_success();
    }
}

/// Checks that are about a tmpfs.
const OF_A_TMPFS: [&str; 1] = ["statfs_of_a_tmpfs"];

/// The checks of system calls give on a share what they give in a directory of the host.
#[test]
fn system_calls_do_on_a_share_what_they_do_on_the_host() {
    let verdicts = |output: &Output| {
        let lines = output.out();
        let failed = |line: &str| Some(line.strip_prefix("fail ")?.split(':').next()?.to_owned());
        let failed: Vec<_> = lines.lines().filter_map(failed).collect();
        (lines.lines().count(), failed)
    };
    for options in ["", ":cache=none", ":overlay"] {
        let dir = tempdir().unwrap();
        let output = run(dir.path(), options, &["/bin/syscall-test", "--dir", "/mnt"]);
        let (count, failed) = verdicts(&output);
        assert!(count > 100, "{}", output.err());
        let left: Vec<_> = failed
            .iter()
            .filter(|name| !OF_A_TMPFS.contains(&name.as_str()))
            .collect();
        assert!(left.is_empty(), "{options}: {left:?}\n{}", output.out());
    }
}

/// The same random operations give the same in a directory of the host, in memory, and on a share.
#[test]
fn random_operations_give_what_they_give_on_the_host() {
    if !host_is_the_oracle() {
        return;
    }
    let program = Artifacts::get().program("file-ops");
    let program = program.to_str().unwrap();
    for seed in 1..=6_u32 {
        let seed = seed.to_string();
        let words = [&seed, "2000", "."];
        let host = tempdir().unwrap();
        let mut command = Command::new(program);
        command.args(words).current_dir(host.path());
        let expected = Ringlet::command(command).output().expect_success().out();
        let compare = |output: Output, place: &str| {
            let text = output.out();
            for (ours, theirs) in text.lines().zip(expected.lines()) {
                assert_eq!(ours, theirs, "{place}, seed {seed}");
            }
            assert_eq!(
                text.lines().count(),
                expected.lines().count(),
                "{}",
                output.err()
            );
        };
        let options = ["--tmpfs", "/memory"];
        let memory = Ringlet::run(options, ["/bin/file-ops", &seed, "2000", "/memory"]).output();
        compare(memory, "tmpfs");
        for options in ["", ":cache=none", ":cache=always", ":overlay"] {
            let dir = tempdir().unwrap();
            let words = ["/bin/file-ops", &seed, "2000", "/mnt"];
            compare(run(dir.path(), options, &words), options);
        }
    }
}

#[test]
fn file_systems_in_memory_have_the_size_that_was_asked_for() {
    let options = ["--tmpfs", "/data:size=1M"];
    let program = ["/bin/dd", "if=/dev/zero", "of=/data/x", "bs=64K"];
    let output = Ringlet::run(options, program).output();
    assert!(output.err().contains("No space left"), "{}", output.err());
    assert!(
        output.err().contains("16+0 records out"),
        "{}",
        output.err()
    );
}

#[test]
fn a_read_only_root_is_not_written_to_but_where_programs_must() {
    let run = |words: &[&str]| Ringlet::run(["--read-only", "-w", "/work"], words).output();
    let output = run(&["/bin/touch", "/etc/x"]);
    assert!(
        output.err().contains("Read-only file system"),
        "{}",
        output.err()
    );
    for path in ["/tmp/x", "/run/x", "/var/tmp/x", "/dev/shm/x"] {
        let output = run(&["/bin/touch", path]);
        assert!(
            output.status.success() || path == "/dev/shm/x",
            "{}",
            output.err()
        );
    }
    assert_eq!(run(&["/bin/pwd"]).expect_success().out(), "/work\n");
}

/// A root with nothing but busybox, and a directory that programs look for.
fn small_root() -> TempDir {
    let dir = tempdir().unwrap();
    for name in ["bin", "dev", "etc", "tmp", "proc"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::copy("/bin/busybox", dir.path().join("bin/busybox")).unwrap();
    fs::write(dir.path().join("etc/file"), "of the host\n").unwrap();
    fs::write(dir.path().join("tmp/file"), "of the host\n").unwrap();
    dir
}

fn in_root(root: &Path, options: &str, program: &[&str]) -> Output {
    let option = format!("{}{options}", root.display());
    let mut words = vec!["/bin/busybox"];
    words.extend(program);
    Ringlet::run(["--rootfs", &option], words).output()
}

#[test]
fn a_directory_is_the_root_and_stays_as_it_was() {
    let root = small_root();
    let run = |options: &str, program: &[&str]| in_root(root.path(), options, program);
    for options in ["", ":overlay", ":ro", ":rw"] {
        let output = run(options, &["cat", "/etc/file"]).expect_success();
        assert_eq!(output.out(), "of the host\n");
        let listed = run(options, &["ls", "/tmp"]).expect_success().out();
        assert_eq!(listed, "", "the guest has its own");
        let type_of = run(options, &["stat", "-f", "-c", "%T", "/proc"]);
        assert_eq!(type_of.expect_success().out(), "proc\n");
    }
    run("", &["rm", "/etc/file"]).expect_success();
    run("", &["touch", "/etc/new"]).expect_success();
    let output = run(":ro", &["rm", "/etc/file"]);
    assert!(
        output.err().contains("Read-only file system"),
        "{}",
        output.err()
    );
    assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 1);
    run(":rw", &["touch", "/etc/new"]).expect_success();
    assert!(root.path().join("etc/new").exists());
    run(":rw", &["touch", "/tmp/new"]).expect_success();
    assert_eq!(fs::read_dir(root.path().join("tmp")).unwrap().count(), 1);
    let option = root.path().to_str().unwrap();
    let options = ["--rootfs", option, "--read-only"];
    let output = Ringlet::run(options, ["/bin/busybox", "touch", "/etc/x"]).output();
    assert!(
        output.err().contains("Read-only file system"),
        "{}",
        output.err()
    );
}

#[test]
fn programs_start_from_shares() {
    let root = small_root();
    let dir = root.path().join("bin");
    for options in ["", ":ro", ":cache=none", ":overlay"] {
        let output = run(&dir, options, &["/mnt/busybox", "echo", "here"]);
        assert_eq!(output.expect_success().out(), "here\n");
    }
}

/// The host's own root: dynamic programs, which map their libraries.
#[test]
fn programs_of_the_host_run_in_its_root() {
    for program in [
        &["/usr/bin/sha256sum", "/etc/passwd"][..],
        &["/usr/bin/sort", "/etc/group"],
        &["/bin/ls", "/usr"],
    ] {
        let host = on_host(program).expect_success().out();
        let output = Ringlet::run(["--rootfs", "/"], program).output();
        assert_eq!(output.expect_success().out(), host);
    }
}

const STORES: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int count, char **words) {
    int fd = open(words[1], O_RDWR);
    char *bytes = mmap(0, 20000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED || bytes[19999] != 'x') return 1;
    strcpy(bytes + 5000, "stored");
    char seen[7] = "";
    if (pread(fd, seen, 6, 5000) != 6 || strcmp(seen, "stored")) return 2;
    if (pwrite(fd, "written", 7, 9000) != 7 || memcmp(bytes + 9000, "written", 7)) return 3;
    if (count > 2 && msync(bytes, 20000, MS_SYNC)) return 4;
    strcpy(bytes + 15000, "at the end");
    if (ftruncate(fd, 16000)) return 5;
    return 0;
}
"#;

#[test]
fn what_programs_store_in_mappings_reaches_the_host() {
    let dir = tempdir().unwrap();
    let source = dir.path().join("stores.c");
    fs::write(&source, STORES).unwrap();
    let program = dir.path().join("stores");
    let mut compiler = Command::new("cc");
    compiler.arg("-static").arg("-o").arg(&program).arg(&source);
    assert!(compiler.status().unwrap().success());
    for options in ["", ":cache=none", ":cache=always"] {
        for words in [
            &["/mnt/stores", "/mnt/file"][..],
            &["/mnt/stores", "/mnt/file", "sync"],
        ] {
            fs::write(dir.path().join("file"), vec![b'x'; 20000]).unwrap();
            run(dir.path(), options, words).expect_success();
            let bytes = fs::read(dir.path().join("file")).unwrap();
            assert_eq!(bytes.len(), 16000);
            assert_eq!(&bytes[5000..5007], b"stored\0");
            assert_eq!(&bytes[9000..9007], b"written");
            assert_eq!(&bytes[15000..15010], b"at the end");
        }
    }
}
