//! `--metrics`: counters of a VM in Prometheus' text format.
//!
//! What is counted stands in the order of where it happens: exits of the vCPUs, requests of the devices,
//! memory. [`server`] writes it to a file, or answers those who connect to a socket.

pub mod server;

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use ringlet_devices::Statistics;
use ringlet_devices::statistics::{Counter, LATENCY_BOUNDS};

/// Why a vCPU left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A write to a device's registers.
    MmioWrite,
    /// A read of a device's registers.
    MmioRead,
    /// An `out`.
    IoOut,
    /// An `in`.
    IoIn,
    /// A signal to the vCPU's thread, or nothing at all.
    Interrupted,
    /// The debugger.
    Debug,
    /// Anything else, which mostly ends the VM.
    Other,
}

const EXITS: [(Exit, &str); 7] = [
    (Exit::MmioWrite, "mmio_write"),
    (Exit::MmioRead, "mmio_read"),
    (Exit::IoOut, "io_out"),
    (Exit::IoIn, "io_in"),
    (Exit::Interrupted, "interrupted"),
    (Exit::Debug, "debug"),
    (Exit::Other, "other"),
];

/// A device's counters, and its name.
type Device = (String, Arc<Statistics>);

/// What is counted of a VM.
#[derive(Default)]
pub struct Metrics {
    exits: [Counter; EXITS.len()],
    /// Blocks of guest memory that were given back to the host, in bytes.
    pub released_bytes: Counter,
    devices: Mutex<Vec<Device>>,
    guest_memory: Counter,
    /// `/proc/self/statm`, opened while it can be.
    statm: Mutex<Option<File>>,
}

impl Metrics {
    /// Counts an exit.
    pub fn count_exit(&self, exit: Exit) {
        self.exits[exit as usize].add(1);
    }

    /// Takes up a device.
    pub fn add_device(&self, name: &str, statistics: &Arc<Statistics>) {
        let device = (name.to_owned(), Arc::clone(statistics));
        self.lock_devices().push(device);
    }

    /// Says how large guest memory is, in bytes.
    pub fn set_guest_memory(&self, size: u64) {
        self.guest_memory.add(size);
    }

    /// Opens what is needed to find out more later.
    pub fn open(&self) {
        let statm = File::open("/proc/self/statm").ok();
        *self.statm.lock().unwrap_or_else(PoisonError::into_inner) = statm;
    }

    fn lock_devices(&self) -> std::sync::MutexGuard<'_, Vec<Device>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of this process that are in memory, if that can be found out.
    fn resident_bytes(&self) -> Option<u64> {
        let statm = self.statm.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = [0; 128];
        let length = statm.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = str::from_utf8(&text[..length]).ok()?;
        let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(pages * 4096)
    }

    /// All of it in Prometheus' text format.
    pub fn render(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Snapshot(Arc::clone(self))));
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

/// The metrics as the encoder asks for them.
struct Snapshot(Arc<Metrics>);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

/// A counter of a device: name, help, unit, and where it stands.
type DeviceCounter = (
    &'static str,
    &'static str,
    Option<Unit>,
    &'static [(&'static str, fn(&Statistics) -> &Counter)],
);

