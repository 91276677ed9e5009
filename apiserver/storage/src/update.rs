//! Read, change, write if unchanged; again when it was.

use bytes::Bytes;

use crate::{Error, Outcome, Storage, Stored};

/// What the change is based on; `None`: there is no such key.
pub type Current = Option<Stored>;

/// What to do with the key.
#[derive(Clone, Debug)]
pub enum Change {
    /// Write this, for so many seconds if a number is given.
    Put(Bytes, Option<i64>),
    /// Remove the key.
    Delete,
    /// Leave it.
    Keep,
}

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// Written at this revision.
    Put(i64),
    /// Removed at this revision.
    Deleted(i64),
    /// Nothing to do; this is the revision it has.
    Kept(i64),
}

/// Computes a change from the current state; called again with newer state after a conflict.
#[async_trait::async_trait]
pub trait Updater: Send {
    /// The caller's own error.
    type Error: From<Error> + Send;

    /// One attempt. An error ends the update, except when `current` came from a cache and is
    /// outdated: then it is tried again with what the store has.
    async fn attempt(&mut self, current: &Current) -> Result<Change, Self::Error>;
}

/// Runs `updater` until its change is stored. `cached` spares the first read when it is at hand.
pub async fn guaranteed_update<U: Updater + ?Sized>(
    storage: &Storage,
    key: &str,
    cached: Option<Stored>,
    updater: &mut U,
) -> Result<Updated, U::Error> {
    let mut maybe_outdated = cached.is_some();
    let mut current = match cached {
        Some(cached) => Some(cached),
        None => storage.get(key).await?,
    };
    loop {
        let change = match updater.attempt(&current).await {
            Ok(Change::Keep) | Err(_)
                if maybe_outdated && refresh(storage, key, &mut current).await? =>
            {
                maybe_outdated = false;
                continue;
            }
            attempt => attempt?,
        };
        let revision = current.as_ref().map_or(0, |stored| stored.revision);
        let outcome = match change {
            Change::Keep => return Ok(Updated::Kept(revision)),
            Change::Put(bytes, ttl) => match storage.put(key, revision, bytes, ttl).await? {
                Outcome::Done(revision) => return Ok(Updated::Put(revision)),
                Outcome::Changed(now) => now,
            },
            Change::Delete => match storage.delete(key, revision).await? {
                Outcome::Done(revision) => return Ok(Updated::Deleted(revision)),
                Outcome::Changed(now) => now,
            },
        };
        (current, maybe_outdated) = (outcome, false);
    }
}

/// Reads the key again; whether it differs from what was assumed.
async fn refresh(storage: &Storage, key: &str, current: &mut Current) -> Result<bool, Error> {
    let now = storage.get(key).await?;
    let revision = |stored: &Current| stored.as_ref().map_or(0, |stored| stored.revision);
    let changed = revision(&now) != revision(current);
    *current = now;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use pintle_store_api::memory::Memory;

    use super::*;

    /// Appends a letter; interferes with itself the first time.
    struct Append(Storage, u32);

    #[async_trait::async_trait]
    impl Updater for Append {
        type Error = Error;

        async fn attempt(&mut self, current: &Current) -> Result<Change, Error> {
            let current = current.as_ref().ok_or(Error::NotFound)?;
            self.1 += 1;
            if self.1 == 1 {
                let other = Bytes::from_static(b"other");
                self.0.put("/k", current.revision, other, None).await?;
            }
            Ok(Change::Put([&current.bytes[..], b"+"].concat().into(), None))
        }
    }

    #[tokio::test]
    async fn a_lost_race_is_run_again_on_the_winner() {
        let storage = Storage::new(Memory::new());
        storage.create("/k", Bytes::from_static(b"one"), None).await.expect("creates");
        let mut updater = Append(storage.clone(), 0);
        guaranteed_update(&storage, "/k", None, &mut updater).await.expect("updates");
        let stored = storage.get("/k").await.expect("reads").expect("is there");
        assert_eq!((stored.bytes.as_ref(), updater.1), (&b"other+"[..], 2));
    }

    #[tokio::test]
    async fn an_error_on_outdated_state_is_not_final() {
        struct Outdated;
        #[async_trait::async_trait]
        impl Updater for Outdated {
            type Error = Error;
            async fn attempt(&mut self, current: &Current) -> Result<Change, Error> {
                match current {
                    Some(stored) if stored.bytes == "new" => Ok(Change::Delete),
                    _ => Err(Error::Conflict),
                }
            }
        }
        let storage = Storage::new(Memory::new());
        storage.create("/k", Bytes::from_static(b"new"), None).await.expect("creates");
        let outdated = Stored { bytes: Bytes::from_static(b"old"), revision: 1 };
        let done = guaranteed_update(&storage, "/k", Some(outdated), &mut Outdated).await;
        assert_eq!(done, Ok(Updated::Deleted(3)));
        assert_eq!(storage.get("/k").await, Ok(None));
    }
}
