//! Random numbers: a ChaCha20 generator with fast key erasure, seeded by the host.
//!
//! Every call turns the key into a stream of which the first block's first half becomes the next
//! key, so that what was given out cannot be found from what the memory holds later
//! (Bernstein, "Fast-key-erasure random-number generators", 2017).

use alloc::boxed::Box;
use alloc::vec::Vec;
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

const KEY_WORDS: usize = SEED / 4;
const BLOCK: usize = 64;

/// Nanoseconds to wait for the first seed.
const FIRST_SEED_TIMEOUT: u64 = 1_000_000_000;
/// Nanoseconds between seeds, as in Linux.
const RESEED_INTERVAL: u64 = 60_000_000_000;

struct Generator {
    key: [u32; KEY_WORDS],
    source: Option<Box<dyn SeedSource>>,
    is_seeded: bool,
    next_seed: u64,
}

static GENERATOR: Mutex<Generator> = Mutex::new(Generator {
    key: [0; KEY_WORDS],
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
        let block = chacha20(&self.key, 0);
        let (key, rest) = block.split_at(SEED);
        self.key = words(key);
        let count = out.len().min(rest.len());
        let (first, others) = out.split_at_mut(count);
        first.copy_from_slice(&rest[..count]);
        if others.is_empty() {
            return;
        }
        // The rest comes from a key of its own, which is forgotten.
        let block = chacha20(&self.key, 1);
        self.key = words(&block[..SEED]);
        let stream_key = words(&block[SEED..]);
        for (counter, chunk) in others.chunks_mut(BLOCK).enumerate() {
            let block = chacha20(&stream_key, counter as u64);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
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
            let mut padded = [0; SEED];
            padded[..chunk.len()].copy_from_slice(chunk);
            for (key, word) in self.key.iter_mut().zip(words(&padded)) {
                *key ^= word;
            }
            self.key = words(&chacha20(&self.key, u64::MAX)[..SEED]);
        }
    }
}

fn words(bytes: &[u8]) -> [u32; KEY_WORDS] {
    let mut words = [0; KEY_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// The block of ChaCha20 with a nonce of zero and a counter of 64 bits (Bernstein, "ChaCha, a
/// variant of Salsa20", 2008).
fn chacha20(key: &[u32; KEY_WORDS], counter: u64) -> [u8; BLOCK] {
    const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
    let mut input = [0; BLOCK / 4];
    input[..4].copy_from_slice(&CONSTANTS);
    input[4..12].copy_from_slice(key);
    input[12] = counter as u32;
    input[13] = (counter >> 32) as u32;
    let mut state = input;
    for _ in 0..10 {
        for column in 0..4 {
            quarter_round(&mut state, [0, 4, 8, 12].map(|row| row + column));
        }
        for diagonal in 0..4 {
            let place = |row: usize| 4 * row + (diagonal + row) % 4;
            quarter_round(&mut state, [0, 1, 2, 3].map(place));
        }
    }
    let mut block = [0; BLOCK];
    for ((out, word), input) in block.chunks_exact_mut(4).zip(state).zip(input) {
        out.copy_from_slice(&word.wrapping_add(input).to_le_bytes());
    }
    block
}

fn quarter_round(state: &mut [u32; BLOCK / 4], [a, b, c, d]: [usize; 4]) {
    for [x, y, z, rotation] in [[a, b, d, 16], [c, d, b, 12], [a, b, d, 8], [c, d, b, 7]] {
        state[x] = state[x].wrapping_add(state[y]);
        state[z] = (state[z] ^ state[x]).rotate_left(rotation as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_block_function_is_that_of_the_standard() {
        // RFC 8439, A.1, test vectors 1 and 2: all zero, with counter 0 and 1.
        let hex = |block: [u8; BLOCK]| u64::from_be_bytes(block[..8].try_into().unwrap());
        assert_eq!(hex(chacha20(&[0; KEY_WORDS], 0)), 0x76b8_e0ad_a0f1_3d90);
        assert_eq!(hex(chacha20(&[0; KEY_WORDS], 1)), 0x9f07_e7be_5551_387a);
        // Test vector 3: the key's last byte is 1.
        let mut key = [0; KEY_WORDS];
        key[7] = 0x0100_0000;
        assert_eq!(hex(chacha20(&key, 1)), 0x3aeb_5224_ecf8_4992);
    }

    fn generator(seed: &[u8]) -> Generator {
        let mut generator = Generator {
            key: [0; KEY_WORDS],
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
