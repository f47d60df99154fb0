//! Mappings and the break.
//!
//! Whether memory can be read or written is seen by having the kernel copy from or to it, which
//! gives `EFAULT` where the program itself would get a signal.

use std::os::fd::OwnedFd;

use guest_programs::check::{Check, Outcome};
use guest_programs::sys::{Errno, Mapping, SysResult, contents, create, open};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_PRIVATE, MAP_SHARED, MREMAP_MAYMOVE,
    O_RDONLY, O_RDWR, O_WRONLY, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE,
};

pub(crate) const CHECKS: &[Check] = checks![
    mmap_gives_zeros,
    mmap_rounds_up,
    mmap_much_address_space,
    mmap_arguments,
    mmap_hint,
    mmap_low,
    mmap_fixed_replaces,
    mmap_fixed_arguments,
    mmap_fixed_noreplace,
    mmap_shared_anonymous,
    mmap_without_rights,
    mmap_read_only,
    mmap_a_file_privately,
    mmap_a_file_at_an_offset,
    mmap_a_file_beyond_its_end,
    mmap_a_file_that_is_truncated,
    mmap_a_file_errors,
    mmap_outlives_the_descriptor,
    munmap_removes,
    munmap_splits,
    munmap_arguments,
    mprotect_changes,
    mprotect_splits,
    mprotect_arguments,
    mprotect_executes,
    madvise_discards,
    mremap_grows_and_shrinks,
    mremap_errors,
    brk_moves,
    brk_refuses,
    stack_grows,
    kernel_fills_new_pages,
];

const PAGE: usize = 4096;
const READ_WRITE: i32 = PROT_READ | PROT_WRITE;
const FAULT: SysResult = Err(Errno(libc::EFAULT));

/// Tells what the kernel may do at an address.
struct Prober {
    file: OwnedFd,
}

impl Prober {
    fn new() -> SysResult<Self> {
        let file = create(c"probe", b"probe")?;
        Ok(Self { file })
    }

    fn read(&self, address: *const u8) -> SysResult {
        sys!(SYS_pwrite64, &self.file, address, 1, 0)
    }

    fn write(&self, address: *mut u8) -> SysResult {
        sys!(SYS_pread64, &self.file, address, 1, 0)
    }
}

fn get(address: *const u8) -> u8 {
    // SAFETY: the checks pass addresses in live mappings that can be read.
    unsafe { address.read_volatile() }
}

fn set(address: *mut u8, value: u8) {
    // SAFETY: the checks pass addresses in live mappings of their own that can be written.
    unsafe { address.write_volatile(value) }
}

fn mmap_gives_zeros() -> Outcome {
    let map = Mapping::new(3 * PAGE, READ_WRITE)?;
    expect_eq!(map.start.addr() % PAGE, 0);
    expect!((0..3 * PAGE).all(|offset| get(map.at(offset)) == 0));
    set(map.at(2 * PAGE), 5);
    expect_eq!((get(map.at(2 * PAGE)), get(map.at(PAGE))), (5, 0));
    Ok(())
}

fn mmap_rounds_up() -> Outcome {
    let map = Mapping::new(1, READ_WRITE)?;
    set(map.at(PAGE - 1), 1);
    expect_eq!(sys!(SYS_munmap, map.start, 1), Ok(0));
    expect_eq!(Prober::new()?.read(map.at(PAGE - 1)), FAULT);
    Ok(())
}

fn mmap_much_address_space() -> Outcome {
    // Allocators reserve far more than there is memory, and ask for rights as they need them.
    let map = Mapping::new(64 << 30, PROT_NONE)?;
    for gigabyte in [0, 31, 63] {
        let page = map.at(gigabyte << 30);
        expect_eq!(sys!(SYS_mprotect, page, PAGE, READ_WRITE), Ok(0));
        set(page, gigabyte as u8);
    }
    expect_eq!((get(map.at(31 << 30)), get(map.at(63 << 30))), (31, 63));
    expect_eq!(Prober::new()?.read(map.at(32 << 30)), FAULT);
    Ok(())
}

