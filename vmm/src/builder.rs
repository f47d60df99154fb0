//! The steps that make a KVM VM, in order. Nothing of the guest runs before the last one is done.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use ringlet_abi::{CONTROL_BASE, MAX_CPUS, VIRTIO_BASE, VIRTIO_IRQ, VIRTIO_MAX, VIRTIO_SIZE};
use ringlet_devices::block::{Block, Disk, DiskError, EngineKind};
use ringlet_devices::console::{Console, ConsoleHandle, Size, Streams};
use ringlet_devices::entropy::Entropy;
use ringlet_devices::fs::{DescriptorLimits, Fs, Share, ShareError};
use ringlet_devices::{Memory, MmioTransport, NOTIFY_OFFSET, Threads, VirtioDevice};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::boot::{self, BootError};
use crate::bus::{Bus, RangeTaken};
use crate::config::Config;
use crate::control_page::ControlPage;
use crate::cpuid;
use crate::debug::server::BindError;
use crate::debug::session::{self, Session};
use crate::debug::trap::Tracer;
use crate::debug::{Image, Server, port};
use crate::kernel_image::{self, KernelError};
use crate::lifecycle::EventLoop;
use crate::lost_memory;
use crate::memory::{self, MemoryError, Ram};
use crate::metrics::Metrics;
use crate::missing::MissingTable;
use crate::mounts::share_tag;
use crate::outcome::Ending;
use crate::serial::SerialPort;
use crate::timeline::{Stage, Timeline};
use crate::vcpu::{Machine, TSS_ADDRESS, Vcpu};
use crate::vm::{Debugger, Devices, Vm};

/// Pins of the IOAPIC.
const IOAPIC_PINS: u32 = 24;

/// Devices that every VM has: console and entropy.
const FIXED_DEVICES: u32 = 2;
/// Disks and shares that there are pins for.
const MAX_DEVICES: usize = (VIRTIO_MAX - FIXED_DEVICES) as usize;

