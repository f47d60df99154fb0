//! What a program hears of when nothing uses it any more: registered files and buffers with a tag.
//!
//! Requests hold a file or the pages of a buffer, not their place in a table. So when something with
//! a tag leaves a table, the requests that use it are counted and marked once; the last one to end
//! posts the CQE.

use super::memory::Cqe;
use super::request::Running;
use super::resources::{RegisteredBuffer, Tagged};
use super::ring::RingState;
use super::sqe::RequestFlags;
use crate::fs::OpenFile;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::Segment;

/// What has left its table.
enum Resource {
    File(Arc<OpenFile>),
    Buffer(Arc<[Segment]>),
}

impl Resource {
    fn is_used_by(&self, running: &Running) -> bool {
        match self {
            Self::File(file) => {
                let own = running.work.file();
                running.request.flags.contains(RequestFlags::FIXED_FILE)
                    && own.is_some_and(|own| Arc::ptr_eq(own, file))
            }
            Self::Buffer(region) => running.work.uses(region),
        }
    }
}

/// A tag whose CQE waits for the end of requests.
pub(super) struct Waiting {
    resource: Resource,
    tag: u64,
    users: usize,
}

/// The tags of a ring whose CQEs wait.
pub(super) type Tags = Vec<Waiting>;

impl RingState {
    /// A file has left the table.
    pub(super) fn retire_file(&mut self, old: Option<Tagged<Arc<OpenFile>>>) {
        if let Some(Tagged { item, tag: 1.. }) = &old {
            let tag = old.as_ref().map_or(0, |old| old.tag);
            self.retire(Resource::File(item.clone()), tag);
        }
    }

    /// A buffer has left the table.
    pub(super) fn retire_buffer(&mut self, old: Option<Tagged<RegisteredBuffer>>) {
        if let Some(Tagged { item, tag: 1.. }) = &old {
            let tag = old.as_ref().map_or(0, |old| old.tag);
            self.retire(Resource::Buffer(item.region.clone()), tag);
        }
    }

    fn retire(&mut self, resource: Resource, tag: u64) {
        let mut users = 0;
        for running in self.slots.all_running_mut() {
            if resource.is_used_by(running) {
                running.request.flags.insert(RequestFlags::USES_RETIRED);
                users += 1;
            }
        }
        match users {
            0 => self.post_tag(tag),
            _ => self.tags.push(Waiting {
                resource,
                tag,
                users,
            }),
        }
    }

    /// A request that uses what has left its table is about to end.
    #[cold]
    pub(super) fn release_retired(&mut self, slot: u32) {
        let Some(running) = self.slots.running_at(slot) else {
            return;
        };
        let mut free = Vec::new();
        self.tags.retain_mut(|waiting| {
            if waiting.resource.is_used_by(running) {
                waiting.users -= 1;
            }
            if waiting.users == 0 {
                free.push(waiting.tag);
            }
            waiting.users > 0
        });
        for tag in free {
            self.post_tag(tag);
        }
    }

    fn post_tag(&mut self, tag: u64) {
        self.completions.post(
            &self.memory,
            Cqe {
                user_data: tag,
                result: 0,
                flags: 0,
            },
        );
    }
}
