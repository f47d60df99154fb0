//! The block device driven as a guest would, well-behaved and hostile, with both engines.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::*;
use crate::testing::{BUFFERS, Buffer, Driver, MEMORY_SIZE, Random, hostile_chains};

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const UNTOUCHED: u8 = 0xee;

const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x100;
const DATA: u64 = BUFFERS + 0x1000;

const DISK_SIZE: u64 = 1 << 20;
const ENGINES: [EngineKind; 2] = [EngineKind::Auto, EngineKind::Threads];
const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;

/// An image file that is removed at the end.
struct Image(PathBuf);

impl Image {
    fn new(bytes: u64) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringlet-block-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        File::create(&path).unwrap().set_len(bytes).unwrap();
        Self(path)
    }

    fn patterned() -> Self {
        let image = Self::new(DISK_SIZE);
        fs::write(&image.0, pattern(DISK_SIZE as usize)).unwrap();
        image
    }

    fn open(&self, access: Access) -> Disk {
        Disk::open(&self.0, access).unwrap()
    }

    fn driver(&self, access: Access, engine: EngineKind, features: u64) -> Driver<Block> {
        Driver::started(block(self.open(access), engine), features)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn block(disk: Disk, engine: EngineKind) -> Block {
    let threads = Threads::unconfined();
    let block = Block::new("disk", disk, (engine, Limits::default()), &threads).unwrap();
    threads.await_confined().unwrap();
    block
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// Sends a request with the data buffers `data` and gives its status.
fn request(driver: &mut Driver<Block>, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&sector.to_le_bytes());
    driver.write(HEADER, &header);
    driver.write(STATUS, &[UNTOUCHED]);
    let mut chain = vec![Buffer::Readable(HEADER, 16)];
    chain.extend_from_slice(data);
    chain.push(Buffer::Writable(STATUS, 1));
    let head = driver.send(0, &chain);
    let (used, len) = driver.await_used(0);
    assert_eq!(used, head);
    (driver.bytes(STATUS, 1)[0], len)
}

fn range(driver: &Driver<Block>, sector: u64, sectors: u32, flags: u32) -> [Buffer; 1] {
    let mut range = sector.to_le_bytes().to_vec();
    range.extend_from_slice(&sectors.to_le_bytes());
    range.extend_from_slice(&flags.to_le_bytes());
    driver.write(DATA, &range);
    [Buffer::Readable(DATA, 16)]
}

#[test]
fn reads_and_writes_reach_the_file_however_they_are_aligned() {
    for engine in ENGINES {
        let image = Image::patterned();
        let expected = pattern(DISK_SIZE as usize);
        let mut driver = image.driver(Access::ReadWrite, engine, FLUSH);
        // Page-aligned, sector-aligned and odd buffers; one, two and three of them.
        for buffers in [
            vec![(DATA, 4096)],
            vec![(DATA + 512, 512)],
            vec![(DATA + 1, 512)],
            vec![(DATA + 3, 100), (DATA + 0x2000, 412)],
            vec![(DATA, 4096), (DATA + 0x4000, 4096), (DATA + 0x3000, 4096)],
        ] {
            let total: u32 = buffers.iter().map(|(_, len)| len).sum();
            let writable: Vec<_> = buffers
                .iter()
                .map(|(addr, len)| Buffer::Writable(*addr, *len))
                .collect();
            let answer = request(&mut driver, VIRTIO_BLK_T_IN, 3, &writable);
            assert_eq!(answer, (OK, total + 1), "{engine:?} {buffers:?}");
            let read: Vec<_> = buffers
                .iter()
                .flat_map(|(addr, len)| driver.bytes(*addr, *len as usize))
                .collect();
            assert_eq!(read, expected[3 * 512..][..total as usize]);

            let data: Vec<_> = pattern(total as usize).iter().map(|byte| !byte).collect();
            let mut rest = &data[..];
            for (addr, len) in &buffers {
                let (now, later) = rest.split_at(*len as usize);
                driver.write(*addr, now);
                rest = later;
            }
            let readable: Vec<_> = buffers
                .iter()
                .map(|(addr, len)| Buffer::Readable(*addr, *len))
                .collect();
            let answer = request(&mut driver, VIRTIO_BLK_T_OUT, 64, &readable);
            assert_eq!(answer, (OK, 1));
            let file = fs::read(&image.0).unwrap();
            assert_eq!(file[64 * 512..][..data.len()], data);
            assert_eq!(file[..64 * 512], expected[..64 * 512]);
        }
    }
}

#[test]
fn header_and_status_may_be_split_and_joined_with_data() {
    let image = Image::patterned();
    let mut driver = image.driver(Access::ReadOnly, EngineKind::Auto, FLUSH);
    driver.write(HEADER, &[0; 16]);
    let chain = [
        Buffer::Readable(HEADER, 3),
        Buffer::Readable(HEADER + 3, 13),
        Buffer::Writable(DATA, 500),
        Buffer::Writable(DATA + 500, 13),
    ];
    driver.send(0, &chain);
    assert_eq!(driver.await_used(0).1, 513);
    assert_eq!(driver.bytes(DATA, 512), pattern(512));
    assert_eq!(driver.bytes(DATA + 512, 1), [OK]);
}

#[test]
fn many_requests_are_in_flight_at_once() {
    for engine in ENGINES {
        let image = Image::patterned();
        let expected = pattern(DISK_SIZE as usize);
        let mut driver = image.driver(Access::ReadOnly, engine, FLUSH);
        let address = |slot: u64| BUFFERS + slot * 0x2000;
        for round in 0..50_u64 {
            for slot in 0..64 {
                let sector = (round * 64 + slot) * 7 % (DISK_SIZE / 512 - 8);
                let mut header = [0; 16];
                header[8..].copy_from_slice(&sector.to_le_bytes());
                driver.write(address(slot), &header);
                driver.write(address(slot) + 16, &[UNTOUCHED]);
                driver.send(
                    0,
                    &[
                        Buffer::Readable(address(slot), 16),
                        Buffer::Writable(address(slot) + 0x1000, 4096),
                        Buffer::Writable(address(slot) + 16, 1),
                    ],
                );
            }
            for _ in 0..64 {
                assert_eq!(driver.await_used(0).1, 4097);
            }
            for slot in 0..64 {
                let sector = (round * 64 + slot) * 7 % (DISK_SIZE / 512 - 8);
                let start = sector as usize * 512;
                assert_eq!(driver.bytes(address(slot) + 16, 1), [OK]);
                assert_eq!(
                    driver.bytes(address(slot) + 0x1000, 4096),
                    expected[start..start + 4096]
                );
            }
        }
    }
}

#[test]
fn requests_that_the_disk_cannot_serve_are_refused() {
    let image = Image::patterned();
    let sectors = DISK_SIZE / 512;
    let mut driver = image.driver(Access::ReadWrite, EngineKind::Auto, FLUSH);
    let data = [Buffer::Writable(DATA, 1024)];
    for sector in [sectors - 1, sectors, u64::MAX, u64::MAX / 512] {
        assert_eq!(
            request(&mut driver, VIRTIO_BLK_T_IN, sector, &data).0,
            IOERR
        );
    }
    assert_eq!(
        request(&mut driver, VIRTIO_BLK_T_IN, sectors - 2, &data).0,
        OK
    );
    let odd = [Buffer::Writable(DATA, 513)];
    assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 0, &odd).0, IOERR);
    assert_eq!(request(&mut driver, 99, 0, &[]).0, UNSUPP);
    assert_eq!(fs::read(&image.0).unwrap(), pattern(DISK_SIZE as usize));
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let image = Image::patterned();
    let mut driver = image.driver(Access::ReadOnly, EngineKind::Auto, FLUSH);
    assert_ne!(
        driver.transport.device().features() & 1 << VIRTIO_BLK_F_RO,
        0
    );
    let data = [Buffer::Readable(DATA, 512)];
    assert_eq!(request(&mut driver, VIRTIO_BLK_T_OUT, 0, &data).0, IOERR);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        let range = range(&driver, 0, 8, 0);
        assert_eq!(request(&mut driver, kind, 0, &range).0, IOERR);
    }
    assert_eq!(request(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[]).0, OK);
    assert_eq!(fs::read(&image.0).unwrap(), pattern(DISK_SIZE as usize));
}

