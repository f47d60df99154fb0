//! The serial port: what the guest kernel logs, copied to standard error line by line.

use std::io::{self, Write};
use std::sync::Arc;

use ringlet_abi::SERIAL_PORT;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::messages;
use crate::outcome::Ending;

/// I/O ports of a 16550.
const PORTS: u16 = 8;

/// The guest polls; nobody waits for this interrupt.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A longer line is written in parts.
const LINE_MAX: usize = 1024;

/// Collects a line: a guest's `rep outs` may well exit for every byte.
#[derive(Default)]
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A 16550 at [`SERIAL_PORT`].
pub struct SerialPort {
    registers: Serial<NoInterrupt, NoEvents, Line>,
    /// Once the VM is to end nobody waits for the reader of the log.
    ending: Arc<Ending>,
}

impl SerialPort {
    /// The port of a VM that ends when `ending` says so.
    pub fn new(ending: Arc<Ending>) -> Self {
        Self {
            registers: Serial::new(NoInterrupt, Line::default()),
            ending,
        }
    }

    /// A register of the port, if `port` is one.
    fn register(port: u16) -> Option<u8> {
        let offset = port.checked_sub(SERIAL_PORT)?;
        (offset < PORTS).then_some(offset as u8)
    }

    /// An `in`; all ones where nothing is.
    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        for byte in data {
            *byte = Self::register(port).map_or(0xff, |register| self.registers.read(register));
        }
    }

    /// An `out`, or as many as a `rep outs` makes in one exit.
    pub fn write(&mut self, port: u16, data: &[u8]) {
        let Some(register) = Self::register(port) else {
            return;
        };
        for byte in data {
            if let Err(error) = self.registers.write(register, *byte) {
                log::debug!("serial port: {error}");
            }
        }
        let line = &self.registers.writer().0;
        if line.ends_with(b"\n") || line.len() >= LINE_MAX {
            self.flush();
        }
    }

    /// Writes out what there is of a line.
    pub fn flush(&mut self) {
        let line = std::mem::take(&mut self.registers.writer_mut().0);
        if !line.is_empty() {
            messages::write_kernel_log(&line, || self.ending.is_set());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_port_answers() {
        let mut serial = SerialPort::new(Arc::new(Ending::new().unwrap()));
        let mut data = [0];
        serial.read(SERIAL_PORT + 5, &mut data);
        assert_eq!(data[0] & 0x20, 0x20, "the transmitter is empty");
        for port in [0, SERIAL_PORT - 1, SERIAL_PORT + PORTS, u16::MAX] {
            serial.read(port, &mut data);
            assert_eq!(data, [0xff]);
            serial.write(port, b"x");
        }
    }
}
