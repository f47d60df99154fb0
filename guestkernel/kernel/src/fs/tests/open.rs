//! Opening files, and descriptors.

use super::*;

const CREATE: u32 = raw::O_CREAT | raw::O_WRONLY;
const EXCLUSIVE: u32 = CREATE | raw::O_EXCL;

fn tree() -> Sandbox {
    let fs = Sandbox::new();
    fs.mkdir("d").unwrap();
    fs.write("d/f", b"x");
    fs.symlink("d", "ld").unwrap();
    fs.symlink("target", "dangling").unwrap();
    fs.symlink("loop", "loop").unwrap();
    fs
}

#[test]
fn what_cannot_be_opened_fails_as_on_linux() {
    let fs = tree();
    for (path, flags, error) in [
        ("", 0, Errno::ENOENT),
        ("no", 0, Errno::ENOENT),
        ("loop", raw::O_NOFOLLOW, Errno::ELOOP),
        ("loop", raw::O_NOFOLLOW | raw::O_DIRECTORY, Errno::ENOTDIR),
        ("ld", raw::O_NOFOLLOW, Errno::ELOOP),
        ("ld", raw::O_NOFOLLOW | raw::O_DIRECTORY, Errno::ENOTDIR),
        ("d", raw::O_WRONLY, Errno::EISDIR),
        ("d", raw::O_TRUNC, Errno::EISDIR),
        ("d", raw::O_ACCMODE, Errno::EISDIR),
        ("d", raw::O_CREAT, Errno::EISDIR),
        ("d/", raw::O_CREAT, Errno::EISDIR),
        (".", raw::O_CREAT, Errno::EISDIR),
        ("..", raw::O_CREAT, Errno::EISDIR),
        (".", raw::O_CREAT | raw::O_EXCL, Errno::EEXIST),
        ("d", raw::O_DIRECT, Errno::EINVAL),
        ("d/f", raw::O_DIRECTORY, Errno::ENOTDIR),
        ("d/f/", 0, Errno::ENOTDIR),
        ("new", raw::O_CREAT | raw::O_DIRECTORY, Errno::EINVAL),
        ("new/", CREATE, Errno::EISDIR),
        ("dangling", EXCLUSIVE, Errno::EEXIST),
        ("dangling/", CREATE, Errno::EISDIR),
        ("dangling", CREATE | raw::O_NOFOLLOW, Errno::ELOOP),
        ("d/f", EXCLUSIVE, Errno::EEXIST),
        (".", raw::O_TMPFILE, Errno::EINVAL),
        ("d/f", raw::O_TMPFILE | raw::O_RDWR, Errno::ENOTDIR),
    ] {
        assert_eq!(fs.open(path, flags), Err(error), "{path} {flags:o}");
    }
    for (path, flags) in [
        ("ld/", raw::O_NOFOLLOW),
        ("loop", raw::O_NOFOLLOW | raw::O_PATH),
        ("d/f", raw::O_ACCMODE),
        ("d", raw::O_DIRECTORY),
        ("d/f", raw::O_DIRECT),
    ] {
        assert_eq!(fs.open(path, flags), Ok(()), "{path} {flags:o}");
    }
}

#[test]
fn a_dangling_link_is_where_the_file_is_made() {
    let fs = tree();
    fs.open("dangling", CREATE).unwrap();
    assert_eq!(fs.lstat("target").unwrap().mode, raw::S_IFREG | 0o644);
    fs.symlink("slash/", "with-slash").unwrap();
    assert_eq!(fs.open("with-slash", CREATE), Err(Errno::EISDIR));
}

