//! What the processes of one user have together: some resource limits count that.

use crate::globals::global;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};
use machine::lock::Mutex;

global! {
    static ACCOUNTS: Mutex<BTreeMap<u32, Weak<Account>>> = Mutex::new(BTreeMap::new());
}

/// What a user has.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Signals that wait with what is known of them, and timers that send some
    /// (`RLIMIT_SIGPENDING`).
    signals: AtomicU64,
    /// Threads, those of all processes (`RLIMIT_NPROC`).
    threads: AtomicU64,
}

/// One more signal, as long as it exists.
#[derive(Debug)]
pub(super) struct SignalCharge(Arc<Account>);

/// One more thread, as long as it exists.
#[derive(Debug)]
pub(super) struct ThreadCharge(Arc<Account>);

impl Account {
    /// That of the user with this number.
    pub(super) fn of(user: u32) -> Arc<Self> {
        let mut accounts = ACCOUNTS.lock();
        if let Some(account) = accounts.get(&user).and_then(Weak::upgrade) {
            return account;
        }
        accounts.retain(|_, account| account.strong_count() > 0);
        let account = Arc::new(Self::default());
        accounts.insert(user, Arc::downgrade(&account));
        account
    }

    /// Takes one more signal, unless there are `limit` then and one too many.
    pub(super) fn charge_signal(self: &Arc<Self>, limit: u64) -> Option<SignalCharge> {
        take(&self.signals, limit).then(|| SignalCharge(self.clone()))
    }

    /// Takes one more thread, unless there are `limit` then and one too many.
    pub(super) fn charge_thread(self: &Arc<Self>, limit: u64) -> Option<ThreadCharge> {
        take(&self.threads, limit).then(|| ThreadCharge(self.clone()))
    }
}

/// Counts one more, unless there are `limit` already.
fn take(count: &AtomicU64, limit: u64) -> bool {
    let has_room = count.fetch_add(1, Ordering::Relaxed) < limit;
    if !has_room {
        count.fetch_sub(1, Ordering::Relaxed);
    }
    has_room
}

impl Drop for SignalCharge {
    fn drop(&mut self) {
        self.0.signals.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ThreadCharge {
    fn drop(&mut self) {
        self.0.threads.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_what_all_its_processes_have() {
        let account = Account::of(5);
        let one = account.charge_signal(2);
        let two = Account::of(5).charge_signal(2);
        assert!(one.is_some() && two.is_some());
        assert!(account.charge_signal(2).is_none());
        assert!(Account::of(6).charge_signal(2).is_some());
        drop(one);
        assert!(account.charge_signal(2).is_some());
    }
}
