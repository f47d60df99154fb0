//! The line discipline: what becomes of the characters that a terminal sends, and of those that
//! are sent to it (`termios(3)`).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// Bytes of a line that is being edited; more are refused with a bell.
const LINE_MAX: usize = 4095;
/// Bytes that wait to be read; input beyond is dropped.
const INPUT_MAX: usize = 1 << 16;
const BELL: u8 = 7;

/// What a control character asks for, beyond the bytes it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// SIGINT.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGTSTP.
    Suspend,
}

/// The state of a terminal's line.
pub(super) struct Line {
    termios: raw::termios2,
    /// The line that is being edited, in canonical mode.
    edited: Vec<u8>,
    /// Lines that are complete, in canonical mode; an empty one is an end of file.
    lines: VecDeque<Vec<u8>>,
    /// Bytes to be read, in other modes.
    bytes: VecDeque<u8>,
    /// The next character is taken literally.
    is_literal: bool,
    /// Output was stopped by the STOP character.
    pub(super) is_stopped: bool,
    column: usize,
}

/// The settings that a terminal has on Linux when it is opened.
fn initial_settings() -> raw::termios2 {
    let mut c_cc = [0; raw::NCCS as usize];
    for (place, value) in [
        (raw::VINTR, 3),
        (raw::VQUIT, 28),
        (raw::VERASE, 127),
        (raw::VKILL, 21),
        (raw::VEOF, 4),
        (raw::VMIN, 1),
        (raw::VSTART, 17),
        (raw::VSTOP, 19),
        (raw::VSUSP, 26),
        (raw::VREPRINT, 18),
        (raw::VDISCARD, 15),
        (raw::VWERASE, 23),
        (raw::VLNEXT, 22),
    ] {
        c_cc[place as usize] = value;
    }
    raw::termios2 {
        c_iflag: raw::ICRNL | raw::IXON | raw::IUTF8,
        c_oflag: raw::OPOST | raw::ONLCR,
        c_cflag: raw::B38400 | raw::CS8 | raw::CREAD | raw::HUPCL,
        c_lflag: raw::ISIG
            | raw::ICANON
            | raw::ECHO
            | raw::ECHOE
            | raw::ECHOK
            | raw::ECHOCTL
            | raw::ECHOKE
            | raw::IEXTEN,
        c_line: 0,
        c_cc,
        c_ispeed: 38400,
        c_ospeed: 38400,
    }
}

impl Line {
    pub(super) fn new() -> Self {
        Self {
            termios: initial_settings(),
            edited: Vec::new(),
            lines: VecDeque::new(),
            bytes: VecDeque::new(),
            is_literal: false,
            is_stopped: false,
            column: 0,
        }
    }

    pub(super) fn settings(&self) -> raw::termios2 {
        self.termios
    }

    /// Changes the settings. What was typed stays readable.
    pub(super) fn set_settings(&mut self, settings: raw::termios2) {
        let was_canonical = self.is_canonical();
        self.termios = settings;
        if self.termios.c_iflag & raw::IXON == 0 {
            self.is_stopped = false;
        }
        match (was_canonical, self.is_canonical()) {
            (true, false) => {
                self.bytes.extend(self.lines.drain(..).flatten());
                self.bytes.extend(self.edited.drain(..));
            }
            (false, true) if !self.bytes.is_empty() => {
                self.lines.push_back(self.bytes.drain(..).collect());
            }
            _ => {}
        }
    }

    /// Forgets what was typed and not read.
    pub(super) fn flush_input(&mut self) {
        self.edited.clear();
        self.lines.clear();
        self.bytes.clear();
    }

    /// Whether processes in the background may not write.
    pub(super) fn stops_output(&self) -> bool {
        self.local(raw::TOSTOP)
    }

    pub(super) fn is_canonical(&self) -> bool {
        self.local(raw::ICANON)
    }

    /// Bytes that a read needs before it is done, and tenths of a second that it waits for them.
    pub(super) fn minimum_and_time(&self) -> (usize, u64) {
        let at = |place: u32| self.termios.c_cc[place as usize];
        (at(raw::VMIN).into(), at(raw::VTIME).into())
    }

    /// Bytes that one read could get.
    pub(super) fn available(&self) -> usize {
        match self.is_canonical() {
            true => self.lines.front().map_or(0, Vec::len),
            false => self.bytes.len(),
        }
    }

