//! Tiny guests, made of hand-written machine code, and the command that runs them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Long enough for a machine with many times more work than it has CPUs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Where the guests are loaded and entered.
pub(crate) const LOAD_ADDRESS: u32 = 0x20_0000;
/// Where a guest that needs a stack has one.
const STACK: u32 = 0x9000;
/// The control page's registers.
pub(crate) const EXIT: u32 = 0xd000_0000;
pub(crate) const MARK: u32 = 0xd000_0008;

const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// 32-bit code, put together instruction by instruction.
#[derive(Clone, Default)]
pub(crate) struct Code(Vec<u8>);

impl Code {
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `mov dword [address], value`
    pub(crate) fn store(self, address: u32, value: u32) -> Self {
        self.bytes(&[0xc7, 0x05])
            .bytes(&address.to_le_bytes())
            .bytes(&value.to_le_bytes())
    }

    /// Writes text to the serial port with one `rep outsb`.
    pub(crate) fn print(self, text: &str) -> Self {
        // esp = some RAM; call over the text; pop esi; ecx = length, dx = port; rep outsb
        self.bytes(&[0xbc])
            .bytes(&STACK.to_le_bytes())
            .bytes(&[0xe8])
            .bytes(&(text.len() as u32).to_le_bytes())
            .bytes(text.as_bytes())
            .bytes(&[0x5e, 0xb9])
            .bytes(&(text.len() as u32).to_le_bytes())
            .bytes(&[0x66, 0xba, 0xf8, 0x03, 0xf3, 0x6e])
    }

    /// Goes on with the code of `next`, which must not depend on its address.
    pub(crate) fn then(self, next: &Self) -> Self {
        self.bytes(&next.0)
    }

    /// `jmp $`
    pub(crate) fn hang(self) -> Self {
        self.bytes(&[0xeb, 0xfe])
    }

    /// An ELF file with this code and, if wanted, a PVH note.
    pub(crate) fn elf(&self, note: bool) -> Vec<u8> {
        let headers = ELF_HEADER + 2 * PROGRAM_HEADER;
        let mut note_bytes = Vec::new();
        for word in [4_u32, 4, if note { 18 } else { 1 }] {
            note_bytes.extend_from_slice(&word.to_le_bytes());
        }
        note_bytes.extend_from_slice(b"Xen\0");
        note_bytes.extend_from_slice(&LOAD_ADDRESS.to_le_bytes());
        let code_at = headers + note_bytes.len();

        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64
        elf.extend_from_slice(&u64::from(LOAD_ADDRESS).to_le_bytes());
        elf.extend_from_slice(&(ELF_HEADER as u64).to_le_bytes());
        elf.extend_from_slice(&[0; 12]); // no sections, no flags
        for half in [ELF_HEADER as u16, PROGRAM_HEADER as u16, 2, 64, 0, 0] {
            elf.extend_from_slice(&half.to_le_bytes());
        }
        let load = u64::from(LOAD_ADDRESS);
        segment(&mut elf, 1, code_at, load, self.0.len());
        segment(&mut elf, 4, headers, 0, note_bytes.len());
        elf.extend_from_slice(&note_bytes);
        elf.extend_from_slice(&self.0);
        elf
    }
}

fn segment(elf: &mut Vec<u8>, kind: u32, offset: usize, addr: u64, len: usize) {
    elf.extend_from_slice(&kind.to_le_bytes());
    elf.extend_from_slice(&7_u32.to_le_bytes());
    for word in [offset as u64, addr, addr, len as u64, len as u64, 1] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
}

/// A directory for one test's files, removed at the end.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("ringlet-vmm-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and gives its path.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// `ringlet run` with this kernel and an empty archive; add options, then [`finish`].
    pub(crate) fn ringlet(&self, kernel: &[u8]) -> Command {
        let kernel = self.file("kernel", kernel);
        let rootfs = self.file("rootfs", EMPTY_ARCHIVE);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlet"));
        command
            .env_remove("RINGLET_LOG")
            .env("RINGLET_KERNEL", kernel)
            .env("RINGLET_ROOTFS", rootfs)
            .arg("run");
        command
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const EMPTY_ARCHIVE: &[u8] = b"07070100000000000000000000000000000000000000010000000000000000\
    00000000000000000000000000000000000000000000000B00000000TRAILER!!!\0\0\0\0";

/// Adds `-- PROGRAM`, runs the command to its end and gives its output.
pub(crate) fn finish(command: &mut Command) -> Output {
    start(command).end()
}

/// Adds `-- PROGRAM` and starts the command.
pub(crate) fn start(command: &mut Command) -> Running {
    let mut child = command
        .args(["--", "/bin/program"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Running {
        stderr: Transcript::of(child.stderr.take().unwrap()),
        child,
    }
}

/// A command that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// What it has written to standard error.
    pub(crate) stderr: Transcript,
}

impl Running {
    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill has no memory arguments, and the child is not waited for yet.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// Waits for the end.
    pub(crate) fn end(self) -> Output {
        let mut output = await_end(self.child);
        output.stderr = self.stderr.end();
        output
    }
}

/// What comes from a stream, read by a thread.
pub(crate) struct Transcript {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Transcript {
    pub(crate) fn of(mut from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error, as a terminal gives whose other side is closed, is the end, too.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().extend(&buffer[..count]);
            }
        });
        Self { text, reader }
    }

    /// Waits until `wanted` has come that many times.
    pub(crate) fn wait_for(&self, wanted: &str, times: usize) {
        let start = Instant::now();
        loop {
            let text = String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned();
            if text.matches(wanted).count() >= times {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "no {wanted:?} in: {text}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Everything, to the end of the stream.
    pub(crate) fn end(self) -> Vec<u8> {
        self.reader.join().unwrap();
        std::mem::take(&mut self.text.lock().unwrap())
    }
}

/// Waits for the end of a command; one that does not end is killed, and that is a failure.
pub(crate) fn await_end(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > DEADLINE {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!(
                "no end in time: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

/// Checks the status and gives what was written to stderr; nothing may be on stdout.
pub(crate) fn stderr(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert_eq!(output.stdout, b"");
    text
}
