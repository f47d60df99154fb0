//! The kernel log: records of the `log` crate, on the serial port, with the time since boot.

use crate::command_line::parameter;
use alloc::format;
use log::{LevelFilter, Log, Metadata, Record};
use machine::lock::Mutex;

struct SerialLog;

/// Held while a line is written, which takes an exit to the VMM for each byte.
static WRITING: Mutex<()> = Mutex::new(());

impl Log for SerialLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = machine::clock::monotonic();
        let line = format!(
            "[{:4}.{:06}] {:5} {}: {}\n",
            now / 1_000_000_000,
            now / 1000 % 1_000_000,
            record.level(),
            record.target(),
            record.args()
        );
        // Lines of several CPUs come one after the other.
        let _writing = WRITING.lock();
        machine::serial::write(line.as_bytes());
    }

    fn flush(&self) {}
}

/// Starts logging; the level is what `loglevel=` on the command line says, warnings if it says
/// nothing.
pub(crate) fn start(command_line: &str) {
    // A second start, in tests, keeps the first logger.
    let _ = log::set_logger(&SerialLog);
    log::set_max_level(level(command_line));
}

fn level(command_line: &str) -> LevelFilter {
    parameter(command_line, "loglevel")
        .and_then(|level| level.parse().ok())
        .unwrap_or(LevelFilter::Warn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_level_on_the_command_line_counts() {
        assert_eq!(level("loglevel=debug x loglevel=error"), LevelFilter::Error);
        assert_eq!(level("loglevel=7"), LevelFilter::Warn);
    }
}
