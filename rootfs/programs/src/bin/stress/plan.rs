//! How long checks go on, and chance: what `--seconds` and `--seed` say.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

static DURATION: OnceLock<Duration> = OnceLock::new();
static SEED: OnceLock<u64> = OnceLock::new();

/// Takes the value of `--seconds`, which may have a fraction.
pub(crate) fn take_seconds(value: OsString) -> Result<(), lexopt::Error> {
    let seconds = value.string()?.parse::<f64>().map_err(custom)?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(custom)?;
    DURATION.get_or_init(|| duration);
    Ok(())
}

/// Takes the value of `--seed`.
pub(crate) fn take_seed(value: OsString) -> Result<(), lexopt::Error> {
    let seed = value.string()?.parse().map_err(custom)?;
    SEED.get_or_init(|| seed);
    Ok(())
}

fn custom(error: impl std::error::Error + Send + Sync + 'static) -> lexopt::Error {
    lexopt::Error::Custom(Box::new(error))
}

use lexopt::ValueExt;

/// How long each check goes on.
pub(crate) fn duration() -> Duration {
    *DURATION.get_or_init(|| Duration::from_secs(1))
}

/// The seed, which is printed when it is first asked for.
fn seed() -> u64 {
    static PRINTED: OnceLock<u64> = OnceLock::new();
    *PRINTED.get_or_init(|| {
        let seed = *SEED.get_or_init(|| {
            let time = SystemTime::UNIX_EPOCH.elapsed();
            time.map_or(0, |time| time.as_nanos() as u64 % 1_000_000_007)
        });
        println!("seed {seed}");
        seed
    })
}

/// A sequence of chance of its own (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// The sequence that belongs to `place`, the same for the same seed.
    pub(crate) fn of(place: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed(), place).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Computes for a moment: up to some microseconds.
    pub(crate) fn pause(&mut self) {
        for _ in 0..self.below(2000) {
            std::hint::spin_loop();
        }
    }
}
