//! File descriptors 0, 1 and 2, and `/dev/console`: the console's ports, as a terminal where the
//! stream is one at the other end.

use crate::drivers::console::{Console, Stream};
use crate::error::Result;
use crate::executor;
use crate::fs::{
    ByteStream, DeviceDirectory, DeviceNumber, FdTable, FileOps, FileType, OpenFile, OpenFlags,
    Output, StreamFile, Tty, TtyFile,
};
use crate::process::Process;
use alloc::sync::Arc;
use ringlet_abi::{StreamSet, TerminalSize};

const STREAMS: [Stream; 3] = [Stream::Input, Stream::Output, Stream::Error];
/// Major number of `/dev/tty` and `/dev/console`, and their minor numbers.
const TTY_MAJOR: u32 = 5;
const TTY_MINOR: u32 = 0;
const CONSOLE_MINOR: u32 = 1;

/// The files of the standard streams.
pub(crate) struct StandardStreams {
    files: [Arc<dyn FileOps>; 3],
    terminals: StreamSet,
    tty: Option<Arc<Tty>>,
}

impl StandardStreams {
    /// Those of `console`, of which `terminals` are a terminal of the size `size`.
    pub(crate) fn new(console: &Console, terminals: StreamSet, size: TerminalSize) -> Self {
        let port = |stream: Stream| -> Arc<dyn ByteStream> { console.port(stream).clone() };
        let is_terminal = |stream: Stream| terminals.contains(stream as u32);
        let tty = STREAMS
            .into_iter()
            .any(is_terminal)
            .then(|| Tty::new(size.columns, size.rows));
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
                        executor::spawn(tty.clone().run(input, output.clone()));
                    }
                    Arc::new(TtyFile::new(tty.clone(), output))
                }
                _ => Arc::new(StreamFile::new(port(stream), stream as u64)),
            }
        });
        Self {
            files,
            terminals,
            tty,
        }
    }

    /// Opens file descriptors 0, 1 and 2.
    pub(crate) fn open(&self, files: &FdTable) -> Result<()> {
        for (stream, ops) in STREAMS.into_iter().zip(&self.files) {
            let flags = match stream {
                _ if self.terminals.contains(stream as u32) => OpenFlags::READ_WRITE,
                Stream::Input => OpenFlags::empty(),
                Stream::Output | Stream::Error => OpenFlags::WRITE_ONLY,
            };
            files.insert(OpenFile::new(ops.clone(), flags), false, 0)?;
        }
        Ok(())
    }

    /// Makes `/dev/console` and, if there is a terminal, `/dev/tty`.
    pub(crate) fn add_devices(&self, directory: &DeviceDirectory) -> Result<()> {
        let [_, output, _] = &self.files;
        let add = |name, minor, mode| {
            let number = DeviceNumber::new(TTY_MAJOR, minor);
            directory.add(name, FileType::CharDevice, number, mode, output.clone())
        };
        add("console", CONSOLE_MINOR, 0o600)?;
        if self.tty.is_some() {
            add("tty", TTY_MINOR, 0o666)?;
        }
        Ok(())
    }

    /// Makes `process` the one that the terminal's control characters interrupt.
    pub(crate) fn set_process(&self, process: &Arc<Process>) {
        if let Some(tty) = &self.tty {
            tty.set_process(process);
        }
    }
}
