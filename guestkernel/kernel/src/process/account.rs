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

/// What is counted.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Signal,
    Thread,
}

/// One more signal or thread, as long as it exists.
#[derive(Debug)]
pub(super) struct Charge(Arc<Account>, Kind);

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
    pub(super) fn charge_signal(self: &Arc<Self>, limit: u64) -> Option<Charge> {
        self.charge(Kind::Signal, limit)
    }

    /// Takes one more thread, unless there are `limit` then and one too many.
    pub(super) fn charge_thread(self: &Arc<Self>, limit: u64) -> Option<Charge> {
        self.charge(Kind::Thread, limit)
    }

    fn charge(self: &Arc<Self>, kind: Kind, limit: u64) -> Option<Charge> {
        // Made first: it takes the count back if it is dropped.
        let charge = Charge(self.clone(), kind);
        let before = self.count(kind).fetch_add(1, Ordering::Relaxed);
        (before < limit).then_some(charge)
    }

    fn count(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Signal => &self.signals,
            Kind::Thread => &self.threads,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.0.count(self.1).fetch_sub(1, Ordering::Relaxed);
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
