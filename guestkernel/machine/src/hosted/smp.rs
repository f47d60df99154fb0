//! The other CPUs: there are none.

/// CPUs that run; they are numbered from 0.
pub fn cpu_count() -> u32 {
    1
}

/// The number of the CPU that executes this.
pub fn current_cpu() -> u32 {
    0
}

/// Starts CPUs until there are `wanted`: one there is.
pub fn start_cpus(_wanted: u32, _main: fn() -> !) -> u32 {
    cpu_count()
}

/// Interrupts CPU `number`: there is nobody to interrupt.
pub fn kick(_number: u32) {}

/// Mixes the number of this CPU, which is 0, into an address.
pub(crate) fn mix_cpu_into(address: u64) -> u64 {
    address
}

/// Lets other threads of the host run, for one of which this one waits.
pub(crate) fn relax() {
    std::thread::yield_now();
}
