//! Random numbers: a ChaCha20 generator with fast key erasure, seeded by the host.
//!
//! Every call turns the key into a stream of which the first bytes become the next key, so that what
//! was given out cannot be found from what the memory holds later
//! (Bernstein, "Fast-key-erasure random-number generators", 2017).

use alloc::boxed::Box;
use alloc::vec::Vec;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use machine::clock;
use machine::lock::Mutex;

/// Bytes of a seed.
pub const SEED: usize = 32;

/// What gives seeds, asked for one at a time: a device of the host.
pub trait SeedSource: Send {
    /// Asks for a seed, unless one is on its way.
    fn request(&mut self);

    /// The bytes that have come, up to [`SEED`] of them; `None` if none have.
    fn take(&mut self) -> Option<Vec<u8>>;
}

/// Nanoseconds to wait for the first seed.
const FIRST_SEED_TIMEOUT: u64 = 1_000_000_000;
/// Nanoseconds between seeds, as in Linux.
const RESEED_INTERVAL: u64 = 60_000_000_000;

struct Generator {
    key: [u8; SEED],
    source: Option<Box<dyn SeedSource>>,
    is_seeded: bool,
    next_seed: u64,
}

static GENERATOR: Mutex<Generator> = Mutex::new(Generator {
    key: [0; SEED],
    source: None,
    is_seeded: false,
    next_seed: 0,
});

/// Makes `source` what gives seeds.
pub fn set_source(source: Box<dyn SeedSource>) {
    GENERATOR.lock().source = Some(source);
}

/// Fills `out` with random bytes that are fit for keys.
///
/// The first call waits for the host's seed, for a second at most. Without one, and the kernel
/// says so, there are only the clocks and the CPU's own generator to start from.
pub fn fill_random(out: &mut [u8]) {
    GENERATOR.lock().fill(out);
}

impl Generator {
    fn fill(&mut self, out: &mut [u8]) {
        self.seed();
        let mut stream = self.stream();
        stream.fill_bytes(&mut self.key);
        stream.fill_bytes(out);
    }

    /// What the key gives. Its first bytes must become the next key.
    fn stream(&self) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.key)
    }

    fn seed(&mut self) {
        let now = clock::monotonic();
        if !self.is_seeded {
            self.is_seeded = true;
            self.seed_first(now);
        } else if now >= self.next_seed
            && let Some(source) = &mut self.source
        {
            // It is taken in a later call, whenever it has come.
            source.request();
            if let Some(seed) = source.take() {
                self.mix(&seed);
                self.next_seed = now + RESEED_INTERVAL;
            }
        }
    }

    fn seed_first(&mut self, now: u64) {
        self.mix(&now.to_le_bytes());
        self.mix(&clock::realtime().to_le_bytes());
        for _ in 0..SEED / 8 {
            self.mix(&machine::hardware_random().unwrap_or(0).to_le_bytes());
        }
        while let Some(source) = &mut self.source {
            if let Some(seed) = source.take() {
                self.mix(&seed);
                self.next_seed = now + RESEED_INTERVAL;
                return;
            }
            if clock::monotonic() >= now + FIRST_SEED_TIMEOUT {
                break;
            }
            core::hint::spin_loop();
        }
        log::warn!("no seed from the host: random numbers depend on the CPU's generator alone");
    }

    /// Makes the key depend on `bytes` too.
    fn mix(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(SEED) {
            for (key, byte) in self.key.iter_mut().zip(chunk) {
                *key ^= byte;
            }
            self.stream().fill_bytes(&mut self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicUsize, Ordering};

    fn generator(seed: &[u8]) -> Generator {
        let mut generator = Generator {
            key: [0; SEED],
            source: None,
            is_seeded: true,
            next_seed: u64::MAX,
        };
        generator.mix(seed);
        generator
    }

    #[test]
    fn output_depends_on_every_bit_of_the_seed_and_never_repeats() {
        let stream = |seed: &[u8]| {
            let mut generator = generator(seed);
            let mut all = Vec::new();
            for length in [1, 32, 33, 200, 32] {
                let mut out = alloc::vec![0; length];
                generator.fill(&mut out);
                all.push(out);
            }
            all
        };
        let base = stream(&[0; SEED]);
        assert_eq!(base, stream(&[0; SEED]));
        assert_ne!(base[1], base[4]);
        for bit in [0, 100, 255] {
            let mut seed = [0; SEED];
            seed[bit / 8] ^= 1 << (bit % 8);
            let other = stream(&seed);
            assert!(base.iter().zip(&other).all(|(a, b)| a.len() < 32 || a != b));
        }
        let ones: u32 = base[3].iter().map(|byte| byte.count_ones()).sum();
        assert!((600..1000).contains(&ones), "{ones} of 1600 bits are set");
    }

    /// Gives a seed for each time that it was asked, and counts them.
    struct Source {
        asked: bool,
        given: Arc<AtomicUsize>,
    }

    impl SeedSource for Source {
        fn request(&mut self) {
            self.asked = true;
        }

        fn take(&mut self) -> Option<Vec<u8>> {
            core::mem::take(&mut self.asked).then(|| {
                self.given.fetch_add(1, Ordering::Relaxed);
                alloc::vec![7; SEED]
            })
        }
    }

    #[test]
    fn the_source_gives_the_first_seed_and_more_later() {
        let given = Arc::new(AtomicUsize::new(0));
        let count = || given.load(Ordering::Relaxed);
        let mut generator = generator(&[]);
        generator.source = Some(Box::new(Source {
            asked: true,
            given: given.clone(),
        }));
        generator.is_seeded = false;
        generator.fill(&mut [0; 8]);
        assert_eq!(count(), 1);
        assert!(generator.next_seed > clock::monotonic());
        generator.fill(&mut [0; 8]);
        assert_eq!(count(), 1, "too early for another");
        generator.next_seed = 0;
        let key = generator.key;
        generator.seed();
        assert_eq!(count(), 2);
        assert_ne!(generator.key, key);
        assert!(generator.next_seed > clock::monotonic());
    }

    #[test]
    fn without_a_source_the_first_call_does_not_hang() {
        let mut generator = generator(&[]);
        generator.is_seeded = false;
        generator.fill(&mut [0; 8]);
        assert!(generator.is_seeded);
    }
}
