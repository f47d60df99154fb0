//! The `ringlet` command with real VMs and tiny guests. Needs `/dev/kvm` and root.

// Helpers outside the test functions fail as these do: by panicking.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod ends;
mod guest;
mod terminal;
