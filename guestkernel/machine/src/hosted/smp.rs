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
