//! Terminals, as job control sees them (`credentials(7)`).

use super::FileOps;
use alloc::sync::Arc;

/// A terminal.
pub trait Terminal: Send + Sync {
    /// What tells terminals apart: files of one terminal have the same.
    fn identity(&self) -> usize;

    /// The session that it belongs to; 0 for none.
    fn session(&self) -> u32;

    /// The process group in the foreground; 0 for none.
    fn foreground(&self) -> u32;

    /// Makes it a session's, with a process group in the foreground; zeros for nobody's.
    fn belong_to(&self, session: u32, foreground: u32);

    /// Sets the process group in the foreground.
    fn set_foreground(&self, group: u32);

    /// Whether processes in the background may not write either (`TOSTOP`).
    fn stops_output(&self) -> bool;

    /// Its session has ended.
    fn end_session(&self);

    /// What `/dev/tty` opens.
    fn reopen(self: Arc<Self>) -> Arc<dyn FileOps>;
}
