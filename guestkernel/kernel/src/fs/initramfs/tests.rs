//! Archives that are right, and archives that are not.

use super::*;
use crate::executor::block_on;
use crate::fs::{At, FdTable, FsContext, Namespace, OpenHow, Stat, View, read_all};
use linux_raw_sys::general as raw;

/// Writes archives as the tests need them.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn entry(&mut self, name: &str, mode: u32, links: u32, inode: u32, data: &[u8]) {
        self.header(name, name.len() + 1, mode, links, inode, data.len());
        self.0.extend_from_slice(data);
        self.pad(ALIGNMENT);
    }

    fn header(
        &mut self,
        name: &str,
        name_size: usize,
        mode: u32,
        links: u32,
        inode: u32,
        size: usize,
    ) {
        self.0.extend_from_slice(b"070701");
        let name_size_field = name_size as u32;
        for field in [inode, mode, 0, 5, links, 1000, size as u32, 0, 0, 1, 3] {
            self.0
                .extend_from_slice(alloc::format!("{field:08x}").as_bytes());
        }
        self.0
            .extend_from_slice(alloc::format!("{name_size_field:08x}00000000").as_bytes());
        self.0.extend_from_slice(name.as_bytes());
        self.0.resize(self.0.len() + name_size - name.len(), 0);
        self.pad(ALIGNMENT);
    }

    /// A file whose data starts at a page boundary.
    fn aligned(&mut self, name: &str, mode: u32, data: &[u8]) {
        let start = self.0.len() + HEADER;
        let aligned = (start + name.len() + 1).next_multiple_of(PAGE_SIZE);
        self.header(name, aligned - start, mode, 1, 0, data.len());
        assert!(self.0.len().is_multiple_of(PAGE_SIZE));
        self.0.extend_from_slice(data);
        self.pad(ALIGNMENT);
    }

    fn trailer(&mut self) {
        self.entry("TRAILER!!!", 0, 1, 0, b"");
    }

    fn pad(&mut self, alignment: usize) {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
    }

    fn frames(&self) -> Vec<Frame> {
        let frame = |bytes: &[u8]| {
            let frame = Frame::zeroed().unwrap();
            frame.write(0, bytes);
            frame
        };
        self.0.chunks(PAGE_SIZE).map(frame).collect()
    }
}

struct Unpacked {
    context: Arc<FsContext>,
    files: FdTable,
    result: Result<(), InitramfsError>,
}

fn unpacked(writer: &Writer) -> Unpacked {
    let (namespace, root) = Namespace::in_memory();
    let result = unpack(&root, &writer.frames(), writer.0.len());
    Unpacked {
        context: FsContext::new(namespace),
        files: FdTable::new(),
        result,
    }
}

impl Unpacked {
    fn view(&self) -> View<'_> {
        View {
            files: &self.files,
            context: &self.context,
        }
    }

    fn stat(&self, path: &str) -> Stat {
        let at = At {
            fd: raw::AT_FDCWD,
            path: path.as_bytes(),
            flags: raw::AT_SYMLINK_NOFOLLOW,
        };
        block_on(self.view().stat(at)).unwrap()
    }

    fn contents(&self, path: &str) -> Vec<u8> {
        let how = OpenHow::new(raw::O_RDONLY, 0).unwrap();
        let open = self.view();
        let file = block_on(open.open(raw::AT_FDCWD, path.as_bytes(), how)).unwrap();
        block_on(read_all(&file)).unwrap()
    }
}

#[test]
fn files_of_all_types_come_out() {
    let mut writer = Writer::default();
    writer.entry(".", 0o40700, 2, 0, b"");
    writer.entry("bin", 0o40751, 2, 1, b"");
    writer.entry("./bin/tool", 0o104755, 1, 2, b"#!");
    writer.entry("/bin/link", 0o120777, 1, 3, b"tool");
    writer.entry("null", 0o20666, 1, 4, b"");
    writer.trailer();
    let unpacked = unpacked(&writer);
    assert_eq!(unpacked.result, Ok(()));
    assert_eq!(unpacked.stat("/").mode, 0o40700);
    let bin = unpacked.stat("/bin");
    assert_eq!(
        (bin.mode, bin.modified.seconds, bin.links),
        (0o40751, 1000, 2)
    );
    let tool = unpacked.stat("bin/tool");
    assert_eq!((tool.mode, tool.gid, tool.size), (0o104755, 5, 2));
    assert_eq!(unpacked.contents("bin/link"), b"#!");
    let null = unpacked.stat("null");
    assert_eq!(
        (null.mode, null.special),
        (0o20666, DeviceNumber::new(1, 3))
    );
}

