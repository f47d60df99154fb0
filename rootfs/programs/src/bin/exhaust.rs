//! `exhaust WHAT`: takes all of something that a kernel has only so much of, tells how much that
//! was and which error ended it, gives it back, and does it once more. Not for a host one cares
//! for.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::process::ExitCode;

use guest_programs::sys;
use guest_programs::sys::{Errno, Mapping, SysResult, owned};
use libc::{O_NONBLOCK, PROT_READ, PROT_WRITE};

const PAGE: u64 = 4096;
const DIRECTORY: &str = "/tmp/exhaust";

/// Takes number N of something: what holds it, unless that is a name in [`DIRECTORY`].
type Take = fn(u64) -> SysResult<Vec<OwnedFd>>;

const THINGS: [(&str, Take); 9] = [
    ("descriptors", |_| open("/dev/null")),
    ("eventfds", |_| sys!(SYS_eventfd2, 0, 0).map(descriptor)),
    ("pipes", full_pipe),
    ("rings", ring),
    ("memfds", memfd),
    ("files", |number| {
        result(File::create_new(name(number))).map(|_| Vec::new())
    }),
    ("links", |number| {
        let first = name(0);
        if number == 0 {
            return result(File::create_new(first)).map(|_| Vec::new());
        }
        result(fs::hard_link(first, name(number))).map(|()| Vec::new())
    }),
    ("symlinks", |number| {
        result(symlink("x".repeat(4000), name(number))).map(|()| Vec::new())
    }),
    ("pages", |number| {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(name(0));
        result(file.and_then(|file| file.write_all_at(b"x", number << 28))).map(|()| Vec::new())
    }),
];

fn main() -> ExitCode {
    let what = std::env::args().nth(1).unwrap_or_default();
    let outcome = match what.as_str() {
        "areas" => areas(),
        "depth" => depth(),
        "memory" => memory(),
        what => match THINGS.iter().find(|(name, _)| *name == what) {
            Some((_, take)) => take_all(*take).and_then(|()| take_all(*take)),
            None => {
                let names: Vec<_> = THINGS.iter().map(|(name, _)| *name).collect();
                eprintln!("Usage: exhaust {}|areas|depth|memory", names.join("|"));
                return ExitCode::from(2);
            }
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("exhaust {what}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes as many as there are, and gives them back.
fn take_all(take: Take) -> io::Result<()> {
    let most = libc::rlimit {
        rlim_cur: 1 << 20,
        rlim_max: 1 << 20,
    };
    let none = std::ptr::null_mut::<libc::rlimit>();
    result_of(sys!(
        SYS_prlimit64,
        0,
        libc::RLIMIT_NOFILE,
        &raw const most,
        none
    ))?;
    fs::create_dir_all(DIRECTORY)?;
    let mut held = Vec::new();
    let mut count = 0;
    let error = loop {
        match take(count) {
            Ok(descriptors) => held.extend(descriptors),
            Err(error) => break error,
        }
        count += 1;
    };
    println!("{count}: {error}");
    drop(held);
    fs::remove_dir_all(DIRECTORY)
}

/// Cuts one mapping into as many areas as there can be.
fn areas() -> io::Result<()> {
    let length = 1_u64 << 34;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let access = PROT_READ | PROT_WRITE;
    let start = result_of(sys!(SYS_mmap, 0, length, access, flags, -1, 0))? as u64;
    let mut count = 0_u64;
    let error = loop {
        let page = start + 2 * count * PAGE;
        if let Err(error) = sys!(SYS_mprotect, page, PAGE, PROT_READ) {
            break error;
        }
        count += 1;
    };
    println!("{count}: {error}");
    result_of(sys!(SYS_munmap, start, length)).map(drop)
}

/// Removes directories that are deep in each other, the last of which is open.
fn depth() -> io::Result<()> {
    const DEPTH: u64 = 10_000;
    std::env::set_current_dir("/tmp")?;
    for _ in 0..DEPTH {
        fs::create_dir("d")?;
        std::env::set_current_dir("d")?;
    }
    let last = File::open(".")?;
    for _ in 0..DEPTH {
        std::env::set_current_dir("..")?;
        fs::remove_dir("d")?;
    }
    drop(last);
    println!("{DEPTH}: done");
    Ok(())
}

/// Uses more memory than there is: the program does not survive that.
fn memory() -> io::Result<()> {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
    }
}

fn name(number: u64) -> PathBuf {
    format!("{DIRECTORY}/{number:0240}").into()
}

fn open(path: &str) -> SysResult<Vec<OwnedFd>> {
    result(File::open(path)).map(|file| vec![file.into()])
}

/// A pipe with as much in it as it takes.
fn full_pipe(_: u64) -> SysResult<Vec<OwnedFd>> {
    let (reader, writer) = result(io::pipe())?;
    let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
    sys!(SYS_fcntl, &writer, libc::F_SETPIPE_SZ, 1 << 20)?;
    sys!(SYS_fcntl, &writer, libc::F_SETFL, O_NONBLOCK)?;
    let bytes = Mapping::new(1 << 20, PROT_READ)?;
    match sys!(SYS_write, &writer, bytes.start, 1 << 20)? {
        0x10_0000 => Ok(vec![reader, writer]),
        _ => Err(Errno(libc::ENOMEM)),
    }
}

fn ring(_: u64) -> SysResult<Vec<OwnedFd>> {
    let mut parameters = [0_u32; 30];
    sys!(SYS_io_uring_setup, 4096, parameters.as_mut_ptr()).map(descriptor)
}

fn memfd(_: u64) -> SysResult<Vec<OwnedFd>> {
    let fd = sys!(SYS_memfd_create, c"x", 0).map(owned)?;
    sys!(SYS_write, &fd, b"x".as_ptr(), 1)?;
    Ok(vec![fd])
}

fn descriptor(fd: usize) -> Vec<OwnedFd> {
    vec![owned(fd)]
}

fn result<T>(result: io::Result<T>) -> SysResult<T> {
    result.map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))
}

fn result_of(result: SysResult) -> io::Result<usize> {
    result.map_err(|error| io::Error::from_raw_os_error(error.0))
}
