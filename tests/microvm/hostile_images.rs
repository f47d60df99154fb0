//! Kernels and root file systems that are well-formed enough to start, and then misbehave.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ringlet_tests::{Artifacts, Ringlet};
use rootfs::Image;
use tempfile::TempDir;

fn file(contents: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, contents).unwrap();
    (dir, path)
}

/// Runs `/program` from a root file system that holds it with these contents and mode.
fn run_program(contents: &[u8], mode: u32) -> ringlet_tests::Output {
    let mut image = Image::default();
    image.file("program", mode, contents.to_vec()).unwrap();
    let (_dir, path) = file(&image.archive().unwrap());
    Ringlet::run(["--rootfs", path.to_str().unwrap()], ["/program"]).output()
}

#[test]
fn programs_that_cannot_be_executed() {
    let good = fs::read(Artifacts::get().program("crash")).unwrap();
    let changed = |offset: usize, bytes: &[u8]| {
        let mut program = good.clone();
        program[offset..offset + bytes.len()].copy_from_slice(bytes);
        program
    };
    run_program(&good, 0o755).expect_code(2);
    run_program(&good, 0o644).expect_refusal(126, "/program");
    for (what, program) in [
        ("empty", Vec::new()),
        ("text", b"not an ELF file".to_vec()),
        ("magic", b"\x7fELF".to_vec()),
        ("cut short", good[..100].to_vec()),
        ("AArch64", changed(18, &183_u16.to_le_bytes())),
        ("32-bit class", changed(4, &[1])),
        ("relocatable", changed(16, &1_u16.to_le_bytes())),
        ("no program headers", changed(56, &0_u16.to_le_bytes())),
        ("many program headers", changed(56, &u16::MAX.to_le_bytes())),
        ("far program headers", changed(32, &u64::MAX.to_le_bytes())),
    ] {
        let guest = run_program(&program, 0o755);
        match run_on_host(&program) {
            Some(code) => assert_eq!(guest.code(), code, "{what}: {}", guest.err()),
            None => guest.expect_refusal(126, "/program"),
        }
    }
}

/// What the host's Linux makes of the program: its exit status, unless it cannot be executed.
fn run_on_host(contents: &[u8]) -> Option<i32> {
    let (_dir, path) = file(contents);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    loop {
        match Command::new(&path).stderr(Stdio::null()).status() {
            Ok(status) => return Some(status.code().unwrap_or(128)),
            // Another test's child still has the file open for a moment.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {}
            Err(_) => return None,
        }
    }
}

#[test]
fn a_program_with_a_wild_entry_point_dies_alone() {
    let good = fs::read(Artifacts::get().program("crash")).unwrap();
    for entry in [8_u64, 1 << 46, 1 << 63, 0xffff_ffff_8000_0000] {
        let mut program = good.clone();
        program[24..32].copy_from_slice(&entry.to_le_bytes());
        let code = run_program(&program, 0o755).code();
        assert!(
            code == 128 + libc::SIGSEGV || code == 126,
            "{entry:#x}: {code}"
        );
    }
}