fn mmap_arguments() -> Outcome {
    let anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    fails!(EINVAL, SYS_mmap, 0, 0, READ_WRITE, anonymous, -1, 0);
    fails!(EINVAL, SYS_mmap, 0, PAGE, READ_WRITE, MAP_ANONYMOUS, -1, 0);
    fails!(EINVAL, SYS_mmap, 0, PAGE, READ_WRITE, anonymous, -1, 1);
    fails!(
        ENOMEM,
        SYS_mmap,
        0,
        1_u64 << 47,
        READ_WRITE,
        anonymous,
        -1,
        0
    );
    fails!(ENOMEM, SYS_mmap, 0, u64::MAX, READ_WRITE, anonymous, -1, 0);
    // A descriptor is ignored where there is no file.
    let start = sys!(SYS_mmap, 0, PAGE, READ_WRITE, anonymous, 999, 0)?;
    expect_eq!(sys!(SYS_munmap, start, PAGE), Ok(0));
    Ok(())
}

fn mmap_hint() -> Outcome {
    let used = Mapping::new(2 * PAGE, READ_WRITE)?;
    set(used.start, 5);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let other = sys!(SYS_mmap, used.start, PAGE, READ_WRITE, flags, -1, 0)?;
    let differs = other != used.start.addr();
    sys!(SYS_munmap, other, PAGE)?;
    expect!(differs && get(used.start) == 5);
    sys!(SYS_munmap, used.start, PAGE)?;
    let again = sys!(SYS_mmap, used.start, PAGE, READ_WRITE, flags, -1, 0)?;
    expect_eq!(again, used.start.addr());
    Ok(())
}

fn mmap_fixed_replaces() -> Outcome {
    let map = Mapping::new(3 * PAGE, READ_WRITE)?;
    (0..3).for_each(|page| set(map.at(page * PAGE), 7));
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    let middle = map.at(PAGE);
    expect_eq!(
        sys!(SYS_mmap, middle, PAGE, READ_WRITE, flags, -1, 0),
        Ok(middle.addr())
    );
    expect_eq!(
        (get(map.start), get(middle), get(map.at(2 * PAGE))),
        (7, 0, 7)
    );
    Ok(())
}

fn mmap_fixed_arguments() -> Outcome {
    let map = Mapping::new(2 * PAGE, READ_WRITE)?;
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    fails!(EINVAL, SYS_mmap, map.at(1), PAGE, READ_WRITE, flags, -1, 0);
    fails!(
        ENOMEM,
        SYS_mmap,
        1_u64 << 47,
        PAGE,
        READ_WRITE,
        flags,
        -1,
        0
    );
    fails!(
        ENOMEM,
        SYS_mmap,
        0xffff_8000_0000_0000_u64,
        PAGE,
        READ_WRITE,
        flags,
        -1,
        0
    );
    Ok(())
}

fn mmap_low() -> Outcome {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | libc::MAP_32BIT;
    let low = 0x4000_0000..0x8000_0000;
    let map = |hint: usize, length: usize| sys!(SYS_mmap, hint, length, READ_WRITE, flags, -1, 0);
    let first = map(0, 16 * PAGE)?;
    let second = map(0, PAGE)?;
    expect!(low.contains(&first) && low.contains(&second));
    expect!(!(first..first + 16 * PAGE).contains(&second));
    // Of a hint nothing but the end of the range is looked at.
    let hint = 0x3000_0000;
    expect_eq!(map(hint, PAGE), Ok(hint));
    let third = map(low.end, PAGE)?;
    expect!(low.contains(&third));
    expect_eq!(map(0, low.len()), Err(Errno(libc::ENOMEM)));
    for (start, pages) in [(first, 16), (second, 1), (hint, 1), (third, 1)] {
        sys!(SYS_munmap, start, pages * PAGE)?;
    }
    Ok(())
}

