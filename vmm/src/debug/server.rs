//! The GDB stub's connection: a thread that waits for a debugger and serves it until the VM ends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gdbstub::common::{Signal, Tid};
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError, MultiThreadStopReason};
use gdbstub::target::ext::breakpoints::WatchKind;
use ringlet_abi::control::Exit;
use ringlet_devices::{ThreadKind, Threads};

use super::Address;
use super::breakpoints::Access;
use super::port::{NoAnswer, Port};
use super::session::{Event, Reason, Session};
use super::target::VmTarget;
use super::trap::Cpu;
use crate::outcome::{Ending, Outcome};

/// How long the end of the VM may wait until the debugger has been told.
const FAREWELL: Duration = Duration::from_secs(2);

/// A place to listen that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}: {cause}{}", hint(.cause))]
pub struct BindError {
    address: Address,
    cause: io::Error,
}

fn hint(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "; give another, or remove it if it is a socket left behind",
        _ => "",
    }
}

enum Listener {
    Tcp(TcpListener),
    /// The socket's file is removed at the end.
    Unix(UnixListener, PathBuf),
}

/// A stub that listens already, so that a debugger may connect at any time from now on.
pub struct Server {
    listener: Listener,
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Tcp(socket) => socket.as_fd(),
            Listener::Unix(socket, _) => socket.as_fd(),
        }
    }
}

impl Server {
    /// Listens at `address`; at one that other machines can reach only if `is_open_to_others`, since
    /// whoever connects can do anything with the VM.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(address: &Address, is_open_to_others: bool) -> Result<Self, BindError> {
        let listener = match address {
            Address::Tcp(host, port) => resolve(host, *port, is_open_to_others)
                .and_then(|addresses| TcpListener::bind(&addresses[..]).map(Listener::Tcp)),
            Address::Unix(path) => {
                UnixListener::bind(path).map(|socket| Listener::Unix(socket, path.clone()))
            }
        };
        match listener {
            Ok(listener) => Ok(Self { listener }),
            Err(cause) => Err(BindError {
                address: address.clone(),
                cause,
            }),
        }
    }

    /// Where it listens, as GDB's `target remote` takes it.
    pub fn address(&self) -> String {
        match &self.listener {
            Listener::Tcp(socket) => match socket.local_addr() {
                Ok(address) => address.to_string(),
                Err(error) => error.to_string(),
            },
            Listener::Unix(_, path) => path.display().to_string(),
        }
    }

    /// Serves debuggers on a thread of its own.
    ///
    /// # Errors
    ///
    /// The host denies the thread.
    pub fn start(
        self,
        session: Arc<Session>,
        events: Receiver<Event>,
        ports: Arc<[Port<Cpu>]>,
        ending: Arc<Ending>,
        threads: &Threads,
    ) -> io::Result<Running> {
        let mut service = Service {
            target: VmTarget::new(Arc::clone(&session), ports),
            session: Arc::clone(&session),
            events,
            ending,
        };
        let thread = threads.spawn(ThreadKind::Debugger, "gdb", move || {
            if let Err(error) = service.serve(&self) {
                log::error!("gdb: {error}");
            }
            // Nobody else would let the VM go on.
            service.target.detach();
        })?;
        Ok(Running { session, thread })
    }

    fn accept(&self) -> io::Result<Link> {
        let stream: Box<dyn Stream> = match &self.listener {
            Listener::Tcp(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Listener::Unix(socket, _) => Box::new(socket.accept()?.0),
        };
        Ok(Link {
            stream,
            reply: Vec::new(),
        })
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Tcp(socket) => socket.as_fd(),
            Listener::Unix(socket, _) => socket.as_fd(),
        }
    }
}

