//! Ringlet's own log: lines on standard error, at the level that `RINGLET_LOG` names.

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::messages;

/// The environment variable with the level: off, error, warn (the default), info, debug, trace.
pub const VARIABLE: &str = "RINGLET_LOG";

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // virtio-queue logs each of a guest's mistakes; the devices say it once.
        !metadata.target().starts_with("virtio_queue")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = match record.level() {
                Level::Error => "error",
                Level::Warn => "warning",
                Level::Info => "info",
                Level::Debug => "debug",
                Level::Trace => "trace",
            };
            messages::log(level, record.target(), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Installs the logger.
pub fn install() {
    let level = std::env::var(VARIABLE)
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(LevelFilter::Warn);
    // It fails where there is a logger already, and that one does.
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(level);
    }
}
