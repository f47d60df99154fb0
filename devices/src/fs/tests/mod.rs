//! The device driven as a guest would, well-behaved and hostile.

mod hostile;
mod linux;
mod locks;
mod operations;

use std::fs;
use std::path::{Path, PathBuf};

use fuse_abi::linux::*;
use rustix::io::Errno;
use vmm_sys_util::tempdir::TempDir;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::protocol::Result;
use super::*;
use crate::testing::{BUFFERS, Buffer, DEADLINE, Driver, MEMORY_SIZE};

const ARGUMENTS: u64 = BUFFERS;
const REPLY: u64 = BUFFERS + 0x10_0000;
const DATA: u64 = BUFFERS + 0x20_0000;
const ENGINES: [EngineKind; 2] = [EngineKind::Auto, EngineKind::Threads];

/// A limit that no test but those of limits reaches.
const LIMITS: DescriptorLimits = DescriptorLimits {
    nodes: 1000,
    handles: 1000,
};

/// A client of a share of its own.
struct Client {
    driver: Driver<Fs>,
    /// What is shared is `shared` in it.
    dir: TempDir,
    unique: u64,
    user: (u32, u32),
}

fn device(share: Share, limits: DescriptorLimits, engine: EngineKind) -> Fs {
    let threads = Threads::unconfined();
    let fs = Fs::new("share", share, 2, limits, engine, &threads).unwrap();
    threads.await_confined().unwrap();
    fs
}

impl Client {
    fn new() -> Self {
        Self::with(true, Cache::Auto, LIMITS, EngineKind::Auto)
    }

    fn with(is_writable: bool, cache: Cache, limits: DescriptorLimits, engine: EngineKind) -> Self {
        let dir = TempDir::new().unwrap();
        let shared = dir.as_path().join("shared");
        fs::create_dir(&shared).unwrap();
        let share = Share::open(&shared, is_writable, cache).unwrap();
        let mut client = Self {
            driver: Driver::started(device(share, limits, engine), 0),
            dir,
            unique: 0,
            user: (0, 0),
        };
        client.init().unwrap();
        client
    }

    fn init(&mut self) -> Result<fuse_init_out> {
        let init = fuse_init_in {
            major: 7,
            minor: 40,
            max_readahead: 1 << 20,
            flags: u32::MAX,
            flags2: u32::MAX,
            unused: [0; 11],
        };
        self.call(fuse_opcode::FUSE_INIT, 0, &[init.as_bytes()])
    }

    fn shared(&self, inside: &str) -> PathBuf {
        self.dir.as_path().join("shared").join(inside)
    }

    fn header(&mut self, opcode: fuse_opcode, node: u64, arguments: usize) -> fuse_in_header {
        self.unique += 1;
        fuse_in_header {
            len: (40 + arguments) as u32,
            opcode: opcode as u32,
            unique: self.unique,
            nodeid: node,
            uid: self.user.0,
            gid: self.user.1,
            pid: 1,
            total_extlen: 0,
            padding: 0,
        }
    }

    /// Makes a request available, with room for `room` bytes of reply; gives its number.
    fn send(&mut self, opcode: fuse_opcode, node: u64, arguments: &[&[u8]], room: u32) -> u64 {
        let arguments = arguments.concat();
        let header = self.header(opcode, node, arguments.len());
        let bytes = [header.as_bytes(), &arguments].concat();
        self.driver.write(ARGUMENTS, &bytes);
        let mut chain = vec![Buffer::Readable(ARGUMENTS, bytes.len() as u32)];
        if room > 0 {
            chain.push(Buffer::Writable(REPLY, room));
        }
        self.driver.send(1, &chain);
        self.unique
    }

    /// The reply to request `unique`, which used `len` bytes.
    fn reply(&self, unique: u64, len: u32) -> Result<Vec<u8>> {
        let bytes = self.driver.bytes(REPLY, len as usize);
        let (header, rest) = fuse_out_header::read_from_prefix(&bytes).unwrap();
        assert_eq!((header.unique, header.len), (unique, len));
        match header.error {
            0 => Ok(rest.to_vec()),
            error => {
                assert!(rest.is_empty() && error < 0);
                Err(Errno::from_raw_os_error(-error))
            }
        }
    }

