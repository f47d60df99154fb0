//! When the stages of a run were reached.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ringlet_abi::control::{Mark, ModeChoice};

/// The stages in the order in which they are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The VM is complete; its first vCPU is about to run.
    VmCreated,
    /// The kernel's first instruction.
    KernelEntered,
    /// The kernel has found its devices and unpacked its root file system.
    KernelReady,
    /// The program's first instruction.
    ProgramEntered,
    /// The program's exit.
    ProgramExited,
}

const STAGES: [(Stage, &str); 5] = [
    (Stage::VmCreated, "VM created"),
    (Stage::KernelEntered, "kernel entered"),
    (Stage::KernelReady, "kernel ready"),
    (Stage::ProgramEntered, "program entered"),
    (Stage::ProgramExited, "program exited"),
];

impl From<Mark> for Stage {
    fn from(mark: Mark) -> Self {
        match mark {
            Mark::KernelEntered => Self::KernelEntered,
            Mark::KernelReady => Self::KernelReady,
            Mark::ProgramEntered => Self::ProgramEntered,
            Mark::ProgramExited => Self::ProgramExited,
        }
    }
}

/// A clock and the time of each stage. It prints as a line for each stage that was reached,
/// `timeline: MILLISECONDS ms STAGE`, and one for the kernel's mode, `mode: NAME (WHY)`.
#[derive(Debug)]
pub struct Timeline {
    start: Instant,
    reached: [OnceLock<Duration>; STAGES.len()],
    mode: OnceLock<ModeChoice>,
}

impl Timeline {
    /// A timeline that counts from `start`.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            reached: Default::default(),
            mode: OnceLock::new(),
        }
    }

    /// The moment that it counts from.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Notes that `stage` is reached now; only the first time counts.
    pub fn reach(&self, stage: Stage) {
        let elapsed = self.start.elapsed();
        self.reached[stage as usize].get_or_init(|| elapsed);
    }

    /// The stages that were reached, by name, and when, counted from the start.
    pub fn stages(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        STAGES.into_iter().filter_map(|(stage, name)| {
            let elapsed = self.reached[stage as usize].get()?;
            Some((name, *elapsed))
        })
    }

    /// The name of the mode that the kernel runs in, once it has chosen.
    pub fn mode_name(&self) -> Option<&'static str> {
        let mode = self.mode.get()?;
        Some(if mode.is_ring0 { "ring0" } else { "shared" })
    }

    /// Notes the mode that the kernel runs in; only the first time counts.
    pub fn note_mode(&self, mode: ModeChoice) {
        self.mode.get_or_init(|| mode);
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, elapsed) in self.stages() {
            let milliseconds = elapsed.as_secs_f64() * 1e3;
            writeln!(f, "timeline: {milliseconds:9.3} ms {name}")?;
        }
        if let (Some(mode), Some(name)) = (self.mode.get(), self.mode_name()) {
            let cycles = mode.loop_cycles;
            writeln!(
                f,
                "mode: {name} (16 instructions at CPL 0 took {cycles} cycles)"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_print_in_order_and_once() {
        let timeline = Timeline::new(Instant::now());
        timeline.reach(Stage::KernelReady);
        timeline.reach(Stage::VmCreated);
        let first = timeline.to_string();
        std::thread::sleep(Duration::from_millis(5));
        timeline.reach(Stage::KernelReady);
        assert_eq!(timeline.to_string(), first);
        let lines: Vec<_> = first.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with(" ms VM created"));
        assert!(lines[1].ends_with(" ms kernel ready"));
        let words: Vec<_> = lines[0].split_whitespace().collect();
        assert_eq!(words[0], "timeline:");
        assert!(words[1].parse::<f64>().is_ok());
    }
}
