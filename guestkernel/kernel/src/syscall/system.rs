//! System calls about the machine and the kernel: names, memory, random numbers.

use super::path::Done;
use super::{Args, Dispatched, actor};
use crate::error::Result;
use crate::operation::{GetNames, GetRandom, GetSystemInformation, MachineName, SetName};
use crate::process::Thread;

pub(super) fn uname(thread: &mut Thread, args: Args) -> Result<u64> {
    let names_at = args.get(0);
    GetNames { names_at }.run(actor(thread)).done()
}

fn set_name(thread: &Thread, args: Args, which: MachineName) -> Result<u64> {
    let operation = SetName {
        which,
        name_at: args.get(0),
        length: args.int(1),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn sethostname(thread: &mut Thread, args: Args) -> Result<u64> {
    set_name(thread, args, MachineName::Host)
}

pub(super) fn setdomainname(thread: &mut Thread, args: Args) -> Result<u64> {
    set_name(thread, args, MachineName::Domain)
}

pub(super) fn sysinfo(thread: &mut Thread, args: Args) -> Result<u64> {
    let information_at = args.get(0);
    GetSystemInformation { information_at }
        .run(actor(thread))
        .done()
}

fn decode_getrandom(args: Args) -> GetRandom {
    GetRandom {
        address: args.get(0),
        count: args.size(1),
        flags: args.uint(2),
    }
}

/// `getrandom(2)` of what takes no time to speak of.
pub(super) fn getrandom_now(thread: &mut Thread, args: Args) -> Dispatched {
    decode_getrandom(args).run_now(actor(thread)).into()
}

pub(super) async fn getrandom(thread: &mut Thread, args: Args) -> Result<u64> {
    decode_getrandom(args).run(actor(thread)).await
}
