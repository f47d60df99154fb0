//! Programs of the host in the guest: what one needs to run is laid over the root file system, in
//! guest memory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lddtree::DependencyAnalyzer;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectKind};
use rootfs::{Image, ImageError};

use crate::root_view::RootView;

/// Scripts that are the interpreters of scripts, as on Linux.
const MAX_SCRIPTS: usize = 4;
/// Bytes of a script's first line that count.
const FIRST_LINE: u64 = 256;
/// Where the dynamic linker finds libraries outside of its own directories.
const LINKER_CACHE: &str = "/etc/ld.so.cache";

/// Why a program of the host cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// A file cannot be read.
    #[error("{}: {cause}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host says.
        cause: io::Error,
    },
    /// The program is an ELF file that makes no sense.
    #[error("{}: {cause}", .path.display())]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A library is nowhere.
    #[error("{} needs the library {library}, which this host does not have", .program.display())]
    NoLibrary {
        /// The program.
        program: PathBuf,
        /// What it needs.
        library: String,
    },
    /// Nothing can be laid over the root.
    #[error(
        "{} is not in the root file system {}, over which nothing of the host is laid; mount it with \
         --volume, or the root with ':overlay'",
        .program.display(),
        .root.display()
    )]
    FixedRoot {
        /// The program.
        program: PathBuf,
        /// The root.
        root: PathBuf,
    },
    /// What is laid over the root does not fit into an archive.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Files to lay over a root file system.
struct Layer<'a> {
    root: &'a RootView,
    image: Image,
    /// What is in it.
    paths: BTreeSet<PathBuf>,
    /// Tells what the guest sees of the host at the same path.
    is_mounted: &'a dyn Fn(&Path) -> bool,
}

/// Whether `program`, as the command line has it, names a file of the host that is not in the root
/// file system; gives its absolute path.
pub fn find(program: &OsStr, root: impl FnOnce() -> io::Result<RootView>) -> Option<PathBuf> {
    if !program.as_bytes().contains(&b'/') {
        return None;
    }
    let path = std::path::absolute(program).ok()?;
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    // A path that is not absolute is not one of the root file system.
    let is_in_root = || Some(root().ok()?.resolve(Path::new(program)).exists);
    match Path::new(program).is_absolute() && is_in_root()? {
        true => None,
        false => Some(path),
    }
}

/// An archive of `program` and all that it needs to run over `root`, at the paths where they are on the
/// host, but for what `is_mounted` says that the guest sees there anyway.
///
/// # Errors
///
/// [`ProgramError`].
pub fn layer(
    program: &Path,
    root: &RootView,
    is_mounted: &dyn Fn(&Path) -> bool,
) -> Result<Vec<u8>, ProgramError> {
    let mut layer = Layer {
        root,
        image: Image::default(),
        paths: BTreeSet::new(),
        is_mounted,
    };
    layer.add_program(program)?;
    Ok(layer.image.archive()?)
}

impl Layer<'_> {
    /// Adds a file at its own path, with the links of the root file system resolved.
    fn add(&mut self, path: &Path) -> Result<(), ProgramError> {
        if (self.is_mounted)(path) {
            return Ok(());
        }
        let place = self.root.resolve(path).path;
        if !self.paths.insert(place.clone()) {
            return Ok(());
        }
        let failed = |cause| ProgramError::Read {
            path: path.to_owned(),
            cause,
        };
        let mode = path.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        let data = fs::read(path).map_err(failed)?;
        let inside = place.strip_prefix("/").unwrap_or(&place);
        self.image.file_at(inside, mode, data)?;
        Ok(())
    }

    fn add_program(&mut self, program: &Path) -> Result<(), ProgramError> {
        let mut program = program.to_owned();
        for _ in 0..=MAX_SCRIPTS {
            self.add(&program)?;
            match interpreter_of_script(&program)? {
                None => return self.add_libraries(&program),
                // The root's own comes first.
                Some(interpreter) if self.root.resolve(&interpreter).exists => return Ok(()),
                Some(interpreter) => program = interpreter,
            }
        }
        Ok(())
    }

    /// Adds the dynamic linker and libraries of an ELF file.
    fn add_libraries(&mut self, program: &Path) -> Result<(), ProgramError> {
        if !is_dynamic(program)? {
            return Ok(());
        }
        let tree = DependencyAnalyzer::default()
            .analyze(program)
            .map_err(|error| ProgramError::NotUnderstood {
                path: program.to_owned(),
                cause: error.to_string(),
            })?;
        let mut libraries: Vec<_> = tree.libraries.values().collect();
        libraries.sort_by(|one, other| one.path.cmp(&other.path));
        for library in libraries {
            if !library.found() {
                return Err(ProgramError::NoLibrary {
                    program: program.to_owned(),
                    library: library.name.clone(),
                });
            }
            self.add(&library.path)?;
        }
        // The program asks for it by this path, whatever the libraries call it.
        if let Some(linker) = &tree.interpreter {
            self.add(Path::new(linker))?;
        }
        let cache = Path::new(LINKER_CACHE);
        if cache.exists() && !self.root.resolve(cache).exists {
            self.add(cache)?;
        }
        Ok(())
    }
}

