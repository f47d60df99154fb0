//! The guest's serial port: control lines are for Ringlet, everything else is the kernel's log.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use ringlet_abi::control::{
    Mark, ModeChoice, SERIAL_EXIT, SERIAL_MARK, SERIAL_MISSING, SERIAL_MODE,
};

use crate::messages;
use crate::missing::MissingTable;
use crate::outcome::{Ending, Outcome};
use crate::timeline::Timeline;

/// A longer line is passed on in parts.
const LINE_MAX: u64 = 1024;

/// What the kernel tells Ringlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Exit(u32),
    Mark(u32),
    Mode(u32),
    Missing(u32),
}

impl Message {
    /// The message of a line, if it is one.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?.trim_end();
        let value = |keyword| {
            let number = line.strip_prefix(keyword)?.strip_prefix("0x")?;
            u32::from_str_radix(number, 16).ok()
        };
        value(SERIAL_EXIT)
            .map(Self::Exit)
            .or_else(|| value(SERIAL_MARK).map(Self::Mark))
            .or_else(|| value(SERIAL_MODE).map(Self::Mode))
            .or_else(|| value(SERIAL_MISSING).map(Self::Missing))
    }
}

/// Listens to the port.
pub(super) struct Listener {
    ending: Arc<Ending>,
    timeline: Arc<Timeline>,
    missing: Arc<MissingTable>,
}

impl Listener {
    /// Reports to `ending`, `timeline` and `missing`.
    pub(super) fn new(
        ending: &Arc<Ending>,
        timeline: &Arc<Timeline>,
        missing: &Arc<MissingTable>,
    ) -> Self {
        Self {
            ending: Arc::clone(ending),
            timeline: Arc::clone(timeline),
            missing: Arc::clone(missing),
        }
    }

    /// Reads `port` to its end; what is no message goes to standard error.
    pub(super) fn listen(&mut self, port: impl Read) {
        let ending = Arc::clone(&self.ending);
        self.split(port, |line| {
            messages::write_kernel_log(line, || ending.is_set());
        });
    }

    fn split(&mut self, port: impl Read, mut log: impl FnMut(&[u8])) {
        let mut port = BufReader::new(port);
        let mut line = Vec::new();
        let mut is_start = true;
        // An error is the end, too: QEMU holds the other end.
        while let Ok(1..) = (&mut port).take(LINE_MAX).read_until(b'\n', &mut line) {
            match Message::parse(&line).filter(|_| is_start) {
                Some(message) => self.hear(message),
                None => log(&line),
            }
            is_start = line.ends_with(b"\n");
            line.clear();
        }
    }

    fn hear(&self, message: Message) {
        match message {
            Message::Exit(value) => self.ending.end(Outcome::of_exit(value)),
            Message::Mark(number) => {
                if let Some(mark) = Mark::from_number(number) {
                    self.timeline.reach(mark.into());
                }
            }
            Message::Mode(value) => self.timeline.note_mode(ModeChoice::decode(value)),
            Message::Missing(page) => self.missing.announce(page),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlet_abi::control::Exit;
    use std::time::Instant;

    fn listen(bytes: &[u8]) -> (String, Option<Outcome>, String) {
        let ending = Arc::new(Ending::new().unwrap());
        let timeline = Arc::new(Timeline::new(Instant::now()));
        let mut rest = Vec::new();
        Listener::new(&ending, &timeline, &Arc::default())
            .split(bytes, |line| rest.extend_from_slice(line));
        let rest = String::from_utf8_lossy(&rest).into_owned();
        (rest, ending.outcome(), timeline.to_string())
    }

    #[test]
    fn messages_are_taken_out() {
        let (log, outcome, timeline) =
            listen(b"one\nringlet-control: mark 0x2\ntwo\nringlet-control: exit 0x2a\nthree");
        assert_eq!(log, "one\ntwo\nthree");
        assert_eq!(outcome, Some(Outcome::Exit(Exit::Exited(42))));
        assert!(timeline.contains("kernel ready"));
    }

    #[test]
    fn only_whole_lines_are_messages() {
        let long = [
            b"x".repeat(LINE_MAX as usize),
            b"ringlet-control: exit 0x0\n".to_vec(),
        ]
        .concat();
        for text in [
            b"no: ringlet-control: exit 0x0\n".to_vec(),
            b"ringlet-control: exit 0\n".to_vec(),
            b"ringlet-control: exit 0xfffffffff\n".to_vec(),
            b"\xffringlet-control: exit 0x0\n".to_vec(),
            long,
        ] {
            let (log, outcome, _) = listen(&text);
            assert_eq!((log.len() >= text.len(), outcome), (true, None));
        }
    }
}