    /// Whether a read in canonical mode would not wait: there is a line or the end of the file.
    pub(super) fn has_line(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Takes up to `limit` bytes: of one line only, in canonical mode.
    pub(super) fn take(&mut self, limit: usize) -> Vec<u8> {
        if !self.is_canonical() {
            let count = limit.min(self.bytes.len());
            return self.bytes.drain(..count).collect();
        }
        let Some(line) = self.lines.front_mut() else {
            return Vec::new();
        };
        if line.len() <= limit {
            return self.lines.pop_front().unwrap_or_default();
        }
        line.drain(..limit).collect()
    }

    fn input_flag(&self, flag: u32) -> bool {
        self.termios.c_iflag & flag != 0
    }

    fn output_flag(&self, flag: u32) -> bool {
        self.termios.c_oflag & flag != 0
    }

    fn local(&self, flag: u32) -> bool {
        self.termios.c_lflag & flag != 0
    }

    /// Whether `byte` is the control character at `place`; 0 disables one.
    fn is_control(&self, byte: u8, place: u32) -> bool {
        byte != 0 && self.termios.c_cc[place as usize] == byte
    }

    /// Takes a character that the terminal sent. What is echoed goes to `echo`.
    pub(super) fn receive(&mut self, byte: u8, echo: &mut Vec<u8>) -> Option<Control> {
        let mut byte = byte;
        if self.input_flag(raw::ISTRIP) {
            byte &= 0x7f;
        }
        if core::mem::take(&mut self.is_literal) {
            self.insert(byte, echo);
            return None;
        }
        if self.input_flag(raw::IXON) {
            if self.is_control(byte, raw::VSTART) {
                self.is_stopped = false;
                return None;
            }
            if self.is_control(byte, raw::VSTOP) {
                self.is_stopped = true;
                return None;
            }
            if self.input_flag(raw::IXANY) {
                self.is_stopped = false;
            }
        }
        if self.local(raw::ISIG) {
            for (place, control) in [
                (raw::VINTR, Control::Interrupt),
                (raw::VQUIT, Control::Quit),
                (raw::VSUSP, Control::Suspend),
            ] {
                if self.is_control(byte, place) {
                    if !self.local(raw::NOFLSH) {
                        self.flush_input();
                    }
                    self.is_stopped = false;
                    self.echo(byte, echo);
                    return Some(control);
                }
            }
        }
        match byte {
            b'\r' if self.input_flag(raw::IGNCR) => return None,
            b'\r' if self.input_flag(raw::ICRNL) => byte = b'\n',
            b'\n' if self.input_flag(raw::INLCR) => byte = b'\r',
            _ => {}
        }
        match self.is_canonical() {
            true => self.edit(byte, echo),
            false => self.insert(byte, echo),
        }
        None
    }

    /// Takes a character in canonical mode.
    fn edit(&mut self, byte: u8, echo: &mut Vec<u8>) {
        let is_extended = self.local(raw::IEXTEN);
        if self.is_control(byte, raw::VERASE) {
            self.erase(echo);
        } else if self.is_control(byte, raw::VKILL) {
            self.kill(echo);
        } else if is_extended && self.is_control(byte, raw::VWERASE) {
            let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
            while self.edited.last().is_some_and(is_space) {
                self.erase(echo);
            }
            while self.edited.last().is_some_and(|byte| !is_space(byte)) {
                self.erase(echo);
            }
        } else if is_extended && self.is_control(byte, raw::VLNEXT) {
            self.is_literal = true;
            if self.local(raw::ECHO) && self.local(raw::ECHOCTL) {
                self.put(b"^\x08", echo);
            }
        } else if is_extended && self.is_control(byte, raw::VREPRINT) {
            self.echo(byte, echo);
            self.put(b"\n", echo);
            for byte in core::mem::take(&mut self.edited) {
                self.edited.push(byte);
                self.echo(byte, echo);
            }
        } else if self.is_control(byte, raw::VEOF) {
            self.finish_line();
        } else if byte == b'\n'
            || self.is_control(byte, raw::VEOL)
            || is_extended && self.is_control(byte, raw::VEOL2)
        {
            if byte == b'\n' {
                if self.local(raw::ECHO) || self.local(raw::ECHONL) {
                    self.put(b"\n", echo);
                }
            } else {
                self.echo(byte, echo);
            }
            self.edited.push(byte);
            self.finish_line();
        } else {
            self.insert(byte, echo);
        }
    }

    fn finish_line(&mut self) {
        let line = core::mem::take(&mut self.edited);
        let waiting: usize = self.lines.iter().map(|line| line.len() + 1).sum();
        if waiting < INPUT_MAX {
            self.lines.push_back(line);
        }
    }

    /// Takes a character for what it is.
    fn insert(&mut self, byte: u8, echo: &mut Vec<u8>) {
        let is_full = match self.is_canonical() {
            true => self.edited.len() >= LINE_MAX,
            false => self.bytes.len() >= INPUT_MAX,
        };
        if is_full {
            if self.input_flag(raw::IMAXBEL) {
                echo.push(BELL);
            }
            return;
        }
        match self.is_canonical() {
            true => self.edited.push(byte),
            false => self.bytes.push_back(byte),
        }
        self.echo(byte, echo);
    }

    /// Removes the last character of the line, all bytes of it.
    fn erase(&mut self, echo: &mut Vec<u8>) {
        let Some(mut byte) = self.edited.pop() else {
            return;
        };
        if self.input_flag(raw::IUTF8) {
            while byte & 0xc0 == 0x80
                && let Some(before) = self.edited.pop()
            {
                byte = before;
            }
        }
        if !self.local(raw::ECHO) {
            return;
        }
        if !self.local(raw::ECHOE) {
            let erase = self.termios.c_cc[raw::VERASE as usize];
            self.echo(erase, echo);
            return;
        }
        let width = match byte {
            b'\t' => self.tab_width(),
            _ if is_shown_as_two(byte) && self.local(raw::ECHOCTL) => 2,
            _ if byte < b' ' || byte == 127 => 0,
            _ => 1,
        };
        for _ in 0..width {
            match byte {
                b'\t' => self.put(b"\x08", echo),
                _ => self.put(b"\x08 \x08", echo),
            }
        }
    }

    /// Columns that the tab, just taken off the end of the line, has taken.
    fn tab_width(&self) -> usize {
        let wide = |byte: &u8| match byte {
            byte if is_shown_as_two(*byte) => 2,
            byte => usize::from(byte & 0xc0 != 0x80),
        };
        let since_tab = self.edited.iter().rev().take_while(|byte| **byte != b'\t');
        8 - since_tab.map(wide).sum::<usize>() % 8
    }

    /// Removes the line.
    fn kill(&mut self, echo: &mut Vec<u8>) {
        if self.local(raw::ECHO) && self.local(raw::ECHOK) && !self.local(raw::ECHOKE) {
            self.edited.clear();
            let kill = self.termios.c_cc[raw::VKILL as usize];
            self.echo(kill, echo);
            self.put(b"\n", echo);
            return;
        }
        while !self.edited.is_empty() {
            self.erase(echo);
        }
    }

    fn echo(&mut self, byte: u8, echo: &mut Vec<u8>) {
        if !self.local(raw::ECHO) {
            return;
        }
        match self.local(raw::ECHOCTL) && is_shown_as_two(byte) {
            true => self.put(&[b'^', byte ^ 0x40], echo),
            false => self.put(&[byte], echo),
        }
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.send(*byte, out);
        }
    }

