//! The modes in which the kernel can run; the backend says in which one it does.

/// Where the kernel runs, and what isolates it from the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel at CPL 0 in supervisor pages, the program at CPL 3.
    Ring0,
    /// Kernel and program at CPL 3 in one protection domain; the VM is the boundary.
    Shared,
}

impl Mode {
    /// The name, as in `mode=NAME` on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring0 => "ring0",
            Self::Shared => "shared",
        }
    }
}
