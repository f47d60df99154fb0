//! What `ringlet doctor` says of this machine.

use std::process::Command;
use std::sync::OnceLock;

use crate::Artifacts;

/// Whether KVM can be used.
///
/// # Panics
///
/// If `ringlet doctor` does not say.
pub fn has_kvm() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let output = Command::new(Artifacts::get().ringlet())
            .args(["doctor", "--json"])
            .output()
            .expect("ringlet can be started");
        let found: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("an object of JSON");
        found["kvm"]["usable"].as_bool().expect("kvm.usable")
    })
}
