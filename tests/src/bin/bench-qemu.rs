//! `bench-qemu`: boots Debian's kernel and ours under QEMU, turn and turn about, has both run
//! `uring-bench`, and compares.
//!
//! The machine, the program and the root file system are the same for both, but for what Linux
//! needs to reach a disk: modules, and a script that loads them. `docs/benchmarks.md` says what is
//! measured, and what was chosen for Linux's sake.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ringlet_tests::{Comparison, Measured, Ringlet, Side};
use rootfs::{Image, layout};
use tempfile::NamedTempFile;

/// Turns that each side gets.
const ROUNDS: usize = 5;
/// How long each benchmark runs.
const DURATION_MS: &str = "300";

/// With ACPI, since that is how Debian's kernel finds virtio devices: it does not read them from
/// the command line.
const MACHINE: [&str; 15] = [
    "-machine",
    "microvm,acpi=on,ioapic2=off,pit=on,pic=on,rtc=on",
    "-accel",
    "tcg",
    "-cpu",
    "max",
    "-m",
    "512M",
    "-display",
    "none",
    "-global",
    "virtio-mmio.force-legacy=false",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
];

/// The devices behind virtio-mmio, in the order of their registers.
const DEVICES: [&str; 3] = [
    "virtio-blk-device,drive=disk",
    "virtio-serial-device",
    "virtio-rng-device",
];
/// Where QEMU has the registers of the first, how far the next is, and its interrupt.
const VIRTIO_BASE: usize = 0xfeb0_0000;
const VIRTIO_SIZE: usize = 512;
const VIRTIO_IRQ: usize = 16;

/// What has Linux start and run as fast as it can: no messages, no mitigations, no self-tests, no
/// clearing of memory beyond what programs must not see. The TSC's frequency is added: it can be
/// calibrated neither by CPUID nor by the PIT on this machine.
const LINUX_PARAMETERS: &str = "console=ttyS0 quiet loglevel=1 panic=-1 nokaslr mitigations=off \
                                init_on_alloc=0 audit=0 apparmor=0 cryptomgr.notests \
                                no_timer_check tsc=reliable 8250.nr_uarts=1";

/// The script that Linux starts to measure.
const LINUX_INIT: &str = "\
#!/bin/sh
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
/bin/uring-bench \"$@\"
# Waits until all that was written is sent, which the end of the machine would not.
stty -echo < /dev/console
";

struct Options {
    linux: PathBuf,
    kernel: PathBuf,
    program: PathBuf,
    busybox: PathBuf,
    image: PathBuf,
    output: PathBuf,
}

/// What is booted.
struct Systems {
    options: Options,
    /// An initramfs with the program and nothing else.
    program: NamedTempFile,
    /// One with what Linux needs to reach the disk as well.
    linux: NamedTempFile,
    /// The frequency of the TSC, which is the host's.
    tsc_khz: u64,
}

/// A benchmark that `uring-bench` knows.
struct Benchmark {
    name: String,
    cpus: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-qemu: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let benchmarks = benchmarks(&options.program)?;
    let systems = Systems::new(options)?;
    let mut comparison = Comparison::new("linux", "ringlet");
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        let mut order = [Side::Reference, Side::Ours];
        // Neither is always the one that goes first.
        order.rotate_left(round % 2);
        for side in order {
            comparison.add(side, systems.boot(side)?);
        }
        for cpus in [1, 2] {
            let here = benchmarks.iter().filter(|known| known.cpus == cpus);
            let names: Vec<_> = here.map(|known| known.name.as_str()).collect();
            for side in order {
                for measured in systems.measure(side, cpus, &names)? {
                    comparison.add(side, measured);
                }
            }
        }
    }
    comparison.print();
    comparison.write(&systems.options.output)?;
    eprintln!("written to {}", systems.options.output.display());
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    use lexopt::prelude::*;
    let (mut linux, mut kernel, mut program) = (None, None, None);
    let (mut busybox, mut image, mut output) = (None, None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        let place = match argument {
            Long("linux") => &mut linux,
            Long("kernel") => &mut kernel,
            Long("program") => &mut program,
            Long("busybox") => &mut busybox,
            Long("image") => &mut image,
            Long("output") => &mut output,
            other => return Err(other.unexpected().into()),
        };
        *place = Some(PathBuf::from(parser.value()?));
    }
    Ok(Options {
        linux: linux.ok_or("--linux is missing")?,
        kernel: kernel.ok_or("--kernel is missing")?,
        program: program.ok_or("--program is missing")?,
        busybox: busybox.ok_or("--busybox is missing")?,
        image: image.ok_or("--image is missing")?,
        output: output.ok_or("--output is missing")?,
    })
}

fn benchmarks(program: &Path) -> Result<Vec<Benchmark>, Box<dyn Error>> {
    let mut command = Command::new(program);
    command.arg("--list");
    let text = Ringlet::command(command).output().expect_success().out();
    let benchmark = |line: &str| {
        let mut words = line.split(' ');
        let (name, _unit, cpus) = (words.next()?, words.next()?, words.next()?);
        Some(Benchmark {
            name: name.to_owned(),
            cpus: cpus.parse().ok()?,
        })
    };
    let all: Option<Vec<_>> = text.lines().map(benchmark).collect();
    Ok(all.ok_or("uring-bench --list has another format")?)
}