    fn raw(&mut self, opcode: fuse_opcode, node: u64, arguments: &[&[u8]]) -> Result<Vec<u8>> {
        let unique = self.send(opcode, node, arguments, 0x2_0000);
        let (_, len) = self.driver.await_used(1);
        self.reply(unique, len)
    }

    fn call<T: FromBytes>(
        &mut self,
        opcode: fuse_opcode,
        node: u64,
        arguments: &[&[u8]],
    ) -> Result<T> {
        let bytes = self.raw(opcode, node, arguments)?;
        Ok(T::read_from_prefix(&bytes).unwrap().0)
    }

    /// A request whose reply is empty.
    fn act(&mut self, opcode: fuse_opcode, node: u64, arguments: &[&[u8]]) -> Result<()> {
        let bytes = self.raw(opcode, node, arguments)?;
        assert!(bytes.is_empty());
        Ok(())
    }

    /// A request that has no reply.
    fn note(&mut self, opcode: fuse_opcode, node: u64, arguments: &[&[u8]]) {
        let arguments = arguments.concat();
        let header = self.header(opcode, node, arguments.len());
        let bytes = [header.as_bytes(), &arguments].concat();
        // Not where a request may be that waits.
        self.driver.write(DATA, &bytes);
        self.driver
            .send(0, &[Buffer::Readable(DATA, bytes.len() as u32)]);
        assert_eq!(self.driver.await_used(0).1, 0);
    }

    fn look_up(&mut self, directory: u64, name: &str) -> Result<fuse_entry_out> {
        let name = [name.as_bytes(), b"\0"].concat();
        let entry: fuse_entry_out = self.call(fuse_opcode::FUSE_LOOKUP, directory, &[&name])?;
        match entry.nodeid {
            0 => Err(Errno::NOENT),
            _ => Ok(entry),
        }
    }

    fn attributes(&mut self, node: u64) -> Result<fuse_attr> {
        let asked = fuse_getattr_in::new_zeroed();
        let reply: fuse_attr_out =
            self.call(fuse_opcode::FUSE_GETATTR, node, &[asked.as_bytes()])?;
        Ok(reply.attr)
    }

    fn open(&mut self, node: u64, flags: i32) -> Result<fuse_open_out> {
        let asked = fuse_open_in {
            flags: flags as u32,
            open_flags: 0,
        };
        self.call(fuse_opcode::FUSE_OPEN, node, &[asked.as_bytes()])
    }

    fn create(&mut self, directory: u64, name: &str, flags: i32, mode: u32) -> Result<(u64, u64)> {
        let asked = fuse_create_in {
            flags: flags as u32,
            mode,
            umask: 0o022,
            open_flags: 0,
        };
        let name = [name.as_bytes(), b"\0"].concat();
        let arguments = [asked.as_bytes(), &name];
        let bytes = self.raw(fuse_opcode::FUSE_CREATE, directory, &arguments)?;
        let (entry, rest) = fuse_entry_out::read_from_prefix(&bytes).unwrap();
        let (opened, _) = fuse_open_out::read_from_prefix(rest).unwrap();
        Ok((entry.nodeid, opened.fh))
    }

    fn release(&mut self, node: u64, fh: u64) -> Result<()> {
        let mut asked = fuse_release_in::new_zeroed();
        asked.fh = fh;
        self.act(fuse_opcode::FUSE_RELEASE, node, &[asked.as_bytes()])
    }