#[test]
fn programs_with_damaged_headers_end() {
    let good = fs::read(Artifacts::get().program("crash")).unwrap();
    // Every field of the program headers, one after the other, with one bit wrong or all set.
    for offset in (64..64 + 4 * 56).step_by(8) {
        for pattern in [1_u64 << 40, u64::MAX] {
            let mut program = good.clone();
            let word: [u8; 8] = program[offset..offset + 8].try_into().unwrap();
            let value = u64::from_le_bytes(word) ^ pattern;
            program[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
            let output = run_program(&program, 0o755);
            // However it ends, it is the program that does, not the kernel.
            let text = output.err();
            assert!(
                [2, 125, 126, 132, 134, 135, 139].contains(&output.code()),
                "{offset} {pattern:#x}: {} {text}",
                output.code()
            );
            assert!(
                !text.contains("panic") && text.lines().count() <= 1,
                "{text}"
            );
        }
    }
}

#[test]
fn a_root_file_system_without_the_program() {
    let (_dir, path) = file(&Image::default().archive().unwrap());
    // A path that the host has would be the host's program.
    for program in ["true", "/bin/none"] {
        Ringlet::run(["--rootfs", path.to_str().unwrap()], [program])
            .output()
            .expect_refusal(127, program);
    }
}

#[test]
fn a_root_file_system_of_links() {
    let mut image = Image::default();
    image.symlink("loop", "loop").unwrap();
    image.symlink("dangling", "nowhere").unwrap();
    let (_dir, path) = file(&image.archive().unwrap());
    let rootfs = ["--rootfs", path.to_str().unwrap()];
    Ringlet::run(rootfs, ["/dangling"])
        .output()
        .expect_refusal(127, "/dangling");
    let code = Ringlet::run(rootfs, ["/loop"]).output().code();
    assert!(code == 126 || code == 127, "{code}");
}

#[test]
fn archives_with_damaged_headers() {
    let rootfs = fs::read(Artifacts::get().rootfs()).unwrap();
    let damaged = |offset: usize, byte: u8| {
        let mut image = rootfs.clone();
        image[offset] = byte;
        image
    };
    // Magic, file size and name size of the first entry, and no digit at all.
    for (offset, byte) in [(0, b'x'), (54, b'f'), (94, b'f'), (60, b'!')] {
        let (_dir, path) = file(&damaged(offset, byte));
        Ringlet::run(["--rootfs", path.to_str().unwrap()], ["/bin/true"])
            .output()
            .expect_refusal(125, path.to_str().unwrap());
    }
}

/// The kernel with its entry code replaced.
fn kernel_starting_with(code: &[u8]) -> (TempDir, PathBuf) {
    let mut kernel = fs::read(Artifacts::get().kernel()).unwrap();
    let word = |bytes: &[u8], at: usize, size: usize| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(&bytes[at..at + size]);
        u64::from_le_bytes(word)
    };
    let headers = word(&kernel, 32, 8) as usize;
    let count = word(&kernel, 56, 2) as usize;
    let header = |index: usize| headers + index * 56;
    // The PVH note: its last four bytes are the physical address of the entry point.
    let note = (0..count)
        .find(|index| word(&kernel, header(*index), 4) == 4)
        .expect("a note");
    let at = word(&kernel, header(note) + 8, 8) as usize;
    let name_size = word(&kernel, at, 4) as usize;
    let entry = word(&kernel, at + 12 + name_size.next_multiple_of(4), 4);
    let segment = (0..count)
        .find(|index| {
            let start = word(&kernel, header(*index) + 24, 8);
            let size = word(&kernel, header(*index) + 32, 8);
            word(&kernel, header(*index), 4) == 1 && (start..start + size).contains(&entry)
        })
        .expect("a segment with the entry point");
    let file_offset = word(&kernel, header(segment) + 8, 8);
    let start = word(&kernel, header(segment) + 24, 8);
    let offset = (file_offset + entry - start) as usize;
    kernel[offset..offset + code.len()].copy_from_slice(code);
    file(&kernel)
}

/// A crash report names the kernel, shows registers, and the status is 125.
#[track_caller]
fn crashes(code: &[u8]) {
    let (_dir, path) = kernel_starting_with(code);
    let output = Ringlet::run(["--kernel", path.to_str().unwrap()], ["/bin/true"])
        .output()
        .expect_code(125);
    let text = output.err().to_lowercase();
    assert!(text.contains("rip"), "no registers in: {text}");
}

#[test]
fn a_kernel_that_triple_faults() {
    // lidt [eip-relative zeros]; ud2: no handler, no handler for that, reset.
    crashes(&[0x0f, 0x0b]);
}

#[test]
fn a_kernel_that_jumps_nowhere() {
    // mov eax, 0xfffffff0; jmp eax
    crashes(&[0xb8, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xe0]);
}

/// Ends a kernel that says that it is there and then does this.
fn can_be_ended(code: &[u8]) {
    // mov dx, 0x3f8; mov al, '!'; out dx, al; mov al, newline; out dx, al
    let greeting = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'!', 0xee, 0xb0, b'\n', 0xee];
    let (_dir, path) = kernel_starting_with(&[&greeting, code].concat());
    let mut running = Ringlet::run(["--kernel", path.to_str().unwrap()], ["/bin/true"]).start();
    running.stderr.wait_for(b"!\n");
    running.signal(libc::SIGTERM);
    running.wait().expect_code(128 + libc::SIGTERM);
}

#[test]
fn a_kernel_that_halts_can_be_ended() {
    // cli; hlt; jmp -3
    can_be_ended(&[0xfa, 0xf4, 0xeb, 0xfd]);
}

#[test]
fn a_kernel_that_spins_can_be_ended() {
    // jmp -2
    can_be_ended(&[0xeb, 0xfe]);
}
