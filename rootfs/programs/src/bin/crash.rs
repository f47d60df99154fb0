//! `crash HOW`: ends by a signal that the processor's exception HOW leads to.

use std::arch::asm;
use std::process::ExitCode;

const USAGE: &str = "Usage: crash read|write|fetch|noncanonical|opcode|divide|breakpoint";

fn main() -> ExitCode {
    let how = std::env::args().nth(1).unwrap_or_default();
    // SAFETY: none of this is memory that anything else uses; what follows each instruction is
    // never reached, for the kernel ends the process with SIGSEGV, SIGILL, SIGFPE or SIGTRAP.
    unsafe {
        match how.as_str() {
            "read" => asm!("mov rax, [rax]", inout("rax") 8_u64 => _),
            "write" => asm!("mov byte ptr [rip], 0", options(nostack)),
            "fetch" => asm!("jmp rax", in("rax") 8_u64),
            "noncanonical" => asm!("mov rax, [rax]", inout("rax") 1_u64 << 63 => _),
            "opcode" => asm!("ud2"),
            "divide" => asm!("div ecx", inout("eax") 1 => _, inout("edx") 0 => _, in("ecx") 0),
            "breakpoint" => asm!("int3"),
            _ => eprintln!("{USAGE}"),
        }
    }
    ExitCode::from(2)
}
