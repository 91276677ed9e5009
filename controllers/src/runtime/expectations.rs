//! What a controller has asked for and not seen in its cache yet.
//!
//! A cache lags behind the controller's own writes. Counting children in it too early would create them twice or delete
//! too many, so a controller names each child before it creates it and each UID before it deletes it, and does not
//! count again until the cache has shown all of them (or [`EXPIRY`] has passed, should an event be lost for good).

use crate::object::ObjectKey;
use parking_lot::Mutex;
use rand::Rng;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// Upstream's five minutes.
const EXPIRY: Duration = Duration::from_secs(300);

/// Open expectations by owner.
#[derive(Default)]
pub struct Expectations {
    pending: Mutex<HashMap<ObjectKey, Pending>>,
}

struct Pending {
    since: Instant,
    created: HashSet<String>,
    deleted: HashSet<String>,
}

impl Expectations {
    /// Expects to see a child called `name`. Call it before the request is sent.
    pub fn expect_creation(&self, owner: &ObjectKey, name: &str) {
        self.update(owner, |pending| {
            pending.created.insert(name.to_owned());
        });
    }

    /// Expects to see the child `uid` go (or begin to). Call it before the request is sent.
    pub fn expect_deletion(&self, owner: &ObjectKey, uid: &str) {
        self.update(owner, |pending| {
            pending.deleted.insert(uid.to_owned());
        });
    }

    /// The child `name` was seen, or its creation certainly failed.
    pub fn creation_observed(&self, owner: &ObjectKey, name: &str) {
        self.settle(owner, |pending| pending.created.remove(name));
    }

    /// The child `uid` was seen going, or its deletion certainly failed.
    pub fn deletion_observed(&self, owner: &ObjectKey, uid: &str) {
        self.settle(owner, |pending| pending.deleted.remove(uid));
    }

    /// Whether the cache shows everything that was asked for.
    pub fn satisfied(&self, owner: &ObjectKey) -> bool {
        self.pending.lock().get(owner).is_none_or(|pending| pending.since.elapsed() > EXPIRY)
    }

    /// The owner is gone, and what it waited for with it.
    pub fn forget(&self, owner: &ObjectKey) {
        self.pending.lock().remove(owner);
    }

    fn update(&self, owner: &ObjectKey, change: impl FnOnce(&mut Pending)) {
        let mut all = self.pending.lock();
        let pending = all.entry(owner.clone()).or_insert_with(|| Pending {
            since: Instant::now(),
            created: HashSet::new(),
            deleted: HashSet::new(),
        });
        if pending.since.elapsed() > EXPIRY {
            pending.created.clear();
            pending.deleted.clear();
        }
        pending.since = Instant::now();
        change(pending);
    }

    fn settle(&self, owner: &ObjectKey, change: impl FnOnce(&mut Pending) -> bool) {
        let mut all = self.pending.lock();
        let Some(pending) = all.get_mut(owner) else { return };
        change(pending);
        if pending.created.is_empty() && pending.deleted.is_empty() {
            all.remove(owner);
        }
    }
}

/// Five random characters for a generated name: consonants and digits that spell no words, as upstream's.
pub fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn satisfied_only_when_all_were_seen_or_expired() {
        let expectations = Expectations::default();
        let owner = ObjectKey::new("ns", "web");
        assert!(expectations.satisfied(&owner));
        expectations.expect_creation(&owner, "web-a");
        expectations.expect_deletion(&owner, "uid-b");
        expectations.creation_observed(&owner, "web-a");
        assert!(!expectations.satisfied(&owner));
        expectations.deletion_observed(&owner, "uid-b");
        assert!(expectations.satisfied(&owner));

        expectations.expect_creation(&owner, "web-c");
        tokio::time::advance(EXPIRY + Duration::from_secs(1)).await;
        assert!(expectations.satisfied(&owner));
        expectations.expect_creation(&owner, "web-d");
        expectations.creation_observed(&owner, "web-d");
        assert!(expectations.satisfied(&owner), "an expired name is not waited for again");
    }

    #[test]
    fn suffixes_are_valid_name_parts() {
        let suffix = random_suffix();
        assert_eq!(suffix.len(), 5);
        assert!(suffix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    }
}