impl Systems {
    fn new(options: Options) -> Result<Self, Box<dyn Error>> {
        let program = fs::read(&options.program)?;
        let mut image = Image::default();
        image.directory("dev", 0o755)?;
        layout::program(&mut image, "uring-bench", program.clone())?;
        let alone = written(&image)?;
        layout::busybox(
            &mut image,
            fs::read(&options.busybox)?,
            ["sh", "mount", "insmod", "stty"],
        )?;
        image.file("init", 0o755, LINUX_INIT.into())?;
        image.directory("modules", 0o755)?;
        for entry in fs::read_dir(options.linux.join("modules"))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or("a module with an odd name")?;
            image.file(&format!("modules/{name}"), 0o644, fs::read(&path)?)?;
        }
        Ok(Self {
            options,
            program: alone,
            linux: written(&image)?,
            tsc_khz: tsc_khz(),
        })
    }

    /// The time from QEMU's start to the first line that the program writes, in milliseconds.
    fn boot(&self, side: Side) -> Result<Measured, Box<dyn Error>> {
        let command = match side {
            Side::Reference => self.linux(1, &self.program, "/bin/uring-bench", "--list"),
            Side::Ours => self.ours(1, "--list"),
        };
        let start = Instant::now();
        let mut running = Ringlet::command(command).start();
        running.stdout.wait_for(b"\n");
        let value = start.elapsed().as_secs_f64() * 1000.0;
        Ok(Measured {
            name: "boot_to_program".to_owned(),
            unit: "ms".to_owned(),
            value,
        })
    }

    /// Runs the benchmarks of these names.
    fn measure(
        &self,
        side: Side,
        cpus: usize,
        names: &[&str],
    ) -> Result<Vec<Measured>, Box<dyn Error>> {
        let arguments = format!(
            "--file /dev/vda --duration-ms {DURATION_MS} {}",
            names.join(" ")
        );
        let command = match side {
            Side::Reference => self.linux(cpus, &self.linux, "/init", &arguments),
            Side::Ours => self.ours(cpus, &arguments),
        };
        let output = Ringlet::command(command).output();
        let text = output.out();
        let lines = text.lines().filter(|line| line.starts_with('{'));
        let all: Vec<Measured> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        if all.len() != names.len() {
            return Err(format!(
                "{side:?} has not measured everything: {text}{}",
                output.err()
            )
            .into());
        }
        Ok(all)
    }

    /// A machine with Linux, whose console is the serial port: that needs no module.
    fn linux(
        &self,
        cpus: usize,
        initramfs: &NamedTempFile,
        init: &str,
        arguments: &str,
    ) -> Command {
        let mut command = self.machine(cpus);
        command
            .args(["-serial", "stdio", "-chardev", "null,id=console"])
            .arg("-kernel")
            .arg(self.options.linux.join("vmlinux"))
            .arg("-initrd")
            .arg(initramfs.path())
            .arg("-append")
            .arg(format!(
                "{LINUX_PARAMETERS} tsc_early_khz={} rdinit={init} -- {arguments}",
                self.tsc_khz
            ));
        command
    }

    /// A machine with our kernel, which has to be told what it cannot find in ACPI's tables.
    fn ours(&self, cpus: usize, arguments: &str) -> Command {
        let devices: Vec<_> = (0..DEVICES.len())
            .map(|index| {
                let (base, irq) = (VIRTIO_BASE + index * VIRTIO_SIZE, VIRTIO_IRQ + index);
                format!("virtio_mmio.device={VIRTIO_SIZE}@{base:#x}:{irq}")
            })
            .collect();
        let mut command = self.machine(cpus);
        command
            .args([
                "-serial",
                "file:/dev/stderr",
                "-chardev",
                "stdio,id=console",
            ])
            .arg("-kernel")
            .arg(&self.options.kernel)
            .arg("-initrd")
            .arg(self.program.path())
            .arg("-append")
            .arg(format!(
                "loglevel=error ringlet.cpus={cpus} {} -- /bin/uring-bench {arguments}",
                devices.join(" ")
            ));
        command
    }

    fn machine(&self, cpus: usize) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(MACHINE)
            .args(["-smp", &cpus.to_string(), "-blockdev"])
            .arg(format!(
                "driver=file,node-name=disk,read-only=on,filename={}",
                self.options.image.display()
            ));
        for (index, device) in DEVICES.iter().enumerate() {
            command.args(["-device", &format!("{device},bus=virtio-mmio-bus.{index}")]);
        }
        command.args(["-device", "virtconsole,chardev=console"]);
        command
    }
}

fn written(image: &Image) -> Result<NamedTempFile, Box<dyn Error>> {
    let mut file = NamedTempFile::new()?;
    file.write_all(&image.archive()?)?;
    Ok(file)
}

/// The frequency of the host's TSC, which is the guest's under TCG.
fn tsc_khz() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and Linux lets programs use it.
    let tsc = || unsafe { std::arch::x86_64::_rdtsc() };
    let (start, from) = (Instant::now(), tsc());
    std::thread::sleep(Duration::from_millis(100));
    let (elapsed, to) = (start.elapsed(), tsc());
    ((to - from) as f64 / elapsed.as_secs_f64() / 1000.0) as u64
}
