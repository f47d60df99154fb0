//! busybox in the guest does what busybox on the host does.

use std::process::Command;

use ringlet_tests::Ringlet;

const TEXT: &str = "delta\nalpha 1 2\n\ncharlie\tx\nbravo\nalpha 1 2\n";

/// Runs an applet in both places with the same input; output and status must be the same.
#[track_caller]
fn same(program: &[&str], input: &[u8]) {
    let mut command = Command::new("/bin/busybox");
    command.args(program).env_clear();
    let host = Ringlet::command(command).input(input).output();
    assert!(!host.err().contains("applet not found"), "{}", host.err());
    let guest = Ringlet::program(program).input(input).output();
    let seen = |output: &ringlet_tests::Output| (output.code(), output.out(), output.err());
    assert_eq!(seen(&guest), seen(&host), "{program:?}");
}

#[track_caller]
fn all_same(programs: &[&[&str]]) {
    for program in programs {
        same(program, TEXT.as_bytes());
    }
}

#[test]
fn text_filters() {
    all_same(&[
        &["cat", "-n"],
        &["tac"],
        &["rev"],
        &["sort"],
        &["sort", "-r", "-u"],
        &["uniq", "-c"],
        &["head", "-n", "2"],
        &["tail", "-n", "2"],
        &["wc"],
        &["tr", "a-z", "A-Z"],
        &["cut", "-d", " ", "-f", "1,3"],
        &["nl"],
        &["fold", "-w", "5"],
        &["expand"],
        &["paste", "-s", "-d", ","],
        &["sed", "s/alpha/[&]/g; 2d; $p"],
        &["grep", "-n", "al*p"],
        &["grep", "-c", "nothing"],
        &[
            "awk",
            "{ n += NF; print NR, $1 } END { printf \"%d %.3f\\n\", n, sqrt(2) }",
        ],
        &["tee"],
    ]);
}

#[test]
fn digests_and_encodings() {
    all_same(&[
        &["sha256sum"],
        &["sha512sum"],
        &["sha1sum"],
        &["md5sum"],
        &["sha3sum"],
        &["crc32"],
        &["base64"],
        &["od", "-c"],
        &["hexdump", "-C"],
        &["xxd"],
        &["uuencode", "name"],
    ]);
}

#[test]
fn compression() {
    all_same(&[&["gzip", "-c", "-n"], &["bzip2", "-c"]]);
    let mut command = Command::new("/bin/busybox");
    command.args(["gzip", "-c"]);
    let packed = Ringlet::command(command)
        .input(TEXT.repeat(5000))
        .output()
        .stdout;
    same(&["gunzip", "-c"], &packed);
}

#[test]
fn words_and_numbers() {
    all_same(&[
        &["echo", "-e", "a\\tb"],
        &["printf", "%05d|%-6s|%x\\n", "42", "ab", "255"],
        &["seq", "1", "3", "20"],
        &["factor", "1001"],
        &["expr", "6", "*", "7"],
        &["basename", "/usr/lib/libx.so", ".so"],
        &["dirname", "/usr/lib/libx.so"],
        &["cal", "2", "2024"],
        &["date", "-u", "-d", "@86400", "+%F %T"],
        &["test", "1", "-eq", "2"],
        &["dc", "-e", "2 100 ^ p"],
        &["ascii"],
    ]);
}

#[test]
fn errors_are_the_same() {
    all_same(&[
        &["cat", "/none"],
        &["ls", "/none"],
        &["head", "-c", "x"],
        &["grep"],
        &["rmdir", "/none"],
        &["dd", "if=/none"],
        &["test", "-d", "/none"],
        &["readlink", "/none"],
        &["stat", "/none"],
    ]);
}

#[test]
fn dd_copies() {
    all_same(&[
        &["dd", "bs=7", "count=3", "skip=1", "status=none"],
        &[
            "dd",
            "if=/dev/zero",
            "bs=1M",
            "count=8",
            "of=/dev/null",
            "status=none",
        ],
    ]);
}

#[test]
fn the_shell_without_children() {
    all_same(&[
        &[
            "sh",
            "-c",
            "x=5; while [ $x -gt 0 ]; do x=$((x-1)); echo -n $x; done; echo",
        ],
        &[
            "sh",
            "-c",
            "f() { echo \"$# $1\"; }; f a b c; set -- 1 2 3; shift; echo $*",
        ],
        &["sh", "-c", "while read -r line; do echo \"<$line>\"; done"],
        &[
            "sh",
            "-c",
            "case abc in a*) echo yes;; esac; x=word; echo ${#x} ${x%d}; exit 3",
        ],
    ]);
}

fn guest(program: &[&str]) -> String {
    Ringlet::program(program).output().expect_success().out()
}

#[test]
fn files_in_the_guest() {
    let script = "cd /tmp; echo one > f; echo two >> f; while read x; do echo got $x; done < f; \
                  umask; pwd; [ -s f ] && [ ! -e none ] && echo there";
    assert_eq!(
        guest(&["/bin/sh", "-c", script]),
        "got one\ngot two\n0022\n/tmp\nthere\n"
    );
}

#[test]
fn the_root_file_system_is_complete() {
    let root = guest(&["/bin/ls", "-1", "/"]);
    for name in [
        "bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var",
    ] {
        assert!(root.lines().any(|line| line == name), "{name} in {root}");
    }
    let devices = guest(&["/bin/ls", "-1", "/dev"]);
    for name in ["console", "full", "null", "random", "urandom", "zero"] {
        assert!(
            devices.lines().any(|line| line == name),
            "{name} in {devices}"
        );
    }
    assert_eq!(guest(&["/bin/ls", "-ld", "/tmp"])[..10], *"drwxrwxrwt");
    assert_eq!(guest(&["/bin/readlink", "/bin/cat"]), "busybox\n");
    let busybox = guest(&["/bin/sha256sum", "/bin/busybox"]);
    let mut command = Command::new("/bin/busybox");
    command.args(["sha256sum", "/bin/busybox"]);
    assert_eq!(busybox, Ringlet::command(command).output().out());
}

#[test]
fn find_walks_the_tree() {
    let found = guest(&["/bin/find", "/bin", "-type", "l"]);
    let mut command = Command::new("/bin/busybox");
    command.arg("--list");
    let listed = Ringlet::command(command).output().out();
    let wanted = listed.lines().filter(|applet| *applet != "busybox").count();
    assert_eq!(found.lines().count(), wanted);
}

#[test]
fn who_and_where() {
    assert_eq!(guest(&["/bin/id", "-u"]), "0\n");
    assert_eq!(guest(&["/bin/whoami"]), "root\n");
    let name = guest(&["/bin/uname", "-s", "-r", "-m"]);
    assert!(
        name.starts_with("Linux 6.18.") && name.ends_with("x86_64\n"),
        "{name}"
    );
    assert_eq!(guest(&["/bin/pwd"]), "/\n");
}

#[test]
fn time_is_the_hosts() {
    let guest: u64 = guest(&["/bin/date", "+%s"]).trim().parse().unwrap();
    let host = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(guest.abs_diff(host) <= 2, "guest {guest}, host {host}");
}

#[test]
fn sleep_takes_its_time() {
    let output = Ringlet::program(["/bin/sleep", "0.3"])
        .output()
        .expect_success();
    assert!(output.elapsed.as_millis() >= 300);
}