    /// Reads into `buffers`.
    fn read_into(
        &mut self,
        node: u64,
        fh: u64,
        offset: u64,
        buffers: &[(u64, u32)],
    ) -> Result<u32> {
        let mut asked = fuse_read_in::new_zeroed();
        (asked.fh, asked.offset) = (fh, offset);
        asked.size = buffers.iter().map(|(_, len)| len).sum();
        let header = self.header(fuse_opcode::FUSE_READ, node, asked.as_bytes().len());
        self.driver
            .write(ARGUMENTS, &[header.as_bytes(), asked.as_bytes()].concat());
        let mut chain = vec![
            Buffer::Readable(ARGUMENTS, 40),
            Buffer::Readable(ARGUMENTS + 40, asked.as_bytes().len() as u32),
            Buffer::Writable(REPLY, 16),
        ];
        chain.extend(
            buffers
                .iter()
                .map(|(addr, len)| Buffer::Writable(*addr, *len)),
        );
        self.driver.send(1, &chain);
        let (_, len) = self.driver.await_used(1);
        let bytes = self.driver.bytes(REPLY, 16);
        let header = fuse_out_header::read_from_bytes(&bytes).unwrap();
        assert_eq!((header.unique, header.len), (self.unique, len));
        match header.error {
            0 => Ok(len - 16),
            error => Err(Errno::from_raw_os_error(-error)),
        }
    }

    fn read(&mut self, node: u64, fh: u64, offset: u64, len: u32) -> Result<Vec<u8>> {
        let count = self.read_into(node, fh, offset, &[(DATA, len)])?;
        Ok(self.driver.bytes(DATA, count as usize))
    }

    fn write_flags(
        &mut self,
        (node, fh): (u64, u64),
        offset: u64,
        data: &[u8],
        flags: i32,
    ) -> Result<u32> {
        let mut asked = fuse_write_in::new_zeroed();
        (asked.fh, asked.offset, asked.flags) = (fh, offset, flags as u32);
        asked.size = data.len() as u32;
        let reply: fuse_write_out =
            self.call(fuse_opcode::FUSE_WRITE, node, &[asked.as_bytes(), data])?;
        Ok(reply.size)
    }

    fn write(&mut self, file: (u64, u64), offset: u64, data: &[u8]) -> Result<u32> {
        self.write_flags(file, offset, data, 0)
    }

    /// Names and inode numbers of a directory, read in pieces of `size` bytes; with READDIRPLUS the
    /// node numbers too.
    fn list(&mut self, node: u64, size: u32, plus: bool) -> Result<Vec<(String, u64, u64)>> {
        let opened = self.call::<fuse_open_out>(
            fuse_opcode::FUSE_OPENDIR,
            node,
            &[fuse_open_in::new_zeroed().as_bytes()],
        )?;
        let opcode = match plus {
            true => fuse_opcode::FUSE_READDIRPLUS,
            false => fuse_opcode::FUSE_READDIR,
        };
        let mut asked = fuse_read_in::new_zeroed();
        (asked.fh, asked.size) = (opened.fh, size);
        let mut all = Vec::new();
        loop {
            let bytes = self.raw(opcode, node, &[asked.as_bytes()])?;
            assert!(bytes.len() <= size as usize);
            if bytes.is_empty() {
                break;
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let mut found = 0;
                if plus {
                    let (entry, after) = fuse_entry_out::read_from_prefix(rest).unwrap();
                    (found, rest) = (entry.nodeid, after);
                }
                let word = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
                let len = u32::from_le_bytes(rest[16..20].try_into().unwrap()) as usize;
                let name = String::from_utf8(rest[24..24 + len].to_vec()).unwrap();
                asked.offset = word(8);
                all.push((name, word(0), found));
                rest = &rest[(24 + len).next_multiple_of(8)..];
            }
        }
        let mut asked = fuse_release_in::new_zeroed();
        asked.fh = opened.fh;
        self.act(fuse_opcode::FUSE_RELEASEDIR, node, &[asked.as_bytes()])?;
        Ok(all)
    }
}

fn named<T: IntoBytes + Immutable>(structure: &T, names: &[&str]) -> Vec<u8> {
    let mut bytes = structure.as_bytes().to_vec();
    for name in names {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// Descriptors of this process that name something in `dir`.
fn descriptors_in(dir: &Path) -> usize {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(dir)).count()
}
