//! The time of day where the host has no kvmclock: the real-time clock of a PC (Motorola
//! MC146818), which counts UTC here.

use super::privileged::{read_port, write_port};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const STATUS_A: u8 = 10;
const STATUS_B: u8 = 11;
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const IS_BINARY: u8 = 1 << 2;
const IS_24_HOURS: u8 = 1 << 1;
const AFTERNOON: u8 = 1 << 7;
/// Reads before a clock that is never stable is taken for missing.
const ATTEMPTS: u32 = 100_000;

fn read(register: u8) -> u8 {
    // SAFETY: reading these registers has no side effect.
    unsafe {
        write_port(INDEX, &[register]);
        read_port(DATA)
    }
}

/// Seconds since 1970-01-01 00:00 UTC; `None` if there is no clock.
pub(super) fn seconds() -> Option<u64> {
    let registers = || [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR].map(read);
    let mut last = None;
    for _ in 0..ATTEMPTS {
        if read(STATUS_A) & UPDATE_IN_PROGRESS != 0 {
            continue;
        }
        let now = registers();
        if last == Some(now) {
            return decode(now, read(STATUS_B));
        }
        last = Some(now);
    }
    None
}

fn decode(registers: [u8; 6], status: u8) -> Option<u64> {
    let number = |value: u8| {
        u64::from(if status & IS_BINARY != 0 {
            value
        } else {
            (value >> 4) * 10 + (value & 15)
        })
    };
    let [second, minute, hour, day, month, year] = registers;
    let is_afternoon = status & IS_24_HOURS == 0 && hour & AFTERNOON != 0;
    let hour = match (status & IS_24_HOURS != 0, number(hour & !AFTERNOON)) {
        (true, hour) => hour,
        (false, hour) => hour % 12 + if is_afternoon { 12 } else { 0 },
    };
    let (day, month, year) = (number(day), number(month), 2000 + number(year));
    if !(1..=31).contains(&day) || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_since_epoch(year, month, day);
    Some(((days * 24 + hour) * 60 + number(minute)) * 60 + number(second))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar after it.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    // Years that start in March end with the leap day.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let before_march_1970 = 719_468;
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - before_march_1970
}
