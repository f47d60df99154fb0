//! Loading a program: finding the file, following `#!`, mapping it and its interpreter, building
//! the stack (`execve(2)`).

use super::elf::{self, HEADER_SIZE, Header, Segments};
use super::executable::Executable;
use super::image::{self, Placed};
use super::limits::STACK;
use super::stack::{self, Start};
use crate::error::{Errno, Result};
use crate::file::{Executed, MountFlags};
use crate::fs::{FileType, OpenFile, OpenHow, View};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::{AddressSpace, IoBuffer, PAGE, PageSource, TASK_SIZE};
use crate::random::fill_random;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;
use machine::UserContext;

/// Bytes of a file that are looked at to tell what it is (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// Scripts that may be run by scripts.
const SCRIPTS_MAX: usize = 5;
/// Execution is allowed for the owner, the group or others: enough for root.
const ANY_EXECUTE: u32 = 0o111;
/// Bytes of a path, its NUL included.
const PATH_MAX: u64 = 4096;
/// Where programs that run at any address go, before it is randomised (`ELF_ET_DYN_BASE`).
const PROGRAM_BASE: u64 = 0x5555_5555_4000;
/// Bytes between the stack's top and where mappings begin; more than the stack can need.
const STACK_GAP: u64 = 128 << 20;

/// Pages by which each part of the layout is moved, at most: as far as the page table tables that
/// this costs are not more than for a fixed layout.
const RANDOM_MAPPINGS: u64 = 1 << 28;
const RANDOM_PROGRAM: u64 = 1 << 28;
const RANDOM_STACK: u64 = 1 << 22;
const RANDOM_HEAP: u64 = 1 << 13;

/// A program that is ready to run.
pub(crate) struct Program {
    pub(crate) space: Arc<AddressSpace>,
    pub(crate) context: UserContext,
    /// The last component of its path, at most 15 bytes (`PR_GET_NAME`).
    pub(crate) name: [u8; 16],
    pub(crate) executable: Executable,
}

/// Which file is to be executed.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// Where its path starts, or the file itself if `is_open_file`.
    pub(crate) directory: i32,
    /// Its path.
    pub(crate) path: &'a [u8],
    /// Whether the descriptor is the file.
    pub(crate) is_open_file: bool,
    /// Whether it may be a symbolic link.
    pub(crate) is_followed: bool,
}

impl<'a> Source<'a> {
    /// The file at `path`.
    pub(crate) fn path(path: &'a [u8]) -> Self {
        Self {
            directory: raw::AT_FDCWD,
            path,
            is_open_file: false,
            is_followed: true,
        }
    }

    /// A path that leads to it as long as its descriptor is open, and whether it is one that goes by a
    /// descriptor.
    fn shown(&self) -> (Vec<u8>, bool) {
        if self.directory == raw::AT_FDCWD || self.path.first() == Some(&b'/') {
            return (self.path.to_vec(), false);
        }
        let mut shown = alloc::format!("/dev/fd/{}", self.directory).into_bytes();
        if !self.is_open_file {
            shown.push(b'/');
            shown.extend_from_slice(self.path);
        }
        (shown, true)
    }
}

/// What a program is given.
pub(crate) struct Given<'a> {
    /// Its arguments.
    pub(crate) arguments: Vec<Vec<u8>>,
    /// Its environment.
    pub(crate) environment: &'a [Vec<u8>],
    /// Who it is: real and effective user, real and effective group.
    pub(crate) ids: [u32; 4],
    /// Bytes that its stack may grow to.
    pub(crate) stack: u64,
}

/// A file that is executed: nobody writes it meanwhile.
struct Opened {
    file: Arc<OpenFile>,
    executed: Executed,
}

/// An ELF file whose headers have been read.
struct Elf {
    source: Arc<dyn PageSource>,
    file: Arc<OpenFile>,
    header: Header,
    segments: Segments,
}

