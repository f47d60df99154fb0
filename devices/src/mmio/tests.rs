//! The transport's registers and status state machine.

use std::sync::Mutex;

use super::*;
use crate::testing::{Driver, MEMORY_SIZE, memory, read32, write32};

/// A device that only notes what happens to it.
#[derive(Default)]
struct Probe {
    active: Arc<Mutex<Option<(u64, usize)>>>,
    refuses: bool,
}

impl VirtioDevice for Probe {
    fn device_type(&self) -> u32 {
        42
    }
    fn name(&self) -> &str {
        "probe"
    }
    fn features(&self) -> u64 {
        1 << 3 | 1 << 40
    }
    fn queue_sizes(&self) -> &[u16] {
        &[16, 8]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        crate::device::read_config_bytes(&[1, 2, 3, 4, 5], offset, data);
    }
    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::other("refused"));
        }
        let queues = activation.queues.iter().flatten().count();
        *self.active.lock().unwrap() = Some((activation.features, queues));
        Ok(())
    }
    fn reset(&mut self) {
        *self.active.lock().unwrap() = None;
    }
}

const STATUS: u64 = register::STATUS;
const NEEDS_RESET: u32 = 0x40;

fn transport() -> MmioTransport<Probe> {
    MmioTransport::new(Probe::default(), memory()).unwrap()
}

fn set_features(transport: &mut MmioTransport<Probe>, features: u64) {
    for (sel, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
        write32(transport, register::DRIVER_FEATURES_SEL, sel);
        write32(transport, register::DRIVER_FEATURES, half);
    }
}

/// Up to FEATURES_OK.
fn negotiated() -> MmioTransport<Probe> {
    let mut transport = transport();
    write32(&mut transport, STATUS, 3);
    set_features(&mut transport, 1 << VIRTIO_F_VERSION_1);
    write32(&mut transport, STATUS, 11);
    assert_eq!(read32(&mut transport, STATUS), 11);
    transport
}

fn set_up_queue(transport: &mut MmioTransport<Probe>, addresses: [u64; 3], size: u32) {
    write32(transport, register::QUEUE_SEL, 0);
    write32(transport, register::QUEUE_NUM, size);
    for (register, addr) in [0x80, 0x90, 0xa0].into_iter().zip(addresses) {
        write32(transport, register, addr as u32);
        write32(transport, register + 4, (addr >> 32) as u32);
    }
    write32(transport, register::QUEUE_READY, 1);
}

#[test]
fn the_device_is_what_it_says() {
    let mut transport = transport();
    assert_eq!(read32(&mut transport, 0), 0x7472_6976);
    assert_eq!(read32(&mut transport, 4), 2);
    assert_eq!(read32(&mut transport, 8), 42);
    for (sel, expected) in [
        (
            0,
            1 << 3 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC,
        ),
        (1, 1 << (VIRTIO_F_VERSION_1 - 32) | 1 << 8),
        (2, 0),
        (u32::MAX, 0),
    ] {
        write32(&mut transport, register::DEVICE_FEATURES_SEL, sel);
        assert_eq!(read32(&mut transport, register::DEVICE_FEATURES), expected);
    }
    for (queue, size) in [(0, 16), (1, 8), (2, 0), (u32::MAX, 0)] {
        write32(&mut transport, register::QUEUE_SEL, queue);
        assert_eq!(read32(&mut transport, register::QUEUE_NUM_MAX), size);
    }
    assert_eq!(read32(&mut transport, register::SHM_LEN_LOW), u32::MAX);
}

#[test]
fn configuration_is_read_in_any_size_and_ends_in_zeros() {
    let mut transport = transport();
    let mut bytes = [9; 8];
    transport.read(0x100, &mut bytes);
    assert_eq!(bytes, [1, 2, 3, 4, 5, 0, 0, 0]);
    let mut two = [9; 2];
    transport.read(0x103, &mut two);
    assert_eq!(two, [4, 5]);
    transport.read(u64::MAX, &mut two);
    assert_eq!(two, [0, 0]);
    transport.write(0x100, &[7]);
    transport.read(0x100, &mut two);
    assert_eq!(two, [1, 2]);
    // Registers are read as words.
    transport.read(0, &mut two);
    assert_eq!(two, [0, 0]);
}

#[test]
fn status_bits_come_in_order() {
    let mut transport = transport();
    for refused in [2, 8, 4, 0x20] {
        write32(&mut transport, STATUS, refused);
        assert_eq!(read32(&mut transport, STATUS), 0, "{refused}");
    }
    write32(&mut transport, STATUS, 1);
    write32(&mut transport, STATUS, 3);
    // Bits are not cleared but by a reset.
    write32(&mut transport, STATUS, 1);
    assert_eq!(read32(&mut transport, STATUS), 3);
    // DRIVER_OK without FEATURES_OK.
    write32(&mut transport, STATUS, 7);
    assert_eq!(read32(&mut transport, STATUS), 3);
    write32(&mut transport, STATUS, 0x83);
    assert_eq!(read32(&mut transport, STATUS), 0x83);
    write32(&mut transport, STATUS, 0);
    assert_eq!(read32(&mut transport, STATUS), 0);
}

