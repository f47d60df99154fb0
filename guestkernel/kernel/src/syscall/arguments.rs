//! The arguments of a system call.

/// Six registers, read as what the system call's declaration says: as in C, the upper half of a
/// register is ignored where the parameter has 32 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Args(pub [u64; 6]);

impl Args {
    /// Parameter `index` (from 0) as an address, a size, or any other 64-bit number.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        self.0[index]
    }

    /// Parameter `index` as an `int`: file descriptors, most flags.
    #[inline]
    pub fn int(&self, index: usize) -> i32 {
        self.0[index] as i32
    }

    /// Parameter `index` as an `unsigned int`.
    #[inline]
    pub fn uint(&self, index: usize) -> u32 {
        self.0[index] as u32
    }

    /// Parameter `index` as a `loff_t` or `long`.
    #[inline]
    pub fn long(&self, index: usize) -> i64 {
        self.0[index] as i64
    }

    /// Parameter `index` as a `size_t`.
    #[inline]
    pub fn size(&self, index: usize) -> usize {
        self.0[index] as usize
    }
}
