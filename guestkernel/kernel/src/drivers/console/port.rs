//! A port as the rest of the kernel sees it: a stream to read from, or to write to.

use super::input::Input;
use super::output::Output;
use crate::error::{Errno, Result};
use crate::executor::{WaitQueue, is_batching, note_request};
use crate::file::{ByteStream, Readiness, Refusal};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use core::task::{Context, Poll, Waker};
use machine::QueueBroken;
use machine::lock::Mutex;

/// What is known of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum PortState {
    /// The device has not said that it is there: writers wait for it.
    Unknown,
    /// It is there.
    Open,
    /// It is gone: the end of input, and nowhere for output to go.
    Closed,
    /// The device does not work any longer.
    Failed,
}

impl PortState {
    const ALL: [Self; 4] = [Self::Unknown, Self::Open, Self::Closed, Self::Failed];
}

/// A port of a console.
pub struct ConsolePort {
    name: &'static str,
    state: AtomicU8,
    input: Option<Mutex<Input>>,
    output: Option<Mutex<Output>>,
    is_output_in_flight: AtomicBool,
    /// The errno for which input cannot be read any further; 0 while it can.
    input_error: AtomicU16,
    readers: WaitQueue,
    /// Those who wait for room, and for all output to be gone.
    writers: WaitQueue,
}

impl ConsolePort {
    pub(super) fn new(name: &'static str, input: Option<Input>, output: Option<Output>) -> Self {
        Self {
            name,
            state: AtomicU8::new(PortState::Unknown as u8),
            input: input.map(Mutex::new),
            output: output.map(Mutex::new),
            is_output_in_flight: AtomicBool::new(false),
            input_error: AtomicU16::new(0),
            readers: WaitQueue::new(),
            writers: WaitQueue::new(),
        }
    }

    /// The name by which the device knows it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn state(&self) -> PortState {
        PortState::ALL[usize::from(self.state.load(Ordering::Acquire)) % PortState::ALL.len()]
    }

    fn set_state(&self, state: PortState) {
        self.state.store(state as u8, Ordering::Release);
        self.readers.wake_all();
        self.writers.wake_all();
    }

    pub(super) fn set_open(&self, is_open: bool) {
        if self.state() != PortState::Failed {
            self.set_state(if is_open {
                PortState::Open
            } else {
                PortState::Closed
            });
        }
    }

    /// Input cannot be read any further, for this errno of the host.
    pub(super) fn fail_input(&self, errno: u16) {
        self.input_error.store(errno, Ordering::Release);
        self.readers.wake_all();
    }

    fn input_error(&self) -> Option<Errno> {
        Errno::of_host(self.input_error.load(Ordering::Acquire))
    }

    pub(super) fn fail(&self) {
        self.is_output_in_flight.store(false, Ordering::Relaxed);
        self.set_state(PortState::Failed);
    }

    /// Whether the other end is gone.
    pub fn is_closed(&self) -> bool {
        matches!(self.state(), PortState::Closed | PortState::Failed)
    }

    pub(super) fn kick(&self) {
        if self.has_output_in_flight()
            && let Some(output) = &self.output
        {
            output.lock().kick();
        }
    }

    pub(super) fn has_output_in_flight(&self) -> bool {
        self.is_output_in_flight.load(Ordering::Relaxed)
    }

    /// Takes what the device has done; true if there was anything.
    ///
    /// # Errors
    ///
    /// [`QueueBroken`].
    pub(super) fn serve(&self) -> Result<bool, QueueBroken> {
        if self.state() == PortState::Failed {
            return Ok(false);
        }
        let mut progress = false;
        if let Some(input) = &self.input
            && input.lock().serve()?
        {
            progress = true;
            self.readers.wake_all();
        }
        if self.has_output_in_flight()
            && let Some(output) = &self.output
        {
            let mut output = output.lock();
            let has_room = output.serve()?;
            self.is_output_in_flight
                .store(output.is_in_flight(), Ordering::Relaxed);
            drop(output);
            if has_room {
                progress = true;
                self.writers.wake_all();
            }
        }
        Ok(progress)
    }

    pub(super) fn arm(&self) -> bool {
        let input = self.input.as_ref().is_some_and(|input| input.lock().arm());
        let output = self.has_output_in_flight()
            && self
                .output
                .as_ref()
                .is_some_and(|output| output.lock().arm());
        input || output
    }

    fn readiness(&self) -> Readiness {
        let mut ready = Readiness::empty();
        let is_closed = self.is_closed();
        if let Some(input) = &self.input {
            let mut input = input.lock();
            if input.is_ready() || is_closed || self.input_error().is_some() {
                ready |= Readiness::READABLE;
            } else {
                note_request();
                if input.start().is_err() {
                    ready |= Readiness::ERROR;
                }
            }
            if is_closed {
                ready |= Readiness::HANG_UP;
            }
        }
        if let Some(output) = &self.output {
            if is_closed {
                ready |= Readiness::ERROR | Readiness::WRITABLE;
            } else if self.state() == PortState::Open && output.lock().has_room() {
                ready |= Readiness::WRITABLE;
            }
        }
        ready
    }
}

