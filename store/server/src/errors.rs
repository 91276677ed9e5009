//! The one mapping between the store's errors and gRPC: codes and texts as in etcd's
//! `rpctypes`, because Go clients match on the texts.

use pintle_store_api::{AuthError, ReadError, Rejection, Revision, WatchError, WriteError};
use tonic::{Code, Status};

pub(crate) const NO_LEADER: &str = "etcdserver: no leader";
pub(crate) const NOT_LEADER: &str = "etcdserver: not leader";
pub(crate) const LEADER_CHANGED: &str = "etcdserver: leader changed";
pub(crate) const TIMEOUT: &str = "etcdserver: request timed out";
pub(crate) const UNEXPECTED: &str = "etcdserver: answer to another request";
pub(crate) const STOPPED: &str = "etcdserver: server stopped";
pub(crate) const TOO_MANY_REQUESTS: &str = "etcdserver: too many requests";
pub(crate) const MEMBER_NOT_FOUND: &str = "etcdserver: member not found";

pub(crate) const MEMBER_EXISTS: &str = "etcdserver: member ID already exist";
pub(crate) const MEMBER_BAD_URLS: &str = "etcdserver: given member URLs are invalid";
pub(crate) const NOT_ENOUGH_STARTED: &str =
    "etcdserver: re-configuration failed due to not enough started members";
pub(crate) const UNHEALTHY: &str = "etcdserver: unhealthy cluster";
pub(crate) const PEER_URL_EXISTS: &str = "etcdserver: Peer URLs already exists";
pub(crate) const LEARNER_NOT_READY: &str =
    "etcdserver: can only promote a learner member which is in sync with leader";
pub(crate) const NOT_LEARNER: &str = "etcdserver: can only promote a learner member";
pub(crate) const TOO_MANY_LEARNERS: &str = "etcdserver: too many learner members in cluster";
pub(crate) const NOT_FOR_LEARNER: &str = "etcdserver: rpc not supported for learner";
pub(crate) const BAD_LEADER_TRANSFEREE: &str = "etcdserver: bad leader transferee";

/// The rejections that are a code and a fixed text; [`Rejection::Compacted`] carries more.
const REJECTIONS: [(Rejection, Code); 14] = [
    (Rejection::EmptyKey, Code::InvalidArgument),
    (Rejection::KeyNotFound, Code::InvalidArgument),
    (Rejection::ValueProvided, Code::InvalidArgument),
    (Rejection::LeaseProvided, Code::InvalidArgument),
    (Rejection::TooManyOps, Code::InvalidArgument),
    (Rejection::DuplicateKey, Code::InvalidArgument),
    (Rejection::InvalidSortOption, Code::InvalidArgument),
    (Rejection::Compacted(Revision(0)), Code::OutOfRange),
    (Rejection::FutureRevision, Code::OutOfRange),
    (Rejection::NoSpace, Code::ResourceExhausted),
    (Rejection::LeaseNotFound, Code::NotFound),
    (Rejection::LeaseExists, Code::FailedPrecondition),
    (Rejection::LeaseTtlTooLarge, Code::OutOfRange),
    (Rejection::RequestTooLarge, Code::InvalidArgument),
];

/// A rejection that this store words itself.
pub(crate) fn other(code: Code, message: &str) -> Rejection {
    Rejection::Other { code: code.into(), message: message.to_owned() }
}

pub(crate) fn code(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::Other { code, .. } => return Code::from(*code),
        Rejection::Auth(error) => return auth_code(*error),
        _ => {}
    }
    let same =
        |known: &Rejection| std::mem::discriminant(known) == std::mem::discriminant(rejection);
    REJECTIONS.iter().find(|(known, _)| same(known)).map_or(Code::Unknown, |(_, code)| *code)
}

fn auth_code(error: AuthError) -> Code {
    match error {
        AuthError::RootUserNotExist
        | AuthError::RootRoleNotExist
        | AuthError::UserAlreadyExist
        | AuthError::UserNotFound
        | AuthError::RoleAlreadyExist
        | AuthError::RoleNotFound
        | AuthError::RoleNotGranted
        | AuthError::PermissionNotGranted
        | AuthError::NotEnabled => Code::FailedPrecondition,
        AuthError::UserEmpty
        | AuthError::RoleEmpty
        | AuthError::AuthFailed
        | AuthError::PermissionNotGiven
        | AuthError::InvalidManagement
        | AuthError::OldRevision => Code::InvalidArgument,
        AuthError::PermissionDenied => Code::PermissionDenied,
        AuthError::InvalidToken => Code::Unauthenticated,
        // etcd has no code of its own for these.
        AuthError::NoPasswordUser | AuthError::VerifyOnly | AuthError::PasswordTooLong => {
            Code::Unknown
        }
    }
}