#[test]
fn flags_stay_with_the_open_file() {
    let fs = tree();
    for (flags, kept) in [
        (raw::O_RDONLY, 0x8000),
        (raw::O_RDWR | raw::O_CREAT | raw::O_TRUNC, 0x8002),
        (raw::O_SYNC | raw::O_RDWR, 0x0010_9002),
        (raw::O_DSYNC, 0x9000),
        (raw::O_NOFOLLOW | raw::O_CLOEXEC, 0x28000),
        (raw::O_NOATIME, 0x48000),
        (raw::O_DIRECT, 0xc000),
    ] {
        assert_eq!(fs.open_file("d/f", flags).unwrap().flags().bits(), kept);
    }
    let path = fs.open_file("d", raw::O_PATH | raw::O_RDWR).unwrap();
    assert_eq!(path.flags().bits(), raw::O_PATH);
    let unnamed = fs.open_file(".", raw::O_TMPFILE | raw::O_RDWR).unwrap();
    assert_eq!(unnamed.flags().bits(), 0x0041_8002);
    let file = fs.open_file("d/f", raw::O_RDWR).unwrap();
    file.set_flags(OpenFlags::from_bits_retain(0xff_ffff));
    assert_eq!(file.flags().bits(), 0x4cc02);
}

#[test]
fn truncation_and_modes_apply_as_asked() {
    let fs = tree();
    fs.context.set_umask(0o027);
    fs.open("new", CREATE).unwrap();
    assert_eq!(fs.stat("new").unwrap().mode & 0o7777, 0o640);
    fs.open("d/f", raw::O_TRUNC).unwrap();
    assert_eq!(fs.stat("d/f").unwrap().size, 0);
    let file = fs.open_file("d/f", raw::O_WRONLY).unwrap();
    assert_eq!(read(&file, None, 1), Err(Errno::EBADF));
    let file = fs.open_file("d/f", raw::O_RDONLY).unwrap();
    assert_eq!(write(&file, None, b"x"), Err(Errno::EBADF));
    assert_eq!(block_on(file.truncate(0)), Err(Errno::EINVAL));
}

#[test]
fn a_file_without_a_name_can_get_one() {
    let fs = tree();
    let link = |flags: u32| {
        let how = OpenHow::new(flags, 0o600).unwrap();
        let file = block_on(fs.view().open(HERE, b".", how)).unwrap();
        write(&file, None, b"late").unwrap();
        let fd = fs.files.insert(file, false, 0).unwrap();
        let flags = raw::AT_EMPTY_PATH;
        block_on(fs.view().link((fd, b""), (HERE, b"named"), flags))
    };
    let flags = raw::O_TMPFILE | raw::O_RDWR;
    assert_eq!(link(flags | raw::O_EXCL), Err(Errno::ENOENT));
    assert_eq!(link(flags), Ok(()));
    assert_eq!(fs.read("named"), Ok(b"late".to_vec()));
}

#[test]
fn openat2_checks_what_open_ignores_and_confines() {
    let fs = tree();
    let how =
        |flags: u32, mode: u64, resolve: u32| OpenHow::strict(flags.into(), mode, resolve.into());
    assert_eq!(how(0, 0o600, 0), Err(Errno::EINVAL));
    assert_eq!(how(raw::O_PATH | raw::O_RDWR, 0, 0), Err(Errno::EINVAL));
    assert_eq!(how(1 << 30, 0, 0), Err(Errno::EINVAL));
    assert_eq!(how(0, 0, 1 << 30), Err(Errno::EINVAL));
    fs.chdir("d").unwrap();
    fs.symlink("/f", "absolute").unwrap();
    let open = |path: &[u8], resolve| {
        let how = how(0, 0, resolve).unwrap();
        block_on(fs.view().open(HERE, path, how)).map(drop)
    };
    let (beneath, in_root) = (raw::RESOLVE_BENEATH, raw::RESOLVE_IN_ROOT);
    assert_eq!(open(b"f", beneath), Ok(()));
    assert_eq!(open(b"/d/f", beneath), Err(Errno::EXDEV));
    assert_eq!(open(b"../d/f", beneath), Err(Errno::EXDEV));
    assert_eq!(open(b"absolute", beneath), Err(Errno::EXDEV));
    assert_eq!(open(b"absolute", in_root), Ok(()));
    assert_eq!(open(b"../../f", in_root), Ok(()));
    assert_eq!(
        open(b"absolute", raw::RESOLVE_NO_SYMLINKS),
        Err(Errno::ELOOP)
    );
    assert_eq!(open(b"../target", 0), Err(Errno::ENOENT));
}

