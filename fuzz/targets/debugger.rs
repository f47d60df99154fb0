//! The GDB stub: whatever bytes a debugger sends, the stub answers or hangs up, and serves the next.
#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use libfuzzer_sys::fuzz_target;
use ringlet_devices::{Memory, Threads};
use ringlet_fuzz::{MEMORY, image, memory};
use ringlet_vmm::debug::server::Running;
use ringlet_vmm::debug::session::Session;
use ringlet_vmm::debug::{Address, Server, port};
use ringlet_vmm::outcome::Ending;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::tempdir::TempDir;

const CPUS: usize = 2;

/// A stub that listens, until a debugger has the VM end.
struct Listening {
    dir: TempDir,
    _running: Running,
}

impl Listening {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let path = dir.as_path().join("gdb");
        let server = Server::bind(&Address::Unix(path), false).expect("a socket");
        let wake = EventFd::new(EFD_NONBLOCK).expect("an event");
        let (sender, events) = mpsc::channel();
        let memory: Memory = memory(&[0; MEMORY]);
        let session = Session::new(memory, Arc::new(image()), false, wake, sender);
        // Nobody is at the other end: no vCPU answers.
        let ports: Arc<[_]> = (0..CPUS).map(|_| port::pair(true).0).collect();
        let ending = Arc::new(Ending::new().expect("an event"));
        let threads = Threads::unconfined();
        let running = server.start(Arc::new(session), events, ports, ending, &threads);
        Self {
            dir,
            _running: running.expect("a thread"),
        }
    }
}

fn converse(dir: &Path, input: &[u8]) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(dir.join("gdb"))?;
    let mut replies = stream.try_clone()?;
    let reader = thread::spawn(move || {
        // It ends when the stub hangs up.
        let _ = replies.read_to_end(&mut Vec::new());
    });
    // It may hang up before it has read all.
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = reader.join();
    Ok(())
}

static STUB: Mutex<Option<Listening>> = Mutex::new(None);

fuzz_target!(|input: &[u8]| {
    let mut stub = STUB.lock().unwrap_or_else(PoisonError::into_inner);
    let listening = stub.get_or_insert_with(Listening::new);
    if converse(listening.dir.as_path(), input).is_err() {
        let listening = stub.insert(Listening::new());
        converse(listening.dir.as_path(), input).expect("a stub that has just started answers");
    }
});
