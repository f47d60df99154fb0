//! What `ringlet run` exits with.

use ringlet_tests::Ringlet;

fn code(program: &[&str]) -> i32 {
    let output = Ringlet::program(program).output();
    assert_eq!(output.err(), "", "{program:?}");
    output.code()
}

#[test]
fn the_programs_own() {
    assert_eq!(code(&["/bin/true"]), 0);
    assert_eq!(code(&["/bin/false"]), 1);
    for status in [2, 42, 125, 126, 127, 128, 255] {
        let script = format!("BEGIN {{ exit {status} }}");
        assert_eq!(code(&["/bin/awk", &script]), status);
    }
}

#[test]
fn only_the_low_byte_counts() {
    assert_eq!(code(&["/bin/awk", "BEGIN { exit 256 }"]), 0);
    assert_eq!(code(&["/bin/awk", "BEGIN { exit 300 }"]), 44);
}

#[test]
fn a_signal_that_ended_the_program() {
    for (how, signal) in [
        ("read", libc::SIGSEGV),
        ("write", libc::SIGSEGV),
        ("fetch", libc::SIGSEGV),
        ("noncanonical", libc::SIGSEGV),
        ("opcode", libc::SIGILL),
        ("divide", libc::SIGFPE),
        ("breakpoint", libc::SIGTRAP),
    ] {
        assert_eq!(code(&["/bin/crash", how]), 128 + signal, "{how}");
    }
}

/// No CPU may still translate the page's address as it did before.
#[test]
fn a_store_to_a_page_that_another_thread_has_protected() {
    assert_eq!(
        code(&["stress", "--store-after-protect"]),
        128 + libc::SIGSEGV
    );
}

#[test]
fn not_found() {
    for program in ["/bin/none", "none", "/none/none", "/etc/passwd/none", ""] {
        let output = Ringlet::program([program]).output();
        output.expect_refusal(127, program);
    }
}

#[test]
fn not_executable() {
    for program in ["/etc/passwd", "/bin", "/tmp", "/"] {
        let output = Ringlet::program([program]).output();
        output.expect_refusal(126, program);
    }
}

#[test]
fn ringlets_own_errors() {
    Ringlet::run(["--kernel", "/none"], ["/bin/true"])
        .output()
        .expect_refusal(125, "/none");
}