/// Loads a program into a new address space.
///
/// # Errors
///
/// Those of `execve(2)`.
pub(crate) async fn load(view: View<'_>, source: Source<'_>, given: Given<'_>) -> Result<Program> {
    let mut arguments = given.arguments;
    let mut opened = open_source(view, source).await?;
    let (path, is_by_descriptor) = source.shown();
    let name = match (source.is_open_file, opened.file.place()) {
        (true, Some(place)) => {
            let entry = place.entry.as_ref();
            command_name(entry.map_or(&path[..], |entry| &entry.name))
        }
        _ => command_name(&path),
    };
    stack::check_size(&arguments, given.environment, &path, given.stack)?;
    let mut interpreted = path.clone();
    let mut depth = 0;
    let head = loop {
        let head = read(&opened.file, 0, HEAD).await?;
        let Some(script) = head.strip_prefix(b"#!") else {
            break head;
        };
        depth += 1;
        if depth > SCRIPTS_MAX {
            return Err(Errno::ELOOP);
        }
        let (interpreter, argument) = parse_script(script, head.len() < HEAD)?;
        if depth == 1 && is_by_descriptor && view.files.close_on_exec(source.directory)? {
            // The interpreter could not open it.
            return Err(Errno::ENOENT);
        }
        let mut rewritten = Vec::from([interpreter.to_vec()]);
        rewritten.extend(argument.map(<[u8]>::to_vec));
        rewritten.push(interpreted);
        rewritten.extend(arguments.into_iter().skip(1));
        arguments = rewritten;
        interpreted = interpreter.to_vec();
        opened = open_executable(view, &interpreted).await?;
    };
    let Opened { file, executed } = opened;
    let place = file.place().cloned();
    let program = Elf::read(file, head).await?;
    let interpreter = match program.segments.interpreter {
        Some(name) => Some(open_interpreter(view, &program, name).await?),
        None => None,
    };

    let space = AddressSpace::new()?;
    let stack_top = TASK_SIZE - random_pages(RANDOM_STACK);
    space.map_stack(
        stack_top,
        STACK,
        stack::access(program.segments.executable_stack),
    )?;
    space.set_mmap_base(stack_top - STACK_GAP - random_pages(RANDOM_MAPPINGS));
    let base = PROGRAM_BASE + random_pages(RANDOM_PROGRAM);
    let placed = program.map(&space, Some(base))?;
    let loader = match &interpreter {
        Some(interpreter) => Some(interpreter.map(&space, None)?),
        None => None,
    };
    space.set_heap(placed.end + random_pages(RANDOM_HEAP));

    let mut random = [0; 16];
    fill_random(&mut random);
    let built = stack::build(
        &space,
        stack_top,
        &Start {
            arguments: &arguments,
            environment: given.environment,
            file_name: &path,
            headers: (
                placed.headers,
                (program.header.table_length / elf::PROGRAM_HEADER_SIZE) as u64,
            ),
            base: loader.map_or(0, |loader| loader.bias),
            entry: placed.entry,
            ids: given.ids,
            random,
        },
    )?;
    Ok(Program {
        space,
        context: UserContext::new(loader.unwrap_or(placed).entry, built.pointer),
        name,
        executable: Executable {
            place,
            arguments: built.arguments,
            environment: built.environment,
            executed: Some(executed),
        },
    })
}

impl Elf {
    /// Reads the headers of `file`, which starts with `head`.
    async fn read(file: Arc<OpenFile>, head: Vec<u8>) -> Result<Self> {
        let header = elf::header(&head)?;
        let table = read(&file, header.table_offset, header.table_length).await?;
        if table.len() < header.table_length {
            return Err(Errno::ENOEXEC);
        }
        Ok(Self {
            source: file.ops.clone().page_source().map_err(|_| Errno::ENOEXEC)?,
            file,
            header,
            segments: elf::segments(&table)?,
        })
    }

    fn map(&self, space: &AddressSpace, base: Option<u64>) -> Result<Placed> {
        image::map(space, &self.source, &self.header, &self.segments, base)
    }
}

/// Whether a file may be executed, as far as it does not matter what is in it.
///
/// # Errors
///
/// Those of `execve(2)`.
pub(crate) async fn check_executable(view: View<'_>, source: Source<'_>) -> Result<()> {
    open_source(view, source).await.map(|_| ())
}

/// Opens a file to execute it.
async fn open_executable(view: View<'_>, path: &[u8]) -> Result<Opened> {
    open_source(view, Source::path(path)).await
}

async fn open_source(view: View<'_>, source: Source<'_>) -> Result<Opened> {
    let flags = match source.is_followed {
        true => raw::O_RDONLY,
        false => raw::O_RDONLY | raw::O_NOFOLLOW,
    };
    // A device or FIFO is not to be waited for, or to be told of it.
    let how = OpenHow::new(flags | raw::O_PATH, 0)?;
    let named = match source.is_open_file {
        true => view.files.get_any(source.directory)?,
        false => view.open(source.directory, source.path, how).await?,
    };
    let place = named.place().cloned().ok_or(Errno::EACCES)?;
    let stat = place.location.inode.stat().await?;
    match FileType::of_mode(stat.mode) {
        Some(FileType::Regular) => {}
        Some(FileType::Symlink) => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    let is_denied = place.location.mount.flags().contains(MountFlags::NO_EXEC);
    if is_denied || stat.mode & ANY_EXECUTE == 0 {
        return Err(Errno::EACCES);
    }
    let executed = Executed::new(place.location.inode.clone())?;
    let how = OpenHow::new(raw::O_RDONLY, 0)?;
    let file = view.open_place(place, how).await?;
    Ok(Opened { file, executed })
}

/// Opens the interpreter (dynamic loader) whose name is at `(offset, length)` of `program`.
async fn open_interpreter(
    view: View<'_>,
    program: &Elf,
    (offset, length): (u64, u64),
) -> Result<Elf> {
    if !(2..=PATH_MAX).contains(&length) {
        return Err(Errno::ENOEXEC);
    }
    let mut path = read(&program.file, offset, length as usize).await?;
    if path.len() < length as usize {
        return Err(Errno::EIO);
    }
    if path.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    let end = path.iter().position(|byte| *byte == 0);
    path.truncate(end.unwrap_or(path.len()));
    let Opened { file, .. } = open_executable(view, &path).await?;
    let head = read(&file, 0, HEADER_SIZE).await?;
    if head.len() < HEADER_SIZE {
        return Err(Errno::EIO);
    }
    Elf::read(file, head).await.map_err(|error| match error {
        Errno::ENOEXEC => Errno::ELIBBAD,
        error => error,
    })
}

/// Reads up to `length` bytes at `offset`.
async fn read(file: &OpenFile, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let buffer = IoBuffer::Kernel(alloc::vec![0; length - bytes.len()]);
        let position = offset
            .checked_add(bytes.len() as u64)
            .ok_or(Errno::ENOEXEC)?;
        let mut io = Io::new(Direction::Read, Some(position), buffer, IoFlags::empty());
        let count = file.complete(&mut io).await?;
        let IoBuffer::Kernel(part) = io.buffer else {
            break;
        };
        if count == 0 {
            break;
        }
        bytes.extend(part.into_iter().take(count));
    }
    Ok(bytes)
}

