//! Mappings of a file: what programs see of its pages, and how what they change reaches the server.

use super::file::Handle;
use super::inode::FuseInode;
use super::pages::{Found, Pages};
use super::protocol::{Fields, WRITE_CACHED, opcode};
use super::session::Call;
use crate::error::{Errno, Result};
use crate::executor::{Turn, sleep_until, spawn};
use crate::file::{Answer, BoxFuture};
use crate::mm::{Mappers, PAGE, PageSource};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use machine::lock::Mutex;
use machine::{DmaSegments, Frame, PAGE_SIZE, Segment, clock};

/// Pages that a fault reads: the one that is needed and those behind it.
const FAULT_AHEAD: u64 = 32;
/// How long what a program stores stays in memory alone, in nanoseconds: as long as anything may take
/// to be seen on the other side.
const WRITE_BACK_DELAY: u64 = 1_000_000_000;

/// What is kept of a regular file's contents.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) pages: Arc<Pages>,
    /// By what is written back, while there is anything.
    writer: Mutex<Option<Arc<Handle>>>,
    is_flushing: AtomicBool,
    /// Whose turn it is to write back.
    turn: Turn,
    /// The last error of writing back, and how many there were.
    error: Mutex<Option<Errno>>,
    errors: AtomicU64,
}

impl Contents {
    /// How many errors there were.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// The last error, if there were others than the `seen`, which are then.
    pub(super) fn check(&self, seen: &AtomicU64) -> Result<()> {
        let errors = self.errors();
        if seen.swap(errors, Ordering::Relaxed) == errors {
            return Ok(());
        }
        Err(self.error.lock().unwrap_or(Errno::EIO))
    }

    fn note_error(&self, error: Errno) {
        *self.error.lock() = Some(error);
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the pages from number `first` to before `end` out of all mappings.
    pub(super) fn forget_mapped(&self, first: u64, end: u64, with_copies: bool) {
        self.pages.forget_mapped(first, end, with_copies);
    }

    /// The file has another size or other bytes than were known.
    pub(super) fn changed(&self, old_size: u64, new_size: u64, are_bytes_new: bool) {
        if new_size < old_size {
            let gone = new_size.div_ceil(PAGE);
            self.pages.remove(gone, u64::MAX, false);
            self.pages.clear_tail(new_size);
            self.forget_mapped(gone, u64::MAX, true);
        } else if new_size > old_size {
            // What programs have stored behind the end does not become part of the file.
            self.pages.clear_tail(old_size);
        }
        if are_bytes_new && self.pages.remove(0, u64::MAX, true) {
            self.forget_mapped(0, u64::MAX, false);
        }
    }
}

impl FuseInode {
    /// Writes back what programs have changed in the pages from number `first` to before `end`. What
    /// fails is noted for all who have the file open.
    pub(super) async fn write_back(&self, first: u64, end: u64) {
        let Some(contents) = self.contents_if_any() else {
            return;
        };
        let _turn = contents.turn.take().await;
        let mut first = first;
        let most = self.fs.transfer() / PAGE_SIZE;
        while let Some((start, frames)) = contents.pages.take_dirty(first, end, most) {
            first = start + frames.len() as u64;
            // Stores after this are noted anew; those before are in the frames.
            contents.forget_mapped(start, first, false);
            let writer = contents.writer.lock().clone();
            let result = match writer {
                Some(writer) => self.write_frames(&writer, start, &frames).await,
                None => Err(Errno::EIO),
            };
            if let Err(error) = result {
                contents.note_error(error);
            }
        }
    }

    async fn write_frames(&self, writer: &Handle, start: u64, frames: &[Frame]) -> Result<()> {
        let offset = start * PAGE;
        let left = self.known_size().saturating_sub(offset);
        let length = (frames.len() * PAGE_SIZE).min(usize::try_from(left).unwrap_or(usize::MAX));
        let whole = |(number, frame): (usize, &Frame)| {
            let here = length.saturating_sub(number * PAGE_SIZE).min(PAGE_SIZE);
            Segment::new(frame.clone(), 0, here)
        };
        let all = DmaSegments::Own(frames.iter().enumerate().filter_map(whole).collect());
        let mut done = 0;
        while done < length {
            let segments = all.part(done, length - done);
            let position = offset + done as u64;
            let count = (length - done) as u32;
            let arguments = writer.transfer_arguments(position, count, WRITE_CACHED);
            let mut call = Call::new(opcode::WRITE, arguments, 8);
            call.to_device = Some(segments);
            let reply = writer.submit(call).await?;
            match Fields::new(&reply.fixed).u32()? {
                0 => return Err(Errno::EIO),
                written if written > count => return Err(Errno::EIO),
                written => done += written as usize,
            }
        }
        self.invalidate();
        Ok(())
    }

