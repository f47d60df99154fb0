use super::protocol::{ENTRY, opcode};
use super::*;
use crate::drivers::virtio_fs::tests::{Answering, Asked, Simulated, error, reply, start};
use crate::executor::block_on;
use crate::file::{
    AttributeChange, FileSystem, Inode, NewNode, OpenFile, OpenFlags, RenameMode, read_all,
};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::IoBuffer;
use alloc::boxed::Box;
use alloc::vec;

/// Node numbers of the server below.
const DIRECTORY: u64 = 2;
const FILE: u64 = 3;

fn attributes(node: u64) -> Vec<u8> {
    let mode: u32 = match node {
        1 | DIRECTORY => 0o040_755,
        _ => 0o100_644,
    };
    let mut bytes = Vec::new();
    for word in [node, 5, 8, 1, 2, 3] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// An entry that is valid for so many seconds.
fn entry(node: u64, seconds: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [node, 0, seconds, seconds, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend(attributes(node));
    assert_eq!(bytes.len(), ENTRY);
    bytes
}

fn opened() -> Vec<u8> {
    [7_u64.to_le_bytes(), [0; 8]].concat()
}

/// A server with a directory, a file of five bytes and room for more.
fn answer(asked: &Asked) -> Vec<u8> {
    let body = match asked.opcode {
        opcode::INIT => {
            let mut body = [0_u8; 64];
            body[0] = 7;
            body[4] = 40;
            body[22] = 16;
            body.to_vec()
        }
        opcode::FORGET | opcode::BATCH_FORGET => return Vec::new(),
        opcode::LOOKUP => match &asked.arguments[..] {
            b"dir\0" => entry(DIRECTORY, 10),
            b"file\0" => entry(FILE, 10),
            b"brief\0" => entry(FILE, 0),
            b"none\0" => entry(0, 10),
            _ => return error(asked.unique, 2),
        },
        opcode::GETATTR | opcode::SETATTR => [vec![0; 16], attributes(asked.node)].concat(),
        opcode::MKDIR => entry(DIRECTORY, 10),
        opcode::MKNOD | opcode::LINK => entry(FILE, 10),
        opcode::CREATE | opcode::TMPFILE => [entry(FILE, 10), opened()].concat(),
        opcode::OPEN | opcode::OPENDIR => opened(),
        opcode::READ => {
            let at = asked.arguments[8] as usize;
            b"hello".get(at..).unwrap_or_default().to_vec()
        }
        opcode::WRITE => {
            let size = &asked.arguments[16..20];
            [size, &[0; 4]].concat()
        }
        opcode::READDIRPLUS if asked.arguments[8] == 0 => {
            let mut body = entry(FILE, 10);
            body.extend(3_u64.to_le_bytes());
            body.extend(1_u64.to_le_bytes());
            body.extend(4_u32.to_le_bytes());
            body.extend(8_u32.to_le_bytes());
            body.extend(b"file\0\0\0\0");
            body
        }
        opcode::READLINK => b"target".to_vec(),
        opcode::STATFS => vec![1; 80],
        opcode::LSEEK => vec![0; 8],
        _ => Vec::new(),
    };
    reply(asked.unique, &body)
}

fn share(answer: Answering) -> (Simulated, Result<Arc<FuseInode>>) {
    let (simulated, device) = start(answer);
    // Each test has one, by the same tag.
    SHARES.lock().clear();
    add_device(&device);
    let root = block_on(open(b"test"));
    (simulated, root)
}

fn good() -> (Simulated, Arc<FuseInode>) {
    let (simulated, root) = share(Box::new(answer));
    (simulated, root.unwrap())
}

fn count(simulated: &Simulated, opcode: u32) -> usize {
    let is_one = |asked: &&Asked| asked.opcode == opcode;
    simulated.with_model(|model| model.asked.iter().filter(is_one).count())
}

fn lookup(directory: &Arc<FuseInode>, name: &str) -> Result<Arc<dyn Inode>> {
    block_on(directory.lookup(name.as_bytes()))
}

fn is_same(one: &Arc<dyn Inode>, other: &Arc<dyn Inode>) -> bool {
    core::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

#[test]
fn tags_name_devices() {
    let (_, root) = good();
    assert!(Arc::ptr_eq(&root, &block_on(open(b"test")).unwrap()));
    assert!(matches!(block_on(open(b"other")), Err(Errno::EINVAL)));
    drop(root);
    assert!(block_on(open(b"test")).is_ok(), "it begins anew");
}

#[test]
fn what_was_looked_up_is_kept_as_long_as_it_is_valid() {
    let (simulated, root) = good();
    let one = lookup(&root, "file").unwrap();
    let other = lookup(&root, "file").unwrap();
    assert!(is_same(&one, &other));
    assert_eq!(count(&simulated, opcode::LOOKUP), 1);
    assert_eq!(block_on(one.stat()).unwrap().size, 5);
    assert_eq!(count(&simulated, opcode::GETATTR), 1, "the root's");
    for _ in 0..2 {
        assert!(is_same(&one, &lookup(&root, "brief").unwrap()));
        assert!(matches!(lookup(&root, "none"), Err(Errno::ENOENT)));
    }
    assert_eq!(count(&simulated, opcode::LOOKUP), 4);
    block_on(crate::executor::sleep_until(
        machine::clock::monotonic() + 11_000_000_000,
    ));
    lookup(&root, "file").unwrap();
    assert!(matches!(lookup(&root, "none"), Err(Errno::ENOENT)));
    assert_eq!(count(&simulated, opcode::LOOKUP), 6);
}

#[test]
fn the_server_is_told_what_is_forgotten() {
    let (simulated, root) = good();
    for name in ["file", "brief", "brief"] {
        lookup(&root, name).unwrap();
    }
    root.forget_name(b"file");
    root.forget_name(b"brief");
    block_on(crate::executor::sleep_until(
        machine::clock::monotonic() + 2_000_000_000,
    ));
    let forgotten = simulated.with_model(|model| {
        let forgets = model.asked.iter();
        let forgets = forgets.filter(|asked| asked.opcode == opcode::FORGET);
        forgets
            .map(|asked| (asked.is_urgent, asked.node, asked.arguments.clone()))
            .collect::<Vec<_>>()
    });
    assert_eq!(forgotten, [(true, FILE, 3_u64.to_le_bytes().to_vec())]);
}

#[test]
fn bytes_are_read_and_written() {
    let (simulated, root) = good();
    let file = lookup(&root, "file").unwrap();
    let ops = block_on(file.open(OpenFlags::READ_WRITE)).unwrap();
    let open = OpenFile::new(ops, OpenFlags::READ_WRITE);
    assert_eq!(block_on(read_all(&open)).unwrap(), b"hello");
    let bytes = IoBuffer::Kernel(vec![1; (1 << 20) + 3]);
    let mut io = Io::new(Direction::Write, Some(1), bytes, IoFlags::empty());
    assert_eq!(block_on(open.complete(&mut io)), Ok((1 << 20) + 3));
    assert_eq!(count(&simulated, opcode::WRITE), 3);
    drop(io);
    block_on(open.ops.flush()).unwrap();
    drop(open);
    crate::executor::poll();
    assert_eq!(count(&simulated, opcode::RELEASE), 1);
}

#[test]
fn directories_are_listed_and_their_entries_known() {
    let (simulated, root) = good();
    let directory = block_on(root.clone().open(OpenFlags::empty())).unwrap();
    for _ in 0..2 {
        let mut names = Vec::new();
        let mut sink = |entry: &crate::file::DirEntry<'_>| {
            names.push((entry.name.to_vec(), entry.next));
            true
        };
        assert_eq!(block_on(directory.read_dir(0, &mut sink)), Ok(1));
        assert_eq!(names, [(b"file".to_vec(), 1)]);
    }
    lookup(&root, "file").unwrap();
    assert_eq!(count(&simulated, opcode::LOOKUP), 0);
}

#[test]
fn what_a_dropped_request_brings_is_given_back() {
    let (simulated, root) = good();
    simulated.with_model(|model| model.is_holding = true);
    {
        let mut made = Box::pin(root.make_file(b"new", 0o644, OpenFlags::READ_WRITE));
        let waker = core::task::Waker::noop();
        let mut context = core::task::Context::from_waker(waker);
        assert!(made.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(count(&simulated, opcode::CREATE), 0);
    simulated.with_model(|model| model.is_holding = false);
    simulated.process_some(1, 1);
    crate::executor::poll();
    crate::executor::poll();
    assert_eq!(count(&simulated, opcode::CREATE), 1);
    assert_eq!(count(&simulated, opcode::RELEASE), 1);
    assert_eq!(count(&simulated, opcode::FORGET), 1);
}

/// Does everything that there is, whatever comes of it.
fn do_everything(root: &Arc<FuseInode>) -> Vec<Errno> {
    let mut errors = Vec::new();
    let mut note = |result: Result<()>| errors.extend(result.err());
    for name in ["file", "dir", "brief", "none", "other"] {
        note(lookup(root, name).map(drop));
    }
    note(block_on(root.stat()).map(drop));
    let change = AttributeChange {
        size: Some(1),
        ..AttributeChange::default()
    };
    note(block_on(root.set_attributes(change)));
    for node in [
        NewNode::Regular,
        NewNode::Directory,
        NewNode::Symlink(b"x".to_vec()),
        NewNode::Fifo,
    ] {
        note(block_on(root.create(b"made", node, 0o644)).map(drop));
    }
    note(block_on(root.create_unnamed(0o600, true)).map(drop));
    let made = block_on(root.create_and_open(b"new", 0o644, OpenFlags::READ_WRITE));
    match made {
        Ok((inode, ops)) => {
            note(block_on(root.link(b"more", inode)));
            let open = OpenFile::new(ops, OpenFlags::READ_WRITE);
            note(block_on(read_all(&open)).map(drop));
            for flags in [IoFlags::empty(), IoFlags::APPEND | IoFlags::SYNC] {
                let bytes = IoBuffer::Kernel(vec![1; 10_000]);
                let mut io = Io::new(Direction::Write, Some(1), bytes, flags);
                note(block_on(open.complete(&mut io)).map(drop));
            }
            note(block_on(open.ops.sync(true)));
            note(block_on(open.ops.truncate(3)));
            note(block_on(open.ops.allocate(0, 0, 10)));
            note(block_on(open.ops.seek_hole(0, true)).map(drop));
            note(block_on(open.ops.flush()));
        }
        Err(error) => note(Err(error)),
    }
    if let Ok(directory) = block_on(root.clone().open(OpenFlags::empty())) {
        let mut left = 1000;
        let mut sink = |_: &crate::file::DirEntry<'_>| {
            left -= 1;
            left > 0
        };
        note(block_on(directory.read_dir(0, &mut sink)).map(drop));
        note(block_on(directory.sync(false)));
    }
    note(block_on(root.rename(
        b"new",
        root.clone(),
        b"old",
        RenameMode::Exchange,
    )));
    note(block_on(root.unlink(b"old")));
    note(block_on(root.remove_directory(b"dir")));
    note(block_on(FileSystem::info(&*root.fs)).map(drop));
    note(block_on(FileSystem::sync(&*root.fs)));
    errors
}

#[test]
fn a_hostile_server_gets_errors_and_no_more() {
    let opcodes = [
        opcode::INIT,
        opcode::LOOKUP,
        opcode::GETATTR,
        opcode::SETATTR,
        opcode::MKNOD,
        opcode::MKDIR,
        opcode::CREATE,
        opcode::TMPFILE,
        opcode::OPENDIR,
        opcode::READ,
        opcode::WRITE,
        opcode::READDIRPLUS,
        opcode::STATFS,
        opcode::LSEEK,
        opcode::LINK,
    ];
    // A small generator: the same each time.
    let mut state = 1_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    };
    let (simulated, device) = start(Box::new(answer));
    add_device(&device);
    for victim in opcodes {
        for round in 0..60 {
            let (at, value, length) = (random(), random() as u8, random());
            let spoil = move |asked: &Asked| {
                let mut bytes = answer(asked);
                if asked.opcode != victim || bytes.is_empty() {
                    return bytes;
                }
                match round % 4 {
                    // One byte behind the header is another.
                    0 if bytes.len() > 16 => {
                        let place = 16 + at % (bytes.len() - 16);
                        bytes[place] = value;
                    }
                    // All bytes are.
                    1 => bytes[16..].fill(value),
                    // It is shorter, and says so.
                    2 => {
                        bytes.truncate(16 + length % bytes.len());
                        let length = bytes.len() as u32;
                        bytes[..4].copy_from_slice(&length.to_le_bytes());
                    }
                    _ => {
                        let place = at % bytes.len();
                        bytes[place] ^= value;
                    }
                }
                bytes
            };
            simulated.with_model(|model| {
                model.answer = Box::new(spoil);
                model.asked.clear();
            });
            if let Ok(root) = block_on(open(b"test")) {
                do_everything(&root);
                root.fs.shut_down();
            }
        }
    }
}

#[test]
fn a_device_that_dies_gives_errors() {
    let (simulated, root) = good();
    lookup(&root, "file").unwrap();
    simulated.sabotage(machine::hosted::device::Sabotage::UnknownId);
    assert!(matches!(lookup(&root, "dir"), Err(Errno::EIO)));
    let errors = do_everything(&root);
    assert!(errors.contains(&Errno::EIO));
    assert!(lookup(&root, "file").is_ok(), "it is known still");
}

fn opened_file(root: &Arc<FuseInode>) -> Arc<OpenFile> {
    let file = lookup(root, "file").unwrap();
    let ops = block_on(file.open(OpenFlags::READ_WRITE)).unwrap();
    OpenFile::new(ops, OpenFlags::READ_WRITE)
}

fn pause(seconds: u64) {
    let end = machine::clock::monotonic() + seconds * 1_000_000_000;
    block_on(crate::executor::sleep_until(end));
}

#[test]
fn pages_are_kept_until_the_file_is_another() {
    let (simulated, root) = good();
    let open = opened_file(&root);
    for _ in 0..3 {
        assert_eq!(block_on(read_all(&open)).unwrap(), b"hello");
        pause(11);
    }
    assert_eq!(count(&simulated, opcode::READ), 1);
    assert!(count(&simulated, opcode::GETATTR) >= 3);
    // Another time of modification.
    simulated.with_model(|model| {
        model.answer = Box::new(|asked| {
            let mut bytes = answer(asked);
            if asked.opcode == opcode::GETATTR {
                bytes[32 + 32] = 9;
            }
            bytes
        });
    });
    for _ in 0..2 {
        assert_eq!(block_on(read_all(&open)).unwrap(), b"hello");
    }
    assert_eq!(count(&simulated, opcode::READ), 2);
    let direct = IoFlags::DIRECT;
    let frame = machine::Frame::zeroed().unwrap();
    let segment = machine::Segment::new(frame, 0, 5).unwrap();
    let buffer = IoBuffer::registered([segment].into(), 0, 5);
    let mut io = Io::new(Direction::Read, Some(0), buffer, direct);
    assert_eq!(block_on(open.complete(&mut io)), Ok(5));
    assert_eq!(count(&simulated, opcode::READ), 3, "nothing in between");
}

#[test]
fn what_is_stored_in_a_mapping_is_written_back() {
    let (simulated, root) = good();
    let open = opened_file(&root);
    let source = open.ops.clone().page_source().unwrap();
    let same = open.ops.clone().page_source().unwrap();
    assert!(core::ptr::addr_eq(Arc::as_ptr(&source), Arc::as_ptr(&same)));
    assert!(source.page_now(0, false).is_none(), "it is not there yet");
    let frame = block_on(source.page(0, false)).unwrap();
    assert_eq!(frame.read_array::<8>(0), *b"hello\0\0\0");
    assert_eq!(source.page_now(1, false), Some(Err(Errno::EFAULT)));
    assert_eq!(count(&simulated, opcode::WRITE), 0);
    let stored = block_on(source.page(0, true)).unwrap();
    assert_eq!(stored, frame);
    stored.write(0, b"J");
    pause(2);
    let written = |simulated: &Simulated| {
        simulated.with_model(|model| {
            let writes = model.asked.iter();
            let writes = writes.filter(|asked| asked.opcode == opcode::WRITE);
            writes
                .map(|asked| asked.arguments[40..].to_vec())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(written(&simulated), [b"Jello".to_vec()]);
    pause(5);
    assert_eq!(written(&simulated).len(), 1, "it is clean now");
    let stored = block_on(source.page(0, true)).unwrap();
    stored.write(0, b"C");
    block_on(open.sync(true)).unwrap();
    assert_eq!(written(&simulated)[1], b"Cello");
    assert_eq!(count(&simulated, opcode::FSYNC), 1);
    // What is cut off is not written.
    block_on(source.page(0, true)).unwrap();
    let before = written(&simulated).len();
    simulated.with_model(|model| {
        model.answer = Box::new(|asked| {
            let mut bytes = answer(asked);
            if asked.opcode == opcode::SETATTR {
                bytes[32 + 8] = 0;
            }
            bytes
        });
    });
    block_on(open.ops.truncate(0)).unwrap();
    assert_eq!(source.page_now(0, false), Some(Err(Errno::EFAULT)));
    pause(2);
    assert_eq!(written(&simulated).len(), before);
}

#[test]
fn an_error_of_writing_back_is_told_once_to_each() {
    let (simulated, root) = good();
    let (one, other) = (opened_file(&root), opened_file(&root));
    let source = one.ops.clone().page_source().unwrap();
    simulated.with_model(|model| {
        model.answer = Box::new(|asked| match asked.opcode {
            opcode::WRITE => error(asked.unique, 28),
            _ => answer(asked),
        });
    });
    block_on(source.page(0, true)).unwrap();
    pause(2);
    for file in [&one, &other] {
        assert_eq!(block_on(file.sync(false)), Err(Errno::ENOSPC));
        assert_eq!(block_on(file.sync(false)), Ok(()));
    }
    let late = opened_file(&root);
    assert_eq!(block_on(late.sync(false)), Ok(()));
}

#[test]
fn pages_that_nobody_uses_are_given_up() {
    let (simulated, root) = good();
    let open = opened_file(&root);
    assert_eq!(block_on(read_all(&open)).unwrap(), b"hello");
    let source = open.ops.clone().page_source().unwrap();
    let mapped = block_on(source.page(0, false)).unwrap();
    assert_eq!(pages::give_up(10) + pages::give_up(10), 0, "it is in use");
    drop(mapped);
    assert_eq!(pages::give_up(10) + pages::give_up(10), 1);
    assert_eq!(block_on(read_all(&open)).unwrap(), b"hello");
    assert_eq!(count(&simulated, opcode::READ), 2);
    // One that programs have changed is written back first.
    drop(block_on(source.page(0, true)).unwrap());
    assert_eq!(pages::give_up(10) + pages::give_up(10), 0);
    pause(2);
    assert_eq!(pages::give_up(10) + pages::give_up(10), 1);
}

#[test]
fn the_server_copies_between_its_files() {
    let (simulated, root) = good();
    let (from, to) = (opened_file(&root), opened_file(&root));
    simulated.with_model(|model| {
        model.answer = Box::new(|asked| match asked.opcode {
            opcode::COPY_FILE_RANGE => reply(asked.unique, &[3, 0, 0, 0, 0, 0, 0, 0]),
            _ => answer(asked),
        });
    });
    let copied = from.ops.copy_to(1, &*to.ops, 9, 4).unwrap();
    assert_eq!(block_on(copied), Ok(3));
    simulated.with_model(|model| {
        model.answer = Box::new(|asked| match asked.opcode {
            opcode::COPY_FILE_RANGE => error(asked.unique, 18),
            _ => answer(asked),
        });
    });
    let copied = from.ops.copy_to(1, &*to.ops, 9, 4).unwrap();
    assert_eq!(block_on(copied), Err(Errno::EOPNOTSUPP));
}
