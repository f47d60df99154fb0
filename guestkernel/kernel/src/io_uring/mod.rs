//! io_uring: rings through which a program hands over requests and takes their results.
//!
//! The way of a request. [`enter()`] takes the ring's lock once for a batch; `submit.rs` copies each
//! SQE out of the ring, once. The table in `opcode/` checks it for its opcode and makes an
//! `Operation` of it. Started, an operation is either done, and its CQE is posted right there, or it
//! is something to poll (`Work`), which moves into a slot of the ring (`request.rs`); whatever it
//! waits for wakes exactly that slot. `links.rs` orders requests that wait for others. Nothing here
//! runs on a thread of its own: woken slots are polled by the program's thread inside
//! `io_uring_enter`, or by the ring itself as a task of the executor.
//!
//! There is one lock a ring, around its `RingState`, as Linux has `uring_lock`. Wakers only touch the
//! queue in `ready.rs`, so anything may be woken from anywhere.
//!
//! A new opcode is a line in the table and a file beside it.

mod budget;
mod completion;
mod enter;
mod file;
mod links;
mod memory;
mod opcode;
mod pace;
mod personality;
mod ready;
mod register;
mod request;
mod resources;
mod ring;
mod setup;
mod sqe;
mod submit;
mod tags;
#[cfg(test)]
mod tests;

pub use enter::{Enter, Entered, enter, enter_now};
pub use opcode::implemented;
pub use register::{Call, register};
pub use setup::create;
