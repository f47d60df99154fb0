//! The guest kernel image: `machine` boots, `kernel` runs.
#![cfg_attr(baremetal, no_std, no_main)]

#[cfg(baremetal)]
machine::entry_point!(kernel::main);

/// The image is built by the flags in `.cargo/config.toml` of this directory.
#[cfg(not(baremetal))]
fn main() {
    eprintln!("the kernel image is built in guestkernel/, by `make`");
    std::process::exit(1);
}
