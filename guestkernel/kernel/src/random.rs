//! Random numbers for `getrandom(2)`, `/dev/urandom` and the kernel itself: ChaCha20, seeded by
//! the entropy device at boot, with a key that is replaced after every use, so that what leaks
//! later says nothing of what was handed out before.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spin::Mutex;

/// Bytes of a key.
pub const SEED_SIZE: usize = 32;

static GENERATOR: Mutex<Option<ChaCha20Rng>> = Mutex::new(None);

/// Mixes `entropy` into the key.
pub fn seed(entropy: &[u8; SEED_SIZE]) {
    let mut generator = GENERATOR.lock();
    let mut key = *entropy;
    if let Some(generator) = &mut *generator {
        mix(&mut key, generator);
    }
    *generator = Some(ChaCha20Rng::from_seed(key));
}

/// Fills `out` with random bytes.
pub fn fill(out: &mut [u8]) {
    let mut generator = GENERATOR.lock();
    let generator = generator.get_or_insert_with(from_clocks);
    generator.fill_bytes(out);
    let mut key = [0; SEED_SIZE];
    generator.fill_bytes(&mut key);
    *generator = ChaCha20Rng::from_seed(key);
}

fn mix(key: &mut [u8; SEED_SIZE], generator: &mut ChaCha20Rng) {
    let mut other = [0; SEED_SIZE];
    generator.fill_bytes(&mut other);
    key.iter_mut()
        .zip(other)
        .for_each(|(byte, other)| *byte ^= other);
}

/// What there is without an entropy device: numbers that differ from boot to boot, no more.
fn from_clocks() -> ChaCha20Rng {
    log::warn!("no entropy device: random numbers can be guessed");
    let mut key = [0; SEED_SIZE];
    key[..8].copy_from_slice(&machine::clock::realtime().to_le_bytes());
    key[8..16].copy_from_slice(&machine::clock::monotonic().to_le_bytes());
    ChaCha20Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_differ_each_time_and_a_seed_changes_them() {
        let mut seen = alloc::collections::BTreeSet::new();
        for round in 0..16 {
            let mut bytes = [0; 32];
            fill(&mut bytes);
            assert!(seen.insert(bytes), "the same bytes twice");
            seed(&[round; SEED_SIZE]);
        }
        let mut long = [0; 5000];
        fill(&mut long);
        let ones: u32 = long.iter().map(|byte| byte.count_ones()).sum();
        assert!(
            (18_000..22_000).contains(&ones),
            "{ones} bits of 40000 are set"
        );
    }
}
