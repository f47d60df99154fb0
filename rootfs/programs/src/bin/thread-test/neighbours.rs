//! No call keeps a CPU for long: how late a thread that sleeps wakes beside each call whose length a
//! program chooses.

use guest_programs::check::{Check, Failure, Outcome, in_some_try};
use guest_programs::{checks, expect, expect_eq, sys};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::schedule::pin_to;

pub(crate) const CHECKS: &[Check] = checks![
    a_sleeper_is_not_late_beside_random_bytes,
    a_sleeper_is_not_late_beside_a_vector_of_zeros,
    a_sleeper_is_not_late_beside_getrandom,
    a_sleeper_is_not_late_beside_a_large_file,
    a_sleeper_is_not_late_beside_reserving_and_punching,
    a_sleeper_is_not_late_beside_copies_from_file_to_file,
    a_sleeper_is_not_late_beside_a_large_directory,
    a_sleeper_is_not_late_beside_many_descriptors,
];

/// How late a sleeper may be, beside what the pieces of a call take.
const LATE: Duration = Duration::from_millis(10);
/// Bytes that are moved without a look at the clock: nothing to speak of on a processor, but a while
/// where one is emulated.
const PIECE: usize = 1 << 16;
/// How long it sleeps each time.
const NAP: Duration = Duration::from_millis(1);

const MEGABYTE: usize = 1 << 20;

/// How late a sleeper may be on this machine.
fn limit() -> std::io::Result<Duration> {
    let mut random = File::open("/dev/urandom")?;
    let mut buffer = vec![0; PIECE];
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        random.read_exact(&mut buffer)?;
        least = least.min(start.elapsed());
    }
    Ok(LATE + 4 * least)
}

/// Makes `call` on one CPU beside a thread that sleeps again and again, and fails if that wakes later
/// than it should.
pub(crate) fn is_not_late_beside(what: &str, mut call: impl FnMut() -> Outcome) -> Outcome {
    let limit = limit()?;
    in_some_try(|| {
        let is_over = AtomicBool::new(false);
        let (outcome, latest) = pin_to(0, || {
            thread::scope(|scope| {
                let sleeper = scope.spawn(|| {
                    let mut latest = Duration::ZERO;
                    while !is_over.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        thread::sleep(NAP);
                        latest = latest.max(start.elapsed().saturating_sub(NAP));
                    }
                    latest
                });
                // It is to sleep already.
                thread::sleep(2 * NAP);
                let outcome = call();
                is_over.store(true, Ordering::Relaxed);
                (outcome, sleeper.join())
            })
        })?;
        outcome?;
        let latest = latest.map_err(|_| Failure::new("the sleeper panicked"))?;
        match latest <= limit {
            true => Ok(()),
            false => Err(Failure::new(format!("{latest:?} late beside {what}"))),
        }
    })
}

/// A file that is gone when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(Self::path(name))
    }

    /// Where a tmpfs is, on Linux too.
    fn path(name: &str) -> PathBuf {
        format!("/dev/shm/neighbours-{}-{name}", std::process::id()).into()
    }

    fn create(&self) -> std::io::Result<File> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        options.open(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}

/// So many pieces that all lie in `buffer`.
fn same_pieces(buffer: &mut [u8], count: usize) -> Vec<libc::iovec> {
    let piece = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    vec![piece; count]
}

/// Reads as much as `count` times `size` bytes in one call.
fn read_vector(path: &str, size: usize, count: usize) -> Outcome {
    let mut file = File::open(path)?;
    let mut buffer = vec![1; size];
    let pieces = same_pieces(&mut buffer, count);
    is_not_late_beside(path, || {
        let read = sys!(SYS_readv, file.as_fd(), pieces.as_ptr(), count)?;
        expect_eq!(read, size * count);
        Ok(())
    })?;
    file.read_exact(&mut buffer[..1])?;
    Ok(())
}

fn a_sleeper_is_not_late_beside_random_bytes() -> Outcome {
    read_vector("/dev/urandom", MEGABYTE, 64)
}

fn a_sleeper_is_not_late_beside_a_vector_of_zeros() -> Outcome {
    // As much as one call reads: up to the last page of 2 GiB.
    read_vector("/dev/zero", 2 * MEGABYTE - 4, 1024)
}

fn a_sleeper_is_not_late_beside_getrandom() -> Outcome {
    let mut buffer = vec![0; 32 * MEGABYTE];
    is_not_late_beside("getrandom", || {
        let length = buffer.len();
        expect_eq!(sys!(SYS_getrandom, buffer.as_mut_ptr(), length, 0)?, length);
        Ok(())
    })
}

