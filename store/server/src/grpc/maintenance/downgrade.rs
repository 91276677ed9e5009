//! Downgrades: there is no earlier version of this store that could take over, so every request is
//! refused, each with the error that etcd has for it.

use pintle_store_api::pb;
use pintle_store_api::pb::downgrade_request::DowngradeAction;
use tonic::Status;

/// Why this cannot be done.
pub(super) fn refusal(request: &pb::DowngradeRequest) -> Status {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate | DowngradeAction::Enable) if is_version(&request.version) => {
            Status::invalid_argument("etcdserver: invalid downgrade target version")
        }
        Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
            Status::invalid_argument("etcdserver: wrong downgrade target version format")
        }
        Ok(DowngradeAction::Cancel) => {
            Status::failed_precondition("etcdserver: no inflight downgrade job")
        }
        Err(_) => Status::unknown("etcdserver: unknown method"),
    }
}

/// `MAJOR.MINOR` or `MAJOR.MINOR.PATCH`.
fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    matches!(parts.len(), 2 | 3) && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_downgrade_is_refused_in_etcds_words() {
        use DowngradeAction::{Cancel, Enable, Validate};
        for (action, version, expected) in [
            (Validate, "3.6", "etcdserver: invalid downgrade target version"),
            (Enable, "3.6.0", "etcdserver: invalid downgrade target version"),
            (Validate, "new", "etcdserver: wrong downgrade target version format"),
            (Enable, "", "etcdserver: wrong downgrade target version format"),
            (Cancel, "", "etcdserver: no inflight downgrade job"),
        ] {
            let version = version.to_owned();
            let request = pb::DowngradeRequest { action: action.into(), version };
            assert_eq!(refusal(&request).message(), expected);
        }
    }
}
