//! What authentication and authorization refuse with.
//!
//! The texts are etcd's: a Go client that reads [`AuthError::InvalidToken`] or
//! [`AuthError::OldRevision`] logs in again and repeats its request.

/// Why a user, role or permission cannot be changed, or a request is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// `FailedPrecondition`: authentication cannot be enabled without it.
    #[error("etcdserver: root user does not exist")]
    RootUserNotExist,
    /// `FailedPrecondition`: authentication cannot be enabled without it.
    #[error("etcdserver: root user does not have root role")]
    RootRoleNotExist,
    /// `FailedPrecondition`.
    #[error("etcdserver: user name already exists")]
    UserAlreadyExist,
    /// `InvalidArgument`: also what a request without any credentials gets.
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    /// `FailedPrecondition`.
    #[error("etcdserver: user name not found")]
    UserNotFound,
    /// `FailedPrecondition`.
    #[error("etcdserver: role name already exists")]
    RoleAlreadyExist,
    /// `FailedPrecondition`.
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    /// `InvalidArgument`.
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    /// `InvalidArgument`.
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthFailed,
    /// `InvalidArgument`.
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    /// `PermissionDenied`.
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    /// `FailedPrecondition`.
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    /// `FailedPrecondition`.
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    /// `FailedPrecondition`.
    #[error("etcdserver: authentication is not enabled")]
    NotEnabled,
    /// `Unauthenticated`: unknown, expired or revoked.
    #[error("etcdserver: invalid auth token")]
    InvalidToken,
    /// `InvalidArgument`: it would lock everybody out, or the range is none.
    #[error("etcdserver: invalid auth management")]
    InvalidManagement,
    /// `InvalidArgument`: users or roles have changed since the request was authorized.
    #[error("etcdserver: revision of auth store is old")]
    OldRevision,
    /// `Unknown`.
    #[error("auth: authentication failed, password was given for no password user")]
    NoPasswordUser,
    /// `Unknown`: this member checks tokens but has no key to make them.
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    /// `Unknown`: bcrypt would look at its beginning only.
    #[error("bcrypt: password length exceeds 72 bytes")]
    PasswordTooLong,
}

impl AuthError {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::RootUserNotExist,
        Self::RootRoleNotExist,
        Self::UserAlreadyExist,
        Self::UserEmpty,
        Self::UserNotFound,
        Self::RoleAlreadyExist,
        Self::RoleNotFound,
        Self::RoleEmpty,
        Self::AuthFailed,
        Self::PermissionNotGiven,
        Self::PermissionDenied,
        Self::RoleNotGranted,
        Self::PermissionNotGranted,
        Self::NotEnabled,
        Self::InvalidToken,
        Self::InvalidManagement,
        Self::OldRevision,
        Self::NoPasswordUser,
        Self::VerifyOnly,
        Self::PasswordTooLong,
    ];
}
