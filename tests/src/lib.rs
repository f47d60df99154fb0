//! What the integration tests and benchmarks share: finding what was built, running `ringlet` with
//! a deadline, terminals, disk images, and comparing measurements.

mod artifacts;
mod comparison;
pub mod container;
mod disk;
mod doctor;
mod faults;
mod hang;
mod run;
mod soak;
mod terminal;

pub use artifacts::Artifacts;
pub use comparison::{Comparison, Measured, Side};
pub use disk::{Disk, LoopDevice};
pub use doctor::has_kvm;
pub use faults::{HOST_CALLS, HostCall, Traced, run_with_fault};
pub use run::{DEADLINE, Output, Ringlet, Running, host_is_the_oracle, machine_options};
pub use soak::{Soak, Tally, soak};
pub use terminal::Terminal;