/// The addresses of `host`, all of them loopback unless others will do.
fn resolve(host: &str, port: u16, others_will_do: bool) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    let is_local = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
    match others_will_do || addresses.iter().all(is_local) {
        true => Ok(addresses),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "other machines could connect and do anything with the VM; give a loopback address, or \
             --gdb-insecure if that is meant",
        )),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = &self.listener {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The stub's thread.
pub struct Running {
    session: Arc<Session>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Tells the debugger how the VM ended, unless it does not listen.
    pub fn finish(self, outcome: &Outcome) {
        self.session.tell(Event::Over(outcome.clone()));
        let start = Instant::now();
        while !self.thread.is_finished() && start.elapsed() < FAREWELL {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

trait Stream: Read + Write + AsFd + Send {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A debugger's connection; replies are sent as a whole.
struct Link {
    stream: Box<dyn Stream>,
    reply: Vec<u8>,
}

impl Connection for Link {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.reply.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let reply = std::mem::take(&mut self.reply);
        self.stream.write_all(&reply)
    }
}

/// How a debugger left.
enum Departure {
    /// It may come back.
    Detached,
    /// It wants the VM to end.
    Killed,
    /// The VM has ended.
    Over,
}

type Stub = GdbStubStateMachine<'static, VmTarget, Link>;
type StubError = GdbStubError<NoAnswer, io::Error>;

struct Service {
    target: VmTarget,
    session: Arc<Session>,
    events: Receiver<Event>,
    ending: Arc<Ending>,
}

impl Service {
    /// Serves one debugger after the other.
    fn serve(&mut self, server: &Server) -> io::Result<()> {
        loop {
            while !self.wait(server.as_fd())? {
                while let Some(event) = self.next_event() {
                    if let Event::Over(_) = event {
                        return Ok(());
                    }
                }
            }
            let link = server.accept()?;
            self.target.hold(None);
            self.session.set_attached(true);
            let departure = self.converse(link).unwrap_or_else(|error| {
                log::warn!("gdb: {error}");
                Departure::Detached
            });
            match departure {
                Departure::Detached => self.target.detach(),
                Departure::Killed => {
                    self.ending.end(Outcome::Killed);
                    return Ok(());
                }
                Departure::Over => return Ok(()),
            }
        }
    }

    /// Serves a debugger until it leaves or the VM ends.
    fn converse(&mut self, link: Link) -> io::Result<Departure> {
        let mut input = [0; 4096];
        let stub = GdbStub::new(link).run_state_machine(&mut self.target);
        let mut stub = stub.map_err(io::Error::other)?;
        loop {
            if let GdbStubStateMachine::Disconnected(stub) = &stub {
                return Ok(match stub.get_reason() {
                    DisconnectReason::Kill => Departure::Killed,
                    DisconnectReason::Disconnect => Departure::Detached,
                    DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_) => {
                        Departure::Over
                    }
                });
            }
            if let Some(event) = self.next_event() {
                match self.on_event(stub, event).map_err(io::Error::other)? {
                    Some(next) => stub = next,
                    None => return Ok(Departure::Over),
                }
                continue;
            }
            let stream = &mut link_of(&mut stub).stream;
            if !self.wait(stream.as_fd())? {
                continue;
            }
            let count = match stream.read(&mut input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A debugger may go without a word.
                Ok(0) | Err(_) => return Ok(Departure::Detached),
                Ok(count) => count,
            };
            for byte in &input[..count] {
                stub = self.on_byte(stub, *byte).map_err(io::Error::other)?;
            }
        }
    }

    fn on_byte(&mut self, stub: Stub, byte: u8) -> Result<Stub, StubError> {
        let target = &mut self.target;
        let (next, was_running) = match stub {
            GdbStubStateMachine::Idle(stub) => (stub.incoming_data(target, byte)?, false),
            GdbStubStateMachine::Running(stub) => (stub.incoming_data(target, byte)?, true),
            other => (other, false),
        };
        let GdbStubStateMachine::CtrlCInterrupt(stub) = next else {
            return Ok(next);
        };
        // It may cross the report of a stop.
        let reason = was_running.then(|| {
            target.hold(None);
            MultiThreadStopReason::SignalWithThread {
                tid: target.current(),
                signal: Signal::SIGINT,
            }
        });
        stub.interrupt_handled(target, reason)
    }

    /// Reports an event; nothing is left to do after the end of the VM.
    fn on_event(&mut self, stub: Stub, event: Event) -> Result<Option<Stub>, StubError> {
        let GdbStubStateMachine::Running(stub) = stub else {
            // GDB hears of stops only while it waits for one.
            return Ok(match event {
                Event::Over(_) => None,
                Event::Stopped(..) => Some(stub),
            });
        };
        match event {
            Event::Over(outcome) => {
                stub.report_stop(&mut self.target, end_of(&outcome))?;
                Ok(None)
            }
            Event::Stopped(index, reason) => {
                self.target.hold(Some(index));
                let reason = stop_of(reason, self.target.current());
                stub.report_stop(&mut self.target, reason).map(Some)
            }
        }
    }

    fn next_event(&self) -> Option<Event> {
        // EAGAIN says that none has come since.
        let _ = self.session.wake.read();
        self.events.try_recv().ok()
    }

    /// Waits until there is something to read at `fd`, which is true, or perhaps an event.
    fn wait(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        let entry = |fd: i32| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [entry(fd.as_raw_fd()), entry(self.session.wake.as_raw_fd())];
        // SAFETY: the array is valid for writes of its length.
        let count = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            };
        }
        Ok(fds[0].revents != 0)
    }
}

fn link_of(stub: &mut Stub) -> &mut Link {
    match stub {
        GdbStubStateMachine::Idle(stub) => stub.borrow_conn(),
        GdbStubStateMachine::Running(stub) => stub.borrow_conn(),
        GdbStubStateMachine::CtrlCInterrupt(stub) => stub.borrow_conn(),
        GdbStubStateMachine::Disconnected(stub) => stub.borrow_conn(),
    }
}

fn stop_of(reason: Reason, tid: Tid) -> MultiThreadStopReason<u64> {
    let signal = |signal| MultiThreadStopReason::SignalWithThread { tid, signal };
    match reason {
        Reason::Step => signal(Signal::SIGTRAP),
        Reason::Crash => signal(Signal::SIGABRT),
        Reason::Patch => MultiThreadStopReason::SwBreak(tid),
        Reason::Watch(watch) => {
            let kind = match watch.access {
                Access::Execute => return MultiThreadStopReason::HwBreak(tid),
                Access::Write => WatchKind::Write,
                Access::ReadWrite => WatchKind::ReadWrite,
            };
            MultiThreadStopReason::Watch {
                tid,
                kind,
                addr: watch.address,
            }
        }
    }
}

/// GDB's numbers of signals are Linux's for some of them.
fn end_of(outcome: &Outcome) -> MultiThreadStopReason<u64> {
    let signal = match outcome {
        Outcome::Exit(Exit::Signaled(signal)) => i32::from(*signal),
        _ => 0,
    };
    MultiThreadStopReason::Terminated(match signal {
        libc::SIGHUP => Signal::SIGHUP,
        libc::SIGINT => Signal::SIGINT,
        libc::SIGQUIT => Signal::SIGQUIT,
        libc::SIGILL => Signal::SIGILL,
        libc::SIGTRAP => Signal::SIGTRAP,
        libc::SIGABRT => Signal::SIGABRT,
        libc::SIGBUS => Signal::SIGBUS,
        libc::SIGFPE => Signal::SIGFPE,
        libc::SIGKILL => Signal::SIGKILL,
        libc::SIGSEGV => Signal::SIGSEGV,
        libc::SIGPIPE => Signal::SIGPIPE,
        libc::SIGALRM => Signal::SIGALRM,
        libc::SIGTERM => Signal::SIGTERM,
        _ => return MultiThreadStopReason::Exited(outcome.status()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_cannot_connect_unless_that_is_meant() {
        for (host, is_local) in [
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("localhost", true),
            ("0.0.0.0", false),
            ("::", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(resolve(host, 1, false).is_ok(), is_local, "{host}");
            assert!(resolve(host, 1, true).is_ok(), "{host}");
        }
        let refused = Server::bind(&Address::Tcp("0.0.0.0".to_owned(), 0), false);
        let text = refused.err().unwrap().to_string();
        assert!(text.contains("--gdb-insecure"), "{text}");
    }
}