#[test]
fn aligned_data_is_adopted_and_other_data_copied() {
    let data: Vec<u8> = (0..PAGE_SIZE * 2 + 100)
        .map(|index| (index % 251) as u8)
        .collect();
    let mut writer = Writer::default();
    writer.aligned("aligned", 0o100644, &data);
    writer.entry("other", 0o100644, 1, 0, &data);
    writer.aligned("empty", 0o100644, b"");
    writer.trailer();
    let (namespace, root) = Namespace::in_memory();
    let frames = writer.frames();
    unpack(&root, &frames, writer.0.len()).unwrap();
    assert_eq!(frames.iter().filter(|frame| !frame.is_unique()).count(), 2);
    drop(frames);
    let unpacked = Unpacked {
        context: FsContext::new(namespace),
        files: FdTable::new(),
        result: Ok(()),
    };
    assert_eq!(unpacked.contents("aligned"), data);
    assert_eq!(unpacked.contents("other"), data);
    assert_eq!(unpacked.contents("empty"), b"");
}

#[test]
fn hard_links_share_a_file_whichever_entry_has_the_data() {
    let mut writer = Writer::default();
    writer.entry("a", 0o100644, 3, 7, b"");
    writer.entry("b", 0o100644, 3, 7, b"");
    writer.entry("c", 0o100644, 3, 7, b"data");
    writer.trailer();
    // The same number in another archive is another file.
    writer.entry("d", 0o100644, 2, 7, b"other");
    writer.trailer();
    let unpacked = unpacked(&writer);
    assert_eq!(unpacked.result, Ok(()));
    assert_eq!(unpacked.contents("a"), b"data");
    assert_eq!(unpacked.stat("a").links, 3);
    assert_eq!(unpacked.stat("a").inode, unpacked.stat("b").inode);
    assert_eq!(unpacked.stat("d").links, 1);
}

#[test]
fn a_later_archive_replaces_files_of_an_earlier_one() {
    let mut writer = Writer::default();
    writer.entry("dir", 0o40755, 2, 0, b"");
    writer.entry("dir/kept", 0o100644, 1, 1, b"kept");
    writer.entry("file", 0o100644, 1, 2, b"old");
    writer.trailer();
    writer.pad(512);
    writer.entry("dir", 0o40700, 2, 0, b"");
    writer.entry("file", 0o120777, 1, 2, b"dir/kept");
    writer.trailer();
    writer.pad(PAGE_SIZE);
    let unpacked = unpacked(&writer);
    assert_eq!(unpacked.result, Ok(()));
    assert_eq!(unpacked.stat("dir").mode, 0o40700);
    assert_eq!(unpacked.contents("file"), b"kept");
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let error = |writer: &Writer| unpacked(writer).result.unwrap_err();
    let mut good = Writer::default();
    good.entry("x", 0o100644, 1, 1, b"12345678");
    let second = good.0.len();
    let problem = |append: &dyn Fn(&mut Writer)| {
        let mut writer = Writer(good.0.clone());
        append(&mut writer);
        let error = error(&writer);
        assert_eq!(error.offset, second);
        error.problem
    };
    assert_eq!(
        problem(&|writer| writer.0.extend([7; 200])),
        Problem::NoHeader
    );
    assert_eq!(
        problem(&|writer| writer.0.extend(b"070701")),
        Problem::Truncated
    );
    assert_eq!(
        problem(&|writer| writer.header("y", 2, 0o100644, 1, 1, 1 << 30)),
        Problem::Truncated
    );
    assert_eq!(
        problem(&|writer| writer.header("", 0, 0o100644, 1, 1, 0)),
        Problem::BadName
    );
    assert_eq!(
        problem(&|writer| writer.entry("y", 0o644, 1, 1, b"")),
        Problem::BadMode(0o644)
    );
    assert_eq!(
        problem(&|writer| writer.entry("no/y", 0o100644, 1, 1, b"")),
        Problem::NotMade(String::from("no/y"), Errno::ENOENT)
    );
    assert_eq!(
        problem(&|writer| {
            writer.entry("y", 0o100644, 1, 1, b"");
            let digit = second + 6;
            writer.0[digit] = b'g';
        }),
        Problem::BadNumber
    );
}

#[test]
fn no_damage_makes_it_panic() {
    let mut writer = Writer::default();
    writer.entry("dir", 0o40755, 2, 0, b"");
    writer.entry("dir/file", 0o100644, 2, 1, b"contents");
    writer.trailer();
    for at in 0..writer.0.len() {
        for value in [0, b'0', b'f', b'/', 0xff] {
            let mut damaged = Writer(writer.0.clone());
            damaged.0[at] = value;
            drop(unpacked(&damaged));
        }
        drop(unpacked(&Writer(writer.0[..at].to_vec())));
    }
}