fn a_sleeper_is_not_late_beside_a_large_file() -> Outcome {
    const SIZE: usize = 96 * MEGABYTE;
    let scratch = Scratch::new("large");
    let mut buffer = vec![1; MEGABYTE];
    let pieces = same_pieces(&mut buffer, SIZE / MEGABYTE);
    let write = |file: &File| -> Outcome {
        let count = sys!(
            SYS_pwritev,
            file.as_fd(),
            pieces.as_ptr(),
            pieces.len(),
            0,
            0
        )?;
        expect_eq!(count, SIZE);
        Ok(())
    };
    let read = |file: &File| -> Outcome {
        let count = sys!(
            SYS_preadv,
            file.as_fd(),
            pieces.as_ptr(),
            pieces.len(),
            0,
            0
        )?;
        expect_eq!(count, SIZE);
        Ok(())
    };
    is_not_late_beside("a file that grows, is read, is cut off", || {
        let file = scratch.create()?;
        write(&file)?;
        read(&file)?;
        file.set_len(1)?;
        Ok(())
    })?;
    is_not_late_beside("a file that goes with its last name", || {
        let file = scratch.create()?;
        write(&file)?;
        drop(file);
        fs::remove_file(&scratch.0)?;
        Ok(())
    })
}

fn a_sleeper_is_not_late_beside_reserving_and_punching() -> Outcome {
    const SIZE: usize = 96 * MEGABYTE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let scratch = Scratch::new("reserved");
    is_not_late_beside("fallocate", || {
        let file = scratch.create()?;
        sys!(SYS_fallocate, file.as_fd(), 0, 0, SIZE)?;
        sys!(SYS_fallocate, file.as_fd(), PUNCH, 0, SIZE)?;
        Ok(())
    })
}

fn a_sleeper_is_not_late_beside_copies_from_file_to_file() -> Outcome {
    const SIZE: usize = 64 * MEGABYTE;
    let (source, target) = (Scratch::new("source"), Scratch::new("target"));
    let from = source.create()?;
    from.set_len(SIZE as u64)?;
    is_not_late_beside("sendfile and copy_file_range", || {
        let to = target.create()?;
        let (mut done, mut start) = (0, 0_i64);
        while done < SIZE {
            done += sys!(
                SYS_sendfile,
                to.as_fd(),
                from.as_fd(),
                &raw mut start,
                SIZE - done
            )?;
        }
        let to = target.create()?;
        let (mut start, mut end) = (0_i64, 0_i64);
        while (end as usize) < SIZE {
            let left = SIZE - end as usize;
            sys!(
                SYS_copy_file_range,
                from.as_fd(),
                &raw mut start,
                to.as_fd(),
                &raw mut end,
                left,
                0
            )?;
        }
        Ok(())
    })
}

fn a_sleeper_is_not_late_beside_a_large_directory() -> Outcome {
    const FILES: usize = 10_000;
    let directory = Scratch::path("directory");
    fs::create_dir(&directory)?;
    let result = (0..FILES)
        .try_for_each(|number| File::create(directory.join(format!("{number:04}"))).map(drop));
    let outcome = result.map_err(Failure::from).and_then(|()| {
        let opened = File::open(&directory)?;
        let mut entries = vec![0_u8; 2 * MEGABYTE];
        is_not_late_beside("getdents64", || {
            sys!(SYS_lseek, opened.as_fd(), 0, libc::SEEK_SET)?;
            let length = entries.len();
            let mut all = 0;
            loop {
                match sys!(SYS_getdents64, opened.as_fd(), entries.as_mut_ptr(), length)? {
                    0 => break,
                    count => all += count,
                }
            }
            // The shortest entry has 24 bytes.
            expect!(all >= FILES * 24);
            Ok(())
        })
    });
    fs::remove_dir_all(&directory)?;
    outcome
}

fn a_sleeper_is_not_late_beside_many_descriptors() -> Outcome {
    let mut limit = [0_u64; 2];
    sys!(SYS_getrlimit, libc::RLIMIT_NOFILE, limit.as_mut_ptr())?;
    let count = limit[0].min(20_000) as i32 - 100;
    let (reader, mut writer) = std::io::pipe()?;
    writer.write_all(b"x")?;
    let first = sys!(SYS_fcntl, reader.as_fd(), libc::F_DUPFD, 64)? as i32;
    let last = first + count - 1;
    is_not_late_beside("poll and close_range", || {
        let mut polled = Vec::new();
        for fd in first..=last {
            sys!(SYS_dup2, reader.as_fd(), fd)?;
            polled.push(libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
        }
        let ready = sys!(SYS_poll, polled.as_mut_ptr(), polled.len(), -1)?;
        expect_eq!(ready, polled.len());
        sys!(SYS_close_range, first, last, 0)?;
        Ok(())
    })
}
