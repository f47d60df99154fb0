//! What the integration tests and benchmarks share: finding what was built, running `ringlet` with
//! a deadline, terminals, disk images, and comparing measurements.

mod artifacts;
mod comparison;
pub mod container;
mod disk;
mod hang;
mod run;
mod terminal;

pub use artifacts::Artifacts;
pub use comparison::{Comparison, Measured, Side};
pub use disk::{Disk, LoopDevice};
pub use run::{DEADLINE, Output, Ringlet, Running, host_is_the_oracle, machine_options};
pub use terminal::Terminal;
