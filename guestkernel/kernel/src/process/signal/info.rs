//! What is told of a signal to whom it reaches (`siginfo_t`).

use super::set::Signal;
use crate::error::{Errno, Result};

/// Bytes of `siginfo_t`.
pub const INFO_SIZE: usize = 128;
/// Bytes of it that have a meaning.
const USED: usize = 48;
/// The lowest code of a layout that is known (`SI_DETHREAD`), and one more.
const LOWEST_KNOWN: i32 = -7;
const SI_ASYNCNL: i32 = -60;

/// Sent by `kill(2)`.
pub const SI_USER: i32 = 0;
/// Sent by `tgkill(2)`.
pub const SI_TKILL: i32 = -6;
/// Sent by a timer, and by the kernel.
const SI_TIMER: i32 = -2;
const SI_KERNEL: i32 = 0x80;

/// What is known of a signal. Of fields of 32 bits two share a word, the first the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInfo {
    /// Which it is.
    pub signal: Signal,
    /// `si_errno`, which nobody uses.
    pub errno: i32,
    /// Who sent it or why (`si_code`).
    pub code: i32,
    /// What depends on that.
    pub fields: [u64; 4],
}

/// Who sends a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// The number of its process.
    pub pid: u32,
    /// Its real user.
    pub user: u32,
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

impl SignalInfo {
    /// One that the kernel sends.
    pub fn kernel(signal: Signal) -> Self {
        Self::new(signal, SI_KERNEL, [0; 4])
    }

    /// One of a process that the kernel sends in its name.
    pub(in crate::process) fn user(signal: Signal, sender: Sender) -> Self {
        Self::sent(signal, SI_USER, sender)
    }

    fn new(signal: Signal, code: i32, fields: [u64; 4]) -> Self {
        Self {
            signal,
            errno: 0,
            code,
            fields,
        }
    }

    /// One that a process sends; the code says by which call.
    pub fn sent(signal: Signal, code: i32, sender: Sender) -> Self {
        Self::new(signal, code, [pair(sender.pid, sender.user), 0, 0, 0])
    }

    /// One that tells of a child: why (`CLD_*`), which, its status, and the ticks of CPU time that it
    /// has used.
    pub(in crate::process) fn child(
        signal: Signal,
        code: i32,
        child: Sender,
        status: i32,
        ticks: u64,
    ) -> Self {
        let status = pair(status as u32, 0);
        Self::new(
            signal,
            code,
            [pair(child.pid, child.user), status, ticks, 0],
        )
    }

    /// One of a thread that did something at `address` that cannot be.
    pub fn fault(signal: Signal, code: i32, address: u64) -> Self {
        Self::new(signal, code, [address, 0, 0, 0])
    }

    /// One of a timer, with the number of the timer and a value that the program gave it.
    pub fn timer(signal: Signal, timer: i32, value: u64) -> Self {
        Self::new(signal, SI_TIMER, [pair(timer as u32, 0), value, 0, 0])
    }

    /// Sets how often a timer has gone off besides.
    pub(in crate::process) fn set_overrun(&mut self, overrun: u32) {
        self.fields[0] = pair(self.fields[0] as u32, overrun);
    }

    /// As programs have it.
    pub fn bytes(&self) -> [u8; INFO_SIZE] {
        let mut bytes = [0; INFO_SIZE];
        let number = i32::from(self.signal.number());
        for (at, value) in [(0, number), (4, self.errno), (8, self.code)] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        for (place, field) in bytes[16..].chunks_exact_mut(8).zip(self.fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// What a program says of a signal that it sends.
    ///
    /// # Errors
    ///
    /// `E2BIG` if there is more than what is known to belong to its code.
    pub fn from_bytes(signal: Signal, bytes: &[u8; INFO_SIZE]) -> Result<Self> {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            i32::from_le_bytes(word)
        };
        let long = |at: usize| pair(word(at) as u32, word(at + 4) as u32);
        let code = word(8);
        let is_known = code >= LOWEST_KNOWN || code == SI_ASYNCNL;
        if !is_known && bytes[USED..].iter().any(|byte| *byte != 0) {
            return Err(Errno::E2BIG);
        }
        Ok(Self {
            signal,
            errno: word(4),
            code,
            fields: [long(16), long(24), long(32), long(40)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_comes_back_as_it_was() {
        let mut bytes = [0; INFO_SIZE];
        bytes[4] = 7;
        bytes[8..12].copy_from_slice(&SI_TIMER.to_le_bytes());
        bytes[16..48].copy_from_slice(&[9; 32]);
        let info = SignalInfo::from_bytes(Signal::SIGUSR1, &bytes).unwrap();
        bytes[0] = 10;
        assert_eq!(info.bytes(), bytes);
        bytes[60] = 1;
        assert!(SignalInfo::from_bytes(Signal::SIGUSR1, &bytes).is_ok());
        bytes[8..12].copy_from_slice(&(-8_i32).to_le_bytes());
        let result = SignalInfo::from_bytes(Signal::SIGUSR1, &bytes);
        assert_eq!(result, Err(Errno::E2BIG));
    }

    #[test]
    fn fields_are_where_programs_look_for_them() {
        let sender = Sender { pid: 5, user: 6 };
        let bytes = SignalInfo::sent(Signal::SIGTERM, SI_USER, sender).bytes();
        assert_eq!((bytes[0], bytes[16], bytes[20]), (15, 5, 6));
        let mut timer = SignalInfo::timer(Signal::SIGALRM, 3, 8);
        timer.set_overrun(4);
        let bytes = timer.bytes();
        assert_eq!((bytes[8], bytes[16], bytes[20], bytes[24]), (0xfe, 3, 4, 8));
    }
}