const DEVICE_COUNTERS: [DeviceCounter; 4] = [
    (
        "ringlet_device_requests",
        "Requests of the guest to a device",
        None,
        &[
            ("read", |statistics| &statistics.reads),
            ("write", |statistics| &statistics.writes),
            ("other", |statistics| &statistics.others),
        ],
    ),
    (
        "ringlet_device_errors",
        "Requests of the guest that failed",
        None,
        &[("any", |statistics| &statistics.errors)],
    ),
    (
        "ringlet_device",
        "Bytes that the guest got (read) or gave (write)",
        Some(Unit::Bytes),
        &[
            ("read", |statistics| &statistics.read_bytes),
            ("write", |statistics| &statistics.written_bytes),
        ],
    ),
    (
        "ringlet_ring_operations",
        "What was done with the host's io_uring for a device",
        None,
        &[
            ("enter", |statistics| &statistics.ring_enters),
            ("submission", |statistics| &statistics.ring_submissions),
            ("completion", |statistics| &statistics.ring_completions),
        ],
    ),
];

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics = &self.0;
        let mut exits = encoder.encode_descriptor(
            "ringlet_vcpu_exits",
            "Exits of virtual CPUs to the VMM",
            None,
            MetricType::Counter,
        )?;
        for ((_, kind), count) in EXITS.iter().zip(&metrics.exits) {
            let labels = [("kind", *kind)];
            ConstCounter::new(count.get()).encode(exits.encode_family(&labels)?)?;
        }
        let devices = metrics.lock_devices();
        for (name, help, unit, kinds) in &DEVICE_COUNTERS {
            let mut family =
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for (device, statistics) in &*devices {
                for (kind, counter) in *kinds {
                    let labels = [("device", device.as_str()), ("kind", kind)];
                    let count = ConstCounter::new(counter(statistics).get());
                    count.encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let mut latencies = encoder.encode_descriptor(
            "ringlet_device_latency",
            "From when a device takes a request to when it gives it back",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (device, statistics) in &*devices {
            let labels = [("device", device.as_str())];
            encode_latencies(statistics, latencies.encode_family(&labels)?)?;
        }
        drop(devices);
        let mut gauge = |name: &str, help: &str, value: u64| {
            let encoder =
                encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
            ConstGauge::new(value as i64).encode(encoder)
        };
        gauge(
            "ringlet_guest_memory",
            "Memory of the guest, used or not",
            metrics.guest_memory.get(),
        )?;
        if let Some(resident) = metrics.resident_bytes() {
            let help = "Memory of this process, with the guest's, that is resident";
            gauge("ringlet_resident_memory", help, resident)?;
        }
        let released = encoder.encode_descriptor(
            "ringlet_released_memory",
            "Free memory of the guest that was given back to the host",
            Some(&Unit::Bytes),
            MetricType::Counter,
        )?;
        ConstCounter::new(metrics.released_bytes.get()).encode(released)
    }
}

fn encode_latencies(
    statistics: &Statistics,
    mut encoder: MetricEncoder<'_>,
) -> Result<(), fmt::Error> {
    let classes = statistics.latencies.classes();
    let bounds = LATENCY_BOUNDS.iter().map(|bound| *bound as f64 / 1e6);
    let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(classes).collect();
    let sum = statistics.latencies.sum().as_secs_f64();
    let none: Option<&std::collections::HashMap<usize, _>> = None;
    encoder.encode_histogram::<NoLabelSet>(sum, classes.iter().sum(), &buckets, none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_was_counted_is_told() {
        let metrics = Arc::<Metrics>::default();
        metrics.set_guest_memory(1 << 20);
        metrics.open();
        metrics.count_exit(Exit::MmioWrite);
        let disk = Arc::<Statistics>::default();
        metrics.add_device("disk", &disk);
        disk.reads.add(3);
        disk.read_bytes.add(12_288);
        disk.latencies.note(Duration::from_micros(70));
        let text = metrics.render();
        for line in [
            "ringlet_vcpu_exits_total{kind=\"mmio_write\"} 1",
            "ringlet_device_requests_total{device=\"disk\",kind=\"read\"} 3",
            "ringlet_device_bytes_total{device=\"disk\",kind=\"read\"} 12288",
            "ringlet_device_latency_seconds_count{device=\"disk\"} 1",
            "ringlet_device_latency_seconds_bucket{le=\"0.0001\",device=\"disk\"} 1",
            "ringlet_device_latency_seconds_bucket{le=\"+Inf\",device=\"disk\"} 1",
            "ringlet_guest_memory_bytes 1048576",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(metrics.resident_bytes().unwrap() > 1 << 20);
    }
}
