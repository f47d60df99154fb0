//! The capabilities of a thread.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Those that root has over files, without those that reach beyond.
pub(super) const OVER_FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// Gives up all capabilities of the calling thread but those in `kept`.
///
/// # Errors
///
/// Those of capset(2) and prctl(2).
pub(super) fn keep(kept: CapabilitySet) -> io::Result<()> {
    let kept = capabilities(None)?.permitted.intersection(kept);
    clear_ambient_capability_set()?;
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?)
}

/// Gives up all capabilities of this process and of what it executes.
///
/// # Errors
///
/// As for [`keep`].
pub(super) fn give_up_for_programs() -> io::Result<()> {
    // Only who has this one may shrink the bounding set; nobody else can get anything by it.
    let has = capabilities(None)?.permitted;
    if has.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // The host's kernel does not know all of them.
                Ok(()) | Err(rustix::io::Errno::INVAL) => (),
                Err(error) => return Err(error.into()),
            }
        }
    }
    keep(CapabilitySet::empty())
}
