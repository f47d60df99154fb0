//! Where the GDB stub listens: the value of `--gdb`.

use std::fmt;
use std::path::PathBuf;

/// A TCP address or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host's name or address, and a port; port 0 is any free one.
    Tcp(String, u16),
    /// A socket's path.
    Unix(PathBuf),
}

const LOOPBACK: &str = "127.0.0.1";
const HOW: &str = "give PORT, HOST:PORT or the path of a socket";

impl Address {
    /// Understands `PORT`, `:PORT`, `HOST:PORT` and `PATH`: what has a slash or no colon is a path.
    ///
    /// # Errors
    ///
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_port = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (host, port) = match text.rsplit_once(':') {
            _ if text.is_empty() => return Err(HOW.to_owned()),
            _ if is_port => (LOOPBACK, text),
            _ if text.contains('/') => return Ok(Self::Unix(text.into())),
            None => return Ok(Self::Unix(text.into())),
            Some(("", port)) => (LOOPBACK, port),
            Some((host, port)) => (host.trim_matches(['[', ']']), port),
        };
        let port = port
            .parse()
            .map_err(|_| format!("'{port}' is no TCP port; {HOW}"))?;
        Ok(Self::Tcp(host.to_owned(), port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |host: &str, port| Ok(Address::Tcp(host.to_owned(), port));
        let unix = |path: &str| Ok(Address::Unix(path.into()));
        for (text, address) in [
            ("1234", tcp("127.0.0.1", 1234)),
            (":1234", tcp("127.0.0.1", 1234)),
            ("0.0.0.0:0", tcp("0.0.0.0", 0)),
            ("localhost:1", tcp("localhost", 1)),
            ("[::1]:7", tcp("::1", 7)),
            ("/run/a:1", unix("/run/a:1")),
            ("./7", unix("./7")),
            ("gdb.sock", unix("gdb.sock")),
        ] {
            assert_eq!(Address::parse(text), address, "{text}");
        }
        for text in ["", "65536", "host:", "host:x", "99999999999999999999"] {
            assert!(Address::parse(text).unwrap_err().contains("PORT"), "{text}");
        }
    }

    #[test]
    fn they_are_shown_as_they_are_given() {
        for text in ["127.0.0.1:1234", "[::1]:7", "/run/gdb"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
    }
}
