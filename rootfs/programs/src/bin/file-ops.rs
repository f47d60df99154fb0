//! Random operations on files, the same for the same seed, and what each has given: lines that are
//! alike wherever it runs.
//!
//! `file-ops SEED COUNT` works in the working directory, which is empty. It prints each operation with
//! its result, then what is in the directory.

use std::ffi::CString;
use std::fmt::Write as _;
use std::io::Write as _;

/// Names of files and directories; few, so that operations meet.
const NAMES: [&str; 7] = ["a", "b", "c", "d", "d/e", "d/f", "g/h"];
/// Open files at a time.
const FILES: usize = 4;
/// The largest position that is written.
const LARGEST: u64 = 3 << 16;

/// A small generator (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn name(&mut self) -> CString {
        let name = NAMES[self.below(NAMES.len() as u64) as usize];
        CString::new(name).unwrap_or_default()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// What a call gave: its result or the number of the error.
fn outcome(result: i64) -> String {
    match result {
        -1 => {
            let error = std::io::Error::last_os_error();
            format!("error {}", error.raw_os_error().unwrap_or(0))
        }
        result => result.to_string(),
    }
}

/// A sum of bytes that tells where they are.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

struct Tester {
    random: Random,
    files: [i32; FILES],
}

impl Tester {
    /// Does one operation, and says what and with which result.
    fn step(&mut self) -> String {
        let random = &mut self.random;
        let slot = random.below(FILES as u64) as usize;
        let fd = self.files[slot];
        let offset = random.below(LARGEST);
        let length = random.one_of(&[0, 1, 100, 4095, 4096, 4097, 10_000, 70_000]);
        let (name, other) = (random.name(), random.name());
        let mode = random.one_of(&[0o600, 0o644, 0o755, 0o4711, 0o2755, 0o1777]);
        let shown = name.to_string_lossy().into_owned();
        // SAFETY: the paths are strings with a NUL, and the buffers are as long as is said.
        unsafe {
            match random.below(22) {
                0..=3 => {
                    let flags = random.one_of(&[
                        libc::O_RDONLY,
                        libc::O_RDWR,
                        libc::O_RDWR | libc::O_CREAT,
                        libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
                        libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC,
                        libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND,
                    ]);
                    if fd >= 0 {
                        libc::close(fd);
                    }
                    let new = libc::open(name.as_ptr(), flags, mode);
                    let result = outcome(new.min(0).into());
                    self.files[slot] = new;
                    format!("open {shown} {flags:#o} {mode:#o} = {result}")
                }
                4..=6 => {
                    let byte = random.below(255) as u8 + 1;
                    let bytes = vec![byte; length];
                    let result = libc::pwrite(fd, bytes.as_ptr().cast(), length, offset as i64);
                    format!(
                        "pwrite {slot} {length} {offset} = {}",
                        outcome(result as i64)
                    )
                }
                7 | 8 => {
                    let mut bytes = vec![0_u8; length];
                    let result = libc::pread(fd, bytes.as_mut_ptr().cast(), length, offset as i64);
                    let text = outcome(result as i64);
                    let sum = digest(&bytes);
                    format!("pread {slot} {length} {offset} = {text} {sum:x}")
                }
                9 => {
                    let bytes = vec![b'w'; length];
                    let result = libc::write(fd, bytes.as_ptr().cast(), length);
                    format!("write {slot} {length} = {}", outcome(result as i64))
                }
                10 => {
                    let result = libc::ftruncate(fd, offset as i64);
                    format!("ftruncate {slot} {offset} = {}", outcome(result.into()))
                }
                11 => {
                    let result = libc::truncate(name.as_ptr(), offset as i64);
                    format!("truncate {shown} {offset} = {}", outcome(result.into()))
                }
                12 => {
                    let result = libc::mkdir(name.as_ptr(), mode);
                    format!("mkdir {shown} {mode:#o} = {}", outcome(result.into()))
                }
                13 => {
                    let result = libc::unlink(name.as_ptr());
                    format!("unlink {shown} = {}", outcome(result.into()))
                }
                14 => {
                    let result = libc::rmdir(name.as_ptr());
                    format!("rmdir {shown} = {}", outcome(result.into()))
                }
                15 => {
                    let flags =
                        random.one_of(&[0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE]);
                    let at = libc::AT_FDCWD;
                    let result = libc::syscall(
                        libc::SYS_renameat2,
                        at,
                        name.as_ptr(),
                        at,
                        other.as_ptr(),
                        flags,
                    );
                    format!("rename {shown} {other:?} {flags} = {}", outcome(result))
                }
                16 => {
                    let result = libc::link(name.as_ptr(), other.as_ptr());
                    format!("link {shown} {other:?} = {}", outcome(result.into()))
                }
                17 => {
                    let result = libc::symlink(other.as_ptr(), name.as_ptr());
                    format!("symlink {other:?} {shown} = {}", outcome(result.into()))
                }
                18 => {
                    let result = libc::chmod(name.as_ptr(), mode);
                    format!("chmod {shown} {mode:#o} = {}", outcome(result.into()))
                }
                19 => {
                    let result = libc::fsync(fd);
                    format!("fsync {slot} = {}", outcome(result.into()))
                }
                20 => {
                    let whence = random.one_of(&[libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END]);
                    let result = libc::lseek(fd, offset as i64, whence);
                    format!("lseek {slot} {offset} {whence} = {}", outcome(result))
                }
                _ => {
                    let mut status: libc::stat = std::mem::zeroed();
                    let result = libc::lstat(name.as_ptr(), &raw mut status);
                    let text = outcome(result.into());
                    format!("lstat {shown} = {text} {}", describe(&status))
                }
            }
        }
    }
}

/// What of a file's attributes is the same everywhere.
fn describe(status: &libc::stat) -> String {
    let mode = status.st_mode;
    match mode & libc::S_IFMT {
        libc::S_IFDIR => format!("{mode:o} {}", status.st_nlink),
        _ => format!("{mode:o} {} {}", status.st_nlink, status.st_size),
    }
}

/// Lists what is below `path`, sorted.
fn list(path: &str, out: &mut String) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let mut names: Vec<_> = std::fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    for name in names {
        let path = format!("{path}/{name}");
        let about = std::fs::symlink_metadata(&path)?;
        let contents = match about.file_type() {
            kind if kind.is_dir() => String::new(),
            kind if kind.is_symlink() => std::fs::read_link(&path)?.display().to_string(),
            _ => format!("{} {:x}", about.size(), digest(&std::fs::read(&path)?)),
        };
        let (mode, links) = (about.mode(), about.nlink());
        let _ = writeln!(out, "{path} {mode:o} {links} {contents}");
        if about.is_dir() {
            list(&path, out)?;
        }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1);
    let mut number = || words.next()?.parse::<u64>().ok();
    let (Some(seed), Some(count)) = (number(), number()) else {
        return Err(std::io::Error::other("file-ops SEED COUNT [DIRECTORY]"));
    };
    if let Some(directory) = words.next() {
        std::env::set_current_dir(directory)?;
    }
    let mut tester = Tester {
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        files: [-1; FILES],
    };
    // SAFETY: it only sets which permissions new files do not get.
    unsafe { libc::umask(0o022) };
    let mut out = String::new();
    for number in 0..count {
        let _ = writeln!(out, "{number} {}", tester.step());
    }
    list(".", &mut out)?;
    std::io::stdout().write_all(out.as_bytes())
}
