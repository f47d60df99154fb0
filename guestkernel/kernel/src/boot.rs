//! From the machine's boot information to the running program, and to the end of the VM.

mod mounts;

use crate::command_line::parameter;
use crate::drivers;
use crate::drivers::block::BlockDevice;
use crate::drivers::block_file::BlockFile;
use crate::error::Errno;
use crate::executor;
use crate::fs::fuse;
use crate::fs::initramfs::{self, Problem};
use crate::fs::procfs;
use crate::fs::tty::mount_devpts;
use crate::fs::{
    DeviceDirectory, DeviceNumber, FdTable, FileType, FsContext, Namespace, View, register_types,
};
use crate::log;
use crate::mm;
use crate::operation;
use crate::process::{
    self, ControlBlock, ExitStatus, Given, Ids, Process, STACK_LIMIT, Source, Thread,
};
use crate::standard_streams::StandardStreams;
use crate::thread_loop;
use ::log::{debug, error, info, warn};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;
use linux_raw_sys::general::AT_FDCWD;
use machine::{BootInfo, BootModule, Mode, PAGE_SIZE, power};
use ringlet_abi::control::{Exit, Mark, ModeChoice};
use ringlet_abi::{Footer, MODULE_INITRAMFS, MODULE_PROCESS, ProcessSpec, User};

/// Device numbers of `/dev/vda` and so on: the major that Linux usually gives them, and 16 minors
/// for a disk and its partitions.
const BLOCK_MAJOR: u32 = 254;
const BLOCK_MINORS: u32 = 16;

/// How long a CPU may be stuck before that is reported, unless the command line says otherwise.
const WATCHDOG_THRESHOLD: Duration = Duration::from_secs(10);

/// Runs the kernel: starts the program that `boot` names and ends the VM when it has ended.
pub fn main(boot: BootInfo) -> ! {
    let exit = run(boot).unwrap_or_else(|exit| exit);
    power::exit(exit)
}

/// Reports the mode that the machine runs in, if it is one that the command line allows.
fn check_mode(command_line: &str, loop_cycles: u32) -> Result<(), Exit> {
    let mode = machine::mode();
    power::report_mode(ModeChoice {
        is_ring0: mode == Mode::Ring0,
        loop_cycles,
    });
    let cpl0 = if machine::is_cpl0_emulated() {
        "emulated"
    } else {
        "native"
    };
    info!(
        "mode {}: CPL 0 is {cpl0}, {loop_cycles} cycles for 16 instructions",
        mode.name()
    );
    let wanted = parameter(command_line, "mode").unwrap_or("auto");
    if wanted == "auto" || wanted == mode.name() {
        return Ok(());
    }
    warn!("mode {wanted} is not possible here");
    Err(Exit::BadMode)
}

/// Gives what the program's end means for the VM, or why it was not started.
fn run(boot: BootInfo) -> Result<Exit, Exit> {
    log::start(&boot.command_line);
    let BootInfo {
        command_line,
        modules,
        boot_loop_cycles,
    } = boot;
    debug!("command line: {command_line}");
    let cpus = parameter(&command_line, "ringlet.cpus").and_then(|cpus| cpus.parse().ok());
    executor::start_cpus(cpus.unwrap_or(1));
    check_mode(&command_line, boot_loop_cycles)?;
    let devices = drivers::probe(&command_line);
    let Some(console) = &devices.console else {
        error!(
            "no console: the command line announces no virtio-mmio device that is one (QEMU: \
             -M microvm,acpi=off -global virtio-mmio.force-legacy=false -device \
             virtio-serial-device ...; -M q35 has no virtio-mmio)"
        );
        return Err(Exit::BadBoot);
    };
    let (archives, spec) = sort_modules(&command_line, modules)?;
    register_types();
    procfs::register_type();
    fuse::register_type();
    devices.shares.iter().for_each(fuse::add_device);
    let (namespace, root) = Namespace::in_memory();
    for archive in archives {
        initramfs::unpack(&root, &archive.frames, archive.length).map_err(|error| {
            warn!("{error}");
            match error.problem {
                Problem::NotMade(_, Errno::ENOMEM | Errno::ENOSPC) => Exit::OutOfMemory,
                _ => Exit::BadRootfs,
            }
        })?;
    }
    let streams = StandardStreams::new(console, spec.terminals, spec.size);
    add_devices(&namespace, &devices.blocks, &streams).map_err(|errno| {
        error!("/dev: {errno:?}");
        Exit::BadRootfs
    })?;
    power::mark(Mark::KernelReady);

    let files = Arc::new(FdTable::new());
    // An empty table has room for them.
    let opened = streams.open(&files);
    opened.map_err(|_| Exit::OutOfMemory)?;
    start_watchdog(&command_line);
    executor::spawn("free memory", mm::give_back());
    let process = start(files, FsContext::new(namespace), spec, &streams)?;
    let status = executor::block_on(process.ended());
    debug!("{status:?}");
    executor::block_on(console.flush());
    power::mark(Mark::ProgramExited);
    Ok(match status {
        ExitStatus::Exited(status) => Exit::Exited(status),
        ExitStatus::Signaled(signal) => Exit::Signaled(signal),
    })
}

