//! Locks between guest and host, and within the guest.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::*;

fn lock(fh: u64, owner: u64, kind: i32, flags: u32) -> fuse_lk_in {
    fuse_lk_in {
        fh,
        owner,
        lk: fuse_file_lock {
            start: 0,
            end: i64::MAX as u64,
            type_: kind as u32,
            pid: 1,
        },
        lk_flags: flags,
        padding: 0,
    }
}

impl Client {
    fn lock(&mut self, node: u64, lock: fuse_lk_in) -> Result<()> {
        self.act(fuse_opcode::FUSE_SETLK, node, &[lock.as_bytes()])
    }

    fn wait_for_lock(&mut self, node: u64, lock: fuse_lk_in) -> u64 {
        self.send(fuse_opcode::FUSE_SETLKW, node, &[lock.as_bytes()], 16)
    }
}

/// Whether the host can have the lock now, by flock(2) or else by F_OFD_SETLK.
fn host_can_lock(file: &fs::File, by_flock: bool) -> bool {
    if by_flock {
        // SAFETY: flock has no memory arguments.
        return unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
    }
    let range = host::Range { start: 0, len: 0 };
    host::set_lock(file, libc::F_WRLCK as u32, range).is_ok()
}

#[test]
fn guest_and_host_exclude_each_other() {
    for (flags, by_flock) in [(0, false), (FUSE_LK_FLOCK, true)] {
        let mut client = Client::new();
        let (node, fh) = client.create(1, "file", libc::O_RDWR, 0o600).unwrap();
        let open = || {
            fs::File::options()
                .read(true)
                .write(true)
                .open(client.shared("file"))
                .unwrap()
        };
        let (first, second) = (open(), open());
        assert!(host_can_lock(&first, by_flock));
        let write = lock(fh, 1, libc::F_WRLCK, flags);
        assert_eq!(client.lock(node, write), Err(Errno::AGAIN));
        if !by_flock {
            let reply: fuse_lk_out = client
                .call(fuse_opcode::FUSE_GETLK, node, &[write.as_bytes()])
                .unwrap();
            assert_eq!((reply.lk.type_, reply.lk.start), (libc::F_WRLCK as u32, 0));
            assert_eq!(reply.lk.end, i64::MAX as u64);
        }
        drop(first);
        client.lock(node, write).unwrap();
        assert!(!host_can_lock(&second, by_flock));
        client
            .lock(node, lock(fh, 1, libc::F_UNLCK, flags))
            .unwrap();
        assert!(host_can_lock(&second, by_flock));
    }
}

#[test]
fn owners_exclude_each_other_until_they_flush_or_close() {
    let mut client = Client::new();
    let (node, fh) = client.create(1, "file", libc::O_RDWR, 0o600).unwrap();
    let other = client.open(node, libc::O_RDWR).unwrap().fh;
    client.lock(node, lock(fh, 1, libc::F_WRLCK, 0)).unwrap();
    client.lock(node, lock(other, 1, libc::F_WRLCK, 0)).unwrap();
    assert_eq!(
        client.lock(node, lock(other, 2, libc::F_RDLCK, 0)),
        Err(Errno::AGAIN)
    );
    let mut flush = fuse_flush_in::new_zeroed();
    (flush.fh, flush.lock_owner) = (fh, 1);
    client
        .act(fuse_opcode::FUSE_FLUSH, node, &[flush.as_bytes()])
        .unwrap();
    client.lock(node, lock(other, 2, libc::F_RDLCK, 0)).unwrap();
    assert_eq!(
        client.lock(node, lock(fh, 3, libc::F_WRLCK, 0)),
        Err(Errno::AGAIN)
    );
    client.release(node, fh).unwrap();
    client.release(node, other).unwrap();
    let fh = client.open(node, libc::O_RDWR).unwrap().fh;
    client.lock(node, lock(fh, 3, libc::F_WRLCK, 0)).unwrap();
    let mut bad = lock(fh, 3, libc::F_WRLCK, 0);
    (bad.lk.start, bad.lk.end) = (5, 4);
    assert_eq!(client.lock(node, bad), Err(Errno::INVAL));
    (bad.lk.start, bad.lk.end) = (0, u64::MAX);
    assert_eq!(client.lock(node, bad), Err(Errno::INVAL));
    assert_eq!(client.lock(node, lock(fh, 3, 77, 0)), Err(Errno::INVAL));
    assert_eq!(
        client.lock(1, lock(fh, 3, libc::F_WRLCK, 0)),
        Err(Errno::BADF)
    );
}

#[test]
fn those_who_wait_for_locks_occupy_nobody() {
    let mut client = Client::new();
    let (node, fh) = client.create(1, "file", libc::O_RDWR, 0o600).unwrap();
    client.lock(node, lock(fh, 1, libc::F_WRLCK, 0)).unwrap();
    let mut waiting = Vec::new();
    // Many more than the pool has threads.
    for owner in 2..20 {
        waiting.push(client.wait_for_lock(node, lock(fh, owner, libc::F_RDLCK, 0)));
        // The request's memory is used again.
        std::thread::sleep(Duration::from_millis(2));
    }
    // Others go on meanwhile. Each of those who wait has room for a header only.
    assert!(client.driver.used(1).is_none());
    for _ in 0..10 {
        client.look_up(1, "file").unwrap();
    }
    let unlock = lock(fh, 1, libc::F_UNLCK, 0);
    client.send(fuse_opcode::FUSE_SETLK, node, &[unlock.as_bytes()], 16);
    for _ in 0..=waiting.len() {
        assert_eq!(client.driver.await_used(1).1, 16);
    }
}

#[test]
fn a_wait_ends_by_an_interrupt_the_host_and_a_reset() {
    let mut client = Client::new();
    let (node, fh) = client.create(1, "file", libc::O_RDWR, 0o600).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(client.shared("file"))
        .unwrap();
    assert!(host_can_lock(&file, false));
    let write = lock(fh, 1, libc::F_WRLCK, 0);
    let unique = client.wait_for_lock(node, write);
    let interrupt = fuse_interrupt_in { unique };
    client.note(fuse_opcode::FUSE_INTERRUPT, 0, &[interrupt.as_bytes()]);
    let (_, len) = client.driver.await_used(1);
    assert_eq!(client.reply(unique, len), Err(Errno::INTR));

    let unique = client.wait_for_lock(node, write);
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(30));
    assert!(client.driver.used(1).is_none());
    drop(file);
    let (_, len) = client.driver.await_used(1);
    assert!(start.elapsed() < DEADLINE);
    assert_eq!(client.reply(unique, len), Ok(vec![]));

    client.wait_for_lock(node, lock(fh, 2, libc::F_WRLCK, 0));
    client.driver.set_reg(0x70, 0);
    client.driver.start(0);
    client.init().unwrap();
    assert!(client.look_up(1, "file").is_ok());
}
