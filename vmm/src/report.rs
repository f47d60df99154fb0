//! `--report` and `--missing`: what is known of a VM when it has ended, as JSON.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use crate::missing::Missing;
use crate::outcome::Outcome;
use crate::timeline::Timeline;

/// A file of the user's cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{option} {}: {cause}; name a file that can be written", .path.display())]
pub struct CannotWrite {
    option: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl CannotWrite {
    /// `option` names `path`.
    pub fn new(option: &'static str, path: &Path, cause: io::Error) -> Self {
        Self {
            option,
            path: path.to_owned(),
            cause,
        }
    }
}

/// A file for one JSON value, opened before the VM runs and written when it has ended.
pub struct JsonFile {
    option: &'static str,
    path: PathBuf,
    file: File,
}

impl JsonFile {
    /// Creates the file that `option` names, or empties it.
    ///
    /// # Errors
    ///
    /// [`CannotWrite`].
    pub fn create(option: &'static str, path: &Path) -> Result<Self, CannotWrite> {
        match File::create(path) {
            Ok(file) => Ok(Self {
                option,
                path: path.to_owned(),
                file,
            }),
            Err(cause) => Err(CannotWrite::new(option, path, cause)),
        }
    }

    /// Writes `value`.
    ///
    /// # Errors
    ///
    /// [`CannotWrite`].
    pub fn write(mut self, value: &impl Serialize) -> Result<(), CannotWrite> {
        let written = serde_json::to_vec(value)
            .map_err(io::Error::from)
            .and_then(|mut bytes| {
                bytes.push(b'\n');
                self.file.write_all(&bytes)
            });
        written.map_err(|cause| CannotWrite {
            option: self.option,
            path: self.path,
            cause,
        })
    }
}

/// What `--report` tells.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// The exit status of `ringlet run`.
    pub status: u8,
    /// The signal that ended the program or Ringlet.
    pub signal: Option<u8>,
    /// What Ringlet says of an end that is not the program's own.
    pub error: Option<String>,
    /// Milliseconds from Ringlet's start to each stage that was reached.
    #[serde(serialize_with = "serialize_stages")]
    pub timeline: &'a Timeline,
    /// `ring0` or `shared`, once the kernel has chosen.
    pub mode: Option<&'static str>,
    /// `kvm` or `tcg`, once it was chosen.
    pub accel: Option<&'static str>,
    /// Milliseconds since Ringlet's start.
    pub wall_ms: f64,
    /// Milliseconds of CPU time, of Ringlet with the guest.
    pub cpu_ms: f64,
    /// The most memory that was resident, of Ringlet with the guest, in KiB.
    pub max_rss_kib: u64,
    /// What the program asked for and the guest kernel does not have.
    pub missing: &'a [Missing],
    /// Faults that were injected into io_uring.
    pub faults: [(); 0],
}

impl<'a> Report<'a> {
    /// The report on a VM that ended so, or on none where there is no outcome but an `error`.
    pub fn new(
        outcome: Option<&Outcome>,
        (status, error): (u8, Option<String>),
        (timeline, start): (&'a Timeline, Instant),
        accel: Option<&'static str>,
        missing: &'a [Missing],
    ) -> Self {
        let usage = [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN].map(usage);
        Self {
            status,
            signal: outcome.and_then(Outcome::signal),
            error,
            timeline,
            mode: timeline.mode_name(),
            accel,
            wall_ms: milliseconds(start.elapsed()),
            cpu_ms: usage.iter().map(|usage| milliseconds(usage.cpu)).sum(),
            max_rss_kib: usage
                .iter()
                .map(|usage| usage.max_rss_kib)
                .max()
                .unwrap_or(0),
            missing,
            faults: [],
        }
    }
}

fn serialize_stages<S: Serializer>(timeline: &&Timeline, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        timeline
            .stages()
            .map(|(name, elapsed)| (name, milliseconds(elapsed))),
    )
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are all that means anything.
    duration.as_micros() as f64 / 1e3
}

struct Usage {
    cpu: Duration,
    max_rss_kib: u64,
}

/// What this process (`RUSAGE_SELF`) or its children that have ended have used.
fn usage(who: libc::c_int) -> Usage {
    // SAFETY: all-zero bytes are a valid rusage: it is integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: getrusage writes a rusage. With these arguments it does not fail.
    unsafe { libc::getrusage(who, &raw mut usage) };
    let time = |time: libc::timeval| {
        Duration::new(
            time.tv_sec.try_into().unwrap_or(0),
            u32::try_from(time.tv_usec).unwrap_or(0) * 1000,
        )
    };
    Usage {
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss.try_into().unwrap_or(0),
    }
}