/// Starts to watch the CPUs, as Linux's parameters of these names say, and provokes what
/// `ringlet.provoke` says, if this kernel can.
fn start_watchdog(command_line: &str) {
    let number = |name| parameter(command_line, name)?.parse::<u64>().ok();
    let threshold = number("watchdog_thresh").map_or(WATCHDOG_THRESHOLD, Duration::from_secs);
    let panics = number("softlockup_panic").is_some_and(|value| value != 0);
    machine::watchdog::start(threshold, panics);
    if let Some(what) = parameter(command_line, "ringlet.provoke") {
        #[cfg(feature = "provoke")]
        crate::provoke::provoke(what);
        #[cfg(not(feature = "provoke"))]
        warn!("ringlet.provoke={what}: this kernel is built without");
    }
}

/// Loads the program and has its thread run.
fn start(
    files: Arc<FdTable>,
    fs: Arc<FsContext>,
    spec: ProcessSpec,
    streams: &StandardStreams,
) -> Result<Arc<ControlBlock>, Exit> {
    let view = View {
        files: &files,
        context: &fs,
    };
    mounts::check_supported(&spec)?;
    mounts::mount_all(view, &spec.mounts)?;
    enter_working_directory(view, &spec.working_directory)?;
    if spec.read_only_root {
        mounts::close_root(view)?;
    }
    if !spec.host_name.is_empty() {
        operation::set_host_name(&spec.host_name);
    }
    let name = spec.args.first().cloned().unwrap_or_default();
    let shown = String::from_utf8_lossy(&name).into_owned();
    let path = executor::block_on(process::find(view, &name, &spec.env)).map_err(|errno| {
        // The VMM tells the user; the log has the reason for those who ask for more.
        warn!("{shown}: {errno:?}");
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => Exit::NotFound,
            errno => Exit::NotExecutable(errno.number()),
        }
    })?;
    let User { uid, gid } = spec.user;
    let given = Given {
        arguments: spec.args,
        environment: &spec.env,
        ids: [uid, uid, gid, gid],
        stack: STACK_LIMIT,
    };
    let loading = process::load(view, Source::path(&path), given);
    let program = executor::block_on(loading).map_err(|errno| {
        warn!("{shown}: cannot be executed: {errno:?}");
        match errno {
            Errno::ENOMEM => Exit::OutOfMemory,
            errno => Exit::NotExecutable(errno.number()),
        }
    })?;
    let process = Process::first(program.space, files, fs, program.executable);
    set_user(&process, spec.user);
    let mounting = procfs::mount(&process.fs.namespace);
    executor::block_on(mounting).map_err(|errno| {
        error!("/proc: {errno:?}");
        Exit::BadRootfs
    })?;
    streams.set_process(&process);
    let thread = Thread::new(
        process.clone(),
        program.context,
        program.name,
        thread_loop::run,
    );
    power::mark(Mark::ProgramEntered);
    thread.start();
    // Not what it reaches: that goes when it executes another program.
    Ok(process.block().clone())
}

