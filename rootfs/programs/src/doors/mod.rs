//! Both doors of a kernel: operations as data, each performed by a system call or by an SQE, and
//! what can be seen afterwards, as text that is the same on every machine.
//!
//! [`Operation`] is what is asked, with arguments that name objects and memory rather than
//! descriptors and addresses; a [`World`] gives these a place, performs operations, and tells what
//! has changed. The tables in [`calls`] and [`opcodes`] have a line for each.

mod argument;
pub mod calls;
mod memory;
mod observe;
pub mod opcodes;
mod operation;
mod signals;
mod tree;
mod world;

pub use argument::{
    APPENDER, Arg, BAD, DIRECTORY, FILE, FULL, HERE, Memory, NBPIPE_R, NBPIPE_W, NULL_DEVICE,
    Object, PATH_ONLY, PIPE_R, PIPE_W, RANDOM, READER, RING, Record, SELF_RING, WRITER, ZERO,
    bytes, directory, edge, event, fixed_time, halves, made, opened, record, room, two_times,
    vector, word, words,
};
pub use memory::{Arena, EMPTY_PAGE, FIXED, NO_ACCESS, READ_ONLY, UNMAPPED};
pub use operation::{Call, Entry, Gives, Kind, Operation, Signature, ToEntry, batch};
pub use world::{Door, Outcome, Patience, World};