    /// A program may change a page: it is written back soon, by `writer`.
    fn note_dirty(self: &Arc<Self>, contents: &Contents, writer: &Arc<Handle>) {
        contents.writer.lock().get_or_insert_with(|| writer.clone());
        if contents.is_flushing.swap(true, Ordering::AcqRel) {
            return;
        }
        let inode = self.clone();
        spawn("fuse-write-back", async move {
            loop {
                sleep_until(clock::monotonic() + WRITE_BACK_DELAY).await;
                inode.write_back(0, u64::MAX).await;
                if inode.end_flushing() {
                    return;
                }
            }
        });
    }

    /// Whether nothing is left to be written back.
    fn end_flushing(&self) -> bool {
        let Some(contents) = self.contents_if_any() else {
            return true;
        };
        if contents.pages.dirty() > 0 {
            return false;
        }
        contents.is_flushing.store(false, Ordering::Release);
        let writer = contents.writer.lock().take();
        if contents.pages.dirty() == 0 {
            return true;
        }
        // A page has become dirty meanwhile, and may have found everything as it was.
        if let Some(writer) = writer {
            contents.writer.lock().get_or_insert(writer);
        }
        contents.is_flushing.swap(true, Ordering::AcqRel)
    }

    /// What shows the file in mappings, which are made by `handle`.
    pub(super) fn map(self: &Arc<Self>, handle: &Arc<Handle>) -> Arc<Mapped> {
        let contents = self.contents();
        let mut known = contents.pages.mapped.lock();
        let mapped = known.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Mapped {
                inode: self.clone(),
                mappers: Mappers::default(),
                reader: handle.clone(),
                writer: Mutex::new(None),
            });
            *known = Arc::downgrade(&new);
            new
        });
        drop(known);
        if handle.can_write() {
            mapped.writer.lock().get_or_insert_with(|| handle.clone());
        }
        mapped
    }
}

/// A file as mappings show it: one object for all of them.
pub(super) struct Mapped {
    inode: Arc<FuseInode>,
    mappers: Mappers,
    /// By what pages are read.
    reader: Arc<Handle>,
    /// By what they are written.
    writer: Mutex<Option<Arc<Handle>>>,
}

impl Mapped {
    /// Takes the pages from number `first` to before `end` out of all mappings.
    pub(super) fn forget(&self, first: u64, end: u64, with_copies: bool) {
        self.mappers.forget(self, (first, end), with_copies);
    }

    /// The page, if it can be told without waiting.
    fn find(&self, index: u64, for_write: bool) -> Option<Result<Frame>> {
        // Any error is a page that is not there.
        if index >= self.inode.known_size().div_ceil(PAGE) {
            return Some(Err(Errno::EFAULT));
        }
        let contents = self.inode.contents();
        let Found::Ready(frame) = contents.pages.get(index) else {
            return None;
        };
        if for_write {
            let writer = self.writer.lock().clone();
            let Some(writer) = writer else {
                return Some(Err(Errno::EACCES));
            };
            if !contents.pages.set_dirty(index, &frame) {
                return None;
            }
            self.inode.note_dirty(contents, &writer);
        }
        Some(Ok(frame))
    }

    async fn read(&self, index: u64, for_write: bool) -> Result<Frame> {
        loop {
            if let Some(found) = self.find(index, for_write) {
                return found;
            }
            let contents = self.inode.contents();
            let fill = match contents.pages.get(index) {
                Found::Ready(_) => continue,
                Found::Reading(fill) => fill,
                Found::Absent => {
                    let end = self.inode.known_size().div_ceil(PAGE);
                    let wanted = (index, FAULT_AHEAD, end);
                    contents.pages.fill(&self.reader, wanted)?
                }
            };
            poll_fn(|context| fill.poll(context)).await?;
        }
    }
}

impl PageSource for Mapped {
    fn page(&self, index: u64, for_write: bool) -> Answer<'_, Frame> {
        match self.find(index, for_write) {
            Some(found) => Answer::ready(found),
            None => Answer::later(self.read(index, for_write)),
        }
    }

    fn page_now(&self, index: u64, for_write: bool) -> Option<Result<Frame>> {
        self.find(index, for_write)
    }

    fn mappers(&self) -> Option<&Mappers> {
        Some(&self.mappers)
    }

    fn notes_writes(&self) -> bool {
        true
    }

    fn sync(&self, first: u64, end: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let contents = self.inode.contents();
            let errors = AtomicU64::new(contents.errors());
            self.inode.write_back(first, end).await;
            contents.check(&errors)?;
            self.reader.sync(true).await
        })
    }
}
