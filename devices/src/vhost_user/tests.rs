//! A block device behind a vhost-user socket, driven by a front-end as QEMU's.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, FileOffset, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::tempfile::TempFile;

use super::*;
use crate::block::{Access, Block, Disk, EngineKind, Limits};
use crate::testing::{DEADLINE, RawDescriptor, write_descriptor};

const SIZE: u64 = 1 << 20;
/// Where the front-end pretends to have guest memory.
const MAPPED: u64 = 0x7f00_0000_0000;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const HEADER: u64 = 0x4000;
const STATUS: u64 = 0x4100;
const DATA: u64 = 0x5000;
const ENTRIES: u16 = 16;
const PROTOCOL: u64 = 1 << 30;

struct Bench {
    frontend: Frontend,
    ram: TempFile,
    memory: GuestMemoryMmap,
    doorbell: EventFd,
    line: EventFd,
    available: u16,
    _worker: Worker,
}

impl Bench {
    fn new(image: &TempFile) -> Self {
        let disk = Disk::open(image.as_path(), Access::ReadWrite).unwrap();
        let threads = Threads::unconfined();
        let block = Block::new(
            "disk",
            disk,
            (EngineKind::Auto, Limits::default()),
            &threads,
        )
        .unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let worker = VhostUser::serve(block, 1 << 63, theirs, &threads).unwrap();
        let ram = TempFile::new().unwrap();
        ram.as_file().set_len(SIZE).unwrap();
        let file = FileOffset::new(ram.as_file().try_clone().unwrap(), 0);
        let range = (GuestAddress(0), SIZE as usize, Some(file));
        let mut bench = Self {
            frontend: Frontend::from_stream(ours, 1),
            ram,
            memory: GuestMemoryMmap::from_ranges_with_files([range]).unwrap(),
            doorbell: EventFd::new(EFD_NONBLOCK).unwrap(),
            line: EventFd::new(EFD_NONBLOCK).unwrap(),
            available: 0,
            _worker: worker,
        };
        bench.negotiate();
        bench
    }

    fn negotiate(&mut self) {
        let offered = self.frontend.get_features().unwrap();
        let accepted = 1 << VIRTIO_F_VERSION_1 | PROTOCOL;
        assert_eq!(offered & accepted, accepted);
        let protocol = self.frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK;
        assert!(protocol.contains(wanted));
        self.frontend.set_protocol_features(wanted).unwrap();
        self.frontend.set_owner().unwrap();
        self.frontend.set_features(accepted).unwrap();
    }

    fn memory_table(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: SIZE,
            userspace_addr: MAPPED,
            mmap_offset: 0,
            mmap_handle: self.ram.as_file().as_raw_fd(),
        }
    }

    fn rings(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: ENTRIES,
            queue_size: ENTRIES,
            flags: 0,
            desc_table_addr: MAPPED + DESCRIPTORS,
            used_ring_addr: MAPPED + USED,
            avail_ring_addr: MAPPED + AVAILABLE,
            log_addr: None,
        }
    }

    /// Starts the ring where `base` says.
    fn start(&mut self, base: u16) {
        self.frontend.set_mem_table(&[self.memory_table()]).unwrap();
        self.frontend.set_vring_num(0, ENTRIES).unwrap();
        self.frontend.set_vring_base(0, base).unwrap();
        self.frontend.set_vring_addr(0, &self.rings()).unwrap();
        self.frontend.set_vring_kick(0, &self.doorbell).unwrap();
        self.frontend.set_vring_enable(0, true).unwrap();
        // QEMU says last where interrupts go.
        self.frontend.set_vring_call(0, &self.line).unwrap();
    }

    /// Makes a request of 512 bytes available, without waiting for it.
    fn send(&mut self, kind: u32, sector: u64) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        let address = GuestAddress(HEADER);
        self.memory.write_slice(&header, address).unwrap();
        self.memory
            .write_obj(0xff_u8, GuestAddress(STATUS))
            .unwrap();
        let (next, write) = (VRING_DESC_F_NEXT as u16, VRING_DESC_F_WRITE as u16);
        let data = if kind == 0 { write } else { 0 };
        for (index, (addr, len, flags)) in [
            (HEADER, 16, next),
            (DATA, 512, next | data),
            (STATUS, 1, write),
        ]
        .into_iter()
        .enumerate()
        {
            let descriptor = RawDescriptor {
                addr,
                len,
                flags,
                next: index as u16 + 1,
            };
            write_descriptor(&self.memory, DESCRIPTORS + 16 * index as u64, descriptor);
        }
        let slot = AVAILABLE + 4 + 2 * u64::from(self.available % ENTRIES);
        self.memory.write_obj(0_u16, GuestAddress(slot)).unwrap();
        self.available = self.available.wrapping_add(1);
        let index = GuestAddress(AVAILABLE + 2);
        self.memory
            .store(self.available, index, Ordering::Release)
            .unwrap();
        self.doorbell.write(1).unwrap();
    }

    fn used(&self) -> u16 {
        let index = GuestAddress(USED + 2);
        self.memory.load(index, Ordering::Acquire).unwrap()
    }

    /// Carries out a request and gives its status.
    fn request(&mut self, kind: u32, sector: u64) -> u8 {
        self.send(kind, sector);
        let start = Instant::now();
        while self.used() != self.available {
            assert!(start.elapsed() < DEADLINE, "the request is not done");
            std::thread::yield_now();
        }
        self.memory.read_obj(GuestAddress(STATUS)).unwrap()
    }

    fn data(&self) -> Vec<u8> {
        let mut data = vec![0; 512];
        self.memory
            .read_slice(&mut data, GuestAddress(DATA))
            .unwrap();
        data
    }
}