#[test]
fn discard_and_write_zeroes_clear_their_range_only() {
    for engine in ENGINES {
        for (kind, flags) in [
            (VIRTIO_BLK_T_DISCARD, 0),
            (VIRTIO_BLK_T_WRITE_ZEROES, 0),
            (VIRTIO_BLK_T_WRITE_ZEROES, 1),
        ] {
            let image = Image::patterned();
            let mut driver = image.driver(Access::ReadWrite, engine, FLUSH);
            let data = range(&driver, 16, 32, flags);
            assert_eq!(request(&mut driver, kind, 0, &data).0, OK);
            let mut expected = pattern(DISK_SIZE as usize);
            expected[16 * 512..48 * 512].fill(0);
            assert!(
                fs::read(&image.0).unwrap() == expected,
                "{engine:?} {kind} {flags}"
            );

            let empty = range(&driver, 16, 0, flags);
            assert_eq!(request(&mut driver, kind, 0, &empty).0, OK);
            let outside = range(&driver, DISK_SIZE / 512 - 1, 2, flags);
            assert_eq!(request(&mut driver, kind, 0, &outside).0, IOERR);
            let unknown = range(&driver, 0, 1, 2);
            assert_eq!(request(&mut driver, kind, 0, &unknown).0, UNSUPP);
            assert!(fs::read(&image.0).unwrap() == expected);
        }
    }
}

