//! File descriptors 0, 1 and 2, and `/dev/console`: the console's ports, as a terminal where the
//! stream is one at the other end.

use crate::drivers::console::{Console, Stream};
use crate::error::Result;
use crate::executor;
use crate::file::{Entry, Place};
use crate::fs::tty::{CONSOLE, Output, Tty, TtyFile};
use crate::fs::{
    ByteStream, DeviceDirectory, DeviceNumber, FdTable, FileOps, FileType, OpenFile, OpenFlags,
    StreamFile,
};
use crate::process::Process;
use alloc::sync::Arc;
use ringlet_abi::{StreamSet, TerminalSize};
use spin::Once;

const STREAMS: [Stream; 3] = [Stream::Input, Stream::Output, Stream::Error];
const CONSOLE_NAME: &str = "console";
/// The device number of `/dev/tty`.
const TTY: DeviceNumber = DeviceNumber::new(5, 0);

/// Has the terminal have the size that the console says.
async fn follow_size(tty: Arc<Tty>, console: Arc<Console>) {
    while let Some((columns, rows)) = console.next_size().await {
        tty.resize(columns, rows);
    }
}

/// `/dev/tty`: whoever opens it gets the terminal that he has.
struct OwnTerminal;

impl FileOps for OwnTerminal {}

/// The files of the standard streams.
pub(crate) struct StandardStreams {
    files: [Arc<dyn FileOps>; 3],
    terminals: StreamSet,
    /// The device file of the console, once it is there.
    console: Once<Place>,
}

impl StandardStreams {
    /// Those of `console`, of which `terminals` are a terminal of the size `size`.
    pub(crate) fn new(console: &Arc<Console>, terminals: StreamSet, size: TerminalSize) -> Self {
        let port = |stream: Stream| -> Arc<dyn ByteStream> { console.port(stream).clone() };
        let is_terminal = |stream: Stream| terminals.contains(stream as u32);
        let tty = STREAMS
            .into_iter()
            .any(is_terminal)
            .then(|| Tty::new(size.columns, size.rows));
        if let Some(tty) = &tty {
            executor::spawn("terminal size", follow_size(tty.clone(), console.clone()));
        }
        if tty.is_none() && console.has_messages() {
            let console = console.clone();
            // There is no size to follow, but standard input may fail.
            executor::spawn("console messages", async move {
                while console.next_size().await.is_some() {}
            });
        }
        let files = STREAMS.map(|stream| -> Arc<dyn FileOps> {
            match &tty {
                Some(tty) if is_terminal(stream) => {
                    // What is typed is echoed, and what is written to it shown, on a terminal.
                    let shown = match stream {
                        Stream::Input => STREAMS.into_iter().skip(1).find(|s| is_terminal(*s)),
                        stream => Some(stream),
                    };
                    let output = Output::new(shown.map(port));
                    if stream == Stream::Input {
                        let input = port(Stream::Input);
                        executor::spawn("terminal", tty.clone().run(input, output.clone()));
                    }
                    Arc::new(TtyFile::new(tty.clone(), output))
                }
                _ => Arc::new(StreamFile::new(port(stream), stream as u64)),
            }
        });
        Self {
            files,
            terminals,
            console: Once::new(),
        }
    }

    /// Opens file descriptors 0, 1 and 2.
    pub(crate) fn open(&self, files: &FdTable) -> Result<()> {
        for (stream, ops) in STREAMS.into_iter().zip(&self.files) {
            let is_terminal = self.terminals.contains(stream as u32);
            let flags = match stream {
                _ if is_terminal => OpenFlags::READ_WRITE,
                Stream::Input => OpenFlags::empty(),
                Stream::Output | Stream::Error => OpenFlags::WRITE_ONLY,
            };
            let file = match self.console.get() {
                Some(console) if is_terminal => {
                    OpenFile::with_place(ops.clone(), flags, console.clone())?
                }
                _ => OpenFile::new(ops.clone(), flags),
            };
            files.insert(file, false, 0)?;
        }
        Ok(())
    }

    /// Makes `/dev/console` and `/dev/tty`.
    pub(crate) fn add_devices(&self, directory: &DeviceDirectory) -> Result<()> {
        let [_, output, _] = &self.files;
        let kind = FileType::CharDevice;
        let console = directory.add(CONSOLE_NAME, kind, CONSOLE, 0o600, output.clone())?;
        directory.add("tty", kind, TTY, 0o666, Arc::new(OwnTerminal))?;
        self.console.call_once(|| Place {
            location: directory.location_of(console),
            entry: Some(Entry {
                directory: directory.root().clone(),
                name: CONSOLE_NAME.as_bytes().to_vec(),
            }),
        });
        Ok(())
    }

    /// Makes the terminal, if there is one, that of the session of `process`.
    pub(crate) fn set_process(&self, process: &Arc<Process>) {
        let mut files = self.files.iter();
        if let Some(terminal) = files.find_map(|file| file.clone().terminal()) {
            process.set_terminal(terminal);
        }
    }
}