/// What a script says in its first line, if it is one.
fn interpreter_of_script(path: &Path) -> Result<Option<PathBuf>, ProgramError> {
    let mut line = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FIRST_LINE).read_to_end(&mut line))
        .map_err(|cause| ProgramError::Read {
            path: path.to_owned(),
            cause,
        })?;
    let Some(rest) = line.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let words = rest.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    let word = words
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .find(|word| !word.is_empty());
    Ok(word.map(|word| PathBuf::from(OsStr::from_bytes(word))))
}

/// Whether a program needs a dynamic linker. What is no program is for the guest to refuse.
fn is_dynamic(path: &Path) -> Result<bool, ProgramError> {
    let bytes = fs::read(path).map_err(|cause| ProgramError::Read {
        path: path.to_owned(),
        cause,
    })?;
    let Ok(file) = ElfFile64::<Endianness>::parse(&*bytes) else {
        return Ok(false);
    };
    if !matches!(file.kind(), ObjectKind::Executable | ObjectKind::Dynamic) {
        return Ok(false);
    }
    use object::read::elf::{FileHeader, ProgramHeader};
    let endian = file.endian();
    let headers = file.elf_header().program_headers(endian, &*bytes);
    let understood = |cause: object::Error| ProgramError::NotUnderstood {
        path: path.to_owned(),
        cause: cause.to_string(),
    };
    for header in headers.map_err(understood)? {
        if let Some(linker) = header.interpreter(endian, &*bytes).map_err(understood)? {
            // What has no name would make no sense further on.
            return match Path::new(OsStr::from_bytes(linker)).file_name() {
                Some(name) if name.to_str().is_some() => Ok(true),
                _ => Err(ProgramError::NotUnderstood {
                    path: path.to_owned(),
                    cause: "the name of its dynamic linker makes no sense".to_owned(),
                }),
            };
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use vmm_sys_util::tempdir::TempDir;
    use vmm_sys_util::tempfile::TempFile;

    fn view_of(archive: &[u8]) -> RootView {
        let mut file = TempFile::new().unwrap().into_file();
        file.write_all(archive).unwrap();
        file.rewind().unwrap();
        RootView::archive(&file).unwrap()
    }

    fn empty() -> RootView {
        view_of(&Image::default().archive().unwrap())
    }

    #[test]
    fn a_program_of_the_host_is_one_with_a_slash_that_the_root_has_not() {
        let find = |program: &str| super::find(OsStr::new(program), || Ok(empty()));
        let this = std::env::current_exe().unwrap();
        assert_eq!(find(this.to_str().unwrap()), Some(this.clone()));
        assert_eq!(find("ls"), None);
        assert_eq!(find("/nonexistent"), None);
        assert_eq!(find("/"), None);
        let mut image = Image::default();
        let inside = this.strip_prefix("/").unwrap();
        image.file_at(inside, 0o755, b"x".to_vec()).unwrap();
        let archive = image.archive().unwrap();
        assert_eq!(
            super::find(this.as_os_str(), || Ok(view_of(&archive))),
            None
        );
    }

    #[test]
    fn a_dynamic_program_comes_with_linker_and_libraries() {
        let this = std::env::current_exe().unwrap();
        let archive = layer(&this, &empty(), &|_| false).unwrap();
        let view = view_of(&archive);
        assert!(view.resolve(&this).exists);
        assert!(
            view.resolve(Path::new("/lib64/ld-linux-x86-64.so.2"))
                .exists
        );
        let libc = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
        ];
        assert!(libc.iter().any(|path| view.resolve(Path::new(path)).exists));
        // What the guest sees anyway is not copied.
        let archive = layer(&this, &empty(), &|path| path == this).unwrap();
        assert!(!view_of(&archive).resolve(&this).exists);
    }

    #[test]
    fn links_of_the_root_are_kept() {
        let mut image = Image::default();
        image.directory("usr/lib64", 0o755).unwrap();
        image.symlink("lib64", "usr/lib64").unwrap();
        let root = view_of(&image.archive().unwrap());
        let this = std::env::current_exe().unwrap();
        let view = view_of(&layer(&this, &root, &|_| false).unwrap());
        let linker = "/usr/lib64/ld-linux-x86-64.so.2";
        assert!(view.resolve(Path::new(linker)).exists);
        assert!(!view.resolve(Path::new("/lib64")).exists);
    }

    #[test]
    fn scripts_come_with_an_interpreter_that_the_root_has_not() {
        let dir = TempDir::new().unwrap();
        let script = dir.as_path().join("script");
        fs::write(&script, "#! /bin/sh -e\necho\n").unwrap();
        let view = view_of(&layer(&script, &empty(), &|_| false).unwrap());
        assert!(view.resolve(&script).exists);
        assert!(view.resolve(Path::new("/bin/sh")).exists);
        let mut image = Image::default();
        image.file("bin/sh", 0o755, b"own".to_vec()).unwrap();
        let root = view_of(&image.archive().unwrap());
        let view = view_of(&layer(&script, &root, &|_| false).unwrap());
        assert!(!view.resolve(Path::new("/bin/sh")).exists);
        fs::write(&script, "#!/nonexistent/interpreter\n").unwrap();
        let error = layer(&script, &empty(), &|_| false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/interpreter"), "{error}");
    }

    #[test]
    fn what_is_no_program_is_left_to_the_guest() {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("file");
        for contents in [&b""[..], b"text", b"\x7fELF", &[0x7f; 5000]] {
            fs::write(&path, contents).unwrap();
            let view = view_of(&layer(&path, &empty(), &|_| false).unwrap());
            assert!(view.resolve(&path).exists);
        }
    }
}
