//! `mount(2)` and `umount2(2)`; the errors are those of Linux 6.18.

use super::*;

/// A program with directories `a` and `b` and a file `f`.
struct Mounter(Caller);

impl Mounter {
    fn new() -> Self {
        crate::fs::register_types();
        crate::fs::procfs::register_type();
        let mut caller = Caller::new();
        for name in [&b"a\0"[..], b"b\0"] {
            let path = caller.put(0, name);
            caller.call(raw::__NR_mkdir, &[path, 0o755]).unwrap();
        }
        caller.file("f", b"");
        Self(caller)
    }

    /// Puts a string at a place of its own; nothing for nothing.
    fn string(&mut self, place: u64, text: Option<&str>) -> u64 {
        match text {
            Some(text) => self.0.put(place, &[text.as_bytes(), b"\0"].concat()),
            None => 0,
        }
    }

    fn mount(
        &mut self,
        source: Option<&str>,
        target: &str,
        kind: Option<&str>,
        flags: u32,
        data: Option<&str>,
    ) -> Result<u64> {
        let source = self.string(0, source);
        let target = self.string(256, Some(target));
        let kind = self.string(512, kind);
        let data = self.string(768, data);
        let arguments = [source, target, kind, flags.into(), data];
        self.0.call(raw::__NR_mount, &arguments)
    }

    fn change(&mut self, source: Option<&str>, target: &str, flags: u32) -> Result<u64> {
        self.mount(source, target, None, flags, None)
    }

    fn unmount(&mut self, target: &str, flags: u32) -> Result<u64> {
        let target = self.string(0, Some(target));
        self.0.call(raw::__NR_umount2, &[target, flags.into()])
    }

    /// Makes a file.
    fn make(&mut self, path: &str) -> Result<()> {
        let flags = raw::O_CREAT | raw::O_WRONLY;
        let fd = self.0.open(path, flags.into())?;
        self.0.call(raw::__NR_close, &[fd]).map(drop)
    }

    fn has(&mut self, path: &str) -> bool {
        let path = self.string(0, Some(path));
        self.0.call(raw::__NR_access, &[path, 0]).is_ok()
    }
}

#[test]
fn what_cannot_be_mounted_is_refused() {
    let mut program = Mounter::new();
    let tmpfs = Some("tmpfs");
    for (source, target, kind, flags, data, error) in [
        (Some("x"), "a", None, 0, None, Errno::EINVAL),
        (Some("x"), "a", Some("nofs"), 0, None, Errno::ENODEV),
        (Some("x"), "zz", tmpfs, 0, None, Errno::ENOENT),
        (Some("x"), "f", tmpfs, 0, None, Errno::ENOTDIR),
        (Some("x"), "a", tmpfs, 0, Some("foo"), Errno::EINVAL),
        (Some("x"), "a", tmpfs, raw::MS_NOUSER, None, Errno::EINVAL),
        (None, "a", None, raw::MS_BIND, None, Errno::EINVAL),
        (Some(""), "a", None, raw::MS_BIND, None, Errno::EINVAL),
        (Some("zz"), "a", None, raw::MS_BIND, None, Errno::ENOENT),
        (Some("f"), "a", None, raw::MS_BIND, None, Errno::ENOTDIR),
        (None, "a", None, raw::MS_REMOUNT, None, Errno::EINVAL),
        (None, "a", None, raw::MS_PRIVATE, None, Errno::EINVAL),
        (Some("b"), "a", None, raw::MS_MOVE, None, Errno::EINVAL),
    ] {
        let result = program.mount(source, target, kind, flags, data);
        assert_eq!(
            result,
            Err(error),
            "{source:?} {target} {kind:?} {flags:#x}"
        );
    }
    assert_eq!(program.unmount("a", 0), Err(Errno::EINVAL));
    assert_eq!(program.unmount("a", 64), Err(Errno::EINVAL));
    assert_eq!(program.unmount("zz", 0), Err(Errno::ENOENT));
}

#[test]
fn mounts_are_made_changed_moved_and_removed() {
    const READ_ONLY: u32 = raw::MS_REMOUNT | raw::MS_RDONLY;
    let mut program = Mounter::new();
    let mounted = program.mount(Some("x"), "a", Some("tmpfs"), 0, Some("size=1m"));
    assert_eq!(mounted, Ok(0));
    for flags in [
        raw::MS_PRIVATE,
        raw::MS_PRIVATE | raw::MS_REC,
        raw::MS_SLAVE,
    ] {
        assert_eq!(program.change(None, "a", flags), Ok(0));
    }
    let two = raw::MS_PRIVATE | raw::MS_SHARED;
    assert_eq!(program.change(None, "a", two), Err(Errno::EINVAL));
    assert_eq!(program.change(None, "a", READ_ONLY), Ok(0));
    assert_eq!(program.make("a/x"), Err(Errno::EROFS));
    assert_eq!(program.change(None, "a", raw::MS_REMOUNT), Ok(0));
    let bad = program.mount(None, "a", None, raw::MS_REMOUNT, Some("foo"));
    assert_eq!(bad, Err(Errno::EINVAL));
    program.make("a/x").unwrap();
    assert_eq!(program.change(Some("a"), "b", raw::MS_BIND), Ok(0));
    assert!(program.has("b/x"));
    let bound = READ_ONLY | raw::MS_BIND;
    assert_eq!(program.change(None, "b", bound), Ok(0));
    assert_eq!(program.make("b/y"), Err(Errno::EROFS));
    program.make("a/y").unwrap();
    let open = program.0.open("b/x", 0).unwrap();
    assert_eq!(program.unmount("b", 0), Err(Errno::EBUSY));
    program.0.call(raw::__NR_close, &[open]).unwrap();
    assert_eq!(program.unmount("b", 0), Ok(0));
    assert!(!program.has("b/x"));
    let inside = program.0.put(0, b"a/c\0");
    program.0.call(raw::__NR_mkdir, &[inside, 0o755]).unwrap();
    let moved = program.change(Some("a"), "a/c", raw::MS_MOVE);
    assert_eq!(moved, Err(Errno::ELOOP));
    assert_eq!(program.change(Some("a"), "b", raw::MS_MOVE), Ok(0));
    assert!(!program.has("a/x") && program.has("b/x"));
    let inner = program.mount(Some("x"), "b/c", Some("tmpfs"), 0, None);
    assert_eq!(inner, Ok(0));
    program.make("b/c/z").unwrap();
    let recursive = raw::MS_BIND | raw::MS_REC;
    assert_eq!(program.change(Some("b"), "a", recursive), Ok(0));
    assert!(program.has("a/c/z"));
    assert_eq!(program.unmount("b", 0), Err(Errno::EBUSY));
    assert_eq!(program.unmount("b", raw::MNT_DETACH), Ok(0));
    assert_eq!(program.unmount("b", 0), Err(Errno::EINVAL));
    assert!(program.has("a/c/z"));
}

#[test]
fn only_root_mounts() {
    let mut program = Mounter::new();
    let process = program.0.thread.process.clone();
    process.credentials.lock().user.effective = 1000;
    let result = program.mount(Some("x"), "a", Some("tmpfs"), 0, None);
    assert_eq!(result, Err(Errno::EPERM));
    let missing = program.mount(Some("x"), "zz", Some("tmpfs"), 0, None);
    assert_eq!(missing, Err(Errno::ENOENT));
    assert_eq!(program.unmount("a", 0), Err(Errno::EPERM));
}
