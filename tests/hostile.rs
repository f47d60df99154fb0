//! The cases of `hostile`, each a test: the program ends in the guest as on the host, and the kernel
//! goes on to say so.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use ringlet_tests::{Artifacts, Ringlet, machine_options};
use rootfs::Image;

/// What the outcome depends on besides the program.
#[derive(Clone, Copy)]
struct Machine {
    /// Program and kernel share a protection domain.
    is_shared: bool,
    /// KVM emulates CPL 0, and what it must of CPL 3.
    is_emulated: bool,
    /// The processor is QEMU's.
    is_tcg: bool,
}

/// How the end of a case is judged.
enum Judgement {
    /// As on the host.
    Same,
    /// In any way, as long as the kernel lives to tell.
    Any,
    /// Not at all.
    None,
}

/// QEMU's processor does something else than others.
const TCG_DIFFERS: [&str; 6] = [
    "misaligned",
    "misaligned-stack",
    "push-not-canonical",
    "sysexit",
    "int1",
    "bad-mxcsr",
];
/// With SMAP, QEMU before version 9.1 takes these for accesses of the kernel to the program's stack, and
/// faults for ever.
const TCG_HANGS: [&str; 6] = [
    "iret-to-kernel",
    "iret-to-task",
    "iret-not-canonical",
    "far-return-to-kernel",
    "far-return-to-nowhere",
    "flags-by-iret",
];
/// An emulating KVM loses this flag at an exception.
const EMULATED_DIFFERS: [&str; 2] = ["flag-nested-task", "flags-all"];

impl Machine {
    fn judge(self, name: &str) -> Judgement {
        let is_the_kernels = name.starts_with("kernel-") || name.starts_with("gs-");
        if self.is_shared && is_the_kernels {
            // Nothing protects the kernel there; the VM is the boundary.
            return Judgement::None;
        }
        if self.is_emulated && name.starts_with("code-32") {
            // Such a KVM does not get on in 32-bit code.
            return Judgement::None;
        }
        if self.is_tcg && !self.is_shared && TCG_HANGS.contains(&name) {
            return Judgement::None;
        }
        let differs = self.is_tcg && TCG_DIFFERS.contains(&name)
            || self.is_emulated && EMULATED_DIFFERS.contains(&name)
            // There is no 32-bit system call in the guest.
            || name == "code-32-system-call";
        match differs {
            true => Judgement::Any,
            false => Judgement::Same,
        }
    }

    /// The one that the tests run on.
    fn find() -> Self {
        const EMULATED_CYCLES: u64 = 10_000;
        let output = Ringlet::run(["--timeline"], ["/bin/true"]).output();
        let text = output.expect_code(0).err();
        let mode = text.split("mode: ").nth(1).expect("the mode");
        let cycles = mode.split("took ").nth(1).expect("the mode's reason");
        let cycles = cycles.split(' ').next().and_then(|word| word.parse().ok());
        let is_tcg = machine_options().iter().any(|option| option == "tcg");
        Self {
            is_shared: mode.starts_with("shared"),
            is_emulated: !is_tcg && cycles.is_some_and(|cycles: u64| cycles >= EMULATED_CYCLES),
            is_tcg,
        }
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let program = Artifacts::get().program("hostile");
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    let mut contents = Image::default();
    let bytes = std::fs::read(&program).expect("the program");
    contents.file("hostile", 0o755, bytes).expect("a file");
    let archive = contents.archive().expect("an archive");
    std::fs::write(&image, archive).expect("an image");

    let list = Ringlet::command(with(&program, "--list")).output();
    let machine = Machine::find();
    let image: Arc<Path> = image.into();
    let names = list.out();
    let trials = names.lines().filter_map(|name| {
        let judgement = machine.judge(name);
        if let Judgement::None = judgement {
            return None;
        }
        let (name, program, image) = (name.to_owned(), program.clone(), Arc::clone(&image));
        Some(Trial::test(name.clone(), move || {
            check(&name, &program, &image, &judgement)
        }))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(directory);
    conclusion.exit();
}

fn with(program: &Path, argument: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(argument);
    command
}

fn check(name: &str, program: &Path, image: &Path, judgement: &Judgement) -> Result<(), Failed> {
    let image = image.to_str().ok_or("a name in UTF-8")?;
    let guest = Ringlet::run(["--rootfs", image], ["/hostile", name]).output();
    let (code, said) = (guest.code(), guest.err());
    if !said.is_empty() || code == 125 {
        return Err(format!("status {code}: {said}").into());
    }
    if let Judgement::Same = judgement {
        let host = Ringlet::command(with(program, name)).output().code();
        if code != host {
            return Err(format!("status {code}, on the host {host}").into());
        }
    }
    Ok(())
}
