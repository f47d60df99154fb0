//! What a vCPU is doing, as text: its mode, its registers, and a backtrace with the kernel's
//! function names.

use std::fmt::Write;

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_UNINITIALIZED, kvm_regs,
    kvm_sregs,
};
use kvm_ioctls::VcpuFd;
use ringlet_devices::Memory;

use super::Image;
use super::memory::AddressSpace;
use super::port::Port;
use super::trap::Cpu;

/// A deeper stack is cut off.
const MAX_FRAMES: usize = 64;
/// The instruction RET.
const RET: u8 = 0xc3;

/// A vCPU's state at one moment.
#[derive(Clone, Debug)]
pub struct State {
    /// The vCPU's number.
    pub index: u32,
    /// General registers.
    pub regs: kvm_regs,
    /// Segment and control registers.
    pub sregs: kvm_sregs,
    /// `KVM_MP_STATE_*`.
    pub activity: u32,
}

impl State {
    /// The state of vCPU `index`, which does not run now.
    ///
    /// # Errors
    ///
    /// Those of `KVM_GET_REGS`, `KVM_GET_SREGS` and `KVM_GET_MP_STATE`.
    pub fn of(fd: &VcpuFd, index: u32) -> Result<Self, kvm_ioctls::Error> {
        Ok(Self {
            index,
            regs: fd.get_regs()?,
            sregs: fd.get_sregs()?,
            activity: fd.get_mp_state()?.mp_state,
        })
    }

    /// Whether the guest has started the vCPU.
    pub fn is_started(&self) -> bool {
        !matches!(
            self.activity,
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED
        )
    }

    /// Several lines without a newline at the end: mode, registers and backtrace.
    pub fn describe(&self, memory: &Memory, image: &Image) -> String {
        if !self.is_started() {
            return format!("vCPU {}: not started by the guest", self.index);
        }
        let activity = match self.activity {
            KVM_MP_STATE_HALTED => "halted",
            _ => "running",
        };
        let place = match image.contains(self.regs.rip) {
            true => "in the kernel",
            false if self.sregs.ss.dpl == 3 => "in the program",
            false => "outside the kernel",
        };
        let mut text = format!(
            "vCPU {}: {activity} {place}, {}\n{}",
            self.index,
            self.mode(),
            self.registers()
        );
        for (address, is_return) in self.backtrace(memory, image) {
            // A call may be the last instruction of its function.
            let within = address.wrapping_sub(u64::from(is_return));
            let name = match image.function(within) {
                Some((name, offset)) => format!(" {name}+{offset:#x}"),
                None => String::new(),
            };
            // Writing to a String does not fail.
            let _ = write!(text, "\n  {address:#018x}{name}");
        }
        text
    }

    fn mode(&self) -> String {
        let width = match (
            self.sregs.efer >> 10 & 1,
            self.sregs.cs.l,
            self.sregs.cr0 & 1,
        ) {
            (1, 1, _) => "64-bit",
            (1, ..) => "compatibility mode",
            (_, _, 1) => "protected mode",
            _ => "real mode",
        };
        format!("CPL {}, {width}", self.sregs.ss.dpl)
    }

