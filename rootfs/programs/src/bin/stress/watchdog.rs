//! The thread that ends the program when a worker makes no progress any more, and says which.

use crate::crew::Crew;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// The status that a stall ends the program with.
const STALLED: i32 = 3;
/// How long a worker may take for a step, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the others may take to see that one has failed.
const GRACE: Duration = Duration::from_secs(3);
const PERIOD: Duration = Duration::from_millis(100);

static CREWS: Mutex<Vec<Weak<Crew>>> = Mutex::new(Vec::new());

/// Has the watchdog look after `crew` while it exists.
pub(crate) fn watch(crew: &Arc<Crew>) {
    let mut crews = CREWS.lock().unwrap_or_else(PoisonError::into_inner);
    crews.retain(|crew| crew.strong_count() > 0);
    crews.push(Arc::downgrade(crew));
}

/// Starts the watchdog.
pub(crate) fn start() {
    thread::spawn(|| {
        let mut watch = Watch::default();
        loop {
            thread::sleep(PERIOD);
            watch.look();
        }
    });
}

/// What has been seen of the workers of crews, by the crew's address and the worker's place.
#[derive(Default)]
struct Watch {
    seen: HashMap<(usize, usize), (u64, Instant)>,
    failed: HashMap<usize, Instant>,
}

impl Watch {
    fn look(&mut self) {
        let crews: Vec<_> = {
            let crews = CREWS.lock().unwrap_or_else(PoisonError::into_inner);
            crews.iter().filter_map(Weak::upgrade).collect()
        };
        let address = |crew: &Arc<Crew>| Arc::as_ptr(crew).addr();
        let exists = |wanted: usize| crews.iter().any(|crew| address(crew) == wanted);
        self.seen.retain(|(crew, _), _| exists(*crew));
        self.failed.retain(|crew, _| exists(*crew));
        let now = Instant::now();
        for crew in &crews {
            if let Some(why) = crew.failure() {
                let since = *self.failed.entry(address(crew)).or_insert(now);
                if now - since >= GRACE {
                    end(crew, &format!("{why}; and others do not return"));
                }
            }
            for (place, post) in crew.posts.iter().enumerate() {
                let steps = post.steps.load(Ordering::Relaxed);
                let seen = self.seen.entry((address(crew), place));
                let (before, since) = seen.or_insert((steps, now));
                if *before != steps || post.is_done.load(Ordering::Relaxed) {
                    (*before, *since) = (steps, now);
                } else if now - *since >= PATIENCE {
                    let (role, number) = post.role;
                    end(crew, &format!("{role} {number} has come to a stand"));
                }
            }
        }
    }
}

/// Says what is wrong and how far everybody is, and ends the program.
fn end(crew: &Crew, why: &str) -> ! {
    eprintln!("{}: {why}", crew.check);
    for post in &crew.posts {
        let (role, number) = post.role;
        let steps = post.steps.load(Ordering::Relaxed);
        let state = match post.is_done.load(Ordering::Relaxed) {
            true => "has returned",
            false => "is under way",
        };
        eprintln!("  {role} {number} {state}, {steps} steps");
    }
    std::process::exit(STALLED)
}
