//! `uring-sha256 FILE`: the SHA-256 of a file or block device, read through io_uring.
//!
//! Reads of `--block` bytes go to registered buffers, `--qd` of them at a time; they complete in
//! any order and are hashed in file order.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use guest_programs::aligned::AlignedBuffer;
use guest_programs::source::Source;
use io_uring::{IoUring, opcode, types};
use sha2::{Digest, Sha256};
use thiserror::Error;

const USAGE: &str = "\
Usage: uring-sha256 FILE [--qd N] [--block SIZE] [--buffered]

Prints the SHA-256 of a file or block device as sha256sum does, and the throughput on stderr.

  --qd N        reads in flight (1 to 4096; default 32)
  --block SIZE  bytes in each read, a multiple of 4096; K and M are understood (default 256K)
  --buffered    read through the page cache instead of with O_DIRECT
";

struct Options {
    path: PathBuf,
    depth: usize,
    block: usize,
    direct: bool,
}

#[derive(Debug, Error)]
enum HashError {
    #[error("cannot open: {0}")]
    Open(io::Error),
    #[error("cannot set up io_uring: {0}")]
    Ring(io::Error),
    #[error("cannot read at {offset}: {source}")]
    Read { offset: u64, source: io::Error },
    #[error("ends at {0}, before its size")]
    Shrunk(u64),
    #[error("cannot write the result: {0}")]
    Output(io::Error),
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("uring-sha256: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uring-sha256: {}: {error}", options.path.display());
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut path: Option<OsString> = None;
    let (mut depth, mut block, mut direct) = (32, 256 << 10, true);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("qd") => depth = parser.value()?.parse()?,
            Long("block") => block = parser.value()?.parse_with(size)?,
            Long("buffered") => direct = false,
            Long("help") | Short('h') => return Ok(None),
            Value(value) if path.is_none() => path = Some(value),
            other => return Err(other.unexpected()),
        }
    }
    if !(1..=4096).contains(&depth) {
        return Err("--qd must be from 1 to 4096".into());
    }
    if block == 0 || block % 4096 != 0 || block > 64 << 20 {
        return Err("--block must be a multiple of 4096, and 64M at most".into());
    }
    let path = path.ok_or("FILE is missing")?.into();
    Ok(Some(Options {
        path,
        depth,
        block,
        direct,
    }))
}

fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let number: usize = digits.parse().map_err(|_| format!("{text} is no size"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| format!("{text} is too large"))
}

fn run(options: &Options) -> Result<(), HashError> {
    let source = Source::open(&options.path, options.direct).map_err(HashError::Open)?;
    if options.direct && !source.direct {
        eprintln!("uring-sha256: no O_DIRECT here, reading through the page cache");
    }
    let start = Instant::now();
    let digest = digest(&source, options.depth, options.block)?;
    let seconds = start.elapsed().as_secs_f64();
    print_line(&digest, &options.path).map_err(HashError::Output)?;
    eprintln!(
        "{} bytes in {seconds:.3} s: {:.0} MiB/s",
        source.size,
        source.size as f64 / seconds / f64::from(1 << 20),
    );
    Ok(())
}

fn print_line(digest: &[u8], path: &Path) -> io::Result<()> {
    let mut line = digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into_bytes();
    line.extend_from_slice(b"  ");
    line.extend_from_slice(path.as_os_str().as_bytes());
    line.push(b'\n');
    io::stdout().write_all(&line)
}

/// One read in flight, or finished and not yet hashed.
struct Slot {
    offset: u64,
    wanted: usize,
    done: usize,
}

fn digest(source: &Source, depth: usize, block: usize) -> Result<Vec<u8>, HashError> {
    let blocks = source.size.div_ceil(block as u64);
    let depth = depth.min(usize::try_from(blocks).unwrap_or(depth)).max(1);
    let mut reader = Reader::new(source, depth, block).map_err(HashError::Ring)?;
    let mut hasher = Sha256::new();
    for index in 0..blocks.min(depth as u64) {
        reader.start(index)?;
    }
    for index in 0..blocks {
        hasher.update(reader.wait_for(index)?);
        if index + (depth as u64) < blocks {
            reader.start(index + depth as u64)?;
        }
    }
    Ok(hasher.finalize().to_vec())
}

