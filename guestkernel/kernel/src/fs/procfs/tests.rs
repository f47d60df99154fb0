//! `/proc` of a process that does not run.

use super::*;
use crate::executor::block_on;
use crate::fs::{At, DeviceDirectory, FdTable, OpenHow, View, read_all};
use crate::mm::{AddressSpace, MapRequest};
use crate::process::{Executable, Thread};

/// Where the arguments are in memory.
const ARGUMENTS: u64 = 0x7000_0000_0000;

struct Sandbox {
    process: Arc<Process>,
}

impl Sandbox {
    fn new() -> Self {
        crate::fs::register_types();
        super::register_type();
        let (namespace, root) = Namespace::in_memory();
        let tool = root.create_node(b"tool", NewNode::Regular, 0o755).unwrap();
        let context = FsContext::new(namespace);
        let tool = Location {
            mount: context.root().mount,
            inode: tool,
        };
        let space = AddressSpace::new().unwrap();
        let access = crate::mm::Access::READ | crate::mm::Access::WRITE;
        let request = MapRequest {
            placement: crate::mm::Placement::Fixed(ARGUMENTS),
            ..MapRequest::anonymous(4096, access)
        };
        space.map(request).unwrap();
        space.write(ARGUMENTS, b"tool\0-x\0A=b\0").unwrap();
        let executable = Executable {
            place: Some(Place {
                location: tool,
                entry: Some(crate::file::Entry {
                    directory: root,
                    name: b"tool".to_vec(),
                }),
            }),
            arguments: ARGUMENTS..ARGUMENTS + 8,
            environment: ARGUMENTS + 8..ARGUMENTS + 12,
            ..Executable::default()
        };
        let files = Arc::new(FdTable::new());
        let process = Process::first(space, files, context, executable);
        let name = *b"tool\0\0\0\0\0\0\0\0\0\0\0\0";
        let context = machine::UserContext::new(0, 0);
        Thread::new(process.clone(), context, name, |_| {
            alloc::boxed::Box::pin(async {})
        });
        block_on(mount(&process.fs.namespace)).unwrap();
        block_on(DeviceDirectory::mount(process.fs.namespace.clone())).unwrap();
        Self { process }
    }

    fn view(&self) -> View<'_> {
        View {
            files: &self.process.files,
            context: &self.process.fs,
        }
    }

    fn open(&self, path: &str, flags: u32) -> Result<Arc<OpenFile>> {
        let how = OpenHow::new(flags, 0o600)?;
        block_on(self.view().open(raw::AT_FDCWD, path.as_bytes(), how))
    }

    fn text(&self, path: &str) -> alloc::string::String {
        let file = self.open(path, raw::O_RDONLY).unwrap();
        alloc::string::String::from_utf8(block_on(read_all(&file)).unwrap()).unwrap()
    }

    fn link(&self, path: &str) -> Vec<u8> {
        block_on(self.view().read_link(raw::AT_FDCWD, path.as_bytes())).unwrap()
    }
}

#[test]
fn texts_tell_of_process_and_machine() {
    let sandbox = Sandbox::new();
    let access = crate::mm::Access::READ | crate::mm::Access::WRITE;
    let request = MapRequest::anonymous(8192, access);
    let address = sandbox.process.space.map(request).unwrap();
    assert_eq!(sandbox.text("/proc/self/cmdline"), "tool\0-x\0");
    assert_eq!(sandbox.text("/proc/1/comm"), "tool\n");
    let line = format!(
        "{address:08x}-{:08x} rw-p 00000000 00:00 0 \n",
        address + 8192
    );
    assert!(sandbox.text("/proc/self/maps").ends_with(&line));
    assert!(sandbox.text("/proc/mounts").starts_with("tmpfs / tmpfs rw"));
    assert!(sandbox.text("/proc/meminfo").starts_with("MemTotal:  "));
    assert!(sandbox.text("/proc/self/stat").starts_with("1 (tool) R 0 "));
    assert_eq!(sandbox.text("/proc/self/stat").split(' ').count(), 52);
    for name in [
        "cpuinfo",
        "filesystems",
        "loadavg",
        "stat",
        "uptime",
        "version",
        "self/status",
    ] {
        assert!(
            sandbox.text(&format!("/proc/{name}")).ends_with('\n'),
            "{name}"
        );
    }
}