/// Why a VM cannot be made. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// KVM refuses a step.
    #[error("KVM: {step}: {cause}")]
    Kvm {
        /// The step.
        step: &'static str,
        /// Its error.
        cause: kvm_ioctls::Error,
    },
    /// More vCPUs than there can be.
    #[error("--cpus {wanted}: {by} has at most {max}; give fewer")]
    TooManyCpus {
        /// vCPUs asked for.
        wanted: u32,
        /// The most there can be.
        max: usize,
        /// Of what that is a limit.
        by: &'static str,
    },
    /// More disks and shares than interrupt pins.
    #[error(
        "--disk, --volume: {wanted} disks and shares are more than can be attached; give at most {max}"
    )]
    TooManyDevices {
        /// Disks and shares asked for.
        wanted: usize,
        /// The most there can be.
        max: usize,
    },
    /// Guest memory.
    #[error("--mem: {0}")]
    Memory(#[from] MemoryError),
    /// A disk image.
    #[error("disk {}: {cause}", .path.display())]
    Disk {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        cause: DiskError,
    },
    /// A directory or file to share.
    #[error("{}: {cause}", .path.display())]
    Share {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong.
        cause: ShareError,
    },
    /// The guest kernel.
    #[error("kernel {}: {cause}", .path.display())]
    Kernel {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        cause: KernelError,
    },
    /// The root file system image.
    #[error("root file system {}: {cause}", .path.display())]
    Rootfs {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        cause: BootError,
    },
    /// What the kernel is told.
    #[error(transparent)]
    Boot(BootError),
    /// The debugger's address.
    #[error("--gdb: {0}")]
    Gdb(#[from] BindError),
    /// The layout of the devices.
    #[error(transparent)]
    Bus(#[from] RangeTaken),
    /// The host denies a descriptor.
    #[error("cannot set up the devices: {0}")]
    Host(#[from] io::Error),
    /// The host denies an epoll instance.
    #[error("cannot set up the event loop: {0}")]
    Events(#[from] event_manager::Error),
}

/// Names the step that failed.
trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, BuildError>;
}

impl<T> Step<T> for Result<T, kvm_ioctls::Error> {
    fn step(self, step: &'static str) -> Result<T, BuildError> {
        self.map_err(|cause| BuildError::Kvm { step, cause })
    }
}

/// Makes the VM that `config` describes, with `kvm`. Its console is on this process's standard streams.
///
/// # Errors
///
/// [`BuildError`].
pub fn build(config: &Config, kvm: &Kvm, timeline: &Arc<Timeline>) -> Result<Vm, BuildError> {
    let disks = open_disks(config)?;
    let shares = open_shares(config)?;
    let server = bind_debugger(config)?;
    check_cpus(kvm, config.cpus)?;
    let memory = Memory::new(memory::map(config.memory)?);
    lost_memory::watch(&memory)?;
    let vm = kvm.create_vm().step("create the VM")?;
    // Before anything that KVM does with a deferred SRCU callback, as registering a device on its
    // buses: the memory regions would wait some milliseconds for that callback's grace period.
    memory::register(&vm, &memory)?;
    create_interrupt_controllers(&vm)?;

    let ending = Arc::new(Ending::new()?);
    let mut board = Board {
        vm: &vm,
        memory: &memory,
        bus: Bus::default(),
        count: 0,
    };
    let missing = Arc::<MissingTable>::default();
    let metrics = Arc::<Metrics>::default();
    metrics.set_guest_memory(config.memory);
    let mut events = EventManager::new()?;
    let threads = config.jail.close(&config.needs(), &ending)?;
    let console = add_console(&mut board, config, &mut events, &threads)?;
    for (name, statistics) in console.statistics() {
        metrics.add_device(name, &statistics);
    }
    add_entropy(&mut board, &mut events, &metrics)?;
    for (index, (disk, disk_config)) in disks.into_iter().zip(&config.disks).enumerate() {
        let engine = (EngineKind::Auto, disk_config.limits);
        let block = Block::new(&disk_name(index), disk, engine, &threads)?;
        metrics.add_device(&disk_name(index), block.statistics());
        board.add(block, |_| Ok(()))?;
    }
    let limits = DescriptorLimits::of_process(shares.len());
    for (index, share) in shares.into_iter().enumerate() {
        let (tag, kind) = (share_tag(index), EngineKind::Auto);
        let fs = Fs::new(&tag, share, config.cpus, limits, kind, &threads)?;
        board.add(fs, |_| Ok(()))?;
    }
    let Board { mut bus, count, .. } = board;

    let kernel = load_kernel(config, &memory)?;
    let written = boot::write(&memory, config, &kernel, count as usize)
        .map_err(|cause| name_rootfs(config, cause))?;
    let page = ControlPage::new(
        Arc::clone(&ending),
        Arc::clone(timeline),
        Arc::clone(&missing),
        Ram::new(Arc::clone(&memory), written.image, Arc::clone(&metrics)),
    );
    bus.insert(CONTROL_BASE, VIRTIO_SIZE, Box::new(page))?;

    let entry = kernel.entry;
    let machine = Machine {
        bus: Arc::new(bus),
        serial: Arc::new(Mutex::new(SerialPort::new(Arc::clone(&ending)))),
        ending,
        memory,
        metrics,
        missing,
        image: Arc::new(Image::new(kernel)),
    };
    let debugger = server
        .map(|server| debugger(server, &machine))
        .transpose()?;
    let cpuid = cpuid::supported(kvm).step("supported CPUID")?;
    let mut vcpus = Vec::new();
    let mut ports = Vec::new();
    for index in 0..config.cpus {
        let (port, dock) = port::pair(debugger.is_some());
        let tracer = debugger
            .as_ref()
            .map(|debugger| Tracer::new(index as usize, Arc::clone(&debugger.session)));
        let vcpu = Vcpu::new(
            &vm,
            index,
            config.cpus,
            &cpuid,
            machine.clone(),
            dock,
            tracer,
        );
        vcpus.push(vcpu.step("create a vCPU")?);
        ports.push(port);
    }
    if let Some(first) = vcpus.first() {
        first
            .enter_at(entry, written.start_info.0)
            .step("set the registers")?;
    }
    timeline.reach(Stage::VmCreated);
    let vcpus = (vcpus, ports.into());
    let devices = Devices { console, threads };
    Ok(Vm::new(vm, vcpus, events, devices, machine, debugger))
}

/// A debugger's place, which nobody has taken yet.
fn debugger(server: Server, machine: &Machine) -> Result<Debugger, BuildError> {
    let (sender, events) = mpsc::channel();
    let session = Session::new(
        Arc::clone(&machine.memory),
        Arc::clone(&machine.image),
        session::has_hardware_virtualization(),
        EventFd::new(EFD_NONBLOCK)?,
        sender,
    );
    Ok(Debugger {
        server,
        session: Arc::new(session),
        events,
    })
}

/// Where a debugger can connect, if one may.
///
/// # Errors
///
/// [`BuildError::Gdb`].
pub(crate) fn bind_debugger(config: &Config) -> Result<Option<Server>, BuildError> {
    let address = config.gdb.as_ref();
    let server = address.map(|address| Server::bind(address, config.gdb_insecure));
    Ok(server.transpose()?)
}

/// Opens, checks and locks the disks.
///
/// # Errors
///
/// [`BuildError::TooManyDevices`] and [`BuildError::Disk`].
pub(crate) fn open_disks(config: &Config) -> Result<Vec<Disk>, BuildError> {
    let wanted = config.disks.len() + config.shares.len();
    if wanted > MAX_DEVICES {
        return Err(BuildError::TooManyDevices {
            wanted,
            max: MAX_DEVICES,
        });
    }
    config
        .disks
        .iter()
        .map(|disk| {
            Disk::open(&disk.path, disk.access).map_err(|cause| BuildError::Disk {
                path: disk.path.clone(),
                cause,
            })
        })
        .collect()
}

/// Opens and checks the directories and files to share.
///
/// # Errors
///
/// [`BuildError::Share`].
pub(crate) fn open_shares(config: &Config) -> Result<Vec<Share>, BuildError> {
    config
        .shares
        .iter()
        .map(|share| {
            Share::open(&share.path, share.is_writable, share.cache).map_err(|cause| {
                BuildError::Share {
                    path: share.path.clone(),
                    cause,
                }
            })
        })
        .collect()
}

/// The name of a disk's device, which is also its serial number.
pub(crate) fn disk_name(index: usize) -> String {
    format!("ringlet-disk{index}")
}

fn check_cpus(kvm: &Kvm, wanted: u32) -> Result<(), BuildError> {
    check_cpus_of_kernel(wanted)?;
    let max = kvm.get_max_vcpus();
    match wanted as usize <= max {
        true => Ok(()),
        false => Err(BuildError::TooManyCpus {
            wanted,
            max,
            by: "KVM on this host",
        }),
    }
}

/// Checks against what the guest kernel can do.
///
/// # Errors
///
/// [`BuildError::TooManyCpus`].
pub(crate) fn check_cpus_of_kernel(wanted: u32) -> Result<(), BuildError> {
    match wanted as usize <= MAX_CPUS {
        true => Ok(()),
        false => Err(BuildError::TooManyCpus {
            wanted,
            max: MAX_CPUS,
            by: "the guest kernel",
        }),
    }
}

/// LAPICs, IOAPIC and PIC in KVM.
fn create_interrupt_controllers(vm: &VmFd) -> Result<(), BuildError> {
    vm.set_tss_address(TSS_ADDRESS)
        .step("set the TSS address")?;
    vm.create_irq_chip()
        .step("create the interrupt controllers")?;
    // Interrupts go to the IOAPIC alone. The PIC, which KVM routes them to as well unless told, is
    // one more thing that a kernel would have to mask.
    let pins: Vec<_> = (0..IOAPIC_PINS)
        .map(|pin| {
            let mut entry = kvm_irq_routing_entry {
                gsi: pin,
                type_: KVM_IRQ_ROUTING_IRQCHIP,
                ..Default::default()
            };
            entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
            entry.u.irqchip.pin = pin;
            entry
        })
        .collect();
    let routing = KvmIrqRouting::from_entries(&pins)
        .map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
        .step("route the interrupts")?;
    vm.set_gsi_routing(&routing).step("route the interrupts")
}

/// The devices as they are plugged in: each gets the next address and pin.
struct Board<'a> {
    vm: &'a VmFd,
    memory: &'a Memory,
    bus: Bus,
    count: u32,
}

impl Board<'_> {
    /// Plugs `device` in; `connect` sees its transport before that.
    fn add<D: VirtioDevice + 'static>(
        &mut self,
        device: D,
        connect: impl FnOnce(&MmioTransport<D>) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let transport = MmioTransport::new(device, Arc::clone(self.memory))?;
        connect(&transport)?;
        let base = VIRTIO_BASE + u64::from(self.count) * VIRTIO_SIZE;
        let notify = IoEventAddress::Mmio(base + NOTIFY_OFFSET);
        for (queue, doorbell) in (0_u32..).zip(transport.doorbells()) {
            self.vm
                .register_ioevent(doorbell, &notify, queue)
                .step("register a doorbell")?;
        }
        self.vm
            .register_irqfd(&transport.interrupt().line(), VIRTIO_IRQ + self.count)
            .step("register an interrupt")?;
        self.bus.insert(base, VIRTIO_SIZE, Box::new(transport))?;
        self.count += 1;
        Ok(())
    }
}