    /// Appends to `out` what the terminal is sent for `byte`.
    pub(super) fn send(&mut self, byte: u8, out: &mut Vec<u8>) {
        if !self.output_flag(raw::OPOST) {
            out.push(byte);
            return;
        }
        match byte {
            b'\n' => {
                if self.output_flag(raw::ONLCR) {
                    out.push(b'\r');
                }
                if self.output_flag(raw::ONLCR) || self.output_flag(raw::ONLRET) {
                    self.column = 0;
                }
                out.push(b'\n');
            }
            b'\r' if self.output_flag(raw::ONOCR) && self.column == 0 => {}
            b'\r' if self.output_flag(raw::OCRNL) => self.send(b'\n', out),
            b'\r' => {
                self.column = 0;
                out.push(byte);
            }
            b'\t' => {
                let width = 8 - self.column % 8;
                self.column += width;
                match self.termios.c_oflag & raw::TABDLY == raw::XTABS {
                    true => out.resize(out.len() + width, b' '),
                    false => out.push(byte),
                }
            }
            8 => {
                self.column = self.column.saturating_sub(1);
                out.push(byte);
            }
            byte => {
                let is_start = byte & 0xc0 != 0x80;
                self.column += usize::from(byte >= b' ' && byte != 127 && is_start);
                out.push(byte);
            }
        }
    }
}

