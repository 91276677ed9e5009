//! Passwords: hashed before they reach the log, compared where a user logs in. Both are slow on
//! purpose, so they run on blocking threads, and only as many at a time as there are cores.

use std::sync::Arc;

use pintle_store_api::{AuthError, WriteError};
use tokio::sync::Semaphore;

use crate::errors;

/// What bcrypt allows, and etcd's default.
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
const COST_DEFAULT: u32 = 10;
/// bcrypt looks at no more of a password.
const PASSWORD_BYTES_MAX: usize = 72;
/// Logins that wait for a core, at some 50 ms each; more are told to come again.
const WAITING_MAX: usize = 256;

/// Hashes and compares.
#[derive(Debug)]
pub(crate) struct Passwords {
    cost: u32,
    workers: Arc<Semaphore>,
    places: Semaphore,
}

impl Passwords {
    /// A cost that bcrypt does not know is replaced by the default.
    pub(crate) fn new(cost: u32) -> Self {
        let known = COSTS.contains(&cost);
        if !known {
            tracing::warn!(cost, default = COST_DEFAULT, "bcrypt knows no such cost");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cost: if known { cost } else { COST_DEFAULT },
            workers: Arc::new(Semaphore::new(cores)),
            places: Semaphore::new(WAITING_MAX),
        }
    }

    /// bcrypt's text for a password.
    pub(crate) async fn hash(&self, password: String) -> Result<String, WriteError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(rejected(AuthError::PasswordTooLong));
        }
        let cost = self.cost;
        let hashed = self.work(move || bcrypt::hash(password, cost)).await?;
        hashed.map_err(|error| WriteError::NotApplied(error.to_string()))
    }

    /// Whether the password is the one that was hashed.
    pub(crate) async fn verify(&self, password: String, hash: &[u8]) -> Result<bool, WriteError> {
        // No text of bcrypt's: a user whose password was set to nothing.
        let Ok(hash) = String::from_utf8(hash.to_vec()) else { return Ok(false) };
        let same = self.work(move || bcrypt::verify(password, &hash)).await?;
        Ok(same.unwrap_or(false))
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WriteError> {
        let not_applied = |message: &str| WriteError::NotApplied(message.to_owned());
        let place = self.places.try_acquire();
        let _place = place.map_err(|_| not_applied(errors::TOO_MANY_REQUESTS))?;
        let worker = Arc::clone(&self.workers).acquire_owned().await;
        let worker = worker.map_err(|_| not_applied(errors::STOPPED))?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(worker);
            done
        });
        done.await.map_err(|error| not_applied(&error.to_string()))
    }
}

fn rejected(error: AuthError) -> WriteError {
    WriteError::Rejected(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash("secret".to_owned()).await.expect("hashed");
        assert!(hash.contains("$04$"), "{hash}");
        assert_eq!(passwords.verify("secret".to_owned(), hash.as_bytes()).await, Ok(true));
        assert_eq!(passwords.verify("Secret".to_owned(), hash.as_bytes()).await, Ok(false));
        assert_eq!(passwords.verify(String::new(), b"").await, Ok(false));
        assert_eq!(passwords.verify(String::new(), b"\xff").await, Ok(false));
    }

    #[tokio::test]
    async fn what_etcd_has_hashed_is_understood() {
        // "password", in the format that golang.org/x/crypto writes.
        let hash = b"$2a$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm";
        let understood = Passwords::new(4).verify("password".to_owned(), hash).await;
        assert_eq!(understood, Ok(true));
    }

    #[tokio::test]
    async fn a_password_is_never_cut() {
        let passwords = Passwords::new(4);
        assert!(passwords.hash("x".repeat(72)).await.is_ok());
        let refused = passwords.hash("x".repeat(73)).await;
        assert_eq!(refused, Err(rejected(AuthError::PasswordTooLong)));
    }

    #[test]
    fn an_unknown_cost_is_the_default() {
        assert_eq!(Passwords::new(3).cost, 10);
        assert_eq!(Passwords::new(32).cost, 10);
        assert_eq!(Passwords::new(31).cost, 31);
    }

    #[tokio::test]
    async fn a_crowd_is_told_to_come_again() {
        let passwords = Passwords::new(4);
        let taken = passwords.places.acquire_many(WAITING_MAX as u32).await.expect("open");
        let refused = passwords.hash("secret".to_owned()).await;
        let busy = WriteError::NotApplied(errors::TOO_MANY_REQUESTS.to_owned());
        assert_eq!(refused, Err(busy));
        drop(taken);
        assert!(passwords.hash("secret".to_owned()).await.is_ok());
    }
}
