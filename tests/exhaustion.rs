//! A program that takes all there is of something gets errors, or is ended; the guest kernel goes
//! on.

// In a test every failure is a panic.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use ringlet_tests::{Artifacts, Output, Ringlet};
use rootfs::Image;
use tempfile::TempDir;

/// A root file system with nothing but `/exhaust` and `/tmp`.
fn image() -> (TempDir, PathBuf) {
    let program = std::fs::read(Artifacts::get().program("exhaust")).unwrap();
    let mut image = Image::default();
    image.file("exhaust", 0o755, program).unwrap();
    image.directory("tmp", 0o1777).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, image.archive().unwrap()).unwrap();
    (dir, path)
}

fn exhaust(what: &str) -> Output {
    let (_dir, path) = image();
    let options = ["--mem", "128M", "--rootfs", path.to_str().unwrap()];
    Ringlet::run(options, ["/exhaust", what]).output()
}

/// Takes all of `what` twice: that ends with one of `errors` and after at least `least`.
fn ends_with(what: &str, least: u64, errors: &[&str]) {
    let output = exhaust(what).expect_success();
    assert_eq!(output.err(), "", "{what}");
    let text = output.out();
    assert!(!text.is_empty(), "{what} said nothing");
    for line in text.lines() {
        let (count, error) = line.split_once(": ").expect(line);
        assert!(count.parse::<u64>().unwrap() >= least, "{what}: {line}");
        assert!(errors.contains(&error), "{what}: {line}");
    }
}

#[test]
fn descriptors_end() {
    for what in ["descriptors", "eventfds"] {
        ends_with(what, 1024, &["ENOMEM", "EMFILE"]);
    }
    ends_with("memfds", 1024, &["ENOMEM", "EMFILE", "ENOSPC"]);
}

#[test]
fn files_and_names_end() {
    for (what, least) in [("files", 5000), ("links", 5000), ("symlinks", 500)] {
        ends_with(what, least, &["ENOMEM", "ENOSPC"]);
    }
    ends_with("pages", 500, &["ENOMEM", "ENOSPC"]);
}

#[test]
fn what_pipes_and_rings_hold_ends() {
    ends_with("pipes", 4, &["ENOMEM", "EAGAIN"]);
    ends_with("rings", 4, &["ENOMEM"]);
}

#[test]
fn areas_and_depth_end() {
    ends_with("areas", 10_000, &["ENOMEM"]);
    ends_with("depth", 10_000, &["done"]);
}

#[test]
fn memory_ends_and_the_program_with_it() {
    let output = exhaust("memory").expect_code(128 + 9);
    assert_eq!(output.out(), "");
}