/// Whether `ECHOCTL` shows it as a caret and a letter.
fn is_shown_as_two(byte: u8) -> bool {
    (byte < b' ' && !matches!(byte, b'\t' | b'\n')) || byte == 127
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(line: &mut Line, keys: &[u8]) -> Vec<u8> {
        let mut echo = Vec::new();
        for key in keys {
            assert_eq!(line.receive(*key, &mut echo), None);
        }
        echo
    }

    fn with(line: &mut Line, change: impl FnOnce(&mut raw::termios2)) {
        let mut settings = line.settings();
        change(&mut settings);
        line.set_settings(settings);
    }

    #[test]
    fn a_line_is_read_when_it_is_complete() {
        let mut line = Line::new();
        assert_eq!(type_in(&mut line, b"ab"), b"ab");
        assert!(!line.has_line());
        assert_eq!(type_in(&mut line, b"\rnext"), b"\r\nnext");
        assert_eq!(line.available(), 3);
        assert_eq!(line.take(2), b"ab");
        assert_eq!(line.take(9), b"\n");
        assert!(!line.has_line());
    }

    #[test]
    fn a_line_is_edited() {
        let mut line = Line::new();
        assert_eq!(type_in(&mut line, b"ax\x7fb"), b"ax\x08 \x08b");
        assert_eq!(
            type_in(&mut line, b" \x17"),
            b" \x08 \x08\x08 \x08\x08 \x08"
        );
        assert_eq!(
            type_in(&mut line, b"one two\x17"),
            b"one two\x08 \x08\x08 \x08\x08 \x08"
        );
        assert_eq!(type_in(&mut line, b"\x15"), b"\x08 \x08".repeat(4));
        assert_eq!(
            type_in(&mut line, "é\x7f".as_bytes()),
            "é\x08 \x08".as_bytes()
        );
        assert_eq!(type_in(&mut line, b"\x16\x03"), b"^\x08^C");
        assert_eq!(type_in(&mut line, b"\x7f"), b"\x08 \x08\x08 \x08");
        assert_eq!(
            type_in(&mut line, b"a\t\x7f\x7f"),
            b"a\t\x08\x08\x08\x08\x08\x08\x08\x08 \x08"
        );
        type_in(&mut line, b"ok\n");
        assert_eq!(line.take(99), b"ok\n");
    }

    #[test]
    fn end_of_file_ends_a_line_or_the_input() {
        let mut line = Line::new();
        type_in(&mut line, b"ab\x04\x04");
        assert_eq!(line.take(99), b"ab");
        assert!(line.has_line());
        assert_eq!(line.take(99), b"");
        assert!(!line.has_line());
    }

    #[test]
    fn control_characters_interrupt_and_flush() {
        let mut line = Line::new();
        let mut echo = type_in(&mut line, b"gone\nabc");
        echo.clear();
        assert_eq!(line.receive(3, &mut echo), Some(Control::Interrupt));
        assert_eq!(echo, b"^C");
        assert!(!line.has_line());
        with(&mut line, |settings| settings.c_lflag &= !raw::ISIG);
        assert_eq!(type_in(&mut line, b"\x03"), b"^C");
    }

    #[test]
    fn raw_mode_passes_everything_on() {
        let mut line = Line::new();
        type_in(&mut line, b"typed before");
        with(&mut line, |settings| {
            settings.c_lflag &= !(raw::ICANON | raw::ECHO | raw::ISIG | raw::IEXTEN);
            settings.c_iflag = 0;
            settings.c_oflag = 0;
        });
        assert_eq!(line.take(99), b"typed before");
        assert_eq!(type_in(&mut line, b"\r\x03\x7f\x04\x13"), b"");
        assert_eq!(line.take(99), b"\r\x03\x7f\x04\x13");
        let mut out = Vec::new();
        line.put(b"a\n", &mut out);
        assert_eq!(out, b"a\n");
    }

    #[test]
    fn output_is_processed() {
        let mut line = Line::new();
        let mut out = Vec::new();
        line.put(b"a\n\tb", &mut out);
        assert_eq!(out, b"a\r\n\tb");
        with(&mut line, |settings| settings.c_oflag |= raw::XTABS);
        out.clear();
        line.put(b"\ra\tb", &mut out);
        assert_eq!(out, b"\ra       b");
    }

    #[test]
    fn output_stops_and_starts() {
        let mut line = Line::new();
        type_in(&mut line, b"\x13");
        assert!(line.is_stopped);
        type_in(&mut line, b"\x11");
        assert!(!line.is_stopped);
    }
}