fn mmap_fixed_noreplace() -> Outcome {
    let map = Mapping::new(2 * PAGE, READ_WRITE)?;
    set(map.at(PAGE), 7);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    let map_both = || sys!(SYS_mmap, map.start, 2 * PAGE, READ_WRITE, flags, -1, 0);
    expect_eq!(map_both(), Err(Errno(libc::EEXIST)));
    sys!(SYS_munmap, map.start, PAGE)?;
    expect_eq!(map_both(), Err(Errno(libc::EEXIST)));
    let start = map.start.addr();
    expect_eq!(
        sys!(SYS_mmap, map.start, PAGE, READ_WRITE, flags, -1, 0),
        Ok(start)
    );
    expect_eq!(get(map.at(PAGE)), 7);
    Ok(())
}

fn mmap_shared_anonymous() -> Outcome {
    let flags = MAP_SHARED | MAP_ANONYMOUS;
    let start = sys!(SYS_mmap, 0, 2 * PAGE, READ_WRITE, flags, -1, 0)? as *mut u8;
    let zero = get(start);
    set(start, 3);
    let kept = get(start);
    sys!(SYS_munmap, start, 2 * PAGE)?;
    expect_eq!((zero, kept), (0, 3));
    Ok(())
}

fn mmap_without_rights() -> Outcome {
    let map = Mapping::new(PAGE, PROT_NONE)?;
    let prober = Prober::new()?;
    expect_eq!(prober.read(map.start), FAULT);
    expect_eq!(prober.write(map.start), FAULT);
    Ok(())
}

fn mmap_read_only() -> Outcome {
    let map = Mapping::new(PAGE, PROT_READ)?;
    let prober = Prober::new()?;
    expect_eq!(prober.read(map.start), Ok(1));
    expect_eq!(prober.write(map.start), FAULT);
    expect_eq!(get(map.start), 0);
    Ok(())
}

fn map_file(fd: &OwnedFd, len: usize, protection: i32, offset: usize) -> SysResult<*mut u8> {
    sys!(SYS_mmap, 0, len, protection, MAP_PRIVATE, fd, offset).map(|start| start as *mut u8)
}

fn mmap_a_file_privately() -> Outcome {
    create(c"f", b"abc")?;
    let fd = open(c"f", O_RDONLY)?;
    // Private writes need no right to write the file.
    let start = map_file(&fd, PAGE, READ_WRITE, 0)?;
    let seen = (
        get(start),
        get(start.wrapping_add(3)),
        get(start.wrapping_add(PAGE - 1)),
    );
    set(start, b'x');
    let file = contents(&fd)?;
    let mapped = get(start);
    sys!(SYS_munmap, start, PAGE)?;
    expect_eq!(seen, (b'a', 0, 0));
    expect_eq!((mapped, &file[..]), (b'x', &b"abc"[..]));
    Ok(())
}

fn mmap_a_file_at_an_offset() -> Outcome {
    let mut bytes = vec![1; PAGE];
    bytes.extend([2; PAGE]);
    let fd = create(c"f", &bytes)?;
    let start = map_file(&fd, PAGE, PROT_READ, PAGE)?;
    let seen = get(start);
    sys!(SYS_munmap, start, PAGE)?;
    expect_eq!(seen, 2);
    fails!(EINVAL, SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, &fd, 100);
    Ok(())
}

fn mmap_a_file_beyond_its_end() -> Outcome {
    let fd = create(c"f", b"abc")?;
    let start = map_file(&fd, 2 * PAGE, PROT_READ, 0)?;
    let prober = Prober::new()?;
    let (inside, beyond) = (prober.read(start), prober.read(start.wrapping_add(PAGE)));
    sys!(SYS_munmap, start, 2 * PAGE)?;
    // The program would get SIGBUS.
    expect_eq!((inside, beyond), (Ok(1), FAULT));
    Ok(())
}