/// Makes `path` the working directory, and first each directory on its way that is missing.
fn enter_working_directory(view: View<'_>, path: &[u8]) -> Result<(), Exit> {
    if path.is_empty() {
        return Ok(());
    }
    let entered = executor::block_on(async {
        make_directories(view, path, true).await?;
        let directory = view.lookup(AT_FDCWD, path, true).await?;
        view.context.set_working_directory(directory)
    });
    entered.map_err(|errno| {
        let path = String::from_utf8_lossy(path);
        error!("working directory {path}: {errno:?}");
        Exit::BadBoot
    })
}

/// Makes each directory on the way of `path` that is missing, and the last one if it `is_directory`.
async fn make_directories(
    view: View<'_>,
    path: &[u8],
    is_directory: bool,
) -> crate::error::Result<()> {
    let ends = (1..path.len()).filter(|at| path[*at] == b'/');
    for end in ends.chain(is_directory.then_some(path.len())) {
        match view.make_directory(AT_FDCWD, &path[..end], 0o755).await {
            // What is there already may be in a file system that does not change.
            Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => (),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Has `process` run as `user`.
fn set_user(process: &Process, user: User) {
    let ids = |id| Ids {
        real: id,
        effective: id,
        saved: id,
    };
    let mut credentials = process.credentials.lock();
    credentials.user = ids(user.uid);
    credentials.group = ids(user.gid);
}

/// Tells the boot modules apart: the archives of the root file system, and what to run.
fn sort_modules(
    command_line: &str,
    modules: Vec<BootModule>,
) -> Result<(Vec<BootModule>, ProcessSpec), Exit> {
    let mut archives = Vec::new();
    let mut spec = None;
    for mut module in modules {
        if module.name == MODULE_PROCESS.as_bytes() {
            spec = Some(decode_spec(&contents(&module, 0..module.length))?);
        } else if module.name.is_empty() || module.name == MODULE_INITRAMFS.as_bytes() {
            if let Some(appended) = take_appended(&mut module) {
                spec = Some(decode_spec(&appended)?);
            }
            archives.push(module);
        } else {
            warn!(
                "boot module {} is not known",
                String::from_utf8_lossy(&module.name)
            );
        }
    }
    let spec = spec.or_else(|| spec_of(command_line)).ok_or_else(|| {
        error!("nothing to run: no process description, and nothing after -- on the command line");
        Exit::BadBoot
    })?;
    Ok((archives, spec))
}

fn decode_spec(bytes: &[u8]) -> Result<ProcessSpec, Exit> {
    ProcessSpec::decode(bytes).map_err(|problem| {
        error!("process description: {problem}");
        Exit::BadBoot
    })
}

/// Cuts off the process description behind an initramfs, if there is one, and gives its bytes.
fn take_appended(module: &mut BootModule) -> Option<Vec<u8>> {
    let end = module.length.checked_sub(Footer::SIZE)?;
    let footer = contents(module, end..module.length).try_into().ok()?;
    let footer = Footer::decode(footer, module.length as u64)?;
    let bytes = contents(module, footer.process() as usize..end);
    module.length = footer.initramfs as usize;
    module.frames.truncate(module.length.div_ceil(PAGE_SIZE));
    Some(bytes)
}

/// The bytes of `range`, as far as there are frames for them.
fn contents(module: &BootModule, range: Range<usize>) -> Vec<u8> {
    let end = range.end.min(module.frames.len() * PAGE_SIZE);
    let mut bytes = alloc::vec![0; end.saturating_sub(range.start)];
    let mut at = range.start;
    let mut rest = &mut bytes[..];
    while !rest.is_empty() {
        let offset = at % PAGE_SIZE;
        let (part, after) = rest.split_at_mut((PAGE_SIZE - offset).min(rest.len()));
        module.frames[at / PAGE_SIZE].read(offset, part);
        at += part.len();
        rest = after;
    }
    bytes
}

/// What a command line says to run: the words after `--`, under VMMs that pass no description.
/// QEMU appends its devices to whatever the user gives.
fn spec_of(command_line: &str) -> Option<ProcessSpec> {
    let mut words = command_line.split_ascii_whitespace();
    words.find(|word| *word == "--")?;
    let args: Vec<_> = words
        .filter(|word| !word.starts_with(drivers::DEVICE_PARAMETER))
        .map(|word| word.as_bytes().to_vec())
        .collect();
    (!args.is_empty()).then(|| ProcessSpec {
        args,
        ..ProcessSpec::default()
    })
}

/// Mounts `/dev` and makes the nodes of all devices in it.
fn add_devices(
    namespace: &Arc<Namespace>,
    blocks: &[Arc<BlockDevice>],
    streams: &StandardStreams,
) -> crate::error::Result<()> {
    let directory = executor::block_on(DeviceDirectory::mount(namespace.clone()))?;
    streams.add_devices(&directory)?;
    executor::block_on(mount_devpts(namespace, &directory))?;
    for (letter, (index, block)) in ('a'..='z').zip((0..).zip(blocks)) {
        let number = DeviceNumber::new(BLOCK_MAJOR, index * BLOCK_MINORS);
        let file = Arc::new(BlockFile::new(block.clone(), number));
        let name = format!("vd{letter}");
        directory.add(&name, FileType::BlockDevice, number, 0o660, file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use linux_raw_sys::general as raw;
    use machine::hosted::device::SimulatedDevice;
    use machine::hosted::models::SimulatedConsole;
    use machine::hosted::set_program;
    use machine::{Frame, Trap};

    fn module(name: &str, bytes: &[u8]) -> BootModule {
        let frames = bytes.chunks(PAGE_SIZE).map(|page| {
            let frame = Frame::zeroed().unwrap();
            frame.write(0, page);
            frame
        });
        BootModule {
            name: name.as_bytes().to_vec(),
            frames: frames.collect(),
            length: bytes.len(),
        }
    }

    fn boot(command_line: &str, modules: Vec<BootModule>) -> Exit {
        let (_, console) = SimulatedDevice::attach(SimulatedConsole::single());
        let device = format!("virtio_mmio.device=4K@{console:#x}:5");
        boot_without_console(&format!("{command_line} {device}"), modules)
    }

    fn boot_without_console(command_line: &str, modules: Vec<BootModule>) -> Exit {
        let info = BootInfo {
            command_line: command_line.into(),
            modules,
            boot_loop_cycles: 0,
        };
        run(info).unwrap_or_else(|exit| exit)
    }

    /// An archive with one executable file.
    fn archive(name: &str, contents: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, mode, contents) in [(name, 0o100_755, contents), ("TRAILER!!!", 0, &[][..])] {
            let fields = [
                1,
                mode,
                0,
                0,
                1,
                0,
                contents.len(),
                0,
                0,
                0,
                0,
                name.len() + 1,
                0,
            ];
            bytes.extend_from_slice(b"070701");
            for field in fields {
                bytes.extend_from_slice(format!("{field:08x}").as_bytes());
            }
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend_from_slice(contents);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn spec(args: &[&str]) -> Vec<u8> {
        let spec = ProcessSpec {
            args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
            ..ProcessSpec::default()
        };
        spec.encode().unwrap()
    }

    #[test]
    fn a_program_is_started_and_its_status_is_the_exit() {
        let image = crate::process::tests::elf(2, None);
        set_program(Box::new(|context| {
            context.registers.rax = raw::__NR_exit_group.into();
            context.registers.rdi = 42;
            Trap::Syscall
        }));
        let modules = vec_of([
            module(MODULE_INITRAMFS, &archive("program", &image)),
            module(MODULE_PROCESS, &spec(&["/program"])),
        ]);
        assert_eq!(boot("", modules), Exit::Exited(42));
        let modules = vec_of([module("", &archive("program", &image))]);
        assert_eq!(boot("quiet -- /program", modules), Exit::Exited(42));
        let footer = Footer {
            initramfs: archive("program", &image).len() as u64,
        };
        let mut both = archive("program", &image);
        both.resize(footer.process() as usize, 0);
        both.extend(spec(&["/program"]));
        both.extend(footer.encode());
        let modules = vec_of([module("", &both)]);
        assert_eq!(boot("quiet -- /none", modules), Exit::Exited(42));
    }

    fn vec_of<const N: usize>(modules: [BootModule; N]) -> Vec<BootModule> {
        modules.into_iter().collect()
    }

    #[test]
    fn what_cannot_be_started_has_an_exit_of_its_own() {
        let rootfs = || module(MODULE_INITRAMFS, &archive("text", b"hello"));
        let process = |name| module(MODULE_PROCESS, &spec(&[name]));
        let exit = |modules| boot("", modules);
        assert_eq!(exit(vec_of([rootfs(), process("/none")])), Exit::NotFound);
        assert_eq!(exit(vec_of([rootfs(), process("none")])), Exit::NotFound);
        assert_eq!(exit(vec_of([rootfs(), process("/text/x")])), Exit::NotFound);
        let not_executable = |errno: Errno| Exit::NotExecutable(errno.number());
        assert_eq!(
            exit(vec_of([rootfs(), process("/text")])),
            not_executable(Errno::ENOEXEC)
        );
        assert_eq!(
            exit(vec_of([rootfs(), process("/")])),
            not_executable(Errno::EACCES)
        );
        assert_eq!(
            exit(vec_of([module("", b"junk"), process("/text")])),
            Exit::BadRootfs
        );
        assert_eq!(exit(vec_of([rootfs()])), Exit::BadBoot);
        assert_eq!(
            exit(vec_of([rootfs(), module(MODULE_PROCESS, b"junk")])),
            Exit::BadBoot
        );
        let modules = vec_of([rootfs(), process("/text")]);
        assert_eq!(boot_without_console("", modules), Exit::BadBoot);
    }

    #[test]
    fn a_description_says_where_as_whom_and_on_which_host() {
        let image = crate::process::tests::elf(2, None);
        let mut calls = [(raw::__NR_getuid, 7), (raw::__NR_getegid, 8)].into_iter();
        let mut expected = None;
        set_program(Box::new(move |context| {
            if let Some(expected) = expected {
                assert_eq!(context.registers.rax, expected);
            }
            let (call, result) = calls.next().unwrap_or((raw::__NR_exit_group, 0));
            expected = Some(result);
            context.registers.rax = call.into();
            context.registers.rdi = 9;
            Trap::Syscall
        }));
        let spec = ProcessSpec {
            args: vec_of_bytes(&["../../program"]),
            working_directory: b"/a/b".to_vec(),
            user: User { uid: 7, gid: 8 },
            host_name: b"name".to_vec(),
            ..ProcessSpec::default()
        };
        let archive = archive("program", &image);
        let modules = |spec: &ProcessSpec| {
            vec_of([
                module(MODULE_INITRAMFS, &archive),
                module(MODULE_PROCESS, &spec.encode().unwrap()),
            ])
        };
        // The program is found from there.
        assert_eq!(boot("", modules(&spec)), Exit::Exited(9));
        let nowhere = ProcessSpec {
            working_directory: b"/program/b".to_vec(),
            ..spec.clone()
        };
        assert_eq!(boot("", modules(&nowhere)), Exit::BadBoot);
        for (target, access) in [
            (&b"/x"[..], ringlet_abi::MountAccess::Overlay),
            (b"/", ringlet_abi::MountAccess::ReadWrite),
        ] {
            let mounts = ProcessSpec {
                mounts: Vec::from([ringlet_abi::Mount {
                    target: target.to_vec(),
                    source: ringlet_abi::MountSource::Tmpfs { size: 0 },
                    access,
                }]),
                ..spec.clone()
            };
            assert_eq!(boot("", modules(&mounts)), Exit::BadBoot);
        }
    }

    fn vec_of_bytes(strings: &[&str]) -> Vec<Vec<u8>> {
        strings
            .iter()
            .map(|string| string.as_bytes().to_vec())
            .collect()
    }

    #[test]
    fn the_devices_that_a_vmm_appends_are_no_arguments() {
        let line = "a=b -- /bin/x y virtio_mmio.device=512@0xfeb00e00:12";
        let words = spec_of(line).unwrap().args;
        assert_eq!(words, [b"/bin/x".to_vec(), b"y".to_vec()]);
        assert_eq!(spec_of("-- virtio_mmio.device=512@0xfeb00e00:12"), None);
    }
}
