//! What a program finds on its stack: arguments, environment, auxiliary vector (System V ABI,
//! section 3.4.1; `getauxval(3)`).

use super::limits::STACK;
use super::rseq;
use super::signal::minimum_stack;
use crate::error::{Errno, Result};
use crate::mm::{Access, AddressSpace};
use alloc::vec::Vec;
use core::ops::Range;
use linux_raw_sys::auxvec as raw;

/// Bytes that one argument or environment string may have, its NUL included (`MAX_ARG_STRLEN`).
const STRING_MAX: usize = 128 << 10;
/// Bytes that all strings and pointers to them may have: at least (`ARG_MAX`), and at most.
const STRINGS_LEAST: u64 = 128 << 10;
const STRINGS_MOST: u64 = STACK / 4 * 3;
/// Pages filled in below the first stack pointer, so that start-up code does not fault on them.
const FILL: u64 = 64 << 10;

/// What the program is told.
pub(super) struct Start<'a> {
    pub(super) arguments: &'a [Vec<u8>],
    pub(super) environment: &'a [Vec<u8>],
    /// The file that was executed.
    pub(super) file_name: &'a [u8],
    /// Address and number of the program headers.
    pub(super) headers: (u64, u64),
    /// Where the interpreter is, or 0.
    pub(super) base: u64,
    /// The program's own entry.
    pub(super) entry: u64,
    /// Real and effective user, real and effective group.
    pub(super) ids: [u32; 4],
    pub(super) random: [u8; 16],
}

/// What was written.
pub(super) struct Built {
    /// The stack pointer.
    pub(super) pointer: u64,
    /// Where the arguments are, and the environment.
    pub(super) arguments: Range<u64>,
    pub(super) environment: Range<u64>,
}

/// Checks that what a program is given is not more than Linux takes where stacks may grow to `limit`
/// bytes.
///
/// # Errors
///
/// `E2BIG`.
pub(super) fn check_size(
    arguments: &[Vec<u8>],
    environment: &[Vec<u8>],
    file_name: &[u8],
    limit: u64,
) -> Result<()> {
    let all = arguments.iter().chain(environment);
    let is_long = all.clone().any(|string| string.len() >= STRING_MAX);
    let pointers = arguments.len().max(1) + environment.len();
    let size = all.fold(file_name.len() + 1 + 8 * pointers, |size, string| {
        size + string.len() + 1
    });
    let most = (limit / 4).clamp(STRINGS_LEAST, STRINGS_MOST);
    match is_long || size as u64 > most {
        true => Err(Errno::E2BIG),
        false => Ok(()),
    }
}

/// The strings of the stack, to be put at an address.
struct Strings {
    bytes: Vec<u8>,
    base: u64,
}

impl Strings {
    fn push(&mut self, string: &[u8]) -> u64 {
        let address = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        address
    }
}

/// Writes the start of the stack below `top`, which is a multiple of 16. What there is to write has
/// been [checked](check_size).
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn build(space: &AddressSpace, top: u64, start: &Start<'_>) -> Result<Built> {
    let strings = start.arguments.iter().chain(start.environment);
    let size = strings.fold(start.file_name.len() + 1, |size, string| {
        size + string.len() + 1
    });
    // The strings, with a word of zeros above them, as on Linux.
    let mut strings = Strings {
        bytes: Vec::with_capacity(size),
        base: top - 8 - size as u64,
    };
    let arguments: Vec<u64> = start
        .arguments
        .iter()
        .map(|arg| strings.push(arg))
        .collect();
    let environment: Vec<u64> = start
        .environment
        .iter()
        .map(|var| strings.push(var))
        .collect();
    let file_name = strings.push(start.file_name);
    let base = strings.base;
    space.write(base, &strings.bytes)?;
    let environment_at = environment.first().copied().unwrap_or(file_name);

    let platform = b"x86_64\0";
    let platform_at = (strings.base - platform.len() as u64) & !15;
    space.write(platform_at, platform)?;
    let random_at = platform_at - start.random.len() as u64;
    space.write(random_at, &start.random)?;

    let [user, effective_user, group, effective_group] = start.ids;
    let auxiliary = [
        (raw::AT_MINSIGSTKSZ, minimum_stack()),
        (raw::AT_HWCAP, hardware_capabilities()),
        (raw::AT_PAGESZ, crate::mm::PAGE),
        (raw::AT_CLKTCK, crate::process::CLOCK_TICKS),
        (raw::AT_PHDR, start.headers.0),
        (raw::AT_PHENT, super::elf::PROGRAM_HEADER_SIZE as u64),
        (raw::AT_PHNUM, start.headers.1),
        (raw::AT_BASE, start.base),
        (raw::AT_FLAGS, 0),
        (raw::AT_ENTRY, start.entry),
        (raw::AT_UID, user.into()),
        (raw::AT_EUID, effective_user.into()),
        (raw::AT_GID, group.into()),
        (raw::AT_EGID, effective_group.into()),
        (raw::AT_SECURE, 0),
        (raw::AT_RANDOM, random_at),
        (raw::AT_HWCAP2, 0),
        (raw::AT_EXECFN, file_name),
        (raw::AT_RSEQ_FEATURE_SIZE, rseq::FEATURE_SIZE.into()),
        (raw::AT_RSEQ_ALIGN, rseq::ALIGN.into()),
        (raw::AT_PLATFORM, platform_at),
        (raw::AT_NULL, 0),
    ];
    let mut words = Vec::new();
    words.push(arguments.len() as u64);
    words.extend(arguments);
    words.push(0);
    words.extend(environment);
    words.push(0);
    words.extend(
        auxiliary
            .iter()
            .flat_map(|(tag, value)| [u64::from(*tag), *value]),
    );
    let pointer = (random_at - words.len() as u64 * 8) & !15;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    space.write(pointer, &bytes)?;
    space.populate(pointer.saturating_sub(FILL)..pointer);
    Ok(Built {
        pointer,
        arguments: base..environment_at,
        environment: environment_at..file_name,
    })
}

/// `AT_HWCAP`: the EDX of CPUID leaf 1.
fn hardware_capabilities() -> u64 {
    core::arch::x86_64::__cpuid(1).edx.into()
}

/// The access that a stack has.
pub(super) fn access(executable: bool) -> Access {
    let access = Access::READ | Access::WRITE;
    if executable {
        access | Access::EXECUTE
    } else {
        access
    }
}
