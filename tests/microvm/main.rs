//! Integration tests: each boots a microVM, or is refused one.

// In a test every failure is a panic.
#![allow(clippy::unwrap_used)]

mod applets;
mod bad_input;
mod command_line;
mod debugger;
mod disks;
mod doctor;
mod exit_status;
mod host_faults;
mod host_programs;
mod hostile_images;
mod jail;
mod memory;
mod processes;
mod qemu;
mod qemu_devices;
mod reports;
mod shares;
mod signals;
mod soak;
mod stdio;
mod terminal;
mod threads;
mod unread;
mod watchdog;
