//! Futures as tasks.

use super::{Runnable, schedule, step};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use spin::Mutex;

struct Task {
    /// `None` once the future is done.
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    is_queued: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            schedule(self);
        }
    }
}

impl Runnable for Task {
    fn run(self: Arc<Self>) {
        self.is_queued.store(false, Ordering::Release);
        let waker = Waker::from(self.clone());
        let mut slot = self.future.lock();
        if let Some(future) = slot.as_mut()
            && future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
        {
            *slot = None;
        }
    }
}

/// Runs `future` as a task of its own.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    schedule(Arc::new(Task {
        future: Mutex::new(Some(Box::pin(future))),
        is_queued: AtomicBool::new(true),
    }));
}

/// Lets everything else that is ready run first.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs the executor until `future` is done: for boot code and tests, which are no task.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut future = pin!(future);
    loop {
        if flag.0.swap(false, Ordering::AcqRel)
            && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return value;
        }
        if !step() && !flag.0.load(Ordering::Acquire) {
            super::idle::wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn tasks_take_turns_when_they_yield() {
        static LOG: Mutex<Vec<u32>> = Mutex::new(Vec::new());
        for id in 0..2 {
            spawn(async move {
                for _ in 0..2 {
                    LOG.lock().push(id);
                    yield_now().await;
                }
            });
        }
        block_on(async {
            while LOG.lock().len() < 4 {
                yield_now().await;
            }
        });
        let mut log = LOG.lock().clone();
        log.truncate(2);
        log.sort_unstable();
        assert_eq!(log, [0, 1], "one task ran twice before the other ran");
    }
}
