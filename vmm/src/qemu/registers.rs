//! The processors' states, from what `info registers -a` of QEMU's monitor prints.

use std::collections::HashMap;

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, kvm_dtable, kvm_regs,
    kvm_segment, kvm_sregs,
};

use crate::debug::report::State;

/// Bits of a descriptor's upper half: the privilege level from here on, and "64-bit code".
const DPL_SHIFT: u32 = 13;
const LONG: u32 = 1 << 21;

/// The states of all processors in `text`; what is missing there is zero.
pub(super) fn parse(text: &str) -> Vec<State> {
    let processors = text.split("CPU#").skip(1);
    processors
        .filter_map(|part| {
            let (index, rest) = part.split_once('\n')?;
            Some(state(index.trim().parse().ok()?, &Registers::read(rest)))
        })
        .collect()
}

/// Words after `NAME=`, by name.
struct Registers<'a>(HashMap<&'a str, Vec<&'a str>>);

impl<'a> Registers<'a> {
    fn read(text: &'a str) -> Self {
        let mut registers: HashMap<_, Vec<_>> = HashMap::new();
        let mut last = "";
        for word in text.split_whitespace() {
            // Short names are padded: `R8 =0`. Then the sign starts a word of its own.
            match word.split_once('=') {
                Some(("", value)) => registers.entry(last).or_default().push(value),
                Some((name, value)) => {
                    let values = registers.entry(name).or_default();
                    values.clear();
                    values.push(value);
                    last = name;
                }
                // A value that follows others, or a name.
                None => match registers.get_mut(last) {
                    Some(values) if u64::from_str_radix(word, 16).is_ok() => values.push(word),
                    _ => last = word,
                },
            }
        }
        Self(registers)
    }

    /// The word at `place` behind the first of `names` that there is.
    fn word(&self, names: &[&str], place: usize) -> u64 {
        let found = names.iter().find_map(|name| self.0.get(name));
        let words = found.into_iter().flatten().filter(|word| !word.is_empty());
        words
            .skip(place)
            .find_map(|word| u64::from_str_radix(word, 16).ok())
            .unwrap_or(0)
    }

    fn segment(&self, name: &str) -> kvm_segment {
        let flags = self.word(&[name], 3) as u32;
        kvm_segment {
            selector: self.word(&[name], 0) as u16,
            base: self.word(&[name], 1),
            limit: self.word(&[name], 2) as u32,
            dpl: (flags >> DPL_SHIFT & 3) as u8,
            l: u8::from(flags & LONG != 0),
            ..Default::default()
        }
    }

    fn table(&self, name: &str) -> kvm_dtable {
        kvm_dtable {
            base: self.word(&[name], 0),
            limit: self.word(&[name], 1) as u16,
            ..Default::default()
        }
    }
}

fn state(index: u32, registers: &Registers<'_>) -> State {
    let general = |long: &str, short: &str| registers.word(&[long, short], 0);
    let word = |name: &str| registers.word(&[name], 0);
    let regs = kvm_regs {
        rax: general("RAX", "EAX"),
        rbx: general("RBX", "EBX"),
        rcx: general("RCX", "ECX"),
        rdx: general("RDX", "EDX"),
        rsi: general("RSI", "ESI"),
        rdi: general("RDI", "EDI"),
        rsp: general("RSP", "ESP"),
        rbp: general("RBP", "EBP"),
        r8: word("R8"),
        r9: word("R9"),
        r10: word("R10"),
        r11: word("R11"),
        r12: word("R12"),
        r13: word("R13"),
        r14: word("R14"),
        r15: word("R15"),
        rip: general("RIP", "EIP"),
        rflags: general("RFL", "EFL"),
    };
    let sregs = kvm_sregs {
        cs: registers.segment("CS"),
        ss: registers.segment("SS"),
        ds: registers.segment("DS"),
        es: registers.segment("ES"),
        fs: registers.segment("FS"),
        gs: registers.segment("GS"),
        gdt: registers.table("GDT"),
        idt: registers.table("IDT"),
        cr0: word("CR0"),
        cr2: word("CR2"),
        cr3: word("CR3"),
        cr4: word("CR4"),
        efer: word("EFER"),
        ..Default::default()
    };
    let activity = match (word("HLT"), sregs.cr0 & 1) {
        (0, _) => KVM_MP_STATE_RUNNABLE,
        // It waits for the start-up interrupt: nobody halts in real mode.
        (_, 0) => KVM_MP_STATE_UNINITIALIZED,
        _ => KVM_MP_STATE_HALTED,
    };
    State {
        index,
        regs,
        sregs,
        activity,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\r\nCPU#0\r\n\
RAX=0000000000000001 RBX=0000000000000002 RCX=0000000000000003 RDX=0000000000000004\r\n\
RSI=0000000000000005 RDI=0000000000000006 RBP=ffff888000001230 RSP=ffff888000001200\r\n\
R8 =0000000000000008 R9 =0000000000000009 R10=000000000000000a R11=000000000000000b\r\n\
R12=000000000000000c R13=000000000000000d R14=000000000000000e R15=000000000000000f\r\n\
RIP=ffffffff80212345 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
ES =0018 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]\r\n\
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\r\n\
SS =002b 0000000000000000 ffffffff 00cff300 DPL=3 DS   [-WA]\r\n\
FS =0000 00007f0000001000 0000ffff 00009300\r\n\
GS =0000 ffff888000400000 0000ffff 00009300\r\n\
GDT=     ffffffff80300000 00000047\r\n\
IDT=     ffffffff80301000 00000fff\r\n\
CR0=80010033 CR2=0000000000000123 CR3=00000000002f4000 CR4=00050620\r\n\
EFER=0000000000000d01\r\n\
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80\r\n\
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000\r\n\
\r\nCPU#1\r\n\
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1\r\n\
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
CS =f000 ffff0000 0000ffff 00009b00\r\n\
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000\r\n";

    #[test]
    fn states_are_read() {
        let states = parse(TEXT);
        let [first, second] = &states[..] else {
            panic!("{states:?}");
        };
        let (r, s) = (&first.regs, &first.sregs);
        let general = [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
            r.r14, r.r15,
        ];
        assert_eq!(general, [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!((r.rip, r.rflags), (0xffff_ffff_8021_2345, 0x246));
        assert_eq!(
            (r.rbp, r.rsp),
            (0xffff_8880_0000_1230, 0xffff_8880_0000_1200)
        );
        assert_eq!((s.cs.selector, s.cs.l, s.cs.dpl), (0x10, 1, 0));
        assert_eq!((s.ss.selector, s.ss.dpl), (0x2b, 3));
        assert_eq!(
            (s.fs.base, s.gs.base),
            (0x7f00_0000_1000, 0xffff_8880_0040_0000)
        );
        assert_eq!((s.gdt.base, s.gdt.limit), (0xffff_ffff_8030_0000, 0x47));
        assert_eq!((s.cr0, s.cr3, s.efer), (0x8001_0033, 0x2f_4000, 0xd01));
        assert_eq!((first.index, first.activity), (0, KVM_MP_STATE_HALTED));
        assert_eq!((second.index, second.regs.rip), (1, 0xfff0));
        assert!(!second.is_started());
    }

    #[test]
    fn other_text_is_no_state() {
        assert!(parse("").is_empty());
        assert!(parse("unknown command: 'info registers -a'").is_empty());
        assert_eq!(parse("CPU#0\nRIP=zz HLT=0\n")[0].regs.rip, 0);
    }
}