#[test]
fn features_are_granted_only_if_offered_and_with_version_1() {
    let version_1 = 1 << VIRTIO_F_VERSION_1;
    for (features, granted) in [
        (version_1, true),
        (version_1 | 1 << 3 | 1 << 40, true),
        (0, false),
        (1 << 3, false),
        (version_1 | 1 << 4, false),
    ] {
        let mut transport = transport();
        write32(&mut transport, STATUS, 3);
        set_features(&mut transport, features);
        write32(&mut transport, STATUS, 11);
        assert_eq!(
            read32(&mut transport, STATUS) & 8 != 0,
            granted,
            "{features:#x}"
        );
    }
    // A feature beyond bit 63.
    let mut transport = transport();
    write32(&mut transport, STATUS, 3);
    set_features(&mut transport, version_1);
    write32(&mut transport, register::DRIVER_FEATURES_SEL, 2);
    write32(&mut transport, register::DRIVER_FEATURES, 1);
    write32(&mut transport, STATUS, 11);
    assert_eq!(read32(&mut transport, STATUS), 3);
}

#[test]
fn features_are_fixed_once_granted() {
    let mut transport = negotiated();
    set_features(&mut transport, 1 << VIRTIO_F_VERSION_1 | 1 << 3);
    write32(&mut transport, STATUS, 15);
    let active = *transport.device().active.lock().unwrap();
    assert_eq!(active, Some((1 << VIRTIO_F_VERSION_1, 0)));
}

#[test]
fn a_device_becomes_active_with_the_queues_that_are_ready_and_stops_at_reset() {
    let mut transport = negotiated();
    set_up_queue(&mut transport, [0x1000, 0x2000, 0x3000], 16);
    assert_eq!(read32(&mut transport, register::QUEUE_READY), 1);
    write32(&mut transport, STATUS, 15);
    assert_eq!(read32(&mut transport, STATUS), 15);
    let active = *transport.device().active.lock().unwrap();
    assert_eq!(active, Some((1 << VIRTIO_F_VERSION_1, 1)));
    // Too late to change anything.
    write32(&mut transport, register::QUEUE_READY, 0);
    assert_eq!(read32(&mut transport, register::QUEUE_READY), 1);
    write32(&mut transport, STATUS, 0);
    assert_eq!(*transport.device().active.lock().unwrap(), None);
    assert_eq!(read32(&mut transport, register::QUEUE_READY), 0);
}

#[test]
fn queues_are_set_up_between_features_and_driver_ok() {
    let mut transport = transport();
    write32(&mut transport, STATUS, 3);
    set_up_queue(&mut transport, [0x1000, 0x2000, 0x3000], 16);
    assert_eq!(read32(&mut transport, register::QUEUE_READY), 0);
}

#[test]
fn a_ready_queue_does_not_change() {
    let mut transport = negotiated();
    set_up_queue(&mut transport, [0x1000, 0x2000, 0x3000], 16);
    write32(&mut transport, 0x80, u32::MAX);
    write32(&mut transport, register::QUEUE_NUM, 3);
    write32(&mut transport, STATUS, 15);
    assert_eq!(read32(&mut transport, STATUS), 15);
}

#[test]
fn queues_that_make_no_sense_fail_the_device() {
    let end = MEMORY_SIZE as u64;
    for (addresses, size) in [
        ([0x1001, 0x2000, 0x3000], 16),
        ([0x1000, 0x2001, 0x3000], 16),
        ([0x1000, 0x2000, 0x3002], 16),
        ([0, 0x2000, 0x3000], 16),
        ([end - 16, 0x2000, 0x3000], 16),
        ([0x1000, end, 0x3000], 16),
        ([0x1000, 0x2000, u64::MAX - 3], 16),
        ([0x1000, 0x2000, 0x3000], 0),
        ([0x1000, 0x2000, 0x3000], 3),
        ([0x1000, 0x2000, 0x3000], 32),
        ([0x1000, 0x2000, 0x3000], 0x1_0010),
    ] {
        let mut transport = negotiated();
        set_up_queue(&mut transport, addresses, size);
        write32(&mut transport, STATUS, 15);
        let status = read32(&mut transport, STATUS);
        assert_eq!(status & NEEDS_RESET, NEEDS_RESET, "{addresses:x?} {size}");
        assert_eq!(*transport.device().active.lock().unwrap(), None);
        assert_eq!(read32(&mut transport, register::INTERRUPT_STATUS), 2);
        write32(&mut transport, STATUS, 0);
        assert_eq!(read32(&mut transport, STATUS), 0);
    }
}

#[test]
fn a_device_that_the_host_denies_needs_a_reset() {
    let probe = Probe {
        refuses: true,
        ..Probe::default()
    };
    let mut driver = Driver::started(probe, 0);
    assert!(driver.needs_reset());
}

#[test]
fn interrupts_are_raised_and_acknowledged() {
    let mut transport = transport();
    let interrupt = Arc::clone(transport.interrupt());
    interrupt.used_buffer();
    interrupt.config_changed();
    assert_eq!(interrupt.line().read().unwrap(), 2);
    assert_eq!(read32(&mut transport, register::INTERRUPT_STATUS), 3);
    write32(&mut transport, register::INTERRUPT_ACK, 1);
    assert_eq!(read32(&mut transport, register::INTERRUPT_STATUS), 2);
    assert_eq!(read32(&mut transport, register::CONFIG_GENERATION), 1);
}

#[test]
fn notifications_ring_their_queue() {
    let mut transport = transport();
    for queue in [1, 2, u32::MAX] {
        write32(&mut transport, register::QUEUE_NOTIFY, queue);
    }
    assert!(transport.doorbells()[0].read().is_err());
    assert_eq!(transport.doorbells()[1].read().unwrap(), 1);
}