#[test]
fn descriptors_are_the_lowest_free_ones() {
    let fs = tree();
    let file = fs.open_file("d/f", raw::O_RDONLY).unwrap();
    let insert = |lowest| fs.files.insert(file.clone(), false, lowest);
    assert_eq!(
        [insert(0), insert(0), insert(10), insert(0)],
        [Ok(0), Ok(1), Ok(10), Ok(2)]
    );
    fs.files.close(1).unwrap();
    assert_eq!(fs.files.close(1).err(), Some(Errno::EBADF));
    assert_eq!([insert(0), insert(0), insert(10)], [Ok(1), Ok(3), Ok(11)]);
    assert!(fs.files.replace(file.clone(), true, 5).unwrap().is_none());
    assert!(fs.files.replace(file.clone(), true, 5).unwrap().is_some());
    assert_eq!(fs.files.close_on_exec(5), Ok(true));
    assert_eq!(fs.files.open_in(2..=10), [2, 3, 5, 10]);
    assert_eq!(fs.files.open_in(11..=u32::MAX), [11]);
    fs.files.set_limit(12);
    assert_eq!(insert(12), Err(Errno::EINVAL));
    for _ in 0..5 {
        insert(0).unwrap();
    }
    assert_eq!(insert(0), Err(Errno::EMFILE));
    assert_eq!(
        fs.files.replace(file.clone(), false, 12).err(),
        Some(Errno::EBADF)
    );
    assert_eq!(fs.files.get(-1).err(), Some(Errno::EBADF));
}

#[test]
fn a_named_file_is_not_an_open_one() {
    let fs = tree();
    let file = fs.open_file("d/f", raw::O_PATH).unwrap();
    assert_eq!(read(&file, None, 1), Err(Errno::EBADF));
    let fd = fs.files.insert(file, false, 0).unwrap();
    assert_eq!(fs.files.get(fd).err(), Some(Errno::EBADF));
    assert_eq!(
        block_on(fs.files.get_any(fd).unwrap().stat()).unwrap().size,
        1
    );
    let open = |path: &[u8]| {
        let how = OpenHow::new(raw::O_RDONLY, 0).unwrap();
        block_on(fs.view().open(fd, path, how)).map(drop)
    };
    assert_eq!(open(b"x"), Err(Errno::ENOTDIR));
    assert_eq!(open(b"/d/f"), Ok(()));
    assert_eq!(open(b""), Err(Errno::ENOENT));
}

#[test]
fn named_pipes_join_those_who_open_them() {
    let fs = tree();
    block_on(fs.view().make_node(HERE, b"p", raw::S_IFIFO | 0o600, 0)).unwrap();
    let nonblocking = raw::O_NONBLOCK;
    assert_eq!(fs.open("p", raw::O_WRONLY | nonblocking), Err(Errno::ENXIO));
    let reader = fs.open_file("p", raw::O_RDONLY | nonblocking).unwrap();
    let writer = fs.open_file("p", raw::O_WRONLY | nonblocking).unwrap();
    write(&writer, None, b"through").unwrap();
    assert_eq!(read(&reader, None, 99), Ok(b"through".to_vec()));
    drop((reader, writer));
    // Each waits for the other.
    let context = fs.context.clone();
    crate::executor::spawn("test", async move {
        let files = FdTable::new();
        let view = View {
            files: &files,
            context: &context,
        };
        let how = OpenHow::new(raw::O_WRONLY, 0).unwrap();
        let writer = view.open(HERE, b"p", how).await.unwrap();
        let buffer = IoBuffer::Kernel(b"again".to_vec());
        let mut io = Io::new(Direction::Write, None, buffer, IoFlags::empty());
        writer.complete(&mut io).await.unwrap();
    });
    let reader = fs.open_file("p", raw::O_RDONLY).unwrap();
    assert_eq!(read(&reader, None, 99), Ok(b"again".to_vec()));
    assert_eq!(read(&reader, None, 99), Ok(Vec::new()));
}