#[test]
fn writes_are_durable_at_once_without_flush() {
    for engine in ENGINES {
        let image = Image::patterned();
        let mut driver = image.driver(Access::ReadWrite, engine, 0);
        driver.write(DATA, &[7; 512]);
        let data = [Buffer::Readable(DATA, 512)];
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_OUT, 5, &data).0, OK);
        let mut sector = [0; 512];
        File::open(&image.0)
            .unwrap()
            .read_exact_at(&mut sector, 5 * 512)
            .unwrap();
        assert_eq!(sector, [7; 512]);
    }
}

#[test]
fn the_serial_is_the_name() {
    let image = Image::new(512);
    let mut driver = image.driver(Access::ReadOnly, EngineKind::Auto, FLUSH);
    let data = [Buffer::Writable(DATA, 20)];
    assert_eq!(
        request(&mut driver, VIRTIO_BLK_T_GET_ID, 0, &data),
        (OK, 21)
    );
    assert_eq!(
        driver.bytes(DATA, 20),
        *b"disk\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    );
}

#[test]
fn a_file_that_was_truncated_gives_an_error() {
    for engine in ENGINES {
        let image = Image::patterned();
        let mut driver = image.driver(Access::ReadOnly, engine, FLUSH);
        File::options()
            .write(true)
            .open(&image.0)
            .unwrap()
            .set_len(4096)
            .unwrap();
        let data = [Buffer::Writable(DATA, 8192)];
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 0, &data).0, IOERR);
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 64, &data).0, IOERR);
        let data = [Buffer::Writable(DATA, 4096)];
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 0, &data).0, OK);
    }
}

#[test]
fn hostile_chains_stop_the_device_and_a_reset_starts_it() {
    for engine in ENGINES {
        for (name, send) in hostile_chains() {
            let image = Image::patterned();
            let mut driver = image.driver(Access::ReadWrite, engine, FLUSH);
            let before = driver.transport.interrupt().line().read();
            assert!(before.is_err(), "no interrupt yet");
            send(&mut driver, 0);
            driver.await_failure();
            assert!(driver.used(0).is_none(), "{name}");
            assert_eq!(driver.reg(0x60) & 2, 2, "{name}: configuration interrupt");
            driver.start(FLUSH);
            assert!(!driver.needs_reset());
            let data = [Buffer::Writable(DATA, 512)];
            assert_eq!(
                request(&mut driver, VIRTIO_BLK_T_IN, 0, &data).0,
                OK,
                "{name}"
            );
            assert!(
                fs::read(&image.0).unwrap() == pattern(DISK_SIZE as usize),
                "{name}"
            );
        }
    }
}

