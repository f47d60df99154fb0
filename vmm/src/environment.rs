//! The program's environment: defaults, files of variables, and what the command line says.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One `--env`, or a line of an `--env-file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvArg {
    /// `NAME=VALUE`.
    Set(OsString, OsString),
    /// `NAME`: the host's, if it has it.
    Host(OsString),
    /// `PREFIX*`: all of the host's whose names start so.
    HostPrefix(OsString),
}

impl EnvArg {
    /// Reads `NAME=VALUE`, `NAME` or `PREFIX*`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &OsStr) -> Result<Self, &'static str> {
        let bytes = text.as_bytes();
        let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        match bytes.iter().position(|byte| *byte == b'=') {
            Some(0) => Err("give a name, as in K=V"),
            Some(at) => Ok(Self::Set(owned(&bytes[..at]), owned(&bytes[at + 1..]))),
            None if bytes.is_empty() => Err("give a name, as in K=V"),
            None => Ok(match bytes.strip_suffix(b"*") {
                Some(prefix) => Self::HostPrefix(owned(prefix)),
                None => Self::Host(owned(bytes)),
            }),
        }
    }
}

/// Why a file of variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// It cannot be read.
    #[error("--env-file {}: {cause}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host says.
        cause: io::Error,
    },
    /// A line makes no sense.
    #[error("--env-file {}, line {line}: {cause}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        cause: &'static str,
    },
}

/// Reads a file of lines as [`EnvArg::parse`] takes them; empty ones and those that start with `#` say
/// nothing, and blanks before a name do not count.
///
/// # Errors
///
/// [`EnvFileError`].
pub fn read_file(path: &Path) -> Result<Vec<EnvArg>, EnvFileError> {
    let contents = std::fs::read(path).map_err(|cause| EnvFileError::Read {
        path: path.to_owned(),
        cause,
    })?;
    let mut variables = Vec::new();
    for (number, line) in contents.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let variable = EnvArg::parse(OsStr::from_bytes(line));
        variables.push(variable.map_err(|cause| EnvFileError::Line {
            path: path.to_owned(),
            line: number + 1,
            cause,
        })?);
    }
    Ok(variables)
}

/// The program's environment: the defaults, changed by `args` in their order; `host` is this process's.
pub fn environment(
    args: &[EnvArg],
    on_terminal: bool,
    host: &[(OsString, OsString)],
) -> Vec<Vec<u8>> {
    let of_host = |name: &OsStr| host.iter().find(|(other, _)| other == name);
    let mut variables = Variables::default();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    variables.set(OsStr::new("PATH"), OsStr::new(path));
    variables.set(OsStr::new("HOME"), OsStr::new("/root"));
    if let Some((name, value)) = of_host(OsStr::new("TERM")).filter(|_| on_terminal) {
        variables.set(name, value);
    }
    for arg in args {
        match arg {
            EnvArg::Set(name, value) => variables.set(name, value),
            EnvArg::Host(name) => {
                if let Some((name, value)) = of_host(name) {
                    variables.set(name, value);
                }
            }
            EnvArg::HostPrefix(prefix) => {
                for (name, value) in host {
                    if name.as_bytes().starts_with(prefix.as_bytes()) {
                        variables.set(name, value);
                    }
                }
            }
        }
    }
    let strings = variables.list.into_iter();
    strings
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .collect()
}

/// Variables in the order in which they were set first.
#[derive(Default)]
struct Variables {
    list: Vec<(OsString, OsString)>,
    places: HashMap<OsString, usize>,
}

impl Variables {
    fn set(&mut self, name: &OsStr, value: &OsStr) {
        match self.places.get(name) {
            Some(place) => self.list[*place].1 = value.to_owned(),
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> EnvArg {
        EnvArg::parse(OsStr::new(text)).unwrap()
    }

    fn strings(args: &[EnvArg], on_terminal: bool, host: &[(&str, &str)]) -> Vec<String> {
        let owned = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        let host: Vec<_> = host.iter().map(owned).collect();
        let strings = environment(args, on_terminal, &host).into_iter();
        strings
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn the_environment_is_the_defaults_and_what_is_asked_for() {
        let host = [
            ("TERM", "h"),
            ("X", "h"),
            ("CARGO_A", "1"),
            ("CARGO_B", "2"),
        ];
        let args = ["HOME=/h", "A=1", "X", "MISSING", "A=", "B=c=d", "CARGO_*"].map(parse);
        let set = strings(&args, true, &host);
        assert!(set[0].starts_with("PATH=/usr/local/sbin:"));
        let rest = [
            "HOME=/h",
            "TERM=h",
            "A=",
            "X=h",
            "B=c=d",
            "CARGO_A=1",
            "CARGO_B=2",
        ];
        assert_eq!(set[1..], rest);
        assert_eq!(strings(&[], false, &host).len(), 2);
        // A star elsewhere is a character.
        assert_eq!(strings(&[parse("*X")], false, &host).len(), 2);
        assert_eq!(strings(&[parse("*")], false, &host).len(), 2 + 4);
    }

    #[test]
    fn files_hold_variables_line_by_line() {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap();
        std::fs::write(file.as_path(), "# comment\n\nA=1\r\n  B=x y \nC\nD*\n").unwrap();
        let set = |name: &str, value: &str| EnvArg::Set(name.into(), value.into());
        assert_eq!(
            read_file(file.as_path()).unwrap(),
            [
                set("A", "1"),
                set("B", "x y "),
                EnvArg::Host("C".into()),
                EnvArg::HostPrefix("D".into())
            ]
        );
        std::fs::write(file.as_path(), "A=1\n=2\n").unwrap();
        let error = read_file(file.as_path()).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(read_file(Path::new("/nonexistent")).is_err());
    }
}
