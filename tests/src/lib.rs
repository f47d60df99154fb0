//! What the integration tests and benchmarks share: finding what was built, running `ringlet` with
//! a deadline, terminals, disk images, and comparing measurements.

mod artifacts;
mod comparison;
mod disk;
mod doctor;
mod run;
mod terminal;

pub use artifacts::Artifacts;
pub use comparison::{Comparison, Measured, Side};
pub use disk::{Disk, LoopDevice};
pub use doctor::has_kvm;
pub use run::{DEADLINE, Output, Ringlet, Running, machine_options};
pub use terminal::Terminal;
