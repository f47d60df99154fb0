//! Random programs: whatever they submit, every SQE that is taken has its CQE, once.

use super::read_write::read;
use super::timeout::timeout;
use super::*;
use std::collections::BTreeMap;

/// xorshift64*: the same numbers at every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

struct Player {
    random: Random,
    program: Program,
    channel: Arc<Channel>,
    fds: Vec<i32>,
    short: Entry,
    next: u64,
}

impl Player {
    fn new(seed: u64, flags: u32) -> Self {
        let mut program = Program::with_cq(16, flags | raw::IORING_SETUP_CQSIZE, 16);
        let (fd, channel) = program.channel();
        let digits = program.open(Arc::new(Digits), OpenFlags::READ_WRITE);
        let short = timeout(&mut program, 20_000);
        Self {
            random: Random(seed),
            fds: [fd, digits, 99, program.fd, 0, 1].into(),
            program,
            channel,
            short,
            next: 0,
        }
    }

    fn entry(&mut self) -> Entry {
        let random = &mut self.random;
        let fd = random.pick(&self.fds);
        let good = self.program.memory + 0x1000;
        let memory = random.pick(&[good, good, 8]);
        let reading = read(fd, memory, random.below(8) as u32);
        let mut entry = match random.below(12) {
            0 => failing(),
            1 => bad(),
            2..5 => reading,
            5 => Entry {
                opcode: op::IORING_OP_WRITE as u8,
                ..reading
            },
            6 => Entry {
                opcode: op::IORING_OP_ASYNC_CANCEL as u8,
                address: random.below(self.next + 1),
                op_flags: random.below(64) as u32,
                fd,
                ..nop()
            },
            7 => Entry {
                offset: random.below(3),
                ..self.short
            },
            8 => Entry {
                opcode: op::IORING_OP_FSYNC as u8,
                fd,
                ..nop()
            },
            9 => Entry {
                opcode: random.below(64) as u8,
                op_flags: random.pick(&[0, 1, 2]),
                length: random.pick(&[0, 1]),
                ..reading
            },
            _ => nop(),
        };
        // A descriptor that is closed stays so, and a long timeout would be waited for.
        // So would be a CQE by who reads the ring itself, behind which it drains.
        if entry.opcode == op::IORING_OP_CLOSE as u8 || entry.fd == self.program.fd {
            entry.fd = 99;
        } else if entry.opcode == op::IORING_OP_TIMEOUT as u8 {
            entry.address = self.short.address;
        }
        if random.below(3) == 0 {
            entry.flags =
                random.pick(&[LINK, LINK, HARD_LINK, DRAIN, 16, FIXED, LINK | DRAIN, 255]);
            entry.flags &= !SKIP;
        }
        self.next += 1;
        entry.data(self.next)
    }

    /// Plays for some rounds and returns how often each CQE came, and which SQEs were taken.
    fn play(mut self, rounds: u32) {
        let mut expected = BTreeMap::new();
        let mut pending = VecDeque::new();
        for _ in 0..rounds {
            while pending.len() < self.random.below(17) as usize {
                let entry = self.entry();
                self.program.push(entry);
                pending.push_back(entry);
            }
            let count = self.random.below(20) as u32;
            let flags = self.random.pick(&[0, raw::IORING_ENTER_GETEVENTS]);
            let taken = self.program.enter(count, 0, flags).unwrap();
            for entry in pending.drain(..taken as usize) {
                expected.insert(entry.user_data, entry);
            }
            if self.random.below(2) == 0 {
                let bytes = self.random.below(6) as usize;
                self.channel.feed(&[1, 2, 3, 4, 5][..bytes]);
            }
            if self.random.below(4) > 0 {
                self.take(&mut expected);
            }
        }
        // Whatever waits is fed or times out; a chain goes on as long as it lasts.
        for _ in 0..10_000 {
            if expected.is_empty() {
                break;
            }
            self.channel.feed(&[0; 64]);
            self.program
                .enter(0, 0, raw::IORING_ENTER_GETEVENTS)
                .unwrap();
            executor::block_on(executor::yield_now());
            self.take(&mut expected);
        }
        assert!(expected.is_empty(), "no CQE for {expected:?}");
        let ring = self.program.process.files.get(self.program.fd).unwrap();
        let ring = crate::io_uring::file::ring_of(&ring).unwrap();
        assert_eq!(ring.lock().slots.used(), 0);
    }

    fn take(&self, expected: &mut BTreeMap<u64, Entry>) {
        while let Some((user_data, result, flags)) = self.program.pop() {
            let is_last = flags & raw::IORING_CQE_F_MORE == 0;
            if is_last {
                assert!(
                    expected.remove(&user_data).is_some(),
                    "{user_data}: {result}"
                );
            }
        }
    }
}

#[test]
fn every_request_has_one_cqe() {
    let single = raw::IORING_SETUP_SINGLE_ISSUER;
    for flags in [
        0,
        raw::IORING_SETUP_SUBMIT_ALL | raw::IORING_SETUP_NO_SQARRAY,
        single | raw::IORING_SETUP_DEFER_TASKRUN,
        single | raw::IORING_SETUP_DEFER_TASKRUN | raw::IORING_SETUP_TASKRUN_FLAG,
    ] {
        for seed in 1..if cfg!(miri) { 2 } else { 40 } {
            Player::new(seed, flags).play(100);
        }
    }
}
