//! What the guest programs share: opening what they read, aligned buffers, and, for the programs
//! that test a kernel, raw system calls and a harness for named checks.
//!
//! The programs are ordinary static Linux binaries; the same file runs on the host, which is how
//! guest and host are compared.

pub mod aligned;
pub mod check;
pub mod doors;
pub mod ring;
pub mod source;
pub mod sys;
