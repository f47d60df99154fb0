//! What the integration tests and benchmarks share: finding what was built, running `ringlet` with
//! a deadline, terminals and disk images.

mod artifacts;
mod disk;
mod run;
mod terminal;

pub use artifacts::Artifacts;
pub use disk::{Disk, LoopDevice};
pub use run::{DEADLINE, Output, Ringlet, Running, machine_options};
pub use terminal::Terminal;