#[test]
fn links_lead_to_open_files_whatever_they_show() {
    let sandbox = Sandbox::new();
    let files = &sandbox.process.files;
    let file = sandbox.open("/f", raw::O_RDWR | raw::O_CREAT).unwrap();
    files.insert(file, false, 0).unwrap();
    let (reader, writer) = sandbox.view().pipe(OpenFlags::empty()).unwrap();
    files.insert(reader, false, 0).unwrap();
    files.insert(writer, false, 0).unwrap();
    assert_eq!(sandbox.link("/proc/self/fd/0"), b"/f");
    assert!(sandbox.link("/proc/self/fd/1").starts_with(b"pipe:["));
    block_on(sandbox.view().unlink(raw::AT_FDCWD, b"/f", 0)).unwrap();
    assert_eq!(sandbox.link("/proc/self/fd/0"), b"/f (deleted)");
    assert!(
        sandbox
            .open("/dev/stdin", raw::O_WRONLY | raw::O_TRUNC)
            .is_ok()
    );
    let again = sandbox.open("/dev/stderr", raw::O_WRONLY).unwrap();
    assert_eq!(
        block_on(again.stat()).unwrap().inode,
        block_on(files.get(1).unwrap().stat()).unwrap().inode
    );
    assert_eq!(
        sandbox.open("/proc/self/fd/7", 0).err(),
        Some(Errno::ENOENT)
    );
    assert_eq!(sandbox.link("/proc/self/exe"), b"/tool");
    assert!(sandbox.open("/proc/self/exe", raw::O_RDONLY).is_ok());
    assert_eq!(sandbox.link("/proc/self/cwd"), b"/");
}

#[test]
fn directories_are_listed_and_walked() {
    let sandbox = Sandbox::new();
    let file = sandbox.open("/", raw::O_RDONLY).unwrap();
    sandbox.process.files.insert(file, false, 5).unwrap();
    let list = |path: &str| {
        let directory = sandbox
            .open(path, raw::O_RDONLY | raw::O_DIRECTORY)
            .unwrap();
        let mut names = Vec::new();
        let mut position = 0;
        loop {
            let before = names.len();
            let mut sink = |entry: &DirEntry<'_>| {
                let has_room = names.len() == before;
                if has_room {
                    names.push(entry.name.to_vec());
                }
                has_room
            };
            position = block_on(directory.ops.read_dir(position, &mut sink)).unwrap();
            if names.len() == before {
                return names;
            }
        }
    };
    assert_eq!(list("/proc/self/fd"), [&b"."[..], b"..", b"5"]);
    // With itself, what is above it, and one process.
    assert_eq!(list("/proc").len(), ROOT.len() + 3);
    let directory = block_on(sandbox.view().lookup(raw::AT_FDCWD, b"/proc/self/fd", true)).unwrap();
    let context = &sandbox.process.fs;
    context.set_working_directory(directory).unwrap();
    assert_eq!(
        context.path_of(context.working_directory().into()),
        Ok((b"/proc/1/fd".to_vec(), true))
    );
    let at = At {
        fd: raw::AT_FDCWD,
        path: b"../../..",
        flags: 0,
    };
    let root = sandbox.process.fs.root();
    assert_eq!(
        block_on(sandbox.view().stat(at)),
        block_on(root.inode.stat())
    );
    let made = block_on(
        sandbox
            .view()
            .make_directory(raw::AT_FDCWD, b"/proc/x", 0o755),
    );
    assert_eq!(made, Err(Errno::EPERM));
}
