//! `rootfs-builder`: the command line of the image builder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use rootfs::{Image, ImageError, layout};
use thiserror::Error;

/// Builds Ringlet's initramfs; the same inputs give the same bytes.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The image to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// A static busybox; it is run once to list its applets
    #[arg(long, value_name = "FILE")]
    busybox: PathBuf,
    /// A static program to put into /bin
    #[arg(long = "program", value_name = "FILE")]
    programs: Vec<PathBuf>,
    /// A directory whose contents to put into /; may be repeated, and what is given later wins
    #[arg(long = "tree", value_name = "DIR")]
    trees: Vec<PathBuf>,
}

#[derive(Debug, Error)]
enum BuildError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("{} has no file name that can be used", .0.display())]
    NoName(PathBuf),
    #[error("cannot list the applets of {}: {reason}", busybox.display())]
    Applets { busybox: PathBuf, reason: String },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

fn main() -> ExitCode {
    match build(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rootfs-builder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build(options: &Options) -> Result<(), BuildError> {
    let mut image = Image::default();
    layout::skeleton(&mut image)?;
    let applets = applets(&options.busybox)?;
    layout::busybox(&mut image, read(&options.busybox)?, applets.lines())?;
    for path in &options.programs {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| BuildError::NoName(path.clone()))?;
        layout::program(&mut image, name, read(path)?)?;
    }
    for path in &options.trees {
        image.tree(path)?;
    }
    write(&options.output, &image.archive()?)
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|source| ImageError::Read {
        path: path.to_owned(),
        source,
    })
}

fn applets(busybox: &Path) -> Result<String, BuildError> {
    let failed = |reason| BuildError::Applets {
        busybox: busybox.to_owned(),
        reason,
    };
    let output = Command::new(busybox)
        .arg("--list")
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("--list ended with {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

/// Replaces the file in one step, so that nobody ever sees a half-written image.
fn write(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|source| BuildError::Write {
            path: path.to_owned(),
            source,
        })
}
