//! Ringlet's VMM: builds a KVM microVM from a [`Config`] and runs it to its end.
//!
//! [`builder`] lists the steps that make a VM; [`Vm::run`] is its life; [`Outcome`] is how it ended.
//! The command line ([`cli`]) is the only part that speaks to a person.

pub mod boot;
pub mod builder;
pub mod bus;
pub mod cli;
pub mod config;
pub mod control_page;
pub mod cpuid;
pub mod crash;
pub mod debug;
pub mod images;
pub mod kernel_image;
pub mod logger;
pub mod memory;
pub mod outcome;
pub mod serial;
pub mod signals;
pub mod terminal;
pub mod timeline;
pub mod vcpu;
pub mod vm;

pub use builder::{BuildError, build};
pub use config::Config;
pub use outcome::Outcome;
pub use timeline::Timeline;
pub use vm::Vm;
