//! The guest kernel in safe Rust: an async executor, processes, a virtual file system, io_uring.
//!
//! Every operation that can wait exists once, as something to poll on a kernel object: a system
//! call awaits it, an io_uring request polls it from its slot. See `docs/design.md`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod boot;
mod command_line;
pub mod drivers;
pub mod error;
pub mod executor;
pub mod file;
pub mod fs;
mod globals;
mod heap;
pub mod io;
pub mod io_uring;
mod log;
mod missing;
pub mod mm;
pub mod net;
pub mod operation;
pub mod process;
#[cfg(feature = "provoke")]
mod provoke;
pub mod random;
mod standard_streams;
mod sync;
pub mod syscall;
mod thread_loop;

pub use boot::main;