    fn registers(&self) -> String {
        let (r, s) = (&self.regs, &self.sregs);
        let lines = [
            &[
                ("rip", r.rip),
                ("rsp", r.rsp),
                ("rflags", r.rflags),
                ("cs", s.cs.selector.into()),
                ("ss", s.ss.selector.into()),
            ][..],
            &[
                ("rax", r.rax),
                ("rbx", r.rbx),
                ("rcx", r.rcx),
                ("rdx", r.rdx),
                ("rsi", r.rsi),
                ("rdi", r.rdi),
                ("rbp", r.rbp),
            ],
            &[
                ("r8", r.r8),
                ("r9", r.r9),
                ("r10", r.r10),
                ("r11", r.r11),
                ("r12", r.r12),
                ("r13", r.r13),
                ("r14", r.r14),
                ("r15", r.r15),
            ],
            &[
                ("cr0", s.cr0),
                ("cr2", s.cr2),
                ("cr3", s.cr3),
                ("cr4", s.cr4),
                ("efer", s.efer),
                ("fs", s.fs.base),
                ("gs", s.gs.base),
                ("gdt", s.gdt.base),
                ("idt", s.idt.base),
            ],
        ];
        lines
            .map(|line| {
                line.iter()
                    .map(|(name, value)| format!("{name}={value:#x}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .join("\n")
    }

    /// The addresses of the backtrace, innermost first, each with whether it is a return address:
    /// where the vCPU is, what it interrupted, and the kernel's chain of frame pointers.
    fn backtrace(&self, memory: &Memory, image: &Image) -> Vec<(u64, bool)> {
        let space = AddressSpace::new(memory, image, &self.sregs);
        let (mut rip, mut rsp) = (self.regs.rip, self.regs.rsp);
        let mut frames = vec![(rip, false)];
        if self.sregs.ss.dpl == 0
            && let Some(interrupted) = interrupted(&space, rsp)
        {
            (rip, rsp) = interrupted;
            frames.push((rip, false));
        }
        if !image.contains(rip) {
            return frames;
        }
        let mut code = [0];
        if space.read(rip, &mut code).is_ok()
            && code == [RET]
            && let Ok(caller) = space.read_u64(rsp)
        {
            frames.push((caller, true));
        }
        let mut frame = self.regs.rbp;
        while frames.len() < MAX_FRAMES && frame.is_multiple_of(8) {
            let (Ok(next), Ok(caller)) =
                (space.read_u64(frame), space.read_u64(frame.wrapping_add(8)))
            else {
                break;
            };
            if !image.contains(caller) {
                break;
            }
            frames.push((caller, true));
            // The stack grows down: callers' frames are above.
            if next <= frame {
                break;
            }
            frame = next;
        }
        frames
    }
}

/// Where code at CPL 3 was interrupted, and its stack pointer, if that is what is on top of a
/// handler's stack.
fn interrupted(space: &AddressSpace<'_>, rsp: u64) -> Option<(u64, u64)> {
    let word = |index: u64| space.read_u64(rsp.wrapping_add(8 * index)).ok();
    let is_user = |selector: u64| selector & 3 == 3 && (8..=0xffff).contains(&selector);
    (is_user(word(1)?) && is_user(word(4)?)).then_some((word(0)?, word(3)?))
}

/// The states of KVM's vCPUs, or why there is none. What the vCPUs do meanwhile goes on.
pub fn states(ports: &[Port<Cpu>]) -> Vec<Result<State, String>> {
    (0..)
        .zip(ports)
        .map(
            |(index, port)| match port.ask(move |cpu| State::of(&cpu.fd, index)) {
                Ok(Ok(state)) => Ok(state),
                Ok(Err(error)) => Err(format!("vCPU {index}: {error}")),
                Err(error) => Err(format!("vCPU {index}: {error}")),
            },
        )
        .collect()
}

/// The report on vCPUs in these `states`, with a newline at its end.
pub fn all(states: &[Result<State, String>], memory: &Memory, image: &Image) -> String {
    states
        .iter()
        .map(|state| match state {
            Ok(state) => state.describe(memory, image) + "\n",
            Err(why) => format!("{why}\n"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::kernel_image::{LoadedKernel, Segment};
    use crate::memory::map;

    /// Paging is off, and the "kernel" is from 1 to 2 MiB.
    fn kernel() -> (Memory, Image) {
        let image = Image::new(LoadedKernel {
            entry: 0,
            end: 0,
            file: File::open("/dev/null").unwrap(),
            segments: vec![Segment {
                linked: 0x10_0000,
                physical: 0x10_0000,
                size: 0x10_0000,
            }],
        });
        (Memory::new(map(32 << 20).unwrap()), image)
    }

    fn state(rip: u64, rsp: u64, rbp: u64) -> State {
        State {
            index: 1,
            regs: kvm_regs {
                rip,
                rsp,
                rbp,
                ..Default::default()
            },
            sregs: kvm_sregs::default(),
            activity: 0,
        }
    }

    fn write(memory: &Memory, at: u64, words: &[u64]) {
        for (index, word) in (0..).zip(words) {
            memory
                .write_obj(*word, GuestAddress(at + 8 * index))
                .unwrap();
        }
    }

    #[test]
    fn frame_pointers_are_followed_upwards_within_the_kernel() {
        let (memory, image) = kernel();
        write(&memory, 0x8000, &[0x8100, 0x10_1000]);
        write(&memory, 0x8100, &[0x8200, 0x10_2000]);
        write(&memory, 0x8200, &[0, 0x40_0000]);
        let state = state(0x10_0010, 0x7f00, 0x8000);
        let expected = [(0x10_0010, false), (0x10_1000, true), (0x10_2000, true)];
        assert_eq!(state.backtrace(&memory, &image), expected);
        // A loop ends.
        write(&memory, 0x8100, &[0x8000, 0x10_2000]);
        assert_eq!(state.backtrace(&memory, &image), expected);
        let text = state.describe(&memory, &image);
        assert!(text.starts_with("vCPU 1: running in the kernel, CPL 0, real mode\nrip=0x100010"));
        assert!(
            text.ends_with("\n  0x0000000000101000\n  0x0000000000102000"),
            "{text}"
        );
    }

    #[test]
    fn a_handler_shows_what_it_interrupted_and_a_ret_its_caller() {
        let (memory, image) = kernel();
        write(&memory, 0x7f00, &[0x10_3000, 0x33, 0x202, 0x7000, 0x2b]);
        write(&memory, 0x7000, &[0x10_4000]);
        memory.write_obj(RET, GuestAddress(0x10_3000)).unwrap();
        let state = state(0x10_0010, 0x7f00, 1);
        assert_eq!(
            state.backtrace(&memory, &image),
            [(0x10_0010, false), (0x10_3000, false), (0x10_4000, true)]
        );
    }

    #[test]
    fn a_return_to_address_zero_is_shown() {
        let (memory, image) = kernel();
        write(&memory, 0x7000, &[0]);
        memory.write_obj(RET, GuestAddress(0x10_3000)).unwrap();
        let text = state(0x10_3000, 0x7000, 1).describe(&memory, &image);
        assert!(text.ends_with("\n  0x0000000000000000"), "{text}");
    }

    #[test]
    fn the_program_has_no_backtrace_and_some_vcpus_no_state() {
        let (memory, image) = kernel();
        write(&memory, 0x8000, &[0x8100, 0x10_1000]);
        let mut state = state(0x40_0000, 0x7f00, 0x8000);
        assert_eq!(state.backtrace(&memory, &image), [(0x40_0000, false)]);
        state.activity = KVM_MP_STATE_UNINITIALIZED;
        assert_eq!(
            state.describe(&memory, &image),
            "vCPU 1: not started by the guest"
        );
    }
}
