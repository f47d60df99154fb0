//! Shares: whatever FUSE requests a driver sends, nothing outside of the shared directory is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlet_devices::fs::fuzz::requests;

fuzz_target!(|input: &[u8]| requests(input).expect("a directory on the host"));