#[test]
fn random_queues_do_no_harm() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for engine in ENGINES {
        let image = Image::patterned();
        let mut driver = image.driver(Access::ReadWrite, engine, FLUSH);
        for round in 0..200 {
            // Headers that are requests, where descriptors may find them.
            for at in (0..0x10_0000).step_by(512) {
                let mut header = [0; 16];
                header[0] = random.below(16) as u8;
                header[8..10].copy_from_slice(&(random.below(4096) as u16).to_le_bytes());
                driver.write(BUFFERS + at, &header);
            }
            driver.scramble(0, &mut random);
            std::thread::sleep(std::time::Duration::from_micros(random.below(500)));
            driver.start(FLUSH);
            let data = [Buffer::Writable(DATA, 512)];
            assert_eq!(
                request(&mut driver, VIRTIO_BLK_T_IN, 0, &data).0,
                OK,
                "{round}"
            );
        }
        assert_eq!(fs::metadata(&image.0).unwrap().len(), DISK_SIZE);
    }
}

#[test]
fn requests_without_header_or_status_stop_the_device() {
    for chain in [
        &[Buffer::Readable(HEADER, 16)][..],
        &[Buffer::Writable(STATUS, 1)],
        &[Buffer::Readable(HEADER, 15), Buffer::Writable(STATUS, 1)],
        &[Buffer::Writable(STATUS, 1), Buffer::Writable(STATUS, 0)],
    ] {
        let image = Image::patterned();
        let mut driver = image.driver(Access::ReadWrite, EngineKind::Auto, FLUSH);
        driver.send(0, chain);
        driver.await_failure();
    }
}

#[test]
fn a_reset_in_the_middle_of_requests_waits_for_them() {
    let image = Image::patterned();
    let mut driver = image.driver(Access::ReadOnly, EngineKind::Auto, FLUSH);
    for _ in 0..20 {
        for slot in 0..32_u64 {
            driver.write(HEADER, &[0; 16]);
            driver.send(
                0,
                &[
                    Buffer::Readable(HEADER, 16),
                    Buffer::Writable(DATA + slot * 0x1_0000, 0x1_0000),
                    Buffer::Writable(STATUS, 1),
                ],
            );
        }
        driver.set_reg(0x70, 0);
        let end = MEMORY_SIZE as u64 - DATA;
        driver.write(DATA, &vec![0x55; end as usize]);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(
            driver
                .bytes(DATA, end as usize)
                .iter()
                .all(|byte| *byte == 0x55)
        );
        driver.start(FLUSH);
    }
}

/// Makes `io_uring_setup` fail with EPERM in this thread and those it starts, as container run-times
/// do.
fn deny_io_uring() {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0), // the number
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_io_uring_setup as u32,
        },
        statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its filter live over the calls, which copy them.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ),
        ]
    };
    assert_eq!(results, [0, 0]);
}

#[test]
fn without_io_uring_the_other_engine_serves() {
    // The filter cannot be taken off again: a thread of its own.
    let test = std::thread::spawn(|| {
        deny_io_uring();
        assert!(io_uring::IoUring::new(8).is_err());
        let image = Image::patterned();
        let mut driver = image.driver(Access::ReadWrite, EngineKind::Auto, FLUSH);
        let data = [Buffer::Writable(DATA, 4096)];
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 8, &data).0, OK);
        assert_eq!(driver.bytes(DATA, 4096), pattern(8192)[4096..]);
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[]).0, OK);
    });
    test.join().unwrap();
}

#[test]
fn bad_images_are_refused_and_left_alone() {
    let error = |image: &Image, access| Disk::open(&image.0, access).err();
    let empty = Image::new(0);
    assert!(matches!(
        error(&empty, Access::ReadWrite),
        Some(DiskError::Empty)
    ));
    let odd = Image::new(1000);
    assert!(matches!(
        error(&odd, Access::ReadOnly),
        Some(DiskError::OddSize(1000))
    ));
    let directory = Disk::open(&std::env::temp_dir(), Access::ReadOnly).err();
    assert!(matches!(directory, Some(DiskError::WrongKind("directory"))));
    let null = Disk::open("/dev/null".as_ref(), Access::ReadOnly).err();
    assert!(matches!(
        null,
        Some(DiskError::WrongKind("character device"))
    ));
    let missing = Disk::open("/does/not/exist".as_ref(), Access::ReadOnly).err();
    assert!(matches!(missing, Some(DiskError::Open(_))));
}

