//! Who a handle acts for, and what they may do.

use http::HeaderMap;
use pintle_mvcc::{Authorizer, QueryError};
use pintle_store_api::{AuthError, LeaseId, ReadError, Rejection, WatchError, WriteError, pb};
use tonic::Request;

use super::{Handle, as_write, query};
use crate::auth::{Asker, Credentials, Identity};

impl Handle {
    /// The store as the sender of `request` may use it.
    pub(crate) fn on_behalf<T>(&self, request: &Request<T>) -> Self {
        self.on_behalf_of(request.metadata().as_ref(), request.extensions())
    }

    /// The same, of a request that did not come through gRPC.
    pub(crate) fn on_behalf_of(&self, headers: &HeaderMap, extensions: &http::Extensions) -> Self {
        let asker = Asker::Client(Credentials::new(headers, extensions));
        Self { core: self.core.clone(), asker }
    }

    pub(super) async fn identity(&self) -> Result<Identity, Rejection> {
        Ok(self.core.auth.identify(&self.asker).await?)
    }

    /// Whom a write is proposed for. What they may do is decided where it is applied; only those
    /// who show nothing do not get that far.
    pub(super) async fn writer(&self) -> Result<Identity, Rejection> {
        let identity = self.identity().await?;
        self.core.reader().authorize(identity.caller(), |may| may.login()).map(drop)?;
        Ok(identity)
    }

    /// Asks once, for what is no read of keys.
    pub(crate) async fn require(
        &self,
        check: impl FnOnce(&Authorizer<'_>) -> Result<(), AuthError>,
    ) -> Result<(), Rejection> {
        let identity = self.identity().await?;
        self.core.reader().authorize(identity.caller(), check).map(drop)?;
        Ok(())
    }

    /// Carries out `read` if `check` allows it, and gives its answer out if it still does then.
    pub(super) async fn permitted<T>(
        &self,
        check: impl Fn(&Authorizer<'_>) -> Result<(), QueryError>,
        read: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        let identity = self.identity().await?;
        let reader = self.core.reader();
        let permit = reader.authorize(identity.caller(), &check).map_err(query)?;
        let answer = read.await?;
        reader.confirm(permit, identity.caller(), &check).map_err(query)?;
        Ok(answer)
    }

    /// A watch reads its range for as long as it goes on; it is asked for once, as in etcd.
    pub(crate) async fn check_watch_permitted(
        &self,
        request: &pb::WatchCreateRequest,
    ) -> Result<(), WatchError> {
        let permitted = self.require(|may| may.read(&request.key, &request.range_end));
        permitted.await.map_err(WatchError::Rejected)
    }

    /// Keeping a lease alive keeps its keys.
    pub(super) async fn check_lease_permitted(&self, id: LeaseId) -> Result<(), WriteError> {
        let reader = self.core.reader();
        let check = |may: &Authorizer<'_>| {
            may.login()?;
            may.lease_write(id, reader)
        };
        self.permitted(check, std::future::ready(Ok(()))).await.map_err(as_write)
    }
}
