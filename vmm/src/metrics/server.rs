//! Where metrics go: a file, which is written again every second and at the end, or a socket, where each
//! connection gets them once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringlet_devices::{ThreadKind, Threads};

use super::Metrics;

/// How often a file is written.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long somebody who connects may take to say what he wants; one who says nothing wants the metrics.
const PATIENCE: Duration = Duration::from_millis(100);
/// By which the name of a socket begins or ends.
const SOCKET_PREFIX: &str = "unix:";
const SOCKET_SUFFIX: &str = "sock";

/// Where metrics go.
pub enum Place {
    /// A file.
    File(File),
    /// A socket, and its name.
    Socket(UnixListener, PathBuf),
}

impl Place {
    /// The place that `--metrics` names: `unix:PATH` and `PATH.sock` are sockets, as is where one is
    /// already, which is replaced; anything else is a file.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn open(name: &Path) -> io::Result<Self> {
        let prefixed = name
            .to_str()
            .and_then(|name| name.strip_prefix(SOCKET_PREFIX));
        let path = prefixed.map_or(name, Path::new);
        let is_left = path
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.file_type().is_socket());
        let is_named = path
            .extension()
            .is_some_and(|extension| extension == SOCKET_SUFFIX);
        if prefixed.is_none() && !is_left && !is_named {
            return Ok(Self::File(File::create(path)?));
        }
        if is_left {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Socket(listener, path.to_owned()))
    }

    /// The socket, if it is one.
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::File(_) => None,
            Self::Socket(_, path) => Some(path.clone()),
        }
    }
}

/// Serves metrics while a VM runs.
pub struct Server {
    metrics: Arc<Metrics>,
    place: Arc<Place>,
}

impl Server {
    /// Starts to serve `metrics` at `place`.
    ///
    /// # Errors
    ///
    /// The host denies the thread.
    pub fn start(metrics: &Arc<Metrics>, place: Place, threads: &Threads) -> io::Result<Self> {
        metrics.open();
        let place = Arc::new(place);
        let (seen, served) = (Arc::clone(&place), Arc::clone(metrics));
        threads.spawn(ThreadKind::Metrics, "metrics", move || {
            serve(&seen, &served)
        })?;
        Ok(Self {
            metrics: Arc::clone(metrics),
            place,
        })
    }

    /// Writes what there is at the end, and removes the socket. The thread ends with the process.
    pub fn finish(&self) {
        let result = match &*self.place {
            Place::File(file) => write_file(file, &self.metrics),
            Place::Socket(_, path) => std::fs::remove_file(path),
        };
        if let Err(error) = result {
            log::warn!("metrics: {error}");
        }
    }
}

fn serve(place: &Place, metrics: &Arc<Metrics>) {
    loop {
        let result = match place {
            Place::File(file) => {
                std::thread::sleep(INTERVAL);
                write_file(file, metrics)
            }
            Place::Socket(listener, _) => wait_for(listener).and_then(|()| {
                let (stream, _) = listener.accept()?;
                answer(stream, metrics)
            }),
        };
        if let Err(error) = result {
            log::debug!("metrics: {error}");
        }
    }
}

/// Waits for a connection.
fn wait_for(listener: &UnixListener) -> io::Result<()> {
    let mut polled = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: poll writes the one structure that it is given.
    match unsafe { libc::poll(&raw mut polled, 1, -1) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Replaces the contents. Who reads meanwhile sees the old or the new numbers: the file only grows where
/// numbers get more digits.
fn write_file(file: &File, metrics: &Arc<Metrics>) -> io::Result<()> {
    let text = metrics.render();
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// Gives the metrics to one who has connected, by HTTP if that is how he asks.
fn answer(mut stream: UnixStream, metrics: &Arc<Metrics>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = [0; 4096];
    // Silence and the end of the request are both no HTTP.
    let length = stream.read(&mut request).unwrap_or(0);
    let text = metrics.render();
    if request[..length].starts_with(b"GET ") {
        let head = format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        stream.write_all(head.as_bytes())?;
    }
    stream.write_all(text.as_bytes())
}
