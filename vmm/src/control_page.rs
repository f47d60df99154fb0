//! The control page: where the guest says that it ends, and which stages it has reached.

use std::sync::Arc;

use ringlet_abi::control::{self, Mark, ModeChoice};

use crate::bus::MmioDevice;
use crate::memory::Ram;
use crate::missing::MissingTable;
use crate::outcome::{Ending, Outcome};
use crate::timeline::Timeline;

/// The registers of [`ringlet_abi::control`].
pub struct ControlPage {
    ending: Arc<Ending>,
    timeline: Arc<Timeline>,
    missing: Arc<MissingTable>,
    ram: Ram,
}

impl ControlPage {
    /// A page that reports to `ending`, `timeline` and `missing`, and gives back memory of `ram`.
    pub fn new(
        ending: Arc<Ending>,
        timeline: Arc<Timeline>,
        missing: Arc<MissingTable>,
        ram: Ram,
    ) -> Self {
        Self {
            ending,
            timeline,
            missing,
            ram,
        }
    }
}

impl MmioDevice for ControlPage {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
            return;
        };
        match offset {
            control::EXIT => self.ending.end(Outcome::of_exit(value)),
            control::MARK => {
                if let Some(mark) = Mark::from_number(value) {
                    self.timeline.reach(mark.into());
                }
            }
            control::RELEASE => self.ram.release(value),
            control::MISSING => self.missing.announce(value),
            control::MODE => self.timeline.note_mode(ModeChoice::decode(value)),
            _ => (),
        }
    }
}