/// Keeps reads of blocks in flight; block `i` uses slot `i % depth`.
struct Reader {
    ring: IoUring,
    slots: Vec<Slot>,
    buffer: AlignedBuffer,
    registered: bool,
    block: usize,
    size: u64,
    direct: bool,
}

impl Reader {
    fn new(source: &Source, depth: usize, block: usize) -> io::Result<Self> {
        let mut buffer = AlignedBuffer::new(depth * block)?;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(depth as u32)
            .or_else(|_| IoUring::new(depth as u32))?;
        ring.submitter()
            .register_files(&[source.file.as_raw_fd()])?;
        let vectors: Vec<libc::iovec> = buffer
            .chunks_exact_mut(block)
            .map(|chunk| libc::iovec {
                iov_base: chunk.as_mut_ptr().cast(),
                iov_len: chunk.len(),
            })
            .collect();
        // SAFETY: the buffers are in `buffer`, which is dropped after the ring.
        let registered = match unsafe { ring.submitter().register_buffers(&vectors) } {
            Ok(()) => true,
            // The limit on locked memory, which binds users other than root.
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => false,
            Err(error) => return Err(error),
        };
        let slots = (0..depth)
            .map(|_| Slot {
                offset: 0,
                wanted: 0,
                done: 0,
            })
            .collect();
        Ok(Self {
            ring,
            slots,
            buffer,
            registered,
            block,
            size: source.size,
            direct: source.direct,
        })
    }

    /// Queues the read of a block; it goes to the kernel at the next wait.
    fn start(&mut self, index: u64) -> Result<(), HashError> {
        let slot = (index % self.slots.len() as u64) as usize;
        let offset = index * self.block as u64;
        self.slots[slot] = Slot {
            offset,
            wanted: (self.size - offset).min(self.block as u64) as usize,
            done: 0,
        };
        self.queue(slot)
    }

    fn queue(&mut self, slot: usize) -> Result<(), HashError> {
        let Slot {
            offset,
            wanted,
            done,
        } = self.slots[slot];
        // A direct read is of whole sectors also at the end of the file.
        let len = if self.direct {
            self.block - done
        } else {
            wanted - done
        };
        let start = slot * self.block + done;
        let address = self.buffer[start..start + len].as_mut_ptr();
        let at = offset + done as u64;
        let entry = if self.registered {
            opcode::ReadFixed::new(types::Fixed(0), address, len as u32, slot as u16)
                .offset(at)
                .build()
        } else {
            opcode::Read::new(types::Fixed(0), address, len as u32)
                .offset(at)
                .build()
        };
        // SAFETY: the memory is in `self.buffer`, is read by nobody until the completion is seen,
        // and is unmapped only after the ring is gone.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) };
        pushed.map_err(|full| HashError::Ring(io::Error::other(full)))
    }

    /// Submits what is queued, waits until the block is complete and gives its bytes.
    fn wait_for(&mut self, index: u64) -> Result<&[u8], HashError> {
        let slot = (index % self.slots.len() as u64) as usize;
        while self.slots[slot].done < self.slots[slot].wanted {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(HashError::Ring(error)),
            }
            let completions: Vec<_> = self.ring.completion().collect();
            for entry in completions {
                self.completed(entry.user_data() as usize, entry.result())?;
            }
        }
        let start = slot * self.block;
        Ok(&self.buffer[start..start + self.slots[slot].wanted])
    }

    fn completed(&mut self, index: usize, result: i32) -> Result<(), HashError> {
        let slot = &mut self.slots[index];
        let at = slot.offset + slot.done as u64;
        match result {
            0 => return Err(HashError::Shrunk(at)),
            read @ 1.. => slot.done += read as usize,
            error if [-libc::EAGAIN, -libc::EINTR].contains(&error) => {}
            error => {
                return Err(HashError::Read {
                    offset: at,
                    source: io::Error::from_raw_os_error(-error),
                });
            }
        }
        if slot.done < slot.wanted {
            self.queue(index)?;
        }
        Ok(())
    }
}
