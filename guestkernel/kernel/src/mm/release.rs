//! Free memory goes back to the host, block by block, when it was free for a while.

use crate::executor;
use core::time::Duration;
use machine::clock::monotonic;

/// How long a block is free before it goes back, at least; twice as long at most.
const PATIENCE: Duration = Duration::from_millis(250);
/// Blocks after which others come first: each takes some 0.2 ms.
const AT_ONCE: usize = 4;

/// Gives memory back, for ever, if there is somebody to take it.
pub(crate) async fn give_back() {
    if !machine::power::can_release() {
        return;
    }
    machine::watch_free_blocks();
    loop {
        executor::memory_freed().await;
        while let Some(idle) = machine::idle_blocks() {
            for count in 0..idle {
                if !machine::release_block() {
                    break;
                }
                if count % AT_ONCE == AT_ONCE - 1 {
                    executor::yield_now().await;
                }
            }
            executor::sleep_until(monotonic() + PATIENCE.as_nanos() as u64).await;
        }
    }
}