/// Reading gives `EBADF` for a port without input, writing for one without output; both give
/// `EIO` once the device has failed, and `ENOMEM`.
impl ByteStream for ConsolePort {
    fn poll_read(&self, out: &mut [u8], context: &mut Context<'_>) -> Poll<Result<usize>> {
        let Some(input) = &self.input else {
            return Poll::Ready(Err(Errno::EBADF));
        };
        if out.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut input = input.lock();
        if input.is_ready() {
            return Poll::Ready(Ok(input.read(out)));
        }
        // Under the lock, so that no input goes by unseen; and before the state is looked at.
        self.readers.register(context.waker());
        if let Some(error) = self.input_error() {
            return Poll::Ready(Err(error));
        }
        match self.state() {
            PortState::Closed => Poll::Ready(Ok(0)),
            PortState::Failed => Poll::Ready(Err(Errno::EIO)),
            PortState::Unknown | PortState::Open => {
                note_request();
                match input.start() {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
        }
    }

    fn poll_write(&self, bytes: &[u8], context: &mut Context<'_>) -> Poll<Result<usize>> {
        let Some(output) = &self.output else {
            return Poll::Ready(Err(Errno::EBADF));
        };
        let mut output = output.lock();
        if self.state() == PortState::Unknown {
            self.writers.register(context.waker());
        }
        match self.state() {
            PortState::Open => {}
            PortState::Closed => return Poll::Ready(Err(Errno::EPIPE)),
            PortState::Failed => return Poll::Ready(Err(Errno::EIO)),
            PortState::Unknown => return Poll::Pending,
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // Of what somebody wrote who did not wait for it.
        if !output.is_in_flight()
            && let Some(refusal) = output.take_refusal()
        {
            return Poll::Ready(Err(refusal.errno));
        }
        let result = output.write(bytes);
        note_request();
        let is_full = result == Ok(0);
        if is_full || !is_batching() {
            output.kick();
        }
        self.is_output_in_flight
            .store(output.is_in_flight(), Ordering::Relaxed);
        if is_full {
            // Under the lock, so that no completion goes by unseen.
            self.writers.register(context.waker());
            return Poll::Pending;
        }
        Poll::Ready(result)
    }

    fn poll_flush(&self, context: &mut Context<'_>) -> Poll<()> {
        let Some(output) = &self.output else {
            return Poll::Ready(());
        };
        let mut output = output.lock();
        output.kick();
        // A device need not give back what it could not pass on: QEMU keeps the chain at which it
        // noticed that nobody reads.
        if !output.is_in_flight() || self.is_closed() {
            return Poll::Ready(());
        }
        self.writers.register(context.waker());
        Poll::Pending
    }

    fn poll_settled(&self, context: &mut Context<'_>) -> Poll<Option<Refusal>> {
        let Some(output) = &self.output else {
            return Poll::Ready(None);
        };
        let mut output = output.lock();
        if !output.may_refuse() {
            return Poll::Ready(None);
        }
        output.kick();
        if output.is_in_flight() && !self.is_closed() {
            note_request();
            self.writers.register(context.waker());
            return Poll::Pending;
        }
        Poll::Ready(output.take_refusal())
    }

    fn available(&self) -> usize {
        self.input
            .as_ref()
            .map_or(0, |input| input.lock().available())
    }

    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness {
        if interest.intersects(Readiness::READABLE) {
            self.readers.register(context.waker());
        }
        if interest.intersects(Readiness::WRITABLE) {
            self.writers.register(context.waker());
        }
        self.readiness()
    }

    fn forget_waker(&self, waker: &Waker) {
        self.readers.forget(waker);
        self.writers.forget(waker);
    }
}