fn add_console(
    board: &mut Board<'_>,
    config: &Config,
    events: &mut EventLoop,
    threads: &Threads,
) -> Result<ConsoleHandle, BuildError> {
    let streams = Streams {
        input: io::stdin().as_fd().try_clone_to_owned()?,
        output: io::stdout().as_fd().try_clone_to_owned()?,
        error: io::stderr().as_fd().try_clone_to_owned()?,
    };
    let size = Size {
        columns: config.process.size.columns,
        rows: config.process.size.rows,
    };
    let console = Console::new(streams, size, threads)?;
    let handle = console.handle();
    board.add(console, |transport| {
        subscribe(events, handle.control_queues(transport.doorbells())?);
        Ok(())
    })?;
    Ok(handle)
}

fn add_entropy(
    board: &mut Board<'_>,
    events: &mut EventLoop,
    metrics: &Metrics,
) -> Result<(), BuildError> {
    let entropy = Entropy::default();
    metrics.add_device(entropy.name(), entropy.statistics());
    board.add(entropy, |transport| {
        for doorbell in transport.doorbells() {
            subscribe(events, transport.device().subscriber(doorbell)?);
        }
        Ok(())
    })
}

fn subscribe(events: &mut EventLoop, subscriber: impl MutEventSubscriber + 'static) {
    events.add_subscriber(Box::new(subscriber));
}

/// Checks the kernel and loads it.
///
/// # Errors
///
/// [`BuildError::Kernel`].
pub(crate) fn load_kernel(
    config: &Config,
    memory: &GuestMemoryMmap,
) -> Result<kernel_image::LoadedKernel, BuildError> {
    let ram_end = config.memory.min(ringlet_abi::LOW_RAM_END);
    kernel_image::load(&config.kernel, memory, ram_end).map_err(|cause| BuildError::Kernel {
        path: config.kernel.clone(),
        cause,
    })
}

/// Says which file it is about, where it is about the image.
pub(crate) fn name_rootfs(config: &Config, cause: BootError) -> BuildError {
    match cause {
        BootError::Rootfs(_)
        | BootError::NotAFile
        | BootError::NotCpio
        | BootError::DoesNotFit { .. } => BuildError::Rootfs {
            path: config.rootfs.clone(),
            cause,
        },
        cause => BuildError::Boot(cause),
    }
}
