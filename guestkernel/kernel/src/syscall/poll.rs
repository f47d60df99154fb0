//! System calls that wait for files to become ready: `poll(2)` and `select(2)`.

use super::{Args, actor};
use crate::error::Result;
use crate::operation::{Poll, PollSet, PollWithMask, Select, SelectSets, SelectWithMask};
use crate::process::Thread;

fn set(args: Args) -> PollSet {
    PollSet {
        address: args.get(0),
        count: args.uint(1),
    }
}

fn sets(args: Args) -> SelectSets {
    SelectSets {
        count: args.int(0),
        sets_at: [args.get(1), args.get(2), args.get(3)],
    }
}

pub(super) async fn poll(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Poll::new(set(args), args.int(2));
    operation.run(actor(thread)).await
}

pub(super) async fn ppoll(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = PollWithMask {
        set: set(args),
        time_at: args.get(2),
        mask: (args.get(3), args.get(4)),
    };
    operation.run(actor(thread)).await
}

pub(super) async fn select(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Select {
        sets: sets(args),
        time_at: args.get(4),
    };
    operation.run(actor(thread)).await
}

pub(super) async fn pselect6(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SelectWithMask {
        sets: sets(args),
        time_at: args.get(4),
        mask_at: args.get(5),
    };
    operation.run(actor(thread)).await
}
