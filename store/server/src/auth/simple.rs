//! Simple tokens: a random name for whoever has logged in, known to every member by the log.
//!
//! A token is `PREFIX.INDEX`, where INDEX is the log entry that made it: a member that is asked
//! about an entry which it has not applied waits for it. Tokens live in memory and end when they
//! were not used for their time to live, when their user's password changes or the user is
//! deleted, when authentication is disabled, and with the process: entries that are replayed
//! after a restart make none, however long ago they were written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use pintle_mvcc::{Outcome, Response};
use pintle_proto::raft::auth_command::Change;
use pintle_proto::raft::command::Kind;
use pintle_proto::raft::{AuthCommand, Command};
use rand::distr::{Alphabetic, SampleString};

/// Letters of a prefix, as in etcd: 2^91 of them.
const PREFIX_LETTERS: usize = 16;
/// Tokens that a member remembers, about 150 bytes each. A login costs its maker a password hash,
/// so that this many within a time to live are an attack or a client that logs in for each
/// request; the tokens that were unused for the longest go then.
const TOKENS_MAX: usize = 65_536;

/// The tokens that this member knows.
pub(crate) struct SimpleTokens {
    tokens: RwLock<HashMap<Box<str>, Token>>,
    ttl_ms: u64,
    epoch: Instant,
    /// Entries up to here were in the log when the process began.
    replayed: u64,
}

impl std::fmt::Debug for SimpleTokens {
    /// Tokens are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimpleTokens").field("ttl_ms", &self.ttl_ms).finish_non_exhaustive()
    }
}

struct Token {
    user: Arc<str>,
    expires_ms: AtomicU64,
}

/// The entry that made the token, if it looks like one.
pub(super) fn index(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    index.parse().ok()
}

/// What a new token begins with.
pub(crate) fn prefix() -> String {
    Alphabetic.sample_string(&mut rand::rng(), PREFIX_LETTERS)
}

impl SimpleTokens {
    pub(crate) fn new(ttl: Duration, replayed: u64) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self { tokens: RwLock::default(), ttl_ms, epoch: Instant::now(), replayed }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whom the token was made for; it lives on for its time to live from now.
    pub(super) fn user(&self, token: &str) -> Option<Arc<str>> {
        self.user_at(token, self.now_ms())
    }

    fn user_at(&self, token: &str, now_ms: u64) -> Option<Arc<str>> {
        let tokens = self.tokens.read();
        let token = tokens.get(token)?;
        if token.expires_ms.load(Ordering::Relaxed) < now_ms {
            return None;
        }
        token.expires_ms.store(now_ms.saturating_add(self.ttl_ms), Ordering::Relaxed);
        Some(Arc::clone(&token.user))
    }

    /// Called by apply for the commands of an entry, before its index is announced. Completes the
    /// name of a token that was made.
    pub(crate) fn applied(&self, index: u64, commands: &[Command], outcomes: &mut [Outcome]) {
        for (command, outcome) in commands.iter().zip(outcomes) {
            let (Some(Kind::Auth(AuthCommand { change: Some(change) })), Ok(response)) =
                (&command.kind, outcome)
            else {
                continue;
            };
            match (change, response) {
                (Change::Authenticate(request), Response::Authenticate(response))
                    if !response.token.is_empty() =>
                {
                    response.token = format!("{}.{index}", response.token);
                    if index > self.replayed {
                        self.insert(&response.token, &request.user, self.now_ms());
                    }
                }
                (Change::UserDelete(request), _) => self.forget(&request.name),
                (Change::UserChangePassword(request), _) => self.forget(&request.name),
                (Change::Disable(_), _) => self.clear(),
                _ => {}
            }
        }
    }

    /// What happened to users meanwhile is not known.
    pub(crate) fn clear(&self) {
        self.tokens.write().clear();
    }

    fn forget(&self, user: &str) {
        self.tokens.write().retain(|_, token| &*token.user != user);
    }

    fn insert(&self, token: &str, user: &str, now_ms: u64) {
        let mut tokens = self.tokens.write();
        if tokens.len() >= TOKENS_MAX || tokens.len() == tokens.capacity() {
            tokens.retain(|_, token| *token.expires_ms.get_mut() >= now_ms);
        }
        if tokens.len() >= TOKENS_MAX {
            drop_oldest(&mut tokens);
        }
        let expires_ms = now_ms.saturating_add(self.ttl_ms).into();
        tokens.insert(token.into(), Token { user: user.into(), expires_ms });
    }
}

