//! What the guest programs share: opening what they read, aligned buffers, and the check harness.
//!
//! The programs are ordinary static Linux binaries; the same file runs on the host, which is how
//! guest and host are compared.

pub mod aligned;
pub mod source;