fn image() -> TempFile {
    let image = TempFile::new().unwrap();
    let bytes: Vec<u8> = (0..64_u8).flat_map(|sector| [sector; 512]).collect();
    fs::write(image.as_path(), bytes).unwrap();
    image
}

#[test]
fn requests_are_served_and_interrupt() {
    let image = image();
    let mut bench = Bench::new(&image);
    let flags = VhostUserConfigFlags::empty();
    let (_, config) = bench.frontend.get_config(0, 60, flags, &[0; 60]).unwrap();
    assert_eq!(config[..8], 64_u64.to_le_bytes());
    bench.start(0);
    assert_eq!(bench.request(0, 7), 0);
    assert_eq!(bench.data(), [7; 512]);
    bench
        .memory
        .write_slice(&[9; 512], GuestAddress(DATA))
        .unwrap();
    assert_eq!(bench.request(1, 3), 0);
    assert_eq!(
        fs::read(image.as_path()).unwrap()[3 * 512..4 * 512],
        [9; 512]
    );
    let start = Instant::now();
    while bench.line.read().is_err() {
        assert!(start.elapsed() < DEADLINE, "no interrupt");
        std::thread::yield_now();
    }
}

#[test]
fn a_stopped_ring_goes_on_where_it_was() {
    let image = image();
    let mut bench = Bench::new(&image);
    bench.start(0);
    for sector in 0..5 {
        assert_eq!(bench.request(0, sector), 0);
    }
    for round in 0..20 {
        bench.send(0, round);
        bench.frontend.set_vring_enable(0, false).unwrap();
        let base = bench.frontend.get_vring_base(0).unwrap() as u16;
        // Whether it was taken or not: what was taken has been given back.
        assert_eq!(base, bench.used());
        assert!(bench.available - base <= 1);
        bench.start(base);
        let start = Instant::now();
        while bench.used() != bench.available {
            assert!(start.elapsed() < DEADLINE, "the request is lost");
            std::thread::yield_now();
        }
        assert_eq!(bench.data(), [round as u8; 512]);
    }
}

#[test]
fn rings_that_are_nowhere_are_refused() {
    let image = image();
    let mut bench = Bench::new(&image);
    bench
        .frontend
        .set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert!(bench.frontend.set_features(1 << 60).is_err());
    let accepted = 1 << VIRTIO_F_VERSION_1 | PROTOCOL;
    bench.frontend.set_features(accepted).unwrap();
    assert!(bench.frontend.set_vring_addr(0, &bench.rings()).is_err());
    bench
        .frontend
        .set_mem_table(&[bench.memory_table()])
        .unwrap();
    let mut rings = bench.rings();
    rings.used_ring_addr = MAPPED + SIZE;
    assert!(bench.frontend.set_vring_addr(0, &rings).is_err());
    assert!(bench.frontend.set_vring_num(0, 512).is_err());
    // It is still there.
    bench.start(0);
    assert_eq!(bench.request(0, 1), 0);
}
