//! The entry of the fuzz target for FUSE requests.

use std::fs;
use std::sync::Arc;

use fuse_abi::linux::{fuse_in_header, fuse_opcode};
use vmm_sys_util::tempdir::TempDir;
use zerocopy::{FromZeros, IntoBytes};

use super::protocol::{self, MAX_REPLY, Reply};
use super::server::{DescriptorLimits, Server};
use super::share::{Cache, Share};
use super::{TAG_SIZE, host};

/// Descriptors that the server may have here.
const LIMITS: DescriptorLimits = DescriptorLimits {
    nodes: 16,
    handles: 8,
};
/// Bytes of a request in the input, without its arguments: opcode, node, and their length.
const PREFIX: usize = 3;
const SECRET: &[u8] = b"outside";

/// Has a server carry out the requests in `input`, one behind the other: a byte for the opcode, one for
/// the node, one for the bytes of arguments, and those.
///
/// The calling thread gets a working directory of its own.
///
/// # Panics
///
/// If something outside of what is shared has changed, or the server holds more than it may.
#[allow(clippy::missing_errors_doc)]
pub fn requests(input: &[u8]) -> std::io::Result<()> {
    let dir = TempDir::new()?;
    let shared = dir.as_path().join("shared");
    let outside = dir.as_path().join("outside");
    fs::create_dir_all(shared.join("dir"))?;
    fs::write(shared.join("file"), "text")?;
    fs::write(&outside, SECRET)?;
    std::os::unix::fs::symlink(&outside, shared.join("link"))?;
    std::os::unix::fs::symlink("../..", shared.join("dir/up"))?;
    let share = Share::open(&shared, true, Cache::Auto).map_err(std::io::Error::other)?;
    host::enter(&share.descriptors)?;
    let server = Server::new(Arc::new(share), LIMITS)?;
    let mut reply = Reply::new();
    let mut run = |opcode: u32, node: u64, arguments: &[u8]| {
        let mut header = fuse_in_header::new_zeroed();
        header.len = (size_of::<fuse_in_header>() + arguments.len()) as u32;
        (header.opcode, header.nodeid) = (opcode, node);
        let bytes = [header.as_bytes(), arguments].concat();
        if let Some(request) = protocol::parse(&bytes, MAX_REPLY) {
            reply.clear();
            server.handle(&request, &mut reply);
            // What is written by requests that go another way.
            let _ = server.transfer(&header, arguments, 0, TAG_SIZE);
        }
    };
    let init = [7_u32, 40, 0, u32::MAX, u32::MAX];
    run(fuse_opcode::FUSE_INIT as u32, 0, init.as_bytes());
    for name in [&b"dir\0"[..], b"file\0", b"link\0"] {
        run(fuse_opcode::FUSE_LOOKUP as u32, 1, name);
    }
    let mut rest = input;
    while let Some((&[opcode, node, len], after)) = rest.split_first_chunk::<PREFIX>() {
        let (arguments, after) = after.split_at(after.len().min(len.into()));
        run(opcode.into(), node.into(), arguments);
        rest = after;
    }
    assert_eq!(fs::read(&outside)?, SECRET);
    assert_eq!(fs::read_dir(dir.as_path())?.count(), 2);
    let (_, open) = server.counts();
    // Open files and those without a name keep theirs.
    assert!(
        open <= LIMITS.nodes + LIMITS.handles + 1,
        "{open} descriptors"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn random_requests_change_nothing_outside() {
        // The working directory is the thread's.
        let run = || {
            let mut random = Random(0x0123_4567_89ab_cdef);
            for _ in 0..300 {
                let mut input = Vec::new();
                for _ in 0..random.below(30) {
                    input.push(random.below(54) as u8);
                    input.push(random.below(8) as u8);
                    let len = 8 * random.below(12) as u8;
                    input.push(len);
                    for _ in 0..len {
                        let byte = [0, 1, 2, 0xff, b'x', b'/', b'.', random.below(256) as u8];
                        input.push(byte[random.below(8) as usize]);
                    }
                }
                requests(&input).unwrap();
            }
        };
        std::thread::spawn(run).join().unwrap();
    }
}