fn mmap_a_file_that_is_truncated() -> Outcome {
    let fd = create(c"f", &[1; 2 * PAGE])?;
    let shared = sys!(SYS_mmap, 0, 2 * PAGE, READ_WRITE, MAP_SHARED, &fd, 0)? as *mut u8;
    let private = map_file(&fd, 2 * PAGE, READ_WRITE, 0)?;
    let second = |start: *mut u8| start.wrapping_add(PAGE);
    set(second(shared), b'x');
    set(second(private), b'y');
    sys!(SYS_ftruncate, &fd, PAGE)?;
    let prober = Prober::new()?;
    let gone = [shared, private].map(|start| prober.read(second(start)));
    sys!(SYS_ftruncate, &fd, 2 * PAGE)?;
    let new = [shared, private].map(|start| get(second(start)));
    set(second(shared), b'z');
    let file = contents(&fd)?;
    sys!(SYS_munmap, shared, 2 * PAGE)?;
    sys!(SYS_munmap, private, 2 * PAGE)?;
    expect_eq!(gone, [FAULT; 2]);
    expect_eq!((new, file[PAGE]), ([0; 2], b'z'));
    Ok(())
}

fn mmap_a_file_errors() -> Outcome {
    create(c"f", b"abc")?;
    let writer = open(c"f", O_WRONLY)?;
    fails!(
        EACCES,
        SYS_mmap,
        0,
        PAGE,
        PROT_READ,
        MAP_PRIVATE,
        &writer,
        0
    );
    fails!(EBADF, SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, 999, 0);
    fails!(
        ENODEV,
        SYS_mmap,
        0,
        PAGE,
        PROT_READ,
        MAP_PRIVATE,
        &open(c".", O_RDONLY)?,
        0
    );
    let reader = open(c"f", O_RDONLY)?;
    fails!(
        EACCES, SYS_mmap, 0, PAGE, READ_WRITE, MAP_SHARED, &reader, 0
    );
    Ok(())
}

fn mmap_outlives_the_descriptor() -> Outcome {
    let start = map_file(&create(c"f", b"abc")?, PAGE, PROT_READ, 0)?;
    sys!(SYS_unlink, c"f")?;
    let seen = get(start);
    sys!(SYS_munmap, start, PAGE)?;
    expect_eq!(seen, b'a');
    Ok(())
}

fn munmap_removes() -> Outcome {
    let map = Mapping::new(PAGE, READ_WRITE)?;
    set(map.start, 1);
    expect_eq!(sys!(SYS_munmap, map.start, PAGE), Ok(0));
    let prober = Prober::new()?;
    expect_eq!(prober.read(map.start), FAULT);
    // Nothing there is no error, and what comes there next is zero again.
    expect_eq!(sys!(SYS_munmap, map.start, PAGE), Ok(0));
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    sys!(SYS_mmap, map.start, PAGE, READ_WRITE, flags, -1, 0)?;
    expect_eq!(get(map.start), 0);
    Ok(())
}

fn munmap_splits() -> Outcome {
    let map = Mapping::new(3 * PAGE, READ_WRITE)?;
    (0..3).for_each(|page| set(map.at(page * PAGE), page as u8));
    sys!(SYS_munmap, map.at(PAGE), PAGE)?;
    let prober = Prober::new()?;
    expect_eq!(prober.read(map.at(PAGE)), FAULT);
    expect_eq!((get(map.start), get(map.at(2 * PAGE))), (0, 2));
    // A transfer stops at the hole.
    expect_eq!(
        sys!(SYS_pwrite64, &prober.file, map.at(PAGE - 3), 6, 0),
        Ok(3)
    );
    Ok(())
}

fn munmap_arguments() -> Outcome {
    let map = Mapping::new(PAGE, READ_WRITE)?;
    fails!(EINVAL, SYS_munmap, map.at(1), PAGE);
    fails!(EINVAL, SYS_munmap, map.start, 0);
    fails!(EINVAL, SYS_munmap, map.start, u64::MAX);
    fails!(EINVAL, SYS_munmap, 0xffff_8000_0000_0000_u64, PAGE);
    set(map.start, 1);
    Ok(())
}

fn mprotect_changes() -> Outcome {
    let map = Mapping::new(PAGE, READ_WRITE)?;
    let prober = Prober::new()?;
    set(map.start, 9);
    expect_eq!(sys!(SYS_mprotect, map.start, PAGE, PROT_READ), Ok(0));
    expect_eq!(
        (prober.read(map.start), prober.write(map.start)),
        (Ok(1), FAULT)
    );
    expect_eq!(sys!(SYS_mprotect, map.start, PAGE, PROT_NONE), Ok(0));
    expect_eq!(prober.read(map.start), FAULT);
    expect_eq!(sys!(SYS_mprotect, map.start, PAGE, READ_WRITE), Ok(0));
    expect_eq!(get(map.start), 9);
    set(map.start, 1);
    Ok(())
}

