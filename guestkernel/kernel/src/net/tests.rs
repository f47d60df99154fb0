//! What cannot be seen from a program: that nothing is left behind.

use super::*;
use crate::executor::{block_on, sleep_until, yield_now};
use crate::file::{OpenFile, OpenFlags, Readiness};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::IoBuffer;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};
use linux_raw_sys::net;

const WHO: Identity = Identity {
    pid: 1,
    uid: 0,
    gid: 0,
};

fn pair(kind: u32) -> [Arc<OpenFile>; 2] {
    let pair = Socket::make_pair(net::AF_UNIX, kind, 0, WHO).unwrap();
    pair.map(|socket| OpenFile::new(socket, OpenFlags::READ_WRITE))
}

fn send(to: &OpenFile, files: Vec<Arc<OpenFile>>) -> Poll<crate::error::Result<usize>> {
    let buffer = IoBuffer::Kernel(vec![7]);
    let mut io = Io::new(Direction::Write, None, buffer, IoFlags::empty());
    let mut message = Outgoing {
        rights: Some(Rights::new(files).unwrap()),
        ..Outgoing::default()
    };
    let mut context = Context::from_waker(Waker::noop());
    let socket = Socket::of(to).unwrap();
    socket.poll_send(&mut io, &mut message, &mut context)
}

fn let_others_run() {
    block_on(async {
        sleep_until(machine::clock::monotonic() + 10_000_000).await;
        for _ in 0..1000 {
            yield_now().await;
        }
    });
}

fn watch(file: &Arc<OpenFile>) -> Weak<OpenFile> {
    Arc::downgrade(file)
}

#[test]
fn sockets_that_keep_each_other_are_collected() {
    for kind in [net::SOCK_STREAM, net::SOCK_DGRAM, net::SOCK_SEQPACKET] {
        let [a, b] = pair(kind);
        let [c, d] = pair(kind);
        // What is sent to one waits at the other.
        assert_eq!(send(&a, vec![d.clone()]), Poll::Ready(Ok(1)));
        assert_eq!(send(&c, vec![b.clone()]), Poll::Ready(Ok(1)));
        assert_eq!(send(&a, vec![b.clone()]), Poll::Ready(Ok(1)));
        let all = [&a, &b, &c, &d].map(watch);
        let_others_run();
        assert!(all.iter().all(|file| file.strong_count() > 0));
        drop((a, b, c, d));
        let_others_run();
        assert!(all.iter().all(|file| file.strong_count() == 0));
    }
}

#[test]
fn what_can_be_reached_stays() {
    let [a, b] = pair(net::SOCK_STREAM);
    let [c, d] = pair(net::SOCK_STREAM);
    // D is in a message at B, and B in one at D, but A can still send to B and somebody holds D.
    assert_eq!(send(&a, vec![d.clone()]), Poll::Ready(Ok(1)));
    assert_eq!(send(&c, vec![b.clone()]), Poll::Ready(Ok(1)));
    let inner = watch(&b);
    drop((b, c));
    let_others_run();
    assert_eq!(inner.strong_count(), 1, "its message waits at D");
    drop(d);
    // Some socket that is closed is what has them looked for.
    drop(pair(net::SOCK_STREAM));
    let_others_run();
    assert_eq!(inner.strong_count(), 0);
    let buffer = IoBuffer::Kernel(vec![7]);
    let mut io = Io::new(Direction::Write, None, buffer, IoFlags::empty());
    let mut context = Context::from_waker(Waker::noop());
    let ready = a.ops.poll_io(&mut io, &mut context);
    assert_eq!(ready, Poll::Ready(Err(crate::error::Errno::EPIPE)));
}

#[test]
fn a_long_chain_of_sockets_is_closed() {
    let [mut kept, _other] = pair(net::SOCK_STREAM);
    let mut all = Vec::new();
    for _ in 0..2000 {
        let [a, b] = pair(net::SOCK_STREAM);
        let buffer = send(&a, vec![kept.clone()]);
        assert_eq!(buffer, Poll::Ready(Ok(1)));
        all.push(watch(&kept));
        kept = b;
    }
    drop(kept);
    let_others_run();
    assert!(all.iter().all(|file| file.strong_count() == 0));
}

#[test]
fn a_waker_that_is_forgotten_is_dropped() {
    struct Nothing;
    impl alloc::task::Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }
    let [a, _b] = pair(net::SOCK_STREAM);
    let nothing = Arc::new(Nothing);
    let waker = Waker::from(nothing.clone());
    let mut context = Context::from_waker(&waker);
    a.ops.poll_ready(Readiness::IN, &mut context);
    assert_eq!(Arc::strong_count(&nothing), 3);
    a.ops.forget_waker(&waker);
    assert_eq!(Arc::strong_count(&nothing), 2);
}