/// Makes room by a sixteenth, so that it is not searched for at every login.
fn drop_oldest(tokens: &mut HashMap<Box<str>, Token>) {
    let mut ends: Vec<u64> =
        tokens.values().map(|token| token.expires_ms.load(Ordering::Relaxed)).collect();
    let (_, limit, _) = ends.select_nth_unstable(TOKENS_MAX / 16);
    let mut room = TOKENS_MAX / 16;
    tokens.retain(|_, token| {
        let goes = room > 0 && *token.expires_ms.get_mut() <= *limit;
        room -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use pintle_proto::raft::Authenticate;
    use pintle_store_api::{AuthError, pb};

    use super::*;

    const TTL: Duration = Duration::from_millis(300);

    fn command(change: Change) -> Command {
        let kind = Kind::Auth(AuthCommand { change: Some(change) });
        Command { kind: Some(kind), ..Default::default() }
    }

    fn login(user: &str) -> (Command, Outcome) {
        let request = Authenticate { user: user.into(), token_prefix: "abc".into() };
        let response = pb::AuthenticateResponse { token: "abc".into(), ..Default::default() };
        (command(Change::Authenticate(request)), Ok(Response::Authenticate(response)))
    }

    fn apply(tokens: &SimpleTokens, index: u64, (command, outcome): (Command, Outcome)) -> Outcome {
        let mut outcomes = [outcome];
        tokens.applied(index, &[command], &mut outcomes);
        let [outcome] = outcomes;
        outcome
    }

    #[test]
    fn a_token_names_its_entry_and_its_user() {
        let tokens = SimpleTokens::new(TTL, 0);
        let Ok(Response::Authenticate(made)) = apply(&tokens, 7, login("alice")) else {
            panic!("accepted")
        };
        assert_eq!(made.token, "abc.7");
        assert_eq!(tokens.user("abc.7").as_deref(), Some("alice"));
        assert_eq!(tokens.user("abc.8"), None);
        assert_eq!(index("abc.7"), Some(7));
        assert_eq!(index("abc"), None);
        assert_eq!(index("abc.7.8"), None);
    }

    #[test]
    fn a_token_that_is_used_lives_on() {
        let tokens = SimpleTokens::new(TTL, 0);
        tokens.insert("abc.1", "alice", 0);
        assert!(tokens.user_at("abc.1", 300).is_some());
        assert!(tokens.user_at("abc.1", 600).is_some());
        assert!(tokens.user_at("abc.1", 901).is_none());
    }

    #[test]
    fn what_is_replayed_makes_no_token() {
        let tokens = SimpleTokens::new(TTL, 7);
        assert!(apply(&tokens, 7, login("alice")).is_ok());
        assert_eq!(tokens.user("abc.7"), None);
        assert!(apply(&tokens, 8, login("alice")).is_ok());
        assert!(tokens.user("abc.8").is_some());
    }

    #[test]
    fn changes_of_a_user_end_its_tokens() {
        let name = || "alice".to_owned();
        let delete = Change::UserDelete(pb::AuthUserDeleteRequest { name: name() });
        let password = pb::AuthUserChangePasswordRequest { name: name(), ..Default::default() };
        let password = Change::UserChangePassword(password);
        for change in [delete, password] {
            let tokens = SimpleTokens::new(TTL, 0);
            tokens.insert("abc.1", "alice", 0);
            tokens.insert("def.2", "bob", 0);
            let refused = Err(AuthError::UserNotFound.into());
            apply(&tokens, 3, (command(change.clone()), refused)).expect_err("refused");
            assert!(tokens.user("abc.1").is_some());
            apply(&tokens, 4, (command(change), Ok(Response::Auth(None)))).expect("accepted");
            assert_eq!(tokens.user("abc.1"), None);
            assert!(tokens.user("def.2").is_some());
        }
    }

    #[test]
    fn disabling_ends_all_tokens() {
        let tokens = SimpleTokens::new(TTL, 0);
        tokens.insert("abc.1", "alice", 0);
        let disable = command(Change::Disable(pb::AuthDisableRequest {}));
        apply(&tokens, 2, (disable, Ok(Response::Auth(None)))).expect("accepted");
        assert_eq!(tokens.user("abc.1"), None);
    }

    #[test]
    fn the_longest_unused_tokens_make_room() {
        let tokens = SimpleTokens::new(Duration::from_secs(300), 0);
        for n in 0..TOKENS_MAX {
            tokens.insert(&format!("t.{n}"), "alice", n as u64 / 100);
        }
        tokens.insert("new.0", "bob", 700);
        let known = tokens.tokens.read().len();
        assert_eq!(known, TOKENS_MAX - TOKENS_MAX / 16 + 1);
        assert!(tokens.user_at("new.0", 700).is_some());
        assert!(tokens.user_at("t.0", 700).is_none());
        assert!(tokens.user_at(&format!("t.{}", TOKENS_MAX - 1), 700).is_some());
    }

    #[test]
    fn expired_tokens_make_room_first() {
        let tokens = SimpleTokens::new(Duration::from_millis(10), 0);
        for n in 0..TOKENS_MAX {
            tokens.insert(&format!("t.{n}"), "alice", 0);
        }
        tokens.insert("new.0", "bob", 1_000);
        assert_eq!(tokens.tokens.read().len(), 1);
    }

    #[test]
    fn prefixes_are_letters() {
        let prefix = prefix();
        assert_eq!(prefix.len(), PREFIX_LETTERS);
        assert!(prefix.bytes().all(|letter| letter.is_ascii_alphabetic()), "{prefix}");
        assert_ne!(prefix, super::prefix());
    }
}