fn mprotect_splits() -> Outcome {
    let map = Mapping::new(3 * PAGE, READ_WRITE)?;
    let prober = Prober::new()?;
    expect_eq!(sys!(SYS_mprotect, map.at(PAGE), PAGE, PROT_READ), Ok(0));
    expect_eq!(prober.write(map.start), Ok(1));
    expect_eq!(prober.write(map.at(PAGE)), FAULT);
    expect_eq!(prober.write(map.at(2 * PAGE)), Ok(1));
    Ok(())
}

fn mprotect_arguments() -> Outcome {
    let map = Mapping::new(3 * PAGE, READ_WRITE)?;
    fails!(EINVAL, SYS_mprotect, map.at(1), PAGE, PROT_READ);
    fails!(EINVAL, SYS_mprotect, map.start, PAGE, 0x100);
    expect_eq!(sys!(SYS_mprotect, map.start, 0, PROT_NONE), Ok(0));
    fails!(ENOMEM, SYS_mprotect, map.start, u64::MAX << 12, PROT_READ);
    sys!(SYS_munmap, map.at(PAGE), PAGE)?;
    fails!(ENOMEM, SYS_mprotect, map.at(PAGE), PAGE, PROT_READ);
    // What lies before the hole has been changed by then.
    fails!(ENOMEM, SYS_mprotect, map.start, 3 * PAGE, PROT_READ);
    let prober = Prober::new()?;
    expect_eq!(prober.write(map.start), FAULT);
    expect_eq!(prober.write(map.at(2 * PAGE)), Ok(1));
    Ok(())
}

fn mprotect_executes() -> Outcome {
    let map = Mapping::new(PAGE, READ_WRITE)?;
    // mov eax, 42; ret
    for (offset, byte) in [0xb8, 42, 0, 0, 0, 0xc3].into_iter().enumerate() {
        set(map.at(offset), byte);
    }
    sys!(SYS_mprotect, map.start, PAGE, PROT_READ | PROT_EXEC)?;
    // SAFETY: the mapping holds a function of this type.
    let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(map.start) };
    expect_eq!(function(), 42);
    expect_eq!(Prober::new()?.write(map.start), FAULT);
    Ok(())
}

fn madvise_discards() -> Outcome {
    let map = Mapping::new(2 * PAGE, READ_WRITE)?;
    set(map.start, 1);
    set(map.at(PAGE), 2);
    expect_eq!(
        sys!(SYS_madvise, map.at(PAGE), PAGE, libc::MADV_DONTNEED),
        Ok(0)
    );
    expect_eq!((get(map.start), get(map.at(PAGE))), (1, 0));
    fails!(EINVAL, SYS_madvise, map.at(1), PAGE, libc::MADV_DONTNEED);
    fails!(EINVAL, SYS_madvise, map.start, PAGE, 9999);
    sys!(SYS_munmap, map.start, 2 * PAGE)?;
    fails!(ENOMEM, SYS_madvise, map.start, PAGE, libc::MADV_DONTNEED);
    Ok(())
}

fn mremap_grows_and_shrinks() -> Outcome {
    let map = Mapping::new(3 * PAGE, READ_WRITE)?;
    (0..3).for_each(|page| set(map.at(page * PAGE), page as u8 + 1));
    let start = map.start.addr();
    expect_eq!(sys!(SYS_mremap, map.start, 3 * PAGE, PAGE, 0), Ok(start));
    expect_eq!(Prober::new()?.read(map.at(PAGE)), FAULT);
    expect_eq!(sys!(SYS_mremap, map.start, PAGE, PAGE, 0), Ok(start));
    // Something in the way: without leave to move it cannot grow, with it the contents move.
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    sys!(SYS_mmap, map.at(PAGE), PAGE, READ_WRITE, flags, -1, 0)?;
    fails!(ENOMEM, SYS_mremap, map.start, PAGE, 2 * PAGE, 0);
    let moved = sys!(SYS_mremap, map.start, PAGE, 2 * PAGE, MREMAP_MAYMOVE)? as *mut u8;
    let seen = (get(moved), get(moved.wrapping_add(PAGE)));
    let old = Prober::new()?.read(map.start);
    sys!(SYS_munmap, moved, 2 * PAGE)?;
    expect!(moved != map.start);
    expect_eq!((seen, old), ((1, 0), FAULT));
    Ok(())
}