/// The rejection behind a code and a text, as another member or another etcd sent them.
pub(crate) fn rejection(code: Code, message: &str, compacted: Revision) -> Rejection {
    if let Some(error) = AuthError::ALL.into_iter().find(|error| error.to_string() == message) {
        return error.into();
    }
    let known = REJECTIONS.iter().find(|(known, _)| known.to_string() == message);
    match known.map(|(rejection, _)| rejection.clone()) {
        Some(Rejection::Compacted(_)) => Rejection::Compacted(compacted),
        Some(rejection) => rejection,
        None => other(code, message),
    }
}

pub(crate) fn rejected(rejection: &Rejection) -> Status {
    Status::new(code(rejection), rejection.to_string())
}

/// A failure that a retry may mend.
pub(crate) fn transient(message: &str) -> Status {
    let code = match message {
        TOO_MANY_REQUESTS => Code::ResourceExhausted,
        NOT_LEADER => Code::FailedPrecondition,
        _ => Code::Unavailable,
    };
    Status::new(code, message)
}

pub(crate) fn read(error: &ReadError) -> Status {
    match error {
        ReadError::Rejected(rejection) => rejected(rejection),
        ReadError::Unavailable(message) => transient(message),
    }
}

pub(crate) fn write(error: &WriteError) -> Status {
    match error {
        WriteError::Rejected(rejection) => rejected(rejection),
        WriteError::NotApplied(message) | WriteError::Unknown(message) => transient(message),
    }
}

fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Aborted
    )
}

pub(crate) fn read_from(status: &Status) -> ReadError {
    if is_final(status.code()) && status.message() != TOO_MANY_REQUESTS {
        return rejection(status.code(), status.message(), Revision(0)).into();
    }
    ReadError::Unavailable(describe(status))
}

pub(crate) fn write_from(status: &Status) -> WriteError {
    let message = status.message();
    if message == TOO_MANY_REQUESTS || never_sent(status) {
        return WriteError::NotApplied(describe(status));
    }
    if is_final(status.code()) {
        return rejection(status.code(), message, Revision(0)).into();
    }
    WriteError::Unknown(describe(status))
}

/// How etcd words a refusal for lack of rights on a watch stream, where there is no code: Go clients
/// compare the whole text to know that they must log in again.
pub(crate) fn cancel_reason(error: &WatchError) -> String {
    match error {
        WatchError::Rejected(Rejection::Auth(error)) => {
            format!("rpc error: code = {:?} desc = {error}", auth_code(*error))
        }
        other => other.to_string(),
    }
}

/// The text of a cancel reason, without the code that etcd puts before some.
pub(crate) fn without_code(reason: &str) -> &str {
    let worded = reason.strip_prefix("rpc error: code = ");
    worded.and_then(|rest| rest.split_once(" desc = ")).map_or(reason, |(_, text)| text)
}

pub(crate) fn watch_from(status: &Status) -> WatchError {
    match read_from(status) {
        ReadError::Rejected(Rejection::Compacted(at)) => WatchError::Compacted(at),
        ReadError::Rejected(rejection) => WatchError::Rejected(rejection),
        ReadError::Unavailable(message) => WatchError::Unavailable(message),
    }
}

/// The text of a status; of one that the transport made, with what is behind it.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Whether a failed call certainly never reached the other side: no connection could be made, or
/// it was gone before the request was handed to it.
pub(crate) fn never_sent(status: &Status) -> bool {
    let closed = |error: &hyper::Error| error.is_canceled() || error.is_closed();
    is_refused(status) || causes(status).filter_map(|error| error.downcast_ref()).any(closed)
}

/// Whether nobody listened where a call went.
pub(crate) fn is_refused(status: &Status) -> bool {
    let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    causes(status).filter_map(|error| error.downcast_ref()).any(refused)
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_survives_the_wire() {
        for (known, code) in REJECTIONS {
            let status = rejected(&known);
            assert_eq!(status.code(), code);
            assert_eq!(rejection(status.code(), status.message(), Revision(0)), known);
        }
        for error in AuthError::ALL {
            let status = rejected(&error.into());
            assert_eq!(rejection(status.code(), status.message(), Revision(0)), error.into());
        }
    }

    #[test]
    fn overload_is_certainly_not_applied() {
        let error = write_from(&transient(TOO_MANY_REQUESTS));
        assert!(error.certainly_not_applied());
        assert!(!write_from(&transient(TIMEOUT)).certainly_not_applied());
    }
}
