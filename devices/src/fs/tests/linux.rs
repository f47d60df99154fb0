//! Linux's own FUSE client, that of the host, in the place of the guest's: what it sees through the
//! device is compared with the directory itself.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;

/// Room for one request, and for its reply, with the data of a transfer.
const ROOM: u64 = (1 << 20) + 0x2000;
const SLOTS: u64 = 6;

/// A file system of the host that the device serves.
struct Mount {
    client: Client,
    mountpoint: PathBuf,
    is_stopping: Arc<AtomicBool>,
    bridge: Option<JoinHandle<()>>,
}

impl Mount {
    /// Mounts a share with this cache; `None` where this process may not mount.
    fn new(cache: Cache, engine: EngineKind) -> Option<Self> {
        let client = Client::with(true, cache, LIMITS, engine);
        let mountpoint = client.dir.as_path().join("mounted");
        fs::create_dir(&mountpoint).unwrap();
        let device = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/fuse");
        let device = device.ok()?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
            device.as_raw_fd()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let target = std::ffi::CString::new(mountpoint.to_str().unwrap()).unwrap();
        // SAFETY: all strings end with NUL and live over the call.
        let mounted = unsafe {
            libc::mount(
                c"ringlet".as_ptr(),
                target.as_ptr(),
                c"fuse".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        if mounted != 0 {
            return None;
        }
        let is_stopping = Arc::new(AtomicBool::new(false));
        // A device of its own, which the client's makes way for.
        let share = Share::open(&client.shared(""), true, cache).unwrap();
        let seen = Arc::clone(&is_stopping);
        let bridge = std::thread::spawn(move || {
            let driver = Driver::started(super::device(share, LIMITS, engine), 0);
            carry(&device, driver, &seen);
        });
        Some(Self {
            client,
            mountpoint,
            is_stopping,
            bridge: Some(bridge),
        })
    }

    /// Runs a script in the mounted directory, in `name` there; gives what it writes.
    fn run(&self, script: &str, name: &str) -> String {
        run_in(&self.mountpoint, script, name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let target = std::ffi::CString::new(self.mountpoint.to_str().unwrap()).unwrap();
        // SAFETY: the string ends with NUL and lives over the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        self.is_stopping.store(true, Ordering::Relaxed);
        let ended = self.bridge.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Carries requests from the host's kernel to the device's queues, and replies back.
fn carry(device: &File, mut driver: Driver<Fs>, is_stopping: &AtomicBool) {
    let mut bytes = vec![0; ROOM as usize];
    let mut free: Vec<u64> = (0..SLOTS).collect();
    let mut taken = std::collections::HashMap::new();
    while !is_stopping.load(Ordering::Relaxed) {
        let mut is_idle = true;
        while let Some(slot) = free.last().copied() {
            let Ok(count) = (&*device).read(&mut bytes) else {
                break;
            };
            is_idle = false;
            let (header, _) = fuse_in_header::read_from_prefix(&bytes[..count]).unwrap();
            let at = BUFFERS + 2 * slot * ROOM;
            driver.write(at, &bytes[..count]);
            let request = Buffer::Readable(at, count as u32);
            let opcode = fuse_opcode::try_from(header.opcode).unwrap();
            match opcode {
                fuse_opcode::FUSE_FORGET
                | fuse_opcode::FUSE_BATCH_FORGET
                | fuse_opcode::FUSE_INTERRUPT => {
                    driver.send(0, &[request]);
                    assert_eq!(driver.await_used(0).1, 0);
                }
                _ => {
                    let reply = Buffer::Writable(at + ROOM, ROOM as u32);
                    // Both request queues are used.
                    let queue = 1 + slot as usize % 2;
                    taken.insert((queue, driver.send(queue, &[request, reply])), slot);
                    free.pop();
                }
            }
        }
        for queue in [1, 2] {
            while let Some((head, len)) = driver.used(queue) {
                is_idle = false;
                let slot = taken.remove(&(queue, head)).unwrap();
                let reply = driver.bytes(BUFFERS + 2 * slot * ROOM + ROOM, len as usize);
                // ENOENT says that the request was interrupted meanwhile.
                let _ = (&*device).write(&reply);
                free.push(slot);
            }
        }
        assert!(!driver.needs_reset(), "the device failed");
        if is_idle {
            // One that is lost is made good for.
            let line = driver.transport.interrupt().line();
            let fds = [device.as_fd(), crate::poll::borrow(&line)];
            crate::poll::readable_within(fds, Duration::from_millis(10)).unwrap();
            let _ = line.read();
        }
    }
}

fn run_in(dir: &Path, script: &str, name: &str) -> String {
    let dir = dir.join(name);
    fs::create_dir_all(&dir).unwrap();
    let output = Command::new("timeout")
        .args(["100", "sh", "-c", script])
        .current_dir(&dir)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let (text, errors) = (output.stdout, output.stderr);
    let status = output.status;
    let text = [text, errors].concat();
    // Messages may name the directory.
    let text = String::from_utf8_lossy(&text).replace(dir.to_str().unwrap(), "DIR");
    format!("{text}{status}")
}

/// Runs a script on both sides, which must give the same.
fn compare(mount: &Mount, name: &str, script: &str) {
    let host = mount.client.dir.as_path().join("host");
    let expected = run_in(&host, script, name);
    assert_eq!(mount.run(script, name), expected, "{name}");
    // And what is on the host then is the same.
    let list = "find . | sort | xargs -d '\\n' stat -c '%n %A %h %s %u %g'";
    let list =
        format!("{list}; find . -type f | sort | xargs -r sha256sum; ls -l | grep -e '->'; :");
    let expected = run_in(&host, &list, name);
    assert_eq!(
        run_in(&mount.client.shared(""), &list, name),
        expected,
        "{name}"
    );
    assert_eq!(mount.run(&list, name), expected, "{name}");
}

/// What programs do with files; each line's result shows.
const SCRIPTS: [(&str, &str); 9] = [
    (
        "names",
        "mkdir a a/b; echo x > a/f; ln a/f a/g; ln -s f a/l; mv a/f a/h; mv -T a/h a/g; \
         mkdir c; mv -T c a/b; rmdir a; rm a/l; rm a/none; cat a/l; ln -s loop loop; cat loop; \
         mkdir -m 3775 s; chmod u+s,g-w a/g; touch 'with space' \"$(printf 'new\\nline')\"; \
         mv a/b a/b/inside; mknod pipe p; cat a; : > a/b/$(printf 'x%.0s' $(seq 255)); \
         : > $(printf 'x%.0s' $(seq 256))",
    ),
    (
        "contents",
        "seq 100000 > n; head -c 70000 n > part; cat part >> n; dd if=n of=copy bs=777 2> /dev/null; \
         cmp n copy; truncate -s 12345 copy; truncate -s 1M copy; dd if=n of=copy bs=1 seek=500000 \
         count=10 conv=notrunc 2> /dev/null; tail -c 100 n >> copy; wc -c n copy; sha256sum n copy; \
         for i in $(seq 10); do echo $i >> log & done; wait; sort -n -o log log; cat log",
    ),
    (
        "times",
        "touch -d '2001-02-03 04:05:06.789' f; stat -c '%x %y' f; touch -a -d @5 f; stat -c '%X %Y' f; \
         touch -r f g; stat -c %y g; ln -s f l; touch -h -d @7 l; stat -c %Y l f; mkdir d; touch -d @9 d; \
         stat -c %Y d",
    ),
    (
        "owners",
        "echo x > f; chmod 6755 f; stat -c '%a %u %g' f; chown 7:8 f; stat -c '%a %u %g' f; \
         ln -s f l; chown -h 9:10 l; stat -c '%u %g' l f; mkdir d; chown 0:5 d; chmod g+s d; \
         echo x > d/f; mkdir d/e; stat -c '%a %g' d/f d/e; umask 077; mkdir u; echo x > v; stat -c %a u v; \
         chmod 4755 v; echo y >> v; stat -c %a v",
    ),
    (
        "holes",
        "truncate -s 1M f; printf data | dd of=f bs=1 seek=600000 conv=notrunc 2> /dev/null; \
         cp --sparse=always f g; stat -c %b f g; cmp f g; fallocate -p -o 0 -l 4096 g; \
         fallocate -l 2M h; stat -c '%s %b' h; fallocate -n -o 3M -l 4096 h; stat -c %s h; \
         fallocate -z -o 0 -l 8192 h; cp --reflink=auto f i; cmp f i",
    ),
    (
        "attributes",
        "python3 -c \"\nimport os\nopen('f', 'w').close()\nos.setxattr('f', 'user.a', b'1')\n\
         os.setxattr('f', 'user.b', b'x' * 3000)\nprint(sorted(os.listxattr('f')), os.getxattr('f', 'user.a'))\n\
         os.removexattr('f', 'user.a')\n\
         for name in ['user.a', 'bogus', 'user.']:\n  try: os.getxattr('f', name)\n  except OSError as e: print(name, e.errno)\n\
         os.mkdir('d')\nos.setxattr('d', 'user.d', b'')\nprint(os.getxattr('d', 'user.d'))\n\"",
    ),
    (
        "many",
        "mkdir -p t; for i in $(seq 100); do mkdir -p t/$((i % 20)); echo $i > t/$((i % 20))/$i; done; \
         tar cf all.tar --sort=name --mtime=@0 t; sha256sum all.tar; mkdir out; tar xf all.tar -C out; \
         diff -r t out/t; find t | wc -l; rm -r t/1*; find t | sort | tail -3; rm -r out; ls",
    ),
    (
        "locks",
        "flock -n f echo one; exec 9< f; flock -n 9; flock -n f echo two || echo busy; exec 9<&-; \
         flock -n f echo three; python3 -c \"\nimport fcntl, os\nf = open('p', 'w')\n\
         fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)\npid = os.fork()\nif pid == 0:\n\
         \\x20 g = open('p', 'r+')\n\\x20 for start in (0, 5, 14, 15):\n\\x20\\x20 try:\n\\x20\\x20\\x20 fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)\n\
         \\x20\\x20\\x20 print(start, 'got', flush=True)\n\\x20\\x20 except OSError as e: print(start, e.errno, flush=True)\n\\x20 os._exit(0)\n\
         os.waitpid(pid, 0)\n\"",
    ),
    (
        "mappings",
        "python3 -c \"\nimport mmap, os\nf = open('m', 'w+b')\nf.truncate(10000)\nm = mmap.mmap(f.fileno(), 10000)\n\
         m[5000:5004] = b'text'\nm.flush()\nprint(os.pread(f.fileno(), 4, 5000))\nos.pwrite(f.fileno(), b'more', 100)\n\
         print(m[100:104])\nm.close()\nos.ftruncate(f.fileno(), 50)\nprint(os.fstat(f.fileno()).st_size)\n\
         fd = os.open('.', os.O_TMPFILE | os.O_RDWR)\nos.write(fd, b'nameless')\n\
         os.link('/proc/self/fd/%d' % fd, 'named', src_dir_fd=fd)\nprint(open('named').read())\n\
         os.unlink('named')\nprint(os.fstat(fd).st_nlink, os.pread(fd, 4, 0))\n\"",
    ),
];

const DATA_SCRIPTS: [&str; 3] = ["contents", "holes", "mappings"];

#[test]
fn programs_see_what_they_see_on_the_host() {
    for (cache, engine) in [
        (Cache::Auto, EngineKind::Auto),
        (Cache::None, EngineKind::Auto),
        (Cache::Always, EngineKind::Threads),
    ] {
        let Some(mount) = Mount::new(cache, engine) else {
            eprintln!("this process may not mount; nothing was compared");
            return;
        };
        // How data comes is what the others differ in.
        let is_whole = (cache, engine) == (Cache::Auto, EngineKind::Auto);
        let scripts = SCRIPTS.into_iter();
        for (name, script) in scripts.filter(|(name, _)| is_whole || DATA_SCRIPTS.contains(name)) {
            compare(&mount, name, script);
        }
    }
}

#[test]
fn the_hosts_changes_are_seen() {
    let Some(mount) = Mount::new(Cache::None, EngineKind::Auto) else {
        eprintln!("this process may not mount; nothing was compared");
        return;
    };
    let (inside, outside) = (mount.mountpoint.join("f"), mount.client.shared("f"));
    fs::write(&outside, "one").unwrap();
    assert_eq!(fs::read(&inside).unwrap(), b"one");
    fs::write(&outside, "another").unwrap();
    assert_eq!(fs::read(&inside).unwrap(), b"another");
    fs::remove_file(&outside).unwrap();
    assert!(!inside.exists());
    fs::create_dir(&outside).unwrap();
    assert!(inside.is_dir());
    fs::write(outside.join("g"), "").unwrap();
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 1);
    fs::write(inside.join("h"), "guest").unwrap();
    assert_eq!(fs::read(outside.join("h")).unwrap(), b"guest");
}