#[test]
fn writers_lock_out_everybody_and_readers_lock_out_writers() {
    let image = Image::new(512);
    let in_use = |access| matches!(Disk::open(&image.0, access), Err(DiskError::InUse));
    let writer = image.open(Access::ReadWrite);
    assert!(in_use(Access::ReadWrite) && in_use(Access::ReadOnly));
    drop(writer);
    let _reader = image.open(Access::ReadOnly);
    assert!(in_use(Access::ReadWrite) && !in_use(Access::ReadOnly));
}

/// A host file system that is full: its own mount, so as root only.
#[test]
fn a_full_host_file_system_is_reported_as_such() {
    use std::process::Command;
    let dir = std::env::temp_dir().join(format!("ringlet-full-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "ringlet-test"])
        .arg(&dir)
        .status()
        .unwrap();
    assert!(
        mounted.success(),
        "this test mounts a tmpfs and so needs root"
    );
    let path = dir.join("disk");
    File::create(&path).unwrap().set_len(DISK_SIZE).unwrap();
    let no_space = 1 << ringlet_abi::block::FEATURE_NOSPC;
    for engine in ENGINES {
        for (features, status) in [
            (FLUSH | no_space, ringlet_abi::block::STATUS_NOSPC),
            (FLUSH, IOERR),
        ] {
            let disk = Disk::open(&path, Access::ReadWrite).unwrap();
            let mut driver = Driver::started(block(disk, engine), features);
            let data = [Buffer::Readable(DATA, 0x4_0000)];
            assert_eq!(request(&mut driver, VIRTIO_BLK_T_OUT, 0, &data).0, status);
        }
    }
    assert!(Command::new("umount").arg(&dir).status().unwrap().success());
    fs::remove_dir(&dir).unwrap();
}

/// How long `count` reads of `bytes` take where these limits hold.
fn time_for(limits: Limits, engine: EngineKind, count: u32, bytes: u32) -> std::time::Duration {
    let image = Image::patterned();
    let threads = Threads::unconfined();
    let disk = image.open(Access::ReadOnly);
    let block = Block::new("disk", disk, (engine, limits), &threads).unwrap();
    threads.await_confined().unwrap();
    let mut driver = Driver::started(block, FLUSH);
    let start = std::time::Instant::now();
    for _ in 0..count {
        let data = [Buffer::Writable(DATA, bytes)];
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 0, &data).0, OK);
    }
    start.elapsed()
}

#[test]
fn limits_hold_after_a_burst_and_across_resets() {
    let number = std::num::NonZeroU64::new;
    for engine in ENGINES {
        let iops = Limits {
            iops: number(50),
            bps: None,
        };
        // The burst is a second's worth; what is beyond takes 20 ms each.
        let elapsed = time_for(iops, engine, 61, 512);
        assert!(elapsed.as_millis() >= 190, "{engine:?}: {elapsed:?}");
        let bps = Limits {
            iops: None,
            bps: number(1 << 20),
        };
        let elapsed = time_for(bps, engine, 5, 1 << 18);
        // All of the burst and a quarter, which the one behind it would wait for.
        assert!(elapsed.as_millis() < 30_000, "{engine:?}: {elapsed:?}");
        let elapsed = time_for(bps, engine, 6, 1 << 18);
        assert!(elapsed.as_millis() >= 240, "{engine:?}: {elapsed:?}");
    }
}

#[test]
fn a_reset_does_not_fill_the_buckets_and_is_not_held_up_by_them() {
    for engine in ENGINES {
        let image = Image::patterned();
        let limits = Limits {
            iops: std::num::NonZeroU64::new(1),
            bps: None,
        };
        let threads = Threads::unconfined();
        let disk = image.open(Access::ReadOnly);
        let block = Block::new("disk", disk, (engine, limits), &threads).unwrap();
        let mut driver = Driver::started(block, FLUSH);
        let data = [Buffer::Writable(DATA, 512)];
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 0, &data).0, OK);
        let start = std::time::Instant::now();
        // Three that wait for their second, and are never served.
        for _ in 0..3 {
            driver.write(HEADER, &[0; 16]);
            driver.send(
                0,
                &[
                    Buffer::Readable(HEADER, 16),
                    data[0],
                    Buffer::Writable(STATUS, 1),
                ],
            );
        }
        driver.start(FLUSH);
        assert!(start.elapsed().as_millis() < 900, "{engine:?}");
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 0, &data).0, OK);
        assert!(start.elapsed().as_millis() > 500, "{engine:?}");
    }
}
