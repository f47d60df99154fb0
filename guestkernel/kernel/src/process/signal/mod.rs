//! Signals: which wait, what they do, and what their handlers find on the stack.

mod alternate_stack;
mod delivery;
mod frame;
mod handlers;
mod info;
mod queue;
mod set;

pub use alternate_stack::AlternateStack;
pub use delivery::Interrupted;
pub(super) use frame::minimum_stack;
pub use handlers::Action;
pub(super) use handlers::{Effect, Handlers};
pub use info::{INFO_SIZE, SI_TKILL, SI_USER, Sender, SignalInfo};
pub(super) use queue::{Queue, Queued};
pub(super) use set::DefaultAction;
pub use set::{Signal, SignalSet};