/// The interpreter and the argument in the first line of a script, of which `text` is the start
/// after `#!`, or all of it if `is_whole`.
fn parse_script(text: &[u8], is_whole: bool) -> Result<(&[u8], Option<&[u8]>)> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let newline = text.iter().position(|byte| *byte == b'\n');
    let line = &text[..newline.unwrap_or(text.len())];
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let start = line
        .iter()
        .position(|byte| !is_blank(byte))
        .ok_or(Errno::ENOEXEC)?;
    let line = &line[start..];
    let name_end = line.iter().position(is_blank);
    if name_end.is_none() && newline.is_none() && !is_whole {
        // The name itself may have been cut off.
        return Err(Errno::ENOEXEC);
    }
    let (name, rest) = line.split_at(name_end.unwrap_or(line.len()));
    if name.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    Ok((name, Some(trim(rest)).filter(|rest| !rest.is_empty())))
}

fn trim(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    &text[start..end]
}

fn command_name(path: &[u8]) -> [u8; 16] {
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut name = [0; 16];
    let length = last.len().min(15);
    name[..length].copy_from_slice(&last[..length]);
    name
}

/// A random number of bytes: whole pages, fewer than `pages`, a power of 2.
fn random_pages(pages: u64) -> u64 {
    let mut bytes = [0; 8];
    fill_random(&mut bytes);
    (u64::from_le_bytes(bytes) & (pages - 1)) * PAGE
}

/// The file that `name` means: itself if it has a slash, else the first in `PATH` that can be
/// executed (`execvp(3)`).
///
/// # Errors
///
/// `ENOENT` if there is none, `EACCES` if there are only such that may not be executed.
pub(crate) async fn find(view: View<'_>, name: &[u8], environment: &[Vec<u8>]) -> Result<Vec<u8>> {
    const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name.contains(&b'/') {
        open_executable(view, name).await?;
        return Ok(name.to_vec());
    }
    let path = environment
        .iter()
        .find_map(|variable| variable.strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut result = Errno::ENOENT;
    for directory in path.split(|byte| *byte == b':') {
        let mut file = directory.to_vec();
        if !file.is_empty() {
            file.push(b'/');
        }
        file.extend_from_slice(name);
        match open_executable(view, &file).await {
            Ok(_) => return Ok(file),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(Errno::EACCES) => result = Errno::EACCES,
            Err(error) => return Err(error),
        }
    }
    Err(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_script_names_interpreter_and_argument() {
        let parse = |text| parse_script(text, true);
        assert_eq!(parse(b"/bin/sh\nx"), Ok((&b"/bin/sh"[..], None)));
        assert_eq!(parse(b" \t/bin/sh"), Ok((&b"/bin/sh"[..], None)));
        assert_eq!(
            parse(b"/bin/env  a b \n"),
            Ok((&b"/bin/env"[..], Some(&b"a b"[..])))
        );
        assert_eq!(parse(b"/bin/sh\0x\n"), Ok((&b"/bin/sh"[..], None)));
        assert_eq!(parse(b" \n/bin/sh"), Err(Errno::ENOEXEC));
        assert_eq!(parse(b""), Err(Errno::ENOEXEC));
        assert_eq!(parse_script(&[b'a'; 254], false), Err(Errno::ENOEXEC));
        assert!(parse_script(b"/bin/sh aaaa", false).is_ok());
    }

    #[test]
    fn a_long_command_name_is_cut() {
        assert_eq!(&command_name(b"/bin/true")[..5], b"true\0");
        assert_eq!(command_name(b"abcdefghijklmnopqrst")[14..], *b"o\0");
    }
}
