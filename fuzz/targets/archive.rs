//! Images: a cpio archive that the kernel unpacks.
#![no_main]

use kernel::fs::initramfs::unpack;
use kernel::fs::tmpfs;
use libfuzzer_sys::fuzz_target;
use machine::{Frame, PAGE_SIZE};

fuzz_target!(|archive: &[u8]| {
    let frame = |bytes: &[u8]| {
        let frame = Frame::zeroed().expect("memory");
        frame.write(0, bytes);
        frame
    };
    let frames: Vec<_> = archive.chunks(PAGE_SIZE).map(frame).collect();
    // A wrong one is refused.
    let _ = unpack(&tmpfs::in_memory(0o755), &frames, archive.len());
});