fn mremap_errors() -> Outcome {
    let map = Mapping::new(PAGE, READ_WRITE)?;
    fails!(EINVAL, SYS_mremap, map.at(1), PAGE, PAGE, 0);
    fails!(EINVAL, SYS_mremap, map.start, PAGE, 0, 0);
    fails!(EINVAL, SYS_mremap, map.start, PAGE, PAGE, 0x100);
    fails!(
        EFAULT,
        SYS_mremap,
        map.start,
        2 * PAGE,
        4 * PAGE,
        MREMAP_MAYMOVE
    );
    sys!(SYS_munmap, map.start, PAGE)?;
    fails!(
        EFAULT,
        SYS_mremap,
        map.start,
        PAGE,
        2 * PAGE,
        MREMAP_MAYMOVE
    );
    Ok(())
}

fn brk_moves() -> Outcome {
    let prober = Prober::new()?;
    let start = sys!(SYS_brk, 0)?;
    // libc's heap ends at the break, so it is put back before anything can fail.
    let top = start.next_multiple_of(PAGE);
    let grown = sys!(SYS_brk, top + 4 * PAGE);
    let memory = top as *mut u8;
    let fresh = (0..4 * PAGE).all(|offset| get(memory.wrapping_add(offset)) == 0);
    set(memory, 1);
    let shrunk = sys!(SYS_brk, top);
    let gone = prober.read(memory);
    sys!(SYS_brk, top + PAGE)?;
    let again = get(memory);
    let back = sys!(SYS_brk, start);
    expect_eq!(
        (grown, shrunk, back),
        (Ok(top + 4 * PAGE), Ok(top), Ok(start))
    );
    expect!(fresh);
    expect_eq!((gone, again), (FAULT, 0));
    Ok(())
}

fn brk_refuses() -> Outcome {
    let start = sys!(SYS_brk, 0)?;
    // There is no error: the break stays where it is.
    expect_eq!(sys!(SYS_brk, 1), Ok(start));
    expect_eq!(sys!(SYS_brk, 1_u64 << 47), Ok(start));
    expect_eq!(sys!(SYS_brk, u64::MAX), Ok(start));
    Ok(())
}

#[inline(never)]
fn deep(levels: usize) -> usize {
    let frame = std::hint::black_box([levels; 512]);
    if levels == 0 {
        return frame[0];
    }
    deep(levels - 1) + frame[511]
}

fn stack_grows() -> Outcome {
    // 1000 frames of 4 KiB: most of the usual 8 MiB is not there until it is touched.
    expect_eq!(deep(1000), 1000 * 1001 / 2);
    Ok(())
}

fn kernel_fills_new_pages() -> Outcome {
    let written: Vec<u8> = (0..3 * PAGE).map(|index| (index % 253) as u8).collect();
    create(c"f", &written)?;
    let fd = open(c"f", O_RDWR)?;
    let map = Mapping::new(4 * PAGE, READ_WRITE)?;
    // The program has touched none of these pages.
    expect_eq!(
        sys!(SYS_pread64, &fd, map.at(100), 3 * PAGE, 0),
        Ok(3 * PAGE)
    );
    expect!((0..3 * PAGE).all(|index| get(map.at(100 + index)) == written[index]));
    let fresh = Mapping::new(2 * PAGE, READ_WRITE)?;
    expect_eq!(
        sys!(SYS_pwrite64, &fd, fresh.start, 2 * PAGE, 0),
        Ok(2 * PAGE)
    );
    expect!(contents(&fd)?[..2 * PAGE].iter().all(|byte| *byte == 0));
    Ok(())
}
