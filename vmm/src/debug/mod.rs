//! Debugging a guest from outside: the GDB stub behind `--gdb`, and the reports on what a vCPU does.
//!
//! [`port`] is how another thread reaches a vCPU, [`memory`] and [`image`] how guest memory and
//! the kernel's symbols are read; [`report`] prints a vCPU's state from these. The stub adds
//! [`breakpoints`], [`session`] (what all of it shares), [`trap`] (one vCPU that is stepped and
//! stopped), [`registers`] and [`target`] (all vCPUs as GDB sees them) and [`server`] (the
//! connection).

pub mod address;
pub mod breakpoints;
mod exception;
pub mod image;
pub mod memory;
pub mod port;
pub mod registers;
pub mod report;
pub mod server;
pub mod session;
pub mod target;
pub mod trap;

pub use address::Address;
pub use image::Image;
pub use server::Server;
