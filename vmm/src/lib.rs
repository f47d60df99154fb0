//! Ringlet's VMM: builds a microVM from a [`Config`] and runs it to its end.
//!
//! [`builder`] lists the steps that make a KVM VM; [`Vm`] is its life. Where there is no KVM
//! ([`accel`]), [`qemu`] has QEMU do the same. [`lifecycle`] is what both have in common, and
//! [`Outcome`] is how a VM ended. The command line ([`cli`]) is the only part that speaks to a person.

pub mod accel;
pub mod boot;
pub mod builder;
pub mod bus;
pub mod cli;
pub mod config;
pub mod control_page;
pub mod cpuid;
pub mod crash;
pub mod debug;
pub mod doctor;
pub mod environment;
pub mod host_program;
pub mod images;
pub mod jail;
pub mod kernel_image;
pub mod lifecycle;
pub mod logger;
pub mod lost_memory;
pub mod memory;
pub mod messages;
pub mod metrics;
pub mod missing;
pub mod mounts;
pub mod outcome;
pub mod qemu;
pub mod report;
pub mod root_view;
pub mod serial;
pub mod signals;
pub mod sizes;
pub mod terminal;
pub mod timeline;
pub mod vcpu;
pub mod vm;

pub use builder::{BuildError, build};
pub use config::Config;
pub use outcome::Outcome;
pub use timeline::Timeline;
pub use vm::Vm;
