//! The newest [`Auth`] for everybody who answers requests.
//!
//! A read looks twice: when it begins, at the state that is *current*, and when it has read, at
//! the one that was last *announced*. Apply announces a change before it writes the batch that
//! holds it, and makes it current afterwards. So nobody reads a key that was written after the
//! permission to read it was taken away, nor one that was deleted before it was given.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pintle_store_api::AuthError;

use super::{Auth, Authorizer, Caller};

#[derive(Debug)]
pub(crate) struct Published {
    current: ArcSwap<Auth>,
    announced: ArcSwap<Auth>,
}

/// What a request was allowed by, to be confirmed when it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was read counts only once the permit is confirmed"]
pub struct Permit {
    generation: u64,
}

impl Published {
    pub(crate) fn new(auth: Arc<Auth>) -> Self {
        Self { current: ArcSwap::new(Arc::clone(&auth)), announced: ArcSwap::new(auth) }
    }

    pub(crate) fn current(&self) -> Arc<Auth> {
        self.current.load_full()
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.current.load().enabled()
    }

    /// Only the one writer may call this, before it writes.
    pub(crate) fn announce(&self, auth: &Arc<Auth>) {
        self.announced.store(Arc::clone(auth));
    }

    /// Only the one writer may call this, when it has written what it announced.
    pub(crate) fn publish(&self, auth: Arc<Auth>) {
        self.current.store(auth);
    }

    /// Asks `check`, unless authentication is off.
    pub(crate) fn authorize<E>(
        &self,
        caller: Caller<'_>,
        check: impl FnOnce(&Authorizer<'_>) -> Result<(), E>,
    ) -> Result<Permit, E> {
        let auth = self.current.load();
        if auth.enabled() {
            check(&auth.authorizer(caller))?;
        }
        Ok(Permit { generation: auth.generation() })
    }

    /// Whether what was read meanwhile may be given out.
    pub(crate) fn confirm<E: From<AuthError>>(
        &self,
        permit: Permit,
        caller: Caller<'_>,
        check: impl FnOnce(&Authorizer<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let auth = self.announced.load();
        if !auth.enabled() {
            return Ok(());
        }
        if let Caller::User { revision, .. } = caller
            && revision != 0
            && revision != auth.revision()
        {
            return Err(AuthError::OldRevision.into());
        }
        if auth.generation() == permit.generation {
            Ok(())
        } else {
            check(&auth.authorizer(caller))
        }
    }
}

#[cfg(test)]
mod tests {
    use pintle_proto::raft::auth_command::Change;
    use pintle_store_api::pb;

    use super::*;
    use crate::auth::Rows;

    const ROOT: Caller<'_> = Caller::User { name: "root", revision: 3 };

    fn next(auth: &Arc<Auth>, change: Change) -> Arc<Auth> {
        let mut next = Auth::clone(auth);
        next.execute(&change, &mut Rows::default()).expect("accepted");
        Arc::new(next).with_generation(auth.generation() + 1)
    }

    fn with_root() -> Arc<Auth> {
        let name = || "root".to_owned();
        let add = pb::AuthUserAddRequest { name: name(), ..Default::default() };
        let auth = next(&Arc::default(), Change::UserAdd(add));
        let grant = pb::AuthUserGrantRoleRequest { user: name(), role: name() };
        next(&auth, Change::UserGrantRole(grant))
    }

    fn read(authorizer: &Authorizer<'_>) -> Result<(), AuthError> {
        authorizer.read(b"a", b"")
    }

    #[test]
    fn while_it_is_off_nobody_is_asked() {
        let published = Published::new(with_root());
        let never = |_: &Authorizer<'_>| -> Result<(), AuthError> { panic!("asked") };
        let permit = published.authorize(Caller::Anonymous, never).expect("allowed");
        published.confirm(permit, Caller::Anonymous, never).expect("allowed");
    }

    #[test]
    fn a_read_that_overlaps_the_enabling_is_looked_at_again() {
        let off = with_root();
        let published = Published::new(Arc::clone(&off));
        let permit = published.authorize(Caller::Anonymous, read).expect("off");
        let on = next(&off, Change::Enable(pb::AuthEnableRequest {}));
        published.announce(&on);
        assert_eq!(published.confirm(permit, Caller::Anonymous, read), Err(AuthError::UserEmpty));
        assert_eq!(published.confirm(permit, Caller::Server, read), Ok(()));
        let begun_before = published.authorize(Caller::Anonymous, read);
        assert!(begun_before.is_ok(), "not written yet");
        published.publish(on);
        assert_eq!(published.authorize(Caller::Anonymous, read), Err(AuthError::UserEmpty));
    }

    #[test]
    fn a_change_meanwhile_makes_credentials_old() {
        let on = next(&with_root(), Change::Enable(pb::AuthEnableRequest {}));
        let published = Published::new(Arc::clone(&on));
        let permit = published.authorize(ROOT, read).expect("root");
        assert_eq!(published.confirm(permit, ROOT, read), Ok(()));
        let add = pb::AuthRoleAddRequest { name: "r".to_owned() };
        let changed = next(&on, Change::RoleAdd(add));
        published.announce(&changed);
        assert_eq!(published.confirm(permit, ROOT, read), Err(AuthError::OldRevision));
        published.publish(Arc::clone(&changed));
        assert_eq!(published.authorize(ROOT, read), Err(AuthError::OldRevision));
        published.announce(&next(&changed, Change::Disable(pb::AuthDisableRequest {})));
        assert_eq!(published.confirm(permit, ROOT, read), Ok(()), "disabled meanwhile");
    }
}
